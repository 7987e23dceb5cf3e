//! The judge of generated pictures, taught by drawn ones.

use kosmosg::engine::burn::Burn;
use kosmosg::weights::{WeightError, Weights};

use super::Shared;
use super::answers::{Answers, cross_entropy};
use crate::eval::judge::{Judge, PICTURE_SIZE};
use crate::eval::question::Question;
use crate::sprites::{self, Scene, Split};
use crate::train::run::{Loss, Source, Task};

/// See the [module documentation](self).
pub(in crate::train) struct JudgeTask {
    shared: Shared,
}

/// Pictures, and the right answers to all questions about each.
pub(in crate::train) struct Batch {
    pixels: Vec<f32>,
    answers: Answers,
}

impl JudgeTask {
    /// The task of a run.
    pub fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone() }
    }
}

impl Task for JudgeTask {
    type Networks = Judge<Burn>;
    type Batch = Batch;

    fn networks(&self, weights: &Weights<'_, Burn>) -> Result<Judge<Burn>, WeightError> {
        Judge::new(weights)
    }

    fn source(&self) -> Source<Batch> {
        Box::new(|rngs| {
            let mut batch = Batch { pixels: Vec::new(), answers: Answers::new() };
            for mut rng in rngs {
                let mut scene = Scene::sample(&mut rng, Split::Train);
                if rng.bool(EMPTY) {
                    scene.actors.clear();
                }
                // A generated picture is never as clean as a drawn one.
                let noise = MOST_NOISE * rng.uniform();
                let pixels = sprites::draw(&scene, PICTURE_SIZE as u32).pixels_for_vae(PICTURE_SIZE as u32);
                batch.pixels.extend(pixels.iter().map(|pixel| pixel + (noise * rng.gaussian()) as f32));
                batch.answers.push(Question::all().map(|question| question.answer(&scene)).collect());
            }
            batch
        })
    }

    fn loss(&self, judge: &Judge<Burn>, batch: Batch) -> Loss {
        let Batch { pixels, answers } = batch;
        let (_, scores) = judge.forward(self.shared.pixels(pixels, PICTURE_SIZE));
        Loss { total: cross_entropy(scores, &answers), parts: Vec::new(), count: answers.len() }
    }
}

/// Share of places without anyone.
const EMPTY: f64 = 0.03;

/// Largest standard deviation of the noise on a pixel, of −1 to 1.
const MOST_NOISE: f64 = 0.1;
