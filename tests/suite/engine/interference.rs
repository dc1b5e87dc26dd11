//! What a tenant can see of another's prefix cache, and do to it: nothing (T5, R33).

use std::time::Duration;

use weir::clock::{Clock, Time};

use super::world::{Ask, World, config, limits, prompt, sim};

/// All that a caller could observe: when each of its answers started and went on, and what was
/// said to be cached.
type Observed = Vec<(Time, usize, u32, usize)>;

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// Runs tenant 0's trace, then tenant 1's beside more of tenant 0's. With `shared`, the first
/// trace has the beginnings of tenant 1's prompts, else other tokens of the same lengths.
fn observe(seed: u64, shared: bool, steps_in_flight: u32) -> Observed {
    let mut rng = Rng(seed);
    let mut world = World::new(config(), sim(limits(1024, 4, steps_in_flight)));
    let names: Vec<(u32, u32)> = (0..6).map(|i| (i, 8 + rng.below(60))).collect();
    for &(name, tokens) in &names {
        let name = if shared { name } else { name + 40 };
        world.ask(Ask { tenant: 0, ..Ask::new(prompt(name, tokens), 3) });
    }
    world.run();
    let mut own = Vec::new();
    let mut observed = Vec::new();
    while own.len() < 12 || !world.engine.is_idle() {
        if own.len() < 12 && rng.below(3) == 0 {
            let (name, tokens) = names[rng.below(6) as usize];
            let more = rng.below(9);
            let mut tokens = prompt(name, tokens);
            tokens.extend(prompt(70 + more, more));
            own.push(world.ask(Ask { tenant: 1, ..Ask::new(tokens, 1 + rng.below(12)) }));
        }
        if own.len() < 12 && rng.below(4) == 0 {
            let name = 80 + rng.below(4);
            world.ask(Ask { tenant: 0, ..Ask::new(prompt(name, 20), 1 + rng.below(9)) });
        }
        world.turn();
        for &caller in &own {
            let got = world.got(caller);
            observed.push((
                world.clock.now(),
                got.tokens[0].len(),
                got.cached_tokens,
                got.started as usize,
            ));
        }
        assert!(world.clock.now() < Time(0).plus(Duration::from_secs(600)), "it ends");
    }
    observed
}

#[test]
fn whether_another_tenant_has_a_prefix_cached_changes_nothing() {
    for seed in 0..200 {
        let steps_in_flight = 1 + (seed % 2) as u32;
        let other = observe(seed, false, steps_in_flight);
        assert!(other.iter().any(|(_, _, cached, _)| *cached > 0), "its own prefixes are found");
        assert_eq!(observe(seed, true, steps_in_flight), other, "seed {seed}");
    }
}

#[test]
fn a_tenant_that_computes_much_pushes_out_its_own_blocks_alone() {
    let mut world = World::new(config(), sim(limits(256, 4, 1)));
    let quiet = |tenant| Ask { tenant, ..Ask::new(prompt(tenant, 100), 2) };
    for tenant in 1..4 {
        world.ask(quiet(tenant));
    }
    world.run();
    for i in 0..60 {
        world.ask(Ask::new(prompt(100 + i, 90), 2));
    }
    world.run();
    assert_eq!(world.last.load.blocks_available, 256);
    for tenant in 1..4 {
        let again = world.ask(quiet(tenant));
        world.run();
        assert!(world.got(again).cached_tokens >= 96, "{}", world.got(again).cached_tokens);
    }
}
