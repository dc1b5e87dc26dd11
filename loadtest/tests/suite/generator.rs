//! Runs the built `loadtest` and reads what it leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use loadtest::record::RequestRecord;
use loadtest::summary::{Distribution, Summary};
use serde_json::Value;

use crate::paced::{PacedServer, RequestTruth};

/// Runs whose times are compared have the machine to themselves; others share it.
static MACHINE: RwLock<()> = RwLock::new(());

/// Of every run here. Requests that are sent before a run carry another seed in their ids.
const SEED: u64 = 7;

/// A run to come, with a folder of its own.
pub struct Generator {
    folder: PathBuf,
    args: Vec<String>,
}

/// A run that is over.
pub struct Run {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What was written to standard error.
    pub stderr: String,
    /// What was written to standard output.
    pub stdout: String,
    /// Where its reports are.
    pub folder: PathBuf,
}

/// Held while times are compared.
pub fn machine_alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Held by other runs.
pub fn machine_shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

impl Generator {
    /// A run against a server at `base_url`; `test` names its folder.
    pub fn new(test: &str, base_url: &str, args: &str) -> Self {
        let generator = Self::without_folder(test, base_url, args);
        let _ = fs::remove_dir_all(&generator.folder);
        fs::create_dir_all(&generator.folder).unwrap();
        generator
    }

    /// The same, with a folder that `loadtest` has to make.
    pub fn without_folder(test: &str, base_url: &str, args: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loadtest-suite").join(test);
        let always = format!(
            "run --base-url {base_url} --seed {SEED} --result-dir {} --result-filename run.json",
            folder.display()
        );
        let args = always.split_whitespace().chain(args.split_whitespace());
        Self { args: args.map(str::to_owned).collect(), folder }
    }

    /// The run's folder, for what it should find there.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into the run's folder and gives its path to the run as this flag.
    pub fn file(mut self, flag: &str, name: &str, text: &str) -> Self {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        self.args.extend([flag.to_owned(), path.display().to_string()]);
        self
    }

    /// Starts it.
    pub fn spawn(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits for a child that [`Generator::spawn`] started.
    pub fn wait(self, child: Child) -> Run {
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            folder: self.folder,
        }
    }

    /// Runs it to its end.
    pub fn run(self) -> Run {
        let child = self.spawn();
        self.wait(child)
    }
}

impl Run {
    /// The JSON report.
    pub fn report(&self) -> Value {
        let path = self.folder.join("run.json");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// The figures in it.
    pub fn summary(&self) -> Summary {
        serde_json::from_value(self.report()["loadtest"].take()).unwrap()
    }

    /// The JSONL of requests, in order of the plan.
    pub fn records(&self) -> Vec<RequestRecord> {
        let text = fs::read_to_string(self.folder.join("run.jsonl")).unwrap();
        let mut records: Vec<RequestRecord> =
            text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
        records.sort_by_key(|record| record.index);
        records
    }

    /// Fails with what the run said unless it ended with this code.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails unless standard error says this.
    #[track_caller]
    pub fn expect_told(&self, words: &str) -> &Self {
        assert!(self.stderr.contains(words), "not told: {words}\n{}", self.stderr);
        self
    }
}

/// The attempts that a server saw of each planned request, by the index in `x-request-id`
/// (`loadtest-<seed>-<index>`), in order of arrival.
pub fn attempts_by_index(server: &PacedServer) -> BTreeMap<u32, Vec<RequestTruth>> {
    let mut attempts: BTreeMap<u32, Vec<RequestTruth>> = BTreeMap::new();
    for truth in server.truth() {
        let id = truth.request_id.as_deref().unwrap_or_default();
        let index = id.strip_prefix(&format!("loadtest-{SEED:x}-"));
        if let Some(index) = index.and_then(|index| index.parse().ok()) {
            attempts.entry(index).or_default().push(truth);
        }
    }
    for tries in attempts.values_mut() {
        tries.sort_by_key(|truth| truth.arrived_ns);
    }
    attempts
}

/// A percentile of a distribution that must have values.
#[track_caller]
pub fn at(distribution: &Distribution, percentile: f64) -> f64 {
    distribution.percentile(percentile).expect("the distribution has values")
}
