//! A server that works for the fleet: takes jobs from the line, gives them to its own worker, and tells of them.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kosmosg::protocol::{ApiError, JobEvent};

use super::Fleet;
use super::ledger::{Claim, Claimed, Report};
use super::line::{PATIENCE, Ticket};
use crate::bundles::Bundles;
use crate::error::Error;
use crate::jobs::store::StoreError;
use crate::jobs::{Job, JobId};
use crate::work::Work;

/// From one look at what was cancelled, and at the line while somebody is in it, to the next. A look takes one job, so
/// that those who have little to do come in between.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// From one look at an empty line to the next, at most: it is longer for each job that is held.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// How often jobs are kept from others; a few times may fail.
const HOLD_EVERY: Duration = Duration::from_secs(2);
/// How often a job's state is told.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long to wait for Redis before telling it the same again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long a job stays in line whose model or LoRA is not here, for those that have it.
const PASS_ON: Duration = Duration::from_secs(1);

/// Does jobs for a fleet.
pub struct Hand {
    fleet: Arc<Fleet>,
    bundles: Arc<Bundles>,
    /// How many jobs it takes at once.
    seats: usize,
    held: Mutex<HashMap<JobId, Held>>,
}

/// A job that this server has.
#[derive(Clone)]
struct Held {
    job: Arc<Job>,
    /// The number of its claim.
    claim: u64,
    ticket: Ticket,
}

/// When to do what again.
struct Due {
    hold: Instant,
    take: Instant,
}

impl Hand {
    /// One that takes as many jobs at once as its worker lets step together.
    pub fn new(fleet: Arc<Fleet>, bundles: Arc<Bundles>, seats: usize) -> Arc<Self> {
        Arc::new(Self { fleet, bundles, seats, held: Mutex::default() })
    }

    /// Works until the fleet's own jobs are closed.
    pub async fn work(self: Arc<Self>) {
        let mut due = Due { hold: Instant::now(), take: Instant::now() };
        let mut is_down = false;
        while !self.fleet.own.is_closed() {
            let result = self.look(&mut due).await;
            if let Err(error) = &result
                && !is_down
            {
                tracing::error!("the line of jobs cannot be reached: {error}");
            }
            is_down = result.is_err();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Resolves when it holds no job any more, which is some moments after its jobs were closed; not later than in that time.
    pub async fn rest(&self, time: Duration) {
        let begin = Instant::now();
        while !self.held().is_empty() && begin.elapsed() < time {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(self: &Arc<Self>, due: &mut Due) -> Result<(), StoreError> {
        let Fleet { ledger, own, .. } = &*self.fleet;
        let held = self.held().clone();
        if due.hold <= Instant::now() {
            for Held { claim, ticket, .. } in held.values() {
                ledger.hold(ticket, *claim).await?;
            }
            due.hold = Instant::now() + HOLD_EVERY;
        }
        if !held.is_empty() {
            ledger.cancelled().await?.iter().filter_map(|id| held.get(id)).for_each(|held| own.cancel(&held.job));
        }
        if held.len() < self.seats && due.take <= Instant::now() {
            match ledger.line().take().await? {
                Some(ticket) => self.begin(ticket).await?,
                None => due.take = Instant::now() + LOOK_AT_LEAST_EVERY.min(LOOK_EVERY * held.len() as u32),
            }
        }
        Ok(())
    }

    async fn begin(self: &Arc<Self>, ticket: Ticket) -> Result<(), StoreError> {
        let Fleet { ledger, own, .. } = &*self.fleet;
        if self.held().contains_key(&ticket.job) {
            // Redis was away for so long that it seemed lost.
            return ledger.line().hide(&ticket, PATIENCE).await;
        }
        let Some(request) = ledger.request(ticket.job).await? else {
            return ledger.line().tear_up(&ticket).await;
        };
        if !self.bundles.suffice_for(&request) {
            return ledger.line().hide(&ticket, PASS_ON).await;
        }
        let Claim { number: claim, waited, owner, unet, state } = match ledger.claim(ticket.job).await? {
            Claimed::Ours(claim) => *claim,
            // The ticket is visible again should that worker not be heard of any more.
            Claimed::Held => return Ok(()),
            Claimed::Over(event) => {
                event.iter().for_each(|event| own.count(event));
                return ledger.line().tear_up(&ticket).await;
            }
        };
        let bundles = Arc::clone(&self.bundles);
        let work = tokio::task::spawn_blocking(move || Work::again(request, &unet, state, &bundles)).await;
        match work.unwrap_or_else(|panic| Err(Error::internal(panic).into())) {
            Ok(work) => {
                tracing::info!(job = %ticket.job, step = work.state.step(), "taken from the line");
                let job = own.adopt(ticket.job, owner, work, waited);
                let held = Held { job, claim, ticket };
                self.held().insert(held.ticket.job, held.clone());
                tokio::spawn(Arc::clone(self).tell(held));
                Ok(())
            }
            Err(error) => self.refuse(ticket, claim, error).await,
        }
    }

    async fn refuse(&self, ticket: Ticket, claim: u64, error: ApiError) -> Result<(), StoreError> {
        let event = JobEvent::Failed { error };
        if self.report(ticket.job, claim, Report { event: &event, state: None, picture: None }).await? {
            self.fleet.ledger.line().tear_up(&ticket).await?;
        }
        Ok(())
    }

    /// Tells the fleet what happens to a job here, to its end or to this server's.
    async fn tell(self: Arc<Self>, Held { job, claim, ticket }: Held) {
        let Fleet { ledger, own, .. } = &*self.fleet;
        let mut events = pin!(Arc::clone(&job).follow(0));
        let mut saved: Option<Instant> = None;
        let mut is_ours = true;
        while is_ours && let Some((_, event)) = events.next().await {
            if matches!(event, JobEvent::Queued { .. }) {
                continue;
            }
            // With its state, a job has got further.
            let has_stepped = matches!(event, JobEvent::Step { .. });
            let is_due = has_stepped && saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY);
            let state = if is_due { job.state() } else { None };
            if state.is_some() {
                saved = Some(Instant::now());
            }
            let picture = match event {
                JobEvent::Done { .. } => insist(job.id(), || own.picture(&job)).await,
                _ => None,
            };
            let report = Report { event: &event, state: state.as_ref(), picture: picture.as_deref() };
            is_ours = insist(job.id(), || self.report(job.id(), claim, report)).await;
        }
        if !is_ours {
            tracing::warn!(job = %job.id(), "another server has taken it over");
            own.cancel(&job);
        } else if job.last().is_last() {
            insist(job.id(), || ledger.line().tear_up(&ticket)).await;
        } else if let Err(error) = ledger.give_back(&ticket, claim, job.state().as_ref()).await {
            tracing::error!(job = %job.id(), "it is another server's in some seconds only: {error}");
        }
        self.held().remove(&job.id());
    }

    /// See [`Ledger::report`](super::ledger::Ledger::report); who ends a job counts it.
    async fn report(&self, id: JobId, claim: u64, report: Report<'_>) -> Result<bool, StoreError> {
        let is_ours = self.fleet.ledger.report(id, claim, report).await?;
        if is_ours && report.event.is_last() {
            self.fleet.own.count(report.event);
        }
        Ok(is_ours)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<JobId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries until it works.
pub(super) async fn insist<T, F: Future<Output = Result<T, StoreError>>>(job: JobId, attempt: impl Fn() -> F) -> T {
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(%job, "trying again: {error}"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
