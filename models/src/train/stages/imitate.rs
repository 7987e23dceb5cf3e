//! The first part of stage 3: pictures in prompts, as words would tell them. The world of sprites knows the words for every
//! picture, and to give the decoder what it would be told in them takes a fraction of the work that learning through the decoder
//! takes. It makes nothing that words cannot tell; that is left to [`instruct`](super::instruct).

use std::collections::BTreeMap;

use kosmosg::clip_text::ClipText;
use kosmosg::encoder::EncoderNetworks;
use kosmosg::engine::burn::Burn;
use kosmosg::loss::mse;
use kosmosg::noise::Rng;
use kosmosg::weights::{HostTensor, WeightError, Weights};

use super::instruct::{ALTERED, aligned};
use super::sequences::Sequences;
use super::{Shared, choose};
use crate::train::config::InstructStage;
use crate::train::data::{Constructed, Data as _, Item, Reader, World};
use crate::train::run::{Loss, Source, Task};

/// See the [module documentation](self).
pub(in crate::train) struct ImitateTask {
    shared: Shared,
    text: ClipText<Burn>,
    known: BTreeMap<String, HostTensor>,
}

/// Prompts, and what they ask for as the text encoder's tokens.
pub(in crate::train) struct Batch {
    sequences: Sequences,
    text: Vec<u32>,
}

impl ImitateTask {
    /// The task of a run whose AlignerNet is trained.
    pub fn new(shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self { shared: shared.clone(), text: shared.text_encoder()?, known: aligned(shared)? })
    }
}

impl Task for ImitateTask {
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
        let (shared, world) = (self.shared.clone(), self.shared.world());
        Box::new(move |rngs| {
            let mut batch = Batch { sequences: Sequences::default(), text: Vec::new() };
            for mut rng in rngs {
                let (items, words) = if rng.bool(shared.config.instruct.null_condition) {
                    (Vec::new(), String::new())
                } else {
                    sample(&mut rng, &world, &shared.config.instruct)
                };
                batch.text.extend(shared.text_tokens(&words));
                batch.sequences.push(&shared, items);
            }
            batch
        })
    }

    fn loss(&self, networks: &Self::Networks, batch: Batch) -> Loss {
        let count = batch.sequences.len();
        let told = self.text.forward(&batch.text, count);
        Loss { total: mse(batch.sequences.condition(&self.shared, networks), told), parts: Vec::new(), count }
    }
}

/// A prompt, and everything that it asks for in words.
fn sample(rng: &mut Rng, world: &World, options: &InstructStage) -> (Vec<Item>, String) {
    let InstructStage { mix, drop_words, keep_background, drop_caption, .. } = *options;
    loop {
        let (items, scene) = match choose(rng, mix) {
            0 => world.constructed_scene(rng, Constructed { drop_words, keep_background, altered: ALTERED }),
            1 => world.edited_scene(rng, drop_caption),
            _ => {
                let caption = world.caption(rng, Reader::Both);
                return (vec![Item::Words(caption.clone())], caption);
            }
        };
        if let Some(words) = world.told(&scene) {
            return (items, words);
        }
    }
}
