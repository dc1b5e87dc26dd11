//! What the ledger costs: replay after a restart, a hold and its settlement at admission, a commit.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir::config::{LedgerLimits, TenantSettings};
use weir::gate::Used;
use weir::gate::budget::{Progress, WorstCase};
use weir::gate::ledger::{DiskFaults, FileStorage, Ledger, SimDisk, replay};

const TENANTS: u64 = 1000;
const REQUESTS: u64 = 200_000;
/// Requests that run side by side while the log is written.
const AT_ONCE: usize = 1000;

const USED: Used = Used { prompt_tokens: 500, cached_tokens: 100, output_tokens: 160 };
const WORST: [WorstCase; 1] = [WorstCase { prompt_tokens: 500, output_tokens: 512 }];

fn tenants() -> Vec<TenantSettings> {
    (0..TENANTS)
        .map(|n| TenantSettings {
            name: Arc::from(format!("tenant-{n}")),
            tokens_per_day: Some(u64::MAX >> 20),
            ..TenantSettings::default()
        })
        .collect()
}

/// The log of many requests, each with a start, ten checkpoints and an end.
fn log(tenants: &[TenantSettings]) -> Vec<u8> {
    let disk = SimDisk::new(1, DiskFaults::default());
    let limits =
        LedgerLimits { snapshot_after_bytes: u64::MAX, pending_entries_max: 1 << 24, ..default() };
    let (ledger, _) = Ledger::open(Box::new(disk.clone()), limits, 0).unwrap();
    let mut running = std::collections::VecDeque::new();
    for request in 0..REQUESTS {
        let tenant = &tenants[(request * 7919 % TENANTS) as usize];
        let hold = ledger.hold(tenant, &WORST, 1_790_000_000 + request / 100).unwrap()[0];
        for at in 0..11 {
            let progress = Progress { cached_tokens: 100, output_tokens: at * 16 };
            ledger.checkpoint(hold, progress);
        }
        running.push_back(hold);
        if running.len() > AT_ONCE {
            ledger.settle(running.pop_front().unwrap(), USED);
        }
        if request % 20 == 0 {
            ledger.commit(1_790_000_000).unwrap();
        }
    }
    ledger.commit(1_790_000_000).unwrap();
    disk.bytes()
}

fn default() -> LedgerLimits {
    LedgerLimits::default()
}

fn replaying(criterion: &mut Criterion) {
    let log = log(&tenants());
    let entries = replay(&log).unwrap().next_sequence;
    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(10);
    group.throughput(Throughput::Elements(entries));
    group.bench_function(format!("replay {entries} entries, {} MiB", log.len() >> 20), |bencher| {
        bencher.iter(|| replay(black_box(&log)).unwrap().budgets.open_holds());
    });
    group.finish();
}

fn admitting(criterion: &mut Criterion) {
    let tenants = tenants();
    let disk = SimDisk::new(1, DiskFaults::default());
    let (ledger, _) = Ledger::open(Box::new(disk), default(), 0).unwrap();
    let mut group = criterion.benchmark_group("ledger");
    let mut request = 0;
    group.bench_function("hold, start and settle", |bencher| {
        bencher.iter(|| {
            request += 1;
            let tenant = &tenants[(request * 7919 % TENANTS) as usize];
            let hold = ledger.hold(tenant, &WORST, 1_790_000_000).unwrap()[0];
            ledger.checkpoint(hold, Progress { cached_tokens: 100, output_tokens: 0 });
            ledger.settle(hold, USED);
            if request % 1000 == 0 {
                ledger.commit(1_790_000_000).unwrap();
            }
        });
    });
    let limits = default();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-ledger");
    let storage = FileStorage::open(&folder).unwrap();
    let (ledger, _) = Ledger::open(Box::new(storage), limits, 0).unwrap();
    let note = || {
        for tenant in tenants.iter().take(85) {
            let hold = ledger.hold(tenant, &WORST, 1_790_000_000).unwrap()[0];
            ledger.checkpoint(hold, Progress { cached_tokens: 100, output_tokens: 0 });
            ledger.settle(hold, USED);
        }
    };
    group.bench_function("commit about 256 entries to a file", |bencher| {
        bencher.iter_batched(
            note,
            |()| ledger.commit(1_790_000_000).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, replaying, admitting);
criterion_main!(benches);
