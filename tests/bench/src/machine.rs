//! On what, of what, and when was measured.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;

/// Beside the figures, in every output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Day.
    pub date: String,
    /// Commit, with a mark where files differ from it.
    pub commit: String,
    /// Processor.
    pub cpu: String,
    /// How many of it.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Kernel.
    pub kernel: String,
    /// Whether the machine is itself a guest, and what of it.
    pub hypervisor: String,
    /// How busy the machine was when it began: the load average of the last minute.
    pub load: String,
}

impl About {
    /// This machine, now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn here() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let guest = said("systemd-detect-virt", &[]);
        Ok(Self {
            date: said("date", &["-u", "+%F"]),
            commit: said("git", &["describe", "--always", "--dirty"]),
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: hybond_lab::memory::of_this_machine()?,
            kernel: said("uname", &["-r"]),
            hypervisor: match guest.as_str() {
                "none" => "no".to_owned(),
                "" => "not known".to_owned(),
                kind => format!("yes, {kind}"),
            },
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

impl About {
    /// What is the same for all that is measured on one machine, as a sentence.
    #[must_use]
    pub fn machine(&self) -> String {
        let Self {
            cpu,
            cores,
            memory_mib,
            kernel,
            hypervisor,
            ..
        } = self;
        format!(
            "The machine: {cpu}, {cores} cores, {memory_mib} MiB, kernel {kernel}; itself a virtual machine: {hypervisor}."
        )
    }
}

/// The value of `NAME : value`, as the kernel writes it.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// What a program prints, on one line; nothing where it is not there.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n";
        assert_eq!(field(text, "model name"), Some("Fast CPU @ 3 GHz"));
        assert!(About::here().expect("a machine").cores > 0);
    }
}
