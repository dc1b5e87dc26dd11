//! The threads that ops run on: each op is a count of independent tasks, taken one by one from a
//! shared counter. Starting an op on threads that still spin costs about a microsecond; idle
//! threads park. A thread that is late does not hold an op up: it joins or is left out.
#![allow(unsafe_code, reason = "threads that outlive an op run a closure that borrows from it")]

use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Pauses (of 10 to 40 ns each) that an idle thread spins before it parks: long enough for the
/// gap between the ops of a step, short enough not to burn a core between requests.
const SPINS_BEFORE_PARK: u32 = 5_000;

/// Pauses of the caller between offers of its core to others while it waits for the last tasks.
const SPINS_BEFORE_YIELD: u32 = 1_000;

/// Set in [`Shared::gate`] while threads may join the current op. The bits above hold the op's
/// number, those below the threads that run it besides the caller.
const OPEN: u64 = 1 << 31;
const ACTIVE: u64 = OPEN - 1;

/// What an op runs: `(thread, task)`.
type Job<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A fixed set of threads; the caller of [`Pool::run`] is thread 0.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    gate: AtomicU64,
    /// Written by the caller while the gate is closed and nobody is active; read by threads that
    /// joined through the open gate.
    job: UnsafeCell<(Job<'static>, usize)>,
    next_task: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    parked: AtomicUsize,
    park: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is the only field that is not `Sync` by itself; the gate orders all access to it,
// as its comment says.
unsafe impl Sync for Shared {}
// SAFETY: the job's closure is `Sync`, so any thread may hold the reference.
unsafe impl Send for Shared {}

impl Pool {
    /// Starts `threads - 1` threads.
    ///
    /// # Errors
    /// The operating system's, when it refuses a thread.
    pub fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new((&|_, _| {}, 0)),
            next_task: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            park: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, threads: Vec::new() };
        for thread in 1..threads.get() {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("weir-cpu-{thread}"));
            pool.threads.push(builder.spawn(move || shared.serve(thread))?);
        }
        Ok(pool)
    }

    /// Threads including the caller.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs `job(thread, task)` once for each task below `tasks`, in any order, and returns when
    /// all are done.
    ///
    /// # Panics
    /// When a task did.
    pub fn run(&self, tasks: usize, job: Job<'_>) {
        if tasks <= 1 || self.threads.is_empty() {
            (0..tasks).for_each(|task| job(0, task));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. `Opened` closes the gate and waits for all threads
        // that joined before `run` returns or unwinds, so nobody uses the reference after it ends.
        let job_static = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        // SAFETY: the gate is closed and nobody is active, so nobody else looks at the job.
        unsafe { *shared.job.get() = (job_static, tasks) };
        shared.next_task.store(0, Ordering::Relaxed);
        let opened = Opened::new(shared);
        shared.work(0, job, tasks);
        drop(opened);
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        assert!(!panicked, "a kernel panicked on another thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_parked();
        for thread in self.threads.drain(..) {
            // A kernel's panic was reported by `run`; the thread itself never panics.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn serve(&self, thread: usize) {
        let mut last_op = 0;
        while let Some(op) = self.join_next(last_op) {
            last_op = op;
            // SAFETY: joined through the open gate: the job was written before it opened, and
            // stays until this thread has left.
            let (job, tasks) = unsafe { *self.job.get() };
            if catch_unwind(AssertUnwindSafe(|| self.work(thread, job, tasks))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    fn work(&self, thread: usize, job: Job<'_>, tasks: usize) {
        loop {
            let task = self.next_task.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            job(thread, task);
        }
    }

    /// Waits for an op after `last_op` that is open, joins it and returns its number; `None` when
    /// the pool ends.
    fn join_next(&self, last_op: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            let gate = self.gate.load(Ordering::SeqCst);
            if is_new(gate, last_op) {
                let joined = self.gate.compare_exchange_weak(
                    gate,
                    gate + 1,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if joined.is_ok() {
                    return Some(gate >> 32);
                }
                continue;
            }
            spins += 1;
            if spins < SPINS_BEFORE_PARK {
                std::hint::spin_loop();
            } else {
                self.park_until_new(last_op);
                spins = 0;
            }
        }
    }

    fn park_until_new(&self, last_op: u64) {
        let mut guard = self.park.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.fetch_add(1, Ordering::SeqCst);
        while !self.stop.load(Ordering::SeqCst)
            && !is_new(self.gate.load(Ordering::SeqCst), last_op)
        {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }

    /// Threads count themselves as parked before they look at the gate for the last time, and the
    /// caller opens the gate before it looks at the count: one of them sees the other.
    fn wake_parked(&self) {
        if self.parked.load(Ordering::SeqCst) > 0 {
            let _guard = self.park.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }
}

/// An op that threads may join; dropping it ends the op.
struct Opened<'a>(&'a Shared);

impl<'a> Opened<'a> {
    fn new(shared: &'a Shared) -> Self {
        let op = (shared.gate.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
        shared.gate.store(op << 32 | OPEN, Ordering::SeqCst);
        shared.wake_parked();
        Self(shared)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0_u32;
        while self.0.gate.load(Ordering::Acquire) & ACTIVE != 0 {
            spins += 1;
            if spins.is_multiple_of(SPINS_BEFORE_YIELD) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

fn is_new(gate: u64, last_op: u64) -> bool {
    gate & OPEN != 0 && gate >> 32 != last_op
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).expect("not zero")).expect("threads start")
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 7] {
            let pool = pool(threads);
            for tasks in [0, 1, 2, 5, 64, 1000] {
                for _ in 0..20 {
                    let runs: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, &|thread, task| {
                        assert!(thread < threads);
                        runs[task].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_ends() {
        let pool = pool(3);
        let run = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, &|_, task| assert!(task != 50, "task 50 fails"));
        }));
        assert!(run.is_err());
    }
}
