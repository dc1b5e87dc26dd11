//! Who owns which KV block, and which block may be written next. Never touches the blocks'
//! content, which lies on the device.

use std::collections::VecDeque;

pub use super::prefix::ChainId;
use super::prefix::PrefixIndex;
use crate::ids::{BlockId, TenantId, TokenId};

/// All KV blocks of a device. Each is in exactly one of four states:
///
/// - *owned*: one or more references from sequences;
/// - *resting*: no reference, but a step in flight may still read it (R36);
/// - *cached*: no reference, found by the prefix index, evicted in order of least recent use;
/// - *free*: no reference, not found.
#[derive(Debug)]
pub struct BlockPool {
    block_size_tokens: u32,
    caching: bool,
    references: Vec<u32>,
    owned: u32,
    free: Vec<BlockId>,
    cached: RecencyList,
    /// Blocks in the order in which they began to rest; an entry is stale when it does not match
    /// `rest_until`.
    resting: VecDeque<(u64, BlockId)>,
    rest_until: Vec<u64>,
    resting_total: u32,
    step_completed: u64,
    index: PrefixIndex,
}

/// A list of blocks in order of use, linked through arrays so that moving one costs no search.
#[derive(Debug)]
struct RecencyList {
    next: Vec<u32>,
    previous: Vec<u32>,
    len: u32,
}

/// What [`BlockPool::rest_until`] holds for a block that does not rest; steps count from 1.
const NOT_RESTING: u64 = 0;

impl BlockPool {
    /// A pool of free blocks. `secret` keys the prefix cache and must be random in each process.
    pub fn new(blocks_total: u32, block_size_tokens: u32, secret: [u8; 32], caching: bool) -> Self {
        assert!(block_size_tokens > 0, "a block holds tokens");
        let total = blocks_total as usize;
        Self {
            block_size_tokens,
            caching,
            references: vec![0; total],
            owned: 0,
            // Popped from the end: low numbers first.
            free: (0..blocks_total).rev().map(BlockId).collect(),
            cached: RecencyList::new(total),
            resting: VecDeque::with_capacity(total),
            rest_until: vec![NOT_RESTING; total],
            resting_total: 0,
            step_completed: 0,
            index: PrefixIndex::new(blocks_total, block_size_tokens, secret),
        }
    }

    /// All blocks.
    pub fn total(&self) -> u32 {
        self.references.len() as u32
    }

    /// Blocks that can be allocated now.
    pub fn available(&self) -> u32 {
        self.free.len() as u32 + self.cached.len
    }

    /// Blocks with a reference.
    pub fn owned(&self) -> u32 {
        self.owned
    }

    /// Blocks that only the prefix cache holds.
    pub fn cached(&self) -> u32 {
        self.cached.len
    }

    /// Blocks that become available when the steps in flight have completed.
    pub fn resting(&self) -> u32 {
        self.resting_total
    }

    /// Token positions in a block.
    pub fn block_size_tokens(&self) -> u32 {
        self.block_size_tokens
    }

