//! The one thread that computes. It owns the models, so that nothing about them needs to be shared.
//!
//! Jobs of one model and one size step together, each at its own step; they join and leave between two steps. When others
//! wait, a job that has taken its turn's steps stands in line again, so that a long one does not keep short ones waiting.
//! While jobs of another model wait, turns are longer, since each change of models is a load.
//!
//! A GPU that is lost stays so for the rest of the process. Then the queue is closed, and the jobs wait for the next server.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use kosmosg::denoise::{DenoiseError, DenoiseSettings, DenoiseState};
use kosmosg::engine::EngineError;
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ApiError, ErrorCode, JobEvent};
use tokio::sync::watch;

use crate::inference::RunError;
use crate::jobs::{Job, JobId, Jobs, Outcome, Waiting};
use crate::work::{Goal, Group, Model, Work};

/// Steps of a turn.
const TURN: usize = 10;
/// Steps from one preview to the next.
const PREVIEW_EVERY: usize = 2;
/// Steps that must work before one more job is let in, after too many at once had failed.
const TRUST_AFTER: usize = 50;

/// What computes.
pub trait Runner {
    /// A condition, ready to step towards.
    type Condition;

    /// Its name in recipes.
    fn name(&self) -> &str;

    /// Makes a goal ready.
    ///
    /// # Errors
    /// [`RunError`].
    fn prepare(&mut self, model: &Model, goal: &Goal) -> Result<Self::Condition, RunError>;

    /// Takes a step of each of several runs of one size. Returns the finished latents as they are foreseen, or why the
    /// network's answer for a run cannot be used.
    ///
    /// # Errors
    /// [`RunError`]; then all states are as they were.
    fn step(
        &mut self,
        model: &Model,
        runs: &mut [(&mut DenoiseState, &Self::Condition)],
    ) -> Result<Vec<Result<Vec<f32>, DenoiseError>>, RunError>;

    /// The picture of finished latents.
    ///
    /// # Errors
    /// [`RunError`].
    fn decode(&mut self, model: &Model, state: &DenoiseState) -> Result<Picture, RunError>;

    /// Gives back all memory: a bug or the engine failed a job, which may have spoilt what is in it.
    fn release(&mut self);

    /// How long a job may compute while those of another model wait: far longer than loading a model takes.
    fn turn_of_a_model(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// The thread.
#[derive(Debug)]
pub struct Worker {
    /// Its other end is dropped when the thread ends.
    running: Receiver<()>,
    lost: watch::Receiver<Option<Lost>>,
}

/// That the device was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// After it had worked: it may do so again.
    InWork,
    /// Before anything worked.
    AtOnce,
    /// Not the device, but the thread that computes on it: it panicked outside of a job's own work.
    Thread,
}

impl Worker {
    /// Starts the thread, which makes its runner itself and works until the queue is closed, on up to `together` jobs at
    /// once.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start<R: Runner>(
        jobs: Arc<Jobs>,
        together: usize,
        runner: impl FnOnce() -> R + Send + 'static,
    ) -> std::io::Result<Self> {
        let (alive, running) = channel();
        let (losing, lost) = watch::channel(None);
        thread::Builder::new().name("inference".into()).spawn(move || {
            let _alive = alive;
            let (queue, lost) = (Arc::clone(&jobs), losing.clone());
            let work = AssertUnwindSafe(|| {
                Bench {
                    jobs,
                    runner: runner(),
                    together,
                    seats: Vec::new(),
                    resting: HashMap::new(),
                    most: together,
                    trust: 0,
                    has_worked: false,
                    lost,
                }
                .work();
            });
            if catch_unwind(work).is_err() {
                tracing::error!("the thread that computes has ended by a bug");
                losing.send_replace(Some(Lost::Thread));
                queue.close();
            }
        })?;
        Ok(Self { running, lost })
    }

    /// Waits until the device, or the thread, is lost.
    pub fn loss(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut lost = self.lost.clone();
        async move {
            if lost.wait_for(Option::is_some).await.is_err() {
                // The thread ended without it.
                std::future::pending().await
            }
        }
    }

    /// What was lost.
    pub fn lost(&self) -> Option<Lost> {
        *self.lost.borrow()
    }

    /// Waits for the thread to end after its queue was closed; whether it did.
    pub fn ends_within(&self, time: Duration) -> bool {
        self.running.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }
}

