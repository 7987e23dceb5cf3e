//! U-Net, autoencoder, ControlNet, LoRA, and whole sampling runs.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Cases, Files, NETWORK, RUN, Row, Tolerance, VerifyError, in_config, json, malformed, tensors, unusable};
use crate::bundle::Tensors;
use crate::condition::Condition;
use crate::config::{UNetConfig, VaeConfig};
use crate::controlnet::{ControlNet, HINT_CHANNELS};
use crate::denoise::{DenoiseError, DenoiseSettings, DenoiseState};
use crate::engine::{Engine, Tensor};
use crate::pipeline::{Denoiser, StepError};
use crate::sampler::SamplerKind;
use crate::schedule::{NoiseSchedule, SchedulerConfig};
use crate::unet::{Encoded, UNet};
use crate::vae::{VaeDecoder, VaeEncoder};
use crate::weights::{load, load_except, lora};

/// Strength of the ControlNet in every fixture.
const CONDITIONING_SCALE: f32 = 0.7;
/// Timestep of the sample that is wider than high, in every fixture; its condition is the batch's first.
const WIDE_TIMESTEP: f32 = 500.0;

/// `cases.json`.
#[derive(Deserialize)]
struct Runs {
    guidance: f64,
    /// Numbers of steps in the order of the runs: `sample.image` is what the last of DPM-Solver++ came to.
    steps: Vec<usize>,
    /// Timesteps by `SAMPLER.STEPS`.
    timesteps: BTreeMap<String, Vec<f64>>,
}

/// A fixture's networks, not yet on an engine.
pub struct StableDiffusionFixture {
    /// The denoiser's sizes and weights.
    pub unet: (UNetConfig, Tensors),
    /// The autoencoder's, if there is one.
    pub vae: Option<(VaeConfig, Tensors)>,
    /// The noise schedule, which only sampling runs need.
    pub scheduler: Option<SchedulerConfig>,
}

impl StableDiffusionFixture {
    /// Reads the folders `unet`, `vae` and `scheduler`.
    ///
    /// # Errors
    /// [`VerifyError`] that names the file.
    pub fn read(files: &Files) -> Result<Self, VerifyError> {
        const UNET: &str = "unet/config.json";
        const VAE: &str = "vae/config.json";
        let unet: UNetConfig = json(files, UNET)?;
        unet.validate().map_err(in_config(UNET))?;
        let vae = |()| {
            let vae: VaeConfig = json(files, VAE)?;
            vae.validate().map_err(in_config(VAE))?;
            Ok::<_, VerifyError>((vae, tensors(files, "vae/diffusion_pytorch_model.safetensors")?))
        };
        Ok(Self {
            unet: (unet, tensors(files, "unet/diffusion_pytorch_model.safetensors")?),
            vae: files.contains_key(VAE).then_some(()).map(vae).transpose()?,
            scheduler: files.contains_key(SCHEDULER).then(|| json(files, SCHEDULER)).transpose()?,
        })
    }
}

const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Compares everything in a fixture of [`Form::StableDiffusion`](super::Form::StableDiffusion), each network within
/// `tolerance`, and sampling runs too if `runs`.
///
/// # Errors
/// [`VerifyError`] if files are missing or malformed, weights do not fit, or the engine fails.
pub async fn stable_diffusion<E: Engine>(
    files: &Files,
    device: &E::Device,
    tolerance: f64,
    runs: bool,
) -> Result<Cases, VerifyError> {
    stable_diffusion_cases::<E>(&StableDiffusionFixture::read(files)?, files, device, &|_| tolerance, runs).await
}

