//! How fast this worker's device multiplies.

use std::collections::BTreeMap;

use kosmosg::engine::Tensor;
use kosmosg::engine::burn::Burn;
use kosmosg::weights::{Bias, DType, HostTensor, Linear, load};

use super::device;
use super::model::Failure;
use crate::js;
use crate::messages::{Fault, Packing};

/// Seconds of each of `times` runs of a linear map, reading back included: `rows` inputs, `[out, in]` weights of this form.
pub async fn linear(
    rows: usize,
    [inputs, outputs]: [usize; 2],
    packing: Packing,
    times: usize,
) -> Result<Vec<f64>, Failure> {
    let failed = |message: String| Failure { fault: Fault::Device, message };
    let dtype = match packing {
        Packing::F32 => DType::F32,
        Packing::Q8_0 => DType::Q8_0,
        Packing::Q4_0 => DType::Q4_0,
    };
    let wave = |n: usize, by: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * by).sin()).collect() };
    let (device, _) = device::open().await?;
    let weight = HostTensor::from_f32(vec![outputs, inputs], &wave(outputs * inputs, 0.37)).to_dtype(dtype);
    let weights = BTreeMap::from([("map.weight".to_owned(), weight.map_err(|error| failed(error.to_string()))?)]);
    let map: Linear<Burn> = load(&weights, &device, |weights| weights.linear("map", [inputs, outputs], Bias::No))
        .map_err(|error| failed(error.to_string()))?;
    let x = Tensor::from_host(wave(rows * inputs, 0.7), [rows, inputs], &device);
    let mut seconds = Vec::with_capacity(times);
    for _ in 0..times {
        let started = js::now_ms();
        map.forward(x.clone()).to_host().await?;
        seconds.push((js::now_ms() - started) / 1000.0);
    }
    Ok(seconds)
}
