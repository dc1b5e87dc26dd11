//! Which waiting request starts: the next in fair order that fits, with room kept for one that
//! was overtaken often enough.

use std::time::Duration;

use super::policy;
use super::queue::Flow;
use super::reply::Event;
use super::request::{RequestKey, blocks_max};
use super::scheduler::{Blocked, Scheduler, waits};
use super::sequence::Phase;
use super::step::Step;
use crate::clock::Time;

/// Tenants whose first request may be found not to fit in one step.
const TRIED_MAX: u32 = 8;
/// Steps after which a request that lacked blocks looks into the prefix cache again.
const LOOK_AGAIN_STEPS: u64 = 16;
/// Until a promised request is looked at again whose tenant holds all the blocks that it may.
const OVER_SHARE_PAUSE: Duration = Duration::from_millis(10);
/// Cached blocks that a request's preference before others is measured by.
const HINT_BLOCKS_MAX: u32 = 64;

impl Scheduler {
    /// Starts waiting requests while rows, slots and blocks allow.
    pub(super) fn admit(&mut self, step: &mut Step, now: Time) {
        self.queue.reckon_batch();
        if !self.keep_promises(step, now) {
            return;
        }
        let mut tried = 0;
        let requests = &self.requests;
        self.blocked = self.blocked.filter(|blocked| waits(requests, blocked.request));
        while step.prefill_room(self.rows_max) > 0
            && !self.slots_free.is_empty()
            && self.queue.len() > 0
        {
            let requests = &self.requests;
            let Some((flow, key)) = self.queue.head(|key| waits(requests, key)) else { break };
            if !self.within_share(key.index) {
                // Until its tenant gives blocks back; nobody waits for that.
                self.queue.park(flow);
                continue;
            }
            if let Some(blocked) = self.room_kept(now)
                && blocked.request != key
                && blocked.flow.class() <= flow.class()
            {
                if self.queue_head_is(blocked) {
                    self.admit_blocked(step, blocked);
                    break;
                }
                continue;
            }
            let (flow, key) = self.choose(flow, key);
            if self.fits(key.index) {
                self.queue.take(flow);
                self.note_overtaking(key);
                self.start(step, key.index);
                continue;
            }
            if self.blocked.is_none() {
                self.blocked = Some(Blocked { flow, request: key, since: now, overtaken: 0 });
            }
            tried += 1;
            if tried == TRIED_MAX || self.room_kept(now).is_some() {
                break;
            }
            self.queue.set_aside(flow);
        }
        self.queue.restore();
    }

    /// Starts the requests whose promise is about to be broken, unless room is kept for another
    /// one. False when the next of them does not fit: nobody else then takes what is freed, which
    /// lasts at most until the promise is broken.
    fn keep_promises(&mut self, step: &mut Step, now: Time) -> bool {
        while step.prefill_room(self.rows_max) > 0 && !self.slots_free.is_empty() {
            let Some(key) = self.promises.most_urgent(&self.requests, now) else { return true };
            if self.room_kept(now).is_some_and(|blocked| blocked.request != key) {
                return true;
            }
            if !self.within_share(key.index) {
                // Its tenant's doing, for which nobody else waits.
                self.promises.put_off(now.plus(OVER_SHARE_PAUSE));
                continue;
            }
            if !self.fits(key.index) {
                return false;
            }
            self.note_overtaking(key);
            let flow = self.requests[key.index].flow;
            self.start(step, key.index);
            let requests = &self.requests;
            self.queue.forget(flow, |key| waits(requests, key));
        }
        true
    }

    fn room_kept(&self, now: Time) -> Option<Blocked> {
        let config = &self.config;
        let (overtakes, time) = (config.overtakes_max, config.overtaking_max);
        self.blocked.filter(|blocked| {
            policy::keeps_room(blocked.overtaken, now.since(blocked.since), overtakes, time)
        })
    }

    /// Whether the blocked request is still the first of its tenant; a more urgent one of the
    /// same tenant takes its place.
    fn queue_head_is(&mut self, blocked: Blocked) -> bool {
        let requests = &self.requests;
        let head = self.queue.head_of(blocked.flow, |key| waits(requests, key));
        if head != Some(blocked.request) {
            self.blocked = None;
        }
        head == Some(blocked.request)
    }

