//! What the page shows of itself, in words and numbers.

use kosmosg::placement::Place;

use super::job::Moved;
use super::queue::steps_of;
use super::{App, Choice, Doing, Models, Phase, Places, Processor, Results, WorkerState, places};
use crate::texts;

impl App {
    /// The page's state in a word, for styles and tests: `loading`, `ready`, `running`, `done` or `failed`.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Running => "running",
            Phase::Done { .. } => "done",
            Phase::Failed { .. } => "failed",
            Phase::Idle | Phase::Cancelled if self.is_loading() => "loading",
            Phase::Idle | Phase::Cancelled => "ready",
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
        self.job.as_ref().map_or(String::new(), |job| job.order.sentence())
    }

    /// The pictures of this visit.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// Whether a picture that is being made is looked at, rather than one that is finished.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Running && self.results.is_live()
    }

    /// What is going on, in a sentence.
    pub fn status(&self) -> String {
        match &self.phase {
            Phase::Idle => match *self.encoding_worker() {
                WorkerState::Loading { bytes, of } if bytes < of => texts::loading(bytes, of),
                _ if self.is_loading() => texts::STARTING.into(),
                _ => texts::READY.into(),
            },
            Phase::Cancelled => texts::CANCELLED.into(),
            Phase::Failed { message, .. } => texts::sentence(message),
            Phase::Done { seconds, place } => match &self.job {
                Some(job) if job.takes.len() > 1 => texts::all_done(job.takes.len(), *seconds, name(*place)),
                _ => texts::done(*seconds, name(*place)),
            },
            Phase::Running => match &self.job {
                Some(job) if job.takes.len() > 1 => texts::of_series(job.at + 1, job.takes.len(), &self.doing()),
                _ => self.doing(),
            },
        }
    }

    /// The worker that a first picture waits for.
    fn encoding_worker(&self) -> &WorkerState {
        self.encoder().map_or(&WorkerState::Off, |processor| &self.workers[processor as usize])
    }

    fn is_loading(&self) -> bool {
        match self.encoding_worker() {
            WorkerState::Starting | WorkerState::Loading { .. } => true,
            // With a model, one that is off is not needed, or is started when it is.
            WorkerState::Off => self.manifest.is_none(),
            WorkerState::Ready { .. } | WorkerState::Broken(_) => false,
        }
    }

    /// Evaluations done and in all, while steps are being done.
    pub fn progress(&self) -> Option<(usize, usize)> {
        let job = self.job.as_ref().filter(|_| self.phase == Phase::Running)?;
        let (step, of) = match job.doing {
            Doing::Denoising { step, of, .. } => (step, of),
            Doing::Fetching => (1, 1),
            // What is done of the others stays done.
            _ if job.at > 0 => (0, 1),
            _ => return None,
        };
        Some((job.at * of + step, job.takes.len() * of))
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
            Choice::Gpu => broken(Processor::Gpu).unwrap_or_else(|| self.places.no_gpu()),
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
                    // Its kernels are built and checked before the first byte of the model is fetched.
                    WorkerState::Loading { of: 0, .. } if processor == Processor::Gpu => texts::PREPARING_GPU.into(),
                    WorkerState::Starting => texts::STARTING_PROGRAM.into(),
                    _ => texts::WAITING_FOR_MODEL.into(),
                }
            }
            Doing::Loading { bytes, of, .. } => texts::loading(bytes, of),
            Doing::Encoding(Place::DeviceGpu) if !self.has_warmed_up[0] => texts::ENCODING_FIRST.into(),
            Doing::Encoding(_) => texts::ENCODING.into(),
            Doing::Sending => texts::SENDING.into(),
            Doing::Queued { position, seconds } => texts::queued(position, seconds),
            Doing::Denoising { step, of, .. } if step == of => texts::DECODING.into(),
            Doing::Denoising { place: Place::DeviceGpu, step: 0, .. } if !self.has_warmed_up[1] => {
                texts::STEPPING_FIRST.into()
            }
            Doing::Denoising { place, step, of } => {
                // A GPU's first step says nothing of the others.
                let is_told = place != Place::DeviceGpu || job.pace.at_best(1).is_some();
                let usual = self.manifest.as_ref().map_or(of, |manifest| manifest.defaults.steps);
                let to_come = steps_of(job.takes.get(job.at + 1..).unwrap_or_default(), usual);
                texts::step(step, of, job.pace.seconds_for(of - step + to_come).filter(|_| is_told))
            }
            Doing::Fetching => texts::FETCHING.into(),
        }
    }
}

pub(super) fn name(place: Place) -> &'static str {
    match place {
        Place::DeviceGpu => texts::place::GPU,
        Place::DeviceCpu => texts::place::CPU,
        Place::Server => texts::place::SERVER,
    }
}
