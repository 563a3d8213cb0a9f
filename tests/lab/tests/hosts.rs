//! What a host is and does around its hybrid guests: the names of its PFs, its reboot, how it keeps its QEMUs apart. Ignored
//! by `cargo test`, because they boot guests: `cargo test -p hybond-lab --test hosts -- --ignored --test-threads=1`.

use anyhow::{Result, ensure};
use hybond_lab::Machine;
use hybond_lab::tier2::Node;
use hybond_lab::tier2_hybond::{
    CLEAN, Daemon, Hybrid, POOL, boot_id, end, moved, nothing_is_left, on_its_vf, on_stage,
};
use std::time::Duration;

/// Guests are saved and started again one after the other.
const GUESTS: Duration = Duration::from_secs(300);

#[test]
#[ignore = "boots guests under TCG"]
fn after_a_migration_the_persistent_xml_names_the_destinations_pf() -> Result<()> {
    on_stage("hosts-persistent", |pair, _, daemons| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        // Its interface stays of type 'direct', so its XML names a PF; no PF of one host has the name of one of the other.
        let guest = Hybrid::new("settler");
        guest.define(src, &format!("--pool {POOL} --keep-interface"))?;
        guest.boot(src)?;
        on_its_vf(&guest, src)?;
        ensure!(
            sources(src, "settler", "--inactive")? == src.pfs()[0],
            "as it was defined"
        );

        guest.moves(src, dst)?;
        let there = on_its_vf(&guest, dst)?;
        let pf = there.pf.as_ref().map(|pf| pf.as_str()).unwrap_or_default();
        ensure!(sources(dst, "settler", "")? == pf, "the standby of the running guest");
        let named = format!("virsh dumpxml --inactive settler | grep -F \"<source dev='{pf}'\"");
        dst.until("this host's PF in the persistent XML", &named, CLEAN)?;

        // The definition is good for a start of its own, in which nobody rewrites it.
        end(dst, &["settler"])?;
        ensure!(sources(dst, "settler", "--inactive")? == pf, "kept at the guest's end");
        dst.ok("virsh start settler")?;
        end(dst, &["settler"])?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

#[test]
#[ignore = "brings two hosts up"]
fn further_names_of_pfs_come_and_go_with_a_reload() -> Result<()> {
    on_stage("hosts-alias", |pair, _, [source, destination]| {
        let src = pair.host("src");
        let [first, second] = *src.pfs();
        let config = src.read_file("/etc/hybond/hybond.toml")?;
        let named = |lines: &str| -> Result<()> {
            let text = format!("{config}\n[alias]\n{lines}");
            src.write_file("/etc/hybond/hybond.toml", text.as_bytes(), "644")?;
            source.reload()
        };
        let is = |name: &str, pf: &str| {
            let shown = format!("ip -o link show dev {name} | grep -F ': {pf}@'");
            src.until(&format!("{name} as a name of {pf}"), &shown, CLEAN)
        };
        named(&format!("lan0 = \"{first}\"\nold0 = \"{first}\"\n"))?;
        is("lan0", first)?;
        is("old0", first)?;
        // One is moved, one left out, one names a pool.
        named(&format!("lan0 = \"{second}\"\nnew0 = \"{POOL}\"\n"))?;
        is("lan0", second)?;
        is("new0", first)?;
        src.until("the end of old0", "! ip link show dev old0", CLEAN)?;

        named("lan0 = 7\n").expect_err("no name");
        is("lan0", second)?;
        source.stop()?;
        destination.stop()
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn guests_are_saved_as_their_host_shuts_down_and_come_back_on_their_vfs() -> Result<()> {
    on_stage("hosts-shutdown", |pair, _, [source, destination]| {
        let src = pair.host("src");
        let guest = Hybrid::new("resident");
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        let boot = boot_id(&guest, src)?;

        src.run_within("hybondctl managedsave resident", GUESTS)?
            .succeeded("managedsave")?;
        nothing_is_left(src)?;
        src.ok("virsh start resident")?;
        on_its_vf(&guest, src)?;
        ensure!(boot_id(&guest, src)? == boot, "the guest has booted again");

        // In the order in which systemd stops the units: hybond-drain, libvirt-guests, libvirtd, hybondd.
        let settings = "ON_SHUTDOWN=suspend\nON_BOOT=start\n";
        src.write_file("/etc/default/libvirt-guests", settings.as_bytes(), "644")?;
        let drain = "set -a; . /etc/default/libvirt-guests; exec /usr/lib/hybond/drain-before-save";
        src.run_within(drain, GUESTS)?.succeeded("hybond-drain")?;
        let guests = |what: &str| {
            let output = src.run_within(&format!("/usr/lib/libvirt/libvirt-guests.sh {what}"), GUESTS)?;
            eprintln!("libvirt-guests {what}: {}", output.stdout.trim());
            output.succeeded("libvirt-guests")
        };
        guests("stop")?;
        src.ok(
            "virsh domstate resident | grep -q 'shut off' && virsh list --all --with-managed-save | grep -q resident",
        )?;
        nothing_is_left(src)?;
        source.stop()?;
        src.restart_libvirt()?;

        // The host is back.
        let source = Daemon::start(src)?;
        guests("start")?;
        on_its_vf(&guest, src)?;
        ensure!(boot_id(&guest, src)? == boot, "the guest has booted again");
        end(src, &["resident"])?;
        source.stop()?;
        destination.stop()
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn a_guest_goes_between_a_host_that_gives_qemu_a_dev_of_its_own_and_one_that_does_not() -> Result<()> {
    on_stage("hosts-namespaces", |pair, _, daemons| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        // libvirt's default; the hosts of tier 2 have `namespaces = []`.
        dst.ok("sed -i '/^namespaces *=/d' /etc/libvirt/qemu.conf")?;
        dst.restart_libvirt()?;
        let guest = Hybrid::new("roamer");
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        ensure!(!has_dev_of_its_own(src, "roamer")?, "on src");
        for (from, to) in [(src, dst), (dst, src)] {
            moved(&guest, from, to)?;
            ensure!(
                has_dev_of_its_own(to, "roamer")? == (to.name() == "dst"),
                "on {}",
                to.name()
            );
        }
        end(src, &["roamer"])?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

/// Lower devices of a domain's standbys, as its XML has them.
fn sources(node: &Node, domain: &str, which: &str) -> Result<String> {
    let xml = node.ok(&format!("virsh dumpxml {which} {domain}"))?;
    let names = xml
        .lines()
        .filter_map(|line| line.trim().strip_prefix("<source dev='")?.split('\'').next());
    Ok(names.collect::<Vec<_>>().join(" "))
}

fn has_dev_of_its_own(node: &Node, domain: &str) -> Result<bool> {
    let own = node.ok("readlink /proc/self/ns/mnt")?;
    let of_qemu = node.ok(&format!("readlink /proc/$(cat /run/libvirt/qemu/{domain}.pid)/ns/mnt"))?;
    Ok(own != of_qemu)
}
