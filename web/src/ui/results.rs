//! The pictures of this visit: their files, and the strip in which one is chosen.

use std::cell::RefCell;

use web_sys::{Event, HtmlElement, HtmlImageElement, KeyboardEvent};

use super::dom;
use crate::app::{App, Look, Outcome, Phase};
use crate::texts;

/// The files of the pictures, as the browser holds them, and their strip.
pub struct Strip {
    strip: HtmlElement,
    live: HtmlElement,
    live_image: HtmlImageElement,
    /// The newest first, as in the strip.
    tiles: RefCell<Vec<Tile>>,
    addresses: RefCell<Vec<(u64, String)>>,
}

struct Tile {
    number: u64,
    button: HtmlElement,
}

impl Strip {
    /// Takes the strip over; `looks` hears at what the person wants to look.
    pub fn new(looks: impl Fn(Look) + Clone + 'static) -> Self {
        let strip: HtmlElement = dom::by_id("results");
        let (live, live_image) = tile(texts::LIVE);
        live.set_id("live");
        strip.append_child(&live).expect("an element of the page takes children");
        let look = looks.clone();
        dom::on(&live, "click", move |_: Event| look(Look::Live));
        let keys = strip.clone();
        dom::on(&strip, "keydown", move |event: KeyboardEvent| {
            let Some(look) = wanted(&keys, &event) else { return };
            event.prevent_default();
            looks(look);
            if let Ok(Some(current)) = keys.query_selector("[aria-current]")
                && let Ok(current) = wasm_bindgen::JsCast::dyn_into::<HtmlElement>(current)
            {
                dom::focus(&current);
            }
        });
        Self { strip, live, live_image, tiles: RefCell::default(), addresses: RefCell::default() }
    }

    /// Takes a picture's file.
    pub fn set_file(&self, number: u64, png: &[u8]) {
        self.addresses.borrow_mut().push((number, dom::address_of(png, "image/png")));
    }

    /// Lets go of a picture.
    pub fn forget(&self, number: u64) {
        self.addresses.borrow_mut().retain(|(known, address)| {
            if *known == number {
                dom::revoke(address);
            }
            *known != number
        });
    }

    /// Where a picture's file is.
    pub fn address(&self, number: u64) -> Option<String> {
        self.addresses.borrow().iter().find(|(known, _)| *known == number).map(|(_, address)| address.clone())
    }

    /// Shows the picture that is being made as it is by now.
    pub fn show_preview(&self, address: Option<&str>) {
        dom::set_flag(&self.live_image, "hidden", address.is_none());
        if let Some(address) = address {
            self.live_image.set_src(address);
        }
    }

    /// Shows which pictures there are, and which of them is looked at.
    pub fn show(&self, app: &App, looks: impl Fn(Look) + Clone + 'static) {
        let results = app.results();
        let runs = *app.phase() == Phase::Running;
        let kept = |number| results.list().iter().any(|outcome| outcome.number == number);
        let mut tiles = self.tiles.borrow_mut();
        tiles.retain(|tile| {
            let is_kept = kept(tile.number);
            if !is_kept {
                tile.button.remove();
            }
            is_kept
        });
        let newest = tiles.first().map_or(0, |tile| tile.number);
        for outcome in results.list().iter().rev().filter(|outcome| outcome.number > newest) {
            let tile = self.tile(outcome, looks.clone());
            let after = tiles.first().map(|tile| tile.button.clone());
            self.strip
                .insert_before(&tile.button, after.as_deref().map(AsRef::as_ref))
                .expect("an element of the page takes children");
            tiles.insert(0, tile);
        }
        let live = app.is_live();
        let shown = results.shown().map(|outcome| outcome.number).filter(|_| !live);
        let other = results.other().map(|outcome| outcome.number);
        let had_focus = !runs && dom::has_focus(&self.live);
        dom::show("live", runs);
        mark(&self.live, live);
        for tile in tiles.iter() {
            mark(&tile.button, Some(tile.number) == shown);
            dom::set_flag(&tile.button, "data-other", Some(tile.number) == other);
        }
        if had_focus && let Some(tile) = tiles.iter().find(|tile| Some(tile.number) == shown) {
            dom::focus(&tile.button);
        }
        // One picture alone is on the stage already.
        dom::show("results", tiles.len() + usize::from(runs) > 1);
    }

    fn tile(&self, outcome: &Outcome, looks: impl Fn(Look) + 'static) -> Tile {
        let (button, image) = tile(&texts::result_number(outcome.number, &outcome.description()));
        let number = outcome.number;
        dom::set_attribute(&button, "data-number", &number.to_string());
        if let Some(address) = self.address(number) {
            image.set_src(&address);
        }
        dom::on(&button, "click", move |_: Event| looks(Look::At(number)));
        Tile { number, button }
    }
}

/// Which picture keys ask for.
fn wanted(strip: &HtmlElement, event: &KeyboardEvent) -> Option<Look> {
    if event.ctrl_key() || event.meta_key() || event.alt_key() || event.shift_key() {
        return None;
    }
    let forward = match event.key().as_str() {
        "ArrowRight" => !dom::is_right_to_left(strip),
        "ArrowLeft" => dom::is_right_to_left(strip),
        _ => return None,
    };
    let is_first = |css| strip.query_selector(css).ok().flatten().is_some();
    Some(match forward {
        // The strip begins with the picture that is being made.
        true if is_first("#live[aria-current]") => number_of_first(strip).map_or(Look::Live, Look::At),
        true => Look::Older,
        false if is_first("#live:not([hidden]) + [aria-current]") => Look::Live,
        false => Look::Newer,
    })
}

fn number_of_first(strip: &HtmlElement) -> Option<u64> {
    let first = strip.query_selector("[data-number]").ok()??;
    first.get_attribute("data-number")?.parse().ok()
}

fn tile(label: &str) -> (HtmlElement, HtmlImageElement) {
    let button = dom::button("tile", "");
    dom::set_attribute(&button, "aria-label", label);
    let image: HtmlImageElement = dom::create("img", "");
    image.set_alt("");
    button.append_child(&image).expect("a new element takes children");
    (button, image)
}

/// Only the one that is looked at is reached with the tabulator; arrow keys go on from there.
fn mark(tile: &HtmlElement, is_current: bool) {
    if is_current {
        dom::set_attribute(tile, "aria-current", "true");
    } else {
        dom::set_flag(tile, "aria-current", false);
    }
    dom::set_attribute(tile, "tabindex", if is_current { "0" } else { "-1" });
}
