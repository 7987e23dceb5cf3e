//! A recipe as a link: the address's fragment holds sentence, settings and, where they are small, pictures.
//!
//! A fragment is never sent to a server. It is `#recipe=` and the JSON of a [`Recipe`], deflated, in URL-safe base64.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::PictureFile;
use serde::{Deserialize, Serialize};

use crate::composition::Dials;
use crate::texts;

/// How the fragment begins.
const PREFIX: &str = "#recipe=";
/// The form of today.
const VERSION: u32 = 1;
/// Longest fragment that is looked at.
const MAX_LETTERS: usize = 64 << 10;
/// Most bytes that it is unpacked to.
pub const MAX_BYTES: usize = 1 << 20;
/// Pictures of all prompts together that a link takes along: messengers cut longer ones.
pub const MAX_PICTURE_BYTES: usize = 12 << 10;
/// A picture's file that a link takes along as it is.
pub const SMALL_PICTURE_BYTES: usize = 4 << 10;

/// What a link says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    version: u32,
    /// Words and picture places.
    pub prompt: PromptDocument,
    /// The pictures by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<Picture>,
    /// The settings.
    pub dials: Dials,
    /// The model.
    #[serde(default)]
    pub model: String,
}

/// A picture in a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Picture {
    /// One of the page's creatures.
    Creature(u64),
    /// A file.
    File(PictureFile),
    /// One that is too large for a link.
    Missing,
}

/// A link that cannot be read: for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", texts::LINK_DAMAGED)]
pub struct BadLink;

impl Recipe {
    /// A link's recipe.
    pub fn new(prompt: PromptDocument, pictures: Vec<Picture>, dials: Dials, model: String) -> Self {
        Self { version: VERSION, prompt, pictures, dials, model }
    }

    /// The JSON to be deflated.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are always JSON")
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`BadLink`] if it is of another form.
    pub fn from_json(json: &[u8]) -> Result<Self, BadLink> {
        let recipe: Self = kosmosg::json::read(json).map_err(|_| BadLink)?;
        if recipe.version == VERSION { Ok(recipe) } else { Err(BadLink) }
    }
}

/// The fragment for deflated JSON. `None` if it is longer than what is opened again.
pub fn fragment(deflated: &[u8]) -> Option<String> {
    let text = URL_SAFE_NO_PAD.encode(deflated);
    (text.len() <= MAX_LETTERS).then(|| PREFIX.to_owned() + &text)
}

/// The deflated JSON of an address's fragment; nothing if it is another one.
pub fn deflated(fragment: &str) -> Option<Result<Vec<u8>, BadLink>> {
    let text = fragment.strip_prefix(PREFIX)?;
    let is_short = text.len() <= MAX_LETTERS;
    // Who copies a link out of a text may take the full stop along.
    let text = text.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    Some(if is_short { URL_SAFE_NO_PAD.decode(text).map_err(|_| BadLink) } else { Err(BadLink) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        let prompt = PromptDocument::from_text("a <i> and <i>", 2).unwrap();
        let pictures = vec![Picture::Creature(5), Picture::File(PictureFile(vec![1, 2, 3]))];
        Recipe::new(prompt, pictures, Dials { seed: "7".into(), ..Dials::default() }, "tiny".into())
    }

    #[test]
    fn a_link_says_what_was_put_in() {
        let json = recipe().to_json();
        assert_eq!(Recipe::from_json(&json), Ok(recipe()));
        // Deflating is the browser's.
        let fragment = fragment(&json).unwrap();
        assert!(fragment.strip_prefix(PREFIX).unwrap().chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)));
        assert_eq!(deflated(&fragment), Some(Ok(json.clone())));
        assert_eq!(deflated(&(fragment + ".")), Some(Ok(json)));
        assert_eq!(super::fragment(&vec![0; MAX_LETTERS]), None);
    }

    #[test]
    fn other_fragments_are_not_ours_and_broken_ones_are_told() {
        assert_eq!(deflated(""), None);
        assert_eq!(deflated("#prompt"), None);
        assert_eq!(deflated("#recipe=a=b"), Some(Err(BadLink)));
        assert_eq!(deflated(&("#recipe=".to_owned() + &"a".repeat(MAX_LETTERS + 1))), Some(Err(BadLink)));
        assert_eq!(Recipe::from_json(b"{}"), Err(BadLink));
        assert_eq!(Recipe::from_json(&Recipe { version: 2, ..recipe() }.to_json()), Err(BadLink));
    }
}
