//! Functions of one number that compile to vector instructions, and sums.
//!
//! Library functions are called number by number; these are a few multiplications each, accurate to some 1e-7.

/// `e^x`, at least `e^-87` and at most `e^88`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Comparisons in this order let a NaN pass.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let power = f32::from_bits((rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23); // 2ⁿ
    // ln 2 in two parts, the first exact in a few bits; Cephes' polynomial for the rest.
    let x = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * x + 1.398_199_9e-3;
    let p = p * x + 8.333_452e-3;
    let p = p * x + 4.166_579_6e-2;
    let p = p * x + 1.666_666_5e-1;
    let p = p * x + 5.0e-1;
    (p * x * x + x + 1.0) * power
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x · sigmoid(x)`
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// `x · (1 + erf(x / √2)) / 2`
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function: Eigen's rational approximation, and ±1 where f32 knows no difference.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let s = x * x;
    let p = -2.726_142_3e-10;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024e-6;
    let p = p * s - 5.692_506_5e-5;
    let p = p * s - 7.349_906_3e-4;
    let p = p * s - 2.954_6e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827e-3;
    let q = q * s - 7.373_329e-3;
    let q = q * s - 1.426_473_9e-2;
    match x {
        4.0.. => 1.0,
        ..=-4.0 => -1.0,
        _ => x * p / q,
    }
}

/// Numbers that are added side by side: a few vectors of them, since one addition waits for the last.
const LANES: usize = 32;

/// The sum of `function` over `x`: blocks in f32, their sums in f64.
#[inline(always)]
pub fn sum(x: &[f32], function: impl Fn(f32) -> f32) -> f64 {
    const BLOCK: usize = 64 * LANES;
    let block = |x| f64::from(reduce(x, 0.0, |sum, x| sum + function(x), |a, b| a + b));
    x.chunks(BLOCK).map(block).sum()
}

/// The largest of `x`.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let larger = |a, b| if a > b { a } else { b };
    reduce(x, f32::NEG_INFINITY, larger, larger)
}

#[inline(always)]
fn reduce(x: &[f32], start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let vectors = x.chunks_exact(LANES);
    lanes.iter_mut().zip(vectors.remainder()).for_each(|(lane, &x)| *lane = step(*lane, x));
    for vector in vectors {
        lanes.iter_mut().zip(vector).for_each(|(lane, &x)| *lane = step(*lane, x));
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        low.iter_mut().zip(high).for_each(|(low, high)| *low = join(*low, *high));
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(range: std::ops::Range<i32>, ours: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let at = |i: i32| i as f32 * 1e-3;
        range
            .map(|i| (f64::from(ours(at(i))) - exact(f64::from(at(i)))).abs() / exact(f64::from(at(i))).abs().max(1.0))
            .fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate() {
        assert!(worst(-87_000..87_000, exp, f64::exp) < 2e-7);
        assert!(worst(-20_000..0, |x| exp(x) * exp(-x), |_| 1.0) < 4e-7, "small values are accurate too");
        assert!(worst(-9_000..9_000, gelu, |x| x * libm::erfc(-x / std::f64::consts::SQRT_2) / 2.0) < 1e-6);
        assert!(worst(-99_000..99_000, silu, |x| x / (1.0 + (-x).exp())) < 4e-7);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        assert!(exp(f32::NAN).is_nan() && gelu(f32::NAN).is_nan() && silu(f32::NAN).is_nan());
        assert!(sum(&[1.0, f32::NAN], |x| x).is_nan());
    }

    #[test]
    fn sums_and_maxima_take_every_number() {
        for n in [1, 31, 32, 33, 2047, 2048, 5000] {
            let x: Vec<f32> = (0..n).map(|i| (i * 7919 % n) as f32).collect();
            assert_eq!(sum(&x, |x| x), (n * (n - 1) / 2) as f64);
            assert_eq!(max(&x), (n - 1) as f32);
            assert_eq!(max(&[-3.0; 40][..n.min(40)]), -3.0);
        }
    }
}
