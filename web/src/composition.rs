//! What a person composed: a sentence, its pictures and the settings, as it is kept and brought back.

use kosmosg::bundle::Manifest;
use kosmosg::picture::Recipe;
use kosmosg::prompt::{MAX_TEXT_BYTES, PromptDocument, PromptItem};
use kosmosg::protocol::{MAX_REQUEST_BYTES, MAX_REQUEST_PICTURES, PictureFile};
use kosmosg::sampler::{MAX_STEPS, SamplerKind};
use serde::{Deserialize, Serialize};

use crate::draft::MAX_SENTENCE_PICTURES;
use crate::{picture_file, texts};

/// Most letters of a seed that is typed.
const MAX_SEED_LETTERS: usize = 64;
/// Largest guidance scale that is taken over.
const MAX_GUIDANCE: f64 = 100.0;

/// A sentence, its pictures and the settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Composition {
    /// Words and picture places.
    pub prompt: PromptDocument,
    /// The pictures' files by their number in the prompt; none where the file is not at hand.
    pub pictures: Vec<Option<PictureFile>>,
    /// The settings.
    pub dials: Dials,
}

/// The settings beside the sentence, as they stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dials {
    /// The seed as it is typed.
    pub seed: String,
    /// Whether it is kept.
    pub lock: bool,
    /// Denoising steps; as the model does, where none are given.
    pub steps: Option<usize>,
    /// Guidance scale; likewise.
    pub guidance: Option<f64>,
    /// Sampler; likewise.
    pub sampler: Option<SamplerKind>,
    /// What to steer away from.
    pub negative: String,
    /// How many pictures are wanted.
    pub count: u64,
    /// The number of the first one among those of its seed.
    pub first: u64,
}

impl Default for Dials {
    fn default() -> Self {
        Self {
            seed: String::new(),
            lock: false,
            steps: None,
            guidance: None,
            sampler: None,
            negative: String::new(),
            count: 1,
            first: 0,
        }
    }
}

/// That something from elsewhere asks for more than this page does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", texts::RECIPE_TOO_MUCH)]
pub struct TooMuch;

impl Composition {
    /// What makes a recipe's picture again; `file` gives the files of its pictures by number.
    ///
    /// # Errors
    /// [`TooMuch`] for what no person composes.
    pub fn of(recipe: &Recipe, file: impl Fn(usize) -> Option<PictureFile>) -> Result<Self, TooMuch> {
        let pictures = match recipe.prompt.images().map(|image| image.picture).max() {
            Some(most) if most >= MAX_REQUEST_PICTURES => return Err(TooMuch),
            Some(most) => (0..=most).map(file).collect(),
            None => Vec::new(),
        };
        let dials = Dials {
            seed: recipe.seed.to_string(),
            lock: true,
            steps: Some(recipe.steps),
            guidance: Some(recipe.guidance),
            sampler: Some(recipe.sampler),
            negative: recipe.negative.clone(),
            count: 1,
            first: recipe.picture,
        };
        Self { prompt: recipe.prompt.clone(), pictures, dials }.checked()
    }

    /// The same, if it is within the bounds of what the page does; without the files that the model does not read.
    ///
    /// # Errors
    /// [`TooMuch`] if it is not.
    pub fn checked(mut self) -> Result<Self, TooMuch> {
        for file in &mut self.pictures {
            file.take_if(|file| !picture_file::is_admitted(&file.0));
        }
        let Dials { seed, steps, guidance, negative, .. } = &self.dials;
        let bytes: usize = self.pictures.iter().flatten().map(|file| file.0.len()).sum();
        let places: Vec<_> = self.prompt.images().collect();
        let fits = seed.chars().count() <= MAX_SEED_LETTERS
            && steps.is_none_or(|steps| (1..=MAX_STEPS).contains(&steps))
            && guidance.is_none_or(|guidance| (0.0..=MAX_GUIDANCE).contains(&guidance))
            && negative.len() <= MAX_TEXT_BYTES
            && self.prompt.to_text().len() <= MAX_TEXT_BYTES
            && places.len() <= MAX_SENTENCE_PICTURES
            && places.iter().all(|image| image.picture < self.pictures.len())
            && self.pictures.len() <= MAX_REQUEST_PICTURES
            && bytes <= MAX_REQUEST_BYTES;
        if fits { Ok(self) } else { Err(TooMuch) }
    }
}

