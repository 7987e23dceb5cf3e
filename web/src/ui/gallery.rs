//! The finished pictures that this browser keeps.
//!
//! What is known of each is in memory; files are fetched from the shelf when they are seen. So many tiles are in the document
//! as have been scrolled to.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use js_sys::{Array, Date, Uint8Array};
use kosmosg::protocol::PictureFile;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    BroadcastChannel, Element, HtmlElement, HtmlImageElement, HtmlInputElement, IntersectionObserver,
    IntersectionObserverEntry, IntersectionObserverInit, KeyboardEvent,
};

use super::store::{Change, Shelf, Store};
use super::{Page, codec, dom, editor};
use crate::app::Made;
use crate::carried::{self, Carried};
use crate::gallery::{DELETED_MS, Entry, SMALL_BYTES, UNDO_MS, file_key};
use crate::{js, texts};

mod travel;

/// Tiles that come at once.
const PAGE: usize = 48;
/// Width and height of a picture in small, and its quality.
const SMALL: (u32, f64) = (320, 0.8);
/// Wider pictures are shown with smooth pixels.
const FEW_PIXELS: u32 = 128;
/// Distance from the window's edge at which more tiles come.
const MARGIN: &str = "600px";
/// Where tabs tell each other that something is new.
const CHANNEL: &str = "kosmos-gallery";
/// The key of a picture, in its tile.
const KEY: &str = "data-key";

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
    has_complained: Cell<bool>,
}

impl Page {
    /// Keeps a picture that is just done, and returns its file with all that makes it again.
    pub(super) fn keep_picture(self: &Rc<Self>, made: Made) -> Vec<u8> {
        let Made { png, recipe, order, seconds, place, .. } = made;
        let pictures: Vec<_> = order.pictures.iter().cloned().map(Some).collect();
        let file = carried::write(&png, &recipe, &pictures);
        let page = self.clone();
        spawn_local(async move {
            let entry = Entry { seconds, place: place.into(), ..Entry::of(&recipe, Date::now(), chance()) };
            let bare = carried::write(&png, &recipe, &[]);
            let is_first = page.keeping.gallery.borrow().total().0 == 0;
            page.add(entry, &bare, &pictures).await;
            if is_first && let Ok(promise) = dom::window().navigator().storage().persist() {
                // Whatever the answer is, pictures are kept as long as the browser pleases.
                let _ = JsFuture::from(promise).await;
            }
        });
        file
    }

    /// Puts a picture on the shelf; `false` if the browser does not keep it.
    async fn add(self: &Rc<Self>, mut entry: Entry, png: &[u8], pictures: &[Option<PictureFile>]) -> bool {
        let is_kept = match self.keeping.store().await {
            Ok(store) => match put(&store, &mut entry, png, pictures).await {
                Ok(()) => true,
                Err(why) => {
                    js::log_error(&why);
                    false
                }
            },
            Err(_) => false,
        };
        if is_kept {
            self.keeping.gallery.borrow_mut().put(entry);
            self.show_gallery();
            self.tell_tabs();
        } else if !self.keeping.shown.has_complained.replace(true) {
            self.complain(texts::NOT_KEPT);
        }
        is_kept
    }

    /// A kept picture's file with all that makes it again.
    pub(super) async fn kept_file(&self, id: u64) -> Option<Vec<u8>> {
        let entry = self.keeping.gallery.borrow().get(id)?.clone();
        let store = self.keeping.store().await.ok()?;
        let png = store.bytes(Shelf::Pictures, id as f64).await?;
        let Ok(Some(Carried { recipe, .. })) = carried::read(&png) else { return Some(png) };
        let mut pictures = Vec::new();
        for key in &entry.pictures {
            let file = if key.is_empty() { None } else { store.bytes(Shelf::Files, key.as_str()).await };
            pictures.push(file.map(PictureFile));
        }
        Some(carried::write(&png, &recipe, &pictures))
    }

    /// Changes what is known of a picture, here and on the shelf.
    pub(super) fn change_entry(self: &Rc<Self>, entry: Entry) {
        let change = Shelf::Entries.put(entry.id as f64, json(&entry));
        self.keeping.gallery.borrow_mut().put(entry);
        self.write_gallery(vec![change]);
        self.show_gallery();
    }

