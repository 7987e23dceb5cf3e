//! What comes into the sentence and goes out of it: dropping, pasting, copying, cutting.

use std::ops::Range;
use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{ClipboardEvent, DataTransfer, DragEvent, File, Node};

use super::super::{bitmap, dom, region};
use super::Editor;
use crate::clipboard::{self, Copied, Part};
use crate::draft::{Draft, MAX_PICTURES};
use crate::{js, texts};

mod html;

/// What is being dragged within the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dragged {
    /// The units of the sentence from the first number to before the second.
    Units(usize, usize),
    /// The palette's creature with that number.
    Creature(usize),
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

/// Puts picture files into the sentence, at the caret; what is no picture is refused.
pub fn insert_files(editor: &Rc<Editor>, files: Vec<File>) {
    let units = editor.last.borrow().clone();
    put_files(editor, files, units);
}

/// Puts picture files in the place of some units, as many as there is room for.
fn put_files(editor: &Rc<Editor>, files: Vec<File>, units: Range<usize>) {
    let editor = editor.clone();
    wasm_bindgen_futures::spawn_local(async move {
        let before = editor.draft();
        let (mut images, mut refused) = (Vec::new(), Vec::new());
        let mut brought = None;
        for file in files {
            let number = editor.pictures.count() + 1;
            match bitmap::admit(&file, &file.name()).await {
                Ok(picture) => {
                    let name = picture_name(&file.name(), number);
                    images.push(editor.pictures.add(&name, picture.mime, picture.bytes.clone()));
                    brought = Some(picture.bytes);
                }
                Err(why) => refused.push(why),
            }
        }
        if !refused.is_empty() {
            editor.refuse(&refused.join(" "));
        }
        put_images(&editor, images, units, &before);
        if let Some(file) = brought {
            (editor.events.brought)(&file);
        }
    });
}

/// Puts pictures in the place of some units of the sentence as it was, as many as there is room for.
fn put_images(editor: &Rc<Editor>, mut images: Vec<ImageRef>, units: Range<usize>, before: &Draft) {
    let units = still(editor, units, before);
    let mut draft = editor.draft();
    let room = MAX_PICTURES.saturating_sub(draft.images().len() - draft.slice(units.clone()).images().len());
    if images.len() > room {
        editor.refuse(&texts::too_many_pictures(MAX_PICTURES));
        images.truncate(room);
    }
    if images.is_empty() {
        return;
    }
    let names = images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut pictures = Draft::default();
    for image in images {
        let end = pictures.len();
        pictures.insert_spaced(end..end, Draft::picture(image));
    }
    let caret = draft.insert_spaced(units, pictures);
    let count = draft.images().len();
    if editor.change(draft, caret) {
        (editor.events.inserted)(&texts::inserted(&names, count));
    }
}

/// Puts words and pictures in the place of some units.
fn put_parts(editor: &Rc<Editor>, parts: Vec<Part>, units: Range<usize>) {
    let editor = editor.clone();
    wasm_bindgen_futures::spawn_local(async move {
        let before = editor.draft();
        let mut draft = Draft::default();
        for part in parts {
            draft.push(match part {
                Part::Words(words) => Draft::words(&words),
                Part::Picture { name, file } => {
                    let number = editor.pictures.count() + 1;
                    let name = if name.trim().is_empty() { texts::picture_number(number) } else { name };
                    let image = match editor.pictures.known(&name, &file) {
                        Some(image) => Ok(image),
                        // Whoever copied it may have been any page.
                        None => bitmap::admit_bytes(file, &name)
                            .await
                            .map(|picture| editor.pictures.add(&name, picture.mime, picture.bytes)),
                    };
                    match image {
                        Ok(image) => Draft::picture(image),
                        Err(why) => {
                            editor.refuse(&why);
                            Draft::default()
                        }
                    }
                }
            });
        }
        let units = still(&editor, units, &before);
        editor.replace(units, draft);
    });
}

