use super::*;
use crate::report::fixture;
use crate::report::sweep::{PointVerdict, SweepPoint};

pub fn sweep() -> Sweep {
    let point = |rate: f64| {
        let good = if rate <= 32.0 { 1.0 } else { (60.0 - rate).max(0.0) / 40.0 };
        SweepPoint {
            rate,
            goodput_fraction: good,
            goodput_per_s: rate * good,
            ttft_p99_ms: Some(40.0 + (rate / 8.0).exp()),
            tpot_p99_ms: (rate < 60.0).then_some(8.0 + rate / 10.0),
            output_tokens_per_s: rate.min(40.0) * 128.0,
            verdict: if good >= 0.99 { PointVerdict::Meets } else { PointVerdict::Misses },
        }
    };
    let summary = fixture::summary();
    Sweep {
        name: "steady".into(),
        base_url: summary.run.base_url,
        model: "demo".into(),
        objectives: summary.objectives,
        goodput_wanted: 0.99,
        points: [4.0, 8.0, 16.0, 32.0, 64.0, 48.0, 40.0, 36.0].map(point).to_vec(),
        highest_rate: Some(32.0),
    }
}

/// A model, a tenant or an error code of the server's choice must not become markup.
#[test]
fn nothing_from_outside_becomes_markup() {
    let mut summary = fixture::many_tenants();
    let harm = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
    summary.run.model = harm.into();
    summary.run.name = harm.into();
    summary.run.base_url = harm.into();
    summary.run.endpoint = harm.into();
    summary.run.command = harm.into();
    summary.run.started_at = harm.into();
    summary.validity.reasons = vec![harm.into()];
    summary.total.outcomes.insert(harm.into(), 3);
    summary.total.failures.insert(harm.into(), 3);
    summary.tenants[0].name = harm.into();
    summary.tenants[0].class = Some(harm.into());
    let mut sweep = sweep();
    (sweep.name, sweep.model, sweep.base_url) = (harm.into(), harm.into(), harm.into());
    let comparison = Comparison {
        name: harm.into(),
        a: harm.into(),
        b: harm.into(),
        metrics: vec![crate::report::ComparedMetric {
            name: harm.into(),
            unit: harm.into(),
            better: crate::report::Better::Lower,
            a: vec![1.0],
            b: vec![2.0],
        }],
        warnings: vec![harm.into()],
    };
    for page in
        [run_page(&summary), sweep_page(&sweep, Some(&summary)), comparison_page(&comparison)]
    {
        assert!(!page.contains("<script"), "a script got in");
        assert!(!page.contains("<img"), "an image got in");
        assert_eq!(page.matches("</style>").count(), 1, "the style sheet was ended early");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "it is shown as text");
    }
}

#[test]
fn a_page_is_one_file_that_asks_the_network_for_nothing() {
    let page = run_page(&fixture::many_tenants());
    for word in ["src=", "href=", "@import", "url("] {
        assert!(!page.replace("src=x&gt;", "").contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_run_that_is_not_valid_says_so_in_red_before_any_figure() {
    let page = run_page(&fixture::all_failed());
    let band = page.find("class=\"band bad\"").expect("a red band");
    assert!(band < page.find("class=\"tiles\"").expect("tiles"));
    assert!(page.contains("500 of 500 were unreachable"));
    assert!(!run_page(&fixture::summary()).contains("class=\"band bad\""));
}

#[test]
fn pages_have_no_figure_that_is_not_a_number() {
    let pages = [
        run_page(&fixture::all_failed()),
        run_page(&fixture::single()),
        run_page(&fixture::many_tenants()),
        sweep_page(&sweep(), None),
        sweep_page(&Sweep { points: vec![], highest_rate: None, ..sweep() }, None),
    ];
    for page in pages {
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}

#[test]
fn charts_have_the_objective_and_the_parts_left_out() {
    let page = run_page(&fixture::summary());
    assert_eq!(page.matches("objective 200.0 ms").count(), 1);
    assert_eq!(page.matches("<rect class=\"cut\"").count(), 8, "two in each of four charts");
    let single = run_page(&fixture::single());
    assert_eq!(single.matches("<rect class=\"cut\"").count(), 0);
}

#[test]
#[ignore = "writes sample pages to the temporary directory, to be looked at in a browser"]
fn sample_pages() {
    let pages = [
        ("many", run_page(&fixture::many_tenants())),
        ("failed", run_page(&fixture::all_failed())),
        ("single", run_page(&fixture::single())),
        ("sweep", sweep_page(&sweep(), Some(&fixture::summary()))),
    ];
    for (name, page) in pages {
        let path = std::env::temp_dir().join(format!("loadtest-page-{name}.html"));
        std::fs::write(path, page).expect("a temporary file");
    }
}
