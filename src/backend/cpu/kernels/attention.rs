//! Attention over one tile of keys, for the query vectors that share it: the softmax's running
//! maximum and sum (Milakov and Gimelshein, 2018), and the sum of values weighted by it.
//!
//! A query vector's result depends on its own scores alone: keys that it does not see get weight
//! zero, which changes no sum.
#![allow(unsafe_code, reason = "vectors are loaded and stored through pointers")]

use std::ops::Range;

use super::elementwise::{load, store, sum};
use super::math;
use super::simd::{CHUNK, Kernel, Simd};

/// Turns a query vector's scores over a tile into weights and carries its running state on.
pub(crate) struct Softmax<'a> {
    /// Products of the query with the tile's keys; a multiple of [`CHUNK`] / 2 long. Becomes
    /// `exp(score - maximum)`, 0 outside `visible`.
    pub scores: &'a mut [f32],
    /// The keys that the query sees.
    pub visible: Range<usize>,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub state: &'a mut SoftmaxState,
}

/// See [`Softmax`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoftmaxState {
    /// The largest score so far.
    pub maximum: f32,
    /// The sum of the weights so far, relative to `maximum`.
    pub sum: f32,
    /// What sums made before this tile have to be multiplied by.
    pub correction: f32,
}

impl SoftmaxState {
    /// Before the first tile.
    pub const START: SoftmaxState =
        SoftmaxState { maximum: f32::NEG_INFINITY, sum: 0.0, correction: 1.0 };
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Softmax { scores, visible, scale, softcap, state } = self;
        if visible.is_empty() {
            scores.fill(0.0);
            state.correction = 1.0;
            return;
        }
        let factor = simd.splat(scale);
        for i in (0..scores.len()).step_by(S::LANES) {
            let mut score = simd.mul(load(simd, scores, i), factor);
            if let Some(cap) = softcap {
                let cap = simd.splat(cap);
                score = simd.mul(math::tanh(simd, simd.div(score, cap)), cap);
            }
            store(simd, scores, i, score);
        }
        scores[..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
        let mut largest = simd.splat(state.maximum);
        for i in (0..scores.len()).step_by(S::LANES) {
            largest = simd.max(load(simd, scores, i), largest);
        }
        let maximum = simd.reduce_max(largest);
        let mut total = simd.splat(0.0);
        for i in (0..scores.len()).step_by(S::LANES) {
            let weight = math::exp(simd, simd.sub(load(simd, scores, i), simd.splat(maximum)));
            store(simd, scores, i, weight);
            total = simd.add(total, weight);
        }
        state.correction = 1.0;
        if state.maximum != maximum {
            let past = simd.splat(state.maximum - maximum);
            state.correction = simd.reduce_max(math::exp(simd, past));
        }
        state.sum = state.sum * state.correction + sum(simd, total);
        state.maximum = maximum;
    }
}

/// `out[r] = out[r] * correction[r] + Σ_j weights[r, j] * values[j]`.
pub(crate) struct WeighValues<'a> {
    /// `[rows, weights_stride]`.
    pub weights: &'a [f32],
    pub weights_stride: usize,
    pub states: &'a [SoftmaxState],
    /// The keys of the tile that are summed over.
    pub keys: Range<usize>,
    /// `[keys.end, values_stride]`.
    pub values: &'a [f32],
    pub values_stride: usize,
    /// Values of a head, padded to whole chunks.
    pub width: usize,
    /// `[rows, width]`.
    pub out: &'a mut [f32],
}

impl Kernel for WeighValues<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let rows = self.states.len();
        assert!(self.width.is_multiple_of(CHUNK) && self.width <= self.values_stride);
        assert!(self.out.len() >= rows * self.width, "every row has a place");
        assert!(self.weights.len() >= rows * self.weights_stride, "every row has weights");
        assert!(self.keys.end <= self.weights_stride, "every key has a weight");
        assert!(self.values.len() >= self.keys.end * self.values_stride, "every key has values");
        // As many rows at a time as give eight sums in registers.
        if S::LANES == 16 {
            self.each_tile::<S, 4, 2>(simd);
        } else {
            self.each_tile::<S, 2, 4>(simd);
        }
    }
}

impl WeighValues<'_> {
    #[inline(always)]
    fn each_tile<S: Simd, const M: usize, const C: usize>(&mut self, simd: S) {
        assert_eq!(C * S::LANES, CHUNK);
        let rows = self.states.len();
        for start in (0..self.width).step_by(CHUNK) {
            let mut row = 0;
            while row + M <= rows {
                // SAFETY: the rows, keys and values lie in the slices as `run` asserts.
                unsafe { self.tile::<S, M, C>(simd, row, start) };
                row += M;
            }
            while row < rows {
                // SAFETY: as above.
                unsafe { self.tile::<S, 1, C>(simd, row, start) };
                row += 1;
            }
        }
    }

    /// # Safety
    /// `row + M` rows exist, and a chunk from value `start` on lies in `width`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const C: usize>(
        &mut self,
        simd: S,
        row: usize,
        start: usize,
    ) {
        let mut sums = [[simd.splat(0.0); C]; M];
        // SAFETY: by the caller's promise and what `run` asserts.
        unsafe {
            let out = self.out.as_mut_ptr().add(row * self.width + start);
            let weights = self.weights.as_ptr().add(row * self.weights_stride);
            let values = self.values.as_ptr().add(start);
            for (m, sums) in sums.iter_mut().enumerate() {
                let correction = simd.splat(self.states[row + m].correction);
                for (c, sum) in sums.iter_mut().enumerate() {
                    let before = simd.load(out.add(m * self.width + c * S::LANES));
                    *sum = simd.mul(before, correction);
                }
            }
            for key in self.keys.clone() {
                let from = values.add(key * self.values_stride);
                let mut value = [simd.splat(0.0); C];
                for (c, value) in value.iter_mut().enumerate() {
                    *value = simd.load(from.add(c * S::LANES));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let weight = simd.splat(*weights.add(m * self.weights_stride + key));
                    for (sum, value) in sums.iter_mut().zip(value) {
                        *sum = simd.fma(weight, value, *sum);
                    }
                }
            }
            for (m, sums) in sums.iter().enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    simd.store(out.add(m * self.width + c * S::LANES), *sum);
                }
            }
        }
    }
}
