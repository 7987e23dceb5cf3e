//! Every operation of every engine against the reference, on random shapes and layouts.

use std::fmt::Display;

use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::engine::{Activation, ConvOptions, Engine, EngineError, Mask, Tensor, Unary, attention};
use kosmosg::noise::Rng;
use kosmosg::weights::{DType, HostTensor, Parameter};
use kosmosg_tests::reference::Reference;

/// Largest relative L2 error of an operation in f32.
const TOLERANCE: f64 = 1e-5;
/// Largest relative L2 error of an operation in f16, which has 11 bits.
const TOLERANCE_F16: f64 = 2e-3;

#[test]
fn candle_on_the_cpu() {
    check_operations::<Candle>(CandleDevice::cpu());
}

#[test]
fn candle_as_on_cuda() {
    check_operations::<Candle>(CandleDevice::cpu_like_cuda());
}

#[test]
fn burn_on_the_cpu() {
    check_operations::<Burn>(BurnDevice::cpu());
}

fn check_operations<E: Engine>(device: E::Device) {
    let found = run_operations::<E>(device);
    let expected = run_operations::<Reference>(());
    assert!(found.len() > 400 && found.len() == expected.len(), "{} and {} results", found.len(), expected.len());
    let failures: Vec<_> = found.iter().zip(&expected).filter_map(|(a, b)| a.difference(b, TOLERANCE)).collect();
    assert!(failures.is_empty(), "{} of {} on {}:\n{}", failures.len(), found.len(), E::NAME, failures.join("\n"));
}

/// One operation's result.
struct Outcome {
    operation: String,
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

impl Outcome {
    /// In words how far this is from what is expected, if it is too far.
    fn difference(&self, expected: &Outcome, tolerance: f64) -> Option<String> {
        assert_eq!(self.operation, expected.operation, "both engines run the same operations");
        if self.shape != expected.shape {
            return Some(format!("{}: shape {:?}, expected {:?}", self.operation, self.shape, expected.shape));
        }
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error: f64 = self.numbers.iter().zip(&expected.numbers).map(|(a, b)| square(a - b)).sum();
        let norm: f64 = expected.numbers.iter().map(|&x| square(x)).sum();
        let relative = (error / norm.max(f64::MIN_POSITIVE)).sqrt();
        // A NaN is too far as well.
        let close = relative <= tolerance;
        (!close).then(|| format!("{} to {:?}: relative error {relative:.2e}", self.operation, self.shape))
    }
}

/// All operations on the inputs that a seed gives, the same for every engine.
fn run_operations<E: Engine>(device: E::Device) -> Vec<Outcome> {
    let mut bench = Bench::<E> { device, rng: Rng::new(7, 0), outcomes: Vec::new() };
    for _ in 0..6 {
        bench.layouts();
        bench.elementwise();
        bench.rows_and_products();
        bench.linear();
        bench.norms();
        bench.pictures();
        bench.attention();
    }
    bench.large();
    bench.extremes();
    bench.outcomes
}

/// Draws inputs and records results.
struct Bench<E: Engine> {
    device: E::Device,
    rng: Rng,
    outcomes: Vec<Outcome>,
}

impl<E: Engine> Bench<E> {
    fn layouts(&mut self) {
        let shape = self.sizes::<4>(6);
        let x = self.draw(shape);
        self.record(format!("to_host {shape:?}"), &x);
        let [a, b, c, d] = shape;
        self.record(format!("reshape {shape:?}"), &x.clone().reshape([a * b, c * d]));
        let axes = self.axes::<4>();
        self.record(format!("permute {shape:?} by {axes:?}"), &x.clone().permute(axes));
        let dim = self.rng.below(4);
        let start = self.rng.below(shape[dim]);
        let length = 1 + self.rng.below(shape[dim] - start);
        self.record(format!("narrow {shape:?}, {length} of {dim} from {start}"), &x.clone().narrow(dim, start, length));
        let mut other = shape;
        other[dim] = self.size(6);
        let y = self.draw(other);
        self.record(format!("cat {shape:?} {other:?} along {dim}"), &Tensor::cat(vec![x.clone(), y, x.clone()], dim));
        let sides = std::array::from_fn(|_| self.rng.below(3));
        self.record(format!("pad {shape:?} by {sides:?}"), &x.clone().pad(sides));
        let size = [c + self.rng.below(2 * c + 1), d + self.rng.below(2 * d + 1)];
        self.record(format!("upsample {shape:?} to {size:?}"), &x.clone().upsample(size));
        self.record(format!("upsample {shape:?} twofold"), &x.upsample([2 * c, 2 * d]));

        let numbers = self.numbers(a * b);
        let device = self.device.clone();
        let dense = |parameter| Tensor::<E, 2>(E::dense(parameter, [a, b], &device));
        self.record(format!("dense [{a}, {b}] of the host"), &dense(Parameter::Host(host(&numbers, &[a, b]))));
        let flat = Tensor::<E, 1>::from_host(numbers, [a * b], &self.device);
        self.record(format!("dense [{a}, {b}] of the device"), &dense(Parameter::Device(flat.0, vec![a, b])));
    }