/// The jobs that run, side by side.
struct Bench<R: Runner> {
    jobs: Arc<Jobs>,
    runner: R,
    /// Of one group.
    seats: Vec<Seat<R::Condition>>,
    /// Those that have begun and stand in line again.
    resting: HashMap<JobId, Seat<R::Condition>>,
    /// How many may sit here.
    together: usize,
    /// How many may just now: fewer after a failure.
    most: usize,
    /// Steps that have worked since.
    trust: usize,
    /// Whether any step has worked.
    has_worked: bool,
    lost: watch::Sender<Option<Lost>>,
}

/// A job that runs.
struct Seat<C> {
    job: Arc<Job>,
    group: Group,
    state: DenoiseState,
    /// The step that it began here with.
    first: usize,
    condition: C,
    /// What the recipe says, if the words are known here.
    words: Option<(PromptDocument, String)>,
    turn: Turn,
}

/// What a job has had since it sat down.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    steps: usize,
    /// How long they took, with those who shared them.
    time: Duration,
}

/// Why a call of the runner gave nothing.
enum Failure {
    /// It said so.
    Run(RunError),
    /// It panicked.
    Bug,
}

impl<R: Runner> Bench<R> {
    fn work(mut self) {
        loop {
            self.fill();
            if self.jobs.is_closed() {
                break;
            }
            self.leave();
            if !self.seats.is_empty() {
                self.step();
            }
        }
        for seat in self.seats {
            self.jobs.rest(&seat.job, seat.group);
        }
    }

    /// Lets in who comes next; waits for somebody if nobody is here.
    fn fill(&mut self) {
        while self.seats.len() < self.most {
            let company = self.seats.first().map(|seat| seat.group.clone());
            let Some(waiting) = self.jobs.next(company.as_ref()) else { return };
            self.sit_down(waiting);
        }
    }

    fn sit_down(&mut self, Waiting { job, group, work }: Waiting) {
        match work {
            None => {
                if let Some(seat) = self.resting.remove(&job.id()) {
                    self.seats.push(Seat { turn: Turn::default(), ..seat });
                }
            }
            Some(Work { model, goal, state }) => {
                if matches!(goal, Goal::Prompt { .. }) {
                    job.report(JobEvent::Encoding);
                }
                match call(|| self.runner.prepare(&model, &goal)) {
                    Ok(condition) => {
                        let words = match goal {
                            Goal::Prompt { prompt, negative, .. } => Some((prompt, negative)),
                            Goal::Condition(_) => None,
                        };
                        let first = state.step();
                        let turn = Turn::default();
                        self.seats.push(Seat { job, group, state, first, condition, words, turn });
                    }
                    Err(failure) => self.fail(&job, failure),
                }
            }
        }
    }

    /// Lets out who was cancelled, has taken too long, is done or has had a turn.
    fn leave(&mut self) {
        for seat in std::mem::take(&mut self.seats) {
            if seat.job.has_ended() {
                self.jobs.let_go(&seat.job);
            } else if seat.job.is_late() {
                self.jobs.time_out(&seat.job);
            } else if seat.state.is_done() {
                self.finish(seat);
            } else if self.has_had_a_turn(&seat) {
                self.jobs.rest(&seat.job, seat.group.clone());
                self.resting.insert(seat.job.id(), seat);
            } else {
                self.seats.push(seat);
            }
        }
        // Who was cancelled in line does not come back; who was while sitting down in it does, and is let out then.
        self.resting.retain(|_, seat| !seat.job.has_ended());
    }

    /// Whether it is somebody else's turn.
    fn has_had_a_turn(&self, seat: &Seat<R::Condition>) -> bool {
        let Turn { steps, time } = seat.turn;
        steps >= TURN
            && match self.jobs.next_model() {
                None => false,
                Some(model) => model == *seat.group.model() || time >= self.runner.turn_of_a_model(),
            }
    }

    fn step(&mut self) {
        let Self { jobs, runner, seats, .. } = self;
        let model = seats[0].group.model().clone();
        let mut runs: Vec<_> = seats.iter_mut().map(|seat| (&mut seat.state, &seat.condition)).collect();
        let begin = Instant::now();
        let advanced = match call(|| runner.step(&model, &mut runs)) {
            Ok(advanced) => advanced,
            Err(failure) => return self.step_failed(failure),
        };
        let time = begin.elapsed();
        let mut wrong = Vec::new();
        for (index, (seat, foreseen)) in seats.iter_mut().zip(advanced).enumerate() {
            match foreseen {
                Ok(foreseen) => {
                    seat.turn.steps += 1;
                    seat.turn.time += time;
                    jobs.stepped(&seat.job, &seat.state);
                    if (seat.state.step() - seat.first).is_multiple_of(PREVIEW_EVERY) && !seat.state.is_done() {
                        seat.preview(&foreseen);
                    }
                }
                Err(error) => wrong.push((index, error)),
            }
        }
        jobs.paced(time.as_secs_f64(), seats.len());
        for (index, error) in wrong.into_iter().rev() {
            let seat = self.seats.remove(index);
            self.fail(&seat.job, Failure::Run(RunError::Step(error.into())));
        }
        self.has_worked = true;
        self.trust += 1;
        if self.most < self.together && self.trust >= TRUST_AFTER {
            (self.most, self.trust) = (self.most + 1, 0);
        }
    }

