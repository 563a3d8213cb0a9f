//! What an administrator does while a daemon dies.

use std::fmt;

/// An operation, as a user does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `virsh start`.
    Start,
    /// `hybondctl drain`.
    Drain,
    /// `hybondctl plug`, of a guest that was drained.
    Plug,
    /// `hybondctl set`.
    Set,
    /// A plain `virsh migrate --live`.
    Migrate,
    /// `virsh destroy`.
    Destroy,
}

/// All of them: what one leaves is mostly what the next wants to find.
pub const ALL: [Operation; 6] = [
    Operation::Drain,
    Operation::Plug,
    Operation::Set,
    Operation::Migrate,
    Operation::Destroy,
    Operation::Start,
];

/// Whose daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// That of the host which the guest is on.
    Own,
    /// That of the host which it migrates to.
    Destination,
}

impl Operation {
    /// Whether the guest is off its VF afterwards, until something else is done.
    #[must_use]
    pub fn is_undone(self) -> bool {
        matches!(self, Self::Drain | Self::Set)
    }

    /// The command, on the host that the guest is on. `other` is the other host.
    #[must_use]
    pub fn script(self, name: &str, other: &str) -> String {
        match self {
            Self::Start => format!("virsh start {name}"),
            Self::Drain => format!("hybondctl drain {name}"),
            Self::Plug => format!("hybondctl plug {name}"),
            Self::Set => format!("hybondctl set {name} --policy never"),
            Self::Migrate => format!("virsh migrate --live --persistent {name} qemu+tls://{other}/system"),
            Self::Destroy => format!("virsh destroy {name}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Drain => "drain",
            Self::Plug => "plug",
            Self::Set => "set",
            Self::Migrate => "migrate",
            Self::Destroy => "destroy",
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "its host",
            Self::Destination => "the destination",
        })
    }
}
