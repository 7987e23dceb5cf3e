//! A server to test: a bundle without weights, a runner that takes a step when it is told to, and a client.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use futures::{Stream, StreamExt, stream};
use kosmosg::bundle::PartFile;
use kosmosg::condition::Condition;
use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ApiError, ErrorCode, GenerateSettings, JobCreated, JobEvent, JobRequest, Lora, PictureFile};
use kosmosg::sampler::SamplerKind;
use kosmosg::schedule::{NoiseSchedule, SchedulerConfig};
use kosmosg_server::access::Access;
use kosmosg_server::app::{App, Bounds, EngineName, router};
use kosmosg_server::bundles::Bundles;
use kosmosg_server::desk::Desk;
use kosmosg_server::fleet::{Fleet, Hand};
use kosmosg_server::hosts::Hosts;
use kosmosg_server::jobs::{Jobs, Limits};
use kosmosg_server::worker::Worker;
use tempfile::TempDir;
use tower::ServiceExt;

pub use bundle::{BUNDLE, LORAS, unet_file, write_bundle};
pub use puppet::{Command, Puppet};
pub use requests::read_in_every_interface;

mod bundle;
mod puppet;
mod requests;

/// Jobs that may wait.
pub const CAPACITY: usize = 2;
/// Finished jobs that are remembered.
pub const KEPT: usize = 4;
/// Steps of a job.
pub const STEPS: usize = 3;
/// After this a test has failed that waits for something.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A server, its worker waiting for commands.
pub struct Server {
    pub app: App,
    pub router: Router,
    pub worker: Worker,
    /// Seeds of the jobs in the order in which they began to run.
    pub ran: Arc<Mutex<Vec<u64>>>,
    /// Seeds of those that stepped together, for each step.
    pub together: Arc<Mutex<Vec<Vec<u64>>>>,
    /// Steps that were begun.
    begun: Arc<AtomicUsize>,
    /// How often the runner gave its memory back.
    released: Arc<AtomicUsize>,
    commands: Sender<Command>,
    pub models: TempDir,
}

/// What a server is started with.
pub struct Setup {
    pub models: TempDir,
    /// The file of jobs; none is memory.
    pub store: Option<PathBuf>,
    /// Jobs that step together.
    pub seats: usize,
    pub limits: Limits,
}

impl Default for Setup {
    fn default() -> Self {
        let models = tempfile::tempdir().unwrap();
        write_bundle(models.path());
        let hour = Duration::from_hours(1);
        let waiting_of_one = usize::MAX;
        let limits = Limits { waiting: CAPACITY, waiting_of_one, finished: KEPT, keep_for: hour, deadline: hour };
        Self { models, store: None, seats: 1, limits }
    }
}

impl Setup {
    /// Starts the server, which goes on with what an earlier one left.
    pub async fn start(self) -> Server {
        let seats = self.seats;
        let bundles = Bundles::open(self.models.path()).unwrap();
        let jobs = self.jobs();
        jobs.take_up(&bundles).await.unwrap();
        let jobs = Desk::Own(jobs);
        Server::around(self.models, jobs, |_| {}, |jobs, runner| Worker::start(jobs, seats, move || runner).unwrap())
    }

    fn jobs(&self) -> Arc<Jobs> {
        Arc::new(Jobs::open(self.limits, self.store.as_deref()).unwrap())
    }
}

impl Server {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A server whose settings `change` changed.
    pub fn with(change: impl FnOnce(&mut App)) -> Self {
        let setup = Setup::default();
        let jobs = Desk::Own(setup.jobs());
        Self::around(setup.models, jobs, change, |jobs, runner| Worker::start(jobs, 1, move || runner).unwrap())
    }

    /// A server of other models, whose worker `start` starts, with room for many jobs.
    pub fn of(models: TempDir, start: impl FnOnce(Arc<Jobs>) -> Worker) -> Self {
        let limits = Limits { waiting: 100, ..Setup::default().limits };
        let setup = Setup { models, limits, ..Setup::default() };
        let jobs = Desk::Own(setup.jobs());
        Self::around(setup.models, jobs, |_| {}, |jobs, _| start(jobs))
    }

