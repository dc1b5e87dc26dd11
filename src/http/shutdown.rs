//! The two moments of a shutdown, shared by the listener and the streams.

use tokio::sync::watch;

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No shutdown.
    Serving,
    /// No new connections and requests; what runs may finish.
    Draining,
    /// What still runs ends now, each stream with an error event.
    Aborting,
}

/// Announces a shutdown. Clones announce the same one.
#[derive(Clone, Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
}

impl Shutdown {
    /// Serving.
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving) }
    }

    /// Stop accepting, finish what runs. The gate has its own [`crate::gate::Gate::drain`].
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// End what still runs.
    pub fn abort(&self) {
        self.advance(Phase::Aborting);
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until the shutdown has come to `phase` or further.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.phase.subscribe();
        // The sender is kept alive beside the receiver: otherwise its end would look like a phase.
        let sender = self.phase.clone();
        async move {
            let _ = receiver.wait_for(|now| *now >= phase).await;
            drop(sender);
        }
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let further = to > *phase;
            *phase = to.max(*phase);
            further
        });
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}
