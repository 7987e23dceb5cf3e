//! The jobs: a bounded, fair queue before one worker, what happened to each, and what came of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::{ApiError, ErrorCode, JobEvent};

use crate::bundles::Bundles;
use crate::error;
use crate::metrics::Metrics;
use crate::work::{Group, Work};
use line::Line;
use store::{Store, StoreError, Unfinished};

pub use job::{Job, JobId, Next, Owner};

mod job;
mod line;
pub mod store;

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may wait, besides those that run.
    pub waiting: usize,
    /// Finished jobs whose results stay to be fetched; then the oldest is forgotten.
    pub finished: usize,
    /// How long they stay while the server runs.
    pub keep_for: Duration,
    /// How long a job may take, its waiting included.
    pub deadline: Duration,
}

/// All jobs of a server.
#[derive(Debug)]
pub struct Jobs {
    limits: Limits,
    store: Store,
    /// Whether jobs outlive the server.
    durable: bool,
    /// Number before the first event of a job: higher than all that an earlier server gave.
    first_number: u64,
    shelf: Mutex<Shelf>,
    /// A job came to wait, or the queue was closed.
    arrived: Condvar,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Shelf {
    waiting: Line<Owner, Waiting>,
    running: Vec<Arc<Job>>,
    /// Those that ended last, the oldest first.
    recent: VecDeque<Arc<Job>>,
    known: HashMap<JobId, Arc<Job>>,
    closed: bool,
    pace: Pace,
}

/// A job in the queue.
#[derive(Debug)]
pub struct Waiting {
    /// The job.
    pub job: Arc<Job>,
    /// With whom it can run.
    pub group: Group,
    /// What is to be done; none of one that has begun, which the worker remembers.
    pub work: Option<Work>,
}

/// How long things take, of late.
#[derive(Debug, Default)]
struct Pace {
    /// A step, divided by the jobs that take it together.
    evaluation: Option<f64>,
    /// A whole job.
    job: Option<f64>,
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a picture, PNG.
    Done(Vec<u8>),
    /// It heard that it should stop.
    Stopped,
    /// It could not be done.
    Failed(ApiError),
}

/// The client's own name for a request, so that it is done once, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The name.
    pub name: String,
    /// SHA-256 of the body.
    pub digest: [u8; 32],
}

/// Why a job was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// As many wait as may.
    Full {
        /// When one of them may be done.
        retry_after_secs: u64,
    },
    /// The server is stopping.
    Closed,
    /// The key belongs to another request.
    KeyTaken,
    /// It cannot be written down.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::KeyTaken => Self::KeyTaken,
            error => Self::Store(error),
        }
    }
}

