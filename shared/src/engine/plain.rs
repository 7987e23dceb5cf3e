//! The fused operations in terms of the plain ones.

use super::{Activation, Engine, Mask, Tensor, Unary};

/// See [`Engine::layer_norm`].
pub fn layer_norm<E: Engine, const D: usize>(
    x: E::Tensor<D>,
    weight: &E::Tensor<1>,
    bias: &E::Tensor<1>,
    eps: f32,
) -> E::Tensor<D> {
    let x = Tensor::<E, D>(x);
    let mut last = [1; D];
    last[D - 1] = x.shape()[D - 1];
    let weight = Tensor::<E, 1>(weight.clone()).reshape(last);
    let bias = Tensor::<E, 1>(bias.clone()).reshape(last);
    (standardize(x, D - 1, eps) * weight + bias).0
}

/// See [`Engine::group_norm`].
pub fn group_norm<E: Engine>(
    x: E::Tensor<4>,
    groups: usize,
    weight: &E::Tensor<1>,
    bias: &E::Tensor<1>,
    eps: f32,
    activation: Activation,
) -> E::Tensor<4> {
    let x = Tensor::<E, 4>(x);
    let [b, c, h, w] = x.shape();
    let x = standardize(x.reshape([b, groups, c / groups * h * w]), 2, eps).reshape([b, c, h, w]);
    let weight = Tensor::<E, 1>(weight.clone()).reshape([1, c, 1, 1]);
    let bias = Tensor::<E, 1>(bias.clone()).reshape([1, c, 1, 1]);
    let x = x * weight + bias;
    match activation {
        Activation::None => x.0,
        Activation::Silu => x.silu().0,
    }
}

/// Mean 0 and variance 1 along `dim`.
fn standardize<E: Engine, const D: usize>(x: Tensor<E, D>, dim: usize, eps: f32) -> Tensor<E, D> {
    let centred = x.clone() - x.mean(dim);
    let variance = (centred.clone() * centred.clone()).mean(dim);
    centred / variance.affine(1.0, eps).map(Unary::Sqrt)
}

/// See [`Engine::geglu`].
pub fn geglu<E: Engine, const D: usize>(x: E::Tensor<D>) -> E::Tensor<D> {
    let [x, gate] = Tensor::<E, D>(x).chunk(D - 1);
    (x * gate.gelu()).0
}

/// Scores that attention computes at once on a device whose buffers or memory are small: 64 MiB of them in f32, half of what
/// WebGPU promises of a buffer.
pub const SCORES: usize = 16 << 20;

/// See [`Engine::attention`]. So many queries are taken at a time that they have no more than `most` scores, though at least one:
/// all scores of a large picture would take many times what the rest of the U-Net does.
pub fn attention<E: Engine>([q, k, v]: [E::Tensor<3>; 3], heads: usize, mask: &Mask<E>, most: usize) -> E::Tensor<3> {
    let q = Tensor::<E, 3>(q);
    let [b, tq, c] = q.shape();
    let tk = Tensor::<E, 3>(k.clone()).shape()[1];
    let split = |x: Tensor<E, 3>, t| {
        let x = x.reshape([b, t, heads, c / heads]).permute([0, 2, 1, 3]);
        x.reshape([b * heads, t, c / heads]) // [B·heads, T, C/heads]
    };
    let device = q.device();
    let q = split(q.affine(((c / heads) as f32).sqrt().recip(), 0.0), tq);
    let (k, v) = (split(Tensor(k), tk).permute([0, 2, 1]), split(Tensor(v), tk));
    // `n` queries, of which the first has that number.
    let attend = |q: Tensor<E, 3>, first: usize, n: usize| {
        let scores = q.matmul(k.clone()); // [B·heads, n, Tk]
        let scores = match mask {
            Mask::None => scores,
            Mask::Causal => {
                let hidden = (0..n * tk).map(|i| if i % tk > first + i / tk { Mask::<E>::HIDDEN } else { 0.0 });
                scores + Tensor::from_host(hidden.collect(), [1, n, tk], &device)
            }
            Mask::Keys(keys) => {
                let scores = scores.reshape([b, heads, n, tk]) + keys.clone().reshape([b, 1, 1, tk]);
                scores.reshape([b * heads, n, tk])
            }
        };
        scores.softmax().matmul(v.clone())
    };
    let at_once = (most / (b * heads * tk).max(1)).max(1);
    let x = if at_once >= tq {
        attend(q, 0, tq)
    } else {
        let part = |first| {
            let n = at_once.min(tq - first);
            attend(q.clone().narrow(1, first, n), first, n)
        };
        Tensor::cat((0..tq).step_by(at_once).map(part).collect(), 1)
    };
    x.reshape([b, heads, tq, c / heads]).permute([0, 2, 1, 3]).reshape([b, tq, c]).0
}
