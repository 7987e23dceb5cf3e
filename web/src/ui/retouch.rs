//! The dialog in which a picture of the sentence is changed, or a new one is drawn. What it does to pixels is
//! [`Retouch`]'s; this shows them and hears the person.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use wasm_bindgen::JsCast;
use web_sys::{
    CanvasRenderingContext2d, Event, HtmlCanvasElement, HtmlDialogElement, HtmlElement, HtmlInputElement,
    KeyboardEvent, PointerEvent, WheelEvent,
};

use super::editor::{self, Editor};
use super::{bitmap, dom};
use crate::retouch::{Area, Colour, CutOut, Edge, Frame, Retouch, Sheet};
use crate::texts;
use view::View;

mod view;

/// Side of a new drawing.
const PAPER: u32 = 512;
/// A picture whose shorter side has fewer pixels gets more when it is drawn upon: a line would be steps otherwise.
const COARSE: u32 = 384;
/// Longest side of what comes out, if it is another than what went in.
const LONGEST: f64 = 1024.0;
const WHITE: Colour = [255; 3];
/// How far an arrow key moves the square, as a share of it, and the brush, as a share of what is seen.
const STEP: f64 = 0.02;

/// The dialog. See the [module documentation](self).
pub struct RetouchDialog {
    editor: Rc<Editor>,
    dialog: HtmlDialogElement,
    view: View,
    name: HtmlInputElement,
    work: RefCell<Option<Work>>,
    /// Whether the picture is at work, so that nothing is done twice.
    is_busy: Cell<bool>,
}

