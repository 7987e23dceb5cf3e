//! What outlives a request, a client, or the server.

use std::time::Duration;

use axum::http::StatusCode;
use futures::StreamExt;
use kosmosg::picture::Picture;
use kosmosg::protocol::{ErrorCode, JobCreated, JobEvent, JobStatus};
use kosmosg_server::jobs::store::{Store, StoreError};
use kosmosg_server::jobs::{Jobs, Limits};
use kosmosg_server::worker::Lost;
use tempfile::TempDir;

use crate::support::{
    Command, STEPS, Server, Setup, assert_error, bytes_of, denoise, generate, is_private, json_of, with_loras,
};

struct Lasting {
    folder: TempDir,
}

impl Lasting {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn setup(&self) -> Setup {
        Setup { store: Some(self.folder.path().join("jobs.sqlite")), ..Setup::default() }
    }

    async fn start(&self) -> Server {
        self.setup().start().await
    }

    /// The next server, after this one.
    async fn next(&self, server: Server) -> Server {
        let models = server.stop().await;
        Setup { models, ..self.setup() }.start().await
    }
}

#[tokio::test]
async fn the_next_server_goes_on_where_one_stopped() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let [running, waiting] = [server.submit(&denoise(0)).await.id, server.submit(&generate()).await.id];
    server.steps(1);
    server.until_in_step(2).await;
    let heard = server.last_number(&running).await;
    let server = lasting.next(server).await;
    // It ended after the second step of the first job, and before the other.
    server.steps(1 + STEPS);
    let events: Vec<_> = server.follow(&running, heard).await.map(|(_, event)| event).collect().await;
    let steps: Vec<_> = events.iter().filter(|event| matches!(event, JobEvent::Step { .. })).collect();
    assert!(matches!(steps[..], [JobEvent::Step { step: 3, of: 3, .. }]), "{events:?}");
    assert!(matches!(events.last(), Some(JobEvent::Done { .. })), "{events:?}");
    assert!(matches!(server.events(&waiting).await.pop(), Some((_, JobEvent::Done { .. }))));
    assert_eq!(*server.ran.lock().unwrap(), [0, 1]);

    // Results stay too.
    let server = lasting.next(server).await;
    for id in [&running, &waiting] {
        let status: JobStatus = json_of(server.get(&format!("/api/jobs/{id}")).await).await;
        assert!(matches!(status.last, JobEvent::Done { .. }), "{status:?}");
        assert!(matches!(server.events(id).await[..], [(_, JobEvent::Done { .. })]));
        let png = bytes_of(server.get(&format!("/api/jobs/{id}/result")).await).await;
        assert_eq!(Picture::decode(&png).unwrap().rgb(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_lost_device_costs_a_step() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let [running, waiting] = [server.submit(&denoise(0)).await.id, server.submit(&generate()).await.id];
    server.steps(1);
    server.command(Command::Lost);
    server.worker.loss().await;
    assert_eq!(server.worker.lost(), Some(Lost::InWork));
    let server = lasting.next(server).await;
    server.steps(STEPS - 1 + STEPS);
    for id in [&running, &waiting] {
        assert!(matches!(server.events(id).await.pop(), Some((_, JobEvent::Done { .. }))));
    }
}

#[tokio::test]
async fn a_job_that_loses_every_device_ends() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let [running, waiting] = [server.submit(&denoise(0)).await.id, server.submit(&generate()).await.id];
    server.command(Command::Lost);
    server.worker.loss().await;
    assert_eq!(server.worker.lost(), Some(Lost::AtOnce));
    let server = lasting.next(server).await;
    let status: JobStatus = json_of(server.get(&format!("/api/jobs/{running}")).await).await;
    assert!(matches!(&status.last, JobEvent::Failed { error } if error.message.contains("lost its GPU")), "{status:?}");
    server.steps(STEPS);
    assert!(matches!(server.events(&waiting).await.pop(), Some((_, JobEvent::Done { .. }))));
}

#[tokio::test]
async fn a_job_whose_model_has_gone_fails_with_a_word() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let id = server.submit(&denoise(0)).await.id;
    let models = server.stop().await;
    std::fs::rename(models.path().join("small"), models.path().join("other")).unwrap();
    let server = Setup { models, ..lasting.setup() }.start().await;
    let status: JobStatus = json_of(server.get(&format!("/api/jobs/{id}")).await).await;
    let JobEvent::Failed { error } = status.last else { panic!("{status:?}") };
    assert!(error.message.contains("there is no bundle \"small\"; there is other"), "{error}");
}

