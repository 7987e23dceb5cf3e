//! `encode → denoise → decode` on one engine. Each stage stands alone, so that another engine, or another machine, can take
//! over between any two, and between any two denoising steps.

use crate::bundle::{BundleError, Folder, Manifest, Tensors};
use crate::condition::Condition;
use crate::config::{Activations, VaeConfig};
use crate::controlnet::Control;
use crate::denoise::{DenoiseError, DenoiseSettings, DenoiseState, guide};
use crate::encoder::{EncodeError, Encoder};
use crate::engine::{Engine, EngineError, Tensor};
use crate::picture::{Picture, Recipe};
use crate::prompt::PromptDocument;
use crate::protocol::GenerateSettings;
use crate::schedule::NoiseSchedule;
use crate::unet::UNet;
use crate::vae::VaeDecoder;
use crate::vae::tiles::{self, Planes};
use crate::weights::{Store, load, load_except};

/// The U-Net, stepping.
#[derive(Debug, Clone)]
pub struct Denoiser<E: Engine> {
    unet: UNet<E>,
    control: Option<Control<E>>,
    device: E::Device,
}

/// A condition on the device.
#[derive(Debug, Clone)]
pub struct PreparedCondition<E: Engine> {
    cond: Tensor<E, 3>,
    uncond: Tensor<E, 3>,
}

impl<E: Engine> PreparedCondition<E> {
    /// Whether it came to the device: otherwise each step towards it would fail.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn check(&self) -> Result<(), EngineError> {
        for half in [&self.cond, &self.uncond] {
            half.clone().to_host().await?;
        }
        Ok(())
    }
}

/// Why a step could not be taken. The state is as it was, and any engine can go on from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The U-Net's answer cannot be used: it is not finite, or the run is over.
    #[error(transparent)]
    Denoise(#[from] DenoiseError),
}

impl<E: Engine> Denoiser<E> {
    /// Builds the denoiser of a bundle from its part `unet`.
    ///
    /// # Errors
    /// [`BundleError::Weights`].
    pub fn load(manifest: &Manifest, unet: &dyn Store<E>, device: &E::Device) -> Result<Self, BundleError> {
        let unet = load(unet, device, |weights| UNet::new(weights, &manifest.networks.unet))
            .map_err(|source| BundleError::Weights { part: "unet".into(), source })?;
        Ok(Self::from_unet(unet, device))
    }

    /// A denoiser with a U-Net that is built already.
    pub fn from_unet(unet: UNet<E>, device: &E::Device) -> Self {
        Self { unet, control: None, device: device.clone() }
    }

    /// The same with a ControlNet beside the U-Net.
    pub fn with_control(self, control: Control<E>) -> Self {
        Self { control: Some(control), ..self }
    }

    /// Brings a condition to the device, once for all steps.
    pub fn prepare(&self, condition: &Condition) -> PreparedCondition<E> {
        let half =
            |numbers: &[f32]| Tensor::from_host(numbers.to_vec(), [1, condition.tokens, condition.width], &self.device);
        PreparedCondition { cond: half(&condition.cond), uncond: half(&condition.uncond) }
    }

    /// One step of a run that is not done. Returns the finished latents `[C, H, W]` as this step foresees them.
    ///
    /// # Errors
    /// [`StepError`].
    pub async fn step(
        &self,
        state: &mut DenoiseState,
        condition: &PreparedCondition<E>,
    ) -> Result<Vec<f32>, StepError> {
        let foreseen = self.step_together(&mut [(state, condition)]).await?.pop().expect("one run, one answer");
        Ok(foreseen?)
    }

