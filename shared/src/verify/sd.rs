//! U-Net, autoencoder, ControlNet, LoRA, and whole sampling runs.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Cases, Files, RUN, Row, VerifyError, json, tensors};
use crate::bundle::Tensors;
use crate::config::{UNetConfig, VaeConfig};
use crate::controlnet::ControlNet;
use crate::denoise::{DenoiseSettings, DenoiseState, guide};
use crate::engine::{Engine, Tensor};
use crate::sampler::SamplerKind;
use crate::schedule::{NoiseSchedule, SchedulerConfig};
use crate::unet::UNet;
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
    /// Timesteps by `SAMPLER.STEPS`.
    timesteps: BTreeMap<String, Vec<f64>>,
}

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
    let mut cases = Cases::read(files)?;
    let config: UNetConfig = json(files, "unet/config.json")?;
    let weights = tensors(files, "unet/diffusion_pytorch_model.safetensors")?;
    let unet: UNet<E> = load(&weights, device, |weights| UNet::new(weights, &config))?;
    let (timesteps, _) = cases.integers("unet.timesteps")?;
    let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    let condition: Tensor<E, 3> = cases.tensor("unet.condition", device)?;
    let sample: Tensor<E, 4> = cases.tensor("unet.sample", device)?;

    let noise_pred = unet.forward(sample.clone(), &timesteps, &condition, None);
    cases.compare("unet.noise_pred", &noise_pred, tolerance).await?;
    if cases.has("unet_wide.sample") {
        let wide: Tensor<E, 4> = cases.tensor("unet_wide.sample", device)?;
        let noise_pred = unet.forward(wide, &[WIDE_TIMESTEP], &condition.clone().narrow(0, 0, 1), None);
        cases.compare("unet_wide.noise_pred", &noise_pred, tolerance).await?;
    }
    if files.contains_key("controlnet/config.json") {
        let config: UNetConfig = json(files, "controlnet/config.json")?;
        let weights = tensors(files, "controlnet/diffusion_pytorch_model.safetensors")?;
        let controlnet: ControlNet<E> = load(&weights, device, |weights| ControlNet::new(weights, &config))?;
        let hint = cases.tensor("controlnet.hint", device)?;
        let extra = controlnet.forward(sample.clone(), &timesteps, &condition, hint, CONDITIONING_SCALE);
        for (i, skip) in extra.skips.iter().enumerate() {
            cases.compare(&format!("controlnet.down.{i}"), skip, tolerance).await?;
        }
        cases.compare("controlnet.mid", &extra.middle, tolerance).await?;
        let noise_pred = unet.forward(sample.clone(), &timesteps, &condition, Some(extra));
        cases.compare("controlnet.noise_pred", &noise_pred, tolerance).await?;
    }
    for form in ["diffusers", "kohya"] {
        let path = format!("lora/{form}.safetensors");
        if files.contains_key(&path) {
            let update = tensors(files, &path)?;
            with_lora::<E>(&mut cases, form, &config, &weights, &update, &sample, &timesteps, &condition, tolerance)
                .await?;
        }
    }
    let vae: VaeConfig = json(files, "vae/config.json")?;
    let weights = tensors(files, "vae/diffusion_pytorch_model.safetensors")?;
    let vae_decoder = autoencoder::<E>(&mut cases, &vae, &weights, device, tolerance).await?;
    if runs {
        sampling_runs(&mut cases, files, &unet, &vae_decoder, &vae, device).await?;
    }
    Ok(cases)
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
    config: &VaeConfig,
    weights: &Tensors,
    device: &E::Device,
    tolerance: f64,
) -> Result<VaeDecoder<E>, VerifyError> {
    let of_decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
    let encoder: VaeEncoder<E> = load_except(weights, device, of_decoder, |weights| VaeEncoder::new(weights, config))?;
    let decoder: VaeDecoder<E> =
        load_except(weights, device, |name| !of_decoder(name), |weights| VaeDecoder::new(weights, config))?;
    let distribution = encoder.forward(cases.tensor("vae.image", device)?);
    cases.compare("vae.mean", &distribution.mean, tolerance).await?;
    cases.compare("vae.logvar", &distribution.logvar, tolerance).await?;
    let latents: Tensor<E, 4> = cases.tensor("vae.latents", device)?;
    // The fixture decodes bare latents; the network takes them scaled.
    let decoded = decoder.forward(latents.affine(config.scaling_factor as f32, 0.0));
    cases.compare("vae.decoded", &decoded, tolerance).await?;
    Ok(decoder)
}

