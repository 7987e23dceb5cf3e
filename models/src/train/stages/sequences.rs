//! Words and pictures of the world as the language model takes them.

use kosmosg::encoder::EncoderNetworks;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::mllm::TokenBatch;
use kosmosg::prompt::PromptSequence;

use super::{IN_MEMORY, Shared};
use crate::train::data::{Item, prompt};

/// Sequences with their pictures, in host memory.
#[derive(Default)]
pub(in crate::train) struct Sequences {
    rows: Vec<PromptSequence>,
    /// Pixels of all pictures in order, as the vision tower takes them.
    pixels: Vec<f32>,
}

impl Sequences {
    /// Adds a sequence, made just as at inference.
    pub fn push(&mut self, shared: &Shared, items: Vec<Item>) {
        let networks = &shared.config.networks.kosmosg;
        let (document, pictures) = prompt(items);
        let longest = networks.aligner.max_positions - 2;
        let sequence = shared.words.tokenizer.sequence(&document, networks.connector.latent_queries, longest);
        self.rows.push(sequence.expect("samples that are short enough"));
        let pixels = pictures.iter().flat_map(|picture| picture.pixels_for_encoder(networks.vision.image_size as u32));
        self.pixels.extend(pixels);
    }

    /// Appends `</s>` to every sequence.
    pub fn end(&mut self, shared: &Shared) {
        for row in &mut self.rows {
            row.tokens.push(shared.config.networks.kosmosg.special.eos);
            row.image_mask.push(false);
        }
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The sequences at one length.
    pub fn tokens(&self, shared: &Shared) -> TokenBatch {
        let pad = shared.config.networks.kosmosg.special.pad;
        let longest = self.rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let mut batch = TokenBatch { tokens: Vec::new(), image_mask: Vec::new(), batch: self.rows.len(), pad };
        for row in &self.rows {
            let end = batch.tokens.len() + longest;
            batch.tokens.extend(&row.tokens);
            batch.tokens.resize(end, pad);
            batch.image_mask.extend(&row.image_mask);
            batch.image_mask.resize(end, false);
        }
        batch
    }

    /// What everything before the decoder makes of them, `[B, Q, D]`.
    pub fn condition(&self, shared: &Shared, networks: &EncoderNetworks<Burn>) -> Tensor<Burn, 3> {
        let images = self.pictures(shared).map(|pixels| networks.embed_pictures(pixels));
        networks.condition(&self.tokens(shared), images).expect(IN_MEMORY)
    }

    /// All pictures, `[N, 3, S, S]`, if there are any.
    pub fn pictures(&self, shared: &Shared) -> Option<Tensor<Burn, 4>> {
        let size = shared.config.networks.kosmosg.vision.image_size;
        (!self.pixels.is_empty()).then(|| shared.pixels(self.pixels.clone(), size))
    }
}
