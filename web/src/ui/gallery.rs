//! The finished pictures that this browser keeps.
//!
//! What is known of each is in memory; files are fetched from the shelf when they are seen. So many tiles are in the document
//! as have been scrolled to.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use js_sys::Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{
    BroadcastChannel, Element, HtmlElement, HtmlImageElement, HtmlInputElement, IntersectionObserver,
    IntersectionObserverEntry, IntersectionObserverInit, KeyboardEvent,
};

use super::store::Shelf;
use super::{Page, dom, editor};
use crate::gallery::Entry;
use crate::texts;

mod archive;
mod shelf;

/// Tiles that come at once.
const PAGE: usize = 48;
/// Wider pictures are shown with smooth pixels.
pub(super) const FEW_PIXELS: u32 = 128;
/// Distance from the window's edge at which more tiles come.
const MARGIN: &str = "600px";
/// Where tabs tell each other that something is new.
const CHANNEL: &str = "kosmos-gallery";
/// The key of a picture, in its tile and in the dialog that shows it in large.
pub(super) const KEY: &str = "data-key";

/// What of the gallery is in the document.
#[derive(Default)]
pub(super) struct Shown {
    most: Cell<usize>,
    tiles: RefCell<BTreeMap<u64, HtmlElement>>,
    /// The keys in the order of their tiles.
    order: RefCell<Vec<u64>>,
    /// The one that the keyboard comes to.
    current: Cell<Option<u64>>,
    /// Those that were deleted last, and can be brought back.
    deleted: RefCell<Vec<u64>>,
    observer: OnceCell<IntersectionObserver>,
    channel: OnceCell<BroadcastChannel>,
}

impl Page {
    /// Says that this browser does not keep what it should; nothing takes that back.
    pub(super) fn not_kept(&self) {
        dom::show_line("gallery-trouble", texts::NOT_KEPT);
    }

    fn say(&self, message: &str) {
        dom::set_text(&dom::by_id::<HtmlElement>("gallery-line"), message);
    }

    /// Shows the gallery as it is.
    pub(super) fn show_gallery(self: &Rc<Self>) {
        let shown = &self.keeping.shown;
        let gallery = self.keeping.gallery.borrow();
        let (pictures, bytes) = gallery.total();
        let keys = gallery.shown();
        dom::set_text(&dom::by_id::<HtmlElement>("gallery-size"), &texts::gallery_size(pictures, bytes));
        dom::show("gallery-empty", pictures == 0);
        for id in ["gallery-search", "gallery-favourites", "gallery-select", "gallery-export"] {
            dom::show(id, pictures > 0);
        }
        let selected = gallery.selected.as_ref();
        let count = selected.map_or(0, Vec::len);
        let export: HtmlElement = dom::by_id("gallery-export");
        dom::set_text(&export, &if count > 0 { texts::export_some(count) } else { texts::EXPORT.into() });
        let delete: HtmlElement = dom::by_id("gallery-delete");
        dom::show("gallery-delete", count > 0);
        dom::set_text(&delete, &texts::delete_some(count));
        let select: HtmlElement = dom::by_id("gallery-select");
        dom::set_attribute(&select, "aria-pressed", if selected.is_some() { "true" } else { "false" });
        dom::set_text(&select, if selected.is_some() { texts::SELECT_END } else { texts::SELECT });
        let favourites = if gallery.only_favourites { "true" } else { "false" };
        dom::set_attribute(&dom::by_id::<HtmlElement>("gallery-favourites"), "aria-pressed", favourites);
        let found = if gallery.is_filtered() { texts::found(keys.len()) } else { String::new() };
        dom::set_text(&dom::by_id::<HtmlElement>("gallery-found"), &found);

        let most = keys.len().min(shown.most.get());
        for &id in &keys[..most] {
            let Some(entry) = gallery.get(id) else { continue };
            let tile = shown.tiles.borrow().get(&id).cloned();
            let tile = tile.unwrap_or_else(|| {
                let tile = self.tile(entry);
                shown.tiles.borrow_mut().insert(id, tile.clone());
                tile
            });
            dress(&tile, entry, selected);
        }
        let focused = dom::document().active_element().and_then(|element| element.get_attribute(KEY));
        let order = shown.order.replace(keys[..most].to_vec());
        if order != keys[..most] {
            let list: HtmlElement = dom::by_id("gallery-list");
            let tiles = shown.tiles.borrow();
            let items = |keys: &[u64]| keys.iter().filter_map(|id| tiles.get(id)).collect::<Array>();
            match keys[..most].strip_prefix(order.as_slice()) {
                // A new child of an element of the page.
                Some(more) => _ = list.append_with_node(&items(more)),
                None => list.replace_children_with_node(&items(&keys[..most])),
            }
        }
        drop(gallery);
        self.rove(shown.current.get());
        if let Some(id) = focused.and_then(|key| key.parse().ok()) {
            self.focus_tile(id);
        }
        let more: HtmlElement = dom::by_id("gallery-more");
        dom::show("gallery-more", most < keys.len());
        if let Some(observer) = shown.observer.get() {
            // Observed anew, it is told again whether it is near.
            observer.unobserve(&more);
            observer.observe(&more);
        }
    }

