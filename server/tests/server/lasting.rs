//! What outlives a request, a client, or the server.

use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use futures::StreamExt;
use kosmosg::picture::Picture;
use kosmosg::protocol::{ErrorCode, JobCreated, JobEvent, JobStatus};
use kosmosg_server::admission::check;
use kosmosg_server::bundles::Bundles;
use kosmosg_server::jobs::store::{Store, StoreError};
use kosmosg_server::jobs::{Hold, JobId, Jobs, Limits, MAX_BEGINNINGS, Owner};
use kosmosg_server::worker::Lost;
use serde_json::json;
use tempfile::TempDir;

use crate::clients::waits;
use crate::support::{
    Command, STEPS, Server, Setup, assert_error, bytes_of, denoise, generate, is_private, json_of,
    read_in_every_interface, until, with_loras, write_bundle,
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
async fn the_file_of_jobs_alone_has_all_of_them_once_the_server_has_stopped() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let [done, waiting] = [server.submit(&denoise(0)).await.id, server.submit(&generate()).await.id];
    server.steps(STEPS);
    server.events(&done).await;
    let models = server.stop().await;

    let moved = Lasting::new();
    std::fs::copy(lasting.setup().store.unwrap(), moved.setup().store.unwrap()).unwrap();
    let server = Setup { models, ..moved.setup() }.start().await;
    let png = bytes_of(server.get(&format!("/api/jobs/{done}/result")).await).await;
    assert_eq!(Picture::decode(&png).unwrap().rgb(), [1, 2, 3]);
    server.steps(STEPS);
    assert!(matches!(server.events(&waiting).await.pop(), Some((_, JobEvent::Done { .. }))));
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
async fn a_cancelled_job_does_not_come_back() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let id = server.submit(&denoise(0)).await.id;
    server.steps(1);
    server.until_in_step(2).await;
    assert_eq!(server.delete(&format!("/api/jobs/{id}")).await, StatusCode::NO_CONTENT);
    // The server ends before the job does.
    let server = lasting.next(server).await;
    let status: JobStatus = json_of(server.get(&format!("/api/jobs/{id}")).await).await;
    assert_eq!(status.last, JobEvent::Cancelled);
}

/// What happened to a job at last.
async fn last(jobs: &Jobs, id: JobId) -> JobEvent {
    jobs.find(id).await.unwrap().unwrap().last()
}

#[tokio::test]
async fn a_job_that_ends_its_server_is_not_begun_for_ever() {
    let lasting = Lasting::new();
    let setup = lasting.setup();
    let bundles = Bundles::open(setup.models.path()).unwrap();
    let again = async || {
        let jobs = Jobs::open(setup.limits, setup.store.as_deref()).unwrap();
        jobs.take_up(&bundles).await.unwrap();
        jobs
    };
    let jobs = again().await;
    let work = check(denoise(0), &bundles).unwrap();
    let id = jobs.submit(Owner::here(), work, Hold::Name).await.unwrap().0.id();
    jobs.flush().await.unwrap();
    drop(jobs);
    let killed_in_it = async |times| {
        for _ in 0..times {
            let jobs = again().await;
            assert_eq!(jobs.counts(), (1, 0));
            jobs.next(None).unwrap();
            jobs.flush().await.unwrap();
        }
    };
    killed_in_it(MAX_BEGINNINGS - 1).await;
    // One that is told to stop is none.
    let jobs = again().await;
    let waiting = jobs.next(None).unwrap();
    jobs.close();
    jobs.rest(&waiting.job, waiting.group);
    jobs.flush().await.unwrap();
    drop(jobs);
    killed_in_it(MAX_BEGINNINGS).await;

    let jobs = again().await;
    assert_eq!(jobs.counts(), (0, 0));
    let JobEvent::Failed { error } = last(&jobs, id).await else { panic!("it was begun again") };
    assert!(error.message.contains("ended 3 times while it did this job"), "{error}");
}

#[tokio::test]
async fn a_jobs_time_goes_on_with_the_next_server() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let id = server.submit(&denoise(0)).await.id;
    server.app.jobs.tidy(Duration::from_mins(61)).await;
    let server = lasting.next(server).await;
    server.app.jobs.tidy(Duration::ZERO).await;
    let Some((_, JobEvent::Failed { error })) = server.events(&id).await.pop() else { panic!("it went on") };
    assert_eq!(error.code, ErrorCode::TimedOut);
}

