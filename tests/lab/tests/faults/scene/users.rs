//! What users do, and what they read of it.

use super::{PAUSE, SOON, Scene};
use crate::fault::Sight;
use anyhow::{Result, bail, ensure};
use hybond_lab::{Machine, Output, process};
use hybond_wire::agent::Path;
use hybond_wire::control::PairStatus;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// `virsh migrate`, with everything that it waits for.
const MIGRATION: Duration = Duration::from_secs(300);

/// What people have read since the scenario began.
#[derive(Default)]
pub(super) struct Heard {
    virsh: String,
    hybondctl: String,
    status: String,
}

/// A command that has not ended, mostly a `virsh migrate`.
pub struct UnderWay(JoinHandle<Result<Output>>);

impl UnderWay {
    /// Waits for its end.
    pub fn end(self) -> Result<Output> {
        match self.0.join() {
            Ok(output) => output,
            Err(_) => bail!("the command has panicked"),
        }
    }

    fn goes_on(&self) -> Result<()> {
        ensure!(!self.0.is_finished(), "the command has ended");
        Ok(())
    }
}

impl Scene<'_> {
    /// The command by which the usual guest is migrated, with these words more.
    pub fn migration(&self, words: &str) -> String {
        let (name, to) = (self.name(), self.to().name());
        format!("virsh migrate --live --persistent {words} {name} qemu+tls://{to}/system")
    }

    /// Runs it to its end.
    pub fn migrate(&mut self, words: &str) -> Result<Output> {
        let output = self.from().run_within(&self.migration(words), MIGRATION)?;
        Ok(self.hear_virsh(output))
    }

    /// Starts it.
    pub fn begin(&self, words: &str) -> UnderWay {
        self.begin_as(self.migration(words))
    }

    /// Starts a script on the usual guest's host that migrates it.
    pub fn begin_as(&self, script: String) -> UnderWay {
        let node = self.from().clone();
        UnderWay(thread::spawn(move || node.run_within(&script, MIGRATION)))
    }

    /// A migration in the midst of its copy, which takes a minute unless [`Scene::hasten`] is called.
    pub fn copying(&self, words: &str) -> Result<UnderWay> {
        let under_way = self.begin(&format!("--bandwidth 1 {words}"));
        let line = format!("virsh domjobinfo {} | grep -E 'Memory processed: +[1-9]'", self.name());
        self.while_it_goes(&under_way, "a copy of memory", || {
            Ok(self.from().run(&line)?.success().then_some(()))
        })?;
        Ok(under_way)
    }

    /// Lets the copy go as fast as it can.
    pub fn hasten(&self) -> Result<()> {
        self.from()
            .ok(&format!("virsh migrate-setspeed {} 10000", self.name()))
            .map(drop)
    }

    /// A drain for which the guest has moved its traffic, and whose unplug it does not hear.
    pub fn draining(&mut self) -> Result<UnderWay> {
        self.deafen()?;
        let under_way = self.begin_as(format!("hybondctl drain {}", self.name()));
        self.until_it_drains(&under_way)?;
        Ok(under_way)
    }

    /// A migration for which the guest has moved its traffic, and whose unplug it does not hear.
    pub fn unplugging(&mut self) -> Result<UnderWay> {
        self.deafen()?;
        let under_way = self.begin("");
        self.until_it_drains(&under_way)?;
        Ok(under_way)
    }

    fn until_it_drains(&self, under_way: &UnderWay) -> Result<()> {
        self.while_it_goes(under_way, "the drain", || {
            let (domain, pair) = self.status()?;
            Ok((domain.stage == "draining" && pair.active == Some(Path::Standby)).then_some(()))
        })
    }

    fn while_it_goes(
        &self,
        under_way: &UnderWay,
        what: &str,
        mut ready: impl FnMut() -> Result<Option<()>>,
    ) -> Result<()> {
        process::until_every(PAUSE, what, SOON, || {
            let there = ready()?;
            if there.is_none() {
                under_way.goes_on()?;
            }
            Ok(there)
        })
    }

    /// Takes in how a migration ended that must not have succeeded.
    pub fn refused(&mut self, output: Output) -> Result<()> {
        let output = self.hear_virsh(output);
        ensure!(!output.success(), "virsh migrate has succeeded");
        Ok(())
    }

    /// Takes in how a migration ended that must have succeeded.
    pub fn arrived(&mut self, output: Output) -> Result<()> {
        let output = self.hear_virsh(output);
        ensure!(output.success(), "virsh migrate: {}", output.stderr.trim());
        self.usual.at = 1 - self.usual.at;
        Ok(())
    }

    /// Runs hybondctl where the usual guest is, and takes in what it says.
    pub fn hybondctl(&mut self, words: &str) -> Result<Output> {
        let output = self.from().run_within(&format!("hybondctl {words}"), MIGRATION)?;
        self.heard.hybondctl += &output.stderr;
        Ok(output)
    }

    /// Takes in what hybond says of a pair.
    pub fn hear_status(&mut self, pair: &PairStatus) {
        self.heard.status += pair.degraded.as_deref().unwrap_or_default();
        self.heard.status += "\n";
    }

    /// Runs virsh where the usual guest is, and takes in what it says.
    pub fn virsh(&mut self, words: &str) -> Result<Output> {
        let output = self.from().run_within(&format!("virsh {words}"), MIGRATION)?;
        Ok(self.hear_virsh(output))
    }

    /// Takes in what virsh has said.
    pub fn hear_virsh(&mut self, output: Output) -> Output {
        self.heard.virsh += &output.stderr;
        output
    }

    /// What of this has not been read.
    pub fn unseen(&self, sights: &[Sight]) -> Vec<String> {
        let heard = |sight: &Sight| match sight {
            Sight::Virsh(words) => says(&self.heard.virsh, words),
            Sight::Hybondctl(words) => says(&self.heard.hybondctl, words),
            Sight::Status(words) => says(&self.heard.status, words),
            Sight::Otherwise(_) => true,
        };
        let unseen = sights.iter().filter(|sight| !heard(sight));
        let Heard {
            virsh,
            hybondctl,
            status,
        } = &self.heard;
        let said = format!("virsh: {virsh}\nhybondctl: {hybondctl}\nstatus: {status}");
        unseen
            .map(|sight| format!("nobody was told {sight:?}\n{said}"))
            .collect()
    }
}

/// Whether a line has these words, with anything where "…" is.
fn says(text: &str, words: &str) -> bool {
    text.lines().any(|line| {
        let mut rest = line;
        words.split('…').all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}

#[test]
fn words_are_found_in_one_line_and_in_order() {
    let text = "error: hook: the guest did not\nlet go of VF pf0.1 within 6000 ms";
    assert!(says(text, "let go of VF … within … ms"));
    assert!(!says(text, "did not let go"));
    assert!(!says(text, "within … of VF"));
}
