//! Stage 0a: the autoencoder. Source: *High-Resolution Image Synthesis with Latent Diffusion Models*, arXiv 2112.10752,
//! section 3.1, without the discriminator: drawn pictures have no texture that it could supply.

use std::collections::BTreeMap;

use kosmosg::config::VaeConfig;
use kosmosg::engine::burn::Burn;
use kosmosg::engine::{Tensor, Unary};
use kosmosg::picture::Filter;
use kosmosg::vae::{LatentDistribution, VaeDecoder, VaeEncoder};
use kosmosg::weights::{HostTensor, WeightError, Weights};

use super::{Shared, makes_latents, pictures, vae_config};
use crate::sprites;
use crate::train::init::sample_rng;
use crate::train::run::{Loss, Sheet, Source, Task};
use crate::train::{Stage, result};

/// See the [module documentation](self).
pub(in crate::train) struct VaeTask {
    shared: Shared,
    config: VaeConfig,
    /// An earlier result of this stage, of which some is kept.
    earlier: BTreeMap<String, HostTensor>,
}

/// Pictures and what their latents are drawn with.
pub(in crate::train) struct Batch {
    pixels: Vec<f32>,
    noise: Vec<f32>,
}

impl VaeTask {
    /// The task of a run, which has been trained before if some of it is to stay as it is.
    pub fn new(shared: &Shared) -> anyhow::Result<Self> {
        // The factor follows from the trained encoder, so it is 1 until then.
        let config = VaeConfig { scaling_factor: 1.0, ..shared.config.networks.vae.clone() };
        let earlier = match shared.config.vae.trained {
            Some(_) => result(&shared.run, Stage::Vae)?,
            None => BTreeMap::new(),
        };
        Ok(Self { shared: shared.clone(), config, earlier })
    }

    fn latent_len(&self) -> usize {
        let side = self.shared.config.picture_size / self.config.downscale();
        self.config.latent_channels * side * side
    }

    /// Standard deviation of the latents of `n` pictures.
    fn deviation(&self, encoder: &VaeEncoder<Burn>, n: usize) -> anyhow::Result<f64> {
        let size = self.shared.config.picture_size;
        let picture = |i| self.shared.data.picture(&mut sample_rng(0, "latents", i));
        let pixels: Vec<f32> = (0..n as u64).flat_map(|i| picture(i).pixels_for_vae(size as u32)).collect();
        let latents = pollster::block_on(encoder.latents(self.shared.pixels(pixels, size)).to_host())?;
        let count = latents.len() as f64;
        let mean = latents.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        Ok((latents.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count).sqrt())
    }
}

impl Task for VaeTask {
    type Networks = (VaeEncoder<Burn>, VaeDecoder<Burn>);
    type Batch = Batch;

    fn known(&self) -> BTreeMap<String, HostTensor> {
        self.earlier.clone()
    }

    fn trained(&self) -> Option<&[String]> {
        self.shared.config.vae.trained.as_deref()
    }

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
        let weights = weights.at("vae");
        Ok((VaeEncoder::new(&weights, &self.config)?, VaeDecoder::new(&weights, &self.config)?))
    }

    fn source(&self) -> Source<Batch> {
        let (data, size) = (self.shared.data.clone(), self.shared.config.picture_size as u32);
        let latents = self.latent_len();
        Box::new(move |rngs| {
            let mut batch = Batch { pixels: Vec::new(), noise: Vec::new() };
            for mut rng in rngs {
                batch.pixels.extend(data.picture(&mut rng).pixels_for_vae(size));
                batch.noise.extend((0..latents).map(|_| rng.gaussian() as f32));
            }
            batch
        })
    }

    fn loss(&self, (encoder, decoder): &Self::Networks, batch: Batch) -> Loss {
        let pictures = self.shared.pixels(batch.pixels, self.shared.config.picture_size);
        let [rows, ..] = pictures.shape();
        let LatentDistribution { mean, logvar } = encoder.forward(pictures.clone());
        let (mean, logvar) = (mean.kept(), logvar.kept());
        let deviation = logvar.clone().affine(0.5, 0.0).map(Unary::Exp).kept();
        let noise = Tensor::from_host(batch.noise, mean.shape(), &self.shared.device);
        let difference = decoder.forward(mean.clone() + deviation.clone() * noise) - pictures;
        let squared = difference.clone() * difference;
        let mse = squared.clone().mean_all();
        // |d|, smooth at 0, where the root has no slope.
        let absolute = squared.affine(1.0, 1e-6).map(Unary::Sqrt).mean_all();
        let kl = (mean.clone() * mean + deviation.clone() * deviation - logvar).mean_all().affine(0.5, -0.5);
        // A divergence is a sum over the numbers that describe a picture, not a mean.
        let weight = self.shared.config.vae.kl * self.latent_len() as f32;
        let total = absolute + mse.clone() + kl.clone().affine(weight, 0.0);
        Loss { total, parts: vec![("mse", mse), ("kl", kl)], count: rows }
    }

    /// Originals over their reconstructions.
    fn sheet(&self, (encoder, decoder): &Self::Networks) -> anyhow::Result<Option<Sheet>> {
        const COLUMNS: u64 = 12;
        let size = self.shared.config.picture_size;
        let original =
            |i| self.shared.data.picture(&mut sample_rng(0, "sheet", i)).square(size as u32, Filter::Bilinear);
        let originals: Vec<_> = (0..COLUMNS).map(original).collect();
        let pixels = originals.iter().flat_map(|picture| picture.pixels_for_vae(size as u32)).collect();
        let reconstructed = decoder.forward(encoder.latents(self.shared.pixels(pixels, size)));
        let all = [originals, pictures(&reconstructed)?].concat();
        Ok(Some(Sheet { picture: sprites::contact_sheet(&all, COLUMNS as usize, 2), prompts: Vec::new() }))
    }

    /// What brings latents to unit variance, as the denoiser's schedule assumes.
    fn extra(&self, (encoder, _): &Self::Networks) -> anyhow::Result<Option<(&'static str, Vec<u8>)>> {
        let keeps_latents = self.shared.config.vae.trained.is_some()
            && !self.earlier.keys().any(|name| makes_latents(name) && self.trains(name));
        let scaling_factor = match keeps_latents {
            true => vae_config(&self.shared.run)?.scaling_factor,
            false => self.deviation(encoder, 64)?.recip(),
        };
        let config = VaeConfig { scaling_factor, ..self.config.clone() };
        Ok(Some((super::VAE_CONFIG, serde_json::to_vec_pretty(&config)?)))
    }
}
