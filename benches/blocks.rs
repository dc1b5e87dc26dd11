//! What the block pool's operations cost. Run with `cargo bench --bench blocks`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use weir::engine::BlockPool;
use weir::ids::{BlockId, TenantId, TokenId};

const BLOCKS: u32 = 100_000;
const BLOCK_SIZE: u32 = 16;

fn allocate_and_release(c: &mut Criterion) {
    let mut pool = BlockPool::new(BLOCKS, BLOCK_SIZE, [1; 32], true);
    c.bench_function("allocate and release a block", |b| {
        b.iter(|| {
            let block = pool.allocate().unwrap();
            pool.release(black_box(block), 0);
        });
    });
}

fn find_a_prefix(c: &mut Criterion) {
    let mut pool = BlockPool::new(BLOCKS, BLOCK_SIZE, [1; 32], true);
    let tokens: Vec<TokenId> = (0..2048).map(TokenId).collect();
    let root = pool.root(TenantId(1), "");
    let mut place = root;
    for full in tokens.chunks(BLOCK_SIZE as usize) {
        let block = pool.allocate().unwrap();
        place = pool.publish(place, full, block);
    }
    let mut found: Vec<BlockId> = Vec::new();
    c.bench_function("find 128 cached blocks (2,048 tokens)", |b| {
        b.iter(|| {
            found.clear();
            pool.find(root, tokens.iter().copied(), 128, &mut found);
            assert_eq!(black_box(&found).len(), 128);
        });
    });
}

fn evict_and_publish(c: &mut Criterion) {
    let mut pool = BlockPool::new(1000, BLOCK_SIZE, [1; 32], true);
    let root = pool.root(TenantId(1), "");
    let mut name = 0;
    c.bench_function("allocate by eviction, publish and release a block", |b| {
        b.iter(|| {
            name += 1;
            let tokens = [TokenId(name); BLOCK_SIZE as usize];
            let block = pool.allocate().unwrap();
            pool.publish(root, &tokens, block);
            pool.release(block, 0);
        });
    });
}

fn cache_root(c: &mut Criterion) {
    let pool = BlockPool::new(16, BLOCK_SIZE, [1; 32], true);
    c.bench_function("root of a tenant's cache domain", |b| {
        b.iter(|| black_box(pool.root(TenantId(7), "a salt of some length")));
    });
}

criterion_group!(benches, allocate_and_release, find_a_prefix, evict_and_publish, cache_root);
criterion_main!(benches);
