//! Weight formats: how 32 stored weights become 32 values of f32 in registers. The block formats
//! are those of ggml (`ggml-common.h`, `dequantize_row_*` in `ggml-quants.c`), with its roundings.
#![allow(unsafe_code, reason = "kernels read weights through pointers")]

use super::simd::{CHUNK, Simd};
use crate::backend::DType;

/// A stored type of weights. A row is a whole number of blocks of [`Format::CHUNKS`] chunks.
pub(crate) trait Format: 'static {
    /// Chunks of a block.
    const CHUNKS: usize;
    /// Bytes of a block.
    const BLOCK_BYTES: usize;
    /// Bytes of a value where each is stored by itself, so that rows may end within a chunk.
    const VALUE_BYTES: Option<usize>;
    /// What a block's chunks share, decoded once.
    type Shared: Copy + Default;

    /// Decodes what a block's chunks share.
    ///
    /// # Safety
    /// `block` points to a block.
    unsafe fn share<S: Simd>(simd: S, block: *const u8) -> Self::Shared;

    /// Decodes chunk `part` of a block.
    ///
    /// # Safety
    /// `block` points to a block, or, for types that store each value by itself, to a chunk.
    unsafe fn decode<S: Simd>(
        simd: S,
        block: *const u8,
        shared: &Self::Shared,
        part: usize,
    ) -> S::Chunk;
}

/// Something to do with a format that is known at run time.
pub(crate) trait WithFormat {
    type Output;
    fn with<F: Format>(self) -> Self::Output;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct BF16;
pub(crate) struct Q8_0;
pub(crate) struct Q4_0;
pub(crate) struct Q4K;
pub(crate) struct Q5K;
pub(crate) struct Q6K;

/// Runs `action` with the format of `dtype`.
#[inline(always)]
pub(crate) fn with_format<A: WithFormat>(dtype: DType, action: A) -> A::Output {
    match dtype {
        DType::F32 => action.with::<F32>(),
        DType::F16 => action.with::<F16>(),
        DType::BF16 => action.with::<BF16>(),
        DType::Q8_0 => action.with::<Q8_0>(),
        DType::Q4_0 => action.with::<Q4_0>(),
        DType::Q4K => action.with::<Q4K>(),
        DType::Q5K => action.with::<Q5K>(),
        DType::Q6K => action.with::<Q6K>(),
    }
}

/// Factors in the first half, offsets in the second.
type Scales = [f32; CHUNK];

/// A type that stores each value by itself, and how a chunk of it is loaded.
macro_rules! plain {
    ($format:ident, $bytes:literal, $load:ident) => {
        impl Format for $format {
            const CHUNKS: usize = 1;
            const BLOCK_BYTES: usize = CHUNK * $bytes;
            const VALUE_BYTES: Option<usize> = Some($bytes);
            type Shared = ();

            #[inline(always)]
            unsafe fn share<S: Simd>(_: S, _: *const u8) {}

            #[inline(always)]
            unsafe fn decode<S: Simd>(simd: S, block: *const u8, (): &(), _: usize) -> S::Chunk {
                // SAFETY: the caller's promise.
                unsafe { simd.$load(block) }
            }
        }
    };
}

plain!(F32, 4, load_f32);
plain!(F16, 2, load_f16);
plain!(BF16, 2, load_bf16);

/// `{ d: f16, qs: [i8; 32] }`: `d * q`.
impl Format for Q8_0 {
    const CHUNKS: usize = 1;
    const BLOCK_BYTES: usize = 34;
    const VALUE_BYTES: Option<usize> = None;
    type Shared = ();

    #[inline(always)]
    unsafe fn share<S: Simd>(_: S, _: *const u8) {}

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, block: *const u8, (): &(), _: usize) -> S::Chunk {
        // SAFETY: the caller's promise.
        unsafe {
            let d = simd.half(read_u16(block));
            simd.scale(simd.widen(simd.load_bytes(block.add(2))), d)
        }
    }
}

/// `{ d: f16, qs: [u8; 16] }`: `d * (q - 8)`, the low halves first.
impl Format for Q4_0 {
    const CHUNKS: usize = 1;
    const BLOCK_BYTES: usize = 18;
    const VALUE_BYTES: Option<usize> = None;
    type Shared = ();

    #[inline(always)]
    unsafe fn share<S: Simd>(_: S, _: *const u8) {}

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, block: *const u8, (): &(), _: usize) -> S::Chunk {
        // SAFETY: the caller's promise.
        unsafe { simd.nibbles_less_8(block.add(2), simd.half(read_u16(block))) }
    }
}

/// `{ d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128] }`: `d * scale * q - dmin * min`.
impl Format for Q4K {
    const CHUNKS: usize = 8;
    const BLOCK_BYTES: usize = 144;
    const VALUE_BYTES: Option<usize> = None;
    type Shared = Scales;

