//! The server on the network: connections, from the first to the last. Nobody keeps a place by doing nothing, neither by
//! not asking nor by not reading; and no other computer has most of the places.

use std::future::Future;
use std::io::ErrorKind;
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
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::app::{App, Bounds, router};
use crate::shares::Shares;
use patience::Patient;

mod patience;

/// How long open connections may take to end when the server stops.
pub const GRACE: Duration = Duration::from_secs(5);

/// Listens on an address.
///
/// # Errors
/// Why not, and what to do.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = advice(address, error.kind());
        anyhow::Error::new(error).context(format!("cannot listen on {address}{advice}"))
    })
}

/// What to do about an address that cannot be listened on.
fn advice(address: SocketAddr, kind: ErrorKind) -> String {
    let (ip, port) = (address.ip(), address.port());
    match kind {
        ErrorKind::AddrInUse => {
            let next = port.checked_add(1).unwrap_or(8080);
            let next = SocketAddr::new(ip, next);
            format!(": is another server running there? Choose another port with --listen {next}")
        }
        ErrorKind::AddrNotAvailable => {
            let all = if ip.is_ipv4() { "0.0.0.0" } else { "[::]" };
            format!(": this computer has no such address; --listen {all}:{port} takes all that it has")
        }
        ErrorKind::PermissionDenied => {
            let usual = SocketAddr::new(ip, 8080);
            format!(": the system does not let you have this port; choose one from 1024 on, such as --listen {usual}")
        }
        _ => String::new(),
    }
}

/// Serves until `shutdown`; then the queue closes, the streams of those who follow a job end, and connections have [`GRACE`]
/// to do so.
pub async fn serve<L: Listener<Addr = SocketAddr>>(
    mut listener: L,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (jobs, bounds) = (app.jobs.clone(), app.bounds);
    let router = router(app);
    let (stop, stopping) = watch::channel(());
    let places = Arc::new(Semaphore::new(bounds.connections));
    let shares = Shares::new(bounds.connections_of_one);
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (place, (stream, address)) = next => {
                // A proxy here speaks for many.
                let ip = address.ip().to_canonical();
                let share = (!ip.is_loopback()).then(|| shares.of(ip).try_acquire_owned()).transpose();
                let Ok(share) = share else {
                    tracing::debug!("{ip} has as many connections as one address may");
                    continue;
                };
                let talk = converse(stream, address, router.clone(), bounds, stopping.clone());
                tokio::spawn(async move {
                    let _places = (place, share);
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

/// Answers the requests of a connection, until its end or the server's. One on which no request comes for too long, or no
/// answer is read, is closed.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    router: Router,
    bounds: Bounds,
    mut stopping: watch::Receiver<()>,
) {
    let service = router.map_request(move |request: Request<_>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(address));
        request
    });
    let http = http(bounds.arrival_time);
    let stream = TokioIo::new(Patient::new(stream, bounds.reading_time));
    let mut connection = pin!(http.serve_connection(stream, TowerToHyperService::new(service)));
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

/// What speaks HTTP/1.1 on a connection, and waits so long for the head of a request.
pub(crate) fn http(head_time: Duration) -> Builder<TokioExecutor> {
    // What has to guess the version waits for the first byte without an end.
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(head_time);
    http
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_follows_from_the_reason() {
        for (address, kind, expected) in [
            ("[::1]:8080", ErrorKind::AddrInUse, "Choose another port with --listen [::1]:8081"),
            ("192.0.2.1:80", ErrorKind::AddrNotAvailable, "no such address; --listen 0.0.0.0:80 takes all"),
            ("[2001:db8::1]:80", ErrorKind::AddrNotAvailable, "--listen [::]:80 takes all"),
            ("0.0.0.0:443", ErrorKind::PermissionDenied, "choose one from 1024 on, such as --listen 0.0.0.0:8080"),
        ] {
            let advice = advice(address.parse().unwrap(), kind);
            assert!(advice.contains(expected), "{advice}");
            assert_eq!(advice.contains("another server"), kind == ErrorKind::AddrInUse);
        }
    }
}
