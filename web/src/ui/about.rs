//! The section about device and browser, and the report that can be made of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use js_sys::Function;
use kosmosg::verify::Row;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Event, HtmlElement};

use super::link::Link;
use super::{device, dom};
use crate::app::{App, Phase, Processor};
use crate::messages::{Envelope, Fault, Reply, Request};
use crate::report::{Facts, GpuFacts, NoGpu, Offline, Test};
use crate::{js, texts};

/// How long the GPU may take for its test.
const PATIENCE_MS: i32 = 120_000;
/// Number of the test's request.
const TEST: u64 = 1;

/// Takes down why the interface ends.
pub fn panic_hook(note: &Function) -> Box<dyn Fn(&std::panic::PanicHookInfo<'_>) + Send + Sync> {
    thread_local! {
        static NOTE: RefCell<Option<Function>> = const { RefCell::new(None) };
    }
    NOTE.set(Some(note.clone()));
    Box::new(|panic| {
        let words = panic.to_string();
        js::log_error(&words);
        // Nothing more can be done about it here.
        let _ = NOTE.with_borrow(|note| note.as_ref().map(|note| note.call1(&JsValue::NULL, &words.into())));
    })
}

/// The section.
pub struct About {
    assets: String,
    section: HtmlElement,
    list: HtmlElement,
    report: HtmlElement,
    main: HtmlElement,
    facts: RefCell<Facts>,
    /// What the list shows.
    shown: RefCell<Vec<(&'static str, String)>>,
    /// The worker that tests the GPU, while it does.
    tester: RefCell<Option<Link>>,
    tests: Cell<u32>,
    /// Takes down what went wrong.
    note: Function,
    /// What was taken down last.
    noted: RefCell<String>,
}

impl About {
    /// Takes the section over; `assets` is the address of the programs, `note` takes down what went wrong.
    pub fn new(assets: &str, note: Function) -> Rc<Self> {
        let programs = assets.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let facts = Facts {
            programs,
            user_agent: device::user_agent(),
            is_secure: device::is_secure(),
            memory_bytes: device::memory_bytes(),
            threads: device::threads(),
            ..Facts::default()
        };
        let about = Rc::new(Self {
            assets: assets.to_owned(),
            section: dom::by_id("device"),
            list: dom::by_id("device-facts"),
            report: dom::by_id("report"),
            main: dom::by_id("app"),
            facts: RefCell::new(facts),
            shown: RefCell::default(),
            tester: RefCell::new(None),
            tests: Cell::new(0),
            note,
            noted: RefCell::default(),
        });
        let opened = about.clone();
        dom::on(&about.section, "toggle", move |_: Event| {
            let about = opened.clone();
            spawn_local(async move { about.measure().await });
        });
        let kept = about.clone();
        dom::on(&about.main, "offline", move |_: Event| {
            let about = kept.clone();
            spawn_local(async move { about.measure().await });
        });
        let tested = about.clone();
        dom::on(&dom::by_id::<HtmlElement>("device-test"), "click", move |_: Event| tested.test());
        about
    }

    /// Takes over what the browser says about the GPU.
    pub fn found(&self, gpu: Result<GpuFacts, NoGpu>) {
        self.facts.borrow_mut().gpu = Some(gpu);
        self.render();
    }

    /// Takes over how things are.
    pub fn show(&self, app: &App) {
        {
            let mut facts = self.facts.borrow_mut();
            facts.server.clone_from(&app.places().server);
            facts.workers.clone_from(app.workers());
            let kept = app.models().current.as_ref().map(|model| model.manifest.name.as_str());
            kept.unwrap_or(texts::BUILT_IN).clone_into(&mut facts.model);
        }
        // What is wrong with a sentence is nobody else's business, and can be mended at once: it comes without remedies.
        if let Phase::Failed { message, remedies } = app.phase()
            && !remedies.is_empty()
            && *self.noted.borrow() != *message
        {
            self.noted.replace(message.clone());
            // It cannot fail: the page's own function only takes a text down.
            let _ = self.note.call1(&JsValue::NULL, &message.into());
        }
        self.render();
    }

