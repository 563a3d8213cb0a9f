//! Logging: the journal where there is one, standard error elsewhere.
//!
//! What an operator may have to act on carries a `MESSAGE_ID`, by which `journalctl -x` finds the explanation in
//! `packaging/journal/hybond.catalog`. There is one entry in it for each of [`message_id`].

use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Levels from `HYBOND_LOG`, `info` by default.
pub fn begin() {
    let filter = EnvFilter::try_from_env("HYBOND_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // systemd sets JOURNAL_STREAM where stderr is connected to the journal. Run by hand, a terminal is what is looked at.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer = match journal {
        Some(journal) => journal
            .with_field_prefix(None)
            .with_syslog_identifier("hybondd".into())
            .boxed(),
        None => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            // A file has no colours.
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// Identifiers of messages, as sd_journal_send(3) and the catalog have them. They never change; a message that means
/// something else gets a new one (`systemd-id128 new`).
pub mod message_id {
    /// The guard has cancelled a migration or save.
    pub const GUARD_CANCELLED: &str = "d6fe32f062af4e1b84d9db81d362910a";
    /// RAM was copied with a VF plugged, and could not be kept from it.
    pub const GUARD_TOO_LATE: &str = "0d444012330f46bf85ee9fb181928c3f";
    /// A start, migration, drain or plug was refused.
    pub const REFUSED: &str = "8465e12fc0af43bbb7e96e01a7149038";
    /// A phase failed.
    pub const PHASE_FAILED: &str = "b7bcb6b126c944e6b8b88e6d7c531d1c";
    /// The journal cannot be written.
    pub const JOURNAL_BROKEN: &str = "bb49a38054cb47249bd343a65ec37957";
}

#[cfg(test)]
mod tests {
    use super::message_id;

    #[test]
    fn every_message_id_has_its_explanation() {
        let catalog = include_str!("../../../packaging/journal/hybond.catalog");
        let explained: Vec<&str> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let sent = [
            message_id::GUARD_CANCELLED,
            message_id::GUARD_TOO_LATE,
            message_id::REFUSED,
            message_id::PHASE_FAILED,
            message_id::JOURNAL_BROKEN,
        ];
        assert_eq!(explained, sent, "the catalog's entries, in this order");
        for id in sent {
            assert_eq!(id.len(), 32, "{id}");
            assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        }
    }
}
