//! Prompts that mix words and pictures.
//!
//! A [`PromptDocument`] is the truth; the page's editor and the one-line text form are views of it. In the text form a
//! picture's place is written `<i>`, as in the original demo. Somebody may also type these three characters as words:
//! then the document has them in a text item, and the text form writes `\<i>`. Backslashes right before `<i>` are doubled,
//! anywhere else they are ordinary characters.

use serde::{Deserialize, Serialize};

use crate::wire::AtMost;

/// Most bytes of a prompt's words together: more than any language model here takes in tokens.
pub const MAX_TEXT_BYTES: usize = 64 << 10;
/// Bytes of a picture's name that are kept.
pub const MAX_NAME_BYTES: usize = 256;
/// Most items of a prompt that is read from JSON.
const MAX_ITEMS: usize = 4096;

/// An interleaved prompt: texts and places for pictures, in order.
///
/// Neighbouring texts are always joined, empty ones left out and long names cut, also when it is read from JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AtMost<PromptItem, MAX_ITEMS>", into = "Vec<PromptItem>")]
pub struct PromptDocument {
    items: Vec<PromptItem>,
}

/// A stretch of text or a picture's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PromptItem {
    /// Words, as typed.
    Text(String),
    /// A place for a picture.
    Image(ImageRef),
}

/// Names one of the pictures that travel beside the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageRef {
    /// Its number among them, from 0. Two places may show the same picture.
    pub picture: usize,
    /// What a person calls it, mostly its file's name; may be empty. At most [`MAX_NAME_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// A prompt as the language model takes it, reference section 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptSequence {
    /// Token ids `[T]`.
    pub tokens: Vec<u32>,
    /// `[T]`: true where an embedding of a picture stands in the place of the token's.
    pub image_mask: Vec<bool>,
}

/// What is wrong with a prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// Pictures and places differ in number.
    #[error("{} given, but the prompt has {} <i>", counted(*pictures, "picture"), counted(*places, "place"))]
    PictureCount {
        /// Number of pictures.
        pictures: usize,
        /// Number of places in the prompt.
        places: usize,
    },
    /// A place asks for a picture that is not there.
    #[error("the prompt shows picture number {}, but {} given", picture + 1, counted(*pictures, "picture"))]
    NoSuchPicture {
        /// The picture's number, from 0.
        picture: usize,
        /// Number of pictures.
        pictures: usize,
    },
    /// A picture that no place shows.
    #[error("picture number {} is nowhere in the prompt; give it a place or leave it out", picture + 1)]
    Unused {
        /// The picture's number, from 0.
        picture: usize,
    },
    /// More words than are looked at.
    #[error("the text has {bytes} bytes, and at most {MAX_TEXT_BYTES} are allowed: shorten it")]
    TooMuchText {
        /// Bytes of all words.
        bytes: usize,
    },
    /// The language model cannot take so many tokens.
    #[error("the prompt has {tokens} tokens, and at most {longest} are allowed: shorten it or use fewer pictures")]
    TooLong {
        /// Tokens of the prompt, those of its pictures included.
        tokens: usize,
        /// How many are allowed.
        longest: usize,
    },
}

impl PromptDocument {
    /// A document of the items, neighbouring texts joined and empty ones left out.
    pub fn new(items: impl IntoIterator<Item = PromptItem>) -> Self {
        let mut document = Self::default();
        for item in items {
            match (document.items.last_mut(), item) {
                (_, PromptItem::Text(text)) if text.is_empty() => {}
                (Some(PromptItem::Text(before)), PromptItem::Text(text)) => before.push_str(&text),
                (_, PromptItem::Image(ImageRef { picture, mut name })) => {
                    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
                    document.items.push(PromptItem::Image(ImageRef { picture, name }));
                }
                (_, item) => document.items.push(item),
            }
        }
        document
    }

    /// A document of words only; `<i>` in them is just three characters. It is what a negative prompt is.
    pub fn from_words(words: &str) -> Self {
        Self::new([PromptItem::Text(words.into())])
    }

