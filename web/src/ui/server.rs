//! The page's end of its server.

use std::cell::Cell;
use std::rc::Rc;

use kosmosg::protocol::{ApiError, BundleEntry, Health, JobCreated, JobEvent, JobRequest};
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Event, EventSource, MessageEvent, Request, RequestInit, Response};

use super::dom;
use crate::js;

/// How the server is, if there is one.
pub async fn health() -> Option<Health> {
    let json = js::fetch("health").await.ok()?;
    serde_json::from_slice(&json).ok()
}

/// The models that the server offers; none if there is no server.
pub async fn bundles() -> Vec<BundleEntry> {
    let json = js::fetch("api/bundles").await.unwrap_or_default();
    serde_json::from_slice(&json).unwrap_or_default()
}

/// Gives a job to the server.
///
/// # Errors
/// Why it does not take it, for people.
pub async fn post(job: &JobRequest) -> Result<JobCreated, String> {
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_body(&serde_json::to_string(job).map_err(|error| error.to_string())?.into());
    let request = Request::new_with_str_and_init("api/jobs", &init).map_err(|error| js::text_of(&error))?;
    let json = "application/json";
    request.headers().set("Content-Type", json).map_err(|error| js::text_of(&error))?;
    answer(request).await
}

/// Something of a job, as JSON.
///
/// # Errors
/// Why it cannot be had, for people.
pub async fn get<T: DeserializeOwned>(id: &str, what: &str) -> Result<T, String> {
    let request = Request::new_with_str(&format!("api/jobs/{id}{what}")).map_err(|error| js::text_of(&error))?;
    answer(request).await
}

/// The picture of a job, a PNG file.
///
/// # Errors
/// Why it cannot be had, for people.
pub async fn picture(id: &str) -> Result<Vec<u8>, String> {
    js::fetch(&format!("api/jobs/{id}/result")).await
}

/// Cancels a job. It may be over already, or the server gone: then there is nothing to cancel.
pub async fn delete(id: &str) {
    let init = RequestInit::new();
    init.set_method("DELETE");
    if let Ok(request) = Request::new_with_str_and_init(&format!("api/jobs/{id}"), &init) {
        let _ = JsFuture::from(dom::window().fetch_with_request(&request)).await;
    }
}

/// The events of a job, until it is over or this is dropped.
pub struct Events {
    source: EventSource,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _error: Closure<dyn FnMut(Event)>,
}

impl Events {
    /// Listens to a job.
    ///
    /// # Errors
    /// What the browser says.
    pub fn follow(id: &str, event: impl Fn(JobEvent) + 'static, lost: impl Fn() + 'static) -> Result<Self, String> {
        let source = EventSource::new(&format!("api/jobs/{id}/events")).map_err(|error| js::text_of(&error))?;
        let is_over = Rc::new(Cell::new(false));
        let over = is_over.clone();
        let listening = source.clone();
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
            let json = message.data().as_string().unwrap_or_default();
            match serde_json::from_str::<JobEvent>(&json) {
                Ok(heard) => {
                    if heard.is_last() {
                        over.set(true);
                        listening.close();
                    }
                    event(heard);
                }
                Err(error) => js::log_error(&format!("an event that is not understood: {error}")),
            }
        });
        source.set_onmessage(Some(message.as_ref().unchecked_ref()));
        let listening = source.clone();
        let error = Closure::<dyn FnMut(Event)>::new(move |_: Event| {
            if !is_over.replace(true) {
                listening.close();
                lost();
            }
        });
        source.set_onerror(Some(error.as_ref().unchecked_ref()));
        Ok(Self { source, _message: message, _error: error })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.source.close();
    }
}

async fn answer<T: DeserializeOwned>(request: Request) -> Result<T, String> {
    let response = JsFuture::from(dom::window().fetch_with_request(&request)).await;
    let response: Response = response.map_err(|_| crate::texts::SERVER_GONE.to_owned())?.unchecked_into();
    let body = js::bytes_of(&response).await?;
    if response.ok() {
        return serde_json::from_slice(&body).map_err(|error| error.to_string());
    }
    let error = serde_json::from_slice::<ApiError>(&body);
    Err(error.map_or_else(|_| format!("{} {}", response.status(), response.status_text()), |error| error.message))
}
