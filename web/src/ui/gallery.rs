//! The finished pictures that this browser keeps.
//!
//! What is known of each is in memory; files are fetched from the shelf when they are seen.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use wasm_bindgen_futures::spawn_local;
use web_sys::{BroadcastChannel, HtmlElement, HtmlInputElement};

use super::{Page, dom, editor};
use crate::texts;
use tiles::Tiles;

mod archive;
mod shelf;
mod tiles;

/// Wider pictures are shown with smooth pixels.
pub(super) const FEW_PIXELS: u32 = 128;
/// Where tabs tell each other that something is new.
const CHANNEL: &str = "kosmos-gallery";
/// The key of a picture, in its tile and in the dialog that shows it in large.
pub(super) const KEY: &str = "data-key";

/// What of the gallery is shown.
#[derive(Default)]
pub(super) struct Shown {
    tiles: Tiles,
    /// Those that were deleted last, and can be brought back.
    deleted: RefCell<Vec<u64>>,
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
        drop(gallery);
        self.show_tiles(keys);
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
        self.on_click("gallery-delete", |page| {
            let selected = page.keeping.gallery.borrow_mut().selected.take();
            page.delete_pictures(selected.unwrap_or_default());
            // The button that was used has gone with what was selected.
            dom::focus_in_place(&dom::by_id("bring-back"));
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

        self.listen_to_tiles();
        if let Ok(channel) = BroadcastChannel::new(CHANNEL) {
            let page = self.clone();
            dom::on(&channel, "message", move |_: web_sys::Event| {
                let page = page.clone();
                spawn_local(async move { page.load_gallery().await });
            });
            let _ = self.keeping.shown.channel.set(channel);
        }
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
}
