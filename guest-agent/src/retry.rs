//! Something that failed and is tried again, later and later.

/// The first wait after a failure, and the longest, in milliseconds.
const FIRST: u64 = 2_000;
const LONGEST: u64 = 300_000;

/// Nothing has failed, or it has, and is not due before some time.
#[derive(Debug, Default)]
pub struct Retry {
    reason: Option<String>,
    at: u64,
    wait: u64,
}

impl Retry {
    /// It has failed.
    pub fn failed(&mut self, reason: String, now: u64) {
        self.wait = (self.wait * 2).clamp(FIRST, LONGEST);
        self.at = now + self.wait;
        self.reason = Some(reason);
    }

    /// It may be tried.
    pub fn due(&self, now: u64) -> bool {
        self.reason.is_none() || now >= self.at
    }

    /// When it may be tried again.
    pub fn deadline(&self) -> Option<u64> {
        self.reason.as_ref().map(|_| self.at)
    }

    /// Why it failed.
    pub fn reason(&self) -> String {
        self.reason.clone().unwrap_or_default()
    }
}
