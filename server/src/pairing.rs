//! How a new device gets a token: a code that the server shows once, in a terminal or to an administrator.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{Extensions, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kosmosg::picture::Picture;
use kosmosg::protocol::{ApiError, PictureFile};
use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, EcLevel, QrCode};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::access::{COOKIE, Role, TokenError, Visitor};
use crate::app::{Shared, origin};
use crate::error::Error;
use crate::hosts::is_loopback;

/// What the page of the code may do: nothing but send it.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Largest form that a code comes in, in bytes.
const MAX_FORM: usize = 1024;
/// How long a browser stays paired: as long as browsers keep a cookie.
const COOKIE_SECS: u64 = 400 * 24 * 3600;
/// Pixels of a QR code's module in a picture, and modules of its light edge, which cameras need (ISO 18004, 6.3.8).
const MODULE: usize = 8;
const QUIET: usize = 4;

/// Where a person enters a code.
pub(crate) fn routes() -> Router<Shared> {
    Router::new().route("/pair", get(page).post(pair).layer(DefaultBodyLimit::max(MAX_FORM)))
}

/// For administrators, below `/api`.
pub(crate) fn api() -> Router<Shared> {
    Router::new()
        .route("/tokens", get(tokens).post(add_token))
        .route("/tokens/{name}", axum::routing::delete(remove_token))
        .route("/pairing", post(open_pairing))
}

/// The address with which a device pairs itself.
pub fn address(origin: &str, code: &str) -> String {
    format!("{origin}/pair?code={code}")
}

/// A picture of an address in letters, for the camera of a phone; light on dark.
pub fn qr_code(address: &str) -> Option<String> {
    Some(code_of(address)?.render::<Dense1x2>().quiet_zone(true).build())
}

/// The same as a picture, PNG; dark on light.
fn qr_picture(address: &str) -> Option<Vec<u8>> {
    let code = code_of(address)?;
    let width = code.width();
    let side = (width + 2 * QUIET) * MODULE;
    let module = |pixel: usize| (pixel / MODULE).checked_sub(QUIET).filter(|&module| module < width);
    let is_dark = |x, y| matches!((module(x), module(y)), (Some(x), Some(y)) if code[(x, y)] == Color::Dark);
    let rgb = (0..side * side).flat_map(|pixel| [if is_dark(pixel % side, pixel / side) { 0 } else { 255 }; 3]);
    Some(Picture::new(side as u32, side as u32, rgb.collect()).ok()?.to_png(None))
}

fn code_of(address: &str) -> Option<QrCode> {
    QrCode::with_error_correction_level(address, EcLevel::L).ok()
}

#[derive(Debug, Deserialize)]
struct CodeQuery {
    #[serde(default)]
    code: String,
}

/// Opening the address does nothing yet: programs that show where a link leads shall not use the code up.
async fn page(Query(CodeQuery { code }): Query<CodeQuery>) -> Response {
    form(&code, "").into_response()
}

async fn pair(State(shared): State<Shared>, request: Request) -> Result<Response, Error> {
    let is_encrypted = shared.app.is_encrypted;
    let time = shared.app.bounds.form_time;
    let body = timeout(time, Bytes::from_request(request, &())).await.map_err(|_| Error::slow(time))?;
    let body = body.map_err(|_| Error::invalid("this is no form with a code; send `code=` and the code, no more"))?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let code = body.split('&').find_map(|field| field.strip_prefix("code=")).unwrap_or_default().to_owned();
    let redeemed = shared.app.access.tokens().redeem(&code).map_err(refused);
    match redeemed {
        Ok(token) => {
            let secure = if is_encrypted { "; Secure" } else { "" };
            let cookie = format!("{COOKIE}={token}; Path=/; Max-Age={COOKIE_SECS}; HttpOnly; SameSite=Strict{secure}");
            let cookie = HeaderValue::from_str(&cookie).map_err(Error::internal)?;
            Ok((
                StatusCode::SEE_OTHER,
                [(header::SET_COOKIE, cookie), (header::LOCATION, HeaderValue::from_static("/"))],
            )
                .into_response())
        }
        Err(error) => Ok((error.status(), form(&code, &error.body().message)).into_response()),
    }
}

