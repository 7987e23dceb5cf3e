//! Jobs' work on an engine: encode, denoise step by step, decode.

use std::sync::Arc;

use kosmosg::bundle::BundleError;
use kosmosg::denoise::{DenoiseError, DenoiseSettings, DenoiseState};
use kosmosg::encoder::{EncodeError, Encoder};
use kosmosg::engine::{Engine, EngineError};
use kosmosg::picture::Picture;
use kosmosg::pipeline::{Decoder, Denoiser, PreparedCondition, StepError};
use kosmosg::protocol::{ApiError, ErrorCode};
use pollster::block_on;

use crate::bundles::Bundle;
use crate::loras::{Chosen, LoraError};
use crate::work::{Goal, Model};
use crate::worker::Runner;

/// The models on a device. One bundle's at a time, and of it the parts that a job has needed so far.
#[derive(Debug)]
pub struct Inference<E: Engine> {
    device: E::Device,
    loaded: Option<Loaded<E>>,
}

/// The loaded parts of a bundle.
#[derive(Debug)]
struct Loaded<E: Engine> {
    bundle: Arc<Bundle>,
    device: E::Device,
    encoder: Option<Encoder<E>>,
    /// Of one set of LoRAs at a time.
    denoiser: Option<(Vec<Chosen>, Denoiser<E>)>,
    decoder: Option<Decoder<E>>,
}

