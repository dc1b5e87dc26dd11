//! All requests, sequences and blocks, and the phases of their lives. Planning a step
//! is in `plan.rs`, taking in its result in `complete.rs`, the ends of lives in `endings.rs`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::block_list::BlockList;
use super::blocks::BlockPool;
use super::charges::Charges;
use super::cost::CostModel;
use super::objective::Objectives;
use super::outbox::Outbox;
use super::pace::Released;
use super::promise::Promises;
use super::queue::{FairQueue, Flow};
use super::reply::{Event, Usage};
use super::report::TurnReport;
use super::request::{Request, RequestKey};
use super::sequence::{Phase, SeqKey, Sequence, StopFilter};
use super::settings::EngineConfig;
use super::slab::Slab;
use super::submission::Submission;
use super::trial::Trial;
use crate::clock::Time;
use crate::device::DeviceLimits;
use crate::ids::{BlockId, RequestId, SeqId, SlotId, TenantId, TokenId};

/// See the module. Holds no device and no clock: a step is planned, run by somebody, completed.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) config: EngineConfig,
    pub(super) limits: DeviceLimits,
    /// Rows in one step at most.
    pub(super) rows_max: u32,
    pub(super) pool: BlockPool,
    pub(super) requests: Slab<Request>,
    pub(super) seqs: Slab<Sequence>,
    pub(super) by_id: HashMap<RequestId, u32>,
    pub(super) queue: FairQueue,
    pub(super) slots_free: Vec<SlotId>,
    /// Sequences with unscheduled tokens, oldest request first.
    pub(super) prefilling: Vec<u32>,
    pub(super) decoding: Vec<u32>,
    /// Where the next step begins among the decoding ones, when not all fit in a step.
    pub(super) decode_start: usize,
    pub(super) steps_without_prefill: u32,
    /// Deadlines of all requests, and of some that ended earlier.
    pub(super) deadlines: BinaryHeap<Reverse<(Time, u32, RequestId)>>,
    pub(super) promises: Promises,
    pub(super) objectives: Objectives,
    /// The request that others may overtake for a while, because it does not fit (R39).
    pub(super) blocked: Option<Blocked>,
    /// Blocks promised to requests that may not be preempted again.
    pub(super) blocks_reserved: u32,
    pub(super) backlog_tokens: u64,
    /// The search for a request that makes steps fail, while there is one.
    pub(super) trial: Option<Trial>,
    /// The block tables of all slots, a row for each; lent to a plan while it is submitted, so
    /// that a step costs no copy of what the last one already had.
    pub(super) tables: Vec<BlockId>,
    /// Entries of a row: the blocks of the longest context.
    pub(super) table_stride: u32,
    /// Number of the last step that was submitted.
    pub(super) step: u64,
    /// Scratch of the prefix look-up.
    pub(super) found: Vec<BlockId>,
    /// Sequences with full blocks that the prefix cache was not offered yet.
    pub(super) unpublished: Vec<SeqKey>,
    /// Sequences whose blocks the last step filled.
    pub(super) full: Vec<SeqKey>,
    pub(super) outbox: Outbox,
    /// What work costs, as far as it is known.
    pub(super) cost: CostModel,
    /// What rows of the step that is being completed cost.
    pub(super) charges: Charges,
    pub(super) released: Released,
    /// Tenants of requests that ended because a row was not finite, until the engine takes note.
    pub(super) sick: Vec<TenantId>,
    next_seq: u64,
    next_arrival: u64,
    pub(super) report: TurnReport,
}

/// See [`Scheduler::blocked`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocked {
    pub flow: Flow,
    pub request: RequestKey,
    pub since: Time,
    pub overtaken: u32,
}

impl Scheduler {
    /// With nothing to do.
    pub fn new(config: EngineConfig, limits: DeviceLimits) -> Self {
        let slots = config.running_max.min(limits.slots_total);
        let rows_max = config.step_rows_max.min(limits.step_rows_max);
        assert!(slots > 0 && rows_max > 0, "a step has room for a sequence");
        let table_stride = limits.context_tokens_max.div_ceil(limits.block_size_tokens);
        let entries = slots.checked_mul(table_stride).expect("block tables have 32-bit places");
        Self {
            pool: BlockPool::new(
                limits.blocks_total,
                limits.block_size_tokens,
                config.cache_secret,
                config.prefix_caching,
            ),
            rows_max,
            requests: Slab::new(),
            seqs: Slab::new(),
            by_id: HashMap::new(),
            queue: FairQueue::new(config.tenants_max),
            slots_free: (0..slots).rev().map(SlotId).collect(),
            prefilling: Vec::with_capacity(slots as usize),
            decoding: Vec::with_capacity(slots as usize),
            decode_start: 0,
            steps_without_prefill: 0,
            deadlines: BinaryHeap::new(),
            promises: Promises::default(),
            objectives: Objectives::default(),
            blocked: None,
            blocks_reserved: 0,
            backlog_tokens: 0,
            trial: None,
            tables: vec![BlockId(0); entries as usize],
            table_stride,
            step: 0,
            found: Vec::new(),
            unpublished: Vec::new(),
            full: Vec::new(),
            outbox: Outbox::new(),
            cost: CostModel::default(),
            charges: Charges::default(),
            released: Released::default(),
            sick: Vec::new(),
            next_seq: 0,
            next_arrival: 0,
            report: TurnReport::default(),
            config,
            limits,
        }
    }

