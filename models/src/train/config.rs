//! What a run trains, and how: one TOML file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use kosmosg::bundle;
use kosmosg::config::{ClipTextConfig, KosmosGConfig, UNetConfig, VaeConfig};
use kosmosg::engine::burn::train::Precision;
use kosmosg::schedule::{PredictionType, SchedulerConfig};
use serde::{Deserialize, Serialize};

use super::Stage;

pub use change::Change;

mod change;

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Side of the world's pictures, in pixels.
    pub picture_size: usize,
    /// Prepared files to learn from; without them it is the world of sprites.
    #[serde(default)]
    pub data: Option<FileData>,
    /// Sizes of all networks.
    pub networks: Networks,
    /// What the denoiser says: the noise, as Stable Diffusion 1.5 does, or something else. Velocity teaches a small network
    /// what belongs where much sooner: errors at high noise, where that is decided, count in full.
    #[serde(default)]
    pub prediction_type: PredictionType,
    /// Stage 0a.
    pub vae: VaeStage,
    /// Stage 0b, where the data can teach it.
    #[serde(default)]
    pub text: Option<TextStage>,
    /// Stage 0c.
    pub decoder: DecoderStage,
    /// Stage 0d, where the data can teach it.
    #[serde(default)]
    pub vision: Option<VisionStage>,
    /// Stage 1.
    pub lm: LmStage,
    /// Stage 2; without it stage 3 begins with an AlignerNet that knows nothing, as in the paper's ablation.
    #[serde(default)]
    pub align: Option<AlignStage>,
    /// Stage 3, its first part, where the data can teach it.
    #[serde(default)]
    pub imitate: Option<ImitateStage>,
    /// Stage 3.
    pub instruct: InstructStage,
    /// The judge, where the data can teach it.
    #[serde(default)]
    pub judge: Option<JudgeStage>,
}

/// Files in the forms that the published loaders read; relative paths begin at the configuration's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileData {
    /// The language model's `tokenizer.json`, as in a bundle.
    pub tokenizer: PathBuf,
    /// The text encoder's: CLIP's `tokenizer.json`.
    pub text_tokenizer: PathBuf,
    /// Shards of captions with pictures of their entities: caption, entities between commas, picture, then for each entity
    /// its cut-out and its cut-out with background.
    #[serde(default)]
    pub constructed: Vec<PathBuf>,
    /// Shards of edits: caption, instruction, then pictures before and after.
    #[serde(default)]
    pub editing: Vec<PathBuf>,
    /// Shards of captioned pictures: anything, caption, picture, width, height.
    #[serde(default)]
    pub captions: Vec<PathBuf>,
    /// Captioned pictures with a shorter side, in pixels, are left out.
    #[serde(default = "published_side")]
    pub smallest_side: u32,
    /// Whether the cut-out with background comes first, as the published script for preparing such data leaves it.
    #[serde(default)]
    pub background_first: bool,
}

fn published_side() -> u32 {
    384
}

impl FileData {
    /// All paths.
    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self { tokenizer, text_tokenizer, constructed, editing, captions, .. } = self;
        [tokenizer, text_tokenizer].into_iter().chain(constructed).chain(editing).chain(captions)
    }
}

/// Sizes of all networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Networks {
    /// Everything before the decoder.
    pub kosmosg: KosmosGConfig,
    /// The text encoder that the decoder learns to follow.
    pub text: ClipTextConfig,
    /// The denoiser.
    pub unet: UNetConfig,
    /// The autoencoder; its `scaling_factor` is measured once it is trained.
    pub vae: VaeConfig,
}

