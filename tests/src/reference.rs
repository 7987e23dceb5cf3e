//! An engine of plain loops in f64, each operation by its definition: slow, and what the fast ones are held against.

use std::array::from_fn;

use kosmosg::engine::{Activation, Binary, ConvOptions, Engine, EngineError, Mask, Unary};
use kosmosg::weights::Parameter;

/// The engine.
#[derive(Debug, Clone)]
pub struct Reference;

/// Numbers, row-major.
#[derive(Debug, Clone)]
pub struct Numbers<const D: usize> {
    shape: [usize; D],
    data: Vec<f64>,
}

/// A weight `[out, …]` and a bias `[out]`.
#[derive(Debug, Clone)]
pub struct Affine<const D: usize> {
    weight: Numbers<D>,
    bias: Option<Numbers<1>>,
}

impl<const D: usize> Numbers<D> {
    /// The tensor whose number at each place `entry` says.
    fn build(shape: [usize; D], entry: impl Fn([usize; D]) -> f64) -> Self {
        let place = |mut i: usize| {
            let mut at = [0; D];
            for dim in (0..D).rev() {
                at[dim] = i % shape[dim];
                i /= shape[dim];
            }
            at
        };
        Self { shape, data: (0..shape.iter().product()).map(|i| entry(place(i))).collect() }
    }

    /// The numbers, row-major.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// The numbers, row-major, to be changed.
    pub fn data_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    fn at(&self, place: [usize; D]) -> f64 {
        let flat = (0..D).fold(0, |flat, dim| {
            assert!(place[dim] < self.shape[dim], "{place:?} is outside {:?}", self.shape);
            flat * self.shape[dim] + place[dim]
        });
        self.data[flat]
    }

    /// The numbers along `dim` through `place`.
    fn along(&self, dim: usize, place: [usize; D]) -> impl Iterator<Item = f64> {
        (0..self.shape[dim]).map(move |i| self.at(with(place, dim, i)))
    }
}

impl Engine for Reference {
    type Tensor<const D: usize> = Numbers<D>;
    type Device = ();
    type Linear = Affine<2>;
    type Conv2d = (Affine<4>, ConvOptions);

    const NAME: &'static str = "reference";

    fn from_host<const D: usize>(data: Vec<f32>, shape: [usize; D], _: &()) -> Numbers<D> {
        Numbers { shape, data: data.into_iter().map(f64::from).collect() }
    }

    async fn to_host<const D: usize>(x: Numbers<D>) -> Result<Vec<f32>, EngineError> {
        Ok(x.data.into_iter().map(|x| x as f32).collect())
    }

    fn dense<const D: usize>(parameter: Parameter<Self>, shape: [usize; D], _: &()) -> Numbers<D> {
        match parameter {
            Parameter::Host(tensor) => Self::from_host(tensor.to_f32(), shape, &()),
            Parameter::Device(tensor, _) => Self::reshape(tensor, shape),
        }
    }

    fn shape<const D: usize>(x: &Numbers<D>) -> [usize; D] {
        x.shape
    }

    fn device<const D: usize>(_: &Numbers<D>) {}

    fn reshape<const D: usize, const D2: usize>(x: Numbers<D>, shape: [usize; D2]) -> Numbers<D2> {
        assert_eq!(x.data.len(), shape.iter().product::<usize>(), "{:?} reshaped to {shape:?}", x.shape);
        Numbers { shape, data: x.data }
    }

    fn permute<const D: usize>(x: Numbers<D>, axes: [usize; D]) -> Numbers<D> {
        Numbers::build(axes.map(|axis| x.shape[axis]), |place| {
            let mut source = [0; D];
            (0..D).for_each(|dim| source[axes[dim]] = place[dim]);
            x.at(source)
        })
    }

    fn narrow<const D: usize>(x: Numbers<D>, dim: usize, start: usize, length: usize) -> Numbers<D> {
        Numbers::build(with(x.shape, dim, length), |place| x.at(with(place, dim, start + place[dim])))
    }

    fn cat<const D: usize>(parts: Vec<Numbers<D>>, dim: usize) -> Numbers<D> {
        let length = parts.iter().map(|part| part.shape[dim]).sum();
        Numbers::build(with(parts[0].shape, dim, length), |place| {
            let (mut i, mut part) = (place[dim], 0);
            while i >= parts[part].shape[dim] {
                i -= parts[part].shape[dim];
                part += 1;
            }
            parts[part].at(with(place, dim, i))
        })
    }

