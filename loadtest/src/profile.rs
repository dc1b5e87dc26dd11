//! A profile: what a load looks like, as TOML. The command line is written over it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::arrivals::Arrivals;
use crate::error::Error;
use crate::lengths::Lengths;
use crate::summary::Objectives;
use crate::traces::TraceFormat;

/// The profiles that come with the binary.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("steady", include_str!("../profiles/steady.toml")),
    ("burst", include_str!("../profiles/burst.toml")),
    ("long-prompt", include_str!("../profiles/long-prompt.toml")),
    ("shared-prefix", include_str!("../profiles/shared-prefix.toml")),
    ("noisy-neighbour", include_str!("../profiles/noisy-neighbour.toml")),
    ("overload", include_str!("../profiles/overload.toml")),
    ("hundred-users", include_str!("../profiles/hundred-users.toml")),
];

/// What a load looks like.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in reports.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub about: String,
    /// How many requests, how fast, how long.
    #[serde(default)]
    pub load: Load,
    /// What they ask.
    #[serde(default)]
    pub prompt: PromptShape,
    /// What they get.
    #[serde(default)]
    pub output: OutputShape,
    /// Requests from a file instead of drawn ones.
    #[serde(default)]
    pub trace: Option<Trace>,
    /// Who sends; one nameless tenant when empty.
    #[serde(default)]
    pub tenants: Vec<TenantShape>,
    /// What some clients do besides reading.
    #[serde(default)]
    pub behaviours: Vec<BehaviourShape>,
    /// What a good request meets.
    #[serde(default)]
    pub objectives: ObjectivesShape,
    /// Sends a tenant's class as `service_tier`.
    #[serde(default)]
    pub send_class: bool,
}

/// How many requests, how fast, how long.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Requests a second over all tenants; none means that `concurrency` paces them, or nothing.
    pub request_rate: Option<f64>,
    /// Closed loop: requests under way.
    pub concurrency: Option<u32>,
    /// Open loop: no more than this under way; the others wait, and their waiting counts.
    pub max_concurrency: Option<u32>,
    /// Shape of arrivals.
    pub arrivals: Arrivals,
    /// Requests at most.
    pub num_prompts: Option<u32>,
    /// Sending stops after this.
    pub duration_s: Option<f64>,
    /// Left out of the figures at the start.
    pub warmup_s: f64,
    /// Left out of the figures at the end.
    pub cooldown_s: f64,
}

/// Prompts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptShape {
    /// Tokens of a prompt's own part.
    pub tokens: Lengths,
    /// Tokens of the part that is shared; 0 shares nothing.
    pub prefix_tokens: u32,
    /// Distinct shared parts.
    pub prefixes: u32,
    /// The part of requests that begins with one of them.
    pub prefix_fraction: f64,
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputShape {
    /// `max_tokens`.
    pub tokens: Lengths,
    /// Asks the server to go on to `max_tokens`.
    pub ignore_eos: bool,
}

/// A trace file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// What it is written in.
    pub format: TraceFormat,
    /// Where it is; relative to the profile's folder.
    pub path: PathBuf,
    /// Times of the trace are divided by this.
    #[serde(default = "one")]
    pub speedup: f64,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantShape {
    /// Its name in reports.
    pub name: String,
    /// Its key; without it the run's.
    #[serde(default)]
    pub key: Option<String>,
    /// For reports; sent as `service_tier` with `send_class = true`.
    #[serde(default)]
    pub class: Option<String>,
    /// Its part of the rate, relative to the others'.
    #[serde(default = "one")]
    pub share: f64,
    /// Whether it is the one that misbehaves.
    #[serde(default)]
    pub abusive: bool,
    /// Sends this many times its part, on top of the rate of the others.
    #[serde(default = "one")]
    pub rate_multiple: f64,
    /// Prompt lengths of its own.
    #[serde(default)]
    pub prompt_tokens: Option<Lengths>,
    /// Output lengths of its own.
    #[serde(default)]
    pub output_tokens: Option<Lengths>,
}

/// What a part of the clients does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BehaviourShape {
    /// The part of requests.
    pub fraction: f64,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Leaves after so many chunks.
    pub disconnect_after_chunks: Option<u32>,
    /// Reads no faster.
    pub read_bytes_per_s: Option<u32>,
    /// Gives up after this long.
    pub give_up_after_ms: Option<u32>,
    /// Retries as the SDKs do.
    pub retries: u32,
}

/// See [`Objectives`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectivesShape {
    /// Time to first token.
    pub ttft_ms: Option<f64>,
    /// Time per output token.
    pub tpot_ms: Option<f64>,
    /// End to end.
    pub e2el_ms: Option<f64>,
}

impl Profile {
    /// What the command line alone describes: vLLM's defaults.
    pub fn custom() -> Self {
        Self {
            name: "custom".to_owned(),
            about: String::new(),
            load: Load::default(),
            prompt: PromptShape::default(),
            output: OutputShape::default(),
            trace: None,
            tenants: Vec::new(),
            behaviours: Vec::new(),
            objectives: ObjectivesShape::default(),
            send_class: false,
        }
    }

