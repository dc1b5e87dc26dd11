//! The engine's loop body: mail, plan, submit, wait, complete, publish.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError};

use super::canary::Canary;
use super::cost::StepShape;
use super::handle::{EngineHandle, Mail, Shared, mailbox};
use super::load::Load;
use super::pace::Pace;
use super::reply::Event;
use super::report::{StepFacts, TurnReport};
use super::scheduler::Scheduler;
use super::settings::EngineConfig;
use super::soundness::Soundness;
use super::step::Step;
use crate::clock::{Clock, Time};
use crate::device::{Device, DeviceError, StepOutput};
use crate::ids::RequestId;

/// Owns the device, the requests and the KV blocks; everything happens in [`Engine::turn`].
pub struct Engine {
    config: EngineConfig,
    device: Box<dyn Device>,
    scheduler: Scheduler,
    mailbox: Receiver<Mail>,
    shared: Arc<Shared>,
    in_flight: VecDeque<Step>,
    spare: Vec<Step>,
    output: StepOutput,
    cancels: Vec<(RequestId, Option<u32>)>,
    /// Mail that ended an idle wait.
    first_mail: Option<Mail>,
    lost: Option<String>,
    /// When the device began the oldest step in flight, if there is one.
    step_began: Time,
    load: Load,
    pace: Pace,
    soundness: Soundness,
    canary: Canary,
    /// What is in the step that began at `step_began`.
    step_shape: StepShape,
}

impl Engine {
    /// An engine and the way to it. Nothing runs until somebody calls [`Engine::turn`];
    /// [`EngineHandle::start`] has a thread do so.
    pub fn new(config: EngineConfig, device: Box<dyn Device>) -> (Engine, EngineHandle) {
        let (handle, mailbox, shared) = mailbox(config.mailbox_max);
        let scheduler = Scheduler::new(config.clone(), device.limits().clone());
        let mut engine = Engine {
            config,
            device,
            scheduler,
            mailbox,
            shared,
            in_flight: VecDeque::with_capacity(2),
            spare: Vec::new(),
            output: StepOutput::default(),
            cancels: Vec::new(),
            first_mail: None,
            lost: None,
            step_began: Time::default(),
            load: Load { alive: true, ..Load::default() },
            pace: Pace::new(),
            soundness: Soundness::default(),
            canary: Canary::default(),
            step_shape: StepShape::default(),
        };
        engine.publish_load(false);
        (engine, handle)
    }

    /// One turn: completes the oldest step when no further one may be submitted, takes
    /// cancellations and mail, expires deadlines and submits the next step if there is one. What
    /// can wait, events to callers above all, is done while the device computes that step.
    ///
    /// # Panics
    /// When an invariant is broken; [`Engine::recover`] makes the engine usable again.
    pub fn turn(&mut self, clock: &dyn Clock) -> TurnReport {
        self.scheduler.report = TurnReport::default();
        let in_flight_max = self.device.limits().steps_in_flight_max as usize;
        let full = self.in_flight.len() >= in_flight_max;
        if full {
            self.complete_oldest(clock);
        }
        self.take_cancels();
        self.take_mail();
        let now = clock.now();
        self.scheduler.expire(now);
        let submitted = self.advance(clock, now);
        if !submitted && !full && !self.in_flight.is_empty() {
            self.complete_oldest(clock);
        }
        self.tidy_up(!self.in_flight.is_empty());
        let every = self.config.check_every_steps;
        let step = self.scheduler.report.step;
        if every > 0 && step.is_some_and(|step| step.step.is_multiple_of(every)) {
            self.scheduler.check();
        }
        let report = &mut self.scheduler.report;
        report.load = self.load;
        *report
    }

