//! The editor: a sentence with pictures in it.
//!
//! The [`Draft`] in its [`History`] is the truth. What the browser does with letters is read back from the region; all that
//! concerns pictures is done on the draft and written into the region.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use wasm_bindgen::JsCast;
use web_sys::{
    Element, Event, HtmlElement, InputEvent, KeyboardEvent, Node, ScrollIntoViewOptions, ScrollLogicalPosition,
};

use super::dom;
use super::pictures::Pictures;
use super::region;
use crate::draft::{Draft, MAX_SENTENCE_PICTURES};
use crate::history::{Change, History, Moment};
use crate::{js, texts};
use places::Places;

mod places;
mod tools;
mod transfer;

/// The code of keys that belong to an input method. Safari says by nothing else that Enter only ends a composition.
pub const COMPOSING: u32 = 229;
/// Pauses in which an input method is waited for.
const COMPOSING_MS: i32 = 50;
/// Bytes of pictures that undo may hold.
const MOST_BYTES: usize = 64 << 20;
/// Of a sentence of which less is seen, in pixels, nothing can be read.
const LEAST_SEEN: f64 = 40.0;

pub use places::Place;
pub use transfer::{Dragged, files_of, insert_files, picture_name, put_in_place_of};

/// The editor. See the [module documentation](self).
pub struct Editor {
    region: HtmlElement,
    /// The pictures in the sentence.
    pub pictures: Pictures,
    history: RefCell<History>,
    /// What was selected when something was: the caret's place while the person is elsewhere in the page.
    last: RefCell<Range<usize>>,
    /// Whether an input method is at work: nothing may be written then.
    is_composing: Cell<bool>,
    /// What is being dragged, if it comes from this page.
    dragged: RefCell<Option<Dragged>>,
    /// Where something is to come.
    places: Places,
    events: Events,
}

/// Hears of a picture's file.
pub type Brought = dyn Fn(&[u8]);

/// What the editor tells the page.
pub struct Events {
    /// The person wants the picture.
    pub submit: Box<dyn Fn()>,
    /// Something cannot be put in: why, for people; an empty text takes that back.
    pub refused: Box<dyn Fn(&str)>,
    /// A picture's file came in, which may bring a recipe.
    pub brought: Box<Brought>,
    /// A picture was put in: a sentence that says so.
    pub inserted: Box<dyn Fn(&str)>,
    /// A creature was dropped: its number in the palette. The page inserts it.
    pub creature: Box<dyn Fn(usize)>,
    /// The person wants to change the picture at that unit.
    pub change: Box<dyn Fn(usize)>,
    /// The person wants to take back what was done last, and does not write: what that is outside of the sentence is for
    /// the page to know. `false` if there is nothing.
    pub undo_elsewhere: Box<dyn Fn() -> bool>,
}

/// Which way through the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Travel {
    Undo,
    Redo,
}

impl Editor {
    /// Takes the region over.
    pub fn new(region: HtmlElement, events: Events) -> Rc<Self> {
        let is_plain = region.get_attribute("contenteditable").is_some() && region.is_content_editable();
        if !is_plain {
            // Browsers that do not know `plaintext-only`.
            dom::set_attribute(&region, "contenteditable", "true");
        }
        let editor = Rc::new(Self {
            region,
            pictures: Pictures::default(),
            history: RefCell::default(),
            last: RefCell::default(),
            is_composing: Cell::new(false),
            dragged: RefCell::new(None),
            places: Places::default(),
            events,
        });
        editor.listen();
        transfer::listen(&editor);
        tools::listen(&editor);
        editor
    }

    /// The sentence.
    pub fn draft(&self) -> Draft {
        self.history.borrow().now().draft.clone()
    }

    /// Whether it has as many pictures as it may have.
    pub fn is_full(&self) -> bool {
        self.history.borrow().now().draft.images().len() >= MAX_SENTENCE_PICTURES
    }

