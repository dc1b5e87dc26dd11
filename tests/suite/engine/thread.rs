//! The thread around the engine: it idles, is stopped, survives panics, and says when it dies.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use weir::clock::{Clock, ManualClock};
use weir::device::sim::{Pace, SimConfig, SimDevice};
use weir::device::{Device, DeviceError, DeviceLimits, StepOutput, StepPlan};
use weir::engine::{
    EngineConfig, EngineError, EngineHandle, FinishReason, ReplyStream, SubmitError, TurnReport,
};
use weir::ids::RequestId;

use super::world::{Ask, Got, config, limits, prompt, sim, submission};

struct Threaded {
    handle: EngineHandle,
    thread: JoinHandle<Result<(), EngineError>>,
    reports: Arc<Mutex<Vec<TurnReport>>>,
    sim: SimConfig,
    asked: u64,
}

impl Threaded {
    fn start(config: EngineConfig, sim: SimConfig) -> Self {
        let clock = Arc::new(ManualClock::default());
        let device = SimDevice::new(sim.clone(), Pace::Virtual(Arc::clone(&clock)));
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        let observer = Box::new(move |report: &TurnReport| seen.lock().unwrap().push(*report));
        let (handle, thread) =
            EngineHandle::start(config, Box::new(device), clock, observer).unwrap();
        Self { handle, thread, reports, sim, asked: 0 }
    }

    fn ask(&mut self, ask: &Ask) -> ReplyStream {
        self.asked += 1;
        let id = RequestId(self.asked);
        let (submission, stream) = submission(&self.handle, id, ask, Default::default());
        self.handle.submit(submission).unwrap();
        stream
    }

    /// Ends the thread by leaving it without a handle.
    fn leave(self) -> Result<(), EngineError> {
        drop(self.handle);
        self.thread.join().unwrap()
    }
}

/// Reads a stream to its end; exactly one terminal event.
fn read(mut stream: ReplyStream, choices: usize) -> Got {
    let mut got =
        Got { tokens: vec![Vec::new(); choices], finished: vec![None; choices], ..Got::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        while let Some(event) = stream.next().await {
            got.take(event);
        }
    });
    assert!(got.done.is_some() != got.failed.is_some(), "one terminal event");
    got
}

fn assert_as_alone(ask: &Ask, sim: &SimConfig, got: &Got) {
    for choice in 0..ask.params.len() {
        let (tokens, reason) = ask.alone(sim, choice);
        assert_eq!((&got.tokens[choice], got.finished[choice]), (&tokens, reason));
    }
}

#[test]
fn a_thread_serves_requests_that_come_one_after_the_other() {
    let mut engine = Threaded::start(config(), sim(limits(64, 4, 2)));
    for i in 0..5 {
        let ask = Ask::new(prompt(i, 9), 20).choices(2);
        let stream = engine.ask(&ask);
        let got = read(stream, 2);
        assert_as_alone(&ask, &engine.sim, &got);
    }
    let reports = Arc::clone(&engine.reports);
    assert_eq!(engine.leave(), Ok(()));
    let done: u32 = reports.lock().unwrap().iter().map(|report| report.done).sum();
    assert_eq!(done, 5, "the observer saw each turn");
}

#[test]
fn a_panic_costs_no_request_that_was_running_for_the_first_time() {
    for step in 1..25 {
        for steps_in_flight in [1, 2] {
            let mut sim = sim(limits(64, 4, steps_in_flight));
            sim.faults.panic_at_steps = vec![step];
            let mut engine = Threaded::start(config(), sim);
            let asks: Vec<_> =
                (0..12).map(|i| Ask::new(prompt(i, 9), 15).choices(1 + u64::from(i % 3))).collect();
            let streams: Vec<_> = asks.iter().map(|ask| engine.ask(ask)).collect();
            for (ask, stream) in asks.iter().zip(streams) {
                let got = read(stream, ask.params.len());
                assert_eq!(got.failed, None);
                assert_as_alone(ask, &engine.sim, &got);
            }
            let load = engine.handle.load();
            assert_eq!((load.restarts, load.alive), (1, true));
            assert_eq!(engine.handle.failure(), None);
            assert_eq!(engine.leave(), Ok(()));
        }
    }
}

#[test]
fn a_request_that_runs_in_two_panics_fails_and_those_that_waited_go_on() {
    let mut config = config();
    config.running_max = 1;
    let mut sim = sim(limits(64, 4, 1));
    sim.faults.panic_at_steps = vec![3, 6];
    let mut engine = Threaded::start(config, sim);
    let asks: Vec<_> = (0..3).map(|i| Ask::new(prompt(i, 9), 15)).collect();
    let streams: Vec<_> = asks.iter().map(|ask| engine.ask(ask)).collect();
    let got: Vec<_> = streams.into_iter().map(|stream| read(stream, 1)).collect();
    let message = got[0].failed.as_deref().expect("it ran both times");
    assert!(message.contains("failed twice"), "{message}");
    assert_as_alone(&asks[1], &engine.sim, &got[1]);
    assert_as_alone(&asks[2], &engine.sim, &got[2]);
}

