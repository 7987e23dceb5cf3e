//! Where each stage of a job runs, and why, in words that the page shows.
//!
//! [`place`] is a pure function of what is known: the model's sizes, the device, the server, the person's wish, and what
//! has gone wrong so far. It is asked before a job and again after a failure in the middle of one; since a finished
//! stage's result travels (condition, [`DenoiseState`](crate::denoise::DenoiseState)), only the rest moves.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::{BundleError, Manifest};
use crate::config::Activations;
use crate::encoder;
use crate::vae::tiles;

/// Weights beyond which a page's CPU takes minutes for a picture: 64 million parameters in f32.
const SLOW_ON_CPU_BYTES: u64 = 256 << 20;

/// Why a stage does not run on this device.
const NOT_HERE: &str = "this device did not fetch that part of the model";

/// A part of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the prompt to a condition.
    Encode,
    /// From noise to latents.
    Denoise,
    /// From latents to a picture.
    Decode,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Encode, Self::Denoise, Self::Decode];

    /// The names of a bundle's parts that it is made of.
    pub fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Encode => &encoder::PARTS,
            Self::Denoise => &["unet"],
            Self::Decode => &["vae"],
        }
    }
}

/// Where a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// This device, over WebGPU.
    DeviceGpu,
    /// This device's processor.
    DeviceCpu,
    /// The companion server.
    Server,
}

/// What the person asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// Whatever works best.
    #[default]
    Auto,
    /// Nothing leaves this device.
    ThisDevice,
    /// The server does the heavy part.
    Server,
}

/// What a stage needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageSize {
    /// All weights, when loaded.
    pub memory_bytes: u64,
    /// The largest weight, which must fit into one buffer of a GPU.
    pub largest_tensor_bytes: u64,
    /// What is computed with them, if it depends on the picture's size; where that can be done in parts, with the smallest.
    pub activations: Activations,
}

/// A model's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSize {
    /// Vision tower, language model and AlignerNet.
    pub encode: StageSize,
    /// U-Net.
    pub denoise: StageSize,
    /// Autoencoder.
    pub decode: StageSize,
}

/// What this device can carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its GPU, or why there is none to count on: a clause, such as "this browser offers no WebGPU".
    pub gpu: Result<Gpu, &'static str>,
    /// Memory that the processor may use: an estimate, 0 if its program did not start.
    pub cpu_memory_bytes: u64,
}

/// A WebGPU adapter's limits. Whether its shaders have f16 changes nothing here: kernels read some activations as such, and
/// keep all in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpu {
    /// WebGPU's `maxBufferSize`.
    pub max_buffer_size: u64,
    /// WebGPU's `maxStorageBufferBindingSize`.
    pub max_storage_buffer_binding_size: u64,
    /// Memory that may be used: an estimate, since WebGPU does not tell.
    pub memory_bytes: u64,
}

/// The server that the page was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Whether it answers and has the model.
    pub reachable: bool,
    /// Its device, for people: `cpu`, `cuda:0`.
    pub device: String,
}

/// What went wrong: that place is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: FailureKind,
}

/// How a place fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It went away: the browser took the GPU, the server stopped answering.
    Lost,
    /// An allocation failed.
    OutOfMemory,
    /// A step takes too long.
    TooSlow,
    /// Results that are not finite or differ from the processor's.
    WrongNumbers,
}

/// All that a placement depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The model.
    pub model: ModelSize,
    /// This device.
    pub device: Device,
    /// The server, if there is one.
    pub server: Option<Server>,
    /// The person's wish.
    pub wish: Wish,
    /// Stages whose weights this device did not fetch.
    pub not_here: Vec<Stage>,
    /// All that went wrong so far. A place that failed stays out, or a job could go back and forth for ever.
    pub failures: Vec<Failure>,
}

/// Where everything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// From the prompt to a condition.
    pub encode: Placed,
    /// From noise to latents.
    pub denoise: Placed,
    /// From latents to a picture.
    pub decode: Placed,
}

/// Where a stage runs and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Where.
    pub place: Place,
    /// A sentence for the person.
    pub reason: String,
}

