//! The last fence before silent corruption. A primary with `failover_pair_id` puts no migration blocker into QEMU, and
//! what it writes by DMA into pages that were already sent is lost. So whatever starts a migration while one is plugged,
//! it is called off at once.
//!
//! Pure: it is told what was sent and what was heard, and says what to do. The connection's task obeys before it does
//! anything else.

use crate::event::{Event, MigrationStatus};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Every primary of hybond's has an id that begins so.
pub const PRIMARY_PREFIX: &str = "hbvf";

/// What the guard wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Send `migrate_cancel` now.
    Cancel,
    /// Too late for that: in postcopy the guest's only good copy is at the destination.
    TooLate,
}

/// Which primaries may be plugged, and whether a migration goes on.
#[derive(Debug, Default)]
pub struct Guard {
    plugged: BTreeSet<String>,
    status: Option<MigrationStatus>,
    /// What was done about the migration that goes on.
    acted: Option<Verdict>,
}

impl Guard {
    /// A command is about to be sent. A primary counts as plugged from before `device_add` leaves. `true` where this one
    /// was not.
    pub fn sending(&mut self, command: &str, arguments: &Map<String, Value>) -> bool {
        match primary(arguments) {
            Some(id) if command == "device_add" => self.plugged.insert(id.to_owned()),
            _ => false,
        }
    }

    /// A command was refused. `true` where QEMU has to be asked which primaries are plugged, as the refusal does not
    /// tell: "Duplicate device ID" leaves one, "Device not found" none.
    #[must_use]
    pub fn refused(&self, command: &str, arguments: &Map<String, Value>) -> bool {
        matches!(command, "device_add" | "device_del") && primary(arguments).is_some()
    }

    /// QEMU has said which devices it has.
    pub fn looked<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> Option<Verdict> {
        self.plugged = ids
            .filter(|id| id.starts_with(PRIMARY_PREFIX))
            .map(str::to_owned)
            .collect();
        self.judge()
    }

    /// QEMU has answered `query-migrate`. Older than any event that has been heard.
    pub fn found(&mut self, status: MigrationStatus) -> Option<Verdict> {
        if self.status.is_some() {
            return None;
        }
        self.status = Some(status);
        self.judge()
    }

    /// QEMU has reported something.
    pub fn heard(&mut self, event: &Event) -> Option<Verdict> {
        match event {
            Event::Migration { status } => {
                self.status = Some(status.clone());
                if status.is_over() || *status == MigrationStatus::Setup {
                    // An internal snapshot: QEMU writes it without a look at its monitor, and takes the cancellation after.
                    let acted = self.acted.take();
                    let in_vain = *status == MigrationStatus::Completed && acted == Some(Verdict::Cancel);
                    if in_vain && !self.plugged.is_empty() {
                        return Some(Verdict::TooLate);
                    }
                }
                self.judge()
            }
            Event::DeviceDeleted { device: Some(id), .. } => {
                self.plugged.remove(id);
                None
            }
            _ => None,
        }
    }

    /// Ids of the primaries that may be plugged.
    #[must_use]
    pub fn plugged(&self) -> &BTreeSet<String> {
        &self.plugged
    }

    /// The migration's state as last heard.
    #[must_use]
    pub fn status(&self) -> MigrationStatus {
        self.status.clone().unwrap_or(MigrationStatus::None)
    }

    fn judge(&mut self) -> Option<Verdict> {
        let status = self.status.as_ref()?;
        if self.acted.is_some() || self.plugged.is_empty() {
            return None;
        }
        let verdict = match status {
            MigrationStatus::Postcopy(_) => Verdict::TooLate,
            status if status.can_be_cancelled() => Verdict::Cancel,
            _ => return None,
        };
        self.acted = Some(verdict.clone());
        Some(verdict)
    }
}

