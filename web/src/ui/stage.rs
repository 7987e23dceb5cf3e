//! The stage: progress, preview, the picture, and what to do when there is none.

use std::cell::{Cell, RefCell};

use web_sys::{HtmlAnchorElement, HtmlElement, HtmlImageElement, HtmlProgressElement};

use super::dom;
use crate::app::{App, Choice, Phase};
use crate::texts;

/// The stage.
pub struct Stage {
    main: HtmlElement,
    picture: HtmlImageElement,
    empty: HtmlElement,
    progress: HtmlProgressElement,
    status: HtmlElement,
    moved: HtmlElement,
    remedies: HtmlElement,
    keep: HtmlElement,
    save: HtmlAnchorElement,
    generate: HtmlElement,
    cancel: HtmlElement,
    /// The picture's file as it can be saved, and its address.
    file: RefCell<Option<(Vec<u8>, String)>>,
    /// Address of what is shown.
    shown: RefCell<Option<String>>,
    /// Whether that is the preview of a picture to come.
    is_preview: Cell<bool>,
}

impl Stage {
    /// Takes the stage over.
    pub fn new() -> Self {
        Self {
            main: dom::by_id("app"),
            picture: dom::by_id("picture"),
            empty: dom::by_id("empty"),
            progress: dom::by_id("progress"),
            status: dom::by_id("status"),
            moved: dom::by_id("moved"),
            remedies: dom::by_id("remedies"),
            keep: dom::by_id("keep"),
            save: dom::by_id("save"),
            generate: dom::by_id("generate"),
            cancel: dom::by_id("cancel"),
            file: RefCell::new(None),
            shown: RefCell::new(None),
            is_preview: Cell::new(false),
        }
    }

    /// Shows how things are.
    pub fn show(&self, app: &App) {
        dom::set_attribute(&self.main, "data-state", app.state());
        if let Some(seed) = app.seed() {
            dom::set_attribute(&self.main, "data-seed", &seed.to_string());
        }
        // Steps are told by the progress bar; reading out each would be a flood of words.
        let is_told_there = app.progress().is_some() && !app.waits_for_server();
        dom::set_attribute(&self.status, "aria-live", if is_told_there { "off" } else { "polite" });
        dom::set_text(&self.status, &app.status());
        let moved = app.moved();
        dom::set_flag(&self.moved, "hidden", moved.is_none());
        dom::set_text(&self.moved, &moved.unwrap_or_default());

        let is_running = *app.phase() == Phase::Running;
        self.swap_buttons(is_running);
        dom::set_flag(&self.progress, "hidden", !is_running);
        match app.progress() {
            Some((step, of)) => self.progress.set_value(step as f64 / of as f64),
            None => dom::set_flag(&self.progress, "value", false),
        }
        if !is_running && self.is_preview.get() {
            self.restore();
        }
        dom::set_flag(&self.keep, "hidden", is_running || self.file.borrow().is_none());
        dom::set_flag(&self.picture, "data-preview", is_running);
    }

    /// Offers the places where a failed job can go on.
    pub fn offer(&self, remedies: &[Choice], go_on: impl Fn(Choice) + Clone + 'static) {
        let names: Vec<_> = remedies.iter().map(|choice| choice.name()).collect();
        let names = names.join(" ");
        if self.remedies.get_attribute("data-places").unwrap_or_default() == names {
            return;
        }
        dom::set_attribute(&self.remedies, "data-places", &names);
        let had_focus = self.remedies.matches(":focus-within").unwrap_or(false);
        self.remedies.set_text_content(None);
        if had_focus {
            let next = if self.cancel.has_attribute("hidden") { &self.generate } else { &self.cancel };
            // Focusing cannot fail on an element of the page.
            let _ = next.focus();
        }
        for &choice in remedies {
            let button = dom::button("quiet", remedy(choice));
            button.set_id(&format!("go-on-{}", choice.name()));
            let go_on = go_on.clone();
            dom::on(&button, "click", move |_: web_sys::Event| go_on(choice));
            self.remedies.append_child(&button).expect("an element of the page takes children");
        }
    }

    /// Shows a preview.
    pub fn show_preview(&self, png: &[u8]) {
        self.show_png(png);
        self.is_preview.set(true);
    }

    /// Shows the picture; `description` is for those who do not see it.
    pub fn show_picture(&self, png: Vec<u8>, description: &str, seed: u64) {
        self.show_png(&png);
        self.picture.set_alt(description);
        self.save.set_download(&texts::file_name(seed));
        self.set_file(png);
    }

    /// Takes another file of the same picture for saving.
    pub fn set_file(&self, png: Vec<u8>) {
        let address = dom::address_of(&png, "image/png");
        self.save.set_href(&address);
        if let Some((_, before)) = self.file.replace(Some((png, address))) {
            dom::revoke(&before);
        }
    }

    /// The picture's file.
    pub fn file(&self) -> Option<Vec<u8>> {
        self.file.borrow().as_ref().map(|(png, _)| png.clone())
    }

    /// Puts the last finished picture, if there is one, in the place of a preview that nothing came of.
    fn restore(&self) {
        match self.file() {
            Some(png) => self.show_png(&png),
            None => {
                self.is_preview.set(false);
                dom::set_flag(&self.picture, "hidden", true);
                dom::set_flag(&self.empty, "hidden", false);
            }
        }
    }

    fn show_png(&self, png: &[u8]) {
        let address = dom::address_of(png, "image/png");
        self.picture.set_src(&address);
        self.is_preview.set(false);
        dom::set_flag(&self.picture, "hidden", false);
        dom::set_flag(&self.empty, "hidden", true);
        if let Some(before) = self.shown.replace(Some(address)) {
            dom::revoke(&before);
        }
    }

    /// The one button takes the other's place, and its focus.
    fn swap_buttons(&self, is_running: bool) {
        let (shown, hidden) = if is_running { (&self.cancel, &self.generate) } else { (&self.generate, &self.cancel) };
        let had_focus = hidden.matches(":focus").unwrap_or(false);
        dom::set_flag(shown, "hidden", false);
        dom::set_flag(hidden, "hidden", true);
        if had_focus {
            // Focusing cannot fail on an element of the page.
            let _ = shown.focus();
        }
    }
}

fn remedy(choice: Choice) -> &'static str {
    match choice {
        Choice::Auto => texts::TRY_AGAIN,
        Choice::Gpu => texts::GO_ON_GPU,
        Choice::Cpu => texts::GO_ON_CPU,
        Choice::Server => texts::GO_ON_SERVER,
    }
}
