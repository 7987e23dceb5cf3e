//! One file a subcommand: its arguments, and what it prints.

pub mod encode;
pub mod eval;
pub mod generate;
pub mod import;
pub mod info;
pub mod quantize;
pub mod sprite;
pub mod synth;
pub mod train;
pub mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use kosmosg::bundle::Folder;
use kosmosg::engine::burn::BurnDevice;
use kosmosg::engine::candle::CandleDevice;
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;
use kosmosg_models::verify::On;

/// The tensor library that computes, as the command line calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineName {
    /// burn, which the page and training use.
    Burn,
    /// candle, which the server uses.
    Candle,
}

/// A prompt of words and pictures, and the model that reads it.
#[derive(Debug, clap::Args)]
pub struct PromptArguments {
    /// Words, with <i> where a picture stands.
    #[arg(short, long)]
    prompt: String,
    /// A picture for the next <i>: PNG, JPEG or WebP.
    #[arg(short, long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// What to steer away from.
    #[arg(long, default_value = "")]
    negative: String,
    /// The model [default: the built-in one].
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
}

impl PromptArguments {
    fn document(&self) -> anyhow::Result<PromptDocument> {
        Ok(PromptDocument::from_text(&self.prompt, self.images.len())?)
    }

    fn pictures(&self) -> anyhow::Result<Vec<Picture>> {
        self.images.iter().map(|path| read_picture(path)).collect()
    }

    fn bundle(&self) -> anyhow::Result<Folder> {
        let bundle = self.bundle.clone().unwrap_or_else(default_bundle);
        Folder::open(&bundle).with_context(|| format!("opening the bundle {}", bundle.display()))
    }
}

/// What a command computes on.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Computing {
    /// Tensor library.
    #[arg(long, value_enum, default_value = "burn")]
    engine: EngineName,
    /// cpu; wgpu (burn only); cuda; libtorch (burn only). The last two are in builds with the feature of that name.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
}

impl Computing {
    fn on(self) -> anyhow::Result<On> {
        Ok(match self.engine {
            EngineName::Burn => On::Burn(self.device.of_burn()?),
            EngineName::Candle => On::Candle(self.device.of_candle()?),
        })
    }
}

/// Where a command computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceName {
    Cpu,
    Wgpu,
    Cuda,
    Libtorch,
}

impl DeviceName {
    /// The burn engine's device of that name.
    fn of_burn(self) -> anyhow::Result<BurnDevice> {
        match self {
            Self::Cpu => Ok(BurnDevice::cpu()),
            Self::Wgpu => Ok(pollster::block_on(BurnDevice::webgpu())?),
            #[cfg(feature = "burn-cuda")]
            Self::Cuda => Ok(BurnDevice::cuda()),
            #[cfg(not(feature = "burn-cuda"))]
            Self::Cuda => bail!("this build's burn has no CUDA; build it with --features burn-cuda"),
            #[cfg(feature = "libtorch")]
            Self::Libtorch => Ok(BurnDevice::libtorch()),
            #[cfg(not(feature = "libtorch"))]
            Self::Libtorch => bail!("this build has no LibTorch; build it with --features libtorch"),
        }
    }

    /// The candle engine's device of that name.
    fn of_candle(self) -> anyhow::Result<CandleDevice> {
        match self {
            Self::Cpu => Ok(CandleDevice::cpu()),
            Self::Cuda => Ok(CandleDevice::cuda(0)?),
            Self::Wgpu | Self::Libtorch => bail!("candle computes on cpu or cuda; use --engine burn"),
        }
    }
}

/// The built-in bundle.
fn default_bundle() -> PathBuf {
    built_in("tiny")
}

/// What is built in under a name, from the project's own folder or from where the command was built.
fn built_in(name: &str) -> PathBuf {
    let here = Path::new("models").join(name);
    if here.exists() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).join(name) }
}

/// Says before the work that its result cannot be written, where the folder for it is missing.
fn check_place(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", file.display(), folder.display());
    Ok(())
}

fn read_picture(path: &Path) -> anyhow::Result<Picture> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Picture::decode(&bytes).with_context(|| path.display().to_string())
}
