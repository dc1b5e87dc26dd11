//! The vector operations that kernels are written in, once for all instruction sets.
//!
//! A [`Simd`] value is a proof that the CPU has the instructions: it is only made by
//! [`super::KernelSet::run`]. Kernels are generic over it and inlined into a function that enables
//! the instructions. A closure is a function of its own that is compiled without them, and calls
//! every operation in it: kernels have loops instead. A chunk is [`CHUNK`] values in registers; a
//! vector is a part of it.

/// Values of a chunk: the smallest unit in which weights are decoded, and what rows are padded to.
pub(crate) const CHUNK: usize = 32;

/// Vectors that [`Simd::reduce`] sums at a time.
pub(crate) const REDUCED: usize = 4;

/// A small computation that runs with the CPU's best instructions.
pub(crate) trait Kernel {
    /// What it computes.
    type Output;

    /// Implementations are `#[inline(always)]`, so that they are compiled with the instructions.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// See the head of this file. Methods that take pointers read or write as many values as their
/// result or argument has and need no alignment.
pub(crate) trait Simd: Copy + 'static {
    /// [`Simd::LANES`] values of f32.
    type V: Copy;
    /// [`CHUNK`] values of f32.
    type Chunk: Copy;
    /// [`CHUNK`] bytes.
    type Bytes: Copy;

    /// Values of a vector; divides [`CHUNK`].
    const LANES: usize;
    /// Weight rows that [`super::tile`] multiplies at a time with four rows of activations, so
    /// that the sums fill the registers; divides [`super::PANEL_ROWS`].
    const TILE: usize;

    fn splat(self, value: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for integer-valued `n` with `-252 <= n <= 254` and results in the normal range.
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V;
    /// `a`, and 0 where `x < limit`.
    fn zero_where_less(self, a: Self::V, x: Self::V, limit: Self::V) -> Self::V;
    /// The sum of each vector's lanes, in an order that depends on neither the other vectors nor
    /// the place among them.
    fn reduce(self, vectors: [Self::V; REDUCED]) -> [f32; REDUCED];
    /// The largest lane; unspecified when one is NaN.
    fn reduce_max(self, a: Self::V) -> f32;

    /// # Safety
    /// `from` points to `LANES` values.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// # Safety
    /// `to` points to `LANES` values.
    unsafe fn store(self, to: *mut f32, a: Self::V);

    /// The value of an IEEE half.
    fn half(self, bits: u16) -> f32;

    /// # Safety
    /// `from` points to `CHUNK` little-endian f32.
    unsafe fn load_f32(self, from: *const u8) -> Self::Chunk;
    /// # Safety
    /// `from` points to `CHUNK` little-endian IEEE halves.
    unsafe fn load_f16(self, from: *const u8) -> Self::Chunk;
    /// # Safety
    /// `from` points to `CHUNK` little-endian bfloat16.
    unsafe fn load_bf16(self, from: *const u8) -> Self::Chunk;
    /// # Safety
    /// `to` points to `CHUNK` values.
    unsafe fn store_chunk(self, to: *mut f32, a: Self::Chunk);
    /// `sum + w * x`, lane by lane, the chunk's vectors one after the other.
    fn multiply_add(self, sum: Self::V, w: Self::Chunk, x: Self::Chunk) -> Self::V;

    /// # Safety
    /// `from` points to `CHUNK` bytes.
    unsafe fn load_bytes(self, from: *const u8) -> Self::Bytes;
    /// The bytes of little-endian words.
    fn words(self, words: [u32; CHUNK / 4]) -> Self::Bytes;
    /// The low halves of 16 bytes, then their high halves.
    ///
    /// # Safety
    /// `from` points to 16 bytes.
    unsafe fn load_nibbles(self, from: *const u8) -> Self::Bytes;
    /// `(a >> shift) & mask` in each byte, for `mask < 256 >> shift`.
    fn bits(self, a: Self::Bytes, shift: u32, mask: u8) -> Self::Bytes;
    /// `a << 4 | b` in each byte, for `a < 16`.
    fn join(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a - b` in each byte, wrapping.
    fn sub_bytes(self, a: Self::Bytes, b: u8) -> Self::Bytes;
    /// Signed bytes as f32.
    fn widen(self, a: Self::Bytes) -> Self::Chunk;
    /// `a * factor`.
    fn scale(self, a: Self::Chunk, factor: f32) -> Self::Chunk;
    /// `a * factor - offset`, rounded twice.
    fn scale_sub(self, a: Self::Chunk, factor: f32, offset: f32) -> Self::Chunk;
    /// `a * low` in the first half of the chunk, `a * high` in the second.
    fn scale_halves(self, a: Self::Chunk, low: f32, high: f32) -> Self::Chunk;

    /// `(q - 8) * factor` for the low halves of 16 bytes, then their high halves.
    ///
    /// # Safety
    /// `from` points to 16 bytes.
    #[inline(always)]
    unsafe fn nibbles_less_8(self, from: *const u8, factor: f32) -> Self::Chunk {
        // SAFETY: the caller's promise.
        let q = self.sub_bytes(unsafe { self.load_nibbles(from) }, 8);
        self.scale(self.widen(q), factor)
    }

    /// `q * factor - offset`, rounded twice, for the low (`high` = 0) or high (1) halves of 32
    /// bytes.
    ///
    /// # Safety
    /// `from` points to 32 bytes.
    #[inline(always)]
    unsafe fn nibbles_affine(
        self,
        from: *const u8,
        high: usize,
        factor: f32,
        offset: f32,
    ) -> Self::Chunk {
        // SAFETY: the caller's promise.
        let q = self.bits(unsafe { self.load_bytes(from) }, 4 * high as u32, 15);
        self.scale_sub(self.widen(q), factor, offset)
    }

    /// Asks for a cache line that will be read soon; the address need not be valid.
    #[inline(always)]
    fn prefetch(self, _from: *const u8) {}
}
