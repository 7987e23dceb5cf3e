//! The jobs: a bounded, fair queue before one worker, what happened to each, and what came of it.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use kosmosg::protocol::{ApiError, ErrorCode, JobEvent};

use crate::bundles::Bundles;
use crate::error;
use crate::metrics::Metrics;
use crate::work::Work;
use shelf::Shelf;
use store::{Store, StoreError, Unfinished};

pub use job::{Job, JobId, Next, Owner};
pub use running::Outcome;
pub use shelf::Waiting;

mod job;
mod line;
mod running;
mod shelf;
pub mod store;

/// How often a job is begun that gets no further before the server ends: then it is the likely reason.
pub const MAX_BEGINNINGS: u32 = 3;

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may wait, besides those that run.
    pub waiting: usize,
    /// How many of them may be one owner's.
    pub waiting_of_one: usize,
    /// Finished jobs whose results stay to be fetched; then the oldest is forgotten.
    pub finished: usize,
    /// How long they stay while the server runs.
    pub keep_for: Duration,
    /// How long a job may take while a server runs, its waiting included.
    pub deadline: Duration,
}

/// All jobs of a server.
#[derive(Debug)]
pub struct Jobs {
    limits: Limits,
    store: Store,
    kept: Kept,
    /// Number before the first event of a job: higher than all that an earlier server gave.
    first_number: u64,
    shelf: Mutex<Shelf>,
    /// A job came to wait, or the queue was closed.
    arrived: Condvar,
    metrics: Metrics,
}

/// Where a job is that has not ended when its server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Nowhere: it ends with it.
    Nowhere,
    /// In the store's file.
    InFile,
    /// With whoever gave it to this server.
    Elsewhere,
}

/// What a client has of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Its name, by which anybody asks for it.
    Name,
    /// Besides, an own name for the request.
    Key(Key),
    /// A connection on which it waits: when it has gone, nobody wants the job.
    Waiting,
}

impl Hold {
    /// The client's own name.
    pub fn key(self) -> Option<Key> {
        if let Self::Key(key) = self { Some(key) } else { None }
    }
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
    /// As many of its owner's wait as may of one.
    Enough {
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
    pub fn open(limits: Limits, path: Option<&Path>) -> Result<Self, StoreError> {
        Self::keeping(limits, path, if path.is_some() { Kept::InFile } else { Kept::Nowhere })
    }

    /// An empty queue for jobs that others give and keep.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn for_others(limits: Limits) -> Result<Self, StoreError> {
        // Results are fetched at once.
        let limits = Limits { finished: limits.finished.min(RECENT), ..limits };
        Self::keeping(limits, None, Kept::Elsewhere)
    }

    fn keeping(limits: Limits, path: Option<&Path>, kept: Kept) -> Result<Self, StoreError> {
        let (store, beginnings) = Store::open(path)?;
        Ok(Self {
            limits,
            store,
            kept,
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
                Ok(job) => self.go_on(job, bundles),
                Err((id, error)) => {
                    tracing::error!(job = %id, "{error}");
                    let message = "the server was interrupted and cannot go on with this job".into();
                    self.fail(id, ApiError { code: ErrorCode::Internal, message });
                }
            }
        }
        Ok(count)
    }

    fn go_on(&self, job: Unfinished, bundles: &Bundles) {
        let Unfinished { id, owner, request, unet, state, ordered, begun, waited } = job;
        if ordered {
            return self.end_unseen(id, &JobEvent::Cancelled);
        }
        if begun >= MAX_BEGINNINGS {
            tracing::error!(job = %id, "it was begun {begun} times, and each time the server ended; not again");
            return self.fail(id, error::fatal());
        }
        match Work::again(request, &unet, state, bundles) {
            Ok(work) => {
                self.push(&mut self.shelf(), id, owner, work, waited);
            }
            Err(error) => self.fail(id, error),
        }
    }