/// How a stage is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Seed of weights and data.
    pub seed: u64,
    /// Updates.
    pub steps: u64,
    /// Samples in each.
    pub batch: usize,
    /// Parts that the samples of an update are computed in: side by side on the CPU, each on its share of the cores; elsewhere
    /// one after the other, which saves memory.
    #[serde(default = "one")]
    pub parts: usize,
    /// Whether what a block of a network computes on its way is computed again for the gradients instead of kept: half the memory
    /// or less, and a third more time.
    #[serde(default)]
    pub checkpointing: bool,
    /// What products are computed with: `f32`; `f16` or `bf16`, on a device that has it.
    #[serde(default)]
    pub precision: Precision,
    /// So many different samples, again and again, instead of new ones without end: to see whether a network learns at all.
    #[serde(default)]
    pub samples: Option<u64>,
    /// Highest learning rate.
    pub lr: f64,
    /// Updates over which the learning rate rises from 0.
    pub warmup: u64,
    /// How it goes on from there.
    pub decay: Decay,
    /// Adam's `β₁` and `β₂`.
    pub betas: [f64; 2],
    /// Adam's ε.
    pub eps: f64,
    /// Decoupled weight decay of matrices and kernels; norms, biases and tables have none.
    pub weight_decay: f64,
    /// Largest norm of all gradients together.
    pub clip: f64,
    /// Decay of the weights' moving average, which is then what the stage results in.
    #[serde(default)]
    pub ema: Option<f64>,
    /// Updates between two checkpoints.
    pub checkpoint_every: u64,
    /// Updates between two sample sheets; with 0 there is none.
    pub sheet_every: u64,
}

fn one() -> usize {
    1
}

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It stays.
    Constant,
    /// In a straight line to 0 at the last update.
    Linear,
}

impl Training {
    /// The learning rate of update `step`, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let left = self.steps.saturating_sub(step) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        match self.decay {
            Decay::Constant => self.lr * warm,
            Decay::Linear => self.lr * warm * left.min(1.0),
        }
    }
}

/// Stage 0a: the autoencoder, `|x − x̂| + (x − x̂)² + kl · KL`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeStage {
    /// Weight of the latents' divergence from a standard normal distribution.
    pub kl: f32,
    /// Beginnings of the names that are trained, if it is not all: `["vae.decoder.", "vae.post_quant_conv."]` keeps the
    /// latents as they are, and with them what the denoiser learnt.
    #[serde(default)]
    pub trained: Option<Vec<String>>,
    /// How it is trained.
    pub training: Training,
}

/// Stage 0b: the text encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextStage {
    /// How it is trained.
    pub training: Training,
}

/// Stage 0c: the text encoder and the denoiser together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderStage {
    /// Probability that a sample has the empty caption, which guidance needs.
    pub drop_caption: f64,
    /// If given, errors at low noise count less (arXiv 2303.09556): with `w` = SNR for noise, SNR + 1 for velocity, each
    /// sample's loss is weighted with `min(w, γ) / w`. Otherwise most of the gradient goes to timesteps whose noise can be
    /// read off the picture.
    #[serde(default)]
    pub min_snr_gamma: Option<f64>,
    /// Draws of timestep and noise for each picture, since a denoiser costs less than what is before it.
    #[serde(default = "one")]
    pub draws: usize,
    /// Beginnings of the names that are trained, if it is not all: `["unet."]` keeps the text encoder, and with it what
    /// AlignerNet learnt to say.
    #[serde(default)]
    pub trained: Option<Vec<String>>,
    /// How it is trained.
    pub training: Training,
}

/// Stage 0d: the eyes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionStage {
    /// How it is trained.
    pub training: Training,
}

/// Stage 1: language modelling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LmStage {
    /// Shares of captions, of a picture and its caption, and of captions with pictures in them.
    pub mix: [f64; 3],
    /// Beginnings of the names that are trained.
    pub trained: Vec<String>,
    /// How it is trained.
    pub training: Training,
}

/// Stage 2: alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignStage {
    /// How it is trained.
    pub training: Training,
}

/// The first part of stage 3: what stage 3 is about, learnt from the words for it. Which samples, and what is trained, is as in
/// [`InstructStage`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImitateStage {
    /// How it is trained.
    pub training: Training,
}

