//! The dialog in which a picture of the sentence is changed, or a new one is drawn. What it does to pixels is
//! [`Retouch`]'s; this shows them and hears the person.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use wasm_bindgen::JsCast;
use web_sys::{Event, HtmlDialogElement, HtmlElement, HtmlInputElement, KeyboardEvent};

use super::editor::{self, Editor};
use super::{bitmap, dom};
use crate::draft::MAX_SENTENCE_PICTURES;
use crate::retouch::{CutOut, Edge, Frame, Retouch, Sheet};
use crate::texts;
use view::View;
use work::{Work, radius};

mod gestures;
mod view;
mod work;

/// Side of a new drawing.
const PAPER: u32 = 512;
/// Where a file is chosen.
const CHOOSER: &str = "retouch-file";

/// The dialog. See the [module documentation](self).
pub struct RetouchDialog {
    editor: Rc<Editor>,
    dialog: HtmlDialogElement,
    view: View,
    name: HtmlInputElement,
    work: RefCell<Option<Work>>,
    /// Whether the picture is at work, so that nothing is done twice.
    is_busy: Cell<bool>,
    /// The picture that did not come along and for which a file is being chosen, and where it stands.
    missing: Cell<Option<(usize, usize)>>,
}

/// What the dialog is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Frame,
    Cut,
    Draw,
}

impl Tab {
    const ALL: [Self; 3] = [Self::Frame, Self::Cut, Self::Draw];

    fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Cut => "cut",
            Self::Draw => "draw",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Frame => texts::RETOUCH_FRAME_HINT,
            Self::Cut => texts::RETOUCH_CUT_HINT,
            Self::Draw => texts::RETOUCH_DRAW_HINT,
        }
    }
}

impl RetouchDialog {
    /// Takes the dialog over.
    pub fn new(editor: Rc<Editor>) -> Rc<Self> {
        let dialog = Rc::new(Self {
            editor,
            dialog: dom::by_id("retouch"),
            view: View::new(dom::by_id("retouch-view")),
            name: dom::by_id("retouch-name"),
            work: RefCell::new(None),
            is_busy: Cell::new(false),
            missing: Cell::new(None),
        });
        dialog.listen();
        dialog.listen_to_view();
        dialog
    }

    /// Opens the picture that stands at a unit of the sentence. For one that did not come along, a file can be chosen.
    pub fn open(self: &Rc<Self>, unit: usize) {
        let draft = self.editor.draft();
        let Some(image) = draft.only_picture(&(unit..unit + 1)).cloned() else { return };
        if self.editor.pictures.is_missing(image.picture) {
            self.missing.set(Some((image.picture, unit)));
            return dom::by_id::<HtmlElement>(CHOOSER).click();
        }
        let Some((file, mime)) = self.editor.pictures.file(image.picture) else { return };
        let dialog = self.clone();
        self.alone(async move {
            let Some(sheet) = bitmap::sheet_of(&file, &mime).await else {
                return dialog.editor.refuse(texts::RETOUCH_UNREADABLE);
            };
            dialog.begin(Some((image.picture, unit)), &image.name, sheet, Some((mime, file)), Tab::Frame);
        });
    }

    /// Opens white paper, if there is room for a drawing in the sentence.
    pub fn draw(&self) {
        if self.editor.is_full() {
            return self.editor.refuse(&texts::too_many_pictures(MAX_SENTENCE_PICTURES));
        }
        self.begin(None, texts::DRAWING, Sheet::white(PAPER, PAPER), None, Tab::Draw);
    }

    fn begin(
        &self,
        replaced: Option<(usize, usize)>,
        name: &str,
        sheet: Sheet,
        file: Option<(String, Rc<Vec<u8>>)>,
        tab: Tab,
    ) {
        // Not every browser tells that no file was chosen.
        self.missing.set(None);
        let Some(canvas) = bitmap::canvas_of(&sheet) else { return self.editor.refuse(texts::RETOUCH_NO_MEMORY) };
        let retouch = Retouch::new(sheet);
        let files = file.map(|(mime, file)| (retouch.sheet().clone(), mime, file)).into_iter().collect();
        let (pointers, brush) = Default::default();
        let work = Work { replaced, name: name.to_owned(), retouch, canvas, files, pointers, brush };
        self.work.replace(Some(work));
        self.name.set_value(name);
        self.notify("");
        for one in Tab::ALL {
            radio(&format!("[name=retouch-tab][value={}]", one.name())).set_checked(one == tab);
        }
        // A dialog that is open already is where it should be.
        let _ = self.dialog.show_modal();
        self.show();
        self.view.focus();
    }

