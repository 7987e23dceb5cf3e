//! Which model the page works with, and the models that this browser keeps.

use kosmosg::bundle::{Part, Scope};
use kosmosg::placement::Stage;
use kosmosg::protocol::BundleEntry;

use super::{App, BUNDLE, Effect, Phase, Processor};
use crate::messages::{Envelope, Flow, KeptModel, Reply, Request, Room, Source, Supply};
use crate::texts;

/// Share of the newest report in the speed that is shown.
const NEWEST: f64 = 0.2;

/// The models that there are.
#[derive(Debug, Default)]
pub struct Models {
    /// What the server offers.
    pub offered: Vec<Offer>,
    /// What this browser keeps.
    pub kept: Vec<KeptModel>,
    /// The room that this browser has, if it tells.
    pub room: Option<Room>,
    /// The kept model that is in use; none: the built-in one.
    pub current: Option<KeptModel>,
    /// What is being done with a kept model.
    pub task: Option<Task>,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// What came of the last check.
    pub told: Option<String>,
    /// The kept model that is being loaded.
    pub loading: Option<String>,
    /// The model of an earlier visit, until it is known what is kept.
    wanted: Option<String>,
    keeper: Keeper,
}

/// A model that the server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What the server says of it.
    pub entry: BundleEntry,
    /// Where its files are: an absolute address that ends in a slash.
    pub address: String,
}

impl Offer {
    /// Whether a kept model is this one: it comes from there, or all of it came from files that are the same by name and size.
    fn is_kept_as(&self, model: &KeptModel) -> bool {
        match &model.address {
            Some(address) => *address == self.address,
            None => {
                let is_all = model.is_whole() && model.scope == Scope::Picture;
                is_all && (&model.manifest.name, model.of) == (&self.entry.name, self.entry.bytes)
            }
        }
    }
}

/// The program that keeps the models.
#[derive(Debug, Default)]
enum Keeper {
    #[default]
    Off,
    /// It is being loaded, and what it will be told then.
    Starting(Vec<Envelope<Request>>),
    Ready,
}

/// A model as the page lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// How large it is, and what of it is here.
    pub detail: String,
    /// Whether it is in use.
    pub is_current: bool,
    /// What can be done with it, and how that is called.
    pub deeds: Vec<(String, Deed)>,
}

/// What the person wants of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Work with a kept model, or the built-in one.
    Use(Option<String>),
    /// Bring one to this browser, or the rest of it.
    Install(Supply, Scope),
    /// Compare its files' digests.
    Check(String),
    /// Remove it.
    Remove(String),
    /// Stop what is being done.
    Stop,
}

/// Something that is being done with a kept model.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Number of its request.
    pub request: u64,
    /// Whether files are only read.
    pub is_check: bool,
    /// The model's name, once known.
    pub name: String,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes in all.
    pub of: u64,
    /// Bytes a second, while it can be told.
    pub speed: Option<f64>,
    /// How they come.
    pub flow: Flow,
    reported_ms: Option<f64>,
}

impl Task {
    fn new(request: u64, is_check: bool) -> Self {
        let (name, flow) = Default::default();
        Self { request, is_check, name, bytes: 0, of: 0, speed: None, flow, reported_ms: None }
    }

    fn report(&mut self, now_ms: f64, name: String, bytes: u64, of: u64, flow: Flow) {
        let before = self.reported_ms.filter(|&before| before < now_ms && bytes >= self.bytes);
        if flow != Flow::Comes || self.flow != flow {
            // What was there before says nothing of how fast the rest comes.
            self.speed = None;
        } else if let Some(before) = before {
            let newest = (bytes - self.bytes) as f64 / (now_ms - before) * 1000.0;
            self.speed = Some(self.speed.map_or(newest, |speed| speed + NEWEST * (newest - speed)));
        }
        (self.name, self.bytes, self.of, self.flow, self.reported_ms) = (name, bytes, of, flow, Some(now_ms));
    }

    /// Seconds that it will take, once they can be told.
    pub fn seconds_left(&self) -> Option<f64> {
        let speed = self.speed.filter(|&speed| speed > 0.0)?;
        Some((self.of - self.bytes) as f64 / speed)
    }
}

impl Models {
    /// Stages of the present model that this device did not fetch.
    pub fn not_here(&self) -> Vec<Stage> {
        let here = self.current.as_ref().map_or(&Stage::ALL[..], |model| model.here.map_or(&[], Scope::stages));
        Stage::ALL.into_iter().filter(|stage| !here.contains(stage)).collect()
    }