/// Why a job can run nowhere, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// The device cannot, and there is no server.
    #[error("{stage} can run nowhere: {why}. Start kosmosg-server and open its page, or choose a smaller model.")]
    NoServer {
        /// Which stage.
        stage: Stage,
        /// Why not on the device.
        why: String,
    },
    /// The device cannot, and the person wants no server.
    #[error("{stage} cannot run on this device: {why}. Choose Server, or a smaller model.")]
    NotOnDevice {
        /// Which stage.
        stage: Stage,
        /// Why not.
        why: String,
    },
    /// The person wants a server that is not there.
    #[error("The server does not answer. Check that kosmosg-server runs and has this model, or choose This device.")]
    ServerUnreachable,
}

/// Decides where each stage runs.
///
/// A stage goes to the GPU if it fits, else to the processor, else to the server; a heavy one, and any after a
/// failure, sooner to the server than to the processor. The server also takes what comes after: it has the input then.
/// Each stage is judged alone, since a device may drop one stage's weights before it loads the next.
///
/// # Errors
/// A [`PlacementError`] if a stage fits nowhere that the person allows.
pub fn place(situation: &Situation) -> Result<Placement, PlacementError> {
    let has_failed = situation.failure_at(Place::Server).is_some();
    let server = situation.server.as_ref().filter(|server| server.reachable && !has_failed);
    if situation.wish == Wish::Server && server.is_none() {
        return Err(PlacementError::ServerUnreachable);
    }
    let allowed = server.filter(|_| situation.wish != Wish::ThisDevice);

    let encode = place_stage(situation, Stage::Encode, allowed)?;
    let denoise = match allowed {
        Some(server) if encode.place == Place::Server => on_server(Stage::Denoise, server, "it has read the sentence"),
        Some(server) if situation.wish == Wish::Server => on_server(Stage::Denoise, server, "you chose it"),
        _ => place_stage(situation, Stage::Denoise, allowed)?,
    };
    let decode = match allowed {
        Some(server) if denoise.place == Place::Server => on_server(Stage::Decode, server, "the drawing is there"),
        _ => place_stage(situation, Stage::Decode, allowed)?,
    };
    Ok(Placement { encode, denoise, decode })
}

impl Situation {
    /// How a place failed, if it did: the last time counts.
    fn failure_at(&self, place: Place) -> Option<FailureKind> {
        self.failures.iter().rev().find(|failure| failure.place == place).map(|failure| failure.kind)
    }

    fn refuse(&self, stage: Stage, why: String) -> PlacementError {
        match self.wish {
            Wish::ThisDevice => PlacementError::NotOnDevice { stage, why },
            Wish::Auto | Wish::Server => PlacementError::NoServer { stage, why },
        }
    }
}

impl ModelSize {
    /// The sizes of a bundle's stages, for pictures of its own size with guidance.
    ///
    /// # Errors
    /// [`BundleError::NoPart`].
    pub fn of(manifest: &Manifest) -> Result<Self, BundleError> {
        let (networks, [_, height, width]) = (&manifest.networks, manifest.latent_shape());
        let size = |stage: Stage, activations| {
            stage.parts().iter().try_fold(StageSize { activations, ..StageSize::default() }, |size, name| {
                let part = manifest.part(name)?;
                Ok(StageSize {
                    memory_bytes: size.memory_bytes + part.memory_bytes,
                    largest_tensor_bytes: size.largest_tensor_bytes.max(part.largest_tensor_bytes),
                    ..size
                })
            })
        };
        let tile = tiles::sides([height, width]).last().unwrap_or_default();
        Ok(Self {
            encode: size(Stage::Encode, Activations::default())?,
            denoise: size(Stage::Denoise, networks.unet.activations(2, [height, width]))?,
            decode: size(Stage::Decode, networks.vae.decoder_activations([height.min(tile), width.min(tile)]))?,
        })
    }

    /// Bytes that stages need side by side, of which one computes at a time.
    pub fn together(&self, stages: &[Stage]) -> u64 {
        let sizes = stages.iter().map(|&stage| self.of_stage(stage));
        let beside = |all: StageSize, size: StageSize| StageSize {
            memory_bytes: all.memory_bytes.saturating_add(size.memory_bytes),
            largest_tensor_bytes: all.largest_tensor_bytes.max(size.largest_tensor_bytes),
            activations: all.activations.max(size.activations),
        };
        sizes.fold(StageSize::default(), beside).needed()
    }

    /// One of them.
    pub fn of_stage(&self, stage: Stage) -> StageSize {
        match stage {
            Stage::Encode => self.encode,
            Stage::Denoise => self.denoise,
            Stage::Decode => self.decode,
        }
    }
}

