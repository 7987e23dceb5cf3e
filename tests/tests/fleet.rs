//! Several built servers that share their jobs through Redis.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kosmosg::protocol::{JobEvent, JobStatus};
use kosmosg_tests::client::{Client, job, step};
use kosmosg_tests::models::built_in;
use kosmosg_tests::redis::Redis;
use kosmosg_tests::server::Server;
use reqwest::StatusCode;

/// Steps that take this machine some seconds.
const MANY_STEPS: usize = 400;
/// Takes requests and computes nothing.
const FRONT: [&str; 2] = ["--work", "elsewhere"];

async fn cancelled(client: &Client, id: &str) -> bool {
    matches!(client.end(id).await, Some(JobEvent::Cancelled))
}

async fn done(client: &Client, id: &str) -> bool {
    matches!(client.end(id).await, Some(JobEvent::Done { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_takes_a_job_and_tells_of_it() {
    let redis = Redis::start().await;
    let shared = ["--redis", &redis.address()];
    let one = Server::with(&[&shared[..], &FRONT].concat()).await;
    let other = one.beside(&built_in(), &[&shared[..], &FRONT].concat()).await;
    let (here, there) = (Client::of(one.address("")), Client::of(other.address("")));

    // Nobody works yet.
    let first = here.submit(&job(1, 20)).await.unwrap();
    let second = there.submit(&job(2, 20)).await.unwrap();
    assert_eq!((first.position, second.position), (0, 1));
    let unwanted = here.submit(&job(3, 20)).await.unwrap().id;
    there.cancel(&unwanted).await;
    assert!(cancelled(&here, &unwanted).await);
    let keyed = |client: Client| async move {
        client.submit_with(&job(4, 20), |request| request.header("idempotency-key", "four")).await.unwrap().id
    };
    assert_eq!(keyed(here.clone()).await, keyed(there.clone()).await);
    let another = there.submit_with(&job(5, 20), |request| request.header("idempotency-key", "four")).await;
    assert_eq!(another.unwrap_err().0, StatusCode::UNPROCESSABLE_ENTITY);

    let worker = one.beside(&built_in(), &shared).await;
    for id in [&first.id, &second.id] {
        assert!(done(&here, id).await && done(&there, id).await);
        assert_eq!(here.picture(id).await.rgb(), there.picture(id).await.rgb());
    }
    // Through a server that works as through one that does not, and no other than from a server alone.
    let (client, alone) = (Client::of(worker.address("")), one.beside(&built_in(), &[]).await);
    let alone = Client::of(alone.address(""));
    let id = alone.submit(&job(1, 20)).await.unwrap().id;
    assert!(done(&alone, &id).await);
    assert_eq!(client.picture(&first.id).await.rgb(), alone.picture(&id).await.rgb());

    let long = here.submit(&job(6, MANY_STEPS)).await.unwrap().id;
    there.follow_until(&long, |step, _| step > 5).await;
    let state = there.get(&format!("/api/jobs/{long}/state")).await;
    assert_eq!(state.status(), StatusCode::OK);
    there.cancel(&long).await;
    assert!(cancelled(&here, &long).await);
    let status: JobStatus = client.get(&format!("/api/jobs/{long}")).await.json().await.unwrap();
    assert_eq!(status.last, JobEvent::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_with_another_worker() {
    let redis = Redis::start().await;
    let shared = ["--redis", &redis.address()];
    let front = Server::with(&[&shared[..], &FRONT].concat()).await;
    let client = Client::of(front.address(""));
    let first = front.beside(&built_in(), &shared).await;
    let id = client.submit(&job(1, MANY_STEPS)).await.unwrap().id;
    // States are told once a second.
    let is_far = |step, seconds| step > 50 && seconds > 1.2;
    client.follow_until(&id, is_far).await;

    // One that ends in order gives its job back at once.
    first.end();
    let mut second = front.beside(&built_in(), &shared).await;
    let begin = Instant::now();
    let heard = client.follow_until(&id, is_far).await;
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());

    // One that is killed is missed after some seconds.
    let _third = front.beside(&built_in(), &shared).await;
    second.stop();
    let after: Vec<_> = client.follow(&id, heard).await.map(|(_, event)| event).collect().await;
    assert!(after.iter().filter_map(step).all(|step| step > 10), "it began anew");
    assert!(matches!(after.last(), Some(JobEvent::Done { .. })), "{:?}", after.last());

    // Neither can be seen in the picture.
    let again = client.submit(&job(1, MANY_STEPS)).await.unwrap().id;
    assert!(done(&client, &again).await);
    assert_eq!(client.picture(&id).await.rgb(), client.picture(&again).await.rgb());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_away_for_a_while() {
    let mut redis = Redis::start().await;
    let shared = ["--redis", &redis.address()];
    let server = Server::with(&shared).await;
    let client = Client::of(server.address(""));
    let running = client.submit(&job(1, MANY_STEPS)).await.unwrap().id;
    client.follow_until(&running, |step, _| step > 5).await;

    redis.stop();
    let refused = client.submit(&job(2, 5)).await.unwrap_err();
    assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.get("/health/ready").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.get("/health/live").await.status(), StatusCode::NO_CONTENT);
    tokio::time::sleep(Duration::from_secs(2)).await;

    redis.again().await;
    let begin = Instant::now();
    while client.get("/health/ready").await.status() != StatusCode::NO_CONTENT {
        assert!(begin.elapsed() < Duration::from_secs(5), "it does not find Redis again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(done(&client, &running).await);
    let id = client.submit(&job(2, 5)).await.unwrap().id;
    assert!(done(&client, &id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_of_one_owner_do_not_keep_another_waiting() {
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.json");
    let [busy, other] = ["busy", "other"].map(|name| token(&tokens, name));
    let known = ["--access", "token", "--tokens", tokens.to_str().unwrap(), "--rate", "10000"];
    let shared = ["--redis", &redis.address()];
    let front = Server::with(&[&shared[..], &FRONT, &known].concat()).await;
    let (busy, other) = (Client::with_token(front.address(""), &busy), Client::with_token(front.address(""), &other));
    let mut many = Vec::new();
    for seed in 0..8 {
        many.push(busy.submit(&job(seed, 40)).await.unwrap().id);
    }
    let one = other.submit(&job(9, 40)).await.unwrap().id;
    assert_eq!(other.get(&format!("/api/jobs/{}", many[0])).await.status(), StatusCode::NOT_FOUND);

    let _worker = front.beside(&built_in(), &[&shared[..], &["--together", "1"]].concat()).await;
    assert!(done(&other, &one).await);
    let status: JobStatus = busy.get(&format!("/api/jobs/{}", many[3])).await.json().await.unwrap();
    assert!(!status.last.is_last(), "{:?}", status.last);
    // By now the line has moved, and it is known how fast.
    let mut events = busy.follow(&many[7], 0).await;
    loop {
        match events.next().await {
            Some((_, JobEvent::Queued { seconds: Some(seconds), .. })) => {
                break assert!((0.1..60.0).contains(&seconds));
            }
            Some((_, event)) => assert!(!event.is_last(), "{event:?}"),
            None => panic!("the stream ended before the job did"),
        }
    }
    for id in &many {
        assert!(done(&busy, id).await);
    }
}

fn token(file: &Path, name: &str) -> String {
    let output = Server::command().args(["token", "add", name, "--tokens"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
