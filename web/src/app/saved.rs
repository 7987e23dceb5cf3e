//! A job that outlives the page: what is kept of it, when, and how it goes on after a reload.

use std::collections::VecDeque;
use std::rc::Rc;

use kosmosg::bundle::Part;
use kosmosg::condition::Condition;
use kosmosg::denoise::DenoiseState;
use kosmosg::placement::Place;
use serde::{Deserialize, Serialize};

use super::job::Line;
use super::queue::MOST_WAITING;
use super::{App, Doing, Effect, Job, LOAD, Order, Phase, Series, Waiting};
use crate::pace::Pace;
use crate::texts;

/// Time between two states that are written down: at most so much of the work is lost.
const BETWEEN_STATES_MS: f64 = 2000.0;

/// A job as it is kept. Its parts are written at different times: a state is small, and comes often.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedJob {
    /// What is wanted.
    pub order: SavedOrder,
    /// The encoded prompt, if it was there.
    pub condition: Option<Condition>,
    /// How far it is.
    pub progress: SavedProgress,
}

/// What is wanted, and of which model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedOrder {
    /// Number of the job, by which its parts are known to belong together.
    number: u64,
    order: Order,
    /// Hash of the model's U-Net.
    unet: String,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedProgress {
    number: u64,
    /// Which of its pictures is being made.
    at: usize,
    state: DenoiseState,
    /// Where the prompt was encoded, if the condition that is kept is good.
    encoded_at: Option<Place>,
    /// The server's name for it, if the server has it.
    remote: Option<String>,
    elapsed_ms: f64,
    /// The same for the picture that is being made.
    take_ms: f64,
    /// Whether it had failed.
    has_failed: bool,
    /// The step at which an earlier page took it up.
    resumed_at: Option<usize>,
}

/// Something to be written down, in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Save {
    /// A [`SavedOrder`], in the place of all that was kept.
    Order(String),
    /// A [`Condition`].
    Condition(String),
    /// A [`SavedProgress`].
    Progress(String),
    /// The [`Order`]s that wait.
    Waiting(String),
    /// There is no job any more.
    Over,
}

/// Knows what of the job was written down, and what has to be.
#[derive(Debug, Default)]
pub struct Saver {
    /// The job whose order is kept.
    number: Option<u64>,
    /// The orders that are kept as waiting: their tickets, and whether one waits for the model.
    waiting: (Vec<u64>, bool),
    /// Whether it has heard that the page before left something.
    has_resumed: bool,
    at: usize,
    has_condition: bool,
    step: usize,
    remote: Option<String>,
    has_failed: bool,
    saved_ms: f64,
}

impl SavedJob {
    /// A job of the parts that were kept, if they belong together.
    pub fn from_json(order: &str, condition: Option<&str>, progress: &str) -> Option<Self> {
        let order: SavedOrder = kosmosg::json::read(order.as_bytes()).ok()?;
        let progress: SavedProgress = kosmosg::json::read(progress.as_bytes()).ok()?;
        let condition = condition.filter(|_| progress.encoded_at.is_some());
        let condition = condition.and_then(|json| kosmosg::json::read(json.as_bytes()).ok());
        // A state in the middle is worth nothing without it.
        let is_whole = condition.is_some() || progress.state.step() == 0 || progress.remote.is_some();
        (order.number == progress.number && is_whole).then_some(Self { order, condition, progress })
    }

    /// What is still to be made, from its beginning.
    fn rest(&self) -> Order {
        let mut order = self.order.order.clone();
        // A grid is made once more as a whole.
        if let Series::Count(count) = &mut order.series {
            let made = (self.progress.at as u64).min(count.saturating_sub(1));
            *count -= made;
            order.settings.picture = order.settings.picture.saturating_add(made);
        }
        order
    }

    /// Whether it got no further since a page took it up: then that may be what ended the page.
    fn is_stuck(&self) -> bool {
        self.progress.has_failed
            || (self.progress.remote.is_none() && self.progress.resumed_at == Some(self.progress.state.step()))
    }
}

impl Saver {
    /// What is to be written down now, after something has happened.
    pub fn look(&mut self, app: &App, now_ms: f64) -> Vec<Save> {
        let mut saves = Vec::new();
        // Until a finished picture is on the shelf, what makes it again is kept.
        if app.unkept > 0 {
            return saves;
        }
        let waiting = (app.waiting.iter().map(|waiting| waiting.ticket).collect(), app.early.is_some());
        if self.waiting != waiting {
            self.waiting = waiting;
            let waiting = app.waiting.iter().map(|waiting| &waiting.order);
            saves.push(Save::Waiting(json(&app.early.iter().chain(waiting).collect::<Vec<_>>())));
        }
        if app.has_resumed && !std::mem::replace(&mut self.has_resumed, true) {
            // What the page before has left is kept until something else is.
            self.number.get_or_insert(0);
        }
        let has_failed = matches!(app.phase, Phase::Failed { .. });
        let Some(job) = app.job.as_ref().filter(|_| has_failed || app.phase == Phase::Running) else {
            // What is being taken up is still kept from the page before.
            let is_over = self.number.is_some() && app.resumed.is_none();
            if is_over {
                self.begin(None);
                saves.push(Save::Over);
            }
            return saves;
        };
        let is_new = self.number != Some(app.jobs);
        if is_new {
            self.begin(Some(app.jobs));
            let unet = app.unet();
            saves.push(Save::Order(json(&SavedOrder { number: app.jobs, order: (*job.order).clone(), unet })));
        }
        if let (Some(condition), false) = (&job.condition, self.has_condition) {
            saves.push(Save::Condition(json(condition)));
        }
        let is_due = job.state.step() != self.step && now_ms - self.saved_ms >= BETWEEN_STATES_MS;
        let has_turned = job.at != self.at
            || job.condition.is_some() != self.has_condition
            || job.remote != self.remote
            || has_failed != self.has_failed;
        if is_new || is_due || has_turned {
            (self.at, self.has_condition) = (job.at, job.condition.is_some());
            (self.step, self.remote, self.has_failed) = (job.state.step(), job.remote.clone(), has_failed);
            self.saved_ms = now_ms;
            saves.push(Save::Progress(json(&SavedProgress {
                number: app.jobs,
                at: job.at,
                state: job.state.clone(),
                encoded_at: job.condition.as_ref().and(job.encoded_at),
                remote: job.remote.clone(),
                elapsed_ms: now_ms - job.started_ms,
                take_ms: now_ms - job.take_ms,
                has_failed,
                resumed_at: app.resumed_at,
            })));
        }
        saves
    }

