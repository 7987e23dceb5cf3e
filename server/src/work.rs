//! A job's work, checked: whoever holds one need not doubt it.

use std::sync::Arc;

use kosmosg::condition::Condition;
use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ApiError, GenerateSettings, JobRequest, PictureFile};

use crate::admission::check;
use crate::bundles::{Bundle, Bundles};

/// What the worker is to do.
#[derive(Debug)]
pub struct Work {
    /// With which model.
    pub bundle: Arc<Bundle>,
    /// Towards what.
    pub goal: Goal,
    /// From where.
    pub state: DenoiseState,
}

/// What to denoise towards.
#[derive(Debug, Clone)]
pub enum Goal {
    /// Encoded elsewhere; nobody here knows the words.
    Condition(Condition),
    /// To be encoded.
    Prompt {
        /// Words and picture places.
        prompt: PromptDocument,
        /// The pictures, each already a square of the encoder's size: small, however large their files were.
        pictures: Vec<Picture>,
        /// What to steer away from; empty for nothing.
        negative: String,
    },
}

/// Jobs of one group can share an evaluation of the network.
#[derive(Debug, Clone)]
pub struct Group {
    bundle: Arc<Bundle>,
    /// `[channels, height, width]` of the latents.
    size: [usize; 3],
}

impl Work {
    /// Work that was written down as a request, and how far it was with that U-Net. With another U-Net it begins anew.
    ///
    /// # Errors
    /// The model is not here any more.
    pub fn again(
        request: JobRequest,
        unet: &str,
        state: Option<DenoiseState>,
        bundles: &Bundles,
    ) -> Result<Self, ApiError> {
        let work = check(request, bundles)?;
        let state = state.filter(|state| work.bundle.unet() == unet && state.settings() == work.state.settings());
        Ok(Self { state: state.unwrap_or(work.state), ..work })
    }

    /// The request that it is the work of.
    pub fn request(&self) -> JobRequest {
        let (bundle, state) = (self.bundle.id().to_owned(), self.state.clone());
        match &self.goal {
            Goal::Condition(condition) => {
                JobRequest::Denoise { bundle, unet: self.bundle.unet().to_owned(), condition: condition.clone(), state }
            }
            Goal::Prompt { prompt, pictures, negative } => {
                let DenoiseSettings { sampler, steps, guidance, seed, height, width, .. } = *state.settings();
                let pixels = |latents| (latents * self.bundle.manifest().networks.vae.downscale()) as u32;
                JobRequest::Generate {
                    bundle,
                    prompt: prompt.clone(),
                    pictures: pictures.iter().map(|picture| PictureFile(picture.to_png(None))).collect(),
                    negative: negative.clone(),
                    settings: GenerateSettings {
                        seed,
                        sampler: Some(sampler),
                        steps: Some(steps),
                        guidance: Some(guidance),
                        width: Some(pixels(width)),
                        height: Some(pixels(height)),
                    },
                }
            }
        }
    }

    /// The same with another seed.
    pub fn with_seed(&self, seed: u64) -> Self {
        let settings = DenoiseSettings { seed, ..self.state.settings().clone() };
        let state = DenoiseState::new(settings, self.bundle.schedule()).expect("only the seed differs");
        Self { bundle: Arc::clone(&self.bundle), goal: self.goal.clone(), state }
    }

    /// With whom it can run.
    pub fn group(&self) -> Group {
        let DenoiseSettings { channels, height, width, .. } = *self.state.settings();
        Group { bundle: Arc::clone(&self.bundle), size: [channels, height, width] }
    }
}

impl Group {
    /// The model.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// Whether both are of one model.
    pub fn has_bundle_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bundle, &other.bundle)
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.has_bundle_of(other) && self.size == other.size
    }
}
