//! The server as a service: routes, and what each of them does. The contract is [`kosmosg::protocol`].

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, OriginalUri, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::{Listener, ListenerExt};
use axum::{Json, Router, middleware};
use futures::StreamExt;
use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::{
    ApiError, BundleEntry, Health, JobCreated, JobEvent, JobRequest, JobStatus, MAX_REQUEST_BYTES,
};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::trace::TraceLayer;

use crate::a1111::{self, Choices};
use crate::access::{self, Access, Visitor};
use crate::admission::admit;
use crate::bundles::Bundles;
use crate::error::Error;
use crate::hosts::{self, Hosts};
use crate::jobs::{Job, JobId, Jobs, Key, Next, Owner, Refusal};
use crate::page;
use crate::work::Work;
use crate::{metrics, openai, openapi, pairing};

/// Bodies that are checked at the same time: each may need the memory of a large photograph.
const CHECKS_AT_ONCE: usize = 2;
/// Bodies that arrive or wait for their check at the same time, each of up to [`MAX_REQUEST_BYTES`].
const ARRIVALS_AT_ONCE: usize = 8;
/// Longest [idempotency key](idempotency_key).
const MAX_KEY: usize = 255;
/// When to come again while so many arrive.
const RETRY_SECS: u64 = 2;
/// How long a body may take to arrive: the largest over 20 Mbit/s. Who sends a byte now and then would keep others out.
pub const BODY_TIME: Duration = Duration::from_secs(30);
/// How long open connections may take to end when the server stops.
pub const GRACE: Duration = Duration::from_secs(5);

/// What the routes need.
#[derive(Debug, Clone)]
pub struct App {
    /// The queue; somebody works it off.
    pub jobs: Arc<Jobs>,
    /// The models.
    pub bundles: Arc<Bundles>,
    /// What [`Health`] says about who computes.
    pub engine: EngineName,
    /// Folder of the built page, if it is served.
    pub page: Option<PathBuf>,
    /// Origins whose pages may use this server besides its own.
    pub allowed_origins: Vec<HeaderValue>,
    /// How long a request's body may take to arrive; mostly [`BODY_TIME`].
    pub body_time: Duration,
    /// Who may use it.
    pub access: Arc<Access>,
    /// What it is called.
    pub hosts: Hosts,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
}

/// Who computes.
#[derive(Debug, Clone)]
pub struct EngineName {
    /// The engine's name.
    pub engine: String,
    /// The device, for people.
    pub device: String,
}

/// What every route has.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) app: Arc<App>,
    pub(crate) choices: Arc<Choices>,
    arrivals: Arc<Semaphore>,
    checks: Arc<Semaphore>,
}

/// All routes.
pub fn router(app: App) -> Router {
    let page = app.page.clone();
    let cors = page::allow_origins(&app.allowed_origins);
    let shared = Shared {
        app: Arc::new(app),
        choices: Arc::default(),
        arrivals: Arc::new(Semaphore::new(ARRIVALS_AT_ONCE)),
        checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
    };
    let api = Router::new()
        .route("/bundles", get(bundles))
        .route("/jobs", post(create_job))
        .route("/jobs/{id}", get(job_status).delete(cancel_job))
        .route("/jobs/{id}/events", get(job_events))
        .route("/jobs/{id}/result", get(job_result))
        .route("/jobs/{id}/state", get(job_state))
        .merge(pairing::api());
    let models = Router::new().route("/{bundle}/{file}", get(bundle_file));
    let strict =
        |routes: Router<Shared>| routes.fallback(nowhere).method_not_allowed_fallback(async || Error::method());
    let admit = middleware::from_fn_with_state(shared.clone(), access::admit);
    let own = Router::new()
        .route("/metrics", get(metrics))
        .nest("/api/v1", strict(api.clone()))
        // The newest version has the short address, too.
        .nest("/api", strict(api))
        .nest("/models", strict(models))
        .layer(admit.clone());
    let openai = openai::routes().layer(admit.clone()).layer(middleware::map_response(openai::failures));
    let a1111 = a1111::routes().layer(admit).layer(middleware::map_response(a1111::failures));
    let routes = own
        .nest("/v1", openai)
        .nest("/sdapi/v1", a1111)
        .route("/health", get(health))
        .route("/health/live", get(async || StatusCode::NO_CONTENT))
        .route("/health/ready", get(ready))
        .merge(pairing::routes())
        .merge(openapi::routes())
        .merge(openai::results())
        .method_not_allowed_fallback(async || Error::method());
    let routes = match page {
        Some(dir) => page::with_page(routes, &dir, Router::new().fallback(nowhere)),
        None => routes.route("/", get(no_page)).fallback(nowhere),
    };
    routes
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .layer(cors)
        .layer(middleware::from_fn_with_state(shared.clone(), hosts::check))
        .layer(middleware::from_fn(page::secure))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(SetRequestIdLayer::x_request_id(RequestNames))
        .with_state(shared)
}

