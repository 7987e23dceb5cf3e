//! Several servers that share their jobs through Redis: each takes requests and tells of any job, and each that has a worker
//! does jobs. What happens to a job is told in [`Ledger`]; a [mirror](Fleet::find) of it is what the routes here see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::JobEvent;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::jobs::store::{Ended, StoreError};
use crate::jobs::{Hold, Job, JobId, Jobs, Key, Limits, Owner, Refusal};
use crate::work::Work;
use hand::insist;
use ledger::{Head, Ledger, Submitted};

pub use hand::Hand;

mod hand;
mod ledger;
mod line;

/// From one look at the jobs that somebody follows here to the next.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// When to come back to a full line.
const RETRY_SECS: u64 = 5;
/// How long it is tried to cancel what nobody wants any more.
const LETTING_GO: Duration = Duration::from_secs(5);
/// An event's number is Redis' own, which all servers share, times two to this. Between two there is room for the positions in
/// line, which each server tells by itself.
const NUMBER_BITS: u32 = 20;

/// This server among those that share a Redis.
pub struct Fleet {
    ledger: Ledger,
    /// What its own worker has.
    own: Arc<Jobs>,
    limits: Limits,
    /// Jobs that somebody follows here and that have not ended.
    mirrors: Mutex<HashMap<JobId, Arc<Job>>>,
    /// Cancellations on their way.
    leaving: Mutex<JoinSet<()>>,
}

impl Fleet {
    /// Joins those that use the Redis at `redis://[:password@]host[:port][/database]`.
    ///
    /// # Errors
    /// [`StoreError`] if it is no such address, or nobody answers there.
    pub async fn join(address: &str, limits: Limits) -> Result<Self, StoreError> {
        let ledger = Ledger::open(address, limits).await?;
        Ok(Self {
            ledger,
            own: Arc::new(Jobs::for_others(limits)?),
            limits,
            mirrors: Mutex::default(),
            leaving: Mutex::default(),
        })
    }

    /// What its own worker has.
    pub fn own(&self) -> &Arc<Jobs> {
        &self.own
    }

    /// Like [`Jobs::submit`].
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn submit(self: &Arc<Self>, owner: Owner, work: Work, hold: Hold) -> Result<(Arc<Job>, usize), Refusal> {
        if self.own.is_closed() {
            return Err(Refusal::Closed);
        }
        let (id, key) = (JobId::random(), hold.key());
        let taken = self.take(id, owner, &work, key.as_ref()).await;
        if key.is_none() && matches!(taken, Err(Refusal::Store(_))) {
            // It may be there all the same, and who asks again shall not have it twice. With a key, that finds it.
            self.let_go(id);
        }
        let job = taken?;
        let position = job.position();
        Ok((job, position))
    }

    async fn take(&self, id: JobId, owner: Owner, work: &Work, key: Option<&Key>) -> Result<Arc<Job>, Refusal> {
        match self.ledger.submit(id, &owner, key, &work.request(), &work.model.unet()).await? {
            Submitted::New => {
                if let Err(error) = self.ledger.send(id, &owner).await {
                    tracing::warn!(job = %id, "it waits for a server to tidy up: {error}");
                }
                Ok(self.mirror(id, owner).await?)
            }
            Submitted::Again(id) => Ok(self.find(id).await?.ok_or(StoreError::Forgotten)?),
            Submitted::KeyTaken => Err(Refusal::KeyTaken),
            Submitted::Full => Err(Refusal::Full { retry_after_secs: RETRY_SECS }),
            Submitted::Enough => Err(Refusal::Enough { retry_after_secs: RETRY_SECS }),
        }
    }

    /// Like [`Jobs::submitted`].
    ///
    /// # Errors
    /// [`Refusal::KeyTaken`] if another request was.
    pub async fn submitted(&self, owner: &Owner, key: &Key) -> Result<Option<(Arc<Job>, usize)>, Refusal> {
        match self.ledger.by_key(owner, key).await? {
            Some((id, true)) => Ok(self.find(id).await?.map(|job| {
                let position = job.position();
                (job, position)
            })),
            Some((_, false)) => Err(Refusal::KeyTaken),
            None => Ok(None),
        }
    }

    /// Like [`Jobs::admits`].
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn admits(&self, owner: &Owner) -> Result<(), Refusal> {
        if self.own.is_closed() {
            return Err(Refusal::Closed);
        }
        let (waiting, _) = self.ledger.counts().await?;
        if waiting >= self.limits.waiting {
            return Err(Refusal::Full { retry_after_secs: RETRY_SECS });
        }
        let places = self.ledger.positions(&self.ledger.open_jobs(owner).await?).await?;
        if places.into_iter().flatten().count() >= self.limits.waiting_of_one {
            return Err(Refusal::Enough { retry_after_secs: RETRY_SECS });
        }
        Ok(())
    }

