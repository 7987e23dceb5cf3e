//! AUTOMATIC1111's interface, below `/sdapi/v1`, for the programs that speak it.
//!
//! `img2img` does here what KOSMOS-G does: its pictures are words of the prompt, each where an `<i>` stands or, without any,
//! before the words. How strongly noise would cover them (`denoising_strength`) has no meaning then.
//!
//! `<lora:NAME:STRENGTH>` in a prompt asks for a LoRA, and is none of its words.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kosmosg::picture::Recipe;
use kosmosg::protocol::JobEvent;
use kosmosg::sampler::SamplerKind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::{Shared, owner};
use crate::bundles::{Bundle, Bundles};
use crate::error::{Error, in_form};
use crate::jobs::Job;

use asked::{AUTOMATIC, KARRAS, decode};
use echo::Echo;
use options::{chosen, options, set_options};

pub use asked::Asked;
pub(crate) use options::Choices;

mod asked;
mod echo;
mod flag;
mod options;

/// Digits of a file's SHA-256 that name a model.
const HASH: usize = 10;

/// Lists of what there is nothing of here.
const EMPTY: [&str; 8] = [
    "/sd-vae",
    "/upscalers",
    "/latent-upscale-modes",
    "/hypernetworks",
    "/prompt-styles",
    "/face-restorers",
    "/realesrgan-models",
    "/script-info",
];
/// What needs no looking for again.
const REFRESHES: [&str; 3] = ["/refresh-checkpoints", "/refresh-vae", "/refresh-loras"];

/// The routes below `/sdapi/v1`.
pub(crate) fn routes() -> Router<Shared> {
    let routes = Router::new()
        .route("/txt2img", post(generate))
        .route("/img2img", post(edit))
        .route("/progress", get(progress))
        .route("/interrupt", post(interrupt))
        .route("/skip", post(interrupt))
        .route("/options", get(options).post(set_options))
        .route("/samplers", get(samplers))
        .route("/schedulers", get(schedulers))
        .route("/sd-models", get(models))
        .route("/loras", get(loras))
        .route("/png-info", post(png_info))
        .route("/scripts", get(async || Json(json!({ "txt2img": [], "img2img": [] }))))
        .route("/embeddings", get(async || Json(json!({ "loaded": {}, "skipped": {} }))))
        .route("/cmd-flags", get(async || Json(json!({}))))
        .route("/memory", get(async || Json(json!({ "ram": {}, "cuda": {} }))));
    let routes = EMPTY.iter().fold(routes, |routes, path| routes.route(path, get(async || Json(json!([])))));
    let routes = REFRESHES.iter().fold(routes, |routes, path| routes.route(path, post(async || Json(Value::Null))));
    routes
        .fallback(async || Error::not_found("this server does not have this part of the interface"))
        .method_not_allowed_fallback(async || Error::method())
}

/// Failures in the interface's form.
pub(crate) async fn failures(response: Response) -> Response {
    let mut response = in_form(response, |error| {
        let message = &error.body().message;
        let kind = if error.status() == StatusCode::NOT_FOUND { "HTTPException" } else { "Error" };
        json!({ "error": kind, "detail": message, "body": "", "errors": message })
    });
    if response.status() == StatusCode::UNAUTHORIZED {
        // What its programs know; some send it only when they are asked.
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"kosmosg\""));
    }
    response
}

async fn generate(State(shared): State<Shared>, request: Request) -> Result<Json<Answer>, Error> {
    let without_pictures = |mut asked: Asked| {
        asked.init_images = None;
        Ok(asked)
    };
    make(shared, request, without_pictures).await
}

async fn edit(State(shared): State<Shared>, request: Request) -> Result<Json<Answer>, Error> {
    let has_picture = |asked: Asked| match asked.init_images.as_deref() {
        None | Some([]) => Err(Error::unreadable("img2img needs a picture in init_images")),
        Some(_) => Ok(asked),
    };
    make(shared, request, has_picture).await
}

/// What was made.
#[derive(Debug, Serialize)]
struct Answer {
    /// PNG, in base64.
    images: Vec<String>,
    parameters: Echo,
    /// JSON once more, as a text.
    info: String,
}

