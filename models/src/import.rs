//! Bundles from the published forms: fairseq's checkpoint of KOSMOS-G, and Stable Diffusion 1.5 as diffusers or its authors keep it.
//!
//! Files are read tensor by tensor and written the same way, so that a model larger than memory can be imported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use kosmosg::bundle::{Defaults, Existing, FORMAT, Family, Manifest, Networks, PartFile, Planned, Writer};
use kosmosg::clip_text::ClipText;
use kosmosg::encoder::{EncoderNetworks, is_redundant};
use kosmosg::engine::blueprint;
use kosmosg::sampler::SamplerKind;
use kosmosg::unet::UNet;
use kosmosg::vae::{VaeDecoder, VaeEncoder};
use kosmosg::weights::HostTensor;

use crate::quantize::{Quant, packed};
use crate::sentencepiece;
use network::Settings;
use source::Source;
use stable_diffusion::StableDiffusion;
use torch::TorchFile;

pub mod network;
pub mod pickle;
pub mod source;
pub mod stable_diffusion;
pub mod torch;

/// What is imported, and how.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// KOSMOS-G's checkpoint.
    pub checkpoint: PathBuf,
    /// SentencePiece's model.
    pub sentencepiece: PathBuf,
    /// fairseq's dictionary.
    pub dictionary: PathBuf,
    /// Stable Diffusion 1.5: a folder of diffusers, or one file.
    pub decoder: PathBuf,
    /// Sizes, where the checkpoint does not say them.
    pub network: Option<PathBuf>,
    /// Forms of the weights.
    pub quant: Quant,
    /// What is done about what is there already.
    pub existing: Existing,
}

