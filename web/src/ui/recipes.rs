//! Recipes that come with pictures and links, and go with them.

use std::rc::Rc;

use js_sys::Array;
use kosmosg::prompt::{ImageRef, PromptItem};
use kosmosg::protocol::PictureFile;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{HtmlElement, HtmlInputElement, ScrollIntoViewOptions, ScrollLogicalPosition};

use super::{Page, codec, device, dom};
use crate::composition::{Composition, differences, sentence};
use crate::draft::Draft;
use crate::recipe_file::{self, Carried};
use crate::recipe_link::{self, Picture};
use crate::{js, texts};

/// Widths to which a picture is shrunk for a link, and the quality.
const SHRUNK: [(u32, f64); 2] = [(192, 0.7), (112, 0.6)];
/// Stands in the sentence for a picture that did not come along.
const MISSING: &[u8] = br##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><rect x="5" y="5" width="38" height="38" rx="7" fill="none" stroke="#b3421e" stroke-width="2.5" stroke-dasharray="6 4"/><path d="M18.5 18.5a5.5 5.5 0 1 1 8 5c-1.800 1-2.500 2-2.500 4" fill="none" stroke="#b3421e" stroke-width="3" stroke-linecap="round"/><circle cx="24" cy="34" r="2" fill="#b3421e"/></svg>"##;

impl Page {
    /// Puts a composition in the place of the sentence and the settings; `is_start` says that the page begins with it, which is
    /// no change of the person's. Returns how many of its pictures are missing.
    pub(super) fn compose(&self, composition: &Composition, is_start: bool) -> usize {
        let mut missing = 0;
        let mut draft = Draft::default();
        for item in composition.prompt.items() {
            draft.push(match item {
                PromptItem::Text(words) => Draft::words(words),
                PromptItem::Image(ImageRef { picture, name }) => {
                    let image = match composition.pictures.get(*picture).cloned().flatten() {
                        Some(PictureFile(file)) if file != MISSING => {
                            let number = self.editor.pictures.count() + 1;
                            let name = if name.is_empty() { &texts::picture_number(number) } else { name };
                            self.editor.pictures.add(name, "image/png", file)
                        }
                        _ => {
                            missing += 1;
                            self.editor.pictures.add(&texts::missing_name(name), "image/svg+xml", MISSING.to_vec())
                        }
                    };
                    Draft::picture(image)
                }
            });
        }
        if is_start {
            self.editor.begin_with(draft);
        } else {
            self.editor.set(draft);
        }
        self.controls.restore(&composition.dials);
        missing
    }

    /// Restores what the person asked for, and says what will be different.
    pub(super) fn restore(&self, composition: &Composition, differences: &[String]) {
        let missing = self.compose(composition, false);
        self.tell_restored(missing, differences.to_vec());
    }

    /// Puts in what a link brought. Where nothing is written yet, the page begins with it.
    fn restore_link(&self, composition: &Composition, mut differences: Vec<String>) {
        let before = self.editor.draft();
        let missing = self.compose(composition, self.editor.is_fresh() && before.is_blank());
        if !before.is_blank() && self.editor.draft() != before {
            differences.insert(0, texts::LINK_OPENED.to_owned());
        }
        self.tell_restored(missing, differences);
    }

    fn tell_restored(&self, missing: usize, differences: Vec<String>) {
        let told: Vec<String> = (missing > 0).then(|| texts::missing(missing)).into_iter().chain(differences).collect();
        self.notify(&told.join(" "));
        if told.is_empty() {
            self.tell(texts::RESTORED);
        }
        // The sentence is about to be used; focusing that would bring a phone's keyboard up.
        dom::focus(&dom::by_id("generate"));
    }

    /// Whether a picture is still missing in what is to be made.
    pub(super) fn has_missing(pictures: &[PictureFile]) -> bool {
        pictures.iter().any(|file| file.0 == MISSING)
    }