#[test]
fn too_many_panics_end_the_engine_and_every_stream() {
    let mut sim = sim(limits(64, 4, 1));
    sim.faults.panic_at_steps = (2..100).collect();
    let mut engine = Threaded::start(config(), sim);
    let mut streams = Vec::new();
    let ask = Ask::new(prompt(1, 9), 15);
    // Requests are refused as soon as the engine is dead.
    for i in 0..200 {
        let id = RequestId(1000 + i);
        let (submission, stream) = submission(&engine.handle, id, &ask, Default::default());
        let _ = engine.handle.submit(submission);
        streams.push(stream);
        engine.asked += 1;
    }
    for stream in streams {
        let got = read(stream, 1);
        assert!(got.failed.is_some() || got.finished[0] == Some(FinishReason::Length));
    }
    let Threaded { handle, thread, .. } = engine;
    let error = thread.join().unwrap().expect_err("it died");
    assert!(
        matches!(&error, EngineError::Panicked { restarts: 4, reason } if reason == "simulated panic")
    );
    assert_eq!(handle.failure(), Some(error));
    assert!(!handle.load().alive);
    let (late, stream) = submission(&handle, RequestId(1), &ask, Default::default());
    assert_eq!(handle.submit(late), Err(SubmitError::Stopped));
    assert!(read(stream, 1).failed.is_some());
}

#[test]
fn a_lost_device_ends_the_thread_with_an_error() {
    let mut sim = sim(limits(64, 4, 2));
    sim.faults.lost_at_step = Some(4);
    let mut engine = Threaded::start(config(), sim);
    let stream = engine.ask(&Ask::new(prompt(1, 9), 15));
    assert!(read(stream, 1).failed.is_some());
    let Threaded { handle, thread, .. } = engine;
    let error = thread.join().unwrap().expect_err("it died");
    assert_eq!(error, EngineError::DeviceLost("simulated loss".to_owned()));
    assert_eq!(handle.failure(), Some(error));
}

#[test]
fn stopping_fails_what_is_left_and_ends_the_thread() {
    let mut engine = Threaded::start(config(), sim(limits(64, 4, 1)));
    let streams: Vec<_> = (0..30).map(|i| engine.ask(&Ask::new(prompt(i, 9), 200))).collect();
    engine.handle.stop();
    for stream in streams {
        read(stream, 1);
    }
    let Threaded { handle, thread, .. } = engine;
    assert_eq!(thread.join().unwrap(), Ok(()));
    assert_eq!(handle.failure(), None);
}

#[test]
fn an_idle_thread_can_be_stopped() {
    let engine = Threaded::start(config(), sim(limits(64, 4, 1)));
    engine.handle.stop();
    assert_eq!(engine.thread.join().unwrap(), Ok(()));
}

#[test]
fn an_idle_engine_asks_its_device_for_a_token_and_tells_when_none_comes() {
    for healthy in [true, false] {
        let mut sim = sim(limits(64, 4, 1));
        sim.faults.step_error_rate = if healthy { 0.0 } else { 1.0 };
        let config = EngineConfig { canary_after: Some(Duration::from_millis(5)), ..config() };
        let clock = Arc::new(ManualClock::default());
        let device = SimDevice::new(sim, Pace::Virtual(Arc::clone(&clock)));
        let (sender, reports) = mpsc::channel();
        let observer = Box::new(move |report: &TurnReport| {
            let _ = sender.send(*report);
        });
        let (handle, thread) =
            EngineHandle::start(config, Box::new(device), clock, observer).unwrap();
        let mut ended = 0;
        while ended < 3 {
            let report = reports.recv_timeout(Duration::from_secs(20)).expect("a canary");
            ended += report.done + report.failed;
            assert_eq!(report.failed > 0, !healthy && report.done + report.failed > 0);
        }
        assert_eq!(handle.load().canary_failed, !healthy);
        drop(handle);
        assert_eq!(thread.join().unwrap(), Ok(()));
    }
}

/// A device that never answers.
struct Hung(SimDevice, mpsc::Receiver<()>);

impl Device for Hung {
    fn limits(&self) -> &DeviceLimits {
        self.0.limits()
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<(), DeviceError> {
        self.0.submit(plan)
    }

    fn wait(&mut self, output: &mut StepOutput) -> Result<(), DeviceError> {
        if output.step > 40 {
            let _ = self.1.recv();
        }
        self.0.wait(output)
    }
}

#[test]
fn a_device_that_does_not_answer_is_given_up() {
    let clock = Arc::new(ManualClock::default());
    let inner = SimDevice::new(sim(limits(512, 4, 1)), Pace::Virtual(Arc::clone(&clock)));
    let (release, held) = mpsc::channel();
    let device = Box::new(Hung(inner, held));
    let config = EngineConfig { canary_after: None, ..config() };
    let observer = Box::new(|_: &TurnReport| {});
    let (handle, thread) =
        EngineHandle::start(config, device, Arc::clone(&clock) as Arc<dyn Clock>, observer)
            .unwrap();
    let streams: Vec<_> = (0..8)
        .map(|i| {
            let ask = Ask::new(prompt(i, 60), 100);
            let (submission, stream) =
                submission(&handle, RequestId(u64::from(i)), &ask, Default::default());
            handle.submit(submission).unwrap();
            stream
        })
        .collect();
    while handle.load().steps < 40 {
        std::thread::yield_now();
    }
    while handle.failure().is_none() {
        clock.advance(Duration::from_secs(30));
        std::thread::yield_now();
    }
    assert!(matches!(handle.failure(), Some(EngineError::Hung { .. })));
    release.send(()).unwrap();
    drop((release, streams, handle));
    let _ = thread.join().unwrap();
}