/// What happens while a bundle is imported.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Tensors of the file that the networks do not need.
    Unused(&'a [String]),
    /// So many bytes are going to be written.
    Total(u64),
    /// A tensor is being read; it will take so many bytes.
    Tensor(&'a str, u64),
}

/// Weights by part: the plan of what is written, and where each comes from.
type Parts<'a> = BTreeMap<&'static str, (Vec<Planned>, &'a dyn Source)>;

/// Writes the bundle `out`, which is there as a whole or not at all.
///
/// # Errors
/// A file that cannot be read or is refused, tensors or sizes that do not fit together, numbers that are none, or the bundle cannot
/// be written: each with its place.
pub fn import(options: &ImportOptions, out: &Path, mut event: impl FnMut(Event<'_>)) -> anyhow::Result<Manifest> {
    let ImportOptions { checkpoint, quant, .. } = options;
    let given = options.network.as_deref().map(network::read).transpose()?;
    let known = given.as_ref().map(|given| &given.config);
    let converted = tokenizer(options)?;
    let opened = open_checkpoint(checkpoint)?;
    let weights = opened.source();
    let words = weights.shapes().get("gpt_model.decoder.embed_tokens.weight").and_then(|shape| shape.first().copied());
    ensure!(
        words.is_none_or(|words| words == converted.vocab_size),
        "the checkpoint has {} words, {} and its frame have {}: they do not belong together",
        words.unwrap_or(0),
        options.dictionary.display(),
        converted.vocab_size
    );
    let kosmosg = network::sizes(&weights.shapes(), opened.settings().as_ref(), &converted.special, known)
        .with_context(|| checkpoint.display().to_string())?;
    let StableDiffusion { unet, vae, text, scheduler, unused } =
        StableDiffusion::open(&options.decoder, given.as_ref())?;
    let latents = unet.config.sample_size.map(|side| side * vae.config.downscale());
    let mut draft = Manifest {
        format: FORMAT,
        name: quant.named("KOSMOS-G"),
        family: Family::KosmosG,
        picture_size: latents.or(vae.config.sample_size).unwrap_or(512),
        networks: Networks {
            kosmosg: kosmosg.clone(),
            unet: unet.config.clone(),
            vae: vae.config.clone(),
            text: text.as_ref().map(|text| text.config.clone()),
        },
        scheduler,
        defaults: Defaults { sampler: SamplerKind::DpmppTwoM, steps: 50, guidance: 6.0 },
        preview: None,
        tokenizer: PartFile::new("tokenizer.json", b""),
        licence: "as the checkpoint's and Stable Diffusion's".into(),
        origin: format!("Imported from {} and {}.", name(checkpoint), name(&options.decoder)),
        parts: BTreeMap::new(),
    };
    // What the manifest would be refused for is to be known before gigabytes are written.
    draft = Manifest::from_json(&serde_json::to_vec(&draft)?)?;
    draft.schedule().with_context(|| options.decoder.display().to_string())?;

    let encoder = blueprint::weights(|weights| EncoderNetworks::new(weights, &kosmosg))?;
    let (mut parts, left) = encoder_parts(&encoder, weights, *quant)?;
    let unet_weights = blueprint::weights(|weights| UNet::new(weights, &unet.config))?;
    let mut vae_weights = blueprint::weights(|weights| VaeEncoder::new(weights, &vae.config))?;
    vae_weights.extend(blueprint::weights(|weights| VaeDecoder::new(weights, &vae.config))?);
    parts.insert("unet", (plan("unet", &unet_weights, &unet.weights, *quant)?, &unet.weights));
    parts.insert("vae", (plan("vae", &vae_weights, &vae.weights, *quant)?, &vae.weights));
    if let Some(text) = &text {
        let text_weights = blueprint::weights(|weights| ClipText::new(&weights.at("text_model"), &text.config))?;
        parts.insert("text", (plan("text", &text_weights, &text.weights, *quant)?, &text.weights));
    }
    let left: Vec<String> = left.into_iter().chain(unused).collect();
    event(Event::Unused(&left));
    let all = parts.values().flat_map(|(plan, _)| plan);
    event(Event::Total(all.filter_map(bytes).sum()));

    let files: BTreeSet<_> = parts.values().flat_map(|(_, source)| source.files()).collect();
    let stamps = files.into_iter().map(stamp).collect::<anyhow::Result<Vec<_>>>()?;
    let basis = serde_json::to_string(&(&draft, format!("{quant:?}"), stamps))?;
    let mut writer = Writer::create(out, &basis, options.existing)?;
    for (part, (plan, source)) in &parts {
        writer.part(part, plan, |planned| {
            event(Event::Tensor(&planned.name, bytes(planned).unwrap_or(0)));
            pack(*source, planned)
        })?;
    }
    Ok(writer.finish(draft, &converted.vocabulary.to_json())?)
}

/// What tells a file from a later one of the same name: its length, and when it was written.
fn stamp(path: &Path) -> anyhow::Result<(u64, SystemTime)> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
}

fn bytes(planned: &Planned) -> Option<u64> {
    planned.dtype.bytes(&planned.shape).map(|bytes| bytes as u64)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn tokenizer(options: &ImportOptions) -> anyhow::Result<sentencepiece::Converted> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (model, dictionary) = (read(&options.sentencepiece)?, read(&options.dictionary)?);
    let dictionary = String::from_utf8(dictionary).with_context(|| options.dictionary.display().to_string())?;
    sentencepiece::convert(&model, &dictionary)
        .with_context(|| format!("{} and {}", options.sentencepiece.display(), options.dictionary.display()))
}

/// A checkpoint of KOSMOS-G, with the settings that its form has.
enum Checkpoint {
    Torch(torch::TorchTensors),
    Other(Box<dyn Source>),
}

fn open_checkpoint(path: &Path) -> anyhow::Result<Checkpoint> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(Checkpoint::Other(source::open(path)?));
    }
    Ok(Checkpoint::Torch(TorchFile::open(path)?.tensors()?))
}

impl Checkpoint {
    fn source(&self) -> &dyn Source {
        match self {
            Self::Torch(tensors) => tensors,
            Self::Other(source) => source.as_ref(),
        }
    }

