//! Weight formats: how 32 stored weights become 32 values of f32 in registers. The block formats
//! are those of ggml (`ggml-common.h`, `dequantize_row_*` in `ggml-quants.c`), with its roundings.
#![allow(unsafe_code, reason = "kernels read weights through pointers")]

use super::simd::{CHUNK, Simd};
use crate::backend::DType;

/// A stored type of weights. A row is a whole number of blocks; chunk `c` holds its values
/// `32c..32c + 32`.
pub(crate) trait Format: 'static {
    /// Bytes of a value where each is stored by itself, so that rows may end within a chunk.
    const VALUE_BYTES: Option<usize>;

    /// Decodes a chunk.
    ///
    /// # Safety
    /// `row` points to a row that has the whole of chunk `chunk`.
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk;
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

impl Format for F32 {
    const VALUE_BYTES: Option<usize> = Some(4);

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise.
        unsafe { simd.load_f32(row.add(chunk * CHUNK * 4)) }
    }
}

impl Format for F16 {
    const VALUE_BYTES: Option<usize> = Some(2);

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise.
        unsafe { simd.load_f16(row.add(chunk * CHUNK * 2)) }
    }
}

impl Format for BF16 {
    const VALUE_BYTES: Option<usize> = Some(2);

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise.
        unsafe { simd.load_bf16(row.add(chunk * CHUNK * 2)) }
    }
}

/// `{ d: f16, qs: [i8; 32] }`: `d * q`.
impl Format for Q8_0 {
    const VALUE_BYTES: Option<usize> = None;

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise; a block has 34 bytes.
        unsafe {
            let block = row.add(chunk * 34);
            let d = simd.half(read_u16(block));
            simd.scale(simd.widen(simd.load_bytes(block.add(2))), d)
        }
    }
}

/// `{ d: f16, qs: [u8; 16] }`: `d * (q - 8)`, the low halves first.
impl Format for Q4_0 {
    const VALUE_BYTES: Option<usize> = None;

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise; a block has 18 bytes.
        unsafe {
            let block = row.add(chunk * 18);
            let d = simd.half(read_u16(block));
            let q = simd.sub_bytes(simd.load_nibbles(block.add(2)), 8);
            simd.scale(simd.widen(q), d)
        }
    }
}

/// `{ d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128] }`: `d * scale * q - dmin * min`.
impl Format for Q4K {
    const VALUE_BYTES: Option<usize> = None;

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise; a super-block has 144 bytes and 8 chunks.
        unsafe {
            let (block, part) = (row.add(chunk / 8 * 144), chunk % 8);
            let (factor, offset) = scale_min(simd, block, part);
            let qs = simd.load_bytes(block.add(16 + part / 2 * 32));
            let q = simd.bits(qs, 4 * (part as u32 % 2), 15);
            simd.scale_sub(simd.widen(q), factor, offset)
        }
    }
}

/// As [`Q4K`] with `qh: [u8; 32]` before `qs`: bit `part` of `qh` is the fifth bit.
impl Format for Q5K {
    const VALUE_BYTES: Option<usize> = None;

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise; a super-block has 176 bytes and 8 chunks.
        unsafe {
            let (block, part) = (row.add(chunk / 8 * 176), chunk % 8);
            let (factor, offset) = scale_min(simd, block, part);
            let high = simd.bits(simd.load_bytes(block.add(16)), part as u32, 1);
            let qs = simd.load_bytes(block.add(48 + part / 2 * 32));
            let q = simd.join(high, simd.bits(qs, 4 * (part as u32 % 2), 15));
            simd.scale_sub(simd.widen(q), factor, offset)
        }
    }
}

/// `{ ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16 }`: `d * scale * (q - 32)`. Each half
/// of the super-block has 4 chunks: `ql` gives their low 4 bits, `qh` two more.
impl Format for Q6K {
    const VALUE_BYTES: Option<usize> = None;

    #[inline(always)]
    unsafe fn decode<S: Simd>(simd: S, row: *const u8, chunk: usize) -> S::Chunk {
        // SAFETY: the caller's promise; a super-block has 210 bytes and 8 chunks.
        unsafe {
            let (block, half, part) = (row.add(chunk / 8 * 210), chunk % 8 / 4, chunk % 4);
            let d = simd.half(read_u16(block.add(208)));
            let scales = block.add(192 + half * 8 + part * 2).cast::<i8>();
            let ql = simd.load_bytes(block.add(half * 64 + part % 2 * 32));
            let qh = simd.load_bytes(block.add(128 + half * 32));
            let low = simd.bits(ql, 4 * (part as u32 / 2), 15);
            let q = simd.join(simd.bits(qh, 2 * part as u32, 3), low);
            let q = simd.widen(simd.sub_bytes(q, 32));
            simd.scale_halves(q, d * f32::from(*scales), d * f32::from(*scales.add(1)))
        }
    }
}

/// Factor and offset of a part of a Q4_K or Q5_K super-block: `d` and `dmin` times the part's
/// 6-bit scale and minimum.
#[inline(always)]
unsafe fn scale_min<S: Simd>(simd: S, block: *const u8, part: usize) -> (f32, f32) {
    // SAFETY: the caller's block begins with d, dmin and the 12 bytes of scales.
    unsafe {
        let d = simd.half(read_u16(block));
        let dmin = simd.half(read_u16(block.add(2)));
        let at = |i: usize| *block.add(4 + i);
        let (scale, min) = if part < 4 {
            (at(part) & 63, at(part + 4) & 63)
        } else {
            let low = at(part + 4);
            ((low & 15) | at(part - 4) >> 6 << 4, (low >> 4) | at(part) >> 6 << 4)
        };
        (d * f32::from(scale), dmin * f32::from(min))
    }
}

#[inline(always)]
unsafe fn read_u16(from: *const u8) -> u16 {
    // SAFETY: the caller's block has these two bytes.
    u16::from_le_bytes(unsafe { from.cast::<[u8; 2]>().read_unaligned() })
}
