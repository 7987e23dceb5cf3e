//! What a device's kernels can do. There are two sets: [`super::cpu`] and [`super::library`].

use candle_core::{Result, Tensor};

use crate::engine::{Activation, Binary, ConvOptions, Unary};
use crate::weights::HostTensor;

/// The operations that differ between the two sets; each is the [`Engine`](crate::engine::Engine)'s of that name.
#[derive(Debug)]
pub struct Kernels {
    /// The same tensor with its numbers row-major in memory.
    pub contiguous: fn(&Tensor) -> Result<Tensor>,
    pub affine: fn(&Tensor, f32, f32) -> Result<Tensor>,
    pub unary: fn(&Tensor, Unary) -> Result<Tensor>,
    pub binary: fn(&Tensor, &Tensor, Binary) -> Result<Tensor>,
    pub sum: fn(&Tensor, usize) -> Result<Tensor>,
    pub softmax: fn(&Tensor) -> Result<Tensor>,
    pub log_softmax: fn(&Tensor) -> Result<Tensor>,
    pub upsample: fn(&Tensor, [usize; 2]) -> Result<Tensor>,
    /// Weight `[in, out]`.
    pub linear: fn(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>,
    /// Weight `[out, in]` as it is stored; `None` where weights have to be unpacked.
    pub packed_linear: Option<PackedLinear>,
    pub conv2d: fn(&Tensor, &Tensor, Option<&Tensor>, ConvOptions) -> Result<Tensor>,
    pub layer_norm: fn(&Tensor, &Tensor, &Tensor, f32) -> Result<Tensor>,
    pub group_norm: fn(&Tensor, GroupNorm) -> Result<Tensor>,
    /// `None` for the plain way.
    pub geglu: Option<fn(&Tensor) -> Result<Tensor>>,
    /// `None` for the plain way.
    pub attention: Option<Attention>,
}

/// Input, weight, bias.
pub type PackedLinear = fn(&Tensor, &HostTensor, Option<&Tensor>) -> Result<Tensor>;

/// Query, key and value, heads, mask.
pub type Attention = fn([&Tensor; 3], usize, AttentionMask) -> Result<Tensor>;

/// A group normalisation's parameters.
pub struct GroupNorm<'a> {
    pub groups: usize,
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    pub eps: f32,
    pub activation: Activation,
}

/// [`Mask`](crate::engine::Mask) on candle's own tensors.
pub enum AttentionMask<'a> {
    None,
    Causal,
    Keys(&'a Tensor),
}

impl Kernels {
    /// `x` as candle's matrix product can read it: contiguous, or the transpose of a contiguous one.
    pub fn matmul_operand(&self, x: &Tensor) -> Result<Tensor> {
        if x.is_contiguous() || x.t()?.is_contiguous() { Ok(x.clone()) } else { (self.contiguous)(x) }
    }
}
