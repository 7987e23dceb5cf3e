//! Stage 3: instruction tuning, *Kosmos-G* section 2.3: the decoder is frozen, and its loss teaches all before it what a picture
//! in a prompt is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use kosmosg::encoder::EncoderNetworks;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::noise::Rng;
use kosmosg::picture::Filter;
use kosmosg::schedule::NoiseSchedule;
use kosmosg::unet::UNet;
use kosmosg::weights::{HostTensor, WeightError, Weights};

use super::sequences::Sequences;
use super::{Autoencoder, Shared, choose, sampling};
use crate::sprites;
use crate::train::config::InstructStage;
use crate::train::data::{Constructed, Item, Kind, Reader, Sample, written};
use crate::train::noising::Noise;
use crate::train::run::{Loss, Sheet, Source, Task};
use crate::train::{Stage, result};

/// See the [module documentation](self).
pub(in crate::train) struct InstructTask {
    shared: Shared,
    vae: Autoencoder,
    unet: UNet<Burn>,
    schedule: Arc<NoiseSchedule>,
    known: BTreeMap<String, HostTensor>,
}

/// Prompts, the pictures that they ask for, and noise.
pub(in crate::train) struct Batch {
    sequences: Sequences,
    pixels: Vec<f32>,
    noise: Noise,
}

impl InstructTask {
    /// The task of a run whose other stages are trained.
    pub fn new(shared: &Shared) -> anyhow::Result<Self> {
        let [constructed, edits, captions] = shared.config.instruct.mix;
        shared.data.check(&[
            (Kind::Constructed, constructed),
            (Kind::Edit, edits),
            (Kind::Captioned(Reader::LanguageModel), captions),
        ])?;
        let decoder = shared.frozen(Stage::Decoder)?;
        Ok(Self {
            known: match &shared.config.imitate {
                Some(_) => result(&shared.run, Stage::Imitate)?,
                None => aligned(shared)?,
            },
            vae: Autoencoder::new(shared)?,
            unet: decoder.build(|weights| UNet::new(&weights.at("unet"), &shared.config.networks.unet))?,
            schedule: Arc::new(NoiseSchedule::from_config(&shared.config.scheduler())?),
            shared: shared.clone(),
        })
    }
}

impl Task for InstructTask {
    type Networks = EncoderNetworks<Burn>;
    type Batch = Batch;

    fn known(&self) -> BTreeMap<String, HostTensor> {
        self.known.clone()
    }

    fn trained(&self) -> Option<&[String]> {
        Some(&self.shared.config.instruct.trained)
    }

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
        EncoderNetworks::new(weights, &self.shared.config.networks.kosmosg)
    }

    fn source(&self) -> Source<Batch> {
        let (shared, schedule, latents) = (self.shared.clone(), self.schedule.clone(), self.vae.latent_len());
        Box::new(move |mut rngs| {
            let (stage, size) = (&shared.config.instruct, shared.config.picture_size as u32);
            let mut batch = Batch { sequences: Sequences::default(), pixels: Vec::new(), noise: Noise::default() };
            for rng in &mut rngs {
                let (items, target) = sample(rng, &shared);
                let is_null = rng.bool(stage.null_condition);
                batch.sequences.push(&shared, if is_null { Vec::new() } else { items });
                batch.pixels.extend(target.pixels_for_vae(size));
            }
            batch.noise = Noise::sample(&mut rngs, stage.draws, &schedule, latents, stage.min_snr_gamma);
            batch
        })
    }

    fn loss(&self, networks: &Self::Networks, batch: Batch) -> Loss {
        let Batch { sequences, pixels, noise } = batch;
        let condition = sequences.condition(&self.shared, networks).repeat_batch(noise.draws(sequences.len()));
        let (noisy, target) = noise.apply(self.vae.latents(pixels));
        let prediction = self.unet.forward(noisy, &noise.timesteps, &condition, None);
        let [total, mse] = noise.loss(prediction, target, &self.shared.device);
        Loss { total, parts: vec![("mse", mse)], count: noise.timesteps.len() }
    }

    /// What prompts show over what comes out.
    fn sheet(&self, networks: &Self::Networks) -> anyhow::Result<Option<Sheet>> {
        const COLUMNS: usize = 8;
        const ROWS: usize = 2;
        let size = self.shared.config.picture_size as u32;
        let (mut pictures, mut texts) = (Vec::new(), Vec::new());
        for row in 0..ROWS {
            let (mut nothing, mut prompts) = (Sequences::default(), Sequences::default());
            for number in row * COLUMNS..(row + 1) * COLUMNS {
                let (items, shown) = self.shared.data.showcase(number);
                texts.push(written(&items));
                pictures.push(shown.square(size, Filter::Bilinear));
                prompts.push(&self.shared, items);
                nothing.push(&self.shared, Vec::new());
            }
            let conditions = [nothing, prompts].map(|sequences| sequences.condition(&self.shared, networks)).into();
            pictures.extend(sampling::sample(&self.unet, &self.vae, &Tensor::cat(conditions, 0), &self.schedule)?);
        }
        Ok(Some(Sheet { picture: sprites::contact_sheet(&pictures, COLUMNS, 2), prompts: texts }))
    }
}

/// Everything before the decoder, as stage 2 leaves it; without that stage, all but AlignerNet.
pub(super) fn aligned(shared: &Shared) -> anyhow::Result<BTreeMap<String, HostTensor>> {
    let mut weights = result(&shared.run, Stage::Lm)?;
    if !shared.config.does_without(Stage::Align) {
        weights.extend(result(&shared.run, Stage::Align)?);
    }
    Ok(weights)
}

/// A prompt and the picture that it asks for.
fn sample(rng: &mut Rng, shared: &Shared) -> Sample {
    let InstructStage { mix, drop_words, keep_background, drop_caption, .. } = shared.config.instruct;
    match choose(rng, mix) {
        0 => shared.data.constructed(rng, Constructed { drop_words, keep_background, altered: ALTERED }),
        1 => shared.data.edit(rng, drop_caption),
        _ => {
            let (caption, picture) = shared.data.captioned(rng, Reader::LanguageModel);
            (vec![Item::Words(caption)], picture)
        }
    }
}

/// Share of constructed samples in which words change what a picture shows.
pub(super) const ALTERED: f64 = 0.2;
