//! How the page gets on with its workers.

use kosmosg::placement::{Failure, FailureKind, Place, Stage};

use super::job::{Encoded, Moved};
use super::{App, Choice, Doing, Effect, Job, LOAD, Phase, Processor, WorkerState};
use crate::messages::{Envelope, Fault, Reply, Request};
use crate::texts;

/// With more time left than this, a page that may choose gives the rest to its server.
const MOST_SECONDS_LEFT: f64 = 180.0;

impl App {
    pub(super) fn start(&mut self, processor: Processor) {
        let worker = &mut self.workers[processor as usize];
        if *worker == WorkerState::Off && self.manifest.is_some() {
            *worker = WorkerState::Starting;
            self.effects.push(Effect::Start(processor));
        }
    }

    /// Ends a program that is not needed.
    pub(super) fn stop(&mut self, processor: Processor) {
        let worker = &mut self.workers[processor as usize];
        if *worker != WorkerState::Off {
            *worker = WorkerState::Off;
            self.effects.push(Effect::Stop(processor));
        }
    }

    pub(super) fn load(&mut self, processor: Processor) {
        let (Some(manifest), Some(source)) = (self.manifest.clone(), self.source.clone()) else { return };
        self.workers[processor as usize] = WorkerState::Loading { bytes: 0, of: 0 };
        let memory_bytes = match (processor, &self.places.adapter) {
            (Processor::Gpu, Some(adapter)) => adapter.limits.memory_bytes,
            _ => self.places.cpu_memory_bytes,
        };
        let body = Request::Load { source, manifest, memory_bytes };
        self.effects.push(Effect::Send { processor, message: Envelope { request: LOAD, body }, data: Vec::new() });
    }

    pub(super) fn heard(&mut self, processor: Processor, message: Envelope<Reply>, data: Vec<Vec<u8>>) {
        let Envelope { request, body } = message;
        match body {
            Reply::Started => self.load(processor),
            Reply::Loading { bytes, of } if request == LOAD => {
                self.workers[processor as usize] = WorkerState::Loading { bytes, of };
            }
            Reply::Ready { device, wrong_kernels, .. } => {
                self.workers[processor as usize] = WorkerState::Ready { device, wrong_kernels };
                if processor == Processor::Gpu {
                    self.has_warmed_up = [false; 2];
                }
                self.ask_reader();
                if self.waits_for(processor) {
                    self.proceed();
                }
            }
            Reply::Died { message } => self.worker_died(processor, message),
            Reply::Failed { message, .. } if request == LOAD => self.break_worker(processor, message),
            Reply::Tokenized { reading } => self.read(request, reading),
            // The rest belongs to a job. It may be one that was cancelled in the meantime.
            _ if self.phase != Phase::Running => {}
            _ if self.job.as_ref().is_none_or(|job| job.request != request) => {}
            Reply::Failed { fault: Fault::Prompt, message } => {
                let sentence = self.job.as_ref().map_or(String::new(), |job| job.order.sentence());
                self.give_up(&sentence, message);
            }
            Reply::Failed { fault, message } => self.device_failed(processor.place(), fault, &message),
            Reply::Picture => self.finish(processor.place(), data.into_iter().next().unwrap_or_default()),
            body => self.progressed(processor, body, data),
        }
    }

    pub(super) fn progressed(&mut self, processor: Processor, reply: Reply, data: Vec<Vec<u8>>) {
        let Some(job) = &mut self.job else { return };
        match reply {
            Reply::Encoded { condition } => {
                self.has_warmed_up[0] |= processor == Processor::Gpu;
                let (order, place) = (job.order.clone(), processor.place());
                (job.condition, job.encoded_at) = (Some(condition.clone()), Some(place));
                self.encoded = Some(Encoded { order, condition, place });
                self.proceed();
            }
            Reply::Loading { bytes, of } => {
                let place = processor.place();
                job.doing = match &job.condition {
                    _ if bytes < of => Doing::Loading { place, bytes, of },
                    None => Doing::Encoding(place),
                    Some(_) => job.denoising(place),
                };
            }
            Reply::Step { state, seconds } => {
                self.has_warmed_up[1] |= processor == Processor::Gpu;
                job.state = state;
                job.pace.step(seconds);
                job.doing = job.denoising(processor.place());
                self.hurry(processor);
            }
            Reply::Preview { seconds } => {
                job.pace.preview(seconds);
                self.effects.extend(data.into_iter().next().map(Effect::Preview));
            }
            _ => {}
        }
    }

