//! The networks' sizes, from their tensors.

use anyhow::{Context as _, ensure};
use kosmosg::config::{ClipTextConfig, UNetConfig, VaeConfig};
use serde_json::json;

use crate::import::source::{Shapes, places};

/// A size of a tensor that has to be there.
fn size(shapes: &Shapes<'_>, name: &str, dim: usize) -> anyhow::Result<usize> {
    let shape = shapes.get(name).with_context(|| format!("tensor `{name}` is missing"))?;
    shape.get(dim).copied().with_context(|| format!("tensor `{name}` has shape {shape:?}"))
}

fn has(shapes: &Shapes<'_>, beginning: &str) -> bool {
    shapes.keys().any(|name| name.starts_with(beginning))
}

/// Refuses what would have to be guessed: numbers of heads and of groups show in no tensor, and are known of the published networks.
fn published(part: &str, widths: &[usize], published: &[usize]) -> anyhow::Result<()> {
    ensure!(
        widths == published,
        "its `{part}` has widths {widths:?}, not the published {published:?}, and its tensors do not show the rest; add what \
         diffusers' config.json says of it as `\"{part}\": {{…}}` to the file for --network"
    );
    Ok(())
}

/// A denoiser's sizes.
pub(super) fn unet_config(shapes: &Shapes<'_>) -> anyhow::Result<UNetConfig> {
    let levels = places(shapes, "down_blocks");
    let width = |level| size(shapes, &format!("down_blocks.{level}.resnets.0.conv1.weight"), 0);
    let kind = |way: &str, level: usize| {
        let attends = has(shapes, &format!("{}_blocks.{level}.attentions.", way.to_lowercase()));
        format!("{}{way}Block2D", if attends { "CrossAttn" } else { "" })
    };
    let attention = "mid_block.attentions.0";
    let projection =
        shapes.get(format!("{attention}.proj_in.weight").as_str()).context("its middle has no attention")?;
    let widths = (0..levels).map(width).collect::<anyhow::Result<Vec<_>>>()?;
    published("unet", &widths, &[320, 640, 1280, 1280])?;
    let config = json!({
        "in_channels": size(shapes, "conv_in.weight", 1)?,
        "out_channels": size(shapes, "conv_out.weight", 0)?,
        "block_out_channels": widths,
        "layers_per_block": places(shapes, "down_blocks.0.resnets"),
        "down_block_types": (0..levels).map(|level| kind("Down", level)).collect::<Vec<_>>(),
        "up_block_types": (0..levels).map(|level| kind("Up", level)).collect::<Vec<_>>(),
        "cross_attention_dim":
            size(shapes, &format!("{attention}.transformer_blocks.0.attn2.to_k.weight"), 1)?,
        "use_linear_projection": projection.len() == 2,
        "sample_size": 64,
    });
    Ok(serde_json::from_value(config)?)
}

pub(super) fn vae_config(shapes: &Shapes<'_>) -> anyhow::Result<VaeConfig> {
    let levels = places(shapes, "encoder.down_blocks");
    let width = |level| size(shapes, &format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"), 0);
    let widths = (0..levels).map(width).collect::<anyhow::Result<Vec<_>>>()?;
    published("vae", &widths, &[128, 256, 512, 512])?;
    let config = json!({
        "block_out_channels": widths,
        "layers_per_block": places(shapes, "encoder.down_blocks.0.resnets"),
        "latent_channels": size(shapes, "post_quant_conv.weight", 0)?,
        "mid_block_add_attention": has(shapes, "encoder.mid_block.attentions."),
        "sample_size": 512,
    });
    Ok(serde_json::from_value(config)?)
}

/// A text model's sizes.
pub(super) fn text_config(shapes: &Shapes<'_>) -> anyhow::Result<ClipTextConfig> {
    let embeddings = "text_model.embeddings";
    let hidden_size = size(shapes, &format!("{embeddings}.token_embedding.weight"), 1)?;
    published("text", &[hidden_size], &[768])?;
    let config = json!({
        "vocab_size": size(shapes, &format!("{embeddings}.token_embedding.weight"), 0)?,
        "hidden_size": hidden_size,
        "intermediate_size": size(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": places(shapes, "text_model.encoder.layers"),
        "num_attention_heads": 12,
        "max_position_embeddings": size(shapes, &format!("{embeddings}.position_embedding.weight"), 0)?,
        "hidden_act": "quick_gelu",
    });
    Ok(serde_json::from_value(config)?)
}