    /// Does something that takes a while, unless something is being done.
    fn alone(self: &Rc<Self>, deed: impl Future<Output = ()> + 'static) {
        if !self.is_busy.replace(true) {
            let dialog = self.clone();
            wasm_bindgen_futures::spawn_local(async move {
                deed.await;
                dialog.is_busy.set(false);
            });
        }
    }

    fn listen(self: &Rc<Self>) {
        self.on_click("retouch-done", |dialog| dialog.finish());
        self.on_click("retouch-cancel", |dialog| dialog.leave());
        self.on_click("retouch-undo", |dialog| dialog.change(Retouch::undo));
        self.on_click("retouch-redo", |dialog| dialog.change(Retouch::redo));
        self.on_click("retouch-mirror", |dialog| dialog.change(Retouch::mirror));
        self.on_click("retouch-clear", |dialog| dialog.change(Retouch::clear));
        self.on_click("retouch-whole", |dialog| dialog.frame_at_once(Frame::whole));
        self.on_click("retouch-middle", |dialog| dialog.frame_at_once(Frame::middle));
        self.on_click("retouch-cut-now", |dialog| dialog.cut_out());
        let file: HtmlInputElement = dom::by_id(CHOOSER);
        let chooser = file.clone();
        self.on_click("retouch-other", move |_| chooser.click());
        let dialog = self.clone();
        dom::on(&file.clone(), "change", move |_: Event| {
            let files = editor::files_of(file.files());
            // Choosing the same file again is a change again.
            file.set_value("");
            match dialog.missing.take() {
                Some((picture, unit)) => editor::put_in_place_of(&dialog.editor, picture, unit, files),
                None => dialog.take(files),
            }
        });
        let dialog = self.clone();
        dom::on(&self.dialog, "drop", move |event: web_sys::DragEvent| {
            event.prevent_default();
            event.stop_propagation();
            dialog.take(event.data_transfer().map_or(Vec::new(), |data| editor::files_of(data.files())));
        });

        let (dialog, zoom) = (self.clone(), dom::by_id::<HtmlInputElement>("retouch-zoom"));
        dom::on(&zoom.clone(), "input", move |_: Event| {
            let to = zoom.value_as_number();
            dialog.frame(move |frame, size| frame.zoomed(to, size));
        });
        let dialog = self.clone();
        dom::on(&dom::by_id::<HtmlElement>("retouch-zoom"), "change", move |_: Event| dialog.change(Retouch::settle));
        for id in ["retouch-tolerance", "retouch-edge", "retouch-holes"] {
            let dialog = self.clone();
            dom::on(&dom::by_id::<HtmlElement>(id), "input", move |_: Event| dialog.cut_out());
        }
        let dialog = self.clone();
        dom::on(&dom::by_id::<HtmlElement>("retouch-tabs"), "change", move |_: Event| dialog.change(Retouch::settle));
        self.show_colours();

        let dialog = self.clone();
        // Also what is pressed while nothing in the dialog has the focus.
        dom::on(&dom::document(), "keydown", move |event: KeyboardEvent| {
            if dialog.dialog.open() {
                dialog.key(&event);
            }
        });
        let dialog = self.clone();
        dom::on(&self.dialog, "cancel", move |event: Event| {
            // A file dialog that is cancelled says so too.
            if event.target().as_ref() == Some(dialog.dialog.as_ref()) {
                event.prevent_default();
                dialog.leave();
            }
        });
        let dialog = self.clone();
        dom::on(&self.dialog, "close", move |_: Event| {
            // A browser lets the page prevent only the first of several wishes to close: then it is open again and asks.
            if dialog.work.borrow().is_some() {
                // It is closed, and in the document.
                let _ = dialog.dialog.show_modal();
                dialog.view.focus();
                dialog.leave();
            }
        });
        let dialog = self.clone();
        dom::on(&dom::window(), "resize", move |_: Event| dialog.show());
        let dialog = self.clone();
        dom::on(&dom::window(), "beforeunload", move |event: Event| {
            if dialog.has_changes() {
                event.prevent_default();
            }
        });
    }

