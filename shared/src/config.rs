//! The networks' sizes, as their own files spell them.

use serde::{Deserialize, Serialize};

pub use activations::Activations;
pub use check::ConfigError;
use check::{divides, heads_of, size, within};
pub use diffusion::{DownBlockType, PerLevel, UNetConfig, UpBlockType, VaeConfig};
pub use fixed::Fixed;

pub(crate) mod activations;
mod check;
mod diffusion;
mod fixed;

/// Largest side of the encoder's picture, in pixels.
const MAX_IMAGE_SIZE: usize = 4096;

/// Sizes of everything before the decoder: vision tower, resampler, language model and AlignerNet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KosmosGConfig {
    /// The MAGNETO language model.
    pub mllm: MllmConfig,
    /// The CLIP-style vision tower.
    pub vision: VisionConfig,
    /// The resampler.
    pub connector: ConnectorConfig,
    /// AlignerNet.
    pub aligner: AlignerConfig,
    /// Ids of the tokens that are not words.
    pub special: SpecialTokens,
}

/// MAGNETO decoder, reference section 6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MllmConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Hidden size `D`.
    pub dim: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Inner size of the feed-forward network.
    pub ffn_dim: usize,
}

/// CLIP-style vision transformer, reference section 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Side of the square input picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Hidden size.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Inner size of a block's MLP, in multiples of `width`.
    pub mlp_ratio: usize,
}

/// Resampler, reference section 5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorConfig {
    /// Embeddings per picture, `L`.
    pub latent_queries: usize,
    /// Attention heads; the published model and most others use the language model's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
}

/// AlignerNet, reference section 7.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignerConfig {
    /// Width `d` of the condition.
    pub dim: usize,
    /// Layers in each of its four stacks. With none there is no AlignerNet, but a linear map of each position in its place, as in
    /// the paper's ablation.
    pub layers: usize,
    /// Layers of the two stacks that look over a sequence, if they are not as many as those that query it: none in the
    /// paper's ablation of half an AlignerNet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_layers: Option<usize>,
    /// Attention heads.
    pub heads: usize,
    /// Inner size of the feed-forward networks.
    pub ffn_dim: usize,
    /// Tokens of the condition: 77 in Stable Diffusion 1.5.
    pub queries: usize,
    /// Rows of the position tables, the first two unused.
    pub max_positions: usize,
}

/// Ids of the tokens that are not words, reference section 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// `<s>`
    pub bos: u32,
    /// `<pad>`
    pub pad: u32,
    /// `</s>`
    pub eos: u32,
    /// `<unk>`
    pub unk: u32,
    /// `<image>`
    pub boi: u32,
    /// `</image>`
    pub eoi: u32,
}

impl KosmosGConfig {
    /// Whether there can be networks of these sizes.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { mllm, vision, connector, aligner, special } = self;
        for (setting, value) in [
            ("mllm.vocab_size", mllm.vocab_size),
            ("mllm.layers", mllm.layers),
            ("mllm.ffn_dim", mllm.ffn_dim),
            ("vision.layers", vision.layers),
            ("vision.mlp_ratio", vision.mlp_ratio),
            ("connector.latent_queries", connector.latent_queries),
            ("aligner.ffn_dim", aligner.ffn_dim),
            ("aligner.queries", aligner.queries),
        ] {
            size(setting, value)?;
        }
        heads_of(("mllm.dim", mllm.dim), ("mllm.heads", mllm.heads))?;
        if let Some(heads) = connector.heads {
            heads_of(("mllm.dim", mllm.dim), ("connector.heads", heads))?;
        }
        heads_of(("vision.width", vision.width), ("vision.heads", vision.heads))?;
        heads_of(("aligner.dim", aligner.dim), ("aligner.heads", aligner.heads))?;
        within("aligner.layers", aligner.layers, 0..=check::MOST)?;
        within("aligner.sequence_layers", aligner.sequence_layers.unwrap_or(0), 0..=check::MOST)?;
        within("vision.image_size", vision.image_size, 1..=MAX_IMAGE_SIZE)?;
        divides(("vision.patch_size", vision.patch_size), ("vision.image_size", vision.image_size))?;
        // Two rows are never used, and a sequence has a first token.
        within("aligner.max_positions", aligner.max_positions, 3..=check::MOST)?;
        for (setting, id) in [
            ("special.bos", special.bos),
            ("special.pad", special.pad),
            ("special.eos", special.eos),
            ("special.unk", special.unk),
            ("special.boi", special.boi),
            ("special.eoi", special.eoi),
        ] {
            within(setting, id as usize, 0..=mllm.vocab_size - 1)?;
        }
        Ok(())
    }

    /// Longest sequence: the rows of AlignerNet's position table that are used.
    pub fn max_tokens(&self) -> usize {
        self.aligner.max_positions.saturating_sub(2)
    }

    /// The published model: 1.9 billion parameters.
    pub fn published() -> Self {
        Self {
            mllm: MllmConfig { vocab_size: 64_007, dim: 2048, layers: 24, heads: 32, ffn_dim: 8192 },
            vision: VisionConfig { image_size: 224, patch_size: 14, width: 1024, layers: 24, heads: 16, mlp_ratio: 4 },
            connector: ConnectorConfig { latent_queries: 64, heads: None },
            aligner: AlignerConfig {
                dim: 768,
                layers: 12,
                sequence_layers: None,
                heads: 12,
                ffn_dim: 3072,
                queries: 77,
                max_positions: 32_768,
            },
            special: SpecialTokens { bos: 0, pad: 1, eos: 2, unk: 3, boi: 64_003, eoi: 64_004 },
        }
    }
}

