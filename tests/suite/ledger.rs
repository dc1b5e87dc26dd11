//! The ledger of token budgets: what crashes and failing disks may leave, and may not.

mod crash;
mod kill;
mod requests;

use std::sync::Arc;

use weir::config::{LedgerLimits, TenantSettings};
use weir::gate::Used;
use weir::gate::budget::{Progress, WorstCase};
use weir::gate::ledger::{DiskFaults, Ledger, SimDisk};

/// A log with every kind of entry: a snapshot, and batches of requests behind it.
pub fn some_log(seed: u64) -> Vec<u8> {
    let disk = SimDisk::new(seed, DiskFaults::default());
    for life in 0..2 {
        let now = 1_790_000_000 + seed * 86_400;
        let (ledger, _) =
            Ledger::open(Box::new(disk.clone()), LedgerLimits::default(), now).unwrap();
        for request in 0..4 + seed {
            let name = Arc::from(format!("tenant-{}", request % 3));
            let tenant = TenantSettings { name, ..TenantSettings::default() };
            let worst = [WorstCase { prompt_tokens: 9, output_tokens: 30 }];
            let hold = ledger.hold(&tenant, &worst, now + request * 3000).unwrap()[0];
            ledger.checkpoint(hold, Progress { cached_tokens: 3, output_tokens: 16 });
            // The last requests of the second life are open at its end.
            if life == 0 || request < 2 {
                let used = Used { prompt_tokens: 9, cached_tokens: 3, output_tokens: 20 };
                ledger.settle(hold, used);
            }
            ledger.commit(now + request).unwrap();
        }
    }
    disk.bytes()
}
