//! A job's life.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use futures::StreamExt;
use kosmosg::denoise::DenoiseState;
use kosmosg::picture::Picture;
use kosmosg::protocol::{ErrorCode, Health, JobEvent, JobStatus};
use kosmosg_server::jobs::Limits;
use kosmosg_server::worker::{Lost, Worker};
use tokio::time::timeout;

use crate::support::{
    CAPACITY, Command, KEPT, PATIENCE, Puppet, STEPS, Server, Setup, assert_error, bytes_of, condition, denoise,
    denoise_from, generate, json_of, state, until,
};

#[tokio::test]
async fn a_job_goes_from_the_queue_to_its_picture() {
    let server = Server::start();
    let job = server.submit(&generate()).await;
    assert_eq!(job.position, 0);
    assert_eq!(job.id.len(), 32);
    let result = format!("/api/jobs/{}/result", job.id);
    assert_error(server.get(&result).await, StatusCode::CONFLICT, ErrorCode::NotReady, "not done").await;

    server.steps(STEPS);
    let events: Vec<_> = server.events(&job.id).await.into_iter().map(|(_, event)| event).collect();
    let kinds: Vec<_> = events.iter().map(kind).collect();
    // Of the previews only the last is kept, unless the stream was faster.
    let kinds: Vec<_> = kinds.into_iter().filter(|&kind| kind != "preview").collect();
    assert_eq!(kinds, ["queued", "encoding", "step 1", "step 2", "step 3", "done"]);

    let response = server.get(&result).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "image/png");
    assert_eq!(Picture::decode(&bytes_of(response).await).unwrap().rgb(), [1, 2, 3]);
    let status: JobStatus = json_of(server.get(&format!("/api/jobs/{}", job.id)).await).await;
    assert!(matches!(status.last, JobEvent::Done { .. }) && status.id == job.id);
    let state = server.get(&format!("/api/jobs/{}/state", job.id)).await;
    assert_error(state, StatusCode::NOT_FOUND, ErrorCode::NotFound, "the job has ended").await;
}

#[tokio::test]
async fn a_state_goes_on_where_it_stood() {
    let server = Server::start();
    let mut state = state(5);
    state.advance(&[0.2; 64]).unwrap();
    let job = server.submit(&denoise_from(condition(), state.clone())).await;
    let path = format!("/api/jobs/{}/state", job.id);
    assert_eq!(json_of::<DenoiseState>(server.get(&path).await).await, state);
    server.steps(STEPS - 1);
    let events = server.events(&job.id).await;
    assert!(events.iter().any(|(_, event)| kind(event) == "step 2"));
    assert!(!events.iter().any(|(_, event)| kind(event) == "step 1"));
    assert!(matches!(events.last(), Some((_, JobEvent::Done { .. }))));
}

#[tokio::test]
async fn jobs_run_in_order_and_only_so_many_wait() {
    let server = Server::start();
    let first = server.submit(&denoise(0)).await;
    let mut events = server.follow(&first.id, 0).await;
    server.steps(1);
    // Only now it is sure that the worker has taken the first.
    while kind(&events.next().await.unwrap().1) != "step 1" {}
    let mut waiting = Vec::new();
    for seed in 1..=CAPACITY as u64 {
        let job = server.submit(&denoise(seed)).await;
        assert_eq!(job.position, seed as usize);
        waiting.push(job);
    }
    let health: Health = json_of(server.get("/health").await).await;
    assert_eq!((health.queued, health.capacity), (CAPACITY, CAPACITY));

    let refused = server.post(serde_json::to_vec(&denoise(9)).unwrap()).await;
    let retry_after: u64 = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=600).contains(&retry_after));
    assert_error(refused, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, "2 jobs are waiting").await;

    server.steps(STEPS * (CAPACITY + 1) - 1);
    for job in &waiting {
        assert!(matches!(server.events(&job.id).await.last(), Some((_, JobEvent::Done { .. }))));
    }
    assert_eq!(*server.ran.lock().unwrap(), [0, 1, 2]);
}

