//! Where each stage of a job runs, and why, in words that the page shows.
//!
//! [`place`] is a pure function of what is known: the model's sizes, the device, the server, the person's wish, and what
//! has gone wrong so far. It is asked before a job and again after a failure in the middle of one; since a finished
//! stage's result travels (condition, [`DenoiseState`](crate::denoise::DenoiseState)), only the rest moves.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::{BundleError, Manifest};
use crate::encoder;

/// Weights beyond which a page's CPU takes minutes for a picture: 64 million parameters in f32.
const SLOW_ON_CPU_BYTES: u64 = 256 << 20;

/// A part of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From the prompt to a condition.
    Encode,
    /// From noise to latents.
    Denoise,
    /// From latents to a picture.
    Decode,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Whatever works best.
    #[default]
    Auto,
    /// Nothing leaves this device.
    ThisDevice,
    /// The server does the heavy part.
    Server,
}

/// What a stage's weights need when loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSize {
    /// All of them.
    pub memory_bytes: u64,
    /// The largest tensor, which must fit into one buffer of a GPU.
    pub largest_tensor_bytes: u64,
}

/// A model's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSize {
    /// Vision tower, language model and AlignerNet.
    pub encode: StageSize,
    /// U-Net.
    pub denoise: StageSize,
    /// Autoencoder.
    pub decode: StageSize,
}

/// What this device can carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its GPU, if WebGPU has one.
    pub gpu: Option<Gpu>,
    /// Memory that the processor may use for weights: an estimate.
    pub cpu_memory_bytes: u64,
}

/// A WebGPU adapter's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// WebGPU's `maxBufferSize`.
    pub max_buffer_size: u64,
    /// WebGPU's `maxStorageBufferBindingSize`.
    pub max_storage_buffer_binding_size: u64,
    /// Memory that may be used for weights: an estimate, since WebGPU does not tell.
    pub memory_bytes: u64,
}

/// The server that the page was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Whether it answers and has the model.
    pub reachable: bool,
    /// Its engine.
    pub engine: String,
    /// Its device, for people: `cpu`, `cuda:0`.
    pub device: String,
}

/// What went wrong last, and is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: FailureKind,
}

/// How a place fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Situation {
    /// The model.
    pub model: ModelSize,
    /// This device.
    pub device: Device,
    /// The server, if there is one.
    pub server: Option<Server>,
    /// The person's wish.
    pub wish: Wish,
    /// The last failure, if there was one.
    pub failure: Option<Failure>,
}

/// Where everything runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// From the prompt to a condition.
    pub encode: Placed,
    /// From noise to latents.
    pub denoise: Placed,
    /// From latents to a picture.
    pub decode: Placed,
}

/// Where a stage runs and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
/// A stage goes to the GPU if its weights fit, else to the processor, else to the server; a heavy one, and any after a
/// failure, sooner to the server than to the processor. The server also takes what comes after: it has the input then.
/// Each stage is judged alone, since a device may drop one stage's weights before it loads the next.
///
/// # Errors
/// A [`PlacementError`] if a stage fits nowhere that the person allows.
pub fn place(situation: &Situation) -> Result<Placement, PlacementError> {
    let has_failed = |place| situation.failure.is_some_and(|failure| failure.place == place);
    let server = situation.server.as_ref().filter(|server| server.reachable && !has_failed(Place::Server));
    if situation.wish == Wish::Server && server.is_none() {
        return Err(PlacementError::ServerUnreachable);
    }
    let allowed = server.filter(|_| situation.wish != Wish::ThisDevice);

    let encode = place_stage(situation, Stage::Encode, allowed)?;
    let denoise = match allowed {
        Some(server) if encode.place == Place::Server => on_server(Stage::Denoise, server, "it has the condition"),
        Some(server) if situation.wish == Wish::Server => on_server(Stage::Denoise, server, "you chose it"),
        _ => place_stage(situation, Stage::Denoise, allowed)?,
    };
    let decode = match allowed {
        Some(server) if denoise.place == Place::Server => on_server(Stage::Decode, server, "it has the latents"),
        _ => place_stage(situation, Stage::Decode, allowed)?,
    };
    Ok(Placement { encode, denoise, decode })
}

impl ModelSize {
    /// The sizes of a bundle's stages.
    ///
    /// # Errors
    /// [`BundleError::NoPart`].
    pub fn of(manifest: &Manifest) -> Result<Self, BundleError> {
        let stage = |parts: &[&str]| {
            parts.iter().try_fold(StageSize::default(), |size, name| {
                let part = manifest.part(name)?;
                Ok(StageSize {
                    memory_bytes: size.memory_bytes + part.memory_bytes,
                    largest_tensor_bytes: size.largest_tensor_bytes.max(part.largest_tensor_bytes),
                })
            })
        };
        Ok(Self { encode: stage(&encoder::PARTS)?, denoise: stage(&["unet"])?, decode: stage(&["vae"])? })
    }

