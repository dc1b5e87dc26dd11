//! Waiting requests, fair between tenants. Each tenant has, in each class, a virtual time that
//! grows with the device seconds it is charged, divided by its weight; of a class the tenant with
//! the smallest goes next (VTC, OSDI'24, with predicted device time instead of tokens).
//!
//! Higher classes go first; while they have a backlog, the batch class is due a twentieth of what
//! is charged.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::blocks::BlockPool;
use super::policy;
use super::request::RequestKey;
use super::submission::Share;
use super::tenants::Tenants;
use crate::config::Class;
use crate::ids::TenantId;

/// A tenant's requests of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow(u32);

/// See the module. Entries of requests that were cancelled stay until they are met, or until they
/// are the majority of their flow's.
#[derive(Debug)]
pub(super) struct FairQueue {
    pub tenants: Tenants,
    flows: Vec<FlowQueue>,
    /// Of all flows. Apart from the rest, since each generated token is charged to one.
    accounts: Vec<Account>,
    classes: [ClassOrder; CLASSES],
    /// Seconds charged in each class since the batch class's due was last reckoned.
    charged_s: [f64; CLASSES],
    /// Device seconds that the batch class has to get; below 0 when it got more.
    batch_due_s: f64,
    len: u32,
}

/// One class's flows that wait.
#[derive(Debug, Default)]
struct ClassOrder {
    /// Flows with entries, by a lower bound of their virtual time: it only grows, so a stale bound
    /// is put right when it is met.
    order: BinaryHeap<Reverse<(u64, Flow)>>,
    aside: Vec<Flow>,
    /// Virtual time of the flow that was served last.
    now: f64,
    waiting: u32,
}

#[derive(Debug, Default)]
struct FlowQueue {
    entries: BinaryHeap<Entry>,
    waiting: u32,
    in_order: bool,
    /// Its tenant holds all the blocks that it may, so that it is not in the order.
    parked: bool,
}

/// Seconds that a flow was charged.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Virtual time: device seconds by weight.
    served: f64,
    /// One divided by the tenant's weight.
    per_weight: f64,
    /// Seconds charged ahead for work that was then not done, to be set off against later charges:
    /// a virtual time never goes back.
    credit_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    priority: i32,
    arrival: u64,
    request: RequestKey,
}

const CLASSES: usize = 3;
/// A tenant's flows lie side by side; a power of two, so that a flow's class is a mask away.
const FLOWS_PER_TENANT: u32 = 4;
const BATCH: usize = Class::Batch as usize;

impl Flow {
    /// The place of its tenant.
    pub fn tenant(self) -> u32 {
        self.0 / FLOWS_PER_TENANT
    }

    /// Its class, as a number; higher ones go later.
    pub fn class(self) -> usize {
        (self.0 % FLOWS_PER_TENANT) as usize
    }

    fn of(tenant: u32, class: usize) -> Self {
        Self(tenant * FLOWS_PER_TENANT + class as u32)
    }
}

impl PartialOrd for Flow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flow {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl FairQueue {
    /// An empty queue that remembers `tenants_max` tenants without requests.
    pub fn new(tenants_max: u32) -> Self {
        Self {
            tenants: Tenants::new(tenants_max),
            flows: Vec::new(),
            accounts: Vec::new(),
            classes: Default::default(),
            charged_s: [0.0; CLASSES],
            batch_due_s: 0.0,
            len: 0,
        }
    }

    /// Requests that wait.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The flow of a tenant's next request. Cached blocks of tenants that are forgotten to make
    /// room are evicted.
    pub fn flow(&mut self, id: TenantId, share: Share, pool: &mut BlockPool) -> Flow {
        let known = self.tenants.find(id);
        let tenant = known.unwrap_or_else(|| self.add_tenant(id, pool));
        if known.is_none() || self.tenants[tenant].share != share {
            self.tenants[tenant].share = share;
            let cached_max = (f64::from(pool.total()) * share.kv_share) as u32;
            pool.set_cache_share(tenant, share.weight, cached_max);
        }
        let per_weight = 1.0 / f64::from(share.weight.max(1));
        for class in 0..CLASSES {
            self.accounts[Flow::of(tenant, class).0 as usize].per_weight = per_weight;
        }
        Flow::of(tenant, share.class as usize)
    }

    /// The flow here that is `flow` in another queue, with what it was charged there.
    pub fn flow_like(&mut self, other: &FairQueue, flow: Flow, pool: &mut BlockPool) -> Flow {
        let tenant = &other.tenants[flow.tenant()];
        let own = self.flow(tenant.id, tenant.share, pool);
        let own = Flow::of(own.tenant(), flow.class());
        self.accounts[own.0 as usize].served = other.accounts[flow.0 as usize].served;
        own
    }

