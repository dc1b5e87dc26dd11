//! After a step that the device could not run: which request makes it fail? The requests of the
//! failed step run again in halves, until the culprit runs, and fails, alone (R8 L1).

use super::request::RequestKey;
use super::scheduler::Scheduler;
use super::sequence::Phase;
use super::step::{Part, Step};

/// Groups of requests that have to run a step without the others, the next one last.
#[derive(Debug)]
pub(super) struct Trial {
    groups: Vec<Vec<RequestKey>>,
    /// Failures since a group last succeeded.
    failures: u32,
    /// Failures without any success that show that no single request is the cause.
    failures_max: u32,
}

impl Scheduler {
    /// Takes back a step that failed, or whose results are worthless because an earlier one did:
    /// its sequences are where they were before it.
    pub fn roll_back(&mut self, step: &Step) {
        self.pool.completed(step.plan.step);
        for part in step.all_parts() {
            if self.part_is_current(&part) {
                self.roll_back_part(&part);
            }
        }
        for key in step.nexts.iter().map(|next| next.seq) {
            if let Some(seq) = self.seqs.get_mut(key.index)
                && seq.id == key.id
            {
                seq.sampling = 0;
                seq.slot_ready = false;
            }
        }
    }

    /// Begins or goes on with the search for the culprit after `step` failed with `reason`.
    pub fn search_culprit(&mut self, step: &Step, reason: &str) {
        let Some(trial) = &mut self.trial else {
            let suspects = self.requests_of(step);
            let halvings = suspects.len().next_power_of_two().trailing_zeros();
            let groups = if suspects.len() == 1 { vec![suspects] } else { halves(suspects) };
            self.trial = Some(Trial { groups, failures: 1, failures_max: 2 * halvings + 3 });
            return;
        };
        trial.failures += 1;
        let group = trial.groups.pop().unwrap_or_default();
        if trial.failures > trial.failures_max {
            // Whatever it is, it is not one request.
            let all: Vec<_> = trial.groups.drain(..).flatten().chain(group).collect();
            self.trial = None;
            for key in all {
                self.fail_suspect(key, reason);
            }
        } else if group.len() > 1 {
            trial.groups.extend(halves(group));
        } else {
            for key in group {
                self.fail_suspect(key, reason);
            }
        }
    }

    /// Notes that the step of the current group succeeded.
    pub fn clear_group(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.failures = 0;
            trial.groups.pop();
            if trial.groups.is_empty() {
                self.trial = None;
            }
        }
    }

    /// Plans a step of the current group alone; false when the search has ended.
    pub(super) fn plan_trial(&mut self, step: &mut Step) -> bool {
        while let Some(trial) = &self.trial {
            let group = trial.groups.last().cloned().unwrap_or_default();
            for key in group {
                let request = self.requests.get(key.index).filter(|r| r.id == key.id);
                let Some(request) = request else { continue };
                let lead = request.lead.filter(|lead| self.seqs[*lead].ended);
                let choices: Vec<u32> = request.choices.iter().copied().flatten().collect();
                for index in choices.into_iter().chain(lead) {
                    match self.seqs[index].phase {
                        _ if step.rows() >= self.rows_max => break,
                        Phase::Decode => self.plan_decode(step, index),
                        Phase::Prefill => self.plan_chunk(step, index),
                        Phase::Waiting | Phase::Unborn => {}
                    }
                }
            }
            if step.rows() > 0 {
                return true;
            }
            // Its requests have ended, or wait.
            self.clear_group();
        }
        false
    }

    fn roll_back_part(&mut self, part: &Part) {
        let index = part.seq.index;
        let seq = &mut self.seqs[index];
        let was_waiting = matches!(seq.phase, Phase::Waiting | Phase::Unborn);
        let lost = seq.scheduled - seq.computed;
        seq.scheduled = seq.computed;
        seq.sampling = 0;
        seq.slot_ready = false;
        if part.forks {
            // The copy may not have happened, so that it has to be made again.
            let prompt_tokens = self.requests[seq.request].prompt_tokens();
            let shared = prompt_tokens / self.limits.block_size_tokens;
            seq.tabled = seq.tabled.min(shared);
            for block in seq.blocks.take_from(shared) {
                self.queue.tenants[seq.flow.tenant()].blocks -= 1;
                self.pool.release(block, self.step);
            }
        }
        if was_waiting {
            return;
        }
        let several = seq.unscheduled() > 1 || seq.generated.is_empty();
        let phase = if several { Phase::Prefill } else { Phase::Decode };
        let request = &mut self.requests[seq.request];
        if phase == Phase::Prefill {
            request.backlog_tokens += lost;
            self.backlog_tokens += u64::from(lost);
        }
        if self.seqs[index].phase != phase {
            self.set_phase(index, phase);
        }
    }

    fn requests_of(&self, step: &Step) -> Vec<RequestKey> {
        let mut requests: Vec<RequestKey> = Vec::new();
        for part in step.all_parts() {
            let Some(seq) = self.seqs.get(part.seq.index) else { continue };
            let index = seq.request;
            let known = requests.iter().any(|key| key.index == index);
            if seq.id == part.seq.id && !known {
                requests.push(RequestKey { index, id: self.requests[index].id });
            }
        }
        requests
    }

    fn fail_suspect(&mut self, key: RequestKey, reason: &str) {
        if self.requests.get(key.index).is_some_and(|request| request.id == key.id) {
            self.fail(key.index, &format!("the device could not run this request: {reason}"));
        }
    }
}

fn halves(mut group: Vec<RequestKey>) -> Vec<Vec<RequestKey>> {
    let second = group.split_off(group.len() / 2);
    // The first half runs first, so it goes last.
    vec![second, group]
}
