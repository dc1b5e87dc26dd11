//! One feature at a time.

use std::time::Duration;

use weir::engine::{Event, FinishReason, SubmitError};

use super::world::{Ask, World, config, limits, prompt, sim};

#[test]
fn a_request_runs_from_submission_to_done() {
    for steps_in_flight in [1, 2] {
        let mut world = World::small(steps_in_flight);
        let caller = world.ask(Ask::new(prompt(1, 10), 20));
        world.run();
        assert_eq!(world.got(caller).tokens[0].len(), 20);
        world.assert_as_alone(caller);
    }
}

#[test]
fn a_stop_token_ends_a_choice_and_the_token_sampled_after_it_is_thrown_away() {
    let mut world = World::small(2);
    let callers: Vec<_> =
        (0..8).map(|i| world.ask(Ask::new(prompt(i, 5), 60).stopping())).collect();
    let mut discarded = 0;
    while !world.engine.is_idle() {
        discarded += world.turn().discarded_tokens;
    }
    assert!(discarded > 0, "some answer stopped by itself");
    for caller in callers {
        world.assert_as_alone(caller);
    }
}

#[test]
fn long_prompts_are_computed_in_chunks_beside_decodes() {
    let mut world = World::new(config(), sim(limits(128, 4, 1)));
    let short = world.ask(Ask::new(prompt(1, 3), 30));
    world.turns(3);
    let before = world.got(short).tokens[0].len();
    let long = world.ask(Ask::new(prompt(2, 200), 5));
    let (mut steps, mut mixed) = (0, 0);
    while world.got(long).tokens[0].is_empty() {
        let step = world.turn().step.expect("there is work");
        steps += 1;
        mixed += u32::from(step.prefill_rows > 0 && step.decode_rows > 0);
        assert!(step.rows <= 64, "rows within the limit");
    }
    assert!(mixed >= 3, "200 tokens take several steps of 64 rows");
    assert_eq!(world.got(short).tokens[0].len() as u32, before as u32 + steps, "no decode waits");
    world.run();
    world.assert_as_alone(long);
    world.assert_as_alone(short);
}

#[test]
fn a_repeated_prompt_is_taken_from_the_prefix_cache_except_for_its_last_token() {
    for (tokens, cached) in [(16, 12), (17, 16), (19, 16), (20, 16)] {
        let mut world = World::small(1);
        let first = world.ask(Ask::new(prompt(1, tokens), 3));
        world.run();
        let second = world.ask(Ask::new(prompt(1, tokens), 9));
        world.run();
        assert_eq!(world.got(first).cached_tokens, 0);
        assert_eq!(world.got(second).cached_tokens, cached, "{tokens} tokens in blocks of 4");
        assert_eq!(world.got(second).done.expect("done").cached_tokens, cached);
        world.assert_as_alone(second);
    }
}

#[test]
fn generated_tokens_are_cached_for_the_next_turn_of_a_conversation() {
    let mut world = World::small(2);
    let first = world.ask(Ask::new(prompt(1, 10), 15));
    world.run();
    let mut conversation = prompt(1, 10);
    conversation.extend(&world.got(first).tokens[0]);
    conversation.extend(prompt(2, 3));
    let second = world.ask(Ask::new(conversation, 5));
    world.run();
    // The last generated token was never computed: 24 tokens are, in blocks of 4.
    assert_eq!(world.got(second).cached_tokens, 24);
    world.assert_as_alone(second);
}

#[test]
fn cached_blocks_are_not_shared_between_tenants_or_salts() {
    let mut world = World::small(1);
    world.ask(Ask::new(prompt(1, 20), 2));
    world.run();
    let foreign = world.ask(Ask { tenant: 1, ..Ask::new(prompt(1, 20), 2) });
    let salted = world.ask(Ask { salt: "pepper", ..Ask::new(prompt(1, 20), 2) });
    world.run();
    assert_eq!(world.got(foreign).cached_tokens, 0);
    assert_eq!(world.got(salted).cached_tokens, 0);
    world.assert_as_alone(foreign);
    world.assert_as_alone(salted);
}

