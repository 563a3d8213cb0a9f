//! What waits for the host, bounded. When it is full the oldest `state` goes first: a newer one follows it.

use hybond_wire::agent::{FromAgent, LIMIT, PairState, VERSION};
use hybond_wire::line;
use std::collections::VecDeque;

/// Messages that wait at most.
const MESSAGES_MAX: usize = 64;

/// Messages for the host.
#[derive(Debug, Default)]
pub struct Outbox {
    messages: VecDeque<FromAgent>,
}

impl Outbox {
    /// Adds a message. A `state` takes the place of an older one of its pair.
    pub fn push(&mut self, message: FromAgent) {
        if let FromAgent::State { state } = &message {
            let mac = state.mac;
            self.messages
                .retain(|m| !matches!(m, FromAgent::State { state } if state.mac == mac));
        }
        if self.messages.len() >= MESSAGES_MAX {
            let oldest = self.messages.iter().position(|m| matches!(m, FromAgent::State { .. }));
            self.messages.remove(oldest.unwrap_or(0));
        }
        self.messages.push_back(message);
    }

    /// Adds the answer to a hello: as many pairs as one line holds, the others as `state`.
    pub fn push_hello(&mut self, id: u64, agent: &str, mut pairs: Vec<PairState>) {
        let mut rest = Vec::new();
        loop {
            let hello = FromAgent::Hello {
                id,
                version: VERSION,
                agent: agent.to_owned(),
                pairs: pairs.clone(),
            };
            if line::encode(&hello, LIMIT).is_ok() || pairs.is_empty() {
                self.push(hello);
                break;
            }
            rest.extend(pairs.pop());
        }
        for state in rest.into_iter().rev() {
            self.push(FromAgent::State { state });
        }
    }

    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<FromAgent> {
        self.messages.pop_front()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.messages.clear();
    }
}
