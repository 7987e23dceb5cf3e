//! The model in a Web Worker.
//!
//! Requests are carried out one after the other. Between two denoising steps the browser gets its turn, so that a
//! cancellation is heard.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use js_sys::{Array, Reflect};
use kosmosg::noise;
use wasm_bindgen::prelude::*;
use web_sys::{DedicatedWorkerGlobalScope, File, MessageEvent};

use crate::js;
use crate::messages::{Envelope, Fault, Reply, Request};

use keeper::Keeper;
use model::{Failure, Model, Report};

mod device;
mod files;
mod keeper;
mod measure;
mod model;
mod origin;
mod storage;
mod verify;

// What libraries register before a program starts. The linker makes this function; if nothing called it, each call from
// JavaScript would run all of it again, which took most of the time of a step on the GPU.
#[cfg(feature = "worker-gpu")]
unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Starts to listen, and says so.
#[wasm_bindgen]
pub fn start() {
    // SAFETY: page and worker share nothing, and this is called once, before anything that needs it.
    #[cfg(feature = "worker-gpu")]
    unsafe {
        __wasm_call_ctors();
    }
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
    files: Vec<File>,
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
        // Whoever writes the next sentence while a picture is made is not to wait for it.
        if let Request::Tokenize { prompt, negative } = &body {
            let reading = self.model.borrow().as_ref().and_then(|model| model.read(prompt, negative));
            return post(request, Reply::Tokenized { reading: reading.unwrap_or_default() }, Vec::new());
        }
        self.queue.borrow_mut().push_back(Task { request, body, data, files: files_of(message) });
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
            if matches!(task.body, Request::Encode { .. } | Request::Denoise { .. }) {
                // That nobody waits for it any more may have come while another was answered.
                js::sleep(0).await;
                if self.cancelled.borrow_mut().remove(&request) {
                    post(request, Reply::Cancelled, Vec::new());
                    continue;
                }
            }
            if let Err(Failure { fault, message }) = self.answer(task).await {
                post(request, Reply::Failed { fault, message }, Vec::new());
            }
            self.cancelled.borrow_mut().remove(&request);
        }
        self.is_busy.set(false);
    }

    async fn answer(&self, Task { request, body, data, files }: Task) -> Result<(), Failure> {
        match body {
            Request::Load { source, manifest, memory_bytes } => {
                let started = js::now_ms();
                // What an earlier one took is needed.
                self.model.replace(None);
                let model = Model::open(source, manifest, memory_bytes, loading(request)).await?;
                let (device, wrong_kernels) = (model.device_name().to_owned(), model.wrong_kernels());
                self.model.replace(Some(Rc::new(model)));
                let seconds = (js::now_ms() - started) / 1000.0;
                post(request, Reply::Ready { device, seconds, wrong_kernels }, Vec::new());
            }
            Request::Encode { prompt, negative } => {
                let condition = self.model()?.encode(&prompt, &data, &negative, loading(request)).await?;
                post(request, Reply::Encoded { condition }, Vec::new());
            }
            Request::Denoise { condition, state, recipe, fail_at_step } => {
                let mut run = self.model()?.run(&condition, state, fail_at_step, loading(request)).await?;
                while let Some(reply) = run.step().await? {
                    post(request, reply, Vec::new());
                    if let Some((preview, png)) = run.preview().await? {
                        post(request, preview, vec![png]);
                    }
                    js::sleep(0).await;
                    if self.is_cancelled(request) {
                        post(request, Reply::Cancelled, Vec::new());
                        return Ok(());
                    }
                }
                let picture = run.picture().await?;
                post(request, Reply::Picture, vec![picture.to_png(Some(&recipe))]);
            }
            Request::NoiseHash { seed, stream, count } => {
                let hash = noise::fingerprint(&noise::gaussian(seed, stream, count));
                post(request, Reply::NoiseHash { hash }, Vec::new());
            }
            Request::TestKernels { impossible } => {
                let rows = verify::kernels(impossible).await?;
                post(request, Reply::Verified { rows }, Vec::new());
            }
            Request::Verify { files } => {
                let rows = verify::rows(files.into_iter().zip(data).collect()).await?;
                post(request, Reply::Verified { rows }, Vec::new());
            }
            Request::Memory => {
                let memory: js_sys::WebAssembly::Memory = wasm_bindgen::memory().unchecked_into();
                let bytes = memory.buffer().unchecked_into::<js_sys::ArrayBuffer>().byte_length().into();
                post(request, Reply::Memory { bytes }, Vec::new());
            }
            Request::Measure { rows, size, packing, times } => {
                let seconds = measure::linear(rows, size, packing, times).await?;
                post(request, Reply::Measured { seconds }, Vec::new());
            }
            Request::Kept | Request::Install { .. } | Request::Check { .. } | Request::Remove { .. } => {
                return self.keep(request, body, files).await;
            }
            // They are carried out when they come.
            Request::Cancel | Request::Tokenize { .. } => {}
        }
        Ok(())
    }

    async fn keep(&self, request: u64, body: Request, files: Vec<File>) -> Result<(), Failure> {
        let report = |reply| post(request, reply, Vec::new());
        let keeper = Keeper { report: &report, stops: &|| self.is_cancelled(request) };
        let done = match body {
            Request::Install { supply, scope } => keeper.install(supply, scope, files).await,
            Request::Check { key } => keeper.check(&key).await,
            Request::Remove { key } => keeper.remove(&key).await,
            _ => Ok(()),
        };
        if self.is_cancelled(request) {
            report(Reply::Cancelled);
            return Ok(());
        }
        done?;
        report(keeper.list().await?);
        Ok(())
    }

    fn is_cancelled(&self, request: u64) -> bool {
        self.cancelled.borrow().contains(&request)
    }

    fn model(&self) -> Result<Rc<Model>, Failure> {
        let missing = || Failure { fault: Fault::Bundle, message: "the model is not loaded".into() };
        self.model.borrow().clone().ok_or_else(missing)
    }
}

/// The files that a message carries.
fn files_of(message: &JsValue) -> Vec<File> {
    let files = Reflect::get(message, &js::FILES.into()).ok().and_then(|files| files.dyn_into::<Array>().ok());
    files.map_or(Vec::new(), |files| files.iter().filter_map(|file| file.dyn_into().ok()).collect())
}

/// Reports how far a stage's loading is.
fn loading(request: u64) -> Report {
    Rc::new(move |bytes, of| post(request, Reply::Loading { bytes, of }, Vec::new()))
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
