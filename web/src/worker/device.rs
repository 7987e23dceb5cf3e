//! What this worker's model runs on: the two modules differ here and nowhere else.

use kosmosg::engine::EngineError;
use kosmosg::engine::burn::BurnDevice;

/// How far a kernel's result may be from the CPU's, relative to the largest number.
pub const KERNEL_TOLERANCE: f32 = 1e-3;

#[cfg(not(feature = "worker-gpu"))]
pub use cpu::{lose, open};
#[cfg(feature = "worker-gpu")]
pub use gpu::{lose, open};

#[cfg(not(feature = "worker-gpu"))]
mod cpu {
    use super::{BurnDevice, EngineError};

    /// Opens the device, and tells its name for people.
    ///
    /// # Errors
    /// None.
    pub async fn open() -> Result<(BurnDevice, &'static str), EngineError> {
        Ok((BurnDevice::cpu(), "CPU"))
    }

    /// For tests: a processor cannot be taken away, so the step that would come fails.
    ///
    /// # Errors
    /// [`EngineError::DeviceLost`].
    pub fn lose(_: &BurnDevice) -> Result<(), EngineError> {
        Err(EngineError::DeviceLost { engine: "burn", detail: "on purpose, for a test".into() })
    }
}

#[cfg(feature = "worker-gpu")]
mod gpu {
    use super::{BurnDevice, EngineError};

    /// Opens the device, and tells its name for people. What our kernels compute on it is compared with the CPU first.
    ///
    /// # Errors
    /// [`EngineError::NoDevice`].
    pub async fn open() -> Result<(BurnDevice, &'static str), EngineError> {
        let device = BurnDevice::webgpu().await?;
        device.compare_kernels(super::KERNEL_TOLERANCE).await?;
        Ok((device, "WebGPU"))
    }

    /// For tests: takes the device away. The next step fails as it does when the browser or the driver took it.
    ///
    /// # Errors
    /// None.
    pub fn lose(device: &BurnDevice) -> Result<(), EngineError> {
        device.destroy();
        Ok(())
    }
}
