//! One job: what happened to it, for those who look now and those who come late.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures::Stream;
use futures::stream;
use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::JobEvent;
use tokio::sync::watch;

use super::store::Ended;

/// Name of a job, 128 random bits: who was not told it cannot guess it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId(u128);

/// Whom a job belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(pub(super) String);

impl Owner {
    /// Whoever asks from that address: one device, or one household.
    pub fn at(address: IpAddr) -> Self {
        Self(address.to_canonical().to_string())
    }

    /// Whoever has the token that is [known](crate::access::Token::id) by that.
    pub fn with_token(id: &str) -> Self {
        Self(format!("token {id}"))
    }

    /// Whoever is on this computer, which is one of several where they share their jobs.
    pub fn here() -> Self {
        Self(format!("here@{}", gethostname::gethostname().to_string_lossy()))
    }

    /// The one of that [name](Self::name).
    pub(crate) fn of_name(name: String) -> Self {
        Self(name)
    }

    /// What tells it from others.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

/// A job, from its coming to its being forgotten.
#[derive(Debug)]
pub struct Job {
    id: JobId,
    owner: Owner,
    log: Mutex<Log>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Log {
    /// Events with their numbers, which rise. Of previews and of positions in the queue only the last is kept.
    events: Vec<(u64, JobEvent)>,
    last_number: u64,
    came: Instant,
    /// How long it had waited before, of the time in which servers ran.
    waited: Duration,
    started: Option<Instant>,
    /// When it fails if it has not ended.
    deadline: Option<Instant>,
    /// Where it is, until it has ended: finished jobs are many, and their states large.
    state: Option<DenoiseState>,
    /// When that was last written down.
    saved: Instant,
    /// Until it is written down.
    picture: Option<Bytes>,
    /// The server ends before the job does.
    left: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            last_number: 0,
            came: Instant::now(),
            waited: Duration::ZERO,
            started: None,
            deadline: None,
            state: None,
            saved: Instant::now(),
            picture: None,
            left: false,
        }
    }
}

impl Log {
    fn has_ended(&self) -> bool {
        self.events.last().is_some_and(|(_, event)| event.is_last())
    }
}

/// What a follower finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This, and its number.
    Event(u64, JobEvent),
    /// Nothing yet.
    Wait,
    /// Nothing any more.
    End,
}

