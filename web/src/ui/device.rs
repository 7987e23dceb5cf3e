//! What the browser says about this device.

use js_sys::{Array, Promise, Reflect};
use kosmosg::placement::Gpu;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::dom::{self, get, method};
use crate::app::Adapter;
use crate::js;
use crate::messages::Room;
use crate::report::{GpuFacts, NoGpu};

/// WebAssembly addresses no more than this; the rest of 4 GiB is for what is computed.
const MOST_CPU_MEMORY: f64 = 3e9;
/// What to assume where the browser does not tell.
const USUAL_MEMORY: f64 = 4e9;

/// The GPU, if WebGPU has one, or why it has none.
pub async fn gpu() -> Result<GpuFacts, NoGpu> {
    let Some(gpu) = navigator("gpu") else {
        return Err(if is_secure() { NoGpu::NotOffered } else { NoGpu::NotSecure });
    };
    let adapter =
        call(&gpu, "requestAdapter", &Array::new()).await.map_err(|error| NoGpu::Failed(js::text_of(&error)))?;
    if adapter.is_null() || adapter.is_undefined() {
        return Err(NoGpu::NoAdapter);
    }
    let limits = get(&adapter, "limits").unwrap_or(JsValue::NULL);
    let limit = |name: &str| get(&limits, name).and_then(|limit| limit.as_f64()).unwrap_or_default() as u64;
    let info = get(&adapter, "info").unwrap_or(JsValue::NULL);
    let is_fallback = |of: &JsValue| get(of, "isFallbackAdapter").is_some_and(|flag| flag.is_truthy());
    let word = |name: &str| get(&info, name).and_then(|word| word.as_string()).filter(|word| !word.is_empty());
    let names = ["vendor", "architecture", "device", "description"].into_iter().filter_map(word);
    let features = get(&adapter, "features").unwrap_or(JsValue::NULL);
    Ok(GpuFacts {
        name: names.collect::<Vec<_>>().join(" "),
        is_emulated: is_fallback(&info)
            || is_fallback(&adapter)
            || word("architecture").is_some_and(|name| name == "swiftshader"),
        has_f16: method(&features, "has").is_some_and(|has| {
            let answer = has.call1(&features, &"shader-f16".into());
            answer.is_ok_and(|answer| answer.is_truthy())
        }),
        max_buffer_size: limit("maxBufferSize"),
        max_storage_buffer_binding_size: limit("maxStorageBufferBindingSize"),
    })
}

/// The adapter that these facts describe, for placing a model.
pub fn adapter(facts: &GpuFacts) -> Adapter {
    Adapter {
        limits: Gpu {
            max_buffer_size: facts.max_buffer_size,
            max_storage_buffer_binding_size: facts.max_storage_buffer_binding_size,
            memory_bytes: (memory() / 2.0) as u64,
        },
        is_emulated: facts.is_emulated,
    }
}

/// Memory that weights may take on the processor: an estimate.
pub fn cpu_memory_bytes() -> u64 {
    (memory() / 2.0).min(MOST_CPU_MEMORY) as u64
}

/// The device's memory in bytes, if the browser tells; browsers round it and never tell more than 8 GiB.
pub fn memory_bytes() -> Option<f64> {
    Some(navigator("deviceMemory")?.as_f64()? * 1e9)
}

/// How many threads the processor runs at once, if the browser tells.
pub fn threads() -> Option<f64> {
    navigator("hardwareConcurrency")?.as_f64()
}

/// What the browser calls itself.
pub fn user_agent() -> String {
    navigator("userAgent").and_then(|name| name.as_string()).unwrap_or_default()
}

/// Whether the page came in a way that browsers trust.
pub fn is_secure() -> bool {
    get(&dom::window(), "isSecureContext").is_some_and(|flag| flag.is_truthy())
}

/// Width and height of the window, and how many device pixels one of its pixels has.
pub fn window() -> (f64, f64, f64) {
    let number = |name| get(&dom::window(), name).and_then(|number| number.as_f64()).unwrap_or_default();
    (number("innerWidth"), number("innerHeight"), number("devicePixelRatio"))
}

/// What the browser keeps for the page and would keep, and whether it has promised not to remove it.
pub async fn storage() -> (Option<Room>, Option<bool>) {
    let Some(storage) = navigator("storage") else { return (None, None) };
    let estimate = call(&storage, "estimate", &Array::new()).await.ok();
    let bytes = |name| Some(get(estimate.as_ref()?, name)?.as_f64()? as u64);
    let room = bytes("usage").zip(bytes("quota")).map(|(used, most)| Room { used, most });
    let persisted = call(&storage, "persisted", &Array::new()).await.ok().map(|answer| answer.is_truthy());
    (room, persisted)
}

fn memory() -> f64 {
    memory_bytes().unwrap_or(USUAL_MEMORY)
}

/// Something of the navigator that not every browser has.
pub fn navigator(name: &str) -> Option<JsValue> {
    get(&dom::window().navigator(), name)
}

/// Calls a method that promises something, and waits for it.
///
/// # Errors
/// What the browser says, or the name of the method that it does not have.
pub async fn call(object: &JsValue, name: &str, arguments: &Array) -> Result<JsValue, JsValue> {
    let method = method(object, name).ok_or_else(|| JsValue::from_str(name))?;
    let promise = Reflect::apply(&method, object, arguments)?;
    JsFuture::from(promise.unchecked_into::<Promise>()).await
}
