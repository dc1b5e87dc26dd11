//! The order in which cached blocks are evicted: first of the tenant that has most for its weight,
//! of its blocks the one that was used longest ago (R33). What one tenant computes so pushes out
//! its own blocks, not those of a tenant that has fewer.
//!
//! All operations take constant time: tenants lie in lists by the size of what they have, in steps
//! of a quarter octave, and those of one list take turns.

use crate::ids::BlockId;

/// Cached blocks by owner. An owner is a tenant's place in the scheduler's table.
#[derive(Debug)]
pub(super) struct CachedBlocks {
    /// Each block's neighbours among its owner's.
    links: Vec<Link>,
    owners: Vec<Owner>,
    /// Owners by how much they have for their weight.
    levels: Vec<Ends>,
    /// Bits of the levels that have owners.
    occupied: [u64; LEVELS / 64],
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    /// Its blocks, the one of the longest disuse first.
    blocks: Ends,
    cached: u32,
    cached_max: u32,
    weight: f32,
    /// Where it lies while it has blocks.
    level: usize,
    link: Link,
}

/// Neighbours in a list, or [`NONE`].
#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

const NONE: u32 = u32::MAX;
const UNLINKED: Link = Link { previous: NONE, next: NONE };
const EMPTY: Ends = Ends { first: NONE, last: NONE };
const LEVELS: usize = 256;
/// Levels are the upper bits of a float: its exponent and two of its mantissa. This one is that of
/// one block of the greatest weight.
const LEVEL_SHIFT: u32 = 21;
const LEVEL_MIN: u32 = (1.0_f32 / 16_384.0).to_bits() >> LEVEL_SHIFT;

impl CachedBlocks {
    /// None of `blocks_total` blocks.
    pub fn new(blocks_total: u32) -> Self {
        Self {
            links: vec![UNLINKED; blocks_total as usize],
            owners: Vec::new(),
            levels: vec![EMPTY; LEVELS],
            occupied: [0; LEVELS / 64],
            len: 0,
        }
    }

    /// Blocks in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Blocks that an owner has in it.
    pub fn of_owner(&self, owner: u32) -> u32 {
        self.owners.get(owner as usize).map_or(0, |owner| owner.cached)
    }

    /// Sets an owner's weight and bound.
    pub fn set_share(&mut self, owner: u32, weight: u32, cached_max: u32) {
        self.make(owner);
        let state = &mut self.owners[owner as usize];
        state.weight = weight.max(1) as f32;
        state.cached_max = cached_max;
        self.replace(owner);
    }

    /// Adds a block as its owner's last used one.
    pub fn add(&mut self, block: BlockId, owner: u32) {
        self.make(owner);
        let state = &mut self.owners[owner as usize];
        push(&mut state.blocks, &mut self.links, block.0);
        state.cached += 1;
        self.len += 1;
        self.replace(owner);
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: BlockId, owner: u32) {
        let state = &mut self.owners[owner as usize];
        unlink(&mut state.blocks, &mut self.links, block.0);
        state.cached -= 1;
        self.len -= 1;
        self.replace(owner);
    }

    /// The block to evict next, with its owner.
    pub fn next(&self) -> Option<(BlockId, u32)> {
        let word = (0..self.occupied.len()).rev().find(|word| self.occupied[*word] != 0)?;
        let level = word * 64 + self.occupied[word].ilog2() as usize;
        let owner = self.levels[level].first;
        Some((BlockId(self.owners[owner as usize].blocks.first), owner))
    }

    /// The oldest block of an owner that has more than it may.
    pub fn excess_of(&self, owner: u32) -> Option<BlockId> {
        let state = &self.owners[owner as usize];
        (state.cached > state.cached_max).then_some(BlockId(state.blocks.first))
    }

    /// An owner's oldest block.
    pub fn oldest_of(&self, owner: u32) -> Option<BlockId> {
        let state = self.owners.get(owner as usize)?;
        (state.blocks.first != NONE).then_some(BlockId(state.blocks.first))
    }

    /// All blocks, with their owners.
    pub fn iter(&self) -> impl Iterator<Item = (BlockId, u32)> {
        self.owners.iter().enumerate().flat_map(move |(owner, state)| {
            let mut at = state.blocks.first;
            std::iter::from_fn(move || {
                let block = at;
                (block != NONE).then(|| {
                    at = self.links[block as usize].next;
                    (BlockId(block), owner as u32)
                })
            })
        })
    }