/// Why a recipe's picture will come out otherwise with the present model, if that is so.
pub fn differences(recipe: &Recipe, manifest: Option<&Manifest>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(manifest) = manifest {
        if manifest.name != recipe.model {
            lines.push(texts::other_model(&recipe.model, &manifest.name));
        } else if [recipe.width, recipe.height] != [manifest.picture_size as u32; 2] {
            lines.push(texts::other_size(recipe.width, recipe.height));
        }
    }
    lines.extend((!recipe.adapters.is_empty()).then(|| texts::OTHER_ADAPTERS.to_owned()));
    lines
}

/// A prompt in words, each picture by its name.
pub fn sentence(prompt: &PromptDocument) -> String {
    let mut sentence = String::new();
    for item in prompt.items() {
        sentence += match item {
            PromptItem::Text(words) => words,
            PromptItem::Image(image) => without_second_article(&sentence, &image.name),
        };
    }
    sentence
}

/// The name of a picture, where one such as "a red cat" would follow an article.
fn without_second_article<'a>(before: &str, name: &'a str) -> &'a str {
    let is_article = |word: &str| ["a", "an", "the"].contains(&word.to_ascii_lowercase().as_str());
    let follows =
        before.ends_with(char::is_whitespace) && before.split_whitespace().next_back().is_some_and(is_article);
    match name.split_once(' ') {
        Some((first, rest)) if follows && is_article(first) => rest,
        _ => name,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn recipe(places: usize) -> Recipe {
        Recipe {
            prompt: PromptDocument::from_text(&format!("a{} on the beach", " <i>".repeat(places)), places).unwrap(),
            negative: "dark".into(),
            seed: u64::MAX,
            picture: 0,
            sampler: SamplerKind::DpmppTwoMKarras,
            steps: 7,
            guidance: 4.3,
            width: 64,
            height: 64,
            model: "tiny".into(),
            adapters: Vec::new(),
            engine: String::new(),
            version: "1".into(),
        }
    }

    #[test]
    fn a_recipe_is_taken_over_exactly() {
        let png = kosmosg::picture::Picture::new(1, 1, vec![9; 3]).unwrap().to_png(None);
        // Nothing that the model would not read, or that says of itself that it has too many pixels.
        let lie = [&png[..16], &[0, 1, 0, 0, 0, 1, 0, 0], &png[24..]].concat();
        let files = [b"no picture".to_vec(), png.clone(), lie].map(PictureFile);
        let composition = Composition::of(&recipe(3), |number| files.get(number).cloned()).unwrap();
        assert_eq!(composition.pictures, [None, Some(PictureFile(png)), None]);
        let dials = &composition.dials;
        assert_eq!((dials.seed.as_str(), dials.lock, dials.steps), ("18446744073709551615", true, Some(7)));
        assert_eq!((dials.guidance, dials.negative.as_str()), (Some(4.3), "dark"));
    }

    #[test]
    fn more_than_a_person_composes_is_refused() {
        let of = |recipe: &Recipe| Composition::of(recipe, |_| None);
        assert_eq!(of(&recipe(MAX_SENTENCE_PICTURES)).unwrap().pictures.len(), MAX_SENTENCE_PICTURES);
        assert_eq!(of(&recipe(MAX_SENTENCE_PICTURES + 1)), Err(TooMuch));
        for wrong in [
            Recipe { steps: 0, ..recipe(0) },
            Recipe { steps: MAX_STEPS + 1, ..recipe(0) },
            Recipe { guidance: f64::NAN, ..recipe(0) },
            Recipe { guidance: 1e9, ..recipe(0) },
            Recipe { negative: "x".repeat(MAX_TEXT_BYTES + 1), ..recipe(0) },
            Recipe { prompt: PromptDocument::from_words(&"x".repeat(MAX_TEXT_BYTES + 1)), ..recipe(0) },
        ] {
            assert_eq!(of(&wrong), Err(TooMuch), "{wrong:?}");
        }
        let json = r#"[{"image":{"picture":18446744073709551615}}]"#;
        let far = Recipe { prompt: serde_json::from_str(json).unwrap(), ..recipe(0) };
        assert_eq!(of(&far), Err(TooMuch));
        let composition = Composition { pictures: Vec::new(), ..of(&recipe(1)).unwrap() };
        assert_eq!(composition.checked(), Err(TooMuch), "a place without a picture");
    }

    #[test]
    fn settings_that_are_missing_are_the_models() {
        assert_eq!(serde_json::from_str::<Dials>("{}").unwrap(), Dials::default());
    }
}
