//! From the command line, over a profile, to the settings of a run.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arrivals::Arrivals;
use crate::cli::{ArrivalsWord, DataArgs, Dataset, LoadArgs, ReportArgs, RunArgs, ServerArgs};
use crate::error::Error;
use crate::lengths::Lengths;
use crate::profile::{Load, Profile, TenantShape, Trace};
use crate::report::{BenchFacts, Destination, Metric};
use crate::run::Settings;
use crate::setup::Wishes;
use crate::target::{Limits, bearer, header};

/// vLLM's defaults.
const INPUT_TOKENS: u32 = 1024;
const OUTPUT_TOKENS: u32 = 128;
/// Fields of a request that the plan decides.
const PLANNED_FIELDS: [&str; 4] = ["model", "messages", "prompt", "max_tokens"];

/// Settings of a run. `arguments` is the command line and `now` a word for the time, both for
/// reports.
///
/// # Errors
/// Something cannot be, or contradicts something else; the message has the fix.
pub fn of(args: &RunArgs, arguments: &[String], now: &str) -> Result<Settings, Error> {
    let mut profile = match &args.load.profile {
        Some(name) => Profile::load(name)?,
        None => Profile::custom(),
    };
    over_load(&mut profile, &args.load)?;
    over_data(&mut profile, &args.data)?;
    over_pace(&mut profile, &args.load)?;
    over_objectives(&mut profile, &args.report.goodput)?;
    profile.output.ignore_eos |= args.server.ignore_eos;
    profile.check()?;
    let wishes = wishes(&args.server, &profile)?;
    check_keys(&profile, args.server.api_key.as_deref())?;
    if !(args.load.drain >= 0.0 && args.load.drain.is_finite()) {
        return Err(usage("--drain must not be negative"));
    }
    let burstiness = match profile.load.arrivals {
        Arrivals::Poisson => Some(1.0),
        Arrivals::Gamma(shape) => Some(shape),
        _ => None,
    };
    Ok(Settings {
        wishes,
        api_key: args.server.api_key.clone(),
        seed: args.load.seed,
        retries: args.server.retries,
        drain: Duration::from_secs_f64(args.load.drain),
        send_delay_ms_max: args.load.max_send_delay_ms,
        percentiles: percentiles(&args.report)?,
        destination: destination(&args.report, &profile.name, now),
        facts: BenchFacts {
            backend: String::new(),
            tokenizer_id: None,
            num_prompts: 0,
            burstiness,
            metrics: metrics(&args.report)?,
            percentiles: percentiles(&args.report)?,
            detailed: args.report.save_detailed,
        },
        command: without_keys(arguments),
        profile,
    })
}

fn over_load(profile: &mut Profile, args: &LoadArgs) -> Result<(), Error> {
    let load = &mut profile.load;
    load.num_prompts = args.num_prompts.or(load.num_prompts);
    load.duration_s = args.duration.or(load.duration_s);
    load.warmup_s = args.warmup.unwrap_or(load.warmup_s);
    load.cooldown_s = args.cooldown.unwrap_or(load.cooldown_s);
    if args.num_prompts.is_some() && args.duration.is_none() {
        // The profile's time was chosen for its own number of requests.
        load.duration_s = None;
    }
    if let Some(path) = &args.tenants {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            tenants: Vec<TenantShape>,
        }
        let text = std::fs::read_to_string(path)
            .map_err(|cause| Error::Unreadable { path: path.clone(), cause })?;
        let file: File = toml::from_str(&text)
            .map_err(|cause| Error::Usage(format!("{}: {cause}", path.display())))?;
        if file.tenants.is_empty() {
            return Err(Error::Usage(format!("{}: has no [[tenants]]", path.display())));
        }
        profile.tenants = file.tenants;
    }
    Ok(())
}

