//! What comes into the sentence and goes out of it: dropping, pasting, copying, cutting.

use std::rc::Rc;

use js_sys::{Function, Reflect};
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{ClipboardEvent, DataTransfer, DragEvent, File, Node};

use super::super::{dom, region};
use super::Editor;
use crate::draft::Draft;
use crate::texts;

/// What is being dragged within the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dragged {
    /// The units of the sentence from the first number to before the second.
    Units(usize, usize),
    /// The palette's creature with that number.
    Creature(usize),
}

/// Pictures are known by numbers within a visit, so that a copy means something in this visit only.
const COPY_TYPE: &str = "application/x-kosmosg-prompt";

/// A copied stretch of the sentence.
#[derive(Serialize, Deserialize)]
struct Copied {
    /// When this visit began, which tells it from others.
    visit: f64,
    document: kosmosg::prompt::PromptDocument,
}

/// Listens to drag and clipboard.
pub fn listen(editor: &Rc<Editor>) {
    let region = &editor.region;
    let on = |name: &str, handler: fn(&Rc<Editor>, &DragEvent)| {
        let editor = editor.clone();
        dom::on(region, name, move |event: DragEvent| handler(&editor, &event));
    };
    on("dragstart", start);
    on("dragend", |editor, _| editor.drag(None));
    on("dragover", over);
    on("drop", drop);
    let on = |name: &str, handler: fn(&Rc<Editor>, &ClipboardEvent)| {
        let editor = editor.clone();
        dom::on(region, name, move |event: ClipboardEvent| handler(&editor, &event));
    };
    on("paste", paste);
    on("copy", |editor, event| _ = copy(editor, event));
    on("cut", |editor, event| {
        if let Some(units) = copy(editor, event) {
            editor.replace(units, Draft::default());
        }
    });
}

/// Puts picture files into the sentence, one after the other; what is no picture is refused.
pub fn insert_files(editor: &Rc<Editor>, files: Vec<File>) {
    let editor = editor.clone();
    wasm_bindgen_futures::spawn_local(async move {
        for file in files {
            let mime = file.type_();
            if !matches!(mime.as_str(), "image/png" | "image/jpeg" | "image/webp") {
                editor.refuse(&texts::not_a_picture(&file.name()));
                continue;
            }
            let Ok(buffer) = JsFuture::from(file.array_buffer()).await else {
                editor.refuse(&texts::not_a_picture(&file.name()));
                continue;
            };
            let number = editor.pictures.count() + 1;
            let bytes = js_sys::Uint8Array::new(&buffer).to_vec();
            let image = editor.pictures.add(&picture_name(&file.name(), number), &mime, bytes.clone());
            editor.insert(image);
            (editor.events.brought)(&bytes);
        }
    });
}

/// The files of a transfer or a file dialog.
pub fn files_of(list: Option<web_sys::FileList>) -> Vec<File> {
    list.map_or(Vec::new(), |list| (0..list.length()).filter_map(|i| list.get(i)).collect())
}

fn start(editor: &Rc<Editor>, event: &DragEvent) {
    let target = event.target().and_then(|target| target.dyn_into::<Node>().ok());
    let Some(chip) = target.and_then(|node| region::chip_at(&node)) else {
        // The browser brings the selected words along by itself.
        let selected = editor.selection().filter(|units| !units.is_empty());
        return editor.drag(selected.map(|units| Dragged::Units(units.start, units.end)));
    };
    let unit = editor.unit_of(&chip);
    editor.drag(Some(Dragged::Units(unit, unit + 1)));
    if let Some(data) = event.data_transfer() {
        data.set_effect_allowed("move");
        // Without data some browsers do not drag at all.
        let _ = data.set_data("text/plain", &chip.get_attribute("title").unwrap_or_default());
    }
}

/// Shows where it would be dropped: the caret goes there.
fn over(editor: &Rc<Editor>, event: &DragEvent) {
    event.prevent_default();
    let dragged = *editor.dragged.borrow();
    if let Some(data) = event.data_transfer() {
        data.set_drop_effect(if matches!(dragged, Some(Dragged::Units(..))) { "move" } else { "copy" });
    }
    put_caret(editor, event);
}

