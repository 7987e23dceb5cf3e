//! Elementary functions and sums in a form that compilers turn into vector instructions.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Calls `f` compiled for the widest vectors of the machine. What `f` calls is only so compiled if it is inlined.
#[inline(always)]
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the machine has these instructions, as was just asked.
            return unsafe { avx512(f) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { avx2(f) };
        }
    }
    f()
}

/// `e^x` to 2 units in the last place; x below −87 counts as −87, above 88 as 88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the nearest whole number in the low bits
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * LOG2_E + ROUND;
    let power = shifted - ROUND;
    let x = x - power * LN_2_HIGH - power * LN_2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * x + 1.398_2e-3;
    let p = p * x + 8.333_452e-3;
    let p = p * x + 4.166_579_6e-2;
    let p = p * x + 1.666_666_5e-1;
    let p = p * x + 0.5;
    let p = p * x * x + x + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `1 / (1 + e^−x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The share of the standard normal distribution below `x`, to 3e-7, and its density at `x`.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    // Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26.
    const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;
    let t = 1.0 / (1.0 + 0.327_591_1 * FRAC_1_SQRT_2 * x.abs());
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    let e = exp(-0.5 * x * x);
    let tail = 0.5 * p * t * e;
    (if x >= 0.0 { 1.0 - tail } else { tail }, FRAC_1_SQRT_2_PI * e)
}

const LANES: usize = 32;

/// Sum of `f(x)`.
#[inline(always)]
pub fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    total(lanes) + rest.iter().map(|&x| f(x)).sum::<f32>()
}

/// Sum of `f(x, y)`.
#[inline(always)]
pub fn sum_2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((xs, rest_x), (ys, rest_y)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += f(x, y);
        }
    }
    total(lanes) + rest_x.iter().zip(rest_y).map(|(&x, &y)| f(x, y)).sum::<f32>()
}

/// Halves at a time: one after the other, each addition would wait for the one before.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (left, right) = lanes.split_at_mut(half);
        for (left, right) in left.iter_mut().zip(right) {
            *left += *right;
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest number.
#[inline(always)]
pub fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of `f` relative to `expected` over a range.
    fn error(f: fn(f32) -> f32, expected: fn(f64) -> f64, range: std::ops::Range<i32>) -> f64 {
        let points = range.map(|i| i as f32 * 1e-3);
        points.map(|x| (f64::from(f(x)) / expected(f64::from(x)) - 1.0).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate_to_a_few_units_in_the_last_place() {
        assert!(error(exp, f64::exp, -86_000..87_000) < 3e-7);
        assert!(error(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80_000..80_000) < 4e-7);
        for x in (-10_000..10_000).map(|i| i as f32 * 1e-3) {
            let expected = 0.5 * libm::erfc(f64::from(-x * FRAC_1_SQRT_2));
            assert!((f64::from(normal(x).0) - expected).abs() < 3e-7, "{x}");
        }
    }

    #[test]
    fn extremes_stay_what_they_are() {
        assert!((0.0..1e-37).contains(&sigmoid(-1e30)));
        assert_eq!(sigmoid(1e30), 1.0);
        assert_eq!((normal(1e15).0, normal(-1e15).0), (1.0, 0.0));
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && normal(f32::NAN).0.is_nan());
    }

    #[test]
    fn sums_take_every_number_once() {
        for n in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(&x, |x| x), (n * n - n) as f32 / 2.0);
            assert_eq!(sum_2(&x, &x, |x, y| x - 2.0 * y), -sum(&x, |x| x));
            assert_eq!(largest(&x), if n == 0 { f32::NEG_INFINITY } else { n as f32 - 1.0 });
        }
    }
}