    /// One that shares its jobs through that Redis, and works if it `works`.
    pub async fn sharing(setup: Setup, redis: &str, works: bool) -> Self {
        let fleet = Arc::new(Fleet::join(redis, setup.limits).await.unwrap());
        let jobs = Desk::Fleet(Arc::clone(&fleet));
        let server =
            Self::around(setup.models, jobs, |_| {}, |jobs, runner| Worker::start(jobs, 1, move || runner).unwrap());
        let follower = Arc::clone(&fleet);
        tokio::spawn(async move { follower.follow().await });
        if works {
            tokio::spawn(Hand::new(fleet, Arc::clone(&server.app.bundles), 1).work());
        }
        server
    }

    fn around(
        models: TempDir,
        jobs: Desk,
        change: impl FnOnce(&mut App),
        start: impl FnOnce(Arc<Jobs>, Puppet) -> Worker,
    ) -> Self {
        let bundles = Arc::new(Bundles::open(models.path()).unwrap());
        let engine = EngineName { engine: "none".into(), device: "cpu".into() };
        let mut app = App {
            jobs,
            bundles,
            engine,
            page: None,
            allowed_origins: Vec::new(),
            bounds: Bounds::default(),
            access: Arc::new(Access::open(NonZeroU32::MAX)),
            hosts: Hosts::default(),
            is_encrypted: false,
            reached_at: None,
        };
        change(&mut app);
        let (commands, receiver) = channel();
        let (ran, together) = (Arc::default(), Arc::default());
        let (begun, released) = (Arc::default(), Arc::default());
        let runner = Puppet {
            commands: receiver,
            ran: Arc::clone(&ran),
            together: Arc::clone(&together),
            begun: Arc::clone(&begun),
            released: Arc::clone(&released),
        };
        let worker = start(Arc::clone(app.jobs.own()), runner);
        Self { router: router(app.clone()), app, worker, ran, together, begun, released, commands, models }
    }

    /// Stops, after the step in which the worker is; gives the models back.
    pub async fn stop(self) -> TempDir {
        self.app.jobs.close();
        // A worker without a job has ended already.
        self.commands.send(Command::Step).ok();
        assert!(self.worker.ends_within(Duration::from_secs(5)));
        self.app.jobs.own().settle().await.unwrap();
        self.models
    }

    pub fn released(&self) -> usize {
        self.released.load(Ordering::SeqCst)
    }

    pub fn command(&self, command: Command) {
        self.commands.send(command).unwrap();
    }

