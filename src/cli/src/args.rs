//! The command line. Its help is the manual page as well.

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use hybond_core::ids::{Mac, PeerAddr, PoolName};
use hybond_core::spec::{Flavor, Policy};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  hybondctl enable web-1 --pool 10GE    make web-1's NIC a pair: a VF of the pool 10GE, and a standby that migrates
  hybondctl status                      pairs of this host, and which path carries their traffic
  virsh migrate --live web-1 qemu+ssh://node2/system
                                        a hybrid domain migrates as any other
  hybondctl timeline web-1              where the time of the last migrations went

Exit codes:
  0  done
  1  tried, and failed
  2  the command line makes no sense
  3  no such domain, interface or pool on this host
  4  not possible in the present state; the message says what would be
  5  hybondd does not answer
  6  libvirt does not answer
  7  check: the domain fits, and would run on its standby";

const ENABLE: &str = "\
Makes a NIC of a domain a pair: an SR-IOV VF for speed, and a standby virtio NIC on the VF's PF, which takes over while the \
domain migrates.

The domain's persistent XML is changed: the interface of the MAC becomes the standby (what the guest sees of it stays), \
and hybond's metadata, the agent's port, a monitor and a PCIe port for the VF are added. Where it does not say how the domain \
gets its memory, it gets all of it when it starts. 'hybondctl disable' gives it all back. A domain that runs has its pair at \
the next start. In the guest, install the package hybond-agent.

A domain may have several pairs, in different pools and of different flavors: one 'enable' for each. A pair is changed by \
enabling it again. Flavors: 'hybrid' is the pair as above; 'virtual' is the standby alone; 'indirect' is the standby alone, \
over a VF that stays the host's, and migrates without an unplug. The guest sees the same network name and addresses in each.";

const ENABLE_EXAMPLES: &str = "\
Examples:
  hybondctl enable web-1 --pool 10GE
  hybondctl enable web-1 --pool 10GE --mac 52:54:00:aa:00:01 --mac 52:54:00:aa:00:02
  hybondctl enable web-1 --pool storage --policy require --vlan 42
  hybondctl enable web-1 --pool dmz --mac 52:54:00:aa:00:03 --flavor indirect
  hybondctl enable web-1 --pool 10GE --keep-interface
  hybondctl enable web-1 --pool 10GE --print | diff <(virsh dumpxml --inactive web-1) -
  hybondctl enable --file web-1.xml --pool 10GE > web-1-hybrid.xml";

const DRAIN: &str = "\
Moves a domain's traffic to the standby, unplugs its VFs and gives them back to their pools. The guest loses no packet and \
runs on. They stay out until 'hybondctl plug', the next start or a migration.

Do this before anything that a VF is in the way of: maintenance of a NIC, a snapshot with memory, and any \
migration on a host where 'hybondctl host' says that VFs are plugged through libvirt.";

const SET: &str = "\
Changes a pair of a domain, without a restart of the guest.

A policy of a 'hybrid' pair holds at once: with 'never' the traffic moves to the standby and the VF is unplugged and given \
back; with 'prefer' and 'require' a VF is leased and plugged, as soon as one is free. It is written into the domain's \
metadata, so that it holds for the next start and on the next host as well. A pair of another flavor stays as it is until \
its next start, and the VF of an 'indirect' one cannot be taken from it before. A VLAN holds from the next start: a running guest's standby cannot \
be moved to another.";

const SET_EXAMPLES: &str = "\
Examples:
  hybondctl set web-1 --policy never        the VF is for others; web-1 runs on its standby
  hybondctl set web-1 --policy prefer       and back
  hybondctl set web-1 --mac 52:54:00:aa:00:02 --policy require --vlan 42";

const SAVE: &str = "\
Takes the VFs out of a running domain and has libvirt save it. A VF must not be plugged while the memory is written: a plain \
'virsh save' of a domain with a VF is cancelled.

Restored by 'virsh restore', or started from its managed save, here or on another host of hybond's, the domain has VFs \
again. If it cannot be saved they are plugged again at once. An interrupt (Ctrl-C) cancels the save.";

const CHECK: &str = "\
Asks another host whether a domain would fit there now: which VF and PF each pair would get, what would make the migration \
fail, and whether the two hosts can talk. Nothing is changed, and nothing is held: see 'hybondctl reserve' for that.

