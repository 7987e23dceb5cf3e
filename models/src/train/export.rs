//! From a run to a bundle, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use kosmosg::bundle::{self, Defaults, Existing, FORMAT, Family, Folder, MANIFEST, Manifest, PartFile, Tensors};
use kosmosg::config::{UNetConfig, VaeConfig};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::pipeline::Pipeline;
use kosmosg::preview::PreviewFactors;
use kosmosg::sampler::SamplerKind;
use kosmosg::schedule::SchedulerConfig;
use kosmosg::weights::{DType, HostTensor, gguf};
use serde_json::{Value, json};

use super::checkpoint::{Checkpoint, Progress, difference, write_whole};
use super::config::{Networks, TrainConfig};
use super::data::Kind;
use super::stages::{Autoencoder, Shared, VAE_CONFIG, vae_config};
use super::{Stage, TrainOptions, WEIGHTS, preview, result, result_path};
use crate::quantize::Quant;

/// Writes what a run resulted in as a bundle into the folder `out`, in the form that `quant` says, and returns its manifest.
/// Of each part it takes the latest: before stage 3 the bundle is that of stage 2.
///
/// # Errors
/// A stage that is needed is not trained or does not belong to the others, the configuration is not the run's, something is
/// at `out` that is to stay, or a file cannot be written.
pub fn export(
    run: &Path,
    config: &TrainConfig,
    quant: Quant,
    out: &Path,
    existing: Existing,
) -> anyhow::Result<Manifest> {
    existing.check(out)?;
    let device = BurnDevice::cpu();
    let shared = Shared::new(&TrainOptions { config: config.clone(), run: run.to_owned(), device: device.clone() })?;
    let mut parts = BTreeMap::new();
    let mut exported = BTreeSet::new();
    for part in PARTS {
        let stage = latest(run, part.1);
        exported.insert(stage);
        parts.insert(part.0.to_owned(), collect(run, stage, part, quant)?);
    }
    // Then the configuration's networks, schedule and picture size are what the run was trained with.
    exported.into_iter().try_for_each(|stage| shared.belongs(stage))?;
    let Networks { kosmosg, text, unet, .. } = config.networks.clone();
    let tokenizer = shared.words.json.to_vec();
    let draft = Manifest {
        format: FORMAT,
        name: "Kosmos tiny".into(),
        family: Family::KosmosG,
        picture_size: config.picture_size,
        networks: bundle::Networks { kosmosg, unet, vae: vae_config(run)?, text: Some(text) },
        scheduler: config.scheduler(),
        defaults: Defaults { sampler: SamplerKind::DpmppTwoM, steps: 20, guidance: 4.0 },
        preview: preview_factors(&shared)?,
        tokenizer: PartFile::new("tokenizer.json", &tokenizer),
        licence: "Apache-2.0 OR MIT".into(),
        origin: if config.data.is_some() { ORIGIN_FILES } else { ORIGIN }.into(),
        parts: BTreeMap::new(),
    };
    let manifest = bundle::write(out, existing, draft, &tokenizer, &parts)?;
    Pipeline::<Burn>::load(&Folder::open(out)?, &device).context("the bundle cannot be loaded")?;
    write_whole(&run.join(EXPORTED), &serde_json::to_vec_pretty(&manifest)?)?;
    Ok(manifest)
}

/// Whether the folder `out` is what `run` was exported as last.
pub fn is_exported(run: &Path, out: &Path) -> bool {
    let [exported, there] = [run.join(EXPORTED), out.join(MANIFEST)].map(|path| fs::read(path).ok());
    exported.is_some() && exported == there
}

/// The manifest of what a run was exported as last.
const EXPORTED: &str = "exported.json";

/// Writes a run's judge into one GGUF file, packed like a bundle.
///
/// # Errors
/// The judge is not trained, or the file cannot be written.
pub fn export_judge(run: &Path, file: &Path) -> anyhow::Result<()> {
    let pack = |(name, tensor): (String, HostTensor)| {
        let packed = tensor.to_dtype(Quant::Q8_0.form("judge", &name, tensor.shape()))?;
        Ok((name, packed))
    };
    let weights: BTreeMap<_, _> = result(run, Stage::Judge)?.into_iter().map(pack).collect::<anyhow::Result<_>>()?;
    write_whole(file, &gguf::write(&weights))
}

