//! OpenAI's images interface: `POST /v1/images/generations` and `/v1/images/edits`, `GET /v1/models`.
//!
//! Several input pictures of an edit are words of the prompt: `<i>` in it says where each stands; without any, they come
//! first. Beyond OpenAI's fields, `seed`, `steps`, `guidance`, `sampler` and `negative_prompt` are understood.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{Stream, StreamExt, stream};
use kosmosg::protocol::{ErrorCode, GenerateSettings, JobEvent};
use kosmosg::sampler::SamplerKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::UNBUFFERED;
use crate::app::{Shared, origin, owner};
use crate::bundles::{Bundle, Bundles};
use crate::error::{Error, in_form};
use crate::jobs::{Job, JobId, Owner};
use crate::order::{Order, Wanted, any_seed, at_size, events};

/// Most pictures on the way.
const MAX_PARTIAL: usize = 3;
/// Steps for each quality, as multiples of the usual ones.
const QUALITIES: [(&str, f64); 7] =
    [("auto", 1.0), ("medium", 1.0), ("standard", 1.0), ("low", 0.5), ("high", 2.0), ("hd", 2.0), ("xhigh", 3.0)];
/// Most steps that a quality makes.
const MAX_STEPS: usize = 100;
/// Fields that a form sends as text and that are none.
const NOT_TEXT: [&str; 6] = ["n", "stream", "partial_images", "seed", "steps", "guidance"];

/// The routes below `/v1`.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/images/generations", post(generate))
        .route("/images/edits", post(edit))
        .route("/models", get(models))
        .route("/models/{id}", get(model))
        .fallback(async || Error::not_found("this server has /v1/images/generations, /v1/images/edits and /v1/models"))
        .method_not_allowed_fallback(async || Error::method())
}

/// Pictures by their addresses.
pub(crate) fn results() -> Router<Shared> {
    Router::new().route("/v1/images/results/{file}", get(result))
}

/// Failures in OpenAI's form.
pub(crate) async fn failures(response: Response) -> Response {
    let is_final = response
        .extensions()
        .get::<Error>()
        .is_some_and(|error| !matches!(error.body().code, ErrorCode::Busy | ErrorCode::Internal));
    let mut response = in_form(response, |error| json!({ "error": failure(error) }));
    // What fails again need not be tried again.
    if is_final {
        response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response
}

fn failure(error: &Error) -> Value {
    let kind = match error.status() {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        StatusCode::UNAUTHORIZED => "authentication_error",
        _ => "invalid_request_error",
    };
    json!({ "message": error.body().message, "type": kind, "param": error.field(), "code": error.body().code })
}

/// What both kinds of request say.
#[derive(Debug, Deserialize)]
pub struct Asked {
    prompt: String,
    model: Option<String>,
    n: Option<u64>,
    size: Option<String>,
    quality: Option<String>,
    response_format: Option<String>,
    output_format: Option<String>,
    background: Option<String>,
    stream: Option<bool>,
    partial_images: Option<usize>,
    seed: Option<u64>,
    steps: Option<usize>,
    guidance: Option<f64>,
    sampler: Option<String>,
    negative_prompt: Option<String>,
}

/// How it is to be answered.
#[derive(Debug)]
struct Form {
    /// `image_generation` or `image_edit`.
    kind: &'static str,
    /// Addresses instead of pictures, from this one on.
    urls: Option<String>,
    /// Pictures on the way, if it is to be a stream.
    partial: Option<usize>,
    quality: String,
}

async fn generate(State(shared): State<Shared>, request: Request) -> Result<Response, Error> {
    let (owner, origin) = (owner(request.extensions()), origin(&shared, request.headers()));
    let body = shared.body(request).await?;
    answer(shared, owner, origin, "image_generation", move || Ok((Asked::read(&body)?, Vec::new()))).await
}

async fn edit(State(shared): State<Shared>, request: Request) -> Result<Response, Error> {
    let (owner, origin) = (owner(request.extensions()), origin(&shared, request.headers()));
    let form = shared.receive(request, Asked::read_form).await?;
    answer(shared, owner, origin, "image_edit", move || Ok(form.take())).await
}

impl Asked {
    /// Reads the body of `POST /v1/images/generations`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(body).map_err(|error| Error::invalid(format!("the body: {error}")))
    }

    /// Reads the form that `POST /v1/images/edits` sends, and its pictures.
    ///
    /// # Errors
    /// It is none, or has no picture.
    pub async fn read_form(request: Request, state: &()) -> Result<(Self, Vec<Vec<u8>>), Error> {
        let broken = |error: MultipartError| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::too_large(),
            _ => Error::invalid(format!("the form: {}", error.body_text())),
        };
        let form = Multipart::from_request(request, state).await;
        let mut form = form.map_err(|error| Error::invalid(format!("the form: {}", error.body_text())))?;
        let (mut fields, mut pictures) = (Map::new(), Vec::new());
        while let Some(field) = form.next_field().await.map_err(broken)? {
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "image" | "image[]" => pictures.push(field.bytes().await.map_err(broken)?.into()),
                "mask" => return Err(Error::invalid("this model edits by words and takes no mask").of("mask")),
                _ => {
                    let text = field.text().await.map_err(broken)?;
                    let value = NOT_TEXT.contains(&name.as_str()).then(|| serde_json::from_str(&text).ok()).flatten();
                    fields.insert(name, value.unwrap_or(Value::String(text)));
                }
            }
        }
        let asked = serde_json::from_value(Value::Object(fields));
        let asked = asked.map_err(|error| Error::invalid(format!("the form: {error}")))?;
        if pictures.is_empty() {
            let message = "an edit needs a picture: send one as `image`, or several as `image[]`";
            return Err(Error::invalid(message).of("image"));
        }
        Ok((asked, pictures))
    }

    /// What it asks for, with the pictures of its form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn wanted(self, pictures: Vec<Vec<u8>>, bundles: &Bundles) -> Result<Wanted, Error> {
        let bundle = bundles.get_or_first(self.model.as_deref())?;
        Ok(Wanted {
            model: Some(bundle.id().to_owned()),
            settings: settings(&self, bundle)?,
            prompt: self.prompt,
            pictures,
            negative: self.negative_prompt.unwrap_or_default(),
            loras: Vec::new(),
            count: self.n.unwrap_or(1),
        })
    }
}

