//! Memory that is taken once at start: zeroed, aligned to a cache line, refused in advance where
//! the machine does not have it. Never grows and never takes memory in a step.
#![allow(unsafe_code, reason = "aligned, fallible and lazily mapped memory has no safe interface")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::super::BackendError;

/// Bytes of a cache line, and of the widest vector register.
const ALIGN_BYTES: usize = 64;

/// Plain numbers for which all-zero bytes are a value.
pub(super) trait Plain: Copy + Send + Sync + 'static {}

impl Plain for f32 {}
impl Plain for u8 {}

/// A fixed number of zeroed values at a cache-line boundary.
#[derive(Debug)]
pub(super) struct Buffer<T: Plain> {
    start: NonNull<T>,
    len: usize,
    /// What was taken from the allocator: `start` lies in it at the next cache-line boundary.
    taken: Option<(NonNull<u8>, Layout)>,
}

// SAFETY: a buffer owns its memory alone, and `Plain` types are `Send`.
unsafe impl<T: Plain> Send for Buffer<T> {}
// SAFETY: shared access only reads, and `Plain` types are `Sync`.
unsafe impl<T: Plain> Sync for Buffer<T> {}

/// What is needed for what, and how much is there: turned into an error that helps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// What the memory is for.
    pub what: &'a str,
    /// What the user can change.
    pub remedy: &'static str,
    /// Bytes that the machine can still give, where known.
    pub available_bytes: Option<u64>,
}

impl<T: Plain> Buffer<T> {
    /// `len` zeros; the pages are mapped on first use.
    ///
    /// # Errors
    /// [`BackendError::Memory`] when the size overflows, exceeds what is available or is refused.
    pub fn zeroed(len: usize, request: Request<'_>) -> Result<Self, BackendError> {
        let bytes = len.checked_mul(size_of::<T>());
        let needed_bytes = bytes.map_or(u64::MAX, |b| b as u64);
        let refuse = || BackendError::Memory {
            what: request.what.to_owned(),
            needed_bytes,
            remedy: request.remedy,
        };
        if request.available_bytes.is_some_and(|available| needed_bytes > available) {
            return Err(refuse());
        }
        if len == 0 {
            return Ok(Self { start: NonNull::dangling(), len, taken: None });
        }
        // Asked for a larger alignment than its own, the allocator writes the zeros itself, which
        // maps every page; asked for its own, it takes fresh pages that are zero already.
        let padded = bytes.and_then(|bytes| bytes.checked_add(ALIGN_BYTES)).ok_or_else(refuse)?;
        let layout = Layout::from_size_align(padded, align_of::<u64>()).map_err(|_| refuse())?;
        // SAFETY: the layout's size is not zero, since it is at least `ALIGN_BYTES`.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(refuse)?;
        let offset = base.align_offset(ALIGN_BYTES);
        assert!(offset < ALIGN_BYTES, "a byte pointer can be aligned within a cache line");
        // SAFETY: `offset` is less than the `ALIGN_BYTES` that were taken beyond the values.
        let start = unsafe { base.add(offset) }.cast::<T>();
        Ok(Self { start, len, taken: Some((base, layout)) })
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some((base, layout)) = self.taken {
            // SAFETY: `zeroed` took this memory with the same layout, and it is given back once.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the memory holds `len` initialised values and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// The product of sizes, saturating: a size that does not fit is refused as too large.
pub(super) fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |n, &s| n.saturating_mul(s))
}

/// Bytes that this process can still take: the kernel's estimate (`MemAvailable`), or what the
/// process's control group leaves where that is less; `None` where neither can be read.
pub fn available_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|t| parse_meminfo(&t));
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let group = read("memory.max").zip(read("memory.current")).and_then(|(max, current)| {
        let max: u64 = max.trim().parse().ok()?;
        Some(max.saturating_sub(current.trim().parse().ok()?))
    });
    machine.into_iter().chain(group).min()
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(available_bytes: Option<u64>) -> Request<'static> {
        Request { what: "a test buffer", remedy: "nothing to do", available_bytes }
    }

    #[test]
    fn a_buffer_is_zeroed_and_aligned() {
        let mut buffer = Buffer::<f32>::zeroed(100, request(None)).expect("400 bytes");
        assert_eq!(buffer.as_ptr() as usize % ALIGN_BYTES, 0);
        assert!(buffer.iter().all(|&v| v == 0.0));
        buffer[99] = 1.0;
        assert_eq!(buffer.iter().sum::<f32>(), 1.0);
        assert!(Buffer::<u8>::zeroed(0, request(None)).expect("empty").is_empty());
    }

    /// The KV cache of a 0.5 B model was resident in full (6 GiB) before the first request,
    /// because an allocation of cache-line alignment was zeroed by writing to it.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_buffer_takes_no_memory_until_it_is_used() {
        let resident_pages = || -> usize {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let before = resident_pages();
        let buffer = Buffer::<u8>::zeroed(1 << 30, request(None)).expect("a gibibyte");
        // Other tests run beside this one and take some memory too.
        let taken_bytes = resident_pages().saturating_sub(before) * 4096;
        assert!(taken_bytes < 1 << 29, "{taken_bytes} bytes");
        assert_eq!(buffer[(1 << 30) - 1], 0);
    }

    #[test]
    fn too_large_is_an_error_not_an_abort() {
        let too_large = [(usize::MAX, None), (1 << 60, None), (26, Some(100)), (1 << 20, Some(1))];
        for (len, available) in too_large {
            let error = Buffer::<f32>::zeroed(len, request(available)).expect_err("too large");
            assert!(matches!(error, BackendError::Memory { .. }), "{error}");
        }
        assert!(Buffer::<f32>::zeroed(25, request(Some(100))).is_ok());
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       10 kB\nMemAvailable:   24576 kB\nBuffers: 3 kB\n";
        assert_eq!(parse_meminfo(text), Some(24576 * 1024));
        assert_eq!(parse_meminfo("MemTotal: 10 kB"), None);
        assert_eq!(parse_meminfo("MemAvailable: many kB"), None);
    }
}
