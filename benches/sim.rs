//! Runs of the simulator that are too long for the tests.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/suite/sim/mod.rs"]
mod sim;

use std::time::Duration;

use sim::traffic::{Crowd, Lengths, Phase, Traffic};
use sim::world::{Client, Setup, World, device};
use weir::config::{QueueLimits, TenantSettings};
use weir::engine::EngineConfig;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize, d: f64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(d);
    let policy = args.get(1).cloned().unwrap_or_default();
    let seconds = arg(2, 60.0);
    println!("load  good/s  tok/s   adm  late%  ref/s  p50  p99  long/short");
    for load in [0.8, 0.95, 1.1, 1.5, 2.0, 5.0, 10.0] {
        let fifo = policy == "fifo";
        let hog = std::env::var("HOG").is_ok();
        let settings = TenantSettings {
            ttft: Some(Duration::from_secs(1)),
            ttft_per_1k_tokens: Some(Duration::from_millis(24)),
            tpot: Some(Duration::from_millis(50)),
            ..TenantSettings::default()
        };
        let setup = Setup {
            seed: arg(3, 1.0) as u64,
            engine: EngineConfig {
                step_rows_max: 1536,
                running_max: 512,
                check_every_steps: 0,
                ..EngineConfig::new([7; 32])
            },
            sim: device(),
            queue: QueueLimits {
                requests_max: 100_000,
                tokens_max: 1 << 40,
                ..QueueLimits::default()
            },
            tenants: vec![settings; 100],
            traffic: Traffic {
                crowds: if hog {
                    vec![Crowd { tenants: 0..1, rate: 35.0 }, Crowd { tenants: 1..21, rate: 15.0 }]
                } else {
                    vec![Crowd { tenants: 0..100, rate: 50.0 }]
                },
                lengths: Lengths::default(),
                phases: vec![
                    Phase { load, lasts: Duration::from_secs_f64(seconds * 0.25) },
                    Phase { load, lasts: Duration::from_secs_f64(seconds) },
                ],
            },
            client: Client::default(),
            fifo,
            ttft_objective: Duration::from_secs(1),
            tpot_objective: Duration::from_millis(50),
        };
        let mut world = World::new(Setup {
            engine: EngineConfig {
                mailbox_max: 100_000,
                waiting_max: 100_000,
                ..setup.engine.clone()
            },
            ..setup
        });
        let began = std::time::Instant::now();
        world.run();
        let c = &world.tally.phases[1];
        println!(
            "{load:4.2} {:6.1} {:7.0} {:6} {:5.1} {:6.1} {:5.0} {:5.0} {:.2}/{:.2}={:.2} | steps {} in {:.1}s load {:?}",
            c.good as f64 / seconds,
            c.good_tokens as f64 / seconds,
            c.admitted,
            100.0 * c.late_share(),
            c.refused as f64 / seconds,
            c.ttft_ms(0.5),
            c.ttft_ms(0.99),
            c.long.1 as f64 / c.long.0.max(1) as f64,
            c.short.1 as f64 / c.short.0.max(1) as f64,
            c.size_ratio(),
            world.steps,
            began.elapsed().as_secs_f64(),
            world.handle.load().running,
        );
        if hog {
            let h = &world.tally.tenants[0];
            let mut p = sim::tally::Counts::default();
            for t in &world.tally.tenants[1..21] {
                p.offered += t.offered;
                p.good += t.good;
                p.admitted += t.admitted;
                p.late += t.late;
                p.refused += t.refused;
                p.ttft_ms.extend(&t.ttft_ms);
            }
            println!(
                "     hog: good {:.3} late {:.1}% adm {} p99 {:.0}; polite: good {:.3} late {:.1}% refused {} p50 {:.0} p99 {:.0}",
                h.good as f64 / h.offered as f64,
                100.0 * h.late_share(),
                h.admitted,
                h.ttft_ms(0.99),
                p.good as f64 / p.offered as f64,
                100.0 * p.late_share(),
                p.refused,
                p.ttft_ms(0.5),
                p.ttft_ms(0.99)
            );
        }
    }
}