Exit code 0: it fits, every pair as its policy would have it. 7: it fits, and a pair of policy 'prefer' would run on its \
standby. 4: it does not; the reasons are told.";

const CHECK_EXAMPLES: &str = "\
Examples:
  hybondctl check web-1 --to node2
  hybondctl check web-1 --to node2.example.org:16515 --json";

const RESERVE: &str = "\
Has another host hold a VF for each pair of a domain, all or none, for a while. Nobody else gets them; the domain does when it \
comes. They are shown in that host's 'hybondctl pool'. Reserved again, they are held for longer.";

const RESERVE_EXAMPLES: &str = "\
Examples:
  hybondctl reserve web-1 --to node2 --for 600
  virsh migrate --live web-1 qemu+ssh://node2/system
  hybondctl reserve web-1 --to node2 --cancel";

const MIGRATE: &str = "\
Migrates a running domain, showing what hybond and libvirt do meanwhile. Any other tool that migrates by libvirt, such as \
'virsh migrate --live', does as well, except on a host where 'hybondctl host' says that VFs are plugged through libvirt: \
there this command drains first, and plugs again if the migration fails.

An interrupt (Ctrl-C) cancels the migration; the domain runs on here.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  hybondctl migrate web-1 qemu+ssh://node2/system
  hybondctl migrate web-1 qemu+tls://node2/system --persistent --undefinesource --bandwidth 500
  hybondctl migrate web-1 qemu+ssh://node2/system --timeout 300";

const INVENTORY: &str = "\
Shows every VF of this host, in a pool or not: where it is, which pools offer it, and who has it. With --json it is what a \
scheduler needs of a host: the parts of each address, drivers, NUMA node, lease and owner.

States: 'free'; 'reserved', for a domain that is to come; 'leased', held for a domain and not plugged; 'plugged'; \
'no-pool', which no pool offers; 'missing', leased and no longer on this machine.";

const CONFIG_CHECK: &str = "\
Reads the configuration as hybondd does, fragments included, and shows the VFs that each pool has on this machine. hybondd \
need not run, and is not told: 'systemctl reload hybondd' has it read the pools again.

A fault is named with its file, its line and what is allowed there, and the exit code is 1. A selector that matches nothing \
on this machine is a warning, since hosts may share a configuration.";

const CONFIG_CHECK_EXAMPLES: &str = "\
Examples:
  hybondctl config check
  hybondctl config check ./hybond.toml      one that is not installed yet; fragments are then in ./hybond.d/";

/// Hybrid NICs for libvirt guests: an SR-IOV VF for speed, a virtio standby that migrates.
#[derive(Debug, Parser)]
#[command(name = "hybondctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// Print JSON on stdout, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress on stderr
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// hybondd's control socket
    #[arg(long, global = true, value_name = "PATH", default_value = hybond_wire::control::SOCKET)]
    pub socket: PathBuf,
    /// libvirt's connection, for enable, disable, migrate and save
    #[arg(long, short, global = true, value_name = "URI", default_value = "qemu:///system")]
    pub connect: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a NIC of a domain a pair
    #[command(long_about = ENABLE, after_help = ENABLE_EXAMPLES)]
    Enable(Enable),
    /// Undo enable: give the domain its interfaces back as they were
    Disable(Disable),
    /// Show the pairs of this host's domains, and which path carries their traffic
    Status {
        /// Name or UUID; all domains without
        domain: Option<String>,
    },
    /// Show the pools of this host: VFs, and who holds them
    Pool {
        /// Only this one
        pool: Option<PoolName>,
    },
    /// Show every VF of this host: its pools, its place, its state and its owner
    #[command(long_about = INVENTORY)]
    Inventory,
    /// Look at the configuration
    #[command(subcommand)]
    Config(Config),
    /// Show how this host plugs VFs, whom its peers reach it as, and which libvirt it has
    Host,
    /// Change a pair's policy, at once, or its VLAN
    #[command(long_about = SET, after_help = SET_EXAMPLES)]
    Set(Set),
    /// Move the traffic to the standby and take the VFs out
    #[command(long_about = DRAIN)]
    Drain(Act),
    /// Plug VFs again after a drain
    Plug(Act),
    /// Save a domain's state to a file, with its VFs taken out before
    #[command(long_about = SAVE)]
    Save(Save),
    /// Save a domain's state where libvirt finds it at the next start, with its VFs taken out before
    #[command(long_about = SAVE)]
    Managedsave(Managedsave),
    /// Ask another host whether a domain would fit there, changing nothing
    #[command(long_about = CHECK, after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Have another host hold VFs for a domain that is to be migrated there
    #[command(long_about = RESERVE, after_help = RESERVE_EXAMPLES)]
    Reserve(Reserve),
    /// Migrate a domain, with progress
    #[command(long_about = MIGRATE, after_help = MIGRATE_EXAMPLES)]
    Migrate(Migrate),
    /// Show the phases of a domain's last starts, migrations, drains and plugs, with their milliseconds
    Timeline(Timeline),
    /// Write manual pages or shell completions, for packages
    #[command(hide = true)]
    Generate {
        /// Which
        what: Generated,
        /// Where to; it has to exist
        directory: PathBuf,
    },
}

