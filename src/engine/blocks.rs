//! Who owns which KV block, and which block may be written next. Never touches the blocks'
//! content, which lies on the device.

use std::collections::VecDeque;

use super::cached::CachedBlocks;
pub use super::prefix::ChainId;
use super::prefix::PrefixIndex;
use crate::ids::{BlockId, TenantId, TokenId};

/// All KV blocks of a device. Each is in exactly one of four states:
///
/// - *owned*: one or more references from sequences;
/// - *resting*: no reference, but a step in flight may still read it (R36);
/// - *cached*: no reference, found by the prefix index, evicted from the tenant that has most for
///   its weight, in order of least recent use;
/// - *free*: no reference, not found; those that a computation left with a NaN are apart and used
///   when there is no other left (R35).
#[derive(Debug)]
pub struct BlockPool {
    block_size_tokens: u32,
    caching: bool,
    /// What is known of each block.
    blocks: Vec<Block>,
    owned: u32,
    free: Vec<BlockId>,
    /// Free blocks that may hold a NaN. Nobody reads a position that it has not written, so that
    /// they do no harm; but a fault of the memory itself would meet the next request.
    quarantined: Vec<BlockId>,
    cached: CachedBlocks,
    /// Blocks in the order in which they began to rest; an entry is stale when it does not match
    /// [`Block::rest_until`].
    resting: VecDeque<(u64, BlockId)>,
    resting_total: u32,
    step_completed: u64,
    index: PrefixIndex,
}

/// All of a block in one place: a pool has hundreds of thousands, and each look at another place
/// of memory is a cache miss.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Step after which it rests no more, or [`NOT_RESTING`].
    rest_until: u64,
    references: u32,
    /// Whose it is, if the prefix index holds it; else [`UNPUBLISHED`] or [`SICK`].
    owner: u32,
}

/// See [`Block::owner`].
const UNPUBLISHED: u32 = u32::MAX;
/// Unpublished, and a computation left a NaN in it.
const SICK: u32 = u32::MAX - 1;

/// What [`Block::rest_until`] holds for a block that does not rest; steps count from 1.
const NOT_RESTING: u64 = 0;
/// Free blocks that [`BlockPool::refill_free`] sees to, if the pool has sixty-four times as many.
const FREE_READY_MAX: usize = 512;

impl BlockPool {
    /// A pool of free blocks. `secret` keys the prefix cache and must be random in each process.
    pub fn new(blocks_total: u32, block_size_tokens: u32, secret: [u8; 32], caching: bool) -> Self {
        assert!(block_size_tokens > 0, "a block holds tokens");
        let block = Block { rest_until: NOT_RESTING, references: 0, owner: UNPUBLISHED };
        Self {
            block_size_tokens,
            caching,
            blocks: vec![block; blocks_total as usize],
            owned: 0,
            // Popped from the end: low numbers first.
            free: (0..blocks_total).rev().map(BlockId).collect(),
            quarantined: Vec::new(),
            cached: CachedBlocks::new(blocks_total),
            resting: VecDeque::with_capacity(blocks_total as usize),
            resting_total: 0,
            step_completed: 0,
            index: PrefixIndex::new(blocks_total, block_size_tokens, secret),
        }
    }

    /// All blocks.
    pub fn total(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Blocks that can be allocated now.
    pub fn available(&self) -> u32 {
        (self.free.len() + self.quarantined.len()) as u32 + self.cached.len()
    }

    /// Blocks with a reference.
    pub fn owned(&self) -> u32 {
        self.owned
    }

    /// Blocks that only the prefix cache holds.
    pub fn cached(&self) -> u32 {
        self.cached.len()
    }

    /// Free blocks that are used when there is no other left.
    pub fn quarantined(&self) -> u32 {
        self.quarantined.len() as u32
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

    /// A block with one reference; evicts a cached one when none is free.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => self.evict().or_else(|| self.quarantined.pop())?,
        };
        let state = &mut self.blocks[block.index()];
        state.references = 1;
        state.owner = UNPUBLISHED;
        self.owned += 1;
        Some(block)
    }

    /// Evicts cached blocks until some are free, so that the next allocations find them at hand.
    /// Of a large pool alone: a small one keeps what it has until it needs it.
    pub fn refill_free(&mut self) {
        let wanted = (self.total() as usize / 64).min(FREE_READY_MAX);
        while self.free.len() < wanted {
            let Some(block) = self.evict() else { return };
            self.free.push(block);
        }
    }

    /// One more reference to an owned block.
    pub fn share(&mut self, block: BlockId) {
        let state = &mut self.blocks[block.index()];
        assert!(state.references > 0, "only owned blocks are shared");
        state.references += 1;
    }