    /// One step of each of several runs in one evaluation of the network. Their latents are of one size; step, sampler and
    /// guidance are each run's own. Returns what [`step`](Self::step) would of each, or why its answer cannot be used.
    ///
    /// # Errors
    /// [`EngineError`]; then all states are as they were.
    ///
    /// # Panics
    /// If there is no run, or latents or conditions are of different sizes.
    pub async fn step_together(
        &self,
        runs: &mut [(&mut DenoiseState, &PreparedCondition<E>)],
    ) -> Result<Vec<Result<Vec<f32>, DenoiseError>>, EngineError> {
        let size = |state: &DenoiseState| [state.settings().channels, state.settings().height, state.settings().width];
        let [channels, height, width] = size(runs[0].0);
        let (mut samples, mut timesteps, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
        for (state, condition) in &*runs {
            assert_eq!(size(state), [channels, height, width], "runs step together whose latents are of one size");
            let input = state.model_input();
            // Without guidance the negative half would be computed for nothing.
            if state.settings().is_guided() {
                samples.extend_from_slice(&input);
                timesteps.push(state.timestep());
                conditions.push(condition.uncond.clone());
            }
            samples.extend(input);
            timesteps.push(state.timestep());
            conditions.push(condition.cond.clone());
        }
        let samples = Tensor::from_host(samples, [timesteps.len(), channels, height, width], &self.device);
        let noise_pred = self.predict(samples, &timesteps, &Tensor::cat(conditions, 0)).to_host().await?;
        let mut rest = noise_pred.as_slice();
        let mut take = |numbers| rest.split_off(..numbers).expect("the network answers each sample");
        let advanced = runs.iter_mut().map(|(state, _)| {
            let DenoiseSettings { guidance, .. } = *state.settings();
            let numbers = state.settings().latent_len();
            if state.settings().is_guided() {
                let (uncond, cond) = (take(numbers), take(numbers));
                state.advance(&guide(uncond, cond, guidance))
            } else {
                state.advance(take(numbers))
            }
        });
        Ok(advanced.collect())
    }

    fn predict(&self, sample: Tensor<E, 4>, timesteps: &[f32], condition: &Tensor<E, 3>) -> Tensor<E, 4> {
        let control = self.control.as_ref();
        let extra = control.map(|control| control.forward(sample.clone(), timesteps, condition));
        self.unet.forward(sample, timesteps, condition, extra)
    }
}

/// The autoencoder's way from latents to a picture.
#[derive(Debug, Clone)]
pub struct Decoder<E: Engine> {
    vae: VaeDecoder<E>,
    config: VaeConfig,
    device: E::Device,
    /// Memory for what is computed, in bytes.
    room: u64,
    /// The same device in full precision, if it computes in less, and where a decoder for that is.
    full: Option<(E::Device, Folder)>,
}

impl<E: Engine> Decoder<E> {
    /// Builds the decoder of a bundle from its part `vae`.
    ///
    /// # Errors
    /// [`BundleError::Weights`].
    pub fn load(manifest: &Manifest, vae: &dyn Store<E>, device: &E::Device) -> Result<Self, BundleError> {
        let encoder = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
        let config = &manifest.networks.vae;
        let vae = load_except(vae, device, encoder, |weights| VaeDecoder::new(weights, config))
            .map_err(|source| BundleError::Weights { part: "vae".into(), source })?;
        Ok(Self { vae, config: config.clone(), device: device.clone(), room: u64::MAX, full: None })
    }

    /// The same where what is computed has so many bytes of memory beside the weights.
    pub fn within(self, room: u64) -> Self {
        Self { room, ..self }
    }

    /// The same of a bundle in a folder, where it can be loaded again: a picture of which half precision cannot hold a number
    /// is then made in full precision.
    ///
    /// # Errors
    /// Any [`BundleError`].
    pub fn open(folder: &Folder, device: &E::Device) -> Result<Self, BundleError> {
        let decoder = Self::load(folder.manifest(), &folder.part("vae")?, device)?;
        let full = E::in_full_precision(device).map(|device| (device, folder.clone()));
        Ok(Self { full, ..decoder })
    }

    /// The picture of latents `[channels, height, width]`, made in tiles if the whole has no room, or finds none.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn decode(&self, latents: Vec<f32>, shape: [usize; 3]) -> Result<Picture, EngineError> {
        let latents = Planes { numbers: latents, shape };
        let not_finite = |pixels: &Planes| pixels.numbers.iter().copied().find(|number| !number.is_finite());
        let mut pixels = self.pixels(&latents).await?;
        if not_finite(&pixels).is_some()
            && let Some((device, folder)) = &self.full
        {
            let full = Self::open(folder, device).map_err(|error| EngineError::Operation {
                engine: E::NAME,
                operation: "loading the decoder in full precision".into(),
                detail: error.to_string(),
            })?;
            pixels = full.pixels(&latents).await?;
        }
        if let Some(number) = not_finite(&pixels) {
            return Err(EngineError::Operation {
                engine: E::NAME,
                operation: format!("decoding latents of {shape:?}"),
                detail: format!("a pixel is {number}"),
            });
        }
        let [_, height, width] = pixels.shape;
        Ok(Picture::from_vae(&pixels.numbers, width as u32, height as u32))
    }

    async fn pixels(&self, latents: &Planes) -> Result<Planes, EngineError> {
        let [_, height, width] = latents.shape;
        let fits = |side: usize| {
            let Activations { largest_bytes, peak_bytes } =
                self.config.decoder_activations([height.min(side), width.min(side)]);
            largest_bytes <= E::largest_tensor_bytes(&self.device) && peak_bytes <= self.room
        };
        let sides = || tiles::sides([height, width]);
        let side = sides().find(|&side| fits(side)).or(sides().last()).expect("the whole is the first of them");
        let decode = async |side| tiles::decode(latents, side, async |tile| self.forward(tile).await).await;
        match decode(side).await {
            // What sees less of the picture is only for devices that have no more: others may get their memory back.
            Err(EngineError::OutOfMemory { .. }) if side > tiles::TILE => decode(tiles::TILE).await,
            result => result,
        }
    }