    fn elementwise(&mut self) {
        let shape = self.sizes::<3>(7);
        let x = self.draw(shape);
        self.record(format!("affine {shape:?}"), &x.clone().affine(-1.25, 0.5));
        for function in [Unary::Exp, Unary::Silu, Unary::Gelu, Unary::QuickGelu] {
            self.record(format!("{function:?} {shape:?}"), &x.clone().map(function));
        }
        let positive = (x.clone() * x.clone()).affine(1.0, 0.1);
        for function in [Unary::Log, Unary::Sqrt] {
            self.record(format!("{function:?} {shape:?}"), &positive.clone().map(function));
        }
        for (left, right) in [(false, false), (true, false), (false, true), (true, true)] {
            let [a, b] =
                [left, right].map(|repeated| shape.map(|n| if repeated && self.rng.bool(0.6) { 1 } else { n }));
            let (x, y) = (self.draw(a), self.draw(b));
            self.record(format!("add {a:?} {b:?}"), &(x.clone() + y.clone()));
            self.record(format!("sub {a:?} {b:?}"), &(x.clone() - y.clone()));
            self.record(format!("mul {a:?} {b:?}"), &(x.clone() * y.clone()));
            let divisor = (y.clone() * y).affine(1.0, 0.5);
            self.record(format!("div {a:?} {b:?}"), &(x / divisor));
        }
    }

    fn rows_and_products(&mut self) {
        let shape = self.sizes::<3>(40);
        let x = self.draw(shape);
        for dim in 0..3 {
            self.record(format!("sum {shape:?} along {dim}"), &x.clone().sum(dim));
            self.record(format!("mean {shape:?} along {dim}"), &x.clone().mean(dim));
        }
        self.record(format!("softmax {shape:?}"), &x.clone().softmax());
        self.record(format!("log_softmax {shape:?}"), &x.clone().log_softmax());
        let [b, t, n] = shape;
        let gated = self.draw([b, t, 2 * n]);
        self.record(format!("geglu {shape:?}"), &gated.geglu());

        let [b, m, k] = shape;
        let n = self.size(40);
        let (x, y) = (self.draw([b, m, k]), self.draw([b, k, n]));
        self.record(format!("matmul [{b}, {m}, {k}] [{b}, {k}, {n}]"), &x.matmul(y));
        let (x, y) = (self.draw([m, k]), self.draw([k, n]));
        self.record(format!("matmul [{m}, {k}] [{k}, {n}]"), &x.matmul(y));
        let (x, y) = (self.draw([2, b, m, k]), self.draw([2, b, k, n]));
        self.record(format!("matmul [2, {b}, {m}, {k}] [2, {b}, {k}, {n}]"), &x.matmul(y));

        let table = self.draw([m, k]);
        let rows: Vec<_> = (0..2 * n).map(|_| self.rng.below(m) as u32).collect();
        self.record(format!("rows [{m}, {k}] at {rows:?}"), &table.rows(&rows));
    }

