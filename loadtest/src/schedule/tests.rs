//! What a drawn schedule must hold.

use super::*;
use crate::profile::BehaviourShape;

fn inputs(seed: u64) -> Inputs {
    Inputs { seed, ..Inputs::default() }
}

/// Everything of a plan, as text.
fn told(plan: &Plan) -> String {
    format!("{plan:?}")
}

#[test]
fn the_same_seed_draws_the_same_plan_and_another_seed_another() {
    let profile = Profile::load("noisy-neighbour").unwrap();
    let one = draw(&profile, &inputs(1)).unwrap();
    assert_eq!(told(&one), told(&draw(&profile, &inputs(1)).unwrap()));
    assert_ne!(told(&one), told(&draw(&profile, &inputs(2)).unwrap()));
    assert!(one.requests.is_sorted_by_key(|request| request.scheduled_ns));
    let last = one.requests.last().unwrap().scheduled_ns;
    assert!(Some(last) < one.duration_ns);
}

/// Two runs, with the neighbour and without it, can only be compared when nothing else changed.
#[test]
fn a_noisy_tenant_changes_nothing_for_the_others() {
    let noisy = Profile::load("noisy-neighbour").unwrap();
    let mut calm = noisy.clone();
    for tenant in &mut calm.tenants {
        tenant.rate_multiple = 1.0;
    }
    let own = |profile: &Profile| -> Vec<(u64, Prompt, u32)> {
        let plan = draw(profile, &inputs(5)).unwrap();
        let of_victims =
            plan.requests.into_iter().filter(|r| !plan.tenants[usize::from(r.tenant)].abusive);
        of_victims.map(|r| (r.scheduled_ns, r.prompt, r.output_tokens)).collect()
    };
    assert_eq!(own(&noisy), own(&calm));
    let count = |profile: &Profile| draw(profile, &inputs(5)).unwrap().requests.len();
    assert!(count(&noisy) > count(&calm));
}

#[test]
fn tenants_send_their_shares_and_behaviours_their_fractions() {
    let mut profile = Profile::custom();
    profile.load.request_rate = Some(1000.0);
    profile.load.num_prompts = Some(20_000);
    let tenant = |name: &str, share: f64| TenantShape {
        name: name.to_owned(),
        share,
        ..tenant_shapes(&Profile::custom())[0].clone()
    };
    profile.tenants = vec![tenant("large", 3.0), tenant("small", 1.0)];
    profile.behaviours = vec![
        BehaviourShape { fraction: 0.2, retries: 2, ..BehaviourShape::default() },
        BehaviourShape {
            fraction: 0.1,
            tenant: Some("small".to_owned()),
            disconnect_after_chunks: Some(3),
            ..BehaviourShape::default()
        },
    ];
    let plan = draw(&profile, &inputs(1)).unwrap();
    assert_eq!(plan.requests.len(), 20_000);
    let part = |which: &dyn Fn(&PlannedRequest) -> bool| {
        plan.requests.iter().filter(|request| which(request)).count() as f64 / 20_000.0
    };
    let close = |value: f64, to: f64| assert!((value - to).abs() < 0.01, "{value} {to}");
    close(part(&|request| request.tenant == 0), 0.75);
    close(part(&|request| request.behaviour.retries_max == 2), 0.2);
    close(part(&|request| request.behaviour.disconnect_after_chunks == Some(3)), 0.025);
}

#[test]
fn shared_prefixes_are_shared_by_the_asked_part_of_requests() {
    let mut profile = Profile::custom();
    profile.load.num_prompts = Some(2_000);
    profile.prompt.prefix_tokens = 256;
    profile.prompt.prefixes = 4;
    profile.prompt.prefix_fraction = 0.5;
    let plan = draw(&profile, &inputs(9)).unwrap();
    let mut seeds = std::collections::BTreeMap::<u64, usize>::new();
    for request in &plan.requests {
        let Prompt::Synthetic(pieces) = &request.prompt else { panic!("drawn prompts are drawn") };
        if pieces.len() == 2 {
            assert_eq!(pieces[0].tokens, 256);
            *seeds.entry(pieces[0].seed).or_default() += 1;
        }
    }
    assert_eq!(seeds.len(), 4);
    let shared: usize = seeds.values().sum();
    assert!((900..1100).contains(&shared), "{shared}");
    assert!(seeds.values().all(|count| (200..300).contains(count)), "{seeds:?}");
}

#[test]
fn a_trace_is_replayed_at_its_times_or_at_a_rate() {
    let rows: Vec<TraceRow> = (0..10)
        .map(|n| TraceRow {
            at_ns: Some(n * 1_000_000_000),
            prompt: TracePrompt::Tokens(10 + n as u32),
            output_tokens: 5,
        })
        .collect();
    let mut profile = Profile::custom();
    profile.trace = Some(crate::profile::Trace {
        format: crate::traces::TraceFormat::Azure,
        path: "x".into(),
        speedup: 2.0,
    });
    let with_rows = Inputs { rows, ..inputs(1) };
    let plan = draw(&profile, &with_rows).unwrap();
    assert_eq!(plan.requests[9].scheduled_ns, 4_500_000_000);
    assert_eq!(plan.requests[9].prompt.tokens_wanted(), Some(19));
    profile.load.request_rate = Some(100.0);
    profile.load.num_prompts = Some(25);
    let plan = draw(&profile, &with_rows).unwrap();
    assert_eq!(plan.requests.len(), 25);
    assert_eq!(plan.requests[13].prompt.tokens_wanted(), Some(13));
    assert!(plan.requests[24].scheduled_ns < 1_000_000_000);
}

#[test]
fn what_cannot_be_paced_is_refused_with_the_fix() {
    let mut profile = Profile::custom();
    profile.load.duration_s = Some(5.0);
    let refusal = draw(&profile, &inputs(1)).unwrap_err().to_string();
    assert!(refusal.contains("--request-rate or --max-concurrency"), "{refusal}");
    profile.load.request_rate = Some(1e9);
    let refusal = draw(&profile, &inputs(1)).unwrap_err().to_string();
    assert!(refusal.contains("at most 2000000 requests"), "{refusal}");
    profile.load.request_rate = None;
    profile.load.concurrency = Some(4);
    assert_eq!(draw(&profile, &inputs(1)).unwrap().requests.len(), 1000);
    profile.load.arrivals = Arrivals::Constant;
    assert!(draw(&profile, &inputs(1)).is_err());
}
