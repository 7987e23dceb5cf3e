//! Tensors with their methods and operators.

use std::ops;

use super::{Binary, Engine, EngineError, Mask, Unary};

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

    /// The same, where several blocks will take it: see [`Engine::checkpoint`].
    pub fn kept(self) -> Self {
        E::checkpoint(&(), self, |(), x| x)
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
