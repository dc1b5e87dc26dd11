//! One run, from its settings to its reports.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::client::{Client, GAVE_UP};
use crate::clock::Clock;
use crate::connection::Dialer;
use crate::driver;
use crate::error::Error;
use crate::live::{Live, View};
use crate::measure::{Measured, measure, word};
use crate::plan::{Pacing, Plan};
use crate::profile::Profile;
use crate::progress::Progress;
use crate::record::{Outcome, RequestRecord};
use crate::recorder::{Kept, Recorder};
use crate::report::{BenchFacts, Destination, PartialLog, RecordsHeader, write_all};
use crate::schedule::{self, Inputs};
use crate::setup::{Ready, Wishes};
use crate::summary::{Group, RunFacts, Summary};
use crate::target::Shape;
use crate::traces;

/// Open files that a run needs besides its connections.
const FILES_BESIDES: u64 = 64;

/// Everything that the command line and the profile say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the load looks like.
    pub profile: Profile,
    /// The server.
    pub wishes: Wishes,
    /// Key of tenants without their own.
    pub api_key: Option<String>,
    /// Source of all randomness.
    pub seed: u64,
    /// Retries of every request.
    pub retries: u32,
    /// After the last request was sent, those under way get this long.
    pub drain: Duration,
    /// Limit of the p99 of the generator's lateness.
    pub send_delay_ms_max: f64,
    /// Percentiles besides the usual.
    pub percentiles: Vec<f64>,
    /// Where reports go; none are written without.
    pub destination: Option<Destination>,
    /// What the JSON report has besides the summary.
    pub facts: BenchFacts,
    /// The command line, without keys.
    pub command: String,
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    /// Its figures.
    pub summary: Summary,
    /// Reports that were written.
    pub paths: Vec<std::path::PathBuf>,
    /// Why others were not, and where the records are then.
    pub report_error: Option<(String, String)>,
}

impl Settings {
    /// Draws the plan.
    ///
    /// # Errors
    /// The trace is unreadable, or the profile cannot be run.
    pub fn plan(&self) -> Result<Plan, Error> {
        let rows = match &self.profile.trace {
            Some(trace) => traces::read(trace.format, &trace.path)?,
            None => Vec::new(),
        };
        let inputs =
            Inputs { seed: self.seed, rows, api_key: self.api_key.clone(), retries: self.retries };
        schedule::draw(&self.profile, &inputs)
    }

    fn run_facts(&self, ready: &Ready, plan: &Plan) -> RunFacts {
        let rate = match plan.pacing {
            Pacing::Open => schedule::mean_rate(&self.profile).or_else(|| replayed_rate(plan)),
            Pacing::Closed { .. } => None,
        };
        RunFacts {
            name: self.profile.name.clone(),
            command: self.command.clone(),
            started_at: Clock::wall_text(),
            base_url: self.wishes.base_url.clone(),
            endpoint: self.wishes.endpoint.clone(),
            model: ready.target.model.clone(),
            seed: self.seed,
            pacing: plan.pacing,
            request_rate: rate,
            elapsed_s: 0.0,
            measured_s: 0.0,
            warmup_s: 0.0,
            cooldown_s: 0.0,
            interrupted: false,
            peak_concurrency: 0,
            peak_memory_bytes: 0,
        }
    }
}

/// Carries a plan out against a server that is ready, and writes the reports.
///
/// # Errors
/// The run could not begin. What goes wrong later is in the reports.
pub async fn run(
    settings: &Settings,
    plan: Arc<Plan>,
    ready: &Ready,
    interrupts: watch::Receiver<u32>,
    view: View,
) -> Result<Ran, Error> {
    allow_connections(&plan, settings.profile.load.max_concurrency)?;
    let mut facts = settings.run_facts(ready, &plan);
    let log = match &settings.destination {
        Some(destination) => Some(begin_log(destination, &facts, &plan)?),
        None => None,
    };
    let dialer = Dialer::new(&ready.target.base, ready.target.cacert.as_deref()).await?;
    let recorder = Recorder::start(log, plan.requests.len())?;
    let progress = Arc::new(Progress::new(plan.requests.len() as u64, plan.duration_ns));
    let clock = Clock::start();
    facts.started_at = Clock::wall_text();
    let client = Arc::new(Client {
        target: ready.target.clone(),
        dialer,
        clock,
        plan: plan.clone(),
        progress: progress.clone(),
    });
    let watched = progress.clone();
    let live = Live::start(view, &facts.name, move || watched.snapshot(clock.now_ns()));
    let driving = driver::Settings {
        max_concurrency: settings.profile.load.max_concurrency,
        drain: settings.drain,
        interrupts,
    };
    let driven = driver::drive(client, driving, recorder.sender()).await;
    live.stop();
    let kept = recorder.finish();
    let driven = driven?;
    facts.elapsed_s = driven.elapsed_ns as f64 / 1e9;
    facts.peak_concurrency = u32::try_from(progress.peak()).unwrap_or(u32::MAX);
    facts.peak_memory_bytes = peak_memory_bytes();
    let measured = Measured {
        plan: &plan,
        records: &kept.records,
        lateness_ns: &kept.lateness_ns,
        interrupted_ns: driven.interrupted_ns,
        objectives: settings.profile.objectives.into(),
        percentiles: &settings.percentiles,
        send_delay_ms_max: settings.send_delay_ms_max,
    };
    let mut summary = measure(&measured, facts);
    summary.validity.reasons.extend(ready.notes.iter().cloned());
    let bench_facts = BenchFacts {
        backend: match ready.target.shape {
            Shape::Chat => "openai-chat".to_owned(),
            Shape::Completions => "openai".to_owned(),
        },
        num_prompts: plan.requests.len() as u64,
        ..settings.facts.clone()
    };
    Ok(write_reports(settings, summary, kept, &bench_facts))
}

