//! Numbers of character devices.

use std::fmt;
use std::str::FromStr;

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DevNumber {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl DevNumber {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// As `stat` has it.
    pub(crate) fn rdev(self) -> u64 {
        nix::sys::stat::makedev(u64::from(self.major), u64::from(self.minor))
    }

    /// From what `stat` has. Both parts have at most 32 bits there.
    pub(crate) fn from_rdev(rdev: u64) -> Self {
        Self::new(nix::sys::stat::major(rdev) as u32, nix::sys::stat::minor(rdev) as u32)
    }
}

impl fmt::Display for DevNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Not `major:minor`.
#[derive(Debug)]
pub(crate) struct NoNumber;

impl FromStr for DevNumber {
    type Err = NoNumber;
    /// As a `dev` file of sysfs has it.
    fn from_str(text: &str) -> Result<Self, NoNumber> {
        let (major, minor) = text.split_once(':').ok_or(NoNumber)?;
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Self::new(major, minor)),
            _ => Err(NoNumber),
        }
    }
}