    /// Takes a request, or fails it at once when it can never run.
    pub fn submit(&mut self, submission: Submission) {
        self.report.submitted += 1;
        if submission.reply.is_closed() {
            self.report.cancelled += 1;
            return;
        }
        if let Some(message) = submission.refusal(&self.limits, self.config.running_max) {
            let reply = self.outbox.open(submission.reply);
            self.outbox.send(reply, Event::Failed { message });
            self.report.failed += 1;
            return;
        }
        let root = self.pool.root(submission.tenant, &submission.cache_salt);
        let flow = self.queue.flow(submission.tenant, submission.share, &mut self.pool);
        let prompt_tokens = submission.prompt.len() as u32;
        let choices = submission.params.len();
        self.next_arrival += 1;
        let request = Request {
            id: submission.id,
            flow,
            root,
            prompt: submission.prompt,
            params: submission.params,
            max_tokens: submission.max_tokens,
            stops: submission.stops,
            score_prompt: submission.score_prompt,
            priority: submission.priority,
            arrival: self.next_arrival,
            deadline: submission.deadline,
            promise: submission.promise,
            tpot: submission.tpot,
            reply: self.outbox.open(submission.reply),
            choices: vec![None; choices],
            unfinished: choices as u32,
            lead: None,
            waiting: false,
            started: false,
            resubmitted: false,
            scores_sent: 0,
            backlog_tokens: 0,
            blocks_reserved: 0,
            blocks_lacking: 0,
            charged_to: 0,
            pledged_s: 0.0,
            cached_hint: (0, 0),
            usage: Usage { prompt_tokens, ..Usage::default() },
        };
        let generated = (0..choices).map(|_| Some(Vec::new())).collect();
        self.adopt(request, generated);
    }

    /// Puts a request into the queue whose unfinished choices have generated these tokens
    /// (`None`: the choice has ended).
    pub fn adopt(&mut self, mut request: Request, generated: Vec<Option<Vec<TokenId>>>) {
        let prompt_tokens = request.prompt_tokens();
        let last_prompt = request.prompt[request.prompt.len() - 1];
        let (id, root, tokens_max) = (request.id, request.root, request.max_tokens);
        let (deadline, flow, reply) = (request.deadline, request.flow, request.reply);
        self.queue.tenants[flow.tenant()].requests += 1;
        let promise = request.promise.filter(|_| !request.started);
        let stop_filter = StopFilter::new(&request.stops);
        request.choices.fill(None);
        request.unfinished = 0;
        self.next_arrival = self.next_arrival.max(request.arrival);
        let index = self.requests.insert(request);
        for (choice, generated) in generated.into_iter().enumerate() {
            let Some(generated) = generated else { continue };
            self.next_seq += 1;
            let seq = self.seqs.insert(Sequence {
                id: SeqId(self.next_seq),
                request: index,
                choice: choice as u32,
                flow,
                reply,
                stop_filter,
                bears: false,
                phase: Phase::Waiting,
                place: 0,
                slot: SlotId(0),
                slot_ready: false,
                ended: false,
                known: prompt_tokens + generated.len() as u32,
                scheduled: 0,
                computed: 0,
                finite: 0,
                sampling: 0,
                last_token: generated.last().copied().unwrap_or(last_prompt),
                tokens_max,
                epoch: 0,
                generated: generated.into(),
                blocks: BlockList::default(),
                uncounted: 0,
                tabled: 0,
                forks: false,
                fork_source: None,
                published: 0,
                published_end: root,
            });
            let request = &mut self.requests[index];
            request.choices[choice] = Some(seq);
            request.unfinished += 1;
        }
        self.by_id.insert(id, index);
        if let Some(promise) = promise {
            self.promises.add(promise, RequestKey { index, id });
        }
        if let Some(deadline) = deadline {
            self.deadlines.push(Reverse((deadline, index, id)));
        }
        self.wait_in_queue(index);
    }

    /// What can be done while the device computes: nothing of it decides the next step.
    pub fn tidy_up(&mut self) {
        self.publish_due();
        self.grow_full();
        self.pool.refill_free();
        self.outbox.deliver();
    }

