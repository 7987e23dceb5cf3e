//! Servers that share their jobs through a Redis. What their programs do together is tested beside the other programs.

use std::num::NonZeroU32;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::StreamExt;
use kosmosg::protocol::{ErrorCode, JobEvent, JobRequest, JobStatus};
use kosmosg_server::access::{Access, Role, Tokens};
use kosmosg_server::admission::check;
use kosmosg_server::desk::Desk;
use kosmosg_server::fleet::Hand;
use kosmosg_server::jobs::{Hold, Limits, Owner, Refusal};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

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

    async fn connection(&self) -> MultiplexedConnection {
        redis::Client::open(self.address()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// Asks it for something.
    async fn ask<T: redis::FromRedisValue>(&self, words: &str) -> T {
        let mut command = redis::Cmd::new();
        command.arg(words.split(' ').collect::<Vec<_>>());
        command.query_async(&mut self.connection().await).await.unwrap()
    }

    /// Lets time go by for the jobs. A server has tidied up before.
    async fn pass(&self, time: Duration) {
        let _: u64 = self.ask(&format!("HINCRBY kosmosg:clock ran {}", time.as_millis())).await;
    }

    /// Its clock jumps by some hours, compared to what servers have seen of it.
    async fn jump(&self, hours: i64) {
        let _: u64 = self.ask(&format!("HINCRBY kosmosg:clock time {}", -hours * 3_600_000)).await;
    }

    /// A server with room for that many jobs, which takes requests.
    async fn roomy(&self, waiting: usize) -> Server {
        let limits = Limits { waiting, ..Setup::default().limits };
        Server::sharing(Setup { limits, ..Setup::default() }, &self.address(), false).await
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

/// Lets a server do up to `seats` jobs of its fleet at once.
fn work(server: &Server, seats: usize) -> JoinHandle<()> {
    let Desk::Fleet(fleet) = &server.app.jobs else { panic!("it shares no jobs") };
    tokio::spawn(Hand::new(Arc::clone(fleet), Arc::clone(&server.app.bundles), seats).work())
}

/// From one tidying up to the next.
const TIDY_EVERY: Duration = Duration::from_secs(5);

async fn tidy(server: &Server) {
    server.app.jobs.tidy(TIDY_EVERY).await;
}

/// How many jobs wait, and how many run.
async fn counts(server: &Server) -> (usize, usize) {
    server.app.jobs.counts().await.unwrap()
}

async fn cancel(server: &Server, id: &str) {
    assert_eq!(server.delete(&format!("/api/jobs/{id}")).await, StatusCode::NO_CONTENT);
}

async fn last(server: &Server, id: &str) -> JobEvent {
    server.events(id).await.pop().unwrap().1
}

fn is_late(event: &JobEvent) -> bool {
    matches!(event, JobEvent::Failed { error } if error.code == ErrorCode::TimedOut)
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

#[tokio::test]
async fn what_a_lost_worker_had_ends_without_another() {
    let redis = Redis::start().await;
    let (front, worker) = (redis.front().await, redis.front().await);
    tidy(&front).await;
    let [unwanted, late] = [front.submit(&denoise(0)).await.id, front.submit(&denoise(1)).await.id];
    let hand = work(&worker, 2);
    until(async || counts(&front).await == (0, 2)).await;
    hand.abort();
    cancel(&front, &unwanted).await;
    tidy(&front).await;
    assert_eq!(counts(&front).await, (0, 2));
    redis.pass(Duration::from_secs(11)).await;
    tidy(&front).await;
    assert_eq!(last(&front, &unwanted).await, JobEvent::Cancelled);
    assert_eq!(counts(&front).await, (1, 0));
    redis.pass(Setup::default().limits.deadline).await;
    tidy(&front).await;
    assert!(is_late(&last(&front, &late).await));
    assert_eq!(counts(&front).await, (0, 0));
}

#[tokio::test]
async fn what_a_lost_worker_had_is_in_line_again() {
    let redis = Redis::start().await;
    let (front, worker) = (redis.front().await, redis.front().await);
    tidy(&front).await;
    front.submit(&denoise(0)).await;
    let hand = work(&worker, 1);
    worker.until_in_step(1).await;
    hand.abort();
    redis.pass(Duration::from_secs(11)).await;
    tidy(&front).await;
    redis.worker().await.until_in_step(1).await;
    assert_eq!(counts(&front).await, (0, 1));
}

#[tokio::test]
async fn what_a_worker_gives_back_waits() {
    let redis = Redis::start().await;
    let (front, worker) = (redis.front().await, redis.worker().await);
    let id = front.submit(&denoise(0)).await.id;
    worker.until_in_step(1).await;
    worker.app.jobs.close();
    until(async || counts(&front).await == (1, 0)).await;
    cancel(&front, &id).await;
    assert_eq!(last(&front, &id).await, JobEvent::Cancelled);
}

#[tokio::test]
async fn a_job_whose_model_no_worker_has_waits() {
    let redis = Redis::start().await;
    let setup = Setup::default();
    std::fs::rename(setup.models.path().join(BUNDLE), setup.models.path().join("zebra")).unwrap();
    let (front, worker) = (redis.front().await, redis.worker().await);
    let other = Server::sharing(setup, &redis.address(), false).await;
    let JobRequest::Denoise { unet, condition, state, loras, .. } = denoise(0) else { unreachable!() };
    let unknown = JobRequest::Denoise { bundle: "zebra".into(), unet, condition, state, loras };
    let id = other.submit(&unknown).await.id;
    front.submit(&denoise(1)).await;
    worker.until_in_step(1).await;
    assert_eq!(counts(&front).await, (1, 1));
    cancel(&front, &id).await;
    assert_eq!(last(&front, &id).await, JobEvent::Cancelled);
}

#[tokio::test]
async fn deadlines_count_the_time_in_which_servers_run() {
    let redis = Redis::start().await;
    let deadline = Duration::from_millis(300);
    let limits = Limits { deadline, ..Setup::default().limits };
    let front = Server::sharing(Setup { limits, ..Setup::default() }, &redis.address(), false).await;
    front.app.jobs.tidy(Duration::from_millis(10)).await;
    let id = front.submit(&denoise(0)).await.id;
    // For that long nobody tidies up.
    tokio::time::sleep(deadline * 3 / 2).await;
    tidy(&front).await;
    assert_eq!(counts(&front).await, (1, 0));
    tokio::time::sleep(deadline * 3 / 2).await;
    tidy(&front).await;
    assert!(is_late(&last(&front, &id).await));
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_job_and_loses_no_worker() {
    let redis = Redis::start().await;
    let (front, worker) = (redis.front().await, redis.worker().await);
    tidy(&front).await;
    let [running, waiting] = [front.submit(&denoise(0)).await.id, front.submit(&denoise(1)).await.id];
    worker.until_in_step(1).await;
    for hours in [100, -100] {
        redis.jump(hours).await;
        tidy(&front).await;
        assert_eq!(counts(&front).await, (1, 1), "{hours}");
    }
    worker.steps(2 * STEPS);
    for id in [running, waiting] {
        assert!(matches!(last(&front, &id).await, JobEvent::Done { .. }));
    }
}

#[tokio::test]
async fn a_job_that_is_in_line_twice_has_one_worker() {
    let redis = Redis::start().await;
    let front = redis.front().await;
    tidy(&front).await;
    let id = front.submit(&denoise(0)).await.id;
    let _: u64 = redis.ask(&format!("HDEL kosmosg:job:{id} sent")).await;
    redis.pass(Duration::from_secs(6)).await;
    tidy(&front).await;
    let one = redis.worker().await;
    one.until_in_step(1).await;
    front.submit(&denoise(1)).await;
    let other = redis.worker().await;
    other.until_in_step(1).await;
    assert_eq!(*other.ran.lock().unwrap(), [1]);
    assert_eq!(redis.ask::<u64>(&format!("HGET kosmosg:job:{id} claim")).await, 1);
}

#[tokio::test]
async fn several_workers_share_what_waits() {
    let redis = Redis::start().await;
    let front = redis.roomy(4).await;
    for seed in 0..4 {
        front.submit(&denoise(seed)).await;
    }
    let workers = [redis.front().await, redis.front().await];
    let _hands = workers.each_ref().map(|worker| work(worker, 4));
    until(async || counts(&front).await == (0, 4)).await;
    for worker in &workers {
        let (waiting, running) = worker.app.jobs.own().counts();
        assert!(waiting + running >= 1, "another worker has all");
    }
}

#[tokio::test]
async fn cancelling_takes_no_longer_where_much_is_done() {
    const MANY: usize = 16;
    let redis = Redis::start().await;
    let (front, worker) = (redis.roomy(MANY).await, redis.front().await);
    let mut ids = Vec::new();
    for seed in 0..MANY {
        ids.push(front.submit(&denoise(seed as u64)).await.id);
    }
    work(&worker, MANY);
    until(async || counts(&front).await == (0, MANY)).await;
    let begin = Instant::now();
    for id in &ids[..3] {
        cancel(&front, id).await;
        assert_eq!(last(&front, id).await, JobEvent::Cancelled);
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn each_server_has_its_own_numbers() {
    let redis = Redis::start().await;
    let (front, worker) = (redis.front().await, redis.front().await);
    let number = async |server: &Server, name: &str| {
        let text = String::from_utf8(bytes_of(server.get("/metrics").await).await.to_vec()).unwrap();
        let number = text.lines().find_map(|line| line.strip_prefix(&format!("kosmosg_{name} ")).map(str::to_owned));
        number.map_or(0.0, |number| number.parse::<f64>().unwrap())
    };
    let ended =
        async |server: &Server, outcome: &str| number(server, &format!("jobs_total{{outcome=\"{outcome}\"}}")).await;
    tidy(&front).await;

    // What ends in line is counted by who ends it.
    cancel(&front, &front.submit(&denoise(0)).await.id).await;
    assert_eq!(ended(&front, "cancelled").await, 1.0);
    front.submit(&denoise(0)).await;
    redis.pass(Setup::default().limits.deadline).await;
    tidy(&front).await;
    assert_eq!(ended(&front, "failed").await, 1.0);

    // What ends with a worker is counted by that.
    front.submit(&denoise(1)).await;
    let waits = Duration::from_millis(200);
    tokio::time::sleep(waits).await;
    work(&worker, 1);
    worker.until_in_step(1).await;
    assert!(number(&worker, "wait_seconds_sum").await >= 0.9 * waits.as_secs_f64());
    assert_eq!((number(&front, "jobs_running").await, number(&worker, "jobs_running").await), (0.0, 1.0));
    worker.steps(STEPS);
    until(async || ended(&worker, "done").await == 1.0).await;

    // What was lost to another worker has not ended.
    let id = front.submit(&denoise(2)).await.id;
    worker.until_in_step(STEPS + 1).await;
    let _: u64 = redis.ask(&format!("HINCRBY kosmosg:job:{id} claim 1")).await;
    worker.steps(1);
    let own = worker.app.jobs.own();
    until(async || own.find(id.parse().unwrap()).await.unwrap().unwrap().has_ended()).await;
    assert_eq!(ended(&worker, "cancelled").await, 0.0);
    for (server, outcome) in [(&front, "done"), (&worker, "failed")] {
        assert_eq!(ended(server, outcome).await, 0.0, "{outcome}");
    }
}

#[tokio::test]
async fn a_job_that_was_refused_is_not_done() {
    let redis = Redis::start().await;
    let front = redis.front().await;
    // It takes the job, and then does not tell of it.
    let _: () = redis.ask("ACL SETUSER default -xread").await;
    let refused = front.post(serde_json::to_vec(&denoise(0)).unwrap()).await;
    assert_error(refused, StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Internal, "does not reach the Redis").await;
    until(async || counts(&front).await == (0, 0)).await;
    // With a key, it is found again.
    assert_eq!(front.post_as("key", &denoise(0)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let _: () = redis.ask("ACL SETUSER default +xread").await;
    assert_eq!(front.post_as("key", &denoise(0)).await.status(), StatusCode::ACCEPTED);
    assert_eq!(counts(&front).await, (1, 0));
}
