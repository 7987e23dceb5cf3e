//! From a run to a bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use kosmosg::bundle::{self, Defaults, FORMAT, Family, Folder, Manifest, PartFile, Tensors};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::pipeline::Pipeline;
use kosmosg::sampler::SamplerKind;
use kosmosg::weights::DType;

use super::config::{Networks, TrainConfig};
use super::stages::{Autoencoder, Shared, vae_config};
use super::{Stage, TrainOptions, preview, result, result_path, vocabulary};

/// Writes what a run resulted in as a bundle into the folder `out`, and returns its manifest. Of each part it takes the
/// latest: before stage 3 the bundle is that of stage 2.
///
/// Large matrices are stored as [`DType::Q8_0`], kernels and tables as [`DType::F16`], norms and biases as they are.
///
/// # Errors
/// A stage that is needed is not trained or does not belong to the others, the configuration is not the run's, or a file
/// cannot be written.
pub fn export(run: &Path, config: &TrainConfig, out: &Path) -> anyhow::Result<Manifest> {
    let device = BurnDevice::cpu();
    let shared = Shared::new(&TrainOptions { config: config.clone(), run: run.to_owned(), device: device.clone() })?;
    let mut parts = BTreeMap::new();
    let mut exported = BTreeSet::new();
    for part in PARTS {
        let stage = latest(run, part.1);
        exported.insert(stage);
        parts.insert(part.0.to_owned(), collect(run, stage, part)?);
    }
    // Then the configuration's networks, schedule and picture size are what the run was trained with.
    exported.into_iter().try_for_each(|stage| shared.belongs(stage))?;
    let Networks { kosmosg, text, unet, .. } = config.networks.clone();
    let tokenizer = vocabulary().to_json();
    let draft = Manifest {
        format: FORMAT,
        name: "Kosmos tiny".into(),
        family: Family::KosmosG,
        picture_size: config.picture_size,
        networks: bundle::Networks { kosmosg, unet, vae: vae_config(run)?, text: Some(text) },
        scheduler: config.scheduler(),
        defaults: Defaults { sampler: SamplerKind::DpmppTwoM, steps: 20, guidance: 4.0 },
        preview: Some(preview::fit(&Autoencoder::new(&shared)?, config.picture_size)?),
        tokenizer: PartFile::new("tokenizer.json", &tokenizer),
        licence: "Apache-2.0 OR MIT".into(),
        origin: ORIGIN.into(),
        parts: BTreeMap::new(),
    };
    let manifest = bundle::write(out, draft, &tokenizer, &parts)?;
    Pipeline::<Burn>::load(&Folder::open(out)?, &device).context("the bundle cannot be loaded")?;
    Ok(manifest)
}

const ORIGIN: &str = "Trained from nothing by `kosmosg train` on pictures that it draws itself: the world of sprites.";

/// A part, the stages that made it (later ones first), and the beginnings of its names; those that end in a dot are cut off.
type Part = (&'static str, &'static [Stage], &'static [&'static str]);

const PARTS: [Part; 6] = [
    ("vision", &[Stage::Instruct, Stage::Lm], &["img_model"]),
    ("mllm", &[Stage::Instruct, Stage::Lm], &["gpt_model", "img_connector"]),
    // AlignerNet's N, at `aligner.decoder…`, has done its work.
    ("aligner", &[Stage::Instruct, Stage::Align], &["aligner.encoder"]),
    ("unet", &[Stage::Decoder], &["unet."]),
    ("vae", &[Stage::Vae], &["vae."]),
    ("text", &[Stage::Decoder], &["text."]),
];

/// The first of some stages that is trained; the last if none is.
fn latest(run: &Path, stages: &[Stage]) -> Stage {
    let is_trained = |stage: &&Stage| result_path(run, **stage).is_ok();
    *stages.iter().find(is_trained).or(stages.last()).expect("each part is made by some stage")
}

/// The tensors of a part that a stage made, packed.
fn collect(run: &Path, stage: Stage, (part, _, beginnings): Part) -> anyhow::Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, tensor) in result(run, stage)? {
        let Some(&beginning) = beginnings.iter().find(|&&beginning| name.starts_with(beginning)) else { continue };
        let name = if beginning.ends_with('.') { &name[beginning.len()..] } else { &name };
        tensors.insert(name.to_owned(), tensor.to_dtype(packed(name, tensor.shape()))?);
    }
    if tensors.is_empty() {
        anyhow::bail!("stage {} of {} left nothing for part `{part}`", stage.name(), run.display());
    }
    Ok(tensors)
}

/// How a tensor is stored.
fn packed(name: &str, shape: &[usize]) -> DType {
    let is_matrix = name.ends_with(".weight") && !name.contains("embed");
    match shape {
        [_] => DType::F32,
        [_, row] if is_matrix && row % DType::Q8_0.block() == 0 => DType::Q8_0,
        _ => DType::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_matrices_of_whole_blocks_are_packed_tightly() {
        assert_eq!(packed("encoder.layers.0.mlp.fc1.weight", &[512, 128]), DType::Q8_0);
        assert_eq!(packed("encoder.layers.0.mlp.fc1.weight", &[512, 100]), DType::F16);
        assert_eq!(packed("gpt_model.decoder.embed_tokens.weight", &[167, 192]), DType::F16);
        assert_eq!(packed("aligner.encoder_query", &[40, 128]), DType::F16);
        assert_eq!(packed("conv_in.weight", &[64, 8, 3, 3]), DType::F16);
        assert_eq!(packed("conv_in.bias", &[64]), DType::F32);
    }
}
