//! Entries as bytes: batches, each written and made durable as one.
//!
//! A batch is a head of 32 bytes and its entries, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `WLG` and the version of the format, 1 |
//! | 4..8 | CRC-32 (IEEE) of everything after it |
//! | 8..12 | bytes of the entries |
//! | 12..16 | number of entries |
//! | 16..24 | sequence number of the first entry; entries are numbered without gaps |
//! | 24..32 | when it was written, in seconds since 1970 |
//!
//! An entry is a byte that names its kind, and fields of fixed width; a tenant's name is preceded
//! by its length in two bytes. A batch is written only after the one before it is durable. So a
//! batch that does not read well is the end of what a crash left, unless it is the first (a
//! snapshot, which replaces a log at once) or a whole batch follows it anywhere: then bytes that
//! had been durable have changed.

use std::sync::Arc;

use crate::gate::Used;
use crate::gate::budget::{DayUse, Entry, HoldId, Progress};
use crate::gate::calendar::{Day, Window};

/// Bytes of a tenant's name at most; longer ones are cut at writing, and settings forbid them.
pub const NAME_BYTES_MAX: usize = 1024;

const MAGIC: [u8; 4] = *b"WLG\x01";
const HEAD_BYTES: usize = 32;

/// A batch's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of its first entry.
    pub first: u64,
    /// How many entries.
    pub entries: u32,
    /// When it was written.
    pub unix_s: u64,
    body_bytes: u32,
}

/// What stands at a place of the log.
#[derive(Debug)]
pub enum Found<'a> {
    /// A whole batch, and how many bytes it is long.
    Batch(Head, Body<'a>, usize),
    /// The end.
    End,
    /// Something else.
    Damaged,
}

/// A batch's entries.
#[derive(Clone, Debug)]
pub struct Body<'a> {
    rest: &'a [u8],
    left: u32,
}

/// Writes a batch behind `into`.
///
/// # Panics
/// When the entries have more than 4 GiB; the ledger's bounds are far below.
pub fn write_batch(into: &mut Vec<u8>, first: u64, unix_s: u64, entries: &[Entry]) {
    let start = into.len();
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&[0; 8]);
    into.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    into.extend_from_slice(&first.to_le_bytes());
    into.extend_from_slice(&unix_s.to_le_bytes());
    for entry in entries {
        write_entry(into, entry);
    }
    let body = u32::try_from(into.len() - start - HEAD_BYTES).expect("batches are below 4 GiB");
    into[start + 8..start + 12].copy_from_slice(&body.to_le_bytes());
    let crc = crc32fast::hash(&into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// What begins at the first byte of `log`.
pub fn read_batch(log: &[u8]) -> Found<'_> {
    if log.is_empty() {
        return Found::End;
    }
    let Some(head) = read_head(log) else { return Found::Damaged };
    let bytes = HEAD_BYTES + head.body_bytes as usize;
    let Some(batch) = log.get(..bytes) else { return Found::Damaged };
    if crc32fast::hash(&batch[8..]) != u32::from_le_bytes(array(&batch[4..8])) {
        return Found::Damaged;
    }
    Found::Batch(head, Body { rest: &batch[HEAD_BYTES..], left: head.entries }, bytes)
}

/// Whether a whole batch numbered from `first_min` on begins anywhere in `log`.
pub fn any_batch(log: &[u8], first_min: u64) -> bool {
    let mut at = 0;
    while let Some(found) = log[at..].iter().position(|byte| *byte == MAGIC[0]) {
        at += found;
        if let Found::Batch(head, ..) = read_batch(&log[at..])
            && head.first >= first_min
        {
            return true;
        }
        at += 1;
    }
    false
}

impl Iterator for Body<'_> {
    /// `None`: the bytes are not an entry.
    type Item = Option<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = read_entry(&mut self.rest);
        let is_last = self.left == 0;
        if entry.is_none() || (is_last && !self.rest.is_empty()) {
            self.left = 0;
            return Some(None);
        }
        Some(entry)
    }
}

fn read_head(log: &[u8]) -> Option<Head> {
    let head = log.get(..HEAD_BYTES)?;
    if head[..4] != MAGIC {
        return None;
    }
    Some(Head {
        body_bytes: u32::from_le_bytes(array(&head[8..12])),
        entries: u32::from_le_bytes(array(&head[12..16])),
        first: u64::from_le_bytes(array(&head[16..24])),
        unix_s: u64::from_le_bytes(array(&head[24..32])),
    })
}