/// Rate, arrivals and concurrency belong together: a flag for one replaces the profile's others.
fn over_pace(profile: &mut Profile, args: &LoadArgs) -> Result<(), Error> {
    let load = &mut profile.load;
    over_arrivals(load, args)?;
    if let Some(rate) = args.request_rate {
        load.concurrency = None;
        load.request_rate = (rate != f64::INFINITY).then_some(rate);
        let ramps = matches!(load.arrivals, Arrivals::Ramp { .. });
        if ramps && args.ramp_up_strategy.is_none() {
            load.arrivals = Arrivals::Poisson;
        }
        if load.request_rate.is_none() {
            load.arrivals = Arrivals::Poisson;
            load.max_concurrency = None;
        }
    }
    let timed_trace = profile.trace.as_ref().is_some_and(|trace| trace.format.has_times());
    let ramps = matches!(load.arrivals, Arrivals::Ramp { .. });
    let open = load.request_rate.is_some() || ramps || timed_trace;
    if let Some(most) = args.max_concurrency {
        (load.concurrency, load.max_concurrency) =
            if open { (None, Some(most)) } else { (Some(most), None) };
    }
    let shaped = args.burstiness.is_some() || args.arrivals.is_some();
    if shaped && load.request_rate.is_none() {
        return Err(usage("--burstiness and --arrivals need a finite --request-rate"));
    }
    Ok(())
}

fn over_arrivals(load: &mut Load, args: &LoadArgs) -> Result<(), Error> {
    if args.burstiness.is_some() && args.arrivals.is_some() {
        return Err(usage("--burstiness and --arrivals exclude each other: give one"));
    }
    if let Some(shape) = args.burstiness {
        load.arrivals = if shape == 1.0 { Arrivals::Poisson } else { Arrivals::Gamma(shape) };
    }
    match args.arrivals {
        Some(ArrivalsWord::Poisson) => load.arrivals = Arrivals::Poisson,
        Some(ArrivalsWord::Constant) => load.arrivals = Arrivals::Constant,
        None => {}
    }
    match (args.ramp_up_strategy, args.ramp_up_start_rps, args.ramp_up_end_rps) {
        (None, None, None) => Ok(()),
        (Some(strategy), Some(start_rps), Some(end_rps)) => {
            if args.burstiness.is_some() || args.arrivals.is_some() {
                return Err(usage(
                    "a ramp is a Poisson process: leave --burstiness and --arrivals away",
                ));
            }
            load.arrivals = Arrivals::Ramp { strategy, start_rps, end_rps };
            (load.request_rate, load.concurrency) = (None, None);
            Ok(())
        }
        _ => Err(usage(
            "a ramp needs all of --ramp-up-strategy, --ramp-up-start-rps and --ramp-up-end-rps",
        )),
    }
}

fn over_data(profile: &mut Profile, args: &DataArgs) -> Result<(), Error> {
    match (args.dataset_name, &args.dataset_path) {
        (None, None) => {}
        (None, Some(_)) => {
            return Err(usage(
                "--dataset-path needs --dataset-name: sharegpt, mooncake, burstgpt or azure",
            ));
        }
        (Some(Dataset::Random), Some(_)) => {
            return Err(usage("--dataset-name random reads no --dataset-path: leave it away"));
        }
        (Some(Dataset::Random), None) => profile.trace = None,
        (Some(name), path) => {
            let (Some(format), Some(path)) = (name.format(), path) else {
                return Err(usage("this --dataset-name needs --dataset-path FILE"));
            };
            profile.trace = Some(Trace { format, path: path.clone(), speedup: 1.0 });
        }
    }
    let random = args.random_input_len.is_some()
        || args.random_output_len.is_some()
        || args.random_range_ratio.is_some()
        || args.random_prefix_len.is_some();
    match &mut profile.trace {
        Some(_) if random => {
            return Err(usage(
                "--random-* say nothing about a trace, which has its own lengths: leave them away",
            ));
        }
        Some(trace) => trace.speedup = args.trace_speedup.unwrap_or(trace.speedup),
        None if args.trace_speedup.is_some() => {
            return Err(usage("--trace-speedup needs a trace: --dataset-name and --dataset-path"));
        }
        None => {}
    }
    if profile.trace.as_ref().is_some_and(|trace| trace.speedup.is_nan() || trace.speedup <= 0.0) {
        return Err(usage("--trace-speedup must be above 0"));
    }
    over_lengths(profile, args)
}