fn write_reports(settings: &Settings, summary: Summary, kept: Kept, facts: &BenchFacts) -> Ran {
    let Some(destination) = &settings.destination else {
        return Ran { summary, paths: Vec::new(), report_error: None };
    };
    let written = write_all(&summary, &kept.records, facts, destination);
    let records_are_there = written.is_ok() || whole_records(destination, &kept.records);
    let log_failure = kept.log.as_ref().and_then(|log| log.failure().map(ToString::to_string));
    let left = kept.log.and_then(|log| log.finish(records_are_there));
    match written {
        Ok(paths) => Ran { summary, paths, report_error: None },
        Err(error) => {
            let kept = match (left, log_failure) {
                (None, _) => format!("The records are in {}.", destination.path("jsonl").display()),
                (Some(path), None) => format!("The records are in {}.", path.display()),
                (Some(path), Some(_)) => {
                    format!("The records up to then are in {}.", path.display())
                }
            };
            let paths = error.written.clone();
            Ran { summary, paths, report_error: Some((error.to_string(), kept)) }
        }
    }
}

/// Whether the whole JSONL is there although another report is not.
fn whole_records(destination: &Destination, records: &[RequestRecord]) -> bool {
    let Ok(file) = std::fs::File::open(destination.path("jsonl")) else { return false };
    crate::report::records::read(std::io::BufReader::new(file))
        .is_ok_and(|(_, read)| read.len() == records.len())
}

fn begin_log(
    destination: &Destination,
    facts: &RunFacts,
    plan: &Plan,
) -> Result<PartialLog, Error> {
    let header = RecordsHeader {
        format: crate::report::records::FORMAT.to_owned(),
        name: facts.name.clone(),
        command: facts.command.clone(),
        started_at: facts.started_at.clone(),
        base_url: facts.base_url.clone(),
        endpoint: facts.endpoint.clone(),
        model: facts.model.clone(),
        seed: facts.seed,
        pacing: facts.pacing,
        tenants: plan.tenants.iter().map(Into::into).collect(),
    };
    PartialLog::create(destination, &header).map_err(|failure| Error::Report {
        cause: failure.to_string(),
        kept: "Nothing was sent yet.".to_owned(),
    })
}

/// Raises the limit of open files as far as the system lets us.
fn allow_connections(plan: &Plan, max_concurrency: Option<u32>) -> Result<(), Error> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Some systems say that there is no limit and refuse to take that back.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let wanted = match plan.pacing {
        Pacing::Closed { concurrency } => Some(concurrency),
        Pacing::Open => max_concurrency,
    };
    let wanted = wanted.map_or(0, |most| most.min(plan.requests.len() as u32));
    let wanted = u64::from(wanted) + FILES_BESIDES;
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < wanted => Err(Error::Machine(format!(
            "this load needs {wanted} open files and the system allows {files}: raise `ulimit -n` \
             or lower --max-concurrency"
        ))),
        _ => Ok(()),
    }
}

/// Requests a second of a replayed trace.
fn replayed_rate(plan: &Plan) -> Option<f64> {
    let span_s = plan.requests.last()?.scheduled_ns as f64 / 1e9;
    (span_s > 0.0).then(|| plan.requests.len() as f64 / span_s)
}

/// Of this process, as Linux tells it; 0 where it does not.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

impl Ran {
    /// What the process should say at its end: nothing when all is well.
    ///
    /// # Errors
    /// The worst of what happened: a report that is missing, an interrupt, an invalid run.
    pub fn verdict(&self) -> Result<(), Error> {
        if let Some((cause, kept)) = &self.report_error {
            return Err(Error::Report { cause: cause.clone(), kept: kept.clone() });
        }
        if self.summary.run.interrupted {
            return Err(Error::Interrupted);
        }
        if !self.summary.validity.valid {
            return Err(Error::Invalid("the run is not valid; the report says why".to_owned()));
        }
        match bad_answers(&self.summary.total) {
            Some(sentence) => Err(Error::BadAnswers(sentence)),
            None => Ok(()),
        }
    }
}

/// What was wrong with answers that began. Refusals are answers of a server that is well, and what
/// clients do by plan is no fault of its.
fn bad_answers(total: &Group) -> Option<String> {
    let outcome = |outcome: Outcome| total.outcomes.get(&word(outcome)).copied().unwrap_or(0);
    let planned = total.failures.iter().filter(|(what, _)| what.ends_with(GAVE_UP));
    let planned: u64 = planned.map(|(_, count)| count).sum();
    let unended = outcome(Outcome::Broken) + outcome(Outcome::TimedOut).saturating_sub(planned);
    let mut wrong = Vec::new();
    if unended > 0 {
        wrong.push(format!("{unended} of {} answers broke off or never ended", total.requests));
    }
    if total.without_usage > 0 {
        let completed = outcome(Outcome::Completed);
        wrong.push(format!("{} of {completed} answers had no usage", total.without_usage));
    }
    (!wrong.is_empty()).then(|| format!("{}; the report has the rest", wrong.join(", and ")))
}