    pub(super) fn worker_died(&mut self, processor: Processor, why: String) {
        if !matches!(self.workers[processor as usize], WorkerState::Ready { .. }) {
            return self.break_worker(processor, why);
        }
        // It worked before, so another one may work again.
        self.workers[processor as usize] = WorkerState::Off;
        self.effects.push(Effect::Stop(processor));
        let place = processor.place();
        if self.phase == Phase::Running && self.job.as_ref().is_some_and(|job| job.doing.place() == place) {
            self.device_failed(place, Fault::DeviceLost, texts::WORKER_STOPPED);
        }
    }

    pub(super) fn break_worker(&mut self, processor: Processor, why: String) {
        let is_wanted = self.encoder() == Some(processor);
        self.workers[processor as usize] = WorkerState::Broken(why.clone());
        self.effects.push(Effect::Stop(processor));
        match processor {
            Processor::Cpu => self.places.cpu_is_broken = true,
            Processor::Gpu => self.places.gpu_is_broken = true,
        }
        match &self.job {
            Some(job) if self.waits_for(processor) => match self.place_of(job.next_stage()) {
                Ok(place) if place != processor.place() => self.proceed(),
                _ => self.fail(why, self.remedies(Some(processor.place()))),
            },
            None if is_wanted && self.phase == Phase::Idle => {
                // A model that the person has chosen is loaded where else it can be, if the choice of the place allows.
                if self.models.current.is_some() && self.encoder() != Some(processor) {
                    return self.start_processor();
                }
                self.fail(why, self.remedies(None));
            }
            _ => {}
        }
    }

    /// Lets workers that could not be started try again.
    pub(super) fn revive(&mut self) {
        for worker in self.workers.iter_mut().filter(|worker| matches!(worker, WorkerState::Broken(_))) {
            *worker = WorkerState::Off;
        }
        (self.places.cpu_is_broken, self.places.gpu_is_broken) = (false, false);
    }

    pub(super) fn waits_for(&self, processor: Processor) -> bool {
        let waits = |job: &Job| job.doing == Doing::Waiting(processor.place());
        self.phase == Phase::Running && self.job.as_ref().is_some_and(waits)
    }

    /// This device could not do a step: the rest of the job goes elsewhere, if the person's choice allows.
    pub(super) fn device_failed(&mut self, place: Place, fault: Fault, message: &str) {
        let kind = match fault {
            Fault::OutOfMemory => FailureKind::OutOfMemory,
            Fault::WrongNumbers => FailureKind::WrongNumbers,
            _ => FailureKind::Lost,
        };
        self.places.failures.push(Failure { place, kind });
        let gpu = &mut self.workers[Processor::Gpu as usize];
        if place == Place::DeviceGpu && *gpu != WorkerState::Off {
            // A GPU's first failure stays with the program that had it.
            *gpu = WorkerState::Off;
            self.effects.push(Effect::Stop(Processor::Gpu));
        }
        let Some(job) = &mut self.job else { return };
        if kind == FailureKind::WrongNumbers {
            job.distrust(place);
            self.encoded.take_if(|encoded| encoded.place == place);
        }
        job.moved = Some(Moved { from: place, step: job.state.step(), why: Some(kind) });
        let stage = job.next_stage();
        match self.place_of(stage) {
            Ok(next) if next != place => self.proceed(),
            _ => self.fail(format!("{} ({message})", texts::DEVICE_STOPPED), self.remedies(Some(place))),
        }
    }

    /// Hands the rest of the job to the server, if there is one and this device would take too long.
    fn hurry(&mut self, processor: Processor) {
        let Some(job) = &self.job else { return };
        let left = job.state.evaluations() - job.state.step();
        let is_slow = job.pace.at_best(left).is_some_and(|seconds| seconds > MOST_SECONDS_LEFT);
        if !is_slow || self.places.choice != Choice::Auto || self.places.server.is_none() {
            return;
        }
        let (step, place) = (job.state.step(), processor.place());
        self.places.failures.push(Failure { place, kind: FailureKind::TooSlow });
        if self.place_of(Stage::Denoise) != Ok(Place::Server) {
            // Slow is better than nowhere.
            self.places.failures.pop();
            return;
        }
        self.hand_over(Moved { from: place, step, why: Some(FailureKind::TooSlow) });
    }

    /// Brings a running job to where the person has just chosen.
    pub(super) fn obey(&mut self) {
        let Some(job) = self.job.as_ref().filter(|_| self.phase == Phase::Running) else { return };
        let moved = Moved { from: job.doing.place(), step: job.state.step(), why: None };
        if self.place_of(job.next_stage()).is_ok_and(|place| place != moved.from) {
            self.hand_over(moved);
        }
    }

    fn hand_over(&mut self, moved: Moved) {
        self.release();
        if let Some(job) = &mut self.job {
            job.moved = Some(moved);
        }
        self.proceed();
    }
}
