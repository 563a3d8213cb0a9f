//! Every fault that is known: what happens, what the user sees, what is tried again, and the test that shows it. What is done
//! here has its scenario beside it; the others name a test elsewhere.

use crate::fault::Part::{Destination, Drain, Guest, Host, Memory, Peers, Several, Ways};
use crate::fault::Sight::{Hybondctl, Otherwise, Status, Virsh};
use crate::fault::{Fault, NOTHING, Sight, elsewhere, here};
use crate::{agent, arrival, copy, drain, guard, host, several, ways};

/// Where whole hosts are needed.
const BEFALLEN: &[&str] = &["tier3::a_hybrid_guest_is_well_or_off_whatever_befalls_its_hosts"];

const BY_USER: &str = "the migration, by the user";
const BACK: &str = "the VF is plugged again on the source; the migration, by the user";
const SUCCEEDS: &[Sight] = &[Otherwise("success")];

/// All of them: first those of this test, in the order in which they are played, one that ends the guest before one that wants
/// it off.
pub const TABLE: &[Fault] = &[
    Fault {
        what: "The guest ignores the unplug",
        happens: "After `unplug_seconds` the drain has failed: the migration is refused, the traffic goes back to the VF, which is still plugged",
        sees: &[Virsh("the guest did not let go of VF … within … ms")],
        retried: "the failback; the migration, by the user",
        short: true,
        ..here(Drain, "unplug-ignored", drain::unplug_ignored)
    },
    Fault {
        what: "The guest lets go of its VF after the time-out",
        happens: "The VF is cleaned, and plugged again",
        sees: &[Hybondctl("the guest did not let go of VF … within … ms")],
        retried: "the plug, after `retry_seconds`",
        ..here(Drain, "unplug-late", drain::unplug_late)
    },
    Fault {
        what: "Another hook script refuses after hybond's (`prepare`)",
        happens: "The VF is out of the guest by then: the source plugs it again when libvirt's job has ended, the destination takes everything away at once",
        sees: &[Virsh("no room here")],
        retried: BACK,
        short: true,
        ..here(
            Destination,
            "other-hook-refuses-prepare",
            arrival::other_hook_refuses_prepare,
        )
    },
    Fault {
        what: "Another hook script refuses after hybond's (`migrate`); the migration never comes",
        happens: "As above at the source. libvirt calls no hook any more at the destination: its lease ends after `reservation_seconds`",
        sees: &[Virsh("no room here")],
        retried: BACK,
        ..here(
            Destination,
            "other-hook-refuses-migrate",
            arrival::other_hook_refuses_migrate,
        )
    },
    Fault {
        what: "The destination's QEMU does not start: a file, a port or a disk is missing",
        happens: "The source plugs the VF again when libvirt's job has ended; the destination takes everything away",
        sees: &[Virsh("vmlinuz")],
        retried: BACK,
        ..here(Destination, "file-missing", arrival::file_missing)
    },
    Fault {
        what: "hybond is not installed on the destination",
        happens: "libvirt refuses, as there is no macvtap for the standby; the guest stays on its VF",
        sees: &[Virsh("target managed='no' but specified dev doesn't exist")],
        retried: BY_USER,
        ..here(Destination, "destination-without-hybond", arrival::without_hybond)
    },
    Fault {
        what: "hybondd is down on the destination",
        happens: "The hook refuses; the guest stays on its VF",
        sees: &[Virsh("hybondd is not running on dst")],
        retried: BY_USER,
        short: true,
        ..here(Destination, "destination-daemon-down", arrival::daemon_down)
    },
    Fault {
        what: "The destination's PFs are down",
        happens: "The hook refuses; the guest stays on its VF",
        sees: &[Virsh(
            "is down, so nothing can be put over it; `ip link set … up` mends it",
        )],
        retried: BY_USER,
        ..here(Destination, "destination-pfs-down", arrival::pfs_down)
    },
    Fault {
        what: "`virsh domjobabort`, or Ctrl-C on `virsh migrate`",
        happens: "The guest runs on at the source, where its VF is plugged again",
        sees: &[Virsh("canceled by client")],
        retried: BACK,
        short: true,
        ..here(Memory, "copy-aborted", copy::aborted)
    },
    Fault {
        what: "The destination's QEMU is killed",
        happens: "The guest runs on at the source, where its VF is plugged again",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: BACK,
        short: true,
        ..here(Memory, "destination-qemu-killed", copy::destination_qemu_killed)
    },
    Fault {
        what: "The source's libvirtd is killed, and starts again",
        happens: "libvirt ends the migration when it is back; the VF is plugged again",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: BACK,
        ..here(Memory, "source-libvirtd-killed", copy::source_libvirtd_restarted)
    },
    Fault {
        what: "The destination's libvirtd is killed, and starts again",
        happens: "The source ends the migration, and its VF is plugged again; the destination takes everything away when libvirt is back",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: BACK,
        ..here(
            Memory,
            "destination-libvirtd-killed",
            copy::destination_libvirtd_restarted,
        )
    },
    Fault {
        what: "The link between the hosts is cut",
        happens: "libvirt gives the destination up, whose QEMU ends, after half a minute; the source's QEMU knows when the link is back, or TCP gives up. The guest runs on its standby until then, and gets its VF back",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: BACK,
        ..here(Memory, "copy-link-cut", copy::link_cut)
    },
    Fault {
        what: "The link between the hosts is cut during a drain",
        happens: "The destination gives the source up after 8 s, and takes everything away; the source's drain fails as nobody waits for it, or with libvirt's job, and the guest is on its VF",
        sees: &[Virsh("has been silent for … s; it is down, or the network between is")],
        retried: BACK,
        ..here(Drain, "drain-link-cut", drain::link_cut)
    },
    Fault {
        what: "Ctrl-C on `virsh migrate` during a drain",
        happens: "Until QEMU begins, libvirt has nothing to abort: the drain goes on to its end. If it fails, the guest is on its VF",
        sees: &[Virsh("the guest did not let go of VF … within … ms")],
        retried: BY_USER,
        ..here(Drain, "drain-given-up", drain::given_up)
    },
    Fault {
        what: "The guest is paused during a drain",
        happens: "Nobody in it can let go: the drain fails at its time-out. libvirt lets the guest run again, as the migration has failed, and it is on its VF",
        sees: &[Virsh("the guest did not let go of VF … within … ms")],
        retried: "the failback, when it runs; the migration, by the user",
        ..here(Drain, "guest-paused", drain::guest_paused)
    },
    Fault {
        what: "The agent is not there when the guest is to migrate",
        happens: "The migration is refused; the guest stays on its VF",
        sees: &[Virsh(
            "hybond-agent does not answer in the guest; start it there and try again",
        )],
        retried: BY_USER,
        ..here(Guest, "agent-absent", agent::absent)
    },
    Fault {
        what: "The agent hangs",
        happens: "The failover fails after 15 s, and the migration is refused; the guest stays on its VF, and is moved back where it obeys late",
        sees: &[Virsh("the agent did not fail over pair … within 15s")],
        retried: "the failback; the migration, by the user",
        ..here(Guest, "agent-hung", agent::hung)
    },
    Fault {
        what: "The agent dies, and its keeper starts it again",
        happens: "The bond stays, and the traffic on the VF; the next agent takes it over",
        sees: &[Otherwise("nothing")],
        retried: NOTHING,
        short: true,
        ..here(Guest, "agent-killed", agent::killed_on_its_vf)
    },
    Fault {
        what: "The agent dies while the guest is drained",
        happens: "The drain goes on without it",
        sees: &[Otherwise("success")],
        retried: NOTHING,
        ..here(Guest, "agent-killed-in-drain", agent::killed_during_a_drain)
    },
    Fault {
        what: "`--p2p`",
        happens: "As a plain migration",
        sees: SUCCEEDS,
        retried: NOTHING,
        short: true,
        ..here(Ways, "peer-to-peer", ways::peer_to_peer)
    },
    Fault {
        what: "`--p2p --tunnelled`",
        happens: "As a plain migration",
        sees: SUCCEEDS,
        retried: NOTHING,
        ..here(Ways, "tunnelled", ways::tunnelled)
    },
    Fault {
        what: "`--persistent --undefinesource`",
        happens: "As a plain migration; the source does not know the domain any more",
        sees: SUCCEEDS,
        retried: NOTHING,
        ..here(Ways, "undefined-at-the-source", ways::undefined_at_the_source)
    },
    Fault {
        what: "`--xml FILE`",
        happens: "As a plain migration, with what the file changes",
        sees: SUCCEEDS,
        retried: NOTHING,
        ..here(Ways, "with-xml", ways::with_xml)
    },
    Fault {
        what: "`--timeout N --timeout-suspend`, and the copy takes longer",
        happens: "The guest is stopped at the source, and runs on its VF at the destination",
        sees: SUCCEEDS,
        retried: NOTHING,
        ..here(Ways, "suspended-after-a-time-out", ways::suspended_after_a_time_out)
    },
    Fault {
        what: "`--postcopy --postcopy-after-precopy`",
        happens: "The guest runs at the destination before its memory is there, on its standby; the VF comes when all pages have",
        sees: SUCCEEDS,
        retried: NOTHING,
        ..here(Ways, "postcopy", ways::postcopy)
    },
    Fault {
        what: "A migration that no hook has announced begins with the VF plugged: the destination has a macvtap for it and no hybond",
        happens: "The guard cancels it; the guest runs on, on its VF",
        sees: &[
            Virsh("canceled by client"),
            Otherwise("journal: a migration with a VF plugged was cancelled, and what to look at"),
        ],
        retried: BY_USER,
        tests: &[
            "qmp::a_migration_with_a_primary_plugged_is_called_off",
            "qmp::a_daemon_that_starts_in_the_middle_calls_it_off_too",
            "races::a_migration_that_no_hook_announces_leaves_the_vf_where_it_is",
            "tier3::a_hybrid_guest_migrates_or_keeps_its_vf",
        ],
        ..here(Memory, "unannounced", guard::migration)
    },
    Fault {
        what: "`virsh save` or `virsh managedsave` with the VF plugged",
        happens: "The guard cancels it; the guest runs on, on its VF, and no file is left",
        sees: &[
            Virsh("canceled by client"),
            Otherwise("journal: a save with a VF plugged was cancelled, and what to use instead"),
        ],
        retried: "`hybondctl save`, by the user",
        short: true,
        ..here(Memory, "plain-save", guard::save)
    },
    Fault {
        what: "A save of a guest that cannot be drained: it ignores the unplug, its agent hangs or is away, it is paused",
        happens: "`hybondctl save` and `managedsave` do not begin; a `virsh save` at the same time is cancelled as above",
        sees: &[Hybondctl("the guest did not let go of VF … within … ms")],
        retried: "the failback; the save, by the user",
        ..here(Memory, "save-undrained", guard::save_while_the_drain_is_prevented)
    },
    Fault {
        what: "`virsh dump` with the VF plugged",
        happens: "The guard cancels it. With `--memory-only` it goes on: QEMU writes it for a debugger, and no guest is ever started from it",
        sees: &[Virsh("canceled by client")],
        retried: "after `hybondctl drain`, or with `--memory-only`, by the user",
        ..here(Memory, "plain-dump", guard::dump)
    },
    Fault {
        what: "An external snapshot with memory (`--memspec`) with the VF plugged",
        happens: "The guard cancels it; one of the disks alone goes on untouched",
        sees: &[Virsh("canceled by client")],
        retried: "after `hybondctl drain`, by the user",
        tests: &["snapshots::an_external_snapshot_of_the_disks_goes_on_untouched"],
        ..here(Memory, "external-snapshot", guard::external_snapshot)
    },
    Fault {
        what: "An internal snapshot is taken with a VF plugged",
        happens: "It cannot be prevented; it is told",
        sees: &[Otherwise("journal: the snapshot's memory cannot be trusted; delete it")],
        retried: "after `hybondctl drain`, by the user",
        tests: &["snapshots::an_internal_snapshot_with_a_vf_plugged_is_not_kept_secret"],
        ..here(Memory, "internal-snapshot", guard::internal_snapshot)
    },
    Fault {
        what: "Somebody else unplugs the VF",
        happens: "The traffic goes to the standby; the VF is cleaned and plugged again",
        sees: &[Otherwise("`hybondctl timeline`: the plug")],
        retried: "the plug, after `retry_seconds`",
        ..here(Host, "vf-unplugged", host::vf_unplugged)
    },
    Fault {
        what: "The file system of hybond's state is full on the source",
        happens: "Nothing is done that could not be written down before: the drain fails, the guest stays on its VF",
        sees: &[Virsh("the file system is full")],
        retried: BY_USER,
        ..here(Host, "source-state-full", host::source_state_full)
    },
    Fault {
        what: "Two guests migrate in opposite directions at a time",
        happens: "Both arrive on a VF",
        sees: SUCCEEDS,
        retried: NOTHING,
        ..here(Several, "both-directions", several::both_directions)
    },
    Fault {
        what: "Two guests come for the last VF",
        happens: "One has it, the other runs on its standby",
        sees: &[Status("every VF of pool")],
        retried: "the lease, every `retry_seconds`: a VF that is freed goes to who waits",
        ..here(Several, "last-vf", several::last_vf)
    },
    Fault {
        what: "The guest has never had an agent",
        happens: "It is on its standby, and migrates so",
        sees: &[Otherwise("`hybondctl status`: the pair has no primary plugged")],
        retried: "the plug, when an agent says hello",
        ..here(Guest, "agent-never-there", agent::never_there)
    },
    Fault {
        what: "The guest reboots during a drain",
        happens: "The reset ends the unplug: the migration goes on, the guest boots on the way and gets a VF at the destination",
        sees: &[Otherwise("success")],
        retried: NOTHING,
        ..here(Drain, "guest-reboots", drain::guest_reboots)
    },
    Fault {
        what: "The guest's kernel panics during a drain, and boots again",
        happens: "As where it reboots",
        sees: &[Otherwise("success")],
        retried: NOTHING,
        ..here(Drain, "drain-guest-panics", drain::guest_panics)
    },
    Fault {
        what: "The source's libvirtd is killed during a drain, and starts again",
        happens: "virsh fails at once. The drain goes on to its end; if it fails, or no migration follows, the guest is on its VF",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: BACK,
        ..here(Drain, "drain-source-libvirtd-killed", drain::source_libvirtd_restarted)
    },
    Fault {
        what: "The destination's libvirtd is killed during a drain, and starts again",
        happens: "As above; the destination takes everything away when its hook has ended",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: BACK,
        ..here(
            Drain,
            "drain-destination-libvirtd-killed",
            drain::destination_libvirtd_restarted,
        )
    },
    Fault {
        what: "QEMU is killed during a drain",
        happens: "The domain is off; the VF is cleaned and given back, the destination takes everything away",
        // libvirt does not hear of the end before its hook has answered, nor does hybondd from libvirt.
        sees: &[Virsh("the drain did not end within")],
        retried: "the start, by the user",
        ..here(Drain, "drain-qemu-killed", drain::qemu_killed)
    },
    Fault {
        what: "`--offline`, of a domain that is off",
        happens: "Its definition moves; its first start there makes the standby and takes a VF",
        sees: SUCCEEDS,
        retried: NOTHING,
        ..here(Ways, "offline", ways::offline)
    },
    Fault {
        what: "The destination fails in libvirt's last step (Finish): the domain's definition cannot be written there",
        happens: "libvirt ends the guest at the destination before it runs; it runs on at the source, where its VF is plugged again",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: BACK,
        ..here(Memory, "finish-fails", copy::finish_fails)
    },
    Fault {
        what: "QEMU is killed on the source",
        happens: "The domain is off; nothing is left on either host",
        sees: &[Otherwise("virsh: libvirt's own words")],
        retried: "the start, by the user",
        ..here(Memory, "source-qemu-killed", copy::source_qemu_killed)
    },
    Fault {
        what: "No VF is free, and the policy is `require`",
        happens: "The hook refuses before the source is asked",
        sees: &[Otherwise(
            "virsh: every VF of the pool is leased, and the policy of the pair is “require”",
        )],
        retried: BY_USER,
        ..elsewhere(
            Destination,
            "no-vf-required",
            &[
                "races::of_two_that_require_the_last_vf_one_stays_where_it_has_one",
                "tier3::a_hybrid_guest_migrates_or_keeps_its_vf",
            ],
        )
    },
    Fault {
        what: "hybondd is down on the source",
        happens: "The hook at the destination refuses; the guest stays on its VF",
        sees: &[Otherwise("virsh: no hybondd answers at SOURCE, TCP port 16515")],
        retried: BY_USER,
        ..elsewhere(
            Drain,
            "source-daemon-away",
            &[
                "tier2::a_hybrid_guest_moves_between_the_namespaced_hosts",
                "tier3::a_hybrid_guest_migrates_or_keeps_its_vf",
            ],
        )
    },
    Fault {
        what: "The standby cannot be made ready for the traffic",
        happens: "The drain fails, and nothing is unplugged",
        sees: &[Otherwise("virsh: what cannot be done to the macvtap, and why")],
        retried: "the standby, after `retry_seconds`; the migration, by the user",
        ..elsewhere(
            Drain,
            "failover-fails",
            &[
                "hybond_core::a_drain_fails_where_the_standby_cannot_be_made_ready_and_the_guest_stays_on_its_vf",
                "hybond_core::a_standby_that_is_down_is_raised_before_the_vf_goes",
            ],
        )
    },
    Fault {
        what: "The guest throws its VF out, or leaves it again and again",
        happens: "The VF is cleaned and plugged again, the traffic switched back, at most once each `retry_seconds`",
        sees: &[Otherwise("`hybondctl timeline`: each of them")],
        retried: "the plug, the failback",
        ..elsewhere(
            Guest,
            "guest-throws-vf-out",
            &[
                "hybond_core::a_vf_that_the_guest_throws_out_is_cleaned_and_comes_back_later",
                "hybond_core::a_guest_that_leaves_its_vf_time_and_again_is_switched_at_our_pace",
            ],
        )
    },
    Fault {
        what: "The agent is of another release than the hosts",
        happens: "Both go on with the lower of their protocol's versions. One that speaks version 0 counts as none",
        sees: &[Otherwise("journal: the agent's release, or that it speaks version 0")],
        retried: NOTHING,
        ..elsewhere(
            Guest,
            "agent-of-another-release",
            &["channel::an_agent_of_another_release_is_spoken_to_in_the_lower_version_and_one_of_version_0_is_none"],
        )
    },
    Fault {
        what: "The guest is reset, reboots, is suspended and resumed",
        happens: "The VF stays plugged; the traffic is on it again when the agent has started",
        sees: &[Otherwise("nothing")],
        retried: NOTHING,
        ..elsewhere(
            Guest,
            "guest-resets",
            &["lives::a_guest_that_is_suspended_reset_or_rebooted_comes_back_on_its_vf"],
        )
    },
    Fault {
        what: "The guest powers off or is destroyed, its QEMU is killed",
        happens: "The VF is cleaned and given back, the macvtap removed",
        sees: &[Otherwise("libvirt's own words")],
        retried: "the start, by the user",
        ..elsewhere(
            Guest,
            "guest-ends",
            &[
                "lives::a_guest_that_is_destroyed_powers_off_or_crashes_leaves_nothing_and_starts_again_on_a_vf",
                "hybond_core::a_crashed_guest_that_libvirt_keeps_keeps_what_it_has",
            ],
        )
    },
    Fault {
        what: "The guest sends its host whatever it likes, as fast as it can",
        happens: "It is bounded, and concerns the guest's own pair only; [security.md](security.md)",
        sees: &[Otherwise("journal: a line at most once a minute")],
        retried: NOTHING,
        ..elsewhere(
            Guest,
            "agent-hostile",
            &[
                "flood::garbage_is_read_slowly_and_mentioned_once",
                "many::fifty_guests_are_served_beside_one_that_floods_which_costs_a_bounded_amount",
                "tier1::a_guest_keeps_its_path_when_the_guard_acts_and_when_its_agent_dies",
            ],
        )
    },
    Fault {
        what: "A plain `virsh migrate` where VFs can be plugged through libvirt only",
        happens: "libvirt refuses before anything is done; `hybondctl migrate` drains first",
        sees: &[Otherwise("virsh: VFIO migration is not supported")],
        retried: "`hybondctl migrate`, by the user",
        ..elsewhere(
            Ways,
            "plugged-through-libvirt",
            &[
                "tier3::a_hybrid_guest_is_migrated_by_hybondctl_where_vfs_are_plugged_through_libvirt",
                "libvirt::a_failed_migration_puts_the_vf_back_where_it_had_to_be_drained",
            ],
        )
    },
    Fault {
        what: "The destination has not the memory that the guest wants",
        happens: "The kernel there ends the guest's new QEMU before anything is copied; the guest stays on the source and gets its \
                  VF back",
        sees: &[Otherwise("virsh: libvirt's own words, of a QEMU that has ended")],
        retried: BACK,
        ..elsewhere(Destination, "destination-lacks-memory", BEFALLEN)
    },
    Fault {
        what: "The destination loses its power while memory is copied",
        happens: "The guest runs on at the source, on its standby; its VF is plugged again when libvirt's job has ended. The \
                  destination has nothing of it when it has booted",
        sees: &[Otherwise("virsh: libvirt's own words, after half a minute at most")],
        retried: BACK,
        ..elsewhere(Memory, "destination-power-lost", BEFALLEN)
    },
    Fault {
        what: "The source loses its power while memory is copied",
        happens: "The guest ends with its host. The destination ends what cannot arrive, and takes everything away; the source \
                  has nothing of it when it has booted",
        sees: &[Otherwise("nothing: virsh has ended with its host")],
        retried: "the start, by the user",
        ..elsewhere(Memory, "source-power-lost", BEFALLEN)
    },
    Fault {
        what: "The VFs of a PF are taken away under a guest (`sriov_numvfs`), and come back",
        happens: "The kernel has the guest let go of its VF: the traffic goes over the standby, the lease is given back. When \
                  VFs are there again, it gets one of them",
        sees: &[Otherwise("`hybondctl status`: why no VF can be had")],
        retried: "the lease, as soon as VFs come",
        ..elsewhere(Host, "vfs-taken-away", BEFALLEN)
    },
    Fault {
        what: "The driver of a PF is reloaded under a guest",
        happens: "The macvtap of the standby goes with the PF, and no other can be given to a running QEMU. The guest is cut off until \
                  its PF has VFs again, and is then on one of them; it is not drained, as it has no other path",
        sees: &[Otherwise(
            "journal, `hybondctl status`, virsh: its macvtap is gone; the guest is to be shut down and started again",
        )],
        retried: "the lease, as soon as VFs come; the start, by the user",
        ..elsewhere(
            Host,
            "pf-driver-reloaded",
            &[
                "tier3::a_hybrid_guest_is_well_or_off_whatever_befalls_its_hosts",
                "hybond_core::without_a_standby_a_guest_keeps_its_vf_and_nothing_is_tried_for_ever",
            ],
        )
    },
    Fault {
        what: "The clocks of the hosts are set back",
        happens: "Nothing waits longer or shorter: time-outs are of the time since the boot. Times in `hybondctl timeline` are \
                  those of the clock",
        sees: &[Otherwise("nothing")],
        retried: NOTHING,
        ..elsewhere(Host, "clock-set-back", BEFALLEN)
    },
    Fault {
        what: "hybondd or its host dies while a record is written; a record is damaged",
        happens: "A record is the old one or the new one; a damaged one is set aside, and what is there is looked up",
        sees: &[Otherwise("journal: which file was set aside")],
        retried: NOTHING,
        ..elsewhere(
            Host,
            "state-damaged",
            &[
                "crash::a_full_disk_keeps_the_old_record",
                "crash::a_disk_without_inodes_keeps_the_old_record",
                "crash::a_killed_writer_leaves_the_last_record_or_the_next_and_no_litter",
                "journal::a_damaged_record_is_set_aside_and_the_others_are_read",
                "journal::a_record_of_a_newer_release_is_refused_and_left_alone",
            ],
        )
    },
    Fault {
        what: "hybondd dies, on either host, before or after any effect of any operation",
        happens: "Started again, it looks, and goes on; a hook that lost it has refused",
        sees: &[Otherwise(
            "virsh, of a hook that waited: hybondd has closed the connection",
        )],
        retried: "what was under way, by hybondd; a refused start or migration, by the user",
        ..elsewhere(
            Host,
            "daemon-dies",
            &[
                "crash::a_daemon_that_dies_at_any_point_leaves_a_guest_on_the_network_and_nothing_else",
                "crash_points::a_crash_at_any_point_harms_nothing",
                "exhaustive::wherever_either_daemon_crashes_the_invariants_hold",
            ],
        )
    },
    Fault {
        what: "libvirtd restarts under a running guest",
        happens: "The guest stays on its VF",
        sees: &[Otherwise("nothing")],
        retried: NOTHING,
        ..elsewhere(
            Host,
            "libvirtd-restarts",
            &[
                "lives::libvirtd_is_restarted_under_a_running_guest_which_stays_on_its_vf_and_migrates",
                "hybond_core::a_restart_of_libvirt_changes_nothing",
            ],
        )
    },
    Fault {
        what: "hybondd hangs while libvirt's hook waits for it",
        happens: "The hook refuses at its deadline; other domains are not held up",
        sees: &[Otherwise("virsh: hybondd has not answered, and what to look at")],
        retried: BY_USER,
        ..elsewhere(
            Host,
            "hook-deadline",
            &[
                "hook::a_daemon_that_says_nothing_is_waited_for_no_longer_than_the_deadline",
                "hook::a_full_backlog_does_not_hold_the_hook",
                "hook::without_a_daemon_a_hybrid_domain_goes_nowhere_and_the_way_out_is_named",
            ],
        )
    },
    Fault {
        what: "Many guests come and go",
        happens: "A VF has one holder, whoever has waited longest is next",
        sees: &[Otherwise("`hybondctl pool`: who has what, and who waits")],
        retried: "the lease, every `retry_seconds`",
        ..elsewhere(
            Several,
            "many",
            &[
                "soak::guests_go_back_and_forth_and_each_standby_is_on_the_pf_of_its_vf",
                "races::freed_vfs_go_to_who_has_waited_longest",
            ],
        )
    },
    Fault {
        what: "A message between the daemons is lost, late, repeated, or of an earlier migration",
        happens: "The migration is refused, or goes on; no later one passes for it",
        sees: &[Otherwise("virsh: the source did not answer, and what to look at")],
        retried: BACK,
        ..elsewhere(
            Peers,
            "messages",
            &[
                "exhaustive::whatever_message_is_lost_or_repeated_and_wherever_libvirt_fails_the_invariants_hold",
                "schedules::the_invariants_hold_whatever_happens",
                "races::answers_of_an_earlier_migration_let_no_later_one_pass",
            ],
        )
    },
    Fault {
        what: "The other daemon goes silent",
        happens: "It is given up after 8 s without a sign of life",
        sees: &[Otherwise(
            "virsh: SOURCE has been silent for 8 s; it is down, or the network between is",
        )],
        retried: BACK,
        ..elsewhere(
            Peers,
            "silence",
            &[
                "slow::an_authenticated_peer_cannot_send_without_end_nor_wait_without_end",
                "conversation::silence_and_slowness_are_told_apart",
                "conversation::a_peer_that_goes_away_is_noticed_while_the_daemon_works",
            ],
        )
    },
    Fault {
        what: "A certificate has expired, was revoked, is of another host or authority",
        happens: "The connection is refused, and with it the migration; the guest stays on its VF",
        sees: &[Otherwise("virsh: which certificate, and why")],
        retried: BY_USER,
        ..elsewhere(
            Peers,
            "certificates",
            &[
                "certificates::certificates_past_their_end_are_refused",
                "certificates::a_revoked_certificate_is_refused",
                "certificates::a_server_with_another_name_is_refused",
                "tier3::a_hybrid_guest_migrates_or_keeps_its_vf",
            ],
        )
    },
];
