//! How fast linear maps are on the GPU, by how their weights are stored: 64 rows of 2,048 numbers to 8,192, as in the language
//! model. `cargo bench --package kosmosg --features webgpu,burn-native --bench linear`
#![allow(clippy::unwrap_used, reason = "a benchmark without a GPU has nothing to say")]

use std::time::{Duration, Instant};

use burn::tensor::quantization::QuantScheme;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::{Engine, Tensor};
use kosmosg::weights::{DType, HostTensor, Parameter};

const ROWS: usize = 64;
const INPUTS: usize = 2048;
const OUTPUTS: usize = 8192;

fn main() {
    let device = pollster::block_on(BurnDevice::webgpu()).unwrap();
    println!("{}", device.gpu_limits().unwrap().name);
    let wave = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<_>>();
    let x = Tensor::<Burn, 2>::from_host(wave(ROWS * INPUTS, 0.7), [ROWS, INPUTS], &device);
    let weight = HostTensor::from_f32(vec![OUTPUTS, INPUTS], &wave(OUTPUTS * INPUTS, 0.37));
    for dtype in [DType::F32, DType::Q8_0, DType::Q4_0] {
        let linear = Burn::prepare_linear(Parameter::Host(weight.to_dtype(dtype).unwrap()), None, &device);
        report(&format!("{dtype:?}"), || {
            let y = Tensor::<Burn, 2>(Burn::linear(x.0.clone(), &linear));
            pollster::block_on(y.to_host()).unwrap();
        });
    }
    let dense = Tensor::<Burn, 2>::from_host(weight.to_f32(), [OUTPUTS, INPUTS], &device).0;
    let quantized = dense.transpose().quantize_dynamic(&QuantScheme::default());
    report("burn's own quantized", || {
        let y = Tensor::<Burn, 2>(x.0.clone().matmul(quantized.clone()));
        pollster::block_on(y.to_host()).unwrap();
    });
}

/// Prints the median of several runs after one that compiles.
fn report(name: &str, run: impl Fn()) {
    run();
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed()
        })
        .collect();
    times.sort();
    let flops = (2 * ROWS * INPUTS * OUTPUTS) as f64;
    println!("{name:24} {:9.1} ms {:7.2} GFLOP/s", times[2].as_secs_f64() * 1e3, flops / times[2].as_secs_f64() / 1e9);
}
