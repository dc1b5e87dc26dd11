//! `[tenants.NAME]` and `[tenant-defaults]` of the settings file: parsed, checked, and where a
//! tenant says nothing, filled in from the defaults.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use super::size::Count;
use super::source::nearest;
use super::{Class, Tenancy, TenantSettings};

/// The table of tables, one for each tenant.
pub(super) const TENANTS: &str = "tenants";
/// The table of what a tenant has that says nothing else.
pub(super) const TENANT_DEFAULTS: &str = "tenant-defaults";

const TENANTS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 64;
const MODELS_MAX: usize = 64;
/// Budgets are counted in f64 by some readers of metrics; up to this they are exact.
const TOKENS_MAX: u64 = 1 << 53;
/// Lifts a bound that `[tenant-defaults]` sets.
const UNLIMITED: &str = "unlimited";

const NAMES: &[&str] = &[
    "weight",
    "class",
    "models",
    "requests-per-minute",
    "tokens-per-minute",
    "concurrent-requests",
    "queued-requests",
    "kv-share",
    "tokens-per-hour",
    "tokens-per-day",
    "tokens-per-month",
    "cached-token-price",
    "max-context-tokens",
    "max-output-tokens",
    "default-output-tokens",
    "max-choices",
    "ttft-objective-ms",
    "ttft-objective-ms-per-1k-tokens",
    "tpot-objective-ms",
];

/// A tenant's table, of which each setting is taken once.
struct Section {
    /// Where it stands in the file, for messages.
    path: String,
    table: Table,
}

/// Tenants from the two tables of the file.
///
/// # Errors
/// A sentence that names the setting, what was expected and what to do.
pub(super) fn check(defaults: Option<Value>, tenants: Option<Value>) -> Result<Tenancy, String> {
    let base = TenantSettings::default();
    let default = match defaults {
        Some(value) => Section::open(TENANT_DEFAULTS.to_owned(), value)?.settings(&base)?,
        None => base,
    };
    let tenants = match tenants {
        None => Table::new(),
        Some(Value::Table(tenants)) => tenants,
        Some(other) => return Err(mistyped(TENANTS, "tables such as [tenants.acme]", &other)),
    };
    if tenants.len() > TENANTS_MAX {
        return Err(format!("{} tenants; at most {TENANTS_MAX} are possible", tenants.len()));
    }
    let tenant = |(name, value): (String, Value)| {
        check_name(&name)?;
        let section = Section::open(format!("{TENANTS}.{name}"), value)?;
        section.settings(&TenantSettings { name: Arc::from(name), ..default.clone() })
    };
    let tenants = tenants.into_iter().map(tenant).collect::<Result<_, _>>()?;
    Ok(Tenancy { default, tenants })
}