    /// Reads the text form, the places numbered in order.
    ///
    /// # Errors
    /// [`PromptError::PictureCount`] when there are not exactly as many places as pictures.
    pub fn from_text(text: &str, pictures: usize) -> Result<Self, PromptError> {
        let mut items = Vec::new();
        let mut places = 0;
        let mut stretches = text.split(PLACE).peekable();
        while let Some(stretch) = stretches.next() {
            if stretches.peek().is_none() {
                items.push(PromptItem::Text(stretch.into()));
                break;
            }
            let words = stretch.trim_end_matches('\\');
            let backslashes = stretch.len() - words.len();
            items.push(PromptItem::Text([words, &"\\".repeat(backslashes / 2)].concat()));
            if backslashes % 2 == 1 {
                items.push(PromptItem::Text(PLACE.into()));
            } else {
                items.push(PromptItem::Image(ImageRef { picture: places, name: String::new() }));
                places += 1;
            }
        }
        if places != pictures {
            return Err(PromptError::PictureCount { pictures, places });
        }
        Ok(Self::new(items))
    }

    /// The text form. [`PromptDocument::from_text`] reads the same texts and places back.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for (index, item) in self.items.iter().enumerate() {
            match item {
                PromptItem::Image(_) => out.push_str(PLACE),
                PromptItem::Text(text) => {
                    let mut stretches = text.split(PLACE).peekable();
                    while let Some(stretch) = stretches.next() {
                        let words = stretch.trim_end_matches('\\');
                        let backslashes = &stretch[words.len()..];
                        let is_last = stretches.peek().is_none();
                        let before_place = !is_last || index + 1 < self.items.len();
                        out.extend([words, backslashes, if before_place { backslashes } else { "" }]);
                        out.extend((!is_last).then_some("\\<i>"));
                    }
                }
            }
        }
        out
    }

    /// The items in order; two texts never follow each other.
    pub fn items(&self) -> &[PromptItem] {
        &self.items
    }

    /// The pictures' places in order.
    pub fn images(&self) -> impl Iterator<Item = &ImageRef> {
        self.items.iter().filter_map(|item| match item {
            PromptItem::Image(image) => Some(image),
            PromptItem::Text(_) => None,
        })
    }

    /// Checks that every place's picture is among the `pictures`.
    ///
    /// # Errors
    /// [`PromptError::NoSuchPicture`] for the first that is not.
    pub fn check_pictures(&self, pictures: usize) -> Result<(), PromptError> {
        match self.images().find(|image| image.picture >= pictures) {
            Some(image) => Err(PromptError::NoSuchPicture { picture: image.picture, pictures }),
            None => Ok(()),
        }
    }

    /// Checks that there is a place for each of the `pictures`. Two places may show one.
    ///
    /// # Errors
    /// [`PromptError::Unused`] for the first that has none.
    pub fn check_all_shown(&self, pictures: usize) -> Result<(), PromptError> {
        let is_shown = |picture: usize| self.images().any(|place| place.picture == picture);
        match (0..pictures).find(|&picture| !is_shown(picture)) {
            Some(picture) => Err(PromptError::Unused { picture }),
            None => Ok(()),
        }
    }

    /// Checks the length of all words together.
    ///
    /// # Errors
    /// [`PromptError::TooMuchText`] if they have more than [`MAX_TEXT_BYTES`].
    pub fn check_length(&self) -> Result<(), PromptError> {
        let length = |item: &PromptItem| if let PromptItem::Text(text) = item { text.len() } else { 0 };
        match self.items.iter().map(length).sum() {
            bytes if bytes > MAX_TEXT_BYTES => Err(PromptError::TooMuchText { bytes }),
            _ => Ok(()),
        }
    }
}

impl From<AtMost<PromptItem, MAX_ITEMS>> for PromptDocument {
    fn from(AtMost(items): AtMost<PromptItem, MAX_ITEMS>) -> Self {
        Self::new(items)
    }
}

impl From<PromptDocument> for Vec<PromptItem> {
    fn from(document: PromptDocument) -> Self {
        document.items
    }
}

impl PromptSequence {
    /// Appends tokens, all of them places of picture embeddings or none.
    pub(crate) fn extend(&mut self, tokens: impl IntoIterator<Item = u32>, is_image: bool) {
        self.tokens.extend(tokens);
        self.image_mask.resize(self.tokens.len(), is_image);
    }
}