/// Names for requests that come without one.
#[derive(Debug, Clone, Copy)]
struct RequestNames;

impl MakeRequestId for RequestNames {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let name = HeaderValue::from_str(&JobId::random().to_string()).ok()?;
        Some(RequestId::new(name))
    }
}

/// What the log says with everything that happens in a request.
fn span(request: &Request) -> tracing::Span {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).unwrap_or("");
    tracing::info_span!("request", id, method = %request.method(), path = request.uri().path())
}

/// Serves until `shutdown`; then the queue closes, the streams of those who follow a job end, and connections have [`GRACE`]
/// to do so.
///
/// # Errors
/// If the listener fails.
pub async fn serve<L: Listener<Addr = SocketAddr>>(
    listener: L,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let stopping = Arc::new(Notify::new());
    let signal = {
        let (jobs, stopping) = (Arc::clone(&app.jobs), Arc::clone(&stopping));
        async move {
            shutdown.await;
            jobs.close();
            stopping.notify_one();
        }
    };
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    // axum tells the address of a client for what it has wrapped itself.
    let server = axum::serve(listener.tap_io(|_| {}), service).with_graceful_shutdown(signal);
    let late = async {
        stopping.notified().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => result,
        () = late => {
            tracing::warn!("connections are still open; leaving them");
            Ok(())
        }
    }
}

#[utoipa::path(get, path = "/health", tag = "server", security(()), responses((status = 200, body = Health)))]
pub(crate) async fn health(State(Shared { app, .. }): State<Shared>) -> Json<Health> {
    let EngineName { engine, device } = app.engine.clone();
    let (queued, capacity) = (app.jobs.waiting(), app.jobs.capacity());
    Json(Health { version: env!("CARGO_PKG_VERSION").into(), engine, device, queued, capacity })
}

/// Whether jobs are taken.
#[utoipa::path(get, path = "/health/ready", tag = "server", security(()), responses((status = 204, description = "Jobs are taken"), (status = 503, body = ApiError)))]
pub(crate) async fn ready(State(Shared { app, .. }): State<Shared>) -> Result<StatusCode, Error> {
    if app.jobs.is_closed() { Err(Error::stopping()) } else { Ok(StatusCode::NO_CONTENT) }
}

#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, description = "Prometheus' text form", content(("text/plain"))), (status = 401, body = ApiError)))]
pub(crate) async fn metrics(State(Shared { app, .. }): State<Shared>) -> Result<impl IntoResponse, Error> {
    let text = app.jobs.metrics().map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

#[utoipa::path(get, path = "/api/v1/bundles", tag = "models", responses((status = 200, body = Vec<BundleEntry>), (status = 401, body = ApiError)))]
pub(crate) async fn bundles(State(Shared { app, .. }): State<Shared>) -> Json<Vec<BundleEntry>> {
    Json(app.bundles.entries())
}

#[utoipa::path(get, path = "/models/{bundle}/{file}", tag = "models",
    params(("bundle" = String, Path), ("file" = String, Path), ("range" = Option<String>, Header, description = "Bytes of the file")),
    responses((status = 200, description = "The file", content(("application/octet-stream"))), (status = 206, description = "A range of it", content(("application/octet-stream"))), (status = "4XX", body = ApiError)))]
pub(crate) async fn bundle_file(
    State(Shared { app, .. }): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let Path((bundle, file)) = path.map_err(|_| Error::not_found("no bundle has such a name"))?;
    app.bundles.get(&bundle)?.serve(&file, request).await
}

