//! What outlives a visit: the sentence and the job of a tab, over a reload and until another tab takes them over.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use js_sys::{Date, Promise, Uint8Array};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::PictureFile;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, future_to_promise, spawn_local};
use web_sys::{HtmlElement, Storage};

use super::store::{Change, Shelf, Store};
use super::{Page, device, dom, models, server, tab};
use crate::app::{Event, Order, Save, SavedJob, Saver};
use crate::composition::{Composition, Dials};
use crate::gallery::{Gallery, file_key};
use crate::js;

/// What the tab remembers its sentence under.
const DRAFT: &str = "draft";
/// A pause in writing after which the sentence is kept.
const PAUSE_MS: i32 = 300;
/// How long a job that is taken up waits for the server to say how it is.
const SERVER_MS: i32 = 3000;

/// What is kept, and what is known of it.
pub struct Keeping {
    /// Answers with the database.
    store: RefCell<Promise>,
    /// The tab's name, once it has one.
    tab: RefCell<Option<String>>,
    saver: RefCell<Saver>,
    /// The sentence as it was last kept.
    draft: RefCell<String>,
    /// Keys of those of its pictures that are kept.
    pictures: RefCell<Vec<String>>,
    /// Whether the person has done something with the sentence, or has only found it there.
    is_own: Cell<bool>,
    is_waiting: Cell<bool>,
    /// What the person is asked whether to restore.
    pub(super) offered: RefCell<Option<(Composition, Vec<String>)>>,
    /// The finished pictures.
    pub(super) gallery: RefCell<Gallery>,
    pub(super) shown: super::gallery::Shown,
}

/// A tab's sentence and settings; its pictures are on a shelf, by these keys.
#[derive(Serialize, Deserialize)]
struct Kept {
    prompt: PromptDocument,
    pictures: Vec<String>,
    dials: Dials,
    /// See [`Keeping::is_own`].
    #[serde(default)]
    is_own: bool,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            store: RefCell::new(opening()),
            tab: RefCell::default(),
            saver: RefCell::default(),
            draft: RefCell::default(),
            pictures: RefCell::default(),
            is_own: Cell::default(),
            is_waiting: Cell::default(),
            offered: RefCell::default(),
            gallery: RefCell::default(),
            shown: Default::default(),
        }
    }
}

impl Keeping {
    /// The database, or why there is none. One that was closed is opened again.
    pub(super) async fn store(&self) -> Result<Store, String> {
        let opened = async || {
            let promise = self.store.borrow().clone();
            JsFuture::from(promise).await.unwrap_or_else(|why| why).dyn_into().map(Store::new)
        };
        let mut store = opened().await;
        if store.as_ref().is_ok_and(Store::is_closed) {
            *self.store.borrow_mut() = opening();
            store = opened().await;
        }
        store.map_err(|why| js::text_of(&why))
    }

    /// Writes all of the changes, or none, and tries once more: the database may have been closed in the middle.
    ///
    /// # Errors
    /// What the browser says, for people.
    pub(super) async fn write(&self, changes: &[Change]) -> Result<(), String> {
        let written = self.store().await?.write(changes).await;
        if written.is_ok() { written } else { self.store().await?.write(changes).await }
    }
}

fn opening() -> Promise {
    // What is refused is an answer too: a promise that fails before somebody waits for it is an error of the page.
    future_to_promise(async { Ok(Store::open().await.map_or_else(|why| why, JsValue::from)) })
}

impl Page {
    /// Brings the tab's sentence and job back, or those of a tab that is closed; `has_link` says that a link is about to bring
    /// another sentence, for which a new tab takes nothing over.
    pub(super) async fn reopen(self: &Rc<Self>, has_link: bool) {
        let store = self.keeping.store().await.ok();
        let is_free = tab::known().is_none() && !has_link && self.editor.is_fresh();
        let left = match &store {
            Some(store) if is_free => tabs_with_sentence(store).await,
            _ => Vec::new(),
        };
        let (name, before) = tab::claim(&left).await;
        *self.keeping.tab.borrow_mut() = Some(name.clone());
        if let Some(Kept { prompt, pictures, dials, is_own }) = kept_draft(store.as_ref(), &before).await {
            self.keeping.is_own.set(is_own);
            let mut files = Vec::new();
            for key in &pictures {
                let file = match &store {
                    Some(store) => store.bytes(Shelf::Tabs, format!("{before} {key}")).await,
                    None => None,
                };
                files.push(file.map(PictureFile));
            }
            // Those of a tab that was duplicated are kept anew.
            if before == name {
                self.keeping.pictures.borrow_mut().extend(pictures);
            }
            // The person may have been faster.
            if let (Ok(composition), true) =
                (Composition { prompt, pictures: files, dials }.checked(), self.editor.is_fresh())
            {
                self.compose(&composition, true);
            }
        }
        self.watch_draft();
        if let Some(store) = store {
            let job = saved_job(&store, &name).await.map(Box::new);
            let waiting = store.get(Shelf::Tabs, waiting_key(&name)).await.and_then(|json| json.as_string());
            let waiting =
                waiting.and_then(|json| kosmosg::json::read::<Vec<Order>>(json.as_bytes()).ok()).unwrap_or_default();
            if job.is_none() && waiting.is_empty() {
                self.look_after_job();
            } else {
                self.resume(job, waiting).await;
            }
            self.tidy_tabs(&store, &name).await;
        }
    }