/// Stage 3: instruction tuning through the frozen denoiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstructStage {
    /// Shares of constructed samples, edits and captions.
    pub mix: [f64; 3],
    /// Probability that an entity's words are dropped and only its picture stays.
    pub drop_words: f64,
    /// Probability that a cut-out keeps its background.
    pub keep_background: f64,
    /// Probability that an edit has no caption.
    pub drop_caption: f64,
    /// Probability that the condition is the null condition.
    pub null_condition: f64,
    /// As in [`DecoderStage`].
    #[serde(default)]
    pub min_snr_gamma: Option<f64>,
    /// As in [`DecoderStage`].
    #[serde(default = "one")]
    pub draws: usize,
    /// Beginnings of the names that are trained.
    pub trained: Vec<String>,
    /// How it is trained.
    pub training: Training,
}

/// The judge of generated pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeStage {
    /// How it is trained.
    pub training: Training,
}

impl TrainConfig {
    /// How a stage is trained; none of a stage that this configuration does without.
    pub fn training(&self, stage: Stage) -> Option<&Training> {
        Some(match stage {
            Stage::Vae => &self.vae.training,
            Stage::Text => &self.text.as_ref()?.training,
            Stage::Decoder => &self.decoder.training,
            Stage::Vision => &self.vision.as_ref()?.training,
            Stage::Lm => &self.lm.training,
            Stage::Align => &self.align.as_ref()?.training,
            Stage::Imitate => &self.imitate.as_ref()?.training,
            Stage::Instruct => &self.instruct.training,
            Stage::Judge => &self.judge.as_ref()?.training,
        })
    }

    /// Whether stages that follow `stage` do without its result.
    pub fn does_without(&self, stage: Stage) -> bool {
        match stage {
            Stage::Align => self.align.is_none(),
            Stage::Imitate => self.imitate.is_none(),
            _ => false,
        }
    }

    /// The decoder's noise schedule: Stable Diffusion's.
    pub fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig { prediction_type: self.prediction_type, ..SchedulerConfig::stable_diffusion() }
    }

    /// Reads a [preset](Self::preset) or a TOML file, with changes.
    ///
    /// # Errors
    /// The file and the place in it, the change that is none, or the first setting that cannot be.
    pub fn read(name: &Path, changes: &[Change]) -> anyhow::Result<Self> {
        let text = match name.to_str().and_then(Self::preset) {
            Some(preset) => preset.to_owned(),
            None => fs::read_to_string(name).with_context(|| format!("cannot read {}", name.display()))?,
        };
        let is_none = || format!("{} is not a training configuration", name.display());
        // As text, errors tell where they are.
        let mut config: Self = toml::from_str(&text).with_context(is_none)?;
        if !changes.is_empty() {
            let mut table = text.parse().with_context(is_none)?;
            changes.iter().try_for_each(|change| change.apply(&mut table))?;
            config = table.try_into().context("the changes by --set do not fit")?;
        }
        let folder = name.parent().unwrap_or(Path::new(""));
        config.data.iter_mut().flat_map(FileData::paths).for_each(|path| *path = folder.join(&*path));
        config.validate().with_context(|| format!("{} cannot be trained", name.display()))?;
        Ok(config)
    }

    /// Whether it can be trained: what else would stop a stage after hours of others.
    fn validate(&self) -> anyhow::Result<()> {
        let Networks { kosmosg, text, unet, vae } = self.networks.clone();
        let networks = bundle::Networks { kosmosg, unet, vae, text: Some(text) };
        networks.validate().map_err(|error| error.within("networks"))?;
        let Networks { kosmosg, text, unet, vae } = &self.networks;
        for (setting, found, like, expected) in [
            ("text.hidden_size", text.hidden_size, "unet.cross_attention_dim", unet.cross_attention_dim),
            (
                "text.max_position_embeddings",
                text.max_position_embeddings,
                "kosmosg.aligner.queries",
                kosmosg.aligner.queries,
            ),
        ] {
            ensure!(found == expected, "networks.{setting} is {found}, expected {expected}, as networks.{like} is");
        }
        let (side, downscale) = (self.picture_size, vae.downscale());
        ensure!(
            side > 0 && side.is_multiple_of(downscale),
            "picture_size is {side}, expected a multiple of {downscale} pixels"
        );
        for stage in Stage::ALL {
            let Some(Training { batch, parts, samples, checkpoint_every, .. }) = self.training(stage) else { continue };
            for (setting, value) in [
                ("batch", *batch as u64),
                ("parts", *parts as u64),
                ("samples", samples.unwrap_or(1)),
                ("checkpoint_every", *checkpoint_every),
            ] {
                ensure!(value > 0, "{}.training.{setting} is 0, expected 1 or more", stage.name());
            }
        }
        for (stage, draws) in [(Stage::Decoder, self.decoder.draws), (Stage::Instruct, self.instruct.draws)] {
            ensure!(draws > 0, "{}.draws is 0, expected 1 or more", stage.name());
        }
        Ok(())
    }

    /// The preset of the built-in bundle.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn tiny() -> Self {
        toml::from_str(TINY).expect("the preset is tested")
    }

    /// The preset of the published sizes.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn paper() -> Self {
        toml::from_str(PAPER).expect("the preset is tested")
    }

    /// A preset as a file that a person can change: `tiny`, the built-in bundle's, or `paper`, at the published sizes and with
    /// the published settings, for prepared files.
    pub fn preset(name: &str) -> Option<&'static str> {
        match name {
            "tiny" => Some(TINY),
            "paper" => Some(PAPER),
            _ => None,
        }
    }
}

