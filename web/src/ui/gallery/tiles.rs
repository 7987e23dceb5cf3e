//! The gallery's tiles. Only those near the window are in the document, so that thousands weigh no more than a few.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Element, HtmlElement, HtmlImageElement, KeyboardEvent, ResizeObserver, ScrollBehavior, ScrollToOptions};

use super::super::store::Shelf;
use super::super::{Page, dom};
use super::{FEW_PIXELS, KEY};
use crate::gallery::{Grid, SMALL_BYTES};
use crate::texts;

/// How far outside of the window tiles still are in the document, in pixels.
const MARGIN: f64 = 800.0;

/// What of the gallery is in the document.
#[derive(Default)]
pub(super) struct Tiles {
    /// The keys of all pictures that are shown, in their order.
    order: RefCell<Vec<u64>>,
    /// Those of them that are in the document.
    near: RefCell<Vec<Tile>>,
    /// The one that the keyboard was at.
    current: Cell<Option<u64>>,
}

#[derive(Clone)]
struct Tile {
    id: u64,
    item: HtmlElement,
    button: HtmlElement,
}

impl Page {
    /// Shows these pictures as they are, and no others.
    pub(super) fn show_tiles(self: &Rc<Self>, keys: Vec<u64>) {
        self.keeping.shown.tiles.order.replace(keys);
        self.arrange_tiles();
        let Tiles { order, near, .. } = &self.keeping.shown.tiles;
        let (order, near) = (order.borrow(), near.borrow());
        let first = order.iter().position(|id| near.first().is_some_and(|tile| tile.id == *id));
        for (tile, at) in near.iter().zip(first.unwrap_or(0)..) {
            self.dress(tile, at, order.len());
        }
    }

    /// Puts those tiles into the document that are near the window, and takes out the others.
    fn arrange_tiles(self: &Rc<Self>) {
        let Tiles { order, near, current } = &self.keeping.shown.tiles;
        let (order, list) = (order.borrow(), list());
        let Some(grid) = grid_of(&list) else { return };
        let top = -list.get_bounding_client_rect().top();
        let rows = grid.rows_between(order.len(), top - MARGIN, top + window_height() + MARGIN);
        let range = grid.of_rows(&rows, order.len());
        let keys = &order[range.clone()];
        if !near.borrow().iter().map(|tile| &tile.id).eq(keys) {
            let had_focus = dom::has_focus(&list);
            let (stay, leave): (Vec<_>, Vec<_>) = near.take().into_iter().partition(|tile| keys.contains(&tile.id));
            leave.iter().for_each(Tile::leave);
            // Those that stay keep their order.
            let mut stay = stay.into_iter().peekable();
            let place = |(&id, at)| {
                stay.next_if(|tile| tile.id == id).unwrap_or_else(|| {
                    let tile = self.tile(id);
                    self.dress(&tile, at, order.len());
                    let next = stay.peek().map(|tile| tile.item.as_ref());
                    list.insert_before(&tile.item, next).expect("an element of the page takes children");
                    tile
                })
            };
            near.replace(keys.iter().zip(range).map(place).collect());
            if had_focus && !dom::has_focus(&list) {
                // From there the keys lead back to the tile that has left.
                dom::focus_in_place(&list);
            }
            self.rove(current.get());
        }
        let (above, below) = grid.room_around(&rows, order.len());
        for (side, room) in [("padding-top", above), ("padding-bottom", below)] {
            list.style().set_property(side, &format!("{room}px")).expect("lengths are valid there");
        }
    }

    fn tile(self: &Rc<Self>, id: u64) -> Tile {
        let item: HtmlElement = dom::create("li", "");
        let button = dom::button("tile kept", "");
        dom::set_attribute(&button, KEY, &id.to_string());
        let image: HtmlImageElement = dom::create("img", "");
        image.set_alt("");
        let (width, bytes) = self.keeping.gallery.borrow().get(id).map_or((0, 0), |entry| (entry.width, entry.bytes));
        dom::set_flag(&image, "data-pixels", width <= FEW_PIXELS);
        button.append_child(&image).expect("a new element takes children");
        item.append_child(&button).expect("a new element takes children");
        let page = self.clone();
        spawn_local(async move {
            let Ok(store) = page.keeping.store().await else { return };
            let mut small = None;
            if bytes > SMALL_BYTES {
                small = store.bytes(Shelf::Thumbnails, id as f64).await;
            }
            if small.is_none() {
                small = store.bytes(Shelf::Pictures, id as f64).await;
            }
            // By now the tile may have left.
            if let Some(small) = small.filter(|_| image.is_connected()) {
                image.set_src(&dom::address_of(&small, ""));
            }
        });
        Tile { id, item, button }
    }

