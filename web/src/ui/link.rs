//! The page's end of its workers.

use std::rc::Rc;

use js_sys::{Array, Reflect};
use wasm_bindgen::prelude::*;
use web_sys::{ErrorEvent, Event, File, HtmlElement, MessageEvent, Worker, WorkerOptions, WorkerType};

use super::dom;
use crate::messages::{Envelope, Reply, Request};
use crate::{js, texts};

/// A running worker; it ends when this is dropped.
pub struct Link {
    worker: Worker,
    /// The browser calls it as long as the worker lives.
    _listener: Closure<dyn FnMut(MessageEvent)>,
    _errors: Closure<dyn FnMut(Event)>,
}

impl Link {
    /// Starts a worker; `assets` is the address of the programs, its name says which of them it runs. `heard` gets its replies and their binary data, `died` why
    /// its program could not be loaded.
    ///
    /// # Errors
    /// What the browser says.
    pub fn start(
        assets: &str,
        name: &str,
        heard: impl Fn(Envelope<Reply>, Vec<Vec<u8>>) + 'static,
        died: impl Fn(String) + 'static,
    ) -> Result<Self, String> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        // A query would say it as well, but is not in the address under which the file is kept for when there is no network.
        options.set_name(name);
        let worker =
            Worker::new_with_options(&format!("{assets}worker.js"), &options).map_err(|error| js::text_of(&error))?;
        let died = Rc::new(died);
        let dead = died.clone();
        let unloaded = Rc::new(move || {
            // The server may have a newer version of the page, and this one's programs no more.
            let event = Event::new("unloaded").expect("an event has a name");
            // It fails only for an event that is on its way already.
            let _ = dom::by_id::<HtmlElement>("app").dispatch_event(&event);
            dead(texts::WORKER_NOT_LOADED.into());
        });
        let is_gone = unloaded.clone();
        let receive = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let Some((json, data)) = js::unpack(&event.data()) else { return };
            // As bytes, like everything here: for texts there would be all of the readers' code once more.
            match kosmosg::json::read(json.as_bytes()) {
                // So says one whose program could not be fetched.
                Ok(Envelope { body: Reply::Died { message }, .. }) if message.is_empty() => unloaded(),
                Ok(envelope) => heard(envelope, data),
                Err(error) => js::log_error(&format!("a message that is not understood: {error}")),
            }
        });
        worker.set_onmessage(Some(receive.as_ref().unchecked_ref()));
        let errors = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
            // A program that could not be fetched is an event without words.
            let words = event.dyn_ref::<ErrorEvent>().map(ErrorEvent::message).filter(|words| !words.is_empty());
            words.map_or_else(|| is_gone(), |words| died(words));
        });
        worker.set_onerror(Some(errors.as_ref().unchecked_ref()));
        Ok(Self { worker, _listener: receive, _errors: errors })
    }

    /// Sends a request, its binary data, and files.
    pub fn send(&self, message: &Envelope<Request>, data: Vec<Vec<u8>>, files: &[File]) {
        let json = serde_json::to_string(message).expect("requests are plain data");
        self.send_json(&json, data, files);
    }

    /// Like [`send`](Self::send), with the message in JSON.
    pub fn send_json(&self, json: &str, data: Vec<Vec<u8>>, files: &[File]) {
        let (message, transfer) = js::pack(json, data);
        // Setting a property of an ordinary object does not fail.
        let _ = Reflect::set(&message, &js::FILES.into(), &files.iter().collect::<Array>());
        if let Err(error) = self.worker.post_message_with_transfer(&message, &transfer) {
            js::log_error(&js::text_of(&error));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.terminate();
    }
}