    /// One reference less. Without any, the block rests until `step` has completed.
    pub fn release(&mut self, block: BlockId, step: u64) {
        let state = &mut self.blocks[block.index()];
        assert!(state.references > 0, "a block is released once for each reference");
        state.references -= 1;
        if state.references > 0 {
            return;
        }
        self.owned -= 1;
        if step <= self.step_completed {
            self.settle(block);
        } else {
            state.rest_until = step;
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
            let state = &mut self.blocks[block.index()];
            if state.rest_until == until {
                state.rest_until = NOT_RESTING;
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
        blocks.iter().filter(|b| self.blocks[b.index()].references == 0).count() as u32
    }

    /// A reference to a block that [`BlockPool::find`] found.
    pub fn take(&mut self, block: BlockId) {
        let state = &mut self.blocks[block.index()];
        state.references += 1;
        if state.references > 1 {
            return;
        }
        assert!(state.is_published(), "only a found block is taken");
        self.owned += 1;
        if state.rest_until == NOT_RESTING {
            self.cached.remove(block, state.owner);
        } else {
            state.rest_until = NOT_RESTING;
            self.resting_total -= 1;
        }
    }

    /// Lets later requests find an owned block whose computation finished and was finite (R34).
    /// `tokens` fill it and come after `parent`; in the cache it counts as `owner`'s. Returns the
    /// place after it.
    pub fn publish(
        &mut self,
        owner: u32,
        parent: ChainId,
        tokens: &[TokenId],
        block: BlockId,
    ) -> ChainId {
        let state = &mut self.blocks[block.index()];
        assert!(state.references > 0, "only owned blocks are published");
        if !self.caching {
            return parent;
        }
        let (place, found) = self.index.publish(parent, tokens, block);
        if found {
            state.owner = owner;
        }
        place
    }

    /// Notes that an owned block which is not published may hold a NaN.
    pub fn quarantine(&mut self, block: BlockId) {
        let state = &mut self.blocks[block.index()];
        if !state.is_published() {
            state.owner = SICK;
        }
    }

    /// Sets what an owner's cached blocks are weighed by, and how many it may have.
    pub fn set_cache_share(&mut self, owner: u32, weight: u32, cached_max: u32) {
        self.cached.set_share(owner, weight, cached_max);
    }

    /// Cached blocks of an owner.
    pub fn cached_of(&self, owner: u32) -> u32 {
        self.cached.of_owner(owner)
    }

    /// Evicts all cached blocks of an owner.
    pub fn evict_all_of(&mut self, owner: u32) {
        while let Some(block) = self.cached.oldest_of(owner) {
            self.uncache(block, owner);
            self.free.push(block);
        }
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
        let mut counted = vec![0u32; self.total() as usize];
        for block in references {
            counted[block.index()] += 1;
        }
        let blocks = &self.blocks;
        let held = blocks.iter().map(|block| block.references);
        assert!(held.eq(counted.iter().copied()), "references equal those that sequences hold");
        let owned = counted.iter().filter(|&&n| n > 0).count() as u32;
        assert_eq!(owned, self.owned, "owned blocks are counted");
        let resting = blocks.iter().filter(|block| block.rest_until != NOT_RESTING).count() as u32;
        assert_eq!(resting, self.resting_total, "resting blocks are counted");
        let mut seen = vec![false; counted.len()];
        let free = || self.free.iter().chain(&self.quarantined).copied();
        for block in free().chain(self.cached.iter().map(|(block, _)| block)) {
            assert!(!seen[block.index()], "{block} is available once");
            seen[block.index()] = true;
            assert_eq!(counted[block.index()], 0, "an available block has no owner");
            assert_eq!(blocks[block.index()].rest_until, NOT_RESTING, "nor does it rest");
        }
        self.cached.check();
        for (block, owner) in self.cached.iter() {
            assert!(self.index.holds(block), "cached blocks are found");
            assert_eq!(blocks[block.index()].owner, owner, "a cached block knows its owner");
        }
        assert!(!free().any(|block| self.index.holds(block)), "free blocks are not found");
        for (number, block) in blocks.iter().enumerate() {
            let held = self.index.holds(BlockId(number as u32));
            assert_eq!(block.is_published(), held, "a block knows whether it is found");
        }
        assert_eq!(
            owned + resting + self.available(),
            self.total(),
            "each block is owned, resting, cached or free"
        );
        self.index.check();
    }

    /// Puts a block that nobody reads any more where it belongs.
    fn settle(&mut self, block: BlockId) {
        match self.blocks[block.index()].owner {
            UNPUBLISHED => self.free.push(block),
            SICK => self.quarantined.push(block),
            owner => {
                self.cached.add(block, owner);
                if let Some(excess) = self.cached.excess_of(owner) {
                    self.uncache(excess, owner);
                    self.free.push(excess);
                }
            }
        }
    }

    /// Takes the block out of the cache whose turn it is.
    fn evict(&mut self) -> Option<BlockId> {
        let (block, owner) = self.cached.next()?;
        self.uncache(block, owner);
        Some(block)
    }

    fn uncache(&mut self, block: BlockId, owner: u32) {
        self.cached.remove(block, owner);
        self.blocks[block.index()].owner = UNPUBLISHED;
        self.index.remove(block);
    }
}

impl Block {
    /// Whether the prefix index holds it.
    fn is_published(&self) -> bool {
        self.owner < SICK
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
            pool.publish(0, root, &tokens(name), block);
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
        pool.publish(0, root, &tokens(1), block);
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
        let place = pool.publish(0, root, &tokens(1), a);
        pool.publish(0, place, &tokens(1), b);
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
        assert_eq!(pool.publish(0, root, &tokens(1), a), pool.publish(0, root, &tokens(1), b));
        pool.release(b, 0);
        assert_eq!((pool.cached(), pool.available()), (0, 1));
        pool.release(a, 0);
        assert_eq!((pool.cached(), pool.available()), (1, 2));
        pool.check([].into_iter());
    }
}
