//! Servers that share their jobs through a Redis. What their programs do together is tested beside the other programs.

use std::num::NonZeroU32;
use std::process::{Child, Command as Program, Stdio};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::StreamExt;
use kosmosg::protocol::{ErrorCode, JobEvent, JobStatus};
use kosmosg_server::access::{Access, Role, Tokens};
use kosmosg_server::admission::check;
use kosmosg_server::jobs::{Hold, Limits, Owner, Refusal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::{streamed, waits};
use crate::support::{BUNDLE, STEPS, Server, Setup, assert_error, bytes_of, denoise, json_of, until};

/// A `redis-server` of the test's own; it ends with it.
struct Redis {
    process: Child,
    folder: TempDir,
}

impl Redis {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut program = Program::new("redis-server");
        program.args(["--port", "0", "--save", "", "--unixsocket"]).arg(folder.path().join("socket"));
        let process = program.stdout(Stdio::null()).spawn();
        let process = process.expect("these tests need redis-server: apt-get install redis-server");
        until(async || folder.path().join("socket").exists()).await;
        Self { process, folder }
    }

    fn address(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("socket").display())
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// A server that takes requests.
    async fn front(&self) -> Server {
        Server::sharing(Setup::default(), &self.address(), false).await
    }

    /// A server that does jobs.
    async fn worker(&self) -> Server {
        Server::sharing(Setup::default(), &self.address(), true).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[tokio::test]
async fn pictures_on_the_way_come_from_other_servers() {
    let redis = Redis::start().await;
    let (front, worker) = (redis.front().await, redis.worker().await);
    worker.steps(STEPS);
    let response = front.post_to("/v1/images/generations", streamed().to_string()).await;
    let text = String::from_utf8(bytes_of(response).await.to_vec()).unwrap();
    assert!(text.contains("event: image_generation.partial_image"), "{text}");
    assert!(text.contains("event: image_generation.completed"), "{text}");
}

#[tokio::test]
async fn a_job_that_ends_its_workers_is_not_begun_for_ever() {
    let redis = Redis::start().await;
    let front = redis.front().await;
    let [fatal, other] = [front.submit(&denoise(0)).await.id, front.submit(&denoise(1)).await.id];
    let client = redis::Client::open(redis.address()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let begun = |id: &str| redis::Cmd::hget(format!("kosmosg:job:{id}"), "begun");
    let set = redis::Cmd::hset(format!("kosmosg:job:{fatal}"), "begun", 3);
    let _: () = set.query_async(&mut connection).await.unwrap();
    let worker = redis.worker().await;
    let last = front.events(&fatal).await.pop();
    let Some((_, JobEvent::Failed { error })) = last else { panic!("{last:?}") };
    assert!(error.message.contains("ended 3 times while it did this job"), "{error}");
    worker.until_in_step(1).await;
    assert_eq!(begun(&other).query_async::<u32>(&mut connection).await.unwrap(), 1);
    worker.steps(1);
    worker.until_in_step(2).await;
    until(async || begun(&other).query_async::<u32>(&mut connection.clone()).await.unwrap() == 0).await;
}

#[tokio::test]
async fn without_redis_nothing_is_said_to_be_cancelled() {
    let mut redis = Redis::start().await;
    let front = redis.front().await;
    let id = front.submit(&denoise(0)).await.id;
    let mut events = front.follow(&id, 0).await;
    events.next().await.unwrap();
    redis.stop();
    let path = format!("/api/jobs/{id}");
    let request = Request::delete(&path).body(Body::empty()).unwrap();
    let refused = front.send(request).await;
    assert_error(refused, StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Internal, "does not reach the Redis").await;
    let health = front.get("/health").await;
    assert_error(health, StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Internal, "does not reach the Redis").await;
}

#[tokio::test]
async fn what_a_client_waits_for_ends_with_its_server() {
    let redis = Redis::start().await;
    let (front, other) = (redis.front().await, redis.front().await);
    let client = waits(&front, "/sdapi/v1/txt2img", &json!({ "prompt": "a", "steps": STEPS, "n_iter": 2 }));
    let jobs = async || other.app.jobs.of(&Owner::here()).await.unwrap();
    until(async || jobs().await.len() == 2).await;
    let jobs = jobs().await;
    front.app.jobs.close();
    assert_eq!(client.await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    front.app.jobs.settle().await.unwrap();
    for job in jobs {
        assert_eq!(other.events(&job.id().to_string()).await.pop().unwrap().1, JobEvent::Cancelled);
    }
}

#[tokio::test]
async fn what_runs_elsewhere_ends_with_its_owners_token() {
    let redis = Redis::start().await;
    let (front, worker) = (redis.front().await, redis.worker().await);
    let access = Access::with_tokens(Tokens::open(None).unwrap(), NonZeroU32::MAX);
    access.tokens().add("one", Role::Use).unwrap();
    let owner = Owner::with_token(access.tokens().list()[0].id());
    let work = check(denoise(0), &front.app.bundles).unwrap();
    let (job, _) = front.app.jobs.submit(owner, work, Hold::Name).await.unwrap();
    worker.until_in_step(1).await;
    access.tokens().remove("one").unwrap();
    access.dismiss_removed(&front.app.jobs).await;
    assert_eq!(front.events(&job.id().to_string()).await.pop().unwrap().1, JobEvent::Cancelled);
}

#[tokio::test]
async fn a_chosen_model_is_chosen_everywhere() {
    let redis = Redis::start().await;
    let with_two = async || {
        let setup = Setup::default();
        let (one, other) = (setup.models.path().join(BUNDLE), setup.models.path().join("zebra"));
        std::fs::create_dir(&other).unwrap();
        for file in one.read_dir().unwrap().map(|file| file.unwrap()) {
            std::fs::copy(file.path(), other.join(file.file_name())).unwrap();
        }
        Server::sharing(setup, &redis.address(), false).await
    };
    let (front, other) = (with_two().await, with_two().await);
    let chosen = async || json_of::<Value>(other.get("/sdapi/v1/options").await).await["sd_model_checkpoint"].clone();
    assert!(chosen().await.as_str().unwrap().starts_with("small ["));
    let choice = json!({ "sd_model_checkpoint": "zebra" }).to_string();
    assert_eq!(front.post_to("/sdapi/v1/options", choice).await.status(), StatusCode::OK);
    assert!(chosen().await.as_str().unwrap().starts_with("zebra ["));
}

#[tokio::test]
async fn one_owner_does_not_fill_the_line() {
    let redis = Redis::start().await;
    let limits = Limits { waiting_of_one: 1, ..Setup::default().limits };
    let front = Server::sharing(Setup { limits, ..Setup::default() }, &redis.address(), false).await;
    front.submit(&denoise(0)).await;
    let refused = front.post(serde_json::to_vec(&denoise(1)).unwrap()).await;
    assert_error(refused, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, "1 of your own jobs are waiting").await;
    // Nor do several at once, which all have found a place.
    let submit = async |owner| {
        let work = check(denoise(1), &front.app.bundles).unwrap();
        front.app.jobs.submit(owner, work, Hold::Name).await
    };
    assert!(matches!(submit(Owner::here()).await, Err(Refusal::Enough { .. })));
    let (job, _) = submit(Owner::with_token("other")).await.unwrap();
    let status: JobStatus = json_of(front.get(&format!("/api/jobs/{}", job.id())).await).await;
    assert!(matches!(status.last, JobEvent::Queued { position: 1, .. }), "{status:?}");
}