    fn settings(&self) -> Option<Settings<'_>> {
        match self {
            Self::Torch(tensors) => Some(Settings(tensors.file().pickle())),
            Self::Other(_) => None,
        }
    }
}

/// The encoder's parts, and what the checkpoint has besides.
fn encoder_parts<'a>(
    expected: &BTreeMap<String, Vec<usize>>,
    source: &'a dyn Source,
    quant: Quant,
) -> anyhow::Result<(Parts<'a>, Vec<String>)> {
    const PARTS: [(&str, &[&str]); 3] =
        [("vision", &["img_model."]), ("mllm", &["gpt_model.", "img_connector."]), ("aligner", &["aligner."])];
    let mut parts = Parts::new();
    for (part, beginnings) in PARTS {
        let is_of_part = |name: &str| beginnings.iter().any(|beginning| name.starts_with(beginning));
        let expected = expected.iter().filter(|(name, _)| is_of_part(name));
        let expected = expected.map(|(name, shape)| (name.clone(), shape.clone())).collect();
        parts.insert(part, (plan_of(part, &expected, source, quant)?, source));
    }
    let shapes = source.shapes();
    let is_left = |name: &&&str| !expected.contains_key(**name);
    let (known, unknown): (Vec<&str>, Vec<&str>) = shapes.keys().filter(is_left).partition(|name| is_unneeded(name));
    let of_networks =
        |name: &&str| PARTS.iter().flat_map(|(_, beginnings)| *beginnings).any(|beginning| name.starts_with(beginning));
    if let Some(strange) = unknown.iter().find(|name| of_networks(name)) {
        bail!("tensor `{strange}` is unexpected: the checkpoint is of other networks than KOSMOS-G's");
    }
    Ok((parts, known.into_iter().chain(unknown).map(str::to_owned).collect()))
}

/// Whether inference does without a tensor of the published checkpoint: AlignerNet's N, the text encoder that stage 2 aligns it
/// with, and what is there twice.
fn is_unneeded(name: &str) -> bool {
    is_redundant(name)
        || ["aligner.decoder", "aligner.clip_encoder."].iter().any(|beginning| name.starts_with(beginning))
        || name == "gpt_model.decoder.output_projection.weight"
}

/// The plan of a part whose source has nothing but its weights.
fn plan(
    part: &'static str,
    expected: &BTreeMap<String, Vec<usize>>,
    source: &dyn Source,
    quant: Quant,
) -> anyhow::Result<Vec<Planned>> {
    let shapes = source.shapes();
    if let Some(strange) = shapes.keys().find(|name| !expected.contains_key(**name)) {
        bail!("part {part}: tensor `{strange}` is unexpected: it is of another network than Stable Diffusion 1's");
    }
    plan_of(part, expected, source, quant)
}

fn plan_of(
    part: &str,
    expected: &BTreeMap<String, Vec<usize>>,
    source: &dyn Source,
    quant: Quant,
) -> anyhow::Result<Vec<Planned>> {
    let shapes = source.shapes();
    let planned = |(name, shape): (&String, &Vec<usize>)| {
        let found = *shapes.get(name.as_str()).with_context(|| format!("part {part}: tensor `{name}` is missing"))?;
        ensure!(found == shape, "part {part}: tensor `{name}` has shape {found:?}, expected {shape:?}");
        Ok(Planned { name: name.clone(), shape: shape.clone(), dtype: quant.form(part, name, shape) })
    };
    expected.iter().map(planned).collect()
}

/// A tensor in its planned form.
fn pack(source: &dyn Source, planned: &Planned) -> anyhow::Result<HostTensor> {
    let name = &planned.name;
    let tensor = source.read(name).with_context(|| format!("tensor `{name}`"))?;
    if let Some((at, number)) = tensor.first_not_finite() {
        bail!("tensor `{name}`: number {at} is {number}: the file is damaged, or the training that made it failed");
    }
    packed(&tensor, planned)
}
