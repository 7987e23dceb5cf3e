//! A job that outlives the page: what is kept of it, when, and how it goes on after a reload. And what is kept of its picture.

use kosmosg::bundle::Part;
use kosmosg::condition::Condition;
use kosmosg::denoise::DenoiseState;
use kosmosg::picture::Recipe;
use kosmosg::placement::Place;
use kosmosg::protocol::PictureFile;
use serde::{Deserialize, Serialize};

use super::job::Line;
use super::{App, Doing, Effect, Job, LOAD, Order, Phase, Processor, view};
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
    state: DenoiseState,
    /// Where the prompt was encoded, if the condition that is kept is good.
    encoded_at: Option<Place>,
    /// The server's name for it, if the server has it.
    remote: Option<String>,
    elapsed_ms: f64,
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
    /// There is no job any more.
    Over,
}

/// Knows what of the job was written down, and what has to be.
#[derive(Debug, Default)]
pub struct Saver {
    /// The job whose order is kept.
    number: Option<u64>,
    has_condition: bool,
    step: usize,
    remote: Option<String>,
    has_failed: bool,
    saved_ms: f64,
}

/// A finished picture's story.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// How it is made again.
    pub recipe: Recipe,
    /// The prompt's pictures.
    pub pictures: Vec<Option<PictureFile>>,
    /// How long it took.
    pub seconds: f64,
    /// Where it was made, in words that follow "Made".
    pub place: &'static str,
}

impl SavedJob {
    /// A job of the parts that were kept, if they belong together.
    pub fn from_json(order: &str, condition: Option<&str>, progress: &str) -> Option<Self> {
        let order: SavedOrder = serde_json::from_str(order).ok()?;
        let progress: SavedProgress = serde_json::from_str(progress).ok()?;
        let condition = condition.filter(|_| progress.encoded_at.is_some());
        let condition = condition.and_then(|json| serde_json::from_str(json).ok());
        // A state in the middle is worth nothing without it.
        let is_whole = condition.is_some() || progress.state.step() == 0 || progress.remote.is_some();
        (order.number == progress.number && is_whole).then_some(Self { order, condition, progress })
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
        let has_failed = matches!(app.phase, Phase::Failed { .. });
        let Some(job) = app.job.as_ref().filter(|_| has_failed || app.phase == Phase::Running) else {
            // What is being taken up is still kept from the page before.
            let is_over = self.number.is_some() && app.resumed.is_none();
            return if is_over && std::mem::take(self).number.is_some() { vec![Save::Over] } else { Vec::new() };
        };
        let mut saves = Vec::new();
        let is_new = self.number != Some(app.jobs);
        if is_new {
            *self = Self { number: Some(app.jobs), ..Self::default() };
            let unet = app.unet();
            saves.push(Save::Order(json(&SavedOrder { number: app.jobs, order: job.order.clone(), unet })));
        }
        if let (Some(condition), false) = (&job.condition, self.has_condition) {
            saves.push(Save::Condition(json(condition)));
        }
        let is_due = job.state.step() != self.step && now_ms - self.saved_ms >= BETWEEN_STATES_MS;
        let has_turned =
            job.condition.is_some() != self.has_condition || job.remote != self.remote || has_failed != self.has_failed;
        if is_new || is_due || has_turned {
            self.has_condition = job.condition.is_some();
            (self.step, self.remote, self.has_failed) = (job.state.step(), job.remote.clone(), has_failed);
            self.saved_ms = now_ms;
            saves.push(Save::Progress(json(&SavedProgress {
                number: app.jobs,
                state: job.state.clone(),
                encoded_at: job.condition.as_ref().and(job.encoded_at),
                remote: job.remote.clone(),
                elapsed_ms: now_ms - job.started_ms,
                has_failed,
                resumed_at: app.resumed_at,
            })));
        }
        saves
    }
}

impl App {
    /// Takes up the job of the page before, once there is a model; unless the person was faster.
    pub(super) fn resume(&mut self, saved: SavedJob) {
        if self.job.is_some() || self.early.is_some() || self.phase != Phase::Idle {
            self.effects.extend(saved.progress.remote.map(|id| Effect::Delete { id }));
            return;
        }
        self.resumed = Some(Box::new(saved));
        self.phase = Phase::Running;
        self.take_up();
    }

    /// Goes on with a job of the page before, if one waits for the model that is there now.
    pub(super) fn take_up(&mut self) {
        let Some(schedule) = self.manifest.as_ref().and_then(|manifest| manifest.schedule().ok()) else { return };
        let Some(saved) = self.resumed.take() else { return };
        let is_stuck = saved.is_stuck();
        let SavedJob { order, condition, progress } = *saved;
        let start = DenoiseState::new(progress.state.settings().clone(), &schedule);
        let (Ok(start), true) = (start, order.unet == self.unet()) else {
            self.effects.extend(progress.remote.map(|id| Effect::Delete { id }));
            return self.fail(texts::JOB_OF_OTHER_MODEL.into(), Vec::new());
        };
        self.jobs += 1;
        self.resumed_at = Some(progress.state.step());
        self.job = Some(Job {
            order: order.order,
            condition,
            encoded_at: progress.encoded_at,
            start,
            state: progress.state,
            doing: Doing::Waiting(Place::DeviceCpu),
            pace: Pace::default(),
            pace_from: None,
            started_ms: self.now_ms - progress.elapsed_ms.max(0.0),
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

    /// The story of the picture that is just done.
    pub fn made(&self) -> Option<Made> {
        let (&Phase::Done { seconds, place }, Some(job), Some(manifest)) = (&self.phase, &self.job, &self.manifest)
        else {
            return None;
        };
        let engine = match place {
            Place::Server => self.places.server.as_ref().map_or("", |health| &health.engine),
            Place::DeviceGpu => Processor::Gpu.engine(),
            Place::DeviceCpu => Processor::Cpu.engine(),
        };
        let recipe = job.recipe(&manifest.name, manifest.picture_size as u32, engine);
        let pictures = job.order.pictures.iter().cloned().map(Some).collect();
        Some(Made { recipe, pictures, seconds, place: view::name(place) })
    }

    fn unet(&self) -> String {
        let part = self.manifest.as_ref().and_then(|manifest| manifest.part("unet").ok());
        part.map_or(String::new(), Part::sha256)
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("jobs are plain data")
}
