//! A request of the engine's own, when nobody has asked for a while: a device that has died in its
//! sleep is then known before the next caller comes (R23).

use std::sync::Arc;

use super::load::Load;
use super::reply::{CancelList, Event, ReplyStream, reply_channel};
use super::submission::{Share, Stops, Submission};
use crate::clock::Time;
use crate::device::SamplingParams;
use crate::ids::{RequestId, TenantId, TokenId};

/// The request's way back, from its start until its end was read.
#[derive(Debug, Default)]
pub(super) struct Canary {
    reply: Option<ReplyStream>,
}

/// No caller's request and no caller's tenant: both are counted up from 0.
const REQUEST: RequestId = RequestId(u64::MAX);
const TENANT: TenantId = TenantId(u32::MAX);

impl Canary {
    /// A request of one token for one token.
    pub fn submission(&mut self, cancels: Arc<CancelList>, now: Time) -> Submission {
        let (reply, stream) = reply_channel(REQUEST, 1, 1, 1, cancels);
        self.reply = Some(stream);
        Submission {
            id: REQUEST,
            tenant: TENANT,
            share: Share::default(),
            cache_salt: Arc::from(""),
            prompt: Arc::from([TokenId(0)]),
            params: vec![Arc::new(SamplingParams::greedy())],
            max_tokens: 1,
            stops: Stops::default(),
            score_prompt: None,
            priority: 0,
            arrived: now,
            promise: None,
            deadline: None,
            tpot: None,
            reply,
        }
    }

    /// Reads how it ended, when it has.
    pub fn judge(&mut self, load: &mut Load) {
        let Some(reply) = &mut self.reply else { return };
        while let Some(event) = reply.try_next() {
            match event {
                Event::Done(_) => load.canary_failed = false,
                Event::Failed { message } => {
                    tracing::error!(message, "the canary failed: the device gives no answer");
                    load.canary_failed = true;
                }
                _ => continue,
            }
            self.reply = None;
            return;
        }
    }
}
