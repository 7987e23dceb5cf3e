//! Many clients at once, with all that clients do.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use kosmosg::bundle::{Folder, Manifest};
use kosmosg::condition::Condition;
use kosmosg::denoise::DenoiseState;
use kosmosg::noise::{Rng, gaussian};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ApiError, ErrorCode, GenerateSettings, JobEvent, JobRequest, JobStatus, PictureFile};
use kosmosg_models::sprites::{Creature, Split, portrait};
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::memory::bytes_of;
use crate::models::built_in;
use crate::server::Server;

/// How long a job may take to be called lost.
const LOST_AFTER: Duration = Duration::from_secs(600);
/// From one question after the server's health to the next.
const HEALTH_EVERY: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Jobs that the server took.
    pub taken: usize,
    /// Jobs that ended with a picture.
    pub done: usize,
    /// Jobs that were cancelled, by their clients.
    pub cancelled: usize,
    /// Jobs that failed, and why.
    pub failed: Vec<ApiError>,
    /// Jobs of which no end was heard.
    pub lost: usize,
    /// Requests that were sent twice under one key and made two jobs.
    pub doubled: usize,
    /// Requests that were told to come again later.
    pub refused: usize,
    /// Seconds from a job's being taken to its end, by its steps.
    pub seconds: BTreeMap<usize, Vec<f64>>,
    /// Jobs done by each client.
    pub by_client: Vec<usize>,
    /// Seconds that answers about the server's health took.
    pub health: Vec<f64>,
    /// Bytes of the server's memory: after the first picture, and at the end.
    pub memory: [u64; 2],
}

/// What one client does with a job besides following it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Follows,
    Cancels,
    Leaves,
    SendsTwice,
}

/// Has so many clients work with a server for a time. Owners with these tokens share the clients; without tokens all are
/// one.
pub async fn run(server: &Server, clients: usize, time: Duration, tokens: &[String]) -> Report {
    let one = |index: usize| match tokens {
        [] => Client::of(server.address("")),
        tokens => Client::with_token(server.address(""), &tokens[index % tokens.len()]),
    };
    let client = one(0);
    let manifest = Folder::open(built_in()).unwrap().manifest().clone();
    let first = client.submit(&job(&manifest, 0, 4)).await.unwrap();
    client.end(&first.id).await;
    let before = bytes_of(&[server.process()]).unwrap_or_default();

    let end = Instant::now() + time;
    let health = tokio::spawn(watch_health(client, end));
    // Each has a connection of its own.
    let working = |index| tokio::spawn(work(one(index), manifest.clone(), index as u64, end));
    let reports = join_all((0..clients).map(working)).await;
    let mut all = Report { health: health.await.unwrap(), ..Report::default() };
    for report in reports.into_iter().map(Result::unwrap) {
        all.by_client.push(report.done);
        all.taken += report.taken;
        all.done += report.done;
        all.cancelled += report.cancelled;
        all.failed.extend(report.failed);
        all.lost += report.lost;
        all.doubled += report.doubled;
        all.refused += report.refused;
        for (steps, seconds) in report.seconds {
            all.seconds.entry(steps).or_default().extend(seconds);
        }
    }
    all.memory = [before, bytes_of(&[server.process()]).unwrap_or_default()];
    all
}

/// The value that a share of them do not exceed.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let index = (share * values.len() as f64).ceil() as usize;
    values.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

async fn work(client: Client, manifest: Manifest, index: u64, end: Instant) -> Report {
    let mut report = Report::default();
    let mut rng = Rng::new(index, 77);
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        let steps = [4, 4, 20, 20, 100][rng.next_u32() as usize % 5];
        let habit = match rng.next_u32() % 10 {
            0 => Habit::Cancels,
            1 => Habit::Leaves,
            2 => Habit::SendsTwice,
            _ => Habit::Follows,
        };
        let job = job(&manifest, index * 1_000_000 + round, steps);
        let key = format!("{index}-{round}");
        let Some(id) = send(&client, &job, &key, end, &mut report).await else { break };
        report.taken += 1;
        let began = Instant::now();
        if habit == Habit::SendsTwice {
            let again = send(&client, &job, &key, end, &mut report).await;
            report.doubled += usize::from(again.is_some_and(|again| again != id));
        }
        match timeout(LOST_AFTER, end_of(&client, &id, habit)).await {
            Ok(Some(JobEvent::Done { .. })) => {
                client.picture(&id).await;
                report.done += 1;
                report.seconds.entry(steps).or_default().push(began.elapsed().as_secs_f64());
            }
            Ok(Some(JobEvent::Cancelled)) if habit == Habit::Cancels => report.cancelled += 1,
            Ok(Some(JobEvent::Failed { error })) => report.failed.push(error),
            _ => report.lost += 1,
        }
    }
    report
}

/// Sends a job until it is taken or time is up.
async fn send(client: &Client, job: &JobRequest, key: &str, end: Instant, report: &mut Report) -> Option<String> {
    loop {
        match client.submit_with(job, |request| request.header("idempotency-key", key)).await {
            Ok(created) => return Some(created.id),
            Err((_, ApiError { code: ErrorCode::Busy, .. })) => report.refused += 1,
            Err((status, error)) => panic!("{status}: {error}"),
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn end_of(client: &Client, id: &str, habit: Habit) -> Option<JobEvent> {
    match habit {
        Habit::Follows | Habit::SendsTwice => return client.end(id).await,
        Habit::Cancels => {
            client.follow(id, 0).await.next().await;
            client.cancel(id).await;
        }
        Habit::Leaves => drop(client.follow(id, 0).await.next().await),
    }
    loop {
        let status: JobStatus = client.get(&format!("/api/jobs/{id}")).await.json().await.unwrap();
        if status.last.is_last() {
            return Some(status.last);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn watch_health(client: Client, end: Instant) -> Vec<f64> {
    let mut seconds = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        client.get("/health").await.bytes().await.unwrap();
        seconds.push(begin.elapsed().as_secs_f64());
        sleep(HEALTH_EVERY).await;
    }
    seconds
}

/// A job with a prompt, or, every other one, one that a page hands over before its first step.
fn job(manifest: &Manifest, seed: u64, steps: usize) -> JobRequest {
    let settings = GenerateSettings { seed, steps: Some(steps), ..GenerateSettings::default() };
    if seed.is_multiple_of(2) {
        let creature = Creature::sample(&mut Rng::new(seed, 0), Split::HeldOut);
        return JobRequest::Generate {
            bundle: "tiny".into(),
            prompt: PromptDocument::from_text("a <i> on the beach", 1).unwrap(),
            pictures: vec![PictureFile(portrait(&creature, 64).to_png(None))],
            negative: String::new(),
            settings,
            loras: Vec::new(),
        };
    }
    let [tokens, width] = manifest.condition_shape();
    let half = |stream| gaussian(seed, stream, tokens * width);
    JobRequest::Denoise {
        bundle: "tiny".into(),
        unet: manifest.part("unet").unwrap().sha256(),
        condition: Condition { tokens, width, cond: half(1), uncond: half(2) },
        state: DenoiseState::new(manifest.denoise_settings(&settings, 0), &manifest.schedule().unwrap()).unwrap(),
        loras: Vec::new(),
    }
}
