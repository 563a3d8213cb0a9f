//! Logging: the journal where there is one, standard error elsewhere.

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
        None => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
