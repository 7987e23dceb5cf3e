//! Every operation of burn, and its gradient, against the reference.

use kosmosg::engine::burn::{Burn, BurnDevice, train};
use kosmosg::engine::{Activation, ConvOptions, Engine, Mask, Tensor, Unary, attention};
use kosmosg::weights::Parameter;
use kosmosg_tests::reference::Reference;

/// Largest relative L2 error of a result.
const RESULT: f64 = 1e-5;
/// Largest relative L2 error of a gradient.
const GRADIENT: f64 = 2e-5;

/// One operation under test: flat inputs of these sizes to one tensor.
macro_rules! operations {
    ($($name:ident: [$($size:expr),*], |$x:ident, $device:ident| $body:expr;)*) => {$(
        #[test]
        fn $name() {
            fn operation<E: Engine>($x: &[Tensor<E, 1>]) -> Tensor<E, 1> {
                #[allow(unused_variables)]
                let $device = $x[0].device();
                let y = $body;
                let n = y.shape().iter().product();
                y.reshape([n])
            }
            let sizes = [$($size),*];
            check_result(operation::<Burn>, operation::<Reference>, &sizes, &BurnDevice::cpu());
            check_gradient(operation::<Burn>, operation::<Reference>, &sizes, &BurnDevice::cpu().training());
            let gpu = pollster::block_on(BurnDevice::webgpu()).expect("a GPU, or Mesa's Vulkan on the CPU");
            check_result(operation::<Burn>, operation::<Reference>, &sizes, &gpu);
        }
    )*};
}

fn parameter<E: Engine>(x: &Tensor<E, 1>, shape: &[usize]) -> Parameter<E> {
    Parameter::Device(x.0.clone(), shape.to_vec())
}

fn conv<E: Engine>(x: &[Tensor<E, 1>], input: [usize; 4], output: usize, k: usize, stride: usize) -> Tensor<E, 4> {
    let weight = parameter(&x[1], &[output, input[1], k, k]);
    let options = ConvOptions { stride, padding: k / 2 };
    let conv = E::prepare_conv2d(weight, Some(parameter(&x[2], &[output])), options, &x[0].device());
    Tensor(E::conv2d(x[0].clone().reshape(input).0, &conv))
}

fn linear<E: Engine, const D: usize>(x: &[Tensor<E, 1>], input: [usize; D], output: usize) -> Tensor<E, D> {
    let weight = parameter(&x[1], &[output, input[D - 1]]);
    let linear = E::prepare_linear(weight, Some(parameter(&x[2], &[output])), &x[0].device());
    Tensor(E::linear(x[0].clone().reshape(input).0, &linear))
}

fn group_norm<E: Engine>(x: &[Tensor<E, 1>], shape: [usize; 4], groups: usize, after: Activation) -> Tensor<E, 4> {
    Tensor(E::group_norm(x[0].clone().reshape(shape).0, groups, &x[1].0, &x[2].0, 1e-5, after))
}

fn layer_norm<E: Engine, const D: usize>(x: &[Tensor<E, 1>], shape: [usize; D]) -> Tensor<E, D> {
    Tensor(E::layer_norm(x[0].clone().reshape(shape).0, &x[1].0, &x[2].0, 1e-5))
}

fn attend<E: Engine>(x: &[Tensor<E, 1>], [b, tq, tk, c]: [usize; 4], heads: usize, mask: &Mask<E>) -> Tensor<E, 3> {
    let [q, k, v] = [0, 1, 2].map(|i| x[i].clone().reshape([b, if i == 0 { tq } else { tk }, c]));
    attention(q, k, v, heads, mask)
}

