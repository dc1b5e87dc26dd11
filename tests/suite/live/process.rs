//! A server process and the commands beside it, each in a folder of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{self, Reply};

const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that is empty at first and belongs to one test.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("live-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// `weir`, run in `folder` and knowing of no other.
pub fn weir(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEIR_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).env("HOME", folder).env_remove("XDG_STATE_HOME");
    command
}

/// Runs `weir keys` and returns what it printed.
pub fn keys(folder: &Path, args: &[&str]) -> String {
    let output = weir(folder).arg("keys").args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The id of a key.
pub fn id_of(key: &str) -> &str {
    key.strip_prefix("weir_").unwrap().split('.').next().unwrap()
}

/// Tells the threads of a test to stop, also when the test fails: they would be waited for.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads a number from the environment, for the long form of a test.
pub fn rounds(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// A server on free ports. Killed when dropped.
pub struct Live {
    child: Child,
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    pub metrics: SocketAddr,
    pub log: PathBuf,
}

impl Live {
    /// Starts `weir --port 0` with these arguments and waits until it says where it listens.
    pub fn start(folder: &Path, name: &str, args: &[&str]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let mut child = weir(folder)
            .args(["--port", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            said.push_str(&line);
            said.push('\n');
            if line.starts_with("Try:") {
                break;
            }
        }
        let at = |before: &str, after: &str| -> Option<SocketAddr> {
            let rest = said.split_once(before)?.1;
            Some(rest.split_once(after)?.0.parse().unwrap())
        };
        let why = || format!("{said}\n{}", fs::read_to_string(&log).unwrap());
        let address = at("on http://", "/v1").unwrap_or_else(|| panic!("{}", why()));
        let metrics = at("metrics at http://", "/metrics").unwrap();
        let admin = at("routes are at http://", "/admin");
        Self { child, address, admin, metrics, log }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for the process to end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A metric's value; 0 when it was never counted.
    pub fn metric(&self, key: &str, name: &str) -> u64 {
        let Reply { status, body, .. } = client::get(self.metrics, "/metrics", key);
        assert_eq!(status, 200, "{body}");
        let line = body.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
