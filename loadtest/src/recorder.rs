//! Keeps records as they come, on a thread of its own: a slow disk must not delay sending.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::error::Error;
use crate::record::RequestRecord;
use crate::report::PartialLog;

/// Room for so many records is made at once; more grow it.
const RECORDS_RESERVED_MAX: usize = 1 << 16;

/// A record, and how late the generator sent it.
#[derive(Debug)]
pub struct Finished {
    /// What happened.
    pub record: RequestRecord,
    /// From when it could be sent to when it was, in nanoseconds; `None` if it was not.
    pub lateness_ns: Option<u64>,
}

/// Keeps records as they come.
#[derive(Debug)]
pub struct Recorder {
    sender: Sender<Finished>,
    thread: JoinHandle<Kept>,
}

/// All that was kept.
#[derive(Debug)]
pub struct Kept {
    /// In the order of the plan.
    pub records: Vec<RequestRecord>,
    /// Of the requests that were sent.
    pub lateness_ns: Vec<u64>,
    /// The file that has them too.
    pub log: Option<PartialLog>,
}

impl Recorder {
    /// Starts to keep records, and to write each to the log.
    ///
    /// # Errors
    /// The machine lets no thread start.
    pub fn start(log: Option<PartialLog>, count: usize) -> Result<Self, Error> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || keep(&receiver, log, count))
            .map_err(|cause| Error::Machine(format!("cannot start a thread: {cause}")))?;
        Ok(Self { sender, thread })
    }

    /// Where records are sent.
    pub fn sender(&self) -> Sender<Finished> {
        self.sender.clone()
    }

    /// Ends when every other sender is gone.
    pub fn finish(self) -> Kept {
        drop(self.sender);
        self.thread.join().expect("the recorder only appends to memory and to a file")
    }
}

fn keep(receiver: &Receiver<Finished>, mut log: Option<PartialLog>, count: usize) -> Kept {
    let mut records = Vec::with_capacity(count.min(RECORDS_RESERVED_MAX));
    let mut lateness_ns = Vec::with_capacity(count.min(RECORDS_RESERVED_MAX));
    for finished in receiver {
        if let Some(log) = &mut log {
            log.append(&finished.record);
        }
        records.push(finished.record);
        lateness_ns.extend(finished.lateness_ns);
    }
    records.sort_by_key(|record: &RequestRecord| record.index);
    Kept { records, lateness_ns, log }
}
