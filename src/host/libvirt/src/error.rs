//! What can go wrong between hybond and libvirt.

use std::time::Duration;

/// A call to libvirt that was not carried out, or of which that is not known.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// There is no connection now; the supervisor is at it.
    #[error("no connection to libvirt at {uri}: {reason}; is virtqemud.socket or libvirtd.service running?")]
    NotConnected {
        /// Where libvirt should be.
        uri: String,
        /// What the last attempt said.
        reason: String,
    },
    /// libvirt does not answer. The call goes on in its thread, and later calls of the same kind for the same domain
    /// queue up behind it.
    #[error(
        "libvirt has not answered {call} of {subject} within {} s; another job or a hook may hold the domain (virsh domjobinfo)",
        after.as_secs()
    )]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// Of which domain, or of the host.
        subject: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The domain is unknown to libvirt.
    #[error("libvirt knows no domain {subject}")]
    NotFound {
        /// UUID.
        subject: String,
    },
    /// libvirt said no.
    #[error("libvirt refused {call} of {subject}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// Of which domain, or of the host.
        subject: String,
        /// libvirt's words.
        #[source]
        source: Said,
    },
    /// libvirt answered with something that cannot be used.
    #[error("{call} of {subject}: {reason}")]
    Unusable {
        /// What was asked.
        call: &'static str,
        /// Of which domain, or of the host.
        subject: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// hybond's element in the domain's XML is not valid.
    #[error("the hybond element of domain {subject} is not valid; mend it with virsh edit or hybondctl enable")]
    Spec {
        /// UUID.
        subject: String,
        /// Which part.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No thread could be started for the call.
    #[error("no thread for {call} of {subject}: the process limit is reached (systemctl show -p TasksMax hybondd)")]
    NoThread {
        /// What was asked.
        call: &'static str,
        /// Of which domain, or of the host.
        subject: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// libvirt's own words for a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Said(pub(crate) String);

impl LibvirtError {
    /// Whether asking again later may help without anyone mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotConnected { .. } | Self::Timeout { .. } | Self::NoThread { .. }
        )
    }
}