/// Compares what networks of some weights compute with a fixture's cases: the fixture's own weights, or those that a bundle
/// made of them.
///
/// # Errors
/// Those of [`stable_diffusion`].
pub async fn stable_diffusion_cases<E: Engine>(
    fixture: &StableDiffusionFixture,
    files: &Files,
    device: &E::Device,
    tolerances: Tolerance<'_>,
    runs: bool,
) -> Result<Cases, VerifyError> {
    let mut cases = Cases::read(files)?;
    let (config, weights) = &fixture.unet;
    let tolerance = tolerances(&["unet"]);
    let unet: UNet<E> = load(weights, device, |weights| UNet::new(weights, config))?;
    let timesteps = cases.timesteps("unet.timesteps")?;
    let batch = Some(timesteps.len());
    let condition: Tensor<E, 3> =
        cases.tensor("unet.condition", [batch, None, Some(config.cross_attention_dim)], device)?;
    let sample: Tensor<E, 4> = cases.tensor("unet.sample", [batch, Some(config.in_channels), None, None], device)?;

    let noise_pred = unet.forward(sample.clone(), &timesteps, &condition, None);
    cases.compare("unet.noise_pred", &noise_pred, tolerance).await?;
    if cases.has("unet_wide.sample") {
        let shape = [Some(1), Some(config.in_channels), None, None];
        let wide: Tensor<E, 4> = cases.tensor("unet_wide.sample", shape, device)?;
        let noise_pred = unet.forward(wide, &[WIDE_TIMESTEP], &condition.clone().narrow(0, 0, 1), None);
        cases.compare("unet_wide.noise_pred", &noise_pred, tolerance).await?;
    }
    if files.contains_key("controlnet/config.json") {
        let extra = controlnet(&mut cases, files, config, &sample, &timesteps, &condition, tolerance).await?;
        let noise_pred = unet.forward(sample.clone(), &timesteps, &condition, Some(extra));
        cases.compare("controlnet.noise_pred", &noise_pred, tolerance).await?;
    }
    for form in ["diffusers", "kohya"] {
        let path = format!("lora/{form}.safetensors");
        if files.contains_key(&path) {
            let update = tensors(files, &path)?;
            with_lora::<E>(&mut cases, form, config, weights, &update, &sample, &timesteps, &condition, tolerance)
                .await?;
        }
    }
    let vae_decoder = match &fixture.vae {
        Some(vae) => Some(autoencoder::<E>(&mut cases, vae, device, tolerances(&["vae"])).await?),
        None => None,
    };
    if !runs {
        cases.leave("sample.");
    } else if cases.has("sample.noise") {
        if config.in_channels != config.out_channels {
            return Err(unusable("unet/config.json", "in_channels are not out_channels, as sampling wants them"));
        }
        let denoiser = Denoiser::from_unet(unet, device);
        let shapes = RunShapes { channels: config.in_channels, width: config.cross_attention_dim };
        let scheduler = fixture.scheduler.as_ref().ok_or_else(|| VerifyError::MissingFile(SCHEDULER.into()))?;
        let schedule =
            NoiseSchedule::from_config(scheduler).map_err(|error| unusable("cases.json", error.to_string()))?;
        let networks = (&denoiser, vae_decoder.as_ref());
        sampling_runs(&mut cases, files, networks, &schedule, shapes, device, tolerances).await?;
    }
    Ok(cases)
}

/// What a ControlNet adds to a U-Net of the same sizes.
async fn controlnet<E: Engine>(
    cases: &mut Cases,
    files: &Files,
    unet: &UNetConfig,
    sample: &Tensor<E, 4>,
    timesteps: &[f32],
    condition: &Tensor<E, 3>,
    tolerance: f64,
) -> Result<Encoded<E>, VerifyError> {
    const FILE: &str = "controlnet/config.json";
    let config: UNetConfig = json(files, FILE)?;
    config.validate_controlnet().map_err(in_config(FILE))?;
    if !unet.takes_controlnet(&config) {
        return Err(unusable(FILE, "its sizes are not those of unet/config.json"));
    }
    let weights = tensors(files, "controlnet/diffusion_pytorch_model.safetensors")?;
    let device = sample.device();
    let controlnet: ControlNet<E> = load(&weights, &device, |weights| ControlNet::new(weights, &config))?;
    let [b, _, h, w] = sample.shape();
    let scale = controlnet.hint_scale();
    let channels = config.conditioning_channels.unwrap_or(HINT_CHANNELS);
    let hint = cases.tensor("controlnet.hint", [b, channels, h * scale, w * scale].map(Some), &device)?;
    let extra = controlnet.forward(sample.clone(), timesteps, condition, hint, CONDITIONING_SCALE);
    for (i, skip) in extra.skips.iter().enumerate() {
        cases.compare(&format!("controlnet.down.{i}"), skip, tolerance).await?;
    }
    cases.compare("controlnet.mid", &extra.middle, tolerance).await?;
    Ok(extra)
}

