//! How a picture was made, inside its PNG file.
//!
//! Two texts: `parameters`, in the form of AUTOMATIC1111's web interface, which people's tools show; and `kosmosg`, our
//! own JSON, which is read back.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::denoise::DenoiseSettings;
use crate::prompt::PromptDocument;
use crate::sampler::SamplerKind;

/// Everything that makes a picture again, apart from the pictures in the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The prompt.
    pub prompt: PromptDocument,
    /// The negative prompt; empty for none.
    #[serde(default)]
    pub negative: String,
    /// Seed of the noise.
    pub seed: u64,
    /// Which of a request's pictures this is, from 0: each has its own noise.
    #[serde(default)]
    pub picture: u64,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f64,
    /// Pixels in a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Name of the bundle.
    pub model: String,
    /// What changed the model: its LoRAs, its ControlNet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<String>,
    /// What computed it, such as `burn on WebGPU`; the pictures of two engines differ in last bits.
    #[serde(default)]
    pub engine: String,
    /// Version of this program.
    #[serde(default = "version")]
    pub version: String,
}

/// Why a PNG file's recipe cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file is no PNG, or a damaged one.
    #[error("the file is not a PNG that can be read: {0}")]
    Png(#[from] png::DecodingError),
    /// The recipe is damaged, or of a later version.
    #[error("the picture's recipe cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl Recipe {
    /// The recipe of a picture of `[width, height]` pixels that `engine` made of prompt and negative prompt with the bundle
    /// called `model`.
    pub fn of(
        settings: &DenoiseSettings,
        (prompt, negative): (PromptDocument, String),
        [width, height]: [u32; 2],
        model: &str,
        engine: &str,
    ) -> Self {
        let &DenoiseSettings { sampler, steps, guidance, seed, picture, .. } = settings;
        Self {
            prompt,
            negative,
            seed,
            picture,
            sampler,
            steps,
            guidance,
            width,
            height,
            model: model.to_owned(),
            adapters: Vec::new(),
            engine: engine.to_owned(),
            version: version(),
        }
    }

    /// The recipe inside a PNG file, none where the file has none of ours.
    ///
    /// # Errors
    /// When it is no PNG file or the recipe is damaged.
    pub fn read(png: &[u8]) -> Result<Option<Self>, RecipeError> {
        let limits = png::Limits { bytes: MAX_TEXT_BYTES };
        let reader = png::Decoder::new_with_limits(std::io::Cursor::new(png), limits).read_info()?;
        match reader.info().utf8_text.iter().find(|text| text.keyword == KEYWORD) {
            Some(text) => Ok(Some(serde_json::from_str(&text.get_text()?)?)),
            None => Ok(None),
        }
    }

    /// The recipe as AUTOMATIC1111's web interface writes it.
    pub fn parameters(&self) -> String {
        let negative = match self.negative.as_str() {
            "" => String::new(),
            negative => format!("\nNegative prompt: {negative}"),
        };
        let position = if self.picture > 0 { format!(", Batch pos: {}", self.picture) } else { String::new() };
        let adapters =
            self.adapters.iter().map(|adapter| format!(", Adapter: {}", quoted(adapter))).collect::<String>();
        format!(
            "{}{negative}\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}{adapters}{position}, \
             Version: kosmosg {}",
            self.prompt.to_text(),
            self.steps,
            self.sampler.label(),
            self.guidance,
            self.seed,
            self.width,
            self.height,
            quoted(&self.model),
            self.version,
        )
    }

    /// Puts both texts before the pixels.
    pub(super) fn write<W: Write>(&self, encoder: &mut png::Encoder<'_, W>) -> Result<(), png::EncodingError> {
        // A text ends at its first NUL.
        let parameters = self.parameters().replace('\0', " ");
        // The older kind of text, which every tool reads, has no characters beyond Latin-1.
        if parameters.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk("parameters".into(), parameters)?;
        } else {
            encoder.add_itxt_chunk("parameters".into(), parameters)?;
        }
        let json = serde_json::to_string(self).expect("strings and numbers are always JSON");
        encoder.add_itxt_chunk(KEYWORD.into(), json)
    }
}

