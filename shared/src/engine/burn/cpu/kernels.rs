//! The kernels of [`crate::engine::cpu`] on burn's tensors.

use ::burn::backend::TensorMetadata;

use super::{Array, Kernel};
use crate::engine::cpu::attention::{self, Visible};
use crate::engine::cpu::matrix::Matrix;
use crate::engine::cpu::{activation, conv, linear, norm};
use crate::engine::{Activation, ConvOptions, Unary};

/// An activation among [`Unary`]: of `[…]`, the same shape.
#[derive(Debug, Clone)]
pub struct Activate(pub Unary);

impl Kernel<1> for Activate {
    fn forward(&self, [x]: [&Array; 1]) -> (Array, Vec<f32>) {
        (x.like(activation::activate(self.0, x.data())), vec![])
    }

    fn backward(&self, [x]: [&Array; 1], _: &[f32], gradient: &Array, _: [bool; 1]) -> [Option<Array>; 1] {
        [Some(x.like(activation::activate_backward(self.0, x.data(), gradient.data())))]
    }
}

/// GEGLU of `[…, 2·n]` to `[…, n]`.
#[derive(Debug, Clone)]
pub struct Geglu;

impl Kernel<1> for Geglu {
    fn forward(&self, [x]: [&Array; 1]) -> (Array, Vec<f32>) {
        let n = x.last() / 2;
        (x.with_last(n, activation::geglu(x.data(), n)), vec![])
    }

    fn backward(&self, [x]: [&Array; 1], _: &[f32], gradient: &Array, _: [bool; 1]) -> [Option<Array>; 1] {
        [Some(x.like(activation::geglu_backward(x.data(), gradient.last(), gradient.data())))]
    }
}

/// `x · Wᵀ + b`: x `[…, in]`, W by its [`Rows`], b `[out]` to `[…, out]`.
#[derive(Debug, Clone)]
pub struct Linear(pub Rows);

/// What the rows of a linear map's weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// `[in, out]`, which is faster by far with few rows of x.
    Inputs,
    /// `[out, in]`, as it is stored.
    Outputs,
}

impl Linear {
    /// `[in, out]`
    fn weight<'a>(&self, weight: &'a Array) -> Matrix<'a> {
        let matrix = Matrix::new(weight.data(), weight.shape());
        match self.0 {
            Rows::Inputs => matrix,
            Rows::Outputs => matrix.transpose(),
        }
    }
}

impl Kernel<3> for Linear {
    fn forward(&self, [x, weight, bias]: [&Array; 3]) -> (Array, Vec<f32>) {
        let (x_rows, weight) = (x.rows(), self.weight(weight));
        let ([rows, _], [_, output]) = (x_rows.size(), weight.size());
        let mut y = vec![0.0; rows * output];
        linear::linear(x_rows, weight, Some(bias.data()), &mut y);
        (x.with_last(output, y), vec![])
    }

    fn backward(
        &self,
        [x, weight, bias]: [&Array; 3],
        _: &[f32],
        gradient: &Array,
        wanted: [bool; 3],
    ) -> [Option<Array>; 3] {
        let dy = gradient.rows();
        let dx = wanted[0].then(|| {
            let mut dx = vec![0.0; x.data().len()];
            linear::linear(dy, self.weight(weight).transpose(), None, &mut dx);
            x.like(dx)
        });
        let dweight = wanted[1].then(|| {
            weight.like(match self.0 {
                Rows::Inputs => linear::sum_of_outer_products(x.rows(), dy),
                Rows::Outputs => linear::sum_of_outer_products(dy, x.rows()),
            })
        });
        [dx, dweight, wanted[2].then(|| bias.like(linear::sum_rows(gradient.data(), gradient.last())))]
    }
}

/// A convolution of x `[B, in, H, W]` by weight `[out, in, k, k]` and bias `[out]`.
#[derive(Debug, Clone)]
pub struct Conv(pub ConvOptions);

impl Conv {
    fn sizes(&self, x: &Array, weight: &Array) -> conv::Conv {
        let [_, input, height, width] = x.shape();
        conv::Conv::new([input, height, width], weight.shape(), self.0)
    }
}

impl Kernel<3> for Conv {
    fn forward(&self, [x, weight, bias]: [&Array; 3]) -> (Array, Vec<f32>) {
        let sizes = self.sizes(x, weight);
        let ([batch, ..], [output, height, width]) = (x.shape::<4>(), sizes.shape_out());
        let y = sizes.forward(x.data(), weight.data(), Some(bias.data()));
        (Array::new(y, [batch, output, height, width]), vec![])
    }

