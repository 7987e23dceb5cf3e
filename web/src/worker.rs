//! The model in a Web Worker.
//!
//! Requests are carried out one after the other. Between two denoising steps the browser gets its turn, so that a
//! cancellation is heard.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use kosmosg::noise;
use wasm_bindgen::prelude::*;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

use crate::js;
use crate::messages::{Envelope, Fault, Reply, Request};

use model::{Failure, Model};

mod device;
mod model;
mod verify;

/// Starts to listen, and says so.
#[wasm_bindgen]
pub fn start() {
    let worker = Rc::new(Worker::default());
    std::panic::set_hook(Box::new(|panic| {
        js::log_error(&panic.to_string());
        post(0, Reply::Died { message: panic.to_string() }, Vec::new());
    }));
    let listener = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| worker.receive(&event.data()));
    scope().set_onmessage(Some(listener.as_ref().unchecked_ref()));
    listener.forget();
    post(0, Reply::Started, Vec::new());
}

#[derive(Default)]
struct Worker {
    queue: RefCell<VecDeque<Task>>,
    is_busy: Cell<bool>,
    cancelled: RefCell<BTreeSet<u64>>,
    model: RefCell<Option<Rc<Model>>>,
}

/// A request with its binary data.
struct Task {
    request: u64,
    body: Request,
    data: Vec<Vec<u8>>,
}

impl Worker {
    fn receive(self: &Rc<Self>, message: &JsValue) {
        let Some((json, data)) = js::unpack(message) else { return };
        let Envelope { request, body } = match serde_json::from_str(&json) {
            Ok(envelope) => envelope,
            Err(error) => return js::log_error(&format!("a message that is not understood: {error}")),
        };
        if body == Request::Cancel {
            self.cancelled.borrow_mut().insert(request);
            return;
        }
        self.queue.borrow_mut().push_back(Task { request, body, data });
        if !self.is_busy.replace(true) {
            let worker = self.clone();
            wasm_bindgen_futures::spawn_local(async move { worker.work().await });
        }
    }

    async fn work(&self) {
        loop {
            let task = self.queue.borrow_mut().pop_front();
            let Some(task) = task else { break };
            let request = task.request;
            if let Err(Failure { fault, message }) = self.answer(task).await {
                post(request, Reply::Failed { fault, message }, Vec::new());
            }
            self.cancelled.borrow_mut().remove(&request);
        }
        self.is_busy.set(false);
    }

    async fn answer(&self, Task { request, body, data }: Task) -> Result<(), Failure> {
        match body {
            Request::Load { base, manifest } => {
                let started = js::now_ms();
                let report = |bytes, of| post(request, Reply::Loading { bytes, of }, Vec::new());
                let model = Model::load(&base, manifest, report).await?;
                let device = model.device_name().to_owned();
                self.model.replace(Some(Rc::new(model)));
                let seconds = (js::now_ms() - started) / 1000.0;
                post(request, Reply::Ready { device, seconds }, Vec::new());
            }
            Request::Encode { prompt, negative } => {
                let condition = self.model()?.encode(&prompt, &data, &negative).await?;
                post(request, Reply::Encoded { condition }, Vec::new());
            }
            Request::Denoise { condition, state, recipe, fail_at_step } => {
                let mut run = self.model()?.run(&condition, state, fail_at_step)?;
                while let Some(reply) = run.step().await? {
                    post(request, reply, Vec::new());
                    if let Some((preview, png)) = run.preview().await? {
                        post(request, preview, vec![png]);
                    }
                    js::sleep(0).await;
                    if self.cancelled.borrow().contains(&request) {
                        post(request, Reply::Cancelled, Vec::new());
                        return Ok(());
                    }
                }
                let picture = run.picture().await?;
                post(request, Reply::Picture, vec![picture.to_png(Some(&recipe))]);
            }
            Request::Stamp { recipe } => {
                let picture = model::picture(data.first().map_or(&[], Vec::as_slice))?;
                post(request, Reply::Stamped, vec![picture.to_png(Some(&recipe))]);
            }
            Request::NoiseHash { seed, stream, count } => {
                let hash = noise::fingerprint(&noise::gaussian(seed, stream, count));
                post(request, Reply::NoiseHash { hash }, Vec::new());
            }
            Request::Verify { files } => {
                let rows = verify::rows(files.into_iter().zip(data).collect()).await?;
                post(request, Reply::Verified { rows }, Vec::new());
            }
            Request::Cancel => {}
        }
        Ok(())
    }

    fn model(&self) -> Result<Rc<Model>, Failure> {
        let missing = || Failure { fault: Fault::Bundle, message: "the model is not loaded".into() };
        self.model.borrow().clone().ok_or_else(missing)
    }
}

fn post(request: u64, body: Reply, data: Vec<Vec<u8>>) {
    let json = serde_json::to_string(&Envelope { request, body }).expect("replies are plain data");
    let (message, transfer) = js::pack(&json, data);
    if let Err(error) = scope().post_message_with_transfer(&message, &transfer) {
        js::log_error(&js::text_of(&error));
    }
}

fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().dyn_into().expect("this module runs in a dedicated worker")
}
