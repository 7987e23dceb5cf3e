//! Stage 1: multimodal language modelling, *Kosmos-G* section 2.1: the next word, in texts, after pictures and between them.

use kosmosg::encoder::EncoderNetworks;
use kosmosg::engine::burn::Burn;
use kosmosg::loss::cross_entropy;
use kosmosg::mllm::{Mllm, TokenBatch};
use kosmosg::noise::Rng;
use kosmosg::resampler::Resampler;
use kosmosg::vision::VisionTower;
use kosmosg::weights::{WeightError, Weights};

use super::sequences::{Item, Sequences};
use super::{Shared, choose, strange};
use crate::sprites::{self, Backdrop, Caption, Creature, Detail, Piece, Scene, Split, Wording};
use crate::train::run::{Loss, Source, Task};

/// See the [module documentation](self).
pub(in crate::train) struct LmTask {
    shared: Shared,
}

/// The language model and its eyes.
pub(in crate::train) struct Networks {
    vision: VisionTower<Burn>,
    resampler: Resampler<Burn>,
    mllm: Mllm<Burn>,
}

impl LmTask {
    /// The task of a run.
    pub fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone() }
    }
}

impl Task for LmTask {
    type Networks = Networks;
    type Batch = Sequences;

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
        let logits = networks.mllm.logits(networks.mllm.forward(&tokens, images));
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
    let size = shared.config.picture_size as u32;
    let scene = Scene::sample(rng, Split::Train);
    match choose(rng, shared.config.lm.mix) {
        0 => vec![Item::Words(shared.caption(&scene, rng))],
        // What a prompt will show are single creatures, so half of the pictures are such.
        1 if rng.bool(0.5) => {
            let creature = Creature::sample(rng, Split::Train);
            let scene = Scene::with_creatures(rng, &[creature]);
            let picture = sprites::cutout(&scene, 0, backdrop(rng, 0.5), size);
            vec![Item::Picture(picture), Item::Words(creature.description())]
        }
        1 => {
            let caption = shared.caption(&scene, rng);
            vec![Item::Picture(sprites::draw(&scene, size)), Item::Words(caption)]
        }
        _ => {
            let caption = Caption::sample(rng, &scene, Detail::Partial);
            interleave(rng, &caption, &scene, 0.5, 0.5, size)
        }
    }
}

/// A caption in which every entity has its picture; its words are dropped with one probability, and a creature keeps what is
/// around it with another.
pub(super) fn interleave(
    rng: &mut Rng,
    caption: &Caption,
    scene: &Scene,
    drop_words: f64,
    keep_background: f64,
    size: u32,
) -> Vec<Item> {
    let pieces = caption.interleaved(|_| if rng.bool(drop_words) { Wording::Picture } else { Wording::Both });
    let mut items = illustrate(pieces, scene, size, || backdrop(rng, keep_background));
    for item in &mut items {
        if let Item::Words(words) = item {
            *words = strange(words, rng);
        }
    }
    items
}

/// Draws what the pieces of a caption show, each with its backdrop.
pub(super) fn illustrate(
    pieces: Vec<Piece>,
    scene: &Scene,
    size: u32,
    mut backdrop: impl FnMut() -> Backdrop,
) -> Vec<Item> {
    let item = |piece| match piece {
        Piece::Text(words) => Item::Words(words),
        Piece::Picture(shown) => Item::Picture(shown.picture(scene, backdrop(), size)),
    };
    pieces.into_iter().map(item).collect()
}

fn backdrop(rng: &mut Rng, keep: f64) -> Backdrop {
    if rng.bool(keep) { Backdrop::Kept } else { Backdrop::White }
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
