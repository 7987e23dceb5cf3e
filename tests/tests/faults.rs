//! The built server, when things go wrong around it.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::time::Duration;

use futures::StreamExt;
use kosmosg::picture::Picture;
use kosmosg::protocol::{Health, JobEvent, JobStatus};
use kosmosg_tests::client::{Client, job, step};
use kosmosg_tests::load;
use kosmosg_tests::server::Server;
use reqwest::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Steps that take this machine some seconds.
const MANY_STEPS: usize = 400;

fn store(folder: &tempfile::TempDir) -> String {
    folder.path().join("jobs.sqlite").to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--store", &store(&folder), "--together", "1"];
    let server = Server::with(&arguments).await;
    let client = Client::of(server.address(""));
    let running = client.submit(&job(1, MANY_STEPS)).await.unwrap().id;
    let waiting = client.submit(&job(2, 5)).await.unwrap().id;
    // States are written down once a second.
    let heard = client.follow_until(&running, |step, seconds| step > 50 && seconds > 2.5).await;

    let server = server.again(&arguments).await;
    let client = Client::of(server.address(""));
    let after: Vec<_> = client.follow(&running, heard).await.map(|(_, event)| event).collect().await;
    let first = after.iter().find_map(step);
    assert!(first.unwrap() > 10, "it began anew: {first:?}");
    assert!(matches!(after.last(), Some(JobEvent::Done { .. })), "{:?}", after.last());
    assert!(matches!(client.end(&waiting).await, Some(JobEvent::Done { .. })));

    // The interruption cannot be seen in the picture.
    let again = client.submit(&job(1, MANY_STEPS)).await.unwrap().id;
    client.end(&again).await;
    let same: (Picture, Picture) = (client.picture(&running).await, client.picture(&again).await);
    assert_eq!(same.0.rgb(), same.1.rgb());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--store", &store(&folder)];
    let server = Server::with_disk_of(400, &arguments).await;
    let client = Client::of(server.address(""));
    let mut taken = Vec::new();
    let refused = loop {
        assert!(taken.len() < 1000, "the disk never gets full");
        match client.submit(&job(taken.len() as u64, 2)).await {
            Ok(created) => {
                assert!(matches!(client.end(&created.id).await, Some(JobEvent::Done { .. })));
                taken.push(created.id);
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.1.message.contains("its disk may be full"), "{}", refused.1);
    assert!(taken.len() > 2);
    // All that were taken can be fetched, and the server lives.
    for id in &taken {
        client.picture(id).await;
    }
    assert_eq!(client.get("/health").await.json::<Health>().await.unwrap().queued, 0);

    // With room again, the next server has them too, or makes them again.
    let server = server.again(&arguments).await;
    let client = Client::of(server.address(""));
    for id in &taken {
        assert!(matches!(client.end(id).await, Some(JobEvent::Done { .. })));
        client.picture(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_or_do_not_read_stop_nobody() {
    let server = Server::with(&["--store", "memory"]).await;
    let client = Client::of(server.address(""));
    let id = client.submit(&job(1, MANY_STEPS)).await.unwrap().id;
    // One asks for the events and never reads them; one leaves in the middle; one stops in the middle of its request.
    let mut idle = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    idle.write_all(format!("GET /api/jobs/{id}/events HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    drop(client.follow(&id, 0).await);
    let mut half = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let head =
        "POST /api/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{";
    half.write_all(head.as_bytes()).await.unwrap();

    let other = client.submit(&job(2, 5)).await.unwrap().id;
    assert!(matches!(client.end(&other).await, Some(JobEvent::Done { .. })));
    assert!(matches!(client.end(&id).await, Some(JobEvent::Done { .. })));
    drop((idle, half));
    let status: JobStatus = client.get(&format!("/api/jobs/{id}")).await.json().await.unwrap();
    assert!(matches!(status.last, JobEvent::Done { .. }));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.get("/health").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // All come from one address.
    let server = Server::with(&["--store", &store(&folder), "--rate", "1000000"]).await;
    let report = load::run(&server, 40, Duration::from_secs(10), &[]).await;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!((report.lost, report.doubled), (0, 0));
    assert_eq!(report.taken, report.done + report.cancelled);
    assert!(report.done > 40, "{report:?}");
    assert!(report.by_client.iter().all(|&done| done > 0), "{:?}", report.by_client);
}