impl Jobs {
    /// An empty queue, whose jobs are kept in `path`; without one, in memory.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(limits: Limits, path: Option<&std::path::Path>) -> Result<Self, StoreError> {
        let (store, beginnings) = Store::open(path)?;
        Ok(Self {
            limits,
            store,
            durable: path.is_some(),
            first_number: beginnings << 32,
            shelf: Mutex::default(),
            arrived: Condvar::new(),
            metrics: Metrics::default(),
        })
    }

    /// Queues again what an earlier server left, each where it stood. Returns how many there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_up(&self, bundles: &Bundles) -> Result<usize, StoreError> {
        let unfinished = self.store.unfinished().await?;
        let count = unfinished.len();
        for job in unfinished {
            match job {
                Ok(Unfinished { id, owner, request, unet, state }) => match Work::again(request, &unet, state, bundles)
                {
                    Ok(work) => self.queue(id, owner, work),
                    Err(error) => self.fail(id, error),
                },
                Err((id, error)) => {
                    tracing::error!(job = %id, "{error}");
                    let message = "the server was interrupted and cannot go on with this job".into();
                    self.fail(id, ApiError { code: ErrorCode::Internal, message });
                }
            }
        }
        Ok(count)
    }

    /// Queues `work`; returns its job and how many jobs come first. The same key again gives the same job.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn submit(&self, owner: Owner, work: Work, key: Option<Key>) -> Result<(Arc<Job>, usize), Refusal> {
        let id = JobId::random();
        let (request, unet) = (work.request(), work.bundle.unet().to_owned());
        let (job, position, written) = {
            let mut shelf = self.shelf();
            shelf.admit(self.limits)?;
            let written = self.store.insert(id, owner.clone(), key.clone(), &request, unet);
            let job = self.push(&mut shelf, id, owner.clone(), work);
            let position = job.position();
            (job, position, written)
        };
        let Err(error) = written.await else { return Ok((job, position)) };
        self.cancel(&job);
        // The same request may have come twice at once.
        match (error, key) {
            (StoreError::KeyTaken, Some(key)) => self.submitted(owner, key).await?.ok_or(Refusal::KeyTaken),
            (error, _) => Err(error.into()),
        }
    }

    /// The job that was sent under that key, and how many jobs come first.
    ///
    /// # Errors
    /// [`Refusal::KeyTaken`] if another request was.
    pub async fn submitted(&self, owner: Owner, key: Key) -> Result<Option<(Arc<Job>, usize)>, Refusal> {
        match self.store.by_key(owner, key).await? {
            Some((id, true)) => {
                let job = self.find(id).await?;
                Ok(job.map(|job| {
                    let position = job.position();
                    (job, position)
                }))
            }
            Some((_, false)) => Err(Refusal::KeyTaken),
            None => Ok(None),
        }
    }

    /// Whether another job would be taken now: for refusing early what would be costly to check.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn admits(&self) -> Result<(), Refusal> {
        self.shelf().admit(self.limits)
    }

    /// The job called `id`, unless it is unknown or forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError> {
        if let Some(job) = self.shelf().known.get(&id) {
            return Ok(Some(Arc::clone(job)));
        }
        Ok(self.store.ended(id).await?.map(|ended| Arc::new(Job::ended(id, ended))))
    }

    /// The picture of a job, PNG, once there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn picture(&self, job: &Job) -> Result<Option<Bytes>, StoreError> {
        match job.picture() {
            Some(png) => Ok(Some(png)),
            None => self.store.picture(job.id()).await,
        }
    }

    /// Cancels a job: one that waits at once, one that runs before its next step. Nothing happens to a finished one.
    pub fn cancel(&self, job: &Job) {
        let mut shelf = self.shelf();
        job.stop();
        for Waiting { job, .. } in shelf.waiting.remove(|waiting| waiting.job.id() == job.id()) {
            self.end(&mut shelf, &job, JobEvent::Cancelled);
        }
        shelf.tell_positions();
    }

    /// Ends the jobs in the queue whose time is over, and lets `passed` go by for those that have ended. To be called every
    /// now and then.
    pub fn tidy(&self, passed: Duration) {
        let mut shelf = self.shelf();
        for Waiting { job, .. } in shelf.waiting.remove(|waiting| waiting.job.is_late()) {
            self.end(&mut shelf, &job, JobEvent::Failed { error: error::timed_out(self.limits.deadline) });
        }
        shelf.tell_positions();
        // What could not be written down is tried again.
        for job in shelf.recent.iter().filter(|job| job.picture().is_some()) {
            self.write_end(job, &job.last());
        }
        self.store.forget(passed, self.limits.keep_for, self.limits.finished);
    }

    /// The jobs of an owner that have not ended: those that run, then those that wait.
    pub fn of(&self, owner: &Owner) -> Vec<Arc<Job>> {
        let shelf = self.shelf();
        let jobs = shelf.running.iter().chain(shelf.waiting.iter().map(|waiting| &waiting.job));
        jobs.filter(|job| job.owner() == owner).cloned().collect()
    }

    /// Number of jobs that wait.
    pub fn waiting(&self) -> usize {
        self.shelf().waiting.len()
    }

    /// Number of jobs that may wait.
    pub fn capacity(&self) -> usize {
        self.limits.waiting
    }

    /// The next job that can run with `company`; none while there is nothing to do with it. Without company, waits for a job;
    /// then none means that the queue is closed.
    pub fn next(&self, company: Option<&Group>) -> Option<Waiting> {
        let mut shelf = self.shelf();
        loop {
            if shelf.closed {
                return None;
            }
            let fits = |waiting: &Waiting| company.is_none_or(|group| *group == waiting.group);
            if let Some(waiting) = shelf.waiting.next_if(fits) {
                if let Some(waited) = waiting.job.begin() {
                    self.metrics.began(waited);
                }
                shelf.running.push(Arc::clone(&waiting.job));
                shelf.tell_positions();
                return Some(waiting);
            }
            if company.is_some() {
                return None;
            }
            shelf = self.arrived.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether somebody waits for a seat on the same model.
    pub fn others_wait(&self, group: &Group) -> bool {
        self.shelf().waiting.iter().next().is_some_and(|waiting| waiting.group.has_bundle_of(group))
    }

    /// Whether the server is stopping.
    pub fn is_closed(&self) -> bool {
        self.shelf().closed
    }

    /// Puts a job that [`Jobs::next`] gave back into the queue, behind the others.
    pub fn rest(&self, job: &Arc<Job>, group: Group) {
        let mut shelf = self.shelf();
        shelf.running.retain(|running| running.id() != job.id());
        if shelf.closed {
            self.write_state(job, Duration::ZERO);
        } else {
            shelf.waiting.push(job.owner().clone(), Waiting { job: Arc::clone(job), group, work: None });
        }
        shelf.tell_positions();
    }

    /// Writes down that a job took a step.
    pub fn stepped(&self, job: &Job, state: &DenoiseState) {
        job.report_step(state);
        self.write_state(job, SAVE_EVERY);
    }

    /// So many jobs took a step together, which was `seconds` long.
    pub fn paced(&self, seconds: f64, jobs: usize) {
        self.metrics.stepped(seconds, jobs);
        let pace = &mut self.shelf().pace;
        pace.evaluation = Some(smooth(pace.evaluation, seconds / jobs as f64));
    }

    /// Numbers for Prometheus.
    ///
    /// # Errors
    /// Never, as long as there is memory.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        let (waiting, running) = {
            let shelf = self.shelf();
            (shelf.waiting.len(), shelf.running.len())
        };
        self.metrics.encode(waiting, running)
    }

    /// Ends a job that [`Jobs::next`] gave.
    pub fn finish(&self, job: &Arc<Job>, outcome: Outcome) {
        let mut shelf = self.shelf();
        shelf.running.retain(|running| running.id() != job.id());
        let seconds = job.seconds();
        let event = match outcome {
            // Who cancels does not want the picture, even if it came just before they were heard.
            _ if job.should_stop() => JobEvent::Cancelled,
            Outcome::Stopped => JobEvent::Cancelled,
            Outcome::Failed(error) => JobEvent::Failed { error },
            Outcome::Done(png) => {
                job.keep_picture(Some(png.into()));
                shelf.pace.job = Some(smooth(shelf.pace.job, seconds));
                JobEvent::Done { seconds }
            }
        };
        self.end(&mut shelf, job, event);
        shelf.tell_positions();
    }

    /// Ends a job that has taken too long.
    pub fn time_out(&self, job: &Arc<Job>) {
        self.finish(job, Outcome::Failed(error::timed_out(self.limits.deadline)));
    }

    /// Takes no more jobs and ends the streams of those who follow one. Where jobs outlive the server, they wait for the next;
    /// else they end.
    pub fn close(&self) {
        let mut shelf = self.shelf();
        shelf.closed = true;
        let waiting = shelf.waiting.remove(|_| true);
        if self.durable {
            waiting.iter().for_each(|waiting| self.write_state(&waiting.job, Duration::ZERO));
        } else {
            let waiting = waiting.iter().map(|waiting| &waiting.job);
            let failed = JobEvent::Failed { error: error::stopping() };
            waiting.chain(&shelf.running).for_each(|job| job.report(failed.clone()));
        }
        shelf.known.values().for_each(|job| job.leave());
        self.arrived.notify_all();
    }

    /// Resolves when all that happened is written down.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.store.flush().await
    }

    fn queue(&self, id: JobId, owner: Owner, work: Work) {
        self.push(&mut self.shelf(), id, owner, work);
    }

    fn push(&self, shelf: &mut Shelf, id: JobId, owner: Owner, work: Work) -> Arc<Job> {
        let job = Job::new(id, owner.clone(), self.first_number, work.state.clone(), self.limits.deadline);
        let job = Arc::new(job);
        shelf.known.insert(id, Arc::clone(&job));
        let group = work.group();
        shelf.waiting.push(owner, Waiting { job: Arc::clone(&job), group, work: Some(work) });
        shelf.tell_positions();
        self.arrived.notify_one();
        job
    }

    /// Ends a job that was never queued here.
    fn fail(&self, id: JobId, error: ApiError) {
        let event = JobEvent::Failed { error };
        self.store.end(id, self.first_number + 1, &event, None, |_| {});
    }

    fn end(&self, shelf: &mut Shelf, job: &Arc<Job>, event: JobEvent) {
        self.metrics.ended(&event);
        job.report(event.clone());
        self.write_end(job, &event);
        self.store.forget(Duration::ZERO, self.limits.keep_for, self.limits.finished);
        shelf.recent.push_back(Arc::clone(job));
        while shelf.recent.len() > self.limits.finished.min(RECENT) {
            if let Some(oldest) = shelf.recent.pop_front() {
                shelf.known.remove(&oldest.id());
            }
        }
    }

    fn write_end(&self, job: &Arc<Job>, event: &JobEvent) {
        let written = {
            let job = Arc::clone(job);
            move |is_written| {
                if is_written {
                    job.keep_picture(None);
                }
            }
        };
        self.store.end(job.id(), job.last_number(), event, job.picture(), written);
    }

    fn write_state(&self, job: &Job, unless_within: Duration) {
        if let Some(state) = job.unsaved_for(unless_within) {
            self.store.save(job.id(), &state);
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn admit(&self, limits: Limits) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        if self.waiting.len() >= limits.waiting {
            let secs = self.pace.job.unwrap_or(DEFAULT_RETRY_SECS).ceil() as u64;
            return Err(Refusal::Full { retry_after_secs: secs.clamp(1, MAX_RETRY_SECS) });
        }
        Ok(())
    }

    /// Tells those who have not begun yet how many still come first.
    fn tell_positions(&self) {
        let mut evaluations: usize = self.running.iter().map(|job| job.remaining()).sum();
        for (index, Waiting { job, work, .. }) in self.waiting.iter().enumerate() {
            if work.is_some() {
                let seconds = self.pace.evaluation.map(|pace| pace * evaluations as f64);
                job.moved_up(self.running.len() + index, seconds);
            }
            evaluations += job.remaining();
        }
    }
}

fn smooth(before: Option<f64>, now: f64) -> f64 {
    before.map_or(now, |before| 0.7 * before + 0.3 * now)
}

/// Finished jobs whose whole story stays in memory.
const RECENT: usize = 64;
/// How much of a job's running a killed server may lose.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// When to come back to a full queue while no job has ended yet.
const DEFAULT_RETRY_SECS: f64 = 5.0;
/// Nobody is told to come back later than this.
const MAX_RETRY_SECS: u64 = 600;