#[expect(clippy::too_many_arguments, reason = "a step of one function, split off for its length")]
async fn with_lora<E: Engine>(
    cases: &mut Cases,
    form: &str,
    config: &UNetConfig,
    weights: &Tensors,
    update: &Tensors,
    sample: &Tensor<E, 4>,
    timesteps: &[f32],
    condition: &Tensor<E, 3>,
    tolerance: f64,
) -> Result<(), VerifyError> {
    const PREFIX: &str = "lora.noise_pred.";
    let names: Vec<String> = cases.stems("").into_iter().filter(|name| name.starts_with(PREFIX)).collect();
    for name in names {
        let scale: f32 = name[PREFIX.len()..].parse().map_err(|_| VerifyError::Malformed {
            file: "cases.safetensors".into(),
            detail: format!("`{name}` does not end in a scale"),
        })?;
        let mut merged = weights.clone();
        lora::merge(&mut merged, update, scale)?;
        let unet: UNet<E> = load(&merged, &sample.device(), |weights| UNet::new(weights, config))?;
        let noise_pred = unet.forward(sample.clone(), timesteps, condition, None);
        cases.compare(&name, &noise_pred, tolerance).await?;
        cases.relabel(&format!("{name} ({form})"));
    }
    Ok(())
}

async fn autoencoder<E: Engine>(
    cases: &mut Cases,
    (config, weights): &(VaeConfig, Tensors),
    device: &E::Device,
    tolerance: f64,
) -> Result<VaeDecoder<E>, VerifyError> {
    let of_decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
    let encoder: VaeEncoder<E> = load_except(weights, device, of_decoder, |weights| VaeEncoder::new(weights, config))?;
    let decoder: VaeDecoder<E> =
        load_except(weights, device, |name| !of_decoder(name), |weights| VaeDecoder::new(weights, config))?;
    if cases.has("vae.image") {
        let picture: Tensor<E, 4> = cases.tensor("vae.image", [None, Some(3), None, None], device)?;
        let [_, _, height, width] = picture.shape();
        if !height.is_multiple_of(config.downscale()) || !width.is_multiple_of(config.downscale()) {
            let detail = format!("{height} × {width} pixels, expected multiples of {}", config.downscale());
            return Err(malformed("vae.image", detail));
        }
        let distribution = encoder.forward(picture);
        cases.compare("vae.mean", &distribution.mean, tolerance).await?;
        cases.compare("vae.logvar", &distribution.logvar, tolerance).await?;
    }
    if cases.has("vae.latents") {
        let shape = [None, Some(config.latent_channels), None, None];
        let latents: Tensor<E, 4> = cases.tensor("vae.latents", shape, device)?;
        // The fixture decodes bare latents; the network takes them scaled.
        let decoded = decoder.forward(latents.affine(config.scaling_factor as f32, 0.0));
        cases.compare("vae.decoded", &decoded, tolerance).await?;
    }
    Ok(decoder)
}

/// Sizes of a sampling run.
#[derive(Debug, Clone, Copy)]
struct RunShapes {
    /// Channels of the latents.
    channels: usize,
    /// Width of the condition.
    width: usize,
}

