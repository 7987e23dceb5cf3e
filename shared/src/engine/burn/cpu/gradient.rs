//! A kernel's place in burn's record of what was computed from what.

use ::burn::Tensor;
use ::burn::backend::autodiff::checkpoint::base::Checkpointer;
use ::burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use ::burn::backend::autodiff::grads::Gradients;
use ::burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use ::burn::backend::tensor::FloatTensor;
use ::burn::backend::{Autodiff, Flex};

use super::{Array, Input, Kernel};

pub(in super::super) type TrackedTensor = FloatTensor<Autodiff<Flex>>;

pub(super) fn open<const D: usize>(x: Tensor<D>) -> TrackedTensor {
    x.try_into_primitive::<Autodiff<Flex>>().expect("a tensor on the CPU, without checkpointing")
}

/// Runs a kernel on tensors of the CPU, of which some are tracked.
pub(super) fn apply<const N: usize, const D: usize>(kernel: impl Kernel<N>, inputs: [Input; N]) -> Tensor<D> {
    let inputs = inputs.map(|input| match input {
        Input::Plain(array) => TrackedTensor::new(array.0),
        Input::Tracked(tensor) => tensor,
    });
    let arrays = inputs.each_ref().map(|input| Array::from_tensor(input.primitive().clone()));
    let (output, saved) = kernel.forward(arrays.each_ref());
    let nodes = inputs.map(|input| input.node());
    let output = match Record(kernel).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(record) => record.finish((arrays, saved), output.0),
        OpsKind::UnTracked(record) => record.finish(output.0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

#[derive(Debug)]
struct Record<K>(K);

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Record<K> {
    type State = ([Array; N], Vec<f32>);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (inputs, saved) = ops.state;
        let gradient = Array::from_tensor(gradients.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = self.0.backward(inputs.each_ref(), &saved, &gradient, wanted);
        for (parent, found) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(found)) = (parent, found) {
                gradients.register::<Flex>(parent.id, found.0);
            }
        }
    }
}