    fn linear(&mut self) {
        let [b, t, input] = self.sizes(30);
        let output = self.size(30);
        let bias = self.rng.bool(0.7);
        let weight = self.parameter(&[output, input]);
        let bias = if bias { Some(self.parameter(&[output])) } else { None };
        let label = format!("linear of {input} to {output}, bias {}, of", bias.is_some());
        let linear = E::prepare_linear(weight, bias, &self.device);
        let (x, y, z) = (self.draw([t, input]), self.draw([b, t, input]), self.draw([2, b, t, input]));
        self.record(format!("{label} [{t}, {input}]"), &Tensor(E::linear(x.0, &linear)));
        self.record(format!("{label} [{b}, {t}, {input}]"), &Tensor(E::linear(y.0, &linear)));
        self.record(format!("{label} [2, {b}, {t}, {input}]"), &Tensor(E::linear(z.0, &linear)));
    }

    fn norms(&mut self) {
        let shape @ [_, _, dim] = self.sizes(50);
        let (x, weight, bias) = (self.draw(shape), self.draw([dim]), self.draw([dim]));
        let far = x.clone().affine(1.0, 10.0);
        self.record(format!("layer_norm {shape:?}"), &Tensor(E::layer_norm(x.0, &weight.0, &bias.0, 1e-5)));
        self.record(
            format!("layer_norm {shape:?} of mean 10"),
            &Tensor(E::layer_norm(far.0, &weight.0, &bias.0, 1e-5)),
        );

        let [b, h, w] = self.sizes(8);
        let groups = self.size(4);
        let channels = groups * self.size(4);
        let shape = [b, channels, h, w];
        let (x, weight, bias) = (self.draw(shape), self.draw([channels]), self.draw([channels]));
        for activation in [Activation::None, Activation::Silu] {
            let y = E::group_norm(x.0.clone(), groups, &weight.0, &bias.0, 1e-5, activation);
            self.record(format!("group_norm {shape:?}, {groups} groups, {activation:?}"), &Tensor(y));
        }
    }

    fn pictures(&mut self) {
        for (kernel, stride, padding) in [(1, 1, 0), (3, 1, 1), (3, 2, 1), (3, 2, 0), (4, 4, 0), (2, 1, 0), (1, 2, 0)] {
            let [b, input] = self.sizes(3);
            let [h, w] = self.sizes(12).map(|size| size.max(kernel));
            self.convolve([b, input, h, w], kernel, ConvOptions { stride, padding });
        }
    }

    fn convolve(&mut self, shape: [usize; 4], kernel: usize, options: ConvOptions) {
        let output = self.size(9);
        let weight = self.parameter(&[output, shape[1], kernel, kernel]);
        let bias = if self.rng.bool(0.7) { Some(self.parameter(&[output])) } else { None };
        let label = format!("conv2d {shape:?} to {output}, side {kernel}, {options:?}, bias {}", bias.is_some());
        let conv = E::prepare_conv2d(weight, bias, options, &self.device);
        let x = self.draw(shape);
        self.record(label, &Tensor(E::conv2d(x.0, &conv)));
    }

    fn attention(&mut self) {
        let [b, queries, keys] = self.sizes(20);
        let [heads, width] = self.sizes(6);
        self.attend([b, queries, keys], heads, width);
    }

    fn attend(&mut self, [b, queries, keys]: [usize; 3], heads: usize, width: usize) {
        let channels = heads * width;
        let q = self.draw([b, queries, channels]);
        let [k, v] = [(); 2].map(|()| self.draw([b, keys, channels]));
        let label = format!("attention [{b}, {queries}, {channels}] to {keys} keys, {heads} heads");
        let hidden: Vec<_> = (0..b * keys).map(|i| i % keys != 0 && self.rng.bool(0.5)).collect();
        let hide = Mask::hide(&hidden, b, &self.device);
        self.record(format!("{label}, all seen"), &attention(q.clone(), k.clone(), v.clone(), heads, &Mask::None));
        self.record(format!("{label}, some hidden"), &attention(q.clone(), k, v, heads, &hide));
        let [k, v] = [(); 2].map(|()| self.draw([b, queries, channels]));
        self.record(format!("{label}, causal"), &attention(q, k, v, heads, &Mask::Causal));
    }

