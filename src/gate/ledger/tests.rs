//! The log's bytes: what is read back, what is cut, what is refused.

use super::*;
use crate::gate::budget::DayUse;
use crate::gate::calendar::{Day, Window};

fn tenant(name: &str, tokens_per_day: Option<u64>) -> TenantSettings {
    TenantSettings { name: Arc::from(name), tokens_per_day, ..TenantSettings::default() }
}

fn worst(prompt_tokens: u32, output_tokens: u64) -> [WorstCase; 1] {
    [WorstCase { prompt_tokens, output_tokens }]
}

fn used(prompt_tokens: u32, output_tokens: u32) -> Used {
    Used { prompt_tokens, cached_tokens: 0, output_tokens }
}

fn open(disk: &SimDisk) -> Ledger {
    try_open(disk).expect("the disk is well").0
}

fn try_open(disk: &SimDisk) -> Result<(Ledger, Recovery), LedgerError> {
    Ledger::open(Box::new(disk.clone()), LedgerLimits::default(), 1000)
}

/// A disk with a log of several batches.
fn written() -> SimDisk {
    let disk = SimDisk::new(1, DiskFaults::default());
    let ledger = open(&disk);
    for request in 0..5 {
        let name = format!("tenant-{}", request % 2);
        let hold = ledger.hold(&tenant(&name, None), &worst(10, 10), 1000).expect("no limit")[0];
        ledger.commit(1000).expect("the disk is well");
        ledger.checkpoint(hold, Progress { cached_tokens: 2, output_tokens: 5 });
        ledger.commit(1001).expect("the disk is well");
        ledger.settle(hold, used(10, 7));
        ledger.commit(1002).expect("the disk is well");
    }
    disk
}

fn settled(ledger: &Ledger, name: &str) -> u64 {
    ledger.balances(name, 1000)[1].settled
}

#[test]
fn every_kind_of_entry_is_read_back_as_it_was_written() {
    let hold = HoldId(u64::MAX);
    let day_use = DayUse {
        requests: 1,
        prompt_tokens: 2,
        cached_tokens: 3,
        output_tokens: 4,
        charged_tokens: u64::MAX,
    };
    let mut entries = vec![
        Entry::Tenant { number: 7, name: Arc::from("Tür") },
        Entry::Tenant { number: 8, name: Arc::from("") },
        Entry::Hold {
            hold,
            account: 1,
            unix_s: 2,
            tokens: 3,
            prompt_tokens: 4,
            cached_token_permille: 5,
        },
        Entry::Checkpoint { hold, progress: Progress { cached_tokens: 1, output_tokens: 2 } },
        Entry::Settle { hold, used: used(u32::MAX, 9) },
        Entry::Opening { next_hold: 12 },
        Entry::Day { account: 4, day: Day(20_000), used: day_use },
    ];
    for window in Window::ALL {
        entries.push(Entry::Balance { account: 4, window, start: 5, settled: 6 });
    }
    let mut bytes = Vec::new();
    frame::write_batch(&mut bytes, 42, 43, &entries);
    let frame::Found::Batch(head, body, length) = frame::read_batch(&bytes) else {
        panic!("it was written whole")
    };
    assert_eq!((head.first, head.entries, head.unix_s, length), (42, 10, 43, bytes.len()));
    let read: Option<Vec<Entry>> = body.collect();
    assert_eq!(read, Some(entries));
}

