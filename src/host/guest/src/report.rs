//! What the guest says, made fit to be shown and acted on.

use hybond_core::ids::Mac;
use hybond_core::text;
use hybond_wire::agent::PairState;

/// An agent that has said hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The protocol's version: the lower of the two ends'.
    pub version: u16,
    /// Its release, for people.
    pub release: String,
}

/// What happens in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// An agent is there: for the first time, again, or another one.
    AgentHello {
        /// Who it is.
        agent: Agent,
        /// The pairs that it knows.
        pairs: Vec<PairState>,
    },
    /// A pair has changed. Changes that follow one another fast come as the last of them.
    State(PairState),
    /// The agent no longer answers, or QEMU is gone. What is known of the pairs is no longer certain.
    AgentGone,
    /// The guest sends what is not of the protocol, or too much. Said once for each connection.
    Misbehaves {
        /// What it did.
        what: &'static str,
    },
}

/// Longest release and reason that are kept, in characters.
const TEXT: usize = 256;
/// IFNAMSIZ less its terminator.
const NAME: usize = 15;

/// What a guest wrote, fit to be shown.
pub(crate) fn clean(text: &str) -> String {
    text::fit(text, TEXT)
}

/// A state of one of the domain's pairs, with clean names.
pub(crate) fn accept(state: PairState, pairs: &[Mac]) -> Option<PairState> {
    let name = |name: Option<String>| name.map(|n| text::fit(&n, NAME));
    pairs.contains(&state.mac).then(|| PairState {
        bond: name(state.bond),
        standby: name(state.standby),
        primary: name(state.primary),
        ..state
    })
}
