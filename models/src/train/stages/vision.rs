//! Stage 0d: the eyes, vision tower and resampler, before a language model looks through them. They learn to say what a picture
//! shows, where the published vision tower, CLIP's, comes from learning which caption a picture belongs to.

use kosmosg::encoder::EncoderNetworks;
use kosmosg::engine::burn::Burn;
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::resampler::Resampler;
use kosmosg::vision::VisionTower;
use kosmosg::weights::{Bias, Linear, WeightError, Weights};

use super::Shared;
use super::answers::{Answers, cross_entropy};
use crate::eval::question::Question;
use crate::sprites::{self, Scene, Split, Style};
use crate::train::data::backdrop;
use crate::train::run::{Loss, Source, Task};

/// See the [module documentation](self).
pub(in crate::train) struct VisionTask {
    shared: Shared,
}

/// Pictures as the vision tower takes them, and the right answers to all questions about each.
pub(in crate::train) struct Batch {
    pixels: Vec<f32>,
    answers: Answers,
}

impl VisionTask {
    /// The task of a run.
    pub fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone() }
    }
}

impl Task for VisionTask {
    /// The eyes, and what reads the answers off a picture's embeddings.
    type Networks = (VisionTower<Burn>, Resampler<Burn>, Linear<Burn>);
    type Batch = Batch;

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Self::Networks, WeightError> {
        let config = &self.shared.config.networks.kosmosg;
        let embeddings = config.connector.latent_queries * config.mllm.dim;
        let answers = Question::all().map(Question::answers).sum();
        Ok((
            VisionTower::new(&weights.at("img_model.visual"), &config.vision)?,
            EncoderNetworks::resampler(weights, config)?,
            weights.linear("answers", [embeddings, answers], Bias::Yes)?,
        ))
    }

    fn source(&self) -> Source<Batch> {
        let config = self.shared.config.clone();
        Box::new(move |rngs| {
            let mut batch = Batch { pixels: Vec::new(), answers: Answers::new() };
            for mut rng in rngs {
                let (picture, answers) = sample(&mut rng, config.picture_size as u32);
                batch.pixels.extend(picture.pixels_for_encoder(config.networks.kosmosg.vision.image_size as u32));
                batch.answers.push(answers);
            }
            batch
        })
    }

    fn loss(&self, (vision, resampler, head): &Self::Networks, batch: Batch) -> Loss {
        let Batch { pixels, answers } = batch;
        let features =
            vision.forward(self.shared.pixels(pixels, self.shared.config.networks.kosmosg.vision.image_size));
        let embeddings = resampler.forward(features);
        let [count, latents, dim] = embeddings.shape();
        let scores = head.forward(embeddings.reshape([count, latents * dim]));
        Loss { total: cross_entropy(scores, &answers), parts: Vec::new(), count }
    }
}

/// What a prompt may show, a scene or a cut-out of a creature in one, and what it tells.
fn sample(rng: &mut Rng, size: u32) -> (Picture, Vec<Option<usize>>) {
    let mut scene = Scene::sample(rng, Split::Train);
    if scene.actors.is_empty() || rng.bool(0.5) {
        let answers = Question::all().map(|question| question.answer(&scene)).collect();
        return (sprites::draw(&scene, size), answers);
    }
    let actor = rng.below(scene.actors.len());
    let picture = sprites::cutout(&scene, actor, backdrop(rng, 0.5), size);
    (scene.actors, scene.style) = (vec![scene.actors[actor]], Style::Plain);
    let is_cut_off = |question| matches!(question, Question::Background | Question::Stand);
    let answer = |question: Question| if is_cut_off(question) { None } else { question.answer(&scene) };
    (picture, Question::all().map(answer).collect())
}
