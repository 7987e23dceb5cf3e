//! A job's work, checked: whoever holds one need not doubt it.

use std::sync::Arc;

use kosmosg::condition::Condition;
use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::digest::sha256;
use kosmosg::picture::{Picture, Recipe};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ApiError, GenerateSettings, JobRequest, PictureFile};

use crate::admission::check;
use crate::bundles::{Bundle, Bundles};
use crate::loras::Chosen;

/// What the worker is to do.
#[derive(Debug)]
pub struct Work {
    /// With which model.
    pub model: Model,
    /// Towards what.
    pub goal: Goal,
    /// From where.
    pub state: DenoiseState,
}

/// A bundle, and what changes its U-Net.
#[derive(Debug, Clone)]
pub struct Model {
    /// The bundle.
    pub bundle: Arc<Bundle>,
    /// The LoRAs, in the order of their names.
    pub loras: Vec<Chosen>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    model: Model,
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
        let state = state.filter(|state| work.model.unet() == unet && state.settings() == work.state.settings());
        Ok(Self { state: state.unwrap_or(work.state), ..work })
    }

    /// The request that it is the work of.
    pub fn request(&self) -> JobRequest {
        let Model { bundle, loras } = &self.model;
        let loras = loras.iter().map(|lora| lora.asked().clone()).collect();
        match &self.goal {
            Goal::Condition(condition) => JobRequest::Denoise {
                bundle: bundle.id().to_owned(),
                unet: bundle.unet().to_owned(),
                condition: condition.clone(),
                state: self.state.clone(),
                loras,
            },
            Goal::Prompt { prompt, pictures, negative } => {
                let DenoiseSettings { sampler, steps, guidance, seed, picture, height, width, .. } =
                    *self.state.settings();
                let pixels = |latents| (latents * bundle.manifest().networks.vae.downscale()) as u32;
                JobRequest::Generate {
                    bundle: bundle.id().to_owned(),
                    prompt: prompt.clone(),
                    pictures: pictures.iter().map(|picture| PictureFile(picture.to_png(None))).collect(),
                    negative: negative.clone(),
                    settings: GenerateSettings {
                        seed,
                        picture,
                        sampler: Some(sampler),
                        steps: Some(steps),
                        guidance: Some(guidance),
                        width: Some(pixels(width)),
                        height: Some(pixels(height)),
                    },
                    loras,
                }
            }
        }
    }

    /// The same with another seed.
    pub fn with_seed(&self, seed: u64) -> Self {
        let settings = DenoiseSettings { seed, ..self.state.settings().clone() };
        let state = DenoiseState::new(settings, self.model.bundle.schedule()).expect("only the seed differs");
        Self { model: self.model.clone(), goal: self.goal.clone(), state }
    }

    /// With whom it can run.
    pub fn group(&self) -> Group {
        let DenoiseSettings { channels, height, width, .. } = *self.state.settings();
        Group { model: self.model.clone(), size: [channels, height, width] }
    }
}

impl Model {
    /// Version of its U-Net, the LoRAs included.
    pub fn unet(&self) -> String {
        let unet = self.bundle.unet().to_owned();
        if self.loras.is_empty() {
            return unet;
        }
        let versions = [unet].into_iter().chain(self.loras.iter().map(Chosen::version));
        sha256(versions.collect::<Vec<_>>().join("\n").as_bytes())
    }

    /// How it makes a picture of `[width, height]` pixels of prompt and negative prompt.
    pub fn recipe(
        &self,
        settings: &DenoiseSettings,
        words: (PromptDocument, String),
        size: [u32; 2],
        engine: &str,
    ) -> Recipe {
        let adapters = self.loras.iter().map(Chosen::label).collect();
        Recipe { adapters, ..Recipe::of(settings, words, size, &self.bundle.manifest().name, engine) }
    }
}

impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bundle, &other.bundle) && self.loras == other.loras
    }
}

impl Group {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