    pub fn steps(&self, steps: usize) {
        (0..steps).for_each(|_| self.command(Command::Step));
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response<Body> {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> StatusCode {
        self.send(Request::delete(path).body(Body::empty()).unwrap()).await.status()
    }

    pub async fn post(&self, body: impl Into<Body>) -> Response<Body> {
        self.post_to("/api/jobs", body).await
    }

    pub async fn post_to(&self, path: &str, body: impl Into<Body>) -> Response<Body> {
        let request = Request::builder().method(Method::POST).uri(path);
        self.send(request.header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()).await
    }

    /// Sends a job under a key of the client's.
    pub async fn post_as(&self, key: &str, job: &JobRequest) -> Response<Body> {
        let request = Request::post("/api/jobs").header(header::CONTENT_TYPE, "application/json");
        let body = serde_json::to_vec(job).unwrap();
        self.send(request.header("idempotency-key", key).body(body.into()).unwrap()).await
    }

    /// Waits until the worker is inside its step of that number, counted from 1: who comes now is seen after it.
    pub async fn until_in_step(&self, step: usize) {
        until(async || self.begun.load(Ordering::SeqCst) >= step).await;
    }

    pub async fn submit(&self, job: &JobRequest) -> JobCreated {
        let response = self.post(serde_json::to_vec(job).unwrap()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        json_of(response).await
    }

    /// The events of a job from after the one with that number, as they come.
    pub async fn follow(&self, id: &str, after: u64) -> impl Stream<Item = (u64, JobEvent)> + Unpin + use<> {
        let path = format!("/api/jobs/{id}/events");
        let response = self.get_with(&path, &[("last-event-id", &after.to_string())]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let chunks = response.into_body().into_data_stream();
        Box::pin(chunks.flat_map(|chunk| stream::iter(parse_events(&chunk.unwrap()))))
    }

    /// The number of the last event that has happened to a job.
    pub async fn last_number(&self, id: &str) -> u64 {
        let mut events = self.follow(id, 0).await;
        let mut last = 0;
        while let Ok(Some((number, _))) = tokio::time::timeout(Duration::from_millis(20), events.next()).await {
            last = number;
        }
        last
    }

    /// All events of a job, once it is over.
    pub async fn events(&self, id: &str) -> Vec<(u64, JobEvent)> {
        let events = self.follow(id, 0).await.collect();
        tokio::time::timeout(PATIENCE, events).await.expect("the job has no end")
    }
}

/// Waits until it holds.
///
/// # Panics
/// It takes longer than [`PATIENCE`].
pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("what the test waits for does not happen");
}

/// The body, read as JSON.
pub async fn json_of<T: serde::de::DeserializeOwned>(response: Response<Body>) -> T {
    serde_json::from_slice(&bytes_of(response).await).unwrap()
}

/// The body.
pub async fn bytes_of(response: Response<Body>) -> Bytes {
    to_bytes(response.into_body(), usize::MAX).await.unwrap()
}

/// Asserts that this is a failure of that kind whose message contains `part`.
pub async fn assert_error(response: Response<Body>, status: StatusCode, code: ErrorCode, part: &str) {
    assert_eq!(response.status(), status, "{part}");
    let error: ApiError = json_of(response).await;
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(part), "{:?} does not say {part:?}", error.message);
}

/// A job that goes on from a new state.
pub fn denoise(seed: u64) -> JobRequest {
    denoise_from(condition(), state(seed))
}

pub fn denoise_from(condition: Condition, state: DenoiseState) -> JobRequest {
    let unet = PartFile::new("unet.gguf", &unet_file()).sha256;
    JobRequest::Denoise { bundle: BUNDLE.into(), unet, condition, state, loras: Vec::new() }
}

/// The same with these LoRAs.
pub fn with_loras(mut request: JobRequest, asked: &[(&str, f32)]) -> JobRequest {
    let (JobRequest::Denoise { loras, .. } | JobRequest::Generate { loras, .. }) = &mut request;
    *loras = asked.iter().map(|&(name, scale)| Lora { name: name.into(), scale }).collect();
    request
}

/// A whole job, with a prompt of two places and two pictures.
pub fn generate() -> JobRequest {
    let picture = Picture::new(2, 3, vec![200; 18]).unwrap().to_png(None);
    JobRequest::Generate {
        bundle: BUNDLE.into(),
        prompt: PromptDocument::from_text("a <i> and <i>", 2).unwrap(),
        pictures: vec![PictureFile(picture.clone()), PictureFile(picture)],
        negative: String::new(),
        settings: GenerateSettings { seed: 1, steps: Some(STEPS), ..GenerateSettings::default() },
        loras: Vec::new(),
    }
}

pub fn condition() -> Condition {
    Condition { tokens: 3, width: 8, cond: vec![0.5; 24], uncond: vec![0.0; 24] }
}

pub fn state(seed: u64) -> DenoiseState {
    state_of(settings(seed))
}

pub fn state_of(settings: DenoiseSettings) -> DenoiseState {
    let schedule = NoiseSchedule::from_config(&SchedulerConfig::stable_diffusion()).unwrap();
    DenoiseState::new(settings, &schedule).unwrap()
}

pub fn settings(seed: u64) -> DenoiseSettings {
    let (sampler, guidance) = (SamplerKind::Ddim, 5.0);
    DenoiseSettings { sampler, steps: STEPS, guidance, seed, picture: 0, channels: 4, height: 4, width: 4 }
}

fn parse_events(chunk: &[u8]) -> Vec<(u64, JobEvent)> {
    let text = std::str::from_utf8(chunk).unwrap();
    let blocks = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    let event = |block: &str| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        (field("id: ").parse().unwrap(), serde_json::from_str(&field("data: ")).unwrap())
    };
    blocks.map(event).collect()
}

/// Whether only its owner may read a file.
#[cfg(unix)]
pub fn is_private(path: &Path) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o077 == 0
}

/// Other systems have no such modes.
#[cfg(not(unix))]
pub fn is_private(_: &Path) -> bool {
    true
}
