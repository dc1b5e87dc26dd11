//! Working memory of each thread, taken before the first step and at home in its cache.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::BackendError;
use super::attend::AttendScratch;
use super::kernels::{PANEL_ROWS, PANEL_STRIDE};
use super::memory::{Buffer, Request};

/// One thread's working memory.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Decoded weights: [`PANEL_ROWS`] rows of [`PANEL_STRIDE`] values.
    pub panel: Buffer<f32>,
    /// See [`super::attend`].
    pub attend: AttendScratch,
}

/// Every thread's working memory. Each thread locks its own, so that a lock is never contended.
#[derive(Debug)]
pub(super) struct Scratches(Vec<Mutex<Scratch>>);

impl Scratches {
    pub fn new(threads: usize, available_bytes: Option<u64>) -> Result<Self, BackendError> {
        let request = Request {
            what: "the working memory of a thread",
            remedy: "use fewer threads",
            available_bytes,
        };
        let one = || {
            let panel = Buffer::zeroed(PANEL_ROWS * PANEL_STRIDE, request)?;
            Ok(Mutex::new(Scratch { panel, attend: AttendScratch::default() }))
        };
        (0..threads).map(|_| one()).collect::<Result<_, _>>().map(Self)
    }

    /// Nothing in it outlives a task, so that what a panic left behind does no harm.
    pub fn lock(&self, thread: usize) -> MutexGuard<'_, Scratch> {
        self.0[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