/// A picture's place in the text form.
const PLACE: &str = "<i>";

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> PromptItem {
        PromptItem::Text(text.into())
    }

    fn image(picture: usize) -> PromptItem {
        PromptItem::Image(ImageRef { picture, name: String::new() })
    }

    #[test]
    fn the_text_form_has_places() {
        let document = PromptDocument::from_text("a <i> and <i><i> here", 3).unwrap();
        assert_eq!(document.items(), [text("a "), image(0), text(" and "), image(1), image(2), text(" here")]);
        assert_eq!(document.to_text(), "a <i> and <i><i> here");
        assert_eq!(PromptDocument::from_text("", 0).unwrap(), PromptDocument::default());
        assert_eq!(PromptDocument::from_text("<i>", 1).unwrap().items(), [image(0)]);
    }

    #[test]
    fn typed_places_stay_words() {
        let document = PromptDocument::new([text("write <i> on "), image(0)]);
        assert_eq!(document.to_text(), r"write \<i> on <i>");
        assert_eq!(PromptDocument::from_text(r"a\b \<i>", 0).unwrap().items(), [text(r"a\b <i>")]);
        assert_eq!(PromptDocument::from_text(r"\\<i>\", 1).unwrap().items(), [text(r"\"), image(0), text(r"\")]);
    }

    #[test]
    fn both_forms_say_the_same() {
        let texts = ["", "a", " ", r"\", r"\\", "<i>", r"\<i>", r"<i>\", r"\\<i><i>\\\", "<<i>>", r"<\i>"];
        for one in texts {
            for other in texts {
                for last in texts {
                    let items = [text(one), image(0), text(other), image(1), text(last)];
                    let document = PromptDocument::new(items);
                    let form = document.to_text();
                    assert_eq!(PromptDocument::from_text(&form, 2).as_ref(), Ok(&document), "{form}");
                }
            }
        }
    }

    #[test]
    fn texts_are_joined() {
        let items = [text("a"), text(""), text("b"), image(0), text(""), image(0), text("")];
        let document = PromptDocument::new(items.clone());
        assert_eq!(document.items(), [text("ab"), image(0), image(0)]);
        let json = serde_json::to_string(&items).unwrap();
        assert_eq!(serde_json::from_str::<PromptDocument>(&json).unwrap(), document);
        let json = serde_json::to_string(&document).unwrap();
        assert_eq!(json, r#"[{"text":"ab"},{"image":{"picture":0}},{"image":{"picture":0}}]"#);
    }

    #[test]
    fn pictures_and_places_must_match() {
        let message = |text, pictures| PromptDocument::from_text(text, pictures).unwrap_err().to_string();
        assert_eq!(message("a <i>", 2), "2 pictures given, but the prompt has 1 place <i>");
        assert_eq!(message("<i> <i>", 1), "1 picture given, but the prompt has 2 places <i>");
        assert_eq!(message("a cat", 1), "1 picture given, but the prompt has 0 places <i>");

        let document = PromptDocument::new([image(0), image(2)]);
        assert_eq!(document.check_pictures(3), Ok(()));
        let error = document.check_pictures(2).unwrap_err();
        assert_eq!(error.to_string(), "the prompt shows picture number 3, but 2 pictures given");
        assert_eq!(document.images().map(|image| image.picture).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn every_picture_is_shown_somewhere() {
        let twice = PromptDocument::new([image(0), image(0)]);
        assert_eq!(twice.check_all_shown(1), Ok(()));
        let error = twice.check_all_shown(2).unwrap_err().to_string();
        assert_eq!(error, "picture number 2 is nowhere in the prompt; give it a place or leave it out");
    }

    #[test]
    fn there_is_an_end_to_words_and_names() {
        let mut items = vec![text(&"a".repeat(MAX_TEXT_BYTES - 1)), image(0), text("b")];
        assert_eq!(PromptDocument::new(items.clone()).check_length(), Ok(()));
        items.push(text("c"));
        let bytes = MAX_TEXT_BYTES + 1;
        assert_eq!(PromptDocument::new(items).check_length(), Err(PromptError::TooMuchText { bytes }));

        let name = "é".repeat(MAX_NAME_BYTES);
        let json = serde_json::json!([{ "image": { "picture": 0, "name": format!("x{name}") } }]);
        let document: PromptDocument = serde_json::from_value(json).unwrap();
        assert_eq!(document.images().next().unwrap().name, format!("x{}", &name[..MAX_NAME_BYTES - 2]));

        let many = serde_json::to_string(&vec![image(0); MAX_ITEMS + 1]).unwrap();
        let error = serde_json::from_str::<PromptDocument>(&many).unwrap_err().to_string();
        assert!(error.contains("at most 4096 are"), "{error}");
    }

    #[test]
    fn words_are_never_places() {
        assert_eq!(PromptDocument::from_words("no <i>").items(), [text("no <i>")]);
        assert_eq!(PromptDocument::from_words("").items(), []);
    }
}
