//! The README's commands, flags and files are those of the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use loadtest::cli::{Cli, Command};
use loadtest::profile::{EMBEDDED, Profile};

/// Flags of other programs that the README shows.
const OTHERS: &[&str] = &["--release"];

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("the README is beside the manifest")
}

/// Code blocks of a language, with lines that go on put together.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    let parts = text.split(open.as_str()).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or("").replace("\\\n", " ")).collect()
}

/// What follows `loadtest` in each command of the README.
fn commands(text: &str) -> Vec<Vec<String>> {
    let blocks = blocks(text, "sh").join("\n");
    let in_blocks = blocks.lines().filter_map(|line| {
        line.strip_prefix("loadtest ").or(line.strip_prefix("cargo run --release -p loadtest -- "))
    });
    let in_tables = text.lines().filter_map(|line| {
        let cell = line.strip_prefix("| `")?;
        cell.starts_with("run ").then(|| cell.split('`').next().unwrap_or(""))
    });
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    in_blocks.chain(in_tables).map(words).collect()
}

fn parsed(words: &[String]) -> Cli {
    let all = std::iter::once("loadtest").chain(words.iter().map(String::as_str));
    Cli::try_parse_from(all).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// A file in a folder of its own, which is removed at the end.
struct Saved(PathBuf);

impl Saved {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadtest-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("the temporary folder can be written to");
        Self(path)
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn every_command_of_the_readme_parses_and_every_profile_has_one() {
    let text = readme();
    let mut profiles = BTreeSet::new();
    let commands = commands(&text);
    assert!(commands.len() >= EMBEDDED.len() + 3, "{commands:?}");
    for words in commands {
        let run = match parsed(&words).command {
            Command::Run(args) => args,
            Command::Sweep(args) => args.run,
            Command::Compare(args) => args.run,
        };
        profiles.extend(run.load.profile);
    }
    let embedded: BTreeSet<String> = EMBEDDED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(profiles, embedded);
}

#[test]
fn every_flag_of_the_readme_is_one_of_the_program() {
    let mut known: BTreeSet<String> = OTHERS.iter().map(|flag| (*flag).to_owned()).collect();
    for command in Cli::command().get_subcommands() {
        for argument in command.get_arguments() {
            known.extend(argument.get_long().map(|long| format!("--{long}")));
        }
    }
    for word in readme().split(|c: char| !(c.is_alphanumeric() || c == '-')) {
        let is_flag = word.starts_with("--") && !word.trim_matches('-').is_empty();
        assert!(!is_flag || known.contains(word), "{word} is no flag");
    }
}

#[test]
fn the_profile_and_the_tenants_of_the_readme_are_taken() {
    let text = readme();
    let files = blocks(&text, "toml");
    assert_eq!(files.len(), 2);
    let profile = Saved::new("profile.toml", &files[0]);
    let loaded = Profile::load(&profile.0.to_string_lossy()).expect("the README's profile");
    loaded.check().expect("it can be run");
    let tenants = Saved::new("tenants.toml", &files[1]);
    let path = tenants.0.to_string_lossy().into_owned();
    let words = ["run", "--profile", "steady", "--tenants", &path].map(str::to_owned);
    let Command::Run(args) = parsed(&words).command else { panic!("a run") };
    let settings = loadtest::settings::of(&args, &words, "now").expect("the README's tenants");
    let plan = settings.plan().expect("they can be planned for");
    let names: Vec<&str> = plan.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["chat", "nightly", "hog"]);
}