#[test]
fn choices_share_their_prompt_and_copy_its_last_block() {
    for steps_in_flight in [1, 2] {
        for tokens in [7, 8, 30] {
            let mut world = World::small(steps_in_flight);
            let caller = world.ask(Ask::new(prompt(1, tokens), 12).choices(4));
            let mut prefill_rows = 0;
            let mut most_blocks = 0;
            while !world.engine.is_idle() {
                let report = world.turn();
                prefill_rows += report.step.map_or(0, |step| step.prefill_rows);
                most_blocks = most_blocks.max(report.load.blocks_used);
            }
            world.assert_empty();
            world.assert_as_alone(caller);
            assert_eq!(prefill_rows, tokens, "the prompt is computed once");
            let own = (tokens + 12).div_ceil(4) - tokens / 4;
            assert!(most_blocks <= tokens / 4 + 4 * own + 1, "{most_blocks} blocks");
            let texts = &world.got(caller).tokens;
            assert!((1..4).all(|i| texts[i] != texts[0]), "seeds differ");
        }
    }
}

#[test]
fn a_seed_gives_the_same_tokens_alone_and_among_others() {
    let mut world = World::small(1);
    let ask = Ask::new(prompt(3, 9), 25).choices(1);
    let alone = world.ask(ask.clone());
    world.run();
    let among: Vec<_> = (0..7)
        .map(|i| world.ask(if i == 3 { ask.clone() } else { Ask::new(prompt(i, 6), 30) }))
        .collect();
    world.run();
    assert_eq!(world.got(alone).tokens, world.got(among[3]).tokens);
}

#[test]
fn a_preempted_request_goes_on_as_if_nothing_had_happened() {
    for steps_in_flight in [1, 2] {
        // Room for two and a half of these: 40 tokens each, 25 blocks of 4.
        let mut world = World::new(config(), sim(limits(25, 4, steps_in_flight)));
        let callers: Vec<_> = (0..4).map(|i| world.ask(Ask::new(prompt(i, 8), 32))).collect();
        let mut preemptions = 0;
        while !world.engine.is_idle() {
            preemptions += world.turn().preemptions;
        }
        world.assert_empty();
        assert!(preemptions > 0, "the pool was too small for all");
        for &caller in &callers {
            world.assert_as_alone(caller);
        }
        let oldest = world.got(callers[0]).done.expect("done");
        assert_eq!(oldest.preemptions, 0, "the oldest is never the victim");
    }
}

#[test]
fn what_can_never_run_is_refused_with_its_reason() {
    let mut world = World::small(1);
    let context = world.ask(Ask::new(prompt(1, 200), 57));
    let blocks = world.ask(Ask::new(prompt(1, 8), 100).choices(4));
    let slots = world.ask(Ask::new(prompt(1, 8), 4).choices(9));
    let foreign = world.ask(Ask::new(vec![weir::ids::TokenId(1000)], 4));
    let empty = world.ask(Ask::new(vec![], 4));
    let nothing = world.ask(Ask::new(prompt(1, 4), 0));
    let good = world.ask(Ask::new(prompt(1, 8), 4));
    world.run();
    for (caller, reason) in [
        (context, "the context holds 256"),
        (blocks, "may need 102 KV blocks; there are 64"),
        (slots, "at most 8 sequences"),
        (foreign, "the vocabulary has 1000"),
        (empty, "needs a prompt token"),
        (nothing, "asks for nothing"),
    ] {
        let got = world.got(caller).failed.as_deref().expect("refused");
        assert!(got.contains(reason), "{got}");
    }
    world.assert_as_alone(good);
}

