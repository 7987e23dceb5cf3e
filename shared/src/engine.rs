//! The seam between the networks and the two tensor libraries that run them.
//!
//! Every network of this crate is written once, over [`Tensor<E, D>`]: a tensor of engine `E` whose rank `D` is part of
//! its type. [`Engine`] is all that a library has to bring: a few plain operations, and fused ones with a plain fallback
//! that it may override where it can win.
//!
//! **Errors.** An operation never fails on the spot: a GPU reports late anyway, and a graph full of `?` does not read like
//! the paper. What went wrong (out of memory, a lost device) is kept by the engine and comes out where numbers leave it,
//! in [`Tensor::to_host`]. Shapes are checked when weights load and when input arrives, so that a shape mismatch inside a
//! graph is a bug and may panic.
//!
//! **Random numbers** never come from an engine: see [`crate::noise`].

use std::fmt::Debug;
use std::future::Future;

use crate::weights::Parameter;

pub use tensor::{Tensor, attention};

pub mod blueprint;
#[cfg(feature = "burn")]
pub mod burn;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(any(feature = "burn", feature = "candle"))]
mod cpu;
pub mod plain;
mod tensor;

/// What an engine could not do, said when its result is read back.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The device has no room left for what was asked of it.
    #[error("{engine} is out of memory: {detail}")]
    OutOfMemory {
        /// Name of the engine.
        engine: &'static str,
        /// The library's own words.
        detail: String,
    },
    /// The device is gone: unplugged, reset by its driver, or taken away by the browser.
    #[error("{engine} lost its device: {detail}")]
    DeviceLost {
        /// Name of the engine.
        engine: &'static str,
        /// The library's own words.
        detail: String,
    },
    /// No device of the kind that was asked for.
    #[error("{engine} has no {device}: {detail}")]
    NoDevice {
        /// Name of the engine.
        engine: &'static str,
        /// The device asked for, such as `cuda`.
        device: String,
        /// The library's own words.
        detail: String,
    },
    /// Any other failure of an operation.
    #[error("{engine} failed in {operation}: {detail}")]
    Operation {
        /// Name of the engine.
        engine: &'static str,
        /// Which operation, with the shapes it was given.
        operation: String,
        /// The library's own words.
        detail: String,
    },
}

/// An element-wise function of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    /// `e^x`
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// `x · sigmoid(x)`
    Silu,
    /// Exact GELU, `x · (1 + erf(x / √2)) / 2`: never the tanh approximation.
    Gelu,
    /// CLIP's GELU, `x · sigmoid(1.702 x)`.
    QuickGelu,
}

/// An element-wise function of two tensors of equal rank; a dimension of size 1 is repeated to fit the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a − b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`
    Div,
}

/// Which keys a query may look at.
#[derive(Debug, Clone)]
pub enum Mask<E: Engine> {
    /// All of them.
    None,
    /// Query `i` sees keys `0..=i`. Queries and keys are the same sequence.
    Causal,
    /// `[B, T]`, added to every score of a key: 0 to see it, [`Mask::HIDDEN`] to hide it.
    Keys(Tensor<E, 2>),
}

impl<E: Engine> Mask<E> {
    /// The score of a hidden key: large enough to vanish in softmax, small enough for f16.
    pub const HIDDEN: f32 = -3e4;

    /// Hides the keys marked `true` in `hidden`, `[B, T]` row-major; [`Mask::None`] when nothing is hidden.
    pub fn hide(hidden: &[bool], batch: usize, device: &E::Device) -> Self {
        if hidden.iter().all(|&h| !h) {
            return Mask::None;
        }
        let scores = hidden.iter().map(|&h| if h { Self::HIDDEN } else { 0.0 });
        let tokens = hidden.len() / batch;
        Mask::Keys(Tensor::from_host(scores.collect(), [batch, tokens], device))
    }
}

/// What a [`group_norm`](Engine::group_norm) is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// [`Unary::Silu`].
    Silu,
}

