//! Where samples come from: the [world](World) of sprites, drawn as they are asked for, or [files](Files) in the forms that
//! the published loaders read.

use std::fmt::Debug;
use std::fs;
use std::sync::Arc;

use anyhow::Context as _;
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::prompt::{ImageRef, PromptDocument, PromptItem};
use kosmosg::tokenizer::Tokenizer;

use super::config::TrainConfig;
use super::vocabulary::{tokenizer, vocabulary};

pub(super) use files::Files;
pub(super) use world::{World, backdrop};

mod files;
mod lines;
mod world;

/// Samples of the paper's three kinds. Each is a function of its generator alone.
pub(super) trait Data: Debug + Send + Sync {
    /// Checks that there are samples of the kinds that are asked for with a share above 0.
    fn check(&self, shares: &[(Kind, f64)]) -> anyhow::Result<()>;
    /// What tells these data from others.
    fn fingerprint(&self) -> String;
    /// A picture.
    fn picture(&self, rng: &mut Rng) -> Picture;
    /// Words that `reader` can read to their end.
    fn caption(&self, rng: &mut Rng, reader: Reader) -> String;
    /// A picture with such words.
    fn captioned(&self, rng: &mut Rng, reader: Reader) -> (String, Picture);
    /// A picture, of one entity or of several, and what it shows.
    fn described(&self, rng: &mut Rng) -> Vec<Item>;
    /// A caption in which every entity has its picture, and the picture that it is of.
    fn constructed(&self, rng: &mut Rng, options: Constructed) -> Sample;
    /// A picture and an instruction, and the picture after it. With probability `drop_caption` the first has no caption.
    fn edit(&self, rng: &mut Rng, drop_caption: f64) -> Sample;
    /// A prompt that a person should see the answer to, and what it shows.
    fn showcase(&self, number: usize) -> Sample;
}

/// What a sequence tells, and the picture that it asks for.
pub(super) type Sample = (Vec<Item>, Picture);

/// A kind of samples: what [`Data`] calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Picture,
    Caption(Reader),
    Captioned(Reader),
    Described,
    Constructed,
    Edit,
}

/// Who reads a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    LanguageModel,
    TextEncoder,
    /// What aligns the one with the other.
    Both,
}

/// How a constructed sample is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constructed {
    /// Probability that an entity's words are dropped and only its picture stays.
    pub drop_words: f64,
    /// Probability that a cut-out keeps its background.
    pub keep_background: f64,
    /// Probability that words change what a picture shows, where the data can tell such.
    pub altered: f64,
}

/// A piece of a sequence.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Words(String),
    Picture(Picture),
}

/// A sequence as a person reads it.
pub(super) fn written(items: &[Item]) -> String {
    let item = |item: &Item| match item {
        Item::Words(words) => words.clone(),
        Item::Picture(_) => "<i>".to_owned(),
    };
    items.iter().map(item).collect::<Vec<_>>().join(" ")
}

/// A sequence as a prompt, and its pictures.
pub(super) fn prompt(items: Vec<Item>) -> (PromptDocument, Vec<Picture>) {
    let mut pictures = Vec::new();
    let items = items.into_iter().map(|item| match item {
        Item::Words(words) => PromptItem::Text(words),
        Item::Picture(picture) => {
            pictures.push(picture);
            PromptItem::Image(ImageRef { picture: pictures.len() - 1, name: String::new() })
        }
    });
    (PromptDocument::new(items.collect::<Vec<_>>()), pictures)
}

/// What the language model and the text encoder make of words.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub tokenizer: Arc<Tokenizer>,
    /// The tokenizer's file.
    pub json: Arc<[u8]>,
    /// CLIP's, where the text encoder has a tokenizer of its own.
    clip: Option<Arc<tokenizers::Tokenizer>>,
}

impl Words {
    /// The tokenizers of a configuration.
    ///
    /// # Errors
    /// A file cannot be read, or the networks count other token ids.
    pub fn new(config: &TrainConfig) -> anyhow::Result<Self> {
        let Some(data) = &config.data else {
            let tokenizer = Arc::new(tokenizer(&config.networks)?);
            return Ok(Self { tokenizer, json: vocabulary().to_json().into(), clip: None });
        };
        let json = fs::read(&data.tokenizer).with_context(|| format!("cannot read {}", data.tokenizer.display()))?;
        let kosmosg = &config.networks.kosmosg;
        let tokenizer = Tokenizer::from_json(&json, kosmosg.mllm.vocab_size, &kosmosg.special)
            .map_err(|error| anyhow::anyhow!("{}: {error}", data.tokenizer.display()))?;
        let clip = tokenizers::Tokenizer::from_file(&data.text_tokenizer)
            .map_err(|error| anyhow::anyhow!("{}: {error}", data.text_tokenizer.display()))?;
        let (ids, embeddings) = (clip.get_vocab_size(true), config.networks.text.vocab_size);
        anyhow::ensure!(
            ids <= embeddings,
            "{} has {ids} token ids, the text encoder embeds {embeddings}",
            data.text_tokenizer.display()
        );
        Ok(Self { tokenizer: Arc::new(tokenizer), json: json.into(), clip: Some(Arc::new(clip)) })
    }

    /// The text encoder's token ids of a caption, without anything around them.
    pub fn for_text_encoder(&self, caption: &str) -> Vec<u32> {
        match &self.clip {
            None => self.tokenizer.encode(caption),
            Some(clip) => clip.encode(caption, false).map_or_else(|_| Vec::new(), |words| words.get_ids().to_vec()),
        }
    }
}
