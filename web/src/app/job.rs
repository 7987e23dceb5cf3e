//! A job as plain data: whoever holds it can go on with it anywhere.

use std::rc::Rc;

use kosmosg::condition::Condition;
use kosmosg::denoise::DenoiseState;
use kosmosg::picture::Recipe;
use kosmosg::placement::{FailureKind, Place, Stage};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{GenerateSettings, JobRequest, PictureFile};
use serde::{Deserialize, Serialize};

use super::series::Series;
use crate::composition::sentence;
use crate::pace::Pace;

/// What the person wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Words and picture places, the pictures numbered in order.
    pub prompt: PromptDocument,
    /// The pictures' files.
    pub pictures: Vec<PictureFile>,
    /// What to steer away from; empty for nothing.
    pub negative: String,
    /// How.
    pub settings: GenerateSettings,
    /// Which pictures.
    pub series: Series,
}

impl Order {
    /// The prompt in words, each picture by its name.
    pub fn sentence(&self) -> String {
        sentence(&self.prompt)
    }

    /// Whether both are encoded to the same condition.
    fn says_the_same(&self, other: &Self) -> bool {
        (&self.prompt, &self.pictures, &self.negative) == (&other.prompt, &other.pictures, &other.negative)
    }
}

/// The condition of an order, which others may have too.
#[derive(Debug)]
pub struct Encoded {
    /// The order.
    pub order: Rc<Order>,
    /// Its condition.
    pub condition: Condition,
    /// Where it was encoded.
    pub place: Place,
}

impl Encoded {
    /// Whether encoding `order` at `place` would find the same.
    pub fn is_of(&self, order: &Order, place: Place) -> bool {
        self.place == place && self.order.says_the_same(order)
    }
}

/// An order on its way.
#[derive(Debug, Clone)]
pub struct Job {
    /// What is wanted.
    pub order: Rc<Order>,
    /// How each of its pictures is made.
    pub takes: Vec<GenerateSettings>,
    /// Which of them is being made, from 0.
    pub at: usize,
    /// The encoded prompt, once it is there.
    pub condition: Option<Condition>,
    /// Where it was encoded.
    pub encoded_at: Option<Place>,
    /// The noise that it begins with.
    pub start: DenoiseState,
    /// The last state that is known, at first the noise.
    pub state: DenoiseState,
    /// What is going on.
    pub doing: Doing,
    /// Speed at the present place.
    pub pace: Pace,
    /// The first step that was heard since the line to the server stands, and its seconds: a server that is started again counts
    /// them anew.
    pub pace_from: Option<(usize, f64)>,
    /// When it began, in milliseconds of the page's clock; later by the time that failures stood on the screen.
    pub started_ms: f64,
    /// The same for the picture that is being made.
    pub take_ms: f64,
    /// Since when a failure stands on the screen.
    pub failed_ms: Option<f64>,
    /// The last change of place.
    pub moved: Option<Moved>,
    /// Number of the request that is being answered.
    pub request: u64,
    /// The server's name for it, while the server has it; also when the page has given up waiting for the server.
    pub remote: Option<String>,
    /// The line to the server, while it has the job.
    pub line: Line,
}

/// Whether the server that has a job is heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Line {
    /// It is; when it was last, in milliseconds of the page's clock.
    Heard(f64),
    /// It is not, since then, and is waited for.
    Away(f64),
}

/// That a place did not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Which.
    pub from: Place,
    /// After how many steps.
    pub step: usize,
    /// What it did, if it failed and that is known.
    pub why: Option<FailureKind>,
}

/// What is going on with a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Doing {
    /// A worker is still loading.
    Waiting(Place),
    /// A stage of the model is being loaded.
    Loading {
        /// Where.
        place: Place,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
    /// The prompt is being encoded.
    Encoding(Place),
    /// It travels to the server.
    Sending,
    /// It waits on the server.
    Queued {
        /// Jobs that come first.
        position: usize,
        /// Seconds until its turn, if the server can tell.
        seconds: Option<f64>,
    },
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
            Doing::Waiting(place)
            | Doing::Loading { place, .. }
            | Doing::Encoding(place)
            | Doing::Denoising { place, .. } => place,
            Doing::Sending | Doing::Queued { .. } | Doing::Fetching => Place::Server,
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

    /// Forgets what `place` computed, since some of it was wrong.
    pub fn distrust(&mut self, place: Place) {
        if self.encoded_at == Some(place) {
            (self.condition, self.encoded_at) = (None, None);
        }
        self.state = self.start.clone();
    }

    /// The rest of it for a server that calls the bundle `bundle`; `unet` is the hash of the U-Net that it began with.
    pub fn for_server(&self, bundle: &str, unet: &str) -> JobRequest {
        let bundle = bundle.to_owned();
        match &self.condition {
            Some(condition) => JobRequest::Denoise {
                bundle,
                unet: unet.to_owned(),
                condition: condition.clone(),
                state: self.state.clone(),
                loras: Vec::new(),
            },
            None => JobRequest::Generate {
                bundle,
                prompt: self.order.prompt.clone(),
                pictures: self.order.pictures.clone(),
                negative: self.order.negative.clone(),
                settings: self.takes[self.at].clone(),
                loras: Vec::new(),
            },
        }
    }

    /// What its picture's file says: `side` pixels, made by `engine` from the bundle called `model`.
    pub fn recipe(&self, model: &str, side: u32, engine: &str) -> Recipe {
        let words = (self.order.prompt.clone(), self.order.negative.clone());
        Recipe::of(self.state.settings(), words, [side, side], model, engine)
    }
}
