//! Orders that wait for their turn, and the pictures of an order one after the other.

use std::rc::Rc;

use kosmosg::denoise::DenoiseState;
use kosmosg::placement::{Place, Stage};
use kosmosg::protocol::GenerateSettings;

use super::job::{Doing, Job, Line, Order};
use super::results::{Look, Made};
use super::{App, Choice, Effect, LOAD, Phase, Processor, view};
use crate::pace::Pace;
use crate::texts;

/// Most orders that wait.
pub const MOST_WAITING: usize = 20;

/// An order that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What it is called by.
    pub ticket: u64,
    /// The order.
    pub order: Order,
}

impl App {
    /// The orders that wait, the next one first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// Whether another order can be put in line.
    pub fn takes_orders(&self) -> bool {
        self.waiting.len() < MOST_WAITING
    }

    /// Whether a picture of that seed was made, is being made or is to be made.
    pub fn has_used(&self, seed: u64) -> bool {
        let runs = matches!(self.phase, Phase::Running | Phase::Done { .. });
        let orders = self.job.iter().map(|job| &*job.order).chain(&self.early).filter(|_| runs);
        orders.chain(self.waiting.iter().map(|waiting| &waiting.order)).any(|order| order.settings.seed == seed)
    }

    /// An order that could not be made, and why; those behind it went on.
    pub fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }

    /// Takes an order: it begins, or waits.
    pub(super) fn make(&mut self, order: Order) {
        self.left_out = None;
        if self.phase != Phase::Running {
            // What comes of it is looked at.
            self.results.look(Look::Live);
            self.abandon();
            self.job = None;
            if let Some(message) = self.no_manifest.clone() {
                return self.fail(message, vec![Choice::Auto]);
            }
        }
        if self.takes_orders() {
            let ticket = self.number();
            self.waiting.push_back(Waiting { ticket, order });
        }
        self.next();
    }

    /// Begins what waits longest, if nothing is being made and no job waits for its own model, which may be theirs too.
    pub(super) fn next(&mut self) {
        if self.phase != Phase::Running
            && self.resumed.is_none()
            && let Some(Waiting { order, .. }) = self.waiting.pop_front()
        {
            self.begin_order(order);
        }
    }

    /// Begins what was ordered before there was a model.
    pub(super) fn begin_early(&mut self) {
        match self.early.take().filter(|_| self.manifest.is_some()) {
            Some(order) => self.begin_order(order),
            None if self.manifest.is_some() => self.next(),
            None => {}
        }
    }

    pub(super) fn begin_order(&mut self, order: Order) {
        let Some(manifest) = &self.manifest else {
            (self.early, self.phase) = (Some(order), Phase::Running);
            return;
        };
        let takes = order.series.takes(&order.settings);
        let states = manifest.schedule().map_err(|error| error.to_string()).and_then(|schedule| {
            // That the last picture of a grid cannot be made is to be known before the first.
            let state = |take| DenoiseState::new(manifest.denoise_settings(take, 0), &schedule);
            takes.iter().map(state).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
        });
        let state = match states.map(|states| states.into_iter().next()) {
            Ok(Some(state)) => state,
            Ok(None) => return,
            Err(message) => {
                let sentence = order.sentence();
                return self.give_up(&sentence, message);
            }
        };
        self.results.begin(&order, 0);
        self.places.failures.clear();
        (self.jobs, self.resumed_at) = (self.jobs + 1, None);
        let place = self.place_of(Stage::Encode);
        let encoded = self.encoded.as_ref().filter(|encoded| place.is_ok_and(|place| encoded.is_of(&order, place)));
        let (condition, encoded_at) = encoded.map(|encoded| (encoded.condition.clone(), encoded.place)).unzip();
        self.job = Some(Job {
            order: Rc::new(order),
            takes,
            at: 0,
            condition,
            encoded_at,
            start: state.clone(),
            state,
            doing: Doing::Waiting(Place::DeviceCpu),
            pace: Pace::default(),
            pace_from: None,
            started_ms: self.now_ms,
            take_ms: self.now_ms,
            failed_ms: None,
            moved: None,
            request: LOAD,
            remote: None,
            line: Line::Heard(self.now_ms),
        });
        self.proceed();
    }

    /// A picture is there; the next one begins.
    pub(super) fn finish(&mut self, place: Place, png: Vec<u8>) {
        let Some(manifest) = &self.manifest else { return };
        let Some(job) = &self.job else { return };
        let side = manifest.picture_size as u32;
        let engine = match place {
            Place::DeviceCpu => Processor::Cpu.engine().to_owned(),
            Place::DeviceGpu => Processor::Gpu.engine().to_owned(),
            Place::Server => self.places.server.as_ref().map_or(String::new(), |health| health.engine.clone()),
        };
        let recipe = job.recipe(&manifest.name, side, &engine);
        let (order, seconds) = (job.order.clone(), (self.now_ms - job.take_ms) / 1000.0);
        let (number, gone) = self.results.add(&order, job.at, &recipe);
        let made = Made { number, png, recipe, order, seconds, place: view::name(place) };
        self.unkept += 1;
        self.effects.push(Effect::Picture(Box::new(made)));
        self.effects.extend(gone.map(Effect::Forget));
        if self.next_take() {
            return self.proceed();
        }
        self.places.failures.clear();
        if let Some(job) = &self.job {
            self.phase = Phase::Done { seconds: (self.now_ms - job.started_ms) / 1000.0, place };
        }
        self.next();
    }

    /// Begins the next picture of the order; `false` if it was the last.
    fn next_take(&mut self) -> bool {
        let (Some(job), Some(manifest)) = (&mut self.job, &self.manifest) else { return false };
        let Some(take) = job.takes.get(job.at + 1) else { return false };
        let state = manifest.schedule().ok().and_then(|schedule| {
            // All were tried when the order began.
            DenoiseState::new(manifest.denoise_settings(take, 0), &schedule).ok()
        });
        let Some(state) = state else { return false };
        (job.at, job.take_ms, self.resumed_at) = (job.at + 1, self.now_ms, None);
        (job.start, job.state) = (state.clone(), state);
        (job.remote, job.pace_from, job.line) = (None, None, Line::Heard(self.now_ms));
        true
    }

    pub(super) fn cancel(&mut self) {
        let leaves_out = matches!(self.phase, Phase::Failed { .. }) && !self.waiting.is_empty();
        if self.phase == Phase::Running || leaves_out {
            self.abandon();
            self.phase = Phase::Cancelled;
            self.next();
        }
    }

    pub(super) fn cancel_all(&mut self) {
        self.waiting.clear();
        self.cancel();
    }

    /// An order cannot be made by anybody. It does not keep those from being made that wait.
    pub(super) fn give_up(&mut self, sentence: &str, message: String) {
        if self.waiting.is_empty() {
            return self.fail(message, Vec::new());
        }
        self.left_out = Some(texts::left_out(sentence, &message));
        (self.job, self.phase) = (None, Phase::Idle);
        self.next();
    }
}

/// Steps of pictures to come, where `usual` is what the model does when nobody says otherwise.
pub(super) fn steps_of(takes: &[GenerateSettings], usual: usize) -> usize {
    takes.iter().map(|take| take.steps.unwrap_or(usual)).sum()
}