fn over_lengths(profile: &mut Profile, args: &DataArgs) -> Result<(), Error> {
    let ratio = args.random_range_ratio.unwrap_or(0.0);
    if !(0.0..1.0).contains(&ratio) {
        return Err(usage("--random-range-ratio must be at least 0 and below 1"));
    }
    let custom = profile.name == Profile::custom().name;
    let both = args.random_input_len.is_some() && args.random_output_len.is_some();
    if args.random_range_ratio.is_some() && !custom && !both {
        return Err(usage(
            "--random-range-ratio over a profile needs --random-input-len and --random-output-len",
        ));
    }
    if args.random_input_len.is_some() || (custom && args.random_range_ratio.is_some()) {
        let tokens = args.random_input_len.unwrap_or(INPUT_TOKENS);
        profile.prompt.tokens = Lengths::around(tokens, ratio);
        profile.tenants.iter_mut().for_each(|tenant| tenant.prompt_tokens = None);
    }
    if args.random_output_len.is_some() || (custom && args.random_range_ratio.is_some()) {
        let tokens = args.random_output_len.unwrap_or(OUTPUT_TOKENS);
        profile.output.tokens = Lengths::around(tokens, ratio);
        profile.tenants.iter_mut().for_each(|tenant| tenant.output_tokens = None);
    }
    profile.prompt.prefix_tokens = args.random_prefix_len.unwrap_or(profile.prompt.prefix_tokens);
    Ok(())
}

fn over_objectives(profile: &mut Profile, goodput: &[String]) -> Result<(), Error> {
    if !goodput.is_empty() {
        profile.objectives = Default::default();
    }
    for pair in goodput {
        let refuse = || {
            Error::Usage(format!("--goodput {pair}: expected ttft:MS, tpot:MS or e2el:MS, MS > 0"))
        };
        let (name, value) = pair.split_once(':').ok_or_else(refuse)?;
        let value: f64 = value.parse().map_err(|_| refuse())?;
        if !(value > 0.0 && value.is_finite()) {
            return Err(refuse());
        }
        match name {
            "ttft" => profile.objectives.ttft_ms = Some(value),
            "tpot" => profile.objectives.tpot_ms = Some(value),
            "e2el" => profile.objectives.e2el_ms = Some(value),
            _ => return Err(refuse()),
        }
    }
    Ok(())
}

fn wishes(args: &ServerArgs, profile: &Profile) -> Result<Wishes, Error> {
    let model = args.served_model_name.clone().or_else(|| args.model.clone());
    if args.no_preflight && model.is_none() {
        return Err(usage("--no-preflight asks the server nothing: give --model, too"));
    }
    let seconds = |name: &str, value: f64| match value {
        value if value > 0.0 && value <= 86_400.0 => Ok(Duration::from_secs_f64(value)),
        _ => Err(Error::Usage(format!("{name} must be above 0 and at most 86400 seconds"))),
    };
    let mut headers = http::HeaderMap::new();
    for text in &args.header {
        let (name, value) = header(text)?;
        headers.append(name, value);
    }
    Ok(Wishes {
        base_url: args.base_url.clone(),
        endpoint: args.endpoint.clone(),
        model,
        headers,
        fields: fields(args, profile)?,
        send_class: profile.send_class,
        limits: Limits {
            whole: seconds("--timeout", args.timeout)?,
            idle: seconds("--idle-timeout", args.idle_timeout)?,
        },
        cacert: args.cacert.clone(),
        preflight: !args.no_preflight,
        calibrate: !args.no_calibrate,
    })
}

