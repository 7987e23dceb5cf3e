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
use std::ops;

use crate::weights::Parameter;

#[cfg(feature = "burn")]
pub mod burn;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(any(feature = "burn", feature = "candle"))]
mod cpu;

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
        plain::attention::<Self>(q, k, v, heads, mask)
    }
}

/// A tensor of engine `E` and rank `D`.
#[derive(Debug, Clone)]
pub struct Tensor<E: Engine, const D: usize>(pub E::Tensor<D>);

impl<E: Engine, const D: usize> Tensor<E, D> {
    /// A tensor from row-major numbers.
    ///
    /// # Panics
    /// If `data` does not have as many numbers as `shape`.
    pub fn from_host(data: Vec<f32>, shape: [usize; D], device: &E::Device) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "{} numbers for shape {shape:?}", data.len());
        Self(E::from_host(data, shape, device))
    }

    /// All zeros.
    pub fn zeros(shape: [usize; D], device: &E::Device) -> Self {
        Self::from_host(vec![0.0; shape.iter().product()], shape, device)
    }

    /// The numbers, row-major, and whatever went wrong while they were computed.
    pub async fn to_host(&self) -> Result<Vec<f32>, EngineError> {
        E::to_host(self.0.clone()).await
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> [usize; D] {
        E::shape(&self.0)
    }

    /// The device the tensor is on.
    pub fn device(&self) -> E::Device {
        E::device(&self.0)
    }

    /// The same numbers in another shape.
    pub fn reshape<const D2: usize>(self, shape: [usize; D2]) -> Tensor<E, D2> {
        Tensor(E::reshape(self.0, shape))
    }

    /// Dimension `i` of the result is dimension `axes[i]` of this.
    pub fn permute(self, axes: [usize; D]) -> Self {
        Self(E::permute(self.0, axes))
    }

    /// `length` entries of dimension `dim` from `start` on.
    pub fn narrow(self, dim: usize, start: usize, length: usize) -> Self {
        Self(E::narrow(self.0, dim, start, length))
    }

    /// `n` equal parts of dimension `dim`.
    pub fn chunk<const N: usize>(self, dim: usize) -> [Self; N] {
        let length = self.shape()[dim] / N;
        std::array::from_fn(|i| self.clone().narrow(dim, i * length, length))
    }

    /// Tensors one after the other along `dim`.
    pub fn cat(parts: Vec<Self>, dim: usize) -> Self {
        Self(E::cat(parts.into_iter().map(|part| part.0).collect(), dim))
    }

    /// The first dimension, of size 1, repeated `n` times.
    pub fn repeat_batch(self, n: usize) -> Self {
        Self::cat(vec![self; n], 0)
    }

    /// `x · scale + offset`.
    pub fn affine(self, scale: f32, offset: f32) -> Self {
        Self(E::affine(self.0, scale, offset))
    }

    /// See [`Unary`].
    pub fn map(self, function: Unary) -> Self {
        Self(E::unary(self.0, function))
    }

    /// See [`Unary::Silu`].
    pub fn silu(self) -> Self {
        self.map(Unary::Silu)
    }

    /// `x · gelu(gate)` of the two halves of the last dimension.
    pub fn geglu(self) -> Self {
        Self(E::geglu(self.0))
    }

    /// See [`Unary::Gelu`].
    pub fn gelu(self) -> Self {
        self.map(Unary::Gelu)
    }

    /// Sum along `dim`, which stays with size 1.
    pub fn sum(self, dim: usize) -> Self {
        Self(E::sum(self.0, dim))
    }

    /// Mean along `dim`, which stays with size 1.
    pub fn mean(self, dim: usize) -> Self {
        let n = self.shape()[dim] as f32;
        self.sum(dim).affine(1.0 / n, 0.0)
    }

    /// Mean of all numbers, as a tensor of one number.
    pub fn mean_all(self) -> Tensor<E, 1> {
        let n = self.shape().iter().product();
        self.reshape([n]).mean(0)
    }

    /// Matrix product of the last two dimensions; leading ones are equal.
    pub fn matmul(self, other: Self) -> Self {
        Self(E::matmul(self.0, other.0))
    }

    /// Softmax along the last dimension.
    pub fn softmax(self) -> Self {
        Self(E::softmax(self.0))
    }

    /// Logarithm of the softmax along the last dimension.
    pub fn log_softmax(self) -> Self {
        Self(E::log_softmax(self.0))
    }
}

impl<E: Engine> Tensor<E, 2> {
    /// Rows of this table `[V, D]`: `[n, D]`.
    pub fn rows(self, rows: &[u32]) -> Self {
        Self(E::rows(self.0, rows))
    }
}

impl<E: Engine> Tensor<E, 4> {
    /// Zeros around a picture: `[left, right, top, bottom]` pixels.
    pub fn pad(self, sides: [usize; 4]) -> Self {
        Self(E::pad(self.0, sides))
    }

