//! Convolutions as matrix products.
//!
//! The taps of every output pixel become a column, so that a convolution is a product of the weights `[out, in · k · k]`
//! with columns `[in · k · k, pixels]`. A product takes as many columns as the cache holds: some lines of a large picture,
//! or several small pictures.

use super::linear::add_up;
use super::matrix::{Before, Matrix, Product, Threads};
use super::parallel;
use super::vector::{sum, wide};
use crate::engine::ConvOptions;

/// The sizes of a convolution of pictures `[B, in, H, W]` by a weight `[out, in, k, k]`.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    input: usize,
    height: usize,
    width: usize,
    output: usize,
    height_out: usize,
    width_out: usize,
    /// Of an output picture.
    pixels: usize,
    kernel: usize,
    /// Of an output pixel: `in · k · k`.
    taps: usize,
    stride: usize,
    padding: usize,
}

/// Numbers in the columns of a product, about: half of a second-level cache.
const CACHE: usize = 1 << 18;

/// Some lines of output pictures.
#[derive(Debug, Clone, Copy)]
struct Band {
    /// Its first pixel in a picture.
    start: usize,
    /// Its pixels in a picture.
    pixels: usize,
}

impl Conv {
    /// Pictures `[in, H, W]` and a weight `[out, in, k, k]`; a picture and its padding are as large as the kernel at least.
    pub fn new(picture: [usize; 3], weight: [usize; 4], ConvOptions { stride, padding }: ConvOptions) -> Self {
        let ([input, height, width], [output, _, kernel, _]) = (picture, weight);
        let after = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        let (height_out, width_out) = (after(height), after(width));
        let (pixels, taps) = (height_out * width_out, input * kernel * kernel);
        Self { input, height, width, output, height_out, width_out, pixels, kernel, taps, stride, padding }
    }

    /// A result's `[out, H', W']`.
    pub fn shape_out(&self) -> [usize; 3] {
        [self.output, self.height_out, self.width_out]
    }