/// Stride and zero padding of a square 2-D convolution, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvOptions {
    /// Step between outputs.
    pub stride: usize,
    /// Zeros on each of the four sides.
    pub padding: usize,
}

/// A tensor library. See the [module documentation](self).
///
/// Shapes use the field's letters: `B` batch, `T` tokens, `C` or `D` channels, `H` and `W` height and width.
pub trait Engine: Sized + Clone + Debug + Send + Sync + 'static {
    /// A tensor of rank `D` on some device; cloning it copies a handle.
    type Tensor<const D: usize>: Clone + Debug;
    /// Where tensors live, and in which precision.
    type Device: Clone + Debug;
    /// A prepared `y = x · Wᵀ + b`.
    type Linear: Clone + Debug;
    /// A prepared 2-D convolution.
    type Conv2d: Clone + Debug;

    /// The engine's name, for messages.
    const NAME: &'static str;

    /// The same device in f32, if it computes in less.
    fn in_full_precision(_device: &Self::Device) -> Option<Self::Device> {
        None
    }

    /// Bytes of the largest tensor that a device can hold, if that is less than its memory.
    fn largest_tensor_bytes(_device: &Self::Device) -> u64 {
        u64::MAX
    }

    /// A tensor from row-major numbers. `data.len()` is the product of `shape`.
    fn from_host<const D: usize>(data: Vec<f32>, shape: [usize; D], device: &Self::Device) -> Self::Tensor<D>;
    /// The tensor's numbers, row-major.
    fn to_host<const D: usize>(x: Self::Tensor<D>) -> impl Future<Output = Result<Vec<f32>, EngineError>>;
    /// A parameter as a dense tensor. The parameter has exactly `shape`.
    fn dense<const D: usize>(parameter: Parameter<Self>, shape: [usize; D], device: &Self::Device) -> Self::Tensor<D>;

    /// The sizes of the dimensions.
    fn shape<const D: usize>(x: &Self::Tensor<D>) -> [usize; D];
    /// The device the tensor is on.
    fn device<const D: usize>(x: &Self::Tensor<D>) -> Self::Device;
    /// The same numbers in another shape.
    fn reshape<const D: usize, const D2: usize>(x: Self::Tensor<D>, shape: [usize; D2]) -> Self::Tensor<D2>;
    /// Dimension `i` of the result is dimension `axes[i]` of `x`.
    fn permute<const D: usize>(x: Self::Tensor<D>, axes: [usize; D]) -> Self::Tensor<D>;
    /// `length` entries of dimension `dim` from `start` on.
    fn narrow<const D: usize>(x: Self::Tensor<D>, dim: usize, start: usize, length: usize) -> Self::Tensor<D>;
    /// Tensors one after the other along `dim`.
    fn cat<const D: usize>(parts: Vec<Self::Tensor<D>>, dim: usize) -> Self::Tensor<D>;
    /// `x · scale + offset`.
    fn affine<const D: usize>(x: Self::Tensor<D>, scale: f32, offset: f32) -> Self::Tensor<D>;
    /// See [`Unary`].
    fn unary<const D: usize>(x: Self::Tensor<D>, function: Unary) -> Self::Tensor<D>;
    /// See [`Binary`].
    fn binary<const D: usize>(a: Self::Tensor<D>, b: Self::Tensor<D>, function: Binary) -> Self::Tensor<D>;
    /// Sum along `dim`, which stays with size 1.
    fn sum<const D: usize>(x: Self::Tensor<D>, dim: usize) -> Self::Tensor<D>;
    /// Matrix product of the last two dimensions; leading ones are equal.
    fn matmul<const D: usize>(a: Self::Tensor<D>, b: Self::Tensor<D>) -> Self::Tensor<D>;
    /// Softmax along the last dimension, computed in f32.
    fn softmax<const D: usize>(x: Self::Tensor<D>) -> Self::Tensor<D>;
    /// Logarithm of the softmax along the last dimension, computed in f32.
    fn log_softmax<const D: usize>(x: Self::Tensor<D>) -> Self::Tensor<D>;
    /// Rows of a table: `[V, D]` and `n` row numbers to `[n, D]`.
    fn rows(table: Self::Tensor<2>, rows: &[u32]) -> Self::Tensor<2>;
    /// Zeros around a picture `[B, C, H, W]`: `[left, right, top, bottom]` pixels.
    fn pad(x: Self::Tensor<4>, sides: [usize; 4]) -> Self::Tensor<4>;
    /// Nearest-neighbour resize of `[B, C, H, W]` to `[height, width]`, each at least as large as before.
    fn upsample(x: Self::Tensor<4>, size: [usize; 2]) -> Self::Tensor<4>;

    /// Prepares a linear map: `weight` `[out, in]`, `bias` `[out]`.
    fn prepare_linear(weight: Parameter<Self>, bias: Option<Parameter<Self>>, device: &Self::Device) -> Self::Linear;
    /// `[…, in]` to `[…, out]`.
    fn linear<const D: usize>(x: Self::Tensor<D>, linear: &Self::Linear) -> Self::Tensor<D>;
    /// Prepares a convolution: `weight` `[out, in, k, k]`, `bias` `[out]`.
    fn prepare_conv2d(
        weight: Parameter<Self>,
        bias: Option<Parameter<Self>>,
        options: ConvOptions,
        device: &Self::Device,
    ) -> Self::Conv2d;
    /// `[B, in, H, W]` to `[B, out, H', W']`.
    fn conv2d(x: Self::Tensor<4>, conv: &Self::Conv2d) -> Self::Tensor<4>;

    /// Normalises the last dimension, computed in f32: `(x − mean) / √(variance + eps) · weight + bias`.
    fn layer_norm<const D: usize>(
        x: Self::Tensor<D>,
        weight: &Self::Tensor<1>,
        bias: &Self::Tensor<1>,
        eps: f32,
    ) -> Self::Tensor<D> {
        plain::layer_norm::<Self, D>(x, weight, bias, eps)
    }

    /// Normalises each group of channels of `[B, C, H, W]`, computed in f32, then applies `activation`.
    fn group_norm(
        x: Self::Tensor<4>,
        groups: usize,
        weight: &Self::Tensor<1>,
        bias: &Self::Tensor<1>,
        eps: f32,
        activation: Activation,
    ) -> Self::Tensor<4> {
        plain::group_norm::<Self>(x, groups, weight, bias, eps, activation)
    }

    /// GEGLU, arXiv 2002.05202: `x · gelu(gate)` of `[…, 2·n]`, x before gate, to `[…, n]`.
    fn geglu<const D: usize>(x: Self::Tensor<D>) -> Self::Tensor<D> {
        plain::geglu::<Self, D>(x)
    }

    /// Multi-head attention, `softmax(q·kᵀ / √(C / heads) + mask) · v`: `q` `[B, Tq, C]`, `k` and `v` `[B, Tk, C]` to
    /// `[B, Tq, C]`.
    fn attention(
        q: Self::Tensor<3>,
        k: Self::Tensor<3>,
        v: Self::Tensor<3>,
        heads: usize,
        mask: &Mask<Self>,
    ) -> Self::Tensor<3> {
        plain::attention::<Self>([q, k, v], heads, mask, usize::MAX)
    }

    /// `block(module, input)`. While training, an engine may drop what the block computes on its way, and compute it again
    /// where gradients need it (arXiv 1604.06174). A result that several blocks take is therefore
    /// [kept](Tensor::kept), so that the way to it is gone only once.
    fn checkpoint<M: Clone + 'static, I: Clone + 'static, const D: usize>(
        module: &M,
        input: I,
        block: fn(&M, I) -> Tensor<Self, D>,
    ) -> Tensor<Self, D> {
        block(module, input)
    }
}
