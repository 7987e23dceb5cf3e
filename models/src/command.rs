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
use kosmosg::bundle::{Existing, Folder};
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
        let bundle = self.bundle.clone().map_or_else(default_bundle, Ok)?;
        Folder::open(&bundle).with_context(|| format!("opening the bundle {}", bundle.display()))
    }
}

/// Whether a bundle that is there already is replaced.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Replacing {
    /// Replace the bundle that is there already; a folder with other files in it is never touched.
    #[arg(long)]
    force: bool,
}

impl Replacing {
    fn existing(self) -> Existing {
        Existing { replace: self.force, resume: false }
    }
}

/// What a command computes on.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Computing {
    /// Tensor library.
    #[arg(long, value_enum, default_value = "burn")]
    engine: EngineName,
    /// cpu; wgpu (burn only); cuda (candle in builds with the feature cuda, burn in those with burn-cuda); libtorch
    /// (burn only, in builds with the feature of that name).
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
            Self::Cuda => bail!("this build's burn has no CUDA; `cargo xtask cuda --training` makes one that has"),
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
fn default_bundle() -> anyhow::Result<PathBuf> {
    built_in("tiny", "--bundle DIR")
}

/// What comes with the command under a name: from beside it, from the checkout in whose `dist` it is, or from where it was built.
fn built_in(name: &str, option: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    let beside = program.parent().unwrap_or(Path::new(""));
    let places = [beside.join("models"), beside.join("../models"), env!("CARGO_MANIFEST_DIR").into()];
    first(places.map(|place| place.join(name)), option)
}

/// The first of some places where something is; `option` names another.
fn first<const N: usize>(places: [PathBuf; N], option: &str) -> anyhow::Result<PathBuf> {
    let looked = || places.each_ref().map(|place| place.display().to_string()).join(", ");
    let found = places.iter().find(|place| place.exists()).cloned();
    found.with_context(|| format!("what is built in is at none of {}; give {option}", looked()))
}

/// Says before the work that its result cannot be written, where the folder for it is missing.
fn check_place(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", file.display(), folder.display());
    Ok(())
}

/// Says before the work that a PNG would be written under a name that says otherwise.
fn check_png(file: &Path) -> anyhow::Result<()> {
    let is_png = file.extension().is_none_or(|extension| extension.eq_ignore_ascii_case("png"));
    ensure!(is_png, "cannot write {}: pictures are PNG files, so its name must end in .png", file.display());
    Ok(())
}

fn read_picture(path: &Path) -> anyhow::Result<Picture> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Picture::decode(&bytes).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nowhere_is_told_with_all_places() {
        let dir = tempfile::tempdir().unwrap();
        let places = ["a", "b", "c"].map(|place| dir.path().join(place).join("tiny"));
        let error = first(places.clone(), "--bundle DIR").unwrap_err().to_string();
        assert!(error.ends_with("; give --bundle DIR"), "{error}");
        assert!(places.iter().all(|place| error.contains(place.to_str().unwrap())), "{error}");
        for i in [2, 1, 0] {
            std::fs::create_dir_all(&places[i]).unwrap();
            assert_eq!(first(places.clone(), "--bundle DIR").unwrap(), places[i]);
        }
    }
}
