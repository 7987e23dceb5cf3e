//! What this worker's model runs on.

use kosmosg::engine::EngineError;
use kosmosg::engine::burn::BurnDevice;

/// Opens the device, and tells its name for people.
///
/// # Errors
/// [`EngineError::NoDevice`].
#[cfg(not(feature = "worker-gpu"))]
pub async fn open() -> Result<(BurnDevice, &'static str), EngineError> {
    Ok((BurnDevice::cpu(), "CPU"))
}

/// Opens the device, and tells its name for people.
///
/// # Errors
/// [`EngineError::NoDevice`].
#[cfg(feature = "worker-gpu")]
pub async fn open() -> Result<(BurnDevice, &'static str), EngineError> {
    Ok((BurnDevice::webgpu().await?, "WebGPU"))
}

/// For tests: takes the device away. On a GPU that is what really happens to it, and the next step fails.
///
/// # Errors
/// [`EngineError::DeviceLost`] on the processor, which cannot be taken away.
#[cfg(not(feature = "worker-gpu"))]
pub fn lose(_: &BurnDevice) -> Result<(), EngineError> {
    Err(EngineError::DeviceLost { engine: "burn", detail: "on purpose, for a test".into() })
}

/// For tests: takes the device away. The next step fails as it does when the browser or the driver took it.
///
/// # Errors
/// None.
#[cfg(feature = "worker-gpu")]
pub fn lose(device: &BurnDevice) -> Result<(), EngineError> {
    device.destroy();
    Ok(())
}
