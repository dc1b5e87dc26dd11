//! Whether what the device computes can be believed (R35).

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Time;
use crate::ids::TenantId;

/// The last requests that ended because a row was not finite.
#[derive(Debug, Default)]
pub(super) struct Soundness {
    faults: VecDeque<(Time, TenantId)>,
}

/// Faults within the window that are not yet a sign of a broken device.
const FAULTS_MAX: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Faults that are remembered.
const REMEMBERED: usize = 16;

impl Soundness {
    /// Notes a fault in a request of a tenant.
    pub fn note(&mut self, now: Time, tenant: TenantId) {
        if self.faults.len() == REMEMBERED {
            self.faults.pop_front();
        }
        self.faults.push_back((now, tenant));
    }

    /// Until when the device is not to be believed: as long as the last minute has too many
    /// faults. Those of one tenant among several are held to be its requests' doing, so that no
    /// tenant can make the server unready for the others.
    pub fn unsound_until(&self, tenants_known: u32) -> Option<Time> {
        let decisive = self.faults.len().checked_sub(FAULTS_MAX + 1)?;
        let (newest, _) = self.faults[self.faults.len() - 1];
        let (first, tenant) = self.faults[decisive];
        let one = self.faults.range(decisive..).all(|(_, other)| *other == tenant);
        let sign = newest.since(first) <= WINDOW && !(one && tenants_known > 1);
        sign.then(|| first.plus(WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(s: u64) -> Time {
        Time(s * 1_000_000_000)
    }

    #[test]
    fn four_faults_in_a_minute_are_a_sign_unless_one_of_several_tenants_has_them_all() {
        let mut soundness = Soundness::default();
        for at in [0, 50, 55] {
            soundness.note(second(at), TenantId(1));
            assert_eq!(soundness.unsound_until(2), None);
        }
        soundness.note(second(61), TenantId(2));
        assert_eq!(soundness.unsound_until(2), None, "three in the last minute");
        soundness.note(second(62), TenantId(1));
        assert_eq!(soundness.unsound_until(2), Some(second(110)));
        let mut alone = Soundness::default();
        (0..4).for_each(|at| alone.note(second(at), TenantId(1)));
        assert_eq!((alone.unsound_until(2), alone.unsound_until(1)), (None, Some(second(60))));
    }
}
