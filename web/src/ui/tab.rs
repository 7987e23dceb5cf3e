//! A tab's name, under which its work is kept. It lives as long as the tab and outlives reloads; a tab that was duplicated,
//! and so has the same name, takes another. A new tab takes over the name, and so the work, of one that is closed.

use js_sys::{Date, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::Storage;

use super::{device, dom};
use crate::js;

/// What the tab remembers its name under.
const NAME: &str = "tab";
/// How often, and with which pause, it is seen whether the page before has let go of the name.
const TRIES: usize = 10;
const PAUSE_MS: i32 = 60;
/// A tab that was closed so long ago is not opened again.
const FORGOTTEN_MS: f64 = 14.0 * 24.0 * 3600.0 * 1000.0;

/// What the browser remembers for this tab alone, if it remembers anything.
pub fn memory() -> Option<Storage> {
    dom::window().session_storage().ok().flatten()
}

/// The name that the tab has already.
pub fn known() -> Option<String> {
    memory()?.get_item(NAME).ok().flatten()
}

/// Takes the tab's name; a tab that has none takes over the first of those in `left` whose tab is closed. The other name is
/// that under which the pictures of its sentence are.
pub async fn claim(left: &[String]) -> (String, String) {
    let known = known();
    if let Some(known) = &known {
        for _ in 0..TRIES {
            if lock(known).await != Lock::Taken {
                return (known.clone(), known.clone());
            }
            js::sleep(PAUSE_MS).await;
        }
    } else {
        for name in left {
            match lock(name).await {
                Lock::Granted => {
                    remember(name);
                    return (name.clone(), name.clone());
                }
                Lock::Taken => {}
                // Then nobody knows whether the tab is closed.
                Lock::Unknown => break,
            }
        }
    }
    let name = format!("{:x}-{:x}", Date::now() as u64, (js_sys::Math::random() * 4e9) as u32);
    lock(&name).await;
    remember(&name);
    let before = known.unwrap_or_else(|| name.clone());
    (name, before)
}

fn remember(name: &str) {
    if let Some(memory) = memory() {
        // Where it cannot be remembered, nothing outlives a reload.
        let _ = memory.set_item(NAME, name);
    }
}

/// Whether what is kept under a tab's name can go; `used_ms` is when a page last took or used the name, if that is known.
pub async fn is_forgotten(name: &str, used_ms: Option<f64>) -> bool {
    let made = || u64::from_str_radix(name.split('-').next()?, 16).ok();
    let used_ms = used_ms.unwrap_or_else(|| made().unwrap_or_default() as f64);
    // A page may stay open for longer.
    Date::now() - used_ms > FORGOTTEN_MS && lock(name).await != Lock::Taken
}

/// What became of the wish for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// This page has it from now on.
    Granted,
    /// Another page has it.
    Taken,
    /// The browser does not say: it has no locks, or gives none to pages that it does not trust.
    Unknown,
}

/// Takes the lock of a name for as long as the page lives, if nobody has it.
async fn lock(name: &str) -> Lock {
    let Some(locks) = device::navigator("locks") else { return Lock::Unknown };
    let Some(request) = dom::method(&locks, "request") else { return Lock::Unknown };
    let options = Object::new();
    // Setting a property of an ordinary object does not fail.
    let _ = Reflect::set(&options, &"ifAvailable".into(), &true.into());
    let name = format!("kosmos-tab-{name}");
    let answer = Promise::new(&mut |resolve, _| {
        let granted = Closure::once_into_js(move |lock: JsValue| {
            // Resolving cannot fail.
            let _ = resolve.call1(&JsValue::NULL, &(!lock.is_null()).into());
            // It is held until this promise is kept: never.
            Promise::new(&mut |resolve, _| {
                if lock.is_null() {
                    let _ = resolve.call0(&JsValue::NULL);
                }
            })
        });
        let _ = request.call3(&locks, &name.clone().into(), &options, &granted);
    });
    let patience = async {
        js::sleep(1000).await;
        Lock::Unknown
    };
    let answer = async {
        match JsFuture::from(answer).await {
            Ok(granted) if granted.is_truthy() => Lock::Granted,
            Ok(_) | Err(_) => Lock::Taken,
        }
    };
    futures::pin_mut!(patience, answer);
    futures::future::select(answer, patience).await.factor_first().0
}
