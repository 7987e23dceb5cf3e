//! KOSMOS-G: pictures of the subjects in an interleaved prompt of words and pictures, without tuning.
//!
//! The networks are written once, each in a file that reads like the paper, over the small trait [`engine::Engine`];
//! around them stands what page, server and command line share: prompts, pictures, noise, samplers, bundles, wire types.
//!
//! Source: *Kosmos-G: Generating Images in Context with Multimodal Large Language Models*, arXiv 2310.02992.

pub mod aligner;
pub mod bundle;
pub mod clip_text;
pub mod condition;
pub mod config;
pub mod controlnet;
pub mod denoise;
pub mod digest;
pub mod encoder;
pub mod engine;
pub mod json;
pub mod loss;
pub mod magneto;
pub mod mllm;
pub mod noise;
pub mod picture;
pub mod pipeline;
pub mod placement;
pub mod preview;
pub mod prompt;
pub mod protocol;
pub mod resampler;
pub mod sampler;
pub mod schedule;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod verify;
pub mod vision;
pub mod weights;
pub mod wire;
