//! Plain loops in f64: the slowest engine there is, and the one that the others are measured by.

use crate::engine::{Binary, ConvOptions, Engine, EngineError, Unary};
use crate::weights::Parameter;

#[derive(Debug, Clone)]
pub struct Reference;

#[derive(Debug, Clone)]
pub struct Array<const D: usize> {
    pub data: Vec<f64>,
    pub shape: [usize; D],
}

impl<const D: usize> Array<D> {
    fn new(shape: [usize; D], number: impl FnMut([usize; D]) -> f64) -> Self {
        Self { data: indices(shape).map(number).collect(), shape }
    }

    fn at(&self, index: [usize; D]) -> f64 {
        self.data[(0..D).fold(0, |flat, d| flat * self.shape[d] + index[d])]
    }

    /// Along the last dimension.
    fn map_rows(mut self, f: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        let n = self.shape[D - 1];
        self.data.chunks_mut(n).for_each(|row| row.copy_from_slice(&f(row)));
        self
    }
}

/// All indices of a shape, the last running fastest.
fn indices<const D: usize>(shape: [usize; D]) -> impl Iterator<Item = [usize; D]> {
    (0..shape.iter().product()).map(move |flat: usize| {
        let (mut index, mut rest) = ([0; D], flat);
        for d in (0..D).rev() {
            index[d] = rest % shape[d];
            rest /= shape[d];
        }
        index
    })
}

fn unary(x: f64, function: Unary) -> f64 {
    match function {
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Gelu => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        Unary::QuickGelu => x / (1.0 + (-1.702f32 as f64 * x).exp()),
    }
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln() + largest;
    row.iter().map(|x| x - log_sum).collect()
}

impl Engine for Reference {
    type Tensor<const D: usize> = Array<D>;
    type Device = ();
    type Linear = (Array<2>, Option<Array<1>>);
    type Conv2d = (Array<4>, Option<Array<1>>, ConvOptions);

    const NAME: &'static str = "reference";

    fn from_host<const D: usize>(data: Vec<f32>, shape: [usize; D], _: &()) -> Array<D> {
        Array { data: data.into_iter().map(f64::from).collect(), shape }
    }

    async fn to_host<const D: usize>(x: Array<D>) -> Result<Vec<f32>, EngineError> {
        Ok(x.data.into_iter().map(|x| x as f32).collect())
    }

    fn dense<const D: usize>(parameter: Parameter<Self>, shape: [usize; D], device: &()) -> Array<D> {
        match parameter {
            Parameter::Host(tensor) => Self::from_host(tensor.to_f32(), shape, device),
            Parameter::Device(flat, _) => Self::reshape(flat, shape),
        }
    }

    fn shape<const D: usize>(x: &Array<D>) -> [usize; D] {
        x.shape
    }

    fn device<const D: usize>(_: &Array<D>) {}

    fn reshape<const D: usize, const D2: usize>(x: Array<D>, shape: [usize; D2]) -> Array<D2> {
        assert_eq!(x.data.len(), shape.iter().product::<usize>());
        Array { data: x.data, shape }
    }

    fn permute<const D: usize>(x: Array<D>, axes: [usize; D]) -> Array<D> {
        Array::new(axes.map(|axis| x.shape[axis]), |index| {
            let mut source = [0; D];
            (0..D).for_each(|d| source[axes[d]] = index[d]);
            x.at(source)
        })
    }

    fn narrow<const D: usize>(x: Array<D>, dim: usize, start: usize, length: usize) -> Array<D> {
        let mut shape = x.shape;
        shape[dim] = length;
        Array::new(shape, |mut index| {
            index[dim] += start;
            x.at(index)
        })
    }

    fn cat<const D: usize>(parts: Vec<Array<D>>, dim: usize) -> Array<D> {
        let mut shape = parts[0].shape;
        shape[dim] = parts.iter().map(|part| part.shape[dim]).sum();
        Array::new(shape, |mut index| {
            let mut parts = parts.iter();
            let mut part = parts.next().unwrap();
            while index[dim] >= part.shape[dim] {
                index[dim] -= part.shape[dim];
                part = parts.next().unwrap();
            }
            part.at(index)
        })
    }

    fn affine<const D: usize>(mut x: Array<D>, scale: f32, offset: f32) -> Array<D> {
        x.data.iter_mut().for_each(|x| *x = *x * f64::from(scale) + f64::from(offset));
        x
    }

    fn unary<const D: usize>(mut x: Array<D>, function: Unary) -> Array<D> {
        x.data.iter_mut().for_each(|x| *x = unary(*x, function));
        x
    }

