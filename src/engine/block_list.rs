//! The KV blocks of one sequence, in the order of its positions.

use crate::ids::BlockId;

/// A list whose last block is at hand without a look at the heap: a decode needs no more, and the
/// ends of a thousand sequences' lists are a thousand cache misses.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct BlockList {
    /// Meaningless without blocks.
    last: BlockId,
    all: Vec<BlockId>,
}

impl BlockList {
    /// Blocks in it.
    pub fn len(&self) -> u32 {
        self.all.len() as u32
    }

    /// All of them.
    pub fn as_slice(&self) -> &[BlockId] {
        &self.all
    }

    /// Adds blocks at the end.
    pub fn extend(&mut self, blocks: &[BlockId]) {
        self.all.extend_from_slice(blocks);
        self.last = self.all.last().copied().unwrap_or_default();
    }

    /// Takes the blocks from place `start` on out, the last one first.
    pub fn take_from(&mut self, start: u32) -> impl Iterator<Item = BlockId> {
        let start = (start as usize).min(self.all.len());
        self.last = start.checked_sub(1).map_or(BlockId::default(), |at| self.all[at]);
        self.all.drain(start..).rev()
    }

    /// Where a position's K and V are written: its block times the block size, plus the rest.
    /// The list covers the position.
    pub fn kv_slot(&self, position: u32, block_size: u32) -> u32 {
        // Mostly it is in the last block, and a multiplication is cheaper than a division.
        let last_start = (self.len() - 1) * block_size;
        match position.checked_sub(last_start) {
            Some(offset) => self.last.0 * block_size + offset,
            None => {
                self.all[(position / block_size) as usize].0 * block_size + position % block_size
            }
        }
    }
}