impl JobId {
    /// A new name.
    ///
    /// # Panics
    /// If the operating system has no random numbers, without which no name is safe.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system has random numbers");
        Self(u128::from_le_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for JobId {
    type Err = ();

    /// Reads 32 hexadecimal digits in lower case.
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

impl Job {
    /// A job that waits. Its events have numbers from `number` on.
    pub(super) fn new(id: JobId, owner: Owner, number: u64, state: DenoiseState, time: Duration) -> Self {
        let log = Log {
            last_number: number,
            deadline: Instant::now().checked_add(time),
            state: Some(state),
            ..Log::default()
        };
        Self::with(id, owner, log)
    }

    /// The same, which has waited for so long elsewhere.
    pub(super) fn after(self, waited: Duration) -> Self {
        self.log().waited = waited;
        self
    }

    /// A job of which only the end is still known.
    pub(crate) fn ended(id: JobId, Ended { owner, number, event }: Ended) -> Self {
        Self::with(id, owner, Log { events: vec![(number, event)], last_number: number, ..Log::default() })
    }

    /// A job that another server has, of which this one has heard nothing yet.
    pub(crate) fn mirror(id: JobId, owner: Owner) -> Self {
        Self::with(id, owner, Log::default())
    }

    fn with(id: JobId, owner: Owner, log: Log) -> Self {
        Self { id, owner, log: Mutex::new(log), news: watch::Sender::new(()) }
    }

    /// Its name.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Whose it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether its time is over.
    pub fn is_late(&self) -> bool {
        self.log().deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Whether nothing happens to it any more.
    pub fn has_ended(&self) -> bool {
        self.log().has_ended()
    }

    /// Writes down that something happened; after the end, nothing does.
    pub fn report(&self, event: JobEvent) {
        self.tell(None, event);
    }

    /// The same under a number, higher than all before.
    pub(crate) fn report_as(&self, number: u64, event: JobEvent) {
        self.tell(Some(number), event);
    }

    fn tell(&self, number: Option<u64>, event: JobEvent) {
        let mut log = self.log();
        if log.has_ended() {
            return;
        }
        let outdated: fn(&JobEvent) -> bool = match event {
            JobEvent::Preview { .. } => |event| matches!(event, JobEvent::Preview { .. }),
            JobEvent::Queued { .. } => |event| matches!(event, JobEvent::Queued { .. }),
            _ => |_| false,
        };
        log.events.retain(|(_, event)| !outdated(event));
        if event.is_last() {
            log.state = None;
        }
        let number = number.unwrap_or(log.last_number + 1);
        log.last_number = number;
        log.events.push((number, event));
        drop(log);
        self.news.send_replace(());
    }

    /// Writes down that a step is done, and keeps the state after it.
    pub fn report_step(&self, state: &DenoiseState) {
        if let Some(before) = &mut self.log().state {
            *before = state.clone();
        }
        self.report(JobEvent::Step { step: state.step(), of: state.evaluations(), seconds: self.seconds() });
    }

    /// The first event after the one with that number, 0 for the first of all.
    pub fn next_after(&self, number: u64) -> Next {
        let log = self.log();
        let index = log.events.partition_point(|&(other, _)| other <= number);
        match log.events.get(index) {
            Some((number, event)) => Next::Event(*number, event.clone()),
            None if log.left || log.has_ended() => Next::End,
            None => Next::Wait,
        }
    }

    /// The events after the one with that number, and further ones as they happen, to the last or the server's end. A slow
    /// reader misses previews, nothing else.
    pub fn follow(self: Arc<Self>, number: u64) -> impl Stream<Item = (u64, JobEvent)> + Send + 'static {
        let news = self.news.subscribe();
        stream::unfold((self, news, number), async |(job, mut news, number)| {
            loop {
                // Seen before looking, so that nothing slips in between.
                news.borrow_and_update();
                match job.next_after(number) {
                    Next::Event(number, event) => return Some(((number, event), (job, news, number))),
                    Next::Wait => news.changed().await.ok()?,
                    Next::End => return None,
                }
            }
        })
    }

    /// The last thing that happened, previews left out.
    pub fn last(&self) -> JobEvent {
        let log = self.log();
        let events = log.events.iter().rev().map(|(_, event)| event);
        let mut told = events.filter(|event| !matches!(event, JobEvent::Preview { .. }));
        told.next().expect("a job that others see begins with an event").clone()
    }

    /// Jobs that come before it.
    pub(crate) fn position(&self) -> usize {
        if let JobEvent::Queued { position, .. } = self.last() { position } else { 0 }
    }

    /// The number of the last event.
    pub(crate) fn last_number(&self) -> u64 {
        self.log().last_number
    }

    /// How it looks by now, PNG.
    pub fn preview(&self) -> Option<Vec<u8>> {
        self.log().events.iter().find_map(|(_, event)| match event {
            JobEvent::Preview { png, .. } => Some(png.clone()),
            _ => None,
        })
    }

    /// Where it is; none once it has ended.
    pub fn state(&self) -> Option<DenoiseState> {
        self.log().state.clone()
    }

    /// The picture, PNG, until it is written down.
    pub(super) fn picture(&self) -> Option<Bytes> {
        self.log().picture.clone()
    }

    /// Keeps the picture here, until it is written down.
    pub(super) fn keep_picture(&self, png: Option<Bytes>) {
        self.log().picture = png;
    }

    /// Evaluations that are still to be done.
    pub(super) fn remaining(&self) -> usize {
        self.log().state.as_ref().map_or(0, |state| state.evaluations() - state.step())
    }

    /// Its state, if it was not written down for that time.
    pub(super) fn unsaved_for(&self, time: Duration) -> Option<DenoiseState> {
        let mut log = self.log();
        if log.saved.elapsed() < time {
            return None;
        }
        log.saved = Instant::now();
        log.state.clone()
    }

    /// Seconds since it began to run; 0 while it waits.
    pub fn seconds(&self) -> f64 {
        self.log().started.map_or(0.0, |started| started.elapsed().as_secs_f64())
    }

    /// Its first step comes; how long it waited, if it did not begin before.
    pub(super) fn begin(&self) -> Option<Duration> {
        let mut log = self.log();
        if log.started.is_some() {
            return None;
        }
        log.started = Some(Instant::now());
        Some(log.waited + log.came.elapsed())
    }

    /// Tells where it stands in line, and in how many seconds it may begin, if that is news.
    pub(crate) fn moved_up(&self, position: usize, seconds: Option<f64>) {
        let is_known = match self.log().events.last() {
            Some((_, JobEvent::Queued { position: told, seconds: foreseen })) => {
                *told == position && is_near(*foreseen, seconds)
            }
            _ => false,
        };
        if !is_known {
            self.report(JobEvent::Queued { position, seconds });
        }
    }

    /// Ends the streams of those who follow it: the server ends, and the job goes on with the next one.
    pub(crate) fn leave(&self) {
        self.log().left = true;
        self.news.send_replace(());
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an estimate that was told still holds: it is wrong by no more than a fifth.
fn is_near(told: Option<f64>, now: Option<f64>) -> bool {
    match (told, now) {
        (Some(told), Some(now)) => (now - told).abs() <= told / 5.0,
        (_, now) => now.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_news_is_not_told() {
        let job = Job::mirror(JobId::random(), Owner::here());
        let told = |position, seconds| {
            let before = job.last_number();
            job.moved_up(position, seconds);
            job.last_number() > before
        };
        assert!(told(2, None) && !told(2, None));
        assert!(told(2, Some(100.0)) && !told(2, Some(81.0)) && !told(2, Some(119.0)));
        // It is measured by what was told.
        assert!(told(2, Some(79.0)) && !told(2, Some(65.0)) && told(2, Some(60.0)));
        assert!(!told(2, None) && told(1, Some(60.0)));
    }
}
