//! Requests that outlive a panic of the engine's thread.

use super::reply::Event;
use super::scheduler::Scheduler;
use super::slab::Slab;
use crate::ids::TokenId;

impl Scheduler {
    /// Takes the requests over from a scheduler that panicked, with the tokens that their callers
    /// were sent. A request that was running then is resubmitted once; the second time it may be
    /// the cause, and ends with an error. The broken scheduler's lists and counters are not
    /// believed.
    pub fn resume_from(&mut self, broken: Scheduler, reason: &str) {
        self.step = broken.step;
        self.report = broken.report;
        // What was sent before the panic is on its way.
        self.outbox = broken.outbox;
        let mut seqs = broken.seqs;
        let mut requests: Vec<_> = into_values(broken.requests).collect();
        requests.sort_by_key(|request| request.arrival);
        for mut request in requests {
            if !request.waiting && std::mem::replace(&mut request.resubmitted, true) {
                self.report.failed += 1;
                let message = format!("the engine failed twice while this request ran: {reason}");
                self.outbox.send(request.reply, Event::Failed { message });
                continue;
            }
            let choices = std::mem::take(&mut request.choices);
            let generated: Vec<Option<Vec<TokenId>>> = choices
                .iter()
                .map(|choice| {
                    choice.and_then(|seq| seqs.remove(seq)).map(|seq| seq.generated.into())
                })
                .collect();
            // A choice that the panic interrupted between its last token and its end.
            let over = generated.iter().flatten().any(|tokens| {
                let count = tokens.len() as u32;
                let stopped = tokens.last().is_some_and(|last| request.stops.ends(*last, count));
                stopped || (request.max_tokens > 0 && count >= request.max_tokens)
            });
            let lost = generated.iter().all(Option::is_none);
            if over || lost {
                self.report.failed += 1;
                let message = format!("the engine failed while this request ended: {reason}");
                self.outbox.send(request.reply, Event::Failed { message });
                continue;
            }
            request.flow = self.queue.flow_like(&broken.queue, request.flow, &mut self.pool);
            request.lead = None;
            let longest = generated.iter().flatten().map(Vec::len).max();
            // What it is charged for was computed once already.
            request.charged_to = request.prompt_tokens() + longest.unwrap_or(0) as u32;
            if !request.started {
                request.charged_to = 0;
            }
            request.pledged_s = 0.0;
            request.blocks_reserved = 0;
            request.backlog_tokens = 0;
            request.choices = vec![None; generated.len()];
            self.adopt(request, generated);
        }
    }
}

fn into_values<T>(mut slab: Slab<T>) -> impl Iterator<Item = T> {
    let indices: Vec<u32> = slab.iter().map(|(index, _)| index).collect();
    indices.into_iter().filter_map(move |index| slab.remove(index))
}