    async fn resume(self: &Rc<Self>, job: Option<Box<SavedJob>>, waiting: Vec<Order>) {
        // Where it can go on shows when it is known what there is.
        let adapter = device::gpu().await.ok().as_ref().map(device::adapter);
        self.happened(Event::Device { adapter, cpu_memory_bytes: device::cpu_memory_bytes() });
        let (health, patience) = (server::health(), js::sleep(SERVER_MS));
        futures::pin_mut!(health, patience);
        if let futures::future::Either::Left((Some(health), _)) = futures::future::select(health, patience).await {
            self.happened(Event::Server(Some(health)));
        }
        self.happened(Event::Resume { job, waiting });
    }

    /// Writes down what is new of the job.
    pub(super) fn look_after_job(self: &Rc<Self>) {
        let Some(tab) = self.keeping.tab.borrow().clone() else { return };
        let saves = self.keeping.saver.borrow_mut().look(&self.app.borrow(), js::now_ms());
        let mut changes: Vec<Change> = Vec::new();
        for save in saves {
            let [order, condition, progress] = job_keys(&tab);
            match save {
                Save::Order(json) => {
                    // A sentence of which a picture is made is the person's, though it was only found there.
                    self.keeping.is_own.set(true);
                    self.keep_draft_soon();
                    changes.push(Shelf::Tabs.remove(condition));
                    changes.push(Shelf::Tabs.put(order, json));
                }
                Save::Condition(json) => changes.push(Shelf::Tabs.put(condition, json)),
                Save::Progress(json) => changes.push(Shelf::Tabs.put(progress, json)),
                Save::Waiting(json) => changes.push(Shelf::Tabs.put(waiting_key(&tab), json)),
                Save::Over => changes.extend([order, condition, progress].map(|key| Shelf::Tabs.remove(key))),
            }
        }
        if !changes.is_empty() {
            let page = self.clone();
            spawn_local(async move { _ = page.write(changes).await });
        }
    }

    /// Writes what is to outlive a reload; `false` if there is no room. Where nothing is kept at all, the first finished
    /// picture says so.
    async fn write(&self, changes: Vec<Change>) -> bool {
        if self.keeping.store().await.is_err() {
            return true;
        }
        let written = self.keeping.write(&changes).await;
        if let Err(why) = &written {
            js::log_error(why);
            self.not_kept();
        }
        written.is_ok()
    }

    /// Removes what closed tabs have left behind, and pictures that this tab's sentence has no more.
    async fn tidy_tabs(self: &Rc<Self>, store: &Store, own: &str) {
        let mut changes = vec![Shelf::Tabs.put(used_key(own), Date::now())];
        let (mut known, mut is_forgotten) = (own.to_owned(), false);
        for key in store.keys(Shelf::Tabs).await.iter().filter_map(|key| key.as_string()) {
            let Some((name, what)) = key.split_once(' ') else { continue };
            // The keys are sorted: a tab's come together.
            if name != known {
                let used = store.get(Shelf::Tabs, used_key(name)).await.and_then(|ms| ms.as_f64());
                (known, is_forgotten) = (name.to_owned(), name != own && tab::is_forgotten(name, used).await);
            }
            let is_kept = || self.keeping.pictures.borrow().iter().any(|key| key == what);
            if is_forgotten || name == own && what.contains('-') && !is_kept() {
                changes.push(Shelf::Tabs.remove(key.as_str()));
            }
        }
        // It is tried again at the next visit.
        let _ = store.write(&changes).await;
    }

    /// Keeps the sentence whenever it or a setting has changed.
    fn watch_draft(self: &Rc<Self>) {
        let app: HtmlElement = dom::by_id("app");
        for event in ["input", "change", "click"] {
            let page = self.clone();
            dom::on(&app, event, move |_: web_sys::Event| page.keep_draft_soon());
        }
        let page = self.clone();
        dom::on(&dom::window(), "pagehide", move |_: web_sys::Event| {
            page.keep_draft();
            // It ends because the person wants it.
            if page.app.borrow().models().loading.is_some() {
                models::mark_loading(None);
            }
        });
        let page = self.clone();
        dom::on_change_within(&dom::by_id::<HtmlElement>("prompt"), move || page.keep_draft_soon());
        self.keep_draft_soon();
    }

