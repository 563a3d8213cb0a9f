//! Daemons of two hosts, over mutual TLS. The destination connects to the source, sends one request, and reads answers
//! until a final one. A request repeated with the same migration id finds the work done, or under way.

use hybond_core::ids::{DomainId, MigrationId};
use serde::{Deserialize, Serialize};

/// Default TCP port. libvirt's TLS port is 16514.
pub const PORT: u16 = 16515;
/// Longest message in either direction, in bytes.
pub const LIMIT: usize = 16 * 1024;
/// Version of this protocol.
pub const VERSION: u16 = 1;

/// Destination to source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Unplug every VF of the domain: it is about to be migrated to me.
    Drain {
        /// [`VERSION`].
        version: u16,
        /// This migration.
        migration: MigrationId,
        /// The domain. Refused unless it is in an outgoing migration.
        domain: DomainId,
        /// How long the destination waits, in milliseconds. The source gives up earlier than that.
        within_ms: u64,
    },
    /// The migration failed at the destination: look whether the VFs may come back.
    Abandon {
        /// [`VERSION`].
        version: u16,
        /// This migration.
        migration: MigrationId,
        /// The domain.
        domain: DomainId,
    },
    /// Are you there, and who are you? For `hybondctl doctor`.
    Ping {
        /// [`VERSION`].
        version: u16,
    },
}

/// Source to destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// Still at it. Sent at every phase, so that the destination can tell slow from gone.
    Progress {
        /// The phase that has begun.
        phase: String,
    },
    /// Final: no VF is plugged, and none will be while the migration goes on.
    Drained,
    /// Final: the guest keeps its VFs.
    Refused {
        /// A sentence that names what and where.
        reason: String,
    },
    /// Final answer to `Abandon` and `Ping`.
    Hello {
        /// The answering host's name.
        host: String,
        /// Its hybond release.
        release: String,
    },
}
