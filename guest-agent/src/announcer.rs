//! When a pair's bond is announced, and who waits for that.

/// Announcements in a row, as one may be lost, and the milliseconds between two.
const TIMES: u8 = 3;
const EVERY: u64 = 100;
/// Requests that wait for one announcement.
const WAITING_MAX: usize = 8;

/// The announcements of a pair.
#[derive(Debug, Default)]
pub struct Announcer {
    left: u8,
    at: u64,
    waiting: Vec<u64>,
    outcome: Option<Result<(), String>>,
}

impl Announcer {
    /// Begin, or begin anew.
    pub fn begin(&mut self, now: u64) {
        self.left = TIMES;
        self.at = now;
    }

    /// One now, for one that somebody else makes and repeats.
    pub fn once(&mut self, now: u64) {
        self.left = self.left.max(1);
        self.at = now;
    }

    /// Begin, and keep a request that is answered after the first.
    pub fn ask(&mut self, id: u64, now: u64) -> Result<(), String> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} requests already wait for an announcement"));
        }
        self.waiting.push(id);
        self.begin(now);
        Ok(())
    }

    /// One is due.
    pub fn due(&self, now: u64) -> bool {
        self.left > 0 && now >= self.at
    }

    /// One was made, or could not be.
    pub fn done(&mut self, result: Result<(), String>, now: u64) {
        self.left = self.left.saturating_sub(1);
        self.at = now + EVERY;
        self.outcome = Some(result);
    }

    /// Who is to be answered now, and how.
    pub fn answered(&mut self) -> Option<(Vec<u64>, Result<(), String>)> {
        let outcome = self.outcome.take()?;
        Some((std::mem::take(&mut self.waiting), outcome))
    }

    /// Nobody waits any more.
    pub fn forget(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.waiting)
    }

    /// There is nothing to announce from; who waited for it.
    pub fn stop(&mut self) -> Vec<u64> {
        self.left = 0;
        self.forget()
    }

    /// When the next is due.
    pub fn deadline(&self) -> Option<u64> {
        (self.left > 0).then_some(self.at)
    }
}