/// This program's version, for [`Recipe::version`].
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// Name of our own text.
const KEYWORD: &str = "kosmosg";

/// Memory that a file's texts may take while they are read.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// A value of the last line, quoted where it would read as several.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { format!("{value:?}") } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::super::Picture;
    use super::*;
    use crate::prompt::MAX_TEXT_BYTES;

    fn recipe() -> Recipe {
        Recipe {
            prompt: PromptDocument::from_text("a <i> on the beach", 1).unwrap(),
            negative: "blurry, dark".into(),
            seed: u64::MAX,
            picture: 2,
            sampler: SamplerKind::DpmppTwoMKarras,
            steps: 20,
            guidance: 6.5,
            width: 512,
            height: 256,
            model: "kosmos-g".into(),
            adapters: vec!["lora wool.safetensors × 0.5".into()],
            engine: "burn on CPU".into(),
            version: "0.1.0".into(),
        }
    }

    fn picture() -> Picture {
        Picture::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap()
    }

    #[test]
    fn a_picture_brings_its_recipe() {
        let png = picture().to_png(Some(&recipe()));
        assert_eq!(Recipe::read(&png).unwrap(), Some(recipe()));
        assert_eq!(Picture::decode(&png).unwrap(), picture());
        assert_eq!(Recipe::read(&picture().to_png(None)).unwrap(), None);
    }

    #[test]
    fn parameters_read_as_people_know_them() {
        let expected = "a <i> on the beach\nNegative prompt: blurry, dark\nSteps: 20, Sampler: DPM++ 2M Karras, \
            CFG scale: 6.5, Seed: 18446744073709551615, Size: 512x256, Model: kosmos-g, \
            Adapter: lora wool.safetensors × 0.5, Batch pos: 2, Version: kosmosg 0.1.0";
        assert_eq!(recipe().parameters(), expected);
        let png = picture().to_png(Some(&recipe()));
        let latin1: Vec<u8> = expected.chars().map(|c| c as u8).collect();
        let text = [&b"tEXtparameters\0"[..], &latin1].concat();
        assert!(png.windows(text.len()).any(|window| window == text));

        let recipe = Recipe {
            negative: String::new(),
            guidance: 6.0,
            model: "a, b".into(),
            adapters: vec![],
            picture: 0,
            ..recipe()
        };
        let parameters = recipe.parameters();
        assert!(!parameters.contains("Negative") && parameters.contains("CFG scale: 6, "), "{parameters}");
        assert!(parameters.contains("Model: \"a, b\", Version"), "{parameters}");
    }

    #[test]
    fn any_text_can_be_written() {
        for text in ["naïve", "猫 🙂", "a\0b", "two\nlines", "<i>", ""] {
            let recipe = Recipe { prompt: PromptDocument::from_words(text), negative: text.into(), ..recipe() };
            let png = picture().to_png(Some(&recipe));
            assert_eq!(Recipe::read(&png).unwrap(), Some(recipe), "{text:?}");
            assert_eq!(Picture::decode(&png).unwrap(), picture(), "{text:?}");
        }
    }

    #[test]
    fn the_longest_words_are_read_back() {
        // A control character takes six bytes in JSON.
        let words = "\u{1}".repeat(MAX_TEXT_BYTES);
        let recipe = Recipe { prompt: PromptDocument::from_words(&words), negative: words, ..recipe() };
        assert_eq!(Recipe::read(&picture().to_png(Some(&recipe))).unwrap(), Some(recipe));
    }

    #[test]
    fn other_files_have_no_recipe() {
        assert!(matches!(Recipe::read(b""), Err(RecipeError::Png(_))));
        assert!(matches!(Recipe::read(b"not a png"), Err(RecipeError::Png(_))));
        let png = picture().to_png(Some(&recipe()));
        for length in 0..png.len() {
            if let Ok(Some(read)) = Recipe::read(&png[..length]) {
                assert_eq!(read, recipe());
            }
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.add_itxt_chunk(KEYWORD.into(), "{}".into()).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0]).unwrap();
        writer.finish().unwrap();
        let error = Recipe::read(&bytes).unwrap_err().to_string();
        assert!(error.contains("recipe cannot be read: missing field"), "{error}");
    }
}
