//! What a denoiser learns from: latents at random timesteps.

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::noise::Rng;
use kosmosg::schedule::{NoiseSchedule, PredictionType};

/// Noise for some latents, still in host memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Noise {
    /// A timestep for each row.
    pub timesteps: Vec<f32>,
    /// Standard normal values, `[B, n]` row-major.
    values: Vec<f32>,
    /// What the latents and the noise of each row count in its input.
    input: Vec<Mixture>,
    /// The same in what the network is to say.
    target: Vec<Mixture>,
    /// What each row's loss counts.
    weights: Vec<f32>,
}

/// `latents · data + noise · ε`.
#[derive(Debug, Clone, Copy)]
struct Mixture {
    latents: f64,
    noise: f64,
}

impl Noise {
    /// For latents of `n` numbers, `draws` rows from each generator: first one from each, then the next.
    pub fn sample(rngs: &mut [Rng], draws: usize, schedule: &NoiseSchedule, n: usize, gamma: Option<f64>) -> Self {
        let mut noise = Self::default();
        for _ in 0..draws {
            rngs.iter_mut().for_each(|rng| noise.push(rng, schedule, n, gamma));
        }
        noise
    }

    /// Adds a row of `n` values at a uniformly drawn timestep.
    ///
    /// A squared error of the prediction is one of the data times SNR (noise), SNR + 1 (velocity) or 1 (data). With `gamma`
    /// that factor is at most `γ`.
    fn push(&mut self, rng: &mut Rng, schedule: &NoiseSchedule, n: usize, gamma: Option<f64>) {
        let alphas = schedule.alphas_cumprod();
        let timestep = rng.below(alphas.len());
        let alpha = alphas[timestep];
        let snr = alpha / (1.0 - alpha);
        let input = Mixture { latents: alpha.sqrt(), noise: (1.0 - alpha).sqrt() };
        let (target, factor) = match schedule.config().prediction_type {
            PredictionType::Epsilon => (Mixture { latents: 0.0, noise: 1.0 }, snr),
            PredictionType::VPrediction => (Mixture { latents: -input.noise, noise: input.latents }, snr + 1.0),
            PredictionType::Sample => (Mixture { latents: 1.0, noise: 0.0 }, 1.0),
        };
        self.timesteps.push(timestep as f32);
        self.values.extend((0..n).map(|_| rng.gaussian() as f32));
        self.input.push(input);
        self.target.push(target);
        self.weights.push(gamma.map_or(1.0, |gamma| factor.min(gamma) / factor) as f32);
    }

    /// How often `batch` things have to follow one another to be as many as the rows.
    pub fn draws(&self, batch: usize) -> usize {
        self.timesteps.len() / batch
    }

    /// The network's input, and what it should say to it, each `[B, C, H, W]`. Fewer latents than rows are taken again and
    /// again.
    pub fn apply(&self, latents: Tensor<Burn, 4>) -> (Tensor<Burn, 4>, Tensor<Burn, 4>) {
        let draws = self.draws(latents.shape()[0]);
        let latents = latents.repeat_batch(draws);
        let (shape, device) = (latents.shape(), latents.device());
        let noise = Tensor::from_host(self.values.clone(), shape, &device);
        let mix = |rows: &[Mixture]| {
            let scale = |part: fn(&Mixture) -> f64| {
                let scales = rows.iter().map(|row| part(row) as f32).collect();
                Tensor::from_host(scales, [shape[0], 1, 1, 1], &device)
            };
            latents.clone() * scale(|row| row.latents) + noise.clone() * scale(|row| row.noise)
        };
        (mix(&self.input), mix(&self.target))
    }

    /// Mean over the rows of their weighted mean squared error, `[1]`, and the same without weights.
    pub fn loss(
        &self,
        prediction: Tensor<Burn, 4>,
        target: Tensor<Burn, 4>,
        device: &BurnDevice,
    ) -> [Tensor<Burn, 1>; 2] {
        let rows = self.weights.len();
        let n = self.values.len() / rows;
        let difference = (prediction - target).reshape([rows, n]);
        let errors = (difference.clone() * difference).mean(1);
        let weights = Tensor::from_host(self.weights.clone(), [rows, 1], device);
        [(errors.clone() * weights).mean_all(), errors.mean_all()]
    }
}

#[cfg(test)]
mod tests {
    use kosmosg::schedule::SchedulerConfig;

    use super::*;

    /// A network that errs in the data has the loss that the formula says, whatever it predicts.
    #[test]
    fn errors_of_the_data_count_at_most_gamma() {
        const N: usize = 12;
        const ERROR: f64 = 0.5;
        let device = BurnDevice::cpu().training();
        let data = Tensor::from_host((0..N).map(|i| i as f32 / 7.0 - 0.6).collect(), [1, 3, 2, 2], &device);
        for prediction_type in [PredictionType::Epsilon, PredictionType::VPrediction, PredictionType::Sample] {
            let config = SchedulerConfig { prediction_type, ..SchedulerConfig::stable_diffusion() };
            let schedule = NoiseSchedule::from_config(&config).unwrap();
            for (seed, gamma) in (0..20).map(|seed| (seed, if seed % 2 == 0 { Some(5.0) } else { None })) {
                let mut noise = Noise::default();
                noise.push(&mut Rng::new(seed, 0), &schedule, N, gamma);
                let alpha = schedule.alphas_cumprod()[noise.timesteps[0] as usize];
                let (snr, signal, deviation) = (alpha / (1.0 - alpha), alpha.sqrt(), (1.0 - alpha).sqrt());
                let (input, target) = noise.apply(data.clone());
                let wrong = data.clone().affine(1.0, ERROR as f32);
                let scaled = |x: &Tensor<Burn, 4>, scale: f64| x.clone().affine(scale as f32, 0.0);
                let wrong_noise = scaled(&(input - scaled(&wrong, signal)), 1.0 / deviation);
                let (said, factor) = match prediction_type {
                    PredictionType::Epsilon => (wrong_noise, snr),
                    PredictionType::VPrediction => {
                        (scaled(&wrong_noise, signal) - scaled(&wrong, deviation), snr + 1.0)
                    }
                    PredictionType::Sample => (wrong, 1.0),
                };
                let [weighted, plain] = noise.loss(said, target, &device);
                let value = |x: Tensor<Burn, 1>| f64::from(pollster::block_on(x.to_host()).unwrap()[0]);
                let expected = ERROR * ERROR * factor;
                let capped = ERROR * ERROR * gamma.map_or(factor, |gamma| factor.min(gamma));
                assert!((value(plain) / expected - 1.0).abs() < 1e-2, "{prediction_type:?} {seed}");
                assert!((value(weighted) / capped - 1.0).abs() < 1e-2, "{prediction_type:?} {seed}");
            }
        }
    }
}
