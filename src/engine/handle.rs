//! The engine's thread and the way to it.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use thiserror::Error;

use super::load::Load;
use super::reply::CancelList;
use super::report::TurnReport;
use super::settings::EngineConfig;
use super::submission::Submission;
use super::turn::Engine;
use super::watchdog::{NAMED_MAX, Running, Watchdog};
use crate::clock::{Clock, Time};
use crate::device::Device;

/// Why a submission was not taken.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SubmitError {
    /// The mailbox is full.
    #[error("the engine's mailbox is full")]
    Full,
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}

/// Why the engine's thread ended before it was asked to; the process should exit non-zero.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// The device can run nothing any more.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The thread panicked more often than it may be restarted.
    #[error("the engine failed {restarts} times in a short time, at last with: {reason}")]
    Panicked {
        /// Panics within the restart window.
        restarts: u32,
        /// The last one's message.
        reason: String,
    },
    /// A step did not end.
    #[error("the device has not answered for {seconds} s")]
    Hung {
        /// Since the step began.
        seconds: u64,
    },
    /// The operating system gave no thread.
    #[error("no thread for the engine: {0}")]
    NoThread(String),
}

/// Told of each turn, on the engine's thread; it must not block.
pub type Observer = Box<dyn FnMut(&TurnReport) + Send>;

/// A clonable way to the engine. The engine's thread ends when all handles are gone and the last
/// request has ended.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    sender: Sender<Mail>,
    /// To take back what no engine will read any more.
    receiver: Receiver<Mail>,
    shared: Arc<Shared>,
}

/// What the mailbox carries.
#[derive(Debug)]
pub(super) enum Mail {
    Submit(Box<Submission>),
    /// Makes an idle engine look around.
    Wake,
}

/// What both sides see.
#[derive(Debug)]
pub(super) struct Shared {
    pub cancels: Arc<CancelList>,
    load: Mutex<Load>,
    stopping: AtomicBool,
    ended: AtomicBool,
    /// Running sequences when the device began its step.
    running: Mutex<Vec<Running>>,
    failure: Mutex<Option<EngineError>>,
}

impl EngineHandle {
    /// Starts the engine's thread. `observer` is told of each turn. The thread's result is an
    /// error when the engine died; [`EngineHandle::failure`] says so earlier.
    ///
    /// # Errors
    /// [`EngineError::NoThread`].
    pub fn start(
        config: EngineConfig,
        device: Box<dyn Device>,
        clock: Arc<dyn Clock>,
        observer: Observer,
    ) -> Result<(EngineHandle, JoinHandle<Result<(), EngineError>>), EngineError> {
        let (engine, handle) = Engine::new(config.clone(), device);
        let no_thread = |error: std::io::Error| EngineError::NoThread(error.to_string());
        let shared = Arc::clone(&handle.shared);
        Watchdog::new(&config).start(shared, Arc::clone(&clock)).map_err(no_thread)?;
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || run(engine, &config, clock.as_ref(), observer))
            .map_err(no_thread)?;
        Ok((handle, thread))
    }

    /// Hands a request to the engine; never blocks.
    ///
    /// # Errors
    /// [`SubmitError`]; the submission is dropped, its reply stream ends.
    pub fn submit(&self, submission: Submission) -> Result<(), SubmitError> {
        if self.shared.is_stopping() {
            return Err(SubmitError::Stopped);
        }
        self.sender.try_send(Mail::Submit(Box::new(submission))).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Full,
            TrySendError::Disconnected(_) => SubmitError::Stopped,
        })?;
        // The engine empties the mailbox once after it began to stop. Mail that came too late for
        // that is dropped here, which ends its reply stream.
        if self.shared.is_stopping() {
            drop_mail(&self.receiver);
            let _ = self.sender.try_send(Mail::Wake);
            return Err(SubmitError::Stopped);
        }
        Ok(())
    }

    /// The latest snapshot.
    pub fn load(&self) -> Load {
        self.shared.load()
    }

    /// Where reply streams note that their caller has left; for [`super::reply_channel`].
    pub fn cancels(&self) -> Arc<CancelList> {
        Arc::clone(&self.shared.cancels)
    }

    /// Ends the thread after its current turn; requests that are not finished then fail. To let
    /// them finish, wait until [`EngineHandle::load`] shows none before.
    pub fn stop(&self) {
        self.shared.stop();
        // A full mailbox means that the engine is awake.
        let _ = self.sender.try_send(Mail::Wake);
    }

    /// Why the engine died, if it did.
    pub fn failure(&self) -> Option<EngineError> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    /// Replaces the snapshot.
    pub fn publish(&self, load: Load) {
        *self.load.lock().unwrap_or_else(PoisonError::into_inner) = load;
    }

    /// The latest snapshot.
    pub fn load(&self) -> Load {
        *self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running sequences, to be written or read.
    pub fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the engine's thread has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Says why the engine ended, or has to.
    pub fn die(&self, error: &EngineError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some(error.clone());
    }
}

