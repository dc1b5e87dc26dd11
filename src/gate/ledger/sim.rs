//! A disk that fails by seed: unsynced writes are torn, lost and kept in any order when power is
//! cut, a sync may fail and drop what it should have kept, and the power may go in the middle of
//! any operation. What survives is what a real disk may leave.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::Storage;

/// Bytes that a disk writes as one.
const SECTOR_BYTES: usize = 64;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Power goes during this operation, counted from 0; everything after it fails.
    pub power_off_at: Option<u64>,
    /// The sync of this number, counted from 0, fails; bytes it should have kept may be lost, and
    /// later syncs say that all is well.
    pub failing_sync: Option<u64>,
}

/// A simulated disk. Clones are the same disk, so that a test keeps it over a restart.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: u64,
    faults: DiskFaults,
    operations: u64,
    syncs: u64,
    is_off: bool,
    /// What the running process reads.
    log: Vec<u8>,
    /// What is certain to survive.
    durable: Vec<u8>,
    /// Changes since the last sync, in their order.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Replace(Vec<u8>),
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64, faults: DiskFaults) -> Self {
        let state = State {
            rng: seed,
            faults,
            operations: 0,
            syncs: 0,
            is_off: false,
            log: Vec::new(),
            durable: Vec::new(),
            unsynced: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power and turns it on again: of what was not synced some survives. `faults` are
    /// those of the new life.
    pub fn restart(&self, faults: DiskFaults) {
        let mut state = self.lock();
        state.lose_power();
        state.is_off = false;
        state.faults = faults;
        (state.operations, state.syncs) = (0, 0);
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// What the log is now, for tests that damage it.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().log.clone()
    }

    /// Makes the log these bytes, durably and without faults, for tests that damage it.
    pub fn set_bytes(&self, bytes: Vec<u8>) {
        let mut state = self.lock();
        state.unsynced.clear();
        state.log.clone_from(&bytes);
        state.durable = bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for SimDisk {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        state.operate()?;
        Ok(state.log.clone())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.require_power()?;
        // What a write brings before power goes in it is part of what may survive.
        let at = state.log.len();
        state.log.extend_from_slice(bytes);
        for (sector, bytes) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let at = at + sector * SECTOR_BYTES;
            state.unsynced.push(Change::Write { at, bytes: bytes.to_vec() });
        }
        state.operate()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.sync()
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        // Before its rename the new file is no part of the log: power that goes then changes
        // nothing.
        state.operate()?;
        state.log = bytes.to_vec();
        state.unsynced.push(Change::Replace(bytes.to_vec()));
        state.operate()?;
        state.sync()
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        self.require_power()?;
        if self.faults.power_off_at == Some(self.operations) {
            self.lose_power();
        }
        self.operations += 1;
        self.require_power()
    }

    fn require_power(&self) -> io::Result<()> {
        if self.is_off {
            return Err(io::Error::other("the simulated disk has no power"));
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let sync = self.syncs;
        self.syncs += 1;
        let fails = self.faults.failing_sync == Some(sync);
        let all = std::mem::take(&mut self.unsynced);
        for change in all {
            // A failed sync has kept some, and forgets the rest: it is not written later.
            if !fails || self.chance(2) {
                change.apply(&mut self.durable);
            }
        }
        if fails { Err(io::Error::other("the simulated disk failed a sync")) } else { Ok(()) }
    }

    fn lose_power(&mut self) {
        if !self.is_off {
            self.is_off = true;
            // Some lives lose all that was not synced, some nothing, most a part.
            let kept_of_4 = self.random() % 5;
            for change in std::mem::take(&mut self.unsynced) {
                let is_kept = self.random() % 4 < kept_of_4;
                let change = match change {
                    Change::Write { at, mut bytes } if self.chance(8) => {
                        let torn = self.random() as usize % bytes.len().max(1);
                        bytes.truncate(torn);
                        Change::Write { at, bytes }
                    }
                    whole => whole,
                };
                if is_kept {
                    change.apply(&mut self.durable);
                }
            }
            self.log.clone_from(&self.durable);
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random().is_multiple_of(one_in)
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Change {
    fn apply(self, log: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => {
                // A sector that came without the ones before it leaves a hole of zeros.
                if log.len() < at + bytes.len() {
                    log.resize(at + bytes.len(), 0);
                }
                log[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Change::Replace(bytes) => *log = bytes,
        }
    }
}