    fn admit_blocked(&mut self, step: &mut Step, blocked: Blocked) {
        if !self.within_share(blocked.request.index) {
            self.blocked = None;
        } else if self.fits(blocked.request.index) {
            self.queue.take(blocked.flow);
            self.blocked = None;
            self.start(step, blocked.request.index);
        }
    }

    /// Of the flows whose turn it is, give or take one chunk of prefill, the one whose first
    /// request finds most in the prefix cache; the head, unless another has more and fits.
    fn choose(&mut self, head: Flow, key: RequestKey) -> (Flow, RequestKey) {
        if !self.pool.caching() || self.pool.cached() == 0 {
            return (head, key);
        }
        let prices = self.cost.prices();
        let chunk_s = prices.fixed_s + prices.prefill_s(self.rows_max, 0);
        let requests = &self.requests;
        let rivals = self.queue.rivals(head, chunk_s, |key| waits(requests, key));
        let (mut chosen, mut most) = ((head, key), None);
        for rival in rivals.into_iter().flatten() {
            let least = *most.get_or_insert_with(|| self.cached_hint(key.index));
            let hits = self.cached_hint(rival.1.index);
            if hits > least && self.within_share(rival.1.index) && self.fits(rival.1.index) {
                (chosen, most) = (rival, Some(hits));
            }
        }
        chosen
    }

    /// Cached blocks at a waiting request's beginning, as of the last steps; at most a few.
    fn cached_hint(&mut self, index: u32) -> u32 {
        let (step, hits) = self.requests[index].cached_hint;
        if step > 0 && self.step < step + LOOK_AGAIN_STEPS {
            return hits;
        }
        self.find_prefix(index, HINT_BLOCKS_MAX);
        let hits = self.found.len() as u32;
        self.requests[index].cached_hint = (self.step.max(1), hits);
        hits
    }

    /// Whether a waiting request's tenant may hold its blocks besides those that it has. A tenant
    /// that holds nothing may always start a request, so that none waits for ever.
    fn within_share(&self, index: u32) -> bool {
        let tenant = &self.queue.tenants[self.requests[index].flow.tenant()];
        if tenant.share.kv_share >= 1.0 || tenant.blocks == 0 {
            return true;
        }
        let most = f64::from(self.pool.total()) * tenant.share.kv_share;
        f64::from(tenant.blocks + self.blocks_wanted(index)) <= most
    }

    fn note_overtaking(&mut self, started: RequestKey) {
        match &mut self.blocked {
            Some(blocked) if blocked.request == started => self.blocked = None,
            Some(blocked) => blocked.overtaken += 1,
            None => {}
        }
    }

    /// Whether a waiting request finds slots and blocks now. Leaves the prefix blocks that it
    /// would use in `found`.
    fn fits(&mut self, index: u32) -> bool {
        let request = &self.requests[index];
        if request.unfinished as usize > self.slots_free.len() {
            return false;
        }
        // One that was preempted while a step was in flight waits for that step's token.
        if request.choices.iter().flatten().any(|seq| self.seqs[*seq].sampling > 0) {
            return false;
        }
        let nothing_runs = self.decoding.is_empty() && self.prefilling.is_empty();
        let spare = self.pool.available() - self.blocks_reserved;
        let look_again = self.step.is_multiple_of(LOOK_AGAIN_STEPS);
        if spare < request.blocks_lacking && !nothing_runs && !look_again {
            return false;
        }
        self.find_prefix(index, u32::MAX);
        let hits = self.found.len() as u32;
        let unowned = self.pool.unowned(&self.found);
        let kept = if nothing_runs { 0 } else { policy::blocks_kept_free(self.pool.total()) };
        let lacking = self.blocks_wanted(index).saturating_sub(hits) + unowned + kept;
        self.requests[index].blocks_lacking = lacking;
        lacking <= spare
    }