    /// A picture that came into the page: if it brings a recipe, the person is asked whether to restore it.
    pub(super) fn brought(&self, file: &[u8]) {
        match recipe_file::read(file) {
            Ok(None) => {}
            Ok(Some(carried)) => match self.restorable(&carried) {
                Ok(restorable) => {
                    let name = self.name_in_sentence(file).unwrap_or_default();
                    let question = texts::has_recipe(&name, sentence(&carried.recipe.prompt).trim());
                    *self.keeping.offered.borrow_mut() = Some(restorable);
                    self.ask(&question, Some(texts::RESTORE), None);
                }
                Err(why) => self.ask(&why, None, None),
            },
            Err(why) => self.ask(&why.to_string(), None, None),
        }
    }

    /// What a picture is called in the sentence, if it has come there.
    fn name_in_sentence(&self, file: &[u8]) -> Option<String> {
        let is_it = |picture| self.editor.pictures.file(picture).is_some_and(|(known, _)| *known == file);
        self.editor.draft().images().iter().find(|image| is_it(image.picture)).map(|image| image.name.clone())
    }

    /// What makes a file's picture again, and why it will come out otherwise.
    pub(super) fn restorable(&self, carried: &Carried) -> Result<(Composition, Vec<String>), String> {
        let composition = carried.composition().map_err(|error| error.to_string())?;
        Ok((composition, differences(&carried.recipe, self.app.borrow().manifest())))
    }

    /// Shows the quiet bar: a line, what can be done about it, a link to be copied by hand. An empty line takes it away.
    pub(super) fn ask(&self, line: &str, deed: Option<&str>, link: Option<&str>) {
        let bar: HtmlElement = dom::by_id("offer");
        dom::show("offer", !line.is_empty());
        dom::set_text(&dom::by_id::<HtmlElement>("offer-line"), line);
        dom::show("offer-restore", deed.is_some());
        let field: HtmlInputElement = dom::by_id("offer-link");
        field.set_value(link.unwrap_or_default());
        dom::show("offer-link", link.is_some());
        if link.is_some() {
            dom::focus(&field);
            field.select();
        }
        if !line.is_empty() {
            // Who asked from further down is to see the answer.
            let options = ScrollIntoViewOptions::new();
            options.set_block(ScrollLogicalPosition::Nearest);
            bar.scroll_into_view_with_scroll_into_view_options(&options);
        }
    }

    /// Listens to the bar, to links, and to what of the stage is kept.
    pub(super) fn listen_to_keeping(self: &Rc<Self>) {
        self.on_click("offer-restore", |page| {
            let offered = page.keeping.offered.borrow_mut().take();
            page.ask("", None, None);
            if let Some((composition, differences)) = offered {
                page.restore(&composition, &differences);
            }
        });
        self.on_click("offer-dismiss", |page| {
            page.ask("", None, None);
            page.editor.focus();
        });
        self.on_click("copy-link", |page| {
            if let Some(address) = page.shown_address() {
                let page = page.clone();
                spawn_local(async move {
                    if let Ok(png) = js::fetch(&address).await {
                        page.copy_link(&png);
                    }
                });
            }
        });
        let page = self.clone();
        dom::on(&dom::window(), "hashchange", move |_: web_sys::Event| {
            if let Some(link) = take_link() {
                let page = page.clone();
                spawn_local(async move { page.open_link(link).await });
            }
        });
        self.listen_to_gallery();
        self.listen_to_viewer();
    }

    /// Opens what an address brought.
    pub(super) async fn open_link(self: &Rc<Self>, link: Result<Vec<u8>, String>) {
        let recipe = match link {
            Ok(deflated) => {
                let json = codec::inflate(&deflated, recipe_link::MAX_BYTES).await;
                json.ok_or(recipe_link::BadLink).and_then(|json| recipe_link::Recipe::from_json(&json))
            }
            Err(why) => return self.ask(&why, None, None),
        };
        let recipe = match recipe {
            Ok(recipe) => recipe,
            Err(why) => return self.ask(&why.to_string(), None, None),
        };
        let mut pictures = Vec::new();
        for picture in recipe.pictures {
            pictures.push(match picture {
                Picture::Creature(id) => self.palette.file_of(id).await.map(PictureFile),
                Picture::File(file) => Some(file),
                Picture::Missing => None,
            });
        }
        match (Composition { prompt: recipe.prompt, pictures, dials: recipe.dials }).checked() {
            Ok(composition) => {
                let name = self.app.borrow().manifest().map(|manifest| manifest.name.clone());
                let name = name.filter(|name| *name != recipe.model && !recipe.model.is_empty());
                let differences: Vec<_> =
                    name.map(|name| texts::other_model(&recipe.model, &name)).into_iter().collect();
                self.restore_link(&composition, differences);
            }
            Err(why) => self.ask(&why.to_string(), None, None),
        }
    }