fn primary(arguments: &Map<String, Value>) -> Option<&str> {
    let id = arguments.get("id")?.as_str()?;
    id.starts_with(PRIMARY_PREFIX).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const VF: &str = "hbvf525400aa0001";

    fn arguments(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("no object") };
        map
    }

    fn plugged() -> Guard {
        let mut guard = Guard::default();
        guard.sending("device_add", &arguments(json!({"driver": "vfio-pci", "id": VF})));
        guard
    }

    fn migration(word: &str) -> Event {
        let Ok(status) = word.parse();
        Event::Migration { status }
    }

    fn deleted(id: &str) -> Event {
        Event::DeviceDeleted {
            device: Some(id.into()),
            path: String::new(),
        }
    }

    #[test]
    fn a_migration_with_a_primary_plugged_is_cancelled_once() {
        let mut guard = plugged();
        assert_eq!(guard.heard(&migration("setup")), Some(Verdict::Cancel));
        assert_eq!(guard.heard(&migration("active")), None);
        assert_eq!(guard.heard(&migration("cancelling")), None);
        assert_eq!(guard.heard(&migration("cancelled")), None);
        assert_eq!(guard.heard(&migration("setup")), Some(Verdict::Cancel));
    }

    #[test]
    fn a_primary_counts_until_qemu_says_that_it_is_gone() {
        let mut guard = plugged();
        guard.sending("device_del", &arguments(json!({"id": VF})));
        assert_eq!(guard.heard(&deleted("net0")), None);
        assert_eq!(guard.heard(&migration("setup")), Some(Verdict::Cancel));
        assert_eq!(guard.heard(&migration("cancelled")), None);
        assert_eq!(guard.heard(&deleted(VF)), None);
        assert_eq!(guard.heard(&migration("setup")), None);
    }

    #[test]
    fn devices_of_others_migrate() {
        let mut guard = Guard::default();
        guard.sending(
            "device_add",
            &arguments(json!({"driver": "virtio-net-pci", "id": "net0"})),
        );
        assert_eq!(guard.looked(["net0", "hbrp525400aa0001"].into_iter()), None);
        assert_eq!(guard.heard(&migration("setup")), None);
    }

    #[test]
    fn what_a_new_connection_finds_is_judged_whatever_comes_first() {
        let mut status_first = Guard::default();
        assert_eq!(status_first.found(MigrationStatus::Active), None);
        assert_eq!(status_first.looked([VF].into_iter()), Some(Verdict::Cancel));
        let mut device_first = Guard::default();
        assert_eq!(device_first.looked([VF].into_iter()), None);
        assert_eq!(device_first.found(MigrationStatus::Setup), Some(Verdict::Cancel));
    }

    #[test]
    fn an_answer_older_than_an_event_changes_nothing() {
        let mut guard = plugged();
        assert_eq!(guard.heard(&migration("completed")), None);
        assert_eq!(guard.found(MigrationStatus::Active), None);
    }

    #[test]
    fn postcopy_is_reported_and_not_cancelled() {
        let mut guard = plugged();
        assert_eq!(guard.heard(&migration("postcopy-active")), Some(Verdict::TooLate));
    }

    #[test]
    fn a_copy_that_ends_in_spite_of_being_cancelled_is_reported() {
        let mut guard = plugged();
        assert_eq!(guard.heard(&migration("setup")), Some(Verdict::Cancel));
        assert_eq!(guard.heard(&migration("completed")), Some(Verdict::TooLate));
        assert_eq!(guard.heard(&migration("setup")), Some(Verdict::Cancel));
        assert_eq!(guard.heard(&migration("cancelled")), None);
        assert_eq!(guard.heard(&migration("completed")), None, "of another");
    }

    #[test]
    fn a_refused_plug_makes_it_look() {
        let guard = Guard::default();
        assert!(guard.refused("device_add", &arguments(json!({"id": VF}))));
        assert!(guard.refused("device_del", &arguments(json!({"id": VF}))));
        assert!(!guard.refused("device_del", &arguments(json!({"id": "net0"}))));
    }
}