    /// Blocks that hold `tokens` positions.
    pub fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_size_tokens)
    }

    /// A block with one reference; evicts the least recently used cached one when none is free.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => {
                let block = self.cached.pop_oldest()?;
                self.index.remove(block);
                block
            }
        };
        self.references[block.index()] = 1;
        self.owned += 1;
        Some(block)
    }

    /// One more reference to an owned block.
    pub fn share(&mut self, block: BlockId) {
        assert!(self.references[block.index()] > 0, "only owned blocks are shared");
        self.references[block.index()] += 1;
    }

    /// One reference less. Without any, the block rests until `step` has completed.
    pub fn release(&mut self, block: BlockId, step: u64) {
        let references = &mut self.references[block.index()];
        assert!(*references > 0, "a block is released once for each reference");
        *references -= 1;
        if *references > 0 {
            return;
        }
        self.owned -= 1;
        if step <= self.step_completed {
            self.settle(block);
        } else {
            self.rest_until[block.index()] = step;
            self.resting.push_back((step, block));
            self.resting_total += 1;
        }
    }

    /// Ends the rest of the blocks whose last reader was `step` or an earlier one.
    pub fn completed(&mut self, step: u64) {
        self.step_completed = self.step_completed.max(step);
        while let Some(&(until, block)) = self.resting.front() {
            if until > step {
                break;
            }
            self.resting.pop_front();
            if self.rest_until[block.index()] == until {
                self.rest_until[block.index()] = NOT_RESTING;
                self.resting_total -= 1;
                self.settle(block);
            }
        }
    }

    /// The root of a cache domain (R32).
    pub fn root(&self, tenant: TenantId, salt: &str) -> ChainId {
        self.index.root(tenant, salt)
    }

    /// Appends to `found` the cached blocks that hold the beginning of `tokens`, at most
    /// `blocks_max`; the place after the last. Takes no reference: see [`BlockPool::take`].
    pub fn find(
        &self,
        root: ChainId,
        tokens: impl Iterator<Item = TokenId>,
        blocks_max: u32,
        found: &mut Vec<BlockId>,
    ) -> ChainId {
        let mut place = root;
        if !self.caching || blocks_max == 0 {
            return place;
        }
        let mut full = [TokenId(0); 256];
        let block_size = self.block_size_tokens as usize;
        assert!(block_size <= full.len(), "a block has at most 256 tokens");
        let mut filled = 0;
        let mut blocks = 0;
        for token in tokens {
            full[filled] = token;
            filled += 1;
            if filled == block_size {
                let Some((block, next)) = self.index.find(place, &full[..filled]) else { break };
                found.push(block);
                place = next;
                filled = 0;
                blocks += 1;
                if blocks == blocks_max {
                    break;
                }
            }
        }
        place
    }

    /// How many of these are not owned, so that taking them lowers [`BlockPool::available`].
    pub fn unowned(&self, blocks: &[BlockId]) -> u32 {
        blocks.iter().filter(|b| self.references[b.index()] == 0).count() as u32
    }

    /// A reference to a block that [`BlockPool::find`] found.
    pub fn take(&mut self, block: BlockId) {
        let index = block.index();
        if self.references[index] == 0 {
            assert!(self.index.holds(block), "only a found block is taken");
            self.owned += 1;
            if self.rest_until[index] == NOT_RESTING {
                self.cached.remove(block);
            } else {
                self.rest_until[index] = NOT_RESTING;
                self.resting_total -= 1;
            }
        }
        self.references[index] += 1;
    }

    /// Lets later requests find an owned block whose computation finished and was finite (R34).
    /// `tokens` fill it and come after `parent`. Returns the place after it.
    pub fn publish(&mut self, parent: ChainId, tokens: &[TokenId], block: BlockId) -> ChainId {
        assert!(self.references[block.index()] > 0, "only owned blocks are published");
        if self.caching { self.index.publish(parent, tokens, block) } else { parent }
    }

    /// Whether blocks are published at all.
    pub fn caching(&self) -> bool {
        self.caching
    }

    /// Recomputes every counter from the references that sequences hold, one entry for each
    /// reference (R41).
    ///
    /// # Panics
    /// When a block leaked, is owned twice, or a counter is wrong.
    pub fn check(&self, references: impl Iterator<Item = BlockId>) {
        let mut counted = vec![0u32; self.references.len()];
        for block in references {
            counted[block.index()] += 1;
        }
        assert_eq!(counted, self.references, "references equal those that sequences hold");
        let owned = counted.iter().filter(|&&n| n > 0).count() as u32;
        assert_eq!(owned, self.owned, "owned blocks are counted");
        let resting = self.rest_until.iter().filter(|&&step| step != NOT_RESTING).count() as u32;
        assert_eq!(resting, self.resting_total, "resting blocks are counted");
        let mut seen = vec![false; counted.len()];
        let cached = self.cached.iter();
        for block in self.free.iter().copied().chain(cached) {
            assert!(!seen[block.index()], "{block} is available once");
            seen[block.index()] = true;
            assert_eq!(counted[block.index()], 0, "an available block has no owner");
            assert_eq!(self.rest_until[block.index()], NOT_RESTING, "nor does it rest");
        }
        assert!(self.cached.iter().all(|b| self.index.holds(b)), "cached blocks are found");
        assert!(!self.free.iter().any(|&b| self.index.holds(b)), "free blocks are not found");
        assert_eq!(
            owned + resting + self.available(),
            self.total(),
            "each block is owned, resting, cached or free"
        );
        self.index.check();
    }

    fn settle(&mut self, block: BlockId) {
        if self.index.holds(block) {
            self.cached.push_newest(block);
        } else {
            self.free.push(block);
        }
    }
}

impl RecencyList {
    /// Index `total` is the sentinel that joins both ends.
    fn new(total: usize) -> Self {
        let links: Vec<u32> = (0..=total as u32).collect();
        Self { next: links.clone(), previous: links, len: 0 }
    }

    fn push_newest(&mut self, block: BlockId) {
        let end = self.next.len() as u32 - 1;
        let last = self.previous[end as usize];
        self.next[last as usize] = block.0;
        self.previous[block.index()] = last;
        self.next[block.index()] = end;
        self.previous[end as usize] = block.0;
        self.len += 1;
    }