    /// Copies a link that brings a picture's recipe.
    pub(super) fn copy_link(self: &Rc<Self>, png: &[u8]) {
        let Ok(Some(carried)) = recipe_file::read(png) else { return };
        let Ok(composition) = carried.composition() else { return };
        let page = self.clone();
        spawn_local(async move {
            let (mut pictures, mut missing, mut shrunk, mut bytes) = (Vec::new(), 0, 0, 0);
            for file in &composition.pictures {
                let picture = page.picture_for_link(file.as_ref(), &mut shrunk, &mut bytes).await;
                missing += usize::from(picture == Picture::Missing);
                pictures.push(picture);
            }
            let recipe =
                recipe_link::Recipe::new(composition.prompt, pictures, composition.dials, carried.recipe.model);
            let json = recipe.to_json();
            let deflated = if json.len() > recipe_link::MAX_BYTES { None } else { codec::deflate(&json).await };
            let Some(fragment) = deflated.and_then(|deflated| recipe_link::fragment(&deflated)) else {
                return page.ask(texts::LINK_TOO_LONG, None, None);
            };
            let location = dom::window().location();
            let address = location.href().unwrap_or_default();
            // Nothing of what was asked of this visit.
            let address = address.split(['#', '?']).next().unwrap_or_default();
            let link = address.to_owned() + &fragment;
            let line = match (missing, shrunk) {
                (0, 0) => texts::LINK_COPIED.to_owned(),
                _ => texts::link_without(missing, shrunk),
            };
            if copy(&link).await {
                page.ask(&line, None, None);
            } else {
                page.ask(texts::LINK_HERE, None, Some(&link));
            }
        });
    }

    async fn picture_for_link(&self, file: Option<&PictureFile>, shrunk: &mut usize, bytes: &mut usize) -> Picture {
        let Some(PictureFile(file)) = file else { return Picture::Missing };
        if let Some(id) = self.palette.creature_of(file).await {
            return Picture::Creature(id);
        }
        let mut fits = |file: &[u8]| {
            let fits =
                file.len() <= recipe_link::SMALL_PICTURE_BYTES && *bytes + file.len() <= recipe_link::MAX_PICTURE_BYTES;
            *bytes += if fits { file.len() } else { 0 };
            fits
        };
        if fits(file) {
            return Picture::File(PictureFile(file.clone()));
        }
        for (side, quality) in SHRUNK {
            if let Some(small) = codec::shrink(file, side, quality).await
                && fits(&small)
            {
                *shrunk += 1;
                return Picture::File(PictureFile(small));
            }
        }
        Picture::Missing
    }
}

/// The recipe of the page's address, which loses it: a reload is not to bring it again over later work.
pub(super) fn take_link() -> Option<Result<Vec<u8>, String>> {
    let location = dom::window().location();
    let link = recipe_link::deflated(&location.hash().ok()?)?;
    let address = location.href().unwrap_or_default();
    let address = address.split('#').next().unwrap_or_default();
    if let Ok(history) = dom::window().history() {
        // The address is the page's own, so this cannot fail.
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(address));
    }
    Some(link.map_err(|why| why.to_string()))
}

/// Puts a text on the clipboard, if the browser lets the page.
async fn copy(text: &str) -> bool {
    let Some(clipboard) = device::navigator("clipboard") else { return false };
    device::call(&clipboard, "writeText", &Array::of1(&text.into())).await.is_ok()
}