fn place_stage(situation: &Situation, stage: Stage, server: Option<&Server>) -> Result<Placed, PlacementError> {
    if situation.not_here.contains(&stage) {
        return match server {
            Some(server) => Ok(on_server(stage, server, NOT_HERE)),
            None => Err(situation.refuse(stage, NOT_HERE.into())),
        };
    }
    let size = situation.model.of_stage(stage);
    let Some(no_gpu) = gpu_refusal(situation, size) else {
        let reason = format!("{stage} runs on this device's GPU: it needs {}, which fit.", megabytes(size.needed()));
        return Ok(Placed { place: Place::DeviceGpu, reason });
    };
    let is_slow = size.memory_bytes > SLOW_ON_CPU_BYTES;
    match (cpu_refusal(situation, size), server) {
        (Some(no_cpu), Some(server)) => Ok(on_server(stage, server, &format!("{no_gpu}, and {no_cpu}"))),
        (None, Some(server)) if is_slow || !situation.failures.is_empty() => Ok(on_server(stage, server, &no_gpu)),
        (None, _) => {
            let patience = if is_slow { "; this takes minutes" } else { "" };
            let reason = format!("{stage} runs on this device's processor: {no_gpu}{patience}.");
            Ok(Placed { place: Place::DeviceCpu, reason })
        }
        (Some(no_cpu), None) => {
            let no_server = situation.failure_at(Place::Server).map(|kind| format!(", and the server {kind}"));
            Err(situation.refuse(stage, format!("{no_gpu}, and {no_cpu}{}", no_server.unwrap_or_default())))
        }
    }
}

fn on_server(stage: Stage, server: &Server, why: &str) -> Placed {
    let processor = if server.device == "cpu" { "processor" } else { "GPU" };
    let reason = format!("{stage} runs on the server's {processor}: {why}.");
    Placed { place: Place::Server, reason }
}

/// Why not on this device's GPU.
fn gpu_refusal(situation: &Situation, size: StageSize) -> Option<String> {
    if let Some(kind) = situation.failure_at(Place::DeviceGpu) {
        return Some(format!("this device's GPU {kind}"));
    }
    let gpu = match situation.device.gpu {
        Ok(gpu) => gpu,
        Err(why) => return Some(why.into()),
    };
    let buffer = gpu.max_buffer_size.min(gpu.max_storage_buffer_binding_size);
    let tensor = size.largest_tensor_bytes.max(size.activations.largest_bytes);
    if tensor > buffer {
        let (tensor, buffer) = (megabytes(tensor), megabytes(buffer));
        return Some(format!("a tensor of {tensor} does not fit into this GPU's buffers of {buffer}"));
    }
    if size.needed() > gpu.memory_bytes {
        let (needed, there) = (megabytes(size.needed()), megabytes(gpu.memory_bytes));
        return Some(format!("it needs {needed} and this GPU has about {there}"));
    }
    None
}

/// Why not on this device's processor.
fn cpu_refusal(situation: &Situation, size: StageSize) -> Option<String> {
    if let Some(kind) = situation.failure_at(Place::DeviceCpu) {
        return Some(format!("this device's processor {kind}"));
    }
    if situation.device.cpu_memory_bytes == 0 {
        return Some("the program for this device's processor did not start".into());
    }
    if size.needed() > situation.device.cpu_memory_bytes {
        let (needed, there) = (megabytes(size.needed()), megabytes(situation.device.cpu_memory_bytes));
        return Some(format!("it needs {needed} and this page has about {there}"));
    }
    None
}

impl StageSize {
    /// Bytes of weights and of what is computed with them, of which there is always something.
    fn needed(self) -> u64 {
        with_room(self.memory_bytes).max(self.memory_bytes.saturating_add(self.activations.peak_bytes))
    }
}

/// Bytes of weights and a quarter more for what is computed with them.
fn with_room(memory_bytes: u64) -> u64 {
    memory_bytes.saturating_add(memory_bytes / 4)
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encode => "Reading the sentence",
            Self::Denoise => "Drawing the picture",
            Self::Decode => "Turning the drawing into pixels",
        })
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "went away",
            Self::OutOfMemory => "ran out of memory",
            Self::TooSlow => "was too slow",
            Self::WrongNumbers => "computed wrong numbers",
        })
    }
}

/// Bytes as people read them.
fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => "less than 1 MB".into(),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests;
