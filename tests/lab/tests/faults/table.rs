//! Every fault that is known: what happens, what the user sees, what is tried again, and the test that shows it. What is done
//! here has its scenario beside it; the others name a test elsewhere.

use crate::scene::Scene;
use crate::{agent, arrival, copy, drain, host, several, ways};
use anyhow::Result;

/// Has a fault happen, and answers a figure. What every scenario must end with is looked at afterwards.
pub type Play = fn(&mut Scene<'_>) -> Result<String>;

/// What a user reads. "…" stands for what differs. Scenarios fail where it was not there to be read.
#[derive(Debug, Clone, Copy)]
pub enum Sight {
    /// From `virsh migrate`, with libvirt's words around it.
    Virsh(&'static str),
    /// From hybondctl.
    Hybondctl(&'static str),
    /// Of the pair, in `hybondctl status`.
    Status(&'static str),
    /// In hybondd's journal, on either host.
    Journal(&'static str),
    /// Something else, which the test sees to by itself.
    Otherwise(&'static str),
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Short.
    pub name: &'static str,
    /// What goes wrong, as a user would say it.
    pub what: &'static str,
    /// What hybond does about it.
    pub happens: &'static str,
    /// What is read, and where.
    pub sees: &'static [Sight],
    /// What is tried again, and by whom.
    pub retried: &'static str,
    /// Of this test.
    pub play: Option<Play>,
    /// Tests elsewhere, as `program::test`.
    pub tests: &'static [&'static str],
    /// Played in every run.
    pub short: bool,
}

use Sight::{Hybondctl, Journal, Otherwise, Status, Virsh};

const NOTHING: &str = "nothing";
const BY_USER: &str = "the migration, by the user";

const fn here(name: &'static str, play: Play) -> Fault {
    Fault {
        name,
        what: "",
        happens: "",
        sees: &[],
        retried: NOTHING,
        play: Some(play),
        tests: &[],
        short: false,
    }
}

/// All of them, in the order in which they are played: one that ends the guest goes before one that wants it off.
pub const TABLE: &[Fault] = &[
    Fault {
        what: "The guest ignores the unplug",
        happens: "After `unplug_seconds` the drain has failed: the migration is refused before memory is copied, the traffic goes back to the VF",
        sees: &[Virsh("the guest did not let go of VF … within … ms")],
        retried: BY_USER,
        short: true,
        ..here("unplug-ignored", drain::unplug_ignored)
    },
    Fault {
        what: "The guest lets go of its VF after the time-out",
        happens: "The VF is cleaned, and plugged again after `retry_seconds`",
        sees: &[Hybondctl("the guest did not let go of VF … within … ms")],
        retried: "the plug",
        ..here("unplug-late", drain::unplug_late)
    },
    Fault {
        what: "Other hosts' hook scripts: one that runs after hybond's refuses (`migrate`)",
        happens: "libvirt calls no hook any more: the source gives the guest its VF back when libvirt's job has ended, the destination's lease ends after `reservation_seconds`",
        sees: &[Virsh("no room here")],
        retried: BY_USER,
        ..here("other-hook-refuses-migrate", arrival::other_hook_refuses_migrate)
    },
    Fault {
        what: "The same, later (`prepare`)",
        happens: "The source gives the guest its VF back, the destination takes everything away at once",
        sees: &[Virsh("no room here")],
        retried: BY_USER,
        short: true,
        ..here("other-hook-refuses-prepare", arrival::other_hook_refuses_prepare)
    },
    Fault {
        what: "The destination lacks a file or a port that QEMU wants",
        happens: "The VF is gone by then; the guest gets it back on the source",
        sees: &[Virsh("vmlinuz")],
        retried: BY_USER,
        ..here("file-missing", arrival::file_missing)
    },
    Fault {
        what: "hybond is not installed on the destination",
        happens: "libvirt refuses, as the standby's macvtap is not there; the guest is not touched",
        sees: &[Virsh("target managed='no' but specified dev doesn't exist")],
        retried: BY_USER,
        ..here("destination-without-hybond", arrival::without_hybond)
    },
    Fault {
        what: "hybondd is down on the destination",
        happens: "The hook refuses; the guest is not touched",
        sees: &[Virsh("hybondd is not running on dst")],
        retried: BY_USER,
        short: true,
        ..here("destination-daemon-down", arrival::daemon_down)
    },
    Fault {
        what: "The destination's PFs are down",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("destination-pfs-down", arrival::pfs_down)
    },
    Fault {
        what: "`virsh domjobabort`, or Ctrl-C, while memory is copied",
        happens: "The guest runs on at the source, and gets its VF back",
        sees: &[Virsh("canceled by client")],
        retried: BY_USER,
        short: true,
        ..here("copy-aborted", copy::aborted)
    },
    Fault {
        what: "The destination's QEMU is killed while memory is copied",
        happens: "The guest runs on at the source, and gets its VF back",
        sees: &[],
        retried: BY_USER,
        short: true,
        ..here("destination-qemu-killed", copy::destination_qemu_killed)
    },
    Fault {
        what: "The source's libvirtd dies while memory is copied",
        happens: "",
        sees: &[],
        retried: BY_USER,
        short: true,
        ..here("source-libvirtd-killed", copy::source_libvirtd_restarted)
    },
    Fault {
        what: "The destination's libvirtd dies while memory is copied",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("destination-libvirtd-killed", copy::destination_libvirtd_restarted)
    },
    Fault {
        what: "The link between the hosts is cut while memory is copied",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("copy-link-cut", copy::link_cut)
    },
    Fault {
        what: "The link between the hosts is cut during the drain",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("drain-link-cut", drain::link_cut)
    },
    Fault {
        what: "Ctrl-C on `virsh migrate` during the drain",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("drain-given-up", drain::given_up)
    },
    Fault {
        what: "The guest is paused during the drain",
        happens: "",
        sees: &[Virsh("the guest did not let go of VF … within … ms")],
        retried: BY_USER,
        ..here("guest-paused", drain::guest_paused)
    },
    Fault {
        what: "The guest's agent is not there",
        happens: "",
        sees: &[Virsh(
            "hybond-agent does not answer in the guest; start it there and try again",
        )],
        retried: BY_USER,
        ..here("agent-absent", agent::absent)
    },
    Fault {
        what: "The guest's agent hangs",
        happens: "",
        sees: &[Virsh("the agent did not …over pair … within 15s")],
        retried: BY_USER,
        ..here("agent-hung", agent::hung)
    },
    Fault {
        what: "The guest's agent dies during a drain",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("agent-killed-in-drain", agent::killed_during_a_drain)
    },
    Fault {
        what: "The guest's agent dies",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("agent-killed", agent::killed_on_its_vf)
    },
    Fault {
        what: "p2p",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("peer-to-peer", ways::peer_to_peer)
    },
    Fault {
        what: "tunnelled",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("tunnelled", ways::tunnelled)
    },
    Fault {
        what: "undefinesource",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("undefined-at-the-source", ways::undefined_at_the_source)
    },
    Fault {
        what: "xml",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("with-xml", ways::with_xml)
    },
    Fault {
        what: "timeout-suspend",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("suspended-after-a-time-out", ways::suspended_after_a_time_out)
    },
    Fault {
        what: "postcopy",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("postcopy", ways::postcopy)
    },
    Fault {
        what: "VF unplugged by somebody",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("vf-unplugged", host::vf_unplugged)
    },
    Fault {
        what: "state full",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("source-state-full", host::source_state_full)
    },
    Fault {
        what: "state read-only",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("destination-state-read-only", host::destination_state_read_only)
    },
    Fault {
        what: "both",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("both-directions", several::both_directions)
    },
    Fault {
        what: "last vf",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("last-vf", several::last_vf)
    },
    Fault {
        what: "never an agent",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("agent-never-there", agent::never_there)
    },
    Fault {
        what: "reboot",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("guest-reboots", drain::guest_reboots)
    },
    Fault {
        what: "source QEMU killed during the drain",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("drain-qemu-killed", drain::qemu_killed)
    },
    Fault {
        what: "offline",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("offline", ways::offline)
    },
    Fault {
        what: "source QEMU killed during the copy",
        happens: "",
        sees: &[],
        retried: BY_USER,
        ..here("source-qemu-killed", copy::source_qemu_killed)
    },
];