    /// The result `[B, out, H', W']`.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let Self { output, pixels, taps, .. } = *self;
        let weight = Matrix::new(weight, [output, taps]);
        let batch = x.len() / self.picture();
        let work = batch * output * pixels;
        let mut y = vec![0.0; work];
        // Each thread has to get something.
        let group = self.group(batch).min(batch.div_ceil(parallel::pieces(work))).max(1);
        let mut tasks = Vec::new();
        for (x, y) in x.chunks(group * self.picture()).zip(y.chunks_mut(group * output * pixels)) {
            let count = x.len() / self.picture();
            let first = tasks.len();
            tasks.extend(self.bands(count).map(|band| (x, band, Vec::with_capacity(count * output))));
            for plane in y.chunks_mut(pixels) {
                let mut rest = plane;
                for (_, band, parts) in &mut tasks[first..] {
                    let (part, after) = rest.split_at_mut(band.pixels);
                    parts.push(part);
                    rest = after;
                }
            }
        }
        let alone = tasks.len() == 1 || tasks.len() < parallel::pieces(work);
        let threads = if alone { Threads::All } else { Threads::One };
        let memory = || (vec![], vec![]);
        parallel::map_init(
            work,
            tasks,
            memory,
            |(columns, product), (x, band, parts): (&[f32], Band, Vec<&mut [f32]>)| {
                let n = x.len() / self.picture() * band.pixels;
                product.resize(output * n, 0.0);
                Product::of(weight, self.columns(x, band, columns)).on(threads).write(product, n, Before::Replace);
                for (i, part) in parts.into_iter().enumerate() {
                    let (picture, channel) = (i / output, i % output);
                    let bias = bias.map_or(0.0, |bias| bias[channel]);
                    let product = &product[channel * n + picture * band.pixels..];
                    part.iter_mut().zip(product).for_each(|(y, x)| *y = x + bias);
                }
            },
        );
        y
    }

    /// The derivatives with respect to x, weight and bias, those that are `wanted`, of what the result has the derivative
    /// `dy` of.
    pub fn backward(&self, x: &[f32], weight: &[f32], dy: &[f32], wanted: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let Self { output, pixels, taps, .. } = *self;
        let picture = self.picture();
        let batch = x.len() / picture;
        let work = batch * output * pixels;
        let mut dx = vec![0.0; if wanted[0] { x.len() } else { 0 }];
        let mut rest = dx.as_mut_slice();
        // A thread takes a run of pictures, and sums their share of the weights' derivative on its own.
        let tasks = parallel::runs(work, batch).into_iter().map(|(first, count)| {
            let (dx, after) = std::mem::take(&mut rest).split_at_mut(if wanted[0] { count * picture } else { 0 });
            rest = after;
            (&x[first * picture..][..count * picture], &dy[first * output * pixels..], dx)
        });
        let dweight = parallel::map(work, tasks.collect(), |(x, dy, dx)| {
            let group = self.group(batch);
            let mut dx = dx.chunks_mut(group * picture);
            let mut dweight = vec![0.0; if wanted[1] { taps * output } else { 0 }]; // [taps, out]
            let (mut columns, mut dcolumns, mut side_by_side) = (vec![], vec![], vec![]);
            for (x, dy) in x.chunks(group * picture).zip(dy.chunks(group * output * pixels)) {
                let count = x.len() / picture;
                let mut dx = dx.next();
                for band in self.bands(count) {
                    let n = count * band.pixels;
                    let dy = join(dy, count, output, pixels, band, &mut side_by_side);
                    if wanted[1] {
                        let columns = self.columns(x, band, &mut columns);
                        Product::of(columns, dy.transpose()).write(&mut dweight, output, Before::Add);
                    }
                    if let Some(dx) = &mut dx {
                        let weight = Matrix::new(weight, [output, taps]).transpose();
                        dcolumns.resize(taps * n, 0.0);
                        Product::of(weight, dy).write(&mut dcolumns, n, Before::Replace);
                        self.add_columns(&dcolumns, band, dx);
                    }
                }
            }
            dweight
        });
        let dweight = wanted[1].then(|| {
            let sum = add_up(dweight);
            (0..output * taps).map(|i| sum[i % taps * output + i / taps]).collect()
        });
        let dbias = wanted[2].then(|| {
            let mut dbias = vec![0.0; output];
            for (i, dy) in dy.chunks_exact(pixels).enumerate() {
                dbias[i % output] += sum(dy, |dy| dy) as f32;
            }
            dbias
        });
        [wanted[0].then_some(dx), dweight, dbias]
    }

    /// Numbers in an input picture.
    fn picture(&self) -> usize {
        self.input * self.height * self.width
    }

    /// Columns that a product has, about.
    fn columns_at_once(&self) -> usize {
        (CACHE / self.taps).clamp(128, 1024)
    }

    /// How many pictures of a batch share a product.
    fn group(&self, batch: usize) -> usize {
        (self.columns_at_once() / self.pixels).clamp(1, batch)
    }

    /// What of `count` pictures each product takes.
    fn bands(&self, count: usize) -> impl Iterator<Item = Band> + use<> {
        let (pixels, width) = (self.pixels, self.width_out);
        let step = if count > 1 { pixels } else { (self.columns_at_once() / width).max(1) * width };
        (0..pixels).step_by(step).map(move |start| Band { start, pixels: step.min(pixels - start) })
    }

    /// The columns `[taps, count · band]` of some pictures.
    fn columns<'a>(&self, x: &'a [f32], band: Band, buffer: &'a mut Vec<f32>) -> Matrix<'a> {
        let count = x.len() / self.picture();
        if (self.kernel, self.stride, self.padding) == (1, 1, 0) {
            return join(x, count, self.input, self.pixels, band, buffer);
        }
        let n = count * band.pixels;
        buffer.resize(self.taps * n, 0.0);
        if let Some(small) = self.small(band) {
            small.columns(x, buffer);
            return Matrix::new(buffer, [self.taps, n]);
        }
        self.visit(count, band, |columns, inside, line| {
            let line = &x[line];
            let to = &mut buffer[columns];
            to[..inside.start].fill(0.0);
            to[inside.end..].fill(0.0);
            copy_every(self.stride, line, &mut to[inside]);
        });
        Matrix::new(buffer, [self.taps, n])
    }

    /// Adds columns to the pixels that [`columns`](Self::columns) takes them from.
    fn add_columns(&self, columns: &[f32], band: Band, x: &mut [f32]) {
        if let Some(small) = self.small(band) {
            return small.add_columns(columns, x);
        }
        let count = x.len() / self.picture();
        wide(
            #[inline(always)]
            || {
                self.visit(count, band, |from, inside, line| {
                    let (line, columns) = (&mut x[line], &columns[from][inside]);
                    if self.stride == 1 {
                        for (x, column) in line.iter_mut().zip(columns) {
                            *x += column;
                        }
                    } else {
                        for (x, column) in line.iter_mut().step_by(self.stride).zip(columns) {
                            *x += column;
                        }
                    }
                });
            },
        );
    }

    /// This convolution as one of small pictures, if it is one and the band is all of them.
    fn small(&self, band: Band) -> Option<Small> {
        let Self { input, height, width, pixels, kernel, stride, padding, .. } = *self;
        let is_small = (kernel, stride, padding) == (3, 1, 1) && matches!(width, 4 | 8 | 16) && band.pixels == pixels;
        is_small.then_some(Small { input, height, width })
    }

    /// Calls `f` for each tap of each output line: where its columns are, which part of them lies inside the picture, and
    /// where in the pictures that part reads from, every `stride`-th pixel of it.
    #[inline(always)]
    fn visit(&self, count: usize, band: Band, mut f: impl FnMut(Range, Range, Range)) {
        let Self { input, height, width, width_out, kernel, stride, padding, .. } = *self;
        let lines = band.start / width_out..(band.start + band.pixels) / width_out;
        let mut start = 0;
        for channel in 0..input {
            for (ky, kx) in (0..kernel * kernel).map(|i| (i / kernel, i % kernel)) {
                // Inside is where 0 ≤ x · stride + kx − padding < width.
                let first = padding.saturating_sub(kx).div_ceil(stride).min(width_out);
                let end = (width + padding).saturating_sub(kx).div_ceil(stride).clamp(first, width_out);
                let length = if end > first { (end - first - 1) * stride + 1 } else { 0 };
                for picture in 0..count {
                    let plane = (picture * input + channel) * height * width;
                    for y in lines.clone() {
                        let columns = start..start + width_out;
                        start += width_out;
                        let line = y * stride + ky;
                        if line < padding || line - padding >= height || length == 0 {
                            f(columns, 0..0, 0..0);
                        } else {
                            let from = plane + (line - padding) * width + first * stride + kx - padding;
                            f(columns, first..end, from..from + length);
                        }
                    }
                }
            }
        }
    }
}

