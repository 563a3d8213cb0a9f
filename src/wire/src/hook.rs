//! libvirt's `qemu` hook and the daemon: one request, one answer, then the connection is closed.

use hybond_core::ids::{IfName, Mac};
use hybond_core::spec::DomainSpec;
use serde::{Deserialize, Serialize};

/// Where the daemon listens for hooks. Root only.
pub const SOCKET: &str = "/run/hybond/hook.sock";
/// Longest message in either direction, in bytes.
pub const LIMIT: usize = 64 * 1024;
/// Version of this protocol. Hook and daemon come from one package; a difference means a half-done upgrade.
pub const VERSION: u16 = 1;

/// One call of the hook, in libvirt's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u16,
    /// What libvirt is doing.
    pub operation: Operation,
    /// libvirt's extra argument: why a `release` happens (`migrated`, `failed`, …), libvirt 10.5 and later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the domain's XML says of hybond. Nothing else of the XML leaves the hook.
    pub domain: DomainSpec,
}

/// The operations that libvirt calls the hook for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `migrate begin`, on the destination. Its answer may rewrite the XML.
    Migrate,
    /// `restore begin`. Its answer may rewrite the XML.
    Restore,
    /// `prepare begin`: a start, or the destination of a migration after `migrate`.
    Prepare,
    /// `start begin`, for domains with interfaces of libvirt networks, whose PFs are known by then.
    Start,
    /// `started begin`: QEMU runs, the guest perhaps not yet.
    Started,
    /// `stopped end`: QEMU is gone.
    Stopped,
    /// `release end`: libvirt has let go of everything.
    Release,
    /// `reconnect begin`: libvirtd was restarted. Its failure would kill the guest, so it is only told.
    Reconnect,
}

/// The daemon's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Response {
    /// Go on.
    Proceed {
        /// New lower devices for interfaces that libvirt makes macvtaps of. Empty where the XML is right as it is.
        #[serde(default)]
        sources: Vec<SourceEdit>,
        /// QEMU is to get all of the guest's memory when it starts, where the XML does not say itself how.
        #[serde(default)]
        preallocate: bool,
    },
    /// Do not go on.
    Refuse {
        /// A sentence for the user of `virsh`: what, where, and how to mend it.
        reason: String,
    },
}

impl Response {
    /// Go on with the XML as it is.
    #[must_use]
    pub fn unchanged() -> Self {
        Self::Proceed {
            sources: Vec::new(),
            preallocate: false,
        }
    }
}

/// `<source dev=…>` of the interface with this MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEdit {
    /// Which interface.
    pub mac: Mac,
    /// Its lower device on this host.
    pub source: IfName,
}
