//! What the page shows of itself, in words and numbers.

use kosmosg::placement::Place;
use kosmosg::prompt::PromptItem;

use super::job::Moved;
use super::{App, Choice, Doing, Models, Phase, Places, Processor, WorkerState, places};
use crate::texts;

impl App {
    /// The page's state in a word, for styles and tests: `loading`, `ready`, `running`, `done` or `failed`.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Running => "running",
            Phase::Done { .. } => "done",
            Phase::Failed { .. } => "failed",
            Phase::Idle | Phase::Cancelled => match self.workers[self.places.processor() as usize] {
                WorkerState::Ready { .. } | WorkerState::Broken(_) => "ready",
                _ => "loading",
            },
        }
    }

    /// What it is at.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What there is to compute on.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The models that there are.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The processor's worker and the GPU's.
    pub fn workers(&self) -> &[WorkerState; 2] {
        &self.workers
    }

    /// The bundle.
    pub fn manifest(&self) -> Option<&kosmosg::bundle::Manifest> {
        self.manifest.as_ref()
    }

    /// The seed of the last job.
    pub fn seed(&self) -> Option<u64> {
        self.job.as_ref().map(|job| job.order.settings.seed)
    }

    /// The last job's prompt in words, each picture by its name.
    pub fn description(&self) -> String {
        let words = |item: &PromptItem| match item {
            PromptItem::Text(words) => words.clone(),
            PromptItem::Image(image) => image.name.clone(),
        };
        self.job.as_ref().map_or(String::new(), |job| job.order.prompt.items().iter().map(words).collect())
    }

    /// What is going on, in a sentence.
    pub fn status(&self) -> String {
        match &self.phase {
            Phase::Idle => match self.workers[self.places.processor() as usize] {
                WorkerState::Loading { bytes, of } if bytes < of => texts::loading(bytes, of),
                WorkerState::Ready { .. } | WorkerState::Broken(_) => texts::READY.into(),
                _ => texts::STARTING.into(),
            },
            Phase::Cancelled => texts::CANCELLED.into(),
            Phase::Failed { message, .. } => texts::sentence(message),
            Phase::Done { seconds, place } => texts::done(*seconds, name(*place)),
            Phase::Running => self.doing(),
        }
    }

    /// Evaluations done and in all, while steps are being done.
    pub fn progress(&self) -> Option<(usize, usize)> {
        match self.job.as_ref()?.doing {
            _ if self.phase != Phase::Running => None,
            Doing::Denoising { step, of, .. } => Some((step, of)),
            Doing::Fetching => Some((1, 1)),
            _ => None,
        }
    }

    /// That a running job changed its place.
    pub fn moved(&self) -> Option<String> {
        let job = self.job.as_ref().filter(|_| matches!(self.phase, Phase::Running | Phase::Done { .. }))?;
        let Moved { from, step, why } = job.moved?;
        let to = match self.phase {
            Phase::Done { place, .. } => place,
            _ => job.doing.place(),
        };
        let why = why.map(|why| why.to_string());
        (from != to).then(|| texts::moved(step, name(from), why.as_deref(), name(to)))
    }

    /// Where each stage runs and why, in sentences; or why nothing runs.
    pub fn explanation(&self) -> Vec<String> {
        let Some(manifest) = &self.manifest else { return Vec::new() };
        match self.places.of(manifest, &self.models) {
            Ok(placement) => {
                let mut lines = places::explain(&placement);
                lines.extend(self.workers.iter().filter_map(|worker| match worker {
                    WorkerState::Ready { wrong_kernels, .. } if !wrong_kernels.is_empty() => {
                        Some(texts::wrong_kernels(wrong_kernels))
                    }
                    _ => None,
                }));
                lines
            }
            Err(error) => vec![error.to_string()],
        }
    }

    /// Why a choice is not offered.
    pub fn refusal(&self, choice: Choice) -> Option<String> {
        if self.places.offers(choice) {
            return None;
        }
        let broken = |processor: Processor| match &self.workers[processor as usize] {
            WorkerState::Broken(why) => Some(why.clone()),
            _ => None,
        };
        Some(match choice {
            Choice::Auto => String::new(),
            Choice::Gpu => broken(Processor::Gpu).unwrap_or(texts::NO_GPU.into()),
            Choice::Cpu => broken(Processor::Cpu).unwrap_or_default(),
            Choice::Server => texts::NO_SERVER.into(),
        })
    }

    fn doing(&self) -> String {
        let Some(job) = &self.job else { return texts::WAITING_FOR_MODEL.into() };
        if self.waits_for_server() {
            return texts::SERVER_AWAY.into();
        }
        match job.doing {
            Doing::Waiting(place) => {
                let processor = if place == Place::DeviceGpu { Processor::Gpu } else { Processor::Cpu };
                match self.workers[processor as usize] {
                    WorkerState::Loading { bytes, of } if bytes < of => texts::loading(bytes, of),
                    _ => texts::WAITING_FOR_MODEL.into(),
                }
            }
            Doing::Loading { bytes, of, .. } => texts::loading(bytes, of),
            Doing::Encoding(_) => texts::ENCODING.into(),
            Doing::Sending => texts::SENDING.into(),
            Doing::Queued { position, seconds } => texts::queued(position, seconds),
            Doing::Denoising { step, of, .. } if step == of => texts::DECODING.into(),
            Doing::Denoising { step, of, .. } => texts::step(step, of, job.pace.seconds_for(of - step)),
            Doing::Fetching => texts::FETCHING.into(),
        }
    }
}

fn name(place: Place) -> &'static str {
    match place {
        Place::DeviceGpu => texts::place::GPU,
        Place::DeviceCpu => texts::place::CPU,
        Place::Server => texts::place::SERVER,
    }
}
