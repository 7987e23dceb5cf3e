//! Stage 0c: the decoder, a denoiser and the text encoder that it follows.
//!
//! Source: *High-Resolution Image Synthesis with Latent Diffusion Models*, arXiv 2112.10752, section 3.3, with
//! classifier-free guidance, arXiv 2207.12598.

use std::collections::BTreeMap;
use std::sync::Arc;

use kosmosg::clip_text::ClipText;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::picture::Filter;
use kosmosg::schedule::NoiseSchedule;
use kosmosg::unet::UNet;
use kosmosg::weights::{HostTensor, WeightError, Weights};

use super::{Autoencoder, Shared, sampling};
use crate::sprites;
use crate::train::data::{Kind, Reader};
use crate::train::init::sample_rng;
use crate::train::noising::Noise;
use crate::train::run::{Loss, Sheet, Source, Task};
use crate::train::{Stage, result};

/// See the [module documentation](self).
pub(in crate::train) struct DecoderTask {
    shared: Shared,
    vae: Autoencoder,
    schedule: Arc<NoiseSchedule>,
    text: BTreeMap<String, HostTensor>,
}

/// Pictures, captions and noise.
pub(in crate::train) struct Batch {
    pixels: Vec<f32>,
    tokens: Vec<u32>,
    noise: Noise,
}

impl DecoderTask {
    /// The task of a run whose autoencoder and text encoder are trained.
    pub fn new(shared: &Shared) -> anyhow::Result<Self> {
        shared.data.check(&[(Kind::Captioned(Reader::TextEncoder), 1.0)])?;
        Ok(Self {
            shared: shared.clone(),
            vae: Autoencoder::new(shared)?,
            text: result(&shared.run, Stage::Text)?,
            schedule: Arc::new(NoiseSchedule::from_config(&shared.config.scheduler())?),
        })
    }
}

impl Task for DecoderTask {
    type Networks = (ClipText<Burn>, UNet<Burn>);
    type Batch = Batch;

    fn known(&self) -> BTreeMap<String, HostTensor> {
        self.text.clone()
    }

    fn trained(&self) -> Option<&[String]> {
        self.shared.config.decoder.trained.as_deref()
    }

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
        let networks = &self.shared.config.networks;
        let text = ClipText::new(&weights.at("text.text_model"), &networks.text)?;
        Ok((text, UNet::new(&weights.at("unet"), &networks.unet)?))
    }

    fn source(&self) -> Source<Batch> {
        let (shared, schedule, latents) = (self.shared.clone(), self.schedule.clone(), self.vae.latent_len());
        Box::new(move |mut rngs| {
            let (stage, size) = (&shared.config.decoder, shared.config.picture_size as u32);
            let mut batch = Batch { pixels: Vec::new(), tokens: Vec::new(), noise: Noise::default() };
            for rng in &mut rngs {
                let (caption, picture) = shared.data.captioned(rng, Reader::TextEncoder);
                let caption = if rng.bool(stage.drop_caption) { "" } else { &caption };
                batch.pixels.extend(picture.pixels_for_vae(size));
                batch.tokens.extend(shared.text_tokens(caption));
            }
            batch.noise = Noise::sample(&mut rngs, stage.draws, &schedule, latents, stage.min_snr_gamma);
            batch
        })
    }

    fn loss(&self, (text, unet): &Self::Networks, batch: Batch) -> Loss {
        let Batch { pixels, tokens, noise } = batch;
        let latents = self.vae.latents(pixels);
        let pictures = latents.shape()[0];
        let condition = text.forward(&tokens, pictures).repeat_batch(noise.draws(pictures));
        let (noisy, target) = noise.apply(latents);
        let prediction = unet.forward(noisy, &noise.timesteps, &condition, None);
        let [total, mse] = noise.loss(prediction, target, &self.shared.device);
        Loss { total, parts: vec![("mse", mse)], count: noise.timesteps.len() }
    }

    /// Pictures of eight captions, below what their scenes look like.
    fn sheet(&self, (text, unet): &Self::Networks) -> anyhow::Result<Option<Sheet>> {
        const COLUMNS: usize = 8;
        let size = self.shared.config.picture_size as u32;
        let (mut pictures, mut prompts) = (Vec::new(), Vec::new());
        for i in 0..COLUMNS as u64 {
            let mut rng = sample_rng(0, "decoder sheet", i);
            let (caption, picture) = self.shared.data.captioned(&mut rng, Reader::TextEncoder);
            prompts.push(caption);
            pictures.push(picture.square(size, Filter::Bilinear));
        }
        let conditions = |captions: &[String]| {
            let tokens: Vec<u32> = captions.iter().flat_map(|caption| self.shared.text_tokens(caption)).collect();
            text.forward(&tokens, captions.len())
        };
        let nothing = vec![String::new(); COLUMNS];
        let condition = Tensor::cat(vec![conditions(&nothing), conditions(&prompts)], 0);
        pictures.extend(sampling::sample(unet, &self.vae, &condition, &self.schedule)?);
        Ok(Some(Sheet { picture: sprites::contact_sheet(&pictures, COLUMNS, 2), prompts }))
    }
}
