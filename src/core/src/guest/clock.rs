//! The same guest with another time on the clock. Only differences between times mean anything, so whoever visits every
//! state there is, and each once, sets the clock of all of them to one time first.

use super::Guest;
use crate::Millis;

impl Guest {
    /// Sets the clock from `now` to `to`, which must be later than the longest pause in [`super::Settings`]: what is to come
    /// stays as far ahead as it was. How long ago something was is forgotten where it makes no difference any more, so that
    /// two guests which will do the same are the same.
    pub fn set_clock(&mut self, now: Millis, to: Millis) {
        let ahead = |at: Millis| to + at.saturating_sub(now);
        self.not_before.retain(|_, at: &mut Millis| *at > now);
        self.not_before.values_mut().for_each(|at| *at = ahead(*at));
        self.awaits_vf.values_mut().for_each(|at| *at = ahead(*at));
        self.unplugging.values_mut().for_each(|un| un.until = ahead(un.until));
        // Right before a VF is plugged libvirt's word must be fresh; where a stage has a deadline it must be younger than that.
        let stale = to.saturating_sub(self.settings.job_interval + 1);
        self.job_seen = self.job_seen.map(|seen| match self.deadline {
            Some(deadline) if seen < deadline => stale,
            Some(_) => to,
            None => stale.max((to + seen).saturating_sub(now)),
        });
        self.deadline = self.deadline.map(ahead);
    }
}