    /// Nearest-neighbour resize to `[height, width]`.
    pub fn upsample(self, size: [usize; 2]) -> Self {
        Self(E::upsample(self.0, size))
    }
}

/// [`Engine::attention`] on wrapped tensors.
pub fn attention<E: Engine>(
    q: Tensor<E, 3>,
    k: Tensor<E, 3>,
    v: Tensor<E, 3>,
    heads: usize,
    mask: &Mask<E>,
) -> Tensor<E, 3> {
    Tensor(E::attention(q.0, k.0, v.0, heads, mask))
}

macro_rules! operator {
    ($trait:ident, $method:ident, $function:ident) => {
        impl<E: Engine, const D: usize> ops::$trait for Tensor<E, D> {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                Self(E::binary(self.0, other.0, Binary::$function))
            }
        }
    };
}
operator!(Add, add, Add);
operator!(Sub, sub, Sub);
operator!(Mul, mul, Mul);
operator!(Div, div, Div);

/// The fused operations in terms of the plain ones.
pub mod plain {
    use super::{Activation, Engine, Mask, Tensor, Unary};

    /// See [`Engine::layer_norm`].
    pub fn layer_norm<E: Engine, const D: usize>(
        x: E::Tensor<D>,
        weight: &E::Tensor<1>,
        bias: &E::Tensor<1>,
        eps: f32,
    ) -> E::Tensor<D> {
        let x = Tensor::<E, D>(x);
        let mut last = [1; D];
        last[D - 1] = x.shape()[D - 1];
        let weight = Tensor::<E, 1>(weight.clone()).reshape(last);
        let bias = Tensor::<E, 1>(bias.clone()).reshape(last);
        (standardize(x, D - 1, eps) * weight + bias).0
    }

    /// See [`Engine::group_norm`].
    pub fn group_norm<E: Engine>(
        x: E::Tensor<4>,
        groups: usize,
        weight: &E::Tensor<1>,
        bias: &E::Tensor<1>,
        eps: f32,
        activation: Activation,
    ) -> E::Tensor<4> {
        let x = Tensor::<E, 4>(x);
        let [b, c, h, w] = x.shape();
        let x = standardize(x.reshape([b, groups, c / groups * h * w]), 2, eps).reshape([b, c, h, w]);
        let weight = Tensor::<E, 1>(weight.clone()).reshape([1, c, 1, 1]);
        let bias = Tensor::<E, 1>(bias.clone()).reshape([1, c, 1, 1]);
        let x = x * weight + bias;
        match activation {
            Activation::None => x.0,
            Activation::Silu => x.silu().0,
        }
    }

    /// Mean 0 and variance 1 along `dim`.
    fn standardize<E: Engine, const D: usize>(x: Tensor<E, D>, dim: usize, eps: f32) -> Tensor<E, D> {
        let centred = x.clone() - x.mean(dim);
        let variance = (centred.clone() * centred.clone()).mean(dim);
        centred / variance.affine(1.0, eps).map(Unary::Sqrt)
    }

    /// See [`Engine::geglu`].
    pub fn geglu<E: Engine, const D: usize>(x: E::Tensor<D>) -> E::Tensor<D> {
        let [x, gate] = Tensor::<E, D>(x).chunk(D - 1);
        (x * gate.gelu()).0
    }

    /// See [`Engine::attention`].
    pub fn attention<E: Engine>(
        q: E::Tensor<3>,
        k: E::Tensor<3>,
        v: E::Tensor<3>,
        heads: usize,
        mask: &Mask<E>,
    ) -> E::Tensor<3> {
        let q = Tensor::<E, 3>(q);
        let [b, tq, c] = q.shape();
        let tk = Tensor::<E, 3>(k.clone()).shape()[1];
        let split = |x: Tensor<E, 3>, t| {
            let x = x.reshape([b, t, heads, c / heads]).permute([0, 2, 1, 3]);
            x.reshape([b * heads, t, c / heads]) // [B·heads, T, C/heads]
        };
        let device = q.device();
        let q = split(q.affine(((c / heads) as f32).sqrt().recip(), 0.0), tq);
        let (k, v) = (split(Tensor(k), tk), split(Tensor(v), tk));
        let scores = q.matmul(k.permute([0, 2, 1])); // [B·heads, Tq, Tk]
        let scores = match mask {
            Mask::None => scores,
            Mask::Causal => {
                let hidden = (0..tq * tk).map(|i| if i % tk > i / tk { Mask::<E>::HIDDEN } else { 0.0 });
                scores + Tensor::from_host(hidden.collect(), [1, tq, tk], &device)
            }
            Mask::Keys(keys) => {
                let scores = scores.reshape([b, heads, tq, tk]) + keys.clone().reshape([b, 1, 1, tk]);
                scores.reshape([b * heads, tq, tk])
            }
        };
        let x = scores.softmax().matmul(v).reshape([b, heads, tq, c / heads]);
        x.permute([0, 2, 1, 3]).reshape([b, tq, c]).0
    }
}