    /// A picture, if it can come into the sentence: in the place of another, which stood at that unit, if it is there.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn admit(&self, image: ImageRef, replaced: Option<(usize, usize)>) -> Result<ImageRef, String> {
        let mut draft = self.draft();
        let unit = replaced.and_then(|(picture, unit)| draft.find(picture, unit));
        draft.replace(unit.map_or(0..0, |unit| unit..unit + 1), Draft::picture(image.clone()));
        match self.refusal_of(&draft) {
            Some(why) => {
                self.let_go(&[image]);
                Err(why)
            }
            None => Ok(image),
        }
    }

    /// Why a draft cannot take the sentence's place, for people.
    fn refusal_of(&self, draft: &Draft) -> Option<String> {
        let bytes = |picture| self.pictures.file(picture).map_or(0, |(file, _)| file.len());
        draft.refusal(&self.draft(), bytes)
    }

    /// Whether nobody has written anything yet.
    pub fn is_fresh(&self) -> bool {
        self.history.borrow().is_fresh()
    }

    /// Puts in a sentence to begin with, which is no change of the person's.
    pub fn begin_with(&self, draft: Draft) {
        let caret = draft.len();
        self.history.replace(History::starting(Moment { draft, caret }));
        self.show();
        self.tidy();
    }

    /// Puts another sentence in its place.
    pub fn set(&self, draft: Draft) {
        let caret = draft.len();
        self.change(draft, caret);
    }

    /// Puts a picture where the caret is, or was last, and the caret behind it.
    pub fn insert(&self, image: ImageRef) {
        self.put(&self.hold(), image);
    }

    /// Puts a picture into the place that was held for it.
    pub fn put(&self, place: &Place, image: ImageRef) {
        let name = image.name.clone();
        if self.fill(place, Draft::picture(image)) {
            self.tell_inserted(&[&name]);
        }
    }

    /// Puts a picture in the place of another, which stood at `unit` when the person began to change it, and selects it.
    pub fn put_in_place(&self, picture: usize, unit: usize, image: ImageRef) {
        let mut draft = self.draft();
        // The sentence may have changed in the meantime.
        let Some(unit) = draft.find(picture, unit) else { return self.insert(image) };
        let name = image.name.clone();
        draft.replace(unit..unit + 1, Draft::picture(image));
        if self.change(draft, unit + 1) {
            self.tell_inserted(&[&name]);
        }
        self.focus_on(unit..unit + 1);
    }

    /// Selects a picture that stands at `unit`, or wherever it is by now, and brings the focus there.
    pub fn select_picture(&self, picture: usize, unit: usize) {
        if let Some(unit) = self.draft().find(picture, unit) {
            self.focus_on(unit..unit + 1);
        }
    }

    /// Puts the caret behind the picture whose bar is shown. `false` if there is none.
    pub fn leave_picture(&self) -> bool {
        let Some(unit) = self.picture_with_tools() else { return false };
        self.focus_on(unit + 1..unit + 1);
        true
    }

    /// Brings the caret back to where it was last, for typing on.
    pub fn focus(&self) {
        let last = self.last.borrow().clone();
        self.focus_on(last);
    }

    /// Brings the focus back with these units selected.
    pub fn focus_on(&self, units: Range<usize>) {
        dom::focus(&self.region);
        self.select(units);
    }

    /// Scrolls to the sentence where it is out of sight: on a small screen, what is tapped lies far below it.
    pub fn come_into_view(&self) {
        let place = self.region.get_bounding_client_rect();
        let height = dom::window().inner_height().ok().and_then(|height| height.as_f64()).unwrap_or(f64::INFINITY);
        if place.bottom() < LEAST_SEEN || place.top() > height - LEAST_SEEN {
            let options = ScrollIntoViewOptions::new();
            options.set_block(ScrollLogicalPosition::Nearest);
            self.region.scroll_into_view_with_scroll_into_view_options(&options);
        }
    }

    /// Whether an input method is at work: nothing may be written then.
    pub fn is_composing(&self) -> bool {
        self.is_composing.get()
    }

    /// Has an input method end its work: browsers do so when the focus goes.
    pub fn end_composing(&self) {
        // It cannot fail on an element of the page.
        let _ = self.region.blur();
    }

    /// Waits until an input method has done its work: nothing may be written before.
    pub async fn settled(&self) {
        while self.is_composing.get() {
            js::sleep(COMPOSING_MS).await;
        }
    }

    /// Says why something cannot be put in; an empty text takes that back.
    pub fn refuse(&self, why: &str) {
        (self.events.refused)(why);
    }

    /// Says what is being dragged from elsewhere in the page.
    pub fn drag(&self, dragged: Option<Dragged>) {
        *self.dragged.borrow_mut() = dragged;
    }

    fn listen(self: &Rc<Self>) {
        let editor = self.clone();
        dom::on(&self.region, "beforeinput", move |event: InputEvent| editor.before_input(&event));
        let editor = self.clone();
        dom::on(&self.region, "input", move |_: Event| editor.read_back());
        let editor = self.clone();
        dom::on(&self.region, "keydown", move |event: KeyboardEvent| editor.key(&event));
        let editor = self.clone();
        dom::on(&self.region, "compositionstart", move |_: Event| editor.is_composing.set(true));
        let editor = self.clone();
        dom::on(&self.region, "compositionend", move |_: Event| {
            editor.is_composing.set(false);
            editor.read_back();
        });
        let editor = self.clone();
        dom::on(&dom::document(), "selectionchange", move |_: Event| editor.selection_changed());
        let editor = self.clone();
        dom::on(&self.region, "click", move |event: Event| {
            let target = event.target().and_then(|target| target.dyn_into::<Node>().ok());
            if let Some(chip) = target.and_then(|node| region::chip_at(&node)) {
                editor.clicked(chip);
            }
        });
    }

    /// Selects a picture that was clicked.
    fn clicked(self: &Rc<Self>, chip: Element) {
        let select = |editor: &Self, chip: &Element| {
            let unit = editor.unit_of(chip);
            editor.select(unit..unit + 1);
        };
        select(self, &chip);
        let editor = self.clone();
        // Chromium takes the selection away after a click on what was selected already.
        wasm_bindgen_futures::spawn_local(async move {
            js::sleep(0).await;
            if editor.region.contains(Some(&chip)) && dom::has_focus(&editor.region) {
                select(&editor, &chip);
            }
        });
    }

    /// What the browser is about to do: edits of pictures and of history are done here instead.
    fn before_input(&self, event: &InputEvent) {
        let kind = event.input_type();
        match kind.as_str() {
            "historyUndo" => self.travel(event, Travel::Undo),
            "historyRedo" => self.travel(event, Travel::Redo),
            "insertParagraph" | "insertLineBreak" => event.prevent_default(),
            _ if kind.starts_with("format") => event.prevent_default(),
            _ => {
                let Some(selection) = self.selection() else { return };
                let draft = self.draft();
                let doomed = match kind.as_str() {
                    "deleteContentBackward" if selection.is_empty() => selection.start.saturating_sub(1)..selection.end,
                    "deleteContentForward" if selection.is_empty() => selection.start..selection.end + 1,
                    _ => selection,
                };
                let has_picture = doomed.clone().any(|unit| draft.is_picture(unit));
                let typed = match kind.as_str() {
                    "insertText" | "insertReplacementText" => event.data().unwrap_or_default(),
                    "deleteContentBackward" | "deleteContentForward" | "deleteByCut" => String::new(),
                    _ => return,
                };
                if has_picture && !self.is_composing.get() {
                    event.prevent_default();
                    self.replace(doomed, Draft::words(&typed));
                }
            }
        }
    }

    fn key(&self, event: &KeyboardEvent) {
        if event.is_composing() || event.key_code() == COMPOSING {
            return;
        }
        let command = event.ctrl_key() || event.meta_key();
        match event.key().as_str() {
            "Enter" => {
                event.prevent_default();
                match self.selected_picture().filter(|_| !command) {
                    Some(unit) => (self.events.change)(unit),
                    // A key that is held is pressed once.
                    None if event.repeat() => {}
                    None => (self.events.submit)(),
                }
            }
            "ArrowLeft" | "ArrowRight" if !command && !event.alt_key() => self.step_over(event),
            _ if command && !event.alt_key() => self.history_key(event),
            _ => {}
        }
    }

    /// Moves the caret over a picture: browsers would stop at the invisible character beside it.
    fn step_over(&self, event: &KeyboardEvent) {
        let Some(selection) = self.selection() else { return };
        let focus = self.focus_unit().unwrap_or(selection.end);
        let forward = self.goes_forward(focus, event.key() == "ArrowRight");
        let over = if forward { Some(focus) } else { focus.checked_sub(1) };
        let Some(over) = over.filter(|&unit| self.draft().is_picture(unit)) else { return };
        if !selection.is_empty() && !event.shift_key() {
            return;
        }
        event.prevent_default();
        let to = if forward { over + 1 } else { over };
        if event.shift_key() {
            let (node, offset) = region::place_of(&self.region, to, &self.pictures);
            if let Ok(Some(selection)) = dom::window().get_selection() {
                // The place is in the document, so this cannot fail.
                let _ = selection.extend_with_offset(&node, offset);
            }
        } else {
            self.select(to..to);
        }
    }

    /// Whether an arrow key goes forward in the sentence at that unit. Where words of both directions meet a picture, only
    /// its place on the screen tells.
    fn goes_forward(&self, unit: usize, is_right: bool) -> bool {
        let caret = region::caret_x(&self.region, unit, &self.pictures);
        let on_the_right = |unit: usize| {
            let (left, right) = region::chip_of(&self.region, unit, &self.pictures).map(|chip| {
                let place = chip.get_bounding_client_rect();
                (place.left(), place.right())
            })?;
            Some((left + right) / 2.0 > caret?)
        };
        let next = on_the_right(unit);
        let before = unit.checked_sub(1).and_then(on_the_right);
        match (next, before) {
            // The next picture lies that way, or the one before the other way.
            (Some(is_there), None) => is_there == is_right,
            (None, Some(is_there)) => is_there != is_right,
            (Some(next), Some(before)) if next != before => next == is_right,
            _ => is_right != dom::is_right_to_left(&self.region),
        }
    }

    /// Goes through the history, and says what the sentence is then.
    fn travel(&self, event: &Event, way: Travel) {
        event.prevent_default();
        let (go, said) = match way {
            Travel::Undo => (History::undo as fn(&mut History) -> bool, texts::UNDONE),
            Travel::Redo => (History::redo as fn(&mut History) -> bool, texts::REDONE),
        };
        let has_gone = go(&mut self.history.borrow_mut());
        if has_gone {
            self.show();
            // What was said of the sentence as it was is over.
            self.refuse("");
            (self.events.inserted)(&texts::travelled(said, &self.draft().spoken()));
        }
    }

    fn tell_inserted(&self, names: &[&str]) {
        (self.events.inserted)(&texts::inserted(names, self.draft().images().len()));
    }

    /// Takes over what the browser made of the region.
    fn read_back(&self) {
        if self.is_composing.get() {
            return;
        }
        let draft = region::read(&self.region, &self.pictures);
        let caret = self.focus_unit().unwrap_or(draft.len());
        self.history.borrow_mut().record(Moment { draft: draft.clone(), caret }, Change::Typing, js::now_ms());
        self.tidy();
        if region::write(&self.region, &draft, &self.pictures) {
            self.select(caret..caret);
        }
    }

    fn replace(&self, range: Range<usize>, with: Draft) -> bool {
        let mut draft = self.draft();
        let caret = draft.replace(range, with);
        self.change(draft, caret)
    }

    /// Takes a change over, unless there would be too many pictures, or too large ones: `false` then, and the person is told.
    fn change(&self, draft: Draft, caret: usize) -> bool {
        if let Some(why) = self.refusal_of(&draft) {
            self.refuse(&why);
            self.let_go(draft.images());
            return false;
        }
        self.history.borrow_mut().record(Moment { draft, caret }, Change::Edit, js::now_ms());
        self.show();
        self.tidy();
        true
    }

    /// Lets go of pictures that do not come into the sentence after all.
    fn let_go(&self, images: &[ImageRef]) {
        self.pictures.refuse(images);
        self.tidy();
    }

    /// Lets go of pictures that nothing can bring back, and of the oldest changes when theirs take too much memory.
    fn tidy(&self) {
        let mut history = self.history.borrow_mut();
        self.pictures.keep_only(&history.pictures());
        while self.pictures.bytes() > MOST_BYTES && history.forget_oldest() {
            self.pictures.keep_only(&history.pictures());
        }
        drop(history);
        self.show_history();
    }

    /// Shows the present moment.
    fn show(&self) {
        let Moment { draft, caret } = self.history.borrow().now().clone();
        *self.last.borrow_mut() = caret..caret;
        region::write(&self.region, &draft, &self.pictures);
        self.select(caret..caret);
        self.show_history();
        self.show_tools();
    }

    fn selection_changed(&self) {
        let selection = self.selection();
        if let Some(selection) = &selection {
            *self.last.borrow_mut() = selection.clone();
        } else if dom::has_focus(&self.region) && has_no_range() {
            // What is typed now would come to the sentence's beginning.
            let last = self.last.borrow().clone();
            return self.select(last);
        }
        region::mark_selected(&self.region, selection.unwrap_or_default(), &self.pictures);
        self.show_tools();
    }

    /// The unit of the picture that is selected, if nothing else is.
    fn selected_picture(&self) -> Option<usize> {
        let selection = self.selection()?;
        self.draft().only_picture(&selection).map(|_| selection.start)
    }

    /// The selected units, if the selection lies in the region.
    fn selection(&self) -> Option<Range<usize>> {
        let selection = dom::window().get_selection().ok()??;
        let range = (selection.range_count() > 0).then(|| selection.get_range_at(0).ok()).flatten()?;
        let (start, end) = (range.start_container().ok()?, range.end_container().ok()?);
        if !self.region.contains(Some(&start)) || !self.region.contains(Some(&end)) {
            return None;
        }
        let unit = |node: &Node, offset| region::unit_at(&self.region, node, offset, &self.pictures);
        Some(unit(&start, range.start_offset().ok()?)..unit(&end, range.end_offset().ok()?))
    }

    /// The end of the selection that moves.
    fn focus_unit(&self) -> Option<usize> {
        let selection = dom::window().get_selection().ok()??;
        let node = selection.focus_node().filter(|node| self.region.contains(Some(node)))?;
        Some(region::unit_at(&self.region, &node, selection.focus_offset(), &self.pictures))
    }

    fn select(&self, units: Range<usize>) {
        // The browser tells of it only later.
        *self.last.borrow_mut() = units.clone();
        // Without focus the caret would not be seen; and a selection elsewhere is the person's own.
        if !dom::has_focus(&self.region) && self.selection().is_none() {
            return;
        }
        let (start, start_offset) = region::place_of(&self.region, units.start, &self.pictures);
        let (end, end_offset) = region::place_of(&self.region, units.end, &self.pictures);
        if let Ok(Some(selection)) = dom::window().get_selection() {
            // Both places are in the document, so this cannot fail.
            let _ = selection.set_base_and_extent(&start, start_offset, &end, end_offset);
        }
    }

    fn unit_of(&self, chip: &Element) -> usize {
        region::unit_at(&self.region, chip, 0, &self.pictures)
    }
}

/// Whether nothing is selected in the page, not even by a caret.
fn has_no_range() -> bool {
    dom::window().get_selection().ok().flatten().is_none_or(|selection| selection.range_count() == 0)
}
