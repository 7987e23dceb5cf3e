//! A server that works for the fleet: takes jobs from the line, gives them to its own worker, and tells of them.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kosmosg::protocol::{ApiError, JobEvent};

use super::Fleet;
use super::ledger::{Claim, Report};
use super::line::{PATIENCE, Ticket};
use crate::bundles::Bundles;
use crate::jobs::store::StoreError;
use crate::jobs::{Job, JobId};
use crate::work::Work;

/// From one look at the line to the next, for each job that is held and once more: who has little to do comes first.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often tickets are kept from others; a few times may fail.
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
    held: Mutex<HashMap<JobId, Ticket>>,
}

impl Hand {
    /// One that takes as many jobs at once as its worker lets step together.
    pub fn new(fleet: Arc<Fleet>, bundles: Arc<Bundles>, seats: usize) -> Arc<Self> {
        Arc::new(Self { fleet, bundles, seats, held: Mutex::default() })
    }

    /// Works until the fleet's own jobs are closed.
    pub async fn work(self: Arc<Self>) {
        let (mut held_at, mut is_down) = (Instant::now(), false);
        while !self.fleet.own.is_closed() {
            let result = self.look(&mut held_at).await;
            if let Err(error) = &result
                && !is_down
            {
                tracing::error!("the line of jobs cannot be reached: {error}");
            }
            is_down = result.is_err();
            let held = self.held().len() as u32;
            tokio::time::sleep(LOOK_EVERY * (1 + held)).await;
        }
    }

    /// Resolves when it holds no job any more, which is some moments after its jobs were closed; not later than in that time.
    pub async fn rest(&self, time: Duration) {
        let begin = Instant::now();
        while !self.held().is_empty() && begin.elapsed() < time {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(self: &Arc<Self>, held_at: &mut Instant) -> Result<(), StoreError> {
        let Fleet { ledger, own, .. } = &*self.fleet;
        let held = self.held().clone();
        if held_at.elapsed() >= HOLD_EVERY {
            for ticket in held.values() {
                ledger.line().hide(ticket, PATIENCE).await?;
            }
            *held_at = Instant::now();
        }
        if !held.is_empty() {
            for id in ledger.cancelled().await?.into_iter().filter(|id| held.contains_key(id)) {
                if let Some(job) = own.find(id).await? {
                    own.cancel(&job);
                }
            }
        }
        while self.held().len() < self.seats
            && let Some(ticket) = ledger.line().take().await?
        {
            self.begin(ticket).await?;
        }
        Ok(())
    }

    async fn begin(self: &Arc<Self>, ticket: Ticket) -> Result<(), StoreError> {
        let Fleet { ledger, own, limits, .. } = &*self.fleet;
        if self.held().contains_key(&ticket.job) {
            // Redis was away for so long that it seemed lost.
            return ledger.line().hide(&ticket, PATIENCE).await;
        }
        let Some(Claim { number, waited, owner, request, unet, state }) = ledger.claim(&ticket).await? else {
            return ledger.line().tear_up(&ticket).await;
        };
        if !self.bundles.suffice_for(&request) {
            return ledger.pass_on(&ticket, PASS_ON).await;
        }
        let bundles = Arc::clone(&self.bundles);
        let work = tokio::task::spawn_blocking(move || Work::again(request, &unet, state, &bundles)).await;
        match work.map_err(|_| StoreError::Gone)? {
            Ok(work) => {
                let time_left = limits.deadline.saturating_sub(waited);
                tracing::info!(job = %ticket.job, step = work.state.step(), "taken from the line");
                let job = own.adopt(ticket.job, owner, work, time_left);
                self.held().insert(ticket.job, ticket.clone());
                tokio::spawn(Arc::clone(self).tell(job, number, ticket));
                Ok(())
            }
            Err(error) => self.refuse(ticket, number, error).await,
        }
    }

    async fn refuse(&self, ticket: Ticket, claim: u64, error: ApiError) -> Result<(), StoreError> {
        let event = JobEvent::Failed { error };
        self.fleet.ledger.report(ticket.job, claim, Report { event: Some(&event), ..Report::default() }).await?;
        self.fleet.ledger.line().tear_up(&ticket).await
    }

    /// Tells the fleet what happens to a job here, to its end or to this server's.
    async fn tell(self: Arc<Self>, job: Arc<Job>, claim: u64, ticket: Ticket) {
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
                JobEvent::Done { .. } => insist(job.id(), || self.fleet.own.picture(&job)).await,
                _ => None,
            };
            let report = Report { event: Some(&event), state: state.as_ref(), picture: picture.as_deref() };
            is_ours = insist(job.id(), || self.fleet.ledger.report(job.id(), claim, report)).await;
        }
        if !is_ours {
            tracing::warn!(job = %job.id(), "another server has taken it over");
            self.fleet.own.cancel(&job);
        } else if job.last().is_last() {
            insist(job.id(), || self.fleet.ledger.line().tear_up(&ticket)).await;
        } else {
            let state = job.state();
            let report = Report { state: state.as_ref(), ..Report::default() };
            let saved = self.fleet.ledger.report(job.id(), claim, report).await;
            if let Err(error) = saved.map(drop).and(self.fleet.ledger.line().hide(&ticket, Duration::ZERO).await) {
                tracing::error!(job = %job.id(), "it is another server's in some seconds only: {error}");
            }
        }
        self.held().remove(&job.id());
    }

    fn held(&self) -> MutexGuard<'_, HashMap<JobId, Ticket>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries until it works.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(job: JobId, attempt: impl Fn() -> F) -> T {
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(%job, "trying again: {error}"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