#[test]
fn a_restart_settles_what_was_open_with_what_was_noted_last() {
    let disk = SimDisk::new(1, DiskFaults::default());
    let acme = tenant("acme", Some(1000));
    let ledger = open(&disk);
    let hold = |output| ledger.hold(&acme, &worst(100, output), 1000).expect("room")[0];
    let (done, running, waiting) = (hold(100), hold(200), hold(300));
    let refused = ledger.hold(&acme, &worst(100, 101), 1000).expect_err("200 are left");
    assert!(matches!(refused, Refusal::Budget(shortage) if !shortage.is_final()));
    ledger.settle(done, used(100, 30));
    ledger.checkpoint(running, Progress { cached_tokens: 0, output_tokens: 16 });
    let before = ledger.report(&acme, 1000);
    assert_eq!((before.windows[1].used, before.windows[1].held), (0, 830), "nothing is durable");
    ledger.commit(1000).expect("the disk is well");
    let after = ledger.report(&acme, 1000);
    let day = after.windows[1];
    assert_eq!((day.used, day.held, day.remaining), (130, 700, Some(170)));
    assert!(after.as_of.durable && after.as_of.sequence > before.as_of.sequence);
    ledger.checkpoint(running, Progress { cached_tokens: 0, output_tokens: 32 });
    disk.restart(DiskFaults::default());
    let (ledger, recovery) = try_open(&disk).expect("the disk is well");
    assert_eq!((recovery.settled_holds, recovery.torn_bytes), (2, 0));
    assert_eq!(settled(&ledger, "acme"), 130 + 116);
    assert!(ledger.holds().is_empty());
    // The ids of the first life mean nothing in the second.
    ledger.settle(waiting, used(100, 300));
    assert_eq!(settled(&ledger, "acme"), 246);
    assert_eq!(settled(&open(&disk), "acme"), 246, "settled once, over as many starts as come");
}

#[test]
fn a_log_that_ends_anywhere_is_read_up_to_its_last_whole_batch() {
    let disk = written();
    let bytes = disk.bytes();
    let whole = replay(&bytes).expect("it is whole");
    let mut sequences = Vec::new();
    for length in 0..=bytes.len() {
        match replay(&bytes[..length]) {
            Ok(read) => {
                assert!(read.next_sequence <= whole.next_sequence);
                let read_bytes = length as u64 - read.torn_bytes;
                sequences.push(read.next_sequence);
                assert!(read.torn_bytes == 0 || read_bytes < bytes.len() as u64);
            }
            // Of a log that begins with a snapshot, half a snapshot never is there.
            Err(error) => assert!(length > 0 && sequences.len() == 1, "{length}: {error}"),
        }
    }
    assert!(sequences.is_sorted(), "more bytes never say less");
    sequences.dedup();
    assert_eq!(sequences.len(), 1 + 1 + 15, "no log, the first snapshot, and 15 batches");
}

