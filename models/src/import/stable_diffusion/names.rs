//! What tensors are called: by Stable Diffusion's authors, by older versions of diffusers, and by diffusers now.

use anyhow::ensure;

/// diffusers' name for what its older versions called otherwise.
pub(super) fn modern(name: &str) -> String {
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

/// The text model's name for a tensor, which transformers 5 writes without what all of them begin with; none for those that only
/// CLIP's other half needs, and for the numbers of the positions, which older versions wrote and conversions turned into floats.
pub(super) fn text_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    let is_unneeded = name.ends_with("position_ids") || name.starts_with("text_projection") || name == "logit_scale";
    (!is_unneeded).then(|| format!("text_model.{name}"))
}

/// How the denoiser's blocks are numbered in its authors' names.
pub(super) struct UNetNames {
    /// Residual blocks of a level on the way down.
    layers: usize,
}

impl UNetNames {
    pub fn of<'a>(mut names: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
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

    pub fn rename(&self, name: &str) -> Option<String> {
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
pub(super) fn vae_levels<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let level = |name: &str| name.strip_prefix("first_stage_model.decoder.up.")?.split('.').next()?.parse().ok();
    names.filter_map(level).max().map_or(0, |last: usize| last + 1)
}

/// diffusers' name for a tensor of the autoencoder.
pub(super) fn vae_name(name: &str, levels: usize) -> String {
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
        for (theirs, ours) in [
            ("text_model.final_layer_norm.bias", Some("text_model.final_layer_norm.bias")),
            ("final_layer_norm.bias", Some("text_model.final_layer_norm.bias")),
            ("text_model.embeddings.position_ids", None),
            ("embeddings.position_ids", None),
            ("text_projection.weight", None),
            ("logit_scale", None),
        ] {
            assert_eq!(text_name(theirs).as_deref(), ours, "{theirs}");
        }
        assert_eq!(modern("encoder.mid_block.attentions.0.query.weight"), "encoder.mid_block.attentions.0.to_q.weight");
        assert_eq!(
            modern("decoder.mid_block.attentions.0.proj_attn.bias"),
            "decoder.mid_block.attentions.0.to_out.0.bias"
        );
        assert_eq!(modern("mid_block.attentions.0.proj_in.weight"), "mid_block.attentions.0.proj_in.weight");
    }
}
