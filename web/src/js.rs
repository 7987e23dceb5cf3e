//! What the page's main thread and its workers need from the browser alike.

use js_sys::{Array, ArrayBuffer, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{DomException, Response};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = fetch)]
    fn js_fetch(address: &str) -> Promise;
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(handler: &Function, milliseconds: i32);
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

/// Milliseconds of a clock that only goes forward.
pub fn now_ms() -> f64 {
    performance_now()
}

/// Says something to developers.
pub fn log_error(text: &str) {
    console_error(text);
}

/// Lets the browser do what else there is to do, and goes on after that time.
pub async fn sleep(milliseconds: i32) {
    let promise = Promise::new(&mut |resolve, _| set_timeout(&resolve, milliseconds));
    // A promise that is only ever resolved.
    let _ = JsFuture::from(promise).await;
}

/// The contents of a file of the page's own server.
///
/// # Errors
/// Why it cannot be fetched, for people.
pub async fn fetch(address: &str) -> Result<Vec<u8>, String> {
    let response = JsFuture::from(js_fetch(address)).await.map_err(|error| text_of(&error))?;
    let response: Response = response.dyn_into().map_err(|_| "no response".to_owned())?;
    if !response.ok() {
        return Err(format!("{} {}", response.status(), response.status_text()));
    }
    bytes_of(&response).await
}

/// The rest of a response.
///
/// # Errors
/// Why it cannot be read, for people.
pub async fn bytes_of(response: &Response) -> Result<Vec<u8>, String> {
    let buffer = response.array_buffer().map_err(|error| text_of(&error))?;
    let buffer = JsFuture::from(buffer).await.map_err(|error| text_of(&error))?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// An error, for people.
pub fn text_of(error: &JsValue) -> String {
    if let Some(error) = error.dyn_ref::<DomException>() {
        return error.message();
    }
    if let Some(error) = error.dyn_ref::<js_sys::Error>() {
        return error.message().into();
    }
    error.as_string().unwrap_or_else(|| format!("{error:?}"))
}

/// A message for `postMessage`, and what it transfers: JSON and, beside it, binary data.
pub fn pack(json: &str, data: Vec<Vec<u8>>) -> (JsValue, Array) {
    let buffers: Array = data.iter().map(|bytes| Uint8Array::from(bytes.as_slice()).buffer()).collect();
    let message = Object::new();
    // Setting a property of a fresh object does not fail.
    let _ = Reflect::set(&message, &JSON.into(), &json.into());
    let _ = Reflect::set(&message, &DATA.into(), &buffers);
    (message.into(), buffers)
}

/// What [`pack`] packed; `None` if it is something else.
pub fn unpack(message: &JsValue) -> Option<(String, Vec<Vec<u8>>)> {
    let json = Reflect::get(message, &JSON.into()).ok()?.as_string()?;
    let data = Reflect::get(message, &DATA.into()).ok()?.dyn_into::<Array>().ok()?;
    Some((json, bytes_of_each(&data)))
}

/// The contents of the `ArrayBuffer`s in an array; others are left out.
pub fn bytes_of_each(buffers: &Array) -> Vec<Vec<u8>> {
    let buffers = buffers.iter().filter(|buffer| buffer.is_instance_of::<ArrayBuffer>());
    buffers.map(|buffer| Uint8Array::new(&buffer).to_vec()).collect()
}

const JSON: &str = "json";
const DATA: &str = "data";
/// Where a message carries files, beside what [`pack`] packs.
pub const FILES: &str = "files";