fn form(code: &str, trouble: &str) -> impl IntoResponse {
    // Whatever came with the address, only what a code can have goes into the page.
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>KOSMOS-G: pair this device</title>\
         <style>:root{{color-scheme:light dark}}body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:26rem;\
         margin:15vh auto;padding:0 1rem}}input,button{{font:inherit;padding:.6rem .9rem;border-radius:.5rem;\
         border:1px solid;box-sizing:border-box;width:100%;margin:.3rem 0 1rem}}input{{letter-spacing:.15em}}\
         p[role=alert]{{color:#c0392b}}</style>\
         <main><h1>Pair this device</h1><p>Enter the code that the server shows. It works once.</p>\
         <p role=alert>{trouble}</p>\
         <form method=post action=/pair><label>Code<input name=code required autocomplete=off autocapitalize=characters \
         value='{code}'></label><button>Pair</button></form></main></html>"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, html)
}

/// A token, without itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct About {
    /// Whose it is.
    name: String,
    role: Role,
}

/// What a new token is to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct New {
    /// Whose it is to be.
    name: String,
    #[serde(default = "usual_role")]
    role: Role,
}

/// A new token, with itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Made {
    name: String,
    role: Role,
    /// It is shown this once.
    token: String,
}

/// A code for a new device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Code {
    /// Where to enter it, on this server.
    path: String,
    code: String,
    /// The whole address to open on the new device: of the host that this request came to, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The address as a QR code, a PNG in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<PictureFile>,
}

fn usual_role() -> Role {
    Role::Use
}

#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "access",
    responses((status = 200, body = Vec<About>), (status = "4XX", body = ApiError)),
)]
pub(crate) async fn tokens(State(shared): State<Shared>, extensions: Extensions) -> Result<Json<Vec<About>>, Error> {
    admin(&extensions)?;
    let tokens = shared.app.access.tokens();
    Ok(Json(tokens.list().iter().map(|token| About { name: token.name.clone(), role: token.role }).collect()))
}

#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "access",
    request_body = New,
    responses((status = 201, body = Made), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)),
)]
pub(crate) async fn add_token(
    State(shared): State<Shared>,
    request: Request,
) -> Result<(StatusCode, Json<Made>), Error> {
    admin(request.extensions())?;
    let New { name, role } = read(&shared, request).await?;
    let token = shared.app.access.tokens().add(&name, role).map_err(refused)?;
    Ok((StatusCode::CREATED, Json(Made { name, role, token })))
}

#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{name}",
    tag = "access",
    params(("name" = String, Path)),
    responses(
        (status = 204, description = "It works no more; its jobs are cancelled"),
        (status = "4XX", body = ApiError),
        (status = "5XX", body = ApiError),
    ),
)]
pub(crate) async fn remove_token(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    extensions: Extensions,
) -> Result<StatusCode, Error> {
    admin(&extensions)?;
    let Path(name) = path.map_err(|_| Error::not_found("no token has such a name"))?;
    let access = &shared.app.access;
    access.tokens().remove(&name).map_err(refused)?;
    access.dismiss_removed(&shared.app.jobs).await;
    Ok(StatusCode::NO_CONTENT)
}

/// What the new device may do.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Opening {
    #[serde(default = "usual_role")]
    role: Role,
}

#[utoipa::path(
    post,
    path = "/api/v1/pairing",
    tag = "access",
    request_body = Opening,
    responses((status = 200, body = Code), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)),
)]
pub(crate) async fn open_pairing(State(shared): State<Shared>, request: Request) -> Result<Json<Code>, Error> {
    admin(request.extensions())?;
    let asked = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // By the name that it has for itself, no other device finds this one.
    let reached_at = shared.app.reached_at.clone().filter(|_| asked.is_some_and(is_loopback));
    let origin = reached_at.or_else(|| origin(&shared, request.headers()));
    let Opening { role } = read(&shared, request).await?;
    let code = shared.app.access.tokens().pair(role).map_err(refused)?;
    let path = address("", &code);
    let address = origin.map(|origin| address(&origin, &code));
    let picture = address.as_deref().and_then(qr_picture).map(PictureFile);
    Ok(Json(Code { path, code, address, picture }))
}

async fn read<T: serde::de::DeserializeOwned>(shared: &Shared, request: Request) -> Result<T, Error> {
    let body = shared.body(request).await?;
    serde_json::from_slice(&body).map_err(|error| Error::invalid(format!("the body: {error}")))
}

fn admin(extensions: &Extensions) -> Result<(), Error> {
    match extensions.get::<Visitor>() {
        Some(Visitor { role: Role::Admin, .. }) => Ok(()),
        _ => Err(Error::forbidden("only an administrator's token may do this")),
    }
}

fn refused(error: TokenError) -> Error {
    match error {
        TokenError::Taken(_) | TokenError::Name => Error::invalid(error),
        TokenError::Unknown(_) => Error::not_found(error),
        TokenError::NoCode | TokenError::WrongCode => Error::forbidden(error),
        error => Error::internal(error),
    }
}
