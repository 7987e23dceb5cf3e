//! Linear maps whose weights stay as they are stored, in a half, a quarter or an eighth of the memory. A strip of their rows is
//! unpacked at a time, small enough to stay in a core's cache, and used for all rows of the input.

use super::matrix::{Before, Matrix, Product};
use super::parallel;
use crate::weights::HostTensor;

/// Numbers of a strip, at least.
const STRIP: usize = 1 << 16;
/// What the rows of a strip are a multiple of: the widest block that a product computes.
const BLOCK: usize = 64;

/// `x · weightᵀ + bias`: rows x `[N, in]`, weight `[out, in]`, bias `[out]` to the rows of y `[N, out]`.
///
/// # Panics
/// If the weight is no matrix of as many columns as `x` has.
pub fn linear(x: Matrix, weight: &HostTensor, bias: Option<&[f32]>) -> Vec<f32> {
    let &[outputs, inputs] = weight.shape() else { panic!("a linear map of shape {:?}", weight.shape()) };
    let [rows, _] = x.size();
    let height = (STRIP / inputs.max(1)).next_multiple_of(BLOCK).max(BLOCK);
    let starts = (0..outputs).step_by(height).collect();
    let strips = parallel::map_init(outputs * inputs, starts, Vec::new, |unpacked, start| {
        let here = start..outputs.min(start + height);
        let width = here.len();
        unpacked.resize(width * inputs, 0.0);
        weight.unpack(here.clone(), unpacked);
        let mut y = vec![0.0; rows * width];
        let before = match bias {
            Some(bias) => {
                y.chunks_exact_mut(width).for_each(|y| y.copy_from_slice(&bias[here.clone()]));
                Before::Add
            }
            None => Before::Replace,
        };
        Product::of(x, Matrix::new(unpacked, [width, inputs]).transpose()).write(&mut y, width, before);
        (here, y)
    });
    let mut y = vec![0.0; rows * outputs];
    parallel::chunks(&mut y, outputs, |row, y| {
        for (here, strip) in &strips {
            y[here.clone()].copy_from_slice(&strip[row * here.len()..][..here.len()]);
        }
    });
    y
}

#[cfg(test)]
mod tests {
    use super::super::linear::linear as dense;
    use super::*;
    use crate::weights::DType;

    #[test]
    fn packed_weights_compute_what_their_numbers_do() {
        // More than a strip, and not a whole number of them.
        let [rows, inputs, outputs] = [5, 96, 4 * (STRIP / 96) + 7];
        let wave = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<_>>();
        let (x, bias) = (wave(rows * inputs, 0.7), wave(outputs, 0.3));
        let numbers = HostTensor::from_f32(vec![outputs, inputs], &wave(outputs * inputs, 0.37));
        for dtype in [DType::F16, DType::Bf16, DType::Q8_0, DType::Q4_0] {
            let weight = numbers.to_dtype(dtype).unwrap();
            let unpacked = weight.to_f32();
            let mut expected = vec![0.0; rows * outputs];
            let matrix = Matrix::new(&unpacked, [outputs, inputs]).transpose();
            for bias in [None, Some(bias.as_slice())] {
                dense(Matrix::new(&x, [rows, inputs]), matrix, bias, &mut expected);
                let found = linear(Matrix::new(&x, [rows, inputs]), &weight, bias);
                let furthest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(furthest < 1e-4, "{dtype:?}: {furthest}");
            }
        }
    }
}
