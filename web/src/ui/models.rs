//! The list of models: which is in use, which are kept, what is being fetched.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kosmosg::bundle::{MANIFEST, Scope};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Element, Event, File, HtmlElement, HtmlInputElement, HtmlProgressElement, Url};

use super::{device, dom, tab};
use crate::app::{App, Deed, Row, Task};
use crate::messages::{Flow, Room, Supply};
use crate::texts;

/// What browser and tab remember the model under.
const MODEL: &str = "model";
/// What the browser remembers one under that is being loaded.
const LOADING: &str = "loading";

/// The section of models.
pub struct ModelsPanel {
    rows: RefCell<Vec<Row>>,
    wish: Rc<dyn Fn(Deed)>,
    /// The files that the person chose last.
    files: RefCell<Vec<File>>,
    /// What of the files' model is wanted.
    scope: Cell<Scope>,
    /// The button that was used last: its words, and the model's name.
    last: RefCell<(String, String)>,
    /// How many tenths of what is being done were told to those who do not see the page, and whether that nothing comes.
    told: Cell<Option<(u64, bool)>>,
}

impl ModelsPanel {
    /// Takes the section over; `wish` hears what the person wants, `measured` what room there is when it is opened.
    pub fn new(wish: impl Fn(Deed) + 'static, measured: impl Fn(Room) + Clone + 'static) -> Rc<Self> {
        dom::on(&dom::by_id::<HtmlElement>("models"), "toggle", move |_: Event| {
            let measured = measured.clone();
            spawn_local(async move {
                if let (Some(room), _) = device::storage().await {
                    measured(room);
                }
            });
        });
        let (rows, files, last) = Default::default();
        let (scope, told) = (Cell::new(Scope::Picture), Cell::default());
        let panel = Rc::new(Self { rows, wish: Rc::new(wish), files, scope, last, told });
        panel.listen();
        panel
    }

    /// The files that the person chose last.
    pub fn files(&self) -> Vec<File> {
        self.files.borrow().clone()
    }

    /// Shows the models.
    pub fn show(self: &Rc<Self>, app: &App) {
        let models = app.models();
        let name = models.current.as_ref().map_or(texts::BUILT_IN, |model| &model.manifest.name);
        dom::set_text(&dom::by_id::<HtmlElement>("model-name"), name);
        let (rows, task) = (models.rows(), models.task.as_ref());
        let has_changed = *self.rows.borrow() != rows;
        // The button that has the focus may go, or be of no use; then the next one has it.
        let [list, form, stop] = ["model-list", "model-form", "model-stop"].map(dom::by_id::<HtmlElement>);
        let focused = |within: &HtmlElement| within.query_selector("button:focus").ok().flatten();
        let lost = focused(&list).filter(|_| has_changed).or_else(|| focused(&form).filter(|_| task.is_some()));
        let is_lost = lost.is_some() || task.is_none() && dom::has_focus(&stop);
        if let Some(button) = lost {
            self.last.replace(words_of(&button));
        }
        if has_changed {
            self.list(&list, &rows);
            self.tell_news(&rows);
            self.rows.replace(rows);
        }
        self.show_task(task);
        if is_lost {
            dom::focus(&if task.is_some() { stop } else { self.next_in(&list) });
        }
        let trouble = models.trouble.as_deref().unwrap_or_default();
        let line: HtmlElement = dom::by_id("model-trouble");
        // Where the person did not choose what is in use, that is to be seen.
        if [texts::MODEL_NOT_LOADED, texts::MODEL_NOT_KEPT].contains(&trouble) && line.has_attribute("hidden") {
            dom::set_flag(&dom::by_id::<HtmlElement>("models"), "open", true);
        }
        dom::show_line("model-trouble", trouble);
        dom::set_text(&dom::by_id::<HtmlElement>("model-told"), models.told.as_deref().unwrap_or_default());
        let room = models.room.map_or(String::new(), |room| texts::room(room.used, room.most));
        dom::set_text(&dom::by_id::<HtmlElement>("model-room"), &room);
        for id in ["model-fetch", "model-folder"] {
            dom::set_flag(&dom::by_id::<HtmlElement>(id), "disabled", task.is_some());
        }
    }

