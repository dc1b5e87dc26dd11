use super::*;
use crate::report::fixture;

fn lines() -> Vec<u8> {
    let mut out = Vec::new();
    let header = RecordsHeader::of(&fixture::many_tenants());
    write(&mut out, &header, &[fixture::completed(), fixture::refused()]).expect("memory");
    out
}

#[test]
fn records_read_back_as_they_were_written() {
    let (header, records) = read(lines().as_slice()).expect("our own file");
    assert_eq!(header, RecordsHeader::of(&fixture::many_tenants()));
    assert_eq!(header.tenants.len(), 30);
    assert!(header.tenants[4].abusive);
    assert_eq!(records, [fixture::completed(), fixture::refused()]);
}

#[test]
fn a_line_cut_by_a_killed_run_is_dropped_and_a_wrong_one_named() {
    let whole = lines();
    let (_, records) = read(&whole[..whole.len() - 20]).expect("a cut file can be read");
    assert_eq!(records, [fixture::completed()]);
    let mut wrong = whole.clone();
    wrong.extend_from_slice(b"{\"index\": 3}\n");
    let error = read(wrong.as_slice()).unwrap_err().to_string();
    assert!(error.starts_with("line 4 is no request record"), "{error}");
    assert!(matches!(read(&b""[..]), Err(ReadError::Empty)));
    let old = String::from_utf8(whole).unwrap().replace("records/1", "records/0");
    assert!(matches!(read(old.as_bytes()), Err(ReadError::Format(_))));
}

/// A run killed between two flushes loses at most a second of requests.
#[test]
fn a_partial_log_is_on_disk_while_the_run_goes_on() {
    let directory = std::env::temp_dir().join(format!("loadtest-partial-{}", std::process::id()));
    let destination = Destination { directory: directory.clone(), name: "run".into() };
    let header = RecordsHeader::of(&fixture::summary());
    let mut log = PartialLog::create(&destination, &header).expect("a temporary directory");
    let read_back = || {
        let file = File::open(destination.path("partial.jsonl")).expect("it is there");
        read(io::BufReader::new(file)).expect("it is whole").1
    };
    assert!(read_back().is_empty());
    log.append(&fixture::completed());
    assert_eq!(read_back().len(), 1, "more than a second since the start");
    log.append(&fixture::refused());
    assert_eq!(read_back().len(), 1, "the same second: still in memory");
    let late = RequestRecord { end_ns: 9_000_000_000, ..fixture::completed() };
    log.append(&late);
    assert_eq!(read_back().len(), 3);
    assert_eq!(log.finish(false), Some(destination.path("partial.jsonl")));
    let log = PartialLog::create(&destination, &header).expect("a temporary directory");
    assert_eq!(log.finish(true), None);
    assert!(!destination.path("partial.jsonl").exists());
    fs::remove_dir_all(directory).expect("ours");
}
