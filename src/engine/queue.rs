//! Waiting requests, fair between tenants: each tenant has a virtual time that grows with the
//! tokens it was served, and the tenant with the smallest goes next (VTC, OSDI'24).

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use super::policy;
use super::request::RequestKey;
use crate::ids::TenantId;

/// See the module. Entries of requests that were cancelled stay until they are met, or until they
/// are the majority of their tenant's.
#[derive(Debug)]
pub(super) struct FairQueue {
    tenants: Vec<TenantQueue>,
    by_id: HashMap<TenantId, u32>,
    /// Tenants with entries, by a lower bound of their virtual time: it only grows, so a stale
    /// bound is put right when it is met.
    order: BinaryHeap<Reverse<(u64, u32)>>,
    aside: Vec<u32>,
    /// Virtual time of the tenant that was served last.
    now: u64,
    len: u32,
}

#[derive(Debug, Default)]
struct TenantQueue {
    served: u64,
    entries: BinaryHeap<Entry>,
    waiting: u32,
    in_order: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    priority: i32,
    arrival: u64,
    request: RequestKey,
}

impl FairQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            tenants: Vec::new(),
            by_id: HashMap::new(),
            order: BinaryHeap::new(),
            aside: Vec::new(),
            now: 0,
            len: 0,
        }
    }

    /// Requests that wait.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The index by which the other functions know a tenant.
    pub fn tenant(&mut self, id: TenantId) -> u32 {
        let tenants = &mut self.tenants;
        *self.by_id.entry(id).or_insert_with(|| {
            tenants.push(TenantQueue::default());
            tenants.len() as u32 - 1
        })
    }

    /// The index here of the tenant that has `index` in another queue, with its service.
    pub fn tenant_like(&mut self, other: &FairQueue, index: u32) -> u32 {
        let id = other.by_id.iter().find(|(_, other)| **other == index).map(|(id, _)| *id);
        let own = self.tenant(id.unwrap_or_default());
        self.tenants[own as usize].served = other.served(index);
        own
    }

    /// Adds a request. One that was preempted keeps its `arrival` and so returns to the front.
    pub fn push(&mut self, tenant: u32, priority: i32, arrival: u64, request: RequestKey) {
        let queue = &mut self.tenants[tenant as usize];
        if queue.waiting == 0 {
            // Who returns from idleness brings no credit along.
            queue.served = queue.served.max(self.now);
        }
        queue.entries.push(Entry { priority, arrival, request });
        queue.waiting += 1;
        self.len += 1;
        if !queue.in_order {
            queue.in_order = true;
            self.order.push(Reverse((queue.served, tenant)));
        }
    }

    /// The tenant that is next, and its first request. `waits` tells live entries from those of
    /// cancelled requests.
    pub fn head(&mut self, waits: impl Fn(RequestKey) -> bool) -> Option<(u32, RequestKey)> {
        loop {
            let Reverse((bound, tenant)) = *self.order.peek()?;
            let queue = &mut self.tenants[tenant as usize];
            queue.drop_dead(&waits);
            match queue.entries.peek() {
                None => {
                    queue.in_order = false;
                    self.order.pop();
                }
                Some(_) if queue.served > bound => {
                    let served = queue.served;
                    if let Some(mut top) = self.order.peek_mut() {
                        *top = Reverse((served, tenant));
                    }
                }
                Some(entry) => return Some((tenant, entry.request)),
            }
        }
    }

    /// The first request of one tenant.
    pub fn head_of(
        &mut self,
        tenant: u32,
        waits: impl Fn(RequestKey) -> bool,
    ) -> Option<RequestKey> {
        let queue = &mut self.tenants[tenant as usize];
        queue.drop_dead(&waits);
        queue.entries.peek().map(|entry| entry.request)
    }

    /// Removes what [`FairQueue::head`] returned.
    pub fn take(&mut self, tenant: u32) {
        let queue = &mut self.tenants[tenant as usize];
        let taken = queue.entries.pop();
        assert!(taken.is_some(), "only a head is taken");
        queue.waiting -= 1;
        self.len -= 1;
        self.now = self.now.max(queue.served);
    }

    /// Lets the tenants behind the head's come to the front until [`FairQueue::restore`].
    pub fn set_aside(&mut self) {
        if let Some(Reverse((_, tenant))) = self.order.pop() {
            self.aside.push(tenant);
        }
    }

    /// Ends [`FairQueue::set_aside`].
    pub fn restore(&mut self) {
        for tenant in self.aside.drain(..) {
            self.order.push(Reverse((self.tenants[tenant as usize].served, tenant)));
        }
    }

    /// Notes that a waiting request of this tenant ended. Its entry is removed later.
    pub fn forget(&mut self, tenant: u32, waits: impl Fn(RequestKey) -> bool) {
        let queue = &mut self.tenants[tenant as usize];
        queue.waiting -= 1;
        self.len -= 1;
        if queue.entries.len() > 2 * queue.waiting as usize + 64 {
            queue.entries.retain(|entry| waits(entry.request));
        }
    }

    /// Charges a tenant for service.
    pub fn charge(&mut self, tenant: u32, amount: u64) {
        self.tenants[tenant as usize].served += amount;
    }

    /// Virtual time that a tenant was served.
    pub fn served(&self, tenant: u32) -> u64 {
        self.tenants[tenant as usize].served
    }
}

impl TenantQueue {
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