    /// Takes a running request's blocks and slots and lets it wait; its tokens stay.
    pub fn preempt(&mut self, index: u32) {
        let request = &mut self.requests[index];
        let lead = request.lead.take();
        self.blocks_reserved -= std::mem::take(&mut request.blocks_reserved);
        if let Some(lead) = lead
            && self.seqs[lead].ended
        {
            self.remove_seq(lead);
        }
        self.settle_pledge(index);
        self.objectives.remove(self.requests[index].tpot);
        for choice in 0..self.requests[index].choices.len() {
            let Some(seq_index) = self.requests[index].choices[choice] else { continue };
            self.release_seq(seq_index);
            let charged_to = &mut self.requests[index].charged_to;
            *charged_to = self.seqs[seq_index].known.max(*charged_to);
            let root = self.requests[index].root;
            let seq = &mut self.seqs[seq_index];
            seq.epoch += 1;
            seq.scheduled = 0;
            seq.computed = 0;
            seq.finite = 0;
            seq.published = 0;
            seq.published_end = root;
        }
        self.wait_in_queue(index);
    }

    /// Whether a choice waits for the request's lead.
    pub fn has_unborn(&self, index: u32) -> bool {
        let choices = &self.requests[index].choices;
        choices.iter().flatten().any(|seq| self.seqs[*seq].phase == Phase::Unborn)
    }

    /// Removes a sequence from the list of its phase and puts it into that of another.
    pub fn set_phase(&mut self, index: u32, phase: Phase) {
        let seq = &self.seqs[index];
        match seq.phase {
            Phase::Waiting | Phase::Unborn => {}
            Phase::Prefill => self.prefilling.retain(|other| *other != index),
            Phase::Decode => {
                let place = seq.place as usize;
                self.decoding.swap_remove(place);
                if let Some(&moved) = self.decoding.get(place) {
                    self.seqs[moved].place = place as u32;
                }
            }
        }
        self.seqs[index].phase = phase;
        match phase {
            Phase::Waiting | Phase::Unborn => {}
            Phase::Prefill => {
                let arrival = |seq: u32| self.requests[self.seqs[seq].request].arrival;
                let own = arrival(index);
                let at = self.prefilling.partition_point(|other| arrival(*other) <= own);
                self.prefilling.insert(at, index);
            }
            Phase::Decode => {
                self.seqs[index].place = self.decoding.len() as u32;
                self.decoding.push(index);
            }
        }
    }

    /// Whether nothing runs or waits.
    pub fn is_empty(&self) -> bool {
        self.requests.len() == 0
    }

    /// Sequences that have a slot.
    pub fn running(&self) -> u32 {
        self.config.running_max.min(self.limits.slots_total) - self.slots_free.len() as u32
    }

    fn wait_in_queue(&mut self, index: u32) {
        let seqs = &self.seqs;
        let request = &mut self.requests[index];
        let first = request.choices.iter().copied().flatten().next();
        let known = first.map_or(0, |seq| seqs[seq].known);
        self.backlog_tokens += u64::from(known);
        self.backlog_tokens -= u64::from(request.backlog_tokens);
        request.backlog_tokens = known;
        request.waiting = true;
        request.blocks_lacking = 0;
        let key = RequestKey { index, id: request.id };
        self.queue.push(request.flow, request.priority, request.arrival, key);
    }

    pub(super) fn remove_seq(&mut self, index: u32) {
        let owned = self.pool.owned();
        self.released.slots += u64::from(self.seqs[index].phase != Phase::Waiting);
        self.release_seq(index);
        self.released.blocks += u64::from(owned - self.pool.owned());
        self.seqs.remove(index);
    }

    /// Gives back a sequence's slot and blocks. Steps in flight may read the blocks, so that they
    /// rest until the last submitted step has completed.
    fn release_seq(&mut self, index: u32) {
        if self.seqs[index].phase == Phase::Waiting {
            return;
        }
        self.publish(index);
        self.set_phase(index, Phase::Waiting);
        let seq = &mut self.seqs[index];
        self.slots_free.push(seq.slot);
        seq.slot_ready = false;
        seq.tabled = 0;
        let blocks = seq.blocks.len() - std::mem::take(&mut seq.uncounted);
        self.queue.give_back(seq.flow, blocks);
        // The end of a chain is evicted before its beginning.
        for block in seq.blocks.take_from(0) {
            self.pool.release(block, self.step);
        }
        seq.forks = false;
        if let Some(block) = seq.fork_source.take() {
            self.pool.release(block, self.step);
        }
    }
}

/// Whether an entry of the queue is alive.
pub(super) fn waits(requests: &Slab<Request>, key: RequestKey) -> bool {
    requests.get(key.index).is_some_and(|request| request.id == key.id && request.waiting)
}
