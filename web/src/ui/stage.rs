//! The stage: progress, preview, the pictures, and what to do when there is none.

use std::cell::{Cell, RefCell};

use web_sys::{HtmlAnchorElement, HtmlElement, HtmlImageElement, HtmlInputElement, HtmlProgressElement};

use super::dom;
use super::queue::can_leave_out;
use super::results::Strip;
use crate::app::{App, Choice, Look, Outcome, Phase};
use crate::texts;

/// The stage.
pub struct Stage {
    main: HtmlElement,
    frame: HtmlElement,
    picture: HtmlImageElement,
    other: HtmlImageElement,
    progress: HtmlProgressElement,
    status: HtmlElement,
    remedies: HtmlElement,
    save: HtmlAnchorElement,
    generate: HtmlElement,
    cancel: HtmlElement,
    cut: HtmlInputElement,
    /// The pictures of this visit.
    pub strip: Strip,
    /// Address of the preview of a picture to come.
    preview: RefCell<Option<String>>,
    /// Whether what is being made is looked at.
    is_live: Cell<bool>,
    /// How many quarters of what is being made are done.
    quarter: Cell<usize>,
}

impl Stage {
    /// Takes the stage over; `looks` hears at what the person wants to look.
    pub fn new(looks: impl Fn(Look) + Clone + 'static) -> Self {
        let stage = Self {
            main: dom::by_id("app"),
            frame: dom::by_id("frame"),
            picture: dom::by_id("picture"),
            other: dom::by_id("other"),
            progress: dom::by_id("progress"),
            status: dom::by_id("status"),
            remedies: dom::by_id("remedies"),
            save: dom::by_id("save"),
            generate: dom::by_id("generate"),
            cancel: dom::by_id("cancel"),
            cut: dom::by_id("cut"),
            strip: Strip::new(looks.clone()),
            preview: RefCell::new(None),
            is_live: Cell::new(true),
            quarter: Cell::default(),
        };
        let (frame, cut) = (stage.frame.clone(), stage.cut.clone());
        dom::on(&stage.cut, "input", move |_: web_sys::Event| {
            // A property of this name can always be set.
            let _ = frame.style().set_property("--cut", &format!("{}%", cut.value()));
        });
        dom::on(&dom::by_id::<HtmlElement>("compare"), "click", move |_: web_sys::Event| looks(Look::Compare));
        stage
    }

    /// Shows how things are.
    pub fn show(&self, app: &App, looks: impl Fn(Look) + Clone + 'static) {
        dom::set_attribute(&self.main, "data-state", app.state());
        if let Some(seed) = app.seed() {
            dom::set_attribute(&self.main, "data-seed", &seed.to_string());
        }
        // Steps are told by the progress bar and each quarter in words; reading out each would be a flood of them.
        let is_told_there = app.progress().is_some() && !app.waits_for_server();
        dom::set_attribute(&self.status, "aria-live", if is_told_there { "off" } else { "polite" });
        dom::set_text(&self.status, &app.status());
        let quarter = app.progress().map_or(0, |(step, of)| 4 * step / of);
        if self.quarter.replace(quarter) < quarter && is_told_there {
            dom::tell("told", &app.status());
        }
        dom::show_line("moved", &app.moved().unwrap_or_default());
        dom::show_line("left-out", app.left_out().unwrap_or_default());
        dom::show("leave-out", can_leave_out(app));

        let is_running = *app.phase() == Phase::Running;
        self.offer_cancel(is_running);
        dom::show("progress", is_running);
        match app.progress() {
            Some((step, of)) => self.progress.set_value(step as f64 / of as f64),
            None => dom::set_flag(&self.progress, "value", false),
        }
        if !is_running {
            self.clear_preview();
        }
        self.is_live.set(app.is_live());
        self.strip.show(app, looks);
        self.show_picture(app);
        self.compare(app);
    }

    fn show_picture(&self, app: &App) {
        let is_live = app.is_live();
        let shown = app.results().shown();
        let finished = || Some((self.strip.address(shown?.number)?, shown?.description()));
        let preview =
            self.preview.borrow().clone().filter(|_| is_live).map(|address| (address, texts::LIVE.to_owned()));
        let what = preview.or_else(finished);
        dom::show("picture", what.is_some());
        dom::show("empty", what.is_none());
        if let Some((address, description)) = what {
            dom::set_attribute(&self.picture, "src", &address);
            dom::set_attribute(&self.picture, "alt", &description);
        }
        dom::set_flag(&self.picture, "data-preview", is_live);
        self.show_keep(!is_live && shown.is_some());
        if let Some(shown) = shown {
            dom::set_attribute(&self.save, "href", &self.strip.address(shown.number).unwrap_or_default());
            dom::set_attribute(&self.save, "download", &shown.file_name());
        }
    }

