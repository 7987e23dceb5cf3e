//! Gradients.
//!
//! A training run keeps its weights as flat tensors by name, hands them to the networks as
//! [`Parameter::Device`](crate::weights::Parameter::Device), and builds the graph anew for each step.

use std::cell::{Cell, RefCell};

use ::burn::tensor::{FloatDType, TensorData};
use serde::{Deserialize, Serialize};

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

/// What products are computed with: linear maps, convolutions and attention. Everything else is in f32 whatever this is, and so
/// are the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE half precision: small gradients vanish in it unless the loss is scaled up.
    F16,
    /// Half the bits with the range of all of them.
    Bf16,
}

impl Precision {
    fn lower(self) -> Option<FloatDType> {
        match self {
            Self::F32 => None,
            Self::F16 => Some(FloatDType::F16),
            Self::Bf16 => Some(FloatDType::BF16),
        }
    }

    /// Whether a device computes with it.
    pub fn is_on(self, device: &BurnDevice) -> bool {
        self.lower().is_none_or(|dtype| device.inner().supports_dtype(dtype))
    }
}

thread_local! {
    /// What products are computed with, if it is less than f32.
    static LOWER: Cell<Option<FloatDType>> = const { Cell::new(None) };
}

/// Runs `work`, a forward and a [`backward`] pass on this thread, with products in `precision`.
pub fn in_precision<R>(precision: Precision, work: impl FnOnce() -> R) -> R {
    let before = LOWER.replace(precision.lower());
    let result = work();
    LOWER.set(before);
    result
}

/// What products are computed with, if it is less than f32.
pub(super) fn lower_precision() -> Option<FloatDType> {
    LOWER.get()
}

thread_local! {
    /// What [`checkpoint`] keeps, in the order in which it was computed; `None` outside of [`checkpointing`].
    static KEPT: RefCell<Option<Vec<Box<dyn Block>>>> = const { RefCell::new(None) };
}

thread_local! {
    /// In [`untracked`]: whether gradients would have been wanted of anything that was computed with.
    static WANTED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Runs `work` without keeping what gradients would need, and tells whether there would have been gradients.
fn untracked<const D: usize>(work: impl FnOnce() -> Tensor<Burn, D>) -> (::burn::Tensor<D>, bool) {
    WANTED.set(Some(false));
    let output = seen(work().0);
    (output, WANTED.take() == Some(true))
}

/// What an operation is to compute with: of a tensor in [`untracked`] its numbers alone.
pub(super) fn seen<const D: usize>(x: ::burn::Tensor<D>) -> ::burn::Tensor<D> {
    let Some(wanted) = WANTED.get() else { return x };
    WANTED.set(Some(wanted || x.is_tracked()));
    x.without_autodiff()
}

/// Runs `work`, a forward and a [`backward`] pass on this thread, with less memory: of each
/// [block](crate::engine::Engine::checkpoint) only the result is kept, and the rest is computed again for the gradients.
pub fn checkpointing<R>(work: impl FnOnce() -> R) -> R {
    KEPT.set(Some(Vec::new()));
    let result = work();
    KEPT.set(None);
    result
}

/// See [`Engine::checkpoint`](crate::engine::Engine::checkpoint).
pub(super) fn checkpoint<M: Clone + 'static, I: Clone + 'static, const D: usize>(
    module: &M,
    input: I,
    block: fn(&M, I) -> Tensor<Burn, D>,
) -> Tensor<Burn, D> {
    // A block within a block is computed again with it.
    if KEPT.with_borrow(Option::is_none) || WANTED.get().is_some() {
        return block(module, input);
    }
    let (output, wanted) = untracked(|| block(module, input.clone()));
    let output = output.autodiff();
    if !wanted {
        return Tensor(output);
    }
    let output = Tensor(output.require_grad());
    let kept = Box::new(Kept { module: module.clone(), input, block, output: output.clone() });
    KEPT.with_borrow_mut(|blocks| {
        if let Some(blocks) = blocks {
            blocks.push(kept);
        }
    });
    output
}

/// A block whose way from input to output is to be computed again.
struct Kept<M, I, const D: usize> {
    module: M,
    input: I,
    block: fn(&M, I) -> Tensor<Burn, D>,
    output: Tensor<Burn, D>,
}

trait Block {
    /// From the gradient with respect to the output to those with respect to what it depends on.
    fn backward(self: Box<Self>, gradients: &mut Gradients);
}

impl<M, I, const D: usize> Block for Kept<M, I, D> {
    fn backward(self: Box<Self>, gradients: &mut Gradients) {
        let Self { module, input, block, output } = *self;
        if let Some(gradient) = gradients.take(&output) {
            let again = block(&module, input);
            gradients.0.push((again.0 * gradient.0.autodiff()).sum().backward());
        }
    }
}

/// The gradients of `loss`, one number, with respect to every tracked tensor it depends on.
///
/// # Panics
/// If `loss` depends on no [tracked](track) tensor, or lives on a device without
/// [gradients](BurnDevice::training).
pub fn backward(loss: &Tensor<Burn, 1>) -> Gradients {
    let mut gradients = Gradients(vec![loss.0.backward()]);
    let blocks = KEPT.take().unwrap_or_default();
    blocks.into_iter().rev().for_each(|block| block.backward(&mut gradients));
    gradients
}

/// What [`backward`] found: sums over all of these.
pub struct Gradients(Vec<::burn::tensor::Gradients>);

impl Gradients {
    /// The gradient with respect to a [tracked](track) tensor, on the device without gradients; `None` if the loss
    /// does not depend on it.
    pub fn take<const D: usize>(&mut self, tracked: &Tensor<Burn, D>) -> Option<Tensor<Burn, D>> {
        let found = self.0.iter_mut().filter_map(|gradients| tracked.0.grad_remove(gradients).map(Tensor));
        found.reduce(|a, b| a + b)
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