/// `enable`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").required(true).args(["domain", "file"]))]
pub struct Enable {
    /// Name or UUID
    pub domain: Option<String>,
    /// Pool that the VF comes from; the same name on every host is the same network
    #[arg(long)]
    pub pool: PoolName,
    /// The interface; may be repeated. Without: the only virtio one
    #[arg(long)]
    pub mac: Vec<Mac>,
    /// How the pair uses its VF
    #[arg(long, value_enum, default_value = "hybrid")]
    pub flavor: FlavorArg,
    /// What to do where the pool has no free VF
    #[arg(long, value_enum, default_value = "prefer")]
    pub policy: PolicyArg,
    /// VLAN of both paths, 1-4094; untagged without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub vlan: Option<u16>,
    /// Keep an interface of type 'direct', or 'network' of a libvirt network with PFs, as it is: libvirt makes its macvtap,
    /// and hybond writes the destination's PF into the XML when the domain migrates or is restored
    #[arg(long)]
    pub keep_interface: bool,
    /// Leave it to the domain's XML how it gets its memory. Without, and where the XML does not say, all of it is got when the
    /// domain starts: a VF's plug needs all of it, and the guest would stand still meanwhile, for seconds where there is much
    #[arg(long)]
    pub keep_memory: bool,
    /// Print the new XML, without the domain's secrets, and change nothing
    #[arg(long)]
    pub print: bool,
    /// Read the XML from here ('-' is stdin) and print the new one; libvirt is not asked
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `disable`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").required(true).args(["domain", "file"]))]
pub struct Disable {
    /// Name or UUID
    pub domain: Option<String>,
    /// Print the new XML, without the domain's secrets, and change nothing
    #[arg(long)]
    pub print: bool,
    /// Read the XML from here ('-' is stdin) and print the new one; libvirt is not asked
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `set`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args(["policy", "vlan"]))]
pub struct Set {
    /// Name or UUID
    pub domain: String,
    /// The pair; all of the domain's without
    #[arg(long)]
    pub mac: Option<Mac>,
    /// What to do where the pool has no free VF
    #[arg(long, value_enum)]
    pub policy: Option<PolicyArg>,
    /// VLAN of both paths from the next start, 1-4094; 0 is untagged
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=4094))]
    pub vlan: Option<u16>,
    /// Stop waiting after so many seconds; hybondd goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
}

/// `save`.
#[derive(Debug, clap::Args)]
pub struct Save {
    /// Name or UUID
    pub domain: String,
    /// Where to, as libvirt sees it; 'virsh restore' takes it
    pub file: PathBuf,
    /// How.
    #[command(flatten)]
    pub how: SaveHow,
}

/// `managedsave`.
#[derive(Debug, clap::Args)]
pub struct Managedsave {
    /// Name or UUID
    pub domain: String,
    /// How.
    #[command(flatten)]
    pub how: SaveHow,
}

/// What both ways of saving have.
#[derive(Debug, clap::Args)]
pub struct SaveHow {
    /// Write past the host's cache
    #[arg(long)]
    pub bypass_cache: bool,
    /// The guest runs when it is restored, also if it is paused now
    #[arg(long, conflicts_with = "paused")]
    pub running: bool,
    /// The guest is paused when it is restored
    #[arg(long)]
    pub paused: bool,
    /// Cancel after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
}

