//! A judge: reads from a picture of the world what is in it. It learns from drawn pictures alone (`kosmosg train judge`).

use kosmosg::engine::{ConvOptions, Engine, EngineError, Tensor};
use kosmosg::picture::Picture;
use kosmosg::weights::{Bias, Conv2d, GroupNorm, Linear, WeightError, Weights, gguf, load};

use super::question::{Question, Reading};

/// Side of the pictures that it reads, in pixels.
pub const PICTURE_SIZE: usize = 64;

/// Channels of the picture, and after each halving of it.
const CHANNELS: [usize; 4] = [32, 48, 64, 96];
/// Channels that are left of each place before all places are looked at together.
const SQUEEZED: usize = 32;
const HIDDEN: usize = 384;
const GROUPS: usize = 8;

/// A small convolutional network that answers every [`Question`] at once.
#[derive(Debug, Clone)]
pub struct Judge<E: Engine> {
    stem: Conv2d<E>,
    blocks: Vec<Block<E>>,
    norm: GroupNorm<E>,
    squeeze: Conv2d<E>,
    hidden: Linear<E>,
    answers: Linear<E>,
}

/// Halves the picture, then looks again.
#[derive(Debug, Clone)]
struct Block<E: Engine> {
    norm1: GroupNorm<E>,
    down: Conv2d<E>,
    norm2: GroupNorm<E>,
    conv: Conv2d<E>,
}

impl<E: Engine> Judge<E> {
    /// Builds the network from weights at `judge.`.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>) -> Result<Self, WeightError> {
        let weights = weights.at("judge");
        let block = |(i, channels): (usize, &[usize])| {
            let (weights, input, output) = (weights.at(format!("blocks.{i}")), channels[0], channels[1]);
            let halving = ConvOptions { stride: 2, padding: 1 };
            Ok(Block {
                norm1: weights.group_norm("norm1", GROUPS, input, 1e-5)?,
                down: weights.conv2d("down", [input, output], 3, halving, Bias::Yes)?,
                norm2: weights.group_norm("norm2", GROUPS, output, 1e-5)?,
                conv: weights.conv3x3("conv", [output, output])?,
            })
        };
        let [first, .., last] = CHANNELS;
        let side = PICTURE_SIZE >> (CHANNELS.len() - 1);
        Ok(Self {
            stem: weights.conv3x3("stem", [3, first])?,
            blocks: CHANNELS.windows(2).enumerate().map(block).collect::<Result<_, _>>()?,
            norm: weights.group_norm("norm", GROUPS, last, 1e-5)?,
            squeeze: weights.conv1x1("squeeze", [last, SQUEEZED])?,
            hidden: weights.linear("hidden", [SQUEEZED * side * side, HIDDEN], Bias::Yes)?,
            answers: weights.linear("answers", [HIDDEN, Question::all().map(Question::answers).sum()], Bias::Yes)?,
        })
    }

    /// Builds the network from a GGUF file.
    ///
    /// # Errors
    /// A [`WeightError`] that says what is wrong with the file, or names the tensor.
    pub fn from_gguf(file: Vec<u8>, device: &E::Device) -> Result<Self, WeightError> {
        load(&gguf::read("the judge", &file)?, device, Self::new)
    }

    /// Pixels `[B, 3, 64, 64]` from −1 to 1 to features `[B, 384]` and the scores of all answers to all questions, one after
    /// the other, `[B, answers]`.
    pub fn forward(&self, pixels: Tensor<E, 4>) -> (Tensor<E, 2>, Tensor<E, 2>) {
        let mut x = self.stem.forward(pixels);
        for Block { norm1, down, norm2, conv } in &self.blocks {
            x = down.forward(norm1.forward_silu(x));
            x = x.clone() + conv.forward(norm2.forward_silu(x));
        }
        let x = self.squeeze.forward(self.norm.forward_silu(x));
        let [b, c, h, w] = x.shape();
        let features = self.hidden.forward(x.reshape([b, c * h * w])).silu();
        (features.clone(), self.answers.forward(features))
    }

    /// What it sees in pictures, and its features of each.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn read(
        &self,
        pictures: &[Picture],
        device: &E::Device,
    ) -> Result<Vec<(Reading, Vec<f32>)>, EngineError> {
        const BATCH: usize = 64;
        let mut readings = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(BATCH) {
            let pixels = pictures.iter().flat_map(|picture| picture.pixels_for_vae(PICTURE_SIZE as u32)).collect();
            let (features, scores) =
                self.forward(Tensor::from_host(pixels, [pictures.len(), 3, PICTURE_SIZE, PICTURE_SIZE], device));
            let (features, scores) = (features.to_host().await?, scores.to_host().await?);
            let answers = scores.len() / pictures.len();
            let rows = scores.chunks_exact(answers).zip(features.chunks_exact(HIDDEN));
            readings.extend(rows.map(|(scores, features)| (Reading::new(scores), features.to_vec())));
        }
        Ok(readings)
    }
}
