//! `loadtest`: a load generator for OpenAI-compatible servers. Speaks only HTTP.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use loadtest::arrivals::Arrivals;
use loadtest::cli::{Cli, Command, CompareArgs, RunArgs, SweepArgs};
use loadtest::clock::Clock;
use loadtest::compare::{Side, compare};
use loadtest::error::Error;
use loadtest::live::View;
use loadtest::plan::Plan;
use loadtest::report;
use loadtest::run::{Settings, run};
use loadtest::settings;
use loadtest::setup::{Ready, prepare};
use loadtest::sweep::{Search, sweep};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Rate of a sweep's first run, when nothing says another.
const START_RATE: f64 = 1.0;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let threads = match &cli.command {
        Command::Run(args) => args.load.threads,
        Command::Sweep(args) => args.run.load.threads,
        Command::Compare(args) => args.run.load.threads,
    };
    let result = runtime(threads).and_then(|runtime| runtime.block_on(carry_out(cli.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = match threads {
        0 => return Err(Error::Usage("--threads must be at least 1".to_owned())),
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    let built = builder.enable_all().build();
    built.map_err(|cause| Error::Machine(format!("cannot start the runtime: {cause}")))
}

async fn carry_out(command: Command) -> Result<(), Error> {
    let interrupts = watch_signals()?;
    match command {
        Command::Run(args) => run_once(&args, interrupts).await,
        Command::Sweep(args) => run_sweep(&args, interrupts).await,
        Command::Compare(args) => run_compare(&args, interrupts).await,
    }
}

async fn run_once(args: &RunArgs, interrupts: watch::Receiver<u32>) -> Result<(), Error> {
    let settings = settings_of(args)?;
    let plan = settings.plan()?;
    let ready = ready(&settings, &plan, &interrupts).await?;
    let ran = run(&settings, Arc::new(plan), &ready, interrupts, view(args)).await?;
    print(&report::text::text(&ran.summary, &ran.paths));
    ran.verdict()
}

async fn run_sweep(args: &SweepArgs, interrupts: watch::Receiver<u32>) -> Result<(), Error> {
    let mut settings = settings_of(&args.run)?;
    let load = &mut settings.profile.load;
    if load.concurrency.is_some() || matches!(load.arrivals, Arrivals::Ramp { .. }) {
        return Err(usage(
            "a sweep searches a rate: leave --max-concurrency without --request-rate and ramps away",
        ));
    }
    if load.duration_s.is_none() && load.num_prompts.is_none() {
        return Err(usage("a sweep needs to know how long each rate is tried: give --duration"));
    }
    if settings.profile.objectives == Default::default() {
        return Err(usage("a sweep needs objectives, for example --goodput ttft:500 tpot:50"));
    }
    let search = Search {
        start_rate: args.start_rate.or(load.request_rate).unwrap_or(START_RATE),
        rate_max: args.max_rate,
        goodput_wanted: args.goodput_fraction,
        tolerance: args.tolerance,
    };
    check_search(&search)?;
    load.request_rate = Some(search.start_rate);
    let plan = settings.plan()?;
    let ready = ready(&settings, &plan, &interrupts).await?;
    let say = |point: &report::SweepPoint| {
        eprintln!(
            "{:.3} requests/s: {:.1} % good: {}",
            point.rate,
            point.goodput_fraction * 100.0,
            point.verdict.words()
        );
    };
    let swept = sweep(&settings, &ready, &search, interrupts, view(&args.run), say).await?;
    print(&report::sweep::text(&swept.sweep));
    if let Some(destination) = &settings.destination {
        let written = report::write_sweep(&swept.sweep, swept.highest.as_ref(), destination);
        print_paths(written)?;
    }
    match (swept.stopped, swept.sweep.highest_rate) {
        (Some(error), _) => Err(error),
        (None, None) => Err(Error::Invalid("no rate met the objectives".to_owned())),
        (None, Some(_)) => Ok(()),
    }
}

async fn run_compare(args: &CompareArgs, interrupts: watch::Receiver<u32>) -> Result<(), Error> {
    if args.rounds == 0 {
        return Err(usage("--rounds must be at least 1"));
    }
    let a = settings_of(&args.run)?;
    let mut b = a.clone();
    b.wishes.base_url = args.base_url_b.clone();
    b.wishes.model = args.model_b.clone().or(b.wishes.model);
    let plan = a.plan()?;
    let ready_a = ready(&a, &plan, &interrupts).await?;
    let ready_b = ready(&b, &plan, &interrupts).await?;
    let destination = a.destination.clone();
    let sides = [Side { settings: a, ready: ready_a }, Side { settings: b, ready: ready_b }];
    let say = |letter: &str, round: u32, summary: &loadtest::summary::Summary| {
        eprintln!(
            "round {round} of {}: {:.1} output tokens/s, TTFT p50 {:.1} ms",
            letter.to_uppercase(),
            summary.total.output_tokens_per_s,
            summary.total.ttft.percentile(50.0).unwrap_or(f64::NAN)
        );
    };
    let compared = compare(sides, args.rounds, interrupts, view(&args.run), say).await?;
    print(&report::comparison::text(&compared.comparison));
    if let Some(destination) = &destination {
        print_paths(report::write_comparison(&compared.comparison, destination))?;
    }
    match compared.stopped {
        Some(error) => Err(error),
        None if compared.comparison.warnings.is_empty() => Ok(()),
        None => Err(Error::Invalid("some rounds are not valid".to_owned())),
    }
}

fn settings_of(args: &RunArgs) -> Result<Settings, Error> {
    let arguments: Vec<String> = std::env::args().collect();
    settings::of(args, &arguments, &Clock::wall_word())
}

async fn ready(
    settings: &Settings,
    plan: &Plan,
    interrupts: &watch::Receiver<u32>,
) -> Result<Ready, Error> {
    let mut interrupts = interrupts.clone();
    let ready = tokio::select! {
        ready = prepare(&settings.wishes, &plan.tenants) => ready?,
        _ = interrupts.wait_for(|times| *times > 0) => return Err(Error::Interrupted),
    };
    for note in &ready.notes {
        eprintln!("loadtest: {note}");
    }
    Ok(ready)
}

fn check_search(search: &Search) -> Result<(), Error> {
    let above = |value: f64| value > 0.0 && value.is_finite();
    if !above(search.start_rate) || !above(search.rate_max) || search.start_rate > search.rate_max {
        return Err(usage("--start-rate must be above 0 and at most --max-rate"));
    }
    if !(above(search.goodput_wanted) && search.goodput_wanted <= 1.0) {
        return Err(usage("--goodput-fraction must be above 0 and at most 1"));
    }
    if !above(search.tolerance) {
        return Err(usage("--tolerance must be above 0"));
    }
    Ok(())
}

/// Counts Ctrl-C and SIGTERM: the first ends sending, the second the process.
fn watch_signals() -> Result<watch::Receiver<u32>, Error> {
    let (sender, receiver) = watch::channel(0);
    let cannot = |cause| Error::Machine(format!("cannot listen for signals: {cause}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            sender.send_modify(|times| *times += 1);
            if *sender.borrow() > 1 {
                eprintln!("loadtest: stopped at once; finished requests are in *.partial.jsonl");
                std::process::exit(i32::from(Error::Interrupted.exit_code()));
            }
            eprintln!("loadtest: stopping; requests under way get 5 s (again: stop at once)");
        }
    });
    Ok(receiver)
}

#[allow(clippy::disallowed_methods)]
fn view(args: &RunArgs) -> View {
    let no_color = std::env::var_os("NO_COLOR").is_some();
    View::choose(std::io::stderr().is_terminal(), args.report.quiet, no_color)
}

fn print_paths(written: Result<Vec<std::path::PathBuf>, report::ReportError>) -> Result<(), Error> {
    let paths = written.map_err(|error| Error::Report {
        cause: error.to_string(),
        kept: "The reports of each run are beside it.".to_owned(),
    })?;
    for path in paths {
        print(&format!("{}\n", path.display()));
    }
    Ok(())
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed our output does not want to read it.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn usage(message: &str) -> Error {
    Error::Usage(message.to_owned())
}