    /// Asserts that all counts and places are right.
    pub fn check(&self) {
        assert_eq!(self.iter().count() as u32, self.len, "cached blocks are counted");
        for (owner, state) in self.owners.iter().enumerate() {
            let own = self.iter().filter(|(_, of)| *of as usize == owner).count();
            assert_eq!(own as u32, state.cached, "an owner's blocks are counted");
            if state.cached > 0 {
                assert_eq!(state.level, level(state), "an owner lies where it belongs");
                assert_ne!(self.occupied[state.level / 64] >> (state.level % 64) & 1, 0);
            }
        }
    }

    fn make(&mut self, owner: u32) {
        if self.owners.len() <= owner as usize {
            let new = Owner {
                blocks: EMPTY,
                cached: 0,
                cached_max: u32::MAX,
                weight: 1.0,
                level: LEVELS,
                link: UNLINKED,
            };
            self.owners.resize(owner as usize + 1, new);
        }
    }

    /// Puts an owner into the list of its level, behind the others.
    fn replace(&mut self, owner: u32) {
        let state = &self.owners[owner as usize];
        let (old, new) = (state.level, if state.cached == 0 { LEVELS } else { level(state) });
        if old < LEVELS {
            let ends = &mut self.levels[old];
            unlink(ends, &mut Owners(&mut self.owners), owner);
            if ends.first == NONE {
                self.occupied[old / 64] &= !(1 << (old % 64));
            }
        }
        if new < LEVELS {
            push(&mut self.levels[new], &mut Owners(&mut self.owners), owner);
            self.occupied[new / 64] |= 1 << (new % 64);
        }
        self.owners[owner as usize].level = new;
    }
}

fn level(owner: &Owner) -> usize {
    let bits = (owner.cached as f32 / owner.weight).to_bits() >> LEVEL_SHIFT;
    (bits.saturating_sub(LEVEL_MIN) as usize).min(LEVELS - 1)
}

/// Where the links of a list's members are.
trait Links {
    fn link(&mut self, member: u32) -> &mut Link;
}

struct Owners<'a>(&'a mut [Owner]);

impl Links for Owners<'_> {
    fn link(&mut self, member: u32) -> &mut Link {
        &mut self.0[member as usize].link
    }
}

impl Links for Vec<Link> {
    fn link(&mut self, member: u32) -> &mut Link {
        &mut self[member as usize]
    }
}

fn push(ends: &mut Ends, links: &mut impl Links, member: u32) {
    *links.link(member) = Link { previous: ends.last, next: NONE };
    match ends.last {
        NONE => ends.first = member,
        last => links.link(last).next = member,
    }
    ends.last = member;
}

fn unlink(ends: &mut Ends, links: &mut impl Links, member: u32) {
    let Link { previous, next } = std::mem::replace(links.link(member), UNLINKED);
    match previous {
        NONE => ends.first = next,
        previous => links.link(previous).next = next,
    }
    match next {
        NONE => ends.last = previous,
        next => links.link(next).previous = previous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners_of_evicted(cached: &mut CachedBlocks, count: u32) -> Vec<u32> {
        let evicted = (0..count).map(|_| {
            let (block, owner) = cached.next().expect("there are some");
            cached.remove(block, owner);
            cached.check();
            owner
        });
        evicted.collect()
    }

    #[test]
    fn the_tenant_with_most_for_its_weight_gives_its_oldest_blocks_first() {
        let mut cached = CachedBlocks::new(100);
        cached.set_share(2, 4, u32::MAX);
        for block in 0..90 {
            // Tenant 0 has 10, tenant 1 has 40, tenant 2 of weight 4 has 40.
            let owner = if block < 10 { 0 } else { 1 + block % 2 };
            cached.add(BlockId(block), owner);
        }
        assert_eq!(cached.next(), Some((BlockId(10), 1)));
        let owners = owners_of_evicted(&mut cached, 28);
        assert!(owners.iter().all(|owner| *owner == 1), "{owners:?}");
        let owners = owners_of_evicted(&mut cached, 30);
        assert!((0..3).all(|owner| owners.contains(&owner)), "now all alike: {owners:?}");
        owners_of_evicted(&mut cached, 32);
        assert_eq!((cached.len(), cached.next()), (0, None));
    }

    #[test]
    fn who_has_more_than_it_may_gives_its_oldest_block() {
        let mut cached = CachedBlocks::new(8);
        cached.set_share(3, 1, 2);
        for block in 0..3 {
            assert_eq!(cached.excess_of(3), None);
            cached.add(BlockId(block), 3);
        }
        assert_eq!(cached.excess_of(3), Some(BlockId(0)));
    }
}
