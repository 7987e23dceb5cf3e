//! The judge of generated pictures, taught by drawn ones.

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::noise::Rng;
use kosmosg::weights::{WeightError, Weights};

use super::Shared;
use crate::eval::judge::{Judge, PICTURE_SIZE};
use crate::eval::question::Question;
use crate::sprites::{self, Scene, Split};
use crate::train::run::{Loss, Task};

/// See the [module documentation](self).
pub(in crate::train) struct JudgeTask {
    shared: Shared,
}

/// Pictures, and the right answers to all questions about each.
pub(in crate::train) struct Batch {
    pixels: Vec<f32>,
    answers: Vec<Vec<Option<usize>>>,
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

    fn source(&self) -> Box<dyn Fn(Vec<Rng>) -> Batch + Send> {
        Box::new(|rngs| {
            let mut batch = Batch { pixels: Vec::new(), answers: Vec::new() };
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

    /// Cross-entropy, summed over the questions that a picture answers.
    fn loss(&self, judge: &Judge<Burn>, batch: Batch) -> Loss {
        let Batch { pixels, answers } = batch;
        let count = answers.len();
        let (_, scores) = judge.forward(self.shared.pixels(pixels, PICTURE_SIZE));
        let width = scores.shape()[1];
        // −1/B at each right answer.
        let mut right = vec![0.0; count * width];
        let (mut logarithms, mut start) = (Vec::new(), 0);
        for (question, number) in Question::all().zip(0..) {
            let length = question.answers();
            logarithms.push(scores.clone().narrow(1, start, length).log_softmax());
            for (row, answers) in answers.iter().enumerate() {
                answers[number]
                    .into_iter()
                    .for_each(|answer| right[row * width + start + answer] = -1.0 / count as f32);
            }
            start += length;
        }
        let right = Tensor::from_host(right, [count, width], &scores.device());
        let total = (Tensor::cat(logarithms, 1) * right).reshape([count * width]).sum(0);
        Loss { total, parts: Vec::new(), count }
    }
}

/// Share of places without anyone.
const EMPTY: f64 = 0.03;

/// Largest standard deviation of the noise on a pixel, of −1 to 1.
const MOST_NOISE: f64 = 0.1;