    /// Shows what can be done with a finished picture; where that goes under the keyboard, the focus goes to what comes in
    /// its place.
    fn show_keep(&self, is_shown: bool) {
        let had_focus = !is_shown && dom::has_focus(&dom::by_id::<HtmlElement>("keep"));
        dom::show("keep", is_shown);
        if had_focus {
            dom::focus(self.next_deed());
        }
    }

    /// What there is to do next: to cancel while something is being made, otherwise to make another picture.
    fn next_deed(&self) -> &HtmlElement {
        if self.cancel.has_attribute("hidden") { &self.generate } else { &self.cancel }
    }

    fn compare(&self, app: &App) {
        let results = app.results();
        let pair = results.shown().zip(results.other()).filter(|_| !app.is_live());
        let button: HtmlElement = dom::by_id("compare");
        dom::show("compare", results.list().len() > 1);
        dom::set_text(&button, if pair.is_some() { texts::COMPARE_END } else { texts::COMPARE });
        dom::set_pressed(&button, pair.is_some());
        let was_compared = self.frame.has_attribute("data-compare");
        let had_focus = pair.is_none() && dom::has_focus(&self.cut);
        dom::set_flag(&self.frame, "data-compare", pair.is_some());
        for id in ["other", "cut", "compare-line"] {
            dom::show(id, pair.is_some());
        }
        if had_focus {
            // Which is not to be seen while a picture is being made.
            dom::focus(if button.offset_parent().is_some() { &button } else { self.next_deed() });
        }
        let Some((shown, other)) = pair else { return };
        let (left, right) = (caption(shown, other), caption(other, shown));
        dom::show_line("compare-line", &format!("{} {}", texts::compared(&left, &right), texts::COMPARE_HINT));
        if let Some(address) = self.strip.address(other.number) {
            dom::set_attribute(&self.other, "src", &address);
        }
        dom::set_attribute(&self.other, "alt", &other.description());
        if !was_compared {
            dom::focus(&self.cut);
        }
    }

    /// Offers the places where a failed job can go on.
    pub fn offer(&self, remedies: &[Choice], go_on: impl Fn(Choice) + Clone + 'static) {
        let names: Vec<_> = remedies.iter().map(|choice| choice.name()).collect();
        let names = names.join(" ");
        if self.remedies.get_attribute("data-places").unwrap_or_default() == names {
            return;
        }
        dom::set_attribute(&self.remedies, "data-places", &names);
        let had_focus = dom::has_focus(&self.remedies);
        self.remedies.set_text_content(None);
        if had_focus {
            dom::focus(self.next_deed());
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
        let address = dom::address_of(png, "image/png");
        self.strip.show_preview(Some(&address));
        if self.is_live.get() {
            self.picture.set_src(&address);
        }
        if let Some(before) = self.preview.replace(Some(address)) {
            dom::revoke(&before);
        }
    }

    /// Takes a finished picture's file.
    pub fn add(&self, number: u64, png: &[u8]) {
        self.strip.set_file(number, png);
        // The next preview is that of another picture.
        self.clear_preview();
    }

    fn clear_preview(&self) {
        if let Some(before) = self.preview.take() {
            self.strip.show_preview(None);
            dom::revoke(&before);
        }
    }

    /// Offers to cancel while there is something to cancel; afterwards the focus goes to where another picture comes from.
    fn offer_cancel(&self, is_running: bool) {
        let had_focus = !is_running && dom::has_focus(&self.cancel);
        dom::show("cancel", is_running);
        if had_focus {
            dom::focus(&self.generate);
        }
    }
}

/// A picture as one of two that are compared; what both have in common says nothing.
fn caption(outcome: &Outcome, other: &Outcome) -> String {
    let sentence = Some(&outcome.sentence).filter(|sentence| **sentence != other.sentence);
    let place = Some(&outcome.place).filter(|place| !place.is_empty());
    texts::compared_picture(outcome.number, place.map(String::as_str), sentence.map(String::as_str))
}

fn remedy(choice: Choice) -> &'static str {
    match choice {
        Choice::Auto => texts::TRY_AGAIN,
        Choice::Gpu => texts::GO_ON_GPU,
        Choice::Cpu => texts::GO_ON_CPU,
        Choice::Server => texts::GO_ON_SERVER,
    }
}
