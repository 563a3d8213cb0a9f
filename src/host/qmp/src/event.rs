//! What QEMU reports by itself.

use hybond_core::text::fit;
use serde::Deserialize;
use serde_json::Value;
use std::convert::Infallible;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// Longest name of an event that is kept, in characters.
const LONGEST_NAME: usize = 64;
/// Longest text in the data of an event that is acted on, in bytes.
const LONGEST_WORD: usize = 1024;

/// An event with QEMU's own time of it (ours, where QEMU gave none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub event: Event,
}

/// Events that hybond acts on; all others come as [`Event::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A migration, outgoing or incoming, has changed its state.
    Migration {
        /// Its state now.
        status: MigrationStatus,
    },
    /// A device is gone from QEMU, its descriptors are closed.
    DeviceDeleted {
        /// Its id; QEMU leaves it out for devices that never had one.
        device: Option<String>,
        /// Its QOM path.
        path: String,
    },
    /// The guest refused an unplug (memory and CPUs only; for PCI nothing is ever sent).
    DeviceUnplugGuestError {
        /// Its id.
        device: Option<String>,
        /// Its QOM path.
        path: String,
    },
    /// The guest runs.
    Resume,
    /// The guest is paused.
    Stop,
    /// The guest has shut down, or is being shut down.
    Shutdown {
        /// The guest wanted it.
        guest: bool,
    },
    /// The guest was reset.
    Reset,
    /// The guest has changed a NIC's receive filter (multicast groups, VLANs).
    NicRxFilterChanged {
        /// Id of the NIC.
        name: Option<String>,
    },
    /// The guest has opened or closed a virtio-serial port.
    PortChanged {
        /// Id of the port.
        id: String,
        /// It is open.
        open: bool,
    },
    /// The guard has told QEMU to cancel a migration that began with primaries plugged.
    GuardCancelled {
        /// The state in which it was.
        status: MigrationStatus,
        /// Ids of the primaries.
        plugged: Vec<String>,
    },
    /// A primary is plugged in a migration that can no longer be cancelled without losing the guest.
    GuardTooLate {
        /// The state in which it was.
        status: MigrationStatus,
        /// Ids of the primaries.
        plugged: Vec<String>,
    },
    /// Events were lost because their reader was too slow, QEMU said something unreadable, or it answered when nobody waited any
    /// more: look at everything anew.
    Resync {
        /// How many at least.
        lost: u64,
    },
    /// An event that hybond does nothing with.
    Other {
        /// QEMU's name for it.
        name: String,
    },
}

/// State of a migration. QEMU adds one every few releases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MigrationStatus {
    /// There is none.
    None,
    /// It has begun; RAM is not yet copied.
    Setup,
    /// QEMU waits for the guest to give up its failover primaries.
    WaitUnplug,
    /// RAM is being copied.
    Active,
    /// The guest is paused and the switch-over waits for the tool.
    PreSwitchover,
    /// Device state is being copied.
    Device,
    /// The guest runs at the destination, or soon will, and fetches its RAM from here.
    Postcopy(String),
    /// Done.
    Completed,
    /// Given up; the guest goes on here.
    Failed,
    /// Told to stop.
    Cancelling,
    /// Stopped; the guest goes on here.
    Cancelled,
    /// One that this release does not know.
    Other(String),
}

impl MigrationStatus {
    /// The guest's RAM is being copied or is about to be, and it can still be called off without harm.
    #[must_use]
    pub fn can_be_cancelled(&self) -> bool {
        // A state that is not known is taken for one of these: a migration called off is a nuisance, RAM lost is not.
        matches!(
            self,
            Self::Setup | Self::WaitUnplug | Self::Active | Self::PreSwitchover | Self::Device | Self::Other(_)
        )
    }

    /// There is no migration, or it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::None | Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// QEMU's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::None => "none",
            Self::Setup => "setup",
            Self::WaitUnplug => "wait-unplug",
            Self::Active => "active",
            Self::PreSwitchover => "pre-switchover",
            Self::Device => "device",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Postcopy(word) | Self::Other(word) => word,
        }
    }
}

impl FromStr for MigrationStatus {
    type Err = Infallible;
    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match word {
            "none" => Self::None,
            "setup" => Self::Setup,
            "wait-unplug" => Self::WaitUnplug,
            "active" => Self::Active,
            "pre-switchover" => Self::PreSwitchover,
            "device" => Self::Device,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "cancelling" => Self::Cancelling,
            "cancelled" => Self::Cancelled,
            word if word.starts_with("postcopy-") => Self::Postcopy(word.to_owned()),
            word => Self::Other(word.to_owned()),
        })
    }
}

