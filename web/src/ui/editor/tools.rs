//! What stands around the sentence: buttons for undo and redo, and a small bar at a picture that is selected.

use std::rc::Rc;

use wasm_bindgen::JsCast;
use web_sys::{Element, Event, HtmlElement, KeyboardEvent, MouseEvent};

use super::super::{dom, region};
use super::{Editor, Travel};
use crate::draft::Draft;
use crate::{js, texts};

/// Fields with an undo of their own, and that take what is pasted.
pub(super) const FIELDS: &str =
    "input:not([type=checkbox], [type=radio], [type=range]), textarea, [contenteditable], dialog";
/// Pixels between a picture and its bar.
const GAP: f64 = 8.0;

/// Listens to the buttons and to the keys that do the same from anywhere in the page.
pub fn listen(editor: &Rc<Editor>) {
    for (id, way) in [("undo", Travel::Undo), ("redo", Travel::Redo)] {
        let editor = editor.clone();
        dom::on(&dom::by_id::<HtmlElement>(id), "click", move |event: Event| editor.travel(&event, way));
    }
    let at = editor.clone();
    dom::on(&dom::window(), "keydown", move |event: KeyboardEvent| {
        let has_own = dom::closest(&event, FIELDS).is_some();
        let is_command = (event.ctrl_key() || event.meta_key()) && !event.alt_key();
        if !is_command || has_own || event.default_prevented() {
            return;
        }
        if way_of(&event) == Some(Travel::Undo) && (at.events.undo_elsewhere)() {
            event.prevent_default();
        } else {
            at.history_key(&event);
        }
    });

    let on = |id: &str, deed: fn(&Editor, usize)| {
        let editor = editor.clone();
        dom::on(&dom::by_id::<HtmlElement>(id), "click", move |_: Event| {
            if let Some(unit) = editor.selected_picture() {
                deed(&editor, unit);
            }
        });
    };
    on("chip-change", |editor, unit| (editor.events.change)(unit));
    on("chip-remove", |editor, unit| {
        editor.replace(unit..unit + 1, Draft::default());
        editor.focus_on(unit..unit);
    });
    let (tools, at): (HtmlElement, _) = (dom::by_id("chip-tools"), editor.clone());
    dom::on(&tools, "keydown", move |event: KeyboardEvent| {
        if event.key() == "Escape" {
            event.stop_propagation();
            at.focus();
        }
    });
    // A press on the bar must not take the selection away, as some browsers let it.
    dom::on(&tools, "mousedown", |event: MouseEvent| event.prevent_default());
    let at = editor.clone();
    dom::on(&editor.region, "focusin", move |_: Event| at.show_tools());
    for target in [&editor.region, &tools] {
        let editor = editor.clone();
        dom::on(target, "focusout", move |_: Event| {
            let editor = editor.clone();
            // While the focus changes it is nowhere, and what is hidden then cannot get it.
            wasm_bindgen_futures::spawn_local(async move {
                js::sleep(0).await;
                editor.show_tools();
            });
        });
    }
    let at = editor.clone();
    dom::on(&dom::window(), "resize", move |_: Event| at.show_tools());
    let at = editor.clone();
    dom::on(&editor.region, "dblclick", move |event: Event| {
        let target = event.target().and_then(|target| target.dyn_into().ok());
        if let Some(chip) = target.and_then(|node| region::chip_at(&node)) {
            event.prevent_default();
            (at.events.change)(at.unit_of(&chip));
        }
    });
    editor.show_history();
}

impl Editor {
    /// Goes through the history if the key says so.
    pub(super) fn history_key(&self, event: &KeyboardEvent) {
        if let Some(way) = way_of(event) {
            self.travel(event, way);
        }
    }

    /// Shows whether there is something to undo and to redo.
    pub(super) fn show_history(&self) {
        let history = self.history.borrow();
        let buttons = [("undo", history.can_undo()), ("redo", history.can_redo())];
        drop(history);
        let buttons = buttons.map(|(id, is_of_use)| (dom::by_id::<HtmlElement>(id), is_of_use));
        let loses_focus = |(button, is_of_use): &&(HtmlElement, bool)| !is_of_use && dom::has_focus(button);
        let had_focus = buttons.iter().any(|button| loses_focus(&button));
        for (button, is_of_use) in &buttons {
            dom::set_flag(button, "disabled", !is_of_use);
        }
        // A button that is switched off under one's fingers would leave the keyboard nowhere.
        if let Some((other, _)) = buttons.iter().find(|(_, is_of_use)| had_focus && *is_of_use) {
            dom::focus(other);
        }
    }

    /// The unit of the only picture that is selected, while the person is at it.
    pub(super) fn picture_with_tools(&self) -> Option<usize> {
        let has_focus = |element: &HtmlElement| dom::has_focus(element);
        self.selected_picture().filter(|_| has_focus(&self.region) || has_focus(&dom::by_id("chip-tools")))
    }

    /// Shows the bar at the only picture that is selected, or hides it.
    pub(super) fn show_tools(&self) {
        let tools: HtmlElement = dom::by_id("chip-tools");
        let unit = self.picture_with_tools();
        let chip = unit.and_then(|unit| region::chip_of(&self.region, unit, &self.pictures));
        let is_new = tools.has_attribute("hidden");
        dom::show("chip-tools", chip.is_some());
        let Some(chip) = chip else { return };
        let name = chip.get_attribute("title").unwrap_or_default();
        dom::set_attribute(&tools, "aria-label", &texts::picture_label(&name));
        if is_new {
            (self.events.inserted)(&texts::selected(&name));
        }
        self.place(&tools, &chip);
    }

    /// Above the picture, or below it where there is no room or only another row of the sentence above.
    fn place(&self, tools: &HtmlElement, chip: &Element) {
        let Some(around) = tools.offset_parent() else { return };
        let (around, at) = (around.get_bounding_client_rect(), chip.get_bounding_client_rect());
        let (width, height) = (f64::from(tools.offset_width()), f64::from(tools.offset_height()));
        let left = at.left() + (at.width() - width) / 2.0 - around.left();
        let left = left.min(around.width() - width).max(0.0);
        let above = at.top() - GAP - height;
        let sentence = self.region.get_bounding_client_rect();
        let is_first_row = at.top() - sentence.top() < at.height();
        let is_last_row = sentence.bottom() - at.bottom() < at.height();
        let is_above = above >= 0.0 && (is_first_row || !is_last_row);
        let top = if is_above { above } else { at.bottom() + GAP };
        let style = tools.style();
        for (property, value) in [("left", left), ("top", top - around.top())] {
            // A length is a valid value.
            let _ = style.set_property(property, &format!("{value:.1}px"));
        }
    }
}

/// Which way through the history a key with Ctrl or Command means.
fn way_of(event: &KeyboardEvent) -> Option<Travel> {
    match event.key().as_str() {
        "z" | "Z" if event.shift_key() => Some(Travel::Redo),
        "z" | "Z" => Some(Travel::Undo),
        "y" | "Y" => Some(Travel::Redo),
        _ => None,
    }
}
