//! Stable Diffusion 1.5's networks: from a folder of diffusers, or from one file in their authors' names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, bail, ensure};
use kosmosg::config::{ClipTextConfig, UNetConfig, VaeConfig};
use kosmosg::schedule::SchedulerConfig;
use kosmosg::weights::HostTensor;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::network::Given;
use super::source::{self, Joined, Shapes, Source};
use names::{UNetNames, modern, text_name, vae_levels, vae_name};
use sizes::{text_config, unet_config, vae_config};

mod names;
mod sizes;

/// A denoiser, its autoencoder, and the text encoder that it follows if there is one.
pub struct StableDiffusion {
    /// The denoiser.
    pub unet: Network<UNetConfig>,
    /// The autoencoder.
    pub vae: Network<VaeConfig>,
    /// CLIP's text model.
    pub text: Option<Network<ClipTextConfig>>,
    /// The noise schedule.
    pub scheduler: SchedulerConfig,
    /// Tensors that belong to none of them.
    pub unused: Vec<String>,
}

/// Weights in diffusers' names, and the sizes that they have.
pub struct Network<C> {
    /// The sizes.
    pub config: C,
    /// The weights.
    pub weights: Renamed,
}

impl StableDiffusion {
    /// Reads all but the numbers. A folder says its networks' sizes; those of one file that are not the published ones are
    /// `given`.
    ///
    /// # Errors
    /// A file is missing or damaged, or the networks are none of Stable Diffusion 1.
    pub fn open(path: &Path, given: Option<&Given>) -> anyhow::Result<Self> {
        if path.is_dir() { Self::open_folder(path) } else { Self::open_file(path, given) }
            .with_context(|| format!("cannot read Stable Diffusion from {}", path.display()))
    }

    fn open_folder(dir: &Path) -> anyhow::Result<Self> {
        let scheduler = dir.join("scheduler/scheduler_config.json");
        let text = dir.join("text_encoder");
        let current = |name: &str| Some(modern(name));
        let mut text: Option<Network<ClipTextConfig>> =
            text.is_dir().then(|| component(&text, "model", text_name)).transpose()?;
        let mut unused = Vec::new();
        if let Some(Network { config, weights }) = &mut text {
            unused = left(&*weights.source, &[&*weights]);
            // What transformers wrote before it was noticed, of CLIP's own words: other models mean what they say.
            if (config.vocab_size, config.eos_token_id) == (49_408, 2) {
                (config.bos_token_id, config.eos_token_id) = (49_406, 49_407);
            }
        }
        Ok(Self {
            unet: component(&dir.join("unet"), "diffusion_pytorch_model", current)?,
            vae: component(&dir.join("vae"), "diffusion_pytorch_model", current)?,
            text,
            scheduler: if scheduler.exists() { read_json(&scheduler)? } else { SchedulerConfig::stable_diffusion() },
            unused,
        })
    }

    fn open_file(path: &Path, given: Option<&Given>) -> anyhow::Result<Self> {
        let source: Rc<dyn Source> = source::open(path)?.into();
        let shapes = source.shapes();
        let unet = UNetNames::of(shapes.keys().copied())?;
        let levels = vae_levels(shapes.keys().copied());
        let part = |rename: &dyn Fn(&str) -> Option<String>| {
            Renamed::new(source.clone(), |name| rename(name).map(|name| modern(&name)))
        };
        let unet = part(&|name| unet.rename(name.strip_prefix("model.diffusion_model.")?))?;
        let vae = part(&|name| Some(vae_name(name.strip_prefix("first_stage_model.")?, levels)))?;
        let text = part(&|name| text_name(name.strip_prefix("cond_stage_model.transformer.")?))?;
        let unused = left(&*source, &[&unet, &vae, &text]);
        let text = (!text.tensors.is_empty()).then_some(text);
        Ok(Self {
            unet: sized(unet, given.and_then(|given| given.unet.clone()), unet_config)?,
            vae: sized(vae, given.and_then(|given| given.vae.clone()), vae_config)?,
            text: text.map(|text| sized(text, given.and_then(|given| given.text.clone()), text_config)).transpose()?,
            scheduler: SchedulerConfig::stable_diffusion(),
            unused,
        })
    }
}

