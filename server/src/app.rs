//! The server as a service: which interfaces it has where, and what they have in common.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, OriginalUri, Request};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::routing::get;
use axum::{Router, middleware};
use kosmosg::protocol::MAX_REQUEST_BYTES;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::trace::TraceLayer;

use crate::a1111::{self, Choices};
use crate::access::{self, Access, Visitor};
use crate::bundles::Bundles;
use crate::desk::Desk;
use crate::error::Error;
use crate::hosts::{self, Hosts};
use crate::jobs::{Hold, Job, JobId, Owner, Refusal};
use crate::order::Orders;
use crate::shares::Shares;
use crate::work::Work;
use crate::{api, openai, openapi, page, pairing};

/// Bodies that are checked at the same time: each may need the memory of a large photograph.
const CHECKS_AT_ONCE: usize = 2;
/// Bodies that arrive, wait for their check or are checked at the same time, each of up to [`MAX_REQUEST_BYTES`].
const ARRIVALS_AT_ONCE: usize = 8;
/// How many of them may be one owner's.
const ARRIVALS_OF_ONE: usize = 3;
/// How long a request waits while so many are here, and when to come again after that.
const RETRY_SECS: u64 = 2;

/// What the routes need.
#[derive(Debug, Clone)]
pub struct App {
    /// The jobs; somebody does them.
    pub jobs: Desk,
    /// The models.
    pub bundles: Arc<Bundles>,
    /// What [`Health`] says about who computes.
    pub engine: EngineName,
    /// Folder of the built page, if it is served.
    pub page: Option<PathBuf>,
    /// Origins whose pages may use this server besides its own.
    pub allowed_origins: Vec<HeaderValue>,
    /// What clients may take at most.
    pub bounds: Bounds,
    /// Who may use it.
    pub access: Arc<Access>,
    /// What it is called.
    pub hosts: Hosts,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
    /// Its address for other devices, where they reach it.
    pub reached_at: Option<String>,
}

/// What clients may take at most, so that nobody keeps others out.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once. Others wait.
    pub connections: usize,
    /// How many of them may be one other computer's. Further ones are closed.
    pub connections_of_one: usize,
    /// How long a request's head and then its body may take to arrive.
    pub arrival_time: Duration,
    /// How long nothing of an answer may be read, while there is something to read.
    pub reading_time: Duration,
    /// How long the form of a [pairing](crate::pairing) may take. Whoever sends it need not be known, and has no place among
    /// the bodies of those who are.
    pub form_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // With their files, fewer than what systems let a program have, which mostly is 1024.
            connections: 512,
            connections_of_one: 128,
            // The largest request over 20 Mbit/s.
            arrival_time: Duration::from_secs(30),
            reading_time: Duration::from_secs(30),
            form_time: Duration::from_secs(5),
        }
    }
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
    pub(crate) orders: Arc<Orders>,
    arrivals: Arc<Semaphore>,
    arrivals_of_one: Arc<Shares<Owner>>,
    checks: Arc<Semaphore>,
}

/// All routes.
pub fn router(app: App) -> Router {
    let page = app.page.clone();
    let cors = page::allow_origins(&app.allowed_origins);
    let shared = Shared {
        app: Arc::new(app),
        choices: Arc::default(),
        orders: Arc::default(),
        arrivals: Arc::new(Semaphore::new(ARRIVALS_AT_ONCE)),
        arrivals_of_one: Arc::new(Shares::new(ARRIVALS_OF_ONE)),
        checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
    };
    let api = api::routes().merge(pairing::api());
    let models = Router::new().route("/{bundle}/{file}", get(api::bundle_file));
    let strict =
        |routes: Router<Shared>| routes.fallback(nowhere).method_not_allowed_fallback(async || Error::method());
    let admit = middleware::from_fn_with_state(shared.clone(), access::admit);
    let own = Router::new()
        .route("/metrics", get(api::metrics))
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
        .merge(api::health_routes())
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

/// What has arrived of a request, in one of the places for it and one of its owner's, which it gives back with itself.
#[derive(Debug)]
pub(crate) struct Arrived<T> {
    what: T,
    _places: [OwnedSemaphorePermit; 2],
}

impl<T> Arrived<T> {
    /// It alone; its places are free then.
    pub(crate) fn take(self) -> T {
        self.what
    }
}

impl<T> Deref for Arrived<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.what
    }
}