    /// Whether something would be lost.
    fn has_changes(&self) -> bool {
        self.work.borrow().as_ref().is_some_and(|work| work.retouch.can_undo())
    }

    fn on_click(self: &Rc<Self>, id: &str, handler: impl Fn(&Rc<Self>) + 'static) {
        let dialog = self.clone();
        dom::on(&dom::by_id::<HtmlElement>(id), "click", move |_: Event| handler(&dialog));
    }

    fn key(self: &Rc<Self>, event: &KeyboardEvent) {
        // The page behind hears nothing of it.
        event.stop_propagation();
        let command = (event.ctrl_key() || event.meta_key()) && !event.alt_key();
        let in_name = dom::has_focus(&self.name);
        let is_composing = event.is_composing() || event.key_code() == editor::COMPOSING;
        match event.key().as_str() {
            "Enter" if !is_composing && (command || in_name) => self.finish(),
            // Left to the browser, it would close the dialog the second time, whatever the answer was the first time.
            "Escape" if !is_composing => self.leave(),
            "z" | "Z" if command && !in_name && event.shift_key() => self.change(Retouch::redo),
            "z" | "Z" if command && !in_name => self.change(Retouch::undo),
            "y" | "Y" if command && !in_name => self.change(Retouch::redo),
            _ => return,
        }
        event.prevent_default();
    }

    fn show_colours(self: &Rc<Self>) {
        let shown: HtmlElement = dom::by_id("retouch-colours");
        for (number, (name, [red, green, blue])) in texts::COLOURS.iter().enumerate() {
            let label: HtmlElement = dom::create("label", "");
            dom::set_attribute(&label, "title", name);
            let choice: HtmlInputElement = dom::create("input", "");
            for (attribute, value) in
                [("type", "radio"), ("name", "retouch-colour"), ("aria-label", name), ("value", &number.to_string())]
            {
                dom::set_attribute(&choice, attribute, value);
            }
            choice.set_checked(number == 0);
            let swatch: HtmlElement = dom::create("span", "");
            // A colour is a valid value.
            let _ = swatch.style().set_property("background", &format!("rgb({red} {green} {blue})"));
            for part in [choice.as_ref(), &swatch] {
                let part: &HtmlElement = part;
                label.append_child(part).expect("a new element takes children");
            }
            shown.append_child(&label).expect("an element of the page takes children");
        }
        // Whoever picks a colour does not mean to erase with it.
        dom::on(&shown, "change", |_: Event| {
            if radio("[name=retouch-tool]:checked").value() == "eraser" {
                radio("[name=retouch-tool][value=brush]").set_checked(true);
            }
        });
    }

    /// Changes the picture, and shows it.
    fn change(&self, change: impl FnOnce(&mut Retouch)) {
        if let Some(work) = &mut *self.work.borrow_mut() {
            change(&mut work.retouch);
            work.refresh();
        }
        self.notify("");
        self.show();
    }

    /// Has the model see another square.
    fn frame(&self, change: impl FnOnce(Frame, (u32, u32)) -> Frame) {
        if let Some(work) = &mut *self.work.borrow_mut() {
            let frame = change(work.retouch.frame(), work.retouch.sheet().size());
            work.retouch.set_frame(frame);
        }
        self.show();
    }

    fn frame_at_once(&self, frame: fn((u32, u32)) -> Frame) {
        self.change(Retouch::settle);
        self.frame(|_, size| frame(size));
        self.change(Retouch::settle);
    }

    fn cut_out(&self) {
        let is_checked = |id: &str| dom::by_id::<HtmlInputElement>(id).checked();
        let how = CutOut {
            tolerance: dom::by_id::<HtmlInputElement>("retouch-tolerance").value_as_number() as f32,
            edge: if is_checked("retouch-edge") { Edge::Soft } else { Edge::Sharp },
            has_holes: is_checked("retouch-holes"),
        };
        let mut kept = 0.0;
        self.change(|retouch| kept = retouch.cut_out(&how));
        self.notify(match kept {
            kept if kept < 0.002 => texts::RETOUCH_NOTHING_LEFT,
            kept if kept > 0.998 => texts::RETOUCH_NOTHING_GOES,
            _ => "",
        });
    }

