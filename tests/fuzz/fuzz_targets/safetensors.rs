//! Weights as diffusers and others pass them on.
#![no_main]

use kosmosg::weights::safetensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tensors) = safetensors::read("fuzz.safetensors", bytes.to_vec()) {
        tensors.values().for_each(|tensor| assert_eq!(tensor.to_f32().len(), tensor.shape().iter().product::<usize>()));
    }
    drop(safetensors::read_integers("fuzz.safetensors", bytes));
});
