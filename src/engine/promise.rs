//! Requests that were promised a start. Waiting requests run in fair order, and fair order makes a
//! request wait as long as others with less service keep coming; what the gate promised when it
//! admitted the request would then be broken. So a promised request goes before all others when
//! its time is near, at its tenant's cost, and ends when the time has passed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::request::{Request, RequestKey};
use super::slab::Slab;
use super::submission::Promise;
use crate::clock::Time;
use crate::ids::RequestId;

/// Entries that may be out of date before they are looked for.
const STALE_MAX: usize = 1024;

/// Promises that were not kept yet, and some of requests that have started or ended since.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// By the moment at which they become urgent.
    quiet: BinaryHeap<Reverse<(Time, Time, u32, RequestId)>>,
    /// By the moment at which they are broken.
    urgent: BinaryHeap<Reverse<(Time, u32, RequestId)>>,
}

impl Promises {
    /// Notes a promise to a waiting request.
    pub fn add(&mut self, promise: Promise, request: RequestKey) {
        let Promise { urgent_from, start_by } = promise;
        self.quiet.push(Reverse((urgent_from, start_by, request.index, request.id)));
    }

    /// The request whose promise would be broken first, of those that are urgent.
    pub fn most_urgent(&mut self, requests: &Slab<Request>, now: Time) -> Option<RequestKey> {
        self.wake(now);
        loop {
            let &Reverse((_, index, id)) = self.urgent.peek()?;
            if is_owed(requests, index, id) {
                return Some(RequestKey { index, id });
            }
            self.urgent.pop();
        }
    }

    /// Lets the most urgent request be urgent only from `until` on, or when its promise is broken.
    pub fn put_off(&mut self, until: Time) {
        if let Some(Reverse((start_by, index, id))) = self.urgent.pop() {
            let broken = Time(start_by.0.saturating_add(1));
            self.quiet.push(Reverse((until.min(broken), start_by, index, id)));
        }
    }

    /// Takes a request out whose promise was broken before `now`.
    pub fn take_broken(&mut self, requests: &Slab<Request>, now: Time) -> Option<RequestKey> {
        self.wake(now);
        while let Some(&Reverse((start_by, index, id))) = self.urgent.peek() {
            if start_by >= now {
                break;
            }
            self.urgent.pop();
            if is_owed(requests, index, id) {
                return Some(RequestKey { index, id });
            }
        }
        self.forget_stale(requests);
        None
    }

    fn wake(&mut self, now: Time) {
        while let Some(&Reverse((urgent_from, start_by, index, id))) = self.quiet.peek() {
            if urgent_from > now {
                break;
            }
            self.quiet.pop();
            self.urgent.push(Reverse((start_by, index, id)));
        }
    }

    /// Most requests start long before, and their entries would pile up.
    fn forget_stale(&mut self, requests: &Slab<Request>) {
        if self.quiet.len() > 2 * requests.len() + STALE_MAX {
            self.quiet.retain(|Reverse((_, _, index, id))| is_owed(requests, *index, *id));
        }
    }
}

/// Whether a request still waits for its first step.
fn is_owed(requests: &Slab<Request>, index: u32, id: RequestId) -> bool {
    requests.get(index).is_some_and(|request| request.id == id && !request.started)
}
