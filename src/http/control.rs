//! What an admin asks of the process itself: the handlers say it here, the wiring does it.

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait to be done.
const WAITING_MAX: usize = 16;

/// Something to do.
#[derive(Debug)]
pub enum Command {
    /// Read settings and keys again, and say what came of it.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
    /// Drain and end.
    Drain,
}

/// What a reload has put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Tenants, "default" among them.
    pub tenants: usize,
    /// Keys of the key file that may be used now.
    pub keys: usize,
    /// Settings of the file that have changed and that only a start puts in force.
    pub needs_restart: Vec<String>,
}

/// The handlers' end.
#[derive(Clone, Debug)]
pub struct Control {
    sender: mpsc::Sender<Command>,
}

impl Control {
    /// Both ends.
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { sender }, receiver)
    }

    /// Reloads; `None` when the process is about to end.
    pub(super) async fn reload(&self) -> Option<Result<Reloaded, String>> {
        let (answer, answered) = oneshot::channel();
        self.sender.send(Command::Reload(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Drains.
    pub(super) async fn drain(&self) {
        // A receiver that is gone belongs to a process that ends already.
        let _ = self.sender.send(Command::Drain).await;
    }
}
