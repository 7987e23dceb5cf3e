//! How KOSMOS-G's weights come to be and are judged: the world that the built-in model is trained on, the paper's stages of
//! training, the published tokenizer's conversion, and the comparison with the public implementations' numbers.

pub mod eval;
pub mod import;
pub mod quantize;
pub mod sentencepiece;
pub mod sprites;
pub mod synth;
pub mod train;
pub mod verify;