#[test]
fn prompt_scores_come_once_for_each_position_after_the_first() {
    for steps_in_flight in [1, 2] {
        let mut world = World::small(steps_in_flight);
        // The second one must not take rows from the cache that the first one filled.
        for max_tokens in [5, 0, 1] {
            let ask = Ask { score_prompt: Some(2), ..Ask::new(prompt(1, 150), max_tokens) };
            let caller = world.ask(ask);
            world.run();
            assert_eq!(world.got(caller).scored.len(), 149);
            assert_eq!(world.got(caller).cached_tokens, 0);
            world.assert_as_alone(caller);
        }
        let short = world.ask(Ask { score_prompt: Some(2), ..Ask::new(prompt(2, 1), 0) });
        world.run();
        assert!(world.got(short).scored.is_empty());
        assert!(world.got(short).done.is_some());
    }
}

#[test]
fn a_request_that_does_not_fit_is_overtaken_a_few_times_and_then_room_is_kept_for_it() {
    let mut config = config();
    config.overtakes_max = 3;
    let mut world = World::new(config, sim(limits(32, 4, 1)));
    // Tenant 0's request needs all blocks; tenant 1 always has small ones waiting.
    let small: Vec<_> =
        (0..3).map(|i| world.ask(Ask { tenant: 1, ..Ask::new(prompt(i, 9), 25) })).collect();
    world.turns(2);
    let large = world.ask(Ask::new(prompt(9, 120), 4));
    let later: Vec<_> =
        (10..30).map(|i| world.ask(Ask { tenant: 1, ..Ask::new(prompt(i, 4), 8) })).collect();
    let mut overtaken = 0;
    while world.got(large).started == 0 {
        world.turn();
        overtaken = later.iter().filter(|&&caller| world.got(caller).started > 0).count();
    }
    assert!((1..=3).contains(&overtaken), "overtaken {overtaken} times");
    world.run();
    for caller in small.into_iter().chain([large]).chain(later) {
        world.assert_as_alone(caller);
    }
}

#[test]
fn a_tenant_with_many_requests_does_not_delay_one_with_few() {
    let mut world = World::small(1);
    let hog: Vec<_> = (0..40).map(|i| world.ask(Ask::new(prompt(i, 6), 6))).collect();
    world.turns(3);
    let polite = world.ask(Ask { tenant: 1, ..Ask::new(prompt(50, 6), 6) });
    while world.got(polite).started == 0 {
        world.turn();
    }
    let started = hog.iter().filter(|&&caller| world.got(caller).started > 0).count();
    assert!(started <= 16, "{started} of 40 came first; 8 ran already");
    world.run();
    world.assert_as_alone(polite);
}

#[test]
fn tenants_with_a_backlog_are_served_the_same_number_of_tokens() {
    let mut config = config();
    config.running_max = 2;
    let mut world = World::new(config, sim(limits(64, 4, 1)));
    // Tenant 1's requests are three times as long.
    for i in 0..40 {
        world.ask(Ask { tenant: 0, ..Ask::new(prompt(i, 5), 10) });
        world.ask(Ask { tenant: 1, ..Ask::new(prompt(i + 50, 15), 30) });
    }
    world.turns(400);
    let served = |world: &World, tenant: u32| -> usize {
        let own = world.callers.iter().filter(|caller| caller.ask.tenant == tenant);
        own.map(|caller| {
            caller.got.tokens[0].len() * 2 + caller.ask.prompt.len() * caller.got.started as usize
        })
        .sum()
    };
    let (zero, one) = (served(&world, 0), served(&world, 1));
    // The bound of the VTC paper: twice the largest request.
    assert!(zero.abs_diff(one) <= 2 * (15 + 2 * 30), "{zero} and {one} tokens");
}

#[test]
fn a_more_urgent_request_goes_first_within_its_tenant() {
    let mut config = config();
    config.running_max = 1;
    let mut world = World::new(config, sim(limits(64, 4, 1)));
    world.ask(Ask::new(prompt(0, 4), 4));
    world.turn();
    let normal = world.ask(Ask::new(prompt(1, 4), 4));
    let urgent = world.ask(Ask { priority: -1, ..Ask::new(prompt(2, 4), 4) });
    while world.got(urgent).done.is_none() {
        assert_eq!(world.got(normal).started, 0);
        world.turn();
    }
    world.run();
    assert!(world.got(normal).done.is_some());
}

