//! What a user does with a hybrid guest beside migrating it, each test a story told on two namespaced hosts. Ignored by
//! `cargo test`, because they boot guests: `cargo test -p hybond-lab --test lives -- --ignored --test-threads=1`.

use anyhow::{Context, Result, ensure};
use hybond_lab::tier2::Node;
use hybond_lab::tier2_hybond::{
    BOOT, CLEAN, Daemon, Hybrid, POOL, PoolOn, boot_id, booted_again, configured, end, moved, nothing_is_left,
    on_its_vf, on_stage, same_vf,
};
use hybond_lab::{Machine, inventory};
use hybond_wire::agent::Path;

#[test]
#[ignore = "boots guests under TCG"]
fn a_guest_that_is_suspended_reset_or_rebooted_comes_back_on_its_vf() -> Result<()> {
    on_stage("lives-reset", |pair, _, daemons| {
        let src = pair.host("src");
        let mut guest = Hybrid::new("lively");
        guest.domain.restarts = true;
        guest.start(src)?;
        let first = on_its_vf(&guest, src)?;
        // All of its memory was there before its VF was plugged.
        src.ok("tr '\\0' '\\n' </proc/$(pgrep -f '[g]uest=lively')/cmdline | grep -q '\"prealloc\":true'")?;

        src.ok("virsh suspend lively")?;
        src.ok("virsh resume lively")?;
        ensure!(
            same_vf(&first, &on_its_vf(&guest, src)?),
            "another VF after suspend and resume"
        );

        let boot = boot_id(&guest, src)?;
        src.ok("virsh reset lively")?;
        let boot = booted_again(&guest, src, &boot)?;
        ensure!(same_vf(&first, &on_its_vf(&guest, src)?), "another VF after a reset");

        // The guest's own reboot: QEMU stays, as after a reset, but the guest's drivers have said goodbye.
        guest.guest.ok(src, "(sleep 1; reboot -f) >/dev/null 2>&1 &")?;
        booted_again(&guest, src, &boot)?;
        ensure!(same_vf(&first, &on_its_vf(&guest, src)?), "another VF after a reboot");

        end(src, &["lively"])?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn a_guest_that_is_destroyed_powers_off_or_crashes_leaves_nothing_and_starts_again_on_a_vf() -> Result<()> {
    on_stage("lives-ends", |pair, _, daemons| {
        let src = pair.host("src");
        let guest = Hybrid::new("mortal");
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        end(src, &["mortal"])?;

        guest.boot(src)?;
        on_its_vf(&guest, src)?;
        guest.guest.ok(src, "(sleep 1; poweroff -f) >/dev/null 2>&1 &")?;
        src.until("the domain's end", "virsh domstate mortal | grep -q 'shut off'", CLEAN)?;
        nothing_is_left(src)?;

        guest.boot(src)?;
        on_its_vf(&guest, src)?;
        src.ok("kill -KILL $(cat /run/libvirt/qemu/mortal.pid)")?;
        src.until("the domain's end", "virsh domstate mortal | grep -q 'shut off'", CLEAN)?;
        nothing_is_left(src)?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn a_guest_that_shall_have_no_vf_gives_it_back_migrates_on_its_standby_and_takes_one_when_it_may() -> Result<()> {
    on_stage("lives-policy", |pair, _, daemons| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        let guest = Hybrid::new("modest");
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        let boot = boot_id(&guest, src)?;

        src.ok("hybondctl set modest --policy never")?;
        let without = guest.wait_path(src, Path::Standby)?;
        ensure!(without.vf.is_none() && without.degraded.is_none(), "{without:?}");
        has_leased(src, &[])?;

        // What was set goes along: no VF is leased where it arrives.
        guest.moves(src, dst)?;
        let there = guest.wait_path(dst, Path::Standby)?;
        ensure!(there.vf.is_none() && there.degraded.is_none(), "{there:?}");
        has_leased(dst, &[])?;
        nothing_is_left(src)?;

        dst.ok("hybondctl set modest --policy prefer")?;
        let vf = on_its_vf(&guest, dst)?.vf.context("no VF")?.to_string();
        has_leased(dst, &[vf])?;
        ensure!(boot_id(&guest, dst)? == boot, "the guest has booted again");
        end(dst, &["modest"])?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn libvirtd_is_restarted_under_a_running_guest_which_stays_on_its_vf_and_migrates() -> Result<()> {
    on_stage("lives-libvirtd", |pair, _, daemons| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        let guest = Hybrid::new("steady");
        guest.start(src)?;
        let first = on_its_vf(&guest, src)?;
        let boot = boot_id(&guest, src)?;

        src.restart_libvirt()?;
        ensure!(
            same_vf(&first, &on_its_vf(&guest, src)?),
            "another VF after libvirtd's restart"
        );
        ensure!(boot_id(&guest, src)? == boot, "the guest has booted again");

        moved(&guest, src, dst)?;
        end(dst, &["steady"])?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn a_drained_guest_is_saved_and_restored_on_a_vf_and_renamed_when_it_is_off() -> Result<()> {
    on_stage("lives-saved", |pair, _, daemons| {
        let src = pair.host("src");
        let guest = Hybrid::new("before");
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        let boot = boot_id(&guest, src)?;

        src.ok("hybondctl drain before")?;
        guest.wait_path(src, Path::Standby)?;
        src.ok("virsh save before /root/before.save")?;
        nothing_is_left(src)?;
        src.ok("virsh restore /root/before.save")?;
        on_its_vf(&guest, src)?;
        ensure!(boot_id(&guest, src)? == boot, "the guest has booted again");

        src.ok("hybondctl drain before")?;
        src.ok("virsh destroy before")?;
        nothing_is_left(src)?;
        src.ok("virsh domrename before after")?;
        let guest = Hybrid::new("after");
        // Its console's log keeps the old name.
        src.ok("virsh start after")?;
        booted_again(&guest, src, &boot)?;
        on_its_vf(&guest, src)?;
        let shown = src.ok("hybondctl status")?;
        ensure!(shown.contains("after") && !shown.contains("before"), "{shown}");
        end(src, &["after"])?;
        src.ok("virsh undefine after")?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn where_no_vf_is_free_one_guest_waits_for_it_and_one_that_requires_it_does_not_start() -> Result<()> {
    on_stage("lives-last", |pair, _, [source, destination]| {
        let src = pair.host("src");
        // One VF in all.
        let one = [PoolOn {
            name: POOL,
            pfs: &src.pfs()[1..],
            vfs: 1,
        }];
        // Who waits for a VF is told that there is one: asking again is not what gets it.
        src.write_file(
            "/etc/hybond/hybond.d/patient.toml",
            b"[guest]\nretry_seconds = 3600\n",
            "644",
        )?;
        let source = configured(src, source, &one)?;

        let owner = Hybrid::numbered("owner", 1);
        owner.start(src)?;
        let owned = on_its_vf(&owner, src)?;

        let waiting = Hybrid::numbered("waiting", 2);
        waiting.start(src)?;
        let without = waiting.wait_path(src, Path::Standby)?;
        ensure!(without.vf.is_none() && !without.plugged, "{without:?}");
        let why = without.degraded.as_deref().unwrap_or_default();
        ensure!(why.contains("every VF of pool"), "{without:?}");
        pair.peer()
            .until("ping of the guest that waits", "ping -c 1 -W 2 10.88.0.51", CLEAN)?;

        let demanding = Hybrid::numbered("demanding", 3);
        demanding.define(src, &format!("--pool {POOL} --policy require"))?;
        let refused = src.run("virsh start demanding")?;
        eprintln!("refused: {}", refused.stderr.trim());
        ensure!(
            !refused.success() && refused.stderr.contains("hybond: ") && refused.stderr.contains("every VF of pool"),
            "{refused:?}"
        );

        src.ok("virsh destroy owner")?;
        let upgraded = waiting.wait_path(src, Path::Primary)?;
        ensure!(upgraded.vf == owned.vf && upgraded.degraded.is_none(), "{upgraded:?}");

        // The VF is still being given back when libvirt starts the next.
        src.ok("virsh destroy waiting; virsh start demanding")?;
        demanding.guest.wait_ready(src, BOOT)?;
        on_its_vf(&demanding, src)?;
        end(src, &["demanding"])?;
        source.stop()?;
        destination.stop()
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn a_domain_with_two_pairs_has_a_vf_of_each_pool_wherever_it_is() -> Result<()> {
    on_stage("lives-two", |pair, _, [source, destination]| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        let source = configured(src, source, &two_pools(src))?;
        let destination = configured(dst, destination, &two_pools(dst))?;

        let mut guest = Hybrid::new("double");
        guest.domain.nics.push(("52:54:00:aa:01:01".into(), String::new()));
        guest.define(src, &format!("--pool {POOL} --mac 52:54:00:aa:00:01"))?;
        src.ok("hybondctl enable double --pool dmz --mac 52:54:00:aa:01:01")?;
        guest.boot(src)?;
        // The guest's own configuration names its first NIC only: one that nobody sets up has no carrier on either path.
        guest.guest.ok(src, "ip link set eth1 up")?;
        each_pair_is_on_its_pf(&guest, src)?;

        for (from, to) in [(src, dst), (dst, src)] {
            guest.moves(from, to)?;
            each_pair_is_on_its_pf(&guest, to)?;
            nothing_is_left(from)?;
        }
        end(src, &["double"])?;
        source.stop()?;
        destination.stop()
    })
}

/// Pool `lan` on the first PF, `dmz` on the second.
fn two_pools(node: &Node) -> Vec<PoolOn<'_>> {
    let pool = |name, pfs| PoolOn { name, pfs, vfs: 2 };
    let (first, second) = node.pfs().split_at(1);
    vec![pool(POOL, first), pool("dmz", second)]
}

fn each_pair_is_on_its_pf(guest: &Hybrid, node: &Node) -> Result<()> {
    let pairs = guest.wait_paths(node, Path::Primary)?;
    let [first, second] = pairs.as_slice() else {
        anyhow::bail!("pairs: {pairs:?}");
    };
    for (pair, pool, pf) in [(first, POOL, node.pfs()[0]), (second, "dmz", node.pfs()[1])] {
        ensure!(
            pair.pool.as_str() == pool && pair.plugged && pair.pf.as_ref().is_some_and(|p| p.as_str() == pf),
            "{pair:?} should be on {pf}, of pool {pool}"
        );
        let below = node.ok(&format!("ip -o link show {}", pair.mac.standby_name()))?;
        ensure!(below.contains(&format!("@{pf}:")), "{below}");
    }
    Ok(())
}

/// Just these VFs of a host are leased, by its inventory.
fn has_leased(node: &Node, wanted: &[String]) -> Result<()> {
    let leased = inventory(node)?.into_iter().filter(|row| row.lease.is_some());
    let leased: Vec<String> = leased.map(|row| row.name.to_string()).collect();
    ensure!(leased == wanted, "leased on {}: {leased:?}", node.name());
    Ok(())
}
