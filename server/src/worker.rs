//! The one thread that computes. It owns the models, so that nothing about them needs to be shared.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use kosmosg::protocol::{ApiError, ErrorCode};

use crate::inference::RunError;
use crate::jobs::{Job, Jobs, Outcome};
use crate::work::Work;

/// What does the work of a job.
pub trait Runner {
    /// Does it, reports each step to `job`, and returns the picture, PNG.
    ///
    /// # Errors
    /// [`RunError::Stopped`] when `job` should stop, asked before each step; otherwise what went wrong.
    fn run(&mut self, work: Work, job: &Job) -> Result<Vec<u8>, RunError>;

    /// Gives back all memory: a bug or the engine failed a job, which may have spoilt what is in it.
    fn release(&mut self);
}

/// The thread.
#[derive(Debug)]
pub struct Worker {
    /// Its other end is dropped when the thread ends.
    running: Receiver<()>,
}

impl Worker {
    /// Starts the thread, which makes its runner itself and does one job after the other until the queue is closed.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start<R: Runner>(jobs: Arc<Jobs>, runner: impl FnOnce() -> R + Send + 'static) -> std::io::Result<Self> {
        let (alive, running) = channel();
        thread::Builder::new().name("inference".into()).spawn(move || {
            let _alive = alive;
            let mut runner = runner();
            while let Some((job, work)) = jobs.next() {
                let outcome = run(&mut runner, work, &job);
                match &outcome {
                    Outcome::Done(_) => tracing::info!(job = %job.id(), seconds = job.seconds(), "done"),
                    Outcome::Stopped => tracing::info!(job = %job.id(), "stopped"),
                    Outcome::Failed(_) => {}
                }
                jobs.finish(&job, outcome);
            }
        })?;
        Ok(Self { running })
    }

    /// Waits for the thread to end after its queue was closed; whether it did.
    pub fn ends_within(&self, time: Duration) -> bool {
        self.running.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }
}

fn run(runner: &mut impl Runner, work: Work, job: &Job) -> Outcome {
    let (failure, is_spoilt) = match catch_unwind(AssertUnwindSafe(|| runner.run(work, job))) {
        Ok(Ok(png)) => return Outcome::Done(png),
        Ok(Err(RunError::Stopped)) => return Outcome::Stopped,
        Ok(Err(error)) => {
            tracing::error!(job = %job.id(), "failed: {}", error.chain());
            (error.shown(), error.engine().is_some())
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            tracing::error!(job = %job.id(), "a bug: {}", text.unwrap_or("it panicked without a word"));
            let message = "the server failed in a way that it should not; its log says where".into();
            (ApiError { code: ErrorCode::Internal, message }, true)
        }
    };
    // What is left over could be what the next job fails from; but a client's own mistake shall not cost the next one the
    // time to load the model. If even giving back fails, there is nothing left to give back.
    if is_spoilt && catch_unwind(AssertUnwindSafe(|| runner.release())).is_err() {
        tracing::error!("the memory of a failed job could not be given back");
    }
    Outcome::Failed(failure)
}
