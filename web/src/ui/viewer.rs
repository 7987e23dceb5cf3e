//! A kept picture in large, with its recipe and what can be done with it.

use std::rc::Rc;

use js_sys::{Date, Intl, Reflect};
use kosmosg::prompt::PromptItem;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{HtmlAnchorElement, HtmlDialogElement, HtmlElement, HtmlImageElement, KeyboardEvent};

use super::gallery::{FEW_PIXELS, KEY};
use super::{Page, dom};
use crate::gallery::Entry;
use crate::recipe_file::{self, Carried};
use crate::texts;

impl Page {
    /// Opens a kept picture in large.
    pub(super) fn open_viewer(self: &Rc<Self>, id: u64) {
        let page = self.clone();
        spawn_local(async move {
            let entry = page.keeping.gallery.borrow().get(id).cloned();
            let Some(entry) = entry else { return };
            let png = page.kept_file(id).await;
            page.show_in_viewer(&entry, png);
        });
    }

    fn show_in_viewer(&self, entry: &Entry, png: Option<Vec<u8>>) {
        let dialog = dialog();
        let was = shown(&dialog);
        dom::set_attribute(&dialog, KEY, &entry.id.to_string());
        dom::set_text(&element("viewer-line"), if png.is_some() { "" } else { texts::PICTURE_GONE });
        let carried = png.as_deref().and_then(|png| recipe_file::read(png).ok().flatten());
        for id in ["viewer-use-prompt", "viewer-link"] {
            dom::show(id, carried.is_some());
        }
        for id in ["viewer-save", "viewer-use"] {
            dom::show(id, png.is_some());
        }
        let picture: HtmlImageElement = dom::by_id("viewer-picture");
        let save: HtmlAnchorElement = dom::by_id("viewer-save");
        dom::revoke(&save.href());
        let address = png.as_deref().map_or(String::new(), |png| dom::address_of(png, "image/png"));
        picture.set_src(&address);
        picture.set_alt(&texts::result_label(entry.words.trim()));
        dom::set_flag(&picture, "data-pixels", entry.width <= FEW_PIXELS);
        save.set_href(&address);
        save.set_download(&texts::file_name(entry.seed));
        dom::set_pressed(&element("viewer-favourite"), entry.favourite);
        self.show_leaves(entry.id);
        show_words(entry, carried.as_ref());
        show_settings(entry, carried.as_ref());
        if !dialog.open() {
            // It fails only where it is open already.
            let _ = dialog.show_modal();
        } else if was != Some(entry.id) {
            self.tell(&texts::result_label(entry.words.trim()));
        }
    }

    /// Shows whether there is a picture before and after this one.
    fn show_leaves(&self, id: u64) {
        let leaves = [("viewer-previous", -1), ("viewer-next", 1)];
        let leaves = leaves.map(|(name, by)| (element(name), self.neighbour(id, by).is_some()));
        let had_focus = leaves.iter().any(|(leaf, is_of_use)| !is_of_use && dom::has_focus(leaf));
        for (leaf, is_of_use) in &leaves {
            dom::set_flag(leaf, "disabled", !is_of_use);
        }
        if had_focus {
            // Without the focus, the dialog hears no keys.
            let other = leaves.into_iter().find(|(_, is_of_use)| *is_of_use).map(|(leaf, _)| leaf);
            dom::focus(&other.unwrap_or_else(|| element("viewer-close")));
        }
    }

    fn close_viewer(&self) {
        dialog().close();
    }

    /// Does something with the picture that is shown.
    fn with_viewed(self: &Rc<Self>, deed: impl FnOnce(&Rc<Self>, Entry, Option<Vec<u8>>) + 'static) {
        let Some(id) = shown(&dialog()) else { return };
        let page = self.clone();
        spawn_local(async move {
            let entry = page.keeping.gallery.borrow().get(id).cloned();
            let png = page.kept_file(id).await;
            if let Some(entry) = entry {
                deed(&page, entry, png);
            }
        });
    }

    fn leaf(self: &Rc<Self>, by: isize) {
        if let Some(id) = shown(&dialog()).and_then(|id| self.neighbour(id, by)) {
            self.open_viewer(id);
        }
    }

