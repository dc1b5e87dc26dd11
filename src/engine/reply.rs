//! A request's way back: a bounded channel of events, and cancellation by dropping its end.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::device::{RowScore, SampledToken};
use crate::ids::{RequestId, TokenId};

/// What the engine tells a request. `Done` or `Failed` comes exactly once, and nothing after it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The request left the queue: its first rows are in a step.
    Started {
        /// Prompt tokens whose KV came from the prefix cache.
        cached_tokens: u32,
    },
    /// Scores of the next prompt positions, in order; position 0 has none.
    PromptScores(Vec<RowScore>),
    /// A choice's next token.
    Token {
        /// Which choice, from 0.
        choice: u32,
        /// The token, with its log-probabilities when asked for.
        sampled: SampledToken,
    },
    /// A choice has ended; other choices may go on.
    Finished {
        /// Which choice.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// Terminal: every choice has ended.
    Done(Usage),
    /// Terminal: the engine could not go on with this request.
    Failed {
        /// For the operator's log and the client: what happened.
        message: String,
    },
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It sampled an end-of-sequence token or one of its stop tokens.
    Stop(TokenId),
    /// It reached `max_tokens`.
    Length,
    /// The caller stopped this choice ([`ReplyStream::stop_choice`]).
    Stopped,
    /// Its deadline passed.
    Deadline,
    /// It had not started when it was promised to.
    Late,
}

/// What a request used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, taken from the prefix cache.
    pub cached_tokens: u32,
    /// Tokens generated, all choices.
    pub generated_tokens: u32,
    /// How often the request lost its blocks to another one.
    pub preemptions: u32,
}

/// Requests (and single choices) that their callers gave up. The engine empties it each turn.
/// Bounded by construction: a request adds at most one entry for each choice and one for itself.
#[derive(Debug, Default)]
pub struct CancelList {
    dirty: AtomicBool,
    entries: Mutex<Vec<(RequestId, Option<u32>)>>,
}

/// The engine's end of a request's channel.
///
/// A request has exactly one terminal event by construction: nothing is sent after it, and
/// dropping a reply without one sends [`Event::Failed`].
#[derive(Debug)]
pub struct Reply {
    sender: mpsc::Sender<Event>,
    ended: Cell<bool>,
}

/// The caller's end. Dropping it cancels the request.
#[derive(Debug)]
pub struct ReplyStream {
    id: RequestId,
    receiver: mpsc::Receiver<Event>,
    cancels: Arc<CancelList>,
    ended: bool,
}

impl CancelList {
    /// Adds an entry; `None` is the whole request.
    pub fn push(&self, id: RequestId, choice: Option<u32>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push((id, choice));
        self.dirty.store(true, Ordering::Release);
    }

    /// Moves all entries into `into`. Costs one load when there are none.
    pub fn take(&self, into: &mut Vec<(RequestId, Option<u32>)>) {
        if self.dirty.load(Ordering::Acquire) {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            self.dirty.store(false, Ordering::Release);
            into.append(&mut entries);
        }
    }
}

impl Event {
    /// Whether nothing comes after it.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed { .. })
    }
}

impl Reply {
    /// Sends an event. The channel holds every event a request can have, so that a slow reader
    /// never stalls the batch and this fails only when the caller has left, which
    /// [`ReplyStream`]'s end has told the engine by then.
    pub fn send(&self, event: Event) {
        if !self.ended.get() {
            self.ended.set(event.is_terminal());
            let _ = self.sender.try_send(event);
        }
    }

    /// Whether the caller has left.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.ended.get() {
            let message = "the engine ended before the request did".to_owned();
            self.send(Event::Failed { message });
        }
    }
}

impl ReplyStream {
    /// The next event; `None` after the terminal one.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.note(event)
    }

    /// [`ReplyStream::next`], for bodies that poll several things.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll_recv(cx).map(|event| self.note(event))
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok();
        match event {
            Some(event) => self.note(Some(event)),
            None => None,
        }
    }

    /// Ends one choice (its text met a stop string); its `Finished` event still comes.
    pub fn stop_choice(&self, choice: u32) {
        self.cancels.push(self.id, Some(choice));
    }

    fn note(&mut self, event: Option<Event>) -> Option<Event> {
        self.ended |= event.as_ref().is_none_or(Event::is_terminal);
        event
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if !self.ended {
            self.cancels.push(self.id, None);
        }
    }
}

/// A channel for a request with `choices` choices of at most `max_tokens` tokens and
/// `prompt_tokens` prompt tokens. Memory is taken as events come, not reserved.
pub fn reply_channel(
    id: RequestId,
    prompt_tokens: usize,
    choices: u32,
    max_tokens: u32,
    cancels: Arc<CancelList>,
) -> (Reply, ReplyStream) {
    // A token and an end for each choice's step, scores in at most one event a prompt token,
    // Started (again after each of a bounded number of restarts) and the terminal event.
    let tokens = choices as usize * (max_tokens as usize + 2);
    let (sender, receiver) = mpsc::channel(tokens + prompt_tokens + 8);
    (Reply { sender, ended: Cell::new(false) }, ReplyStream { id, receiver, cancels, ended: false })
}
