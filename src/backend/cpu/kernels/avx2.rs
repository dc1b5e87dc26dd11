//! [`Simd`] with AVX2, FMA and F16C: vectors of 8.
#![allow(unsafe_code, reason = "instructions are functions that only CPUs with them may run")]

use std::arch::x86_64::*;

use super::simd::{Kernel, REDUCED, Simd};

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Runs a kernel with these instructions.
///
/// # Safety
/// The CPU has them.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Methods whose whole body may only run on CPUs that have the instructions.
macro_rules! with_instructions {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {
        $($(#[$doc])* #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: `self` exists only where the CPU has the instructions.
            unsafe { $body }
        })*
    };
}

/// As [`with_instructions`], for methods that follow a pointer.
macro_rules! with_memory {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {
        $(#[inline(always)]
        unsafe fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: as in `with_instructions`, and by the caller's promise about the pointer.
            unsafe { $body }
        })*
    };
}

/// To the nearest integer, ties to even, without a floating-point exception.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

type V = __m256;
type Chunk = [__m256; 4];
type Bytes = __m256i;

impl Simd for Avx2 {
    type V = V;
    type Chunk = Chunk;
    type Bytes = Bytes;

    const LANES: usize = 8;
    const TILE: usize = 2;

    with_instructions! {
        fn splat(value: f32) -> V = _mm256_set1_ps(value);
        fn add(a: V, b: V) -> V = _mm256_add_ps(a, b);
        fn sub(a: V, b: V) -> V = _mm256_sub_ps(a, b);
        fn mul(a: V, b: V) -> V = _mm256_mul_ps(a, b);
        fn div(a: V, b: V) -> V = _mm256_div_ps(a, b);
        fn min(a: V, b: V) -> V = _mm256_min_ps(a, b);
        fn max(a: V, b: V) -> V = _mm256_max_ps(a, b);
        fn fma(a: V, b: V, c: V) -> V = _mm256_fmadd_ps(a, b, c);
        fn round(a: V) -> V = _mm256_round_ps::<NEAREST>(a);
        fn scale_by_power(a: V, n: V) -> V = scale_by_power(a, n);
        fn zero_where_less(a: V, x: V, limit: V) -> V =
            _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, limit), a);
        fn reduce(vectors: [V; REDUCED]) -> [f32; REDUCED] = reduce(vectors);
        fn reduce_max(a: V) -> f32 = reduce_max(a);
        fn half(bits: u16) -> f32 =
            _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))));
        fn multiply_add(sum: V, w: Chunk, x: Chunk) -> V = {
            let sum = _mm256_fmadd_ps(w[1], x[1], _mm256_fmadd_ps(w[0], x[0], sum));
            _mm256_fmadd_ps(w[3], x[3], _mm256_fmadd_ps(w[2], x[2], sum))
        };
        fn words(words: [u32; 8]) -> Bytes = {
            let w = words.map(u32::cast_signed);
            _mm256_setr_epi32(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7])
        };
        fn bits(a: Bytes, shift: u32, mask: u8) -> Bytes = _mm256_and_si256(
            _mm256_srl_epi16(a, _mm_cvtsi32_si128(shift.cast_signed())),
            _mm256_set1_epi8(mask.cast_signed())
        );
        fn join(a: Bytes, b: Bytes) -> Bytes = _mm256_or_si256(_mm256_slli_epi16::<4>(a), b);
        fn sub_bytes(a: Bytes, b: u8) -> Bytes =
            _mm256_sub_epi8(a, _mm256_set1_epi8(b.cast_signed()));
        fn widen(a: Bytes) -> Chunk = {
            let (low, high) = (_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(low))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(high))),
            ]
        };
        fn scale(a: Chunk, factor: f32) -> Chunk = scale(a, factor, factor);
        fn scale_sub(a: Chunk, factor: f32, offset: f32) -> Chunk = {
            let offset = _mm256_set1_ps(offset);
            let [p, q, r, s] = scale(a, factor, factor);
            [
                _mm256_sub_ps(p, offset),
                _mm256_sub_ps(q, offset),
                _mm256_sub_ps(r, offset),
                _mm256_sub_ps(s, offset),
            ]
        };
        fn scale_halves(a: Chunk, low: f32, high: f32) -> Chunk = scale(a, low, high);
        fn prefetch(from: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(from.cast());
    }

    with_memory! {
        fn load(from: *const f32) -> V = _mm256_loadu_ps(from);
        fn store(to: *mut f32, a: V) -> () = _mm256_storeu_ps(to, a);
        fn load_f32(from: *const u8) -> Chunk = [
            _mm256_loadu_ps(from.cast()),
            _mm256_loadu_ps(from.add(32).cast()),
            _mm256_loadu_ps(from.add(64).cast()),
            _mm256_loadu_ps(from.add(96).cast()),
        ];
        fn load_f16(from: *const u8) -> Chunk = [
            _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from.add(16).cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from.add(32).cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from.add(48).cast())),
        ];
        fn load_bf16(from: *const u8) -> Chunk = [
            widen_bf16(_mm_loadu_si128(from.cast())),
            widen_bf16(_mm_loadu_si128(from.add(16).cast())),
            widen_bf16(_mm_loadu_si128(from.add(32).cast())),
            widen_bf16(_mm_loadu_si128(from.add(48).cast())),
        ];
        fn store_chunk(to: *mut f32, a: Chunk) -> () = {
            _mm256_storeu_ps(to, a[0]);
            _mm256_storeu_ps(to.add(8), a[1]);
            _mm256_storeu_ps(to.add(16), a[2]);
            _mm256_storeu_ps(to.add(24), a[3]);
        };
        fn load_bytes(from: *const u8) -> Bytes = _mm256_loadu_si256(from.cast());
        fn load_nibbles(from: *const u8) -> Bytes = {
            let pairs = _mm_loadu_si128(from.cast());
            let both = _mm256_set_m128i(_mm_srli_epi16::<4>(pairs), pairs);
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        };
    }
}

/// Lanes 4 apart are added, then neighbours, then pairs of neighbours.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn reduce(vectors: [V; REDUCED]) -> [f32; REDUCED] {
    let [a, b, c, d] =
        vectors.map(|v| _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)));
    let sums = _mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d));
    let mut out = [0.0; REDUCED];
    // SAFETY: the array has room for four values.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
    out
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn reduce_max(a: V) -> f32 {
    let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

/// In two steps, since 2^n alone leaves the range of f32 where the product does not.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale_by_power(a: V, n: V) -> V {
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let rest = _mm256_sub_epi32(n, half);
    _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(rest))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn power(exponent: __m256i) -> V {
    let biased = _mm256_add_epi32(exponent, _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_bf16(bits: __m128i) -> V {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale(a: Chunk, low: f32, high: f32) -> Chunk {
    let (low, high) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
    [
        _mm256_mul_ps(a[0], low),
        _mm256_mul_ps(a[1], low),
        _mm256_mul_ps(a[2], high),
        _mm256_mul_ps(a[3], high),
    ]
}