    /// Nothing is kept yet of the job of that number.
    fn begin(&mut self, number: Option<u64>) {
        let (waiting, has_resumed) = (std::mem::take(&mut self.waiting), self.has_resumed);
        *self = Self { number, waiting, has_resumed, ..Self::default() };
    }
}

impl App {
    /// Takes up the job of the page before, once there is a model; unless the person was faster.
    pub(super) fn resume(&mut self, saved: Option<Box<SavedJob>>, waiting: Vec<Order>) {
        self.has_resumed = true;
        let is_late = self.job.is_some() || self.early.is_some() || self.phase != Phase::Idle;
        let mut waiting: VecDeque<_> = waiting.into();
        let saved = match saved {
            Some(saved) if is_late => {
                waiting.push_front(saved.rest());
                self.effects.extend(saved.progress.remote.map(|id| Effect::Delete { id }));
                None
            }
            saved => saved,
        };
        for order in waiting {
            if self.waiting.len() < MOST_WAITING {
                let ticket = self.number();
                self.waiting.push_back(Waiting { ticket, order });
            }
        }
        let Some(saved) = saved else {
            // What failed asks first.
            if !is_late {
                self.next();
            }
            return;
        };
        self.resumed = Some(saved);
        self.phase = Phase::Running;
        self.take_up();
    }

    /// Goes on with a job of the page before, if one waits for the model that is there now.
    pub(super) fn take_up(&mut self) {
        let Some(schedule) = self.manifest.as_ref().and_then(|manifest| manifest.schedule().ok()) else { return };
        if self.resumed.as_ref().is_some_and(|saved| saved.order.unet != self.unet()) {
            // It is kept until that model is chosen, or something else is made.
            return self.fail(texts::JOB_OF_OTHER_MODEL.into(), Vec::new());
        }
        let Some(saved) = self.resumed.take() else { return };
        self.phase = Phase::Running;
        let is_stuck = saved.is_stuck();
        let SavedJob { order, condition, progress } = *saved;
        let start = DenoiseState::new(progress.state.settings().clone(), &schedule);
        let SavedOrder { order, .. } = order;
        let takes = order.series.takes(&order.settings);
        let (Ok(start), true) = (start, progress.at < takes.len()) else {
            self.effects.extend(progress.remote.map(|id| Effect::Delete { id }));
            self.phase = Phase::Idle;
            let sentence = order.sentence();
            return self.give_up(&sentence, texts::JOB_OF_OTHER_MODEL.into());
        };
        self.results.begin(&order, progress.at);
        self.jobs += 1;
        self.resumed_at = Some(progress.state.step());
        self.job = Some(Job {
            order: Rc::new(order),
            takes,
            at: progress.at,
            condition,
            encoded_at: progress.encoded_at,
            start,
            state: progress.state,
            doing: Doing::Waiting(Place::DeviceCpu),
            pace: Pace::default(),
            pace_from: None,
            started_ms: self.now_ms - progress.elapsed_ms.max(0.0),
            take_ms: self.now_ms - progress.take_ms.max(0.0),
            failed_ms: None,
            moved: None,
            request: LOAD,
            remote: progress.remote,
            line: Line::Heard(self.now_ms),
        });
        if is_stuck {
            return self.fail(texts::JOB_LEFT.into(), self.remedies(None));
        }
        let request = self.number();
        match self.job.as_mut().and_then(|job| Some((job.remote.clone()?, job))) {
            Some((id, job)) => {
                (job.request, job.doing) = (request, job.denoising(Place::Server));
                self.listen(id, Line::Heard(self.now_ms));
            }
            None => self.proceed(),
        }
    }

    /// Gives up a job of the page before that was not taken up yet.
    pub(super) fn give_up_resumed(&mut self) {
        let remote = self.resumed.take().and_then(|saved| saved.progress.remote);
        self.effects.extend(remote.map(|id| Effect::Delete { id }));
    }

    pub(super) fn unet(&self) -> String {
        let part = self.manifest.as_ref().and_then(|manifest| manifest.part("unet").ok());
        part.map_or(String::new(), Part::sha256)
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("jobs are plain data")
}