#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", request_body = JobRequest,
    params(("idempotency-key" = Option<String>, Header, description = "The client's own name for the request: sent again under it, it is not done again")),
    responses((status = 202, body = JobCreated), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(crate) async fn create_job(
    State(shared): State<Shared>,
    request: Request,
) -> Result<(StatusCode, Json<JobCreated>), Error> {
    if !is_json(request.headers()) {
        return Err(Error::not_json());
    }
    let key = idempotency_key(request.headers())?;
    let owner = owner(request.extensions());
    // A request that came before under its key is answered also when the queue is full.
    if key.is_none() {
        shared.admits()?;
    }
    let body = shared.receive(request, Bytes::from_request).await?.map_err(|error| refused_body(&error))?;
    let jobs = &shared.app.jobs;
    let key = key.map(|name| Key { name, digest: Sha256::digest(&body).into() });
    if let Some(key) = &key {
        let before = jobs.submitted(owner.clone(), key.clone()).await;
        if let Some((job, position)) = before.map_err(|refusal| shared.refused(refusal))? {
            return Ok(accepted(&job, position));
        }
        shared.admits()?;
    }
    let work = shared.check(move |bundles| admit(&body, bundles)).await?;
    let (job, position) = shared.submit(owner, work, key).await?;
    Ok(accepted(&job, position))
}

fn refused_body(error: &BytesRejection) -> Error {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::too_large(),
        _ => Error::invalid(format!("the body did not arrive: {}", error.body_text())),
    }
}

impl Shared {
    /// Whether another job would be taken.
    pub(crate) fn admits(&self) -> Result<(), Error> {
        self.app.jobs.admits().map_err(|refusal| self.refused(refusal))
    }

    /// Reads a request's body with `read`. What headers can refuse is refused before; only so many arrive at once, and not
    /// for long.
    pub(crate) async fn receive<T>(
        &self,
        request: Request,
        read: impl AsyncFnOnce(Request, &()) -> T,
    ) -> Result<T, Error> {
        if content_length(request.headers()).is_some_and(|bytes| bytes > MAX_REQUEST_BYTES as u64) {
            return Err(Error::too_large());
        }
        let _arrival = self.arrivals.try_acquire().map_err(|_| Error::crowded(RETRY_SECS))?;
        timeout(self.app.body_time, read(request, &())).await.map_err(|_| Error::slow(self.app.body_time))
    }

    /// Does what may take long, such as decoding pictures, where it disturbs nobody.
    pub(crate) async fn check<T: Send + 'static>(
        &self,
        check: impl FnOnce(&Bundles) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.checks).acquire_owned().await.map_err(Error::internal)?;
        let bundles = Arc::clone(&self.app.bundles);
        let check = move || {
            let _permit = permit;
            check(&bundles)
        };
        tokio::task::spawn_blocking(check).await.map_err(Error::internal)?
    }

    /// Queues work.
    pub(crate) async fn submit(&self, owner: Owner, work: Work, key: Option<Key>) -> Result<(Arc<Job>, usize), Error> {
        let (job, position) = self.app.jobs.submit(owner, work, key).await.map_err(|refusal| self.refused(refusal))?;
        tracing::info!(job = %job.id(), position, "queued");
        Ok((job, position))
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Full { retry_after_secs } => Error::busy(self.app.jobs.capacity(), retry_after_secs),
            Refusal::Closed => Error::stopping(),
            Refusal::KeyTaken => Error::key_taken(),
            Refusal::Store(error) => Error::store(error),
        }
    }
}

fn accepted(job: &Job, position: usize) -> (StatusCode, Json<JobCreated>) {
    (StatusCode::ACCEPTED, Json(JobCreated { id: job.id().to_string(), position }))
}

#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's name, 32 hexadecimal digits")), responses((status = 200, body = JobStatus), (status = "4XX", body = ApiError)))]
pub(crate) async fn job_status(Found(job): Found) -> Json<JobStatus> {
    Json(JobStatus { id: job.id().to_string(), last: job.last() })
}

#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", tag = "jobs",
    params(("id" = String, Path, description = "The job's name, 32 hexadecimal digits"), ("last-event-id" = Option<String>, Header, description = "The number of the last event that was heard")),
    responses((status = 200, content_type = "text/event-stream", body = JobEvent, description = "Server-sent events; each has a `JobEvent` as its data"), (status = 204, description = "All of it was heard"), (status = "4XX", body = ApiError)))]
