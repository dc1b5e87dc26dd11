//! What must always hold of the scheduler, and how to say in few words when it does not.

use std::collections::HashMap;
use std::fmt::Write;

use super::scheduler::Scheduler;
use super::sequence::Phase;
use super::watchdog::{NAMED_MAX, Running};

impl Scheduler {
    /// Ids and counts of all requests, for the message of a broken invariant; no content.
    pub fn summary(&self) -> String {
        let pool = &self.pool;
        let mut text = format!(
            "step {}, blocks: {} available, {} owned, {} resting, {} reserved",
            self.step,
            pool.available(),
            pool.owned(),
            pool.resting(),
            self.blocks_reserved
        );
        for (_, seq) in self.seqs.iter().take(64) {
            let request = &self.requests[seq.request];
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "; request {} choice {}: {:?}, {} known, {} scheduled, {} sampling, {} blocks, {} \
                 preemptions",
                request.id,
                seq.choice,
                seq.phase,
                seq.known,
                seq.scheduled,
                seq.sampling,
                seq.blocks.len(),
                request.usage.preemptions
            );
        }
        text
    }

    /// Writes the first running sequences over `into`, for the log when a step does not end.
    pub fn name_running(&self, into: &mut Vec<Running>) {
        into.clear();
        let prefilling = self.prefilling.iter().map(|seq| (*seq, true));
        let decoding = self.decoding.iter().map(|seq| (*seq, false));
        for (index, prefills) in prefilling.chain(decoding).take(NAMED_MAX) {
            let seq = &self.seqs[index];
            into.push(Running {
                request: self.requests[seq.request].id,
                choice: seq.choice,
                prefills,
                known: seq.known,
                scheduled: seq.scheduled,
                blocks: seq.blocks.len(),
            });
        }
    }

    /// Recomputes all counters (R41).
    pub fn check(&self) {
        let seqs = self.seqs.iter();
        let owned = seqs.flat_map(|(_, seq)| seq.blocks.as_slice().iter().chain(&seq.fork_source));
        self.pool.check(owned.copied());
        let slots = self.seqs.iter().filter(|(_, seq)| seq.phase != Phase::Waiting).count();
        assert_eq!(slots as u32, self.running(), "each running sequence has a slot");
        let reserved: u32 = self.requests.iter().map(|(_, r)| r.blocks_reserved).sum();
        assert_eq!(reserved, self.blocks_reserved, "reserved blocks are counted");
        assert!(reserved <= self.pool.available(), "reserved blocks are there");
        let backlog: u64 = self.requests.iter().map(|(_, r)| u64::from(r.backlog_tokens)).sum();
        assert_eq!(backlog, self.backlog_tokens, "the backlog is counted");
        assert_eq!(self.outbox.open_replies(), self.requests.len(), "each request has a reply");
        let waiting = self.requests.iter().filter(|(_, r)| r.waiting).count();
        assert_eq!(waiting as u32, self.queue.len(), "waiting requests are in the queue");
        self.check_tenants();
        for (_, seq) in self.seqs.iter() {
            let room = seq.blocks.len() * self.limits.block_size_tokens;
            // Before its fork a sequence reads the common prompt's last block from elsewhere.
            let covered = seq.fork_source.is_some() || seq.scheduled <= room;
            assert!(seq.phase == Phase::Unborn || covered, "blocks cover positions");
            assert_eq!(seq.forks, seq.fork_source.is_some(), "a fork has a source");
            assert!(seq.computed <= seq.scheduled, "computed positions were scheduled");
            assert!(seq.finite <= seq.computed, "finite positions were computed");
        }
    }

    fn check_tenants(&self) {
        let tenants = &self.queue.tenants;
        let mut held: HashMap<u32, (u32, u32)> = HashMap::new();
        for (_, request) in self.requests.iter() {
            held.entry(request.flow.tenant()).or_default().0 += 1;
            assert!(request.pledged_s >= 0.0, "a pledge is not below zero");
        }
        for (_, seq) in self.seqs.iter() {
            held.entry(seq.flow.tenant()).or_default().1 += seq.blocks.len() - seq.uncounted;
        }
        for (place, counted) in held {
            let tenant = &tenants[place];
            assert_eq!((tenant.requests, tenant.blocks), counted, "a tenant's are counted");
        }
    }
}
