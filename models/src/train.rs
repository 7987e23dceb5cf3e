//! Training: the paper's path at any size, on the world of [`crate::sprites`].
//!
//! Before the paper's three stages come those that stand in for Stable Diffusion: an autoencoder, a text encoder, and a denoiser. Each [`Stage`] reads what earlier ones made and leaves `weights.gguf` in its folder of the run.
//!
//! A run is a function of its configuration: sample `i` of a stage depends on seed and `i` alone, and so a run that was
//! interrupted goes on as if it had not been. Source: *Kosmos-G*, section 2.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kosmosg::engine::burn::BurnDevice;
use kosmosg::weights::HostTensor;

pub use config::{Change, TrainConfig};
pub use export::{export, export_judge, import, is_exported};
pub use measure::measure;
pub use plot::plot;
pub use vocabulary::{tokenizer, vocabulary};

use run::train;
use stages::{
    AlignTask, DecoderTask, ImitateTask, InstructTask, JudgeTask, LmTask, Shared, TextTask, VaeTask, VisionTask,
};

mod checkpoint;
pub mod config;
mod data;
mod events;
mod export;
mod init;
mod loss_scale;
mod measure;
mod noising;
mod optimizer;
mod parameters;
mod plot;
mod prefetch;
mod preview;
mod progress;
mod run;
mod stages;
mod trainer;
mod vocabulary;

/// What is trained, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// 0a: pictures to latents and back.
    Vae,
    /// 0b: what captions tell.
    Text,
    /// 0c: captions to latents.
    Decoder,
    /// 0d: what pictures show.
    Vision,
    /// 1: the language model, with eyes.
    Lm,
    /// 2: AlignerNet, on captions alone.
    Align,
    /// 3a: everything before the decoder, to tell the decoder of a picture what words would tell.
    Imitate,
    /// 3: everything before the decoder, through the decoder.
    Instruct,
    /// What judges the pictures; it needs none of the others.
    Judge,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Vae,
        Self::Text,
        Self::Decoder,
        Self::Vision,
        Self::Lm,
        Self::Align,
        Self::Imitate,
        Self::Instruct,
        Self::Judge,
    ];

    /// Its name on the command line and in the run's folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vae => "vae",
            Self::Text => "text",
            Self::Decoder => "decoder",
            Self::Vision => "vision",
            Self::Lm => "lm",
            Self::Align => "align",
            Self::Imitate => "imitate",
            Self::Instruct => "instruct",
            Self::Judge => "judge",
        }
    }

    /// The stages whose results it builds on, if they are trained at all.
    fn needs(self) -> &'static [Self] {
        match self {
            Self::Vae | Self::Text | Self::Vision | Self::Judge => &[],
            Self::Decoder => &[Self::Vae, Self::Text],
            Self::Lm => &[Self::Vision],
            Self::Align => &[Self::Decoder, Self::Lm],
            Self::Imitate => &[Self::Decoder, Self::Lm, Self::Align],
            Self::Instruct => &[Self::Vae, Self::Decoder, Self::Lm, Self::Align, Self::Imitate],
        }
    }
}

/// Where and how a stage runs.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// What the run trains.
    pub config: TrainConfig,
    /// The run's folder; each stage has one in it.
    pub run: PathBuf,
    /// Where it computes, [with gradients](BurnDevice::training).
    pub device: BurnDevice,
}

/// `~/.cache/kosmosg/train/NAME`: where runs are unless someone says otherwise.
///
/// # Errors
/// There is no home folder.
pub fn default_run(name: &str) -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
    let home = home.context("no home folder; name the run's folder")?;
    Ok(Path::new(&home).join(".cache/kosmosg/train").join(name))
}

/// Trains a stage to its end, from its newest checkpoint if there is one.
///
/// # Errors
/// A configuration that does not fit the world or the checkpoint, an earlier stage that is not trained yet or was trained
/// on since, another process that trains it, a file that cannot be read or written, or a loss that is not finite several times
/// in a row.
pub fn run(stage: Stage, options: &TrainOptions) -> anyhow::Result<()> {
    let shared = Shared::new(options)?;
    shared.check(stage)?;
    let job = shared.job(stage)?;
    let _lock = lock(&job.dir)?;
    match stage {
        Stage::Vae => train(&job, &VaeTask::new(&shared)?),
        Stage::Text => train(&job, &TextTask::new(&shared)),
        Stage::Decoder => train(&job, &DecoderTask::new(&shared)?),
        Stage::Vision => train(&job, &VisionTask::new(&shared)),
        Stage::Lm => train(&job, &LmTask::new(&shared)?),
        Stage::Align => train(&job, &AlignTask::new(&shared)?),
        Stage::Imitate => train(&job, &ImitateTask::new(&shared)?),
        Stage::Instruct => train(&job, &InstructTask::new(&shared)?),
        Stage::Judge => train(&job, &JudgeTask::new(&shared)),
    }
}

/// Keeps other processes from training the stage in the folder `dir`, until the file is closed or the process ends, however it does.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => anyhow::bail!("another process trains this stage, in {}", dir.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// A stage whose result is needed is not trained yet.
#[derive(Debug, thiserror::Error)]
#[error("stage {} of {} is not trained yet: `{}` is missing", stage.name(), run.display(), path.display())]
pub struct Untrained {
    /// The stage.
    pub stage: Stage,
    /// The run's folder.
    pub run: PathBuf,
    /// The file that is missing.
    pub path: PathBuf,
}

/// What a stage resulted in so far: its weights by full name.
///
/// # Errors
/// [`Untrained`], or the file is damaged.
pub fn result(run: &Path, stage: Stage) -> anyhow::Result<BTreeMap<String, HostTensor>> {
    checkpoint::read_tensors(&result_path(run, stage)?)
}

/// The file of a stage's weights.
fn result_path(run: &Path, stage: Stage) -> Result<PathBuf, Untrained> {
    let path = run.join(stage.name()).join(WEIGHTS);
    if path.exists() { Ok(path) } else { Err(Untrained { stage, run: run.to_owned(), path }) }
}

/// What a stage leaves for later ones.
const WEIGHTS: &str = "weights.gguf";