/// The fields of the events above; one struct, as every field may be missing in some release of QEMU.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Data {
    status: String,
    device: Option<String>,
    path: String,
    guest: bool,
    name: Option<String>,
    id: String,
    open: bool,
}

impl Data {
    /// Hundreds of events may wait for their reader: a path has a hundred bytes, an id fewer.
    fn is_short(&self) -> bool {
        let optional = [&self.device, &self.name].into_iter().flatten();
        let texts = [&self.status, &self.path, &self.id].into_iter().chain(optional);
        texts.into_iter().all(|text| text.len() <= LONGEST_WORD)
    }
}

impl Event {
    /// Reads an event; one whose data have changed their types beyond recognition, or have words longer than any of QEMU's,
    /// comes as [`Event::Other`].
    pub(crate) fn decode(name: &str, data: Option<Value>) -> Self {
        let other = || Self::Other {
            name: fit(name, LONGEST_NAME),
        };
        let data = data.map_or(Ok(Data::default()), serde_json::from_value::<Data>);
        let Some(data) = data.ok().filter(Data::is_short) else {
            return other();
        };
        match name {
            "MIGRATION" => match data.status.parse() {
                Ok(status) => Self::Migration { status },
                Err(never) => match never {},
            },
            "DEVICE_DELETED" => Self::DeviceDeleted {
                device: data.device,
                path: data.path,
            },
            "DEVICE_UNPLUG_GUEST_ERROR" => Self::DeviceUnplugGuestError {
                device: data.device,
                path: data.path,
            },
            "RESUME" => Self::Resume,
            "STOP" => Self::Stop,
            "SHUTDOWN" => Self::Shutdown { guest: data.guest },
            "RESET" => Self::Reset,
            "NIC_RX_FILTER_CHANGED" => Self::NicRxFilterChanged { name: data.name },
            "VSERPORT_CHANGE" => Self::PortChanged {
                id: data.id,
                open: data.open,
            },
            _ => other(),
        }
    }
}

/// QEMU's time of an event. Negative numbers mean that QEMU could not tell.
pub(crate) fn time(seconds: i64, microseconds: i64) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok()?;
    let microseconds = u64::try_from(microseconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds) + Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_of_a_later_qemu_is_kept_by_name_and_counts_as_a_migration() {
        let event = Event::decode("MIGRATION", Some(json!({"status": "warp"})));
        let Event::Migration { status } = event else {
            panic!("{event:?}")
        };
        assert_eq!(status, MigrationStatus::Other("warp".into()));
        assert!(status.can_be_cancelled());
    }

    #[test]
    fn events_with_unexpected_data_are_passed_on_by_name() {
        let odd = Event::decode("DEVICE_DELETED", Some(json!({"device": 7})));
        assert_eq!(
            odd,
            Event::Other {
                name: "DEVICE_DELETED".into()
            }
        );
        let nameless = Event::decode("DEVICE_DELETED", Some(json!({"path": "/machine/unattached/device[3]"})));
        assert!(matches!(nameless, Event::DeviceDeleted { device: None, .. }));
    }

    #[test]
    fn an_event_with_endless_words_costs_little() {
        let long = "x".repeat(1_000_000);
        let data = json!({"device": "hbvf525400aa0001", "path": long});
        let Event::Other { name } = Event::decode("DEVICE_DELETED", Some(data)) else {
            panic!("taken in whole")
        };
        assert_eq!(name, "DEVICE_DELETED");
        let Event::Other { name } = Event::decode(&long, None) else {
            panic!("known?")
        };
        assert_eq!(name.len(), LONGEST_NAME);
    }

    #[test]
    fn every_known_status_is_written_as_it_is_read() {
        for word in [
            "none",
            "setup",
            "wait-unplug",
            "active",
            "pre-switchover",
            "device",
            "postcopy-active",
            "completed",
            "failed",
            "cancelling",
            "cancelled",
        ] {
            let Ok(status) = word.parse::<MigrationStatus>();
            assert_eq!(status.as_str(), word);
            assert!(!matches!(status, MigrationStatus::Other(_)), "{word}");
        }
    }
}
