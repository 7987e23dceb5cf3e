//! The networks' sizes, as their own files spell them.

use serde::{Deserialize, Serialize};

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
    /// Layers in each of its four stacks.
    pub layers: usize,
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
    /// Residual blocks a level (one more on the way up).
    pub layers_per_block: usize,
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
}

impl VaeConfig {
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