    /// Where the focus goes when something is done: the button that was used last, another one of its model, or what opens the
    /// section.
    fn next_in(&self, list: &HtmlElement) -> HtmlElement {
        let last = self.last.borrow();
        let buttons = list.query_selector_all("button").expect("the selector is valid");
        let buttons = (0..buttons.length()).filter_map(|at| buttons.get(at)?.dyn_into::<HtmlElement>().ok());
        let of_model: Vec<_> = buttons.filter(|button| words_of(button).1 == last.1).collect();
        let same = of_model.iter().find(|button| words_of(button).0 == last.0);
        same.or(of_model.first()).cloned().unwrap_or_else(|| dom::by_id("models-summary"))
    }

    /// Tells what has become of a model, once the person has done something with one.
    fn tell_news(&self, rows: &[Row]) {
        let before = self.rows.borrow();
        let is_old = |row: &Row| before.iter().any(|old| (&old.name, &old.detail) == (&row.name, &row.detail));
        if let Some(row) = rows.iter().find(|row| !is_old(row) && !self.last.borrow().1.is_empty()) {
            tell(&format!("{}: {}", row.name, row.detail));
        }
    }

    fn show_task(&self, task: Option<&Task>) {
        dom::show("model-task", task.is_some());
        let tenths = task.map(|task| (10 * task.bytes / task.of.max(1), task.flow == Flow::Stalls));
        let is_news = self.told.replace(tenths) != tenths;
        let Some(Task { name, bytes, of, speed, flow, is_check, .. }) = task else { return };
        if *self.last.borrow().1 != *name && !name.is_empty() {
            self.last.replace((String::new(), name.clone()));
        }
        let progress: HtmlProgressElement = dom::by_id("model-progress");
        progress.set_value(*bytes as f64 / (*of).max(1) as f64);
        let line = match of {
            0 => texts::STARTING.to_owned(),
            _ if *flow == Flow::Stalls => texts::stalled(name, *bytes, *of),
            _ => texts::installing(name, *bytes, *of, *speed, task.and_then(Task::seconds_left)),
        };
        dom::set_text(&dom::by_id::<HtmlElement>("model-line"), &line);
        if is_news {
            tell(&line);
        }
        let stop = if *is_check { texts::STOP } else { texts::PAUSE };
        dom::set_text(&dom::by_id::<HtmlElement>("model-stop"), stop);
    }

    fn list(self: &Rc<Self>, list: &HtmlElement, rows: &[Row]) {
        list.set_text_content(None);
        for row in rows {
            let item: HtmlElement = dom::create("li", "");
            dom::set_flag(&item, "data-current", row.is_current);
            let (name, detail): (HtmlElement, HtmlElement) = (dom::create("b", ""), dom::create("small", ""));
            let in_use = if row.is_current { format!(" · {}", texts::IN_USE) } else { String::new() };
            name.set_text_content(Some(&row.name));
            detail.set_text_content(Some(&format!("{}{in_use}", row.detail)));
            let buttons: HtmlElement = dom::create("span", "deeds");
            for (label, deed) in &row.deeds {
                let button = dom::button("quiet", label);
                dom::set_attribute(&button, "aria-label", &format!("{label}: {}", row.name));
                let (panel, deed, name) = (self.clone(), deed.clone(), row.name.clone());
                dom::on(&button, "click", move |_: Event| panel.wants(&name, deed.clone()));
                buttons.append_child(&button).expect("a list takes buttons");
            }
            for part in [&name, &detail, &buttons] {
                item.append_child(part).expect("a list takes words");
            }
            list.append_child(&item).expect("a list takes rows");
        }
    }

    fn wants(&self, name: &str, deed: Deed) {
        match deed {
            Deed::Install(Supply::Files, scope) => self.choose_files(scope),
            Deed::Remove(_) if !dom::window().confirm_with_message(&texts::remove_model(name)).unwrap_or_default() => {}
            deed => {
                if matches!(deed, Deed::Install(..)) {
                    ask_to_stay();
                }
                (self.wish)(deed);
            }
        }
    }

