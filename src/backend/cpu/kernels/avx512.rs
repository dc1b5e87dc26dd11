//! [`Simd`] with AVX-512: vectors of 16.
#![allow(unsafe_code, reason = "instructions are functions that only CPUs with them may run")]

use std::arch::x86_64::*;

use super::simd::{Kernel, REDUCED, Simd};

/// Proof that the CPU has AVX-512 F, BW and VL, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Runs a kernel with these instructions.
///
/// # Safety
/// The CPU has them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
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

type V = __m512;
type Chunk = [__m512; 2];
type Bytes = __m256i;

impl Simd for Avx512 {
    type V = V;
    type Chunk = Chunk;
    type Bytes = Bytes;

    const LANES: usize = 16;
    const TILE: usize = 6;

    with_instructions! {
        fn splat(value: f32) -> V = _mm512_set1_ps(value);
        fn add(a: V, b: V) -> V = _mm512_add_ps(a, b);
        fn sub(a: V, b: V) -> V = _mm512_sub_ps(a, b);
        fn mul(a: V, b: V) -> V = _mm512_mul_ps(a, b);
        fn div(a: V, b: V) -> V = _mm512_div_ps(a, b);
        fn min(a: V, b: V) -> V = _mm512_min_ps(a, b);
        fn max(a: V, b: V) -> V = _mm512_max_ps(a, b);
        fn fma(a: V, b: V, c: V) -> V = _mm512_fmadd_ps(a, b, c);
        fn round(a: V) -> V = _mm512_roundscale_ps::<0>(a);
        fn scale_by_power(a: V, n: V) -> V = _mm512_scalef_ps(a, n);
        fn zero_where_less(a: V, x: V, limit: V) -> V =
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), a);
        fn reduce(vectors: [V; REDUCED]) -> [f32; REDUCED] = reduce(vectors);
        fn reduce_max(a: V) -> f32 = _mm512_reduce_max_ps(a);
        fn half(bits: u16) -> f32 =
            _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))));
        fn multiply_add(sum: V, w: Chunk, x: Chunk) -> V =
            _mm512_fmadd_ps(w[1], x[1], _mm512_fmadd_ps(w[0], x[0], sum));
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
        fn widen(a: Bytes) -> Chunk = [
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(a))),
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256::<1>(a))),
        ];
        fn scale(a: Chunk, factor: f32) -> Chunk = {
            let factor = _mm512_set1_ps(factor);
            [_mm512_mul_ps(a[0], factor), _mm512_mul_ps(a[1], factor)]
        };
        fn scale_sub(a: Chunk, factor: f32, offset: f32) -> Chunk = {
            let (factor, offset) = (_mm512_set1_ps(factor), _mm512_set1_ps(offset));
            [
                _mm512_sub_ps(_mm512_mul_ps(a[0], factor), offset),
                _mm512_sub_ps(_mm512_mul_ps(a[1], factor), offset),
            ]
        };
        fn scale_halves(a: Chunk, low: f32, high: f32) -> Chunk = [
            _mm512_mul_ps(a[0], _mm512_set1_ps(low)),
            _mm512_mul_ps(a[1], _mm512_set1_ps(high)),
        ];
        fn prefetch(from: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(from.cast());
    }

    with_memory! {
        fn load(from: *const f32) -> V = _mm512_loadu_ps(from);
        fn store(to: *mut f32, a: V) -> () = _mm512_storeu_ps(to, a);
        fn load_f32(from: *const u8) -> Chunk =
            [_mm512_loadu_ps(from.cast()), _mm512_loadu_ps(from.add(64).cast())];
        fn load_f16(from: *const u8) -> Chunk = [
            _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())),
            _mm512_cvtph_ps(_mm256_loadu_si256(from.add(32).cast())),
        ];
        fn load_bf16(from: *const u8) -> Chunk = {
            let (low, high) =
                (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()));
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(low))),
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high))),
            ]
        };
        fn store_chunk(to: *mut f32, a: Chunk) -> () = {
            _mm512_storeu_ps(to, a[0]);
            _mm512_storeu_ps(to.add(16), a[1]);
        };
        fn load_bytes(from: *const u8) -> Bytes = _mm256_loadu_si256(from.cast());
        // All 16 values are made once and looked up: the index is the low 4 bits of a lane.
        fn nibbles_less_8(from: *const u8, factor: f32) -> Chunk = {
            let table = _mm512_mul_ps(_mm512_sub_ps(iota(), _mm512_set1_ps(8.0)),
                _mm512_set1_ps(factor));
            let low = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            [
                _mm512_permutexvar_ps(low, table),
                _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(low), table),
            ]
        };
        fn nibbles_affine(from: *const u8, high: usize, factor: f32, offset: f32) -> Chunk = {
            let table = _mm512_mul_ps(iota(), _mm512_set1_ps(factor));
            let table = _mm512_sub_ps(table, _mm512_set1_ps(offset));
            let mut first = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            let mut second = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.add(16).cast()));
            if high == 1 {
                first = _mm512_srli_epi32::<4>(first);
                second = _mm512_srli_epi32::<4>(second);
            }
            [_mm512_permutexvar_ps(first, table), _mm512_permutexvar_ps(second, table)]
        };
        fn load_nibbles(from: *const u8) -> Bytes = {
            let pairs = _mm_loadu_si128(from.cast());
            let both = _mm256_set_m128i(_mm_srli_epi16::<4>(pairs), pairs);
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        };
    }
}

/// 0 to 15.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn iota() -> V {
    _mm512_setr_ps(
        0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
    )
}

/// Lanes 8 apart are added, then 4 apart, then neighbours, then pairs of neighbours.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn reduce(vectors: [V; REDUCED]) -> [f32; REDUCED] {
    let [a, b, c, d] = vectors.map(|v| {
        let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v));
        let sum = _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(high));
        _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum))
    });
    let sums = _mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d));
    let mut out = [0.0; REDUCED];
    // SAFETY: the array has room for four values.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
    out
}