#[test]
fn a_change_in_the_middle_is_told_and_nothing_is_guessed() {
    let disk = written();
    let bytes = disk.bytes();
    let last_batch = {
        let mut at = 0;
        let mut last = 0;
        while let frame::Found::Batch(_, _, length) = frame::read_batch(&bytes[at..]) {
            last = at;
            at += length;
        }
        last
    };
    for at in 0..bytes.len() {
        for bit in [0, 7] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            match replay(&damaged) {
                Err(LedgerError::Damaged { .. }) => assert!(at < last_batch, "at byte {at}"),
                // The last batch cannot be told from one that a crash tore.
                Ok(read) => assert!(at >= last_batch && read.torn_bytes > 0, "at byte {at}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
    let mut doubled = bytes.clone();
    doubled.extend_from_slice(&bytes[last_batch..]);
    let error = replay(&doubled).expect_err("a batch is there twice");
    assert!(error.to_string().contains("missing or doubled"), "{error}");
    disk.set_bytes(doubled);
    assert!(matches!(try_open(&disk), Err(LedgerError::Damaged { .. })));
}

#[test]
fn a_failed_sync_makes_the_ledger_read_only_for_good() {
    let faults = DiskFaults { failing_sync: Some(1), ..DiskFaults::default() };
    let disk = SimDisk::new(3, faults);
    let (acme, free) = (tenant("acme", Some(1000)), tenant("free", None));
    let ledger = open(&disk);
    let hold = ledger.hold(&acme, &worst(10, 10), 1000).expect("room")[0];
    let error = ledger.commit(1000).expect_err("the sync of this batch fails");
    assert!(matches!(error, LedgerError::Write { .. }) && ledger.is_read_only());
    assert_eq!(ledger.hold(&acme, &worst(1, 1), 1000), Err(Refusal::LedgerReadOnly));
    let unbounded = ledger.hold(&free, &worst(1, 1), 1000).expect("it has no budget")[0];
    ledger.settle(hold, used(10, 10));
    ledger.settle(unbounded, used(1, 1));
    assert_eq!(ledger.commit(1000).expect("nothing to do"), Committed::default());
    assert!(ledger.holds().is_empty(), "holds end with their requests all the same");
    assert_eq!(ledger.report(&acme, 1000).windows[1].used, 0, "it is not durable");
    let facts = ledger.facts();
    assert!(facts.is_read_only && facts.pending_entries == 0 && facts.holds_open == 0);
}

#[test]
fn a_disk_that_is_too_slow_refuses_work_and_keeps_room_for_settlements() {
    let limits = LedgerLimits { pending_entries_max: 40, ..LedgerLimits::default() };
    let disk = SimDisk::new(1, DiskFaults::default());
    let (ledger, _) = Ledger::open(Box::new(disk), limits, 0).expect("the disk is well");
    let acme = tenant("acme", None);
    let mut holds = Vec::new();
    let refusal = loop {
        match ledger.hold(&acme, &worst(1, 100), 0) {
            Ok(ids) => holds.extend(ids),
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, Refusal::LedgerBusy { .. }));
    for output_tokens in 0..100 {
        for hold in &holds {
            ledger.checkpoint(*hold, Progress { cached_tokens: 0, output_tokens });
        }
    }
    for hold in &holds {
        ledger.settle(*hold, used(1, 100));
    }
    assert!(ledger.facts().pending_entries <= 40);
    ledger.commit(0).expect("the disk is well");
    assert_eq!(ledger.durable_balances("acme", 0)[0].settled, holds.len() as u64 * 101);
    ledger.hold(&acme, &worst(1, 1), 0).expect("there is room again");
}

#[test]
fn without_a_log_reports_say_that_figures_are_not_durable() {
    let ledger = Ledger::in_memory(LedgerLimits::default());
    let acme = tenant("acme", Some(50));
    let hold = ledger.hold(&acme, &worst(10, 10), 0).expect("room")[0];
    ledger.settle(hold, used(10, 5));
    let report = ledger.report(&acme, 0);
    assert_eq!((report.windows[1].used, report.windows[1].remaining), (15, Some(35)));
    assert_eq!((report.days.len(), report.as_of.durable), (1, false));
    assert_eq!(ledger.facts().pending_entries, 0);
}

#[test]
fn a_folder_belongs_to_one_server_and_can_be_read_beside_it() {
    let folder = std::env::temp_dir().join(format!("weir-ledger-{}", std::process::id()));
    let open = || FileStorage::open(&folder);
    let storage = open().expect("a folder for temporary files");
    let second = open().expect_err("it is locked");
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    // The log is replaced after each batch here, so that the new file is written to as well.
    let limits = LedgerLimits { snapshot_after_bytes: 1, ..LedgerLimits::default() };
    let (ledger, _) = Ledger::open(Box::new(storage), limits, 1000).expect("a new ledger");
    let acme = tenant("acme", None);
    for _ in 0..3 {
        let hold = ledger.hold(&acme, &worst(10, 10), 1000).expect("no limit")[0];
        ledger.settle(hold, used(10, 1));
        assert!(ledger.commit(1000).expect("it can be written").is_snapshot);
        ledger.hold(&acme, &worst(10, 10), 1000).expect("no limit");
        ledger.commit(1000).expect("it can be written");
    }
    let beside = replay(&FileStorage::read_beside(&folder).expect("it is there"));
    assert_eq!(beside.expect("it is whole").budgets.balances("acme", 1000)[1].settled, 33);
    drop(ledger);
    let (again, recovery) =
        Ledger::open(Box::new(open().expect("the lock is free")), limits, 1000).expect("whole");
    assert_eq!((settled(&again, "acme"), recovery.settled_holds), (33, 3));
    drop(again);
    std::fs::remove_dir_all(&folder).expect("it was ours");
}