    /// An embedded profile by name, or a file.
    ///
    /// # Errors
    /// There is no such profile, or the file is unreadable or says something unknown.
    pub fn load(name_or_file: &str) -> Result<Self, Error> {
        if let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_file) {
            return Self::parse(text, Path::new(name));
        }
        let path = Path::new(name_or_file);
        if !name_or_file.ends_with(".toml") {
            let names: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
            return Err(Error::Usage(format!(
                "there is no profile \"{name_or_file}\"; there are {}, or give the path of a \
                 .toml file",
                names.join(", ")
            )));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|cause| Error::Unreadable { path: path.to_owned(), cause })?;
        let mut profile = Self::parse(&text, path)?;
        if let (Some(trace), Some(folder)) = (&mut profile.trace, path.parent()) {
            trace.path = folder.join(&trace.path);
        }
        Ok(profile)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|cause| Error::Usage(format!("{}: {cause}", path.display())))
    }

    /// Refuses what cannot be run, with the fix.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let load = &self.load;
        let refuse = |message: &str| Err(Error::Usage(message.to_owned()));
        if load.request_rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return refuse("--request-rate must be above 0 (or `inf`)");
        }
        if load.concurrency == Some(0) || load.max_concurrency == Some(0) {
            return refuse("--max-concurrency must be at least 1");
        }
        if load.concurrency.is_some() && load.request_rate.is_some() {
            return refuse(
                "a closed loop (concurrency) has no request_rate: give one of them, or \
                 max_concurrency to cap an open loop",
            );
        }
        if load.duration_s.is_some_and(|seconds| !(seconds > 0.0 && seconds.is_finite())) {
            return refuse("--duration must be above 0 seconds");
        }
        if load.num_prompts == Some(0) {
            return refuse("--num-prompts must be at least 1");
        }
        if !(load.warmup_s >= 0.0 && load.cooldown_s >= 0.0) {
            return refuse("--warmup and --cooldown must not be negative");
        }
        if load.duration_s.is_some_and(|seconds| load.warmup_s + load.cooldown_s >= seconds) {
            return refuse("--warmup and --cooldown leave nothing of --duration to measure");
        }
        load.arrivals.check(load.request_rate)?;
        self.prompt.tokens.check("prompt tokens")?;
        self.output.tokens.check("output tokens")?;
        self.check_parts()
    }

    fn check_parts(&self) -> Result<(), Error> {
        let part = |value: f64| (0.0..=1.0).contains(&value);
        if !part(self.prompt.prefix_fraction) || self.prompt.prefixes == 0 {
            return Err(Error::Usage(
                "prefix_fraction must be between 0 and 1, and prefixes at least 1".to_owned(),
            ));
        }
        for tenant in &self.tenants {
            let sane = |value: f64| value.is_finite() && value > 0.0;
            if !sane(tenant.share) || !sane(tenant.rate_multiple) {
                return Err(Error::Usage(format!(
                    "tenant {}: share and rate_multiple must be above 0",
                    tenant.name
                )));
            }
            for lengths in [&tenant.prompt_tokens, &tenant.output_tokens].into_iter().flatten() {
                lengths.check(&format!("tenant {}", tenant.name))?;
            }
        }
        for behaviour in &self.behaviours {
            let tenant = behaviour.tenant.as_deref();
            if tenant.is_some_and(|name| !self.tenants.iter().any(|known| known.name == name)) {
                return Err(Error::Usage(format!(
                    "a behaviour names the tenant \"{}\", which is not among the tenants",
                    tenant.unwrap_or_default()
                )));
            }
            if !part(behaviour.fraction) || behaviour.read_bytes_per_s == Some(0) {
                return Err(Error::Usage(
                    "a behaviour's fraction must be between 0 and 1, and read_bytes_per_s above 0"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }
}

impl Default for PromptShape {
    fn default() -> Self {
        Self { tokens: Lengths::Fixed(1024), prefix_tokens: 0, prefixes: 1, prefix_fraction: 1.0 }
    }
}

impl Default for OutputShape {
    fn default() -> Self {
        Self { tokens: Lengths::Fixed(128), ignore_eos: false }
    }
}

impl From<ObjectivesShape> for Objectives {
    fn from(shape: ObjectivesShape) -> Self {
        Self { ttft_ms: shape.ttft_ms, tpot_ms: shape.tpot_ms, e2el_ms: shape.e2el_ms }
    }
}

fn one() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_profile_parses_and_passes_its_own_check() {
        for (name, _) in EMBEDDED {
            let profile = Profile::load(name).unwrap();
            assert_eq!(profile.name, *name);
            assert!(!profile.about.is_empty(), "{name} says what it is for");
            profile.check().unwrap();
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = "name = \"x\"\n[load]\nrequest_rat = 3.0\n";
        let refusal = Profile::parse(text, Path::new("x.toml")).unwrap_err().to_string();
        assert!(refusal.contains("request_rat"), "{refusal}");
        assert!(refusal.contains("x.toml"), "{refusal}");
        let refusal = Profile::load("stedy").unwrap_err().to_string();
        assert!(refusal.contains("steady, burst"), "{refusal}");
    }
}
