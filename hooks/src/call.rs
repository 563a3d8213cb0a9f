//! How libvirt calls the hook.

use hybond_wire::hook::Operation;
use std::ffi::OsString;
use std::time::Duration;

/// Longest text taken from an argument.
const ARGUMENT: usize = 200;

/// One call.
#[derive(Debug)]
pub struct Call {
    /// libvirt's name of the domain, for people.
    pub domain: String,
    /// libvirt's name of the operation, for people.
    pub name: String,
    /// What the daemon is told; `None` where it need not know.
    pub operation: Option<Operation>,
    /// libvirt's extra argument.
    pub reason: Option<String>,
    /// When the process ends, whatever has become of it.
    pub deadline: Duration,
}

impl Call {
    /// `DOMAIN OPERATION SUB-OPERATION EXTRA`; `None` where it was not libvirt who called. An operation that this
    /// release does not know is none of its business: libvirt adds some now and then, and calls the hook for all.
    pub fn from_arguments(arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut arguments = arguments.map(|a| a.to_string_lossy().into_owned());
        let domain = plain(&arguments.next()?);
        let name = plain(&arguments.next()?);
        let sub = arguments.next()?;
        let reason = arguments.next().filter(|extra| extra != "-").map(|extra| plain(&extra));
        let (operation, seconds) = match (name.as_str(), sub.as_str()) {
            // The source drains meanwhile: its guest's unplug is what takes time.
            ("migrate", "begin") => (Some(Operation::Migrate), 120),
            ("restore", "begin") => (Some(Operation::Restore), 30),
            ("prepare", "begin") => (Some(Operation::Prepare), 30),
            // A VF may have to be leased, on the PF that libvirt's network has chosen.
            ("start", "begin") => (Some(Operation::Start), 30),
            ("started", "begin") => (Some(Operation::Started), 10),
            ("stopped", "end") => (Some(Operation::Stopped), 5),
            ("release", "end") => (Some(Operation::Release), 5),
            ("reconnect", "begin") => (Some(Operation::Reconnect), 1),
            _ => (None, 5),
        };
        Some(Self {
            domain,
            name,
            operation,
            reason,
            deadline: deadline_from_environment().unwrap_or(Duration::from_secs(seconds)),
        })
    }

    /// Whether exit code 1 only stops the operation. For `reconnect` libvirt kills the running guest then; after a guest
    /// has stopped there is nothing left to stop.
    pub fn may_refuse(&self) -> bool {
        !matches!(
            self.operation,
            None | Some(Operation::Reconnect | Operation::Stopped | Operation::Release)
        )
    }
}

/// For tests. libvirt runs hooks with PATH, HOME, USER, LOGNAME and TMPDIR and nothing else
/// (`virCommandAddEnvPassCommon`), so nobody sets it by accident.
fn deadline_from_environment() -> Option<Duration> {
    let text = std::env::var("HYBOND_HOOK_DEADLINE_MS").ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// This host, as its kernel calls it.
pub fn host() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) if !name.trim().is_empty() => plain(name.trim()),
        // Only a name in a sentence: better an unnamed host than no sentence.
        _ => "this host".to_owned(),
    }
}

/// One line of limited length, without control characters: it goes to a terminal.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(ARGUMENT)
        .collect()
}