    /// Adds a request. One that was preempted keeps its `arrival` and so returns to the front.
    pub fn push(&mut self, flow: Flow, priority: i32, arrival: u64, request: RequestKey) {
        let queue = &mut self.flows[flow.0 as usize];
        let account = &mut self.accounts[flow.0 as usize];
        let class = &mut self.classes[flow.class()];
        if queue.waiting == 0 {
            // Who returns from idleness brings no credit along.
            let lowest = class.order.peek().map_or(0.0, |Reverse((bound, _))| vt(*bound));
            account.served = account.served.max(class.now).max(lowest);
        }
        queue.entries.push(Entry { priority, arrival, request });
        queue.waiting += 1;
        class.waiting += 1;
        self.len += 1;
        if !queue.in_order && !queue.parked {
            queue.in_order = true;
            class.order.push(Reverse((account.served.to_bits(), flow)));
        }
    }

    /// The flow that is next, and its first request. `waits` tells live entries from those of
    /// cancelled requests.
    pub fn head(&mut self, waits: impl Fn(RequestKey) -> bool) -> Option<(Flow, RequestKey)> {
        if self.batch_due_s > 0.0
            && let Some(head) = self.head_of_class(BATCH, &waits)
        {
            return Some(head);
        }
        (0..CLASSES).find_map(|class| self.head_of_class(class, &waits))
    }

    fn head_of_class(
        &mut self,
        class: usize,
        waits: &impl Fn(RequestKey) -> bool,
    ) -> Option<(Flow, RequestKey)> {
        let Self { flows, accounts, classes, .. } = self;
        let order = &mut classes[class].order;
        loop {
            let Reverse((bound, flow)) = *order.peek()?;
            let queue = &mut flows[flow.0 as usize];
            queue.drop_dead(waits);
            let served = accounts[flow.0 as usize].served.to_bits();
            match queue.entries.peek() {
                None => {
                    queue.in_order = false;
                    order.pop();
                }
                Some(_) if served > bound => {
                    if let Some(mut top) = order.peek_mut() {
                        *top = Reverse((served, flow));
                    }
                }
                Some(entry) => return Some((flow, entry.request)),
            }
        }
    }

    /// Two flows that come soon after a head, each with its first request, if they are at most
    /// `within_s` device seconds behind it; not always the next two.
    pub fn rivals(
        &mut self,
        head: Flow,
        within_s: f64,
        waits: impl Fn(RequestKey) -> bool,
    ) -> [Option<(Flow, RequestKey)>; 2] {
        let Self { flows, accounts, classes, .. } = self;
        let order = classes[head.class()].order.as_slice();
        let least = accounts[head.0 as usize].served;
        // The children of the heap's root: who is next is among them, and bounds are rarely stale.
        [1, 2].map(|place| {
            let Reverse((_, flow)) = *order.get(place)?;
            let account = &accounts[flow.0 as usize];
            if account.served - least > within_s * account.per_weight {
                return None;
            }
            let queue = &mut flows[flow.0 as usize];
            queue.drop_dead(&waits);
            queue.entries.peek().map(|entry| (flow, entry.request))
        })
    }

    /// The first request of one flow.
    pub fn head_of(
        &mut self,
        flow: Flow,
        waits: impl Fn(RequestKey) -> bool,
    ) -> Option<RequestKey> {
        let queue = &mut self.flows[flow.0 as usize];
        queue.drop_dead(&waits);
        queue.entries.peek().map(|entry| entry.request)
    }

    /// Removes a flow's first request.
    pub fn take(&mut self, flow: Flow) {
        let queue = &mut self.flows[flow.0 as usize];
        let taken = queue.entries.pop();
        assert!(taken.is_some(), "only a head is taken");
        queue.waiting -= 1;
        self.len -= 1;
        let class = &mut self.classes[flow.class()];
        class.waiting -= 1;
        class.now = class.now.max(self.accounts[flow.0 as usize].served);
        if flow.class() == BATCH {
            // What it costs is charged when it is computed; until then it was enough.
            self.batch_due_s = self.batch_due_s.min(0.0);
        }
    }

    /// Lets the flows of the head's class behind it come to the front until
    /// [`FairQueue::restore`].
    pub fn set_aside(&mut self, head: Flow) {
        let class = &mut self.classes[head.class()];
        let popped = class.order.pop();
        debug_assert!(popped.is_some_and(|Reverse((_, flow))| flow == head), "it is the head");
        class.aside.push(head);
    }

    /// Ends [`FairQueue::set_aside`].
    pub fn restore(&mut self) {
        for class in &mut self.classes {
            for flow in class.aside.drain(..) {
                let served = self.accounts[flow.0 as usize].served;
                class.order.push(Reverse((served.to_bits(), flow)));
            }
        }
    }