/// Makes what is asked for, as `form` has it.
async fn make(
    shared: Shared,
    request: Request,
    form: impl FnOnce(Asked) -> Result<Asked, Error> + Send + 'static,
) -> Result<Json<Answer>, Error> {
    let owner = owner(request.extensions());
    let body = shared.body(request).await?;
    let chosen = chosen(&shared, &owner).await?;
    let wanted = move |bundles: &Bundles| {
        let asked = form(Asked::read(&body)?)?;
        let strength = asked.denoising_strength.filter(|_| asked.init_images.is_some());
        let rest = (asked.send_images, asked.batch_size.unwrap_or(1), strength, asked.warnings(), read::<Echo>(&body)?);
        Ok((asked.wanted(chosen, bundles)?, rest))
    };
    let (order, (send_images, batch, strength, warnings, echo)) = shared.order(owner, wanted).await?;
    let mut pngs = Vec::new();
    for (index, (_, png)) in order.pictures().await?.into_iter().enumerate() {
        // Of an interrupted one, clients expect what there is.
        pngs.extend(if png.is_some() { png } else { order.so_far(index).await });
    }
    let recipes = pngs.iter().map(|png| Recipe::read(png)).collect::<Result<Vec<_>, _>>().map_err(Error::internal)?;
    let recipes: Vec<_> = recipes.into_iter().flatten().collect();
    let images: Vec<_> = match send_images {
        Some(false) => Vec::new(),
        _ => pngs.iter().map(|png| STANDARD.encode(png)).collect(),
    };
    let mut info = info(&recipes, order.bundle(), batch);
    info["denoising_strength"] = strength.into();
    info["warnings"] = warnings.into();
    let info = info.to_string();
    Ok(Json(Answer { images, parameters: echo, info }))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::unreadable(format!("the body: {error}")))
}

/// What was made, as the interface tells it.
fn info(recipes: &[Recipe], bundle: &Bundle, batch: u64) -> Value {
    let all = |of: fn(&Recipe) -> Value| recipes.iter().map(of).collect::<Vec<_>>();
    let first = |of: fn(&Recipe) -> Value| recipes.first().map_or(Value::Null, of);
    json!({
        "prompt": first(|recipe| recipe.prompt.to_text().into()),
        "all_prompts": all(|recipe| recipe.prompt.to_text().into()),
        "negative_prompt": first(|recipe| recipe.negative.clone().into()),
        "all_negative_prompts": all(|recipe| recipe.negative.clone().into()),
        "seed": first(|recipe| recipe.seed.into()),
        "all_seeds": all(|recipe| recipe.seed.into()),
        "subseed": 0,
        "all_subseeds": all(|_| 0.into()),
        "subseed_strength": 0,
        "width": first(|recipe| recipe.width.into()),
        "height": first(|recipe| recipe.height.into()),
        "sampler_name": first(|recipe| recipe.sampler.label().into()),
        "cfg_scale": first(|recipe| recipe.guidance.into()),
        "steps": first(|recipe| recipe.steps.into()),
        "batch_size": batch,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": bundle.id(),
        "sd_model_hash": hash(bundle),
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": all(|recipe| recipe.parameters().into()),
        "styles": [],
        "job_timestamp": "0",
        "clip_skip": 1,
        "is_using_inpainting_conditioning": false,
        "version": format!("kosmosg {}", env!("CARGO_PKG_VERSION")),
    })
}

#[derive(Debug, Deserialize)]
struct ProgressQuery {
    /// As Python's programs write it.
    skip_current_image: Option<String>,
}

/// How far the client's own jobs are.
async fn progress(
    State(shared): State<Shared>,
    Query(query): Query<ProgressQuery>,
    extensions: axum::http::Extensions,
) -> Result<Json<Value>, Error> {
    let is_skipped = match query.skip_current_image.unwrap_or_default().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => true,
        "false" | "0" | "no" | "off" | "f" | "n" | "" => false,
        other => return Err(Error::unreadable(format!("skip_current_image is {other}; choose true or false"))),
    };
    let owner = owner(&extensions);
    let mut jobs = shared.orders.of(&owner);
    if jobs.is_empty() {
        jobs = shared.app.jobs.of(&owner).await.map_err(Error::store)?;
    }
    // An order's jobs all have as many steps.
    let done: f64 = jobs.iter().map(|job| share(job)).sum();
    let ended = jobs.iter().filter(|job| job.has_ended()).count();
    let first = jobs.iter().find(|job| !job.has_ended());
    let (step, of, seconds) = match first.map(|job| job.last()) {
        Some(JobEvent::Step { step, of, seconds }) => (step, of, seconds),
        _ => (0, first.and_then(|job| job.state()).map_or(0, |state| state.evaluations()), 0.0),
    };
    let eta = if step == 0 { 0.0 } else { seconds * of as f64 / step as f64 * (jobs.len() as f64 - done) };
    let image = first.filter(|_| !is_skipped).and_then(|job| job.preview());
    Ok(Json(json!({
        "progress": if jobs.is_empty() { 0.0 } else { done / jobs.len() as f64 },
        "eta_relative": eta,
        "state": {
            "skipped": false,
            "interrupted": false,
            "stopping_generation": false,
            "job": first.map_or(String::new(), |job| job.id().to_string()),
            "job_count": jobs.len(),
            "job_timestamp": "0",
            "job_no": ended,
            "sampling_step": step,
            "sampling_steps": of,
        },
        "current_image": image.map(|png| STANDARD.encode(png)),
        "textinfo": null,
    })))
}

