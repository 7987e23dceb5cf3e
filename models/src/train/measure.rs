//! How long an update takes on a device.

use std::path::Path;
use std::time::{Duration, Instant};

use kosmosg::config::UNetConfig;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::loss::mse;
use kosmosg::unet::UNet;
use kosmosg::weights::{WeightError, Weights};

use super::config::TrainConfig;
use super::run::{Job, Loss, Source, Task};
use super::trainer::Trainer;

/// Makes updates of the decoder's denoiser, forward, backward and AdamW, with as many rows as the configuration's stage decoder
/// has, of random numbers. Returns how long each took; the first is longer than the others.
///
/// # Errors
/// What went wrong on the device.
pub fn measure(config: &TrainConfig, updates: usize, device: &BurnDevice) -> anyhow::Result<Vec<Duration>> {
    let (training, unet) = (config.decoder.training.clone(), config.networks.unet.clone());
    let rows = training.batch * config.decoder.draws;
    let (parts, tokens) = (training.parts, config.networks.text.max_position_embeddings);
    let task = Denoiser { unet, tokens, device: device.clone() };
    let basis = serde_json::json!({});
    // No checkpoint is there.
    let dir = Path::new("").to_owned();
    let mut trainer = Trainer::open(&Job { name: "measure", dir, training, basis, device: device.clone() }, &task)?;
    let update = |_| {
        let batch = (0..parts).map(|part| rows / parts + usize::from(part < rows % parts)).collect();
        let start = Instant::now();
        trainer.step(&task, batch)?;
        Ok(start.elapsed())
    };
    (0..updates).map(update).collect()
}

/// A denoiser that learns numbers that have nothing to do with what it sees.
struct Denoiser {
    unet: UNetConfig,
    tokens: usize,
    device: BurnDevice,
}

impl Task for Denoiser {
    type Networks = UNet<Burn>;
    /// How many rows.
    type Batch = usize;

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
        UNet::new(weights, &self.unet)
    }

    fn source(&self) -> Source<usize> {
        Box::new(|rngs| rngs.len())
    }

    fn loss(&self, unet: &UNet<Burn>, rows: usize) -> Loss {
        let size = self.unet.sample_size.unwrap_or(64);
        let numbers = |len: usize| (0..len).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
        let shape = [rows, self.unet.in_channels, size, size];
        let latents = Tensor::from_host(numbers(shape.iter().product()), shape, &self.device);
        let width = self.unet.cross_attention_dim;
        let condition =
            Tensor::from_host(numbers(rows * self.tokens * width), [rows, self.tokens, width], &self.device);
        let timesteps: Vec<f32> = (0..rows).map(|row| (row * 997 % 1000) as f32).collect();
        let prediction = unet.forward(latents.clone(), &timesteps, &condition, None);
        Loss { total: mse(prediction, latents), parts: Vec::new(), count: rows }
    }
}
