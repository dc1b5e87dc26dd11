//! What works on a row value by value: norms, activations, soft-caps, the largest value.
#![allow(unsafe_code, reason = "vectors are loaded and stored through pointers")]

use super::math;
use super::simd::{Kernel, Simd};
use crate::backend::Activation;

/// Values that [`Argmax`] looks at before it compares with the best so far.
const ARGMAX_BLOCK: usize = 2048;

/// Values that [`SumExp`] adds in f32 before it goes on in f64.
const SUM_BLOCK: usize = 512;

/// The weight of a norm: `values[i] + offset`.
#[derive(Clone, Copy)]
pub(crate) struct NormWeight<'a> {
    pub values: &'a [f32],
    pub offset: f32,
}

/// Root mean square norm in place: `x / sqrt(mean(x²) + eps) * weight`.
pub(crate) struct Norm<'a> {
    pub x: &'a mut [f32],
    pub weight: NormWeight<'a>,
    pub eps: f32,
}

/// `to += from`.
pub(crate) struct AddInto<'a> {
    pub to: &'a mut [f32],
    pub from: &'a [f32],
}

/// `out = activation(gate) * up`.
pub(crate) struct Activate<'a> {
    pub activation: Activation,
    pub gate: &'a [f32],
    pub up: &'a [f32],
    pub out: &'a mut [f32],
}

/// `x = cap * tanh(x / cap)`.
pub(crate) struct Softcap<'a> {
    pub x: &'a mut [f32],
    pub cap: f32,
}

/// The first of the largest values and whether any value is NaN.
pub(crate) struct Argmax<'a>(pub &'a [f32]);

/// `Σ exp(x - shift)`.
pub(crate) struct SumExp<'a> {
    pub x: &'a [f32],
    pub shift: f32,
}

/// `distances = (largest - logits) / temperature` and `weights = exp(-distances)`.
pub(crate) struct Weigh<'a> {
    pub logits: &'a [f32],
    pub largest: f32,
    pub temperature: f32,
    pub distances: &'a mut [f32],
    pub weights: &'a mut [f32],
}

/// What [`Argmax`] finds; the index is 0 where all are minus infinity or NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Largest {
    pub index: usize,
    pub value: f32,
    pub has_nan: bool,
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        assert_eq!(self.x.len(), self.weight.values.len(), "a norm weight is as wide as its row");
        let mut squares = simd.splat(0.0);
        for i in (0..self.x.len()).step_by(S::LANES) {
            let x = load(simd, self.x, i);
            squares = simd.fma(x, x, squares);
        }
        let mean = sum(simd, squares) / self.x.len() as f32;
        let inverse = simd.splat(1.0 / (mean + self.eps).sqrt());
        let offset = simd.splat(self.weight.offset);
        for i in (0..self.x.len()).step_by(S::LANES) {
            let weight = simd.add(load(simd, self.weight.values, i), offset);
            let x = simd.mul(load(simd, self.x, i), inverse);
            store(simd, self.x, i, simd.mul(x, weight));
        }
    }
}

impl Kernel for AddInto<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to += from;
        }
    }
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.activation {
            Activation::Silu => self.each(simd, math::silu),
            Activation::GeluTanh => self.each(simd, math::gelu_tanh),
            Activation::GeluErf => self.each(simd, math::gelu_erf),
        }
    }
}

impl Activate<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, simd: S, f: impl Fn(S, S::V) -> S::V) {
        for i in (0..self.out.len()).step_by(S::LANES) {
            let gate = f(simd, load(simd, self.gate, i));
            store(simd, self.out, i, simd.mul(gate, load(simd, self.up, i)));
        }
    }
}

impl Kernel for Softcap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let cap = simd.splat(self.cap);
        for i in (0..self.x.len()).step_by(S::LANES) {
            let x = math::tanh(simd, simd.div(load(simd, self.x, i), cap));
            store(simd, self.x, i, simd.mul(x, cap));
        }
    }
}

impl Kernel for Argmax<'_> {
    type Output = Largest;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Largest {
        let (low, high) = (simd.splat(f32::MIN), simd.splat(f32::MAX));
        let mut zeros = simd.splat(0.0);
        let mut best = (f32::NEG_INFINITY, 0..0);
        for start in (0..self.0.len()).step_by(ARGMAX_BLOCK) {
            let end = (start + ARGMAX_BLOCK).min(self.0.len());
            let mut largest = simd.splat(f32::NEG_INFINITY);
            for i in (start..end).step_by(S::LANES) {
                // A tail is filled with its first value, which changes no maximum.
                let x = load_or(simd, self.0, i, self.0[i]);
                // The accumulator is second, so that a NaN does not replace it.
                largest = simd.max(x, largest);
                // Zero times any finite value is zero, and NaN for a NaN.
                let finite = simd.min(high, simd.max(low, x));
                zeros = simd.fma(finite, simd.splat(0.0), zeros);
            }
            let largest = simd.reduce_max(largest);
            if largest > best.0 {
                best = (largest, start..end);
            }
        }
        let (value, block) = best;
        let start = block.start;
        let place = self.0[block].iter().position(|&x| x == value);
        let index = start + place.unwrap_or(0);
        Largest { index, value, has_nan: sum(simd, zeros).is_nan() }
    }
}

impl Kernel for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let shift = simd.splat(self.shift);
        let mut total = 0.0;
        for block in self.x.chunks(SUM_BLOCK) {
            let mut part = simd.splat(0.0);
            for i in (0..block.len()).step_by(S::LANES) {
                let x = load_or(simd, block, i, f32::NEG_INFINITY);
                part = simd.add(part, math::exp(simd, simd.sub(x, shift)));
            }
            total += f64::from(sum(simd, part));
        }
        total
    }
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (largest, temperature) = (simd.splat(self.largest), simd.splat(self.temperature));
        for i in (0..self.logits.len()).step_by(S::LANES) {
            let distance = simd.sub(largest, load(simd, self.logits, i));
            let distance = simd.div(distance, temperature);
            store(simd, self.distances, i, distance);
            let weight = math::exp(simd, simd.sub(simd.splat(0.0), distance));
            store(simd, self.weights, i, weight);
        }
    }
}

/// The sum of a vector's lanes.
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, a: S::V) -> f32 {
    let zero = simd.splat(0.0);
    simd.reduce([a, zero, zero, zero])[0]
}

/// The values of `from` from `at` on, with zeros after its end.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, from: &[f32], at: usize) -> S::V {
    load_or(simd, from, at, 0.0)
}

#[inline(always)]
fn load_or<S: Simd>(simd: S, from: &[f32], at: usize, filler: f32) -> S::V {
    let rest = &from[at..];
    if rest.len() >= S::LANES {
        // SAFETY: the slice has a whole vector.
        return unsafe { simd.load(rest.as_ptr()) };
    }
    let mut part = [filler; super::CHUNK];
    part[..rest.len()].copy_from_slice(rest);
    // SAFETY: the array is longer than a vector.
    unsafe { simd.load(part.as_ptr()) }
}

/// Writes a vector to `to` from `at` on, as far as it goes.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, to: &mut [f32], at: usize, a: S::V) {
    let rest = &mut to[at..];
    if rest.len() >= S::LANES {
        // SAFETY: the slice has a whole vector.
        return unsafe { simd.store(rest.as_mut_ptr(), a) };
    }
    let mut part = [0.0; super::CHUNK];
    // SAFETY: the array is longer than a vector.
    unsafe { simd.store(part.as_mut_ptr(), a) };
    rest.copy_from_slice(&part[..rest.len()]);
}
