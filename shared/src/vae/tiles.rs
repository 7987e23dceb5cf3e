//! Decoding in tiles, for pictures that need more memory at once than there is: diffusers' `AutoencoderKL.tiled_decode`, in the
//! size that it has for Stable Diffusion and, for devices that have no room for that, in smaller ones.
//!
//! Neighbours share a quarter of a tile, in which one fades into the other. A tile's normalisations and its attention see that
//! tile alone, so that the picture is close to the one decoded at once, and not the same.

use crate::engine::EngineError;

/// Side of a tile, in latents.
pub const TILE: usize = 64;

/// Sides to decode latents of `[height, width]` with, from the one that is all of them to the smallest, below which a tile would
/// see too little of the picture.
pub fn sides([height, width]: [usize; 2]) -> impl Iterator<Item = usize> {
    let whole = height.max(width);
    [whole].into_iter().chain([TILE, TILE / 2, TILE / 4].into_iter().filter(move |&side| side < whole))
}

/// Numbers `[C, H, W]` on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    /// Row-major.
    pub numbers: Vec<f32>,
    /// Channels, height and width.
    pub shape: [usize; 3],
}

/// The pixels of `latents`, of which `decode` gives a tile's. Latents that are no larger than `side` are one tile.
///
/// # Errors
/// What `decode` fails with.
pub async fn decode(
    latents: &Planes,
    side: usize,
    decode: impl AsyncFn(Planes) -> Result<Planes, EngineError>,
) -> Result<Planes, EngineError> {
    let [_, height, width] = latents.shape;
    if height.max(width) <= side {
        return decode(latents.clone()).await;
    }
    // From the beginning of a tile to that of the next.
    let stride = side * 3 / 4;
    let (mut rows, mut above) = (Vec::new(), Vec::new());
    for y in (0..height).step_by(stride) {
        let mut row: Vec<Planes> = Vec::new();
        let mut pixels = 1;
        for x in (0..width).step_by(stride) {
            let part = latents.part([y, x], side);
            let [_, latent_rows, _] = part.shape;
            let mut tile = decode(part).await?;
            pixels = tile.shape[1] / latent_rows;
            if let Some(above) = above.get(row.len()) {
                tile.fade_in(above, 1, pixels * (side - stride));
            }
            if let Some(left) = row.last() {
                tile.fade_in(left, 2, pixels * (side - stride));
            }
            row.push(tile);
        }
        rows.push(Planes::cat(row.iter().map(|tile| tile.part([0, 0], pixels * stride)).collect(), 2));
        above = row;
    }
    Ok(Planes::cat(rows, 1))
}

impl Planes {
    /// The square of that side from a row and a column on, or what there is of it.
    fn part(&self, [top, left]: [usize; 2], side: usize) -> Self {
        let [channels, height, width] = self.shape;
        let (rows, columns) = (side.min(height - top), side.min(width - left));
        let row =
            |(channel, y): (usize, usize)| &self.numbers[(channel * height + top + y) * width + left..][..columns];
        let all = (0..channels).flat_map(|channel| (0..rows).map(move |y| (channel, y)));
        Self { numbers: all.flat_map(row).copied().collect(), shape: [channels, rows, columns] }
    }

    /// One after the other along dimension `dim`.
    fn cat(parts: Vec<Self>, dim: usize) -> Self {
        let mut shape = parts[0].shape;
        shape[dim] = parts.iter().map(|part| part.shape[dim]).sum();
        let outer: usize = shape[..dim].iter().product();
        let chunk = |part: &Self| part.numbers.len() / outer;
        let pieces = (0..outer).flat_map(|i| parts.iter().map(move |part| (i, part)));
        let numbers = pieces.flat_map(|(i, part)| &part.numbers[i * chunk(part)..][..chunk(part)]).copied().collect();
        Self { numbers, shape }
    }

    /// Makes the first `extent` rows (`dim` 1) or columns (2) fade from the last of `before` into these.
    fn fade_in(&mut self, before: &Self, dim: usize, extent: usize) {
        let extent = extent.min(self.shape[dim]).min(before.shape[dim]);
        let [_, height, width] = self.shape;
        let [_, height_before, width_before] = before.shape;
        for (index, number) in self.numbers.iter_mut().enumerate() {
            let mut at = [index / (height * width), index / width % height, index % width];
            if at[dim] < extent {
                let weight = at[dim] as f32 / extent as f32;
                at[dim] += before.shape[dim] - extent;
                let [channel, y, x] = at;
                let number_before = before.numbers[(channel * height_before + y) * width_before + x];
                *number = number_before * (1.0 - weight) + *number * weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;

    /// Latents whose numbers tell their places.
    fn latents([height, width]: [usize; 2]) -> Planes {
        let numbers = (0..height * width).map(|index| ((index / width * 7 + index % width * 13) % 32) as f32 / 8.0);
        Planes { numbers: numbers.collect(), shape: [1, height, width] }
    }

    /// A decoder that makes two by two pixels of a latent, each the latent's number plus `own` of the tile's first.
    async fn doubled(latents: Planes, own: f32) -> Result<Planes, EngineError> {
        let [channels, height, width] = latents.shape;
        let pixel = |index: usize| latents.numbers[index / (2 * width) / 2 * width + index % (2 * width) / 2];
        let numbers = (0..4 * height * width).map(|index| pixel(index) + own * latents.numbers[0]).collect();
        Ok(Planes { numbers, shape: [channels, 2 * height, 2 * width] })
    }

    #[test]
    fn where_tiles_agree_there_is_no_seam() {
        for size in [[65, 65], [10, 200], [97, 48], [112, 113], [160, 1]] {
            let latents = latents(size);
            let whole = block_on(doubled(latents.clone(), 0.0)).unwrap();
            for side in sides(size) {
                let tiled = block_on(decode(&latents, side, async |tile| doubled(tile, 0.0).await)).unwrap();
                assert_eq!(tiled.shape, whole.shape);
                let worst = tiled.numbers.iter().zip(&whole.numbers).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{size:?} in {side}: {worst}");
            }
        }
    }

    /// The expected numbers are what diffusers' own function makes of the same latents with the same decoder.
    #[test]
    fn tiles_fade_as_they_do_in_diffusers() {
        let tiled = block_on(decode(&latents([115, 150]), TILE, async |tile| doubled(tile, 1.0).await)).unwrap();
        assert_eq!(tiled.shape, [1, 230, 300]);
        for ([y, x], expected) in [
            ([5, 7], 2.625),
            ([5, 101], 3.3125),
            ([5, 127], 2.0625),
            ([100, 9], 2.5),
            ([127, 50], 5.6875),
            ([100, 100], 1.246_093_8),
            ([110, 125], 1.880_981_4),
            ([127, 127], 1.619_201_7),
            ([103, 203], 2.278_259_3),
            ([128, 220], 4.5),
            ([195, 290], 2.293_403),
            ([229, 299], 3.708_333_3),
        ] {
            let found = tiled.numbers[y * 300 + x];
            assert!((found - expected).abs() < 1e-5, "{y}, {x}: {found}, expected {expected}");
        }
    }
}