    fn backward(
        &self,
        [x, weight, bias]: [&Array; 3],
        _: &[f32],
        gradient: &Array,
        wanted: [bool; 3],
    ) -> [Option<Array>; 3] {
        let [dx, dweight, dbias] = self.sizes(x, weight).backward(x.data(), weight.data(), gradient.data(), wanted);
        [dx.map(|dx| x.like(dx)), dweight.map(|dweight| weight.like(dweight)), dbias.map(|dbias| bias.like(dbias))]
    }
}

/// Layer normalisation of `[…, D]` by weight and bias `[D]`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    fn norm<'a>(&self, weight: &'a Array, bias: &'a Array) -> norm::LayerNorm<'a> {
        norm::LayerNorm { weight: weight.data(), bias: bias.data(), eps: self.eps }
    }
}

impl Kernel<3> for LayerNorm {
    fn forward(&self, [x, weight, bias]: [&Array; 3]) -> (Array, Vec<f32>) {
        let (y, statistics) = self.norm(weight, bias).forward(x.data());
        (x.like(y), statistics)
    }

    fn backward(
        &self,
        inputs @ [x, weight, bias]: [&Array; 3],
        statistics: &[f32],
        gradient: &Array,
        _: [bool; 3],
    ) -> [Option<Array>; 3] {
        like(inputs, self.norm(weight, bias).backward(x.data(), statistics, gradient.data()))
    }
}

/// Group normalisation of `[B, C, H, W]` by weight and bias `[C]`, then an activation.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// What follows.
    pub activation: Activation,
}

impl GroupNorm {
    fn norm<'a>(&self, x: &Array, weight: &'a Array, bias: &'a Array) -> norm::GroupNorm<'a> {
        let Self { groups, eps, activation } = *self;
        let [_, _, height, width] = x.shape();
        norm::GroupNorm { groups, weight: weight.data(), bias: bias.data(), pixels: height * width, eps, activation }
    }
}

impl Kernel<3> for GroupNorm {
    fn forward(&self, [x, weight, bias]: [&Array; 3]) -> (Array, Vec<f32>) {
        let (y, statistics) = self.norm(x, weight, bias).forward(x.data());
        (x.like(y), statistics)
    }

    fn backward(
        &self,
        inputs @ [x, weight, bias]: [&Array; 3],
        statistics: &[f32],
        gradient: &Array,
        _: [bool; 3],
    ) -> [Option<Array>; 3] {
        like(inputs, self.norm(x, weight, bias).backward(x.data(), statistics, gradient.data()))
    }
}

/// Multi-head attention of q `[B, Tq, C]`, k and v `[B, Tk, C]`, to `[B, Tq, C]`.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Which keys a query sees.
    pub visible: Visible,
}

impl Attention {
    fn sizes(&self, q: &Array, k: &Array) -> attention::Attention<'_> {
        let ([batch, queries, channels], [_, keys, _]) = (q.shape(), k.shape());
        let Self { heads, ref visible } = *self;
        attention::Attention { batch, queries, keys, heads, width: channels / heads, visible }
    }
}

impl Kernel<3> for Attention {
    fn forward(&self, inputs @ [q, k, _]: [&Array; 3]) -> (Array, Vec<f32>) {
        let (y, normalizers) = self.sizes(q, k).forward(inputs.map(Array::data));
        (q.like(y), normalizers)
    }

    fn backward(
        &self,
        inputs @ [q, k, _]: [&Array; 3],
        normalizers: &[f32],
        gradient: &Array,
        _: [bool; 3],
    ) -> [Option<Array>; 3] {
        like(inputs, self.sizes(q, k).backward(inputs.map(Array::data), normalizers, gradient.data()))
    }
}

/// The derivative with respect to each input.
fn like(inputs: [&Array; 3], derivatives: [Vec<f32>; 3]) -> [Option<Array>; 3] {
    let mut derivatives = derivatives.into_iter();
    inputs.map(|input| derivatives.next().map(|derivative| input.like(derivative)))
}

impl Array {
    /// The size of the last dimension.
    fn last(&self) -> usize {
        let shape = self.0.shape();
        shape[shape.num_dims() - 1]
    }

    /// The rows that the last dimension runs along.
    pub(super) fn rows(&self) -> Matrix<'_> {
        let columns = self.last();
        Matrix::new(self.data(), [self.data().len() / columns, columns])
    }

    /// This shape with another last dimension.
    pub(super) fn with_last(&self, size: usize, data: Vec<f32>) -> Self {
        let mut shape = self.0.shape();
        let last = shape.num_dims() - 1;
        shape[last] = size;
        Self::new(data, shape)
    }
}
