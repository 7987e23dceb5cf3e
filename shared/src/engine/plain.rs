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

/// See [`Engine::attention`].
pub fn attention<E: Engine>(
    q: E::Tensor<3>,
    k: E::Tensor<3>,
    v: E::Tensor<3>,
    heads: usize,
    mask: &Mask<E>,
) -> E::Tensor<3> {
    let q = Tensor::<E, 3>(q);
    let [b, tq, c] = q.shape();
    let tk = Tensor::<E, 3>(k.clone()).shape()[1];
    let split = |x: Tensor<E, 3>, t| {
        let x = x.reshape([b, t, heads, c / heads]).permute([0, 2, 1, 3]);
        x.reshape([b * heads, t, c / heads]) // [B·heads, T, C/heads]
    };
    let device = q.device();
    let q = split(q.affine(((c / heads) as f32).sqrt().recip(), 0.0), tq);
    let (k, v) = (split(Tensor(k), tk), split(Tensor(v), tk));
    let scores = q.matmul(k.permute([0, 2, 1])); // [B·heads, Tq, Tk]
    let scores = match mask {
        Mask::None => scores,
        Mask::Causal => {
            let hidden = (0..tq * tk).map(|i| if i % tk > i / tk { Mask::<E>::HIDDEN } else { 0.0 });
            scores + Tensor::from_host(hidden.collect(), [1, tq, tk], &device)
        }
        Mask::Keys(keys) => {
            let scores = scores.reshape([b, heads, tq, tk]) + keys.clone().reshape([b, 1, 1, tk]);
            scores.reshape([b * heads, tq, tk])
        }
    };
    let x = scores.softmax().matmul(v).reshape([b, heads, tq, c / heads]);
    x.permute([0, 2, 1, 3]).reshape([b, tq, c]).0
}
