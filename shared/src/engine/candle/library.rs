//! Kernels of candle itself, for any device and precision.

use candle_core::{D, DType, Result, Tensor};

use super::kernels::{GroupNorm, Kernels};
use crate::engine::{Activation, Binary, ConvOptions, Unary};

pub static KERNELS: Kernels = Kernels {
    contiguous: Tensor::contiguous,
    affine: |x, scale, offset| x.affine(scale.into(), offset.into()),
    unary,
    binary,
    sum: |x, dim| in_f32(x, |x| x.sum_keepdim(dim)),
    softmax: |x| in_f32(x, softmax),
    log_softmax: |x| in_f32(x, log_softmax),
    upsample,
    linear,
    packed_linear: None,
    conv2d,
    layer_norm,
    group_norm,
    geglu: None,
    attention: None,
};

fn unary(x: &Tensor, function: Unary) -> Result<Tensor> {
    match function {
        Unary::Exp => x.exp(),
        Unary::Log => x.log(),
        Unary::Sqrt => x.sqrt(),
        Unary::Silu => x.silu(),
        Unary::Gelu => x.gelu_erf(),
        Unary::QuickGelu => x.div(&x.affine(-1.702, 0.0)?.exp()?.affine(1.0, 1.0)?),
    }
}

fn binary(a: &Tensor, b: &Tensor, function: Binary) -> Result<Tensor> {
    match function {
        Binary::Add => a.broadcast_add(b),
        Binary::Sub => a.broadcast_sub(b),
        Binary::Mul => a.broadcast_mul(b),
        Binary::Div => a.broadcast_div(b),
    }
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?;
    x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// candle's own resize computes the source pixel in floats, which is off by one for some sizes.
fn upsample(x: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let source = |from: usize, to: usize| {
        Tensor::from_iter((0..to).map(|i| (i * from / to) as u32), x.device()) // [to]
    };
    x.contiguous()?.index_select(&source(h, height)?, 2)?.index_select(&source(w, width)?, 3)
}

fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (inputs, outputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / inputs;
    let y = x.reshape((rows, inputs))?.matmul(weight)?; // [rows, out]
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    y.reshape(shape)
}

fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: ConvOptions) -> Result<Tensor> {
    let y = x.contiguous()?.conv2d(weight, options.padding, options.stride, 1, 1)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let standard = in_f32(x, |x| standardize(x, eps))?;
    standard.broadcast_mul(weight)?.broadcast_add(bias)
}

fn group_norm(x: &Tensor, norm: GroupNorm) -> Result<Tensor> {
    let (b, _, h, w) = x.dims4()?;
    let standard = in_f32(&x.reshape((b, norm.groups, ()))?, |x| standardize(x, norm.eps))?;
    let per_channel = |x: &Tensor| x.reshape((1, (), 1, 1)); // [1, C, 1, 1]
    let y = standard.reshape((b, (), h, w))?.broadcast_mul(&per_channel(norm.weight)?)?;
    let y = y.broadcast_add(&per_channel(norm.bias)?)?;
    match norm.activation {
        Activation::None => Ok(y),
        Activation::Silu => y.silu(),
    }
}

/// Mean 0 and variance 1 along the last dimension.
fn standardize(x: &Tensor, eps: f32) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&variance.affine(1.0, eps.into())?.sqrt()?)
}

/// `function` of `x` computed in f32, in `x`'s precision.
fn in_f32(x: &Tensor, function: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    function(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
}
