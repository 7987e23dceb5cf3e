//! Where requests hand their jobs in and ask for them: a server's own queue, or the one that a fleet shares.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use kosmosg::denoise::DenoiseState;

use crate::fleet::Fleet;
use crate::jobs::store::StoreError;
use crate::jobs::{Hold, Job, JobId, Jobs, Key, Limits, Owner, Refusal};
use crate::work::Work;

/// The jobs, as the routes see them.
#[derive(Debug, Clone)]
pub enum Desk {
    /// This server's own.
    Own(Arc<Jobs>),
    /// Those of several servers.
    Fleet(Arc<Fleet>),
}

impl Desk {
    /// See [`Jobs::submit`].
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn submit(&self, owner: Owner, work: Work, hold: Hold) -> Result<(Arc<Job>, usize), Refusal> {
        match self {
            Self::Own(jobs) => jobs.submit(owner, work, hold).await,
            Self::Fleet(fleet) => fleet.submit(owner, work, hold).await,
        }
    }

    /// See [`Jobs::submitted`].
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn submitted(&self, owner: Owner, key: Key) -> Result<Option<(Arc<Job>, usize)>, Refusal> {
        match self {
            Self::Own(jobs) => jobs.submitted(owner, key).await,
            Self::Fleet(fleet) => fleet.submitted(&owner, &key).await,
        }
    }

    /// See [`Jobs::admits`].
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn admits(&self, owner: &Owner) -> Result<(), Refusal> {
        match self {
            Self::Own(jobs) => jobs.admits(owner),
            Self::Fleet(fleet) => fleet.admits(owner).await,
        }
    }

    /// See [`Jobs::find`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError> {
        match self {
            Self::Own(jobs) => jobs.find(id).await,
            Self::Fleet(fleet) => fleet.find(id).await,
        }
    }

    /// See [`Jobs::picture`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn picture(&self, job: &Job) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Own(jobs) => jobs.picture(job).await,
            Self::Fleet(fleet) => fleet.picture(job).await,
        }
    }

    /// How far a job is; none after its end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn state(&self, job: &Job) -> Result<Option<DenoiseState>, StoreError> {
        match self {
            Self::Own(_) => Ok(job.state()),
            Self::Fleet(fleet) => fleet.state(job).await,
        }
    }

    /// Cancels a job, whatever happens to the server after that. See [`Jobs::cancel`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel(&self, job: &Arc<Job>) -> Result<(), StoreError> {
        match self {
            Self::Own(jobs) => {
                jobs.cancel(job);
                jobs.flush().await
            }
            Self::Fleet(fleet) => fleet.cancel(job.id()).await,
        }
    }

    /// Cancels a job some time before [`settle`](Self::settle) is over.
    pub fn let_go(&self, job: &Arc<Job>) {
        match self {
            Self::Own(jobs) => jobs.cancel(job),
            Self::Fleet(fleet) => fleet.let_go(job.id()),
        }
    }

    /// See [`Jobs::of`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, owner: &Owner) -> Result<Vec<Arc<Job>>, StoreError> {
        match self {
            Self::Own(jobs) => Ok(jobs.of(owner)),
            Self::Fleet(fleet) => fleet.of(owner).await,
        }
    }

    /// How many jobs wait, and how many run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn counts(&self) -> Result<(usize, usize), StoreError> {
        match self {
            Self::Own(jobs) => Ok(jobs.counts()),
            Self::Fleet(fleet) => fleet.counts().await,
        }
    }

    /// How much is kept, and how long.
    pub fn limits(&self) -> Limits {
        self.own().limits()
    }

    /// Those that this server's own worker has.
    pub fn own(&self) -> &Arc<Jobs> {
        match self {
            Self::Own(jobs) => jobs,
            Self::Fleet(fleet) => fleet.own(),
        }
    }

    /// See [`Jobs::close`].
    pub fn close(&self) {
        match self {
            Self::Own(jobs) => jobs.close(),
            Self::Fleet(fleet) => fleet.close(),
        }
    }

    /// Cancels all jobs of an owner, which ends the streams of those who follow them. The log says if it fails.
    pub async fn dismiss(&self, owner: &Owner) {
        match self.of(owner).await {
            Ok(jobs) => jobs.iter().for_each(|job| self.let_go(job)),
            Err(error) => tracing::error!("jobs of somebody whose token was removed cannot be cancelled: {error}"),
        }
    }

    /// Resolves when all that happened is written down, for the end of the server. See [`Jobs::settle`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settle(&self) -> Result<(), StoreError> {
        if let Self::Fleet(fleet) = self {
            fleet.flush().await;
        }
        self.own().settle().await
    }

    /// See [`Jobs::tidy`].
    pub async fn tidy(&self, passed: Duration) {
        match self {
            Self::Own(jobs) => jobs.tidy(passed),
            Self::Fleet(fleet) => {
                if let Err(error) = fleet.tidy(passed).await {
                    tracing::error!("the fleet's jobs cannot be tidied up: {error}");
                }
            }
        }
    }
}