/// How much of a job is done, of 1.
fn share(job: &Job) -> f64 {
    match job.last() {
        JobEvent::Step { step, of, .. } => step as f64 / of as f64,
        last => f64::from(u8::from(last.is_last())),
    }
}

/// Cancels the client's own jobs, nobody else's.
async fn interrupt(State(shared): State<Shared>, extensions: axum::http::Extensions) -> Result<Json<Value>, Error> {
    let jobs = &shared.app.jobs;
    for job in jobs.of(&owner(&extensions)).await.map_err(Error::store)? {
        jobs.cancel(&job).await.map_err(Error::store)?;
    }
    Ok(Json(json!({})))
}

async fn samplers() -> Json<Value> {
    let about = |kind: SamplerKind| json!({ "name": kind.label(), "aliases": [kind.name()], "options": {} });
    Json(SamplerKind::ALL.into_iter().map(about).collect())
}

async fn schedulers() -> Json<Value> {
    let about = |name: &str, label: &str| json!({ "name": name, "label": label, "aliases": null, "default_rho": -1.0, "need_inner_model": false });
    Json(json!([about("automatic", AUTOMATIC), about("karras", KARRAS)]))
}

async fn models(State(Shared { app, .. }): State<Shared>) -> Json<Value> {
    let about = |bundle: &Arc<Bundle>| {
        json!({
            "title": title(bundle),
            "model_name": bundle.id(),
            "hash": hash(bundle),
            "sha256": bundle.unet(),
            "filename": bundle.id(),
            "config": null,
        })
    };
    Json(app.bundles.iter().map(about).collect())
}

async fn loras(State(Shared { app, .. }): State<Shared>) -> Json<Value> {
    let about = |name: &str| json!({ "name": name, "alias": name, "path": name, "metadata": {} });
    Json(app.bundles.loras().names().map(about).collect())
}

#[derive(Debug, Deserialize)]
struct PngInfo {
    image: String,
}

/// The recipe in a picture.
async fn png_info(State(shared): State<Shared>, request: Request) -> Result<Json<Value>, Error> {
    let body = shared.body(request).await?;
    let recipe = move |_: &Bundles| {
        let PngInfo { image } = read(&body)?;
        Recipe::read(&decode(&image)?).map_err(Error::invalid)
    };
    let recipe = shared.check(recipe).await?;
    let (text, parameters) = match &recipe {
        Some(recipe) => (recipe.parameters(), parameters(recipe)),
        None => (String::new(), json!({})),
    };
    let items = if text.is_empty() { json!({}) } else { json!({ "parameters": text }) };
    Ok(Json(json!({ "info": text, "items": items, "parameters": parameters })))
}

/// A recipe as the interface reads it out of a text: all values as texts.
fn parameters(recipe: &Recipe) -> Value {
    json!({
        "Prompt": recipe.prompt.to_text(),
        "Negative prompt": recipe.negative,
        "Steps": recipe.steps.to_string(),
        "Sampler": recipe.sampler.label(),
        "CFG scale": recipe.guidance.to_string(),
        "Seed": recipe.seed.to_string(),
        "Size-1": recipe.width.to_string(),
        "Size-2": recipe.height.to_string(),
        "Model": recipe.model,
    })
}

fn hash(bundle: &Bundle) -> &str {
    bundle.unet().get(..HASH).unwrap_or(bundle.unet())
}

fn title(bundle: &Bundle) -> String {
    format!("{} [{}]", bundle.id(), hash(bundle))
}

/// The bundle that a title, or its name alone, means.
fn by_title(bundles: &Bundles, title: &str) -> Result<String, Error> {
    let name = title.split_once(" [").map_or(title, |(name, _)| name);
    Ok(bundles.get(name)?.id().to_owned())
}