/// A picture in the dialog.
struct Work {
    /// The number of the picture that it is to replace, and where that stands; none if it is new.
    replaced: Option<(usize, usize)>,
    /// What it was called.
    name: String,
    retouch: Retouch,
    /// Its pixels, for drawing them.
    canvas: (HtmlCanvasElement, CanvasRenderingContext2d),
    /// Files that came with pixels which may be here still: those need not be written anew.
    files: Vec<(Rc<Sheet>, String, Rc<Vec<u8>>)>,
    /// Fingers, pen or mouse on the picture, and where, in shares of what is seen.
    pointers: Vec<(i32, (f64, f64))>,
    /// Where the keyboard's brush is, in pixels of the picture, and whether it is down.
    brush: Option<((f64, f64), bool)>,
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
        });
        dialog.listen();
        dialog.listen_to_view();
        dialog
    }

    /// Opens the picture that stands at a unit of the sentence.
    pub fn open(self: &Rc<Self>, unit: usize) {
        let draft = self.editor.draft();
        let Some(image) = draft.only_picture(&(unit..unit + 1)).cloned() else { return };
        let Some((file, mime)) = self.editor.pictures.file(image.picture) else { return };
        let dialog = self.clone();
        self.alone(async move {
            let Some(sheet) = bitmap::sheet_of(&file, &mime).await else {
                return dialog.editor.refuse(texts::RETOUCH_UNREADABLE);
            };
            dialog.begin(Some((image.picture, unit)), &image.name, sheet, Some((mime, file)), Tab::Frame);
        });
    }

    /// Opens white paper.
    pub fn draw(&self) {
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
        let file: HtmlInputElement = dom::by_id("retouch-file");
        let chooser = file.clone();
        self.on_click("retouch-other", move |_| chooser.click());
        let dialog = self.clone();
        dom::on(&file.clone(), "change", move |_: Event| {
            let files = editor::files_of(file.files());
            // Choosing the same file again is a change again.
            file.set_value("");
            dialog.take(files);
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
        dom::on(&self.dialog, "keydown", move |event: KeyboardEvent| dialog.key(&event));
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
            // A click in the dialog has taken the selection away.
            if let Some((picture, unit)) = dialog.work.take().and_then(|work| work.replaced) {
                dialog.editor.select_picture(picture, unit);
            }
        });
        let dialog = self.clone();
        dom::on(&dom::window(), "resize", move |_: Event| dialog.show());
    }

    fn on_click(self: &Rc<Self>, id: &str, handler: impl Fn(&Rc<Self>) + 'static) {
        let dialog = self.clone();
        dom::on(&dom::by_id::<HtmlElement>(id), "click", move |_: Event| handler(&dialog));
    }

    fn key(self: &Rc<Self>, event: &KeyboardEvent) {
        // The page behind hears nothing of it.
        event.stop_propagation();
        let command = (event.ctrl_key() || event.meta_key()) && !event.alt_key();
        let in_name = self.name.matches(":focus").unwrap_or(false);
        let is_composing = event.is_composing() || event.key_code() == editor::COMPOSING;
        match event.key().as_str() {
            "Enter" if !is_composing && (command || in_name) => self.finish(),
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
        let has_changes = self.work.borrow().as_ref().is_some_and(|work| work.retouch.can_undo());
        if !has_changes || dom::window().confirm_with_message(texts::RETOUCH_DISCARD).unwrap_or(true) {
            self.dialog.close();
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
            let image = work.image(&name, &dialog.editor).await;
            let replaced = work.replaced;
            let Some(image) = image else {
                dialog.work.replace(Some(work));
                return dialog.notify(texts::RETOUCH_NO_MEMORY);
            };
            dialog.dialog.close();
            match replaced {
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
            dom::set_flag(&dom::by_id::<HtmlElement>(&format!("retouch-{}", one.name())), "hidden", one != tab);
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
        let notice: HtmlElement = dom::by_id("retouch-notice");
        dom::set_flag(&notice, "hidden", message.is_empty());
        dom::set_text(&notice, message);
    }
}

/// What happens on the picture itself.
impl RetouchDialog {
    fn listen_to_view(self: &Rc<Self>) {
        let canvas = self.view.canvas();
        let dialog = self.clone();
        dom::on(canvas, "pointerdown", move |event: PointerEvent| {
            if event.button() == 0 {
                event.prevent_default();
                dialog.view.focus();
                dialog.view.capture(event.pointer_id());
                dialog.touch(&event);
            }
        });
        let dialog = self.clone();
        dom::on(canvas, "pointermove", move |event: PointerEvent| dialog.moved(&event));
        for name in ["pointerup", "pointercancel"] {
            let dialog = self.clone();
            dom::on(canvas, name, move |event: PointerEvent| dialog.let_go(event.pointer_id()));
        }
        let dialog = self.clone();
        dom::on(canvas, "wheel", move |event: WheelEvent| {
            if tab() == Tab::Frame {
                event.prevent_default();
                let factor = (event.delta_y() * if event.delta_mode() == 0 { 0.002 } else { 0.05 }).exp();
                dialog.frame(move |frame, size| frame.with_side(frame.side * factor, size));
            }
        });
        let dialog = self.clone();
        dom::on(canvas, "keydown", move |event: KeyboardEvent| {
            if !event.ctrl_key() && !event.meta_key() && !event.alt_key() && dialog.view_key(&event) {
                event.prevent_default();
            }
        });
        let dialog = self.clone();
        dom::on(canvas, "blur", move |_: Event| {
            dialog.change_work(|work| {
                work.brush = None;
                work.retouch.settle();
            });
        });
    }

    fn change_work(&self, change: impl FnOnce(&mut Work)) {
        if let Some(work) = &mut *self.work.borrow_mut() {
            change(work);
        }
        self.show();
    }

    fn touch(&self, event: &PointerEvent) {
        let at = self.view.share_at(event.client_x(), event.client_y());
        let tab = tab();
        self.change_work(|work| {
            work.brush = None;
            work.pointers.push((event.pointer_id(), at));
            let is_first = work.pointers.len() == 1;
            if tab == Tab::Draw && is_first {
                work.retouch.settle();
                let at = self.view.place_of(at, work.retouch.frame(), false);
                work.apply(at, at);
            }
        });
    }

    fn moved(&self, event: &PointerEvent) {
        let at = self.view.share_at(event.client_x(), event.client_y());
        let tab = tab();
        let is_known = |work: &Work| work.pointers.iter().any(|&(pointer, _)| pointer == event.pointer_id());
        if !self.work.borrow().as_ref().is_some_and(is_known) {
            return;
        }
        self.change_work(|work| {
            let before = work.pointers.clone();
            for (pointer, place) in &mut work.pointers {
                if *pointer == event.pointer_id() {
                    *place = at;
                }
            }
            match tab {
                Tab::Frame => work.drag(&before, &self.view),
                Tab::Cut => {}
                Tab::Draw if before[0].0 == event.pointer_id() && tool() != Tool::Fill => {
                    let frame = work.retouch.frame();
                    let place = |share| self.view.place_of(share, frame, false);
                    let (from, to) = (place(before[0].1), place(at));
                    work.apply(from, to);
                }
                Tab::Draw => {}
            }
        });
    }

    fn let_go(&self, pointer: i32) {
        self.change_work(|work| {
            work.pointers.retain(|&(id, _)| id != pointer);
            if work.pointers.is_empty() {
                work.retouch.settle();
            }
        });
    }

    /// Does what a key says; `false` if it says nothing.
    fn view_key(&self, event: &KeyboardEvent) -> bool {
        let key = event.key();
        let step = if event.shift_key() { 5.0 * STEP } else { STEP };
        let by = match key.as_str() {
            "ArrowLeft" => Some((-step, 0.0)),
            "ArrowRight" => Some((step, 0.0)),
            "ArrowUp" => Some((0.0, -step)),
            "ArrowDown" => Some((0.0, step)),
            _ => None,
        };
        let zoom = |factor: f64| self.frame(|frame, size| frame.with_side(frame.side * factor, size));
        match (tab(), by, key.as_str()) {
            (Tab::Frame, Some((dx, dy)), _) => {
                self.frame(|frame, size| frame.moved(dx * frame.side, dy * frame.side, size));
            }
            (Tab::Frame, None, "+" | "=") => zoom(1.0 / 1.1),
            (Tab::Frame, None, "-") => zoom(1.1),
            (Tab::Draw, Some((dx, dy)), _) => self.change_work(|work| {
                let frame = work.retouch.frame();
                let (from, is_down) = work.brush.unwrap_or((middle(frame), false));
                let to = (
                    (from.0 + dx * frame.side).clamp(frame.x, frame.x + frame.side),
                    (from.1 + dy * frame.side).clamp(frame.y, frame.y + frame.side),
                );
                work.brush = Some((to, is_down));
                if is_down {
                    work.apply(from, to);
                }
            }),
            (Tab::Draw, None, " " | "Enter") => self.change_work(|work| {
                let (at, was_down) = work.brush.unwrap_or((middle(work.retouch.frame()), false));
                let is_down = !was_down && tool() != Tool::Fill;
                work.brush = Some((at, is_down));
                if was_down {
                    work.retouch.settle();
                } else {
                    work.apply(at, at);
                }
            }),
            _ => return false,
        }
        true
    }
}

/// What one draws with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Brush,
    Eraser,
    Fill,
}

impl Work {
    /// Draws or fills, as is chosen, from a place to another in pixels of the picture.
    fn apply(&mut self, from: (f64, f64), to: (f64, f64)) {
        let (width, height) = self.retouch.sheet().size();
        let short = width.min(height);
        let times = COARSE.div_ceil(short).min(bitmap::LONGEST_SHEET / width.max(height)).max(1);
        if short < COARSE
            && times > 1
            && let Some(larger) = bitmap::enlarged(self.retouch.sheet(), times)
        {
            self.retouch.enlarge(larger);
            self.refresh();
            let scaled = |(x, y): (f64, f64)| (x * f64::from(times), y * f64::from(times));
            self.brush = self.brush.map(|(at, is_down)| (scaled(at), is_down));
            return self.apply(scaled(from), scaled(to));
        }
        let radius = radius(self.retouch.frame());
        match tool() {
            Tool::Fill => {
                self.retouch.fill(to, colour());
                self.refresh();
            }
            tool => {
                let colour = if tool == Tool::Eraser { WHITE } else { colour() };
                let area = self.retouch.draw(from, to, radius, colour);
                self.put(area);
            }
        }
    }

    /// Moves the square against one finger, or zooms it between two.
    fn drag(&mut self, before: &[(i32, (f64, f64))], view: &View) {
        let (frame, size) = (self.retouch.frame(), self.retouch.sheet().size());
        let centre = |pointers: &[(i32, (f64, f64))]| {
            let used = &pointers[..pointers.len().min(2)];
            let sum = used.iter().fold((0.0, 0.0), |(x, y), (_, at)| (x + at.0, y + at.1));
            (sum.0 / used.len() as f64, sum.1 / used.len() as f64)
        };
        let spread = |pointers: &[(i32, (f64, f64))]| match pointers {
            [(_, a), (_, b), ..] => (a.0 - b.0).hypot(a.1 - b.1).max(0.01),
            _ => 1.0,
        };
        let frame = frame.with_side(frame.side * spread(before) / spread(&self.pointers), size);
        let from = view.place_of(centre(before), frame, true);
        let to = view.place_of(centre(&self.pointers), frame, true);
        self.retouch.set_frame(frame.moved(from.0 - to.0, from.1 - to.1, size));
    }

    /// Puts all pixels into the canvas.
    fn refresh(&mut self) {
        let sheet = self.retouch.sheet();
        if (self.canvas.0.width(), self.canvas.0.height()) != sheet.size() {
            self.canvas.0.set_width(sheet.size().0);
            self.canvas.0.set_height(sheet.size().1);
        }
        self.put(sheet.area());
    }

    fn put(&self, area: Area) {
        bitmap::put(&self.canvas.1, self.retouch.sheet(), area);
    }

    /// The picture as it is to stand in the sentence. `None` if there is no memory for it.
    async fn image(&self, name: &str, editor: &Editor) -> Option<ImageRef> {
        let sheet = self.retouch.sheet();
        let (frame, middle) = (self.retouch.frame(), Frame::middle(sheet.size()));
        // What the model would see anyway is left as it is.
        let is_framed = frame != middle;
        let known = self.files.iter().find(|(pixels, ..)| Rc::ptr_eq(pixels, sheet)).filter(|_| !is_framed);
        if let Some((_, mime, file)) = known {
            return Some(editor.pictures.add(name, mime, file.to_vec()));
        }
        const PNG: &str = "image/png";
        let png = if is_framed {
            let side = frame.side.round().clamp(1.0, LONGEST) as u32;
            bitmap::encode(&bitmap::square_of(&self.canvas.0, frame, side)?, PNG).await?
        } else {
            bitmap::encode(&self.canvas.0, PNG).await?
        };
        Some(editor.pictures.add(name, PNG, png))
    }
}

/// The brush's radius, in pixels of the picture.
fn radius(frame: Frame) -> f64 {
    radio("[name=retouch-size]:checked").value().parse().unwrap_or(0.016) * frame.side
}

fn middle(frame: Frame) -> (f64, f64) {
    (frame.x + frame.side / 2.0, frame.y + frame.side / 2.0)
}

fn tab() -> Tab {
    let chosen = radio("[name=retouch-tab]:checked").value();
    Tab::ALL.into_iter().find(|tab| tab.name() == chosen).unwrap_or(Tab::Frame)
}

fn tool() -> Tool {
    match radio("[name=retouch-tool]:checked").value().as_str() {
        "eraser" => Tool::Eraser,
        "fill" => Tool::Fill,
        _ => Tool::Brush,
    }
}

fn colour() -> Colour {
    let number = radio("[name=retouch-colour]:checked").value().parse().unwrap_or(0);
    texts::COLOURS.get(number).map_or([0; 3], |(_, colour)| *colour)
}

/// The field that a selector finds.
fn radio(css: &str) -> HtmlInputElement {
    let found = dom::document().query_selector(css).ok().flatten();
    found.and_then(|field| field.dyn_into().ok()).unwrap_or_else(|| panic!("index.html has no {css}"))
}
