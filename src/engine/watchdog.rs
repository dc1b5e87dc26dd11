//! A second thread that looks whether steps come to an end (R24, R25). The engine's own thread
//! cannot: it may be the one that waits for a device which does not answer.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{EngineError, Shared};
use super::load::Load;
use super::settings::EngineConfig;
use crate::clock::{Clock, Time};
use crate::ids::RequestId;

/// A running sequence, in the snapshot for the log: ids and counts, no content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub request: RequestId,
    pub choice: u32,
    pub prefills: bool,
    pub known: u32,
    pub scheduled: u32,
    pub blocks: u32,
}

/// Running sequences that the snapshot names at most.
pub(super) const NAMED_MAX: usize = 64;
/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Well,
    /// A step is overdue, and it was not said yet.
    Overdue(Duration),
    /// The device will not answer any more.
    Lost(Duration),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watchdog {
    patience: Duration,
    deadline: Duration,
    /// Beginning of the step that was last found overdue.
    said: Option<Time>,
}

impl Watchdog {
    /// With a configuration's patience.
    pub fn new(config: &EngineConfig) -> Self {
        Self { patience: config.step_patience, deadline: config.step_deadline, said: None }
    }

    /// Starts the thread, which ends soon after the engine's.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(mut self, shared: Arc<Shared>, clock: Arc<dyn Clock>) -> std::io::Result<()> {
        let watch = move || {
            while !shared.has_ended() {
                match self.look(&shared.load(), clock.now()) {
                    Finding::Well => {}
                    Finding::Overdue(after) => tell(&shared, after),
                    Finding::Lost(after) => {
                        tell(&shared, after);
                        shared.die(&EngineError::Hung { seconds: after.as_secs() });
                        return;
                    }
                }
                std::thread::park_timeout(INTERVAL);
            }
        };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch).map(|_| ())
    }

    fn look(&mut self, load: &Load, now: Time) -> Finding {
        let Some(began) = load.step_began.filter(|_| load.alive) else { return Finding::Well };
        let after = now.since(began);
        // Without a forecast a step may be a long prompt's first on a slow device.
        if load.step_predicted.is_some() && after > load.overdue_after(self.deadline) {
            return Finding::Lost(after);
        }
        if after > load.overdue_after(self.patience) && self.said != Some(began) {
            self.said = Some(began);
            return Finding::Overdue(after);
        }
        Finding::Well
    }
}

fn tell(shared: &Shared, after: Duration) {
    let load = shared.load();
    let mut running = String::new();
    for seq in shared.running().iter() {
        let Running { request, choice, prefills, known, scheduled, blocks } = seq;
        let phase = if *prefills { "prefills" } else { "decodes" };
        // Writing to a string cannot fail.
        let _ = write!(
            running,
            "request {request} choice {choice} {phase}, {scheduled} of {known} tokens scheduled, \
             {blocks} blocks; "
        );
    }
    tracing::error!(
        seconds = after.as_secs_f64(),
        predicted_s = load.step_predicted.map(|predicted| predicted.as_secs_f64()),
        steps = load.steps,
        running = load.running,
        waiting = load.waiting,
        waiting_prompt_tokens = load.waiting_prompt_tokens,
        blocks_used = load.blocks_used,
        blocks_available = load.blocks_available,
        "the device has not ended its step: {running}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(s: u64) -> Time {
        Time(s * 1_000_000_000)
    }

    #[test]
    fn a_step_is_overdue_once_and_lost_after_its_deadline_if_it_was_predicted() {
        let mut dog = Watchdog::new(&EngineConfig::new([0; 32]));
        let idle = Load { alive: true, ..Load::default() };
        assert_eq!(dog.look(&idle, second(1000)), Finding::Well);
        let cold = Load { step_began: Some(second(0)), ..idle };
        assert_eq!(dog.look(&cold, second(9)), Finding::Well);
        let nine = Duration::from_secs(11);
        assert_eq!(dog.look(&cold, second(11)), Finding::Overdue(nine));
        assert_eq!(dog.look(&cold, second(12)), Finding::Well, "it was said");
        assert_eq!(dog.look(&cold, second(100_000)), Finding::Well, "it may be slow");
        // A long prefill that is predicted to take a minute is innocent for twenty.
        let long = Load { step_predicted: Some(Duration::from_secs(60)), ..cold };
        assert_eq!(dog.look(&long, second(1199)), Finding::Well);
        let short = Load { step_predicted: Some(Duration::from_millis(20)), ..cold };
        let lost = Finding::Lost(Duration::from_secs(121));
        assert_eq!(dog.look(&short, second(121)), lost);
    }
}