    pub(super) fn listen_to_viewer(self: &Rc<Self>) {
        let page = self.clone();
        dom::on(&dialog(), "keydown", move |event: KeyboardEvent| {
            // What keys do to the page beneath, they do not do from here.
            event.stop_propagation();
            match event.key().as_str() {
                "ArrowLeft" => page.leaf(-1),
                "ArrowRight" => page.leaf(1),
                _ => {}
            }
        });
        // Where browsers do not know `closedby`: the dialog is its own backdrop.
        let page = self.clone();
        dom::on(&dialog(), "click", move |event: web_sys::Event| {
            let target = event.target().and_then(|target| target.dyn_into::<HtmlDialogElement>().ok());
            if target.is_some() {
                page.close_viewer();
            }
        });
        let page = self.clone();
        dom::on(&dialog(), "close", move |_: web_sys::Event| {
            if let Some(id) = shown(&dialog()) {
                page.focus_tile(id);
            }
        });
        self.on_click("viewer-close", |page| page.close_viewer());
        self.on_click("viewer-previous", |page| page.leaf(-1));
        self.on_click("viewer-next", |page| page.leaf(1));
        self.on_click("viewer-favourite", |page| {
            page.with_viewed(|page, entry, png| {
                let entry = Entry { favourite: !entry.favourite, ..entry };
                page.change_entry(entry.clone());
                page.show_in_viewer(&entry, png);
            });
        });
        self.on_click("viewer-use-prompt", |page| {
            page.with_viewed(|page, _, png| {
                let Ok(Some(carried)) = recipe_file::read(&png.unwrap_or_default()) else { return };
                dom::set_flag(&dialog(), KEY, false);
                page.close_viewer();
                match page.restorable(&carried) {
                    Ok((composition, differences)) => page.restore(&composition, &differences),
                    Err(why) => page.ask(&why, None, None),
                }
                dom::by_id::<HtmlElement>("prompt").scroll_into_view();
            });
        });
        self.on_click("viewer-use", |page| {
            page.with_viewed(|page, _, png| {
                if let Some(png) = png {
                    let bare = recipe_file::without_pictures(&png);
                    let image = page.editor.pictures.add(texts::RESULT, "image/png", bare);
                    dom::set_flag(&dialog(), KEY, false);
                    page.close_viewer();
                    page.editor.insert(image);
                    dom::by_id::<HtmlElement>("prompt").scroll_into_view();
                    page.editor.focus();
                }
            });
        });
        self.on_click("viewer-link", |page| {
            page.with_viewed(|page, _, png| {
                dom::set_flag(&dialog(), KEY, false);
                page.close_viewer();
                page.copy_link(&png.unwrap_or_default());
            });
        });
        self.on_click("viewer-delete", |page| {
            let Some(id) = shown(&dialog()) else { return };
            let next = page.neighbour(id, 1).or_else(|| page.neighbour(id, -1));
            match next {
                Some(next) => dom::set_attribute(&dialog(), KEY, &next.to_string()),
                None => dom::set_flag(&dialog(), KEY, false),
            }
            page.close_viewer();
            page.delete_pictures(vec![id]);
        });
    }
}

/// The prompt: words, and its pictures between them.
fn show_words(entry: &Entry, carried: Option<&Carried>) {
    let shown = element("viewer-words");
    if let Ok(images) = shown.query_selector_all("img") {
        for image in (0..images.length()).filter_map(|i| images.get(i)?.dyn_into::<HtmlImageElement>().ok()) {
            dom::revoke(&image.src());
        }
    }
    dom::set_text(&shown, if carried.is_some() { "" } else { &entry.words });
    let Some(Carried { recipe, pictures }) = carried else { return };
    for item in recipe.prompt.items() {
        // A new child of an element of the page.
        let _ = match item {
            PromptItem::Text(words) => shown.append_with_str_1(words),
            PromptItem::Image(place) => match pictures.get(place.picture).and_then(Option::as_ref) {
                Some(file) => {
                    let image: HtmlImageElement = dom::create("img", "");
                    image.set_alt(&texts::picture_label(&place.name));
                    image.set_title(&place.name);
                    image.set_src(&dom::address_of(&file.0, "image/png"));
                    shown.append_with_node_1(&image)
                }
                None => shown.append_with_str_1(&format!("[{}]", texts::missing_name(&place.name))),
            },
        };
    }
}

fn show_settings(entry: &Entry, carried: Option<&Carried>) {
    let list = element("viewer-settings");
    list.set_text_content(None);
    let row = |name: &str, value: &str| {
        if value.is_empty() {
            return;
        }
        for (tag, text) in [("dt", name), ("dd", value)] {
            let cell: HtmlElement = dom::create(tag, "");
            dom::set_text(&cell, text);
            // A new child of an element of the page.
            let _ = list.append_child(&cell);
        }
    };
    row(texts::MADE, &texts::made(&time(entry.made_ms), entry.seconds, &entry.place));
    row(texts::SEED, &entry.seed.to_string());
    if let Some(Carried { recipe, .. }) = carried {
        row(texts::STEPS, &recipe.steps.to_string());
        row(texts::GUIDANCE, &recipe.guidance.to_string());
        row(texts::SAMPLER, recipe.sampler.label());
        row(texts::NEGATIVE, &recipe.negative);
        row(texts::MODEL, &recipe.model);
    }
    let pictures: u64 = entry.picture_bytes.iter().sum();
    row(texts::TAKES, &texts::size(entry.bytes + pictures));
}

/// A time as people here write it.
fn time(ms: f64) -> String {
    let options = js_sys::Object::new();
    for (name, value) in [("dateStyle", "medium"), ("timeStyle", "short")] {
        // Setting a property of an ordinary object does not fail.
        let _ = Reflect::set(&options, &name.into(), &value.into());
    }
    let format = Intl::DateTimeFormat::new(&js_sys::Array::new(), &options);
    let text = format.format().call1(&JsValue::NULL, &Date::new(&ms.into()));
    text.ok().and_then(|text| text.as_string()).unwrap_or_default()
}

fn shown(dialog: &HtmlDialogElement) -> Option<u64> {
    dialog.get_attribute(KEY)?.parse().ok()
}

fn dialog() -> HtmlDialogElement {
    dom::by_id("viewer")
}

fn element(id: &str) -> HtmlElement {
    dom::by_id(id)
}
