//! Creatures to put into the sentence, and sentences to start from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use serde::Deserialize;
use wasm_bindgen::JsCast;
use web_sys::{DragEvent, Event, HtmlElement, HtmlImageElement, PointerEvent};

use super::dom;
use super::editor::{Dragged, Editor};
use crate::draft::Draft;
use crate::{js, texts};

/// Where the creatures are.
const FOLDER: &str = "creatures/";

/// A creature, as `creatures.json` lists it.
#[derive(Debug, Clone, Deserialize)]
struct Creature {
    id: u64,
    file: String,
    description: String,
}

/// The creatures of the palette.
#[derive(Default)]
pub struct Palette {
    creatures: RefCell<Vec<Creature>>,
    /// Their files by number, as far as they are here.
    files: RefCell<BTreeMap<usize, Rc<Vec<u8>>>>,
}

impl Palette {
    /// Fetches the list and shows it; the files follow.
    ///
    /// # Errors
    /// Why it cannot be fetched, for people.
    pub async fn load(self: &Rc<Self>, editor: &Rc<Editor>) -> Result<(), String> {
        let json = js::fetch(&format!("{FOLDER}creatures.json")).await?;
        let creatures: Vec<Creature> = kosmosg::json::read(&json).map_err(|error| error.to_string())?;
        let shown: HtmlElement = dom::by_id("creatures");
        for (number, creature) in creatures.iter().enumerate() {
            let entry = self.entry(number, creature, editor);
            shown.append_child(&entry).expect("an element of the page takes children");
        }
        self.creatures.replace(creatures);
        self.fetch_all();
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.creatures.borrow().len()
    }

    /// A creature as a picture of the sentence. `None` if there is none of that number or it cannot be fetched, which the
    /// person is told.
    pub async fn picture(&self, number: usize, editor: &Editor) -> Option<ImageRef> {
        match self.file(number).await {
            Ok(_) => self.picture_here(number, editor),
            Err(why) => {
                let description = self.creatures.borrow().get(number)?.description.clone();
                editor.refuse(&texts::cannot_fetch(&texts::sentence_start(&description), &why));
                None
            }
        }
    }

    /// The same without waiting. `None` if its file is not here yet.
    fn picture_here(&self, number: usize, editor: &Editor) -> Option<ImageRef> {
        let file = self.files.borrow().get(&number)?.to_vec();
        let creatures = self.creatures.borrow();
        Some(editor.pictures.add(&creatures.get(number)?.description, "image/png", file))
    }

    /// The file of the creature of that id.
    pub async fn file_of(&self, id: u64) -> Option<Vec<u8>> {
        let number = self.creatures.borrow().iter().position(|creature| creature.id == id)?;
        Some(self.file(number).await.ok()?.to_vec())
    }

    /// The id of the creature that has this very file.
    pub async fn creature_of(&self, picture: &[u8]) -> Option<u64> {
        for number in 0..self.count() {
            if self.file(number).await.is_ok_and(|file| *file == picture) {
                return self.creatures.borrow().get(number).map(|creature| creature.id);
            }
        }
        None
    }

    /// The file of a creature, which is fetched once.
    async fn file(&self, number: usize) -> Result<Rc<Vec<u8>>, String> {
        let known = self.files.borrow().get(&number).cloned();
        if let Some(file) = known {
            return Ok(file);
        }
        let name = self.creatures.borrow().get(number).map(|creature| creature.file.clone()).unwrap_or_default();
        let file = Rc::new(js::fetch(&format!("{FOLDER}{name}")).await?);
        self.files.borrow_mut().insert(number, file.clone());
        Ok(file)
    }

    /// Fetches all files, one after the other, so that a click has a creature at hand.
    fn fetch_all(self: &Rc<Self>) {
        let palette = self.clone();
        wasm_bindgen_futures::spawn_local(async move {
            for number in 0..palette.count() {
                // What cannot be fetched now is tried again when it is clicked, and told then.
                let _ = palette.file(number).await;
            }
        });
    }

    fn image(&self, number: usize) -> HtmlImageElement {
        let creatures = self.creatures.borrow();
        image(&creatures[number], &creatures[number].description)
    }

