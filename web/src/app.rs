//! The behaviour of the page: what happens, as a function of what was and an event.
//!
//! [`App::update`] takes an [`Event`] and returns [`Effect`]s for the browser to carry out; it touches nothing itself. A job
//! is plain data that the page holds, so that a worker or the server that fails, or vanishes, takes at most a step with it.

use std::collections::VecDeque;
use std::mem;

use kosmosg::bundle::Manifest;
use kosmosg::placement::{Place, Stage};

use crate::messages::{Envelope, Request, Source};
use crate::pace::Pace;
use crate::texts;

use reading::Reader;

pub use events::{Effect, Event, Phase, Processor, WorkerState};
use job::Encoded;
pub use job::{Doing, Job, Order};
pub use models::{Deed, Models, Offer, Row, Task};
pub use places::{Adapter, Choice, Places};
pub use queue::Waiting;
pub use remote::Refusal;
pub use results::{Look, Made, Outcome, Results, Sheet};
pub use saved::{Save, SavedJob, Saver};
pub use series::{Axis, AxisKind, Grid, Series};

mod events;
mod job;
mod models;
mod places;
mod queue;
mod reading;
mod remote;
mod results;
mod saved;
mod series;
#[cfg(test)]
mod tests;
mod view;
mod workers;

/// The built-in bundle: its name on the server and its folder below `models/`.
pub const BUNDLE: &str = "tiny";
/// Number of the request that loads the bundle.
const LOAD: u64 = 0;

/// The page.
#[derive(Debug, Default)]
pub struct App {
    places: Places,
    manifest: Option<Manifest>,
    /// Why the manifest cannot be had.
    no_manifest: Option<String>,
    source: Option<Source>,
    models: Models,
    workers: [WorkerState; 2],
    phase: Phase,
    /// An order that came before the manifest.
    early: Option<Order>,
    job: Option<Job>,
    /// What was encoded last with this model.
    encoded: Option<Encoded>,
    /// How many jobs there were.
    jobs: u64,
    /// A job of the page before, until there is a model.
    resumed: Option<Box<SavedJob>>,
    /// The step at which the job of the page before was taken up.
    resumed_at: Option<usize>,
    /// Whether there was something left of the page before.
    has_resumed: bool,
    /// Orders that wait for the job to be over.
    waiting: VecDeque<Waiting>,
    /// An order that was left out so that those could be made.
    left_out: Option<String>,
    results: Results,
    /// Finished pictures that are still being put on the shelf.
    unkept: usize,
    reader: Reader,
    requests: u64,
    /// Which stages the GPU's program has done: doing one for the first time makes it ready.
    has_warmed_up: [bool; 2],
    fail_at_step: Option<usize>,
    /// Whether the server does not know this device.
    is_stranger: bool,
    now_ms: f64,
    effects: Vec<Effect>,
}

impl App {
    /// A page whose jobs are numbered from there on. Where the browser does not tell tabs apart, two of them may keep their
    /// work under the same name; their numbers differ.
    pub fn counting_from(jobs: u64) -> Self {
        Self { jobs, ..Self::default() }
    }

