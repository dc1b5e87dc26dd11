use std::fs;
use std::path::PathBuf;

use super::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadtest-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn destination(&self) -> Destination {
        Destination { directory: self.0.join("results"), name: "steady".into() }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("results")).expect("the directory was made");
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn all_reports_are_written_and_nothing_else_is_left() {
    let place = Place::new("all");
    let summary = fixture::many_tenants();
    let records = [fixture::completed(), fixture::refused()];
    let paths = write_all(&summary, &records, &BenchFacts::default(), &place.destination())
        .expect("a temporary directory can be written to");
    assert_eq!(paths.len(), 4);
    assert_eq!(place.names(), ["steady.html", "steady.json", "steady.jsonl", "steady.txt"]);
    let json = fs::read_to_string(place.destination().path("json")).unwrap();
    assert_eq!(json::read(&json).unwrap(), summary);
    let jsonl = fs::read(place.destination().path("jsonl")).unwrap();
    assert_eq!(records::read(jsonl.as_slice()).unwrap().1, records);
    let text = fs::read_to_string(place.destination().path("txt")).unwrap();
    assert!(text.contains("steady.html"), "the text names the other reports");
}

#[test]
fn a_report_that_cannot_be_written_does_not_take_the_others_with_it() {
    let place = Place::new("one");
    fs::create_dir_all(place.destination().path("html").join("in the way")).unwrap();
    let error = write_all(&fixture::summary(), &[], &BenchFacts::default(), &place.destination())
        .unwrap_err();
    assert_eq!(error.failures.len(), 1);
    assert_eq!(error.written.len(), 3);
    let message = error.to_string();
    assert!(message.contains("steady.html"), "{message}");
    assert!(message.contains("--result-filename"), "{message}");
    assert_eq!(place.names(), ["steady.html", "steady.json", "steady.jsonl", "steady.txt"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_with_what_to_do() {
    let place = Place::new("full");
    fs::create_dir_all(place.0.join("results")).unwrap();
    // The kernel's own full disk stands in the place of one temporary file.
    std::os::unix::fs::symlink("/dev/full", place.0.join("results/steady.json.tmp")).unwrap();
    let error = write_all(&fixture::summary(), &[], &BenchFacts::default(), &place.destination())
        .unwrap_err();
    let message = error.to_string();
    assert!(message.contains("steady.json: No space left on device"), "{message}");
    assert!(message.contains("free some space"), "{message}");
    assert_eq!(place.names(), ["steady.html", "steady.jsonl", "steady.txt"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_said_once() {
    let place = Place::new("file");
    fs::write(&place.0, "a file where the directory should be").unwrap();
    let error = write_all(&fixture::summary(), &[], &BenchFacts::default(), &place.destination())
        .unwrap_err();
    assert_eq!(error.failures.len(), 1);
    assert!(error.to_string().contains("--result-dir"), "{error}");
    fs::remove_file(&place.0).unwrap();
}
