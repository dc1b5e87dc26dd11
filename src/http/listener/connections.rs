//! How many connections are open, in all and by peer address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::ListenerLimits;

/// Open connections, in all and by peer address.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    /// Bounded by the number of open connections.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    peer: IpAddr,
}

impl Connections {
    /// Open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Takes a place for a connection from `peer`, or names the limit that it would exceed.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        limits: &ListenerLimits,
    ) -> Result<Place, &'static str> {
        let mut by_address = self.lock();
        if self.open() >= limits.connections_max {
            return Err("connections_max");
        }
        let count = by_address.entry(peer).or_insert(0);
        if *count >= limits.connections_per_address_max {
            return Err("connections_per_address_max");
        }
        *count += 1;
        self.open.fetch_add(1, Ordering::AcqRel);
        Ok(Place { connections: Arc::clone(self), peer })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.connections.lock();
        if let Some(count) = by_address.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.peer);
            }
        }
        self.connections.open.fetch_sub(1, Ordering::AcqRel);
    }
}
