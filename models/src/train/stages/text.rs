//! Stage 0b: the text encoder, before it guides a denoiser. It learns to say what a caption tells, as Stable Diffusion's, CLIP's,
//! comes from learning which picture a caption belongs to. A denoiser at first attends to all tokens alike, and so it is their
//! mean that has to tell it.

use kosmosg::clip_text::ClipText;
use kosmosg::engine::burn::Burn;
use kosmosg::weights::{Bias, Linear, WeightError, Weights};

use super::Shared;
use super::answers::{Answers, cross_entropy};
use crate::eval::question::Question;
use crate::sprites::{Scene, Split};
use crate::train::data::World;
use crate::train::run::{Loss, Source, Task};

/// See the [module documentation](self).
pub(in crate::train) struct TextTask {
    shared: Shared,
    world: World,
}

/// Captions, and the right answers to all questions about their scenes.
pub(in crate::train) struct Batch {
    tokens: Vec<u32>,
    answers: Answers,
}

impl TextTask {
    /// The task of a run.
    pub fn new(shared: &Shared) -> Self {
        Self { world: shared.world(), shared: shared.clone() }
    }
}

impl Task for TextTask {
    /// The text encoder, and what reads the answers off it.
    type Networks = (ClipText<Burn>, Linear<Burn>);
    type Batch = Batch;

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
        let config = &self.shared.config.networks.text;
        let text = ClipText::new(&weights.at("text.text_model"), config)?;
        let answers = Question::all().map(Question::answers).sum();
        Ok((text, weights.linear("answers", [config.hidden_size, answers], Bias::Yes)?))
    }

    fn source(&self) -> Source<Batch> {
        let (shared, world) = (self.shared.clone(), self.world.clone());
        Box::new(move |rngs| {
            let mut batch = Batch { tokens: Vec::new(), answers: Answers::new() };
            for mut rng in rngs {
                let scene = Scene::sample(&mut rng, Split::Train);
                batch.tokens.extend(shared.text_tokens(&world.caption_of(&scene, &mut rng)));
                batch.answers.push(Question::all().map(|question| question.answer(&scene)).collect());
            }
            batch
        })
    }

    fn loss(&self, (text, head): &Self::Networks, batch: Batch) -> Loss {
        let count = batch.answers.len();
        let hidden = text.forward(&batch.tokens, count).mean(1);
        let [_, _, dim] = hidden.shape();
        let scores = head.forward(hidden.reshape([count, dim]));
        Loss { total: cross_entropy(scores, &batch.answers), parts: Vec::new(), count }
    }
}
