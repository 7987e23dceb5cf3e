//! The published forms at full size, with random weights: what tests and measurements of everything that loads them are made on,
//! since nobody may pass on the weights themselves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use half::f16;
use kosmosg::aligner::AlignerDecoder;
use kosmosg::clip_text::ClipText;
use kosmosg::config::KosmosGConfig;
use kosmosg::encoder::EncoderNetworks;
use kosmosg::engine::blueprint;
use kosmosg::noise::Rng;
use kosmosg::schedule::SchedulerConfig;
use kosmosg::unet::UNet;
use kosmosg::vae::{VaeDecoder, VaeEncoder};
use safetensors::{Dtype, View};
use serde::Serialize;

use crate::train::TrainConfig;

mod checkpoint;
mod words;

/// Shapes by name.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Writes KOSMOS-G as it is published into the empty folder `dir`: `checkpoint_final.pt`, `sentencepiece.bpe.model` and `dict.txt`, and the
/// sizes as `config.json`.
///
/// # Errors
/// The folder is not empty, or a file cannot be written.
pub fn kosmos_g(config: &KosmosGConfig, seed: u64, dir: &Path, progress: impl FnMut(&str)) -> anyhow::Result<()> {
    begin(dir)?;
    let mut shapes = blueprint::weights(|weights| EncoderNetworks::new(weights, config))?;
    shapes.extend(blueprint::weights(|weights| {
        AlignerDecoder::new(&weights.at("aligner"), &config.aligner, config.mllm.dim)
    })?);
    // What the published checkpoint has besides.
    let [words, dim] = [config.mllm.vocab_size, config.mllm.dim];
    shapes.insert("gpt_model.decoder.output_projection.weight".into(), vec![words, dim]);
    shapes.insert("gpt_model.decoder.embed_positions._float_tensor".into(), vec![1]);
    shapes.insert("gpt_model.decoder.self_attn_sope.scale".into(), vec![dim / config.mllm.heads / 2]);
    let (model, dictionary) = words::files(config.mllm.vocab_size);
    for (name, contents) in [
        ("sentencepiece.bpe.model", model),
        ("dict.txt", dictionary.into_bytes()),
        ("config.json", serde_json::to_vec_pretty(&serde_json::json!({ "config": config }))?),
    ] {
        write(&dir.join(name), &contents)?;
    }
    whole(&dir.join("checkpoint_final.pt"), |path| checkpoint::write(path, config, &shapes, seed, progress))
}

/// Writes Stable Diffusion 1.5 as a folder of diffusers into the empty folder `dir`.
///
/// # Errors
/// The folder is not empty, or a file cannot be written.
pub fn stable_diffusion(seed: u64, dir: &Path, mut progress: impl FnMut(&str)) -> anyhow::Result<()> {
    begin(dir)?;
    let networks = TrainConfig::paper().networks;
    let unet = blueprint::weights(|weights| UNet::new(weights, &networks.unet))?;
    let mut vae = blueprint::weights(|weights| VaeEncoder::new(weights, &networks.vae))?;
    vae.extend(blueprint::weights(|weights| VaeDecoder::new(weights, &networks.vae))?);
    let text = blueprint::weights(|weights| ClipText::new(&weights.at("text_model"), &networks.text))?;
    folder(dir, "unet", "diffusion_pytorch_model", &networks.unet, unet, seed, &mut progress)?;
    folder(dir, "vae", "diffusion_pytorch_model", &networks.vae, vae, seed, &mut progress)?;
    folder(dir, "text_encoder", "model", &networks.text, text, seed, &mut progress)?;
    let scheduler = dir.join("scheduler");
    fs::create_dir_all(&scheduler).with_context(|| format!("cannot make {}", scheduler.display()))?;
    let json = serde_json::to_vec_pretty(&SchedulerConfig::stable_diffusion())?;
    write(&scheduler.join("scheduler_config.json"), &json)
}

/// A network of a diffusers folder.
fn folder<C: Serialize>(
    dir: &Path,
    name: &str,
    stem: &str,
    config: &C,
    shapes: Shapes,
    seed: u64,
    progress: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    write(&dir.join("config.json"), &serde_json::to_vec_pretty(config)?)?;
    progress(name);
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let random = Random { name: name.clone(), shape, seed };
        (name, random)
    });
    whole(&dir.join(format!("{stem}.safetensors")), |path| {
        safetensors::serialize_to_file(tensors, None, path).with_context(|| format!("cannot write {}", path.display()))
    })
}

/// Makes a folder, in which nothing may be: the real weights have the same names.
fn begin(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    ensure!(entries.next().is_none(), "{} is not empty; name another folder", dir.display());
    Ok(())
}

fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    whole(path, |path| fs::write(path, contents).with_context(|| format!("cannot write {}", path.display())))
}

/// Has `write` make a file under another name, so that under its own it is there as a whole or not at all.
fn whole(path: &Path, write: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let unfinished = path.with_added_extension("unfinished");
    write(&unfinished)?;
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}

/// A tensor of 16-bit floats that is made when it is asked for.
struct Random {
    name: String,
    shape: Vec<usize>,
    seed: u64,
}

impl View for Random {
    fn dtype(&self) -> Dtype {
        Dtype::F16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(numbers(&self.name, &self.shape, self.seed))
    }

    fn data_len(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}

/// 16-bit floats of a size that keeps what goes through the network at about 1: weights by their inputs, norms about 1, biases and
/// tables small.
fn numbers(name: &str, shape: &[usize], seed: u64) -> Vec<u8> {
    let count = shape.iter().product::<usize>();
    let is_norm = shape.len() == 1 && name.ends_with("weight");
    let (mean, deviation) = match shape {
        _ if is_norm => (1.0, 0.1),
        [_] if !name.contains("class_embedding") => (0.0, 0.02),
        [.., width] if name.contains("embed_tokens.weight") || name.contains("embedding") => {
            (0.0, (*width as f32).sqrt().recip())
        }
        _ if name.contains("query") || name.contains("embed_positions") => (0.0, 0.5),
        [_, inputs @ ..] => (0.0, (inputs.iter().product::<usize>().max(1) as f32).sqrt().recip()),
        [] => (0.0, 1.0),
    };
    let mut rng = Rng::new(seed, stream(name));
    // Evenly spread numbers with that deviation.
    let step = deviation * 3f32.sqrt() / (1u32 << 31) as f32;
    let number = |_| f16::from_f32(mean + step * (rng.next_u32() as i32 as f32));
    (0..count).map(number).flat_map(f16::to_le_bytes).collect()
}

/// A random stream for each name: FNV-1a.
fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
