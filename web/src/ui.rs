//! The interface on the main thread: it turns what the person and the browser do into [`Event`]s, and carries out the
//! [`Effect`]s.

use std::cell::RefCell;
use std::rc::Rc;

use kosmosg::bundle::{MANIFEST, Manifest};
use kosmosg::protocol::BundleEntry;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{HtmlElement, HtmlInputElement, UiEvent, UrlSearchParams};

use crate::app::{App, BUNDLE, Choice, Effect, Event, Offer, Order, Phase, Processor, Refusal};
use crate::messages::{Request, Supply};
use crate::{js, texts};

use controls::Controls;
use editor::Editor;
use link::Link;
use models::ModelsPanel;
use palette::Palette;
use retouch::RetouchDialog;
use stage::Stage;

mod bitmap;
mod controls;
mod device;
mod dom;
mod editor;
mod hooks;
mod link;
mod models;
mod palette;
mod pictures;
mod region;
mod retouch;
mod server;
mod stage;

/// Name of the worker that keeps the models.
const KEEPER: &str = "keeper";
/// Time before the server is asked what has become of a job, so that it is not asked without pause.
const PAUSE_MS: i32 = 1000;

/// Starts the page; `assets` is the address of the folder of its programs.
#[wasm_bindgen]
pub fn start(assets: String) {
    std::panic::set_hook(Box::new(|panic| js::log_error(&panic.to_string())));
    let page = Rc::new_cyclic(|page: &std::rc::Weak<Page>| {
        let of = |page: &std::rc::Weak<Page>| page.clone();
        let (submit, refused, inserted, creature, chosen) = (of(page), of(page), of(page), of(page), of(page));
        let (wished, no_address) = (of(page), of(page));
        let changed = of(page);
        let events = editor::Events {
            submit: Box::new(move || with(&submit, Page::make)),
            refused: Box::new(move |message| with(&refused, |page| page.notify(message))),
            inserted: Box::new(move |message| with(&inserted, |page| page.tell(message))),
            creature: Box::new(move |number| with(&creature, |page| page.insert_creature(number))),
            change: Box::new(move |unit| with(&changed, |page| page.retouch.open(unit))),
        };
        let editor = Editor::new(dom::by_id("prompt"), events);
        Page {
            app: RefCell::default(),
            assets,
            retouch: RetouchDialog::new(editor.clone()),
            editor,
            palette: Rc::default(),
            controls: Controls::new(move |choice| with(&chosen, |page| page.happened(Event::Choose(choice)))),
            stage: Stage::new(),
            models: ModelsPanel::new(
                move |deed| with(&wished, |page| page.happened(Event::Model(deed))),
                move |message| with(&no_address, |page| page.notify(message)),
            ),
            links: RefCell::default(),
            keeper: RefCell::default(),
            following: RefCell::new(None),
        }
    });
    page.listen();
    page.open();
    hooks::install(&page);
}

/// The page.
pub struct Page {
    app: RefCell<App>,
    assets: String,
    editor: Rc<Editor>,
    retouch: Rc<RetouchDialog>,
    palette: Rc<Palette>,
    controls: Controls,
    stage: Stage,
    models: Rc<ModelsPanel>,
    links: RefCell<[Option<Link>; 2]>,
    /// The worker that keeps the models.
    keeper: RefCell<Option<Link>>,
    /// The server's job whose events are heard.
    following: RefCell<Option<(String, server::Events)>>,
}

impl Page {
    /// Takes an event, and does what follows from it.
    fn happened(self: &Rc<Self>, event: Event) {
        let effects = self.app.borrow_mut().update(js::now_ms(), event);
        for effect in effects {
            self.perform(effect);
        }
        // Nobody listens to a job that is over, given up or elsewhere.
        self.following.borrow_mut().take_if(|(id, _)| !self.app.borrow().follows(id));
        self.show();
    }

