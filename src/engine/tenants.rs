//! The tenants that the scheduler knows, and what each of them holds.

use std::collections::HashMap;

use super::submission::Share;
use crate::ids::TenantId;

/// A table of bounded size: idle tenants are forgotten.
#[derive(Debug)]
pub(super) struct Tenants {
    table: Vec<Tenant>,
    free: Vec<u32>,
    by_id: HashMap<TenantId, u32>,
    /// Places from which on idle ones are forgotten whatever was held against them.
    tenants_max: usize,
    /// Tenants at which idle ones are looked for next.
    sweep_at: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenant {
    pub id: TenantId,
    /// How it shares the device, as its newest request said.
    pub share: Share,
    /// Its requests that wait or run.
    pub requests: u32,
    /// KV blocks of its running sequences; blocks that choices of a request share count once.
    pub blocks: u32,
    /// A place of the table without a tenant.
    vacant: bool,
}

/// Tenants that are kept without a look for idle ones.
const SWEEP_MIN: usize = 256;

impl Tenants {
    /// Without tenants; at most `tenants_max` are kept beside those that have requests.
    pub fn new(tenants_max: u32) -> Self {
        Self {
            table: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            tenants_max: tenants_max as usize,
            sweep_at: SWEEP_MIN.min(tenants_max as usize).max(1),
        }
    }

    /// Tenants that are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The place of a tenant that is known.
    pub fn find(&self, id: TenantId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// A new tenant's place.
    pub fn add(&mut self, id: TenantId) -> u32 {
        let tenant = Tenant { id, share: Share::default(), requests: 0, blocks: 0, vacant: false };
        let place = match self.free.pop() {
            Some(place) => {
                self.table[place as usize] = tenant;
                place
            }
            None => {
                self.table.push(tenant);
                self.table.len() as u32 - 1
            }
        };
        self.by_id.insert(id, place);
        place
    }

    /// Forgets idle tenants of which `keeps` finds nothing worth to be kept, when there are many;
    /// the places that are free now. Costs little for each tenant that was added since.
    pub fn sweep(&mut self, keeps: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut gone = Vec::new();
        if self.len() < self.sweep_at {
            return gone;
        }
        self.forget(|place| !keeps(place), &mut gone);
        if self.len() >= self.tenants_max {
            self.forget(|_| true, &mut gone);
        }
        // Tenants that have requests are bounded by the requests.
        let most = self.tenants_max.max(self.len() + SWEEP_MIN / 2);
        self.sweep_at = (2 * self.len()).max(SWEEP_MIN).min(self.tenants_max);
        if self.len() >= self.sweep_at {
            self.sweep_at = most;
        }
        gone
    }

    fn forget(&mut self, may: impl Fn(u32) -> bool, gone: &mut Vec<u32>) {
        for (place, tenant) in self.table.iter_mut().enumerate() {
            let place = place as u32;
            let idle = !tenant.vacant && tenant.requests == 0 && tenant.blocks == 0;
            if idle && may(place) {
                tenant.vacant = true;
                self.by_id.remove(&tenant.id);
                self.free.push(place);
                gone.push(place);
            }
        }
    }
}

impl Tenant {
    /// How much of something it has for its weight.
    pub fn by_weight(&self, amount: f64) -> f64 {
        amount / f64::from(self.share.weight.max(1))
    }
}

impl std::ops::Index<u32> for Tenants {
    type Output = Tenant;

    fn index(&self, place: u32) -> &Tenant {
        &self.table[place as usize]
    }
}

impl std::ops::IndexMut<u32> for Tenants {
    fn index_mut(&mut self, place: u32) -> &mut Tenant {
        &mut self.table[place as usize]
    }
}
