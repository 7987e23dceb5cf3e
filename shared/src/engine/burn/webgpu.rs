//! The GPU, and what goes wrong on it.
//!
//! A GPU reports late and out of band: a lost device, no memory, a shader that the driver refuses. With burn alone, some of
//! that ends the program, and in a browser some passes with stale numbers. So the first such report is kept, and every
//! later reading fails with it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ::burn::tensor::wgpu::{WgpuInitError, WgpuSetup, wgpu};
use ::burn::tensor::{Device, Tensor};

use packed::Kernel;

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
    /// Bytes of the largest buffer that a computation can read.
    pub tensor_bytes: u64,
    /// Whether its shaders can have numbers of 16 bits.
    pub has_f16: bool,
    /// Whether it is the CPU in disguise.
    pub is_software: bool,
}

impl GpuLimits {
    /// Bytes of the largest tensor.
    pub fn largest_tensor_bytes(&self) -> u64 {
        self.buffer_bytes.min(self.tensor_bytes)
    }
}

pub struct Gpu {
    pub device: Device,
    pub limits: GpuLimits,
    setup: WgpuSetup,
    fault: Arc<Fault>,
    /// Why the device is gone.
    lost: Arc<OnceLock<String>>,
    /// Kernels that compute something else here than on the CPU.
    wrong_kernels: OnceLock<Vec<&'static str>>,
}

/// What went wrong first, if something did.
#[derive(Debug, Default)]
struct Fault(Mutex<Option<EngineError>>);

impl Fault {
    fn get(&self) -> MutexGuard<'_, Option<EngineError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let (fault, lost) = (Arc::new(Fault::default()), Arc::new(OnceLock::new()));
        let kept = lost.clone();
        setup.device.set_device_lost_callback(move |reason, message| {
            let _ = kept.set(format!("{reason:?} {message}"));
        });
        let kept = fault.clone();
        setup.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            // The first one is the cause, what follows are its consequences.
            kept.get().get_or_insert_with(|| describe(&error));
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
        self.fault.get().clone().map_or(Ok(()), Err)
    }

    /// Kernels that computed something else than the CPU, if [compared](Self::compare_kernels).
    pub fn wrong_kernels(&self) -> &[&'static str] {
        self.wrong_kernels.get().map_or(&[], Vec::as_slice)
    }

    /// See [`BurnDevice::compare_kernels`](super::BurnDevice::compare_kernels). With `impossible` kernels, which this GPU has not
    /// what it takes for, it has to refuse some.
    pub async fn compare_kernels(
        &self,
        tolerance: f32,
        impossible: bool,
    ) -> Result<Vec<(&'static str, f32)>, EngineError> {
        let mut deviations = Vec::new();
        for kernel in Kernel::possible(impossible || self.limits.has_f16) {
            let deviation = match packed::deviation(kernel, &self.device).await {
                // What a driver refuses stops nothing else, and is as wrong as can be.
                Err(EngineError::Operation { .. }) => {
                    self.forget_fault().await?;
                    f32::INFINITY
                }
                compared => compared?,
            };
            deviations.push((kernel.name(), deviation));
        }
        let wrong = deviations.iter().filter(|(_, deviation)| *deviation > tolerance);
        let _ = self.wrong_kernels.set(wrong.map(|(kernel, _)| *kernel).collect());
        Ok(deviations)
    }

    /// Goes on after a computation that failed, with all reports of it.
    async fn forget_fault(&self) -> Result<(), EngineError> {
        // What is read after it comes after its reports, and fails with them: that error is the one to forget. A device that is
        // of no use shows in `check`, or at the next reading.
        let _ = Burn::to_host(Tensor::<1>::zeros([1], &self.device)).await;
        self.fault.get().take();
        self.check()
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

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;

    #[test]
    fn a_tensor_that_no_buffer_holds_is_out_of_memory_and_nothing_else_is_lost() {
        let device = block_on(super::super::BurnDevice::webgpu()).unwrap();
        let most = device.gpu_limits().unwrap().largest_tensor_bytes();
        let ones = |rows: u64| Tensor::<2>::ones([rows as usize, 1024], device.inner()).sum();
        let rows = most / 4096 + 1;
        let error = block_on(Burn::to_host(ones(rows))).unwrap_err();
        assert!(matches!(error, EngineError::OutOfMemory { .. }), "{error}");
        assert_eq!(block_on(Burn::to_host(ones(1))).unwrap(), [1024.0]);
    }
}
