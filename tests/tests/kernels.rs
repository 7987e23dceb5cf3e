//! A kernel that computes something else than the CPU is not used. A program has one GPU, and this one distrusts it.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::collections::BTreeMap;

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::weights::{Bias, DType, HostTensor, Linear, load};
use pollster::block_on;

#[test]
fn a_linear_map_does_without_a_wrong_kernel() {
    let [rows, inputs, outputs] = [3, 1024, 2048];
    let wave = |n: usize, by: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * by).sin()).collect() };
    let weight = HostTensor::from_f32(vec![outputs, inputs], &wave(outputs * inputs, 0.37));
    let weights = BTreeMap::from([("map.weight".to_owned(), weight.to_dtype(DType::Q8_0).unwrap())]);
    let gpu = block_on(BurnDevice::webgpu()).unwrap();
    let linear = |device: &BurnDevice| -> Linear<Burn> {
        load(&weights, device, |weights| weights.linear("map", [inputs, outputs], Bias::No)).unwrap()
    };
    let apply = |linear: &Linear<Burn>, device: &BurnDevice| {
        let x = Tensor::from_host(wave(rows * inputs, 0.7), [rows, inputs], device);
        block_on(linear.forward(x).to_host()).unwrap()
    };
    let expected = apply(&linear(&BurnDevice::cpu()), &BurnDevice::cpu());
    let is_packed = |linear: &Linear<Burn>| format!("{linear:?}").contains("PackedWeight");
    let assert_right = |found: &[f32], tolerance: f32| {
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < tolerance, "{off}");
    };

    let packed = linear(&gpu);
    assert!(is_packed(&packed), "{packed:?}");
    // Its activations may have 16 bits, and each result is a sum of a thousand products.
    assert_right(&apply(&packed, &gpu), 1e-2);
    // No kernel is as right as this.
    let deviations = block_on(gpu.compare_kernels(-1.0)).unwrap();
    let names: Vec<_> = deviations.iter().map(|(name, _)| *name).collect();
    assert_eq!(gpu.wrong_kernels(), names);
    let unpacked = linear(&gpu);
    assert!(!is_packed(&unpacked), "{unpacked:?}");
    assert_right(&apply(&unpacked, &gpu), 1e-3);
}
