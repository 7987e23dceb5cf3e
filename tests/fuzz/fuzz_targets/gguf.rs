//! A bundle's weights.
#![no_main]

use kosmosg::weights::gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tensors) = gguf::read("fuzz.gguf", bytes) {
        let held: usize = tensors.values().map(|tensor| tensor.bytes().len()).sum();
        // Two tensors may share bytes, but all together take no more than the file.
        assert!(held <= bytes.len(), "{held} bytes");
        tensors.values().for_each(|tensor| assert_eq!(tensor.to_f32().len(), tensor.shape().iter().product::<usize>()));
    }
});
