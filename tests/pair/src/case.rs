//! A run: its seed, its size, and what goes wrong in it. As a line of numbers it can be printed, and run again.

use std::fmt;
use std::str::FromStr;

/// What goes wrong: percent of the steps, or of the occasions; crashes and power cuts per mille.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// A daemon crashes: in a step, and at each point where it matters.
    pub crash: u64,
    /// A host loses its power.
    pub power: u64,
    /// A message between the daemons is lost.
    pub lose: u64,
    /// A message is delivered again, perhaps long after.
    pub repeat: u64,
    /// libvirt's operation fails, or its hook is given up.
    pub abort: u64,
    /// An action fails, before or after its effect.
    pub fail: u64,
    /// The journal cannot be written.
    pub disk: u64,
    /// A monitor's event is lost, or the monitor.
    pub deaf: u64,
    /// A guest ignores unplugs, throws its VF out, or has no agent for a while.
    pub disobey: u64,
}

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Of all chance.
    pub seed: u64,
    /// Domains.
    pub domains: u8,
    /// Pairs of each.
    pub pairs: u8,
    /// VFs of each host, over two PFs.
    pub vfs: u8,
    /// 0: all prefer, 1: all require, 2: all never, 3: mixed.
    pub policy: u8,
    /// Every other pair has a standby that libvirt makes.
    pub direct: bool,
    /// Those are of a libvirt network, which chooses the PF.
    pub network: bool,
    /// 0: all hybrid, 1: all indirect whose standby is hybond's, 2: all virtual, 3: mixed.
    pub flavor: u8,
    /// Steps before the calm.
    pub steps: u32,
    /// What goes wrong.
    pub faults: Faults,
}

impl Case {
    /// Two domains of one pair, a VF for each on each host; nothing goes wrong.
    #[must_use]
    pub fn peaceful(seed: u64) -> Self {
        Self {
            seed,
            domains: 2,
            pairs: 1,
            vfs: 4,
            policy: 0,
            direct: false,
            network: false,
            flavor: 0,
            steps: 800,
            faults: Faults::default(),
        }
    }

    fn numbers(&self) -> [u64; 18] {
        let f = &self.faults;
        let (domains, pairs, vfs, policy) = (self.domains, self.pairs, self.vfs, self.policy);
        let flavor = self.flavor;
        [
            self.seed,
            domains.into(),
            pairs.into(),
            vfs.into(),
            policy.into(),
            self.direct.into(),
            self.steps.into(),
            f.crash,
            f.power,
            f.lose,
            f.repeat,
            f.abort,
            f.fail,
            f.disk,
            f.deaf,
            f.disobey,
            self.network.into(),
            flavor.into(),
        ]
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers().map(|n| n.to_string());
        f.write_str(&numbers.join(","))
    }
}

impl FromStr for Case {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u64>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        let mut numbers = numbers.map_err(|error| format!("{text:?}: {error}"))?;
        if numbers.len() == 16 {
            // Written down before there were networks and flavors.
            numbers.extend([0, 0]);
        }
        let [
            seed,
            domains,
            pairs,
            vfs,
            policy,
            direct,
            steps,
            crash,
            power,
            lose,
            repeat,
            abort,
            fail,
            disk,
            deaf,
            disobey,
            network,
            flavor,
        ] = numbers[..]
        else {
            return Err(format!("{text:?} are not 18 numbers"));
        };
        let faults = Faults {
            crash,
            power,
            lose,
            repeat,
            abort,
            fail,
            disk,
            deaf,
            disobey,
        };
        Ok(Self {
            seed,
            domains: domains as u8,
            pairs: pairs as u8,
            vfs: vfs as u8,
            policy: policy as u8,
            direct: direct != 0,
            network: network != 0,
            flavor: flavor as u8,
            steps: steps as u32,
            faults,
        })
    }
}
