//! What browser tests ask beyond what a person sees: `kosmosg` in the window.
//!
//! `await kosmosg.ask("cpu", '{"noise_hash":{"seed":1,"stream":0,"count":1000}}', [])` sends a request to a worker that is
//! ready, with binary data, and gives its last reply: `{ json, data }`.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;

use super::{Page, dom};
use crate::app::Processor;
use crate::js;
use crate::messages::{Envelope, Reply};

/// Requests of tests are numbered from here, out of the way of the page's own.
const FIRST: u64 = 1 << 40;

thread_local! {
    /// Who waits for the reply to each of them.
    static WAITING: RefCell<Vec<Option<Function>>> = const { RefCell::new(Vec::new()) };
}

/// Puts the hooks into the window.
pub fn install(page: &Rc<Page>) {
    let page = page.clone();
    let ask = Closure::<dyn FnMut(String, String, Array) -> Promise>::new(
        move |worker: String, json: String, data: Array| {
            let data = js::bytes_of_each(&data);
            let page = page.clone();
            Promise::new(&mut move |resolve, reject| {
                if let Err(why) = send(&page, &worker, &json, data.clone(), resolve) {
                    // Rejecting cannot fail.
                    let _ = reject.call1(&JsValue::NULL, &js_sys::Error::new(&why));
                }
            })
        },
    );
    let hooks = Object::new();
    // Setting properties of ordinary objects does not fail.
    let _ = Reflect::set(&hooks, &"ask".into(), ask.as_ref());
    let _ = Reflect::set(&dom::window(), &"kosmosg".into(), &hooks);
    ask.forget();
}

/// Takes a reply, if it is to a test; `false` if it is the page's.
pub fn heard(message: &Envelope<Reply>, data: &[Vec<u8>]) -> bool {
    let Some(number) = message.request.checked_sub(FIRST) else { return false };
    if message.body.is_last()
        && let Some(resolve) = WAITING.with_borrow_mut(|waiting| waiting.get_mut(number as usize)?.take())
    {
        let json = serde_json::to_string(&message.body).unwrap_or_default();
        let (reply, _) = js::pack(&json, data.to_vec());
        // Resolving cannot fail.
        let _ = resolve.call1(&JsValue::NULL, &reply);
    }
    true
}

fn send(page: &Page, worker: &str, json: &str, data: Vec<Vec<u8>>, resolve: Function) -> Result<(), String> {
    let processor = Processor::ALL.into_iter().find(|processor| processor.name() == worker);
    let processor = processor.ok_or_else(|| format!("no worker {worker:?}"))?;
    let links = page.links.borrow();
    let link = links[processor as usize].as_ref().ok_or_else(|| format!("the worker {worker:?} does not run"))?;
    let request = WAITING.with_borrow_mut(|waiting| {
        waiting.push(Some(resolve));
        FIRST + waiting.len() as u64 - 1
    });
    link.send_json(&format!(r#"{{"request":{request},"body":{json}}}"#), data, &[]);
    Ok(())
}