#[tokio::test]
async fn one_owner_does_not_fill_the_queue() {
    let limits = Limits { waiting: 3, waiting_of_one: 1, ..Setup::default().limits };
    let server = Setup { limits, ..Setup::default() }.start().await;
    let from = async |host: u8| {
        let request = Request::post("/api/jobs").header("content-type", "application/json");
        let address = ConnectInfo(SocketAddr::from(([10, 0, 0, host], 1)));
        let body = serde_json::to_vec(&denoise(host.into())).unwrap();
        server.send(request.extension(address).body(body.into()).unwrap()).await
    };
    assert_eq!(from(1).await.status(), StatusCode::ACCEPTED);
    server.until_in_step(1).await;
    assert_eq!(from(1).await.status(), StatusCode::ACCEPTED);
    let refused = from(1).await;
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_error(refused, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, "1 of your own jobs are waiting").await;
    assert_eq!(from(2).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn who_waits_hears_of_moving_up() {
    let server = Server::start();
    let first = server.submit(&denoise(0)).await;
    let mut events = server.follow(&first.id, 0).await;
    server.steps(1);
    while kind(&events.next().await.unwrap().1) != "step 1" {}
    let second = server.submit(&denoise(1)).await;
    let third = server.submit(&denoise(2)).await;
    let mut events = server.follow(&third.id, 0).await;
    assert!(matches!(events.next().await.unwrap().1, JobEvent::Queued { position: 2, .. }));
    assert_eq!(server.delete(&format!("/api/jobs/{}", second.id)).await, StatusCode::NO_CONTENT);
    assert!(matches!(events.next().await.unwrap().1, JobEvent::Queued { position: 1, .. }));
    assert_eq!(server.events(&second.id).await.last().unwrap().1, JobEvent::Cancelled);
}

#[tokio::test]
async fn who_waits_hears_how_long() {
    let server = Server::start();
    server.submit(&denoise(0)).await;
    server.until_in_step(1).await;
    let waiting = server.submit(&denoise(1)).await;
    let mut estimates = server.follow(&waiting.id, 0).await.map(|(_, event)| match event {
        JobEvent::Queued { position: 1, seconds } => seconds,
        other => panic!("{other:?}"),
    });
    assert_eq!(estimates.next().await.unwrap(), None, "nothing is known of this model's pace");
    server.steps(1);
    assert!(estimates.next().await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_whose_worker_is_gone_is_not_ready() {
    let models = Setup::default().models;
    let server = Server::of(models, |jobs| Worker::start::<Puppet>(jobs, 1, || panic!("as told")).unwrap());
    timeout(PATIENCE, server.worker.loss()).await.unwrap();
    assert_eq!(server.worker.lost(), Some(Lost::Thread));
    until(async || server.app.jobs.own().is_closed()).await;
    assert_eq!(server.get("/health/ready").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_cancelled_job_stops_within_a_step() {
    let server = Server::start();
    let job = server.submit(&denoise(0)).await;
    let path = format!("/api/jobs/{}", job.id);
    let mut events = server.follow(&job.id, 0).await;
    server.steps(1);
    while kind(&events.next().await.unwrap().1) != "step 1" {}
    // The worker waits inside the second step.
    assert_eq!(server.delete(&path).await, StatusCode::NO_CONTENT);
    server.steps(1);
    let rest: Vec<_> = events.map(|(_, event)| kind(&event)).collect().await;
    let rest: Vec<_> = rest.into_iter().filter(|&kind| kind != "preview").collect();
    assert!(rest == ["step 2", "cancelled"] || rest == ["cancelled"], "{rest:?}");
    let result = server.get(&format!("{path}/result")).await;
    assert_error(result, StatusCode::NOT_FOUND, ErrorCode::NotFound, "cancelled").await;
    // Once more does nothing.
    assert_eq!(server.delete(&path).await, StatusCode::NO_CONTENT);
    assert!(matches!(json_of::<JobStatus>(server.get(&path).await).await.last, JobEvent::Cancelled));
}

#[tokio::test]
async fn who_comes_late_hears_everything_once() {
    let server = Server::start();
    let job = server.submit(&denoise(0)).await;
    let early = server.follow(&job.id, 0).await;
    server.steps(STEPS);
    let early: Vec<_> = early.collect().await;
    let late = server.events(&job.id).await;
    let kinds: Vec<_> = late.iter().map(|(_, event)| kind(event)).collect();
    assert_eq!(kinds, ["queued", "step 1", "step 2", "preview", "step 3", "done"]);
    assert!(late.is_sorted_by(|(one, _), (next, _)| one < next));
    assert!(late.iter().all(|event| early.contains(event)));

    // A browser that lost its connection says what it heard last.
    let (step_2, _) = late[2];
    let rest: Vec<_> = server.follow(&job.id, step_2).await.collect().await;
    assert_eq!(rest, late[3..]);
    let (last, _) = late[late.len() - 1];
    let path = format!("/api/jobs/{}/events", job.id);
    let over = server.get_with(&path, &[("last-event-id", &last.to_string())]).await;
    assert_eq!(over.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_job_goes_on_without_its_client() {
    let server = Server::start();
    let job = server.submit(&denoise(0)).await;
    let mut events = server.follow(&job.id, 0).await;
    events.next().await;
    drop(events);
    server.steps(STEPS);
    assert!(matches!(server.events(&job.id).await.last(), Some((_, JobEvent::Done { .. }))));
}

#[tokio::test]
async fn after_a_panic_or_a_failure_the_next_job_works() {
    let server = Server::start();
    for (command, shown, released) in [
        (Command::Panic, "its log says where", 1),
        (Command::Fail, "cannot load this model", 1),
        // A client's own mistake must not cost the next one the time to load the model again.
        (Command::Nan, "the model's answer cannot be used", 1),
        (Command::OutOfMemory, "not enough memory", 2),
    ] {
        let job = server.submit(&denoise(0)).await;
        server.command(command);
        let events = server.events(&job.id).await;
        let Some((_, JobEvent::Failed { error })) = events.last() else { panic!("{events:?}") };
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.contains(shown), "{error}");
        let result = server.get(&format!("/api/jobs/{}/result", job.id)).await;
        assert_error(result, StatusCode::NOT_FOUND, ErrorCode::NotFound, "the job has no picture").await;
        assert_eq!(server.released(), released, "{shown}");

        let next = server.submit(&denoise(1)).await;
        server.steps(STEPS);
        assert!(matches!(server.events(&next.id).await.last(), Some((_, JobEvent::Done { .. }))));
    }
}

#[tokio::test]
async fn old_jobs_are_forgotten() {
    let server = Server::start();
    let mut ids = Vec::new();
    for seed in 0..KEPT as u64 + 1 {
        let job = server.submit(&denoise(seed)).await;
        server.steps(STEPS);
        server.events(&job.id).await;
        ids.push(job.id);
    }
    let status = async |id: &str| server.get(&format!("/api/jobs/{id}")).await.status();
    assert_eq!(status(&ids[0]).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&ids[1]).await, StatusCode::OK);
}

fn kind(event: &JobEvent) -> &'static str {
    match event {
        JobEvent::Queued { .. } => "queued",
        JobEvent::Encoding => "encoding",
        JobEvent::Step { step: 1, of: 3, .. } => "step 1",
        JobEvent::Step { step: 2, of: 3, .. } => "step 2",
        JobEvent::Step { step: 3, of: 3, .. } => "step 3",
        JobEvent::Step { .. } => "another step",
        JobEvent::Preview { .. } => "preview",
        JobEvent::Done { .. } => "done",
        JobEvent::Failed { .. } => "failed",
        JobEvent::Cancelled => "cancelled",
    }
}
