//! The decoder's configurations, in diffusers' own spelling.

use serde::{Deserialize, Serialize};

use super::check::{ConfigError, MOST, divides, entries, heads_of, size, within};
use super::fixed::{self, Fixed};

/// Most levels of a network.
const MAX_LEVELS: usize = 16;

/// `UNet2DConditionModel` with the block types of Stable Diffusion 1.5, in diffusers' own spelling of its `config.json`.
/// A ControlNet's configuration has the same fields for its half of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UNetConfig {
    /// Channels of the latents.
    #[serde(default = "latent_channels")]
    pub in_channels: usize,
    /// Channels of the prediction.
    #[serde(default = "latent_channels")]
    pub out_channels: usize,
    /// Width of each level, from the finest.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level (one more on the way up), the same at each level or one number for each.
    pub layers_per_block: PerLevel,
    /// Which levels attend to the condition, from the finest.
    pub down_block_types: Vec<DownBlockType>,
    /// The same on the way up, from the coarsest. A ControlNet has none.
    #[serde(default)]
    pub up_block_types: Vec<UpBlockType>,
    /// Width of the condition.
    pub cross_attention_dim: usize,
    /// **Number** of attention heads (diffusers kept the misleading name), the same at each level or one for each.
    #[serde(default = "eight_heads")]
    pub attention_head_dim: PerLevel,
    /// Groups of the group normalisations.
    #[serde(default = "groups")]
    pub norm_num_groups: usize,
    /// eps of the residual blocks' group normalisations.
    #[serde(default = "norm_eps")]
    pub norm_eps: f32,
    /// Whether the time embedding is `[cos, sin]` (true in Stable Diffusion) or `[sin, cos]`.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    #[serde(default)]
    pub freq_shift: f64,
    /// Whether the transformers' projections are linear maps rather than 1 × 1 convolutions.
    #[serde(default)]
    pub use_linear_projection: bool,
    /// Side of the latents it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<usize>,
    /// A ControlNet's widths from its picture to its first level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditioning_embedding_out_channels: Option<Vec<usize>>,
    /// Channels of a ControlNet's picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditioning_channels: Option<usize>,
    /// What a file may also say; see [`Fixed`].
    #[serde(flatten, deserialize_with = "fixed::unet", skip_serializing)]
    pub fixed: Fixed,
}

impl UNetConfig {
    /// Whether there can be a U-Net of these sizes.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_encoder()?;
        size("out_channels", self.out_channels)?;
        let levels = self.block_out_channels.len();
        entries("up_block_types", self.up_block_types.len(), levels..=levels)?;
        for (i, _) in
            self.up_block_types.iter().enumerate().filter(|(_, kind)| **kind == UpBlockType::CrossAttnUpBlock2D)
        {
            self.validate_heads(levels - 1 - i)?;
        }
        Ok(())
    }

    /// Whether there can be a ControlNet of these sizes.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be.
    pub fn validate_controlnet(&self) -> Result<(), ConfigError> {
        self.validate_encoder()?;
        size("conditioning_channels", self.conditioning_channels.unwrap_or(1))?;
        if let Some(widths) = &self.conditioning_embedding_out_channels {
            entries("conditioning_embedding_out_channels", widths.len(), 1..=MAX_LEVELS)?;
            widths.iter().try_for_each(|&width| size("conditioning_embedding_out_channels", width))?;
        }
        Ok(())
    }

    /// Whether a ControlNet of these sizes adds to such a U-Net.
    pub fn takes_controlnet(&self, controlnet: &Self) -> bool {
        let levels = |config: &Self| -> Vec<_> {
            let layers = (0..config.block_out_channels.len()).map(|level| config.layers_per_block.at(level));
            config.block_out_channels.iter().copied().zip(layers).collect()
        };
        levels(self) == levels(controlnet)
            && self.in_channels == controlnet.in_channels
            && self.cross_attention_dim == controlnet.cross_attention_dim
    }

    fn validate_encoder(&self) -> Result<(), ConfigError> {
        validate_levels(&self.block_out_channels, self.norm_num_groups)?;
        let levels = self.block_out_channels.len();
        size("in_channels", self.in_channels)?;
        size("cross_attention_dim", self.cross_attention_dim)?;
        self.layers_per_block.validate("layers_per_block", levels)?;
        self.attention_head_dim.validate("attention_head_dim", levels)?;
        entries("down_block_types", self.down_block_types.len(), levels..=levels)?;
        for (level, kind) in self.down_block_types.iter().enumerate() {
            // The middle attends with the heads of the coarsest level.
            if *kind == DownBlockType::CrossAttnDownBlock2D || level + 1 == levels {
                self.validate_heads(level)?;
            }
        }
        Ok(())
    }

    fn validate_heads(&self, level: usize) -> Result<(), ConfigError> {
        let (width, heads) = (self.block_out_channels[level], self.attention_head_dim.at(level));
        heads_of(("block_out_channels", width), ("attention_head_dim (a number of heads)", heads))
    }
}

fn validate_levels(widths: &[usize], groups: usize) -> Result<(), ConfigError> {
    entries("block_out_channels", widths.len(), 1..=MAX_LEVELS)?;
    for &width in widths {
        size("block_out_channels", width)?;
        divides(("norm_num_groups", groups), ("block_out_channels", width))?;
    }
    Ok(())
}

/// One number for all levels of a U-Net or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same at every level.
    All(usize),
    /// From the finest level.
    Each(Vec<usize>),
}

impl PerLevel {
    /// The number at `level`, counted from the finest.
    pub fn at(&self, level: usize) -> usize {
        match self {
            PerLevel::All(n) => *n,
            PerLevel::Each(each) => each[level],
        }
    }