    /// Sizes at which an engine uses several threads, or several tiles.
    fn large(&mut self) {
        for view in [[0, 1, 2], [0, 2, 1], [2, 1, 0]] {
            let label = format!("[40, 41, 42] by {view:?}");
            let (x, y) = (self.draw([40, 41, 42]).permute(view), self.draw([40, 41, 42]).permute(view));
            let last = x.shape()[2];
            let row = self.draw([1, 1, last]);
            self.record(format!("gelu {label}"), &x.clone().gelu());
            self.record(format!("add {label}"), &(x.clone() + y));
            self.record(format!("add a row {label}"), &(x.clone() + row));
            self.record(format!("softmax {label}"), &x.clone().softmax());
            self.record(format!("mean_all {label}"), &x.mean_all());
        }
        let (x, y) = (self.draw([2, 70, 130]), self.draw([2, 130, 90]));
        self.record("matmul [2, 70, 130] [2, 130, 90]", &x.matmul(y));
        self.convolve([2, 5, 30, 27], 3, ConvOptions { stride: 1, padding: 1 });
        self.convolve([1, 5, 61, 39], 3, ConvOptions { stride: 2, padding: 1 });
        self.convolve([1, 3, 2, 600], 3, ConvOptions { stride: 1, padding: 1 });
        for [h, w] in [[4, 4], [7, 8], [5, 16]] {
            self.convolve([3, 5, h, w], 3, ConvOptions { stride: 1, padding: 1 });
        }
        self.convolve([2, 9, 24, 24], 1, ConvOptions { stride: 1, padding: 0 });
        self.attend([2, 300, 77], 2, 5);
        let (x, weight, bias) = (self.draw([2, 8, 24, 49]), self.draw([8]), self.draw([8]));
        let y = E::group_norm(x.0, 4, &weight.0, &bias.0, 1e-6, Activation::Silu);
        self.record("group_norm [2, 8, 24, 49]", &Tensor(y));
    }

    /// Numbers at which a careless implementation overflows, or loses all its digits.
    fn extremes(&mut self) {
        for (scale, offset) in [(100.0, 0.0), (1.0, 1e3), (1.0, -1e3), (1e-3, 0.0), (1e4, 0.0)] {
            let numbers = self.numbers(3 * 5 * 33).iter().map(|x| x * scale + offset).collect();
            let x = Tensor::<E, 3>::from_host(numbers, [3, 5, 33], &self.device);
            self.record(format!("softmax of {scale} x + {offset}"), &x.clone().softmax());
            self.record(format!("geglu of {scale} x + {offset}"), &x.clone().narrow(2, 0, 32).geglu().affine(1.0, 1.0));
            self.record(format!("log_softmax of {scale} x + {offset}"), &x.clone().log_softmax());
            for function in [Unary::Silu, Unary::Gelu, Unary::QuickGelu] {
                self.record(format!("{function:?} of {scale} x + {offset}"), &x.clone().map(function).affine(1.0, 1.0));
            }
        }
        let masked = vec![0.0, Mask::<E>::HIDDEN, 1.0, Mask::<E>::HIDDEN];
        let masked = Tensor::<E, 2>::from_host(masked, [1, 4], &self.device);
        self.record("softmax of hidden scores", &masked.softmax());
    }

    fn record<const D: usize>(&mut self, operation: impl Display, x: &Tensor<E, D>) {
        let operation = operation.to_string();
        let numbers = pollster::block_on(x.to_host()).unwrap_or_else(|error| panic!("{operation}: {error}"));
        self.outcomes.push(Outcome { operation, shape: x.shape().to_vec(), numbers });
    }

