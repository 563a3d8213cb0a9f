//! libvirt's events as values, and the bounded queue that carries them out of the event loop's thread.

use hybond_core::ids::DomainId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use virt_sys as sys;

/// How many events may wait for the daemon. A busy host sends a few dozen per migration.
pub(crate) const QUEUE: usize = 1024;

/// What libvirt, or the connection to it, has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibvirtEvent {
    /// The connection stands and events flow. What happened before is not told: look at every domain.
    Connected,
    /// The connection is gone, or the first attempt to open it has failed. It is tried again until it stands.
    Lost {
        /// A sentence.
        reason: String,
    },
    /// Events were dropped, because nobody took them: look at every domain and at [`crate::Libvirt::is_connected`].
    Resync,
    /// A domain's life.
    Lifecycle {
        /// Which domain.
        id: DomainId,
        /// Its name, for people.
        name: String,
        /// What happened.
        event: Lifecycle,
    },
    /// A migration, save or dump has ended at its source.
    JobCompleted {
        /// Which domain.
        id: DomainId,
        /// What it was.
        operation: Operation,
        /// Whether it succeeded; `None` where libvirt does not say.
        success: Option<bool>,
        /// libvirt's reason for a failure.
        error: Option<String>,
    },
    /// A migration has begun to copy the RAM anew.
    MigrationIteration {
        /// Which domain.
        id: DomainId,
        /// Counted from 1.
        iteration: u32,
    },
    /// The guest has rebooted within its QEMU.
    Reboot {
        /// Which domain.
        id: DomainId,
    },
    /// A device that libvirt knows has left the guest.
    DeviceRemoved {
        /// Which domain.
        id: DomainId,
        /// libvirt's alias, which is QEMU's id.
        alias: String,
    },
    /// The guest has refused to give up a device.
    DeviceRemovalFailed {
        /// Which domain.
        id: DomainId,
        /// libvirt's alias, which is QEMU's id.
        alias: String,
    },
    /// hybond's element of a domain was written by someone, ourselves included.
    MetadataChanged {
        /// Which domain.
        id: DomainId,
    },
}

/// One step of a domain's life. A cold boot is `Resumed(Unpaused)`, then `Started(Booted)`, in this order; a migration is
/// `Started(Migrated)`, `Resumed(Migrated)` at the destination and `Suspended(Migrated)`, `Stopped(Migrated)` at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// The persistent definition is new or changed.
    Defined,
    /// The persistent definition is gone.
    Undefined,
    /// QEMU runs; after [`StartedBy::Migrated`] the guest does not yet.
    Started(StartedBy),
    /// The guest's CPUs stand.
    Suspended(SuspendedBy),
    /// The guest's CPUs run.
    Resumed(ResumedBy),
    /// QEMU is gone.
    Stopped(StoppedBy),
    /// The guest has shut itself down; QEMU ends soon.
    Shutdown,
    /// The guest sleeps.
    PmSuspended,
    /// The guest has crashed.
    Crashed,
    /// A step that this release does not know.
    Unknown,
}

/// Declares an enum whose variants are libvirt's details of one lifecycle event, with a variant for those to come.
macro_rules! detail {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $raw:path),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$vdoc])* $variant,)+
            /// Something that this release does not know.
            Other,
        }
        impl $type {
            pub(crate) fn from_raw(raw: i32) -> Self {
                match u32::try_from(raw) {
                    $(Ok($raw) => Self::$variant,)+
                    _ => Self::Other,
                }
            }
        }
    };
}

detail!(
    /// Why QEMU runs.
    StartedBy {
        /// A normal boot.
        Booted = sys::VIR_DOMAIN_EVENT_STARTED_BOOTED,
        /// It waits for a migration to come in.
        Migrated = sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED,
        /// From a saved state.
        Restored = sys::VIR_DOMAIN_EVENT_STARTED_RESTORED,
        /// From a snapshot.
        Snapshot = sys::VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT,
        /// Out of its sleep.
        Wakeup = sys::VIR_DOMAIN_EVENT_STARTED_WAKEUP,
    }
);
detail!(
    /// Why the CPUs stand.
    SuspendedBy {
        /// An administrator's wish.
        Paused = sys::VIR_DOMAIN_EVENT_SUSPENDED_PAUSED,
        /// The switch-over of a migration.
        Migrated = sys::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
        /// A disk error.
        IoError = sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR,
        /// The guest's watchdog.
        Watchdog = sys::VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG,
        /// Restored paused.
        Restored = sys::VIR_DOMAIN_EVENT_SUSPENDED_RESTORED,
        /// A snapshot of a paused guest.
        Snapshot = sys::VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT,
        /// A call of libvirt's failed half-way.
        ApiError = sys::VIR_DOMAIN_EVENT_SUSPENDED_API_ERROR,
        /// Post-copy: the destination runs.
        Postcopy = sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY,
        /// Post-copy broke down.
        PostcopyFailed = sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED,
        /// The guest has shut down and QEMU is kept.
        GuestShutdown = sys::VIR_DOMAIN_EVENT_SUSPENDED_GUEST_SHUTDOWN,
    }
);
detail!(
    /// Why the CPUs run again.
    ResumedBy {
        /// An administrator's wish, or a migration that was given up at its source.
        Unpaused = sys::VIR_DOMAIN_EVENT_RESUMED_UNPAUSED,
        /// The guest has arrived by migration.
        Migrated = sys::VIR_DOMAIN_EVENT_RESUMED_MIGRATED,
        /// From a snapshot.
        Snapshot = sys::VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT,
        /// Runs here while post-copy goes on.
        Postcopy = sys::VIR_DOMAIN_EVENT_RESUMED_POSTCOPY,
        /// Runs here although post-copy broke down.
        PostcopyFailed = sys::VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED,
    }
);
detail!(
    /// Why QEMU is gone.
    StoppedBy {
        /// The guest has shut down.
        Shutdown = sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN,
        /// `virsh destroy`.
        Destroyed = sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED,
        /// QEMU or the guest has crashed.
        Crashed = sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED,
        /// It runs on another host now.
        Migrated = sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED,
        /// Saved to a file.
        Saved = sys::VIR_DOMAIN_EVENT_STOPPED_SAVED,
        /// A start, or an incoming migration, has failed.
        Failed = sys::VIR_DOMAIN_EVENT_STOPPED_FAILED,
        /// A snapshot of a domain that is off.
        Snapshot = sys::VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT,
    }
);
detail!(
    /// What a job does with a domain.
    Operation {
        /// Starting.
        Start = sys::VIR_DOMAIN_JOB_OPERATION_START,
        /// Saving to a file.
        Save = sys::VIR_DOMAIN_JOB_OPERATION_SAVE,
        /// Restoring from a file.
        Restore = sys::VIR_DOMAIN_JOB_OPERATION_RESTORE,
        /// Coming in.
        MigrationIn = sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN,
        /// Going out.
        MigrationOut = sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
        /// Taking a snapshot.
        Snapshot = sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT,
        /// Going back to a snapshot.
        SnapshotRevert = sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT,
        /// Dumping its core.
        Dump = sys::VIR_DOMAIN_JOB_OPERATION_DUMP,
        /// Backing up its disks.
        Backup = sys::VIR_DOMAIN_JOB_OPERATION_BACKUP,
        /// Deleting a snapshot.
        SnapshotDelete = sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE,
    }
);