    fn tile(self: &Rc<Self>, entry: &Entry) -> HtmlElement {
        let item: HtmlElement = dom::create("li", "");
        let tile = dom::button("tile kept", "");
        dom::set_attribute(&tile, KEY, &entry.id.to_string());
        dom::set_attribute(&tile, "tabindex", "-1");
        let image: HtmlImageElement = dom::create("img", "");
        image.set_alt("");
        dom::set_flag(&image, "data-pixels", entry.width <= FEW_PIXELS);
        tile.append_child(&image).expect("a new element takes children");
        item.append_child(&tile).expect("a new element takes children");
        let (page, id) = (self.clone(), entry.id);
        spawn_local(async move {
            let Ok(store) = page.keeping.store().await else { return };
            let small = match store.bytes(Shelf::Thumbnails, id as f64).await {
                Some(small) => Some(small),
                None => store.bytes(Shelf::Pictures, id as f64).await,
            };
            if let Some(small) = small {
                image.set_src(&dom::address_of(&small, ""));
            }
        });
        item
    }

    /// Has the keyboard come to one tile of all; the arrows lead to the others.
    fn rove(&self, to: Option<u64>) {
        let shown = &self.keeping.shown;
        let order = shown.order.borrow();
        let current = to.filter(|id| order.contains(id)).or(order.first().copied());
        let before = shown.current.replace(current);
        let tiles = shown.tiles.borrow();
        for (id, index) in [(before, "-1"), (current, "0")] {
            if let Some(tile) = id.and_then(|id| tiles.get(&id)?.first_element_child()) {
                dom::set_attribute(&tile, "tabindex", index);
            }
        }
    }

    pub(super) fn focus_tile(&self, id: u64) {
        let item = self.keeping.shown.tiles.borrow().get(&id).cloned();
        let tile = item.and_then(|item| item.first_element_child());
        if let Some(tile) = tile.and_then(|tile| tile.dyn_into::<HtmlElement>().ok()) {
            self.rove(Some(id));
            dom::focus(&tile);
        }
    }

    /// The picture that comes `by` places after another one in what is shown.
    pub(super) fn neighbour(&self, id: u64, by: isize) -> Option<u64> {
        let keys = self.keeping.gallery.borrow().shown();
        let at = keys.iter().position(|key| *key == id)?;
        keys.get(at.checked_add_signed(by)?).copied()
    }

    pub(super) fn listen_to_gallery(self: &Rc<Self>) {
        let page = self.clone();
        let search: HtmlInputElement = dom::by_id("gallery-search");
        let field = search.clone();
        dom::on(&search, "input", move |_: web_sys::Event| {
            page.keeping.gallery.borrow_mut().search(&field.value());
            page.show_gallery();
        });
        self.on_click("gallery-favourites", |page| {
            page.keeping.gallery.borrow_mut().only_favourites ^= true;
            page.show_gallery();
        });
        self.on_click("gallery-select", |page| {
            let is_selecting = page.keeping.gallery.borrow().selected.is_some();
            page.keeping.gallery.borrow_mut().selected = (!is_selecting).then(Vec::new);
            page.show_gallery();
        });
        self.on_click("gallery-more", Page::show_more);
        self.on_click("gallery-delete", |page| {
            let selected = page.keeping.gallery.borrow_mut().selected.take();
            page.delete_pictures(selected.unwrap_or_default());
        });
        self.on_click("bring-back", Page::undo_delete);
        self.on_click("gallery-export", |page| {
            let page = page.clone();
            spawn_local(async move { page.export().await });
        });
        let files: HtmlInputElement = dom::by_id("gallery-files");
        let dialog = files.clone();
        self.on_click("gallery-import", move |_| dialog.click());
        let (page, chosen) = (self.clone(), files.clone());
        dom::on(&files, "change", move |_: web_sys::Event| {
            let (page, files) = (page.clone(), editor::files_of(chosen.files()));
            spawn_local(async move { page.import(files).await });
            chosen.set_value("");
        });

        let list: HtmlElement = dom::by_id("gallery-list");
        let page = self.clone();
        dom::on(&list, "click", move |event: web_sys::Event| {
            if let Some(id) = key_at(&event) {
                page.rove(Some(id));
                page.clicked(id);
            }
        });
        let page = self.clone();
        dom::on(&list, "keydown", move |event: KeyboardEvent| page.step_in_gallery(&event));

        let page = self.clone();
        let seen = Closure::<dyn FnMut(Array)>::new(move |entries: Array| {
            let is_near = |entry: JsValue| entry.unchecked_into::<IntersectionObserverEntry>().is_intersecting();
            if entries.iter().any(is_near) {
                page.show_more();
            }
        });
        let options = IntersectionObserverInit::new();
        options.set_root_margin(MARGIN);
        let observer = IntersectionObserver::new_with_options(seen.as_ref().unchecked_ref(), &options);
        seen.forget();
        if let Ok(observer) = observer {
            // Nobody has set it before.
            let _ = self.keeping.shown.observer.set(observer);
        }
        if let Ok(channel) = BroadcastChannel::new(CHANNEL) {
            let page = self.clone();
            dom::on(&channel, "message", move |_: web_sys::Event| {
                let page = page.clone();
                spawn_local(async move { page.load_gallery().await });
            });
            let _ = self.keeping.shown.channel.set(channel);
        }
    }

