//! Activation buffers: row-major f32, rows padded with zeros to whole chunks of 32 values, so that
//! kernels read whole vectors and a tail adds nothing to a sum.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::marker::PhantomData;

use super::super::BackendError;
use super::kernels::CHUNK;
use super::memory::{Buffer, Request, product};

/// An activation buffer `[capacity, width]` and its current number of rows.
///
/// Invariant: the values of a row from `width` to `stride` are zero; ops write `width` values.
#[derive(Debug)]
pub struct Rows {
    data: Buffer<f32>,
    capacity: usize,
    width: usize,
    stride: usize,
    count: usize,
}

/// A buffer that several threads write, each its own part.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedRows<'a> {
    start: *mut f32,
    width: usize,
    stride: usize,
    count: usize,
    buffer: PhantomData<&'a mut f32>,
}

// SAFETY: the pointer is only followed in `part`, whose contract is that parts are disjoint.
unsafe impl Send for SharedRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedRows<'_> {}

impl Rows {
    pub(super) fn new(
        capacity_rows: usize,
        width: usize,
        available_bytes: Option<u64>,
    ) -> Result<Self, BackendError> {
        let stride = width.saturating_add(CHUNK - 1) / CHUNK * CHUNK;
        let what = format!("an activation buffer of {capacity_rows} rows of {width} values");
        let request =
            Request { what: &what, remedy: "lower --max-num-batched-tokens", available_bytes };
        let data = Buffer::zeroed(product(&[capacity_rows, stride]), request)?;
        Ok(Self { data, capacity: capacity_rows, width, stride, count: 0 })
    }

    /// Rows that the last op wrote.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values from one row's start to the next one's.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn set_count(&mut self, count: usize) {
        assert!(count <= self.capacity, "{count} rows in a buffer for {}", self.capacity);
        self.count = count;
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.padded(row)[..self.width]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.count, "row {row} of {}", self.count);
        &mut self.data[row * self.stride..][..self.width]
    }

    /// A row with the zeros after it.
    pub(super) fn padded(&self, row: usize) -> &[f32] {
        assert!(row < self.count, "row {row} of {}", self.count);
        &self.data[row * self.stride..][..self.stride]
    }

    /// The rows from the first on, with their padding.
    pub(super) fn all(&self) -> &[f32] {
        &self.data[..self.count * self.stride]
    }

    pub(super) fn share(&mut self) -> SharedRows<'_> {
        SharedRows {
            start: self.data.as_mut_ptr(),
            width: self.width,
            stride: self.stride,
            count: self.count,
            buffer: PhantomData,
        }
    }
}

impl SharedRows<'_> {
    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values `start..start + len` of a row.
    ///
    /// # Safety
    /// No other slice to any of these values is alive.
    #[allow(clippy::mut_from_ref, reason = "disjoint parts of one buffer; see Safety")]
    pub unsafe fn part(&self, row: usize, start: usize, len: usize) -> &mut [f32] {
        assert!(row < self.count && start + len <= self.width, "row {row}, {start}+{len}");
        // SAFETY: in bounds by the assertion; exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride + start), len) }
    }

    /// A whole row with its padding, which has to stay zero.
    ///
    /// # Safety
    /// As [`SharedRows::part`].
    #[allow(clippy::mut_from_ref, reason = "disjoint parts of one buffer; see Safety")]
    pub unsafe fn padded(&self, row: usize) -> &mut [f32] {
        assert!(row < self.count, "row {row} of {}", self.count);
        // SAFETY: in bounds by the assertion; exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.stride) }
    }

    /// Where a value lies, and the values from one row to the next.
    pub fn place(&self, row: usize, column: usize) -> (*mut f32, usize) {
        assert!(row < self.count && column < self.width, "value {column} of row {row}");
        // SAFETY: in bounds by the assertion.
        (unsafe { self.start.add(row * self.stride + column) }, self.stride)
    }

    /// Rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A whole row.
    ///
    /// # Safety
    /// As [`SharedRows::part`].
    #[allow(clippy::mut_from_ref, reason = "disjoint parts of one buffer; see Safety")]
    pub unsafe fn row(&self, row: usize) -> &mut [f32] {
        // SAFETY: the caller keeps `part`'s contract.
        unsafe { self.part(row, 0, self.width) }
    }
}
