//! What the paper's stages minimise.

use crate::engine::{Engine, Tensor};

/// Mean of the squared differences, over all numbers: `[1]`.
pub fn mse<E: Engine, const D: usize>(prediction: Tensor<E, D>, target: Tensor<E, D>) -> Tensor<E, 1> {
    let difference = prediction - target;
    (difference.clone() * difference).mean_all()
}

/// Stage 1, language modelling: mean cross-entropy, `[1]`, of the marked positions. `logits` `[B, T, V]`; `targets` and
/// `counted` `[B, T]`, row-major.
///
/// # Panics
/// If no position is counted.
pub fn cross_entropy<E: Engine>(logits: Tensor<E, 3>, targets: &[u32], counted: &[bool]) -> Tensor<E, 1> {
    let [b, t, vocabulary] = logits.shape();
    let device = logits.device();
    let n = counted.iter().filter(|&&counted| counted).count();
    assert!(n > 0, "a batch with something to predict");
    // −1/n at each counted target, so that the sum of the product is the mean of the losses.
    let mut weights = vec![0.0; b * t * vocabulary];
    for (i, (&target, _)) in targets.iter().zip(counted).enumerate().filter(|(_, (_, counted))| **counted) {
        weights[i * vocabulary + target as usize] = -1.0 / n as f32;
    }
    let weights = Tensor::from_host(weights, [b, t, vocabulary], &device);
    (logits.log_softmax() * weights).reshape([b * t * vocabulary]).sum(0)
}

/// Stage 2, alignment: `MSE(M(s), CLIP)` and `MSE(N(M(s)), s) · queries / T`, `[1]` each. `condition` and `clip`
/// `[B, queries, d]`; `reconstructed` and `hidden` `[B, T, D]`.
pub fn align<E: Engine>(
    condition: Tensor<E, 3>,
    clip: Tensor<E, 3>,
    reconstructed: Tensor<E, 3>,
    hidden: Tensor<E, 3>,
) -> (Tensor<E, 1>, Tensor<E, 1>) {
    let queries = condition.shape()[1] as f32;
    let tokens = hidden.shape()[1] as f32;
    (mse(condition, clip), mse(reconstructed, hidden).affine(queries / tokens, 0.0))
}