/// Names become labels of metrics and parts of commands.
fn check_name(name: &str) -> Result<(), String> {
    if name == "default" {
        return Err(format!(
            "[{TENANTS}.default]: the tenant \"default\" is described by [{TENANT_DEFAULTS}]"
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= NAME_BYTES_MAX && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!(
        "[{TENANTS}.{name:?}]: a tenant's name has 1 to {NAME_BYTES_MAX} letters, digits, '-', \
         '_' and '.', and begins with a letter or digit"
    ))
}

impl Section {
    fn open(path: String, value: Value) -> Result<Self, String> {
        let Value::Table(table) = value else {
            return Err(mistyped(&path, "a table", &value));
        };
        for key in table.keys() {
            if NAMES.contains(&key.as_str()) {
                continue;
            }
            let near = nearest(&key.replace('_', "-"), NAMES.iter().copied());
            return Err(match near {
                Some(near) => format!("[{path}]: unknown setting {key:?}; did you mean {near:?}?"),
                None => {
                    format!("[{path}]: unknown setting {key:?}; there are {}", NAMES.join(", "))
                }
            });
        }
        Ok(Self { path, table })
    }

    /// The settings of the table; those that it does not mention are `base`'s.
    fn settings(mut self, base: &TenantSettings) -> Result<TenantSettings, String> {
        let tokens = 1..=TOKENS_MAX;
        let context = 1..=1 << 24;
        let settings = TenantSettings {
            name: Arc::clone(&base.name),
            weight: self.number("weight", 1..=10_000)?.unwrap_or(base.weight),
            class: self.class()?.unwrap_or(base.class),
            models: self.models(base)?,
            requests_per_min: self.bound(
                "requests-per-minute",
                1..=1_000_000_000,
                base.requests_per_min,
            )?,
            tokens_per_min: self.bound("tokens-per-minute", tokens.clone(), base.tokens_per_min)?,
            concurrent_requests_max: self.bound(
                "concurrent-requests",
                1..=1 << 20,
                base.concurrent_requests_max,
            )?,
            queued_requests_max: self.bound(
                "queued-requests",
                1..=1 << 20,
                base.queued_requests_max,
            )?,
            kv_share: self.kv_share()?.unwrap_or(base.kv_share),
            tokens_per_hour: self.bound("tokens-per-hour", tokens.clone(), base.tokens_per_hour)?,
            tokens_per_day: self.bound("tokens-per-day", tokens.clone(), base.tokens_per_day)?,
            tokens_per_month: self.bound("tokens-per-month", tokens, base.tokens_per_month)?,
            cached_token_permille: self.cached_price()?.unwrap_or(base.cached_token_permille),
            context_tokens_max: self.bound(
                "max-context-tokens",
                2..=1 << 24,
                base.context_tokens_max,
            )?,
            output_tokens_max: self.bound(
                "max-output-tokens",
                context.clone(),
                base.output_tokens_max,
            )?,
            output_tokens_default: self.bound(
                "default-output-tokens",
                context,
                base.output_tokens_default,
            )?,
            choices_max: self.bound("max-choices", 1..=128, base.choices_max)?,
            ttft: self.duration("ttft-objective-ms", base.ttft)?,
            ttft_per_1k_tokens: self
                .duration("ttft-objective-ms-per-1k-tokens", base.ttft_per_1k_tokens)?,
            tpot: self.duration("tpot-objective-ms", base.tpot)?,
        };
        self.check_together(&settings)?;
        Ok(settings)
    }

    /// What is wrong only in combination.
    fn check_together(&self, settings: &TenantSettings) -> Result<(), String> {
        if let (Some(default), Some(max)) =
            (settings.output_tokens_default, settings.output_tokens_max)
            && default > max
        {
            return Err(self.wrong(
                "default-output-tokens",
                &format!("{default} is more than max-output-tokens ({max})"),
            ));
        }
        if settings.ttft_per_1k_tokens.is_some() && settings.ttft.is_none() {
            return Err(self.wrong(
                "ttft-objective-ms-per-1k-tokens",
                "it has no effect without ttft-objective-ms",
            ));
        }
        Ok(())
    }

    fn class(&mut self) -> Result<Option<Class>, String> {
        let Some(value) = self.table.remove("class") else { return Ok(None) };
        let shown = value.to_string();
        let expected = "\"interactive\", \"standard\" or \"batch\"";
        let class = Class::deserialize(value);
        class.map(Some).map_err(|_| self.wrong("class", &format!("{shown} is not {expected}")))
    }

    /// Names of models, or `["*"]` for all of them.
    fn models(&mut self, base: &TenantSettings) -> Result<Option<Vec<String>>, String> {
        let Some(value) = self.table.remove("models") else { return Ok(base.models.clone()) };
        let names: Vec<String> = Vec::deserialize(value)
            .map_err(|_| self.wrong("models", "expected an array of names, or [\"*\"] for all"))?;
        let is_all = |name: &String| name == "*";
        if names.len() == 1 && names.iter().all(is_all) {
            return Ok(None);
        }
        let fine = |name: &String| !name.is_empty() && !is_all(name);
        if names.is_empty() || names.len() > MODELS_MAX || !names.iter().all(fine) {
            let reason = format!("expected 1 to {MODELS_MAX} names, or [\"*\"] alone for all");
            return Err(self.wrong("models", &reason));
        }
        Ok(Some(names))
    }

    fn kv_share(&mut self) -> Result<Option<f64>, String> {
        let share = self.float("kv-share")?;
        if share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return Err(self.wrong("kv-share", "expected a number above 0 and at most 1"));
        }
        Ok(share)
    }

    fn cached_price(&mut self) -> Result<Option<u32>, String> {
        match self.float("cached-token-price")? {
            None => Ok(None),
            Some(price) if (0.0..=1.0).contains(&price) => {
                Ok(Some((price * 1000.0).round() as u32))
            }
            Some(_) => Err(self.wrong("cached-token-price", "expected a number from 0 to 1")),
        }
    }

    /// A time in milliseconds, or "unlimited" for none.
    fn duration(&mut self, name: &str, base: Option<Duration>) -> Result<Option<Duration>, String> {
        if self.lifts(name) {
            return Ok(None);
        }
        let Some(ms) = self.float(name)? else { return Ok(base) };
        if (0.001..=86_400_000.0).contains(&ms) {
            return Ok(Some(Duration::from_nanos((ms * 1e6) as u64)));
        }
        Err(self.wrong(name, &format!("{ms} is not between 0.001 and 86,400,000 milliseconds")))
    }

    fn float(&mut self, name: &str) -> Result<Option<f64>, String> {
        match self.table.remove(name) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(value)),
            Some(Value::Integer(value)) => Ok(Some(value as f64)),
            Some(other) => Err(mistyped(&self.at(name), "a number", &other)),
        }
    }

    /// A count, or "unlimited" for none.
    fn bound<T: TryFrom<u64>>(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
        base: Option<T>,
    ) -> Result<Option<T>, String> {
        if self.lifts(name) {
            return Ok(None);
        }
        Ok(self.number(name, range)?.or(base))
    }

    fn number<T: TryFrom<u64>>(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.table.remove(name) else { return Ok(None) };
        let count = Count::deserialize(value).map_err(|e| self.wrong(name, e.message()))?;
        let converted = T::try_from(count.0).ok().filter(|_| range.contains(&count.0));
        let (low, high) = range.into_inner();
        let reason = format!("{} is not between {low} and {high}", count.0);
        converted.map(Some).ok_or_else(|| self.wrong(name, &reason))
    }

    fn lifts(&mut self, name: &str) -> bool {
        let lifted = self.table.get(name).and_then(Value::as_str) == Some(UNLIMITED);
        if lifted {
            self.table.remove(name);
        }
        lifted
    }

    fn at(&self, name: &str) -> String {
        format!("[{}] {name}", self.path)
    }

    fn wrong(&self, name: &str, reason: &str) -> String {
        format!("{}: {reason}", self.at(name))
    }
}

fn mistyped(place: &str, expected: &str, found: &Value) -> String {
    format!("{place}: expected {expected}, found a value of type {}", found.type_str())
}
