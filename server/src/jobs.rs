//! The jobs: a bounded queue before one worker, what happened to each, and what came of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kosmosg::protocol::{ApiError, JobEvent};

use crate::error;
use crate::work::Work;

pub use job::{Job, JobId, Next};

mod job;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may wait, besides the one that runs.
    pub waiting: usize,
    /// Finished jobs whose results stay to be fetched; then the oldest is forgotten.
    pub finished: usize,
}

/// All jobs of a server.
#[derive(Debug)]
pub struct Jobs {
    limits: Limits,
    shelf: Mutex<Shelf>,
    /// A job came to wait, or the queue was closed.
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Shelf {
    waiting: VecDeque<(Arc<Job>, Work)>,
    running: Option<Arc<Job>>,
    finished: VecDeque<JobId>,
    known: HashMap<JobId, Arc<Job>>,
    closed: bool,
    /// How long a job takes, of late.
    typical_secs: Option<f64>,
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

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many wait as may.
    Full {
        /// When one of them may be done.
        retry_after_secs: u64,
    },
    /// The server is stopping.
    Closed,
}

impl Jobs {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, shelf: Mutex::default(), arrived: Condvar::new() }
    }

    /// Queues `work`; returns its job and how many jobs come first.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn submit(&self, work: Work) -> Result<(Arc<Job>, usize), Refusal> {
        let id = JobId::random();
        let mut shelf = self.shelf();
        shelf.admit(self.limits)?;
        let position = shelf.waiting.len() + usize::from(shelf.running.is_some());
        let job = Arc::new(Job::new(id, position, work.state.clone()));
        shelf.known.insert(id, Arc::clone(&job));
        shelf.waiting.push_back((Arc::clone(&job), work));
        self.arrived.notify_one();
        Ok((job, position))
    }

    /// Whether another job would be taken now: for refusing early what would be costly to check.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn admits(&self) -> Result<(), Refusal> {
        self.shelf().admit(self.limits)
    }

    /// The job called `id`, unless it is unknown or forgotten.
    pub fn get(&self, id: JobId) -> Option<Arc<Job>> {
        self.shelf().known.get(&id).cloned()
    }

    /// Cancels a job: one that waits at once, one that runs before its next step. Nothing happens to a finished one.
    pub fn cancel(&self, job: &Job) {
        let mut shelf = self.shelf();
        job.stop();
        if let Some(index) = shelf.waiting.iter().position(|(waiting, _)| waiting.id() == job.id()) {
            shelf.waiting.remove(index);
            shelf.finish(job, JobEvent::Cancelled, self.limits);
            shelf.tell_positions();
        }
    }

    /// Number of jobs that wait.
    pub fn waiting(&self) -> usize {
        self.shelf().waiting.len()
    }

    /// Number of jobs that may wait.
    pub fn capacity(&self) -> usize {
        self.limits.waiting
    }

    /// The next job, for the worker, which waits for one here; `None` once the queue is closed.
    pub fn next(&self) -> Option<(Arc<Job>, Work)> {
        let mut shelf = self.shelf();
        loop {
            if shelf.closed {
                return None;
            }
            if let Some((job, work)) = shelf.waiting.pop_front() {
                job.begin();
                shelf.running = Some(Arc::clone(&job));
                shelf.tell_positions();
                return Some((job, work));
            }
            shelf = self.arrived.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the job that [`Jobs::next`] gave.
    pub fn finish(&self, job: &Job, outcome: Outcome) {
        let mut shelf = self.shelf();
        let seconds = job.seconds();
        let stopped = if shelf.closed { JobEvent::Failed { error: error::stopping() } } else { JobEvent::Cancelled };
        let event = match outcome {
            // Who cancels does not want the picture, even if it came just before they were heard.
            _ if job.should_stop() => stopped,
            Outcome::Stopped => stopped,
            Outcome::Failed(error) => JobEvent::Failed { error },
            Outcome::Done(png) => {
                job.keep_picture(png);
                shelf.typical_secs = Some(shelf.typical_secs.map_or(seconds, |before| 0.7 * before + 0.3 * seconds));
                JobEvent::Done { seconds }
            }
        };
        shelf.running = None;
        shelf.finish(job, event, self.limits);
        shelf.tell_positions();
    }

    /// Ends all jobs and takes no more, so that whoever follows one hears of it.
    pub fn close(&self) {
        let mut shelf = self.shelf();
        shelf.closed = true;
        if let Some(job) = &shelf.running {
            job.stop();
        }
        for (job, _) in std::mem::take(&mut shelf.waiting) {
            shelf.finish(&job, JobEvent::Failed { error: error::stopping() }, self.limits);
        }
        self.arrived.notify_all();
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
            let secs = self.typical_secs.unwrap_or(DEFAULT_RETRY_SECS).ceil() as u64;
            return Err(Refusal::Full { retry_after_secs: secs.clamp(1, MAX_RETRY_SECS) });
        }
        Ok(())
    }

    fn finish(&mut self, job: &Job, event: JobEvent, limits: Limits) {
        job.report(event);
        self.finished.push_back(job.id());
        while self.finished.len() > limits.finished {
            if let Some(oldest) = self.finished.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Tells those who wait how many still come first.
    fn tell_positions(&self) {
        let running = usize::from(self.running.is_some());
        for (index, (job, _)) in self.waiting.iter().enumerate() {
            job.moved_up(index + running);
        }
    }
}

/// When to come back to a full queue while no job has ended yet.
const DEFAULT_RETRY_SECS: f64 = 5.0;
/// Nobody is told to come back later than this.
const MAX_RETRY_SECS: u64 = 600;
