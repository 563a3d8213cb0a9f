//! That the lab itself is what tests of hybond take it for: ordinary guests, ordinary libvirt, no hybond anywhere.
//! Ignored by `cargo test`, because they want root, the images and minutes: `cargo test -p hybond-lab -- --ignored`.

use anyhow::{Context, Result, anyhow, ensure};
use hybond_lab::tier2::{self, Pair};
use hybond_lab::{Domain, Guest, Host, Lab, Machine};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(400);
const MIGRATION: Duration = Duration::from_secs(400);

#[test]
#[ignore = "boots two emulated hosts"]
fn an_ordinary_guest_moves_between_the_emulated_hosts_and_one_that_ignores_unplugs_keeps_its_vf() -> Result<()> {
    let lab = Lab::up()?;
    hosts_differ(&lab)?;
    // Most of it is the boot of a guest, which keeps one core busy.
    thread::scope(|scope| {
        let deaf = scope.spawn(|| keeps_its_vf(lab.host("dst")));
        let moved = moves(&lab);
        deaf.join()
            .map_err(|_| anyhow!("panicked"))?
            .context("the guest that ignores unplugs")?;
        moved
    })?;
    lab.down()
}

fn hosts_differ(lab: &Lab) -> Result<()> {
    let (src, dst) = (lab.host("src"), lab.host("dst"));
    // Nothing about the PFs and VFs of one host is true of the other.
    let pfs: BTreeSet<&String> = src.pfs().iter().chain(dst.pfs()).collect();
    ensure!(pfs.len() == 4, "PFs: {pfs:?}");
    let mut vfs = BTreeSet::new();
    for host in lab.hosts() {
        for pf in host.pfs() {
            vfs.extend(host.vfs(pf)?);
        }
        ensure!(
            host.ok("systemctl is-system-running || true")?.trim() == "running",
            "{}",
            host.name()
        );
        ensure!(
            host.ok("cat /sys/module/apparmor/parameters/enabled")?.trim() == "Y",
            "{}",
            host.name()
        );
        ensure!(host.ok("uname -r")?.contains("deb13"), "{}", host.name());
        let clock = host.clock_offset()?;
        ensure!(
            clock.offset_ms.abs() <= clock.error_ms + 2.0,
            "{}: {clock:?}",
            host.name()
        );
    }
    ensure!(vfs.len() == 12, "VFs: {vfs:?}");
    Ok(())
}

fn moves(lab: &Lab) -> Result<()> {
    let (src, dst) = (lab.host("src"), lab.host("dst"));
    let domain = Domain::new("ground", &src.pfs()[1]);
    let guest = Guest::new("ground");
    src.write_file("/root/ground.xml", domain.xml().as_bytes(), "644")?;
    src.ok("virsh define /root/ground.xml && virsh start ground")?;
    guest.wait_ready(src, BOOT)?;
    both_families_reach_it(&lab.peer().clone())?;
    let boot_id = guest.ok(src, "cat /proc/sys/kernel/random/boot_id")?;
    ensure!(
        src.ok("cat /proc/$(cat /run/libvirt/qemu/ground.pid)/attr/current")?
            .contains("enforce"),
        "no AppArmor"
    );

    // Without hybond, the XML has to be rewritten by hand, because the PFs have other names there.
    let mut elsewhere = domain.clone();
    elsewhere.nics[0].1 = dst.pfs()[0].clone();
    src.write_file("/root/elsewhere.xml", elsewhere.xml().as_bytes(), "644")?;
    let moved = src.run_within(
        "virsh migrate --live --persistent ground qemu+tls://dst/system --xml /root/elsewhere.xml",
        MIGRATION,
    )?;
    ensure!(moved.success(), "{}", moved.stderr);
    ensure!(
        guest.ok(dst, "cat /proc/sys/kernel/random/boot_id")? == boot_id,
        "the guest has booted again"
    );
    both_families_reach_it(&lab.peer().clone())
}