impl Shared {
    /// Whether another job of that owner would be taken.
    pub(crate) async fn admits(&self, owner: &Owner) -> Result<(), Error> {
        self.app.jobs.admits(owner).await.map_err(|refusal| self.refused(refusal))
    }

    /// Reads what comes with a request with `read`. What headers can refuse is refused before; only so many are here at once,
    /// fewer of each owner, and none arrives for long.
    pub(crate) async fn receive<T>(
        &self,
        request: Request,
        read: impl AsyncFnOnce(Request, &()) -> Result<T, Error>,
    ) -> Result<Arrived<T>, Error> {
        if content_length(request.headers()).is_some_and(|bytes| bytes > MAX_REQUEST_BYTES as u64) {
            return Err(Error::too_large());
        }
        let owner = owner(request.extensions());
        let places = async {
            // Whoever waits for their own keeps nobody else's.
            let own = self.arrivals_of_one.of(owner).acquire_owned().await?;
            Ok::<_, AcquireError>([own, Arc::clone(&self.arrivals).acquire_owned().await?])
        };
        let places = timeout(Duration::from_secs(RETRY_SECS), places).await;
        let places = places.map_err(|_| Error::crowded(RETRY_SECS))?.map_err(Error::internal)?;
        let time = self.app.bounds.arrival_time;
        let what = timeout(time, read(request, &())).await.map_err(|_| Error::slow(time))??;
        Ok(Arrived { what, _places: places })
    }

    /// [Receives](Self::receive) a request's body.
    pub(crate) async fn body(&self, request: Request) -> Result<Arrived<Bytes>, Error> {
        self.receive(request, body).await
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
    pub(crate) async fn submit(&self, owner: Owner, work: Work, hold: Hold) -> Result<(Arc<Job>, usize), Error> {
        let (job, position) = self.app.jobs.submit(owner, work, hold).await.map_err(|refusal| self.refused(refusal))?;
        tracing::info!(job = %job.id(), position, "queued");
        Ok((job, position))
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> Error {
        let limits = self.app.jobs.limits();
        match refusal {
            Refusal::Full { retry_after_secs } => Error::busy(limits.waiting, retry_after_secs),
            Refusal::Enough { retry_after_secs } => Error::enough(limits.waiting_of_one, retry_after_secs),
            Refusal::Closed => Error::stopping(),
            Refusal::KeyTaken => Error::key_taken(),
            Refusal::Store(error) => Error::store(error),
        }
    }
}

async fn nowhere(OriginalUri(uri): OriginalUri) -> Error {
    Error::not_found(format!("there is nothing at {}", uri.path()))
}

async fn no_page() -> &'static str {
    "This server computes pictures but has no page of its own. Start it with --page DIR to serve the built page.\n"
}

/// Whom a request comes from.
pub(crate) fn owner(extensions: &Extensions) -> Owner {
    extensions.get::<Visitor>().map_or_else(Owner::here, |visitor| visitor.owner.clone())
}

/// This server's address, as the client knows it.
pub(crate) fn origin(shared: &Shared, headers: &HeaderMap) -> Option<String> {
    let usual = if shared.app.is_encrypted { "https" } else { "http" };
    let scheme = headers.get("x-forwarded-proto").and_then(|scheme| scheme.to_str().ok()).unwrap_or(usual);
    Some(format!("{scheme}://{}", headers.get(header::HOST)?.to_str().ok()?))
}

async fn body(request: Request, state: &()) -> Result<Bytes, Error> {
    Bytes::from_request(request, state).await.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::too_large(),
        _ => Error::invalid(format!("the body did not arrive: {}", error.body_text())),
    })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
