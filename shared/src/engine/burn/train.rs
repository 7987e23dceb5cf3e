//! Gradients.
//!
//! A training run keeps its weights as flat tensors by name, hands them to the networks as
//! [`Parameter::Device`](crate::weights::Parameter::Device), and builds the graph anew for each step.

use ::burn::tensor::TensorData;

use super::{Burn, BurnDevice, cpu};
use crate::engine::Tensor;

/// A flat tensor that [`backward`] finds the gradient of.
pub fn track(data: Vec<f32>, device: &BurnDevice) -> Tensor<Burn, 1> {
    let n = data.len();
    Tensor(::burn::Tensor::from_data(TensorData::new(data, [n]), device.inner()).require_grad())
}

/// The same numbers, cut off from how they came about.
pub fn detach<const D: usize>(x: Tensor<Burn, D>) -> Tensor<Burn, D> {
    Tensor(x.0.detach())
}

/// The gradients of `loss`, one number, with respect to every tracked tensor it depends on.
///
/// # Panics
/// If `loss` depends on no [tracked](track) tensor, or lives on a device without
/// [gradients](BurnDevice::training).
pub fn backward(loss: &Tensor<Burn, 1>) -> Gradients {
    Gradients(loss.0.backward())
}

/// What [`backward`] found.
pub struct Gradients(::burn::tensor::Gradients);

impl Gradients {
    /// The gradient with respect to a [tracked](track) tensor, on the device without gradients; `None` if the loss
    /// does not depend on it.
    pub fn take(&mut self, tracked: &Tensor<Burn, 1>) -> Option<Tensor<Burn, 1>> {
        tracked.0.grad_remove(&mut self.0).map(Tensor)
    }
}

/// Replaces what stands at each place of flat [plain] tensors of one length by `on_numbers` of it, in one pass on all cores, if
/// they are on the CPU. Elsewhere `on_tensors` does the same with operations on whole tensors.
pub fn update<const N: usize>(
    tensors: [Tensor<Burn, 1>; N],
    on_numbers: impl Fn([f32; N]) -> [f32; N] + Sync + Send,
    on_tensors: impl FnOnce([Tensor<Burn, 1>; N]) -> [Tensor<Burn, 1>; N],
) -> [Tensor<Burn, 1>; N] {
    if tensors.iter().all(|x| cpu::is_cpu(&x.0.device())) {
        cpu::places::update(tensors.map(|x| x.0), on_numbers).map(Tensor)
    } else {
        on_tensors(tensors)
    }
}

/// The sum of a flat [plain] tensor's squares, `[1]`.
pub fn squared_norm(x: Tensor<Burn, 1>) -> Tensor<Burn, 1> {
    if cpu::is_cpu(&x.0.device()) {
        let device = x.device();
        return Tensor::from_host(vec![cpu::places::squared_norm(x.0)], [1], &device);
    }
    (x.clone() * x).sum(0)
}

/// The same numbers on the device without gradients.
pub fn plain<const D: usize>(x: Tensor<Burn, D>) -> Tensor<Burn, D> {
    Tensor(x.0.inner())
}

/// The numbers of a [plain] tensor as one that [`backward`] finds the gradient of.
pub fn track_again(x: Tensor<Burn, 1>) -> Tensor<Burn, 1> {
    Tensor(x.0.autodiff().require_grad())
}
