//! Events on their way to their requests' callers. They are sent while the device computes the
//! next step: a thousand channels cost tens of microseconds, in which the device would wait.

use super::reply::{Event, Reply};
use super::slab::Slab;
use crate::device::SampledToken;

/// The replies of all requests, and what was not delivered yet.
///
/// Bounded by construction: it is emptied once a turn, and a turn makes at most an event for each
/// sampled row and two for each request.
#[derive(Debug)]
pub(super) struct Outbox {
    replies: Slab<Reply>,
    letters: Vec<Letter>,
    /// What letters of [`Content::Token`] hold: a step's results as the device wrote them.
    sampled: Vec<SampledToken>,
    /// What letters of [`Content::Event`] hold.
    events: Vec<Option<Event>>,
}

/// A request's reply in the outbox, from [`Outbox::open`] to its terminal event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyKey(u32);

/// Small, because a thousand are written in the time between two steps.
#[derive(Clone, Copy, Debug)]
struct Letter {
    to: ReplyKey,
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Token { choice: u32, at: u32 },
    Event { at: u32 },
    Close,
}

impl Outbox {
    /// Without replies.
    pub fn new() -> Self {
        Self { replies: Slab::new(), letters: Vec::new(), sampled: Vec::new(), events: Vec::new() }
    }

    /// Keeps a request's reply until its terminal event was delivered.
    pub fn open(&mut self, reply: Reply) -> ReplyKey {
        ReplyKey(self.replies.insert(reply))
    }

    /// Puts an event behind those that wait. After a terminal one the key is used up.
    pub fn send(&mut self, to: ReplyKey, event: Event) {
        let content = Content::Event { at: self.events.len() as u32 };
        self.events.push(Some(event));
        self.letters.push(Letter { to, content });
    }

    /// Takes a step's sampled tokens, of which those that matter are then sent by
    /// [`Outbox::send_token`]; the place of the first. `sampled` is left empty.
    pub fn keep(&mut self, sampled: &mut Vec<SampledToken>) -> u32 {
        let first = self.sampled.len() as u32;
        if first == 0 {
            std::mem::swap(&mut self.sampled, sampled);
        } else {
            self.sampled.append(sampled);
        }
        first
    }

    /// A kept token and whether its row was finite.
    pub fn kept(&self, at: u32) -> &SampledToken {
        &self.sampled[at as usize]
    }

    /// Puts a kept token behind the events that wait.
    pub fn send_token(&mut self, to: ReplyKey, choice: u32, at: u32) {
        self.letters.push(Letter { to, content: Content::Token { choice, at } });
    }

    /// Ends a reply whose caller has left and is told nothing.
    pub fn close(&mut self, to: ReplyKey) {
        self.letters.push(Letter { to, content: Content::Close });
    }

    /// Delivers everything, in order. A caller that has left says so by its [`super::CancelList`]
    /// entry, so that nothing needs to be known here of the events that nobody takes.
    pub fn deliver(&mut self) {
        for Letter { to: ReplyKey(index), content } in self.letters.drain(..) {
            let event = match content {
                Content::Token { choice, at } => {
                    let kept = &mut self.sampled[at as usize];
                    let logprob = kept.logprob.take();
                    let sampled = SampledToken { logprob, ..*kept };
                    Some(Event::Token { choice, sampled })
                }
                Content::Event { at } => self.events[at as usize].take(),
                Content::Close => None,
            };
            let ends = event.as_ref().is_none_or(Event::is_terminal);
            if let (Some(event), Some(reply)) = (event, self.replies.get(index)) {
                reply.send(event);
            }
            if ends {
                self.replies.remove(index);
            }
        }
        self.sampled.clear();
        self.events.clear();
    }

    /// Replies that are open, less those whose end waits to be delivered.
    pub fn open_replies(&self) -> usize {
        let ends = |letter: &&Letter| match letter.content {
            Content::Token { .. } => false,
            Content::Event { at } => {
                self.events[at as usize].as_ref().is_some_and(Event::is_terminal)
            }
            Content::Close => true,
        };
        self.replies.len() - self.letters.iter().filter(ends).count()
    }
}