impl Lifecycle {
    pub(crate) fn from_raw(event: i32, detail: i32) -> Self {
        match u32::try_from(event) {
            Ok(sys::VIR_DOMAIN_EVENT_DEFINED) => Self::Defined,
            Ok(sys::VIR_DOMAIN_EVENT_UNDEFINED) => Self::Undefined,
            Ok(sys::VIR_DOMAIN_EVENT_STARTED) => Self::Started(StartedBy::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_SUSPENDED) => Self::Suspended(SuspendedBy::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_RESUMED) => Self::Resumed(ResumedBy::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED) => Self::Stopped(StoppedBy::from_raw(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_SHUTDOWN) => Self::Shutdown,
            Ok(sys::VIR_DOMAIN_EVENT_PMSUSPENDED) => Self::PmSuspended,
            Ok(sys::VIR_DOMAIN_EVENT_CRASHED) => Self::Crashed,
            _ => Self::Unknown,
        }
    }
}

/// The receiving end of the queue.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<LibvirtEvent>,
    overflow: Arc<AtomicBool>,
}

/// The sending end; never waits, as it is used in libvirt's callbacks.
#[derive(Debug, Clone)]
pub(crate) struct EventSink {
    queue: mpsc::Sender<LibvirtEvent>,
    overflow: Arc<AtomicBool>,
}

/// A queue of at most `length` events.
pub(crate) fn queue(length: usize) -> (EventSink, Events) {
    let (sender, receiver) = mpsc::channel(length);
    let overflow = Arc::new(AtomicBool::new(false));
    let sink = EventSink {
        queue: sender,
        overflow: Arc::clone(&overflow),
    };
    (
        sink,
        Events {
            queue: receiver,
            overflow,
        },
    )
}

impl EventSink {
    /// Queues an event, or notes that one was lost. A receiver that is gone wants no events: nothing to note.
    pub(crate) fn push(&self, event: LibvirtEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(event) {
            self.overflow.store(true, Ordering::Release);
        }
    }
}

impl Events {
    /// The next event, in libvirt's order; `None` once every [`crate::Libvirt`] is dropped. After an overflow what was
    /// queued comes first, then [`LibvirtEvent::Resync`]. Cancel safe.
    pub async fn recv(&mut self) -> Option<LibvirtEvent> {
        // The flag is set only while the queue is full, so a receiver that found it empty and unset cannot miss it: it
        // has the whole queue to take first.
        match self.queue.try_recv() {
            Ok(event) => return Some(event),
            Err(_) if self.overflow.swap(false, Ordering::AcqRel) => return Some(LibvirtEvent::Resync),
            Err(_) => {}
        }
        self.queue.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reboot(n: u8) -> LibvirtEvent {
        LibvirtEvent::Reboot {
            id: DomainId::from_bytes([n; 16]),
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_becomes_one_resync_after_what_did() {
        let (sink, mut events) = queue(2);
        for n in 0..5 {
            sink.push(reboot(n));
        }
        assert_eq!(events.recv().await, Some(reboot(0)));
        assert_eq!(events.recv().await, Some(reboot(1)));
        assert_eq!(events.recv().await, Some(LibvirtEvent::Resync));
        sink.push(reboot(9));
        assert_eq!(events.recv().await, Some(reboot(9)));
        drop(sink);
        assert_eq!(events.recv().await, None);
    }

    #[test]
    fn details_of_a_newer_libvirt_are_no_error() {
        assert_eq!(Lifecycle::from_raw(2, 1), Lifecycle::Started(StartedBy::Migrated));
        assert_eq!(Lifecycle::from_raw(2, 99), Lifecycle::Started(StartedBy::Other));
        assert_eq!(Lifecycle::from_raw(5, 3), Lifecycle::Stopped(StoppedBy::Migrated));
        assert_eq!(Lifecycle::from_raw(99, 0), Lifecycle::Unknown);
        assert_eq!(Lifecycle::from_raw(-1, -1), Lifecycle::Unknown);
    }
}
