//! What a denoiser learns from: latents at random timesteps.

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::noise::Rng;
use kosmosg::schedule::NoiseSchedule;

/// Noise for some latents, still in host memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Noise {
    /// A timestep for each row.
    pub timesteps: Vec<f32>,
    /// Standard normal values, `[B, n]` row-major.
    values: Vec<f32>,
    /// `√ᾱ` and `√(1 − ᾱ)` of each row.
    scales: [Vec<f32>; 2],
    /// What each row's loss counts.
    weights: Vec<f32>,
}

impl Noise {
    /// Adds a row of `n` values at a uniformly drawn timestep. With `gamma` the row counts `min(SNR, γ) / SNR`.
    pub fn push(&mut self, rng: &mut Rng, schedule: &NoiseSchedule, n: usize, gamma: Option<f64>) {
        let alphas = schedule.alphas_cumprod();
        let timestep = rng.below(alphas.len());
        let alpha = alphas[timestep];
        let snr = alpha / (1.0 - alpha);
        self.timesteps.push(timestep as f32);
        self.values.extend((0..n).map(|_| rng.gaussian() as f32));
        self.scales[0].push(alpha.sqrt() as f32);
        self.scales[1].push((1.0 - alpha).sqrt() as f32);
        self.weights.push(gamma.map_or(1.0, |gamma| snr.min(gamma) / snr) as f32);
    }

    /// `√ᾱ · latents + √(1 − ᾱ) · noise`, and the noise, each `[B, C, H, W]`.
    pub fn apply(&self, latents: Tensor<Burn, 4>) -> (Tensor<Burn, 4>, Tensor<Burn, 4>) {
        let (shape, device) = (latents.shape(), latents.device());
        let noise = Tensor::from_host(self.values.clone(), shape, &device);
        let scale = |i: usize| Tensor::from_host(self.scales[i].clone(), [shape[0], 1, 1, 1], &device);
        (latents * scale(0) + noise.clone() * scale(1), noise)
    }

    /// Mean over the rows of their weighted mean squared error, `[1]`, and the same without weights.
    pub fn loss(
        &self,
        prediction: Tensor<Burn, 4>,
        noise: Tensor<Burn, 4>,
        device: &BurnDevice,
    ) -> [Tensor<Burn, 1>; 2] {
        let rows = self.weights.len();
        let n = self.values.len() / rows;
        let difference = (prediction - noise).reshape([rows, n]);
        let errors = (difference.clone() * difference).mean(1);
        let weights = Tensor::from_host(self.weights.clone(), [rows, 1], device);
        [(errors.clone() * weights).mean_all(), errors.mean_all()]
    }
}