async fn answer(
    shared: Shared,
    owner: Owner,
    origin: Option<String>,
    kind: &'static str,
    read: impl FnOnce() -> Result<(Asked, Vec<Vec<u8>>), Error> + Send + 'static,
) -> Result<Response, Error> {
    let wanted = move |bundles: &Bundles| {
        let (asked, pictures) = read()?;
        let form = form(&asked, kind, origin)?;
        Ok((asked.wanted(pictures, bundles)?, form))
    };
    let (order, form) = shared.order(owner, wanted).await?;
    if form.partial.is_some() {
        let events = Sse::new(stream(order, form)).keep_alive(KeepAlive::default());
        return Ok((UNBUFFERED, events).into_response());
    }
    let mut data = Vec::new();
    for (job, png) in order.pictures().await? {
        let png = png.ok_or_else(|| Error::invalid("the job was cancelled"))?;
        data.push(form.picture(job, &png));
    }
    let mut body = form.facts(&order);
    body.insert("created".into(), now().into());
    body.insert("data".into(), data.into());
    body.insert("usage".into(), usage());
    // A list of qualities that answers may have is shorter than that of requests.
    body.remove("background");
    if form.quality == "auto" {
        body.remove("quality");
    }
    Ok(Json(body).into_response())
}

fn form(asked: &Asked, kind: &'static str, origin: Option<String>) -> Result<Form, Error> {
    if let Some(format) = asked.output_format.as_deref().filter(|&format| format != "png") {
        return Err(Error::invalid(format!("output_format is {format}; this server writes png")).of("output_format"));
    }
    if asked.background.as_deref() == Some("transparent") {
        return Err(Error::invalid("this model makes no transparent background").of("background"));
    }
    let urls = match asked.response_format.as_deref() {
        None | Some("b64_json") => None,
        Some("url") => Some(origin.ok_or_else(|| Error::invalid("without a Host header there is no url"))?),
        Some(other) => {
            return Err(
                Error::invalid(format!("response_format is {other}; choose b64_json or url")).of("response_format")
            );
        }
    };
    let partial = asked.partial_images.unwrap_or(0);
    if partial > MAX_PARTIAL {
        return Err(
            Error::invalid(format!("partial_images is {partial}; choose 0 to {MAX_PARTIAL}")).of("partial_images")
        );
    }
    let quality = match asked.quality.as_deref() {
        None | Some("auto") => "auto",
        Some("standard") => "medium",
        Some("hd") => "high",
        Some(quality) => quality,
    };
    let partial = asked.stream.unwrap_or(false).then_some(partial);
    Ok(Form { kind, urls, partial, quality: quality.to_owned() })
}

fn settings(asked: &Asked, bundle: &Bundle) -> Result<GenerateSettings, Error> {
    let quality = asked.quality.as_deref().unwrap_or("auto");
    let Some((_, factor)) = QUALITIES.into_iter().find(|(name, _)| *name == quality) else {
        let names = QUALITIES.map(|(name, _)| name).join(", ");
        return Err(Error::invalid(format!("quality is {quality}; choose one of {names}")).of("quality"));
    };
    let usual = bundle.manifest().defaults.steps as f64;
    let steps = asked.steps.unwrap_or_else(|| ((usual * factor).ceil() as usize).min(MAX_STEPS));
    let sampler = asked
        .sampler
        .as_deref()
        .map(SamplerKind::from_str)
        .transpose()
        .map_err(|error| Error::invalid(error).of("sampler"))?;
    let size = asked.size.as_deref().filter(|&size| size != "auto");
    let size = size.map(|size| {
        let sides = size.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
        sides.ok_or_else(|| {
            Error::invalid(format!("size is {size}; expected auto or something like 512x512")).of("size")
        })
    });
    let (width, height) = size.transpose()?.unzip();
    let seed = asked.seed.unwrap_or_else(any_seed);
    Ok(GenerateSettings { seed, picture: 0, sampler, steps: Some(steps), guidance: asked.guidance, width, height })
}