    #[inline(always)]
    unsafe fn share<S: Simd>(simd: S, block: *const u8) -> Scales {
        // SAFETY: the caller's promise.
        unsafe { scales_and_mins(simd, block) }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, block: *const u8, scales: &Scales, part: usize) -> S::Chunk {
        let (factor, offset) = (scales[part], scales[CHUNK / 2 + part]);
        // SAFETY: the caller's promise.
        unsafe { simd.nibbles_affine(block.add(16 + part / 2 * 32), part % 2, factor, offset) }
    }
}

/// As [`Q4K`] with `qh: [u8; 32]` before `qs`: bit `part` of `qh` is the fifth bit.
impl Format for Q5K {
    const CHUNKS: usize = 8;
    const BLOCK_BYTES: usize = 176;
    const VALUE_BYTES: Option<usize> = None;
    type Shared = Scales;

    #[inline(always)]
    unsafe fn share<S: Simd>(simd: S, block: *const u8) -> Scales {
        // SAFETY: the caller's promise.
        unsafe { scales_and_mins(simd, block) }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, block: *const u8, scales: &Scales, part: usize) -> S::Chunk {
        // SAFETY: the caller's promise.
        unsafe {
            let high = simd.bits(simd.load_bytes(block.add(16)), part as u32, 1);
            let qs = simd.load_bytes(block.add(48 + part / 2 * 32));
            let q = simd.join(high, simd.bits(qs, 4 * (part as u32 % 2), 15));
            simd.scale_sub(simd.widen(q), scales[part], scales[CHUNK / 2 + part])
        }
    }
}

/// `{ ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16 }`: `d * scale * (q - 32)`. Each half
/// of the super-block has 4 chunks: `ql` gives their low 4 bits, `qh` two more; each half of a
/// chunk has a scale.
impl Format for Q6K {
    const CHUNKS: usize = 8;
    const BLOCK_BYTES: usize = 210;
    const VALUE_BYTES: Option<usize> = None;
    type Shared = Scales;

    #[inline(always)]
    unsafe fn share<S: Simd>(simd: S, block: *const u8) -> Scales {
        let mut scales = [0.0; CHUNK];
        // SAFETY: the caller's promise; the array holds a chunk.
        unsafe {
            let mut words = [0; 8];
            for (i, word) in words.iter_mut().enumerate().take(4) {
                *word = read_u32(block.add(192 + 4 * i));
            }
            let d = simd.half(read_u16(block.add(208)));
            let scaled = simd.scale(simd.widen(simd.words(words)), d);
            simd.store_chunk(scales.as_mut_ptr(), scaled);
        }
        scales
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, block: *const u8, scales: &Scales, part: usize) -> S::Chunk {
        // SAFETY: the caller's promise.
        unsafe {
            let (half, quarter) = (part / 4, part % 4);
            let ql = simd.load_bytes(block.add(half * 64 + quarter % 2 * 32));
            let qh = simd.load_bytes(block.add(128 + half * 32));
            let low = simd.bits(ql, 4 * (quarter as u32 / 2), 15);
            let q = simd.join(simd.bits(qh, 2 * quarter as u32, 3), low);
            let q = simd.widen(simd.sub_bytes(q, 32));
            simd.scale_halves(q, scales[2 * part], scales[2 * part + 1])
        }
    }
}

/// Factors and offsets of a Q4_K or Q5_K super-block: `d` times its eight 6-bit scales, `dmin`
/// times its eight 6-bit minimums. The 12 bytes after `d` and `dmin` hold the first four of each
/// in their low 6 bits; of the others, the low halves in the last 4 bytes and the high bits in the
/// top 2 bits of the first 8.
#[inline(always)]
unsafe fn scales_and_mins<S: Simd>(simd: S, block: *const u8) -> Scales {
    const LOW_6: u32 = 0x3f3f_3f3f;
    const LOW_4: u32 = 0x0f0f_0f0f;
    const HIGH_2: u32 = 0x3030_3030;
    let mut scales = [0.0; CHUNK];
    // SAFETY: the caller's block begins with d, dmin and the 12 bytes; the array holds a chunk.
    unsafe {
        let (a, b, c) = (read_u32(block.add(4)), read_u32(block.add(8)), read_u32(block.add(12)));
        let bytes = simd.words([
            a & LOW_6,
            (c & LOW_4) | (a >> 2 & HIGH_2),
            0,
            0,
            b & LOW_6,
            (c >> 4 & LOW_4) | (b >> 2 & HIGH_2),
            0,
            0,
        ]);
        let (d, dmin) = (simd.half(read_u16(block)), simd.half(read_u16(block.add(2))));
        simd.store_chunk(scales.as_mut_ptr(), simd.scale_halves(simd.widen(bytes), d, dmin));
    }
    scales
}

#[inline(always)]
unsafe fn read_u32(from: *const u8) -> u32 {
    // SAFETY: the caller's block has these four bytes.
    u32::from_le_bytes(unsafe { from.cast::<[u8; 4]>().read_unaligned() })
}

#[inline(always)]
unsafe fn read_u16(from: *const u8) -> u16 {
    // SAFETY: the caller's block has these two bytes.
    u16::from_le_bytes(unsafe { from.cast::<[u8; 2]>().read_unaligned() })
}
