//! A job's work on an engine: encode, denoise step by step, decode.

use std::sync::Arc;

use kosmosg::bundle::BundleError;
use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::encoder::{EncodeError, Encoder};
use kosmosg::engine::{Engine, EngineError};
use kosmosg::picture::Recipe;
use kosmosg::pipeline::{Decoder, Denoiser, StepError};
use kosmosg::preview::PreviewFactors;
use kosmosg::protocol::{ApiError, ErrorCode, JobEvent};

use crate::bundles::Bundle;
use crate::jobs::Job;
use crate::work::{Goal, Work};
use crate::worker::Runner;

/// Steps from one preview to the next.
const PREVIEW_EVERY: usize = 2;

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
    denoiser: Option<Denoiser<E>>,
    decoder: Option<Decoder<E>>,
}

/// Why a job has no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The job should stop.
    #[error("stopped")]
    Stopped,
    /// A part cannot be loaded.
    #[error("the model cannot be loaded")]
    Bundle(#[from] BundleError),
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

    async fn make(&mut self, work: Work, job: &Job) -> Result<Vec<u8>, RunError> {
        let Work { bundle, goal, mut state } = work;
        let loaded = self.loaded(&bundle);
        let (condition, words) = match goal {
            Goal::Condition(condition) => (condition, None),
            Goal::Prompt { prompt, pictures, negative } => {
                go_on(job)?;
                job.report(JobEvent::Encoding);
                (loaded.encoder()?.encode(&prompt, &pictures, &negative).await?, Some((prompt, negative)))
            }
        };
        go_on(job)?;
        let denoiser = loaded.denoiser()?;
        let condition = denoiser.prepare(&condition);
        let factors = bundle.manifest().preview_factors();
        let first = state.step();
        while !state.is_done() {
            go_on(job)?;
            let foreseen = denoiser.step(&mut state, &condition).await?;
            job.report_step(&state);
            if (state.step() - first).is_multiple_of(PREVIEW_EVERY) && !state.is_done() {
                preview(&state, &foreseen, factors.as_ref(), job);
            }
        }
        go_on(job)?;
        let DenoiseSettings { channels, height, width, .. } = *state.settings();
        let picture = loaded.decoder()?.decode(state.latents().to_vec(), [channels, height, width]).await?;
        let size = [picture.width(), picture.height()];
        let recipe = words.map(|words| Recipe::of(state.settings(), words, size, &bundle.manifest().name, E::NAME));
        Ok(picture.to_png(recipe.as_ref()))
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
}

impl<E: Engine> Runner for Inference<E> {
    fn run(&mut self, work: Work, job: &Job) -> Result<Vec<u8>, RunError> {
        pollster::block_on(self.make(work, job))
    }

    fn release(&mut self) {
        self.loaded = None;
    }
}

impl<E: Engine> Loaded<E> {
    fn encoder(&mut self) -> Result<&Encoder<E>, BundleError> {
        let folder = self.bundle.folder();
        cached(&mut self.encoder, || Encoder::open(folder, &self.device))
    }

    fn denoiser(&mut self) -> Result<Denoiser<E>, BundleError> {
        let folder = self.bundle.folder();
        let load = || Denoiser::load(folder.manifest(), &folder.part("unet")?, &self.device);
        cached(&mut self.denoiser, load).cloned()
    }

    fn decoder(&mut self) -> Result<&Decoder<E>, BundleError> {
        let folder = self.bundle.folder();
        let load = || Decoder::load(folder.manifest(), &folder.part("vae")?, &self.device);
        cached(&mut self.decoder, load)
    }
}

impl RunError {
    /// What the client hears. What is its own doing, or may go away, it hears in full.
    pub fn shown(&self) -> ApiError {
        match self {
            RunError::Encode(EncodeError::Prompt(error)) => {
                return ApiError { code: ErrorCode::Invalid, message: error.to_string() };
            }
            RunError::Step(StepError::Denoise(error)) => {
                let message = format!("the model's answer cannot be used: {error}");
                return ApiError { code: ErrorCode::Internal, message };
            }
            _ => {}
        }
        let message = match (self, self.engine()) {
            (_, Some(EngineError::OutOfMemory { .. })) => "the server has not enough memory for this picture",
            (_, Some(EngineError::DeviceLost { .. })) => "the server lost its device; restart it",
            (RunError::Bundle(_), _) => "the server cannot load this model; its log says why",
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

fn go_on(job: &Job) -> Result<(), RunError> {
    if job.should_stop() { Err(RunError::Stopped) } else { Ok(()) }
}

fn preview(state: &DenoiseState, foreseen: &[f32], factors: Option<&PreviewFactors>, job: &Job) {
    let DenoiseSettings { channels, height, width, .. } = *state.settings();
    if let Some(picture) = factors.and_then(|factors| factors.picture(foreseen, [channels, height, width])) {
        job.report(JobEvent::Preview { step: state.step(), png: picture.to_png(None) });
    }
}

fn cached<T>(slot: &mut Option<T>, load: impl FnOnce() -> Result<T, BundleError>) -> Result<&T, BundleError> {
    match slot {
        Some(value) => Ok(value),
        None => Ok(slot.insert(load()?)),
    }
}