    fn keep_draft_soon(self: &Rc<Self>) {
        if self.keeping.is_waiting.replace(true) {
            return;
        }
        let page = self.clone();
        spawn_local(async move {
            js::sleep(PAUSE_MS).await;
            page.keeping.is_waiting.set(false);
            page.keep_draft();
        });
    }

    fn keep_draft(self: &Rc<Self>) {
        let Some(tab) = self.keeping.tab.borrow().clone() else { return };
        let draft = self.editor.draft();
        let (prompt, numbers) = draft.numbered();
        let files = self.editor.pictures.files(&numbers);
        let pictures: Vec<String> = files.iter().map(|file| file_key(&file.0, 0)).collect();
        let is_own = self.keeping.is_own.get() || !self.editor.is_fresh();
        self.keeping.is_own.set(is_own);
        let dials = self.controls.dials();
        let json = serde_json::to_string(&Kept { prompt, pictures: pictures.clone(), dials, is_own });
        let json = json.unwrap_or_default();
        if self.keeping.draft.replace(json.clone()) == json {
            return;
        }
        if let Some(memory) = tab::memory() {
            // A full or forbidden storage only means that the sentence does not outlive a reload.
            let _ = Storage::set_item(&memory, DRAFT, &json);
        }
        let mut changes = match draft.is_blank() {
            _ if !is_own => Vec::new(),
            true => vec![Shelf::Tabs.remove(draft_key(&tab))],
            false => vec![Shelf::Tabs.put(draft_key(&tab), json), Shelf::Tabs.put(used_key(&tab), Date::now())],
        };
        let mut keys = Vec::new();
        for (key, file) in pictures.into_iter().zip(files) {
            if !self.keeping.pictures.borrow().contains(&key) {
                self.keeping.pictures.borrow_mut().push(key.clone());
                changes.push(Shelf::Tabs.put(format!("{tab} {key}"), Uint8Array::from(file.0.as_slice())));
                keys.push(key);
            }
        }
        if changes.is_empty() {
            return;
        }
        let page = self.clone();
        spawn_local(async move {
            if !page.write(changes).await {
                // It is tried again when the person does something.
                page.keeping.pictures.borrow_mut().retain(|key| !keys.contains(key));
                page.keeping.draft.take();
            }
        });
    }
}

/// Keys of the parts of a tab's job.
fn job_keys(tab: &str) -> [String; 3] {
    ["order", "condition", "progress"].map(|part| format!("{tab} {part}"))
}

/// Key of a tab's sentence, for when the tab is closed and another one takes it over.
fn draft_key(tab: &str) -> String {
    format!("{tab} {DRAFT}")
}

/// The names of tabs that have a sentence of the person's, the one that was used last first; some of them are open.
async fn tabs_with_sentence(store: &Store) -> Vec<String> {
    let mut tabs = Vec::new();
    for key in store.keys(Shelf::Tabs).await.iter().filter_map(|key| key.as_string()) {
        if let Some((name, DRAFT)) = key.split_once(' ') {
            let used = store.get(Shelf::Tabs, used_key(name)).await.and_then(|ms| ms.as_f64());
            tabs.push((used.unwrap_or_default(), name.to_owned()));
        }
    }
    tabs.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    tabs.into_iter().map(|(_, name)| name).collect()
}

/// The sentence that this tab remembers, or else the one that is kept under a tab's name.
async fn kept_draft(store: Option<&Store>, tab: &str) -> Option<Kept> {
    let remembered = tab::memory().and_then(|memory| memory.get_item(DRAFT).ok().flatten());
    let json = match (remembered, store) {
        (Some(json), _) => json,
        (None, Some(store)) => store.get(Shelf::Tabs, draft_key(tab)).await?.as_string()?,
        (None, None) => return None,
    };
    kosmosg::json::read(json.as_bytes()).ok()
}

/// Key of the time at which a page last took the tab's name, or kept its sentence.
fn used_key(tab: &str) -> String {
    format!("{tab} used")
}

fn waiting_key(tab: &str) -> String {
    format!("{tab} waiting")
}

async fn saved_job(store: &Store, tab: &str) -> Option<SavedJob> {
    let [order, condition, progress] = job_keys(tab);
    let order = store.get(Shelf::Tabs, order).await?.as_string()?;
    let condition = store.get(Shelf::Tabs, condition).await.and_then(|json| json.as_string());
    let progress = store.get(Shelf::Tabs, progress).await?.as_string()?;
    SavedJob::from_json(&order, condition.as_deref(), &progress)
}
