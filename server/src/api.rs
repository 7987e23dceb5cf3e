//! The server's own interface. The contract is [`kosmosg::protocol`].

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::{ApiError, BundleEntry, Health, JobCreated, JobEvent, JobRequest, JobStatus};
use sha2::{Digest, Sha256};

use crate::access::Visitor;
use crate::admission::admit;
use crate::app::{EngineName, Shared, owner};
use crate::error::Error;
use crate::jobs::{Hold, Job, JobId, Key, Next};
use crate::metrics;

/// Longest [idempotency key](idempotency_key).
const MAX_KEY: usize = 255;

/// Without this a proxy may keep events back until there are many.
pub(crate) const UNBUFFERED: [(&str, &str); 1] = [("x-accel-buffering", "no")];

/// The routes below `/api`.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/bundles", get(bundles))
        .route("/loras", get(loras))
        .route("/jobs", post(create_job))
        .route("/jobs/{id}", get(job_status).delete(cancel_job))
        .route("/jobs/{id}/events", get(job_events))
        .route("/jobs/{id}/result", get(job_result))
        .route("/jobs/{id}/state", get(job_state))
}

/// For whoever watches the server.
pub(crate) fn health_routes() -> Router<Shared> {
    Router::new()
        .route("/health", get(health))
        .route("/health/live", get(async || StatusCode::NO_CONTENT))
        .route("/health/ready", get(ready))
}

/// What a path says of a job.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes; `Found` reads it")]
struct JobPath {
    /// The job's name, 32 hexadecimal digits.
    id: String,
}

#[utoipa::path(
    get,
    path = "/health",
    tag = "server",
    security(()),
    responses((status = 200, body = Health), (status = "4XX", body = ApiError), (status = 503, body = ApiError)),
)]
pub(crate) async fn health(State(Shared { app, .. }): State<Shared>) -> Result<Json<Health>, Error> {
    let EngineName { engine, device } = app.engine.clone();
    let (queued, _) = app.jobs.counts().await.map_err(Error::store)?;
    let capacity = app.jobs.limits().waiting;
    Ok(Json(Health { version: env!("CARGO_PKG_VERSION").into(), engine, device, queued, capacity }))
}

/// Whether jobs are taken.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "server",
    security(()),
    responses(
        (status = 204, description = "Jobs are taken"),
        (status = "4XX", body = ApiError),
        (status = 503, body = ApiError),
    ),
)]
pub(crate) async fn ready(State(Shared { app, .. }): State<Shared>) -> Result<StatusCode, Error> {
    app.jobs.counts().await.map_err(Error::store)?;
    if app.jobs.own().is_closed() { Err(Error::stopping()) } else { Ok(StatusCode::NO_CONTENT) }
}

#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses(
        (status = 200, description = "Prometheus' text form", content(("text/plain"))),
        (status = "4XX", body = ApiError),
        (status = "5XX", body = ApiError),
    ),
)]
pub(crate) async fn metrics(State(Shared { app, .. }): State<Shared>) -> Result<impl IntoResponse, Error> {
    let (waiting, _) = app.jobs.counts().await.map_err(Error::store)?;
    let text = app.jobs.own().metrics(waiting).map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

#[utoipa::path(
    get,
    path = "/api/v1/bundles",
    tag = "models",
    responses((status = 200, body = Vec<BundleEntry>), (status = "4XX", body = ApiError)),
)]
pub(crate) async fn bundles(State(Shared { app, .. }): State<Shared>) -> Json<Vec<BundleEntry>> {
    Json(app.bundles.entries())
}

#[utoipa::path(
    get,
    path = "/api/v1/loras",
    tag = "models",
    responses(
        (status = 200, body = Vec<String>, description = "Names of LoRAs that a job may ask for"),
        (status = "4XX", body = ApiError),
    ),
)]
pub(crate) async fn loras(State(Shared { app, .. }): State<Shared>) -> Json<Vec<String>> {
    Json(app.bundles.loras().names().map(str::to_owned).collect())
}

#[utoipa::path(
    get,
    path = "/models/{bundle}/{file}",
    tag = "models",
    params(
        ("bundle" = String, Path),
        ("file" = String, Path),
        ("range" = Option<String>, Header, description = "Bytes of the file"),
    ),
    responses(
        (status = 200, description = "The file", content(("application/octet-stream"))),
        (status = 206, description = "A range of it", content(("application/octet-stream"))),
        (status = "4XX", body = ApiError),
        (status = "5XX", body = ApiError),
    ),
)]
pub(crate) async fn bundle_file(
    State(Shared { app, .. }): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let Path((bundle, file)) = path.map_err(|_| Error::not_found("no bundle has such a name"))?;
    app.bundles.get(&bundle)?.serve(&file, request).await
}