    /// What the server calls the present model, if it has it.
    pub fn id_on_server(&self) -> Option<String> {
        let Some(KeptModel { manifest, address, .. }) = &self.current else { return Some(BUNDLE.to_owned()) };
        let unet = manifest.part("unet").map_or(String::new(), Part::sha256);
        let is_it = |Offer { entry, .. }: &&Offer| match entry.unet.as_str() {
            // A server of before, which does not say.
            "" => entry.name == manifest.name,
            of => of == unet,
        };
        // Of several that denoise alike, the one that it comes from reads alike too.
        let differs = |offer: &&Offer| (Some(&offer.address) != address.as_ref(), offer.entry.name != manifest.name);
        self.offered.iter().filter(is_it).min_by_key(differs).map(|offer| offer.entry.id.clone())
    }

    /// All models and what can be done with them; not while something is being done.
    pub fn rows(&self) -> Vec<Row> {
        let is_idle = self.task.is_none();
        let built_in = Row {
            name: texts::BUILT_IN.into(),
            detail: texts::BUILT_IN_DETAIL.into(),
            is_current: self.current.is_none(),
            deeds: vec![(texts::USE.into(), Deed::Use(None))],
        };
        let mut rows = vec![built_in];
        rows.extend(self.kept.iter().map(|model| self.row_of_kept(model)));
        let is_kept = |offer: &Offer| self.kept.iter().any(|model| offer.is_kept_as(model));
        let offers = self.offered.iter().filter(|offer| offer.entry.id != BUNDLE && !is_kept(offer));
        rows.extend(offers.map(row_of_offer));
        for row in &mut rows {
            row.deeds.retain(|(_, deed)| match deed {
                Deed::Use(_) => !row.is_current,
                _ => is_idle,
            });
        }
        rows
    }

    fn row_of_kept(&self, model: &KeptModel) -> Row {
        let KeptModel { key, manifest, address, scope, bytes, of, here } = model;
        let supply = address.clone().map_or(Supply::Files, Supply::Address);
        let mut deeds = Vec::new();
        if here.is_some() {
            deeds.push((texts::USE.into(), Deed::Use(Some(key.clone()))));
        }
        if !model.is_whole() {
            let go_on = if address.is_some() { texts::GO_ON_FETCHING } else { texts::CHOOSE_AGAIN };
            deeds.push((go_on.into(), Deed::Install(supply, *scope)));
        } else if *scope == Scope::Encoder {
            deeds.push((texts::FETCH_REST.into(), Deed::Install(supply, Scope::Picture)));
        }
        deeds.push((texts::CHECK.into(), Deed::Check(key.clone())));
        deeds.push((texts::REMOVE.into(), Deed::Remove(key.clone())));
        Row {
            name: manifest.name.clone(),
            detail: texts::kept(*bytes, *of, model.is_whole(), *scope == Scope::Encoder),
            is_current: self.current.as_ref().is_some_and(|current| (&current.key, current.here) == (key, *here)),
            deeds,
        }
    }

    fn kept(&self, key: &str) -> Option<&KeptModel> {
        self.kept.iter().find(|model| model.key == key)
    }
}

impl App {
    /// Tells who keeps the models something, as soon as it hears.
    fn keep(&mut self, request: u64, body: Request) {
        let message = Envelope { request, body };
        match &mut self.models.keeper {
            Keeper::Ready => self.effects.push(Effect::Keep(message)),
            Keeper::Starting(waiting) => waiting.push(message),
            Keeper::Off => {
                self.models.keeper = Keeper::Starting(vec![message]);
                self.effects.push(Effect::StartKeeper);
            }
        }
    }

    /// The page opens; an earlier visit may have ended with a kept model, or because of it.
    pub(super) fn open(&mut self, model: Option<String>, loading: Option<String>) {
        if model.is_some() && model == loading {
            self.models.trouble = Some(texts::MODEL_NOT_LOADED.into());
            self.effects.extend([Effect::RememberModel(None), Effect::MarkLoading(None), Effect::OpenBuiltIn]);
        } else if model.is_some() {
            self.models.wanted = model;
        } else {
            self.effects.push(Effect::OpenBuiltIn);
        }
        self.ask_what_is_kept();
    }

    pub(super) fn deed(&mut self, deed: Deed) {
        if deed == Deed::Stop {
            if let Some(Task { request, .. }) = self.models.task {
                self.keep(request, Request::Cancel);
            }
            return;
        }
        (self.models.trouble, self.models.told) = (None, None);
        match deed {
            Deed::Stop => {}
            Deed::Use(key) => self.use_model(key),
            _ if self.models.task.is_some() => {}
            Deed::Install(supply, scope) => self.begin(Request::Install { supply, scope }),
            Deed::Check(key) => self.begin(Request::Check { key }),
            Deed::Remove(key) => {
                if self.models.current.as_ref().is_some_and(|current| current.key == key) {
                    self.use_model(None);
                }
                self.begin(Request::Remove { key });
            }
        }
    }

    fn begin(&mut self, body: Request) {
        let request = self.number();
        self.models.task = Some(Task::new(request, matches!(body, Request::Check { .. })));
        self.keep(request, body);
    }