/// Fetches a picture that this page itself has, and puts it in the place of some units.
fn put_address(editor: &Rc<Editor>, address: String, name: String, units: Range<usize>) {
    let editor = editor.clone();
    wasm_bindgen_futures::spawn_local(async move {
        let before = editor.draft();
        let Ok(bytes) = js::fetch(&address).await else { return editor.refuse(texts::PICTURE_ELSEWHERE) };
        let name = if name.trim().is_empty() { texts::picture_number(editor.pictures.count() + 1) } else { name };
        match bitmap::admit_bytes(bytes, &name).await {
            Ok(picture) => {
                let image = editor.pictures.add(&name, picture.mime, picture.bytes);
                put_images(&editor, vec![image], units, &before);
            }
            Err(why) => editor.refuse(&why),
        }
    });
}

/// Units of the sentence as it was, or the caret if it is another by now.
fn still(editor: &Editor, units: Range<usize>, before: &Draft) -> Range<usize> {
    if editor.draft() == *before { units } else { editor.last.borrow().clone() }
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

/// Takes in what a transfer brings: a stretch of a sentence, pictures, or words.
fn take(editor: &Rc<Editor>, data: Option<DataTransfer>, units: Range<usize>) {
    let Some(data) = data else { return };
    let text = |kind: &str| data.get_data(kind).unwrap_or_default();
    if let Some(copied) = Copied::from_json(&text(clipboard::TYPE)) {
        return put_parts(editor, copied.into_parts(), units);
    }
    let words = text("text/plain");
    let files = files_of(data.files());
    let names: Vec<String> = files.iter().map(File::name).collect();
    if clipboard::means_files(&words, &names) {
        return put_files(editor, files, units);
    }
    let html = text("text/html");
    let (parts, shown) = if html.is_empty() { Default::default() } else { html::read(&html) };
    if parts.iter().any(|part| matches!(part, Part::Picture { .. })) {
        put_parts(editor, parts, units);
    } else if let Some((address, name)) = shown.filter(|_| clipboard::means_picture(&words)) {
        let own = dom::window().location().origin().unwrap_or_default();
        match address.starts_with("blob:") || address.starts_with(&format!("{own}/")) {
            true => put_address(editor, address, name, units),
            false => editor.refuse(texts::PICTURE_ELSEWHERE),
        }
    } else if !words.is_empty() {
        editor.replace(units, Draft::words(&words));
    }
}

fn copy(editor: &Rc<Editor>, event: &ClipboardEvent) -> Option<Range<usize>> {
    let units = editor.selection().filter(|units| !units.is_empty())?;
    event.prevent_default();
    let draft = editor.draft().slice(units.clone());
    let (_, numbers) = draft.numbered();
    let copied = Copied::new(&draft, editor.pictures.files(&numbers));
    let data = event.clipboard_data()?;
    data.set_data("text/plain", &copied.to_text()).ok()?;
    data.set_data("text/html", &copied.to_html()).ok()?;
    data.set_data(clipboard::TYPE, &copied.to_json()).ok()?;
    Some(units)
}

/// Puts the caret where the pointer is, and returns its unit.
fn put_caret(editor: &Rc<Editor>, event: &DragEvent) -> usize {
    let place = place_at(event.client_x(), event.client_y());
    let unit = match place.filter(|(node, _)| editor.region.contains(Some(node))) {
        Some((node, offset)) => region::unit_at(&editor.region, &node, offset, &editor.pictures),
        None => editor.draft().len(),
    };
    dom::focus(&editor.region);
    editor.select(unit..unit);
    unit
}

/// The place in the document at a point of the window, if the browser tells.
fn place_at(x: i32, y: i32) -> Option<(Node, u32)> {
    // The standard's function, and an older one that some browsers have in its place.
    const FUNCTIONS: [[&str; 3]; 2] =
        [["caretPositionFromPoint", "offsetNode", "offset"], ["caretRangeFromPoint", "startContainer", "startOffset"]];
    let document: JsValue = dom::document().into();
    FUNCTIONS.into_iter().find_map(|[function, node, offset]| {
        let place =
            dom::method(&document, function)?.call2(&document, &x.into(), &y.into()).ok().filter(JsValue::is_object)?;
        Some((dom::get(&place, node)?.dyn_into().ok()?, dom::get(&place, offset)?.as_f64()? as u32))
    })
}

/// What a file is called in the sentence: its name without extension.
pub fn picture_name(file: &str, number: usize) -> String {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem).trim();
    // What browsers call pictures from the clipboard.
    if stem.is_empty() || stem == "image" { texts::picture_number(number) } else { stem.to_owned() }
}