    fn show(self: &Rc<Self>) {
        let app = self.app.borrow();
        self.stage.show(&app);
        self.controls.show(&app);
        self.models.show(&app);
        dom::set_flag(&dom::by_id::<HtmlElement>("pairing"), "hidden", !app.is_stranger());
        let remedies = match app.phase() {
            Phase::Failed { remedies, .. } => remedies.as_slice(),
            _ => &[],
        };
        let page = self.clone();
        self.stage.offer(remedies, move |choice| page.happened(Event::GoOn(choice)));
    }

    fn perform(self: &Rc<Self>, effect: Effect) {
        let page = self.clone();
        match effect {
            Effect::Start(processor) => self.start_worker(processor),
            Effect::Stop(processor) => self.links.borrow_mut()[processor as usize] = None,
            Effect::Send { processor, message, data } => {
                if let Some(link) = &self.links.borrow()[processor as usize] {
                    link.send(&message, data, &[]);
                }
            }
            Effect::StartKeeper => self.start_keeper(),
            Effect::StopKeeper => *self.keeper.borrow_mut() = None,
            Effect::Keep(message) => {
                let files = match &message.body {
                    Request::Install { supply: Supply::Files, .. } => self.models.files(),
                    _ => Vec::new(),
                };
                if let Some(keeper) = &*self.keeper.borrow() {
                    keeper.send(&message, Vec::new(), &files);
                }
            }
            Effect::OpenBuiltIn => spawn_local(async move { page.open_built_in().await }),
            Effect::ShowDefaults(manifest) => self.controls.set_defaults(&manifest),
            Effect::RememberModel(key) => models::remember(key.as_deref()),
            Effect::ListModels => self.list_models(),
            Effect::Post { request, job } => spawn_local(async move {
                let answer = server::post(&job).await;
                page.happened(Event::Posted { request, answer });
            }),
            Effect::Follow { id } => self.follow(id),
            Effect::Ask { id } => spawn_local(async move {
                js::sleep(PAUSE_MS).await;
                let answer = server::get(&format!("api/jobs/{id}")).await;
                page.happened(Event::Told { id, answer });
            }),
            Effect::Wait { request, milliseconds } => spawn_local(async move {
                js::sleep(milliseconds.ceil() as i32).await;
                page.happened(Event::Waited { request });
            }),
            Effect::FetchState { id } => spawn_local(async move {
                // If it cannot be had, the one before is still good.
                if let Ok(state) = server::get(&format!("api/jobs/{id}/state")).await {
                    page.happened(Event::RemoteState { id, state: Box::new(state) });
                }
            }),
            Effect::FetchPicture { id } => spawn_local(async move {
                let event = match server::file(&format!("api/jobs/{id}/result")).await {
                    Ok(png) => Event::RemotePicture { id, png },
                    Err(refusal) => Event::Told { id, answer: Err(refusal) },
                };
                page.happened(event);
            }),
            Effect::Delete { id } => spawn_local(async move { server::delete(&id).await }),
            Effect::Preview(png) => self.stage.show_preview(&png),
            Effect::Picture(png) => {
                let app = self.app.borrow();
                self.stage.show_picture(png, &texts::result_label(&app.description()), app.seed().unwrap_or_default());
            }
            Effect::Saveable(png) => self.stage.set_file(png),
            Effect::Remember(choice) => controls::remember_choice(choice),
        }
    }

    fn start_worker(self: &Rc<Self>, processor: Processor) {
        let (page, dead) = (self.clone(), self.clone());
        let heard = move |message, data: Vec<_>| {
            if !hooks::heard(&message, &data) {
                page.happened(Event::Worker { processor, message: Box::new(message), data });
            }
        };
        let died = move |why| dead.happened(Event::WorkerDied { processor, why });
        match Link::start(&self.assets, processor.name(), heard, died) {
            Ok(link) => self.links.borrow_mut()[processor as usize] = Some(link),
            Err(why) => self.later(Event::WorkerDied { processor, why }),
        }
    }