/// CLIP text model, in transformers' own spelling of its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipTextConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Hidden size.
    pub hidden_size: usize,
    /// Inner size of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// The MLP's activation.
    #[serde(default)]
    pub hidden_act: ClipActivation,
    /// Id that starts a text.
    #[serde(default = "clip_bos")]
    pub bos_token_id: u32,
    /// Id that ends a text; Stable Diffusion's tokenizer also pads with it.
    #[serde(default = "clip_eos")]
    pub eos_token_id: u32,
    /// What a file may also say; see [`Fixed`].
    #[serde(flatten, deserialize_with = "fixed::clip_text", skip_serializing)]
    pub fixed: Fixed,
}

impl ClipTextConfig {
    /// Whether there can be a network of these sizes.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        size("vocab_size", self.vocab_size)?;
        size("intermediate_size", self.intermediate_size)?;
        size("num_hidden_layers", self.num_hidden_layers)?;
        size("max_position_embeddings", self.max_position_embeddings)?;
        heads_of(("hidden_size", self.hidden_size), ("num_attention_heads", self.num_attention_heads))
    }
}

fn clip_bos() -> u32 {
    49_406
}

fn clip_eos() -> u32 {
    49_407
}

/// Activations that CLIP text models come with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipActivation {
    /// OpenAI's models, so Stable Diffusion 1.
    #[default]
    QuickGelu,
    /// Later ones.
    Gelu,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_network_has_are_named() {
        assert_eq!(KosmosGConfig::published().validate(), Ok(()));
        let refused = |change: &dyn Fn(&mut KosmosGConfig)| {
            let mut config = KosmosGConfig::published();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert_eq!(
            refused(&|c| c.vision.patch_size = 0),
            "vision.patch_size is 0, expected a divisor of vision.image_size, 224"
        );
        assert_eq!(
            refused(&|c| c.vision.patch_size = 15),
            "vision.patch_size is 15, expected a divisor of vision.image_size, 224"
        );
        assert_eq!(refused(&|c| c.mllm.heads = 0), "mllm.heads is 0, expected a divisor of mllm.dim, 2048");
        assert_eq!(
            refused(&|c| c.connector.heads = Some(3)),
            "connector.heads is 3, expected a divisor of mllm.dim, 2048"
        );
        assert_eq!(
            refused(&|c| c.aligner.dim = usize::MAX),
            format!("aligner.dim is {}, expected 1 to 1048576", usize::MAX)
        );
        assert_eq!(refused(&|c| c.aligner.max_positions = 2), "aligner.max_positions is 2, expected 3 to 1048576");
        assert_eq!(refused(&|c| c.special.eoi = 64_007), "special.eoi is 64007, expected 0 to 64006");
    }

    #[test]
    fn clips_eps_is_known() {
        let json = |more: &str| {
            format!(
                r#"{{"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "max_position_embeddings": 7, "model_type": "clip_text_model"{more}}}"#
            )
        };
        let config: ClipTextConfig = serde_json::from_str(&json(r#", "layer_norm_eps": 1e-5"#)).unwrap();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(serde_json::from_str::<ClipTextConfig>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
        let error =
            serde_json::from_str::<ClipTextConfig>(&json(r#", "layer_norm_eps": 1e-12"#)).unwrap_err().to_string();
        assert!(error.contains("layer_norm_eps is 1e-12, and only 0.00001 is supported"), "{error}");
    }
}
