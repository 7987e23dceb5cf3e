//! A safetensors file as an import reads it, tensor by tensor.
#![no_main]

use libfuzzer_sys::fuzz_target;

use import::source::{SafetensorsFile, Source};

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
    if let Ok(file) = SafetensorsFile::open(&scratch::file(bytes)) {
        for (name, shape) in file.shapes() {
            if let Ok(tensor) = file.read(name) {
                assert_eq!(tensor.shape(), shape);
            }
        }
    }
});