fn drop(editor: &Rc<Editor>, event: &DragEvent) {
    event.prevent_default();
    let unit = put_caret(editor, event);
    let dragged = editor.dragged.borrow_mut().take();
    match dragged {
        Some(Dragged::Units(start, end)) => {
            let mut draft = editor.draft();
            let caret = draft.move_to(start..end, unit);
            editor.change(draft, caret);
        }
        Some(Dragged::Creature(number)) => (editor.events.creature)(number),
        None => take(editor, event.data_transfer(), unit..unit),
    }
}

fn paste(editor: &Rc<Editor>, event: &ClipboardEvent) {
    event.prevent_default();
    let selection = editor.selection().unwrap_or_default();
    take(editor, event.clipboard_data(), selection);
}

/// Takes in what a transfer brings: a stretch of this very sentence, pictures, or words.
fn take(editor: &Rc<Editor>, data: Option<DataTransfer>, units: std::ops::Range<usize>) {
    let Some(data) = data else { return };
    let text = |kind: &str| data.get_data(kind).unwrap_or_default();
    let copied = serde_json::from_str::<Copied>(&text(COPY_TYPE)).ok().filter(|copied| copied.visit == visit());
    let files = files_of(data.files());
    if let Some(copied) = copied {
        editor.replace(units, Draft::from_document(&copied.document));
    } else if files.is_empty() {
        editor.replace(units, Draft::words(&text("text/plain")));
    } else {
        editor.replace(units, Draft::default());
        insert_files(editor, files);
    }
}

fn copy(editor: &Rc<Editor>, event: &ClipboardEvent) -> Option<std::ops::Range<usize>> {
    let units = editor.selection().filter(|units| !units.is_empty())?;
    event.prevent_default();
    let document = editor.draft().slice(units.clone()).to_document();
    let data = event.clipboard_data()?;
    data.set_data("text/plain", &document.to_text()).ok()?;
    let json = serde_json::to_string(&Copied { visit: visit(), document }).ok()?;
    data.set_data(COPY_TYPE, &json).ok()?;
    Some(units)
}

/// Puts the caret where the pointer is, and returns its unit.
fn put_caret(editor: &Rc<Editor>, event: &DragEvent) -> usize {
    let place = place_at(event.client_x(), event.client_y());
    let unit = match place.filter(|(node, _)| editor.region.contains(Some(node))) {
        Some((node, offset)) => region::unit_at(&editor.region, &node, offset, &editor.pictures),
        None => editor.draft().len(),
    };
    // Focusing cannot fail on an element of the page.
    let _ = editor.region.focus();
    editor.select(unit..unit);
    unit
}

/// The place in the document at a point of the window, if the browser tells.
fn place_at(x: i32, y: i32) -> Option<(Node, u32)> {
    // The standard's function, and an older one that some browsers have in its place.
    const FUNCTIONS: [[&str; 3]; 2] =
        [["caretPositionFromPoint", "offsetNode", "offset"], ["caretRangeFromPoint", "startContainer", "startOffset"]];
    let document: JsValue = dom::document().into();
    let get = |object: &JsValue, name: &str| Reflect::get(object, &name.into()).ok();
    FUNCTIONS.into_iter().find_map(|[function, node, offset]| {
        let function: Function = get(&document, function)?.dyn_into().ok()?;
        let place = function.call2(&document, &x.into(), &y.into()).ok().filter(JsValue::is_object)?;
        Some((get(&place, node)?.dyn_into().ok()?, get(&place, offset)?.as_f64()? as u32))
    })
}

fn visit() -> f64 {
    dom::window().performance().map_or(0.0, |performance| performance.time_origin())
}

/// What a file is called in the sentence: its name without extension.
fn picture_name(file: &str, number: usize) -> String {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem).trim();
    // What browsers call pictures from the clipboard.
    if stem.is_empty() || stem == "image" { texts::picture_number(number) } else { stem.to_owned() }
}