    fn binary<const D: usize>(a: Array<D>, b: Array<D>, function: Binary) -> Array<D> {
        let shape: [usize; D] = std::array::from_fn(|d| a.shape[d].max(b.shape[d]));
        Array::new(shape, |index| {
            let repeated = |x: &Array<D>| x.at(std::array::from_fn(|d| index[d] % x.shape[d]));
            match function {
                Binary::Add => repeated(&a) + repeated(&b),
                Binary::Sub => repeated(&a) - repeated(&b),
                Binary::Mul => repeated(&a) * repeated(&b),
                Binary::Div => repeated(&a) / repeated(&b),
            }
        })
    }

    fn sum<const D: usize>(x: Array<D>, dim: usize) -> Array<D> {
        let mut shape = x.shape;
        shape[dim] = 1;
        Array::new(shape, |mut index| {
            (0..x.shape[dim])
                .map(|i| {
                    index[dim] = i;
                    x.at(index)
                })
                .sum()
        })
    }

    fn matmul<const D: usize>(a: Array<D>, b: Array<D>) -> Array<D> {
        let mut shape = a.shape;
        shape[D - 1] = b.shape[D - 1];
        Array::new(shape, |index| {
            let (mut left, mut right) = (index, index);
            (0..a.shape[D - 1])
                .map(|k| {
                    (left[D - 1], right[D - 2]) = (k, k);
                    a.at(left) * b.at(right)
                })
                .sum()
        })
    }

    fn softmax<const D: usize>(x: Array<D>) -> Array<D> {
        x.map_rows(|row| log_softmax(row).into_iter().map(f64::exp).collect())
    }

    fn log_softmax<const D: usize>(x: Array<D>) -> Array<D> {
        x.map_rows(log_softmax)
    }

    fn rows(table: Array<2>, rows: &[u32]) -> Array<2> {
        Array::new([rows.len(), table.shape[1]], |[i, j]| table.at([rows[i] as usize, j]))
    }

    fn pad(x: Array<4>, [left, right, top, bottom]: [usize; 4]) -> Array<4> {
        let [b, c, h, w] = x.shape;
        Array::new([b, c, top + h + bottom, left + w + right], |[b, c, i, j]| {
            let inside = (top..top + h).contains(&i) && (left..left + w).contains(&j);
            if inside { x.at([b, c, i - top, j - left]) } else { 0.0 }
        })
    }

    fn upsample(x: Array<4>, [height, width]: [usize; 2]) -> Array<4> {
        let [b, c, h, w] = x.shape;
        Array::new([b, c, height, width], |[b, c, i, j]| x.at([b, c, i * h / height, j * w / width]))
    }

    fn prepare_linear(weight: Parameter<Self>, bias: Option<Parameter<Self>>, device: &()) -> Self::Linear {
        let shape = [weight.shape()[0], weight.shape()[1]];
        (Self::dense(weight, shape, device), bias.map(|bias| Self::dense(bias, [shape[0]], device)))
    }

    fn linear<const D: usize>(x: Array<D>, (weight, bias): &Self::Linear) -> Array<D> {
        let mut shape = x.shape;
        shape[D - 1] = weight.shape[0];
        Array::new(shape, |mut index| {
            let output = index[D - 1];
            let products = (0..weight.shape[1]).map(|k| {
                index[D - 1] = k;
                x.at(index) * weight.at([output, k])
            });
            products.sum::<f64>() + bias.as_ref().map_or(0.0, |bias| bias.at([output]))
        })
    }

    fn prepare_conv2d(
        weight: Parameter<Self>,
        bias: Option<Parameter<Self>>,
        options: ConvOptions,
        device: &(),
    ) -> Self::Conv2d {
        let shape = std::array::from_fn(|d| weight.shape()[d]);
        (Self::dense(weight, shape, device), bias.map(|bias| Self::dense(bias, [shape[0]], device)), options)
    }

    fn conv2d(x: Array<4>, (weight, bias, options): &Self::Conv2d) -> Array<4> {
        let &ConvOptions { stride, padding } = options;
        let x = Self::pad(x, [padding; 4]);
        let ([b, _, h, w], [output, input, k, _]) = (x.shape, weight.shape);
        Array::new([b, output, (h - k) / stride + 1, (w - k) / stride + 1], |[b, o, i, j]| {
            let taps = indices([input, k, k]);
            let products = taps.map(|[c, y, z]| x.at([b, c, i * stride + y, j * stride + z]) * weight.at([o, c, y, z]));
            products.sum::<f64>() + bias.as_ref().map_or(0.0, |bias| bias.at([o]))
        })
    }
}
