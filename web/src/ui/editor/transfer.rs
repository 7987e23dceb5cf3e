//! What comes into the sentence and goes out of it: dropping, pasting, copying, cutting.

use std::ops::Range;
use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{ClipboardEvent, DataTransfer, DragEvent, File, Node};

use super::super::{bitmap, dom, region};
use super::tools::FIELDS;
use super::{Editor, Place};
use crate::clipboard::{self, Copied, Part};
use crate::draft::{Draft, MAX_SENTENCE_PICTURES};
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
    on("copy", |editor, event| _ = copy(editor, event));
    on("cut", |editor, event| {
        if let Some(units) = copy(editor, event) {
            editor.replace(units, Draft::default());
        }
    });
    let editor = editor.clone();
    dom::on(&dom::window(), "paste", move |event: ClipboardEvent| {
        let field = dom::closest(&event, FIELDS);
        // What is pasted nowhere is meant for the sentence.
        if field.is_none_or(|field| field.is_same_node(Some(&editor.region))) && !dom::has_dialog() {
            paste(&editor, &event);
        }
    });
}

/// Puts picture files into the sentence, at the caret; what is no picture is refused.
pub fn insert_files(editor: &Rc<Editor>, files: Vec<File>) {
    put_files(editor, files, editor.hold());
}

/// Puts picture files in the place of a picture, which stood at `unit` when the person was asked for them.
pub fn put_in_place_of(editor: &Rc<Editor>, picture: usize, unit: usize, files: Vec<File>) {
    editor.select_picture(picture, unit);
    insert_files(editor, files);
}

/// Puts picture files into a place, as many as there is room for.
fn put_files(editor: &Rc<Editor>, files: Vec<File>, place: Place) {
    let editor = editor.clone();
    wasm_bindgen_futures::spawn_local(async move {
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
        editor.settled().await;
        put_images(&editor, images, &place);
        if let Some(file) = brought {
            (editor.events.brought)(&file);
        }
    });
}

