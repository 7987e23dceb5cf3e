//! What the browser says about this device.

use js_sys::{Function, Promise, Reflect};
use kosmosg::placement::Gpu;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::dom;
use crate::app::Adapter;

/// WebAssembly addresses no more than this; the rest of 4 GiB is for what is computed.
const MOST_CPU_MEMORY: f64 = 3e9;
/// What to assume where the browser does not tell.
const USUAL_MEMORY: f64 = 4e9;

/// The GPU, if WebGPU has one.
pub async fn adapter() -> Option<Adapter> {
    let gpu = get(&dom::window().navigator().into(), "gpu")?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into().ok()?;
    let promise: Promise = request.call0(&gpu).ok()?.dyn_into().ok()?;
    let adapter = JsFuture::from(promise).await.ok().filter(|adapter| !adapter.is_null())?;
    let limits = get(&adapter, "limits")?;
    let limit = |name: &str| get(&limits, name).and_then(|limit| limit.as_f64()).unwrap_or_default() as u64;
    let info = get(&adapter, "info").unwrap_or(JsValue::NULL);
    let is_fallback = |of: &JsValue| get(of, "isFallbackAdapter").is_some_and(|flag| flag.is_truthy());
    let architecture = get(&info, "architecture").and_then(|text| text.as_string()).unwrap_or_default();
    Some(Adapter {
        limits: Gpu {
            max_buffer_size: limit("maxBufferSize"),
            max_storage_buffer_binding_size: limit("maxStorageBufferBindingSize"),
            memory_bytes: (memory() / 2.0) as u64,
        },
        is_emulated: is_fallback(&info) || is_fallback(&adapter) || architecture == "swiftshader",
    })
}

/// Memory that weights may take on the processor: an estimate.
pub fn cpu_memory_bytes() -> u64 {
    (memory() / 2.0).min(MOST_CPU_MEMORY) as u64
}

/// The device's memory in bytes; browsers round it and never tell more than 8 GiB.
fn memory() -> f64 {
    let gigabytes = get(&dom::window().navigator().into(), "deviceMemory").and_then(|memory| memory.as_f64());
    gigabytes.map_or(USUAL_MEMORY, |gigabytes| gigabytes * 1e9)
}

fn get(object: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(object, &name.into()).ok().filter(|value| !value.is_undefined())
}