    /// Blocks to start (or, when it may not be preempted again, to finish) without prefix hits.
    fn blocks_wanted(&self, index: u32) -> u32 {
        let size = self.limits.block_size_tokens;
        let request = &self.requests[index];
        let prompt = request.prompt_tokens();
        if request.usage.preemptions >= policy::PREEMPTIONS_MAX {
            let most = blocks_max(prompt, request.max_tokens, request.unfinished, size);
            return most as u32;
        }
        let shared = prompt / size;
        let seqs = request.choices.iter().copied().flatten();
        let own = seqs.map(|seq| self.pool.blocks_for(self.seqs[seq].known + 1) - shared);
        // Rounded up above what a request can ever use, when it may generate nothing.
        (shared + own.sum::<u32>()).min(self.pool.total())
    }

    /// Finds the cached blocks of a request's first choice. At least one token is left to
    /// compute, and none of the cache is used for prompts whose rows are to be scored.
    fn find_prefix(&mut self, index: u32, blocks_max: u32) {
        self.found.clear();
        let request = &self.requests[index];
        let Some(lead) = request.choices.iter().copied().flatten().next() else { return };
        if request.scores_wanted() {
            return;
        }
        let seq = &self.seqs[lead];
        let usable = if request.unfinished > 1 { request.prompt_tokens() } else { seq.known };
        let blocks_max = blocks_max.min((usable - 1) / self.limits.block_size_tokens);
        let tokens = request.prompt.iter().copied().chain(seq.generated.iter());
        let end = self.pool.find(request.root, tokens, blocks_max, &mut self.found);
        let seq = &mut self.seqs[lead];
        seq.published_end = end;
    }

    /// Gives a request that fits its slots and the blocks of its first choice, and puts its first
    /// rows into the step.
    fn start(&mut self, step: &mut Step, index: u32) {
        let hits = self.found.len() as u32;
        let hit_tokens = hits * self.limits.block_size_tokens;
        let lead = self.take_slots(index);
        let known = self.seqs[lead].known;
        for block in &self.found {
            self.pool.take(*block);
        }
        let seq = &mut self.seqs[lead];
        assert_eq!(seq.sampling, 0, "a request starts with nothing in flight");
        self.queue.tenants[seq.flow.tenant()].blocks += hits;
        seq.blocks.extend(&self.found);
        seq.scheduled = hit_tokens;
        seq.computed = hit_tokens;
        seq.finite = hit_tokens;
        seq.published = hits;
        self.pledge(index, known, hit_tokens);
        let request = &mut self.requests[index];
        request.lead = Some(lead);
        request.waiting = false;
        let settled = hit_tokens.min(request.backlog_tokens);
        request.backlog_tokens -= settled;
        self.backlog_tokens -= u64::from(settled);
        self.report.prefix_query_tokens += u64::from(known);
        self.report.prefix_hit_tokens += u64::from(hit_tokens);
        if request.usage.preemptions >= policy::PREEMPTIONS_MAX {
            let size = self.limits.block_size_tokens;
            let most =
                blocks_max(request.prompt_tokens(), request.max_tokens, request.unfinished, size);
            request.blocks_reserved = (most as u32).saturating_sub(hits);
            self.blocks_reserved += request.blocks_reserved;
        }
        self.objectives.add(request.tpot);
        if !request.started {
            request.started = true;
            request.usage.cached_tokens = hit_tokens;
            self.report.started += 1;
            let event = Event::Started { cached_tokens: hit_tokens };
            self.outbox.send(request.reply, event);
        }
        let blocks = self.pool.blocks_for(known) - hits;
        let grown = self.grow(lead, blocks);
        assert!(grown, "a request that fits finds its blocks");
        self.plan_chunk(step, lead);
    }

    /// Gives each unfinished choice a slot; the first of them computes the prompt.
    fn take_slots(&mut self, index: u32) -> u32 {
        let mut lead = None;
        for choice in 0..self.requests[index].choices.len() {
            let Some(seq) = self.requests[index].choices[choice] else { continue };
            let slot = self.slots_free.pop().expect("a request that fits finds its slots");
            self.seqs[seq].slot = slot;
            let first = lead.is_none();
            lead = lead.or(Some(seq));
            self.seqs[seq].bears = first && self.requests[index].unfinished > 1;
            self.set_phase(seq, if first { Phase::Prefill } else { Phase::Unborn });
        }
        lead.expect("a waiting request has an unfinished choice")
    }
}
