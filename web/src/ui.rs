//! The interface on the main thread: it turns what the person and the browser do into [`Event`]s, and carries out the
//! [`Effect`]s.

use std::cell::RefCell;
use std::rc::Rc;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{HtmlElement, HtmlInputElement, UiEvent, UrlSearchParams};

use crate::app::{App, Choice, Event, Look, Order, Phase, Series};
use crate::report::Browser;
use crate::{js, texts};

use about::About;
use controls::Controls;
use editor::Editor;
use keeping::Keeping;
use link::Link;
use models::ModelsPanel;
use palette::Palette;
use retouch::RetouchDialog;
use sheet::GridForm;
use stage::Stage;

mod about;
mod bitmap;
mod codec;
mod controls;
mod device;
mod dom;
mod editor;
mod effects;
mod gallery;
mod hooks;
mod invitation;
mod keeping;
mod link;
mod models;
mod palette;
mod pictures;
mod queue;
mod reading;
mod recipes;
mod region;
mod results;
mod retouch;
mod server;
mod sheet;
mod stage;
mod store;
mod tab;
mod viewer;

/// Starts the page; `assets` is the address of the folder of its programs, `note` takes down what went wrong.
#[wasm_bindgen]
pub fn start(assets: String, note: js_sys::Function) {
    std::panic::set_hook(about::panic_hook(&note));
    let page = Rc::new_cyclic(|page: &std::rc::Weak<Page>| {
        let of = |page: &std::rc::Weak<Page>| page.clone();
        let (submit, refused, inserted, creature, chosen) = (of(page), of(page), of(page), of(page), of(page));
        let (wished, looks, set, changed, brought) = (of(page), of(page), of(page), of(page), of(page));
        let undone = of(page);
        let measured = of(page);
        let events = editor::Events {
            submit: Box::new(move || with(&submit, Page::make)),
            refused: Box::new(move |message| with(&refused, |page| page.notify(message))),
            brought: Box::new(move |file| with(&brought, |page| page.brought(file))),
            inserted: Box::new(move |message| with(&inserted, |page| page.tell(message))),
            creature: Box::new(move |number| with(&creature, |page| page.insert_creature(number))),
            change: Box::new(move |unit| with(&changed, |page| page.retouch.open(unit))),
            undo_elsewhere: Box::new(move || undone.upgrade().is_some_and(|page| page.undo_delete_shown())),
        };
        let editor = Editor::new(dom::by_id("prompt"), events);
        Page {
            app: RefCell::new(App::counting_from((js_sys::Math::random() * 4e9) as u64)),
            about: About::new(&assets, note),
            assets,
            retouch: RetouchDialog::new(editor.clone()),
            editor,
            palette: Rc::default(),
            controls: Controls::new(move |choice| with(&chosen, |page| page.happened(Event::Choose(choice)))),
            stage: Stage::new(move |look| with(&looks, |page| page.happened(Event::Look(look)))),
            grid: GridForm::new(move || set.upgrade().map(|page| page.controls.settings()).unwrap_or_default()),
            models: ModelsPanel::new(
                move |deed| with(&wished, |page| page.happened(Event::Model(deed))),
                move |room| with(&measured, |page| page.happened(Event::Room(room))),
            ),
            links: RefCell::default(),
            keeper: RefCell::default(),
            following: RefCell::new(None),
            keeping: Keeping::default(),
        }
    });
    page.listen();
    page.listen_to_keeping();
    page.listen_to_invitations();
    page.open();
    hooks::install(&page);
}

