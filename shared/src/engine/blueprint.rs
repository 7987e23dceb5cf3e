//! An engine that has shapes and no numbers: to ask a network which weights it has, whatever their size.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Binary, ConvOptions, Engine, EngineError, Unary};
use crate::weights::{Parameter, Store, WeightError, Weights, load};

/// See the [module documentation](self).
#[derive(Debug, Clone)]
pub struct Blueprint;

/// The names and shapes of all weights of a network that `build` builds.
///
/// # Errors
/// What `build` says about sizes that cannot be.
pub fn weights<N>(
    build: impl FnOnce(&Weights<'_, Blueprint>) -> Result<N, WeightError>,
) -> Result<BTreeMap<String, Vec<usize>>, WeightError> {
    let asked = Asked::default();
    load(&asked, &(), build)?;
    Ok(asked.0.into_inner())
}

/// Has every weight that it is asked for.
#[derive(Default)]
struct Asked(RefCell<BTreeMap<String, Vec<usize>>>);

impl Store<Blueprint> for Asked {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Option<Parameter<Blueprint>>, WeightError> {
        self.0.borrow_mut().insert(name.to_owned(), shape.to_vec());
        Ok(Some(Parameter::Device([shape.iter().product()], shape.to_vec())))
    }

    fn names(&self) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }
}

impl Engine for Blueprint {
    type Tensor<const D: usize> = [usize; D];
    type Device = ();
    /// Outputs.
    type Linear = usize;
    /// Outputs, kernel and options.
    type Conv2d = (usize, usize, ConvOptions);

    const NAME: &'static str = "blueprint";

    fn from_host<const D: usize>(_data: Vec<f32>, shape: [usize; D], _device: &()) -> [usize; D] {
        shape
    }

    async fn to_host<const D: usize>(_x: [usize; D]) -> Result<Vec<f32>, EngineError> {
        Err(EngineError::Operation {
            engine: Self::NAME,
            operation: "to_host".into(),
            detail: "there are no numbers".into(),
        })
    }

    fn dense<const D: usize>(_parameter: Parameter<Self>, shape: [usize; D], _device: &()) -> [usize; D] {
        shape
    }

    fn shape<const D: usize>(x: &[usize; D]) -> [usize; D] {
        *x
    }

    fn device<const D: usize>(_x: &[usize; D]) {}

    fn reshape<const D: usize, const D2: usize>(_x: [usize; D], shape: [usize; D2]) -> [usize; D2] {
        shape
    }

    fn permute<const D: usize>(x: [usize; D], axes: [usize; D]) -> [usize; D] {
        axes.map(|axis| x[axis])
    }

    fn narrow<const D: usize>(mut x: [usize; D], dim: usize, _start: usize, length: usize) -> [usize; D] {
        x[dim] = length;
        x
    }

    fn cat<const D: usize>(parts: Vec<[usize; D]>, dim: usize) -> [usize; D] {
        let mut shape = parts[0];
        shape[dim] = parts.iter().map(|part| part[dim]).sum();
        noted(shape)
    }

    fn affine<const D: usize>(x: [usize; D], _scale: f32, _offset: f32) -> [usize; D] {
        x
    }

    fn unary<const D: usize>(x: [usize; D], _function: Unary) -> [usize; D] {
        x
    }

    fn binary<const D: usize>(a: [usize; D], b: [usize; D], _function: Binary) -> [usize; D] {
        std::array::from_fn(|dim| a[dim].max(b[dim]))
    }

    fn sum<const D: usize>(mut x: [usize; D], dim: usize) -> [usize; D] {
        x[dim] = 1;
        x
    }

    fn matmul<const D: usize>(mut a: [usize; D], b: [usize; D]) -> [usize; D] {
        a[D - 1] = b[D - 1];
        a
    }

    fn softmax<const D: usize>(x: [usize; D]) -> [usize; D] {
        x
    }