/// Makes a run of a bundle: every stage has the weights that the bundle has of it, and training it goes on from them, with a
/// new optimizer. AlignerNet's N is in no bundle and starts anew.
///
/// # Errors
/// The bundle is damaged or of other networks than the configuration's, or the run has such stages already.
pub fn import(bundle: &Path, config: &TrainConfig, run: &Path) -> anyhow::Result<()> {
    let folder = Folder::open(bundle)?;
    let manifest = folder.manifest();
    let bundle::Networks { kosmosg, unet, vae, text } = manifest.networks.clone();
    let text = text.with_context(|| format!("{} has no text encoder", bundle.display()))?;
    let theirs =
        trained(Networks { kosmosg, text, unet, vae: vae.clone() }, &manifest.scheduler, manifest.picture_size);
    let ours = trained(config.networks.clone(), &config.scheduler(), config.picture_size);
    // A setting that only one of them has differs too.
    if let Some(what) = difference(&ours, &theirs).or_else(|| difference(&theirs, &ours)) {
        anyhow::bail!("{} has another `{what}` than the configuration", bundle.display());
    }
    let shared = Shared::new(&TrainOptions { config: config.clone(), run: run.to_owned(), device: BurnDevice::cpu() })?;
    let has = |stage: &Stage| *stage != Stage::Judge && !config.does_without(*stage);
    let stages: Vec<_> = Stage::ALL.into_iter().filter(has).collect();
    // Whatever is wrong is to be known before the first stage is there.
    for dir in stages.iter().map(|stage| run.join(stage.name())) {
        if Progress::newest(&dir)?.is_some() {
            anyhow::bail!("{} holds a stage already; name another run", dir.display());
        }
    }
    folder.check()?;
    PARTS.iter().try_for_each(|(part, ..)| folder.stored(part).map(drop))?;
    for stage in stages {
        let (dir, basis) = shared.begin(stage)?;
        let mut weights = BTreeMap::new();
        for (part, _, beginnings) in PARTS.iter().filter(|(_, stages, _)| stages.contains(&stage)) {
            let cut_off = if beginnings[0].ends_with('.') { beginnings[0] } else { "" };
            for (name, tensor) in folder.part(part)? {
                weights.insert(format!("{cut_off}{name}"), tensor.to_dtype(DType::F32)?);
            }
        }
        write_whole(&dir.join(WEIGHTS), &gguf::write(&weights))?;
        if stage == Stage::Vae {
            write_whole(&dir.join(VAE_CONFIG), &serde_json::to_vec_pretty(&vae)?)?;
        }
        Checkpoint::start(basis, weights).write(&dir)?;
    }
    Ok(())
}

/// What training goes by: not the latents' scale, which is the autoencoder's own, nor how big the published networks' pictures
/// were and how samplers spread their steps.
fn trained(networks: Networks, scheduler: &SchedulerConfig, picture_size: usize) -> Value {
    let unet = UNetConfig { sample_size: None, ..networks.unet };
    let vae = VaeConfig { sample_size: None, scaling_factor: 1.0, ..networks.vae };
    let scheduler = SchedulerConfig {
        class_name: None,
        steps_offset: 0,
        set_alpha_to_one: None,
        timestep_spacing: None,
        ..scheduler.clone()
    };
    let networks = Networks { unet, vae, ..networks };
    json!({ "networks": networks, "scheduler": scheduler, "picture_size": picture_size })
}

const ORIGIN_FILES: &str = "Trained by `kosmosg train` on prepared files.";
const ORIGIN: &str = "Trained from nothing by `kosmosg train` on pictures that it draws itself: the world of sprites.";

/// A part, the stages that made it (later ones first), and the beginnings of its names; those that end in a dot are cut off.
type Part = (&'static str, &'static [Stage], &'static [&'static str]);

const PARTS: [Part; 6] = [
    ("vision", &[Stage::Instruct, Stage::Imitate, Stage::Lm, Stage::Vision], &["img_model"]),
    ("mllm", &[Stage::Instruct, Stage::Imitate, Stage::Lm], &["gpt_model", "img_connector"]),
    // AlignerNet's N, at `aligner.decoder…`, has done its work.
    ("aligner", &[Stage::Instruct, Stage::Imitate, Stage::Align], &["aligner.encoder"]),
    ("unet", &[Stage::Decoder], &["unet."]),
    ("vae", &[Stage::Vae], &["vae."]),
    ("text", &[Stage::Decoder, Stage::Text], &["text."]),
];

/// Fitted to pictures of the run's data, if there are any.
fn preview_factors(shared: &Shared) -> anyhow::Result<Option<PreviewFactors>> {
    if shared.data.check(&[(Kind::Picture, 1.0)]).is_err() {
        return Ok(None);
    }
    preview::fit(&Autoencoder::new(shared)?, &*shared.data, shared.config.picture_size).map(Some)
}

/// The first of some stages that is trained; the last if none is.
fn latest(run: &Path, stages: &[Stage]) -> Stage {
    let is_trained = |stage: &&Stage| result_path(run, **stage).is_ok();
    *stages.iter().find(is_trained).or(stages.last()).expect("each part is made by some stage")
}

/// The tensors of a part that a stage made, packed.
fn collect(run: &Path, stage: Stage, (part, _, beginnings): Part, quant: Quant) -> anyhow::Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, tensor) in result(run, stage)? {
        let Some(&beginning) = beginnings.iter().find(|&&beginning| name.starts_with(beginning)) else { continue };
        let name = if beginning.ends_with('.') { &name[beginning.len()..] } else { &name };
        tensors.insert(name.to_owned(), tensor.to_dtype(quant.form(part, name, tensor.shape()))?);
    }
    if tensors.is_empty() {
        anyhow::bail!("stage {} of {} left nothing for part `{part}`", stage.name(), run.display());
    }
    Ok(tensors)
}