    /// Deletes pictures, for now so that they can be brought back.
    pub(super) fn delete_pictures(self: &Rc<Self>, ids: Vec<u64>) {
        if ids.is_empty() {
            return;
        }
        self.mark_deleted(&ids, Some(Date::now()));
        let line = texts::deleted(ids.len());
        dom::set_text(&dom::by_id::<HtmlElement>("undo-line"), &line);
        dom::set_flag(&dom::by_id::<HtmlElement>("undo-bar"), "hidden", false);
        self.tell(&line);
        self.keeping.shown.deleted.replace(ids);
        let page = self.clone();
        spawn_local(async move {
            js::sleep(UNDO_MS as i32).await;
            let overdue = page.keeping.gallery.borrow().overdue(Date::now(), UNDO_MS);
            page.remove_for_good(&overdue);
            let mut deleted = page.keeping.shown.deleted.borrow_mut();
            deleted.retain(|id| !overdue.contains(id));
            if deleted.is_empty() {
                page.hide_undo();
            }
        });
    }

    fn undo_delete(self: &Rc<Self>) {
        let ids = self.keeping.shown.deleted.take();
        self.hide_undo();
        self.mark_deleted(&ids, None);
        if let Some(&id) = ids.first() {
            self.focus_tile(id);
        }
    }

    fn hide_undo(&self) {
        let bar: HtmlElement = dom::by_id("undo-bar");
        if bar.matches(":focus-within").unwrap_or(false) {
            // Focusing cannot fail on an element of the page.
            let _ = dom::by_id::<HtmlElement>("gallery-title").focus();
        }
        dom::set_flag(&bar, "hidden", true);
    }

    fn mark_deleted(self: &Rc<Self>, ids: &[u64], deleted_ms: Option<f64>) {
        let mut changes = Vec::new();
        for id in ids {
            let entry = self.keeping.gallery.borrow().get(*id).cloned();
            if let Some(entry) = entry {
                let entry = Entry { deleted_ms, ..entry };
                changes.push(Shelf::Entries.put(*id as f64, json(&entry)));
                self.keeping.gallery.borrow_mut().put(entry);
            }
        }
        self.write_gallery(changes);
        self.show_gallery();
    }

    fn remove_for_good(self: &Rc<Self>, ids: &[u64]) {
        let mut changes = Vec::new();
        for &id in ids {
            let mut gallery = self.keeping.gallery.borrow_mut();
            let shelves = [Shelf::Entries, Shelf::Pictures, Shelf::Thumbnails];
            changes.extend(shelves.map(|shelf| shelf.remove(id as f64)));
            changes.extend(gallery.pictures_only_in(id).into_iter().map(|key| Shelf::Files.remove(key)));
            gallery.remove(id);
            if let Some(tile) = self.keeping.shown.tiles.borrow_mut().remove(&id) {
                forget_image(&tile);
            }
        }
        self.write_gallery(changes);
        self.show_gallery();
    }

    fn write_gallery(self: &Rc<Self>, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let page = self.clone();
        spawn_local(async move {
            let written = match page.keeping.store().await {
                Ok(store) => store.write(&changes).await,
                Err(why) => Err(why),
            };
            match written {
                Ok(()) => page.tell_tabs(),
                Err(why) => js::log_error(&why),
            }
        });
    }

    /// Reads what is kept.
    pub(super) async fn load_gallery(self: &Rc<Self>) {
        let Ok(store) = self.keeping.store().await else { return };
        let all = store.all(Shelf::Entries).await;
        let entries = all.iter().filter_map(|json| kosmosg::json::read(json.as_string()?.as_bytes()).ok());
        self.keeping.gallery.borrow_mut().set(entries);
        let overdue = self.keeping.gallery.borrow().overdue(Date::now(), DELETED_MS);
        if overdue.is_empty() {
            self.show_gallery();
        } else {
            self.remove_for_good(&overdue);
        }
    }

    fn tell_tabs(&self) {
        if let Some(channel) = self.keeping.shown.channel.get() {
            // A tab that does not hear it sees it when it is opened again.
            let _ = channel.post_message(&JsValue::NULL);
        }
    }