    fn entry(self: &Rc<Self>, number: usize, creature: &Creature, editor: &Rc<Editor>) -> HtmlElement {
        let entry = dom::button("creature", "");
        dom::set_attribute(&entry, "data-creature", &creature.id.to_string());
        dom::set_attribute(&entry, "aria-label", &texts::add_label(&creature.description));
        dom::set_attribute(&entry, "title", &creature.description);
        dom::set_attribute(&entry, "draggable", "true");
        entry.append_child(&image(creature, "")).expect("a new element takes children");

        let (palette, at) = (self.clone(), editor.clone());
        dom::on(&entry, "click", move |event: Event| {
            // Whoever points with a mouse goes on typing; on a screen that is touched, a keyboard would pop up.
            let pointer = event.dyn_ref::<PointerEvent>().map(PointerEvent::pointer_type);
            let caret = if pointer.is_some_and(|kind| kind == "mouse") { Caret::Comes } else { Caret::Stays };
            // Whoever goes on has read what was refused before.
            at.refuse("");
            insert(&palette, &at, number, caret);
        });
        let at = editor.clone();
        dom::on(&entry, "dragstart", move |event: DragEvent| {
            at.drag(Some(Dragged::Creature(number)));
            if let Some(data) = event.data_transfer() {
                data.set_effect_allowed("copy");
                // Without data some browsers do not drag at all.
                let _ = data.set_data("text/plain", "");
            }
        });
        let at = editor.clone();
        dom::on(&entry, "dragend", move |_: Event| at.drag(None));
        entry
    }
}

fn image(creature: &Creature, description: &str) -> HtmlImageElement {
    let image: HtmlImageElement = dom::create("img", "");
    image.set_alt(description);
    image.set_draggable(false);
    image.set_src(&format!("{FOLDER}{}", creature.file));
    image
}

/// Whether typing goes on in the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caret {
    /// It does.
    Comes,
    /// The focus is left where it is.
    Stays,
}

/// Puts a creature into the sentence, at the caret. What is typed right afterwards comes behind it, even where its file has
/// to be fetched first.
pub fn insert(palette: &Rc<Palette>, editor: &Rc<Editor>, number: usize, caret: Caret) {
    if caret == Caret::Comes {
        editor.focus();
    }
    let place = editor.hold();
    if !editor.is_composing()
        && let Some(image) = palette.picture_here(number, editor)
    {
        editor.put(&place, image);
        return editor.come_into_view();
    }
    let (palette, editor) = (palette.clone(), editor.clone());
    wasm_bindgen_futures::spawn_local(async move {
        if let Some(image) = palette.picture(number, &editor).await {
            editor.settled().await;
            editor.put(&place, image);
            editor.come_into_view();
        }
    });
}

/// A sentence to start from: words, and between them creatures by number.
#[derive(Clone)]
struct Example {
    words: Vec<&'static str>,
    creatures: Vec<usize>,
}

/// Shows the sentences to start from, each with creatures of its own, and starts from the first.
pub fn show_examples(palette: &Rc<Palette>, editor: &Rc<Editor>) {
    let shown: HtmlElement = dom::by_id("examples");
    let count = palette.count();
    if count == 0 {
        return;
    }
    // Another visit, other creatures.
    let mut next = (js_sys::Math::random() * count as f64) as usize;
    for (number, sentence) in texts::EXAMPLE_SENTENCES.iter().enumerate() {
        let words: Vec<_> = sentence.split('*').collect();
        let creatures = (next..next + words.len() - 1).map(|creature| creature % count).collect();
        next += words.len() - 1;
        let example = Example { words, creatures };
        shown.append_child(&example.entry(palette, editor)).expect("an element of the page takes children");
        if number == 0 {
            let (palette, editor) = (palette.clone(), editor.clone());
            wasm_bindgen_futures::spawn_local(async move {
                let draft = example.draft(&palette, &editor).await;
                // The person may have been faster.
                // What the page before has left may be there already.
                if editor.is_fresh() && editor.draft().is_blank() {
                    editor.begin_with(draft);
                }
            });
        }
    }
}

impl Example {
    fn entry(&self, palette: &Rc<Palette>, editor: &Rc<Editor>) -> HtmlElement {
        let entry = dom::button("example", "");
        for (i, words) in self.words.iter().enumerate() {
            if let Some(&creature) = i.checked_sub(1).and_then(|i| self.creatures.get(i)) {
                let image = palette.image(creature);
                entry.append_child(&image).expect("a new element takes children");
            }
            entry.append_with_str_1(words).expect("a new element takes children");
        }
        let (example, palette, editor) = (self.clone(), palette.clone(), editor.clone());
        dom::on(&entry, "click", move |_: Event| {
            let (example, palette, editor) = (example.clone(), palette.clone(), editor.clone());
            wasm_bindgen_futures::spawn_local(async move {
                let draft = example.draft(&palette, &editor).await;
                editor.set(draft);
                editor.come_into_view();
            });
        });
        entry
    }

    async fn draft(&self, palette: &Palette, editor: &Editor) -> Draft {
        let mut draft = Draft::default();
        for (i, words) in self.words.iter().enumerate() {
            if let Some(&creature) = i.checked_sub(1).and_then(|i| self.creatures.get(i)) {
                draft.push(palette.picture(creature, editor).await.map_or(Draft::default(), Draft::picture));
            }
            draft.push(Draft::words(words));
        }
        draft
    }
}
