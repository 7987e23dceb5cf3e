//! The stages: for each, what is trained, what a batch is, and its loss.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use kosmosg::clip_text::ClipText;
use kosmosg::config::KosmosGConfig;
use kosmosg::digest::sha256;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::weights::gguf;
use serde_json::{Value, json};

use super::checkpoint::{Progress, file_hash};
use super::config::{Networks, TrainConfig};
use super::data::{Data, Files, Words, World};
use super::parameters::Parameters;
use super::run::Job;
use super::{Stage, TrainOptions, result, result_path};
use crate::eval::answer::text_tokens;

pub(super) use align::AlignTask;
pub(super) use autoencoder::{Autoencoder, VAE_CONFIG, makes_latents, vae_config};
pub(super) use decoder::DecoderTask;
pub(super) use imitate::ImitateTask;
pub(super) use instruct::InstructTask;
pub(super) use judge::JudgeTask;
pub(super) use lm::LmTask;
pub(super) use text::TextTask;
pub(super) use vae::VaeTask;
pub(super) use vision::VisionTask;

mod align;
mod answers;
mod autoencoder;
mod decoder;
mod imitate;
mod instruct;
mod judge;
mod lm;
mod sampling;
mod sequences;
mod text;
mod vae;
mod vision;

/// Why a network that is being trained has its words' embeddings.
const IN_MEMORY: &str = "a run's weights are in memory";

/// What all stages share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub config: Arc<TrainConfig>,
    pub words: Words,
    pub data: Arc<dyn Data>,
    pub run: PathBuf,
    pub device: BurnDevice,
}

impl Shared {
    /// Checks that the configuration fits the data.
    pub fn new(options: &TrainOptions) -> anyhow::Result<Self> {
        let TrainOptions { config, run, device } = options;
        let words = Words::new(config)?;
        let longest = longest_caption(config);
        let data: Arc<dyn Data> = match &config.data {
            Some(files) => Arc::new(Files::open(&words, longest, config, files, &run.join("lines"))?),
            None if longest + 2 < SHORTEST_TEXT => anyhow::bail!(
                "text.max_position_embeddings is {}; a scene takes up to {SHORTEST_TEXT} tokens",
                longest + 2
            ),
            None => Arc::new(World::new(&words, longest, config.picture_size as u32)),
        };
        Ok(Self { words, data, config: Arc::new(config.clone()), run: run.clone(), device: device.clone() })
    }

    /// A stage of the run, ready to be trained.
    ///
    /// # Errors
    /// The configuration does without it, an earlier stage that it needs is not trained yet, or its folder cannot be made.
    pub fn job(&self, stage: Stage) -> anyhow::Result<Job> {
        let training = self.config.training(stage).cloned();
        let training = training.with_context(|| format!("the configuration has no [{}]", stage.name()))?;
        let (dir, basis) = self.begin(stage)?;
        Ok(Job { name: stage.name(), dir, training, basis, device: self.device.clone() })
    }

    /// A stage's folder, which is there, and what the stage begins with.
    ///
    /// # Errors
    /// An earlier stage that it needs is not trained yet, or its folder cannot be made.
    pub fn begin(&self, stage: Stage) -> anyhow::Result<(PathBuf, Value)> {
        let basis = self.basis(stage)?;
        let dir = self.run.join(stage.name());
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok((dir, basis))
    }

    /// Checks that the data tell what a stage has to know.
    ///
    /// # Errors
    /// Only the world of sprites does, and the data are files.
    pub fn check(&self, stage: Stage) -> anyhow::Result<()> {
        if self.config.data.is_some() && [Stage::Text, Stage::Vision, Stage::Imitate, Stage::Judge].contains(&stage) {
            anyhow::bail!(
                "stage {} learns from the world of sprites, which knows what its pictures show; take [data] out of the \
                 configuration, or import a bundle",
                stage.name()
            );
        }
        Ok(())
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
            anyhow::bail!(
                "stage {name} does not belong to the others: it began with another `{what}`; train it anew, or remove {} to do \
                 without it",
                dir.display()
            );
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
            Stage::Vision | Stage::Lm => {
                let KosmosGConfig { mllm, vision, connector, special, aligner: _ } = kosmosg;
                json!({ "kosmosg": { "mllm": mllm, "vision": vision, "connector": connector, "special": special } })
            }
            Stage::Align | Stage::Imitate | Stage::Instruct => json!({ "kosmosg": kosmosg }),
            Stage::Judge => json!({}),
        };
        let mut basis = json!({ "networks": networks, "picture_size": self.config.picture_size });
        if stage != Stage::Vae {
            basis["world"] = self.data.fingerprint().into();
            basis["prediction_type"] = json!(self.config.prediction_type);
        }
        for &earlier in stage.needs().iter().filter(|&&earlier| !self.config.does_without(earlier)) {
            basis["stages"][earlier.name()] = match (stage, earlier) {
                (_, Stage::Vae) => self.hash_of(earlier, makes_latents)?,
                (Stage::Align | Stage::Imitate, Stage::Decoder) => self.hash_of(earlier, is_text_encoders)?,
                _ => file_hash(&result_path(&self.run, earlier)?)?,
            }
            .into();
        }
        Ok(basis)
    }

    /// Hash of those weights of a stage that another learns from.
    fn hash_of(&self, stage: Stage, counts: fn(&str) -> bool) -> anyhow::Result<String> {
        let mut weights = result(&self.run, stage)?;
        weights.retain(|name, _| counts(name));
        Ok(sha256(&gguf::write(&weights)))
    }

    /// What a stage resulted in, as a part of a later one that stays as it is.
    fn frozen(&self, stage: Stage) -> anyhow::Result<Parameters> {
        Ok(Parameters::new(&result(&self.run, stage)?, &self.device, |_| false))
    }

    /// The decoder's text encoder, which later stages learn from.
    fn text_encoder(&self) -> anyhow::Result<ClipText<Burn>> {
        let config = &self.config.networks.text;
        Ok(self.frozen(Stage::Decoder)?.build(|weights| ClipText::new(&weights.at("text.text_model"), config))?)
    }

    /// The world of sprites, for stages that have to know what a picture shows.
    fn world(&self) -> World {
        World::new(&self.words, longest_caption(&self.config), self.config.picture_size as u32)
    }

    /// A caption for the text encoder: `<s>`, its words, and `</s>` up to the longest length.
    fn text_tokens(&self, caption: &str) -> Vec<u32> {
        text_tokens(self.words.for_text_encoder(caption), &self.config.networks.text)
    }

    /// Pixels of `[B, 3, S, S]` on the device.
    fn pixels(&self, pixels: Vec<f32>, size: usize) -> Tensor<Burn, 4> {
        let batch = pixels.len() / (3 * size * size);
        Tensor::from_host(pixels, [batch, 3, size, size], &self.device)
    }
}

/// Whether a parameter of stage 0c is the text encoder's, which is all that AlignerNet imitates of it.
fn is_text_encoders(name: &str) -> bool {
    name.starts_with("text.")
}

/// With fewer tokens, some scenes could hardly be told in any words.
const SHORTEST_TEXT: usize = 32;

/// Tokens that a caption may have beside `<s>` and `</s>`.
fn longest_caption(config: &TrainConfig) -> usize {
    config.networks.text.max_position_embeddings.saturating_sub(2)
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