    async fn forward(
        &self,
        Planes { numbers, shape: [channels, height, width] }: Planes,
    ) -> Result<Planes, EngineError> {
        let latents = Tensor::from_host(numbers, [1, channels, height, width], &self.device);
        let pixels = self.vae.forward(latents);
        let [_, channels, height, width] = pixels.shape();
        Ok(Planes { numbers: pixels.to_host().await?, shape: [channels, height, width] })
    }
}

/// All three stages of a bundle on one engine.
#[derive(Debug)]
pub struct Pipeline<E: Engine> {
    /// Prompt to condition.
    pub encoder: Encoder<E>,
    /// Noise to latents.
    pub denoiser: Denoiser<E>,
    /// Latents to picture.
    pub decoder: Decoder<E>,
    schedule: NoiseSchedule,
    manifest: Manifest,
}

/// What to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// Words and picture places.
    pub prompt: PromptDocument,
    /// The pictures that the places show.
    pub pictures: Vec<Picture>,
    /// What to steer away from; empty for nothing.
    pub negative: String,
    /// Seed, and what differs from the bundle's defaults.
    pub settings: GenerateSettings,
}

/// Why a picture could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The prompt cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] DenoiseError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The engine failed outside of a step.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl<E: Engine> Pipeline<E> {
    /// Loads all parts of a bundle.
    ///
    /// # Errors
    /// Any [`BundleError`].
    pub fn load(folder: &Folder, device: &E::Device) -> Result<Self, BundleError> {
        Self::load_with(folder, device, |_| Ok(()))
    }

    /// The same, with what `change` makes of the U-Net's weights before they load.
    ///
    /// # Errors
    /// Any [`BundleError`], and what `change` fails with.
    pub fn load_with<F: From<BundleError>>(
        folder: &Folder,
        device: &E::Device,
        change: impl FnOnce(&mut Tensors) -> Result<(), F>,
    ) -> Result<Self, F> {
        let manifest = folder.manifest();
        let mut unet = folder.part("unet")?;
        change(&mut unet)?;
        let denoiser = Denoiser::load(manifest, &unet, device)?;
        // What the networks have unpacked goes before more is read.
        drop(unet);
        Ok(Self {
            encoder: Encoder::open(folder, device)?,
            denoiser,
            decoder: Decoder::open(folder, device)?,
            schedule: manifest.schedule()?,
            manifest: manifest.clone(),
        })
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The start of a request's picture number `index`.
    ///
    /// # Errors
    /// [`DenoiseError`] if the settings are out of range.
    pub fn start(&self, settings: &GenerateSettings, index: u64) -> Result<DenoiseState, DenoiseError> {
        DenoiseState::new(self.manifest.denoise_settings(settings, index), &self.schedule)
    }

    /// How a request's picture number `index` is made.
    pub fn recipe(&self, request: &Request, index: u64, picture: &Picture) -> Recipe {
        let settings = self.manifest.denoise_settings(&request.settings, index);
        let words = (request.prompt.clone(), request.negative.clone());
        Recipe::of(&settings, words, [picture.width(), picture.height()], &self.manifest.name, E::NAME)
    }

    /// One picture from words to pixels; `on_step` hears of each state on the way, and
    /// of the finished latents as they are foreseen then.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub async fn generate(
        &self,
        request: &Request,
        index: u64,
        on_step: impl FnMut(&DenoiseState, &[f32]),
    ) -> Result<Picture, PipelineError> {
        let condition = self.encoder.encode(&request.prompt, &request.pictures, &request.negative).await?;
        self.generate_from(&condition, &request.settings, index, on_step).await
    }

    /// The same from a condition on.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub async fn generate_from(
        &self,
        condition: &Condition,
        settings: &GenerateSettings,
        index: u64,
        mut on_step: impl FnMut(&DenoiseState, &[f32]),
    ) -> Result<Picture, PipelineError> {
        let condition = self.denoiser.prepare(condition);
        let mut state = self.start(settings, index)?;
        while !state.is_done() {
            let foreseen = self.denoiser.step(&mut state, &condition).await?;
            on_step(&state, &foreseen);
        }
        let DenoiseSettings { channels, height, width, .. } = *state.settings();
        Ok(self.decoder.decode(state.latents().to_vec(), [channels, height, width]).await?)
    }
}
