//! A pair of flavor `indirect`: the VF stays with its host driver, and the guest's virtio NIC is on a macvtap above it.

use crate::scene::{Scene, nothing_is_left, refusal};
use anyhow::{Context, Result, ensure};
use hybond_lab::probe::{Span, analyse};
use hybond_lab::scenario::{HybridGuest, POOL, Traffic};
use hybond_lab::{Host, Machine};
use hybond_wire::control::PairStatus;
use std::time::Duration;

/// Packets flow for so long before and after.
const FLOWS: Duration = Duration::from_secs(3);

pub fn there_and_back(scene: &Scene<'_>) -> Result<()> {
    let (src, dst, ..) = scene.parts();
    let mut guest = HybridGuest::new("through", src);
    guest.domain = guest.domain.numbered(4);
    let mac = guest.domain.nics[0].0.clone();
    // Both are on one host.
    (guest.domain.memory, guest.domain.huge_pages) = (160, false);
    let lab = scene.stage.lab;
    let refused = refused_without_a_driver(&guest, src);
    // It takes every VF that vfio-pci has not, and each is a network device then.
    lab.each(|host| host.ok("modprobe igbvf"))?;
    let played = refused
        .and_then(|()| started(&guest, src))
        .and_then(|()| moved(scene, &guest, src, dst))
        .and_then(|()| moved(scene, &guest, dst, src));
    let removed = guest.remove(lab.hosts());
    let left = lab.each(|host| without_a_driver(host, &mac));
    played.and(removed)?;
    left?;
    nothing_is_left(scene, dst)
}

/// As the hosts were before: igbvf has invented an address for each VF that it took, and the PF remembers it. The guest's is not among
/// them.
fn without_a_driver(host: &Host, mac: &str) -> Result<()> {
    host.ok("modprobe -r igbvf")?;
    for pf in host.pfs() {
        host.ok(&format!(
            "set -e\n\
             if ip link show {pf} | grep -F {mac} >&2; then exit 1; fi\n\
             ip link show {pf} | sed -n 's|^ *vf \\([0-9]*\\) *link/ether \\([0-9a-f:]*\\) .*|\\1 \\2|p' | while read vf mac; do\n\
             case $mac in 00:00:00:00:00:00 | 52:54:00:*) ;; *) ip link set {pf} vf $vf mac 00:00:00:00:00:00 ;; esac; done"
        ))?;
    }
    Ok(())
}

/// The hosts keep igbvf from being loaded, as is recommended where VFs are for guests.
fn refused_without_a_driver(guest: &HybridGuest, host: &Host) -> Result<()> {
    guest.define_as(host, &format!("--pool {POOL} --flavor indirect --policy require"))?;
    let output = host.run(&format!("virsh start {}", guest.name()))?;
    refusal(&output, &["no driver of the host takes VF", "modprobe"]).map(drop)
}

fn started(guest: &HybridGuest, host: &Host) -> Result<()> {
    guest.boot(host)?;
    is_above_its_vf(guest, host).map(drop)
}

/// One migration with packets in both directions: lost is what the guest's standstill loses, as with any virtio NIC.
fn moved(scene: &Scene<'_>, guest: &HybridGuest, from: &Host, to: &Host) -> Result<()> {
    let lab = scene.stage.lab;
    let mut traffic = Traffic::start(lab, scene.stage.packages, &guest.address())?;
    traffic.flow(FLOWS)?;
    guest.moves(from, to)?;
    let pair = is_above_its_vf(guest, to)?;
    let before = vf_packets(to, &pair)?;
    traffic.flow(FLOWS)?;
    let records = traffic.finish()?;
    let carried = vf_packets(to, &pair)? - before;
    let all = analyse(&records, &[Span::new("all", f64::NEG_INFINITY, f64::INFINITY)]);
    let all = all.first().context("nothing was measured")?;
    eprintln!(
        "  {} to {}: on VF {}, which carried {carried} packets; lost to the guest {}, from the guest {}; longest gap {:.0} ms",
        from.name(),
        to.name(),
        pair.vf.as_ref().context("no VF")?,
        all.to_guest.lost,
        all.from_guest.lost,
        all.longest_gap_ms()
    );
    ensure!(carried > 100, "VF {:?} carried {carried} packets only", pair.vf);
    let gone = from.run(&format!("test -e /sys/class/net/{}", pair.mac.standby_name()))?;
    ensure!(!gone.success(), "its macvtap is still on {}", from.name());
    Ok(())
}

/// Waits until hybond says that it is as it shall be, and looks whether the host says the same.
fn is_above_its_vf(guest: &HybridGuest, host: &Host) -> Result<PairStatus> {
    let pair = guest.wait_indirect(host)?;
    ensure!(pair.degraded.is_none() && !pair.plugged, "{pair:?}");
    let tap = pair.mac.standby_name();
    let netdev = vf_netdev(host, &pair)?;
    let below = host.ok(&format!("cd /sys/class/net/{tap} && echo lower_*"))?;
    ensure!(
        below.trim() == format!("lower_{netdev}"),
        "{tap} is above {below}, the VF is {netdev}"
    );
    let mode = host.ok(&format!("ip -d link show {tap}"))?;
    ensure!(mode.contains("macvtap mode passthru"), "{mode}");
    Ok(pair)
}

fn vf_netdev(host: &Host, pair: &PairStatus) -> Result<String> {
    let vf = pair.vf.as_ref().context("no VF")?;
    Ok(host.ok(&format!("ls /sys/bus/pci/devices/{vf}/net"))?.trim().to_owned())
}

fn vf_packets(host: &Host, pair: &PairStatus) -> Result<u64> {
    let netdev = vf_netdev(host, pair)?;
    let text = host.ok(&format!("cat /sys/class/net/{netdev}/statistics/rx_packets"))?;
    text.trim().parse().context("rx_packets")
}
