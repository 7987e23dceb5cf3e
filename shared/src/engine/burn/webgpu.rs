//! The GPU, and what goes wrong on it.
//!
//! A GPU reports late and out of band: a lost device, no memory, a shader that the driver refuses. With burn alone, some of
//! that ends the program, and in a browser some passes with stale numbers. So the first such report is kept, and every
//! later reading fails with it.

use std::sync::{Arc, OnceLock};

use ::burn::tensor::Device;
use ::burn::tensor::wgpu::{WgpuInitError, WgpuSetup, wgpu};

use super::Burn;
use crate::engine::{Engine, EngineError};

pub mod packed;

/// What a GPU can hold.
#[derive(Debug, Clone)]
pub struct GpuLimits {
    /// Its name, as far as the browser or driver tells.
    pub name: String,
    /// Bytes of the largest buffer.
    pub buffer_bytes: u64,
    /// Bytes of the largest buffer that a computation can read, and so of the largest tensor.
    pub tensor_bytes: u64,
    /// Whether its shaders can have numbers of 16 bits.
    pub has_f16: bool,
    /// Whether it is the CPU in disguise.
    pub is_software: bool,
}

pub struct Gpu {
    pub device: Device,
    pub limits: GpuLimits,
    setup: WgpuSetup,
    /// What went wrong first.
    fault: Arc<OnceLock<EngineError>>,
    /// Why the device is gone.
    lost: Arc<OnceLock<String>>,
    /// Kernels that compute something else here than on the CPU.
    wrong_kernels: OnceLock<Vec<&'static str>>,
}

static GPU: OnceLock<Result<Gpu, EngineError>> = OnceLock::new();

/// The GPU, if [`open`] has found it.
pub fn opened() -> Option<&'static Gpu> {
    GPU.get().and_then(|gpu| gpu.as_ref().ok())
}

/// The GPU, the same one at every call.
pub async fn open() -> Result<&'static Gpu, EngineError> {
    #[cfg(not(target_arch = "wasm32"))]
    let gpu = GPU.get_or_init(|| Gpu::new(Device::wgpu_options().init_with_setup()));
    #[cfg(target_arch = "wasm32")]
    let gpu = match GPU.get() {
        Some(gpu) => gpu,
        None => {
            let gpu = Gpu::new(Device::wgpu_options().init_with_setup_async().await);
            GPU.get_or_init(|| gpu)
        }
    };
    gpu.as_ref().map_err(EngineError::clone)
}

impl Gpu {
    fn new(setup: Result<(Device, WgpuSetup), WgpuInitError>) -> Result<Self, EngineError> {
        let (device, setup) = setup.map_err(|error| EngineError::NoDevice {
            engine: Burn::NAME,
            device: "webgpu".to_owned(),
            detail: error.to_string(),
        })?;
        let (fault, lost) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let kept = lost.clone();
        setup.device.set_device_lost_callback(move |reason, message| {
            let _ = kept.set(format!("{reason:?} {message}"));
        });
        let kept = fault.clone();
        setup.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            // The first one is the cause, what follows are its consequences.
            let _ = kept.set(describe(&error));
        }));
        let (info, limits) = (setup.adapter.get_info(), setup.device.limits());
        let has_f16 = setup.device.features().contains(wgpu::Features::SHADER_F16);
        let limits = GpuLimits {
            name: info.name,
            buffer_bytes: limits.max_buffer_size,
            tensor_bytes: limits.max_storage_buffer_binding_size,
            has_f16,
            is_software: info.device_type == wgpu::DeviceType::Cpu,
        };
        Ok(Self { device, limits, setup, fault, lost, wrong_kernels: OnceLock::new() })
    }

    /// What went wrong so far. A device that is lost refuses everything else too, so that comes first.
    pub fn check(&self) -> Result<(), EngineError> {
        if let Some(detail) = self.lost.get() {
            return Err(EngineError::DeviceLost { engine: Burn::NAME, detail: detail.clone() });
        }
        self.fault.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Kernels that computed something else than the CPU, if [compared](Self::compare_kernels).
    pub fn wrong_kernels(&self) -> &[&'static str] {
        self.wrong_kernels.get().map_or(&[], Vec::as_slice)
    }

    /// See [`BurnDevice::compare_kernels`](super::BurnDevice::compare_kernels).
    pub async fn compare_kernels(&self, tolerance: f32) -> Result<Vec<(&'static str, f32)>, EngineError> {
        let deviations = packed::compare(&self.device).await?;
        let wrong = deviations.iter().filter(|(_, deviation)| *deviation > tolerance);
        let _ = self.wrong_kernels.set(wrong.map(|(kernel, _)| *kernel).collect());
        Ok(deviations)
    }

    /// Takes the device away, as a driver's reset does.
    pub fn destroy(&self) {
        self.setup.device.destroy();
        // Not every system calls back about what the program did itself.
        let _ = self.lost.set("destroyed".to_owned());
    }
}

fn describe(error: &wgpu::Error) -> EngineError {
    match error {
        wgpu::Error::OutOfMemory { .. } => EngineError::OutOfMemory { engine: Burn::NAME, detail: error.to_string() },
        wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => EngineError::Operation {
            engine: Burn::NAME,
            operation: "a computation on the GPU".to_owned(),
            detail: error.to_string(),
        },
    }
}