fn keeps_its_vf(host: &Host) -> Result<()> {
    let pf = &host.pfs()[1];
    let mut domain = Domain::new("deaf", pf).numbered(5);
    // The huge pages of a host are enough for one guest.
    (domain.memory, domain.huge_pages) = (160, false);
    domain.kernel_arguments += " lab.ignore-unplug acpiphp.disable=1";
    let guest = Guest::new("deaf");
    host.write_file("/root/deaf.xml", domain.xml().as_bytes(), "644")?;
    host.ok("virsh define /root/deaf.xml && virsh start deaf")?;
    guest.wait_ready(host, BOOT)?;

    let vf = host.vfs(pf)?[0].clone();
    let (bus, slot, function) = (&vf[5..7], &vf[8..10], &vf[11..]);
    let device = format!(
        "<hostdev mode='subsystem' type='pci' managed='yes'><source>\
         <address domain='0' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source></hostdev>"
    );
    host.write_file("/root/vf.xml", device.as_bytes(), "644")?;
    host.ok("virsh attach-device deaf /root/vf.xml")?;
    let seen = "for i in $(seq 60); do ls -d /sys/bus/pci/drivers/igbvf/0* && exit 0; sleep 1; done; exit 1";
    guest.ok(host, seen).context("the guest does not see the VF")?;
    // libvirt waits for some seconds, and then leaves it to the guest.
    host.run("virsh detach-device deaf /root/vf.xml")?;
    guest
        .ok(host, "ls -d /sys/bus/pci/drivers/igbvf/0*")
        .context("the guest has let the VF go")?;
    ensure!(
        host.ok("virsh dumpxml deaf")?.contains("<hostdev"),
        "QEMU has let the VF go"
    );
    Ok(())
}

#[test]
#[ignore = "boots a guest under TCG"]
fn an_ordinary_guest_moves_between_the_namespaced_hosts() -> Result<()> {
    let pair = Pair::up()?;
    let (src, dst) = (pair.host("src"), pair.host("dst"));
    let guest = Guest::new("ground");
    let domain = Domain::emulated("ground", src.pfs()[0]);
    src.write_file("/root/ground.xml", domain.xml().as_bytes(), "644")?;
    src.ok("virsh define /root/ground.xml && virsh start ground")?;
    guest.wait_ready(src, BOOT)?;
    both_families_reach_it(pair.peer())?;
    let boot_id = guest.ok(src, "cat /proc/sys/kernel/random/boot_id")?;
    let elsewhere = Domain::emulated("ground", dst.pfs()[1]);
    src.write_file("/root/elsewhere.xml", elsewhere.xml().as_bytes(), "644")?;
    let moved = src.run_within(
        "virsh migrate --live --persistent ground qemu+tls://dst/system --xml /root/elsewhere.xml",
        MIGRATION,
    )?;
    ensure!(moved.success(), "{}", moved.stderr);
    ensure!(
        guest.ok(dst, "cat /proc/sys/kernel/random/boot_id")? == boot_id,
        "the guest has booted again"
    );
    both_families_reach_it(pair.peer())?;

    // What hangs on the bridge of emulated primaries is on the guests' network.
    dst.ok(&format!(
        "ip link set {} up && ip addr add 10.88.0.77/24 dev {}",
        tier2::BRIDGE,
        tier2::BRIDGE
    ))?;
    dst.ok("ping -c 2 -W 5 10.88.0.254")?;
    pair.down()
}

fn both_families_reach_it(peer: &impl Machine) -> Result<()> {
    for address in ["10.88.0.50", "fd88::5054:ff:feaa:1"] {
        // IPv6 first looks for a second machine with its address, which takes a second or two.
        peer.until(
            &format!("ping of {address}"),
            &format!("ping -c 1 -W 2 {address}"),
            Duration::from_secs(60),
        )?;
    }
    Ok(())
}