    fn of_stage(&self, stage: Stage) -> StageSize {
        match stage {
            Stage::Encode => self.encode,
            Stage::Denoise => self.denoise,
            Stage::Decode => self.decode,
        }
    }
}

fn place_stage(situation: &Situation, stage: Stage, server: Option<&Server>) -> Result<Placed, PlacementError> {
    let size = situation.model.of_stage(stage);
    let Some(no_gpu) = gpu_refusal(situation, size) else {
        let reason = format!("{stage} runs on this device's GPU: it needs {}, which fit.", megabytes(size.needed()));
        return Ok(Placed { place: Place::DeviceGpu, reason });
    };
    let no_cpu = cpu_refusal(situation, size);
    let is_slow = size.memory_bytes > SLOW_ON_CPU_BYTES;
    if let Some(server) = server
        && (no_cpu.is_some() || is_slow || situation.failure.is_some())
    {
        return Ok(on_server(stage, server, &no_gpu));
    }
    match no_cpu {
        None => {
            let patience = if is_slow { "; this takes minutes" } else { "" };
            let reason = format!("{stage} runs on this device's processor: {no_gpu}{patience}.");
            Ok(Placed { place: Place::DeviceCpu, reason })
        }
        Some(no_cpu) => {
            let why = format!("{no_gpu}, and {no_cpu}");
            Err(match situation.wish {
                Wish::ThisDevice => PlacementError::NotOnDevice { stage, why },
                Wish::Auto | Wish::Server => PlacementError::NoServer { stage, why },
            })
        }
    }
}

fn on_server(stage: Stage, server: &Server, why: &str) -> Placed {
    let reason = format!("{stage} runs on the server ({} on {}): {why}.", server.engine, server.device);
    Placed { place: Place::Server, reason }
}

