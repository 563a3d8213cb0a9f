//! A guest on its VF on `src`, and what every scenario wants to know of it.

use anyhow::{Result, ensure};
use hybond_lab::scenario::{HybridGuest, POOL, Stage};
use hybond_lab::{Host, Lab, Machine, Output};
use std::time::Duration;

pub struct Scene<'a> {
    pub stage: Stage<'a>,
    pub src: &'a Host,
    pub dst: &'a Host,
    pub guest: HybridGuest,
}

impl<'a> Scene<'a> {
    pub fn new(lab: &'a Lab, stage: Stage<'a>) -> Self {
        let (src, dst) = (lab.host("src"), lab.host("dst"));
        let mut guest = HybridGuest::new("web", src);
        // Its XML says nothing of its memory, as that of most people's guests before `hybondctl enable`.
        guest.domain.huge_pages = false;
        Self { stage, src, dst, guest }
    }

    /// With what the daemons have said, if it went wrong.
    pub fn told(&self, result: Result<()>) -> Result<()> {
        result.map_err(|error| error.context(self.journals()))
    }

    pub fn parts(&self) -> (&'a Host, &'a Host, &HybridGuest, &Stage<'a>) {
        (self.src, self.dst, &self.guest, &self.stage)
    }

    /// The guest runs on this host, over its VF, and can be reached; the other has nothing of it.
    pub fn is_settled(&self, host: &Host) -> Result<()> {
        let other = if host.name() == self.src.name() {
            self.dst
        } else {
            self.src
        };
        let pair = self.guest.wait_primary(host)?;
        ensure!(pair.degraded.is_none(), "degraded: {pair:?}");
        let address = self.guest.address();
        let ping = format!("ping -c 1 -W 2 {address}");
        self.stage
            .lab
            .peer()
            .until("ping of the guest", &ping, Duration::from_secs(30))?;
        nothing_is_left(self, other)
    }

    /// After a failure: settings back, daemons up, the guest on `src`.
    pub fn mend(&self) -> Result<()> {
        for host in [self.src, self.dst] {
            self.stage.configure(host, "", "")?;
        }
        if self.guest.runs_on(self.dst)? {
            self.guest.wait_primary(self.dst)?;
            self.arrive(self.dst, self.src)?;
        }
        if !self.guest.runs_on(self.src)? {
            return self.start();
        }
        self.guest.wait_primary(self.src).map(drop)
    }

    /// Starts the guest on `src`, and waits until its traffic goes over a VF. Its memory is left to what hybond does when it
    /// comes to a host.
    pub fn start(&self) -> Result<()> {
        self.guest
            .define_as(self.src, &format!("--pool {POOL} --keep-memory"))?;
        self.guest.boot(self.src)?;
        self.guest.wait_primary(self.src).map(drop)
    }

    /// A migration that has to succeed.
    pub fn arrive(&self, from: &Host, to: &Host) -> Result<()> {
        self.guest.moves(from, to)
    }

    /// A migration from `src` that has to be refused, with words that name what and where. The guest keeps its VF, or
    /// gets it back, and nothing is on `dst`.
    pub fn is_refused(&self, words: &[&str]) -> Result<String> {
        let before = self.guest.pair(self.src)?;
        let output = self.guest.migrate(self.src, self.dst)?;
        let said = refusal(&output, words)?;
        let after = self.guest.wait_primary(self.src)?;
        ensure!(
            after.vf == before.vf,
            "the VF was {:?} and is {:?}",
            before.vf,
            after.vf
        );
        nothing_is_left(self, self.dst)?;
        Ok(said)
    }

    /// The metadata of the running domain with one word in place of another, as an administrator may change it.
    pub fn edit_metadata(&self, from: &str, to: &str) -> Result<()> {
        let name = self.guest.name();
        let uri = "urn:hybond:domain:1";
        self.src.ok(&format!(
            "set -e\nold=$(virsh metadata {name} {uri} --live)\nnew=$(printf %s \"$old\" | sed \"s|{from}|{to}|\")\n\
             [ \"$old\" != \"$new\" ] || {{ echo \"no {from} in $old\" >&2; exit 1; }}\n\
             virsh metadata {name} {uri} --live --key hybond --set \"$new\""
        ))?;
        Ok(())
    }

    pub fn journals(&self) -> String {
        let mut text = String::new();
        for host in [self.src, self.dst] {
            let lines = host.ok("journalctl -u hybondd -o short-precise --no-pager -n 40");
            text += &format!(
                "journal of {}:\n{}\n",
                host.name(),
                lines.unwrap_or_else(|error| error.to_string())
            );
            text += &self.guest.view(host);
        }
        text
    }
}

/// What `virsh` has said, if it failed and said all of these.
pub fn refusal(output: &Output, words: &[&str]) -> Result<String> {
    let said = output.stderr.trim().to_owned();
    ensure!(!output.success(), "it was not refused");
    for word in words {
        ensure!(said.contains(word), "virsh does not say \"{word}\": {said}");
    }
    eprintln!("  virsh: {said}");
    Ok(said)
}

pub fn nothing_is_left(scene: &Scene<'_>, host: &Host) -> Result<()> {
    let left = scene.stage.settled_leftovers(host, Duration::from_secs(30))?;
    ensure!(left.is_empty(), "left on {}: {}", host.name(), left.join("; "));
    Ok(())
}