    fn affine<const D: usize>(x: Numbers<D>, scale: f32, offset: f32) -> Numbers<D> {
        Numbers::build(x.shape, |place| x.at(place) * f64::from(scale) + f64::from(offset))
    }

    fn unary<const D: usize>(x: Numbers<D>, function: Unary) -> Numbers<D> {
        Numbers::build(x.shape, |place| {
            let x = x.at(place);
            match function {
                Unary::Exp => x.exp(),
                Unary::Log => x.ln(),
                Unary::Sqrt => x.sqrt(),
                Unary::Silu => x / (1.0 + (-x).exp()),
                Unary::Gelu => x * libm::erfc(-x / 2f64.sqrt()) / 2.0,
                Unary::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            }
        })
    }

    fn binary<const D: usize>(a: Numbers<D>, b: Numbers<D>, function: Binary) -> Numbers<D> {
        let entry =
            |x: &Numbers<D>, place: [usize; D]| x.at(from_fn(|dim| place[dim] * usize::from(x.shape[dim] != 1)));
        Numbers::build(from_fn(|dim| if a.shape[dim] == 1 { b.shape[dim] } else { a.shape[dim] }), |place| {
            let (a, b) = (entry(&a, place), entry(&b, place));
            match function {
                Binary::Add => a + b,
                Binary::Sub => a - b,
                Binary::Mul => a * b,
                Binary::Div => a / b,
            }
        })
    }

    fn sum<const D: usize>(x: Numbers<D>, dim: usize) -> Numbers<D> {
        Numbers::build(with(x.shape, dim, 1), |place| x.along(dim, place).sum())
    }

    fn matmul<const D: usize>(a: Numbers<D>, b: Numbers<D>) -> Numbers<D> {
        Numbers::build(with(a.shape, D - 1, b.shape[D - 1]), |place| {
            a.along(D - 1, place).zip(b.along(D - 2, place)).map(|(a, b)| a * b).sum()
        })
    }

    fn softmax<const D: usize>(x: Numbers<D>) -> Numbers<D> {
        let log = Self::log_softmax(x);
        Numbers::build(log.shape, |place| log.at(place).exp())
    }

    fn log_softmax<const D: usize>(x: Numbers<D>) -> Numbers<D> {
        let log_sum = Numbers::build(with(x.shape, D - 1, 1), |place| {
            let max = x.along(D - 1, place).fold(f64::NEG_INFINITY, f64::max);
            max + x.along(D - 1, place).map(|x| (x - max).exp()).sum::<f64>().ln()
        });
        Numbers::build(x.shape, |place| x.at(place) - log_sum.at(with(place, D - 1, 0)))
    }

    fn rows(table: Numbers<2>, rows: &[u32]) -> Numbers<2> {
        Numbers::build([rows.len(), table.shape[1]], |[i, j]| table.at([rows[i] as usize, j]))
    }

    fn pad(x: Numbers<4>, [left, right, top, bottom]: [usize; 4]) -> Numbers<4> {
        let [b, c, h, w] = x.shape;
        Numbers::build([b, c, top + h + bottom, left + w + right], |[b, c, i, j]| {
            let inside = (top..top + h).contains(&i) && (left..left + w).contains(&j);
            if inside { x.at([b, c, i - top, j - left]) } else { 0.0 }
        })
    }

    fn upsample(x: Numbers<4>, [height, width]: [usize; 2]) -> Numbers<4> {
        let [b, c, h, w] = x.shape;
        Numbers::build([b, c, height, width], |[b, c, i, j]| x.at([b, c, i * h / height, j * w / width]))
    }

    fn prepare_linear(weight: Parameter<Self>, bias: Option<Parameter<Self>>, _: &()) -> Affine<2> {
        prepare(weight, bias)
    }

    fn linear<const D: usize>(x: Numbers<D>, Affine { weight, bias }: &Affine<2>) -> Numbers<D> {
        Numbers::build(with(x.shape, D - 1, weight.shape[0]), |place| {
            let out = place[D - 1];
            let product = x.along(D - 1, place).zip(weight.along(1, [out, 0])).map(|(x, w)| x * w);
            product.sum::<f64>() + bias.as_ref().map_or(0.0, |bias| bias.at([out]))
        })
    }

    fn prepare_conv2d(
        weight: Parameter<Self>,
        bias: Option<Parameter<Self>>,
        options: ConvOptions,
        _: &(),
    ) -> (Affine<4>, ConvOptions) {
        (prepare(weight, bias), options)
    }

