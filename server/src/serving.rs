//! The server on the network: connections, from the first to the last.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::app::{App, router};

/// Connections at once: with their files, fewer than what systems let a program have, which mostly is 1024. Others wait.
const CONNECTIONS: usize = 512;
/// How long open connections may take to end when the server stops.
pub const GRACE: Duration = Duration::from_secs(5);

/// Serves until `shutdown`; then the queue closes, the streams of those who follow a job end, and connections have [`GRACE`]
/// to do so.
pub async fn serve<L: Listener<Addr = SocketAddr>>(
    mut listener: L,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (jobs, head_time) = (app.jobs.clone(), app.arrival_time);
    let router = router(app);
    let (stop, stopping) = watch::channel(());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (place, (stream, address)) = next => {
                let talk = converse(stream, address, router.clone(), head_time, stopping.clone());
                tokio::spawn(async move {
                    let _place = place;
                    talk.await;
                });
            }
        }
    }
    drop((listener, stopping));
    jobs.close();
    stop.send_replace(());
    if timeout(GRACE, stop.closed()).await.is_err() {
        tracing::warn!("connections are still open; leaving them");
    }
}

/// Answers the requests of a connection, until its end or the server's. One on which no request comes for `head_time` is
/// closed.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    router: Router,
    head_time: Duration,
    mut stopping: watch::Receiver<()>,
) {
    let service = router.map_request(move |request: Request<_>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(address));
        request
    });
    // What has to guess the version waits for the first byte without an end.
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(head_time);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    let result = tokio::select! {
        result = &mut connection => result,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection: {error}");
    }
}
