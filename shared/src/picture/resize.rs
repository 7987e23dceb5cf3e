//! Antialiased resizing, bit for bit as Pillow does it for 8-bit pictures.
//!
//! Two passes, along the rows and along the columns, with weights in fixed point of 22 bits and an 8-bit picture in
//! between. When it shrinks, the kernel widens by the scale. Source: `Resample.c` of Pillow. Which pass comes first
//! decides about last bits; since Pillow 13 that is the one along the columns where the height loses more than twice as
//! many pixels as the width. That is what the published values of tall pictures come from.

use super::Picture;

/// An interpolation kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle; what the VAE's pictures are made with.
    Bilinear,
    /// Keys' cubic with a = -0.5; what the encoder's pictures are made with.
    Bicubic,
}

impl Filter {
    /// Half the kernel's width in pixels, when it does not shrink.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Filter::Bilinear if x < 1.0 => 1.0 - x,
            Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// The middle of `picture`, `[width, height]` as `size` says, after one side became as long as that, the other in proportion,
/// rounded down, and no shorter. Only what stays is computed, so that a long thin picture costs no more than another.
pub(super) fn cover(picture: &Picture, size: [u32; 2], filter: Filter) -> Picture {
    let (width, height) = (u64::from(picture.width), u64::from(picture.height));
    let [across, down] = size.map(u64::from);
    let is_narrow = across * height >= down * width;
    let scaled = |side: u64| if is_narrow { across * side / width } else { down * side / height };
    let columns_first = height.saturating_sub(scaled(height)) > 2 * width.saturating_sub(scaled(width));

    let mut columns = weights(width, scaled(width), size[0], filter);
    let mut rows = weights(height, scaled(height), size[1], filter);
    let (left, right) = take_offset(&mut columns);
    let (top, bottom) = take_offset(&mut rows);
    let lines = picture.rgb.chunks_exact(3 * picture.width as usize).take(bottom).skip(top);
    let window: Vec<u8> = lines.flat_map(|line| &line[3 * left..3 * right]).copied().collect();

    let (stride, narrow) = (3 * (right - left), 3 * size[0] as usize);
    let rgb = if columns_first {
        along_rows(&along_columns(&window, stride, &rows), stride, &columns)
    } else {
        along_columns(&along_rows(&window, stride, &columns), narrow, &rows)
    };
    Picture { width: size[0], height: size[1], rgb }
}

/// What one result is made of: pixels from `first` on, weighted in fixed point.
struct Weights {
    first: usize,
    weights: Vec<i32>,
}

/// Bits behind the point of a weight; 8 bits of a pixel, 2 of head room.
const PRECISION: u32 = 32 - 8 - 2;

/// A half, so that cutting off the bits behind the point rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// Replaces each row of `stride` bytes by one with a pixel for each of `columns`.
fn along_rows(rgb: &[u8], stride: usize, columns: &[Weights]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rgb.len() / stride * columns.len() * 3);
    for row in rgb.chunks_exact(stride) {
        for column in columns {
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[3 * column.first..].chunks_exact(3).zip(&column.weights) {
                add(&mut sums, pixel, *weight);
            }
            out.extend(sums.map(to_byte));
        }
    }
    out
}

/// Makes each of `rows` from rows of `stride` bytes.
fn along_columns(rgb: &[u8], stride: usize, rows: &[Weights]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stride * rows.len());
    let mut sums = vec![HALF; stride];
    for row in rows {
        sums.fill(HALF);
        for (line, weight) in rgb[stride * row.first..].chunks_exact(stride).zip(&row.weights) {
            add(&mut sums, line, *weight);
        }
        out.extend(sums.iter().copied().map(to_byte));
    }
    out
}

fn add(sums: &mut [i32], values: &[u8], weight: i32) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += i32::from(value) * weight;
    }
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// First and last (excluded) pixel that the results are made of; from now on they count from that first.
fn take_offset(results: &mut [Weights]) -> (usize, usize) {
    let first = results.iter().map(|result| result.first).min().unwrap_or(0);
    let end = results.iter().map(|result| result.first + result.weights.len()).max().unwrap_or(0);
    for result in results {
        result.first -= first;
    }
    (first, end)
}

