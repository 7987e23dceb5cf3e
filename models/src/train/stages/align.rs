//! Stage 2: alignment by score distillation from CLIP's text encoder, *Kosmos-G* section 2.2: captions alone bring the language
//! model's output into the space that the decoder follows.

use kosmosg::aligner::{Aligner, AlignerDecoder};
use kosmosg::clip_text::ClipText;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::loss;
use kosmosg::mllm::Mllm;
use kosmosg::weights::{WeightError, Weights};

use super::sequences::Sequences;
use super::{IN_MEMORY, Shared};
use crate::train::Stage;
use crate::train::data::{Item, Kind, Reader};
use crate::train::run::{Loss, Source, Task};

/// See the [module documentation](self).
pub(in crate::train) struct AlignTask {
    shared: Shared,
    mllm: Mllm<Burn>,
    text: ClipText<Burn>,
}

/// Captions for the language model and for the text encoder.
pub(in crate::train) struct Batch {
    sequences: Sequences,
    text: Vec<u32>,
}

impl AlignTask {
    /// The task of a run whose decoder and language model are trained.
    pub fn new(shared: &Shared) -> anyhow::Result<Self> {
        shared.data.check(&[(Kind::Caption(Reader::Both), 1.0)])?;
        let config = &shared.config.networks.kosmosg.mllm;
        Ok(Self {
            shared: shared.clone(),
            mllm: shared.frozen(Stage::Lm)?.build(|weights| Mllm::new(&weights.at("gpt_model.decoder"), config))?,
            text: shared.text_encoder()?,
        })
    }
}

impl Task for AlignTask {
    /// M and N.
    type Networks = (Aligner<Burn>, AlignerDecoder<Burn>);
    type Batch = Batch;

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
        let config = &self.shared.config.networks.kosmosg;
        let weights = weights.at("aligner");
        let m = Aligner::new(&weights, &config.aligner, config.mllm.dim)?;
        Ok((m, AlignerDecoder::new(&weights, &config.aligner, config.mllm.dim)?))
    }

    fn source(&self) -> Source<Batch> {
        let shared = self.shared.clone();
        Box::new(move |rngs| {
            let mut batch = Batch { sequences: Sequences::default(), text: Vec::new() };
            for mut rng in rngs {
                // The null condition has to be aligned too.
                let caption = match rng.bool(EMPTY) {
                    true => String::new(),
                    false => shared.data.caption(&mut rng, Reader::Both),
                };
                batch.text.extend(shared.text_tokens(&caption));
                batch.sequences.push(&shared, vec![Item::Words(caption)]);
            }
            batch
        })
    }

    fn loss(&self, (m, n): &Self::Networks, batch: Batch) -> Loss {
        let tokens = batch.sequences.tokens(&self.shared);
        let hidden = self.mllm.forward(&tokens, None).expect(IN_MEMORY);
        let clip = self.text.forward(&batch.text, batch.sequences.len());
        let padding = tokens.padding();
        let condition = m.forward(hidden.clone(), &padding).kept();
        let reconstructed = n.forward(condition.clone(), tokens.len());
        // Nothing has to be said about what only fills up.
        let kept = padding.iter().map(|&pad| if pad { 0.0 } else { 1.0 }).collect();
        let kept = Tensor::from_host(kept, [tokens.batch, tokens.len(), 1], &self.shared.device);
        let (to_clip, back) = loss::align(condition, clip, reconstructed * kept.clone(), hidden * kept);
        let total = to_clip.clone() + back.clone();
        Loss { total, parts: vec![("clip", to_clip), ("back", back)], count: batch.sequences.len() }
    }
}

/// Share of empty captions.
const EMPTY: f64 = 0.03;