    fn ask_what_is_kept(&mut self) {
        let request = self.number();
        self.keep(request, Request::Kept);
    }

    /// Who keeps the models said something.
    pub(super) fn kept(&mut self, Envelope { request, body }: Envelope<Reply>) {
        let task = self.models.task.as_mut().filter(|task| task.request == request);
        match body {
            Reply::Started => {
                if let Keeper::Starting(waiting) = std::mem::replace(&mut self.models.keeper, Keeper::Ready) {
                    self.effects.extend(waiting.into_iter().map(Effect::Keep));
                }
            }
            Reply::Installing { name, bytes, of, flow } => {
                if let Some(task) = task {
                    task.report(self.now_ms, name, bytes, of, flow);
                }
            }
            Reply::Checked { right, of, wrong } => self.models.told = Some(texts::checked(right, of, &wrong)),
            Reply::Kept { models, room } => {
                self.models.task.take_if(|task| task.request == request);
                (self.models.kept, self.models.room) = (models, room);
                self.find_wanted();
                self.take_up_the_rest();
            }
            Reply::Cancelled => {
                self.models.task.take_if(|task| task.request == request);
                self.ask_what_is_kept();
            }
            Reply::Failed { message, .. } => self.keeping_failed(request, message),
            Reply::Died { message } => self.keeper_died(message),
            _ => {}
        }
    }

    /// The program that keeps the models ended.
    pub(super) fn keeper_died(&mut self, why: String) {
        self.effects.push(Effect::StopKeeper);
        (self.models.task, self.models.keeper) = (None, Keeper::Off);
        if self.models.wanted.take().is_some() {
            self.effects.push(Effect::OpenBuiltIn);
        }
        self.models.trouble = Some(texts::sentence(&why));
    }

    fn keeping_failed(&mut self, request: u64, message: String) {
        let was_task = self.models.task.take_if(|task| task.request == request).is_some();
        if self.models.wanted.take().is_some() {
            self.effects.push(Effect::OpenBuiltIn);
        }
        // A browser that keeps nothing is told about when somebody wants to keep something.
        if was_task {
            self.models.trouble = Some(texts::sentence(&message));
            self.ask_what_is_kept();
            // It may be that the server does not know this device any more, which it then says.
            self.effects.push(Effect::ListModels);
        }
    }

    /// Goes on with the model of an earlier visit, if it is still there.
    fn find_wanted(&mut self) {
        let Some(wanted) = self.models.wanted.take() else { return };
        match self.models.kept(&wanted).filter(|model| model.here.is_some()) {
            Some(_) => self.use_model(Some(wanted)),
            None => {
                self.models.trouble = Some(texts::MODEL_NOT_KEPT.into());
                self.effects.extend([Effect::RememberModel(None), Effect::OpenBuiltIn]);
            }
        }
    }

    /// If the rest of the present model has come, works with all of it; while a picture is being made, the person may say when.
    fn take_up_the_rest(&mut self) {
        let Some(current) = &self.models.current else { return };
        let has_grown = |kept: &KeptModel| kept.here == Some(Scope::Picture) && current.here != kept.here;
        if self.phase != Phase::Running && self.models.kept(&current.key).is_some_and(has_grown) {
            self.use_model(Some(current.key.clone()));
        }
    }

    fn use_model(&mut self, key: Option<String>) {
        let model = match &key {
            Some(key) => match self.models.kept(key).filter(|model| model.here.is_some()) {
                Some(model) => Some(model.clone()),
                None => return,
            },
            None => None,
        };
        let (early, resumed) = (self.early.take(), self.resumed.take());
        self.abandon();
        (self.job, self.phase, self.no_manifest) = (None, Phase::Idle, None);
        Processor::ALL.into_iter().for_each(|processor| self.stop(processor));
        (self.places.cpu_is_broken, self.places.gpu_is_broken) = (false, false);
        self.places.failures.clear();
        self.effects.push(Effect::RememberModel(key.clone()));
        self.models.current = model;
        (self.early, self.resumed) = (early, resumed);
        match self.models.current.clone() {
            Some(model) => {
                let source = Source::Kept { key: model.key };
                self.work_with(source, model.manifest);
                self.begin_early();
            }
            None => {
                (self.manifest, self.source) = (None, None);
                if self.early.is_some() || self.resumed.is_some() {
                    self.phase = Phase::Running;
                }
                self.effects.push(Effect::OpenBuiltIn);
            }
        }
    }
}

fn row_of_offer(Offer { entry, address }: &Offer) -> Row {
    let install = |scope| Deed::Install(Supply::Address(address.clone()), scope);
    Row {
        name: entry.name.clone(),
        detail: texts::OFFERED.into(),
        is_current: false,
        deeds: vec![
            (texts::fetch_all(entry.bytes), install(Scope::Picture)),
            (texts::fetch_encoder(entry.encoder_bytes), install(Scope::Encoder)),
        ],
    }
}