    /// Shows in a tile, the `at`-th of so many, what is known of its picture.
    fn dress(&self, Tile { id, item, button }: &Tile, at: usize, count: usize) {
        dom::set_attribute(item, "aria-posinset", &(at + 1).to_string());
        dom::set_attribute(item, "aria-setsize", &count.to_string());
        let gallery = self.keeping.gallery.borrow();
        let Some(entry) = gallery.get(*id) else { return };
        dom::set_attribute(button, "aria-label", &texts::tile_label(entry.words.trim(), entry.favourite));
        dom::set_attribute(button, "title", entry.words.trim());
        dom::set_flag(button, "data-favourite", entry.favourite);
        match &gallery.selected {
            Some(selected) => {
                let pressed = if selected.contains(id) { "true" } else { "false" };
                dom::set_attribute(button, "aria-pressed", pressed);
            }
            None => dom::set_flag(button, "aria-pressed", false),
        }
    }

    /// Has the keyboard come to one tile of all; the arrows lead to the others.
    pub(super) fn rove(&self, to: Option<u64>) {
        let Tiles { near, current, .. } = &self.keeping.shown.tiles;
        let near = near.borrow();
        let reached = near.iter().find(|tile| Some(tile.id) == to).or(near.first()).map(|tile| tile.id);
        current.set(to.or(reached));
        for tile in near.iter() {
            dom::set_attribute(&tile.button, "tabindex", if Some(tile.id) == reached { "0" } else { "-1" });
        }
    }

    /// Brings the keyboard to the tile of a picture, wherever it is.
    pub(in super::super) fn focus_tile(self: &Rc<Self>, id: u64) {
        let Some(at) = self.keeping.shown.tiles.order.borrow().iter().position(|key| *key == id) else { return };
        self.rove(Some(id));
        let tile = || self.keeping.shown.tiles.near.borrow().iter().find(|tile| tile.id == id).cloned();
        if tile().is_none() {
            scroll_to(at);
            self.arrange_tiles();
        }
        if let Some(tile) = tile() {
            dom::focus(&tile.button);
        }
    }

    pub(super) fn listen_to_tiles(self: &Rc<Self>) {
        let list = list();
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
        dom::on(&dom::document(), "scroll", move |_: web_sys::Event| page.arrange_tiles());
        let page = self.clone();
        dom::on(&dom::window(), "resize", move |_: web_sys::Event| page.arrange_tiles());
        // What comes and goes above the gallery moves it.
        let page = self.clone();
        let moved = Closure::<dyn FnMut()>::new(move || page.arrange_tiles());
        if let (Ok(observer), Some(body)) =
            (ResizeObserver::new(moved.as_ref().unchecked_ref()), dom::document().body())
        {
            observer.observe(&body);
        }
        moved.forget();
    }

    fn step_in_gallery(self: &Rc<Self>, event: &KeyboardEvent) {
        let Tiles { order, current, .. } = &self.keeping.shown.tiles;
        let order = order.borrow();
        let Some(id) = key_at(event).or(current.get()) else { return };
        let Some(at) = order.iter().position(|key| *key == id) else { return };
        let columns = grid_of(&list()).map_or(1, |grid| grid.columns);
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
}

impl Tile {
    /// Leaves the document, and lets go of its picture.
    fn leave(&self) {
        self.item.remove();
        if let Ok(Some(image)) = self.item.query_selector("img")
            && let Some(address) = image.get_attribute("src")
        {
            dom::revoke(&address);
        }
    }
}

fn list() -> HtmlElement {
    dom::by_id("gallery-list")
}

/// How the list lays its tiles out; none while it is not shown.
fn grid_of(list: &HtmlElement) -> Option<Grid> {
    let style = dom::window().get_computed_style(list).ok()??;
    let value = |name| style.get_property_value(name).ok();
    Grid::of(&value("grid-template-columns")?, &value("row-gap")?)
}

fn window_height() -> f64 {
    dom::window().inner_height().ok().and_then(|height| height.as_f64()).unwrap_or_default()
}

/// Brings the row of a tile into the middle of the window.
fn scroll_to(at: usize) {
    let list = list();
    let Some(grid) = grid_of(&list) else { return };
    let row = at / grid.columns;
    let (above, _) = grid.room_around(&(row..row + 1), at + 1);
    let options = ScrollToOptions::new();
    options.set_behavior(ScrollBehavior::Instant);
    options.set_top(
        dom::window().scroll_y().unwrap_or_default() + list.get_bounding_client_rect().top() + above
            - window_height() / 2.0,
    );
    dom::window().scroll_to_with_scroll_to_options(&options);
}

fn key_at(event: &web_sys::Event) -> Option<u64> {
    let target: Element = event.target()?.dyn_into().ok()?;
    target.closest(".kept").ok()??.get_attribute(KEY)?.parse().ok()
}