#[utoipa::path(
    post,
    path = "/api/v1/jobs",
    tag = "jobs",
    request_body = JobRequest,
    params(
        ("idempotency-key" = Option<String>, Header, description = "The client's own name for the request: sent again under it, it is not done again"),
    ),
    responses(
        (status = 202, body = JobCreated),
        (status = "4XX", body = ApiError),
        (status = "5XX", body = ApiError),
    ),
)]
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
        shared.admits(&owner).await?;
    }
    let body = shared.body(request).await?;
    let (body, hold) = match key {
        Some(name) => {
            let digest = move |_: &_| {
                let digest = Sha256::digest(&**body).into();
                Ok((body, Hold::Key(Key { name, digest })))
            };
            shared.check(digest).await?
        }
        None => (body, Hold::Name),
    };
    if let Hold::Key(key) = &hold {
        let before = shared.app.jobs.submitted(owner.clone(), key.clone()).await;
        if let Some((job, position)) = before.map_err(|refusal| shared.refused(refusal))? {
            return Ok(accepted(&job, position));
        }
        shared.admits(&owner).await?;
    }
    let work = shared.check(move |bundles| admit(&body, bundles)).await?;
    let (job, position) = shared.submit(owner, work, hold).await?;
    Ok(accepted(&job, position))
}

fn accepted(job: &Job, position: usize) -> (StatusCode, Json<JobCreated>) {
    (StatusCode::ACCEPTED, Json(JobCreated { id: job.id().to_string(), position }))
}

#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}",
    tag = "jobs",
    params(JobPath),
    responses((status = 200, body = JobStatus), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)),
)]
pub(crate) async fn job_status(Found(job): Found) -> Json<JobStatus> {
    Json(JobStatus { id: job.id().to_string(), last: job.last() })
}

#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/events",
    tag = "jobs",
    params(
        JobPath,
        ("last-event-id" = Option<String>, Header, description = "The number of the last event that was heard"),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = JobEvent, description = "Server-sent events; each has a `JobEvent` as its data"),
        (status = 204, description = "All of it was heard"),
        (status = "4XX", body = ApiError),
        (status = "5XX", body = ApiError),
    ),
)]
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
    (UNBUFFERED, Sse::new(events).keep_alive(KeepAlive::default())).into_response()
}

#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/result",
    tag = "jobs",
    params(JobPath),
    responses(
        (status = 200, description = "The picture", content(("image/png"))),
        (status = "4XX", body = ApiError),
        (status = "5XX", body = ApiError),
    ),
)]
pub(crate) async fn job_result(State(Shared { app, .. }): State<Shared>, Found(job): Found) -> Result<Response, Error> {
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
    match (app.jobs.picture(&job).await.map_err(Error::store)?, job.last()) {
        (Some(png), _) => Ok((headers, png).into_response()),
        (None, JobEvent::Failed { error }) => Err(Error::not_found(format!("the job has no picture: {error}"))),
        (None, JobEvent::Cancelled) => Err(Error::not_found("the job was cancelled and has no picture")),
        (None, _) => Err(Error::not_ready("the job is not done; its events say when it is")),
    }
}

#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/state",
    tag = "jobs",
    params(JobPath),
    responses((status = 200, body = DenoiseState), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)),
)]
pub(crate) async fn job_state(
    State(Shared { app, .. }): State<Shared>,
    Found(job): Found,
) -> Result<Json<DenoiseState>, Error> {
    let state = app.jobs.state(&job).await.map_err(Error::store)?;
    match state {
        Some(state) => Ok(Json(state)),
        None if job.last().is_last() => Err(Error::not_found("the job has ended, and its state is kept no longer")),
        None => Err(Error::not_ready("the job has not begun; its events say when it does")),
    }
}

#[utoipa::path(
    delete,
    path = "/api/v1/jobs/{id}",
    tag = "jobs",
    params(JobPath),
    responses(
        (status = 204, description = "It is cancelled, also if the server ends now, and stops before its next step"),
        (status = "4XX", body = ApiError),
        (status = 503, body = ApiError, description = "It may go on"),
    ),
)]
pub(crate) async fn cancel_job(
    State(Shared { app, .. }): State<Shared>,
    Found(job): Found,
) -> Result<StatusCode, Error> {
    app.jobs.cancel(&job).await.map_err(Error::store)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The job that a request's path names.
pub(crate) struct Found(Arc<Job>);

impl FromRequestParts<Shared> for Found {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, Shared { app, .. }: &Shared) -> Result<Self, Error> {
        let id = Path::<String>::from_request_parts(parts, &()).await.ok();
        let nowhere = || Error::not_found("there is no such job; it may have been forgotten since it ended");
        let id = id.and_then(|id| JobId::from_str(&id).ok()).ok_or_else(nowhere)?;
        let job = app.jobs.find(id).await.map_err(Error::store)?.ok_or_else(nowhere)?;
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

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
