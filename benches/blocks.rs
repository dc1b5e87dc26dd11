//! What the block pool's operations cost. Run with `cargo bench --bench blocks`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use weir::engine::BlockPool;
use weir::ids::{BlockId, TenantId, TokenId};

const BLOCKS: u32 = 100_000;
const BLOCK_SIZE: u32 = 16;
const SECRET: [u8; 32] = [3; 32];

fn allocate_and_release(c: &mut Criterion) {
    let mut pool = BlockPool::new(BLOCKS, BLOCK_SIZE, SECRET, true);
    c.bench_function("allocate and release a block", |b| {
        b.iter(|| {
            let block = pool.allocate().unwrap();
            pool.release(black_box(block), 0);
        });
    });
}

/// Look-ups of a prompt that is cached whole, of one of 32,768 tokens, and of one that is not
/// cached at all: what every request pays before it may start.
fn find_a_prefix(c: &mut Criterion) {
    for (name, cached, asked, length) in [
        ("find 128 cached blocks (2,048 tokens)", 128, 128, 2048),
        ("find 2,048 cached blocks (32,768 tokens)", 2048, 2048, 32_768),
        ("find none of 128 blocks among 100,000", 0, 128, 2048),
    ] {
        let mut pool = BlockPool::new(BLOCKS, BLOCK_SIZE, SECRET, true);
        let tokens: Vec<TokenId> = (0..length).map(TokenId).collect();
        let root = pool.root(TenantId(1), "");
        let mut place = root;
        for full in tokens.chunks(BLOCK_SIZE as usize).take(cached) {
            let block = pool.allocate().unwrap();
            place = pool.publish(0, place, full, block);
        }
        // Other prompts' blocks, so that a miss is one in a full table.
        for other in cached as u32..BLOCKS {
            let block = pool.allocate().unwrap();
            pool.publish(0, root, &[TokenId(1_000_000 + other); BLOCK_SIZE as usize], block);
        }
        let mut found: Vec<BlockId> = Vec::new();
        c.bench_function(name, |b| {
            b.iter(|| {
                found.clear();
                pool.find(root, tokens.iter().copied(), asked, &mut found);
                assert_eq!(black_box(&found).len(), cached);
            });
        });
    }
}

fn evict_and_publish(c: &mut Criterion) {
    let mut pool = BlockPool::new(1000, BLOCK_SIZE, SECRET, true);
    let root = pool.root(TenantId(1), "");
    let mut name = 0;
    c.bench_function("allocate by eviction, publish and release a block", |b| {
        b.iter(|| {
            name += 1;
            let tokens = [TokenId(name); BLOCK_SIZE as usize];
            let block = pool.allocate().unwrap();
            pool.publish(0, root, &tokens, block);
            pool.release(block, 0);
        });
    });
}

fn cache_root(c: &mut Criterion) {
    let pool = BlockPool::new(16, BLOCK_SIZE, SECRET, true);
    c.bench_function("root of a tenant's cache domain", |b| {
        b.iter(|| black_box(pool.root(TenantId(7), "a salt of some length")));
    });
}

criterion_group!(benches, allocate_and_release, find_a_prefix, evict_and_publish, cache_root);
criterion_main!(benches);
