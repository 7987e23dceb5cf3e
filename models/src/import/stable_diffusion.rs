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
use serde_json::json;

use super::source::{self, Joined, Source};

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
    /// Reads all but the numbers.
    ///
    /// # Errors
    /// A file is missing or damaged, or the networks are none of Stable Diffusion 1.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() { Self::open_folder(path) } else { Self::open_file(path) }
            .with_context(|| format!("cannot read Stable Diffusion from {}", path.display()))
    }

    fn open_folder(dir: &Path) -> anyhow::Result<Self> {
        let scheduler = dir.join("scheduler/scheduler_config.json");
        let text = dir.join("text_encoder");
        Ok(Self {
            unet: component(&dir.join("unet"), "diffusion_pytorch_model")?,
            vae: component(&dir.join("vae"), "diffusion_pytorch_model")?,
            text: text.is_dir().then(|| component(&text, "model")).transpose()?,
            scheduler: if scheduler.exists() { read_json(&scheduler)? } else { SchedulerConfig::stable_diffusion() },
            unused: Vec::new(),
        })
    }

    fn open_file(path: &Path) -> anyhow::Result<Self> {
        let source: Rc<dyn Source> = source::open(path)?.into();
        let shapes = source.shapes();
        let unet = UNetNames::of(shapes.keys().copied())?;
        let levels = vae_levels(shapes.keys().copied());
        let part = |rename: &dyn Fn(&str) -> Option<String>| {
            Renamed::new(source.clone(), |name| rename(name).map(|name| modern(&name)))
        };
        let unet = part(&|name| unet.rename(name.strip_prefix("model.diffusion_model.")?))?;
        let vae = part(&|name| Some(vae_name(name.strip_prefix("first_stage_model.")?, levels)))?;
        let text = part(&|name| Some(name.strip_prefix("cond_stage_model.transformer.")?.to_owned()))?;
        let used: BTreeSet<_> = [&unet, &vae, &text].into_iter().flat_map(Renamed::originals).collect();
        let unused = shapes.keys().filter(|name| !used.contains(**name)).map(|name| (*name).to_owned()).collect();
        let text = match text.shapes().is_empty() {
            true => None,
            false => Some(Network { config: text_config(&text.shapes())?, weights: text }),
        };
        Ok(Self {
            unet: Network { config: unet_config(&unet.shapes())?, weights: unet },
            vae: Network { config: vae_config(&vae.shapes())?, weights: vae },
            text,
            scheduler: SchedulerConfig::stable_diffusion(),
            unused,
        })
    }
}

/// A network of a diffusers folder.
fn component<C: DeserializeOwned>(dir: &Path, stem: &str) -> anyhow::Result<Network<C>> {
    let config = read_json(&dir.join("config.json"))?;
    let source: Rc<dyn Source> = weights(dir, stem)?.into();
    Ok(Network { config, weights: Renamed::new(source, |name| Some(modern(name)))? })
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
    fn shapes(&self) -> BTreeMap<&str, &[usize]> {
        self.tensors.iter().map(|(name, (shape, _))| (name.as_str(), shape.as_slice())).collect()
    }

    fn read(&self, name: &str) -> anyhow::Result<HostTensor> {
        let (shape, original) = self.tensors.get(name).with_context(|| format!("there is no tensor `{name}`"))?;
        Ok(self.source.read(original)?.reshape(shape.clone())?)
    }
}

/// Whether it is one of the maps of the autoencoder's attention.
fn is_pixel_attention(name: &str) -> bool {
    name.contains("mid_block.attentions.0.to_")
}

/// diffusers' name for what its older versions called otherwise.
fn modern(name: &str) -> String {
    let Some((place, last)) = name.rsplit_once("mid_block.attentions.0.") else { return name.to_owned() };
    let (map, kind) = last.rsplit_once('.').unwrap_or((last, ""));
    let map = match map {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        other => other,
    };
    format!("{place}mid_block.attentions.0.{map}.{kind}")
}

/// How the denoiser's blocks are numbered in its authors' names.
struct UNetNames {
    /// Residual blocks of a level on the way down.
    layers: usize,
}

