//! Operations of ours on burn's tensors on the CPU, each with its derivative: what a U-Net's time goes into.
//!
//! burn's own run an activation one number at a time, take attention apart into a dozen passes over memory, and spend five
//! times a convolution on its gradient.

#![cfg_attr(not(feature = "autodiff"), allow(dead_code, reason = "derivatives serve training only"))]

use std::fmt::Debug;

use ::burn::Tensor;
use ::burn::backend::flex::FlexTensor;
use ::burn::backend::{DispatchDevice, Flex, TensorMetadata};
use ::burn::tensor::{Bytes, DType, Device, Shape};

pub(super) use crate::engine::cpu::attention::Visible;
use crate::engine::cpu::packed;
use crate::weights::HostTensor;
pub(super) use kernels::{Activate, Attention, Conv, Geglu, GroupNorm, LayerNorm, Linear, Rows};

#[cfg(feature = "autodiff")]
mod gradient;
mod kernels;
#[cfg(feature = "autodiff")]
pub(super) mod places;

/// A function of `N` tensors, and its derivative.
pub(super) trait Kernel<const N: usize>: Debug + Clone + Send + 'static {
    /// The output, and what the derivative needs besides the inputs.
    fn forward(&self, inputs: [&Array; N]) -> (Array, Vec<f32>);

    /// From the derivative of some number with respect to the output, the one with respect to each input; those that
    /// are not `wanted` may be left out.
    fn backward(&self, inputs: [&Array; N], saved: &[f32], gradient: &Array, wanted: [bool; N]) -> [Option<Array>; N];
}

/// Whether tensors of this device can go through [`apply`].
pub(super) fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// An input of [`apply`], of any rank.
#[derive(Clone)]
pub(super) enum Input {
    Plain(Array),
    #[cfg(feature = "autodiff")]
    Tracked(gradient::TrackedTensor),
}

impl<const D: usize> From<Tensor<D>> for Input {
    fn from(x: Tensor<D>) -> Self {
        #[cfg(feature = "autodiff")]
        if x.is_autodiff() {
            return Input::Tracked(gradient::open(x));
        }
        Input::Plain(Array::from_tensor(x.try_into_primitive::<Flex>().expect("a tensor on the CPU")))
    }
}

/// Runs a kernel on tensors of the CPU.
pub(super) fn apply<const N: usize, const D: usize>(kernel: impl Kernel<N>, inputs: [Input; N]) -> Tensor<D> {
    #[cfg(feature = "autodiff")]
    if inputs.iter().any(|input| matches!(input, Input::Tracked(_))) {
        return gradient::apply(kernel, inputs);
    }
    let inputs = inputs.map(|input| match input {
        Input::Plain(array) => array,
        #[cfg(feature = "autodiff")]
        Input::Tracked(_) => unreachable!("handled above"),
    });
    let (output, _) = kernel.forward(inputs.each_ref());
    Tensor::from_primitive::<Flex>(output.0)
}

/// `x · weightᵀ + bias`: x `[…, in]`, weight `[out, in]`, bias `[out]` to `[…, out]`, without gradients.
pub(super) fn packed_linear<const D: usize>(x: Tensor<D>, weight: &HostTensor, bias: Option<Tensor<1>>) -> Tensor<D> {
    let plain = |x: Tensor<D>| Array::from_tensor(x.try_into_primitive::<Flex>().expect("a tensor on the CPU"));
    let (x, bias) = (plain(x), bias.map(numbers));
    let y = packed::linear(x.rows(), weight, bias.as_deref());
    Tensor::from_primitive::<Flex>(x.with_last(weight.shape()[0], y).0)
}

/// The same tensor with its numbers in row-major order, where it was a view of another order.
pub(super) fn row_major<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let array = Array::from_tensor(x.try_into_primitive::<Flex>().expect("a tensor on the CPU"));
    Tensor::from_primitive::<Flex>(array.0)
}

/// The numbers of a tensor that no gradient is wanted of.
pub(super) fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    let array = Array::from_tensor(x.without_autodiff().try_into_primitive::<Flex>().expect("a tensor on the CPU"));
    array.data().to_vec()
}

/// Numbers in row-major order, with a shape.
#[derive(Debug, Clone)]
pub(super) struct Array(FlexTensor);

impl Array {
    fn new(data: Vec<f32>, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data = Bytes::from_elems(data);
        Self(FlexTensor::new(data, ::burn::backend::flex::Layout::contiguous(shape), DType::F32))
    }

    fn from_tensor(tensor: FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }

    fn like(&self, data: Vec<f32>) -> Self {
        Self::new(data, self.0.shape())
    }

    fn data(&self) -> &[f32] {
        self.0.as_slice().expect("a row-major f32 tensor")
    }

    fn shape<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }
}
