//! Pictures from a denoiser in the middle of its training.

use kosmosg::denoise::{DenoiseSettings, DenoiseState, guide};
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::picture::Picture;
use kosmosg::sampler::SamplerKind;
use kosmosg::schedule::NoiseSchedule;
use kosmosg::unet::UNet;

use super::{Autoencoder, pictures};

const STEPS: usize = 20;
const GUIDANCE: f64 = 4.0;

/// One picture for each condition, all at once. `condition` `[2·B, T, D]` has the `B` null conditions first.
pub(super) fn sample(
    unet: &UNet<Burn>,
    vae: &Autoencoder,
    condition: &Tensor<Burn, 3>,
    schedule: &NoiseSchedule,
) -> anyhow::Result<Vec<Picture>> {
    let batch = condition.shape()[0] / 2;
    let [channels, height, width] = vae.latent_shape();
    let start = |picture| {
        let settings = DenoiseSettings {
            sampler: SamplerKind::DpmppTwoM,
            steps: STEPS,
            guidance: GUIDANCE,
            seed: 0,
            picture,
            channels,
            height,
            width,
        };
        DenoiseState::new(settings, schedule)
    };
    let mut states = (0..batch as u64).map(start).collect::<Result<Vec<_>, _>>()?;
    let n = channels * height * width;
    while states.iter().any(|state| !state.is_done()) {
        let latents: Vec<f32> = states.iter().flat_map(DenoiseState::model_input).collect();
        let latents = Tensor::from_host(latents, [batch, channels, height, width], &condition.device());
        let timesteps: Vec<f32> = states.iter().chain(&states).map(DenoiseState::timestep).collect();
        let prediction = unet.forward(latents.repeat_batch(2), &timesteps, condition, None);
        let prediction = pollster::block_on(prediction.to_host())?;
        let (uncond, cond) = prediction.split_at(batch * n);
        for (i, state) in states.iter_mut().enumerate() {
            let row = i * n..(i + 1) * n;
            state.advance(&guide(&uncond[row.clone()], &cond[row], GUIDANCE))?;
        }
    }
    let latents = states.iter().flat_map(|state| state.latents().to_vec()).collect();
    let latents = Tensor::from_host(latents, [batch, channels, height, width], &condition.device());
    pictures(&vae.decode(latents))
}