    fn pop_oldest(&mut self) -> Option<BlockId> {
        let end = self.next.len() - 1;
        let first = self.next[end];
        (first as usize != end).then(|| {
            self.remove(BlockId(first));
            BlockId(first)
        })
    }

    fn remove(&mut self, block: BlockId) {
        let (previous, next) = (self.previous[block.index()], self.next[block.index()]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
        self.len -= 1;
    }

    fn iter(&self) -> impl Iterator<Item = BlockId> {
        let end = self.next.len() as u32 - 1;
        let mut at = self.next[end as usize];
        std::iter::from_fn(move || {
            let block = at;
            (block != end).then(|| {
                at = self.next[block as usize];
                BlockId(block)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(name: u32) -> [TokenId; 4] {
        [TokenId(name), TokenId(1), TokenId(2), TokenId(3)]
    }

    fn pool(blocks: u32) -> BlockPool {
        BlockPool::new(blocks, 4, [9; 32], true)
    }

    #[test]
    fn a_block_rests_until_the_step_that_read_it_has_completed() {
        let mut pool = pool(1);
        let block = pool.allocate().unwrap();
        pool.release(block, 2);
        pool.completed(1);
        assert_eq!((pool.available(), pool.resting()), (0, 1));
        assert_eq!(pool.allocate(), None);
        pool.completed(2);
        assert_eq!(pool.allocate(), Some(block));
        pool.check([block].into_iter());
    }

    #[test]
    fn the_block_that_was_used_longest_ago_is_evicted_first() {
        let mut pool = pool(3);
        let root = pool.root(TenantId(1), "");
        for name in 0..3 {
            let block = pool.allocate().unwrap();
            pool.publish(root, &tokens(name), block);
            pool.release(block, 0);
        }
        let find = |pool: &BlockPool, name| {
            let mut found = Vec::new();
            pool.find(root, tokens(name).into_iter(), 1, &mut found);
            found.first().copied()
        };
        let first = find(&pool, 0).unwrap();
        pool.take(first);
        pool.release(first, 0);
        let evicted = pool.allocate().unwrap();
        assert_eq!(find(&pool, 1), None, "block 0 was used again, so that 1 is the oldest");
        assert!(find(&pool, 0).is_some() && find(&pool, 2).is_some());
        pool.check([evicted].into_iter());
    }

    #[test]
    fn a_block_that_rests_is_found_and_taken_back() {
        let mut pool = pool(2);
        let root = pool.root(TenantId(1), "");
        let block = pool.allocate().unwrap();
        pool.publish(root, &tokens(1), block);
        pool.release(block, 5);
        let mut found = Vec::new();
        pool.find(root, tokens(1).into_iter(), 1, &mut found);
        assert_eq!((found.as_slice(), pool.unowned(&found)), ([block].as_slice(), 1));
        pool.take(block);
        pool.completed(5);
        assert_eq!((pool.owned(), pool.resting(), pool.available()), (1, 0, 1));
        pool.check([block].into_iter());
    }

    #[test]
    fn the_same_tokens_after_another_prefix_are_another_block() {
        let mut pool = pool(4);
        let root = pool.root(TenantId(1), "");
        let (a, b) = (pool.allocate().unwrap(), pool.allocate().unwrap());
        let place = pool.publish(root, &tokens(1), a);
        pool.publish(place, &tokens(1), b);
        let mut found = Vec::new();
        let twice = tokens(1).into_iter().chain(tokens(1));
        pool.find(root, twice, 9, &mut found);
        assert_eq!(found, [a, b]);
        for (tenant, salt) in [(2, ""), (1, "pepper")] {
            let mut found = Vec::new();
            pool.find(pool.root(TenantId(tenant), salt), tokens(1).into_iter(), 9, &mut found);
            assert_eq!(found, [], "another tenant or salt sees nothing");
        }
    }

    #[test]
    fn a_second_block_with_the_same_content_stays_unpublished() {
        let mut pool = pool(2);
        let root = pool.root(TenantId(1), "");
        let (a, b) = (pool.allocate().unwrap(), pool.allocate().unwrap());
        assert_eq!(pool.publish(root, &tokens(1), a), pool.publish(root, &tokens(1), b));
        pool.release(b, 0);
        assert_eq!((pool.cached(), pool.available()), (0, 1));
        pool.release(a, 0);
        assert_eq!((pool.cached(), pool.available()), (1, 2));
        pool.check([].into_iter());
    }
}