    /// Whether the next turn would do nothing unless mail comes.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_empty()
            && self.in_flight.is_empty()
            && self.first_mail.is_none()
            && self.mailbox.is_empty()
    }

    /// Blocks until there is mail, or until it is time for a canary.
    ///
    /// # Errors
    /// When every handle is gone, so that no mail can come any more.
    pub(super) fn wait_for_mail(&mut self, clock: &dyn Clock) -> Result<(), RecvError> {
        self.canary.judge(&mut self.load);
        self.shared.publish(self.load);
        let Some(quiet) = self.config.canary_after.filter(|_| self.lost.is_none()) else {
            self.first_mail = Some(self.mailbox.recv()?);
            return Ok(());
        };
        match self.mailbox.recv_timeout(quiet) {
            Ok(mail) => self.first_mail = Some(mail),
            Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
            Err(RecvTimeoutError::Timeout) => {
                let cancels = Arc::clone(&self.shared.cancels);
                let submission = self.canary.submission(cancels, clock.now());
                self.scheduler.submit(submission);
            }
        }
        Ok(())
    }

    /// What made the device unusable; the engine then fails every request.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Steps that were submitted and not yet waited for.
    pub fn steps_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Asserts that all counters are what the sequences say (R41).
    ///
    /// # Panics
    /// When one is not.
    pub fn check(&self) {
        self.scheduler.check();
    }

    /// The last thing that an engine does: ends every request with an error.
    pub fn end(&mut self, message: &str) {
        self.load.alive = false;
        self.scheduler.fail_all(message);
        self.tidy_up(false);
    }

    /// After a panic in [`Engine::turn`]: starts over with an empty KV cache. Requests go on from
    /// the tokens that they have, those that were running at most once each (R8 L2).
    pub fn recover(&mut self, reason: &str) {
        self.output = StepOutput::default();
        while let Some(step) = self.in_flight.pop_front() {
            if let Err(DeviceError::Lost { reason }) = self.wait_for(step.plan.step) {
                self.lost = Some(reason);
                break;
            }
        }
        let fresh = Scheduler::new(self.config.clone(), self.device.limits().clone());
        let broken = std::mem::replace(&mut self.scheduler, fresh);
        self.scheduler.resume_from(broken, reason);
        self.scheduler.cost = self.load.cost;
        if let Some(reason) = self.lost.clone() {
            self.lose(reason);
        }
        self.load.restarts += 1;
        self.tidy_up(false);
    }

    pub(super) fn ends(&self) -> (Arc<Shared>, Receiver<Mail>) {
        (Arc::clone(&self.shared), self.mailbox.clone())
    }

    fn take_cancels(&mut self) {
        self.shared.cancels.take(&mut self.cancels);
        for (id, choice) in self.cancels.drain(..) {
            self.scheduler.cancel(id, choice);
        }
    }

    fn take_mail(&mut self) {
        for _ in 0..self.config.mail_per_turn_max {
            // More waiting requests than this stay in the mailbox, which then refuses others.
            if self.scheduler.queue.len() >= self.config.waiting_max {
                break;
            }
            let mail = self.first_mail.take().or_else(|| self.mailbox.try_recv().ok());
            match mail {
                Some(Mail::Submit(submission)) => self.submit(*submission),
                Some(Mail::Wake) => {}
                None => break,
            }
        }
    }

    fn submit(&mut self, submission: super::Submission) {
        match &self.lost {
            None => self.scheduler.submit(submission),
            Some(reason) => {
                let message = format!("the device is lost: {reason}");
                submission.reply.send(Event::Failed { message });
            }
        }
    }

    /// Submits the next step if there is one and it may be; whether it did.
    fn advance(&mut self, clock: &dyn Clock, now: Time) -> bool {
        if self.lost.is_some() {
            return false;
        }
        // A search for a culprit looks at one step at a time.
        let may_plan = self.scheduler.trial.is_none() || self.in_flight.is_empty();
        let submitted = may_plan && self.submit_next(clock, now);
        let goes_on = submitted || !self.in_flight.is_empty() || self.lost.is_some();
        let scheduler = &self.scheduler;
        let searches = scheduler.trial.is_some() || scheduler.report.step_faults > 0;
        assert!(
            goes_on || searches || scheduler.is_empty(),
            "nothing could be planned: {}",
            scheduler.summary()
        );
        submitted
    }

    fn submit_next(&mut self, clock: &dyn Clock, now: Time) -> bool {
        let mut step = self.spare.pop().unwrap_or_default();
        self.scheduler.plan(&mut step, now);
        if step.plan.is_empty() {
            self.spare.push(step);
            return false;
        }
        self.scheduler.step = step.plan.step;
        if self.in_flight.is_empty() {
            self.step_began = now;
            self.step_shape = step.shape;
        }
        if self.device.limits().computes_in_submit {
            self.tidy_up(true);
        }
        // The device reads the tables during this call alone.
        std::mem::swap(&mut step.plan.block_tables, &mut self.scheduler.tables);
        let submitted = self.device.submit(&step.plan);
        std::mem::swap(&mut step.plan.block_tables, &mut self.scheduler.tables);
        match submitted {
            Ok(()) => {
                self.in_flight.push_back(step);
                true
            }
            Err(DeviceError::Lost { reason }) => {
                self.lose(reason);
                false
            }
            Err(DeviceError::Step { reason, .. }) => {
                // The steps before it are well and come first.
                while !self.in_flight.is_empty() && self.lost.is_none() {
                    self.complete_oldest(clock);
                }
                self.step_failed(step, &reason);
                false
            }
        }
    }

    fn complete_oldest(&mut self, clock: &dyn Clock) {
        let Some(step) = self.in_flight.pop_front() else { return };
        let result = self.wait_for(step.plan.step);
        self.step_began = clock.now();
        self.step_shape = self.in_flight.front().map_or(step.shape, |next| next.shape);
        match result {
            Ok(()) => {
                self.scheduler.complete(&step, &mut self.output);
                if step.trial {
                    self.scheduler.clear_group();
                }
                let facts = StepFacts {
                    step: step.plan.step,
                    rows: step.rows(),
                    prefill_rows: step.prefill_rows,
                    decode_rows: step.decode_rows,
                    sequences: step.plan.spans.len() as u32,
                    elapsed: self.output.elapsed,
                    prediction_error: None,
                };
                self.note_step(&step, facts);
                self.spare.push(step);
            }
            Err(DeviceError::Lost { reason }) => self.lose(reason),
            Err(DeviceError::Step { reason, .. }) => self.oldest_failed(step, &reason),
        }
    }

    /// Takes a step back, and those that were submitted after it: they went on from results that
    /// do not exist.
    fn oldest_failed(&mut self, step: Step, reason: &str) {
        let followers: Vec<Step> = self.in_flight.drain(..).collect();
        for follower in &followers {
            if let Err(DeviceError::Lost { reason }) = self.wait_for(follower.plan.step) {
                self.lose(reason);
                return;
            }
        }
        self.step_failed(step, reason);
        for follower in followers {
            self.scheduler.roll_back(&follower);
            self.spare.push(follower);
        }
    }

    /// What can be done beside a step; `computes` says whether the device has one then.
    fn tidy_up(&mut self, computes: bool) {
        self.scheduler.tidy_up();
        self.publish_load(computes);
    }

    /// Waits for a step, past those that a panic left in flight.
    fn wait_for(&mut self, step: u64) -> Result<(), DeviceError> {
        loop {
            let result = self.device.wait(&mut self.output);
            let answered = match &result {
                Ok(()) => self.output.step,
                Err(DeviceError::Step { step, .. }) => *step,
                Err(DeviceError::Lost { .. }) => return result,
            };
            assert!(answered <= step, "steps complete in the order of their submission");
            if answered == step {
                return result;
            }
        }
    }

    fn step_failed(&mut self, step: Step, reason: &str) {
        self.scheduler.report.step_faults += 1;
        self.scheduler.roll_back(&step);
        self.scheduler.search_culprit(&step, reason);
        self.spare.push(step);
    }

    fn lose(&mut self, reason: String) {
        self.in_flight.clear();
        self.scheduler.trial = None;
        self.scheduler.fail_all(&format!("the device is lost: {reason}"));
        self.lost = Some(reason);
    }

    fn note_step(&mut self, step: &Step, mut facts: StepFacts) {
        let (pace, load, scheduler) = (&mut self.pace, &mut self.load, &mut self.scheduler);
        pace.note_step(step, &mut facts, load);
        scheduler.report.step = Some(facts);
        scheduler.report.prompt_tokens += u64::from(facts.prefill_rows);
        pace.average(&facts, &scheduler.report, scheduler.released, load);
        scheduler.cost = load.cost;
        for tenant in scheduler.sick.drain(..) {
            self.soundness.note(self.step_began, tenant);
            let known = scheduler.queue.tenants.len() as u32;
            load.unsound_until = self.soundness.unsound_until(known);
        }
    }

    fn publish_load(&mut self, computes: bool) {
        self.load.step_began = computes.then_some(self.step_began);
        let predicts = computes && self.load.cost.is_warm();
        self.load.step_predicted = predicts.then(|| self.load.cost.predict(&self.step_shape));
        self.scheduler.describe(&mut self.load);
        if computes {
            self.scheduler.name_running(&mut self.shared.running());
        }
        self.shared.publish(self.load);
    }
}