    /// Queues `work`; returns its job and how many jobs come first. The same key again gives the same job.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn submit(&self, owner: Owner, work: Work, hold: Hold) -> Result<(Arc<Job>, usize), Refusal> {
        let id = JobId::random();
        // Pictures become files again, which takes its time.
        let write = || {
            let request = serde_json::to_vec(&work.request()).expect("a request is plain data");
            (request, work.model.unet(), work)
        };
        let (request, unet, work) = tokio::task::spawn_blocking(write).await.map_err(|_| StoreError::Gone)?;
        let (job, position, written) = {
            let mut shelf = self.shelf();
            shelf.admit(self.limits, &owner)?;
            let written = self.store.insert(id, owner.clone(), hold.clone(), request, unet);
            let job = self.push(&mut shelf, id, owner.clone(), work, Duration::ZERO);
            let position = job.position();
            (job, position, written)
        };
        let Err(error) = written.await else { return Ok((job, position)) };
        self.cancel(&job);
        // The same request may have come twice at once.
        match (error, hold) {
            (StoreError::KeyTaken, Hold::Key(key)) => self.submitted(owner, key).await?.ok_or(Refusal::KeyTaken),
            (error, _) => Err(error.into()),
        }
    }

    /// Queues a job of another's line, which came so long ago.
    pub fn adopt(&self, id: JobId, owner: Owner, work: Work, waited: Duration) -> Arc<Job> {
        // Its picture is kept here until the other has it. What to do is kept there.
        drop(self.store.insert(id, owner.clone(), Hold::Name, Vec::new(), work.model.unet()));
        self.push(&mut self.shelf(), id, owner, work, waited)
    }

    /// Counts a job that others keep and that has ended with this event.
    pub fn count(&self, event: &JobEvent) {
        self.metrics.ended(event);
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

    /// Whether another job of that owner would be taken now: for refusing early what would be costly to check.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn admits(&self, owner: &Owner) -> Result<(), Refusal> {
        self.shelf().admit(self.limits, owner)
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

    /// Cancels a job, which ends it; the worker lets go of one that runs before its next step. Nothing happens to a finished
    /// one.
    pub fn cancel(&self, job: &Arc<Job>) {
        let mut shelf = self.shelf();
        shelf.waiting.remove(|waiting| waiting.job.id() == job.id());
        if !job.has_ended() {
            self.end(&mut shelf, job, JobEvent::Cancelled);
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
        shelf.forget_all_but(self.limits.finished.min(RECENT));
        self.store.forget(passed, self.limits.keep_for, self.limits.finished);
    }

    /// The jobs of an owner that have not ended: those that run, then those that wait.
    pub fn of(&self, owner: &Owner) -> Vec<Arc<Job>> {
        let shelf = self.shelf();
        let jobs = shelf.running.iter().chain(shelf.waiting.iter().map(|waiting| &waiting.job));
        jobs.filter(|job| job.owner() == owner && !job.has_ended()).cloned().collect()
    }

    /// How many jobs wait, and how many run.
    pub fn counts(&self) -> (usize, usize) {
        let shelf = self.shelf();
        (shelf.waiting.len(), shelf.running.len())
    }

    /// How much is kept, and how long.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Numbers for Prometheus, with how many jobs wait, here or with those who give them.
    ///
    /// # Errors
    /// Never, as long as there is memory.
    pub fn metrics(&self, waiting: usize) -> Result<String, std::fmt::Error> {
        let (_, running) = self.counts();
        self.metrics.encode(waiting, running)
    }

    /// Takes no more jobs and ends the streams of those who follow one. Where jobs outlive the server, they wait for the next;
    /// else they end.
    pub fn close(&self) {
        let mut shelf = self.shelf();
        shelf.closed = true;
        let waiting = shelf.waiting.remove(|_| true);
        match self.kept {
            Kept::InFile => waiting.iter().for_each(|waiting| self.write_state(&waiting.job, Duration::ZERO)),
            Kept::Elsewhere => {}
            Kept::Nowhere => {
                let waiting = waiting.iter().map(|waiting| &waiting.job);
                let failed = JobEvent::Failed { error: error::stopping() };
                waiting.chain(&shelf.running).for_each(|job| job.report(failed.clone()));
            }
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

    /// The same, and the file of jobs is whole without what SQLite keeps beside it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settle(&self) -> Result<(), StoreError> {
        self.store.settle().await
    }

    fn push(&self, shelf: &mut Shelf, id: JobId, owner: Owner, work: Work, waited: Duration) -> Arc<Job> {
        let time_left = self.limits.deadline.saturating_sub(waited);
        let job = Job::new(id, owner.clone(), self.first_number, work.state.clone(), time_left);
        let job = Arc::new(job.after(waited));
        shelf.known.insert(id, Arc::clone(&job));
        let group = work.group();
        shelf.waiting.push(owner, Waiting { job: Arc::clone(&job), group, work: Some(work) });
        shelf.tell_positions();
        self.arrived.notify_one();
        job
    }

    fn fail(&self, id: JobId, error: ApiError) {
        self.end_unseen(id, &JobEvent::Failed { error });
    }

    /// Ends a job that was never queued here.
    fn end_unseen(&self, id: JobId, event: &JobEvent) {
        self.store.end(id, self.first_number + 1, event, None, || {});
    }

    fn end(&self, shelf: &mut Shelf, job: &Arc<Job>, event: JobEvent) {
        // Who gave the job knows whether it ends with that.
        if self.kept != Kept::Elsewhere {
            self.metrics.ended(&event);
        }
        job.report(event.clone());
        self.write_end(job, &event);
        self.store.forget(Duration::ZERO, self.limits.keep_for, self.limits.finished);
        shelf.recent.push_back(Arc::clone(job));
        shelf.forget_all_but(self.limits.finished.min(RECENT));
    }

    fn write_end(&self, job: &Arc<Job>, event: &JobEvent) {
        let unsaved = Arc::clone(job);
        let written = move || unsaved.keep_picture(None);
        self.store.end(job.id(), job.last_number(), event, job.picture(), written);
    }

    fn write_state(&self, job: &Job, unless_within: Duration) {
        if self.kept == Kept::InFile
            && let Some(state) = job.unsaved_for(unless_within)
        {
            self.store.save(job.id(), &state);
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finished jobs whose whole story stays in memory.
const RECENT: usize = 64;
