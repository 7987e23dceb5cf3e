//! A checkpoint in either form of `torch.save`, down to its numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;

use import::source::Source;

// Without the rest of their crate, which would take both engines along.
#[path = "../../../models/src/import"]
#[allow(dead_code, unreachable_pub, reason = "an import asks for more")]
mod import {
    pub mod pickle;
    pub mod source;
    pub mod torch;
}

fuzz_target!(|bytes: &[u8]| {
    // In memory where the system has such a folder: each process its own file.
    let shm = std::path::Path::new("/dev/shm");
    let folder = if shm.exists() { shm.to_owned() } else { std::env::temp_dir() };
    let path = folder.join(format!("kosmosg-fuzz-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("a file for the fuzzer");
    if let Ok(tensors) = import::torch::TorchFile::open(&path).and_then(import::torch::TorchFile::tensors) {
        for (name, shape) in tensors.shapes() {
            if let Ok(tensor) = tensors.read(name) {
                assert_eq!(tensor.shape(), shape);
            }
        }
    }
});
