//! One file a subcommand: its arguments, and what it prints.

pub mod generate;
pub mod info;
pub mod sprite;
pub mod train;
pub mod verify;

use std::path::PathBuf;

use kosmosg::engine::burn::BurnDevice;

/// What computes, as the command line calls it.
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
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(BurnDevice::cuda()),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => anyhow::bail!("this build has no CUDA; build it with --features cuda"),
            #[cfg(feature = "libtorch")]
            Self::Libtorch => Ok(BurnDevice::libtorch()),
            #[cfg(not(feature = "libtorch"))]
            Self::Libtorch => anyhow::bail!("this build has no LibTorch; build it with --features libtorch"),
        }
    }
}

/// The built-in bundle, from the project's own folder or from where the command was built.
fn default_bundle() -> PathBuf {
    let here = PathBuf::from("models/tiny");
    if here.exists() { here } else { PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tiny")) }
}