operations! {
    affine: [35], |x, device| x[0].clone().affine(-1.5, 0.25);
    add: [30, 6], |x, device| x[0].clone().reshape([2, 3, 5]) + x[1].clone().reshape([2, 3, 1]);
    sub: [30, 5], |x, device| x[0].clone().reshape([2, 3, 5]) - x[1].clone().reshape([1, 1, 5]);
    mul: [30, 30], |x, device| x[0].clone().reshape([2, 3, 5]) * x[1].clone().reshape([2, 3, 5]);
    div: [30, 3], |x, device| x[0].clone().reshape([2, 3, 5]) / x[1].clone().map(Unary::Exp).reshape([1, 3, 1]);
    exp: [61], |x, device| x[0].clone().map(Unary::Exp);
    log: [61], |x, device| x[0].clone().map(Unary::Exp).affine(1.0, 0.1).map(Unary::Log);
    sqrt: [61], |x, device| x[0].clone().map(Unary::Exp).map(Unary::Sqrt);
    silu: [197], |x, device| x[0].clone().affine(3.0, 0.0).silu();
    silu_of_a_permutation: [60], |x, device| x[0].clone().reshape([3, 4, 5]).permute([2, 0, 1]).silu();
    gelu: [197], |x, device| x[0].clone().affine(2.0, 0.0).gelu();
    geglu: [192], |x, device| x[0].clone().affine(2.0, 0.0).reshape([3, 8, 8]).geglu();
    geglu_on_threads: [36864], |x, device| x[0].clone().affine(2.0, 0.0).reshape([1152, 32]).geglu();
    quick_gelu: [197], |x, device| x[0].clone().affine(2.0, 0.0).map(Unary::QuickGelu);
    sum: [60], |x, device| x[0].clone().reshape([3, 4, 5]).sum(1);
    mean_all: [60], |x, device| x[0].clone().reshape([3, 4, 5]).mean_all();
    permute: [60], |x, device| x[0].clone().reshape([3, 4, 5]).permute([2, 0, 1]);
    narrow: [60], |x, device| x[0].clone().reshape([3, 4, 5]).narrow(1, 1, 2);
    cat: [24, 12], |x, device| Tensor::cat(vec![x[0].clone().reshape([2, 4, 3]), x[1].clone().reshape([2, 2, 3])], 1);
    repeat_batch: [12], |x, device| x[0].clone().reshape([1, 4, 3]).repeat_batch(3);
    rows: [28], |x, device| x[0].clone().reshape([7, 4]).rows(&[6, 0, 3, 3, 1]);
    pad: [36], |x, device| x[0].clone().reshape([2, 2, 3, 3]).pad([1, 0, 2, 3]);
    upsample: [24], |x, device| x[0].clone().reshape([1, 2, 3, 4]).upsample([6, 8]);
    upsample_unevenly: [24], |x, device| x[0].clone().reshape([1, 2, 3, 4]).upsample([5, 11]);
    matmul: [24, 30], |x, device| x[0].clone().reshape([2, 4, 3]).matmul(x[1].clone().reshape([2, 3, 5]));
    matmul_of_a_permutation: [24, 30], |x, device|
        x[0].clone().reshape([2, 3, 4]).permute([0, 2, 1]).matmul(x[1].clone().reshape([2, 3, 5]));
    softmax: [60], |x, device| x[0].clone().affine(4.0, 1.0).reshape([3, 4, 5]).softmax();
    softmax_wide: [111], |x, device| x[0].clone().affine(4.0, -20.0).reshape([3, 37]).softmax();
    log_softmax: [60], |x, device| x[0].clone().affine(9.0, 1.0).reshape([3, 4, 5]).log_softmax();
    linear_2d: [12, 20, 5], |x, device| linear(x, [3, 4], 5);
    linear_3d: [60, 68, 17], |x, device| linear(x, [3, 5, 4], 17);
    conv3x3: [96, 108, 4], |x, device| conv(x, [2, 3, 4, 4], 4, 3, 1);
    conv3x3_wide: [350, 63, 7], |x, device| conv(x, [2, 1, 7, 25], 7, 3, 1);
    conv3x3_of_one_pixel: [18, 54, 2], |x, device| conv(x, [6, 3, 1, 1], 2, 3, 1);
    conv3x3_stride_2: [150, 108, 4], |x, device| conv(x, [2, 3, 5, 5], 4, 3, 2);
    conv3x3_in_bands: [1640, 9, 1], |x, device| conv(x, [1, 1, 41, 40], 1, 3, 1);
    conv3x3_in_bands_stride_2: [3200, 9, 1], |x, device| conv(x, [1, 1, 80, 40], 1, 3, 2);
    conv3x3_small: [240, 54, 3], |x, device| conv(x, [3, 2, 5, 8], 3, 3, 1);
    conv3x3_on_threads: [4608, 144, 8], |x, device| conv(x, [9, 2, 16, 16], 8, 3, 1);
    conv1x1_on_threads: [4608, 16, 8], |x, device| conv(x, [9, 2, 16, 16], 8, 1, 1);
    conv1x1: [96, 15, 5], |x, device| conv(x, [2, 3, 4, 4], 5, 1, 1);
    conv_patches: [192, 60, 5], |x, device| {
        let weight = parameter(&x[1], &[5, 3, 2, 2]);
        let options = ConvOptions { stride: 2, padding: 0 };
        let conv = E::prepare_conv2d(weight, Some(parameter(&x[2], &[5])), options, &device);
        Tensor::<E, 4>(E::conv2d(x[0].clone().reshape([1, 3, 8, 8]).0, &conv))
    };
    group_norm_plain: [192, 6, 6], |x, device| group_norm(x, [2, 6, 4, 4], 3, Activation::None);
    group_norm_silu: [192, 6, 6], |x, device| group_norm(x, [2, 6, 4, 4], 3, Activation::Silu);
    group_norm_silu_odd: [90, 6, 6], |x, device| group_norm(x, [1, 6, 3, 5], 2, Activation::Silu);
    group_norm_on_threads: [18432, 8, 8], |x, device| group_norm(x, [4, 8, 24, 24], 4, Activation::Silu);
    layer_norm_on_threads: [18432, 32, 32], |x, device| layer_norm(x, [576, 32]);
    linear_on_threads: [2304, 256, 64], |x, device| linear(x, [576, 4], 64);
    layer_norm_2d: [111, 37, 37], |x, device| layer_norm(x, [3, 37]);
    layer_norm_3d: [128, 16, 16], |x, device| layer_norm(x, [2, 4, 16]);
    attention_to_self: [120, 120, 120], |x, device| attend(x, [2, 5, 5, 12], 3, &Mask::None);
    attention_to_other: [120, 168, 168], |x, device| attend(x, [2, 5, 7, 12], 2, &Mask::None);
    attention_in_blocks: [1120, 1120, 1120], |x, device| attend(x, [2, 70, 70, 8], 2, &Mask::Causal);
    attention_causal: [120, 120, 120], |x, device| attend(x, [2, 5, 5, 12], 3, &Mask::Causal);
    attention_hiding: [120, 168, 168], |x, device| {
        let hidden: Vec<bool> = (0..14).map(|i| i == 2 || i > 10).collect();
        attend(x, [2, 5, 7, 12], 3, &Mask::hide(&hidden, 2, &device))
    };
}