    /// A tensor of normal numbers: lying in memory in order, as a view with other axes, or as a part of a larger one.
    fn draw<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<E, D> {
        match self.rng.below(3) {
            0 => self.ordered(shape),
            1 => {
                let axes = self.axes::<D>();
                let mut stored = shape;
                (0..D).for_each(|dim| stored[axes[dim]] = shape[dim]);
                self.ordered(stored).permute(axes)
            }
            _ => {
                let (dim, before, after) = (self.rng.below(D), self.rng.below(3), self.rng.below(3));
                let mut stored = shape;
                stored[dim] += before + after;
                self.ordered(stored).narrow(dim, before, shape[dim])
            }
        }
    }

    fn ordered<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<E, D> {
        let numbers = self.numbers(shape.iter().product());
        Tensor::from_host(numbers, shape, &self.device)
    }

    fn parameter(&mut self, shape: &[usize]) -> Parameter<E> {
        let numbers = self.numbers(shape.iter().product());
        Parameter::Host(host(&numbers, shape))
    }

    fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.rng.gaussian() as f32).collect()
    }

    fn axes<const D: usize>(&mut self) -> [usize; D] {
        let mut axes = std::array::from_fn(|dim| dim);
        self.rng.shuffle(&mut axes);
        axes
    }

    fn sizes<const N: usize>(&mut self, most: usize) -> [usize; N] {
        std::array::from_fn(|_| self.size(most))
    }

    /// A size from 1 to `most`, often 1.
    fn size(&mut self, most: usize) -> usize {
        if self.rng.bool(0.15) { 1 } else { 1 + self.rng.below(most) }
    }
}

fn host(numbers: &[f32], shape: &[usize]) -> HostTensor {
    let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    HostTensor::new(shape.to_vec(), DType::F32, bytes).expect("as many bytes as the shape says")
}

#[test]
fn candle_in_f16_keeps_norms_and_softmax_in_f32() {
    fn run<E: Engine>(device: E::Device) -> Vec<Outcome> {
        let mut bench = Bench::<E> { device, rng: Rng::new(8, 0), outcomes: Vec::new() };
        // The squares of these sum up to more than f16 can hold.
        let x = bench.ordered([2, 3, 512]).affine(60.0, 0.0);
        let [one, zero] = [1.0, 0.0].map(|x| Tensor::<E, 1>::from_host(vec![x; 512], [512], &bench.device));
        bench.record("layer_norm", &Tensor(E::layer_norm(x.0.clone(), &one.0, &zero.0, 1e-5)));
        let picture = x.clone().reshape([2, 48, 4, 8]);
        let [one, zero] = [1.0, 0.0].map(|x| Tensor::<E, 1>::from_host(vec![x; 48], [48], &bench.device));
        bench.record("group_norm", &Tensor(E::group_norm(picture.0, 4, &one.0, &zero.0, 1e-5, Activation::None)));
        bench.record("softmax of equals", &x.affine(0.0, 0.25).softmax());
        bench.outcomes
    }
    for (found, expected) in run::<Candle>(CandleDevice::cpu().in_f16()).iter().zip(run::<Reference>(())) {
        assert_eq!(found.difference(&expected, TOLERANCE_F16), None);
    }
}

#[test]
fn candle_carries_an_error_to_where_numbers_are_read() {
    for device in [CandleDevice::cpu(), CandleDevice::cpu_like_cuda()] {
        let zeros = |shape| Tensor::<Candle, 2>::zeros(shape, &device);
        let product = zeros([2, 3]).matmul(zeros([4, 5]));
        let later = (product.silu() + zeros([1, 5])).reshape([10]).softmax();
        assert_eq!(later.shape(), [10], "the graph goes on");
        let error = pollster::block_on(later.to_host()).unwrap_err();
        assert!(matches!(error, EngineError::Operation { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("matmul of [[2, 3], [4, 5]]"), "the first failure is told: {text}");
    }
}

#[test]
fn candle_tells_what_to_do_without_cuda() {
    match CandleDevice::cuda(99) {
        Err(error @ EngineError::NoDevice { .. }) => assert!(error.to_string().contains("cuda:99"), "{error}"),
        other => panic!("{other:?}"),
    }
}
