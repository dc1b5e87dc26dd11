//! Working memory of each thread, taken before the first step and at home in its cache.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::BackendError;
use super::attend::{AttendScratch, Partials};
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
pub(super) struct Scratches {
    threads: Vec<Mutex<Scratch>>,
    /// What threads leave for each other within an op; locked by the caller for the op.
    partials: Mutex<Partials>,
}

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
        let threads = (0..threads).map(|_| one()).collect::<Result<_, _>>()?;
        Ok(Self { threads, partials: Mutex::default() })
    }

    /// Nothing in it outlives a task, so that what a panic left behind does no harm.
    pub fn lock(&self, thread: usize) -> MutexGuard<'_, Scratch> {
        self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Scratches::lock`].
    pub fn partials(&self) -> MutexGuard<'_, Partials> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
