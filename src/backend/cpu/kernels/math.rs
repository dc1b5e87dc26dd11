//! Vector functions: exponential, and what is made of it.

use super::simd::Simd;

/// Below this the exponential is given as 0 (its true value is under 1.2e-38).
const EXP_MIN: f32 = -87.336_54;
/// Above this the exponential is given as this one's, which f32 still holds.
const EXP_MAX: f32 = 88.0;

/// `e^x` to about 2 units in the last place; 0 below −87.3, `e^88` above 88, NaN for NaN.
/// Cephes' `expf`: `x = n ln 2 + r` with `|r| <= ln 2 / 2`, and a polynomial in `r`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // Cephes splits ln 2 so that n times the first part is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let limited = simd.min(simd.splat(EXP_MAX), simd.max(simd.splat(EXP_MIN), x));
    let n = simd.round(simd.mul(limited, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.fma(n, simd.splat(-LN2_HIGH), limited);
    let r = simd.fma(n, simd.splat(-LN2_LOW), r);
    let mut poly = simd.splat(COEFFICIENTS[0]);
    for c in &COEFFICIENTS[1..] {
        poly = simd.fma(poly, r, simd.splat(*c));
    }
    let one_plus_r = simd.add(r, simd.splat(1.0));
    let power = simd.fma(poly, simd.mul(r, r), one_plus_r);
    simd.zero_where_less(simd.scale_by_power(power, n), x, simd.splat(EXP_MIN))
}

/// `tanh x`, as `1 - 2 / (e^{2x} + 1)`: absolute error about 1e-7.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::V) -> S::V {
    let e = exp(simd, simd.add(x, x));
    let one = simd.splat(1.0);
    simd.sub(one, simd.div(simd.splat(2.0), simd.add(e, one)))
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(simd: S, x: S::V) -> S::V {
    let e = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(x, simd.add(e, simd.splat(1.0)))
}

/// GELU by its tanh approximation (Hendrycks and Gimpel, 2016).
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(simd: S, x: S::V) -> S::V {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let cubic = simd.mul(simd.mul(x, x), simd.mul(x, simd.splat(0.044_715)));
    let t = tanh(simd, simd.mul(simd.add(x, cubic), simd.splat(SQRT_2_OVER_PI)));
    let half = simd.mul(x, simd.splat(0.5));
    simd.fma(half, t, half)
}

/// GELU by the error function.
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(simd: S, x: S::V) -> S::V {
    let e = erf(simd, simd.mul(x, simd.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let half = simd.mul(x, simd.splat(0.5));
    simd.fma(half, e, half)
}

/// The error function to an absolute error of 2e-7: Abramowitz and Stegun, formula 7.1.26.
#[inline(always)]
pub(crate) fn erf<S: Simd>(simd: S, x: S::V) -> S::V {
    const P: f32 = 0.327_591_1;
    const COEFFICIENTS: [f32; 5] =
        [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let negated = simd.sub(zero, x);
    let size = simd.max(negated, x);
    let t = simd.div(one, simd.fma(simd.splat(P), size, one));
    let mut poly = simd.splat(COEFFICIENTS[0]);
    for c in &COEFFICIENTS[1..] {
        poly = simd.fma(poly, t, simd.splat(*c));
    }
    let tail = exp(simd, simd.mul(negated, x));
    let of_size = simd.sub(one, simd.mul(simd.mul(poly, t), tail));
    // Odd: 2 * [x >= 0] - 1 gives the sign.
    let sign = simd.sub(simd.zero_where_less(simd.splat(2.0), x, zero), one);
    simd.mul(of_size, sign)
}
