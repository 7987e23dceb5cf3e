//! What the worker does with the jobs.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::{ApiError, JobEvent};

use super::{Job, Jobs, Waiting};
use crate::error;
use crate::work::{Group, Model};

/// How much of a job's running a killed server may lose.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a picture, PNG.
    Done(Vec<u8>),
    /// It could not be done.
    Failed(ApiError),
}

impl Jobs {
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
                    // One that goes on had its first step elsewhere.
                    if waiting.work.as_ref().is_some_and(|work| work.state.step() == 0) {
                        self.metrics.began(waited);
                    }
                    self.store.begin(waiting.job.id());
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

    /// The model of who comes next.
    pub fn next_model(&self) -> Option<Model> {
        self.shelf().waiting.iter().next().map(|waiting| waiting.group.model().clone())
    }

    /// Whether the server is stopping.
    pub fn is_closed(&self) -> bool {
        self.shelf().closed
    }

    /// Takes note that a job which [`Jobs::next`] gave, and which was cancelled, is let go.
    pub fn let_go(&self, job: &Job) {
        let mut shelf = self.shelf();
        shelf.running.retain(|running| running.id() != job.id());
        shelf.tell_positions();
    }

    /// Puts a job that [`Jobs::next`] gave back into the queue, behind the others, unless it was cancelled.
    pub fn rest(&self, job: &Arc<Job>, group: Group) {
        let mut shelf = self.shelf();
        shelf.running.retain(|running| running.id() != job.id());
        if shelf.closed {
            self.write_state(job, Duration::ZERO);
        } else if !job.has_ended() {
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
        let mut shelf = self.shelf();
        shelf.pace.stepped(seconds / jobs as f64);
        shelf.tell_positions();
    }

    /// Ends a job that [`Jobs::next`] gave, unless it was cancelled.
    pub fn finish(&self, job: &Arc<Job>, outcome: Outcome) {
        let mut shelf = self.shelf();
        shelf.running.retain(|running| running.id() != job.id());
        if !job.has_ended() {
            let event = match outcome {
                Outcome::Failed(error) => JobEvent::Failed { error },
                Outcome::Done(png) => {
                    job.keep_picture(Some(png.into()));
                    let seconds = job.seconds();
                    shelf.pace.done(seconds);
                    JobEvent::Done { seconds }
                }
            };
            self.end(&mut shelf, job, event);
        }
        shelf.tell_positions();
    }

    /// Ends a job that has taken too long.
    pub fn time_out(&self, job: &Arc<Job>) {
        self.finish(job, Outcome::Failed(error::timed_out(self.limits.deadline)));
    }
}