    fn validate(&self, setting: &str, levels: usize) -> Result<(), ConfigError> {
        if let PerLevel::Each(each) = self {
            entries(setting, each.len(), levels..=levels)?;
        }
        (0..levels).try_for_each(|level| within(setting, self.at(level), 1..=MOST))
    }
}

/// A level on the way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks, each followed by a transformer.
    CrossAttnDownBlock2D,
    /// Residual blocks only.
    DownBlock2D,
}

/// A level on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks, each followed by a transformer.
    CrossAttnUpBlock2D,
    /// Residual blocks only.
    UpBlock2D,
}

/// `AutoencoderKL`, in diffusers' own spelling of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Width of each level, from the finest; each but the last halves the picture.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks a level (one more in the decoder).
    pub layers_per_block: usize,
    /// Channels of the latents.
    #[serde(default = "latent_channels")]
    pub latent_channels: usize,
    /// Groups of the group normalisations.
    #[serde(default = "groups")]
    pub norm_num_groups: usize,
    /// What the encoder's latents are multiplied with before the U-Net sees them.
    #[serde(default = "scaling_factor")]
    pub scaling_factor: f64,
    /// Whether the coarsest level has an attention.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    /// Side of the pictures it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<usize>,
    /// What a file may also say; see [`Fixed`].
    #[serde(flatten, deserialize_with = "fixed::vae", skip_serializing)]
    pub fixed: Fixed,
}

impl VaeConfig {
    /// Whether there can be an autoencoder of these sizes.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate_levels(&self.block_out_channels, self.norm_num_groups)?;
        size("layers_per_block", self.layers_per_block)?;
        size("latent_channels", self.latent_channels)?;
        let factor = self.scaling_factor;
        if !factor.is_normal() {
            return Err(ConfigError::new("scaling_factor", factor, "a number other than 0"));
        }
        Ok(())
    }

    /// Pixels per latent along each side.
    pub fn downscale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

fn latent_channels() -> usize {
    4
}

fn groups() -> usize {
    32
}

fn eight_heads() -> PerLevel {
    PerLevel::All(8)
}

fn norm_eps() -> f32 {
    1e-5
}

fn scaling_factor() -> f64 {
    0.18215
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn unet(changes: Value) -> Result<UNetConfig, serde_json::Error> {
        let mut config = json!({
            "block_out_channels": [32, 64],
            "layers_per_block": 2,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 16,
            "act_fn": "silu",
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(config)
    }

    #[test]
    fn sizes_that_no_unet_has_are_named() {
        assert_eq!(unet(json!({})).unwrap().validate(), Ok(()));
        let each = json!({ "layers_per_block": [1, 2], "attention_head_dim": [4, 8] });
        assert_eq!(unet(each).unwrap().validate(), Ok(()));
        for (changes, complaint) in [
            (json!({ "block_out_channels": [] }), "block_out_channels has 0 entries, expected 1 to 16"),
            (
                json!({ "block_out_channels": [32, 65] }),
                "norm_num_groups is 32, expected a divisor of block_out_channels, 65",
            ),
            (json!({ "norm_num_groups": 0 }), "norm_num_groups is 0"),
            (json!({ "down_block_types": ["DownBlock2D"] }), "down_block_types has 1 entries, expected 2"),
            (json!({ "up_block_types": [] }), "up_block_types has 0 entries, expected 2"),
            (json!({ "layers_per_block": [1, 2, 3] }), "layers_per_block has 3 entries, expected 2"),
            (json!({ "layers_per_block": 0 }), "layers_per_block is 0"),
            (json!({ "attention_head_dim": [5] }), "attention_head_dim has 1 entries, expected 2"),
            (
                json!({ "attention_head_dim": 5 }),
                "(a number of heads) is 5, expected a divisor of block_out_channels, 32",
            ),
        ] {
            let error = unet(changes).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn settings_that_would_change_the_results_are_refused_by_name() {
        assert!(unet(json!({ "mid_block_scale_factor": 1.0, "transformer_layers_per_block": [1, 1] })).is_ok());
        for (setting, value) in [
            ("act_fn", json!("gelu")),
            ("center_input_sample", json!(true)),
            ("mid_block_scale_factor", json!(1.5)),
            ("resnet_out_scale_factor", json!(0.5)),
            ("controlnet_conditioning_channel_order", json!("bgr")),
            ("transformer_layers_per_block", json!([1, 2])),
            ("num_attention_heads", json!(8)),
        ] {
            let error = unet(json!({ setting: value })).unwrap_err().to_string();
            assert!(error.contains(&format!("{setting} is {value}, and only ")), "{error}");
        }
    }

    #[test]
    fn what_is_written_has_no_more_settings_than_before() {
        let config = unet(json!({ "dropout": 0.0 })).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert!(!text.contains("fixed") && !text.contains("dropout") && !text.contains("act_fn"), "{text}");
        assert_eq!(serde_json::from_str::<UNetConfig>(&text).unwrap(), config);
    }

    #[test]
    fn sizes_that_no_autoencoder_has_are_named() {
        let vae = |changes: Value| {
            let mut config = json!({ "block_out_channels": [32, 64], "layers_per_block": 2 });
            config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            serde_json::from_value::<VaeConfig>(config).unwrap().validate()
        };
        assert_eq!(vae(json!({})), Ok(()));
        assert!(vae(json!({ "block_out_channels": [] })).is_err());
        assert!(vae(json!({ "norm_num_groups": 5 })).is_err());
        assert!(vae(json!({ "latent_channels": 0 })).is_err());
        assert!(vae(json!({ "scaling_factor": 0.0 })).is_err());
    }
}