/// Both ends of a new mailbox.
pub(super) fn mailbox(mailbox_max: usize) -> (EngineHandle, Receiver<Mail>, Arc<Shared>) {
    let (sender, receiver) = crossbeam_channel::bounded(mailbox_max);
    let shared = Arc::new(Shared {
        cancels: Arc::new(CancelList::default()),
        load: Mutex::new(Load::default()),
        stopping: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        running: Mutex::new(Vec::with_capacity(NAMED_MAX)),
        failure: Mutex::new(None),
    });
    let handle = EngineHandle { sender, receiver: receiver.clone(), shared: Arc::clone(&shared) };
    (handle, receiver, shared)
}

fn drop_mail(receiver: &Receiver<Mail>) {
    while receiver.try_recv().is_ok() {}
}

/// The engine's thread: turns until it is stopped, nobody can reach it, or it is beyond recovery.
fn run(
    mut engine: Engine,
    config: &EngineConfig,
    clock: &dyn Clock,
    mut observer: Observer,
) -> Result<(), EngineError> {
    let (shared, mailbox) = engine.ends();
    let mut panics: VecDeque<Time> = VecDeque::new();
    let result = loop {
        if shared.is_stopping() {
            break Ok(());
        }
        if engine.is_idle() && engine.wait_for_mail(clock).is_err() {
            break Ok(());
        }
        // What a panic leaves half done is rebuilt by `recover`, from tokens alone.
        let turned = catch_unwind(AssertUnwindSafe(|| observer(&engine.turn(clock))));
        if let Err(payload) = turned {
            let reason = message_of(payload.as_ref());
            let now = clock.now();
            panics.push_back(now);
            while panics.front().is_some_and(|&at| now.since(at) > config.restart_window) {
                panics.pop_front();
            }
            let restarts = panics.len() as u32;
            tracing::error!(restarts, reason, "the engine's thread panicked");
            if restarts > config.restarts_max {
                break Err(EngineError::Panicked { restarts, reason });
            }
            let recovered = catch_unwind(AssertUnwindSafe(|| engine.recover(&reason)));
            if recovered.is_err() {
                break Err(EngineError::Panicked { restarts, reason });
            }
        }
        if let Some(reason) = engine.lost() {
            break Err(EngineError::DeviceLost(reason.to_owned()));
        }
    };
    let message = match &result {
        Ok(()) => "the server is shutting down".to_owned(),
        Err(error) => error.to_string(),
    };
    if let Err(error) = &result {
        shared.die(error);
        tracing::error!(%error, "the engine has died");
    }
    // Whatever is left gets its end here, or when its reply is dropped with the engine. A bounded
    // channel keeps its mail as long as there is a sender, so that it has to be emptied.
    shared.stop();
    let _ = catch_unwind(AssertUnwindSafe(|| engine.end(&message)));
    drop(engine);
    drop_mail(&mailbox);
    shared.ended.store(true, Ordering::SeqCst);
    result
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}
