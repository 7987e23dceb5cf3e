//! What goes wrong while answering a request. What is internal is logged and not shown.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kosmosg::protocol::{ApiError, ErrorCode, MAX_REQUEST_BYTES};
use serde_json::Value;

use crate::jobs::MAX_BEGINNINGS;
use crate::jobs::store::StoreError;

/// A failure as the client sees it.
#[derive(Debug, Clone)]
pub struct Error {
    status: StatusCode,
    body: ApiError,
    /// The part of the request that is wrong, where one is.
    field: Option<&'static str>,
    retry_after_secs: Option<u64>,
}

impl Error {
    /// 400: the request is wrong, and the same again will fail again.
    pub fn invalid(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::Invalid, message)
    }

    /// The same, because of that part of the request.
    pub fn of(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    /// 422: the body is no such request.
    pub fn unreadable(message: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Invalid, message)
    }

    /// 415: the body is not JSON. Asking for the type also keeps other sites' pages from sending jobs: a browser lets them
    /// send JSON only where this server allowed it.
    pub fn not_json() -> Self {
        let message = "the body must be JSON with the header `Content-Type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::Invalid, message)
    }

    /// 405: there is such an address, but not for this method.
    pub fn method() -> Self {
        let message = "this address does not answer to this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Invalid, message)
    }

    /// 401: who asks is not known.
    pub fn unauthorized(message: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
    }

    /// 403: who asks may not.
    pub fn forbidden(message: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Unauthorized, message)
    }

    /// 421: the request was meant for a server of that name.
    pub fn misdirected(name: &str) -> Self {
        let message = format!("this server is not called {name:?}; if it should be, start it with --name {name}");
        Self::new(StatusCode::MISDIRECTED_REQUEST, ErrorCode::Invalid, message)
    }

    /// 429: one client asks too often.
    pub fn too_often(retry_after_secs: u64) -> Self {
        let message = format!("these are too many requests in a minute; try again in {retry_after_secs} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, message);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 404: no such job, bundle or file.
    pub fn not_found(message: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    /// 413: more bytes than [`MAX_REQUEST_BYTES`].
    pub fn too_large() -> Self {
        let message = format!("the request has more than {} MiB; send smaller pictures", MAX_REQUEST_BYTES >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, message)
    }

    /// 416: the file has no such range.
    pub fn range() -> Self {
        let message = "the file ends before this range; the header Content-Range says where";
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::Invalid, message)
    }

    /// 429: the queue is full.
    pub fn busy(capacity: usize, retry_after_secs: u64) -> Self {
        let message = format!("{capacity} jobs are waiting, and no more may; try again in {retry_after_secs} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, message);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 429: as many jobs of one owner wait as may.
    pub fn enough(most: usize, retry_after_secs: u64) -> Self {
        let message = format!(
            "{most} of your own jobs are waiting, and the other places are for others; try again in {retry_after_secs} s"
        );
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, message);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 429: as many requests as may, or as many of one owner, are just arriving.
    pub fn crowded(retry_after_secs: u64) -> Self {
        let message = format!("the server is reading other requests, or yours; try again in {retry_after_secs} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, message);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 408: the body did not arrive in time.
    pub fn slow(time: Duration) -> Self {
        let message = format!("the request did not arrive within {} s; send smaller pictures", time.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::TooLarge, message)
    }

    /// 503: the server is about to end.
    pub fn stopping() -> Self {
        let ApiError { code, message } = stopping();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// 422: the key was used for another request.
    pub fn key_taken() -> Self {
        let message = "another request was sent under this Idempotency-Key; each needs its own";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Invalid, message)
    }

    /// 503: what is known of jobs cannot be read or written, and the log says why.
    pub fn store(cause: StoreError) -> Self {
        tracing::error!("jobs cannot be kept: {cause}");
        let message = match cause {
            StoreError::Redis(_) | StoreError::Line(_) => {
                "the server does not reach the Redis that keeps the jobs; try again later, and see its log"
            }
            StoreError::Forgotten => "the job that was sent with this key has just been forgotten; send it again",
            _ => "the server cannot write the job down; its disk may be full, and its log says more",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Internal, message)
    }

    /// 409: the job is not that far.
    pub fn not_ready(message: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, ErrorCode::NotReady, message)
    }

    /// 500: logs `cause`, shows none of it.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!("{cause:#}");
        let message = "the server failed; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, message)
    }

    /// A job did not come to its picture.
    pub fn of_job(error: ApiError) -> Self {
        let status = match error.code {
            ErrorCode::Invalid => StatusCode::BAD_REQUEST,
            ErrorCode::Busy => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, body: error, field: None, retry_after_secs: None }
    }

    /// The status of its answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says.
    pub fn body(&self) -> &ApiError {
        &self.body
    }

    /// The part of the request that is wrong, where one is.
    pub fn field(&self) -> Option<&'static str> {
        self.field
    }

    fn new(status: StatusCode, code: ErrorCode, message: impl ToString) -> Self {
        Self { status, body: ApiError { code, message: message.to_string() }, field: None, retry_after_secs: None }
    }
}

/// What a job hears that the server's end cuts off.
pub fn stopping() -> ApiError {
    ApiError { code: ErrorCode::Busy, message: "the server is stopping; send the job again later".into() }
}

/// What a job hears with which the server ended again and again.
pub fn fatal() -> ApiError {
    let message = format!(
        "the server ended {MAX_BEGINNINGS} times while it did this job, which may need more memory than there is; make the \
         picture smaller"
    );
    ApiError { code: ErrorCode::Internal, message }
}

/// What a job hears whose time is over.
pub fn timed_out(time: Duration) -> ApiError {
    let minutes = time.as_secs_f64() / 60.0;
    let message =
        format!("the job was not done within {minutes} minutes; try again with fewer steps, or when less is waiting");
    ApiError { code: ErrorCode::TimedOut, message }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        error.body
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // Basic is taken as well, but a browser that hears of it asks the person for a name and a password, in front of a
            // page that says what to do.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kosmosg\""));
        }
        // For interfaces that tell of failures in another form.
        response.extensions_mut().insert(self);
        response
    }
}

/// An answer about a failure in the form of another interface; any other answer stays.
pub fn in_form(response: Response, form: fn(&Error) -> Value) -> Response {
    let Some(error) = response.extensions().get::<Error>() else { return response };
    let body = Json(form(error)).into_response();
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, body.into_body())
}