    /// Says that something went wrong; nothing takes it back.
    fn complain(&self, message: &str) {
        let trouble: HtmlElement = dom::by_id("gallery-trouble");
        dom::set_flag(&trouble, "hidden", message.is_empty());
        dom::set_text(&trouble, message);
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
        dom::set_flag(&dom::by_id::<HtmlElement>("gallery-empty"), "hidden", pictures > 0);
        for id in ["gallery-search", "gallery-favourites", "gallery-select", "gallery-export"] {
            dom::set_flag(&dom::by_id::<HtmlElement>(id), "hidden", pictures == 0);
        }
        let selected = gallery.selected.as_ref();
        let count = selected.map_or(0, Vec::len);
        let export: HtmlElement = dom::by_id("gallery-export");
        dom::set_text(&export, &if count > 0 { texts::export_some(count) } else { texts::EXPORT.into() });
        let delete: HtmlElement = dom::by_id("gallery-delete");
        dom::set_flag(&delete, "hidden", count == 0);
        dom::set_text(&delete, &texts::delete_some(count));
        let select: HtmlElement = dom::by_id("gallery-select");
        dom::set_attribute(&select, "aria-pressed", if selected.is_some() { "true" } else { "false" });
        dom::set_text(&select, if selected.is_some() { texts::SELECT_END } else { texts::SELECT });
        let favourites = if gallery.only_favourites { "true" } else { "false" };
        dom::set_attribute(&dom::by_id::<HtmlElement>("gallery-favourites"), "aria-pressed", favourites);
        self.say(&if gallery.is_filtered() { texts::found(keys.len()) } else { String::new() });

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
        if *shown.order.borrow() != keys[..most] {
            let tiles = shown.tiles.borrow();
            let items: Array = keys[..most].iter().filter_map(|id| tiles.get(id)).collect();
            dom::by_id::<HtmlElement>("gallery-list").replace_children_with_node(&items);
            *shown.order.borrow_mut() = keys[..most].to_vec();
        }
        drop(gallery);
        self.rove(shown.current.get());
        if let Some(id) = focused.and_then(|key| key.parse().ok()) {
            self.focus_tile(id);
        }
        let more: HtmlElement = dom::by_id("gallery-more");
        dom::set_flag(&more, "hidden", most == keys.len());
        if let Some(observer) = shown.observer.get() {
            // Observed anew, it is told again whether it is near.
            observer.unobserve(&more);
            observer.observe(&more);
        }
    }

    fn tile(self: &Rc<Self>, entry: &Entry) -> HtmlElement {
        let item: HtmlElement = dom::create("li", "");
        let tile = dom::button("kept", "");
        dom::set_attribute(&tile, KEY, &entry.id.to_string());
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
        shown.current.set(current);
        let tiles = shown.tiles.borrow();
        for (id, item) in tiles.iter() {
            if let Some(tile) = item.first_element_child() {
                dom::set_attribute(&tile, "tabindex", if Some(*id) == current { "0" } else { "-1" });
            }
        }
    }

    pub(super) fn focus_tile(&self, id: u64) {
        let item = self.keeping.shown.tiles.borrow().get(&id).cloned();
        let tile = item.and_then(|item| item.first_element_child());
        if let Some(tile) = tile.and_then(|tile| tile.dyn_into::<HtmlElement>().ok()) {
            self.rove(Some(id));
            // Focusing cannot fail on an element of the page.
            let _ = tile.focus();
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
            let is_on = &mut page.keeping.gallery.borrow_mut().only_favourites;
            *is_on = !*is_on;
        });
        self.on_click("gallery-favourites", Page::show_gallery);
        self.on_click("gallery-select", |page| {
            let selected = &mut page.keeping.gallery.borrow_mut().selected;
            *selected = if selected.is_some() { None } else { Some(Vec::new()) };
        });
        self.on_click("gallery-select", Page::show_gallery);
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

/// Puts a picture on the shelf: what is known of it, its file, in small, and its prompt's pictures.
async fn put(store: &Store, entry: &mut Entry, png: &[u8], pictures: &[Option<PictureFile>]) -> Result<(), String> {
    let mut changes = Vec::new();
    entry.bytes = png.len() as u64;
    for file in pictures {
        let Some(PictureFile(file)) = file else {
            entry.pictures.push(String::new());
            entry.picture_bytes.push(0);
            continue;
        };
        let mut attempt = 0;
        let key = loop {
            let key = file_key(file, attempt);
            match store.bytes(Shelf::Files, key.as_str()).await {
                Some(kept) if kept == *file => break key,
                Some(_) => attempt += 1,
                None => {
                    changes.push(Shelf::Files.put(key.as_str(), Uint8Array::from(file.as_slice())));
                    break key;
                }
            }
        };
        entry.pictures.push(key);
        entry.picture_bytes.push(file.len() as u64);
    }
    let key = entry.id as f64;
    if entry.bytes > SMALL_BYTES
        && let Some(small) = codec::shrink(png, SMALL.0, SMALL.1).await
    {
        entry.bytes += small.len() as u64;
        changes.push(Shelf::Thumbnails.put(key, Uint8Array::from(small.as_slice())));
    }
    changes.push(Shelf::Pictures.put(key, Uint8Array::from(png)));
    changes.push(Shelf::Entries.put(key, json(entry)));
    store.write(&changes).await
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

fn json(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("an entry is plain data")
}

fn chance() -> u64 {
    (js_sys::Math::random() * 1000.0) as u64
}