    /// The job called `id`, whichever server took it and does it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError> {
        if let Some(job) = self.mirrors().get(&id) {
            return Ok(Some(Arc::clone(job)));
        }
        let Some(Head { owner, number, end }) = self.ledger.head(id).await? else { return Ok(None) };
        if let Some(event) = end {
            return Ok(Some(Arc::new(Job::ended(id, Ended { owner, number: number << NUMBER_BITS, event }))));
        }
        Ok(Some(self.mirror(id, owner).await?))
    }

    async fn mirror(&self, id: JobId, owner: Owner) -> Result<Arc<Job>, StoreError> {
        let job = Arc::new(Job::mirror(id, owner));
        self.catch_up(std::slice::from_ref(&job)).await?;
        Ok(Arc::clone(self.mirrors().entry(id).or_insert(job)))
    }

    /// The picture of a job, PNG, once there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn picture(&self, job: &Job) -> Result<Option<Bytes>, StoreError> {
        self.ledger.picture(job.id()).await
    }

    /// How far a job is; none before it was begun and after its end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn state(&self, job: &Job) -> Result<Option<DenoiseState>, StoreError> {
        self.ledger.state(job.id()).await
    }

    /// Cancels a job: one that waits at once, one that runs before its next step or the one after, and one whose worker
    /// is not heard of when others may have it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel(&self, id: JobId) -> Result<(), StoreError> {
        if self.ledger.cancel(id).await? {
            self.own.count(&JobEvent::Cancelled);
        }
        Ok(())
    }

    /// The same some time before [`flush`](Self::flush) is over. The log says if it fails for long.
    pub fn let_go(self: &Arc<Self>, id: JobId) {
        let fleet = Arc::clone(self);
        let mut leaving = self.leaving();
        while leaving.try_join_next().is_some() {}
        leaving.spawn(async move {
            if timeout(LETTING_GO, insist(id, || fleet.cancel(id))).await.is_err() {
                tracing::error!(job = %id, "it cannot be cancelled");
            }
        });
    }

    /// Resolves when all jobs are cancelled that were to be.
    pub async fn flush(&self) {
        let leaving = std::mem::take(&mut *self.leaving());
        leaving.join_all().await;
    }

    /// The model that an owner has chosen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chosen(&self, owner: &Owner) -> Result<Option<String>, StoreError> {
        self.ledger.chosen(owner).await
    }

    /// Chooses a model for an owner, who hears of it on every server.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn choose(&self, owner: &Owner, bundle: &str) -> Result<(), StoreError> {
        self.ledger.choose(owner, bundle).await
    }

    /// Like [`Jobs::of`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, owner: &Owner) -> Result<Vec<Arc<Job>>, StoreError> {
        let mut jobs = Vec::new();
        for id in self.ledger.open_jobs(owner).await? {
            jobs.extend(self.find(id).await?);
        }
        jobs.sort_by_key(|job| job.position());
        Ok(jobs)
    }

    /// How many jobs wait, and how many run, on all servers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn counts(&self) -> Result<(usize, usize), StoreError> {
        self.ledger.counts().await
    }

    /// Takes no more jobs and ends the streams of those who follow one; another server can tell them more.
    pub fn close(&self) {
        self.own.close();
        self.mirrors().values().for_each(|job| job.leave());
    }

    /// Like [`Jobs::tidy`], for all servers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tidy(&self, passed: Duration) -> Result<(), StoreError> {
        self.own.tidy(passed);
        self.ledger.tidy(passed).await?.iter().for_each(|event| self.own.count(event));
        Ok(())
    }

    /// Tells those who follow a job here what happens to it elsewhere, until this server closes.
    pub async fn follow(&self) {
        let mut is_down = false;
        while !self.own.is_closed() {
            tokio::time::sleep(LOOK_EVERY).await;
            let jobs: Vec<_> = {
                let mut mirrors = self.mirrors();
                mirrors.retain(|_, job| Arc::strong_count(job) > 1 && !job.last().is_last());
                mirrors.values().cloned().collect()
            };
            let result = if jobs.is_empty() { Ok(()) } else { self.catch_up(&jobs).await };
            if let Err(error) = &result
                && !is_down
            {
                tracing::error!("what happens to the jobs cannot be seen: {error}");
            }
            is_down = result.is_err();
        }
    }

    /// Tells the mirrors what has happened since they last heard.
    async fn catch_up(&self, jobs: &[Arc<Job>]) -> Result<(), StoreError> {
        let seen: Vec<_> = jobs.iter().map(|job| (job.id(), job.last_number() >> NUMBER_BITS)).collect();
        for (id, number, event) in self.ledger.events(&seen).await? {
            if let Some(job) = jobs.iter().find(|job| job.id() == id) {
                job.report_as(number << NUMBER_BITS, event);
            }
        }
        let unbegun: Vec<_> = jobs.iter().filter(|job| job.last_number() >> NUMBER_BITS == 0).collect();
        if unbegun.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = unbegun.iter().map(|job| job.id()).collect();
        let pace = self.ledger.pace().await?;
        for (job, position) in unbegun.into_iter().zip(self.ledger.positions(&ids).await?) {
            let position = position.unwrap_or(0);
            job.moved_up(position, pace.map(|pace| pace.as_secs_f64() * (position + 1) as f64));
        }
        Ok(())
    }

    fn leaving(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mirrors(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Job>>> {
        self.mirrors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("limits", &self.limits).finish_non_exhaustive()
    }
}
