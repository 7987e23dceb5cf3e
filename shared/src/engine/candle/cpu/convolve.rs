//! 2-D convolution: the weight times the patches that lie under a few rows of the result.

use std::ops::Range;

use rayon::prelude::*;

use super::parallel;
use super::product::{Matrix, Product, Start};
use crate::engine::ConvOptions;

/// Pixels of the result that are computed at once, so that their patches stay in the cache of one core.
const TILE: usize = 256;

/// What is convolved, and how.
#[derive(Clone, Copy)]
pub struct Picture {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    /// Side of the kernel.
    pub kernel: usize,
    pub options: ConvOptions,
}

impl Picture {
    /// Height and width of the result.
    pub fn output(&self) -> [usize; 2] {
        [self.height, self.width].map(|size| (size + 2 * self.options.padding - self.kernel) / self.options.stride + 1)
    }

    /// `[B, C, H, W]` and a weight `[out, C, kernel, kernel]` to `[B, out, H', W']`.
    pub fn convolve(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, out: usize) -> Vec<f32> {
        let [height, width] = self.output();
        let tile_rows = (TILE / width).clamp(1, height);
        let tops: Vec<_> = (0..height).step_by(tile_rows).collect();
        let pictures: Vec<_> = x.chunks(self.channels * self.height * self.width).collect();

        let work: Vec<_> = pictures.iter().flat_map(|x| tops.iter().map(move |&top| (x, top))).collect();
        let few = work.len() < rayon::current_num_threads();
        let patch = self.channels * self.kernel * self.kernel;
        let weight = Matrix::new(weight, [out, patch], [patch, 1]);
        let compute = |scratch: &mut Vec<f32>, &(x, top): &(&&[f32], usize)| {
            let rows = top..(top + tile_rows).min(height);
            let pixels = rows.len() * width;
            let product = Product::of(weight, self.patches(x, rows, scratch));
            let mut tile = vec![0.0; out * pixels]; // [out, pixels]
            if few { product.on_all_threads() } else { product }.write(&mut tile, pixels, Start::Zero);
            tile
        };
        let tiles: Vec<_> = work.par_iter().map_init(Vec::new, compute).collect();

        let mut result = vec![0.0; pictures.len() * out * height * width];
        parallel::chunks(&mut result, height * width, |i, result| {
            let (picture, channel) = (i / out, i % out);
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            for (tile, result) in tiles[picture * tops.len()..].iter().zip(result.chunks_mut(tile_rows * width)) {
                let tile = &tile[channel * result.len()..];
                result.iter_mut().zip(tile).for_each(|(result, tile)| *result = tile + bias);
            }
        });
        result
    }

    /// `[C·kernel·kernel, pixels]`: column by column what the kernel sees at the pixels of `rows` of the result.
    fn patches<'a>(&self, x: &'a [f32], rows: Range<usize>, scratch: &'a mut Vec<f32>) -> Matrix<'a> {
        let Self { channels, height, width, kernel, options: ConvOptions { stride, padding } } = *self;
        let [_, out_width] = self.output();
        let pixels = rows.len() * out_width;
        if (kernel, stride, padding) == (1, 1, 0) {
            return Matrix::new(&x[rows.start * width..], [channels, pixels], [height * width, 1]);
        }
        let patch = channels * kernel * kernel;
        scratch.resize(patch * pixels, 0.0);
        for (i, line) in scratch.chunks_exact_mut(pixels).enumerate() {
            let (channel, ky, kx) = (i / (kernel * kernel), i / kernel % kernel, i % kernel);
            // Pixels of a row that see the picture rather than its padding.
            let first = padding.saturating_sub(kx).div_ceil(stride).min(out_width);
            let end = (width + padding).saturating_sub(kx).div_ceil(stride).clamp(first, out_width);
            for (y, line) in rows.clone().zip(line.chunks_exact_mut(out_width)) {
                let seen = (y * stride + ky).checked_sub(padding).filter(|&y| y < height && first < end);
                let Some(y) = seen else {
                    line.fill(0.0);
                    continue;
                };
                let source = &x[(channel * height + y) * width + first * stride + kx - padding..];
                line[..first].fill(0.0);
                line[end..].fill(0.0);
                match stride {
                    1 => line[first..end].copy_from_slice(&source[..end - first]),
                    _ => line[first..end].iter_mut().zip(source.iter().step_by(stride)).for_each(|(to, x)| *to = *x),
                }
            }
        }
        Matrix::new(scratch, [patch, pixels], [pixels, 1])
    }
}
