//! All that changes with every job: who waits, who runs, and how fast things go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::line::Line;
use super::{Job, JobId, Limits, Owner, Refusal};
use crate::work::{Group, Work};

/// When to come back to a full queue while no job has ended yet.
const DEFAULT_RETRY_SECS: f64 = 5.0;
/// Nobody is told to come back later than this.
const MAX_RETRY_SECS: u64 = 600;

#[derive(Debug, Default)]
pub struct Shelf {
    pub(super) waiting: Line<Owner, Waiting>,
    pub(super) running: Vec<Arc<Job>>,
    /// Those that ended last, the oldest first.
    pub(super) recent: VecDeque<Arc<Job>>,
    pub(super) known: HashMap<JobId, Arc<Job>>,
    pub(super) closed: bool,
    pub(super) pace: Pace,
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
pub struct Pace {
    /// A step, divided by the jobs that take it together.
    evaluation: Option<f64>,
    /// A whole job.
    job: Option<f64>,
}

impl Shelf {
    pub(super) fn admit(&self, limits: Limits, owner: &Owner) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        let secs = self.pace.job.unwrap_or(DEFAULT_RETRY_SECS).ceil() as u64;
        let retry_after_secs = secs.clamp(1, MAX_RETRY_SECS);
        if self.waiting.len() >= limits.waiting {
            return Err(Refusal::Full { retry_after_secs });
        }
        if self.waiting.count_of(owner) >= limits.waiting_of_one {
            return Err(Refusal::Enough { retry_after_secs });
        }
        Ok(())
    }

    /// Forgets the oldest of those that have ended, but none whose picture is nowhere else yet.
    pub(super) fn forget_all_but(&mut self, most: usize) {
        let mut surplus = self.recent.len().saturating_sub(most);
        let Self { recent, known, .. } = self;
        recent.retain(|job| {
            let stays = surplus == 0 || job.picture().is_some();
            if !stays {
                surplus -= 1;
                known.remove(&job.id());
            }
            stays
        });
    }

    /// Tells those who have not begun yet how many still come first, and when it may be their turn.
    pub(super) fn tell_positions(&self) {
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

impl Pace {
    /// A step took so long, divided by the jobs that took it together.
    pub(super) fn stepped(&mut self, seconds: f64) {
        self.evaluation = Some(smooth(self.evaluation, seconds));
    }

    /// A whole job took so long.
    pub(super) fn done(&mut self, seconds: f64) {
        self.job = Some(smooth(self.job, seconds));
    }
}

fn smooth(before: Option<f64>, now: f64) -> f64 {
    before.map_or(now, |before| 0.7 * before + 0.3 * now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_picture_is_forgotten_that_is_nowhere_else() {
        let mut shelf = Shelf::default();
        let jobs = [true, false, false, true].map(|is_unsaved| {
            let job = Arc::new(Job::mirror(JobId::random(), Owner::here()));
            job.keep_picture(is_unsaved.then(|| "picture".into()));
            shelf.known.insert(job.id(), Arc::clone(&job));
            shelf.recent.push_back(Arc::clone(&job));
            job
        });
        let left = |shelf: &Shelf| {
            assert_eq!(shelf.known.len(), shelf.recent.len());
            jobs.iter().map(|job| shelf.known.contains_key(&job.id())).collect::<Vec<_>>()
        };
        shelf.forget_all_but(3);
        assert_eq!(left(&shelf), [true, false, true, true]);
        shelf.forget_all_but(1);
        assert_eq!(left(&shelf), [true, false, false, true]);
        jobs[0].keep_picture(None);
        shelf.forget_all_but(1);
        assert_eq!(left(&shelf), [false, false, false, true]);
    }
}
