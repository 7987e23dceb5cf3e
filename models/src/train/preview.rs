//! How latents look: the linear map from latents to colours that fits best.

use kosmosg::noise::Rng;
use kosmosg::preview::PreviewFactors;

use super::data::Data;
use super::stages::Autoencoder;

/// Fits preview factors to an autoencoder by least squares over pictures of a run's data.
///
/// # Errors
/// What went wrong on the device.
pub(super) fn fit(vae: &Autoencoder, data: &dyn Data, size: usize) -> anyhow::Result<PreviewFactors> {
    const BATCHES: u64 = 16;
    const BATCH: u64 = 16;
    let [channels, side, _] = vae.latent_shape();
    let mut fit = LeastSquares::new(channels + 1);
    for batch in 0..BATCHES {
        let pixels = |number| data.picture(&mut Rng::new(number, 0)).pixels_for_vae(size as u32);
        let pixels: Vec<f32> = (batch * BATCH..(batch + 1) * BATCH).flat_map(pixels).collect();
        let latents = pollster::block_on(vae.latents(pixels.clone()).to_host())?;
        let pictures = pixels.chunks_exact(3 * size * size);
        for (latents, pixels) in latents.chunks_exact(channels * side * side).zip(pictures) {
            for place in 0..side * side {
                let inputs = (0..channels).map(|channel| f64::from(latents[channel * side * side + place]));
                let colour = [0, 1, 2].map(|colour| {
                    mean_of_square(&pixels[colour * size * size..][..size * size], size, size / side, place)
                });
                fit.add(&inputs.chain([1.0]).collect::<Vec<_>>(), colour);
            }
        }
    }
    let mut weights = fit.solve();
    let bias = weights.pop().unwrap_or_default();
    Ok(PreviewFactors { weights, bias })
}

/// Mean of the pixels that one latent stands for: number `place` of the squares of `side` pixels.
fn mean_of_square(pixels: &[f32], size: usize, side: usize, place: usize) -> f64 {
    let (top, left) = (place / (size / side) * side, place % (size / side) * side);
    let rows = (top..top + side).flat_map(|y| &pixels[y * size + left..][..side]);
    rows.map(|&pixel| f64::from(pixel)).sum::<f64>() / (side * side) as f64
}

/// Normal equations `A · w = b` of three outputs.
struct LeastSquares {
    a: Vec<Vec<f64>>,
    b: Vec<[f64; 3]>,
}

impl LeastSquares {
    fn new(inputs: usize) -> Self {
        let mut a = vec![vec![0.0; inputs]; inputs];
        // An input that never varies gets a weight of 0.
        (0..inputs).for_each(|i| a[i][i] = 1e-6);
        Self { a, b: vec![[0.0; 3]; inputs] }
    }

    fn add(&mut self, inputs: &[f64], outputs: [f64; 3]) {
        for (i, x) in inputs.iter().enumerate() {
            self.a[i].iter_mut().zip(inputs).for_each(|(sum, y)| *sum += x * y);
            self.b[i].iter_mut().zip(outputs).for_each(|(sum, y)| *sum += x * y);
        }
    }

    /// The weights of each input, by Gaussian elimination: the matrix is positive definite and needs no pivoting.
    fn solve(mut self) -> Vec<[f32; 3]> {
        let n = self.b.len();
        for pivot in 0..n {
            let (row, right) = (self.a[pivot].clone(), self.b[pivot]);
            for other in (0..n).filter(|&other| other != pivot) {
                let factor = self.a[other][pivot] / row[pivot];
                self.a[other].iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
                self.b[other].iter_mut().zip(right).for_each(|(x, y)| *x -= factor * y);
            }
        }
        (0..n).map(|i| self.b[i].map(|x| (x / self.a[i][i]) as f32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_map_is_found() {
        let mut fit = LeastSquares::new(3);
        for i in 0..50 {
            let (x, y) = ((f64::from(i) * 0.7).sin(), (f64::from(i) * 1.3).cos());
            fit.add(&[x, y, 1.0], [2.0 * x - y + 0.5, y, -x]);
        }
        let found = fit.solve();
        let expected = [[2.0, 0.0, -1.0], [-1.0, 1.0, 0.0], [0.5, 0.0, 0.0]];
        for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
            assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
        }
    }

    #[test]
    fn a_latent_stands_for_a_square() {
        let pixels: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let means: Vec<f64> = (0..4).map(|place| mean_of_square(&pixels, 4, 2, place)).collect();
        assert_eq!(means, [2.5, 4.5, 10.5, 12.5]);
    }
}