/// The page.
pub struct Page {
    app: RefCell<App>,
    about: Rc<About>,
    assets: String,
    editor: Rc<Editor>,
    retouch: Rc<RetouchDialog>,
    palette: Rc<Palette>,
    controls: Controls,
    stage: Stage,
    grid: GridForm,
    models: Rc<ModelsPanel>,
    links: RefCell<[Option<Link>; 2]>,
    /// The worker that keeps the models.
    keeper: RefCell<Option<Link>>,
    /// The server's job whose events are heard.
    following: RefCell<Option<(String, server::Events)>>,
    /// What outlives a visit.
    keeping: Keeping,
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
        self.look_after_job();
        self.show();
    }

    fn show(self: &Rc<Self>) {
        let app = self.app.borrow();
        let page = self.clone();
        let looks = move |look| page.happened(Event::Look(look));
        self.stage.show(&app, looks.clone());
        sheet::show(&app, &self.stage.strip, looks);
        let page = self.clone();
        queue::show(&app, move |ticket| page.happened(Event::Withdraw(ticket)));
        reading::show(&app);
        self.controls.show(&app);
        self.models.show(&app);
        self.about.show(&app);
        dom::show("pairing", app.is_stranger());
        let remedies = match app.phase() {
            Phase::Failed { remedies, .. } => remedies.as_slice(),
            _ => &[],
        };
        let page = self.clone();
        self.stage.offer(remedies, move |choice| page.happened(Event::GoOn(choice)));
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

        self.happened(Event::Open { model: models::remembered(), loading: models::loading() });
        let page = self.clone();
        spawn_local(async move {
            let gpu = device::gpu().await;
            let adapter = gpu.as_ref().ok().map(device::adapter);
            if let Err(why) = &gpu {
                page.happened(Event::NoGpu { why: why.clone(), browser: Browser::of(&device::user_agent()) });
            }
            page.about.found(gpu);
            page.happened(Event::Device { adapter, cpu_memory_bytes: device::cpu_memory_bytes() });
        });
        self.ask_server();
        let page = self.clone();
        spawn_local(async move {
            let link = recipes::take_link();
            let (loaded, ()) = futures::join!(page.palette.load(&page.editor), page.reopen(link.is_some()));
            if let Err(why) = loaded {
                page.notify(&texts::cannot_fetch(texts::CREATURES, &why));
            }
            if let Some(link) = link {
                page.open_link(link).await;
            }
            palette::show_examples(&page.palette, &page.editor);
            page.load_gallery().await;
        });
    }

    /// Asks the server how it is and what it offers.
    fn ask_server(self: &Rc<Self>) {
        let page = self.clone();
        spawn_local(async move { page.happened(Event::Server(server::health().await)) });
        self.list_models();
    }

    /// Asks again where there was no server, or one that did not know this device, which may be paired by now.
    fn ask_server_again(self: &Rc<Self>) {
        let is_missed = self.app.borrow().misses_server();
        if is_missed && !dom::document().hidden() {
            self.ask_server();
        }
    }

    fn listen(self: &Rc<Self>) {
        let online: (&web_sys::EventTarget, _) = (&dom::window(), "online");
        for (target, event) in [online, (&dom::document(), "visibilitychange")] {
            let page = self.clone();
            dom::on(target, event, move |_: web_sys::Event| page.ask_server_again());
        }
        // The second click of a double click means nothing new.
        for (id, handler) in
            [("generate", Page::make as fn(&Rc<Page>)), ("cancel", |page| page.happened(Event::Cancel))]
        {
            let page = self.clone();
            dom::on(&dom::by_id::<HtmlElement>(id), "click", move |click: UiEvent| {
                if click.detail() < 2 {
                    handler(&page);
                }
            });
        }
        self.on_click("cancel-all", |page| page.happened(Event::CancelAll));
        self.on_click("leave-out", |page| page.happened(Event::Cancel));
        self.on_click("same-seed", Page::make_variation);
        self.on_click("make-grid", Page::make_grid);
        self.on_click("save-sheet", Page::save_sheet);
        for count in 1..=4 {
            let page = self.clone();
            dom::on(&dom::by_id::<HtmlElement>(&format!("count-{count}")), "change", move |_: web_sys::Event| {
                page.show()
            });
        }
        let page = self.clone();
        reading::watch(move || page.wrote());
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
            // A key that is held is pressed once, whatever comes into its way.
            "Enter" if event.repeat() => event.prevent_default(),
            // With an input method, they end or take back what is being composed.
            _ if event.is_composing() || event.key_code() == editor::COMPOSING => {}
            "Enter" if (event.ctrl_key() || event.meta_key()) && !event.default_prevented() => page.make(),
            "Escape" => page.escape(&event),
            _ => {}
        });
        // Whoever goes on writing has read the notice.
        for (id, event) in [("prompt", "input"), ("examples", "click")] {
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
        self.order(Series::Count(self.controls.count()), None);
    }

    /// Makes what the sentence says now with the noise of the picture that is shown.
    fn make_variation(self: &Rc<Self>) {
        let shown = self.app.borrow().results().shown().map(|outcome| (outcome.seed, outcome.picture));
        if let Some((seed, picture)) = shown {
            self.controls.lock_seed(seed);
            self.order(Series::Count(1), Some(picture));
        }
    }

    fn make_grid(self: &Rc<Self>) {
        let grid = self.grid.grid();
        sheet::notify(grid.as_ref().err().map_or("", String::as_str));
        if let Ok(grid) = grid {
            self.order(Series::Grid(grid), None);
            // The settings may lie far below.
            dom::by_id::<HtmlElement>("prompt").scroll_into_view();
        }
    }

    /// Orders pictures of the sentence; `first` is the first one's number among those of its seed, if not as restored.
    fn order(self: &Rc<Self>, series: Series, first: Option<u64>) {
        if self.editor.is_composing() {
            // What is being composed belongs to it.
            self.editor.end_composing();
            let page = self.clone();
            return spawn_local(async move {
                page.editor.settled().await;
                page.order(series, first);
            });
        }
        let draft = self.editor.draft();
        if draft.is_blank() {
            return self.notify(texts::NOTHING_TO_MAKE);
        }
        if !self.app.borrow().takes_orders() {
            return self.notify(texts::QUEUE_IS_FULL);
        }
        self.wrote();
        let (prompt, numbers) = draft.numbered();
        let pictures = self.editor.pictures.files(&numbers);
        if Self::has_missing(&pictures) {
            return self.notify(texts::MISSING_PICTURES);
        }
        let negative = self.controls.negative();
        if self.app.borrow().is_too_long(&prompt, &negative) {
            let app = self.app.borrow();
            let reading = app.reading().cloned().unwrap_or_default();
            return self.notify(&texts::too_long(reading.tokens.max(reading.negative_tokens), reading.longest));
        }
        self.notify("");
        self.controls.renew_seed(|seed| self.app.borrow().has_used(seed));
        let mut settings = self.controls.settings();
        settings.picture = first.unwrap_or_else(|| self.controls.first());
        let order = Order { prompt, pictures, negative, settings, series };
        self.happened(Event::Make(Box::new(order)));
    }

    /// Has the model read the sentence.
    fn wrote(self: &Rc<Self>) {
        let (prompt, _) = self.editor.draft().numbered();
        self.happened(Event::Wrote { prompt: Box::new(prompt), negative: self.controls.negative() });
    }

    /// Ends what is nearest to an end: comparing two pictures, being at a picture of the sentence, otherwise making one. In a
    /// field or a dialog, the key is meant for that.
    fn escape(self: &Rc<Self>, event: &web_sys::KeyboardEvent) {
        let is_running = *self.app.borrow().phase() == Phase::Running;
        if self.app.borrow().results().other().is_some() {
            self.happened(Event::Look(Look::Compare));
        } else if dom::closest(event, "input, select, textarea").is_none()
            && !dom::has_dialog()
            && !self.editor.leave_picture()
            && is_running
        {
            self.happened(Event::Cancel);
        }
    }

    fn save_sheet(self: &Rc<Self>) {
        let saved = self.app.borrow().results().sheet().map_or(Ok(()), sheet::save);
        if let Err(error) = saved {
            self.notify(&texts::sentence(&js::text_of(&error)));
        }
    }

    /// Where the file of the picture that is shown is.
    fn shown_address(&self) -> Option<String> {
        let number = self.app.borrow().results().shown()?.number;
        self.stage.strip.address(number)
    }

    /// Puts the picture that is shown into the sentence.
    fn use_again(self: &Rc<Self>) {
        let Some(address) = self.shown_address() else { return };
        let (page, place) = (self.clone(), self.editor.hold());
        spawn_local(async move {
            match js::fetch(&address).await {
                Ok(png) => {
                    let image = page.editor.pictures.add(texts::RESULT, "image/png", png);
                    page.editor.put(&place, image);
                    page.editor.come_into_view();
                }
                Err(why) => page.notify(&texts::cannot_fetch(texts::RESULT, &why)),
            }
        });
    }

    /// Brings the pictures back whose deletion can be taken back. `false` if there are none.
    fn undo_delete_shown(self: &Rc<Self>) -> bool {
        let is_shown = !dom::by_id::<HtmlElement>("undo-bar").has_attribute("hidden");
        if is_shown {
            self.undo_delete();
        }
        is_shown
    }

    fn insert_creature(self: &Rc<Self>, number: usize) {
        palette::insert(&self.palette, &self.editor, number, palette::Caret::Stays);
    }

    /// Tells those who do not see the page what happened to the sentence.
    fn tell(&self, message: &str) {
        dom::tell("told", message);
    }

    /// Tells the person something about the sentence; an empty message takes it back.
    fn notify(&self, message: &str) {
        dom::tell_line("notice", message);
    }
}

fn with(page: &std::rc::Weak<Page>, call: impl FnOnce(&Rc<Page>)) {
    if let Some(page) = page.upgrade() {
        call(&page);
    }
}
