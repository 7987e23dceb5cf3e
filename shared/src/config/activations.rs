//! What a network computes on its way: a device has to have room for that too, beside the weights.

use super::{DownBlockType, UNetConfig, UpBlockType, VaeConfig};
use crate::engine::plain::SCORES;

/// Tensors as large as the largest that are alive at once: what a block adds its result to, what a normalisation or an
/// activation takes, its result, and the copy in another order that a convolution makes.
const ALIVE: u64 = 4;

/// Memory of what a network computes, in bytes: numbers are f32 on every device of a page, also where a kernel reads some of them
/// as f16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activations {
    /// The largest tensor, which must fit into one buffer of a GPU.
    pub largest_bytes: u64,
    /// All that is alive at once, at most.
    pub peak_bytes: u64,
}

impl Activations {
    /// Of two networks that compute one after the other.
    pub fn max(self, other: Self) -> Self {
        Self {
            largest_bytes: self.largest_bytes.max(other.largest_bytes),
            peak_bytes: self.peak_bytes.max(other.peak_bytes),
        }
    }

    /// Of the sizes of tensors, in numbers: one that is the largest, and what waits meanwhile.
    fn of(largest: u64, waiting: u64) -> Self {
        let bytes = |numbers: u64| numbers.saturating_mul(size_of::<f32>() as u64);
        Self { largest_bytes: bytes(largest), peak_bytes: bytes(largest.saturating_mul(ALIVE).saturating_add(waiting)) }
    }
}

impl UNetConfig {
    /// Of an evaluation with a batch of `batch` latents of `[height, width]`.
    ///
    /// At a level of `C` channels and `N` pixels the largest tensor is the input of a transformer's GEGLU, `[B, N, 8·C]`, what a
    /// residual block takes on the way up, `[B, C' + C, N]` with `C'` of a level beside it, or [`SCORES`] of an attention.
    /// Meanwhile all skip connections wait for the way up.
    pub fn activations(&self, batch: usize, [mut height, mut width]: [usize; 2]) -> Activations {
        let channels = &self.block_out_channels;
        let levels = channels.len();
        let (mut largest, mut skips) = (0, product(&[batch, channels[0], height, width]));
        for (level, &wide) in channels.iter().enumerate() {
            let pixels = height * width;
            let beside = channels[level.saturating_sub(1)].max(channels[(level + 1).min(levels - 1)]);
            largest = largest.max(product(&[batch, wide + wide.max(beside), pixels]));
            let attends = level + 1 == levels
                || self.down_block_types.get(level) == Some(&DownBlockType::CrossAttnDownBlock2D)
                || self.up_block_types.get(levels - 1 - level) == Some(&UpBlockType::CrossAttnUpBlock2D);
            if attends {
                let scores = product(&[batch, self.attention_head_dim.at(level), pixels, pixels]);
                largest = largest.max(product(&[batch, 8 * wide, pixels])).max(scores.min(SCORES as u64));
            }
            skips += product(&[batch, wide, pixels, self.layers_per_block.at(level)]);
            if level + 1 < levels {
                (height, width) = (height.div_ceil(2), width.div_ceil(2));
                skips += product(&[batch, wide, height, width]);
            }
        }
        Activations::of(largest, skips)
    }
}

impl VaeConfig {
    /// Of decoding one picture's latents of `[height, width]`.
    ///
    /// The largest tensor is what a level of `C` channels and `N` pixels takes from the coarser one, of `C'`, at the size that
    /// it has itself, `[1, max(C, C'), N]`, or [`SCORES`] of the attention at the coarsest.
    pub fn decoder_activations(&self, [height, width]: [usize; 2]) -> Activations {
        let channels = &self.block_out_channels;
        let levels = channels.len();
        let sizes = (0..levels).map(|level| {
            let (wide, scale) = (channels[level].max(channels[(level + 1).min(levels - 1)]), 1 << (levels - 1 - level));
            product(&[wide, height, width, scale, scale])
        });
        let scores = if self.mid_block_add_attention { product(&[height, width, height, width]) } else { 0 };
        Activations::of(sizes.max().unwrap_or(0).max(scores.min(SCORES as u64)), 0)
    }
}

fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1, |product: u64, &size| product.saturating_mul(size as u64))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::{Tensor, blueprint};
    use crate::unet::UNet;
    use crate::vae::VaeDecoder;

    /// U-Net and autoencoder of Stable Diffusion 1.5, as its own files say.
    pub fn stable_diffusion() -> (UNetConfig, VaeConfig) {
        let unet = json!({
            "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768,
            "down_block_types":
                ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "attention_head_dim": 8,
        });
        let vae = json!({ "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2 });
        (serde_json::from_value(unet).unwrap(), serde_json::from_value(vae).unwrap())
    }

    #[test]
    fn no_tensor_of_a_network_is_larger() {
        let (unet, vae) = stable_diffusion();
        let small: UNetConfig = serde_json::from_value(json!({
            "block_out_channels": [32, 64], "layers_per_block": [1, 3], "cross_attention_dim": 16,
            "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"],
        }))
        .unwrap();
        for (config, [h, w], scores) in
            [(&unet, [64, 64], SCORES), (&unet, [24, 17], 16 * 408 * 408), (&small, [10, 7], 0)]
        {
            let numbers = blueprint::largest(
                |weights| UNet::new(weights, config),
                |unet| {
                    let condition = Tensor([2, 1, config.cross_attention_dim]);
                    unet.forward(Tensor([2, 4, h, w]), &[1.0; 2], &condition, None)
                },
            );
            let foreseen = config.activations(2, [h, w]).largest_bytes;
            assert_eq!(foreseen, 4 * numbers.max(scores as u64), "{h} × {w}");
        }
        let numbers =
            blueprint::largest(|weights| VaeDecoder::new(weights, &vae), |vae| vae.forward(Tensor([1, 4, 64, 48])));
        assert_eq!(vae.decoder_activations([64, 48]).largest_bytes, 4 * numbers);
    }

    #[test]
    fn a_picture_of_stable_diffusion_takes_these_megabytes() {
        let (unet, vae) = stable_diffusion();
        let mib = |Activations { largest_bytes, peak_bytes }| [largest_bytes >> 20, peak_bytes >> 20];
        assert_eq!(mib(unet.activations(2, [64, 64])), [80, 370]);
        assert_eq!(mib(vae.decoder_activations([64, 64])), [256, 1024]);
        assert_eq!(mib(vae.decoder_activations([32, 32])), [64, 256]);
    }
}