const TINY: &str = include_str!("../../configs/tiny.toml");
const PAPER: &str = include_str!("../../configs/paper.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preset_can_be_read_and_fits_itself() {
        let TrainConfig { picture_size, networks, .. } = TrainConfig::tiny();
        assert_eq!(networks.vae.sample_size, Some(picture_size));
        assert_eq!(networks.unet.sample_size, Some(picture_size / networks.vae.downscale()));
        assert_eq!(networks.unet.in_channels, networks.vae.latent_channels);
        assert_eq!(networks.text.hidden_size, networks.unet.cross_attention_dim);
        assert_eq!(networks.kosmosg.aligner.dim, networks.unet.cross_attention_dim);
        assert_eq!(networks.kosmosg.aligner.queries, networks.text.max_position_embeddings);
    }

    #[test]
    fn the_published_settings_have_the_published_sizes() {
        let config = TrainConfig::paper();
        assert_eq!(config.networks.kosmosg, KosmosGConfig::published());
        assert_eq!(config.networks.vae.latent_channels, config.networks.unet.in_channels);
        for stage in [Stage::Align, Stage::Instruct] {
            let Training { betas, eps, weight_decay, clip, warmup, lr, decay, precision, .. } =
                config.training(stage).unwrap().clone();
            assert_eq!((betas, eps, weight_decay, clip), ([0.9, 0.98], 1e-6, 0.01, 2.0));
            assert_eq!((warmup, lr, decay, precision), (375, 1e-3, Decay::Linear, Precision::F16));
        }
        let InstructStage { mix, drop_words, keep_background, drop_caption, null_condition, .. } = config.instruct;
        assert_eq!((mix, drop_words, keep_background), ([2.0, 2.0, 1.0], 0.5, 0.5));
        assert_eq!((drop_caption, null_condition), (0.5, 0.1));
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let training =
            Training { steps: 110, warmup: 10, lr: 2.0, decay: Decay::Linear, ..TrainConfig::tiny().vae.training };
        assert_eq!(training.learning_rate(0), 0.2);
        assert_eq!(training.learning_rate(9), 2.0);
        assert_eq!(training.learning_rate(60), 1.0);
        assert_eq!(training.learning_rate(110), 0.0);
        let constant = Training { decay: Decay::Constant, ..training };
        assert_eq!(constant.learning_rate(10_000), 2.0);
    }
}