/// Why a job has no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A part cannot be loaded.
    #[error("the model cannot be loaded")]
    Bundle(#[from] BundleError),
    /// A LoRA cannot change the U-Net.
    #[error("the LoRA {name}")]
    Lora {
        /// Its name.
        name: String,
        /// Why.
        source: LoraError,
    },
    /// The prompt cannot be encoded.
    #[error("encoding")]
    Encode(#[from] EncodeError),
    /// A step failed.
    #[error("denoising")]
    Step(#[from] StepError),
    /// The decoder failed.
    #[error("decoding")]
    Decode(#[from] EngineError),
}

impl<E: Engine> Inference<E> {
    /// Nothing is loaded before a job needs it.
    pub fn new(device: E::Device) -> Self {
        Self { device, loaded: None }
    }

    /// The bundle's parts, in the place of another's.
    fn loaded(&mut self, bundle: &Arc<Bundle>) -> &mut Loaded<E> {
        if self.loaded.as_ref().is_some_and(|loaded| !Arc::ptr_eq(&loaded.bundle, bundle)) {
            self.loaded = None;
        }
        self.loaded.get_or_insert_with(|| Loaded {
            bundle: Arc::clone(bundle),
            device: self.device.clone(),
            encoder: None,
            denoiser: None,
            decoder: None,
        })
    }

    /// Does one stage of a job. If it finds no memory while parts of other stages are loaded, they go, and it is done once
    /// more.
    fn stage<T>(
        &mut self,
        bundle: &Arc<Bundle>,
        mut work: impl FnMut(&mut Loaded<E>) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let loaded = self.loaded(bundle);
        match work(loaded) {
            Err(error) if error.is_out_of_memory() && loaded.parts() > 1 => {
                tracing::warn!("{}; once more with nothing else loaded", error.chain());
                // Its own part as well: it may have been loaded without memory.
                self.loaded = None;
                work(self.loaded(bundle))
            }
            result => result,
        }
    }
}

impl<E: Engine> Runner for Inference<E> {
    type Condition = PreparedCondition<E>;

    fn name(&self) -> &str {
        E::NAME
    }

    fn prepare(&mut self, model: &Model, goal: &Goal) -> Result<PreparedCondition<E>, RunError> {
        let encoded;
        let condition = match goal {
            Goal::Condition(condition) => condition,
            Goal::Prompt { prompt, pictures, negative } => {
                encoded = self.stage(&model.bundle, |loaded| {
                    Ok(block_on(loaded.encoder()?.encode(prompt, pictures, negative))?)
                })?;
                &encoded
            }
        };
        self.stage(&model.bundle, |loaded| {
            let prepared = loaded.denoiser(&model.loras)?.prepare(condition);
            block_on(prepared.check()).map_err(StepError::Engine)?;
            Ok(prepared)
        })
    }

    fn step(
        &mut self,
        model: &Model,
        runs: &mut [(&mut DenoiseState, &PreparedCondition<E>)],
    ) -> Result<Vec<Result<Vec<f32>, DenoiseError>>, RunError> {
        self.stage(&model.bundle, |loaded| {
            let denoiser = loaded.denoiser(&model.loras)?;
            Ok(block_on(denoiser.step_together(runs)).map_err(StepError::Engine)?)
        })
    }

    fn decode(&mut self, model: &Model, state: &DenoiseState) -> Result<Picture, RunError> {
        let DenoiseSettings { channels, height, width, .. } = *state.settings();
        self.stage(&model.bundle, |loaded| {
            Ok(block_on(loaded.decoder()?.decode(state.latents().to_vec(), [channels, height, width]))?)
        })
    }

    fn release(&mut self) {
        self.loaded = None;
    }
}

impl<E: Engine> Loaded<E> {
    /// How many of them there are.
    fn parts(&self) -> usize {
        let parts = [self.encoder.is_some(), self.denoiser.is_some(), self.decoder.is_some()];
        parts.into_iter().filter(|&is_loaded| is_loaded).count()
    }

    fn encoder(&mut self) -> Result<&Encoder<E>, BundleError> {
        let folder = self.bundle.folder();
        cached(&mut self.encoder, || Encoder::open(folder, &self.device))
    }

    fn denoiser(&mut self, loras: &[Chosen]) -> Result<&Denoiser<E>, RunError> {
        // The one before goes before this one is read.
        self.denoiser.take_if(|(before, _)| before != loras);
        let folder = self.bundle.folder();
        let load = || {
            let mut unet = folder.part("unet")?;
            for lora in loras {
                let failed = |source| RunError::Lora { name: lora.asked().name.clone(), source };
                lora.merge(&mut unet).map_err(failed)?;
            }
            Ok::<_, RunError>((loras.to_vec(), Denoiser::load(folder.manifest(), &unet, &self.device)?))
        };
        cached(&mut self.denoiser, load).map(|(_, denoiser)| denoiser)
    }

    fn decoder(&mut self) -> Result<&Decoder<E>, BundleError> {
        let folder = self.bundle.folder();
        cached(&mut self.decoder, || Decoder::open(folder, &self.device))
    }
}

impl RunError {
    /// What the client hears. What is its own doing, or may go away, it hears in full.
    pub fn shown(&self) -> ApiError {
        match self {
            RunError::Encode(EncodeError::Prompt(error)) => {
                return ApiError { code: ErrorCode::Invalid, message: error.to_string() };
            }
            RunError::Lora { name, source: LoraError::Weights(error) } => {
                let message = format!("the LoRA {name} does not fit this model: {error}");
                return ApiError { code: ErrorCode::Invalid, message };
            }
            RunError::Step(StepError::Denoise(error)) => {
                let message = format!("the model's answer cannot be used: {error}");
                return ApiError { code: ErrorCode::Internal, message };
            }
            _ => {}
        }
        let message = match (self, self.engine()) {
            (_, Some(EngineError::OutOfMemory { .. })) => "the server has not enough memory for this picture",
            (_, Some(EngineError::DeviceLost { .. })) => "the server lost its GPU; its log says how",
            (RunError::Bundle(_) | RunError::Lora { .. }, _) => "the server cannot load this model; its log says why",
            _ => "the server failed; its log says why",
        };
        ApiError { code: ErrorCode::Internal, message: message.into() }
    }

    /// What the engine said, if it was the engine that failed.
    pub fn engine(&self) -> Option<&EngineError> {
        match self {
            RunError::Encode(EncodeError::Engine(error))
            | RunError::Step(StepError::Engine(error))
            | RunError::Decode(error) => Some(error),
            _ => None,
        }
    }

    fn is_out_of_memory(&self) -> bool {
        matches!(self.engine(), Some(EngineError::OutOfMemory { .. }))
    }

    /// The whole story, for the log.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        text
    }
}

fn cached<T, F>(slot: &mut Option<T>, load: impl FnOnce() -> Result<T, F>) -> Result<&T, F> {
    match slot {
        Some(value) => Ok(value),
        None => Ok(slot.insert(load()?)),
    }
}