    fn log_softmax<const D: usize>(x: [usize; D]) -> [usize; D] {
        x
    }

    fn rows([_, width]: [usize; 2], rows: &[u32]) -> [usize; 2] {
        [rows.len(), width]
    }

    fn pad([b, c, h, w]: [usize; 4], [left, right, top, bottom]: [usize; 4]) -> [usize; 4] {
        [b, c, h + top + bottom, w + left + right]
    }

    fn upsample([b, c, ..]: [usize; 4], [height, width]: [usize; 2]) -> [usize; 4] {
        noted([b, c, height, width])
    }

    fn prepare_linear(weight: Parameter<Self>, _bias: Option<Parameter<Self>>, _device: &()) -> usize {
        weight.shape()[0]
    }

    fn linear<const D: usize>(mut x: [usize; D], output: &usize) -> [usize; D] {
        x[D - 1] = *output;
        noted(x)
    }

    fn prepare_conv2d(
        weight: Parameter<Self>,
        _bias: Option<Parameter<Self>>,
        options: ConvOptions,
        _device: &(),
    ) -> (usize, usize, ConvOptions) {
        (weight.shape()[0], weight.shape()[2], options)
    }

    fn conv2d(
        [b, _, h, w]: [usize; 4],
        &(output, kernel, ConvOptions { stride, padding }): &(usize, usize, ConvOptions),
    ) -> [usize; 4] {
        let size = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        noted([b, output, size(h), size(w)])
    }
}

/// Tells [`largest`] of a tensor that an operation made. An attention's scores are not told: engines compute them in parts.
fn noted<const D: usize>(shape: [usize; D]) -> [usize; D] {
    #[cfg(test)]
    LARGEST.set(LARGEST.get().max(shape.iter().product()));
    shape
}

#[cfg(test)]
thread_local! {
    static LARGEST: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many numbers the largest tensor has that `forward` makes of a network that `build` builds.
#[cfg(test)]
pub fn largest<N>(
    build: impl FnOnce(&Weights<'_, Blueprint>) -> Result<N, WeightError>,
    forward: impl FnOnce(N) -> super::Tensor<Blueprint, 4>,
) -> u64 {
    let network = load(&Asked::default(), &(), build).expect("a network that can be");
    LARGEST.set(0);
    forward(network);
    LARGEST.get() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KosmosGConfig, UNetConfig};
    use crate::encoder::EncoderNetworks;
    use crate::engine::Tensor;
    use crate::unet::UNet;

    #[test]
    fn the_published_networks_have_the_published_sizes() {
        let config = KosmosGConfig::published();
        let weights = weights(|weights| EncoderNetworks::new(weights, &config)).unwrap();
        let numbers = |beginning: &str| -> usize {
            let of = weights.iter().filter(|(name, _)| name.starts_with(beginning));
            of.map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        assert_eq!(weights["gpt_model.decoder.embed_tokens.weight"], [64_007, 2048]);
        // "About 225M parameters in M", without its table of positions, and 1.9 billion in all.
        let positions = config.aligner.max_positions * config.aligner.dim;
        assert_eq!((numbers("aligner.") - positions) / 1_000_000, 200);
        assert_eq!(numbers("") / 100_000_000, 18);
    }

    #[test]
    fn shapes_go_through_a_network() {
        let config: UNetConfig = serde_json::from_value(serde_json::json!({
            "block_out_channels": [32, 64], "layers_per_block": 2, "cross_attention_dim": 16, "norm_num_groups": 8,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        }))
        .unwrap();
        let asked = Asked::default();
        let unet = load(&asked, &(), |weights| UNet::<Blueprint>::new(weights, &config)).unwrap();
        let prediction = unet.forward(Tensor([2, 4, 10, 6]), &[1.0, 2.0], &Tensor([2, 7, 16]), None);
        assert_eq!(prediction.shape(), [2, 4, 10, 6]);
    }
}