/// The weights for the middle `size` of `scaled` results along a side of `side` pixels.
fn weights(side: u64, scaled: u64, size: u32, filter: Filter) -> Vec<Weights> {
    // Half of an odd rest goes to the even offset, as Python rounds.
    let rest = scaled - u64::from(size);
    let offset = rest / 2 + u64::from(rest % 4 == 3);
    if scaled == side {
        let offset = offset as usize;
        return (offset..offset + size as usize)
            .map(|first| Weights { first, weights: vec![1 << PRECISION] })
            .collect();
    }
    let scale = side as f64 / scaled as f64;
    let widening = scale.max(1.0);
    let (support, narrowing) = (filter.support() * widening, 1.0 / widening);
    let results = offset..offset + u64::from(size);
    results
        .map(|result| {
            let center = (result as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(side as usize);
            let weight = |pixel: usize| filter.weight((pixel as f64 - center + 0.5) * narrowing);
            let exact: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = exact.iter().sum();
            let fixed = |weight: f64| {
                let fixed = weight / sum * f64::from(1 << PRECISION);
                (fixed + 0.5f64.copysign(fixed)) as i32
            };
            Weights { first, weights: exact.into_iter().map(fixed).collect() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Picture {
        let value = |x, y, c: u32| (x * x * 7 + y * y * 13 + x * y * 31 + c * 91) as u8;
        let row = |y| (0..width).flat_map(move |x| [0, 1, 2].map(|c| value(x, y, c)));
        Picture::new(width, height, (0..height).flat_map(row).collect()).unwrap()
    }

    /// Computed by Pillow 13 and torchvision's rules on the same pictures.
    #[test]
    fn it_is_pillows_resize() {
        let cases = [
            (97, 61, 56, "4fc8af51a8b8ff7f", "8d21e22858600624"),
            (40, 40, 56, "91adde59139fe7ce", "d02badb24bec36bb"),
            (300, 119, 64, "bc86301193932f0c", "892b86cd0c564c2d"),
            (33, 200, 32, "0bf85fc33673c9e5", "e868b9f5eedff7ad"),
            (5, 3, 16, "ac6424793a60a9f9", "35037545c38d663e"),
            (1, 9, 4, "b747af7bd39a42f4", "8125232e801365ef"),
            (64, 64, 64, "b8359fe7845885ba", "b8359fe7845885ba"),
            (64, 71, 64, "ab90dee371fcb845", "ab90dee371fcb845"),
            (257, 640, 224, "57509b39edd0f409", "899edece336c6b75"),
        ];
        for (width, height, size, bicubic, bilinear) in cases {
            let picture = picture(width, height);
            let hash = |filter| {
                let values: Vec<f32> = cover(&picture, [size; 2], filter).rgb.iter().map(|&v| f32::from(v)).collect();
                crate::noise::fingerprint(&values)[..16].to_string()
            };
            assert_eq!(hash(Filter::Bicubic), bicubic, "{width} x {height} to {size}");
            assert_eq!(hash(Filter::Bilinear), bilinear, "{width} x {height} to {size}");
        }
    }

    #[test]
    fn a_square_of_the_right_size_stays() {
        let picture = picture(9, 9);
        assert_eq!(cover(&picture, [9; 2], Filter::Bicubic), picture);
    }

    #[test]
    fn what_is_covered_need_not_be_square() {
        let whole = picture(12, 8);
        assert_eq!(cover(&whole, [12, 8], Filter::Bilinear), whole);
        // The middle rows of what is as wide, and the middle columns of what is as high.
        let rows = cover(&whole, [12, 4], Filter::Bilinear);
        assert_eq!((rows.width, rows.height, &rows.rgb[..]), (12, 4, &whole.rgb[3 * 12 * 2..3 * 12 * 6]));
        let columns = cover(&whole, [3, 8], Filter::Bilinear);
        assert_eq!((columns.width, columns.height, &columns.rgb[..9]), (3, 8, &whole.rgb[3 * 4..3 * 7]));
        let other = cover(&whole, [33, 16], Filter::Bilinear);
        assert_eq!((other.width, other.height, other.rgb.len()), (33, 16, 3 * 33 * 16));
    }

    #[test]
    fn offsets_round_half_to_even() {
        for (rest, offset) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4)] {
            assert_eq!(weights(10 + rest, 10 + rest, 10, Filter::Bilinear)[0].first, offset, "{rest}");
        }
    }

    #[test]
    fn a_long_thin_picture_costs_little() {
        let picture = Picture::new(1, 1 << 20, vec![7; 3 << 20]).unwrap();
        let square = cover(&picture, [224; 2], Filter::Bicubic);
        assert!(square.rgb.iter().all(|&value| value == 7));
    }
}
