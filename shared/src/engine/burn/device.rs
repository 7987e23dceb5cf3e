//! Where burn's tensors live.

use ::burn::tensor::Device;

use crate::engine::EngineError;

#[cfg(feature = "webgpu")]
use super::webgpu::{self, GpuLimits};

/// A device of the burn engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BurnDevice(Device);

impl BurnDevice {
    /// The CPU.
    pub fn cpu() -> Self {
        Self(Device::flex())
    }

    /// The GPU: by WebGPU in a browser, by what the system has elsewhere. It is the same one at every call.
    ///
    /// # Errors
    /// [`EngineError::NoDevice`]. A device that was lost stays lost: the program, or the page's worker, has to start
    /// anew to get another.
    #[cfg(feature = "webgpu")]
    pub async fn webgpu() -> Result<Self, EngineError> {
        Ok(Self(webgpu::open().await?.device.clone()))
    }

    /// The first CUDA device.
    #[cfg(feature = "burn-cuda")]
    pub fn cuda() -> Self {
        Self(Device::cuda(0))
    }

    /// The first CUDA device, or the CPU where there is none, by LibTorch.
    #[cfg(feature = "burn-libtorch")]
    #[expect(deprecated, reason = "burn's own CUDA backend needs a build of LLVM that is not to be had everywhere")]
    pub fn libtorch() -> Self {
        Self(if tch::Cuda::is_available() { Device::libtorch_cuda(0) } else { Device::libtorch() })
    }

    /// Whether it is the engine's own CPU path.
    pub fn is_cpu(&self) -> bool {
        super::cpu::is_cpu(&self.0)
    }

    /// This device, with gradients.
    #[cfg(feature = "autodiff")]
    pub fn training(self) -> Self {
        Self(self.0.autodiff())
    }

    /// What the GPU can hold; `None` for the CPU.
    #[cfg(feature = "webgpu")]
    pub fn gpu_limits(&self) -> Option<&'static GpuLimits> {
        self.gpu().map(|gpu| &gpu.limits)
    }

    /// Compares the GPU's kernels of our own with the CPU on a small case: the name of each, and how far its result is off,
    /// relative to the largest number; infinitely far if the driver refuses it. What deviates by more than `tolerance` at the first
    /// time is not used from then on. On the CPU there is nothing to compare.
    ///
    /// # Errors
    /// [`EngineError`] if the device fails.
    pub async fn compare_kernels(&self, tolerance: f32) -> Result<Vec<(&'static str, f32)>, EngineError> {
        self.compare(tolerance, false).await
    }

    /// The same with kernels that the GPU has not what it takes for, to show what happens when it refuses some.
    ///
    /// # Errors
    /// [`EngineError`] if the device fails.
    pub async fn compare_impossible_kernels(&self, tolerance: f32) -> Result<Vec<(&'static str, f32)>, EngineError> {
        self.compare(tolerance, true).await
    }

    #[cfg_attr(not(feature = "webgpu"), expect(unused_variables, reason = "nothing can deviate"))]
    async fn compare(&self, tolerance: f32, impossible: bool) -> Result<Vec<(&'static str, f32)>, EngineError> {
        #[cfg(feature = "webgpu")]
        if let Some(gpu) = self.gpu() {
            return gpu.compare_kernels(tolerance, impossible).await;
        }
        Ok(Vec::new())
    }

    /// The names of kernels that were found to compute something else than the CPU, and are not used.
    pub fn wrong_kernels(&self) -> &[&'static str] {
        #[cfg(feature = "webgpu")]
        if let Some(gpu) = self.gpu() {
            return gpu.wrong_kernels();
        }
        &[]
    }

    /// Gives memory back that is kept for what comes next.
    pub fn free_unused(&self) {
        self.0.memory_cleanup();
    }

    /// Takes the GPU away, as a driver's reset does, to show what happens then.
    #[cfg(feature = "webgpu")]
    pub fn destroy(&self) {
        if let Some(gpu) = self.gpu() {
            gpu.destroy();
        }
    }

    /// Bytes of the largest tensor, if that is less than the memory.
    pub(super) fn largest_tensor_bytes(&self) -> u64 {
        #[cfg(feature = "webgpu")]
        if let Some(limits) = self.gpu_limits() {
            return limits.largest_tensor_bytes();
        }
        u64::MAX
    }

    pub(super) fn inner(&self) -> &Device {
        &self.0
    }

    /// Whether what ran on the device so far went well.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        #[cfg(feature = "webgpu")]
        if let Some(gpu) = self.gpu() {
            return gpu.check();
        }
        Ok(())
    }

    #[cfg(feature = "webgpu")]
    fn gpu(&self) -> Option<&'static webgpu::Gpu> {
        webgpu::opened().filter(|gpu| gpu.device == self.0.clone().inner())
    }
}

impl From<Device> for BurnDevice {
    fn from(device: Device) -> Self {
        Self(device)
    }
}