#[test]
fn a_deadline_ends_requests_that_run_and_requests_that_wait() {
    for steps_in_flight in [1, 2] {
        let mut config = config();
        config.running_max = 1;
        let mut world = World::new(config, sim(limits(64, 4, steps_in_flight)));
        let deadline = Some(world.later(Duration::from_millis(60)));
        let runs = world.ask(Ask { deadline, ..Ask::new(prompt(1, 4), 100).choices(1) });
        let waits = world.ask(Ask { deadline, ..Ask::new(prompt(2, 4), 100) });
        let patient = world.ask(Ask::new(prompt(3, 4), 3));
        world.run();
        for caller in [runs, waits] {
            assert_eq!(world.got(caller).finished[0], Some(FinishReason::Deadline));
            world.assert_prefix_of_alone(caller);
        }
        assert!((5..20).contains(&world.got(runs).tokens[0].len()), "5 ms a token");
        assert_eq!(world.got(waits).started, 0);
        world.assert_as_alone(patient);
    }
}

#[test]
fn more_sequences_than_rows_take_turns_and_a_prompt_is_not_starved() {
    let mut config = config();
    config.step_rows_max = 4;
    let mut world = World::new(config, sim(limits(160, 4, 1)));
    let running = [0, 1, 2, 3, 4, 5].map(|i| world.ask(Ask::new(prompt(i, 4), 90)));
    while running.iter().any(|&caller| world.got(caller).tokens[0].is_empty()) {
        world.turn();
    }
    let lengths = |world: &World| running.map(|c| world.got(c).tokens[0].len());
    let before = lengths(&world);
    let prompted = world.ask(Ask::new(prompt(9, 8), 2));
    let mut turns = 0;
    while world.got(prompted).tokens[0].is_empty() {
        assert!(world.turn().step.expect("a step").rows <= 4);
        turns += 1;
    }
    assert!(turns <= 40, "8 rows, at least one in every fourth step: {turns} turns");
    let after = lengths(&world);
    let gained: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let spread = gained.iter().max().unwrap() - gained.iter().min().unwrap();
    assert!(spread <= 2, "all go on equally: {gained:?}");
    world.run();
    for caller in running.into_iter().chain([prompted]) {
        world.assert_as_alone(caller);
    }
}

#[test]
fn the_queue_leaves_mail_in_the_mailbox_until_the_mailbox_is_full() {
    let mut config = config();
    config.waiting_max = 2;
    config.mailbox_max = 3;
    config.running_max = 1;
    let mut world = World::new(config, sim(limits(64, 4, 1)));
    for i in 0..3 {
        world.ask(Ask::new(prompt(i, 4), 9));
    }
    world.turns(2);
    // One runs, two wait, three are in the mailbox, the next is refused.
    for i in 3..6 {
        world.ask(Ask::new(prompt(i, 4), 4));
    }
    let (submission, mut stream) = world.submission(&Ask::new(prompt(7, 4), 4));
    assert_eq!(world.handle.submit(submission), Err(SubmitError::Full));
    assert!(matches!(stream.try_next(), Some(Event::Failed { .. })), "a dropped reply says so");
    world.run();
    assert!(world.callers.iter().all(|caller| caller.got.done.is_some()));
}

#[test]
fn reports_add_up_to_what_callers_got() {
    let mut world = World::small(2);
    for i in 0..20 {
        world.ask(Ask::new(prompt(i % 4, 9), 1 + i).stopping());
    }
    let mut sum = (0, 0, 0, 0);
    while !world.engine.is_idle() {
        let report = world.turn();
        sum.0 += report.generated_tokens;
        sum.1 += u64::from(report.done);
        sum.2 += u64::from(report.started);
        sum.3 += report.prefix_hit_tokens;
    }
    let tokens: usize = world.callers.iter().map(|caller| caller.got.tokens[0].len()).sum();
    let cached: u32 = world.callers.iter().map(|caller| caller.got.cached_tokens).sum();
    assert_eq!(sum, (tokens as u64, 20, 20, u64::from(cached)));
}
