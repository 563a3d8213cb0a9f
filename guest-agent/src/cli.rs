//! The command line, by hand: a parser crate would be a third of the binary.

use crate::agent::Named;
use hybond_core::ids::Mac;

/// What `--help` prints.
pub const HELP: &str = "\
hybond-agent: hybrid bonding, the guest's end

A guest of hybond has two NICs of one MAC: a virtio NIC, the standby, and, while it stays on a host, a VF, the primary.
The agent makes an active-backup bond of the two and does what the host asks for on the virtio-serial port
org.hybond.agent.0: move the traffic to the standby before the guest is migrated, and back afterwards.

The bond takes the standby's place: its name, MAC, MTU, addresses and routes, so that nothing in the guest has to be
configured anew. The standby is then called <name>nsby.

Usage: hybond-agent [OPTION]...
  --mac MAC     there is a pair of this MAC, whether a host says so or not; may be repeated
  --all         every virtio NIC is the standby of a pair
  --port PATH   the virtio-serial port, where it is not found by its name
  --state DIR   where takeovers in progress are kept (default /run/hybond-agent)
  --check       say what is there and what would be done, change nothing; exit status 1 if something is in the way
  --role NIC    print primary or standby if NIC is one of two NICs of one MAC (for the udev rule); else exit status 1
  --foreground  stay in the foreground (it always does)
  --version     print the version
  --help        print this

Without --mac or --all the host says which pairs there are. Where no host speaks for 5 seconds, two NICs of one MAC, of
which one is virtio, are taken for a pair, and the traffic goes to the primary when it has carrier. Once a host has
spoken, it decides.

The log goes to standard error, each line with its priority as in sd-daemon(3).

Examples
  hybond-agent                             in a guest of hybond, as its service does
  hybond-agent --check                     what would it do?
  hybond-agent --mac 52:54:00:aa:00:01     make the bond although no daemon runs on the host
";

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Run.
    Run(Options),
    /// Say what would be done.
    Check(Options),
    /// Print a NIC's part in its pair.
    Role(String),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// How to run.
#[derive(Debug, Default)]
pub struct Options {
    /// The pairs that the administrator named.
    pub named: Named,
    /// The port.
    pub port: Option<String>,
    /// The state directory.
    pub state: Option<String>,
}

/// Reads the command line, without the program's name.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options::default();
    let mut check = false;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (option, glued) = match argument.split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = || {
            glued
                .clone()
                .or_else(|| arguments.next())
                .ok_or_else(|| format!("{option} needs a value; see --help"))
        };
        match option.as_str() {
            "--mac" => options
                .named
                .macs
                .push(value()?.parse::<Mac>().map_err(|e| format!("--mac: {e}"))?),
            "--port" => options.port = Some(value()?),
            "--state" => options.state = Some(value()?),
            "--role" => return Ok(Command::Role(value()?)),
            _ if glued.is_some() => return Err(format!("unknown option {option}; see --help")),
            "--all" => options.named.all = true,
            "--check" => check = true,
            "--foreground" => {}
            "--help" | "-h" => return Ok(Command::Help),
            "--version" | "-V" => return Ok(Command::Version),
            _ => return Err(format!("unknown option {option}; see --help")),
        }
    }
    Ok(if check {
        Command::Check(options)
    } else {
        Command::Run(options)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_take_their_values_behind_a_space_or_an_equals_sign() {
        let Ok(Command::Run(options)) = given("--mac 52:54:00:aa:00:01 --mac=52:54:00:aa:00:02 --port /dev/vport1p1")
        else {
            panic!("understood");
        };
        assert_eq!(options.named.macs.len(), 2);
        assert_eq!(options.port.as_deref(), Some("/dev/vport1p1"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("--mac", "--mac"),
            ("--mac 1:2", "\"1:2\""),
            ("--verbose", "--verbose"),
            ("--all=yes", "--all"),
        ] {
            let error = given(line).expect_err(line);
            assert!(error.contains(word), "{error}");
        }
    }
}
