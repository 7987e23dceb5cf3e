//! A job as plain data: whoever holds it can go on with it anywhere.

use kosmosg::condition::Condition;
use kosmosg::denoise::DenoiseState;
use kosmosg::picture::Recipe;
use kosmosg::placement::{Place, Stage};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{GenerateSettings, JobRequest, PictureFile};

use crate::pace::Pace;

/// What the person wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Words and picture places, the pictures numbered in order.
    pub prompt: PromptDocument,
    /// The pictures' files.
    pub pictures: Vec<PictureFile>,
    /// What to steer away from; empty for nothing.
    pub negative: String,
    /// How.
    pub settings: GenerateSettings,
}

/// An order on its way.
#[derive(Debug, Clone)]
pub struct Job {
    /// What is wanted.
    pub order: Order,
    /// The encoded prompt, once it is there.
    pub condition: Option<Condition>,
    /// The last state that is known, at first the noise.
    pub state: DenoiseState,
    /// What is going on.
    pub doing: Doing,
    /// Speed at the present place.
    pub pace: Pace,
    /// When it began, in milliseconds of the page's clock.
    pub started_ms: f64,
    /// The last change of place: from where, after how many steps.
    pub moved: Option<(Place, usize)>,
    /// Number of the request that is being answered.
    pub request: u64,
    /// The server's name for it, while the server has it.
    pub remote: Option<String>,
}

/// What is going on with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// A worker is still loading.
    Waiting(Place),
    /// The prompt is being encoded.
    Encoding(Place),
    /// It travels to the server.
    Sending,
    /// It waits on the server; so many come first.
    Queued(usize),
    /// Steps are being done: evaluations so far and in all.
    Denoising {
        /// Where.
        place: Place,
        /// Evaluations done.
        step: usize,
        /// Evaluations in all.
        of: usize,
    },
    /// The picture travels back.
    Fetching,
}

impl Doing {
    /// Where it goes on.
    pub fn place(self) -> Place {
        match self {
            Doing::Waiting(place) | Doing::Encoding(place) | Doing::Denoising { place, .. } => place,
            Doing::Sending | Doing::Queued(_) | Doing::Fetching => Place::Server,
        }
    }
}

impl Job {
    /// The stage to do next.
    pub fn next_stage(&self) -> Stage {
        match &self.condition {
            None => Stage::Encode,
            Some(_) if self.state.is_done() => Stage::Decode,
            Some(_) => Stage::Denoise,
        }
    }

    /// That steps are being done at `place`.
    pub fn denoising(&self, place: Place) -> Doing {
        Doing::Denoising { place, step: self.state.step(), of: self.state.evaluations() }
    }

    /// The rest of it for a server that calls the bundle `bundle`.
    pub fn for_server(&self, bundle: &str) -> JobRequest {
        let bundle = bundle.to_owned();
        match &self.condition {
            Some(condition) => JobRequest::Denoise { bundle, condition: condition.clone(), state: self.state.clone() },
            None => JobRequest::Generate {
                bundle,
                prompt: self.order.prompt.clone(),
                pictures: self.order.pictures.clone(),
                negative: self.order.negative.clone(),
                settings: self.order.settings.clone(),
            },
        }
    }

    /// What its picture's file says: `side` pixels, made by `engine` from the bundle called `model`.
    pub fn recipe(&self, model: &str, side: u32, engine: &str) -> Recipe {
        let settings = self.state.settings();
        Recipe {
            prompt: self.order.prompt.clone(),
            negative: self.order.negative.clone(),
            seed: settings.seed,
            picture: settings.picture,
            sampler: settings.sampler,
            steps: settings.steps,
            guidance: settings.guidance,
            width: side,
            height: side,
            model: model.to_owned(),
            engine: engine.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