    fn conv2d(x: Numbers<4>, (Affine { weight, bias }, options): &(Affine<4>, ConvOptions)) -> Numbers<4> {
        let ConvOptions { stride, padding } = *options;
        let x = Self::pad(x, [padding; 4]);
        let [b, c, h, w] = x.shape;
        let [out, _, k, _] = weight.shape;
        Numbers::build([b, out, (h - k) / stride + 1, (w - k) / stride + 1], |[b, out, i, j]| {
            let mut sum = bias.as_ref().map_or(0.0, |bias| bias.at([out]));
            for (c, di, dj) in places([c, k, k]) {
                sum += x.at([b, c, i * stride + di, j * stride + dj]) * weight.at([out, c, di, dj]);
            }
            sum
        })
    }

    fn layer_norm<const D: usize>(x: Numbers<D>, weight: &Numbers<1>, bias: &Numbers<1>, eps: f32) -> Numbers<D> {
        let moments = |place| moments(x.along(D - 1, place), eps);
        let [mean, deviation] = [0, 1].map(|i| Numbers::build(with(x.shape, D - 1, 1), |place| moments(place)[i]));
        Numbers::build(x.shape, |place| {
            let (row, i) = (with(place, D - 1, 0), [place[D - 1]]);
            (x.at(place) - mean.at(row)) / deviation.at(row) * weight.at(i) + bias.at(i)
        })
    }

    fn group_norm(
        x: Numbers<4>,
        groups: usize,
        weight: &Numbers<1>,
        bias: &Numbers<1>,
        eps: f32,
        activation: Activation,
    ) -> Numbers<4> {
        let [b, channels, h, w] = x.shape;
        let size = channels / groups;
        let moments = |[b, group]: [usize; 2]| {
            moments(places([size, h, w]).map(|(c, i, j)| x.at([b, group * size + c, i, j])), eps)
        };
        let [mean, deviation] = [0, 1].map(|i| Numbers::build([b, groups], |group| moments(group)[i]));
        let y = Numbers::build(x.shape, |place @ [b, c, _, _]| {
            let group = [b, c / size];
            (x.at(place) - mean.at(group)) / deviation.at(group) * weight.at([c]) + bias.at([c])
        });
        match activation {
            Activation::None => y,
            Activation::Silu => Self::unary(y, Unary::Silu),
        }
    }

    fn geglu<const D: usize>(x: Numbers<D>) -> Numbers<D> {
        let half = x.shape[D - 1] / 2;
        Numbers::build(with(x.shape, D - 1, half), |place| {
            let gate = x.at(with(place, D - 1, half + place[D - 1]));
            x.at(place) * gate * libm::erfc(-gate / 2f64.sqrt()) / 2.0
        })
    }

    fn attention(q: Numbers<3>, k: Numbers<3>, v: Numbers<3>, heads: usize, mask: &Mask<Self>) -> Numbers<3> {
        let [b, queries, channels] = q.shape;
        let keys = k.shape[1];
        let width = channels / heads;
        let scores = Numbers::build([b, heads, queries, keys], |[b, head, query, key]| {
            let hidden = match mask {
                Mask::None => 0.0,
                Mask::Causal if key > query => f64::NEG_INFINITY,
                Mask::Causal => 0.0,
                Mask::Keys(scores) => scores.0.at([b, key]),
            };
            let product = |c| q.at([b, query, c]) * k.at([b, key, c]);
            (head * width..(head + 1) * width).map(product).sum::<f64>() / (width as f64).sqrt() + hidden
        });
        let weights = Self::softmax(scores);
        Numbers::build(q.shape, |[b, query, c]| {
            (0..keys).map(|key| weights.at([b, c / width, query, key]) * v.at([b, key, c])).sum()
        })
    }
}

fn prepare<const D: usize>(weight: Parameter<Reference>, bias: Option<Parameter<Reference>>) -> Affine<D> {
    let shape = from_fn(|dim| weight.shape()[dim]);
    let bias = bias.map(|bias| Reference::dense(bias, [shape[0]], &()));
    Affine { weight: Reference::dense(weight, shape, &()), bias }
}

/// Mean, and √(variance + eps).
fn moments(x: impl Iterator<Item = f64>, eps: f32) -> [f64; 2] {
    let x: Vec<f64> = x.collect();
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    [mean, (variance + f64::from(eps)).sqrt()]
}

fn places([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

fn with<const D: usize>(mut place: [usize; D], dim: usize, i: usize) -> [usize; D] {
    place[dim] = i;
    place
}
