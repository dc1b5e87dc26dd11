//! What the engine has told the world by the time that the device begins a step: a device may hang
//! in it, and a slow one leaves callers without what is theirs already.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use weir::clock::{Clock, ManualClock};
use weir::device::sim::{Pace, SimDevice};
use weir::device::{Device, DeviceError, DeviceLimits, StepOutput, StepPlan};
use weir::engine::{Engine, EngineHandle, Event, Load, ReplyStream};
use weir::ids::RequestId;

use super::world::{Ask, config, limits, prompt, sim, submission};

/// Seen from inside the device.
#[derive(Default)]
struct Seen {
    stream: Option<ReplyStream>,
    loads: Vec<Load>,
    tokens: Vec<usize>,
}

/// A device that looks at the engine's load and at a caller's stream when it begins to compute.
struct Watching {
    inner: SimDevice,
    handle: Arc<OnceLock<EngineHandle>>,
    seen: Arc<Mutex<Seen>>,
}

impl Watching {
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap();
        let Seen { stream, loads, tokens } = &mut *seen;
        loads.push(self.handle.get().unwrap().load());
        let mut received = tokens.last().copied().unwrap_or(0);
        while let Some(event) = stream.as_mut().and_then(ReplyStream::try_next) {
            received += usize::from(matches!(event, Event::Token { .. }));
        }
        tokens.push(received);
    }
}

impl Device for Watching {
    fn limits(&self) -> &DeviceLimits {
        self.inner.limits()
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<(), DeviceError> {
        if self.inner.limits().computes_in_submit {
            self.look();
        }
        self.inner.submit(plan)
    }

    fn wait(&mut self, output: &mut StepOutput) -> Result<(), DeviceError> {
        if !self.inner.limits().computes_in_submit {
            self.look();
        }
        self.inner.wait(output)
    }
}

/// The load of an idle engine had said that nothing ran while the first step after an idle time
/// hung in the device, so that readiness stayed green; now it is told before the step begins.
#[test]
fn callers_and_load_are_up_to_date_when_the_device_begins_a_step() {
    for computes_in_submit in [true, false] {
        let limits = DeviceLimits { computes_in_submit, ..limits(64, 4, 1) };
        let clock = Arc::new(ManualClock::default());
        let inner = SimDevice::new(sim(limits), Pace::Virtual(Arc::clone(&clock)));
        let (cell, seen) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Seen::default())));
        let device = Watching { inner, handle: Arc::clone(&cell), seen: Arc::clone(&seen) };
        let (mut engine, handle) = Engine::new(config(), Box::new(device));
        cell.set(handle.clone()).unwrap();

        clock.advance(Duration::from_secs(3600));
        let began = clock.now();
        let (request, stream) =
            submission(&handle, RequestId(1), &Ask::new(prompt(1, 4), 5), clock.now());
        seen.lock().unwrap().stream = Some(stream);
        handle.submit(request).unwrap();
        while !engine.is_idle() {
            engine.turn(clock.as_ref());
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen.loads[0].running, 1, "in submit: {computes_in_submit}");
        assert_eq!(seen.loads[0].step_began, Some(began), "the idle hour is not its own");
        assert_eq!(seen.tokens, [0, 1, 2, 3, 4], "every token of the steps before");
        assert_eq!(handle.load().step_began, None, "idle again");
    }
}