pub(crate) async fn job_events(Found(job): Found, headers: HeaderMap) -> Response {
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    if job.next_after(seen) == Next::End {
        // A browser connects again when a stream ends; this is how it is told not to.
        return StatusCode::NO_CONTENT.into_response();
    }
    let events = job.follow(seen).map(|(number, event)| {
        let json = serde_json::to_string(&event).expect("an event is plain data");
        Ok::<_, Infallible>(Event::default().id(number.to_string()).data(json))
    });
    // Without this a proxy may keep the events back until there are many.
    let headers = [("x-accel-buffering", "no")];
    (headers, Sse::new(events).keep_alive(KeepAlive::default())).into_response()
}

#[utoipa::path(get, path = "/api/v1/jobs/{id}/result", tag = "jobs", params(("id" = String, Path, description = "The job's name, 32 hexadecimal digits")), responses((status = 200, description = "The picture", content(("image/png"))), (status = "4XX", body = ApiError)))]
pub(crate) async fn job_result(State(Shared { app, .. }): State<Shared>, Found(job): Found) -> Result<Response, Error> {
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
    match (app.jobs.picture(&job).await.map_err(Error::internal)?, job.last()) {
        (Some(png), _) => Ok((headers, png).into_response()),
        (None, JobEvent::Failed { error }) => Err(Error::not_found(format!("the job has no picture: {error}"))),
        (None, JobEvent::Cancelled) => Err(Error::not_found("the job was cancelled and has no picture")),
        (None, _) => Err(Error::not_ready("the job is not done; its events say when it is")),
    }
}

#[utoipa::path(get, path = "/api/v1/jobs/{id}/state", tag = "jobs", params(("id" = String, Path, description = "The job's name, 32 hexadecimal digits")), responses((status = 200, body = DenoiseState), (status = "4XX", body = ApiError)))]
pub(crate) async fn job_state(Found(job): Found) -> Result<Json<DenoiseState>, Error> {
    let state = job.state().ok_or_else(|| Error::not_found("the job has ended, and its state is kept no longer"))?;
    Ok(Json(state))
}

#[utoipa::path(delete, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's name, 32 hexadecimal digits")), responses((status = 204, description = "It stops before its next step"), (status = "4XX", body = ApiError)))]
pub(crate) async fn cancel_job(State(Shared { app, .. }): State<Shared>, Found(job): Found) -> StatusCode {
    app.jobs.cancel(&job);
    StatusCode::NO_CONTENT
}

async fn nowhere(OriginalUri(uri): OriginalUri) -> Error {
    Error::not_found(format!("there is nothing at {}", uri.path()))
}

async fn no_page() -> &'static str {
    "This server computes pictures but has no page of its own. Start it with --page DIR to serve the built page.\n"
}

/// The job that a request's path names.
pub(crate) struct Found(Arc<Job>);

impl FromRequestParts<Shared> for Found {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, Shared { app, .. }: &Shared) -> Result<Self, Error> {
        let id = Path::<String>::from_request_parts(parts, &()).await.ok();
        let nowhere = || Error::not_found("there is no such job; it may have been forgotten since it ended");
        let id = id.and_then(|id| JobId::from_str(&id).ok()).ok_or_else(nowhere)?;
        let job = app.jobs.find(id).await.map_err(Error::internal)?.ok_or_else(nowhere)?;
        let is_theirs = parts.extensions.get::<Visitor>().is_none_or(|visitor| visitor.may_see(&job));
        if is_theirs { Ok(Self(job)) } else { Err(nowhere()) }
    }
}

/// The client's own name for the request. Source: the IETF's draft *The Idempotency-Key HTTP Header Field*; the quotes that it
/// asks for may be missing.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim().trim_matches('"');
    if (1..=MAX_KEY).contains(&key.len()) {
        return Ok(Some(key.to_owned()));
    }
    Err(Error::invalid(format!("the Idempotency-Key must have 1 to {MAX_KEY} visible ASCII characters")))
}

/// Whom a request comes from.
pub(crate) fn owner(extensions: &Extensions) -> Owner {
    extensions.get::<Visitor>().map_or_else(Owner::here, |visitor| visitor.owner.clone())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
