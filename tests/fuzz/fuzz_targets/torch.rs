//! A checkpoint in either form of `torch.save`, down to its numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;

use import::source::Source;

mod scratch;

// Without the rest of their crate, which would take both engines along.
#[path = "../../../models/src/import"]
#[allow(dead_code, unreachable_pub, reason = "an import asks for more")]
mod import {
    pub mod pickle;
    pub mod source;
    pub mod torch;
}

fuzz_target!(|bytes: &[u8]| {
    let opened = import::torch::TorchFile::open(&scratch::file(bytes));
    if let Ok(tensors) = opened.and_then(import::torch::TorchFile::tensors) {
        for (name, shape) in tensors.shapes() {
            if let Ok(tensor) = tensors.read(name) {
                assert_eq!(tensor.shape(), shape);
            }
        }
    }
});
