//! Stage 1: multimodal language modelling, *Kosmos-G* section 2.1: the next word, in texts, after pictures and between them.

use std::collections::BTreeMap;

use kosmosg::encoder::EncoderNetworks;
use kosmosg::engine::burn::Burn;
use kosmosg::loss::cross_entropy;
use kosmosg::mllm::{Mllm, TokenBatch};
use kosmosg::noise::Rng;
use kosmosg::resampler::Resampler;
use kosmosg::vision::VisionTower;
use kosmosg::weights::{HostTensor, WeightError, Weights};

use super::sequences::Sequences;
use super::{IN_MEMORY, Shared, choose};
use crate::train::data::{Constructed, Item, Kind, Reader};
use crate::train::run::{Loss, Source, Task};
use crate::train::{Stage, result};

/// See the [module documentation](self).
pub(in crate::train) struct LmTask {
    shared: Shared,
    eyes: BTreeMap<String, HostTensor>,
}

/// The language model and its eyes.
pub(in crate::train) struct Networks {
    vision: VisionTower<Burn>,
    resampler: Resampler<Burn>,
    mllm: Mllm<Burn>,
}

impl LmTask {
    /// The task of a run whose eyes are trained.
    pub fn new(shared: &Shared) -> anyhow::Result<Self> {
        let [captions, described, constructed] = shared.config.lm.mix;
        shared.data.check(&[
            (Kind::Caption(Reader::LanguageModel), captions),
            (Kind::Described, described),
            (Kind::Constructed, constructed),
        ])?;
        Ok(Self { eyes: result(&shared.run, Stage::Vision)?, shared: shared.clone() })
    }
}

impl Task for LmTask {
    type Networks = Networks;
    type Batch = Sequences;

    fn known(&self) -> BTreeMap<String, HostTensor> {
        self.eyes.clone()
    }

    fn trained(&self) -> Option<&[String]> {
        Some(&self.shared.config.lm.trained)
    }

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Networks, WeightError> {
        let config = &self.shared.config.networks.kosmosg;
        Ok(Networks {
            vision: VisionTower::new(&weights.at("img_model.visual"), &config.vision)?,
            resampler: EncoderNetworks::resampler(weights, config)?,
            mllm: Mllm::new(&weights.at("gpt_model.decoder"), &config.mllm)?,
        })
    }

    fn source(&self) -> Source<Sequences> {
        let shared = self.shared.clone();
        Box::new(move |rngs| {
            let mut batch = Sequences::default();
            for mut rng in rngs {
                let items = sample(&mut rng, &shared);
                batch.push(&shared, items);
            }
            batch.end(&shared);
            batch
        })
    }

    fn loss(&self, networks: &Networks, batch: Sequences) -> Loss {
        let images = batch.pictures(&self.shared).map(|pixels| {
            let features = networks.vision.forward(pixels);
            networks.resampler.forward(features)
        });
        let tokens = batch.tokens(&self.shared);
        let (targets, counted) = next_words(&tokens, self.shared.config.networks.kosmosg.special.boi);
        let logits = networks.mllm.forward(&tokens, images).and_then(|hidden| networks.mllm.logits(hidden));
        let logits = logits.expect(IN_MEMORY);
        let count = counted.iter().filter(|&&counted| counted).count();
        Loss { total: cross_entropy(logits, &targets, &counted), parts: Vec::new(), count }
    }
}

/// What follows each token, and whether it is a word: not padding, not what frames or stands for a picture.
fn next_words(batch: &TokenBatch, boi: u32) -> (Vec<u32>, Vec<bool>) {
    let mut targets = Vec::with_capacity(batch.tokens.len());
    let mut counted = Vec::with_capacity(batch.tokens.len());
    for row in batch.tokens.chunks_exact(batch.len()) {
        for at in 0..row.len() {
            let next = row.get(at + 1).copied().unwrap_or(batch.pad);
            targets.push(next);
            // `</image>` always follows the last place of a picture.
            counted.push(next != batch.pad && next != boi && row[at] != boi);
        }
    }
    (targets, counted)
}

/// A caption, a picture with its words, or a caption with pictures in it.
fn sample(rng: &mut Rng, shared: &Shared) -> Vec<Item> {
    match choose(rng, shared.config.lm.mix) {
        0 => vec![Item::Words(shared.data.caption(rng, Reader::LanguageModel))],
        1 => shared.data.described(rng),
        _ => shared.data.constructed(rng, Constructed { drop_words: 0.5, keep_background: 0.5, altered: 0.0 }).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_are_predicted() {
        // <s> a <image> <image> <image> </image> cat </s> <pad>
        let tokens = vec![0, 7, 9, 9, 9, 10, 8, 2, 1];
        let image_mask = [3, 4].into_iter().fold(vec![false; 9], |mut mask, at| {
            mask[at] = true;
            mask
        });
        let (targets, counted) = next_words(&TokenBatch { tokens, image_mask, batch: 1, pad: 1 }, 9);
        assert_eq!(targets, [7, 9, 9, 9, 10, 8, 2, 1, 1]);
        assert_eq!(counted, [true, false, false, false, false, true, true, false, false]);
    }
}
