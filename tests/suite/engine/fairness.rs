//! Shares of the device between tenants and classes, measured at the device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir::clock::Clock;
use weir::config::Class;
use weir::device::sim::{Pace, SimConfig, SimCost, SimDevice};
use weir::device::{Device, DeviceError, DeviceLimits, Input, StepOutput, StepPlan};
use weir::engine::{Engine, EngineConfig, Share};
use weir::ids::{SeqId, TokenId};

use super::world::{Ask, World, config, limits, sim};

/// Device seconds of each tenant.
type Service = Arc<Mutex<HashMap<u32, f64>>>;

/// A device that notes whose rows it computes: a prompt's first token names its tenant. What a
/// step costs in any case is everybody's in it to equal parts.
struct Metered {
    inner: SimDevice,
    cost: SimCost,
    tenants: HashMap<SeqId, u32>,
    service: Service,
}

impl Device for Metered {
    fn limits(&self) -> &DeviceLimits {
        self.inner.limits()
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<(), DeviceError> {
        let mut service = self.service.lock().unwrap();
        for span in &plan.spans {
            if plan.positions[span.row_start as usize] == 0
                && let Input::Token(tenant) = plan.inputs[span.row_start as usize]
            {
                self.tenants.insert(span.seq, tenant.0);
            }
            let prefill = if span.row_count > 1 { span.row_count } else { 0 };
            let seconds = self.cost.fixed.as_secs_f64() / plan.spans.len() as f64
                + self.cost.per_prefill_row.as_secs_f64() * f64::from(prefill)
                + self.cost.per_sequence.as_secs_f64()
                + self.cost.per_1024_context_tokens.as_secs_f64() / 1024.0
                    * f64::from(span.context_tokens);
            *service.entry(self.tenants[&span.seq]).or_default() += seconds;
        }
        drop(service);
        self.inner.submit(plan)
    }

    fn wait(&mut self, output: &mut StepOutput) -> Result<(), DeviceError> {
        self.inner.wait(output)
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

fn world(slots: u32) -> (World, Service) {
    let limits = DeviceLimits {
        step_rows_max: 512,
        slots_total: slots,
        context_tokens_max: 2048,
        ..limits(4096, 16, 1)
    };
    let sim = SimConfig { sampled: 0..900, ..SimConfig::new(limits) };
    let config = EngineConfig {
        step_rows_max: 512,
        prefix_caching: false,
        mailbox_max: 8192,
        check_every_steps: 64,
        ..EngineConfig::new([7; 32])
    };
    let mut world = World::new(config.clone(), sim.clone());
    let service = Service::default();
    let device = Metered {
        inner: SimDevice::new(sim.clone(), Pace::Virtual(Arc::clone(&world.clock))),
        cost: sim.cost,
        tenants: HashMap::new(),
        service: Arc::clone(&service),
    };
    (world.engine, world.handle) = Engine::new(config, Box::new(device));
    (world, service)
}

fn ask(tenant: u32, weight: u32, prompt: u32, output: u32) -> Ask {
    let mut tokens = vec![TokenId(5); prompt as usize];
    tokens[0] = TokenId(tenant);
    let share = Share { weight, ..Share::default() };
    Ask { tenant, share, ..Ask::new(tokens, output) }
}

fn run_for(world: &mut World, time: Duration) {
    let end = world.later(time);
    while world.clock.now() < end {
        world.turn();
    }
}

fn backlog(world: &World, tenant: u32) -> usize {
    let own = world.callers.iter().filter(|caller| caller.ask.tenant == tenant);
    own.filter(|caller| caller.got.started == 0).count()
}

/// What was served since an earlier look, by tenant.
fn since(service: &Service, before: &HashMap<u32, f64>) -> HashMap<u32, f64> {
    let now = service.lock().unwrap();
    now.iter().map(|(tenant, s)| (*tenant, s - before.get(tenant).unwrap_or(&0.0))).collect()
}

#[test]
fn tenants_with_a_backlog_share_the_device_by_their_weights() {
    const HOG: u32 = 20;
    for seed in 0..5 {
        let mut rng = Rng(seed);
        let (mut world, service) = world(32);
        for _ in 0..600 {
            world.ask(ask(HOG, 1, 1 + rng.below(800), 1 + rng.below(100)));
        }
        for tenant in 0..20 {
            let weight = 1 + tenant % 4;
            for _ in 0..50 * weight {
                world.ask(ask(tenant, weight, 50 + rng.below(100), 10 + rng.below(40)));
            }
        }
        run_for(&mut world, Duration::from_secs(2));
        let before = service.lock().unwrap().clone();
        run_for(&mut world, Duration::from_secs(12));
        assert!((0..=HOG).all(|tenant| backlog(&world, tenant) > 0), "all have a backlog");
        let served = since(&service, &before);
        let by_weight: Vec<f64> = (0..=HOG)
            .map(|tenant| {
                let weight = if tenant == HOG { 1 } else { 1 + tenant % 4 };
                served[&tenant] / f64::from(weight)
            })
            .collect();
        let sum: f64 = by_weight.iter().sum();
        let squares: f64 = by_weight.iter().map(|s| s * s).sum();
        let jain = sum * sum / (by_weight.len() as f64 * squares);
        assert!(jain >= 0.98, "seed {seed}: Jain index {jain:.4} of {by_weight:.3?}");
    }
}

/// The bound of VTC (OSDI'24, theorem 4.4) in device time: twice the larger of the largest
/// prefill and of what is running.
#[test]
fn service_of_tenants_with_a_backlog_differs_by_less_than_what_runs() {
    const SLOTS: u32 = 16;
    for seed in 0..8 {
        let mut rng = Rng(seed + 100);
        let (mut world, service) = world(SLOTS);
        let tenants = 2 + rng.below(4);
        let weights: Vec<u32> = (0..tenants).map(|_| 1 + rng.below(4)).collect();
        for tenant in 0..tenants {
            let (prompt, output) = (1 + rng.below(600), 1 + rng.below(80));
            for _ in 0..600 {
                let prompt = 1 + rng.below(prompt);
                world.ask(ask(tenant, weights[tenant as usize], prompt, output));
            }
        }
        run_for(&mut world, Duration::from_secs(1));
        let before = service.lock().unwrap().clone();
        // Steps that generate 80 tokens for all that run, beside chunks of prefill.
        let step_s = 0.005 + 512.0 * 16e-6 + f64::from(SLOTS) * (3e-6 + 700.0 * 33e-9);
        let bound = 2.0 * 80.0 * step_s;
        let mut largest: f64 = 0.0;
        for _ in 0..20 {
            run_for(&mut world, Duration::from_millis(300));
            if (0..tenants).any(|tenant| backlog(&world, tenant) == 0) {
                break;
            }
            let served = since(&service, &before);
            for a in 0..tenants {
                for b in 0..a {
                    let by_weight = |t: u32| served[&t] / f64::from(weights[t as usize]);
                    largest = largest.max((by_weight(a) - by_weight(b)).abs());
                }
            }
        }
        assert!(largest <= bound, "seed {seed}: {largest:.3} s apart, bound {bound:.3} s");
    }
}

#[test]
fn a_lone_tenant_may_use_the_whole_device() {
    let (mut world, _) = world(16);
    for _ in 0..40 {
        world.ask(ask(1, 1, 20, 50));
    }
    world.turns(4);
    assert_eq!(world.last.load.running, 16);
    world.run();
}

#[test]
fn higher_classes_go_first_and_batch_gets_its_floor() {
    let (mut world, service) = world(8);
    let classes = [Class::Interactive, Class::Standard, Class::Batch];
    for (tenant, class) in classes.into_iter().enumerate() {
        for _ in 0..700 {
            let request = ask(tenant as u32, 1, 40, 20);
            let share = Share { class, ..request.share };
            world.ask(Ask { share, ..request });
        }
    }
    run_for(&mut world, Duration::from_secs(1));
    let before = service.lock().unwrap().clone();
    run_for(&mut world, Duration::from_secs(6));
    assert!((0..3).all(|tenant| backlog(&world, tenant) > 0));
    let served = since(&service, &before);
    let share =
        |tenant: u32| served.get(&tenant).copied().unwrap_or(0.0) / served.values().sum::<f64>();
    assert_eq!(share(1), 0.0, "the standard class waits for the interactive one");
    assert!((0.03..0.09).contains(&share(2)), "batch has {:.3}", share(2));
    world.run();
    assert!(world.callers.iter().all(|caller| caller.got.done.is_some()));
}

#[test]
fn a_tenant_waits_at_its_share_of_blocks_without_blocking_others() {
    let (mut world, _) = world(64);
    let share = Share { kv_share: 0.1, ..Share::default() };
    for _ in 0..40 {
        world.ask(Ask { share, ..ask(0, 1, 800, 40) });
    }
    let others: Vec<_> = (0..10).map(|_| world.ask(ask(1, 1, 800, 40))).collect();
    let mut most = 0;
    while others.iter().any(|&caller| world.got(caller).done.is_none()) {
        world.turn();
        let runs = |c: &&super::world::Caller| c.got.started > 0 && c.got.done.is_none();
        let own = world.callers.iter().filter(|caller| caller.ask.tenant == 0).filter(runs);
        most = most.max(own.count());
    }
    // 410 blocks of 4096: seven of 51 to start with, and what these grow.
    assert!((6..=8).contains(&most), "{most} at once");
    world.run();
    assert!(world.callers.iter().all(|caller| caller.got.done.is_some()));
}

#[test]
fn tenants_that_are_idle_are_forgotten() {
    let config = EngineConfig { tenants_max: 300, ..config() };
    let mut world = World::new(config, sim(limits(64, 4, 1)));
    for tenant in 0..2000 {
        world.ask(ask(tenant % 900, 1, 3, 1));
        world.turn();
        assert!(world.last.load.tenants <= 300 + 8, "{} are known", world.last.load.tenants);
    }
    world.run();
}

#[test]
fn a_request_that_was_cancelled_costs_its_tenant_what_was_computed() {
    let (mut world, service) = world(1);
    for tenant in 0..2 {
        for _ in 0..40 {
            world.ask(ask(tenant, 1, 100, 40));
        }
    }
    run_for(&mut world, Duration::from_secs(1));
    // Tenant 2's callers leave when a first chunk of their long prompts is computed.
    for _ in 0..10 {
        let caller = world.ask(ask(2, 1, 2000, 1));
        while world.got(caller).started == 0 {
            world.turn();
        }
        world.leave(caller);
        world.turns(2);
    }
    let served = service.lock().unwrap().clone();
    let (least, most) = (served[&0].min(served[&1]), served[&0].max(served[&1]));
    assert!(served[&2] < least, "served {served:?}");
    assert!(most - least < 0.5, "served {served:?}");
    world.run();
}
