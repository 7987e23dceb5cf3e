//! Kernels of ours for f32 on the CPU: on all threads, vectorised, and reading views where they lie. candle's own run
//! most operations on one thread and pack a convolution's weights anew at each call.

use candle_core::{CpuStorage, Device, Layout, Result, Storage, StorageRef, Tensor, bail};

use super::kernels::{AttentionMask, GroupNorm, Kernels};
use crate::engine::{Binary, ConvOptions, Unary};

use convolve::Picture;
use elementwise::View;
use product::{Matrix, Product, Start};

mod attend;
mod convolve;
mod elementwise;
mod math;
mod normalize;
mod parallel;
mod product;

pub static KERNELS: Kernels = Kernels {
    contiguous,
    affine: |x, scale, offset| map(x, |x| x * scale + offset),
    unary,
    binary,
    sum,
    softmax: |x| rows(x, normalize::softmax),
    log_softmax: |x| rows(x, normalize::log_softmax),
    upsample,
    linear,
    conv2d,
    layer_norm,
    group_norm,
    attention: Some(attention),
};

/// A tensor's numbers, borrowed.
struct Numbers<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Numbers<'a> {
    fn of(x: &'a Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(_)) => Ok(Self { storage, layout }),
            _ => bail!("a tensor of {:?} on {:?} where f32 on the CPU is needed", x.dtype(), x.device()),
        }
    }

    fn slice(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => &numbers[self.layout.start_offset()..],
            _ => unreachable!("checked at construction"),
        }
    }

    /// The tensor as part of a result of that shape: a dimension of size 1 is repeated.
    fn view(&self, shape: &[usize]) -> Result<View<'_>> {
        let layout = self.layout.broadcast_as(shape)?;
        Ok(View { numbers: self.slice(), strides: layout.stride().to_vec() })
    }
}

fn tensor(numbers: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}

fn contiguous(x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() { Ok(x.clone()) } else { map(x, |x| x) }
}

fn map(x: &Tensor, function: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
    let numbers = Numbers::of(x)?;
    tensor(elementwise::map(x.dims(), numbers.view(x.dims())?, function), x.dims())
}

fn unary(x: &Tensor, function: Unary) -> Result<Tensor> {
    match function {
        Unary::Exp => map(x, f32::exp),
        Unary::Log => map(x, f32::ln),
        Unary::Sqrt => map(x, f32::sqrt),
        Unary::Silu => map(x, math::silu),
        Unary::Gelu => map(x, math::gelu),
        Unary::QuickGelu => map(x, |x| x * math::sigmoid(1.702 * x)),
    }
}

fn binary(a: &Tensor, b: &Tensor, function: Binary) -> Result<Tensor> {
    let shape = a.shape().broadcast_shape_binary_op(b.shape(), "binary")?;
    let shape = shape.dims();
    let (a, b) = (Numbers::of(a)?, Numbers::of(b)?);
    let (a, b) = (a.view(shape)?, b.view(shape)?);
    let numbers = match function {
        Binary::Add => elementwise::zip(shape, a, b, |a, b| a + b),
        Binary::Sub => elementwise::zip(shape, a, b, |a, b| a - b),
        Binary::Mul => elementwise::zip(shape, a, b, |a, b| a * b),
        Binary::Div => elementwise::zip(shape, a, b, |a, b| a / b),
    };
    tensor(numbers, shape)
}

fn sum(x: &Tensor, dim: usize) -> Result<Tensor> {
    let x = contiguous(x)?;
    let mut shape = x.dims().to_vec();
    let length = std::mem::replace(&mut shape[dim], 1);
    let (outer, inner) = (shape[..dim].iter().product(), shape[dim + 1..].iter().product());
    let numbers = Numbers::of(&x)?;
    tensor(normalize::sum(numbers.slice(), [outer, length, inner]), &shape)
}

/// `function` from each of `x`'s rows to one of the result's.
fn rows(x: &Tensor, function: impl Fn(&[f32], &mut [f32]) + Sync) -> Result<Tensor> {
    let x = contiguous(x)?;
    let numbers = Numbers::of(&x)?;
    let width = x.dims()[x.rank() - 1];
    tensor(parallel::rows(&numbers.slice()[..x.elem_count()], width, |_, row, out| function(row, out)), x.dims())
}

fn upsample(x: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
    let x = contiguous(x)?;
    let (b, c, h, w) = x.dims4()?;
    let numbers = Numbers::of(&x)?;
    let columns: Vec<_> = (0..width).map(|i| i * w / width).collect();
    let mut out = vec![0.0; b * c * height * width];
    parallel::chunks(&mut out, width, |i, out| {
        let (plane, y) = (i / height, i % height * h / height);
        let row = &numbers.slice()[(plane * h + y) * w..][..w];
        out.iter_mut().zip(&columns).for_each(|(out, &column)| *out = row[column]);
    });
    tensor(out, &[b, c, height, width])
}

fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (inputs, outputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == inputs => *last = outputs,
        _ => bail!("an input of {shape:?} for a linear map of {inputs} numbers"),
    }
    // A view such as a picture's [B, C, H·W] with pixels as tokens is read where it lies.
    let view = x.rank() == 3 && !x.is_contiguous();
    let x = if view { x.clone() } else { contiguous(x)?.reshape((1, (), inputs))? };
    let (batches, tokens, _) = x.dims3()?;
    let (x, weight, bias) = (Numbers::of(&x)?, Numbers::of(weight)?, bias.map(Numbers::of).transpose()?);
    let weight = Matrix::new(weight.slice(), [inputs, outputs], [outputs, 1]);
    let mut out = vec![0.0; batches * tokens * outputs];
    if let Some(bias) = &bias {
        parallel::chunks(&mut out, outputs, |_, out| out.copy_from_slice(&bias.slice()[..outputs]));
    }
    let start = if bias.is_some() { Start::Out } else { Start::Zero };
    for (batch, out) in out.chunks_mut((tokens * outputs).max(1)).enumerate() {
        let strides = x.layout.stride();
        let x = Matrix::new(&x.slice()[batch * strides[0]..], [tokens, inputs], [strides[1], strides[2]]);
        Product::of(x, weight).on_all_threads().write(out, outputs, start);
    }
    tensor(out, &shape)
}

fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: ConvOptions) -> Result<Tensor> {
    let x = contiguous(x)?;
    let (batch, channels, height, width) = x.dims4()?;
    let (out, inputs, kernel, _) = weight.dims4()?;
    if inputs != channels || height.min(width) + 2 * options.padding < kernel {
        bail!("a picture of {:?} for a convolution of {:?}", x.dims(), weight.dims());
    }
    let picture = Picture { channels, height, width, kernel, options };
    let [out_height, out_width] = picture.output();
    let (x, weight, bias) = (Numbers::of(&x)?, Numbers::of(weight)?, bias.map(Numbers::of).transpose()?);
    let numbers = picture.convolve(
        &x.slice()[..batch * channels * height * width],
        weight.slice(),
        bias.as_ref().map(Numbers::slice),
        out,
    );
    tensor(numbers, &[batch, out, out_height, out_width])
}

fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let (weight, bias) = (Numbers::of(weight)?, Numbers::of(bias)?);
    rows(x, |row, out| normalize::layer_norm(row, weight.slice(), bias.slice(), eps, out))
}

fn group_norm(x: &Tensor, norm: GroupNorm) -> Result<Tensor> {
    let x = contiguous(x)?;
    let (_, channels, height, width) = x.dims4()?;
    let per_group = channels / norm.groups;
    let (numbers, weight, bias) = (Numbers::of(&x)?, Numbers::of(norm.weight)?, Numbers::of(norm.bias)?);
    let numbers = &numbers.slice()[..x.elem_count()];
    let out = parallel::rows(numbers, per_group * height * width, |i, group, out| {
        let first = i % norm.groups * per_group;
        let (weight, bias) = (&weight.slice()[first..][..per_group], &bias.slice()[first..][..per_group]);
        normalize::group_norm(group, [weight, bias], norm.eps, norm.activation, out);
    });
    tensor(out, x.dims())
}

fn attention(qkv: [&Tensor; 3], heads: usize, mask: AttentionMask) -> Result<Tensor> {
    let [q, k, v] = qkv.map(contiguous);
    let (q, k, v) = (q?, k?, v?);
    let (batch, queries, width) = q.dims3()?;
    let keys = k.dims()[1];
    if k.dims() != [batch, keys, width] || v.dims() != k.dims() || width % heads != 0 {
        bail!("{heads} heads over queries {:?}, keys {:?}, values {:?}", q.dims(), k.dims(), v.dims());
    }
    let key_scores = match mask {
        AttentionMask::Keys(scores) => Some(contiguous(scores)?),
        _ => None,
    };
    let key_scores = key_scores.as_ref().map(Numbers::of).transpose()?;
    let mask = match (&mask, &key_scores) {
        (_, Some(scores)) => attend::Mask::Keys(&scores.slice()[..batch * keys]),
        (AttentionMask::Causal, _) => attend::Mask::Causal,
        _ => attend::Mask::None,
    };
    let heads = attend::Heads { batch, queries, keys, heads, width: width / heads };
    let (q, k, v) = (Numbers::of(&q)?, Numbers::of(&k)?, Numbers::of(&v)?);
    tensor(heads.attend([q.slice(), k.slice(), v.slice()], mask), &[batch, queries, width])
}
