//! [`Simd`] without instructions of its own: arrays that the compiler vectorises for its target.
#![allow(unsafe_code, reason = "kernels read weights and activations through pointers")]

use super::simd::{CHUNK, REDUCED, Simd};
use half::{bf16, f16};

/// What every CPU has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const LANES: usize = 8;
type V = [f32; LANES];
type Chunk = [f32; CHUNK];
type Bytes = [u8; CHUNK];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut out = a;
    for (o, b) in out.iter_mut().zip(b) {
        *o = f(*o, b);
    }
    out
}

#[inline(always)]
fn convert<const N: usize>(bytes: [[u8; N]; CHUNK], f: impl Fn([u8; N]) -> f32) -> Chunk {
    let mut out = [0.0; CHUNK];
    for (o, b) in out.iter_mut().zip(bytes) {
        *o = f(b);
    }
    out
}

impl Simd for Portable {
    type V = V;
    type Chunk = Chunk;
    type Bytes = Bytes;

    const LANES: usize = LANES;
    const TILE: usize = 2;

    #[inline(always)]
    fn splat(self, value: f32) -> V {
        [value; LANES]
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        zip(c, zip(a, b, |a, b| a * b), |c, p| p + c)
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        // Adding and taking away 1.5 * 2^23 rounds to an integer, for |a| < 2^22.
        const SHIFT: f32 = 12_582_912.0;
        a.map(|a| (a + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn scale_by_power(self, a: V, n: V) -> V {
        // In two steps, since 2^n alone leaves the range of f32 where the product does not.
        zip(a, n, |a, n| {
            let n = n as i32;
            let half = n >> 1;
            let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
            a * power(half) * power(n - half)
        })
    }
    #[inline(always)]
    fn zero_where_less(self, a: V, x: V, limit: V) -> V {
        let kept = zip(x, limit, |x, limit| if x < limit { 0.0 } else { 1.0 });
        zip(a, kept, |a, kept| if kept == 0.0 { 0.0 } else { a })
    }
    #[inline(always)]
    fn reduce(self, vectors: [V; REDUCED]) -> [f32; REDUCED] {
        vectors.map(|v| ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])))
    }
    #[inline(always)]
    fn reduce_max(self, a: V) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, a: V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<V>().write_unaligned(a) }
    }

    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        f16::from_bits(bits).to_f32()
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const u8) -> Chunk {
        // SAFETY: the caller's promise.
        convert(unsafe { from.cast::<[[u8; 4]; CHUNK]>().read_unaligned() }, f32::from_le_bytes)
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Chunk {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[[u8; 2]; CHUNK]>().read_unaligned() };
        convert(bytes, |b| f16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u8) -> Chunk {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[[u8; 2]; CHUNK]>().read_unaligned() };
        convert(bytes, |b| bf16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    unsafe fn store_chunk(self, to: *mut f32, a: Chunk) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Chunk>().write_unaligned(a) }
    }
    #[inline(always)]
    fn multiply_add(self, mut sum: V, w: Chunk, x: Chunk) -> V {
        for (w, x) in w.chunks_exact(LANES).zip(x.chunks_exact(LANES)) {
            for ((sum, w), x) in sum.iter_mut().zip(w).zip(x) {
                *sum += w * x;
            }
        }
        sum
    }

    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8) -> Bytes {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Bytes>().read_unaligned() }
    }
    #[inline(always)]
    fn words(self, words: [u32; CHUNK / 4]) -> Bytes {
        let mut out = [0; CHUNK];
        for (out, word) in out.chunks_exact_mut(4).zip(words) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
    #[inline(always)]
    unsafe fn load_nibbles(self, from: *const u8) -> Bytes {
        // SAFETY: the caller's promise.
        let pairs = unsafe { from.cast::<[u8; CHUNK / 2]>().read_unaligned() };
        let mut out = [0; CHUNK];
        for (i, pair) in pairs.into_iter().enumerate() {
            out[i] = pair & 15;
            out[i + CHUNK / 2] = pair >> 4;
        }
        out
    }
    #[inline(always)]
    fn bits(self, a: Bytes, shift: u32, mask: u8) -> Bytes {
        a.map(|a| (a >> shift) & mask)
    }
    #[inline(always)]
    fn join(self, mut a: Bytes, b: Bytes) -> Bytes {
        for (a, b) in a.iter_mut().zip(b) {
            *a = *a << 4 | b;
        }
        a
    }
    #[inline(always)]
    fn sub_bytes(self, a: Bytes, b: u8) -> Bytes {
        a.map(|a| a.wrapping_sub(b))
    }
    #[inline(always)]
    fn widen(self, a: Bytes) -> Chunk {
        a.map(|a| f32::from(a.cast_signed()))
    }
    #[inline(always)]
    fn scale(self, a: Chunk, factor: f32) -> Chunk {
        a.map(|a| a * factor)
    }
    #[inline(always)]
    fn scale_sub(self, a: Chunk, factor: f32, offset: f32) -> Chunk {
        a.map(|a| a * factor - offset)
    }
    #[inline(always)]
    fn scale_halves(self, mut a: Chunk, low: f32, high: f32) -> Chunk {
        let (first, second) = a.split_at_mut(CHUNK / 2);
        first.iter_mut().for_each(|a| *a *= low);
        second.iter_mut().for_each(|a| *a *= high);
        a
    }
}
