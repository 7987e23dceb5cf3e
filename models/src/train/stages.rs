//! The stages: for each, what is trained, what a batch is, and its loss.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::checkpoint::{Progress, file_hash};
use super::config::{Networks, TrainConfig};
use super::run::Job;
use super::vocabulary::{tokenizer, world};
use super::{Stage, TrainOptions, result_path};
use crate::eval::answer::text_tokens;
use crate::sprites::{self, Scene};

pub(super) use align::AlignTask;
pub(super) use autoencoder::{Autoencoder, VAE_CONFIG, vae_config};
pub(super) use decoder::DecoderTask;
pub(super) use instruct::InstructTask;
pub(super) use judge::JudgeTask;
pub(super) use lm::LmTask;
pub(super) use text::TextTask;
pub(super) use vae::VaeTask;

mod align;
mod answers;
mod autoencoder;
mod decoder;
mod instruct;
mod judge;
mod lm;
mod sampling;
mod sequences;
mod text;
mod vae;

/// What all stages share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub config: Arc<TrainConfig>,
    pub tokenizer: Arc<Tokenizer>,
    pub run: PathBuf,
    pub device: BurnDevice,
}

impl Shared {
    /// Checks that the configuration fits the world.
    pub fn new(options: &TrainOptions) -> anyhow::Result<Self> {
        let TrainOptions { config, run, device } = options;
        let longest = config.networks.text.max_position_embeddings;
        if longest < SHORTEST_TEXT {
            anyhow::bail!("text.max_position_embeddings is {longest}; a scene takes up to {SHORTEST_TEXT} tokens");
        }
        Ok(Self {
            tokenizer: Arc::new(tokenizer(&config.networks)?),
            config: Arc::new(config.clone()),
            run: run.clone(),
            device: device.clone(),
        })
    }

    /// A stage of the run, ready to be trained.
    ///
    /// # Errors
    /// An earlier stage that it needs is not trained yet, or its folder cannot be made.
    pub fn job(&self, stage: Stage) -> anyhow::Result<Job> {
        let basis = self.basis(stage)?;
        let dir = self.run.join(stage.name());
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let training = self.config.training(stage).clone();
        Ok(Job { name: stage.name(), dir, training, basis, device: self.device.clone() })
    }

    /// Checks that a stage's result is what these settings and the earlier stages, as they are now, lead to.
    ///
    /// # Errors
    /// What the stage began with is something else, or is not known.
    pub fn belongs(&self, stage: Stage) -> anyhow::Result<()> {
        let (name, dir) = (stage.name(), self.run.join(stage.name()));
        let progress = Progress::newest(&dir)?;
        let progress = progress.with_context(|| format!("stage {name} has no checkpoint in {}", dir.display()))?;
        if let Some(what) = progress.difference(&self.basis(stage)?) {
            anyhow::bail!("stage {name} does not belong to the others: it began with another `{what}`; train it anew");
        }
        Ok(())
    }

    /// What a stage begins with.
    fn basis(&self, stage: Stage) -> anyhow::Result<Value> {
        let Networks { kosmosg, text, unet, vae } = &self.config.networks;
        let networks = match stage {
            Stage::Vae => json!({ "vae": vae }),
            Stage::Text => json!({ "text": text }),
            Stage::Decoder => json!({ "text": text, "unet": unet }),
            Stage::Lm | Stage::Align | Stage::Instruct => json!({ "kosmosg": kosmosg }),
            Stage::Judge => json!({}),
        };
        let mut basis = json!({ "networks": networks, "picture_size": self.config.picture_size });
        if stage != Stage::Vae {
            basis["world"] = world().into();
            basis["prediction_type"] = json!(self.config.prediction_type);
        }
        for &earlier in stage.needs() {
            basis["stages"][earlier.name()] = file_hash(&result_path(&self.run, earlier)?)?.into();
        }
        Ok(basis)
    }

