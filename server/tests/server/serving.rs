//! Over a real socket: connections, and the end of the server.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use axum::serve::Listener;
use futures::StreamExt;
use kosmosg::protocol::{ErrorCode, JobEvent};
use kosmosg_server::serving::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::{PATIENCE, Server, assert_error, denoise, until};

const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn the_end_of_the_server_is_heard_by_all() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, server.app.clone(), async { stopped.await.unwrap() }));

    let running = server.submit(&denoise(0)).await;
    let mut events = server.follow(&running.id, 0).await;
    server.steps(1);
    while !matches!(events.next().await.unwrap().1, JobEvent::Step { .. }) {}
    let waiting = server.submit(&denoise(1)).await;

    // A client that follows the job which waits, over the network.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/jobs/{}/events HTTP/1.1\r\nhost: localhost\r\n\r\n", waiting.id);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = vec![0; 1024];
    let length = stream.read(&mut text).await.unwrap();
    assert!(text[..length].starts_with(b"HTTP/1.1 200 OK"));

    stop.send(()).unwrap();
    let mut rest = String::new();
    timeout(SOON, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.contains("the server is stopping"), "{rest}");
    // The worker is inside a step, and ends after it.
    server.steps(1);
    let last = events.map(|(_, event)| event).collect::<Vec<_>>().await.pop().unwrap();
    assert!(matches!(last, JobEvent::Failed { error } if error.code == ErrorCode::Busy));
    timeout(SOON, serving).await.unwrap().unwrap();
    assert!(server.worker.ends_within(SOON));
    assert!(TcpStream::connect(address).await.is_err());

    let response = server.post(serde_json::to_vec(&denoise(2)).unwrap()).await;
    assert_error(response, StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Busy, "stopping").await;
}

#[tokio::test]
async fn who_asks_for_nothing_is_let_go() {
    let server = Server::with(|app| app.bounds.arrival_time = Duration::from_millis(100));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, server.app.clone(), std::future::pending()));
    for beginning in
        ["", "GET / HTTP/1.1\r\nhost: localhost\r\n", "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect(beginning).unwrap();
        assert_eq!(answer.contains("204 No Content"), beginning.contains("live"), "{answer}");
    }
}

#[tokio::test]
async fn who_does_not_read_is_let_go() {
    let server = Server::with(|app| {
        app.bounds.reading_time = Duration::from_millis(100);
        app.bounds.connections = 1;
    });
    // Far more than what a system keeps for a connection.
    let file = server.models.path().join("small/unet.gguf");
    std::fs::File::options().write(true).open(file).unwrap().set_len(256 << 20).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, server.app.clone(), std::future::pending()));
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /models/small/unet.gguf HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 8]).await.unwrap();
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(timeout(PATIENCE, next.read(&mut [0; 512])).await.unwrap().unwrap() > 0, "there is a place for it");
    drop(idle);
}

/// Connections that seem to come from another computer.
struct FromElsewhere(TcpListener);

impl Listener for FromElsewhere {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, _) = Listener::accept(&mut self.0).await;
        (stream, SocketAddr::from(([192, 0, 2, 7], 1)))
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn one_address_does_not_have_all_connections() {
    let server = Server::with(|app| app.bounds.connections_of_one = 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(FromElsewhere(listener), server.app.clone(), std::future::pending()));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.ok();
        let answered = timeout(PATIENCE, stream.read(&mut [0; 512])).await.unwrap().is_ok_and(|bytes| bytes > 0);
        answered.then_some(stream)
    };
    let first = ask().await.unwrap();
    assert!(ask().await.is_none(), "it is closed");
    drop(first);
    until(async || ask().await.is_some()).await;
}

#[tokio::test]
async fn one_connection_too_many_waits_for_another_to_end() {
    let server = Server::with(|app| app.bounds.connections = 2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, server.app.clone(), std::future::pending()));
    let ask = async |time: Duration, stream: &mut TcpStream| {
        stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        timeout(time, stream.read(&mut [0; 512])).await
    };
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    for stream in [&mut first, &mut second] {
        assert!(ask(PATIENCE, stream).await.unwrap().unwrap() > 0);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(ask(Duration::from_millis(300), &mut third).await.is_err(), "it waits");
    drop(first);
    assert!(timeout(PATIENCE, third.read(&mut [0; 512])).await.unwrap().unwrap() > 0);
}
