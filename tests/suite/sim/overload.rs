//! More is asked than the device can do.

use std::time::Duration;

use weir::config::{LedgerLimits, QueueLimits, TenantSettings};
use weir::engine::EngineConfig;

use super::setup::{Client, Mishaps, Setup, device};
use super::traffic::{Crowd, Habits, Lengths, Phase, Traffic};

/// Who decides what enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Weir's gate.
    Gate,
    /// Nobody: everything enters and runs in the order of its arrival.
    Fifo,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// A hundred tenants of the same weight and demand.
    Equals,
    /// The first sends 70 % of everything, twenty others of weights 1 to 4 the rest.
    Hog,
    /// Twenty tenants of weights 1 to 4 and the same demand.
    Weighted,
    /// One alone.
    Lone,
}

/// A scenario of the scheduling study's device.
#[derive(Clone, Debug)]
pub struct Overload {
    pub seed: u64,
    pub policy: Policy,
    pub crowd: Crowded,
    /// Requests a second at load 1.
    pub capacity: f64,
    pub slots: u32,
    pub blocks: u32,
    pub loads: Vec<(f64, Duration)>,
}

impl Overload {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            policy: Policy::Gate,
            crowd: Crowded::Equals,
            capacity: 50.0,
            slots: 512,
            blocks: 25_000,
            loads: Vec::new(),
        }
    }

    pub fn setup(&self) -> Setup {
        let ttft = Duration::from_secs(1);
        let tpot = Duration::from_millis(50);
        let settings = |weight: u32| TenantSettings {
            weight,
            ttft: Some(ttft),
            ttft_per_1k_tokens: Some(Duration::from_millis(24)),
            tpot: Some(tpot),
            ..TenantSettings::default()
        };
        let even = |tenants: u32| vec![Crowd { tenants: 0..tenants, rate: self.capacity }];
        let (tenants, crowds) = match self.crowd {
            Crowded::Equals => (vec![settings(1); 100], even(100)),
            Crowded::Weighted => ((0..20).map(|at| settings(1 + at % 4)).collect(), even(20)),
            Crowded::Lone => (vec![settings(1)], even(1)),
            Crowded::Hog => {
                let hog = Crowd { tenants: 0..1, rate: 0.7 * self.capacity };
                let others = Crowd { tenants: 1..21, rate: 0.3 * self.capacity };
                let weights = std::iter::once(1).chain((1..21).map(|at| 1 + at % 4));
                (weights.map(settings).collect(), vec![hog, others])
            }
        };
        let mut sim = device();
        sim.limits.slots_total = self.slots;
        sim.limits.blocks_total = self.blocks;
        Setup {
            seed: self.seed,
            engine: EngineConfig {
                step_rows_max: 1536,
                running_max: self.slots,
                mailbox_max: 100_000,
                waiting_max: 100_000,
                check_every_steps: 0,
                ..EngineConfig::new([7; 32])
            },
            sim,
            queue: QueueLimits {
                requests_max: 100_000,
                tokens_max: 1 << 40,
                ..QueueLimits::default()
            },
            tenants,
            traffic: Traffic {
                crowds,
                lengths: Lengths::default(),
                habits: Habits::default(),
                phases: self.loads.iter().map(|&(load, lasts)| Phase { load, lasts }).collect(),
            },
            client: Client::default(),
            mishaps: Mishaps { commit_every: Duration::from_millis(100), ..Mishaps::default() },
            ledger: LedgerLimits::default(),
            check_every: 0,
            fifo: self.policy == Policy::Fifo,
            ttft_objective: ttft,
            tpot_objective: tpot,
        }
    }
}