impl UNetNames {
    fn of<'a>(mut names: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let (mut first_halving, mut last) = (usize::MAX, 0);
        let is_any = names.by_ref().fold(false, |is_any, name| {
            let Some(rest) = name.strip_prefix("model.diffusion_model.input_blocks.") else { return is_any };
            let (number, rest) = rest.split_once('.').unwrap_or((rest, ""));
            let Ok(number) = number.parse::<usize>() else { return is_any };
            last = last.max(number);
            if rest.starts_with("0.op.") {
                first_halving = first_halving.min(number);
            }
            true
        });
        ensure!(is_any, "it has no tensors `model.diffusion_model.…`: it is no checkpoint of Stable Diffusion");
        // Block 0 is the first convolution.
        let layers = if first_halving == usize::MAX { last } else { first_halving.saturating_sub(1) };
        ensure!(layers > 0, "its first level has no residual blocks");
        Ok(Self { layers })
    }

    fn rename(&self, name: &str) -> Option<String> {
        let (block, rest) = name.split_once('.')?;
        Some(match block {
            "time_embed" => {
                let (number, kind) = rest.split_once('.')?;
                let number = match number {
                    "0" => 1,
                    "2" => 2,
                    _ => return None,
                };
                format!("time_embedding.linear_{number}.{kind}")
            }
            "out" => {
                let (number, kind) = rest.split_once('.')?;
                match number {
                    "0" => format!("conv_norm_out.{kind}"),
                    "2" => format!("conv_out.{kind}"),
                    _ => return None,
                }
            }
            "input_blocks" => {
                let (number, part, rest) = numbered(rest)?;
                let Some(number) = number.checked_sub(1) else { return Some(format!("conv_in.{rest}")) };
                let (level, layer) = (number / (self.layers + 1), number % (self.layers + 1));
                match part {
                    0 if layer == self.layers => {
                        format!("down_blocks.{level}.downsamplers.0.conv.{}", rest.strip_prefix("op.")?)
                    }
                    0 => format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?),
                    1 => format!("down_blocks.{level}.attentions.{layer}.{rest}"),
                    _ => return None,
                }
            }
            "middle_block" => {
                let (part, rest) = rest.split_once('.')?;
                match part {
                    "0" => format!("mid_block.resnets.0.{}", resnet(rest)?),
                    "1" => format!("mid_block.attentions.0.{rest}"),
                    "2" => format!("mid_block.resnets.1.{}", resnet(rest)?),
                    _ => return None,
                }
            }
            "output_blocks" => {
                let (number, part, rest) = numbered(rest)?;
                let (level, layer) = (number / (self.layers + 1), number % (self.layers + 1));
                match (part, rest.strip_prefix("conv.")) {
                    (0, _) => format!("up_blocks.{level}.resnets.{layer}.{}", resnet(rest)?),
                    (1 | 2, Some(kind)) => format!("up_blocks.{level}.upsamplers.0.conv.{kind}"),
                    (1, None) => format!("up_blocks.{level}.attentions.{layer}.{rest}"),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}

/// Block, part of the block, and what is left of a name.
fn numbered(name: &str) -> Option<(usize, usize, &str)> {
    let (block, rest) = name.split_once('.')?;
    let (part, rest) = rest.split_once('.')?;
    Some((block.parse().ok()?, part.parse().ok()?, rest))
}

/// A part of a residual block.
fn resnet(name: &str) -> Option<String> {
    const NAMES: [(&str, &str); 6] = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "conv_shortcut"),
    ];
    let (part, kind) = name.rsplit_once('.')?;
    NAMES.iter().find(|(theirs, _)| *theirs == part).map(|(_, ours)| format!("{ours}.{kind}"))
}

/// Levels of the autoencoder.
fn vae_levels<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let level = |name: &str| name.strip_prefix("first_stage_model.decoder.up.")?.split('.').next()?.parse().ok();
    names.filter_map(level).max().map_or(0, |last: usize| last + 1)
}