    /// Takes a head's flow out of the order until its tenant gives blocks back.
    pub fn park(&mut self, head: Flow) {
        let popped = self.classes[head.class()].order.pop();
        debug_assert!(popped.is_some_and(|Reverse((_, flow))| flow == head), "it is the head");
        let queue = &mut self.flows[head.0 as usize];
        queue.in_order = false;
        queue.parked = true;
    }

    /// Lets a tenant's flows be next again.
    fn unpark(&mut self, tenant: u32) {
        for class in 0..CLASSES {
            let flow = Flow::of(tenant, class);
            let queue = &mut self.flows[flow.0 as usize];
            if std::mem::take(&mut queue.parked) && queue.waiting > 0 {
                queue.in_order = true;
                let served = self.accounts[flow.0 as usize].served;
                self.classes[class].order.push(Reverse((served.to_bits(), flow)));
            }
        }
    }

    /// Notes that a flow's sequence released blocks.
    pub fn give_back(&mut self, flow: Flow, blocks: u32) {
        let tenant = &mut self.tenants[flow.tenant()];
        tenant.blocks -= blocks;
        if tenant.share.kv_share < 1.0 {
            self.unpark(flow.tenant());
        }
    }

    /// Notes that a waiting request of this flow ended. Its entry is removed later.
    pub fn forget(&mut self, flow: Flow, waits: impl Fn(RequestKey) -> bool) {
        let queue = &mut self.flows[flow.0 as usize];
        queue.waiting -= 1;
        self.len -= 1;
        self.classes[flow.class()].waiting -= 1;
        if queue.entries.len() > 2 * queue.waiting as usize + 64 {
            queue.entries.retain(|entry| waits(entry.request));
        }
    }

    /// Charges a flow for device time.
    pub fn charge(&mut self, flow: Flow, seconds: f64) {
        self.charged_s[flow.class()] += seconds;
        let account = &mut self.accounts[flow.0 as usize];
        let paid = account.credit_s.min(seconds);
        account.credit_s -= paid;
        account.served += (seconds - paid) * account.per_weight;
    }

    /// Gives back what was charged for work that will not be done.
    pub fn refund(&mut self, flow: Flow, seconds: f64) {
        self.charged_s[flow.class()] -= seconds;
        self.accounts[flow.0 as usize].credit_s += seconds;
    }

    /// Reckons what the batch class is due, once before requests are started.
    pub fn reckon_batch(&mut self) {
        let charged_s: f64 = self.charged_s.iter().sum();
        let batch_s = std::mem::take(&mut self.charged_s)[BATCH];
        let waiting = |class: usize| self.classes[class].waiting > 0;
        if waiting(BATCH) && (0..BATCH).any(waiting) {
            let due_s = self.batch_due_s + policy::BATCH_SHARE * charged_s - batch_s;
            let most_s = policy::BATCH_DUE_MAX_S;
            self.batch_due_s = due_s.clamp(-most_s, most_s);
        } else {
            self.batch_due_s = 0.0;
        }
    }

    fn add_tenant(&mut self, id: TenantId, pool: &mut BlockPool) -> u32 {
        let Self { tenants, accounts, classes, .. } = self;
        // Who was served less than those that wait would be lifted to them anyway.
        let owes = |tenant: u32| {
            let mut served = (0..CLASSES)
                .map(|class| (class, accounts[Flow::of(tenant, class).0 as usize].served));
            served.any(|(class, served)| served > classes[class].now)
        };
        for gone in tenants.sweep(|tenant| owes(tenant) || pool.cached_of(tenant) > 0) {
            pool.evict_all_of(gone);
        }
        let tenant = tenants.add(id);
        let flows = ((tenant + 1) * FLOWS_PER_TENANT) as usize;
        if self.flows.len() < flows {
            self.flows.resize_with(flows, FlowQueue::default);
            self.accounts.resize(flows, Account::default());
        }
        for class in 0..CLASSES {
            let at = Flow::of(tenant, class).0 as usize;
            // Entries of the place's last tenant are all dead, but may still be in the order.
            if std::mem::take(&mut self.flows[at]).in_order {
                self.classes[class].order.retain(|Reverse((_, flow))| flow.0 as usize != at);
            }
            self.accounts[at] = Account::default();
        }
        tenant
    }
}

impl FlowQueue {
    fn drop_dead(&mut self, waits: &impl Fn(RequestKey) -> bool) {
        while self.entries.peek().is_some_and(|entry| !waits(entry.request)) {
            self.entries.pop();
        }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        policy::queue_order((self.priority, self.arrival), (other.priority, other.arrival))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A virtual time from its bits, which are in the order of the times since none is below zero.
fn vt(bits: u64) -> f64 {
    f64::from_bits(bits)
}