    /// A caption that the text encoder can read to its end. A scene that takes too many words is told in fewer details.
    fn caption(&self, scene: &Scene, rng: &mut Rng) -> String {
        loop {
            let caption = strange(&sprites::caption(scene, rng), rng);
            if self.tokenizer.encode(&caption).len() <= self.longest_caption() {
                return caption;
            }
        }
    }

    /// Tokens that a caption may have beside `<s>` and `</s>`.
    fn longest_caption(&self) -> usize {
        self.config.networks.text.max_position_embeddings.saturating_sub(2)
    }

    /// A [caption](Self::caption) for the text encoder: `<s>`, its words, and `</s>` up to the longest length.
    fn text_tokens(&self, caption: &str) -> Vec<u32> {
        text_tokens(&self.tokenizer, &self.config.networks.text, caption)
    }

    /// Pixels of `[B, 3, S, S]` on the device.
    fn pixels(&self, pixels: Vec<f32>, size: usize) -> Tensor<Burn, 4> {
        let batch = pixels.len() / (3 * size * size);
        Tensor::from_host(pixels, [batch, 3, size, size], &self.device)
    }
}

/// With fewer tokens, some scenes could hardly be told in any words.
const SHORTEST_TEXT: usize = 32;

/// Words among which there is sometimes one that this world does not have: people will use such words, and a model that
/// never met `<unk>` could be led anywhere by it.
fn strange(text: &str, rng: &mut Rng) -> String {
    const SHARE: f64 = 0.05;
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if !words.is_empty() && rng.bool(SHARE) {
        words.insert(rng.below(words.len() + 1), "~");
    }
    words.join(" ")
}

/// What an autoencoder left, `[B, 3, H, W]`, as pictures.
fn pictures(pixels: &Tensor<Burn, 4>) -> anyhow::Result<Vec<Picture>> {
    let [_, channels, height, width] = pixels.shape();
    let pixels = pollster::block_on(pixels.to_host())?;
    Ok(pixels
        .chunks_exact(channels * height * width)
        .map(|picture| Picture::from_vae(picture, width as u32, height as u32))
        .collect())
}

/// A number drawn with these shares.
fn choose<const N: usize>(rng: &mut Rng, shares: [f64; N]) -> usize {
    let mut left = rng.uniform() * shares.iter().sum::<f64>();
    let is_it = |share: &f64| {
        left -= share;
        left < 0.0
    };
    shares.iter().position(is_it).unwrap_or(N - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprites::Split;

    #[test]
    fn captions_are_whole_sentences_that_fit() {
        let options =
            TrainOptions { config: TrainConfig::tiny(), run: PathBuf::new(), device: BurnDevice::cpu().training() };
        let shared = Shared::new(&options).unwrap();
        let (mut crowds, mut shortened, mut unknown) = (0, 0, 0);
        for seed in 0..2000 {
            let mut rng = Rng::new(seed, 0);
            let scene = Scene::sample(&mut rng, Split::Train);
            let first = sprites::caption(&scene, &mut rng.clone());
            let caption = shared.caption(&scene, &mut rng);
            let tokens = shared.text_tokens(&caption);
            let words = sprites::words(&caption).len();
            assert_eq!(tokens.len(), 40);
            assert!(tokens[1..=words].iter().all(|token| (4..153).contains(token) || *token == 3), "{caption}");
            unknown += usize::from(tokens.contains(&3));
            assert!(tokens[words + 1..].iter().all(|&token| token == 2), "{caption}");
            crowds += usize::from(scene.actors.len() == 3);
            shortened += usize::from(sprites::words(&first).len() > 38);
        }
        assert!(crowds > 120 && shortened > 30 && shortened < 500, "{crowds} {shortened}");
        assert!(unknown > 50 && unknown < 200, "{unknown}");
    }

    #[test]
    fn shares_are_kept() {
        let mut rng = Rng::new(1, 0);
        let mut counts = [0; 3];
        (0..5000).for_each(|_| counts[choose(&mut rng, [2.0, 2.0, 1.0])] += 1);
        assert!(
            counts.iter().zip([2000, 2000, 1000]).all(|(n, share): (&i32, _)| (n - share).abs() < 150),
            "{counts:?}"
        );
    }
}