/// A network of one file, of the `given` sizes or those that its tensors tell.
fn sized<C>(
    weights: Renamed,
    given: Option<C>,
    told: impl Fn(&Shapes<'_>) -> anyhow::Result<C>,
) -> anyhow::Result<Network<C>> {
    let config = given.map_or_else(|| told(&weights.shapes()), Ok)?;
    Ok(Network { config, weights })
}

/// Tensors of a source that are in none of these.
fn left(source: &dyn Source, networks: &[&Renamed]) -> Vec<String> {
    let used: BTreeSet<_> = networks.iter().flat_map(|network| network.originals()).collect();
    source.shapes().into_keys().filter(|name| !used.contains(name)).map(str::to_owned).collect()
}

/// A network of a diffusers folder.
fn component<C: DeserializeOwned>(
    dir: &Path,
    stem: &str,
    rename: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Network<C>> {
    let config = read_json(&dir.join("config.json"))?;
    let source: Rc<dyn Source> = weights(dir, stem)?.into();
    Ok(Network { config, weights: Renamed::new(source, rename)? })
}

/// The weights in a folder: in full precision if they are there, in one file or in several.
fn weights(dir: &Path, stem: &str) -> anyhow::Result<Box<dyn Source>> {
    // transformers calls a pickled model otherwise.
    let pickled = if stem == "model" { "pytorch_model" } else { stem };
    for (stem, ending) in [(stem, ".safetensors"), (pickled, ".bin")] {
        for variant in ["", ".fp16"] {
            let file = dir.join(format!("{stem}{variant}{ending}"));
            if file.exists() {
                return source::open(&file);
            }
            // Versions of diffusers differ in where the variant stands.
            let indexes =
                [format!("{stem}{ending}.index{variant}.json"), format!("{stem}{variant}{ending}.index.json")];
            if let Some(index) = indexes.map(|name| dir.join(name)).into_iter().find(|path| path.exists()) {
                return sharded(&index);
            }
        }
    }
    bail!(
        "{} has no weights: expected {stem}.safetensors, its fp16 variant, an index of several, or .bin",
        dir.display()
    )
}

/// Weights in several files that an index names.
fn sharded(index: &Path) -> anyhow::Result<Box<dyn Source>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let Index { weight_map } = read_json(index)?;
    let files: BTreeSet<&String> = weight_map.values().collect();
    let dir = index.parent().unwrap_or(Path::new(""));
    let open = |file: &&String| {
        let is_plain = !file.contains(['/', '\\']) && *file != "..";
        ensure!(is_plain, "{} names {file:?}, which is no file beside it", index.display());
        source::open(&dir.join(file))
    };
    let joined = Joined::new(files.iter().map(open).collect::<anyhow::Result<_>>()?)?;
    let shapes = joined.shapes();
    if let Some(missing) = weight_map.keys().find(|name| !shapes.contains_key(name.as_str())) {
        bail!("{} names tensor `{missing}`, which {} does not have", index.display(), weight_map[missing]);
    }
    drop(shapes);
    Ok(Box::new(joined))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let json = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&json).with_context(|| path.display().to_string())
}

/// Some of a source's tensors under other names, and 1 × 1 convolutions of pictures as the linear maps that they are where the
/// network has such.
pub struct Renamed {
    source: Rc<dyn Source>,
    /// Name and shape here, with the name there.
    tensors: BTreeMap<String, (Vec<usize>, String)>,
}

impl Renamed {
    /// Those that `rename` has a name for.
    ///
    /// # Errors
    /// Two would have the same.
    pub fn new(source: Rc<dyn Source>, rename: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let mut tensors = BTreeMap::new();
        for (original, shape) in source.shapes() {
            let Some(name) = rename(original) else { continue };
            let shape = match shape {
                &[output, input, 1, 1] if is_pixel_attention(&name) => vec![output, input],
                shape => shape.to_vec(),
            };
            if let Some((_, other)) = tensors.insert(name.clone(), (shape, original.to_owned())) {
                bail!("`{other}` and `{original}` both stand for `{name}`");
            }
        }
        Ok(Self { source, tensors })
    }

    fn originals(&self) -> impl Iterator<Item = &str> {
        self.tensors.values().map(|(_, original)| original.as_str())
    }
}

impl Source for Renamed {
    fn shapes(&self) -> Shapes<'_> {
        self.tensors.iter().map(|(name, (shape, _))| (name.as_str(), shape.as_slice())).collect()
    }

    fn read(&self, name: &str) -> anyhow::Result<HostTensor> {
        let (shape, original) = self.tensors.get(name).with_context(|| format!("there is no tensor `{name}`"))?;
        Ok(self.source.read(original)?.reshape(shape.clone())?)
    }

    fn files(&self) -> Vec<&Path> {
        self.source.files()
    }
}

/// Whether it is one of the maps of the autoencoder's attention.
fn is_pixel_attention(name: &str) -> bool {
    name.contains("mid_block.attentions.0.to_")
}
