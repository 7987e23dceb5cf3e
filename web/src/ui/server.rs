//! The page's end of its server.

use js_sys::Array;
use kosmosg::protocol::{BundleEntry, Health, JobCreated, JobEvent, JobRequest};
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Event, EventSource, MessageEvent, RequestInit, Response};

use super::dom;
use crate::app::{self, Refusal};
use crate::js;

/// How long a server may take to answer what needs no computing.
const ANSWER_MS: u32 = 30_000;
/// The same where it first has to receive and check something: it waits half a minute for a body to arrive.
const ANSWER_TO_POST_MS: u32 = 60_000;

/// How the server is, if there is one.
pub async fn health() -> Option<Health> {
    get("health").await.ok()
}

/// The models that the server offers.
///
/// # Errors
/// Why it does not say.
pub async fn bundles() -> Result<Vec<BundleEntry>, Refusal> {
    get("api/bundles").await
}

/// Gives a job to the server.
///
/// # Errors
/// Why it does not take it.
pub async fn submit(job: &JobRequest) -> Result<JobCreated, Refusal> {
    post("api/jobs", &serde_json::to_string(job).map_err(|error| Refusal::Other(error.to_string()))?).await
}

/// What an address answers to JSON.
///
/// # Errors
/// Why it does not.
pub async fn post<T: DeserializeOwned>(address: &str, json: &str) -> Result<T, Refusal> {
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_headers(&Array::of1(&Array::of2(&"Content-Type".into(), &"application/json".into())));
    init.set_body(&json.into());
    read(&ask(address, &init, ANSWER_TO_POST_MS).await?)
}

/// What an address says, as JSON.
///
/// # Errors
/// Why it cannot be had.
pub async fn get<T: DeserializeOwned>(address: &str) -> Result<T, Refusal> {
    read(&file(address).await?)
}

/// What is at an address.
///
/// # Errors
/// Why it cannot be had.
pub async fn file(address: &str) -> Result<Vec<u8>, Refusal> {
    ask(address, &RequestInit::new(), ANSWER_MS).await
}

/// Cancels a job. It may be over already, or the server gone: then at most a picture is made that nobody fetches.
pub async fn delete(id: &str) {
    let init = RequestInit::new();
    init.set_method("DELETE");
    let _ = ask(&format!("api/jobs/{id}"), &init, ANSWER_MS).await;
}

/// The events of a job, until it is over or this is dropped.
pub struct Events {
    source: EventSource,
    _open: Closure<dyn FnMut(Event)>,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _error: Closure<dyn FnMut(Event)>,
}

impl Events {
    /// Listens to a job; `happened` hears what happens to it, and to the line.
    ///
    /// # Errors
    /// What the browser says.
    pub fn follow(id: &str, happened: impl Fn(app::Event) + Clone + 'static) -> Result<Self, String> {
        let source = EventSource::new(&format!("api/jobs/{id}/events")).map_err(|error| js::text_of(&error))?;
        let (job, came) = (id.to_owned(), happened.clone());
        let open = Closure::<dyn FnMut(Event)>::new(move |_: Event| came(app::Event::ServerCame { id: job.clone() }));
        source.set_onopen(Some(open.as_ref().unchecked_ref()));

        let (job, heard, listening) = (id.to_owned(), happened.clone(), source.clone());
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
            let json = message.data().as_string().unwrap_or_default();
            match kosmosg::json::read::<JobEvent>(json.as_bytes()) {
                Ok(event) => {
                    // Otherwise the browser connects again when the stream ends.
                    if event.is_last() {
                        listening.close();
                    }
                    heard(app::Event::Remote { id: job.clone(), event: Box::new(event) });
                }
                Err(error) => js::log_error(&format!("an event that is not understood: {error}")),
            }
        });
        source.set_onmessage(Some(message.as_ref().unchecked_ref()));

        let (id, listening) = (id.to_owned(), source.clone());
        let error = Closure::<dyn FnMut(Event)>::new(move |_: Event| {
            let id = id.clone();
            happened(match listening.ready_state() {
                EventSource::CONNECTING => app::Event::ServerWent { id },
                // It was answered with something else, and is not told what: whoever asks is.
                _ => app::Event::Told { id, answer: Err(Refusal::Away) },
            });
        });
        source.set_onerror(Some(error.as_ref().unchecked_ref()));
        Ok(Self { source, _open: open, _message: message, _error: error })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.source.close();
    }
}

/// Asks the server, and waits so long for the whole of its answer.
async fn ask(address: &str, init: &RequestInit, patience_ms: u32) -> Result<Vec<u8>, Refusal> {
    let patience = AbortSignal::timeout_with_u32(patience_ms);
    init.set_signal(Some(&patience));
    let unanswered = || if patience.aborted() { Refusal::Silent } else { Refusal::Away };
    let response = JsFuture::from(dom::window().fetch_with_str_and_init(address, init)).await;
    let response: Response = response.map_err(|_| unanswered())?.unchecked_into();
    let body = js::bytes_of(&response).await.map_err(|_| unanswered())?;
    if response.ok() { Ok(body) } else { Err(Refusal::of(response.status(), &response.status_text(), &body)) }
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    kosmosg::json::read(json).map_err(|error| Refusal::Other(error.to_string()))
}
