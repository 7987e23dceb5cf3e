//! What the model reads of the sentence, told when writing pauses.

use std::cell::Cell;
use std::rc::Rc;

use web_sys::HtmlElement;

use super::dom;
use crate::app::App;
use crate::{js, texts};

/// A pause in writing.
const PAUSE_MS: i32 = 500;

/// Calls `paused` when writing pauses, in the sentence or in the negative prompt.
pub fn watch(paused: impl Fn() + 'static) {
    let (changes, paused) = (Rc::new(Cell::new(0_u64)), Rc::new(paused));
    let changed = move || {
        let now = changes.get() + 1;
        changes.set(now);
        let (changes, paused) = (changes.clone(), paused.clone());
        wasm_bindgen_futures::spawn_local(async move {
            js::sleep(PAUSE_MS).await;
            if changes.get() == now {
                paused();
            }
        });
    };
    let negative: HtmlElement = dom::by_id("negative");
    let typed = changed.clone();
    dom::on(&negative, "input", move |_: web_sys::Event| typed());
    // Whatever changes the sentence changes its view.
    dom::on_change_within(&dom::by_id::<HtmlElement>("prompt"), changed);
}

/// Shows what the model reads.
pub fn show(app: &App) {
    let reading = app.reading();
    dom::show("reading", reading.is_some());
    let text = reading.map_or(String::new(), |reading| texts::reading(reading.tokens, reading.longest));
    dom::set_text(&dom::by_id::<HtmlElement>("reading-line"), &text);
    let meter: web_sys::HtmlProgressElement = dom::by_id("reading-meter");
    if let Some(reading) = reading {
        meter.set_value(reading.tokens as f64 / reading.longest as f64);
    }

    let mut lines = Vec::new();
    if let Some(reading) = reading {
        let longer = reading.tokens.max(reading.negative_tokens);
        lines.extend(reading.is_too_long().then(|| texts::too_long(longer, reading.longest)));
        lines.extend((!reading.unknown.is_empty()).then(|| texts::unknown_words(&reading.unknown)));
    }
    let unknown: HtmlElement = dom::by_id("unknown");
    dom::set_text(&unknown, &lines.join(" "));
}