/// `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Name or UUID
    pub domain: String,
    /// The other host, as its 'hybondctl host' names it: HOST or HOST:PORT
    #[arg(long, value_name = "HOST")]
    pub to: PeerAddr,
}

/// `reserve`.
#[derive(Debug, clap::Args)]
pub struct Reserve {
    /// Name or UUID
    pub domain: String,
    /// The other host, as its 'hybondctl host' names it: HOST or HOST:PORT
    #[arg(long, value_name = "HOST")]
    pub to: PeerAddr,
    /// How long they are held, at most a day
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub seconds: u64,
    /// Hold them no longer
    #[arg(long, conflicts_with = "seconds")]
    pub cancel: bool,
}

/// `drain` and `plug`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("whom").required(true).args(["domain", "all"]))]
pub struct Act {
    /// Name or UUID
    pub domain: Option<String>,
    /// Every domain of hybond's that runs on this host, several at a time
    #[arg(long)]
    pub all: bool,
    /// Stop waiting after so many seconds; hybondd goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
}

/// `migrate`.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// Name or UUID
    pub domain: String,
    /// libvirt's URI of the destination, as seen from here
    pub destination: String,
    /// The source's libvirt talks to the destination's by itself; the URI is then as seen from there
    #[arg(long)]
    pub p2p: bool,
    /// Make the domain persistent at the destination
    #[arg(long)]
    pub persistent: bool,
    /// Undefine the domain here afterwards
    #[arg(long)]
    pub undefinesource: bool,
    /// At most so many MiB/s
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub bandwidth: Option<u64>,
    /// Slow the guest down if it writes memory faster than it is copied
    #[arg(long)]
    pub auto_converge: bool,
    /// Copy memory over so many connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=255))]
    pub parallel: Option<i32>,
    /// Encrypt what QEMU sends to QEMU, with libvirt's certificates
    #[arg(long)]
    pub tls: bool,
    /// Copy the disks too; they have to exist at the destination
    #[arg(long)]
    pub copy_storage_all: bool,
    /// Where QEMU connects to, such as tcp://10.0.0.2; without, what the destination says
    #[arg(long, value_name = "URI")]
    pub migrateuri: Option<String>,
    /// Migrate even where libvirt deems the disks' caches unsafe
    #[arg(long = "unsafe")]
    pub force_unsafe: bool,
    /// Cancel after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
}

/// `timeline`.
#[derive(Debug, clap::Args)]
pub struct Timeline {
    /// Name or UUID
    pub domain: String,
    /// The last so many
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub last: u16,
    /// Write a picture of them as well
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say whether the configuration can be used, and what each pool has on this machine
    #[command(long_about = CONFIG_CHECK, after_help = CONFIG_CHECK_EXAMPLES)]
    Check(ConfigCheck),
}

/// `config check`.
#[derive(Debug, clap::Args)]
pub struct ConfigCheck {
    /// Which; without, /etc/hybond/hybond.toml
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The machine to look at, for tests
    #[arg(long, hide = true, value_name = "FOLDER", default_value = "/sys")]
    pub sysfs: PathBuf,
}

/// What `generate` writes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Generated {
    /// Manual pages
    Man,
    /// Completions for bash, zsh and fish
    Completions,
}

/// [`Policy`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PolicyArg {
    /// Run without: on the standby, and take a VF when one is free; 'indirect' runs on a PF
    Prefer,
    /// Refuse to start or migrate there
    Require,
    /// Run on the standby, until another policy is set
    Never,
}

/// [`Flavor`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FlavorArg {
    /// A VF in the guest, and a standby
    Hybrid,
    /// The standby alone, on a PF
    Virtual,
    /// The standby alone, over a VF that stays the host's
    Indirect,
}

impl From<FlavorArg> for Flavor {
    fn from(flavor: FlavorArg) -> Self {
        match flavor {
            FlavorArg::Hybrid => Self::Hybrid,
            FlavorArg::Virtual => Self::Virtual,
            FlavorArg::Indirect => Self::Indirect,
        }
    }
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Prefer => Self::Prefer,
            PolicyArg::Require => Self::Require,
            PolicyArg::Never => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