    fn show_more(self: &Rc<Self>) {
        let most = &self.keeping.shown.most;
        most.set(most.get() + PAGE);
        self.show_gallery();
    }

    fn clicked(self: &Rc<Self>, id: u64) {
        let is_selecting = match &mut self.keeping.gallery.borrow_mut().selected {
            Some(selected) => {
                match selected.iter().position(|known| *known == id) {
                    Some(at) => _ = selected.swap_remove(at),
                    None => selected.push(id),
                }
                true
            }
            None => false,
        };
        if is_selecting {
            self.show_gallery();
        } else {
            self.open_viewer(id);
        }
    }

    fn step_in_gallery(&self, event: &KeyboardEvent) {
        let (Some(id), order) = (key_at(event), self.keeping.shown.order.borrow()) else { return };
        let Some(at) = order.iter().position(|key| *key == id) else { return };
        let columns = self.columns().max(1);
        let is_right_to_left = dom::document().dir() == "rtl";
        let to = match event.key().as_str() {
            "ArrowLeft" | "ArrowRight" if (event.key() == "ArrowRight") != is_right_to_left => at + 1,
            "ArrowLeft" | "ArrowRight" => at.saturating_sub(1),
            "ArrowDown" => at + columns,
            "ArrowUp" => at.checked_sub(columns).unwrap_or(at),
            "Home" => 0,
            "End" => order.len() - 1,
            _ => return,
        };
        event.prevent_default();
        let to = order[to.min(order.len() - 1)];
        drop(order);
        self.focus_tile(to);
    }

    /// How many tiles stand beside each other.
    fn columns(&self) -> usize {
        let tiles = self.keeping.shown.tiles.borrow();
        let order = self.keeping.shown.order.borrow();
        let mut tops = order.iter().filter_map(|id| tiles.get(id)).map(HtmlElement::offset_top);
        let first = tops.next();
        1 + tops.take_while(|top| Some(*top) == first).count()
    }
}

/// Shows in a tile what is known of its picture.
fn dress(item: &HtmlElement, entry: &Entry, selected: Option<&Vec<u64>>) {
    let Some(tile) = item.first_element_child() else { return };
    let label = texts::tile_label(entry.words.trim(), entry.favourite);
    dom::set_attribute(&tile, "aria-label", &label);
    dom::set_attribute(&tile, "title", entry.words.trim());
    dom::set_flag(&tile, "data-favourite", entry.favourite);
    match selected {
        Some(selected) => {
            let pressed = if selected.contains(&entry.id) { "true" } else { "false" };
            dom::set_attribute(&tile, "aria-pressed", pressed);
        }
        None => dom::set_flag(&tile, "aria-pressed", false),
    }
}

fn forget_image(item: &HtmlElement) {
    if let Ok(Some(image)) = item.query_selector("img")
        && let Some(address) = image.get_attribute("src")
    {
        dom::revoke(&address);
    }
}

fn key_at(event: &web_sys::Event) -> Option<u64> {
    let target: Element = event.target()?.dyn_into().ok()?;
    target.closest(".kept").ok()??.get_attribute(KEY)?.parse().ok()
}