async fn sampling_runs<E: Engine>(
    cases: &mut Cases,
    files: &Files,
    (denoiser, vae_decoder): (&Denoiser<E>, Option<&VaeDecoder<E>>),
    schedule: &NoiseSchedule,
    shapes: RunShapes,
    device: &E::Device,
    tolerances: Tolerance<'_>,
) -> Result<(), VerifyError> {
    let runs: Runs = json(files, "cases.json")?;
    let unusable = |detail: String| unusable("cases.json", detail);
    // Errors add up over the steps; nothing at all in place of a picture would be 1 off.
    let tolerance = |parts: &[&str]| f64::min(RUN / NETWORK * tolerances(parts), 0.9);
    let (noise, shape) = cases.numbers("sample.noise")?;
    let channels = shapes.channels;
    let (height, width) = match shape.as_slice() {
        &[batch, found, height, width] if batch > 0 && found == channels => (height, width),
        _ => return Err(malformed("sample.noise", format!("shape {shape:?}, expected [any, {channels}, any, any]"))),
    };
    let conditions: Vec<_> = run_conditions(cases, shapes, shape[0])?.iter().map(|one| denoiser.prepare(one)).collect();
    let last = runs.steps.iter().map(|steps| format!("dpmpp_2m.{steps}")).rfind(|run| runs.timesteps.contains_key(run));
    let mut finished = None;
    for (name, timesteps) in &runs.timesteps {
        let bad_name = || unusable(format!("`{name}` is not SAMPLER.STEPS"));
        let (kind, steps) = name.rsplit_once('.').ok_or_else(bad_name)?;
        let sampler: SamplerKind = kind.replace('_', "-").parse().map_err(|_| bad_name())?;
        let steps: usize = steps.parse().map_err(|_| bad_name())?;
        let settings =
            DenoiseSettings { sampler, steps, guidance: runs.guidance, seed: 0, picture: 0, channels, height, width };
        let run_failed = |error: DenoiseError| unusable(format!("{name}: {error}"));
        let (mut taken, mut latents) = (Vec::new(), Vec::new());
        for (noise, condition) in noise.chunks_exact(channels * height * width).zip(&conditions) {
            let mut state = DenoiseState::from_noise(settings.clone(), schedule, noise).map_err(run_failed)?;
            taken.clear();
            while !state.is_done() {
                taken.push(state.timestep());
                denoiser.step(&mut state, condition).await.map_err(|error| match error {
                    StepError::Engine(error) => VerifyError::Engine(error),
                    StepError::Denoise(error) => run_failed(error),
                })?;
            }
            latents.extend_from_slice(state.latents());
        }
        let expected: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        let error =
            if taken.len() == expected.len() { super::relative_error(&taken, &expected) } else { f64::INFINITY };
        cases.rows.push(Row::new(format!("timesteps.{name}"), error, 1e-6));
        cases.compare_numbers(&format!("sample.{name}"), &latents, &shape, tolerance(&["unet"]))?;
        if last.as_ref() == Some(name) {
            finished = Some(latents);
        }
    }
    if let (Some(latents), Some(vae_decoder)) = (finished.filter(|_| cases.has("sample.image")), vae_decoder) {
        let latents = Tensor::from_host(latents, [shape[0], channels, height, width], device);
        let picture = vae_decoder.forward(latents).affine(0.5, 0.5);
        let pixels: Vec<f32> = picture.to_host().await?.iter().map(|x| x.clamp(0.0, 1.0)).collect();
        cases.compare_numbers("sample.image", &pixels, &picture.shape(), tolerance(&["unet", "vae"]))?;
    }
    Ok(())
}

/// The condition of each of `batch` rows; one may be for all of them.
fn run_conditions(cases: &Cases, shapes: RunShapes, batch: usize) -> Result<Vec<Condition>, VerifyError> {
    let ((cond, shape), (uncond, negative)) =
        (cases.numbers("sample.condition")?, cases.numbers("sample.uncondition")?);
    let fits = |shape: &[usize]| matches!(shape, &[n, tokens, width] if (n == 1 || n == batch) && tokens > 0 && width == shapes.width);
    if !fits(&shape) || !fits(&negative) || shape[1] != negative[1] {
        let detail =
            format!("shape {shape:?} and {negative:?}, expected [1 or {batch}, any, {}] of both", shapes.width);
        return Err(malformed("sample.condition", detail));
    }
    let (tokens, width) = (shape[1], shapes.width);
    let row = |numbers: &[f32], i: usize| {
        let rows = numbers.len() / (tokens * width);
        numbers[(i % rows) * tokens * width..][..tokens * width].to_vec()
    };
    Ok((0..batch).map(|i| Condition { tokens, width, cond: row(&cond, i), uncond: row(&uncond, i) }).collect())
}
