use super::*;
use crate::report::fixture;

#[test]
fn a_good_run_is_one_screen() {
    let expected = "\
loadtest steady: valid
http://127.0.0.1:8000/v1/chat/completions, model demo
open loop at 10.00 requests/s, seed 7, at most 23 under way, started 2026-11-20T17:04:05+00:00
measured 50.0 s of 61.5 s (warm-up 5.0 s, cool-down 5.0 s left out)

Requests              500           520 attempts
  completed           480   96.00 %
  refused              20    4.00 %
                       20           429 queue_full

Throughput           9.60 requests/s, 2,458 prompt tokens/s (25 % cached), 1,229 output tokens/s
Goodput              8.64 requests/s, 86.4 % of all requests (TTFT <= 200 ms, TPOT <= 20 ms)

Latency, ms         mean      p50      p90      p95      p99    p99.9      max
TTFT               34.99    30.37    54.38    64.63    90.05    123.0    123.0
TTFT from sent     33.99    29.52    52.74    62.64    87.21    119.1    119.1
TPOT                9.00     8.69    10.29    10.98    12.67    14.87    14.87
ITL                 8.00     6.16    15.81    19.97    29.60    43.51    61.18
E2E                 1200     1107     1588     1793     2301     2960     2960
Queue               5.00     3.76    10.17    12.90    19.68    28.47    28.47
Send delay          0.15     0.12     0.28     0.35     0.50     0.74     0.74

Reports
  results/steady.json
";
    assert_eq!(text(&fixture::summary(), &[PathBuf::from("results/steady.json")]), expected);
}

#[test]
fn a_run_that_failed_says_why_first_and_shows_no_latency_that_was_not_measured() {
    let report = text(&fixture::all_failed(), &[]);
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], "loadtest steady: NOT VALID");
    assert_eq!(lines[1], "  ! No request completed: 500 of 500 were unreachable.");
    assert!(report.contains("  unreachable         500  100.00 %\n"));
    assert!(report.contains("TTFT                   -        -        -        -"));
    assert!(!report.contains("Reports"));
}

#[test]
fn tenants_are_listed_the_worst_served_first_when_there_are_many() {
    let report = text(&fixture::many_tenants(), &[]);
    let at = report.find("Tenants (worst 20 of 30)").expect("a table of tenants");
    let lines: Vec<&str> = report[at..].lines().collect();
    assert_eq!(
        lines[0],
        "Tenants (worst 20 of 30)    requests      done     good    tok/s TTFT p99 TPOT p99"
    );
    assert_eq!(
        lines[1],
        "hog*                             900   23.33 %  21.00 %    537.6    778.2    76.43"
    );
    assert_eq!(lines.len(), 22);
    assert_eq!(lines[21], "* misbehaves, as planned");
    let few =
        Summary { tenants: fixture::many_tenants().tenants[..2].to_vec(), ..fixture::summary() };
    assert!(text(&few, &[]).contains("\nTenants                     requests"));
}

#[test]
fn text_of_the_server_cannot_steer_the_terminal() {
    let mut summary = fixture::summary();
    summary.total.failures.insert("500 \u{1b}[2Jcleared".into(), 1);
    summary.run.model = "a\u{1b}]0;title\u{7}".into();
    assert!(!text(&summary, &[]).contains('\u{1b}'));
}
