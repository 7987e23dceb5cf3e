//! Kept pictures on the shelf: what comes there, what is changed, and what goes.

use std::rc::Rc;

use js_sys::{Date, Uint8Array};
use kosmosg::protocol::PictureFile;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::HtmlElement;

use super::super::store::{Change, Shelf, Store};
use super::super::{Page, codec, dom};
use crate::app::{Event, Made};
use crate::gallery::{DELETED_MS, Entry, SMALL_BYTES, UNDO_MS, file_key};
use crate::recipe_file::{self, Carried};
use crate::{js, texts};

/// Width and height of a picture in small, and its quality.
const SMALL: (u32, f64) = (320, 0.8);

impl Page {
    /// Keeps a picture that is just done, and returns its file with all that makes it again.
    pub(in super::super) fn keep_picture(self: &Rc<Self>, made: Made) -> Vec<u8> {
        let Made { png, recipe, order, seconds, place, .. } = made;
        let pictures: Vec<_> = order.pictures.iter().cloned().map(Some).collect();
        let file = recipe_file::write(&png, &recipe, &pictures);
        let page = self.clone();
        spawn_local(async move {
            let bare = recipe_file::write(&png, &recipe, &[]);
            let entry = Entry { seconds, place: place.into(), ..Entry::of(&recipe, &bare, Date::now(), chance()) };
            let is_first = page.keeping.gallery.borrow().total().0 == 0;
            page.add(entry, &bare, &pictures).await;
            page.happened(Event::Stored);
            if is_first && let Ok(promise) = dom::window().navigator().storage().persist() {
                // Whatever the answer is, pictures are kept as long as the browser pleases.
                let _ = JsFuture::from(promise).await;
            }
        });
        file
    }

    /// Puts a picture on the shelf; `false` if the browser does not keep it.
    pub(super) async fn add(self: &Rc<Self>, mut entry: Entry, png: &[u8], pictures: &[Option<PictureFile>]) -> bool {
        let written = match self.keeping.store().await {
            Ok(store) => self.keeping.write(&changes_for(&store, &mut entry, png, pictures).await).await,
            Err(why) => Err(why),
        };
        match &written {
            Ok(()) => {
                self.keeping.gallery.borrow_mut().put(entry);
                self.show_gallery();
                self.tell_tabs();
            }
            Err(why) => {
                js::log_error(why);
                self.not_kept();
            }
        }
        written.is_ok()
    }

    /// A kept picture's file with all that makes it again.
    pub(in super::super) async fn kept_file(&self, id: u64) -> Option<Vec<u8>> {
        let entry = self.keeping.gallery.borrow().get(id)?.clone();
        let store = self.keeping.store().await.ok()?;
        let png = store.bytes(Shelf::Pictures, id as f64).await?;
        let Ok(Some(Carried { recipe, .. })) = recipe_file::read(&png) else { return Some(png) };
        let mut pictures = Vec::new();
        for key in &entry.pictures {
            let file = if key.is_empty() { None } else { store.bytes(Shelf::Files, key.as_str()).await };
            pictures.push(file.map(PictureFile));
        }
        Some(recipe_file::write(&png, &recipe, &pictures))
    }

    /// Changes what is known of a picture, here and on the shelf.
    pub(in super::super) fn change_entry(self: &Rc<Self>, entry: Entry) {
        let change = Shelf::Entries.put(entry.id as f64, json(&entry));
        self.keeping.gallery.borrow_mut().put(entry);
        self.write_gallery(vec![change]);
        self.show_gallery();
    }

    /// Deletes pictures, for now so that they can be brought back.
    pub(in super::super) fn delete_pictures(self: &Rc<Self>, ids: Vec<u64>) {
        if ids.is_empty() {
            return;
        }
        self.mark_deleted(&ids, Some(Date::now()));
        self.tell(&texts::deleted(ids.len()));
        self.keeping.shown.deleted.borrow_mut().extend(ids);
        self.show_undo();
        let page = self.clone();
        spawn_local(async move {
            js::sleep(UNDO_MS as i32).await;
            let overdue = page.keeping.gallery.borrow().overdue(Date::now(), UNDO_MS);
            page.remove_for_good(&overdue);
            page.keeping.shown.deleted.borrow_mut().retain(|id| !overdue.contains(id));
            page.show_undo();
        });
    }

    pub(in super::super) fn undo_delete(self: &Rc<Self>) {
        let ids = self.keeping.shown.deleted.take();
        self.show_undo();
        self.mark_deleted(&ids, None);
        if let Some(&id) = ids.first() {
            self.focus_tile(id);
        }
    }

    /// Says how many pictures can be brought back, while there are any.
    fn show_undo(&self) {
        let count = self.keeping.shown.deleted.borrow().len();
        if count == 0 && dom::has_focus(&dom::by_id::<HtmlElement>("undo-bar")) {
            dom::focus(&dom::by_id("gallery-title"));
        }
        dom::show("undo-bar", count > 0);
        dom::set_text(&dom::by_id::<HtmlElement>("undo-line"), &texts::deleted(count));
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
            match page.keeping.write(&changes).await {
                Ok(()) => page.tell_tabs(),
                Err(why) => js::log_error(&why),
            }
        });
    }

    /// Reads what is kept.
    pub(in super::super) async fn load_gallery(self: &Rc<Self>) {
        let Ok(store) = self.keeping.store().await else { return };
        // What cannot be read now is there all the same, and so is what is shown.
        let Ok(all) = store.all(Shelf::Entries).await else { return };
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
}

/// What puts a picture on the shelf: what is known of it, its file, in small, and its prompt's pictures.
async fn changes_for(store: &Store, entry: &mut Entry, png: &[u8], pictures: &[Option<PictureFile>]) -> Vec<Change> {
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
    changes
}

fn json(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("an entry is plain data")
}

pub(super) fn chance() -> u64 {
    (js_sys::Math::random() * 1000.0) as u64
}