    /// Takes an event at `now_ms` of the page's clock.
    pub fn update(&mut self, now_ms: f64, event: Event) -> Vec<Effect> {
        self.now_ms = now_ms;
        match event {
            Event::Open { model, loading } => self.open(model, loading),
            // Another model may have been chosen in the meantime.
            Event::Manifest { .. } | Event::NoManifest { .. } if self.models.current.is_some() => {}
            Event::Manifest { base, manifest } => {
                self.work_with(Source::Server { base }, *manifest);
                self.begin_early();
            }
            Event::NoManifest { why } => {
                let message = match why {
                    Refusal::Stranger => texts::NOT_PAIRED.into(),
                    ref why => texts::cannot_fetch("The model", &why.to_string()),
                };
                self.is_stranger |= why == Refusal::Stranger;
                (self.early, self.no_manifest) = (None, Some(message.clone()));
                self.fail(message, vec![Choice::Auto]);
            }
            Event::Device { adapter, cpu_memory_bytes } => {
                (self.places.adapter, self.places.cpu_memory_bytes) = (adapter, cpu_memory_bytes);
                self.start_processor();
            }
            Event::Server(health) => {
                self.places.found(health, self.phase == Phase::Running);
            }
            Event::Offered(answer) => self.offered(answer),
            Event::Model(deed) => self.deed(deed),
            Event::Room(room) => self.models.room = Some(room),
            Event::Keeper(message) => self.kept(*message),
            Event::KeeperDied { why } => self.keeper_died(why),
            Event::FailAtStep(step) => self.fail_at_step = Some(step),
            Event::Choose(choice) => {
                self.places.choose(choice);
                self.effects.push(Effect::Remember(choice));
                self.start_processor();
                self.obey();
            }
            Event::NoGpu { why, browser } => self.places.no_gpu = Some((why, browser)),
            Event::Make(order) => self.make(*order),
            Event::Resume { job, waiting } => self.resume(job, waiting),
            Event::Cancel => self.cancel(),
            Event::CancelAll => self.cancel_all(),
            Event::Stored => self.unkept -= 1,
            Event::Withdraw(ticket) => self.waiting.retain(|waiting| waiting.ticket != ticket),
            Event::Look(look) => self.results.look(look),
            Event::Wrote { prompt, negative } => self.wrote(*prompt, negative),
            Event::GoOn(choice) => self.go_on(choice),
            Event::Worker { processor, message, data } => self.heard(processor, *message, data),
            Event::WorkerDied { processor, why } => self.worker_died(processor, why),
            Event::Posted { request, answer } => self.posted(request, answer),
            Event::Waited { request } => self.waited(request),
            // A job that was cancelled or goes on elsewhere.
            Event::Remote { ref id, .. }
            | Event::RemoteState { ref id, .. }
            | Event::RemotePicture { ref id, .. }
            | Event::ServerCame { ref id }
            | Event::ServerWent { ref id }
            | Event::Told { ref id, .. }
                if !self.follows(id) => {}
            Event::Remote { id, event } => {
                self.hear();
                self.remote(id, *event);
            }
            Event::RemoteState { state, .. } => {
                if let Some(job) = &mut self.job {
                    job.state = *state;
                }
            }
            Event::RemotePicture { png, .. } => self.finish(Place::Server, png),
            Event::ServerCame { .. } => self.server_came(),
            Event::ServerWent { .. } => self.server_went(),
            Event::Told { id, answer } => self.told(id, answer),
        }
        self.mark_loading();
        mem::take(&mut self.effects)
    }

    /// Has the browser remember which kept model is being loaded: one that ends the page is not loaded at every opening.
    fn mark_loading(&mut self) {
        let is_loading = |worker: &WorkerState| matches!(worker, WorkerState::Loading { .. });
        let model = self.models.current.as_ref().filter(|_| self.workers.iter().any(is_loading));
        let key = model.map(|model| model.key.clone());
        if self.models.loading != key {
            self.models.loading.clone_from(&key);
            self.effects.push(Effect::MarkLoading(key));
        }
    }

    fn work_with(&mut self, source: Source, manifest: Manifest) {
        // What the person has set for the same model stays.
        if self.manifest.as_ref() != Some(&manifest) {
            self.forget_reading();
            self.effects.push(Effect::ShowDefaults(Box::new(manifest.clone())));
        }
        (self.source, self.manifest, self.encoded) = (Some(source), Some(manifest), None);
        // The built-in model is so small that the processor has it ready at once, and there is somebody to help.
        if self.models.current.is_none() {
            self.start(Processor::Cpu);
        }
        self.start_processor();
        self.take_up();
    }

    /// Starts the program that will encode, before a picture is wanted.
    fn start_processor(&mut self) {
        let Some(processor) = self.encoder() else { return };
        // A model that may be large is loaded once, where it will be used.
        if self.models.current.is_some() && self.phase != Phase::Running {
            self.stop(processor.other());
        }
        self.start(processor);
    }

    /// Where on this device prompts will be encoded, if they will.
    fn encoder(&self) -> Option<Processor> {
        if self.models.current.is_none() {
            return Some(self.places.processor());
        }
        match self.place_of(Stage::Encode) {
            Ok(Place::Server) => None,
            Ok(Place::DeviceGpu) => Some(Processor::Gpu),
            Ok(Place::DeviceCpu) => Some(Processor::Cpu),
            Err(_) => Some(self.places.processor()),
        }
    }

    /// Does what comes next with the job, where it is to be done now.
    fn proceed(&mut self) {
        let Some(stage) = self.job.as_ref().map(Job::next_stage) else { return };
        self.phase = Phase::Running;
        match self.place_of(stage) {
            Ok(Place::Server) => self.post(),
            Ok(Place::DeviceCpu) => self.compute(Processor::Cpu),
            Ok(Place::DeviceGpu) => self.compute(Processor::Gpu),
            Err(message) => {
                // That its program could not be loaded says more than that nothing is left.
                let broken = match &self.workers[Processor::Cpu as usize] {
                    WorkerState::Broken(why) => Some(why.clone()),
                    _ => None,
                };
                self.fail(broken.unwrap_or(message), self.remedies(None));
            }
        }
    }

    fn place_of(&self, stage: Stage) -> Result<Place, String> {
        let manifest = self.manifest.as_ref().ok_or(texts::STARTING)?;
        let placement = self.places.of(manifest, &self.models).map_err(|error| error.to_string())?;
        Ok(match stage {
            Stage::Encode => placement.encode.place,
            Stage::Denoise => placement.denoise.place,
            Stage::Decode => placement.decode.place,
        })
    }