fn fields(args: &ServerArgs, profile: &Profile) -> Result<Map<String, Value>, Error> {
    let mut fields = Map::new();
    fields.insert("stream".to_owned(), true.into());
    fields.insert("stream_options".to_owned(), serde_json::json!({"include_usage": true}));
    if profile.output.ignore_eos {
        fields.insert("ignore_eos".to_owned(), true.into());
    }
    for (name, value) in [("temperature", args.temperature), ("top_p", args.top_p)] {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value.into());
        }
    }
    let Some(text) = &args.extra_body else { return Ok(fields) };
    let Ok(Value::Object(extra)) = serde_json::from_str(text) else {
        return Err(Error::Usage(format!("--extra-body {text}: expected a JSON object")));
    };
    for (name, value) in extra {
        if PLANNED_FIELDS.contains(&name.as_str()) {
            return Err(Error::Usage(format!(
                "--extra-body: \"{name}\" is decided by the plan; use --model, the length flags \
                 or a trace"
            )));
        }
        fields.insert(name, value);
    }
    Ok(fields)
}

fn check_keys(profile: &Profile, key: Option<&str>) -> Result<(), Error> {
    let keys = profile.tenants.iter().filter_map(|tenant| tenant.key.as_deref()).chain(key);
    match keys.filter(|key| bearer(key).is_none()).count() {
        0 => Ok(()),
        _ => Err(usage("a key has characters that no header may have, such as a line break")),
    }
}

fn percentiles(args: &ReportArgs) -> Result<Vec<f64>, Error> {
    match args.metric_percentiles.iter().find(|at| !(**at > 0.0 && **at <= 100.0)) {
        Some(at) => Err(Error::Usage(format!("--metric-percentiles: {at} is not in (0, 100]"))),
        None => Ok(args.metric_percentiles.clone()),
    }
}

fn metrics(args: &ReportArgs) -> Result<Vec<Metric>, Error> {
    let words = args.percentile_metrics.split(',').filter(|word| !word.trim().is_empty());
    let metrics: Result<Vec<Metric>, _> = words.map(str::parse).collect();
    metrics.map_err(|unknown| Error::Usage(format!("--percentile-metrics: {unknown}")))
}

fn destination(args: &ReportArgs, profile: &str, now: &str) -> Option<Destination> {
    let wanted = args.save_result
        || args.save_detailed
        || args.result_dir.is_some()
        || args.result_filename.is_some();
    let name = match &args.result_filename {
        Some(name) => name.strip_suffix(".json").unwrap_or(name).to_owned(),
        None => format!("{profile}-{now}"),
    };
    wanted.then(|| Destination {
        directory: args.result_dir.clone().unwrap_or_else(|| ".".into()),
        name,
    })
}

/// The command line without what should not be read by others.
fn without_keys(arguments: &[String]) -> String {
    let secret = |text: &str| {
        let text = text.to_lowercase();
        ["key", "auth", "token", "cookie", "secret"].iter().any(|word| text.contains(word))
    };
    let mut shown = Vec::new();
    let mut hide_next = false;
    for argument in arguments {
        let hidden = match argument.split_once('=') {
            _ if std::mem::take(&mut hide_next) => "***".to_owned(),
            Some((name, _)) if name == "--api-key" => format!("{name}=***"),
            Some(("--header", value)) if secret(value) => "--header=***".to_owned(),
            Some((name, _)) if !name.starts_with("--") && secret(name) => format!("{name}=***"),
            _ if argument.split_once(':').is_some_and(|(name, _)| secret(name)) => "***".to_owned(),
            _ => argument.clone(),
        };
        hide_next = argument == "--api-key";
        shown.push(if hidden.contains(' ') { format!("'{hidden}'") } else { hidden });
    }
    shown.join(" ")
}

fn usage(message: &str) -> Error {
    Error::Usage(message.to_owned())
}

#[cfg(test)]
mod tests;