    /// Tries with fewer at once, until it is clear whose fault it is.
    fn step_failed(&mut self, failure: Failure) {
        if failure.is_loss() && self.has_worked {
            return self.lose(&failure);
        }
        if self.seats.len() == 1 {
            let seat = self.seats.remove(0);
            return self.fail(&seat.job, failure);
        }
        self.most = self.seats.len() / 2;
        self.trust = 0;
        tracing::warn!("{} jobs at once failed, trying {}: {failure}", self.seats.len(), self.most);
        self.release();
        for seat in self.seats.split_off(self.most) {
            self.jobs.rest(&seat.job, seat.group.clone());
            self.resting.insert(seat.job.id(), seat);
        }
    }

    fn finish(&mut self, seat: Seat<R::Condition>) {
        let model = seat.group.model();
        let picture = match call(|| self.runner.decode(model, &seat.state)) {
            Ok(picture) => picture,
            Err(failure) => return self.fail(&seat.job, failure),
        };
        let (settings, size) = (seat.state.settings(), [picture.width(), picture.height()]);
        let recipe = seat.words.map(|words| model.recipe(settings, words, size, self.runner.name()));
        tracing::info!(job = %seat.job.id(), seconds = seat.job.seconds(), "done");
        self.jobs.finish(&seat.job, Outcome::Done(picture.to_png(recipe.as_ref())));
    }

    fn fail(&mut self, job: &Arc<Job>, failure: Failure) {
        if failure.is_loss() {
            self.lose(&failure);
            // What is written down of the job waits for the next server. But where nothing has worked, it may be the reason.
            if self.has_worked {
                return;
            }
        }
        tracing::error!(job = %job.id(), "failed: {failure}");
        if failure.is_spoilt() {
            self.release();
        }
        self.jobs.finish(job, Outcome::Failed(failure.shown()));
    }

    /// Leaves the jobs to the next server.
    fn lose(&mut self, failure: &Failure) {
        tracing::error!("the device is lost: {failure}");
        self.lost.send_replace(Some(if self.has_worked { Lost::InWork } else { Lost::AtOnce }));
        self.jobs.close();
    }

    /// What is left over could be what the next step fails from. If even giving back fails, there is nothing left to give
    /// back.
    fn release(&mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.runner.release())).is_err() {
            tracing::error!("the memory of a failed job could not be given back");
        }
    }
}

impl<C> Seat<C> {
    fn preview(&self, foreseen: &[f32]) {
        let DenoiseSettings { channels, height, width, .. } = *self.state.settings();
        let factors = self.group.model().bundle.manifest().preview_factors();
        if let Some(picture) = factors.and_then(|factors| factors.picture(foreseen, [channels, height, width])) {
            self.job.report(JobEvent::Preview { step: self.state.step(), png: picture.to_png(None) });
        }
    }
}

impl Failure {
    /// What the client hears.
    fn shown(&self) -> ApiError {
        match self {
            Self::Run(error) => error.shown(),
            Self::Bug => {
                let message = "the server failed in a way that it should not; its log says where".into();
                ApiError { code: ErrorCode::Internal, message }
            }
        }
    }

    /// Whether the device is lost.
    fn is_loss(&self) -> bool {
        matches!(self, Self::Run(error) if matches!(error.engine(), Some(EngineError::DeviceLost { .. })))
    }

    /// Whether memory may be spoilt. A client's own mistake shall not cost the next one the time to load the model.
    fn is_spoilt(&self) -> bool {
        match self {
            Self::Run(error) => error.engine().is_some(),
            Self::Bug => true,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(error) => f.write_str(&error.chain()),
            Self::Bug => f.write_str("a bug, which the log shows above"),
        }
    }
}

/// Calls the runner, which may panic; the panic's own message is logged where it happens.
fn call<T>(work: impl FnOnce() -> Result<T, RunError>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Failure::Run),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            tracing::error!("a bug: {}", text.unwrap_or("it panicked without a word"));
            Err(Failure::Bug)
        }
    }
}