#[tokio::test]
async fn what_a_client_waits_for_ends_with_it() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let client = waits(&server, "/sdapi/v1/txt2img", &json!({ "prompt": "a", "steps": STEPS }));
    server.until_in_step(1).await;
    let id = server.app.jobs.of(&Owner::here()).await.unwrap()[0].id();
    server.app.jobs.close();
    assert_eq!(client.await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let server = lasting.next(server).await;
    assert_eq!(last(server.app.jobs.own(), id).await, JobEvent::Cancelled);
    let models = server.stop().await;

    // If the server is killed, the next one knows.
    let setup = Setup { models, ..lasting.setup() };
    let bundles = Bundles::open(setup.models.path()).unwrap();
    let jobs = Jobs::open(setup.limits, setup.store.as_deref()).unwrap();
    let id = jobs.submit(Owner::here(), check(denoise(0), &bundles).unwrap(), Hold::Waiting).await.unwrap().0.id();
    drop(jobs);
    let jobs = Jobs::open(setup.limits, setup.store.as_deref()).unwrap();
    jobs.take_up(&bundles).await.unwrap();
    assert_eq!((jobs.counts(), last(&jobs, id).await), ((0, 0), JobEvent::Cancelled));
}

#[tokio::test]
async fn a_client_that_hangs_up_while_its_job_is_written_down_leaves_none() {
    let lasting = Lasting::new();
    let server = lasting.start().await;
    let body = r#"{"prompt": "a", "steps": 3}"#;
    let mut request = Box::pin(server.post_to("/sdapi/v1/txt2img", body));
    let job = loop {
        assert!(futures::poll!(&mut request).is_pending());
        if let Some(job) = server.app.jobs.of(&Owner::here()).await.unwrap().pop() {
            break job;
        }
        tokio::task::yield_now().await;
    };
    drop(request);
    until(async || job.has_ended()).await;
    assert_eq!(job.last(), JobEvent::Cancelled);
    // The worker may be in a step of it; it begins no other.
    server.steps(1);
    until(async || server.app.jobs.own().counts() == (0, 0)).await;
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
async fn a_file_of_an_earlier_version_is_taken_over() {
    let lasting = Lasting::new();
    let setup = lasting.setup();
    let ids = [JobId::random(), JobId::random(), JobId::random()];
    let connection = rusqlite::Connection::open(setup.store.as_ref().unwrap()).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE jobs (
                 number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, key TEXT, digest BLOB,
                 request BLOB, unet TEXT, state BLOB, last_number INTEGER, last_event BLOB, picture BLOB, age REAL
             ) STRICT;
             CREATE UNIQUE INDEX keys ON jobs (owner, key);
             CREATE TABLE beginnings (count INTEGER NOT NULL) STRICT;
             INSERT INTO beginnings VALUES (1);
             PRAGMA application_id = 0x4b476a73;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    let sql =
        "INSERT INTO jobs (id, owner, request, unet, last_number, last_event, age) VALUES (?, 'here', ?, ?, ?, ?, ?)";
    let request = serde_json::to_vec(&denoise(0)).unwrap();
    connection.execute(sql, (ids[0].to_string(), request, "", None::<i64>, None::<&[u8]>, None::<f64>)).unwrap();
    for (id, age_secs) in [(ids[1], 59 * 60), (ids[2], 61 * 60)] {
        let done = serde_json::to_vec(&JobEvent::Done { seconds: 1.0 }).unwrap();
        connection.execute(sql, (id.to_string(), None::<&[u8]>, None::<&str>, 7, done, f64::from(age_secs))).unwrap();
    }
    drop(connection);

    let server = setup.start().await;
    let status = async |id| server.get(&format!("/api/jobs/{id}")).await.status();
    assert_eq!(status(ids[1]).await, StatusCode::OK);
    server.app.jobs.tidy(Duration::ZERO).await;
    assert_eq!((status(ids[1]).await, status(ids[2]).await), (StatusCode::OK, StatusCode::NOT_FOUND));
    server.app.jobs.tidy(Duration::from_mins(2)).await;
    assert_eq!(status(ids[1]).await, StatusCode::NOT_FOUND);
    server.steps(STEPS);
    assert!(matches!(server.events(&ids[0].to_string()).await.pop(), Some((_, JobEvent::Done { .. }))));
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

#[test]
fn what_the_queue_writes_down_is_what_was_asked() {
    let models = tempfile::tempdir().unwrap();
    write_bundle(models.path());
    let bundles = Bundles::open(models.path()).unwrap();
    // The fuzz target begins with the same.
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/request");
    for seed in seeds.read_dir().unwrap().map(|seed| seed.unwrap().path()) {
        assert!(read_in_every_interface(&std::fs::read(&seed).unwrap(), &bundles) > 0, "{}", seed.display());
    }
}
