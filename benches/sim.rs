//! Runs of the simulator that are too long for the tests: `cargo bench --bench sim -- overload`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

#[path = "../tests/suite/sim/mod.rs"]
mod sim;

use std::time::{Duration, Instant};

use sim::overload::{Crowded, Overload, Policy};
use sim::swarm;
use sim::world::World;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let prefix = format!("{name}=");
        args.iter().find_map(|arg| arg.strip_prefix(&prefix)?.parse::<f64>().ok())
    };
    if args.iter().any(|arg| arg == "swarm") {
        swarm(&value);
    } else if args.iter().any(|arg| arg == "overload") {
        let fifo = args.iter().any(|arg| arg == "fifo");
        overload(&value, fifo, args.iter().any(|arg| arg == "hog"));
    }
}

/// Seeds until so many steps were made, with invariants checked after each turn.
fn swarm(value: &dyn Fn(&str) -> Option<f64>) {
    let steps = value("steps").unwrap_or(2e6) as u64;
    let first = value("first").unwrap_or(0.0) as u64;
    let check = value("check").unwrap_or(1.0) as u64;
    let last = value("seeds").map_or(u64::MAX, |seeds| first + seeds as u64);
    let (mut total, mut seed) = (swarm::Outcome::default(), first);
    let began = Instant::now();
    let mut told = Instant::now();
    while total.steps < steps && seed < last {
        let one = swarm::run_checked(seed, check);
        if seed.is_multiple_of(20) {
            assert_eq!(
                swarm::run_checked(seed, check),
                one,
                "SEED={seed}: the same seed, another run"
            );
        }
        total.steps += one.steps;
        total.requests += one.requests;
        total.attempts += one.attempts;
        total.hash ^= one.hash;
        seed += 1;
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            println!("{seed} seeds, {total:?}, {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = total.steps as f64 / seconds;
    println!(
        "seeds {first} to {}: {total:?}, 0 violations, {seconds:.1} s, {rate:.0} steps/s",
        seed - 1
    );
}

/// A table of loads: what is served in time, refused, late, and how long prompts fare.
fn overload(value: &dyn Fn(&str) -> Option<f64>, fifo: bool, hog: bool) {
    println!(" load  good/s    tok/s admitted late% refused/s  ttft p50   p99 long/short");
    let loads = value("load").map_or(vec![0.8, 0.95, 1.1, 1.5, 2.0, 5.0, 10.0], |load| vec![load]);
    for load in loads {
        let seconds = value("seconds").unwrap_or(60.0);
        let mut run = Overload::new(value("seed").unwrap_or(1.0) as u64);
        run.policy = if fifo { Policy::Fifo } else { Policy::Gate };
        run.crowd = if hog { Crowded::Hog } else { Crowded::Equals };
        run.capacity = value("capacity").unwrap_or(run.capacity);
        run.slots = value("slots").map_or(run.slots, |n| n as u32);
        run.blocks = value("blocks").map_or(run.blocks, |n| n as u32);
        run.loads = vec![(load, Duration::from_secs_f64(seconds / 4.0)); 1];
        run.loads.push((load, Duration::from_secs_f64(seconds)));
        let mut world = World::new(run.setup());
        let began = Instant::now();
        world.run();
        let counts = &world.tally.phases[1];
        println!(
            "{load:5.2} {:7.1} {:8.0} {:8} {:5.2} {:9.1} {:9.0} {:5.0} {:10.2}   {} steps in {:.1} s",
            counts.good as f64 / seconds,
            counts.good_tokens as f64 / seconds,
            counts.admitted,
            100.0 * counts.late_share(),
            counts.refused as f64 / seconds,
            counts.ttft_ms(0.5),
            counts.ttft_ms(0.99),
            counts.size_ratio(),
            world.steps,
            began.elapsed().as_secs_f64(),
        );
        if hog {
            let hog = &world.tally.tenants[0];
            let polite = sim::tally::Counts::sum(&world.tally.tenants[1..]);
            println!(
                "      hog: good {:.3} late {:.2}%; others: good {:.3} late {:.2}% p50 {:.0} p99 {:.0}",
                hog.good_share(),
                100.0 * hog.late_share(),
                polite.good_share(),
                100.0 * polite.late_share(),
                polite.ttft_ms(0.5),
                polite.ttft_ms(0.99),
            );
        }
    }
}
