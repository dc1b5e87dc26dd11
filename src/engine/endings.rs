//! How requests and their choices end: by themselves, by their callers, by time, by a fault.

use std::cmp::Reverse;

use super::reply::{Event, FinishReason};
use super::scheduler::{Scheduler, waits};
use super::sequence::Phase;
use crate::clock::Time;
use crate::ids::RequestId;

impl Scheduler {
    /// Ends a request whose caller left, or one choice of it.
    pub fn cancel(&mut self, id: RequestId, choice: Option<u32>) {
        let Some(&index) = self.by_id.get(&id) else { return };
        match choice {
            None => {
                self.report.cancelled += 1;
                self.end_request(index, None);
            }
            Some(choice) => {
                let seq = self.requests[index].choices.get(choice as usize).copied().flatten();
                if let Some(seq) = seq {
                    self.end_choice(seq, FinishReason::Stopped);
                }
            }
        }
    }

    /// Ends the requests whose deadline has come, and those that should have started.
    pub fn expire(&mut self, now: Time) {
        while let Some(&Reverse((deadline, index, id))) = self.deadlines.peek() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            if self.requests.get(index).is_some_and(|request| request.id == id) {
                self.report.expired += 1;
                self.end_all_choices(index, FinishReason::Deadline);
            }
        }
        while let Some(late) = self.promises.take_broken(&self.requests, now) {
            self.report.late += 1;
            self.end_all_choices(late.index, FinishReason::Late);
        }
        // Most requests end before their deadline, and their entries would pile up.
        if self.deadlines.len() > 2 * self.requests.len() + 1024 {
            let requests = &self.requests;
            self.deadlines.retain(|Reverse((_, index, id))| {
                requests.get(*index).is_some_and(|request| request.id == *id)
            });
        }
    }

    /// Ends every request with an error.
    pub fn fail_all(&mut self, message: &str) {
        let all: Vec<u32> = self.requests.iter().map(|(index, _)| index).collect();
        for index in all {
            self.fail(index, message);
        }
    }

    /// Ends a request with an error.
    pub fn fail(&mut self, index: u32, message: &str) {
        self.report.failed += 1;
        self.end_request(index, Some(Event::Failed { message: message.to_owned() }));
    }

    /// Ends all choices of a request for the same reason.
    pub fn end_all_choices(&mut self, index: u32, reason: FinishReason) {
        for choice in 0..self.requests[index].choices.len() {
            // The request is gone after its last choice.
            let Some(request) = self.requests.get(index) else { break };
            if let Some(seq) = request.choices[choice] {
                self.end_choice(seq, reason);
            }
        }
    }

    /// Ends a choice, and its request when it was the last one.
    pub fn end_choice(&mut self, seq_index: u32, reason: FinishReason) {
        let seq = &self.seqs[seq_index];
        let (request_index, choice) = (seq.request, seq.choice);
        let generated = seq.generated.len();
        let request = &mut self.requests[request_index];
        request.usage.generated_tokens += generated;
        self.outbox.send(request.reply, Event::Finished { choice, reason });
        request.choices[choice as usize] = None;
        request.unfinished -= 1;
        let is_lead = request.lead == Some(seq_index);
        if request.unfinished == 0 {
            // Not found through the choices any more; the lead is found by itself.
            if !is_lead {
                self.remove_seq(seq_index);
            }
            self.report.done += 1;
            let usage = self.requests[request_index].usage;
            self.end_request(request_index, Some(Event::Done(usage)));
        } else if is_lead && self.has_unborn(request_index) {
            self.end_lead(seq_index);
        } else {
            if is_lead {
                self.requests[request_index].lead = None;
            }
            self.remove_seq(seq_index);
        }
    }

    /// Releases all that a request holds and tells it so; `None` when nobody listens any more.
    pub fn end_request(&mut self, index: u32, event: Option<Event>) {
        let request = &mut self.requests[index];
        let lead = request.lead.take();
        let choices = std::mem::take(&mut request.choices);
        for seq in choices.iter().copied().flatten().filter(|seq| Some(*seq) != lead) {
            self.remove_seq(seq);
        }
        if let Some(lead) = lead {
            self.remove_seq(lead);
        }
        let request = self.requests.remove(index).expect("a request ends once");
        self.by_id.remove(&request.id);
        self.blocks_reserved -= request.blocks_reserved;
        self.backlog_tokens -= u64::from(request.backlog_tokens);
        if !request.waiting {
            self.objectives.remove(request.tpot);
        } else {
            let requests = &self.requests;
            self.queue.forget(request.flow, |key| waits(requests, key));
        }
        self.queue.refund(request.flow, request.pledged_s);
        self.queue.tenants[request.flow.tenant()].requests -= 1;
        match event {
            Some(event) => self.outbox.send(request.reply, event),
            None => self.outbox.close(request.reply),
        }
    }

    /// Lets a lead whose choice ended go on for the sake of the others, up to the prompt's end.
    fn end_lead(&mut self, index: u32) {
        let prompt_tokens = self.requests[self.seqs[index].request].prompt_tokens();
        let seq = &mut self.seqs[index];
        seq.ended = true;
        seq.known = prompt_tokens;
        seq.generated.clear();
        if seq.phase == Phase::Decode {
            self.set_phase(index, Phase::Prefill);
        }
    }
}