    fn compute(&mut self, processor: Processor) {
        self.start(processor);
        let ready = matches!(self.workers[processor as usize], WorkerState::Ready { .. });
        let request = self.number();
        let place = processor.place();
        let (Some(job), Some(manifest)) = (&mut self.job, &self.manifest) else { return };
        // A server that was given up may still have it.
        self.effects.extend(job.remote.take().map(|id| Effect::Delete { id }));
        job.request = request;
        if !ready {
            job.doing = Doing::Waiting(place);
            return;
        }
        let (body, data) = match &job.condition {
            None => {
                job.doing = Doing::Encoding(place);
                let pictures = job.order.pictures.iter().map(|file| file.0.clone()).collect();
                let (prompt, negative) = (job.order.prompt.clone(), job.order.negative.clone());
                (Request::Encode { prompt, negative }, pictures)
            }
            Some(condition) => {
                if job.doing.place() != place {
                    job.pace = Pace::default();
                }
                job.doing = job.denoising(place);
                let recipe = job.recipe(&manifest.name, manifest.picture_size as u32, processor.engine());
                let (condition, state) = (condition.clone(), job.state.clone());
                let fail_at_step = self.fail_at_step.take();
                (Request::Denoise { condition, state, recipe, fail_at_step }, Vec::new())
            }
        };
        self.effects.push(Effect::Send { processor, message: Envelope { request, body }, data });
    }

    /// Tells whoever works on the job that nobody waits for it.
    fn abandon(&mut self) {
        // A server that was given up may still work on it.
        if !matches!(self.phase, Phase::Running | Phase::Failed { .. }) {
            return;
        }
        self.early = None;
        self.give_up_resumed();
        self.release();
        self.job = None;
    }

    /// Tells whoever works on the job to leave it.
    fn release(&mut self) {
        let Some(job) = &mut self.job else { return };
        match (job.remote.take(), job.doing.place()) {
            (Some(id), _) => self.effects.push(Effect::Delete { id }),
            (None, Place::Server) => {}
            (None, _) if self.phase != Phase::Running => {}
            (None, place) => {
                let processor = if place == Place::DeviceGpu { Processor::Gpu } else { Processor::Cpu };
                let message = Envelope { request: job.request, body: Request::Cancel };
                self.effects.push(Effect::Send { processor, message, data: Vec::new() });
            }
        }
    }

    fn go_on(&mut self, choice: Choice) {
        if !matches!(self.phase, Phase::Failed { .. }) {
            return;
        }
        match choice {
            // It stands for trying again, wherever that was.
            Choice::Auto => self.revive(),
            _ => self.places.choose(choice),
        }
        self.places.failures.clear();
        // This device may have been paired in the meantime.
        if self.is_stranger {
            self.effects.push(Effect::ListModels);
        }
        match &mut self.job {
            Some(job) => {
                // How long the person took to decide is not how long the picture took.
                let stood = job.failed_ms.take().map_or(0.0, |failed| self.now_ms - failed);
                (job.started_ms, job.take_ms) = (job.started_ms + stood, job.take_ms + stood);
                self.proceed();
            }
            None => {
                self.phase = if self.resumed.is_some() { Phase::Running } else { Phase::Idle };
                self.effects.extend(self.no_manifest.take().map(|_| Effect::OpenBuiltIn));
                self.start_processor();
                self.take_up();
                self.begin_early();
            }
        }
    }

    fn fail(&mut self, message: String, remedies: Vec<Choice>) {
        if let Some(job) = &mut self.job {
            job.failed_ms = Some(self.now_ms);
        }
        self.phase = Phase::Failed { message, remedies };
    }

    /// Where a job that failed at a place can go on, that place last. What could not be loaded may be tried again first.
    fn remedies(&self, failed: Option<Place>) -> Vec<Choice> {
        let again = self.workers.iter().any(|worker| matches!(worker, WorkerState::Broken(_))).then_some(Choice::Auto);
        if self.job.is_none() {
            return again.into_iter().collect();
        }
        let places =
            [(Choice::Server, Place::Server), (Choice::Gpu, Place::DeviceGpu), (Choice::Cpu, Place::DeviceCpu)];
        let is_good = |choice| match choice {
            // A GPU that is emulated only takes longer than the processor that it is emulated on.
            Choice::Gpu => self.places.adapter.as_ref().is_some_and(|adapter| !adapter.is_emulated),
            _ => true,
        };
        let offered = |&(choice, _): &(Choice, Place)| self.places.offers(choice) && is_good(choice);
        let (last, first): (Vec<_>, Vec<_>) =
            places.into_iter().filter(offered).partition(|&(_, place)| Some(place) == failed);
        again.into_iter().chain(first.into_iter().chain(last).map(|(choice, _)| choice)).collect()
    }

    fn number(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }
}
