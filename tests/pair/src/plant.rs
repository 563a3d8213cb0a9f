//! Bugs that are planted to see whether the harness finds them. Each is a lie of the driver's or the machine's; the core
//! knows nothing of them.

use hybond_core::guest::{Action, Job, Outcome};

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The source is said to be drained before it was asked.
    DrainedEarly,
    /// The agent is said to have moved the traffic, and has not.
    FailoverSkipped,
    /// The macvtap is said to be up, and is not.
    RaiseSkipped,
    /// The macvtap is said to take what it is to take, and does not.
    TuneSkipped,
    /// A VF is said to be clean, and is not.
    ResetSkipped,
    /// A macvtap is said to be removed, and is not.
    RemoveSkipped,
    /// Records are written when there is nothing to do, instead of before each action.
    JournalLate,
    /// A VF goes to the pool before the record says so.
    ReleaseEarly,
    /// DEVICE_DELETED is announced with the unplug.
    DeletedEarly,
    /// The migration's job is never seen to end.
    JobForEver,
    /// A hook passes whatever the daemon says.
    HookPasses,
    /// Events of the monitor are lost, and nobody is told to look.
    EventsVanish,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::DrainedEarly,
        Self::FailoverSkipped,
        Self::RaiseSkipped,
        Self::TuneSkipped,
        Self::ResetSkipped,
        Self::RemoveSkipped,
        Self::JournalLate,
        Self::ReleaseEarly,
        Self::DeletedEarly,
        Self::JobForEver,
        Self::HookPasses,
        Self::EventsVanish,
    ];

    /// The invariant of `docs/design.md` that it breaks.
    #[must_use]
    pub fn breaks(self) -> u8 {
        match self {
            Self::DrainedEarly | Self::HookPasses | Self::DeletedEarly => 1,
            Self::FailoverSkipped | Self::RaiseSkipped | Self::TuneSkipped | Self::EventsVanish => 2,
            Self::JournalLate | Self::ReleaseEarly => 3,
            Self::ResetSkipped | Self::RemoveSkipped => 4,
            Self::JobForEver => 5,
        }
    }

    /// What the daemon is told instead of the truth; the action is not carried out.
    #[must_use]
    pub fn lie(self, action: &Action) -> Option<Outcome> {
        match (self, action) {
            (Self::DrainedEarly, Action::AskDrain { .. })
            | (Self::ResetSkipped, Action::ResetVf(_))
            | (Self::RemoveSkipped, Action::RemoveStandby(_)) => Some(Outcome::Done),
            (Self::FailoverSkipped, Action::Failover(_)) => Some(Outcome::Switched(hybond_core::guest::AgentPair {
                bonded: true,
                primary_ready: true,
                on_primary: false,
            })),
            _ => None,
        }
    }

    /// What becomes of a true outcome.
    #[must_use]
    pub fn twist(self, outcome: Outcome) -> Outcome {
        match (self, outcome) {
            (Self::JobForEver, Outcome::Job(domain, Job::None)) => Outcome::Job(domain, Job::Outgoing),
            (_, outcome) => outcome,
        }
    }
}
