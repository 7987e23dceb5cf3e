//! Work on what stands at the same place of several tensors, in place.

use ::burn::Tensor;
use ::burn::backend::{Flex, TensorMetadata};

use super::Array;
use crate::engine::cpu::parallel;
use crate::engine::cpu::vector::{sum, wide};

/// Numbers that a task takes.
const TASK: usize = 1 << 14;

/// Replaces what stands at each place of flat tensors of one length by `f` of it. Memory that nobody else holds is used again.
pub fn update<const N: usize>(
    tensors: [Tensor<1>; N],
    f: impl Fn([f32; N]) -> [f32; N] + Sync + Send,
) -> [Tensor<1>; N] {
    let mut arrays = tensors.map(Array::flat);
    let n = arrays[0].0.shape()[0];
    let mut rest = arrays.each_mut().map(|array| &mut array.0.storage_mut::<f32>()[..n]);
    let mut tasks = Vec::with_capacity(n.div_ceil(TASK));
    for start in (0..n).step_by(TASK) {
        let length = TASK.min(n - start);
        tasks.push(rest.each_mut().map(|rest| {
            let (head, tail) = std::mem::take(rest).split_at_mut(length);
            *rest = tail;
            head
        }));
    }
    parallel::map(n * N, tasks, |mut task: [&mut [f32]; N]| {
        wide(
            #[inline(always)]
            || {
                for i in 0..task[0].len() {
                    let updated = f(std::array::from_fn(|tensor| task[tensor][i]));
                    for (task, updated) in task.iter_mut().zip(updated) {
                        task[i] = updated;
                    }
                }
            },
        );
    });
    arrays.map(|array| Tensor::from_primitive::<Flex>(array.0))
}

/// The sum of a flat tensor's squares.
pub fn squared_norm(x: Tensor<1>) -> f32 {
    let x = Array::flat(x);
    let squares = |x: &[f32]| {
        wide(
            #[inline(always)]
            || sum(x, |x| x * x),
        )
    };
    parallel::map(x.data().len(), x.data().chunks(TASK).collect(), squares).iter().sum::<f64>() as f32
}

impl Array {
    /// From the first number of its memory on.
    fn flat(x: Tensor<1>) -> Self {
        let array = Self::from_tensor(x.try_into_primitive::<Flex>().expect("a plain tensor on the CPU"));
        if array.0.layout().start_offset() == 0 { array } else { array.like(array.data().to_vec()) }
    }
}