    fn start_keeper(self: &Rc<Self>) {
        let (page, dead) = (self.clone(), self.clone());
        let heard = move |message, _| page.happened(Event::Keeper(Box::new(message)));
        let died = move |why| dead.happened(Event::KeeperDied { why });
        match Link::start(&self.assets, KEEPER, heard, died) {
            Ok(link) => *self.keeper.borrow_mut() = Some(link),
            Err(why) => self.later(Event::KeeperDied { why }),
        }
    }

    fn follow(self: &Rc<Self>, id: String) {
        let page = self.clone();
        match server::Events::follow(&id, move |event| page.happened(event)) {
            Ok(events) => *self.following.borrow_mut() = Some((id, events)),
            Err(why) => self.later(Event::Told { id, answer: Err(Refusal::Other(why)) }),
        }
    }

    fn list_models(self: &Rc<Self>) {
        let page = self.clone();
        spawn_local(async move {
            let offer = |entry: BundleEntry| Offer { address: address_of_model(&entry.id), entry };
            let answer = server::bundles().await.map(|entries| entries.into_iter().map(offer).collect());
            page.happened(Event::Offered(answer));
        });
    }

    /// Takes an event when the present one is done with.
    fn later(self: &Rc<Self>, event: Event) {
        let page = self.clone();
        spawn_local(async move { page.happened(event) });
    }

    /// Everything that is to be known when the page opens.
    fn open(self: &Rc<Self>) {
        let query = dom::window().location().search().unwrap_or_default();
        let query = UrlSearchParams::new_with_str(&query).ok();
        let asked = |name: &str| query.as_ref().and_then(|query| query.get(name));
        if let Some(step) = asked("fail-at-step").and_then(|step| step.parse().ok()) {
            self.happened(Event::FailAtStep(step));
        }
        let choice = asked("where").as_deref().and_then(Choice::from_name).or_else(controls::remembered_choice);
        if let Some(choice) = choice {
            self.happened(Event::Choose(choice));
        }
        self.happened(Event::Device { adapter: None, cpu_memory_bytes: device::cpu_memory_bytes() });

        self.happened(Event::Open { model: models::remembered() });
        let page = self.clone();
        spawn_local(async move {
            let adapter = device::adapter().await;
            page.happened(Event::Device { adapter, cpu_memory_bytes: device::cpu_memory_bytes() });
        });
        let page = self.clone();
        spawn_local(async move { page.happened(Event::Server(server::health().await)) });
        self.list_models();
        let page = self.clone();
        spawn_local(async move {
            if let Err(why) = page.palette.load(&page.editor).await {
                page.notify(&texts::cannot_fetch(texts::CREATURES, &why));
            }
            palette::show_examples(&page.palette, &page.editor);
        });
    }

    async fn open_built_in(self: &Rc<Self>) {
        let base = address_of_model(BUNDLE);
        let manifest = server::file(&format!("{base}{MANIFEST}")).await;
        let read = |json: Vec<u8>| Manifest::from_json(&json).map_err(|error| Refusal::Other(error.to_string()));
        let manifest = manifest.and_then(read);
        match manifest {
            Ok(manifest) => self.happened(Event::Manifest { base, manifest: Box::new(manifest) }),
            Err(why) => self.happened(Event::NoManifest { why }),
        }
    }

