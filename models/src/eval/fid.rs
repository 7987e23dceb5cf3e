//! Fréchet distance between two sets of features: FID on features of our judge.
//!
//! Source: Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium* (2017), eq. 6.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// `|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2·(Σ₁·Σ₂)^½)` of features that are all of one width.
///
/// # Panics
/// If a set has fewer than two features, or widths differ.
pub fn frechet_distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let ((mean_a, covariance_a), (mean_b, covariance_b)) = (statistics(a), statistics(b));
    // The eigenvalues of Σ₁·Σ₂ are those of the symmetric Σ₁^½·Σ₂·Σ₁^½.
    let root = square_root(&covariance_a);
    let product = SymmetricEigen::new(&root * &covariance_b * &root);
    let mixed: f64 = product.eigenvalues.iter().map(|value| value.max(0.0).sqrt()).sum();
    (mean_a - mean_b).norm_squared() + covariance_a.trace() + covariance_b.trace() - 2.0 * mixed
}

fn statistics(features: &[Vec<f32>]) -> (DVector<f64>, DMatrix<f64>) {
    assert!(features.len() > 1, "a spread needs two features or more");
    let (rows, width) = (features.len(), features[0].len());
    let mut matrix = DMatrix::from_row_iterator(rows, width, features.iter().flatten().map(|&x| f64::from(x)));
    let mean = matrix.row_mean();
    matrix.row_iter_mut().for_each(|mut row| row -= &mean);
    (mean.transpose(), matrix.tr_mul(&matrix) / (rows - 1) as f64)
}

fn square_root(matrix: &DMatrix<f64>) -> DMatrix<f64> {
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(matrix.clone());
    let roots = eigenvalues.map(|value| value.max(0.0).sqrt());
    &eigenvectors * DMatrix::from_diagonal(&roots) * eigenvectors.transpose()
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;

    /// Normal features with these means and standard deviations.
    fn features(seed: u64, count: usize, of: &[(f64, f64)]) -> Vec<Vec<f32>> {
        let mut rng = Rng::new(seed, 0);
        let mut feature = || of.iter().map(|(mean, deviation)| (mean + deviation * rng.gaussian()) as f32).collect();
        (0..count).map(|_| feature()).collect()
    }

    #[test]
    fn normal_distributions_are_as_far_apart_as_the_formula_says() {
        let a = features(1, 20_000, &[(0.0, 1.0), (2.0, 3.0), (0.0, 0.0)]);
        let b = features(2, 20_000, &[(1.0, 2.0), (0.0, 3.0), (0.0, 0.0)]);
        // (1 + 4) + (1 − 2)² + (3 − 3)²
        let distance = frechet_distance(&a, &b);
        assert!((distance - 6.0).abs() < 0.2, "{distance}");
        assert!((frechet_distance(&b, &a) - distance).abs() < 1e-9);
        assert!(frechet_distance(&a, &a).abs() < 1e-9);
    }

    #[test]
    fn directions_count() {
        let turned = |by: f32| -> Vec<Vec<f32>> {
            features(3, 5000, &[(0.0, 2.0), (0.0, 0.5)])
                .into_iter()
                .map(|x| vec![x[0] * by.cos() - x[1] * by.sin(), x[0] * by.sin() + x[1] * by.cos()])
                .collect()
        };
        // Σ₁ = diag(4, ¼) and Σ₂ = diag(¼, 4): 8.5 − 2·(1 + 1)
        let distance = frechet_distance(&turned(0.0), &turned(std::f32::consts::FRAC_PI_2));
        assert!((distance - 4.5).abs() < 0.3, "{distance}");
    }
}