type Operation<E> = fn(&[Tensor<E, 1>]) -> Tensor<E, 1>;

fn check_result(tested: Operation<Burn>, plain: Operation<Reference>, sizes: &[usize], device: &BurnDevice) {
    let inputs = inputs(sizes);
    let tensors: Vec<_> = inputs.iter().map(|x| Tensor::from_host(x.clone(), [x.len()], device)).collect();
    let found = pollster::block_on(tested(&tensors).to_host()).expect("the result");
    let expected = plain(&reference(&inputs)).0.data().to_vec();
    assert_close(&found, &expected, RESULT, &format!("result on {device:?}"));
}

fn check_gradient(tested: Operation<Burn>, plain: Operation<Reference>, sizes: &[usize], device: &BurnDevice) {
    const STEP: f64 = 1e-5;
    let inputs = inputs(sizes);
    let output_len = plain(&reference(&inputs)).shape()[0];
    let weights = numbers(output_len, 99); // of the sum that is differentiated, so that gradients do not cancel

    let tracked: Vec<_> = inputs.iter().map(|x| train::track(x.clone(), device)).collect();
    let loss = (tested(&tracked) * Tensor::from_host(weights.clone(), [output_len], device)).sum(0);
    let mut gradients = train::backward(&loss);

    let reference = reference(&inputs);
    let loss = |x: &[Tensor<Reference, 1>]| -> f64 {
        plain(x).0.data().iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
    };
    for (i, tracked) in tracked.iter().enumerate() {
        let gradient = gradients.take(tracked).expect("the result depends on every input");
        let found = pollster::block_on(gradient.to_host()).expect("the gradient");
        // Differences are slow: of a large input, some places will do.
        let places: Vec<usize> = (0..sizes[i]).step_by(sizes[i].div_ceil(60)).collect();
        let found: Vec<f32> = places.iter().map(|&j| found[j]).collect();
        let expected: Vec<f64> = places
            .iter()
            .map(|&j| {
                let moved = |step: f64| {
                    let mut x = reference.clone();
                    x[i].0.data_mut()[j] += step;
                    loss(&x)
                };
                (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
            })
            .collect();
        assert_close(&found, &expected, GRADIENT, &format!("gradient of input {i}"));
    }
}

fn inputs(sizes: &[usize]) -> Vec<Vec<f32>> {
    sizes.iter().enumerate().map(|(i, &n)| numbers(n, i as u32)).collect()
}

fn reference(inputs: &[Vec<f32>]) -> Vec<Tensor<Reference, 1>> {
    inputs.iter().map(|x| Tensor::from_host(x.clone(), [x.len()], &())).collect()
}

/// Numbers in −2..2 that look random.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (f64::from(state) / f64::from(u32::MAX) * 4.0 - 2.0) as f32
    };
    (0..20).for_each(|_| _ = next());
    (0..n).map(|_| next()).collect()
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let square = |x: f64| x * x;
    let error: f64 = found.iter().zip(expected).map(|(&f, &e)| square(f64::from(f) - e)).sum();
    let size: f64 = expected.iter().map(|&e| square(e)).sum();
    let error = (error / size.max(1e-12)).sqrt();
    assert!(error <= tolerance, "{what}: relative error {error:.2e}\nfound    {found:?}\nexpected {expected:?}");
}
