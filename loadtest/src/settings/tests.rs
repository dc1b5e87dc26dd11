//! What the command line makes of a profile, and what it refuses.

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn parsed(line: &str) -> Result<Settings, Error> {
    let words: Vec<String> = ["loadtest", "run"]
        .iter()
        .copied()
        .chain(line.split_whitespace())
        .map(Into::into)
        .collect();
    let Command::Run(args) = Cli::try_parse_from(&words).unwrap().command else {
        panic!("the subcommand is run")
    };
    of(&args, &words, "now")
}

fn load(line: &str) -> Load {
    parsed(line).unwrap().profile.load
}

#[test]
fn rate_and_concurrency_mean_what_they_mean_in_vllm() {
    let at_once = load("--num-prompts 5");
    assert_eq!((at_once.request_rate, at_once.concurrency), (None, None));
    let closed = load("--request-rate inf --max-concurrency 8");
    assert_eq!((closed.concurrency, closed.max_concurrency), (Some(8), None));
    let capped = load("--request-rate 3.5 --max-concurrency 8");
    assert_eq!((capped.concurrency, capped.max_concurrency), (None, Some(8)));
    assert_eq!(capped.request_rate, Some(3.5));
    assert_eq!(load("--request-rate 2 --burstiness 0.5").arrivals, Arrivals::Gamma(0.5));
    assert_eq!(load("--request-rate 2 --burstiness 1").arrivals, Arrivals::Poisson);
}

#[test]
fn flags_are_written_over_a_profile() {
    let closed = load("--profile steady --request-rate inf --max-concurrency 4");
    assert_eq!((closed.concurrency, closed.request_rate), (Some(4), None));
    let open = load("--profile hundred-users --request-rate 7 --duration 20 --warmup 1");
    assert_eq!((open.concurrency, open.request_rate), (None, Some(7.0)));
    assert_eq!((open.duration_s, open.warmup_s), (Some(20.0), 1.0));
    let flat = load("--profile overload --request-rate 9");
    assert_eq!(flat.arrivals, Arrivals::Poisson);
    let counted = load("--profile steady --num-prompts 7 --warmup 0");
    assert_eq!((counted.num_prompts, counted.duration_s), (Some(7), None));
    let settings = parsed("--profile steady --random-input-len 9 --goodput ttft:5").unwrap();
    assert_eq!(settings.profile.prompt.tokens, Lengths::Fixed(9));
    assert_eq!(settings.profile.objectives.ttft_ms, Some(5.0));
    assert_eq!(settings.profile.objectives.tpot_ms, None);
}

#[test]
fn contradictions_are_refused_with_the_fix() {
    for (line, part) in [
        ("--burstiness 0.5", "--request-rate"),
        ("--request-rate 1 --burstiness 0.5 --arrivals constant", "give one"),
        ("--ramp-up-strategy linear", "--ramp-up-start-rps"),
        (
            "--request-rate 4 --ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 2 \
             --burstiness 2",
            "leave --burstiness",
        ),
        ("--dataset-path x.csv", "--dataset-name"),
        ("--dataset-name azure", "--dataset-path"),
        ("--trace azure --dataset-path x.csv --random-input-len 5", "leave them away"),
        ("--trace-speedup 2", "needs a trace"),
        ("--profile steady --random-range-ratio 0.5", "--random-input-len"),
        ("--goodput ttft", "ttft:MS"),
        ("--goodput itl:5", "tpot:MS"),
        ("--request-rate=-1", "--request-rate"),
        ("--request-rate 1 --duration 5 --warmup 5", "leave nothing"),
        ("--no-preflight", "--model"),
        ("--extra-body []", "JSON object"),
        ("--extra-body {\"model\":\"x\"}", "--model"),
        ("--header nonsense", "NAME=VALUE"),
        ("--metric-percentiles 101", "(0, 100]"),
        ("--percentile-metrics ttft,latency", "latency"),
        ("--timeout 0", "--timeout"),
        ("--num-prompts 0", "--num-prompts"),
        ("--profile nowhere.toml", "nowhere.toml"),
        ("--tenants nowhere.toml", "nowhere.toml"),
    ] {
        match parsed(line) {
            Ok(_) => panic!("{line} is not refused"),
            Err(refusal) => {
                assert!(refusal.to_string().contains(part), "{line}: {refusal}");
                assert_eq!(refusal.exit_code(), 2, "{line}");
            }
        }
    }
}

#[test]
fn extra_fields_are_sent_and_keys_are_not_shown() {
    let settings = parsed(
        "--api-key sk-1 --header X-Auth=sk-2 a=b --temperature 0 --ignore-eos --extra-body \
         {\"min_p\":0.1,\"stream\":false}",
    )
    .unwrap();
    let fields = Value::Object(settings.wishes.fields);
    assert_eq!(fields["min_p"], 0.1);
    assert_eq!(fields["stream"], false);
    assert_eq!(fields["ignore_eos"], true);
    assert_eq!(fields["temperature"], 0.0);
    assert_eq!(settings.wishes.headers.len(), 2);
    assert!(!settings.command.contains("sk-"), "{}", settings.command);
    assert!(settings.command.contains("a=b"));
    assert!(settings.destination.is_none());
    let named = parsed("--result-filename x.json").unwrap().destination.unwrap();
    assert_eq!(named.name, "x");
}
