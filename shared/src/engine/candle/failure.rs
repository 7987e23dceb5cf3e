//! candle's errors, sorted into the engine's.

use candle_core::Error;

use super::Candle;
use crate::engine::{Engine, EngineError};

/// Why an operation gave no tensor.
pub enum Failure {
    /// An operand was already lost.
    Earlier(EngineError),
    /// candle refused.
    Now(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Now(error)
    }
}

impl Failure {
    /// A result of the wrong shape.
    pub fn shape(found: &[usize], expected: &[usize]) -> Self {
        Self::Now(Error::Msg(format!("the result has shape {found:?}, expected {expected:?}")))
    }

    /// The error to carry, for an `operation` on tensors of the shapes `inputs`.
    pub fn describe(self, operation: &str, inputs: &[&[usize]]) -> EngineError {
        match self {
            Self::Earlier(error) => error,
            Self::Now(error) => classify(format!("{operation} of {inputs:?}"), error.to_string()),
        }
    }
}

/// For a device that could not be opened.
pub fn no_device(device: String, error: &Error) -> EngineError {
    let detail = match error {
        Error::NotCompiledWithCudaSupport => {
            "this build has no CUDA: build with `--features cuda`, or use the CPU".to_owned()
        }
        error => error.to_string(),
    };
    EngineError::NoDevice { engine: Candle::NAME, device, detail }
}

/// CUDA's errors reach candle as text, which is all there is to go by.
fn classify(operation: String, detail: String) -> EngineError {
    let has = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    let engine = Candle::NAME;
    if has(&["OUT_OF_MEMORY", "ALLOC_FAILED", "out of memory"]) {
        EngineError::OutOfMemory { engine, detail: format!("{operation}: {detail}") }
    } else if has(&LOST) {
        EngineError::DeviceLost { engine, detail: format!("{operation}: {detail}") }
    } else {
        EngineError::Operation { engine, operation, detail }
    }
}

/// CUDA's errors after which a process can use the device no more.
const LOST: [&str; 12] = [
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_NO_DEVICE",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_INVALID_CONTEXT",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_EXTERNAL_DEVICE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_errors_are_sorted() {
        let sorted = |text: &str| Failure::Now(Error::Cuda(text.into())).describe("matmul", &[&[1, 2], &[2, 3]]);
        let memory = sorted("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        assert!(matches!(memory, EngineError::OutOfMemory { .. }), "{memory}");
        let lost = sorted("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")");
        assert!(matches!(lost, EngineError::DeviceLost { .. }), "{lost}");
        let other = sorted("DriverError(CUDA_ERROR_NOT_FOUND, \"named symbol not found\")");
        assert!(other.to_string().contains("matmul of [[1, 2], [2, 3]]"), "{other}");
    }
}