/// diffusers' name for a tensor of the autoencoder.
fn vae_name(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let last = |part: &str| part.replace("nin_shortcut", "conv_shortcut");
    let number = |text: &str| text.parse::<usize>().ok();
    match parts.as_slice() {
        ["encoder", "down", level, "block", block, rest @ ..] => {
            format!("encoder.down_blocks.{level}.resnets.{block}.{}", last(&rest.join(".")))
        }
        ["encoder", "down", level, "downsample", rest @ ..] => {
            format!("encoder.down_blocks.{level}.downsamplers.0.{}", rest.join("."))
        }
        // The authors count from the finest level, diffusers in the order of work.
        ["decoder", "up", level, what, rest @ ..] if number(level).is_some_and(|level| level < levels) => {
            let level = levels - 1 - number(level).unwrap_or(0);
            match (*what, rest) {
                ("block", [block, rest @ ..]) => {
                    format!("decoder.up_blocks.{level}.resnets.{block}.{}", last(&rest.join(".")))
                }
                _ => format!("decoder.up_blocks.{level}.upsamplers.0.{}", rest.join(".")),
            }
        }
        [coder, "mid", "block_1", rest @ ..] => format!("{coder}.mid_block.resnets.0.{}", last(&rest.join("."))),
        [coder, "mid", "block_2", rest @ ..] => format!("{coder}.mid_block.resnets.1.{}", last(&rest.join("."))),
        [coder, "mid", "attn_1", map, kind] => {
            let map = match *map {
                "norm" => "group_norm",
                "q" => "to_q",
                "k" => "to_k",
                "v" => "to_v",
                "proj_out" => "to_out.0",
                other => other,
            };
            format!("{coder}.mid_block.attentions.0.{map}.{kind}")
        }
        [coder, "norm_out", kind] => format!("{coder}.conv_norm_out.{kind}"),
        _ => name.to_owned(),
    }
}

type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// A size of a tensor that has to be there.
fn size(shapes: &Shapes<'_>, name: &str, dim: usize) -> anyhow::Result<usize> {
    let shape = shapes.get(name).with_context(|| format!("tensor `{name}` is missing"))?;
    shape.get(dim).copied().with_context(|| format!("tensor `{name}` has shape {shape:?}"))
}

fn has(shapes: &Shapes<'_>, beginning: &str) -> bool {
    shapes.keys().any(|name| name.starts_with(beginning))
}

/// Places `BEGINNING.0.…`, `BEGINNING.1.…` that are there.
fn places(shapes: &Shapes<'_>, beginning: &str) -> usize {
    (0..).take_while(|i| has(shapes, &format!("{beginning}.{i}."))).count()
}

/// A denoiser's sizes. Stable Diffusion 1 has eight heads, which no tensor shows.
fn unet_config(shapes: &Shapes<'_>) -> anyhow::Result<UNetConfig> {
    let levels = places(shapes, "down_blocks");
    let width = |level| size(shapes, &format!("down_blocks.{level}.resnets.0.conv1.weight"), 0);
    let kind = |way: &str, level: usize| {
        let attends = has(shapes, &format!("{}_blocks.{level}.attentions.", way.to_lowercase()));
        format!("{}{way}Block2D", if attends { "CrossAttn" } else { "" })
    };
    let attention = "mid_block.attentions.0";
    let projection =
        shapes.get(format!("{attention}.proj_in.weight").as_str()).context("its middle has no attention")?;
    let config = json!({
        "in_channels": size(shapes, "conv_in.weight", 1)?,
        "out_channels": size(shapes, "conv_out.weight", 0)?,
        "block_out_channels": (0..levels).map(width).collect::<anyhow::Result<Vec<_>>>()?,
        "layers_per_block": places(shapes, "down_blocks.0.resnets"),
        "down_block_types": (0..levels).map(|level| kind("Down", level)).collect::<Vec<_>>(),
        "up_block_types": (0..levels).map(|level| kind("Up", level)).collect::<Vec<_>>(),
        "cross_attention_dim":
            size(shapes, &format!("{attention}.transformer_blocks.0.attn2.to_k.weight"), 1)?,
        "use_linear_projection": projection.len() == 2,
    });
    Ok(serde_json::from_value(config)?)
}