    /// Puts another file's picture in the place of this one.
    fn take(self: &Rc<Self>, files: Vec<web_sys::File>) {
        let Some(file) = files.into_iter().next() else { return };
        let dialog = self.clone();
        self.alone(async move {
            let picture = match bitmap::admit(&file, &file.name()).await {
                Ok(picture) => picture,
                Err(why) => return dialog.notify(&why),
            };
            let Some(sheet) = bitmap::sheet_of(&picture.bytes, picture.mime).await else {
                return dialog.notify(texts::RETOUCH_UNREADABLE);
            };
            let name = editor::picture_name(&file.name(), dialog.editor.pictures.count() + 1);
            dialog.change(|retouch| retouch.replace(sheet));
            if let Some(work) = &mut *dialog.work.borrow_mut() {
                let file = (work.retouch.sheet().clone(), picture.mime.to_owned(), Rc::new(picture.bytes));
                work.files.push(file);
                // A name that the person has given stays.
                if dialog.name.value() == work.name {
                    dialog.name.set_value(&name);
                    work.name = name;
                }
            }
        });
    }

    /// Closes, if what was changed need not be kept.
    fn leave(&self) {
        if !self.has_changes() || dom::window().confirm_with_message(texts::RETOUCH_DISCARD).unwrap_or(true) {
            let work = self.work.take();
            self.dialog.close();
            // A click in the dialog has taken the selection away.
            if let Some((picture, unit)) = work.and_then(|work| work.replaced) {
                self.editor.select_picture(picture, unit);
            }
        }
    }

    /// Puts the picture into the sentence.
    fn finish(self: &Rc<Self>) {
        let dialog = self.clone();
        self.alone(async move {
            let Some(work) = dialog.work.take() else { return };
            let name = dialog.name.value().trim().to_owned();
            let is_new = work.replaced.is_none();
            if is_new && !work.retouch.can_undo() {
                return dialog.dialog.close();
            }
            let name = if name.is_empty() { work.name.clone() } else { name };
            let image = work.image(&name, &dialog.editor).await.ok_or_else(|| texts::RETOUCH_NO_MEMORY.to_owned());
            let image = match image.and_then(|image| dialog.editor.admit(image, work.replaced)) {
                Ok(image) => image,
                Err(why) => {
                    dialog.work.replace(Some(work));
                    return dialog.notify(&why);
                }
            };
            dialog.dialog.close();
            match work.replaced {
                Some((picture, unit)) => dialog.editor.put_in_place(picture, unit, image),
                None => {
                    dialog.editor.insert(image);
                    dialog.editor.focus();
                }
            }
        });
    }

    /// Shows how things are.
    fn show(&self) {
        let work = self.work.borrow();
        let Some(work) = &*work else { return };
        let tab = tab();
        for one in Tab::ALL {
            dom::show(&format!("retouch-{}", one.name()), one == tab);
        }
        dom::set_text(&dom::by_id::<HtmlElement>("retouch-hint"), tab.hint());
        dom::set_attribute(&self.dialog, "data-tab", tab.name());
        let (frame, size) = (work.retouch.frame(), work.retouch.sheet().size());
        let zoom: HtmlInputElement = dom::by_id("retouch-zoom");
        zoom.set_value_as_number(frame.zoom(size));
        let seen = format!("{:.0} %", 100.0 * f64::from(size.0.min(size.1)) / frame.side);
        dom::set_attribute(&zoom, "aria-valuetext", &seen);
        for (id, is_of_use) in [("retouch-undo", work.retouch.can_undo()), ("retouch-redo", work.retouch.can_redo())] {
            dom::set_flag(&dom::by_id::<HtmlElement>(id), "disabled", !is_of_use);
        }
        let brush = work.brush.filter(|_| tab == Tab::Draw).map(|(at, is_down)| (at, radius(frame), is_down));
        self.view.show(&work.canvas.0, frame, tab == Tab::Frame, brush);
    }

    fn notify(&self, message: &str) {
        dom::tell_line("retouch-notice", message);
    }
}

fn tab() -> Tab {
    let chosen = radio("[name=retouch-tab]:checked").value();
    Tab::ALL.into_iter().find(|tab| tab.name() == chosen).unwrap_or(Tab::Frame)
}

/// The field that a selector finds.
fn radio(css: &str) -> HtmlInputElement {
    let found = dom::document().query_selector(css).ok().flatten();
    found.and_then(|field| field.dyn_into().ok()).unwrap_or_else(|| panic!("index.html has no {css}"))
}
