//! The ledger's log: read at each start, from a disk that may have changed anything.

use weir::gate::ledger::{LedgerError, replay};

const HEAD_BYTES: usize = 32;

/// Reads a log twice: as it is, and with every batch's checksum made right, so that mutations
/// reach the entries. What is read has to be consistent in itself.
pub fn ledger(data: &[u8]) {
    check(data);
    let mut signed = data.to_vec();
    let mut at = 0;
    while let Some(head) = signed.get(at..at + HEAD_BYTES) {
        let body = u32::from_le_bytes(head[8..12].try_into().expect("four bytes"));
        let end = (at + HEAD_BYTES + body as usize).min(signed.len());
        let crc = crc32fast::hash(&signed[at + 8..end]);
        signed[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    check(&signed);
}

fn check(log: &[u8]) {
    match replay(log) {
        Ok(mut replayed) => {
            assert!(replayed.torn_bytes <= log.len() as u64);
            replayed.budgets.check().expect("held tokens are those of the open holds");
            let tenants: Vec<_> = replayed.budgets.tenants().cloned().collect();
            for tenant in &tenants {
                for day in replayed.budgets.days(tenant) {
                    assert!(!day.0.to_string().is_empty());
                }
                replayed.budgets.balances(tenant, replayed.unix_s);
            }
            replayed.budgets.settle_open(&mut Vec::new());
            assert_eq!((replayed.budgets.open_holds(), replayed.budgets.totals().held), (0, 0));
        }
        Err(LedgerError::Damaged { at, reason, .. }) => {
            assert!(at < log.len() as u64 && !reason.is_empty());
        }
        Err(other) => panic!("nothing is read or written here: {other}"),
    }
}