fn vae_config(shapes: &Shapes<'_>) -> anyhow::Result<VaeConfig> {
    let levels = places(shapes, "encoder.down_blocks");
    let width = |level| size(shapes, &format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"), 0);
    let config = json!({
        "block_out_channels": (0..levels).map(width).collect::<anyhow::Result<Vec<_>>>()?,
        "layers_per_block": places(shapes, "encoder.down_blocks.0.resnets"),
        "latent_channels": size(shapes, "post_quant_conv.weight", 0)?,
        "mid_block_add_attention": has(shapes, "encoder.mid_block.attentions."),
    });
    Ok(serde_json::from_value(config)?)
}

/// A text model's sizes. CLIP's heads have 64 channels each.
fn text_config(shapes: &Shapes<'_>) -> anyhow::Result<ClipTextConfig> {
    let embeddings = "text_model.embeddings";
    let hidden_size = size(shapes, &format!("{embeddings}.token_embedding.weight"), 1)?;
    let config = json!({
        "vocab_size": size(shapes, &format!("{embeddings}.token_embedding.weight"), 0)?,
        "hidden_size": hidden_size,
        "intermediate_size": size(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": places(shapes, "text_model.encoder.layers"),
        "num_attention_heads": (hidden_size / 64).max(1),
        "max_position_embeddings": size(shapes, &format!("{embeddings}.position_embedding.weight"), 0)?,
        "hidden_act": "quick_gelu",
    });
    Ok(serde_json::from_value(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authors_names_become_those_of_diffusers() {
        let names = UNetNames { layers: 2 };
        for (theirs, ours) in [
            ("time_embed.0.weight", "time_embedding.linear_1.weight"),
            ("time_embed.2.bias", "time_embedding.linear_2.bias"),
            ("input_blocks.0.0.weight", "conv_in.weight"),
            ("input_blocks.1.0.in_layers.0.weight", "down_blocks.0.resnets.0.norm1.weight"),
            ("input_blocks.2.1.proj_in.weight", "down_blocks.0.attentions.1.proj_in.weight"),
            ("input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
            ("input_blocks.4.0.skip_connection.bias", "down_blocks.1.resnets.0.conv_shortcut.bias"),
            ("input_blocks.11.0.emb_layers.1.bias", "down_blocks.3.resnets.1.time_emb_proj.bias"),
            (
                "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
            ),
            ("middle_block.2.out_layers.3.weight", "mid_block.resnets.1.conv2.weight"),
            ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
            ("output_blocks.3.1.norm.weight", "up_blocks.1.attentions.0.norm.weight"),
            ("output_blocks.5.2.conv.bias", "up_blocks.1.upsamplers.0.conv.bias"),
            ("output_blocks.11.0.out_layers.0.bias", "up_blocks.3.resnets.2.norm2.bias"),
            ("out.0.weight", "conv_norm_out.weight"),
            ("out.2.bias", "conv_out.bias"),
        ] {
            assert_eq!(names.rename(theirs).as_deref(), Some(ours), "{theirs}");
        }
        assert_eq!(names.rename("label_emb.0.0.weight"), None);
        for (theirs, ours) in [
            ("encoder.conv_in.weight", "encoder.conv_in.weight"),
            ("encoder.down.1.block.0.nin_shortcut.weight", "encoder.down_blocks.1.resnets.0.conv_shortcut.weight"),
            ("encoder.down.0.downsample.conv.bias", "encoder.down_blocks.0.downsamplers.0.conv.bias"),
            ("encoder.mid.block_1.norm1.weight", "encoder.mid_block.resnets.0.norm1.weight"),
            ("decoder.mid.attn_1.proj_out.bias", "decoder.mid_block.attentions.0.to_out.0.bias"),
            ("decoder.up.3.block.2.conv1.weight", "decoder.up_blocks.0.resnets.2.conv1.weight"),
            ("decoder.up.1.upsample.conv.weight", "decoder.up_blocks.2.upsamplers.0.conv.weight"),
            ("decoder.norm_out.bias", "decoder.conv_norm_out.bias"),
            ("quant_conv.weight", "quant_conv.weight"),
        ] {
            assert_eq!(vae_name(theirs, 4), ours, "{theirs}");
        }
        assert_eq!(modern("encoder.mid_block.attentions.0.query.weight"), "encoder.mid_block.attentions.0.to_q.weight");
        assert_eq!(
            modern("decoder.mid_block.attentions.0.proj_attn.bias"),
            "decoder.mid_block.attentions.0.to_out.0.bias"
        );
        assert_eq!(modern("mid_block.attentions.0.proj_in.weight"), "mid_block.attentions.0.proj_in.weight");
    }
}
