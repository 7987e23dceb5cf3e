//! Elementary functions in a form that compilers turn into vector instructions: a few multiplications each.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// `e^x` to 2 units in the last place; x below −87 counts as −87, above 88 as 88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_within(x.clamp(-87.0, 88.0))
}

/// [`exp`] of an x from −87 to 88.
#[inline(always)]
pub fn exp_within(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the nearest whole number in the low bits
    // ln 2 in two parts, the first exact in a few bits; Cephes' polynomial for the rest.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
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

/// `x · sigmoid(x)`
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// The derivative of [`silu`].
#[inline(always)]
pub fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

/// CLIP's approximation of [`gelu`].
#[inline(always)]
pub fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(QUICK_GELU * x)
}

/// The derivative of [`quick_gelu`].
#[inline(always)]
pub fn quick_gelu_slope(x: f32) -> f32 {
    silu_slope(QUICK_GELU * x)
}

const QUICK_GELU: f32 = 1.702;

/// `x · (1 + erf(x / √2)) / 2`
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// The derivative of [`gelu`].
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    let (below, density) = normal(x);
    below + x * density
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of `f` over thousandths of a range, relative to what is expected or to `least`.
    fn worst(f: fn(f32) -> f32, expected: fn(f64) -> f64, thousandths: std::ops::Range<i32>, least: f64) -> f64 {
        let error = |x: f32| {
            let expected = expected(f64::from(x));
            (f64::from(f(x)) - expected).abs() / expected.abs().max(least)
        };
        thousandths.map(|i| error(i as f32 * 1e-3)).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate_to_a_few_units_in_the_last_place() {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let normal_share = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
        assert!(worst(exp, f64::exp, -86_000..87_000, 0.0) < 3e-7);
        assert!(worst(exp, f64::exp, -87_000..87_000, 1.0) < 2e-7);
        assert!(worst(|x| exp(x) * exp(-x), |_| 1.0, -20_000..0, 0.0) < 4e-7);
        assert!(worst(sigmoid, logistic, -80_000..80_000, 0.0) < 4e-7);
        assert!(worst(silu, |x| x / (1.0 + (-x).exp()), -99_000..99_000, 1.0) < 4e-7);
        assert!(worst(|x| normal(x).0, normal_share, -10_000..10_000, 1.0) < 3e-7);
        assert!(worst(gelu, |x| 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2), -10_000..10_000, 1.0) < 4e-7);
    }

    #[test]
    fn extremes_stay_what_they_are() {
        assert!((0.0..1e-37).contains(&sigmoid(-1e30)));
        assert_eq!(sigmoid(1e30), 1.0);
        assert_eq!((normal(1e15).0, normal(-1e15).0), (1.0, 0.0));
    }

    #[test]
    fn what_is_no_number_stays_none() {
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && normal(f32::NAN).0.is_nan());
        assert!(silu(f32::NAN).is_nan() && gelu(f32::NAN).is_nan() && quick_gelu(f32::NAN).is_nan());
    }
}