    fn choose_files(&self, scope: Scope) {
        self.scope.set(scope);
        dom::by_id::<HtmlInputElement>("model-files").click();
    }

    fn listen(self: &Rc<Self>) {
        let address: HtmlInputElement = dom::by_id("model-address");
        let field = address.clone();
        dom::on(&address, "input", move |_: Event| field.set_custom_validity(""));
        let panel = self.clone();
        dom::on(&dom::by_id::<HtmlElement>("model-form"), "submit", move |submit: Event| {
            submit.prevent_default();
            match folder_of(&address.value()) {
                Some(folder) => panel.wants("", Deed::Install(Supply::Address(folder), scope_wanted())),
                None => {
                    address.set_custom_validity(texts::NO_ADDRESS);
                    address.report_validity();
                }
            }
        });
        let panel = self.clone();
        dom::on(&dom::by_id::<HtmlElement>("model-folder"), "click", move |_: Event| {
            panel.choose_files(scope_wanted());
        });
        let panel = self.clone();
        let chosen: HtmlInputElement = dom::by_id("model-files");
        dom::on(&chosen.clone(), "change", move |_: Event| {
            let files = super::editor::files_of(chosen.files());
            // Choosing the same folder again is a change again.
            chosen.set_value("");
            if !files.is_empty() {
                panel.files.replace(files);
                ask_to_stay();
                (panel.wish)(Deed::Install(Supply::Files, panel.scope.get()));
            }
        });
        let panel = self.clone();
        dom::on(&dom::by_id::<HtmlElement>("model-stop"), "click", move |_: Event| (panel.wish)(Deed::Stop));
    }
}

/// The model of an earlier visit: of this tab, or else of the last one in which a model was chosen.
pub fn remembered() -> Option<String> {
    let own = tab::memory().and_then(|memory| memory.get_item(MODEL).ok().flatten());
    let key = own.or_else(|| dom::remembered(MODEL)).unwrap_or_default();
    remember_here(&key);
    Some(key).filter(|key| !key.is_empty())
}

/// Remembers the model for later visits.
pub fn remember(key: Option<&str>) {
    let key = key.unwrap_or_default();
    remember_here(key);
    dom::remember(MODEL, key);
}

/// Has the tab remember the model: what is chosen in another one does not change it.
fn remember_here(key: &str) {
    if let Some(memory) = tab::memory() {
        // Where it cannot be remembered, the last choice of any tab counts.
        let _ = memory.set_item(MODEL, key);
    }
}

/// The model that was being loaded when a page ended of itself, or is being loaded by another tab.
pub fn loading() -> Option<String> {
    dom::remembered(LOADING).filter(|key| !key.is_empty())
}

/// Remembers the model that is being loaded, or that none is.
pub fn mark_loading(key: Option<&str>) {
    dom::remember(LOADING, key.unwrap_or_default());
}

/// A button's words and the name of its model.
fn words_of(button: &Element) -> (String, String) {
    let label = button.get_attribute("aria-label").unwrap_or_default();
    label.split_once(": ").map(|(words, name)| (words.to_owned(), name.to_owned())).unwrap_or_default()
}

/// Tells those who do not see the page.
fn tell(words: &str) {
    dom::tell("told", words);
}

fn scope_wanted() -> Scope {
    if dom::by_id::<HtmlInputElement>("model-only-encoder").checked() { Scope::Encoder } else { Scope::Picture }
}

/// The folder that an address stands for: with or without a slash, or its manifest's.
fn folder_of(address: &str) -> Option<String> {
    let address = address.trim();
    let folder = address.strip_suffix(MANIFEST).unwrap_or(address).trim_end_matches('/');
    let url = Url::new(&format!("{folder}/")).ok()?;
    matches!(url.protocol().as_str(), "https:" | "http:").then(|| url.href())
}

/// Asks the browser not to remove the page's models when it wants room. It may ask the person, or decide by itself.
fn ask_to_stay() {
    // Nothing depends on its answer.
    let _ = dom::window().navigator().storage().persist();
}
