//! The interface, as a document that is made of the types themselves, and a page to read it.

use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::Shared;
use crate::{api, pairing};

/// Where the document is.
const DOCUMENT: &str = "/api/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "KOSMOS-G server",
        description = "Pictures from prompts that mix words and pictures. `/api/v1` is this version of the interface; `/api` \
                       is the newest. OpenAI's images interface is at `/v1`, AUTOMATIC1111's at `/sdapi/v1`."
    ),
    paths(
        api::create_job,
        api::job_status,
        api::job_events,
        api::job_result,
        api::job_state,
        api::cancel_job,
        api::bundles,
        api::loras,
        api::bundle_file,
        api::health,
        api::ready,
        api::metrics,
        pairing::tokens,
        pairing::add_token,
        pairing::remove_token,
        pairing::open_pairing,
    ),
    modifiers(&Tokens)
)]
struct Interface;

/// Says that requests may need a token.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut Document) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
        document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    }
}

/// The document.
pub fn document() -> Document {
    Interface::openapi()
}

/// Document and page.
pub(crate) fn routes() -> Router<Shared> {
    let page = SwaggerUi::new("/api/docs").config(Config::from(DOCUMENT).validator_url("none"));
    Router::new().route(DOCUMENT, get(async || Json(document()))).merge(page)
}
