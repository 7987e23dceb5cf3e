//! Kernels of ours for f32 on the CPU: on all threads, vectorised, and reading views where they lie. candle's own run
//! most operations on one thread and pack a convolution's weights anew at each call.

use candle_core::{CpuStorage, Device, Layout, Result, Storage, StorageRef, Tensor, bail};

use super::kernels::{AttentionMask, GroupNorm, Kernels};
use crate::engine::cpu::attention::{Attention, Visible};
use crate::engine::cpu::conv::Conv;
use crate::engine::cpu::matrix::Matrix;
use crate::engine::cpu::{activation, functions, linear, norm, packed, parallel};
use crate::engine::{Binary, ConvOptions, Unary};
use crate::weights::HostTensor;

use elementwise::View;

mod elementwise;
mod reduce;

pub static KERNELS: Kernels = Kernels {
    contiguous,
    affine: |x, scale, offset| map(x, |x| x * scale + offset),
    unary,
    binary,
    sum,
    softmax: |x| rows(x, reduce::softmax),
    log_softmax: |x| rows(x, reduce::log_softmax),
    upsample,
    linear: linear_map,
    packed_linear: Some(packed_linear),
    conv2d,
    layer_norm,
    group_norm,
    geglu: Some(geglu),
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

    /// From the first on; of a contiguous tensor, exactly its numbers.
    fn slice(&self) -> &[f32] {
        let numbers = match &*self.storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => &numbers[self.layout.start_offset()..],
            _ => unreachable!("checked at construction"),
        };
        if self.layout.is_contiguous() { &numbers[..self.layout.shape().elem_count()] } else { numbers }
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

fn map(x: &Tensor, function: impl Fn(f32) -> f32 + Sync + Send) -> Result<Tensor> {
    let numbers = Numbers::of(x)?;
    tensor(elementwise::map(x.dims(), numbers.view(x.dims())?, function), x.dims())
}

fn unary(x: &Tensor, function: Unary) -> Result<Tensor> {
    match function {
        Unary::Exp => map(x, f32::exp),
        Unary::Log => map(x, f32::ln),
        Unary::Sqrt => map(x, f32::sqrt),
        Unary::Silu => map(x, functions::silu),
        Unary::Gelu => map(x, functions::gelu),
        Unary::QuickGelu => map(x, functions::quick_gelu),
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
    tensor(reduce::sum(numbers.slice(), [outer, length, inner]), &shape)
}

/// `function` of `x`'s numbers, given how long its rows are.
fn rows(x: &Tensor, function: impl Fn(&[f32], usize) -> Vec<f32>) -> Result<Tensor> {
    let x = contiguous(x)?;
    let width = x.dims()[x.rank() - 1];
    tensor(function(Numbers::of(&x)?.slice(), width), x.dims())
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

fn linear_map(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
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
    let weight = Matrix::new(weight.slice(), [inputs, outputs]);
    let mut out = vec![0.0; batches * tokens * outputs];
    for (batch, out) in out.chunks_mut((tokens * outputs).max(1)).enumerate() {
        let strides = x.layout.stride();
        let x = Matrix::strided(&x.slice()[batch * strides[0]..], [tokens, inputs], [strides[1], strides[2]]);
        linear::linear(x, weight, bias.as_ref().map(Numbers::slice), out);
    }
    tensor(out, &shape)
}

fn packed_linear(x: &Tensor, weight: &HostTensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let &[outputs, inputs] = weight.shape() else { bail!("a linear map of shape {:?}", weight.shape()) };
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == inputs => *last = outputs,
        _ => bail!("an input of {shape:?} for a linear map of {inputs} numbers"),
    }
    let x = contiguous(x)?.reshape(((), inputs))?;
    let (rows, numbers, bias) = (x.dim(0)?, Numbers::of(&x)?, bias.map(Numbers::of).transpose()?);
    let x = Matrix::new(numbers.slice(), [rows, inputs]);
    tensor(packed::linear(x, weight, bias.as_ref().map(Numbers::slice)), &shape)
}

fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: ConvOptions) -> Result<Tensor> {
    let x = contiguous(x)?;
    let (batch, channels, height, width) = x.dims4()?;
    let (out, inputs, kernel, _) = weight.dims4()?;
    if inputs != channels || height.min(width) + 2 * options.padding < kernel {
        bail!("a picture of {:?} for a convolution of {:?}", x.dims(), weight.dims());
    }
    let conv = Conv::new([channels, height, width], [out, inputs, kernel, kernel], options);
    let [_, out_height, out_width] = conv.shape_out();
    let (x, weight, bias) = (Numbers::of(&x)?, Numbers::of(weight)?, bias.map(Numbers::of).transpose()?);
    let numbers = conv.forward(x.slice(), weight.slice(), bias.as_ref().map(Numbers::slice));
    tensor(numbers, &[batch, out, out_height, out_width])
}

fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let (weight, bias) = (Numbers::of(weight)?, Numbers::of(bias)?);
    let norm = norm::LayerNorm { weight: weight.slice(), bias: bias.slice(), eps };
    rows(x, |x, _| norm.forward(x).0)
}

fn group_norm(x: &Tensor, norm: GroupNorm) -> Result<Tensor> {
    let x = contiguous(x)?;
    let GroupNorm { groups, weight, bias, eps, activation } = norm;
    let (_, _, height, width) = x.dims4()?;
    let (weight, bias) = (Numbers::of(weight)?, Numbers::of(bias)?);
    let (weight, bias) = (weight.slice(), bias.slice());
    let norm = norm::GroupNorm { groups, weight, bias, pixels: height * width, eps, activation };
    tensor(norm.forward(Numbers::of(&x)?.slice()).0, x.dims())
}

fn geglu(x: &Tensor) -> Result<Tensor> {
    let x = contiguous(x)?;
    let mut shape = x.dims().to_vec();
    let n = x.dims()[x.rank() - 1] / 2;
    shape[x.rank() - 1] = n;
    tensor(activation::geglu(Numbers::of(&x)?.slice(), n), &shape)
}

fn attention(qkv: [&Tensor; 3], heads: usize, mask: AttentionMask) -> Result<Tensor> {
    let [q, k, v] = qkv.map(contiguous);
    let (q, k, v) = (q?, k?, v?);
    let (batch, queries, channels) = q.dims3()?;
    let keys = k.dims()[1];
    if k.dims() != [batch, keys, channels] || v.dims() != k.dims() || channels % heads != 0 {
        bail!("{heads} heads over queries {:?}, keys {:?}, values {:?}", q.dims(), k.dims(), v.dims());
    }
    let visible = match mask {
        AttentionMask::None => Visible::All,
        AttentionMask::Causal => Visible::Past,
        AttentionMask::Keys(scores) => Visible::Scores(contiguous(scores)?.flatten_all()?.to_vec1()?),
    };
    let sizes = Attention { batch, queries, keys, heads, width: channels / heads, visible: &visible };
    let (q, k, v) = (Numbers::of(&q)?, Numbers::of(&k)?, Numbers::of(&v)?);
    tensor(sizes.forward([q.slice(), k.slice(), v.slice()]).0, q.layout.dims())
}