/// Why not on this device's GPU.
fn gpu_refusal(situation: &Situation, size: StageSize) -> Option<String> {
    let Some(gpu) = situation.device.gpu else {
        return Some("this browser offers no WebGPU".into());
    };
    if let Some(failure) = situation.failure.filter(|failure| failure.place == Place::DeviceGpu) {
        return Some(format!("this device's GPU {}", failure.kind));
    }
    let buffer = gpu.max_buffer_size.min(gpu.max_storage_buffer_binding_size);
    if size.largest_tensor_bytes > buffer {
        let (tensor, buffer) = (megabytes(size.largest_tensor_bytes), megabytes(buffer));
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
    if let Some(failure) = situation.failure.filter(|failure| failure.place == Place::DeviceCpu) {
        return Some(format!("this device's processor {}", failure.kind));
    }
    if size.needed() > situation.device.cpu_memory_bytes {
        let (needed, there) = (megabytes(size.needed()), megabytes(situation.device.cpu_memory_bytes));
        return Some(format!("it needs {needed} and this page has about {there}"));
    }
    None
}

impl StageSize {
    /// Weights and a quarter more for what is computed with them.
    fn needed(self) -> u64 {
        self.memory_bytes.saturating_add(self.memory_bytes / 4)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encode => "Reading the prompt",
            Self::Denoise => "Denoising",
            Self::Decode => "Decoding the picture",
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
mod tests {
    use super::Place::{DeviceCpu, DeviceGpu, Server as OnServer};
    use super::{
        Device, Failure, FailureKind, Gpu, ModelSize, PlacementError, Server, Situation, StageSize, Wish, place,
    };

    const MB: u64 = 1_000_000;

    /// A model whose encoder, U-Net and autoencoder have weights of this many MB.
    fn model(megabytes: [u64; 3]) -> ModelSize {
        let [encode, denoise, decode] = megabytes.map(|size| size * MB);
        let stage = |memory_bytes| StageSize { memory_bytes, largest_tensor_bytes: memory_bytes / 10 };
        ModelSize { encode: stage(encode), denoise: stage(denoise), decode: stage(decode) }
    }

    fn gpu(memory_mb: u64) -> Option<Gpu> {
        let (max_buffer_size, max_storage_buffer_binding_size) = (256 * MB, 128 * MB);
        Some(Gpu { max_buffer_size, max_storage_buffer_binding_size, memory_bytes: memory_mb * MB })
    }

    fn server(reachable: bool) -> Option<Server> {
        Some(Server { reachable, engine: "candle".into(), device: "cuda:0".into() })
    }

    fn failure(place: super::Place, kind: FailureKind) -> Option<Failure> {
        Some(Failure { place, kind })
    }

    const TINY: [u64; 3] = [20, 20, 5];
    /// Stable Diffusion 1.5 behind a small encoder.
    const LARGE: [u64; 3] = [200, 3400, 330];
    /// The published model.
    const PUBLISHED: [u64; 3] = [7600, 3400, 330];

    #[test]
    fn every_stage_has_its_place_and_its_reason() {
        let up = server(true);
        let down = server(false);
        let lost = failure(DeviceGpu, FailureKind::Lost);
        let fits = [DeviceGpu; 3];
        let tells = [
            // model, GPU, server, wish, failure → places, in the U-Net's reason
            (TINY, gpu(1000), &None, Wish::Auto, None, fits, "this device's GPU: it needs 25 MB, which fit"),
            (TINY, gpu(1000), &up, Wish::Auto, None, fits, "this device's GPU"),
            (TINY, None, &None, Wish::Auto, None, [DeviceCpu; 3], "processor: this browser offers no WebGPU."),
            (TINY, None, &up, Wish::Auto, None, [DeviceCpu; 3], "no WebGPU"),
            (TINY, gpu(1000), &up, Wish::Server, None, [DeviceGpu, OnServer, OnServer], "cuda:0): you chose it."),
            (TINY, None, &up, Wish::Server, None, [DeviceCpu, OnServer, OnServer], "you chose it"),
            (TINY, gpu(1000), &up, Wish::ThisDevice, None, fits, "this device's GPU"),
            (TINY, gpu(1000), &up, Wish::Auto, lost, [OnServer; 3], "it has the condition"),
            (TINY, gpu(1000), &down, Wish::Auto, lost, [DeviceCpu; 3], "this device's GPU went away"),
            (TINY, gpu(1000), &up, Wish::ThisDevice, lost, [DeviceCpu; 3], "this device's GPU went away"),
            (
                LARGE,
                gpu(1000),
                &up,
                Wish::Auto,
                None,
                [DeviceGpu, OnServer, OnServer],
                "a tensor of 340 MB does not fit",
            ),
            (LARGE, gpu(1000), &None, Wish::Auto, None, [DeviceGpu, DeviceCpu, DeviceGpu], "; this takes minutes."),
            (LARGE, None, &up, Wish::Auto, None, [DeviceCpu, OnServer, OnServer], "no WebGPU"),
            (PUBLISHED, gpu(8000), &up, Wish::Auto, None, [OnServer; 3], "it has the condition"),
            (PUBLISHED, gpu(8000), &up, Wish::Server, None, [OnServer; 3], "it has the condition"),
        ];
        for (sizes, gpu, server, wish, failure, places, reason) in tells {
            let device = Device { gpu, cpu_memory_bytes: 6000 * MB };
            let situation = Situation { model: model(sizes), device, server: server.clone(), wish, failure };
            let placement = place(&situation).unwrap_or_else(|error| panic!("{situation:?}: {error}"));
            let found = [&placement.encode, &placement.denoise, &placement.decode].map(|placed| placed.place);
            assert_eq!(found, places, "{situation:?}");
            assert!(placement.denoise.reason.contains(reason), "{reason}: {}", placement.denoise.reason);
        }
    }

    #[test]
    fn what_fits_nowhere_says_what_to_do() {
        let small = Device { gpu: gpu(1000), cpu_memory_bytes: 1000 * MB };
        let refuse = |model, device: &Device, server, wish, failure| {
            place(&Situation { model, device: device.clone(), server, wish, failure }).unwrap_err()
        };
        let error = refuse(model(LARGE), &small, None, Wish::Auto, None);
        assert_eq!(
            error.to_string(),
            "Denoising can run nowhere: a tensor of 340 MB does not fit into this GPU's buffers of 128 MB, and it needs \
             4.2 GB and this page has about 1.0 GB. Start kosmosg-server and open its page, or choose a smaller model."
        );
        let error = refuse(model(LARGE), &small, server(true), Wish::ThisDevice, None);
        assert!(matches!(&error, PlacementError::NotOnDevice { .. }), "{error}");
        assert!(error.to_string().ends_with("Choose Server, or a smaller model."), "{error}");
        let error = refuse(model(TINY), &small, server(false), Wish::Server, None);
        assert_eq!(error, PlacementError::ServerUnreachable);
        let gone = failure(OnServer, FailureKind::Lost);
        assert_eq!(refuse(model(TINY), &small, server(true), Wish::Server, gone), PlacementError::ServerUnreachable);
        let cpu_only = Device { gpu: None, ..small };
        let error = refuse(model(TINY), &cpu_only, None, Wish::Auto, failure(DeviceCpu, FailureKind::OutOfMemory));
        assert!(error.to_string().contains("this device's processor ran out of memory"), "{error}");
    }

    #[test]
    fn a_lost_server_leaves_the_device() {
        let device = Device { gpu: gpu(1000), cpu_memory_bytes: 1000 * MB };
        let failure = failure(OnServer, FailureKind::Lost);
        let situation = Situation { model: model(TINY), device, server: server(true), wish: Wish::Auto, failure };
        assert_eq!(place(&situation).unwrap().denoise.place, DeviceGpu);
    }
}