type Range = std::ops::Range<usize>;

/// Whole pictures with lines of a few vectors, under a 3 × 3 kernel that keeps their size. A call for each line and a look at
/// its ends would cost more than the line; so each plane gets a border of zeros, and lines are copied by the vector.
#[derive(Debug, Clone, Copy)]
struct Small {
    input: usize,
    height: usize,
    width: usize,
}

impl Small {
    /// See [`Conv::columns`].
    fn columns(self, x: &[f32], columns: &mut [f32]) {
        match self.width {
            4 => self.columns_of::<4>(x, columns),
            8 => self.columns_of::<8>(x, columns),
            _ => self.columns_of::<16>(x, columns),
        }
    }

    /// See [`Conv::add_columns`].
    fn add_columns(self, columns: &[f32], x: &mut [f32]) {
        wide(
            #[inline(always)]
            || match self.width {
                4 => self.add_columns_of::<4>(columns, x),
                8 => self.add_columns_of::<8>(columns, x),
                _ => self.add_columns_of::<16>(columns, x),
            },
        );
    }

    fn columns_of<const WIDTH: usize>(self, x: &[f32], columns: &mut [f32]) {
        let (plane, mut bordered) = (self.height * WIDTH, vec![0.0; (self.height + 2) * (WIDTH + 2)]);
        let count = x.len() / (self.input * plane);
        for (i, x) in x.chunks_exact(plane).enumerate() {
            let (picture, channel) = (i / self.input, i % self.input);
            for (line, x) in bordered.chunks_exact_mut(WIDTH + 2).skip(1).zip(x.as_chunks::<WIDTH>().0) {
                line[1..=WIDTH].copy_from_slice(x);
            }
            for tap in 0..9 {
                let start = tap / 3 * (WIDTH + 2) + tap % 3;
                let columns = &mut columns[((channel * 9 + tap) * count + picture) * plane..][..plane];
                let lines = bordered[start..].chunks(WIDTH + 2);
                for (column, line) in columns.as_chunks_mut::<WIDTH>().0.iter_mut().zip(lines) {
                    column.copy_from_slice(&line[..WIDTH]);
                }
            }
        }
    }

    #[inline(always)]
    fn add_columns_of<const WIDTH: usize>(self, columns: &[f32], x: &mut [f32]) {
        let (plane, mut bordered) = (self.height * WIDTH, vec![0.0; (self.height + 2) * (WIDTH + 2)]);
        let count = x.len() / (self.input * plane);
        for (i, x) in x.chunks_exact_mut(plane).enumerate() {
            let (picture, channel) = (i / self.input, i % self.input);
            bordered.fill(0.0);
            for tap in 0..9 {
                let start = tap / 3 * (WIDTH + 2) + tap % 3;
                let columns = &columns[((channel * 9 + tap) * count + picture) * plane..][..plane];
                let lines = bordered[start..].chunks_mut(WIDTH + 2);
                for (column, line) in columns.as_chunks::<WIDTH>().0.iter().zip(lines) {
                    line[..WIDTH].iter_mut().zip(column).for_each(|(sum, x)| *sum += x);
                }
            }
            for (line, x) in bordered.chunks_exact(WIDTH + 2).skip(1).zip(x.as_chunks_mut::<WIDTH>().0) {
                x.iter_mut().zip(&line[1..=WIDTH]).for_each(|(x, sum)| *x += sum);
            }
        }
    }
}

/// A band of pictures `[count, channels, pixels]` as `[channels, count · band]`.
fn join<'a>(
    x: &'a [f32],
    count: usize,
    channels: usize,
    pixels: usize,
    band: Band,
    buffer: &'a mut Vec<f32>,
) -> Matrix<'a> {
    if count == 1 {
        return Matrix::strided(&x[band.start..], [channels, band.pixels], [pixels, 1]);
    }
    buffer.clear();
    for channel in 0..channels {
        for picture in 0..count {
            let start = (picture * channels + channel) * pixels + band.start;
            buffer.extend_from_slice(&x[start..][..band.pixels]);
        }
    }
    Matrix::new(buffer, [channels, count * band.pixels])
}

#[inline(always)]
fn copy_every(stride: usize, from: &[f32], to: &mut [f32]) {
    if stride == 1 {
        to.copy_from_slice(from);
    } else {
        to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from);
    }
}