    fn listen(self: &Rc<Self>) {
        self.on_click("generate", Page::make);
        let page = self.clone();
        dom::on(&dom::by_id::<HtmlElement>("cancel"), "click", move |click: UiEvent| {
            // The second click of a double click was meant for the button that stood in its place.
            if click.detail() < 2 {
                page.happened(Event::Cancel);
            }
        });
        self.on_click("use-again", Page::use_again);
        let files: HtmlInputElement = dom::by_id("files");
        let dialog = files.clone();
        self.on_click("pick", move |_| dialog.click());
        self.on_click("draw", |page| page.retouch.draw());
        let page = self.clone();
        let chosen = files.clone();
        dom::on(&files, "change", move |_: web_sys::Event| {
            editor::insert_files(&page.editor, editor::files_of(chosen.files()));
            // Choosing the same file again is a change again.
            chosen.set_value("");
        });
        let page = self.clone();
        dom::on(&dom::window(), "keydown", move |event: web_sys::KeyboardEvent| match event.key().as_str() {
            "Enter" if (event.ctrl_key() || event.meta_key()) && !event.default_prevented() => page.make(),
            // With an input method, it takes back what is being composed.
            "Escape" if !event.is_composing() && event.key_code() != editor::COMPOSING => page.happened(Event::Cancel),
            _ => {}
        });
        // Whoever goes on writing has read the notice.
        for (id, event) in [("prompt", "input"), ("creatures", "click"), ("examples", "click")] {
            let page = self.clone();
            dom::on(&dom::by_id::<HtmlElement>(id), event, move |_: web_sys::Event| page.notify(""));
        }
        // A file that is dropped beside the sentence must not replace the page.
        dom::on(&dom::window(), "dragover", |event: web_sys::DragEvent| event.prevent_default());
        let page = self.clone();
        dom::on(&dom::window(), "drop", move |event: web_sys::DragEvent| {
            if !event.default_prevented() {
                event.prevent_default();
                let files = event.data_transfer().map_or(Vec::new(), |data| editor::files_of(data.files()));
                editor::insert_files(&page.editor, files);
            }
        });
    }

    fn on_click(self: &Rc<Self>, id: &str, handler: impl Fn(&Rc<Self>) + 'static) {
        let page = self.clone();
        dom::on(&dom::by_id::<HtmlElement>(id), "click", move |_: web_sys::Event| handler(&page));
    }

    fn make(self: &Rc<Self>) {
        if *self.app.borrow().phase() == Phase::Running {
            return;
        }
        let draft = self.editor.draft();
        if draft.is_blank() {
            return self.notify(texts::NOTHING_TO_MAKE);
        }
        self.notify("");
        let is_done = matches!(self.app.borrow().phase(), Phase::Done { .. });
        self.controls.renew_seed(self.app.borrow().seed().filter(|_| is_done));
        let (prompt, numbers) = draft.numbered();
        let order = Order {
            prompt,
            pictures: self.editor.pictures.files(&numbers),
            negative: self.controls.negative(),
            settings: self.controls.settings(),
        };
        self.happened(Event::Make(Box::new(order)));
    }

    /// Puts the picture that was made into the sentence.
    fn use_again(self: &Rc<Self>) {
        if let Some(png) = self.stage.file() {
            let image = self.editor.pictures.add(texts::RESULT, "image/png", png);
            self.editor.insert(image);
        }
    }

    fn insert_creature(self: &Rc<Self>, number: usize) {
        palette::insert(&self.palette, &self.editor, number, palette::Caret::Stays);
    }

    /// Tells those who do not see the page what happened to the sentence.
    fn tell(&self, message: &str) {
        dom::set_text(&dom::by_id::<HtmlElement>("told"), message);
    }

    /// Tells the person something about the sentence; an empty message takes it back.
    fn notify(&self, message: &str) {
        let notice: HtmlElement = dom::by_id("notice");
        dom::set_flag(&notice, "hidden", message.is_empty());
        dom::set_text(&notice, message);
    }
}

/// The absolute address of a model's folder on the page's own server.
fn address_of_model(id: &str) -> String {
    let page = dom::document().base_uri().ok().flatten().unwrap_or_default();
    web_sys::Url::new_with_base(&format!("models/{id}/"), &page).map_or(String::new(), |url| url.href())
}

fn with(page: &std::rc::Weak<Page>, call: impl FnOnce(&Rc<Page>)) {
    if let Some(page) = page.upgrade() {
        call(&page);
    }
}