#[tokio::test]
async fn a_job_goes_on_only_with_the_loras_that_it_began_with() {
    for (now, steps) in [("wool", 1), ("another wool", STEPS)] {
        let lasting = Lasting::new();
        let server = lasting.start().await;
        let id = server.submit(&with_loras(denoise(0), &[("wool", 0.5)])).await.id;
        server.steps(1);
        server.until_in_step(2).await;
        std::fs::write(server.models.path().join("loras/wool.safetensors"), now).unwrap();
        let server = lasting.next(server).await;
        server.steps(steps);
        let events = server.events(&id).await;
        let taken = events.iter().filter(|(_, event)| matches!(event, JobEvent::Step { .. })).count();
        assert_eq!(taken, steps, "{now}: {events:?}");
        assert!(matches!(events.last(), Some((_, JobEvent::Done { .. }))), "{now}: {events:?}");
    }
}

#[tokio::test]
async fn a_request_under_one_key_is_done_once() {
    let lasting = Lasting::new();
    let limits = Limits { waiting: 10, ..Setup::default().limits };
    let server = Setup { limits, ..lasting.setup() }.start().await;
    let first: JobCreated = json_of(server.post_as("one", &denoise(0)).await).await;
    let again: JobCreated = json_of(server.post_as("\"one\"", &denoise(0)).await).await;
    assert_eq!(first.id, again.id);
    let other = server.post_as("one", &denoise(1)).await;
    assert_error(other, StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Invalid, "another request was sent").await;
    assert_error(
        server.post_as("", &denoise(1)).await,
        StatusCode::BAD_REQUEST,
        ErrorCode::Invalid,
        "the Idempotency-Key must have 1 to 255",
    )
    .await;
    // Two at once, too.
    let job = denoise(2);
    let (one, two) = tokio::join!(server.post_as("two", &job), server.post_as("two", &job));
    let [one, two]: [JobCreated; 2] = [json_of(one).await, json_of(two).await];
    assert_eq!(one.id, two.id);
    assert_ne!(one.id, first.id);

    // Also when the queue is full, and when the server was another.
    let server = lasting.next(server).await;
    let again: JobCreated = json_of(server.post_as("one", &denoise(0)).await).await;
    assert_eq!(first.id, again.id);
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_ended() {
    let limits = Limits { deadline: Duration::from_millis(100), ..Setup::default().limits };
    let server = Setup { limits, ..Setup::default() }.start().await;
    let [running, waiting] = [server.submit(&denoise(0)).await.id, server.submit(&denoise(1)).await.id];
    server.steps(1);
    server.until_in_step(2).await;
    tokio::time::sleep(limits.deadline).await;
    server.app.jobs.tidy(Duration::ZERO).await;
    server.steps(1);
    for id in [running, waiting] {
        let Some((_, JobEvent::Failed { error })) = server.events(&id).await.pop() else { panic!("it went on") };
        assert_eq!(error.code, ErrorCode::TimedOut);
        assert!(error.message.contains("was not done within"), "{error}");
    }
}

#[tokio::test]
async fn results_are_kept_for_a_time() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let id = server.submit(&denoise(0)).await.id;
    server.steps(STEPS);
    server.events(&id).await;
    let server = lasting.next(server).await;
    let status = async || server.get(&format!("/api/jobs/{id}")).await.status();
    server.app.jobs.tidy(Duration::from_mins(59)).await;
    assert_eq!(status().await, StatusCode::OK);
    server.app.jobs.tidy(Duration::from_mins(2)).await;
    assert_eq!(status().await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_file_of_jobs_belongs_to_one_server() {
    let lasting = Lasting::new();
    let setup = lasting.setup();
    let (path, limits) = (setup.store.clone().unwrap(), setup.limits);
    let server = setup.start().await;
    assert!(matches!(Jobs::open(limits, Some(&path)), Err(StoreError::InUse)));
    // People's sentences and pictures are in it, and in what SQLite writes beside it.
    let files: Vec<_> = std::fs::read_dir(lasting.folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 1 && files.iter().all(|file| is_private(file)), "{files:?}");
    server.stop().await;
    let other = lasting.folder.path().join("other");
    std::fs::write(&other, "no database, and long enough to be seen as none at all").unwrap();
    assert!(matches!(Store::open(Some(&other)), Err(StoreError::NotAStore)));
    let newer = lasting.folder.path().join("newer");
    drop(Store::open(Some(&newer)).unwrap());
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(matches!(Store::open(Some(&newer)), Err(StoreError::Version)));
}
