//! Attention on NVIDIA GPUs of compute capability 8.0 or more that never holds all scores at once.
//!
//! Source: *FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning*, arXiv 2307.08691.

use candle_core::{DType, Result, Tensor};

use super::kernels::{Attention, AttentionMask};
use super::{Candle, CandleDevice};
use crate::engine::Mask;

/// Channels of a head that the kernels take on every such GPU, in steps of [`STEP`].
const WIDEST: usize = 256;
const STEP: usize = 8;

/// The kernel for heads of `width` channels on the device; `None` where the plain way has to do.
pub fn kernel(device: &CandleDevice, width: usize, mask: &Mask<Candle>) -> Option<Attention> {
    let in_half = device.device.is_cuda() && device.dtype == DType::F16;
    let fits = width <= WIDEST && width.is_multiple_of(STEP) && !matches!(mask, Mask::Keys(_));
    (in_half && fits).then_some(attention)
}

fn attention(qkv: [&Tensor; 3], heads: usize, mask: AttentionMask) -> Result<Tensor> {
    let split = |x: &Tensor| {
        let (batch, tokens, channels) = x.dims3()?;
        x.contiguous()?.reshape((batch, tokens, heads, channels / heads))
    };
    let [q, k, v] = qkv.map(split);
    let (q, k, v) = (q?, k?, v?);
    let scale = (q.dims()[3] as f32).sqrt().recip();
    candle_flash_attn::flash_attn(&q, &k, &v, scale, matches!(mask, AttentionMask::Causal))?.flatten_from(2)
}