/// Puts pictures into a place, as many as there is room for.
fn put_images(editor: &Rc<Editor>, mut images: Vec<ImageRef>, place: &Place) {
    let draft = editor.draft();
    let replaced = draft.slice(editor.units_of(place)).images().len();
    let room = MAX_SENTENCE_PICTURES.saturating_sub(draft.images().len() - replaced);
    if images.len() > room {
        editor.refuse(&texts::too_many_pictures(MAX_SENTENCE_PICTURES));
        editor.let_go(&images.split_off(room));
    }
    if images.is_empty() {
        return;
    }
    let names: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
    let mut pictures = Draft::default();
    for image in images {
        let end = pictures.len();
        pictures.insert_spaced(end..end, Draft::picture(image));
    }
    if editor.fill(place, pictures) {
        editor.tell_inserted(&names.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Puts words and pictures into a place.
fn put_parts(editor: &Rc<Editor>, parts: Vec<Part>, place: Place) {
    let editor = editor.clone();
    wasm_bindgen_futures::spawn_local(async move {
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
        editor.settled().await;
        if draft.images().is_empty() {
            editor.replace(editor.units_of(&place), draft);
        } else {
            editor.fill(&place, draft);
        }
    });
}

/// Fetches a picture that this page itself has, and puts it into a place.
fn put_address(editor: &Rc<Editor>, address: String, name: String, place: Place) {
    let editor = editor.clone();
    wasm_bindgen_futures::spawn_local(async move {
        let Ok(bytes) = js::fetch(&address).await else { return editor.refuse(texts::PICTURE_ELSEWHERE) };
        let name = if name.trim().is_empty() { texts::picture_number(editor.pictures.count() + 1) } else { name };
        match bitmap::admit_bytes(bytes, &name).await {
            Ok(picture) => {
                let image = editor.pictures.add(&name, picture.mime, picture.bytes);
                editor.settled().await;
                put_images(&editor, vec![image], &place);
            }
            Err(why) => editor.refuse(&why),
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
    aim(editor, event);
}

fn drop(editor: &Rc<Editor>, event: &DragEvent) {
    event.prevent_default();
    let units = aim(editor, event);
    let dragged = editor.dragged.borrow_mut().take();
    match dragged {
        Some(Dragged::Units(start, end)) => {
            let mut draft = editor.draft();
            let caret = draft.move_to(start..end, units);
            editor.change(draft, caret);
        }
        Some(Dragged::Creature(number)) => (editor.events.creature)(number),
        None => take(editor, event.data_transfer(), units),
    }
}

fn paste(editor: &Rc<Editor>, event: &ClipboardEvent) {
    event.prevent_default();
    let selection = editor.selection().unwrap_or_else(|| editor.last.borrow().clone());
    take(editor, event.clipboard_data(), selection);
    editor.come_into_view();
}

/// Takes in what a transfer brings: a stretch of a sentence, pictures, or words.
fn take(editor: &Rc<Editor>, data: Option<DataTransfer>, units: Range<usize>) {
    let Some(data) = data else { return };
    let place = editor.hold_units(units.clone());
    let text = |kind: &str| data.get_data(kind).unwrap_or_default();
    if let Some(copied) = Copied::from_json(&text(clipboard::TYPE)) {
        return put_parts(editor, copied.into_parts(), place);
    }
    let words = text("text/plain");
    let files = files_of(data.files());
    let names: Vec<String> = files.iter().map(File::name).collect();
    if clipboard::means_files(&words, &names) {
        return put_files(editor, files, place);
    }
    let html = text("text/html");
    let (parts, shown) = if html.is_empty() { Default::default() } else { html::read(&html) };
    let has_pictures = parts.iter().any(|part| matches!(part, Part::Picture { .. }));
    match shown {
        Some((address, name)) if !has_pictures && clipboard::means_picture(&words) => {
            let own = dom::window().location().origin().unwrap_or_default();
            match address.starts_with("blob:") || address.starts_with(&format!("{own}/")) {
                true => return put_address(editor, address, name, place),
                false => return editor.refuse(texts::PICTURE_ELSEWHERE),
            }
        }
        // The words come in, and what stood between them does not.
        Some(_) => editor.refuse(texts::PICTURE_ELSEWHERE),
        None => {}
    }
    if has_pictures {
        put_parts(editor, parts, place);
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

/// Puts the caret where the pointer is, and returns the units that a drop replaces: a picture under the pointer that is
/// missing, which is selected then, or none at a place where what is dropped cuts no word apart.
fn aim(editor: &Rc<Editor>, event: &DragEvent) -> Range<usize> {
    let units = missing_at(editor, event).unwrap_or_else(|| {
        let place = place_at(event.client_x(), event.client_y());
        let draft = editor.draft();
        let unit = match place.filter(|(node, _)| editor.region.contains(Some(node))) {
            Some((node, offset)) => region::unit_at(&editor.region, &node, offset, &editor.pictures),
            None => draft.len(),
        };
        // What is dropped where it comes from stays there.
        let is_there =
            matches!(*editor.dragged.borrow(), Some(Dragged::Units(start, end)) if (start..=end).contains(&unit));
        let unit = if is_there || brings_only_words(editor, event) { unit } else { draft.nearest_gap(unit) };
        unit..unit
    });
    dom::focus(&editor.region);
    editor.select(units.clone());
    units
}

/// The units of the picture under the pointer, if it is one that did not come along.
fn missing_at(editor: &Editor, event: &DragEvent) -> Option<Range<usize>> {
    let chip = region::chip_at(&event.target()?.dyn_into::<Node>().ok()?)?;
    let unit = editor.unit_of(&chip);
    let picture = editor.draft().only_picture(&(unit..unit + 1))?.picture;
    editor.pictures.is_missing(picture).then_some(unit..unit + 1)
}

/// Whether what comes from elsewhere is words, which go exactly where they are dropped, as in any text.
fn brings_only_words(editor: &Editor, event: &DragEvent) -> bool {
    let types = event.data_transfer().map(|data| data.types()).unwrap_or_default();
    let has = |kind: &str| types.includes(&kind.into(), 0);
    editor.dragged.borrow().is_none() && has("text/plain") && !has("Files") && !has(clipboard::TYPE)
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