/// The events of a stream: pictures on the way, and each when it is done. The order goes with it.
fn stream(order: Order, form: Form) -> impl Stream<Item = Result<Event, Infallible>> {
    let jobs = order.jobs().to_vec();
    let order = Arc::new((order, form));
    stream::iter(jobs).flat_map(move |job| {
        let order = Arc::clone(&order);
        let (mut shown, mut of) = (0, usize::MAX);
        events(&job).filter_map(move |event| {
            let partial = order.1.partial.unwrap_or(0);
            let index = shown;
            if let JobEvent::Step { of: all, .. } = event {
                of = all;
            }
            if let JobEvent::Preview { step, .. } = event {
                let is_due = shown < partial && step * (partial + 1) >= of * (shown + 1);
                shown += usize::from(is_due);
            }
            let (order, job, is_due) = (Arc::clone(&order), Arc::clone(&job), shown > index);
            async move { order.1.event(&order.0, &job, event, is_due.then_some(index)).await.map(Ok) }
        })
    })
}

impl Form {
    /// What an answer says about its pictures.
    fn facts(&self, order: &Order) -> Map<String, Value> {
        let [width, height] = order.pixels();
        let facts = json!({
            "size": format!("{width}x{height}"),
            "quality": self.quality,
            "background": "opaque",
            "output_format": "png",
            "model": order.bundle().id(),
        });
        if let Value::Object(facts) = facts { facts } else { Map::new() }
    }

    fn picture(&self, job: &Job, png: &[u8]) -> Value {
        match &self.urls {
            Some(origin) => json!({ "url": format!("{origin}/v1/images/results/{}.png", job.id()) }),
            None => json!({ "b64_json": STANDARD.encode(png) }),
        }
    }

    /// What a stream says of something that happened.
    async fn event(&self, order: &Order, job: &Job, event: JobEvent, partial: Option<usize>) -> Option<Event> {
        let mut facts = self.facts(order);
        facts.insert("created_at".into(), now().into());
        let (kind, png) = match (event, partial) {
            (JobEvent::Preview { png, .. }, Some(index)) => {
                facts.insert("partial_image_index".into(), index.into());
                ("partial_image", at_size(png, order.pixels(), None).await)
            }
            (JobEvent::Done { .. }, _) => match order.picture(job).await {
                Ok(png) => {
                    facts.insert("usage".into(), usage());
                    ("completed", png)
                }
                Err(error) => return Some(self.error(error)),
            },
            (JobEvent::Failed { error }, _) => return Some(self.error(Error::of_job(error))),
            (JobEvent::Cancelled, _) => return Some(self.error(Error::invalid("the job was cancelled"))),
            _ => return None,
        };
        let kind = format!("{}.{kind}", self.kind);
        facts.insert("type".into(), kind.clone().into());
        facts.insert("b64_json".into(), STANDARD.encode(png).into());
        Some(Event::default().event(kind).data(Value::Object(facts).to_string()))
    }

    fn error(&self, error: Error) -> Event {
        Event::default().event("error").data(json!({ "type": "error", "error": failure(&error) }).to_string())
    }
}

/// A picture by its address, which nobody can guess.
async fn result(State(Shared { app, .. }): State<Shared>, Path(file): Path<String>) -> Result<Response, Error> {
    let nowhere = || Error::not_found("there is no such picture; it may have been forgotten");
    let id = file.strip_suffix(".png").and_then(|id| JobId::from_str(id).ok()).ok_or_else(nowhere)?;
    let job = app.jobs.find(id).await.map_err(Error::store)?.ok_or_else(nowhere)?;
    let png = app.jobs.picture(&job).await.map_err(Error::store)?.ok_or_else(nowhere)?;
    // Other sites' pages show it.
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::CACHE_CONTROL, "private"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    Ok((headers, png).into_response())
}

async fn models(State(Shared { app, .. }): State<Shared>) -> Json<Value> {
    let models: Vec<_> = app.bundles.iter().map(|bundle| about(bundle)).collect();
    Json(json!({ "object": "list", "data": models }))
}

async fn model(State(Shared { app, .. }): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    Ok(Json(about(app.bundles.get(&id)?)))
}

fn about(bundle: &Bundle) -> Value {
    json!({ "id": bundle.id(), "object": "model", "created": 0, "owned_by": "kosmosg" })
}

/// Nothing is billed here.
fn usage() -> Value {
    json!({
        "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
        "input_tokens_details": { "image_tokens": 0, "text_tokens": 0 },
    })
}

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}