async fn sampling_runs<E: Engine>(
    cases: &mut Cases,
    files: &Files,
    unet: &UNet<E>,
    vae_decoder: &VaeDecoder<E>,
    vae: &VaeConfig,
    device: &E::Device,
) -> Result<(), VerifyError> {
    let runs: Runs = json(files, "cases.json")?;
    let scheduler: SchedulerConfig = json(files, "scheduler/scheduler_config.json")?;
    let malformed = |detail: String| VerifyError::Malformed { file: "cases.json".into(), detail };
    let schedule = NoiseSchedule::from_config(&scheduler).map_err(|error| malformed(error.to_string()))?;
    let (noise, shape) = cases.numbers("sample.noise")?;
    let &[1, channels, height, width] = shape.as_slice() else {
        return Err(malformed(format!("sample.noise has shape {shape:?}")));
    };
    let uncond: Tensor<E, 3> = cases.tensor("sample.uncondition", device)?;
    let condition = Tensor::cat(vec![uncond, cases.tensor("sample.condition", device)?], 0);
    let mut last_dpmpp = None;
    for (name, timesteps) in &runs.timesteps {
        let bad_name = || malformed(format!("`{name}` is not SAMPLER.STEPS"));
        let (kind, steps) = name.rsplit_once('.').ok_or_else(bad_name)?;
        let sampler: SamplerKind = kind.replace('_', "-").parse().map_err(|_| bad_name())?;
        let steps: usize = steps.parse().map_err(|_| bad_name())?;
        let settings =
            DenoiseSettings { sampler, steps, guidance: runs.guidance, seed: 0, picture: 0, channels, height, width };
        let run_failed = |error: crate::denoise::DenoiseError| malformed(format!("{name}: {error}"));
        let mut state = DenoiseState::from_noise(settings, &schedule, &noise).map_err(run_failed)?;
        let mut taken = Vec::new();
        while !state.is_done() {
            taken.push(state.timestep());
            let sample = Tensor::from_host(state.model_input(), [1, channels, height, width], device);
            let noise_pred = unet.forward(sample.repeat_batch(2), &[state.timestep(); 2], &condition, None);
            let noise_pred = noise_pred.to_host().await?;
            let (uncond, cond) = noise_pred.split_at(noise_pred.len() / 2);
            state.advance(&guide(uncond, cond, runs.guidance)).map_err(run_failed)?;
        }
        let expected: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        let error =
            if taken.len() == expected.len() { super::relative_error(&taken, &expected) } else { f64::INFINITY };
        cases.rows.push(Row { tensor: format!("timesteps.{name}"), error, tolerance: 1e-6 });
        cases.compare_numbers(&format!("sample.{name}"), state.latents(), &shape, RUN)?;
        if sampler == SamplerKind::DpmppTwoM && last_dpmpp.as_ref().is_none_or(|&(most, _)| steps > most) {
            last_dpmpp = Some((steps, state.latents().to_vec()));
        }
    }
    if let Some((_, latents)) = last_dpmpp.filter(|_| cases.has("sample.image")) {
        let latents = Tensor::from_host(latents, [1, channels, height, width], device);
        let picture = vae_decoder.forward(latents).affine(0.5, 0.5);
        let pixels: Vec<f32> = picture.to_host().await?.iter().map(|x| x.clamp(0.0, 1.0)).collect();
        debug_assert_eq!(picture.shape()[2], height * vae.downscale());
        cases.compare_numbers("sample.image", &pixels, &picture.shape(), RUN)?;
    }
    Ok(())
}