fn write_entry(into: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Tenant { number, name } => {
            let name = &name.as_bytes()[..name.floor_char_boundary(NAME_BYTES_MAX)];
            into.push(1);
            into.extend_from_slice(&number.to_le_bytes());
            into.extend_from_slice(&(name.len() as u16).to_le_bytes());
            into.extend_from_slice(name);
        }
        Entry::Hold { hold, account, unix_s, tokens, prompt_tokens, cached_token_permille } => {
            into.push(2);
            into.extend_from_slice(&hold.0.to_le_bytes());
            into.extend_from_slice(&account.to_le_bytes());
            into.extend_from_slice(&unix_s.to_le_bytes());
            into.extend_from_slice(&tokens.to_le_bytes());
            into.extend_from_slice(&prompt_tokens.to_le_bytes());
            into.extend_from_slice(&cached_token_permille.to_le_bytes());
        }
        Entry::Checkpoint { hold, progress } => {
            into.push(3);
            into.extend_from_slice(&hold.0.to_le_bytes());
            into.extend_from_slice(&progress.cached_tokens.to_le_bytes());
            into.extend_from_slice(&progress.output_tokens.to_le_bytes());
        }
        Entry::Settle { hold, used } => {
            into.push(4);
            into.extend_from_slice(&hold.0.to_le_bytes());
            for tokens in [used.prompt_tokens, used.cached_tokens, used.output_tokens] {
                into.extend_from_slice(&tokens.to_le_bytes());
            }
        }
        Entry::Opening { next_hold } => {
            into.push(5);
            into.extend_from_slice(&next_hold.to_le_bytes());
        }
        Entry::Balance { account, window, start, settled } => {
            into.push(6);
            into.extend_from_slice(&account.to_le_bytes());
            into.push(*window as u8);
            into.extend_from_slice(&start.to_le_bytes());
            into.extend_from_slice(&settled.to_le_bytes());
        }
        Entry::Day { account, day, used } => {
            into.push(7);
            into.extend_from_slice(&account.to_le_bytes());
            into.extend_from_slice(&day.0.to_le_bytes());
            let DayUse { requests, prompt_tokens, cached_tokens, output_tokens, .. } = *used;
            let charged = used.charged_tokens;
            for value in [requests, prompt_tokens, cached_tokens, output_tokens, charged] {
                into.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
}

fn read_entry(rest: &mut &[u8]) -> Option<Entry> {
    let kind = take::<1>(rest)?[0];
    let mut fields = Fields(rest);
    Some(match kind {
        1 => {
            let number = fields.u32()?;
            let bytes = usize::from(u16::from_le_bytes(take(fields.0)?));
            let name = fields.0.split_off(..bytes)?;
            Entry::Tenant { number, name: Arc::from(std::str::from_utf8(name).ok()?) }
        }
        2 => Entry::Hold {
            hold: HoldId(fields.u64()?),
            account: fields.u32()?,
            unix_s: fields.u64()?,
            tokens: fields.u64()?,
            prompt_tokens: fields.u32()?,
            cached_token_permille: u16::from_le_bytes(take(fields.0)?),
        },
        3 => Entry::Checkpoint {
            hold: HoldId(fields.u64()?),
            progress: Progress { cached_tokens: fields.u32()?, output_tokens: fields.u32()? },
        },
        4 => Entry::Settle {
            hold: HoldId(fields.u64()?),
            used: Used {
                prompt_tokens: fields.u32()?,
                cached_tokens: fields.u32()?,
                output_tokens: fields.u32()?,
            },
        },
        5 => Entry::Opening { next_hold: fields.u64()? },
        6 => Entry::Balance {
            account: fields.u32()?,
            window: *Window::ALL.get(usize::from(take::<1>(fields.0)?[0]))?,
            start: fields.u64()?,
            settled: fields.u64()?,
        },
        7 => Entry::Day {
            account: fields.u32()?,
            day: Day(fields.u32()?),
            used: DayUse {
                requests: fields.u64()?,
                prompt_tokens: fields.u64()?,
                cached_tokens: fields.u64()?,
                output_tokens: fields.u64()?,
                charged_tokens: fields.u64()?,
            },
        },
        _ => return None,
    })
}

struct Fields<'a, 'b>(&'a mut &'b [u8]);

impl Fields<'_, '_> {
    fn u32(&mut self) -> Option<u32> {
        take(self.0).map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        take(self.0).map(u64::from_le_bytes)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N).map(array)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the slice was cut to this length")
}
