//! Where settings come from: the command line, the environment and a TOML file; read once at the
//! start, and the file again whenever a reload is asked for.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use super::command::{KeysAction, KeysArgs, UsageArgs, UsageFormat};
use super::raw::{Cli, Command, RawConfig, ServeArgs};
use super::tenancy::{self, TENANT_DEFAULTS, TENANTS};
use super::{Config, ConfigError, Tenancy, foreign};

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Serve with these settings.
    Serve(Box<Config>),
    /// Print the settings and exit.
    Print(Box<Config>),
    /// Do something with keys.
    Keys(Box<KeysRequest>),
    /// Tell what tenants have used.
    Usage(UsageRequest),
}

/// `weir usage`, with what the settings say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRequest {
    /// Where the ledger lies.
    pub state_dir: Option<PathBuf>,
    /// Of this tenant alone.
    pub tenant: Option<String>,
    /// From this day on, in days since 1970.
    pub since_day: Option<u32>,
    /// How.
    pub format: UsageFormat,
}

/// `weir keys …`, with what the settings say about it.
#[derive(Debug)]
pub struct KeysRequest {
    /// Where keys lie.
    pub state_dir: Option<PathBuf>,
    /// Tenants of the settings file, if one was named.
    pub tenancy: Option<Tenancy>,
    /// What to do.
    pub action: KeysAction,
}

/// Folders that the environment names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Where the Hugging Face tools keep downloaded models.
    pub hub_cache: Option<PathBuf>,
    /// Where keys and the ledger live unless a setting says otherwise.
    pub state_dir: Option<PathBuf>,
}

/// Flags and the file's path: what is needed to read the settings again.
#[derive(Clone)]
pub struct Source {
    /// Flags and environment.
    flags: RawConfig,
    file: Option<PathBuf>,
    places: Places,
    /// What flags and file said together when they were last read.
    said: RawConfig,
}

/// Reads the command line, the environment and the settings file it names.
///
/// # Errors
/// A `clap` error for the command line itself (help and version among them, to be printed by its
/// `exit`), or a [`ConfigError`] inside one of the same kind.
pub fn read<I, S>(args: I) -> Result<Request, clap::Error>
where
    I: IntoIterator<Item = S>,
    S: Into<std::ffi::OsString> + Clone,
{
    let matches = Cli::command().try_get_matches_from(args).map_err(explain)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let wrong =
        |error: ConfigError| Cli::command().error(ErrorKind::ValueValidation, error.to_string());
    let args = match cli.command {
        Some(Command::Serve(args)) => *args,
        Some(Command::Keys(args)) => {
            return Source::keys(args, environment())
                .map(|keys| Request::Keys(Box::new(keys)))
                .map_err(wrong);
        }
        Some(Command::Usage(args)) => {
            return Source::usage(args, environment()).map(Request::Usage).map_err(wrong);
        }
        None => cli.serve,
    };
    let print = args.print_config;
    let config = Source::new(args, environment()).read().map_err(wrong)?;
    let config = Box::new(config);
    Ok(if print { Request::Print(config) } else { Request::Serve(config) })
}

impl Source {
    fn new(args: ServeArgs, places: Places) -> Self {
        let mut flags = args.settings;
        flags.model = flags.model.or(args.positional_model);
        if args.no_enable_prefix_caching {
            flags.enable_prefix_caching = Some(false);
        }
        Self { flags, file: args.config, places, said: RawConfig::default() }
    }

    /// What the settings say about the ledger.
    fn usage(args: UsageArgs, places: Places) -> Result<UsageRequest, ConfigError> {
        let format = args.format();
        let UsageArgs { config, state_dir, tenant, since, .. } = args;
        let flags = RawConfig { state_dir, ..RawConfig::default() };
        let source = Self { flags, file: config, places, said: RawConfig::default() };
        let state_dir = source.read()?.server.state_dir;
        Ok(UsageRequest { state_dir, tenant, since_day: since, format })
    }

    /// What the settings say about keys.
    fn keys(args: KeysArgs, places: Places) -> Result<KeysRequest, ConfigError> {
        let flags = RawConfig { state_dir: args.state_dir, ..RawConfig::default() };
        let source = Self { flags, file: args.config, places, said: RawConfig::default() };
        let config = source.read()?;
        let tenancy = source.file.is_some().then_some(config.server.tenancy);
        Ok(KeysRequest { state_dir: config.server.state_dir, tenancy, action: args.action })
    }

    /// Reads the settings; those of the file as it is now.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(&self) -> Result<Config, ConfigError> {
        let (file, tenancy) = match &self.file {
            Some(path) => read_file(path)?,
            None => (RawConfig::default(), Tenancy::default()),
        };
        let said = self.flags.clone().or(file);
        let config = Config::check(said.clone(), tenancy, &self.places)?;
        Ok(Config { source: Some(Self { said, ..self.clone() }), ..config })
    }

    /// The settings file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Settings that `newer` has read otherwise and that only a start can put in force. Keys and
    /// tenants are not among them.
    pub fn needs_restart(&self, newer: &Source) -> Vec<String> {
        let mut names = self.said.differences(&newer.said);
        names.retain(|name| name != "api-key");
        names
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Adds what is known of vLLM's flags to clap's "unexpected argument".
fn explain(error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
        && let Some(advice) = foreign::advice(flag)
    {
        return Cli::command().error(ErrorKind::UnknownArgument, advice);
    }
    error
}

#[allow(clippy::disallowed_methods, reason = "settings are read from the environment here")]
fn environment() -> Places {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || var("HOME");
    Places {
        hub_cache: var("HF_HUB_CACHE")
            .or_else(|| var("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| home().map(|home| home.join(".cache/huggingface/hub"))),
        state_dir: var("XDG_STATE_HOME")
            .or_else(|| home().map(|home| home.join(".local/state")))
            .map(|state| state.join("weir")),
    }
}

fn read_file(path: &Path) -> Result<(RawConfig, Tenancy), ConfigError> {
    let wrong = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
    let defaults = table.remove(TENANT_DEFAULTS);
    let tenancy = tenancy::check(defaults, table.remove(TENANTS)).map_err(wrong)?;
    let mut normal = toml::Table::new();
    for (key, value) in table {
        let name = key.replace('-', "_");
        if !RawConfig::NAMES.contains(&name.as_str()) {
            let known = RawConfig::NAMES.iter().copied().chain([TENANTS, TENANT_DEFAULTS]);
            return Err(wrong(match (foreign::advice(&key), nearest(&name, known)) {
                (Some(advice), _) => advice,
                (None, Some(near)) => format!("unknown setting {key:?}; did you mean {near:?}?"),
                (None, None) => format!("unknown setting {key:?}; see `weir serve --help`"),
            }));
        }
        normal.insert(name, value);
    }
    let settings = normal.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
    Ok((settings, tenancy))
}

/// The known name that differs least from `name`, if it is near enough to be a slip.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known = known.into_iter();
    let near = known.map(|k| (strsim::damerau_levenshtein(name, k), k)).min()?;
    (near.0 <= 1 + name.len() / 4).then_some(near.1)
}