    /// Asks for what changes by itself.
    async fn measure(&self) {
        let (room, is_persisted) = device::storage().await;
        {
            let mut facts = self.facts.borrow_mut();
            (facts.room, facts.is_persisted) = (room, is_persisted);
        }
        self.render();
    }

    fn render(&self) {
        let mut facts = self.facts.borrow_mut();
        facts.window = device::window();
        facts.offline = match self.main.dataset().get("offline").as_deref() {
            Some("ready") => Offline::Ready,
            Some("failed") => Offline::Failed,
            Some(_) => Offline::Coming,
            None => Offline::Never,
        };
        dom::set_text(&dom::by_id::<HtmlElement>("device-line"), &facts.summary());
        dom::set_attribute(&self.report, "data-facts", &facts.text());
        let rows = facts.rows();
        if !self.section.has_attribute("open") || *self.shown.borrow() == rows {
            return;
        }
        self.list.set_text_content(None);
        for (name, words) in &rows {
            let (term, description): (HtmlElement, HtmlElement) = (dom::create("dt", ""), dom::create("dd", ""));
            dom::set_text(&term, name);
            dom::set_text(&description, words);
            for child in [term, description] {
                self.list.append_child(&child).expect("an element of the page takes children");
            }
        }
        self.shown.replace(rows);
    }

    /// Has the GPU compute what the processor computes too. A worker of its own does that, so that it disturbs no picture
    /// and a GPU that hangs can be left.
    fn test(self: &Rc<Self>) {
        if self.tester.borrow().is_some() {
            return;
        }
        let number = self.tests.get() + 1;
        self.tests.set(number);
        self.tested(Test::Running);
        let (about, dead) = (self.clone(), self.clone());
        let heard = move |Envelope { body, .. }: Envelope<Reply>, _| match body {
            Reply::Started => {
                if let Some(link) = &*about.tester.borrow() {
                    let body = Request::TestKernels { impossible: false };
                    link.send(&Envelope { request: TEST, body }, Vec::new(), &[]);
                }
            }
            Reply::Verified { rows } => about.finish(number, result(&rows)),
            Reply::Failed { fault: Fault::DeviceLost, message } => {
                about.finish(number, Test::Failed(format!("{} ({message})", texts::GPU_FAILED_TO_START)));
            }
            Reply::Failed { message, .. } | Reply::Died { message } => about.finish(number, Test::Failed(message)),
            _ => {}
        };
        let died = move |why| dead.finish(number, Test::Failed(why));
        match Link::start(&self.assets, Processor::Gpu.name(), heard, died) {
            Ok(link) => drop(self.tester.replace(Some(link))),
            Err(why) => self.tested(Test::Failed(why)),
        }
        let about = self.clone();
        spawn_local(async move {
            js::sleep(PATIENCE_MS).await;
            about.finish(number, Test::Failed(texts::TEST_UNANSWERED.into()));
        });
    }

    /// Ends the test of that number, if it still runs.
    fn finish(self: &Rc<Self>, number: u32, test: Test) {
        if self.tests.get() != number || self.tester.borrow().is_none() {
            return;
        }
        self.tested(test);
        let about = self.clone();
        // Not now: it may be this very worker that is heard.
        spawn_local(async move { drop(about.tester.take()) });
    }

    fn tested(&self, test: Test) {
        self.facts.borrow_mut().test = Some(test);
        self.render();
        let told = self.facts.borrow().test_line().unwrap_or_default();
        dom::tell("device-told", &told);
    }
}

fn result(rows: &[Row]) -> Test {
    let (right, wrong): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.passed());
    Test::Done { right: right.len(), wrong: wrong.into_iter().map(|row| row.tensor.clone()).collect() }
}
