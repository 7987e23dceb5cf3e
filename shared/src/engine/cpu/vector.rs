//! Loops in a form that compilers turn into vector instructions.

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

/// Numbers that are added side by side: a few vectors of them, since one addition waits for the last.
const LANES: usize = 32;

/// Vectors that are added in f32.
const BLOCK: usize = 64;

/// Sum of `f(x)`: blocks in f32, their sums in f64.
#[inline(always)]
pub fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut total = 0.0;
    for block in vectors.chunks(BLOCK) {
        let mut lanes = [0.0; LANES];
        for vector in block {
            for (lane, &x) in lanes.iter_mut().zip(vector) {
                *lane += f(x);
            }
        }
        total += f64::from(fold(lanes, |a, b| a + b));
    }
    total + f64::from(rest.iter().map(|&x| f(x)).sum::<f32>())
}

/// Sum of `f(x, y)`: blocks in f32, their sums in f64.
#[inline(always)]
pub fn sum_2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let ((xs, rest_x), (ys, rest_y)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut total = 0.0;
    for (xs, ys) in xs.chunks(BLOCK).zip(ys.chunks(BLOCK)) {
        let mut lanes = [0.0; LANES];
        for (x, y) in xs.iter().zip(ys) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += f(x, y);
            }
        }
        total += f64::from(fold(lanes, |a, b| a + b));
    }
    total + f64::from(rest_x.iter().zip(rest_y).map(|(&x, &y)| f(x, y)).sum::<f32>())
}

/// The largest number, or −∞.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let larger = |a, b| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (vectors, rest) = x.as_chunks::<LANES>();
    for vector in vectors {
        for (lane, &x) in lanes.iter_mut().zip(vector) {
            *lane = larger(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    fold(lanes, larger)
}

/// Halves at a time: one after the other, each step would wait for the one before.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (left, right) = lanes.split_at_mut(half);
        for (left, right) in left.iter_mut().zip(right) {
            *left = join(*left, *right);
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_maxima_take_every_number_once() {
        for n in [0, 1, 31, 32, 33, 100, 2047, 2048, 5000] {
            let x: Vec<f32> = (0..n).map(|i| (i * 7919 % n) as f32).collect();
            assert_eq!(sum(&x, |x| x), (n * n - n) as f64 / 2.0);
            assert_eq!(sum_2(&x, &x, |x, y| x - 2.0 * y), -sum(&x, |x| x));
            assert_eq!(max(&x), if n == 0 { f32::NEG_INFINITY } else { n as f32 - 1.0 });
            assert_eq!(max(&[-3.0; 40][..n.clamp(1, 40)]), -3.0);
        }
    }

    #[test]
    fn a_sum_with_no_number_is_none() {
        assert!(sum(&[1.0, f32::NAN], |x| x).is_nan());
        assert!(sum_2(&[1.0, 1.0], &[1.0, f32::NAN], |x, y| x * y).is_nan());
    }
}
