//! The weights that a network starts from.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kosmosg::engine::Engine;
use kosmosg::noise::{self, Rng};
use kosmosg::weights::{HostTensor, Parameter, Store, WeightError};
use sha2::{Digest, Sha256};

use super::config::Training;

/// A store that has every weight that it is asked for: a network built once against it has all that it needs.
///
/// A weight depends on the seed, its name and its shape alone, so that two networks or two runs never share or disturb
/// each other's numbers.
pub(super) struct Initializer {
    seed: u64,
    /// Weights that are known already, from an earlier stage.
    known: BTreeMap<String, HostTensor>,
    asked: RefCell<BTreeMap<String, HostTensor>>,
}

impl Initializer {
    /// Hands out `known` weights as they are and draws all others.
    pub fn new(seed: u64, known: BTreeMap<String, HostTensor>) -> Self {
        Self { seed, known, asked: RefCell::default() }
    }

    /// All that was asked for.
    pub fn into_tensors(self) -> BTreeMap<String, HostTensor> {
        self.asked.into_inner()
    }
}

impl<E: Engine> Store<E> for Initializer {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Option<Parameter<E>>, WeightError> {
        let tensor = match self.known.get(name) {
            Some(tensor) => tensor.clone(),
            None => HostTensor::from_f32(shape.to_vec(), &draw(self.seed, name, shape)),
        };
        self.asked.borrow_mut().insert(name.to_owned(), tensor.clone());
        Ok(Some(Parameter::Host(tensor)))
    }

    fn names(&self) -> Vec<String> {
        self.asked.borrow().keys().cloned().collect()
    }
}

/// Standard deviation of a weight, or what it is all filled with.
#[derive(Debug, PartialEq)]
enum Start {
    Constant(f32),
    Normal(f32),
}

fn draw(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let n = shape.iter().product();
    if name.ends_with("quant_conv.bias") && !name.ends_with("post_quant_conv.bias") {
        // An autoencoder's latents are drawn from its prediction, and at a variance of 1 they say nothing about the picture:
        // training would begin with learning to be certain.
        return [vec![0.0; n / 2], vec![FIRST_LOGVAR; n - n / 2]].concat();
    }
    match start(name, shape) {
        Start::Constant(value) => vec![value; n],
        Start::Normal(deviation) => noise::gaussian(seed, stream(name), n).iter().map(|x| x * deviation).collect(),
    }
}

/// Logarithm of the variance that an autoencoder starts with.
const FIRST_LOGVAR: f32 = -6.0;

fn start(name: &str, shape: &[usize]) -> Start {
    let (rest, last) = name.rsplit_once('.').unwrap_or(("", name));
    let fan_in = shape[1..].iter().product::<usize>().max(1) as f32;
    let is_table = last != "weight" || rest.ends_with("_embedding") || rest.ends_with("embed_positions");
    let is_words = rest.ends_with("decoder.embed_tokens");
    match shape.len() {
        1 if last == "bias" => Start::Constant(0.0),
        1 if last == "weight" => Start::Constant(1.0),
        1 => Start::Normal((shape[0] as f32).sqrt().recip()),
        2 if is_table || is_words => Start::Normal(fan_in.sqrt().recip()),
        _ => Start::Normal(closing_scale(rest) / fan_in.sqrt()),
    }
}

/// What closes a residual branch starts small: a deep stack of blocks is then close to the identity.
fn closing_scale(layer: &str) -> f32 {
    const CLOSING: [&str; 4] = ["conv2", "proj_out", "decoder.conv_out", "unet.conv_out"];
    const CLOSING_TRANSFORMER: [&str; 6] = ["to_out.0", "ff.net.2", "out_proj", "ffn.fc2", "mlp.fc2", "mlp.c_proj"];
    let closes = |names: &[&str]| names.iter().any(|name| layer.ends_with(name));
    match () {
        () if closes(&CLOSING) => 0.1,
        () if closes(&CLOSING_TRANSFORMER) => 0.3,
        () => 1.0,
    }
}

/// A noise stream of a name's own.
fn stream(name: &str) -> u64 {
    let hash = Sha256::digest(name.as_bytes());
    hash.iter().take(8).fold(0, |stream, &byte| stream << 8 | u64::from(byte))
}

/// The generators of a step's samples.
pub(super) fn sample_rngs(training: &Training, stage: &str, step: u64) -> Vec<Rng> {
    let batch = training.batch as u64;
    let rng = |number| sample_rng(training.seed, stage, number % training.samples.unwrap_or(u64::MAX));
    (step * batch..(step + 1) * batch).map(rng).collect()
}

/// The generator of one sample of a stage: a run's data is a function of seed, stage and number alone.
pub(super) fn sample_rng(seed: u64, stage: &str, number: u64) -> Rng {
    // The high half tells the stages apart, and no run reaches 2³² samples.
    Rng::new(seed, stream(stage) << 32 | number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;

    #[test]
    fn every_kind_of_weight_has_its_start() {
        assert_eq!(start("unet.down_blocks.0.resnets.0.norm1.weight", &[64]), Start::Constant(1.0));
        assert_eq!(start("unet.conv_in.bias", &[64]), Start::Constant(0.0));
        assert_eq!(start("unet.conv_in.weight", &[64, 4, 3, 3]), Start::Normal(1.0 / 6.0));
        assert_eq!(start("unet.mid_block.resnets.0.conv2.weight", &[4, 1, 2, 2]), Start::Normal(0.05));
        assert_eq!(start("gpt_model.decoder.embed_tokens.weight", &[90, 64]), Start::Normal(0.125));
        assert_eq!(start("aligner.encoder_proj.embed_tokens.weight", &[32, 64]), Start::Normal(0.125));
        assert_eq!(start("aligner.encoder_query", &[77, 16]), Start::Normal(0.25));
    }

    #[test]
    fn samples_are_numbered_through_the_run_and_come_again_if_asked() {
        let numbers = |samples, step| {
            let training = Training { batch: 3, samples, ..TrainConfig::tiny().vae.training };
            sample_rngs(&training, "vae", step).iter_mut().map(Rng::next_u64).collect::<Vec<_>>()
        };
        assert_eq!(numbers(None, 0), numbers(None, 0));
        assert_ne!(numbers(None, 0), numbers(None, 1));
        assert_eq!(numbers(Some(3), 0), numbers(Some(3), 5));
        assert_eq!(numbers(Some(6), 1), numbers(None, 1));
    }

    #[test]
    fn weights_depend_on_seed_and_name_alone() {
        let first = draw(1, "a.weight", &[3, 5]);
        assert_eq!(first, draw(1, "a.weight", &[3, 5]));
        assert_ne!(first, draw(2, "a.weight", &[3, 5]));
        assert_ne!(first, draw(1, "b.weight", &[3, 5]));
        assert_eq!(draw(1, "vae.quant_conv.bias", &[4]), [0.0, 0.0, FIRST_LOGVAR, FIRST_LOGVAR]);
        assert_eq!(draw(1, "vae.post_quant_conv.bias", &[4]), [0.0; 4]);
    }
}
