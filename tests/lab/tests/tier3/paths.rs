//! Both paths of a pair alike on real functions of a card: what the pool says of VFs is on the VF, VLAN and groups are on both
//! paths, neighbours on either path reach each other, and a difference is told before the traffic is moved.

use crate::scene::{Scene, nothing_is_left, refusal};
use anyhow::{Context, Result, ensure};
use hybond_lab::scenario::HybridGuest;
use hybond_lab::{Host, Machine, inventory};
use hybond_wire::control::PairStatus;
use hybond_wire::inventory::{VfRow, VfState};
use serde::Deserialize;
use std::time::Duration;

/// A pool beside the usual one, of VFs that are in that one, too.
const TAGGED: &str = "tagged";
/// Its own part of the configuration.
const FRAGMENT: &str = "/etc/hybond/hybond.d/60-tagged.toml";
/// What it says of its VFs, but for the MTU.
const SETTINGS: &str = "trust = true\nspoofchk = false\nmax_tx_rate = 200\n";
const VLAN: u16 = 7;
/// An address whose neighbour solicitations go to a group of its own, which the guest's MAC does not share.
const V6: &str = "fd88::77:5";
const SOLICITED: &str = "33:33:ff:77:00:05";
const SOON: Duration = Duration::from_secs(30);

pub fn alike(scene: &Scene<'_>) -> Result<()> {
    let (src, dst, web, stage) = scene.parts();
    // On the PF of the other guest's VF, so that the two are neighbours on one card.
    let pair = web.pair(src)?;
    let pf = pair.pf.context("no PF")?.to_string();
    let taken = pair.vf.context("no VF")?.to_string();
    let mut guest = HybridGuest::new("tagged", src);
    guest.domain = guest.domain.numbered(5);
    // Both are on one host.
    (guest.domain.memory, guest.domain.huge_pages) = (160, false);

    let played = chosen(scene, &pf, &taken)
        .and_then(|()| too_small(scene, &guest, &pf))
        .and_then(|()| untagged(scene, &guest, &pf))
        .and_then(|()| tagged(scene, &guest, &pf));
    let removed = guest.remove(stage.lab.hosts());
    let restored = stage.lab.each(|host| {
        host.ok(&format!(
            "rm -f {FRAGMENT}; [ ! -e /sys/class/net/peer{VLAN} ] || ip link del peer{VLAN}"
        ))?;
        stage.configure(host, "", "")
    });
    played.and(removed)?;
    restored?;
    nothing_is_left(scene, dst)
}

/// By a range of addresses on one host; by PF and driver together, and by another tool's list, on the other.
fn chosen(scene: &Scene<'_>, pf: &str, taken: &str) -> Result<()> {
    let (src, dst, ..) = scene.parts();
    let vfs = src.vfs(pf)?;
    offer_range(scene, &vfs, 9000)?;
    let rows = inventory(src)?;
    ensure!(offered(&rows) == sorted(vfs), "tagged has {:?}", offered(&rows));
    // Who has it from one pool has taken it from both.
    let row = row(&rows, taken)?;
    ensure!(
        row.state == VfState::Plugged && row.pools.iter().map(|pool| pool.as_str()).eq(["lan", TAGGED]),
        "{row:?}"
    );

    let [one, other] = [dst.vfs(&dst.pfs()[0])?, dst.vfs(&dst.pfs()[1])?];
    let listed = one.first().context("no VF")?;
    offer(
        scene,
        dst,
        &format!(
            "pf = [\"{}\"]\npf_driver = [\"igb\"]\n{SETTINGS}handover = {{ standby = \"drop\" }}\n",
            dst.pfs()[1]
        ),
        &format!("[host]\ndevices = \"{listed}|{TAGGED}\"\n\n"),
    )?;
    let mut wanted = other;
    wanted.push(listed.clone());
    let rows = inventory(dst)?;
    ensure!(offered(&rows) == sorted(wanted), "tagged has {:?}", offered(&rows));
    Ok(())
}

/// The pool says more than the PF carries.
fn too_small(scene: &Scene<'_>, guest: &HybridGuest, pf: &str) -> Result<()> {
    let src = scene.src;
    guest.define_as(src, &format!("--pool {TAGGED} --policy require"))?;
    let output = src.run(&format!("virsh start {}", guest.name()))?;
    refusal(&output, &[pf, "1500", "9000", "ip link set"])?;
    offer_range(scene, &src.vfs(pf)?, 1500)
}

fn untagged(scene: &Scene<'_>, guest: &HybridGuest, pf: &str) -> Result<()> {
    let (src, _, web, _) = scene.parts();
    guest.boot(src)?;
    let pair = guest.wait_primary(src)?;
    let row = is_as_its_pool_says(src, &pair, 0)?;
    ensure!(row.pf.as_str() == pf, "{row:?}");
    guest.guest.ok(src, &format!("ip addr add {V6}/64 dev eth0"))?;

    eprintln!("  on its VF, beside a guest on its VF, and the host");
    reached_by_v6(scene)?;
    guest_reaches(web, src, &guest.address())?;
    guest_reaches(web, src, V6)?;
    src.ok(&format!("ip addr add 10.88.0.210/24 dev {pf}"))?;
    let by_host = reaches(src, &format!("-I {pf}"), &guest.address());
    src.ok(&format!("ip addr del 10.88.0.210/24 dev {pf}"))?;
    by_host?;

    eprintln!("  on its standby");
    src.ok(&format!("hybondctl drain {}", guest.name()))?;
    guest.wait_standby(src)?;
    // Only once it is at rest is it known which groups it needs.
    let tap = pair.mac.standby_name();
    src.until(
        "the guest's group on its standby",
        &format!("ip maddress show dev {tap} | grep '{SOLICITED}.*static' && [ $(($(cat /sys/class/net/{tap}/flags) & 0x200)) = 0 ]"),
        SOON,
    )?;
    reached_by_v6(scene)?;
    guest_reaches(web, src, &guest.address())?;
    guest_reaches(web, src, V6)?;
    guest_reaches(guest, src, &web.address())?;
    src.ok(&format!("hybondctl plug {}", guest.name()))?;
    guest.wait_primary(src)?;

    eprintln!("  the VF in another VLAN than the pair");
    let vlan = |id: u16| {
        src.ok(&format!("ip link set {pf} vf {} vlan {id}", row.index))
            .map(drop)
    };
    vlan(9)?;
    let drained = src.run(&format!("hybondctl drain {}", guest.name()))?;
    vlan(0)?;
    refusal(&drained, &["VLAN 9", "no VLAN"])?;
    guest.wait_primary(src).map(drop)
}

fn tagged(scene: &Scene<'_>, guest: &HybridGuest, pf: &str) -> Result<()> {
    let (src, dst, ..) = scene.parts();
    let name = guest.name();
    src.ok(&format!("hybondctl set {name} --vlan {VLAN} && virsh destroy {name}"))?;
    guest.guest.forget_console(src)?;
    guest.boot(src)?;
    let pair = guest.wait_primary(src)?;
    let row = is_as_its_pool_says(src, &pair, VLAN)?;

    // Somebody else in that VLAN, by a port of the host's that no guest of it is on.
    let other = src.pfs().iter().find(|other| *other != pf).context("one PF only")?;
    let peer = format!("peer{VLAN}");
    src.ok(&format!(
        "set -e; ip link add link {other} name {peer} type vlan id {VLAN}; ip addr add 10.88.0.200/32 dev {peer}\n\
         ip link set {other} up; ip link set {peer} up; ip route add {}/32 dev {peer}",
        guest.address()
    ))?;
    let in_its_vlan = || {
        reaches(src, &format!("-I {peer}"), &guest.address())?;
        let untagged = scene
            .stage
            .lab
            .peer()
            .run(&format!("ping -c 2 -W 1 {}", guest.address()))?;
        ensure!(!untagged.success(), "the guest is reached without its VLAN");
        Ok(())
    };
    eprintln!("  in its VLAN on its VF, and on its standby");
    in_its_vlan()?;
    src.ok(&format!("hybondctl drain {name}"))?;
    guest.wait_standby(src)?;
    in_its_vlan()?;
    src.ok(&format!("hybondctl plug {name}"))?;
    guest.wait_primary(src)?;

    eprintln!("  in its VLAN on the other host");
    guest.moves(src, dst)?;
    let there = guest.wait_primary(dst)?;
    is_as_its_pool_says(dst, &there, VLAN)?;
    in_its_vlan()?;
    // This pool's cards, it says, are not to have both functions up.
    let tap = there.mac.standby_name();
    dst.until(
        "the standby's rest",
        &format!("ip -o link show {tap} | grep -v '[<,]UP[,>]'"),
        SOON,
    )?;
    is_as_it_was(src, pf, &row)?;

    guest.moves(dst, src)?;
    let back = guest.wait_primary(src)?;
    is_as_its_pool_says(src, &back, VLAN)?;
    in_its_vlan()
}

/// Gives `src` the pool, by a range of addresses.
fn offer_range(scene: &Scene<'_>, vfs: &[String], mtu: u32) -> Result<()> {
    let (first, last) = (vfs.first().context("no VF")?, vfs.last().context("no VF")?);
    let pool = format!("vf = [\"{first}-{last}\"]\n{SETTINGS}mtu = {mtu}\n");
    offer(scene, scene.src, &pool, "")
}

/// Gives a host the pool.
fn offer(scene: &Scene<'_>, host: &Host, pool: &str, before: &str) -> Result<()> {
    let text = format!("{before}[[pool]]\nname = \"{TAGGED}\"\n{pool}");
    host.ok("mkdir -p /etc/hybond/hybond.d")?;
    host.write_file(FRAGMENT, text.as_bytes(), "644")?;
    scene.stage.configure(host, "", "")
}

/// The VFs that the pool offers.
fn offered(rows: &[VfRow]) -> Vec<String> {
    let offers = |row: &&VfRow| row.pools.iter().any(|pool| pool.as_str() == TAGGED);
    sorted(rows.iter().filter(offers).map(|row| row.name.to_string()).collect())
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn row<'a>(rows: &'a [VfRow], vf: &str) -> Result<&'a VfRow> {
    rows.iter()
        .find(|row| row.name.to_string() == vf)
        .with_context(|| format!("no row of VF {vf}"))
}

/// What the kernel shows of a VF by its PF.
#[derive(Debug, Deserialize)]
struct Shown {
    vf: u32,
    #[serde(default)]
    address: String,
    #[serde(default)]
    vlan_list: Vec<Vlan>,
    spoofchk: bool,
    trust: bool,
    rate: Rate,
}

#[derive(Debug, Deserialize)]
struct Vlan {
    #[serde(default)]
    vlan: u16,
}

#[derive(Debug, Deserialize)]
struct Rate {
    max_tx: u32,
}

impl Shown {
    fn of(host: &Host, pf: &str, index: u32) -> Result<Self> {
        #[derive(Deserialize)]
        struct Link {
            vfinfo_list: Vec<Shown>,
        }
        let text = host.ok(&format!("ip -j link show {pf}"))?;
        let links: Vec<Link> = serde_json::from_str(&text).with_context(|| text.clone())?;
        let vfs = links.into_iter().flat_map(|link| link.vfinfo_list);
        vfs.into_iter()
            .find(|vf| vf.vf == index)
            .context("the PF does not show that VF")
    }

    fn vlan(&self) -> u16 {
        self.vlan_list.first().map_or(0, |vlan| vlan.vlan)
    }
}

/// By the host's own tools; answers the VF's row.
fn is_as_its_pool_says(host: &Host, pair: &PairStatus, vlan: u16) -> Result<VfRow> {
    ensure!(pair.degraded.is_none(), "{pair:?}");
    let vf = pair.vf.as_ref().context("no VF")?.to_string();
    let row = row(&inventory(host)?, &vf)?.clone();
    let shown = Shown::of(host, row.pf.as_str(), row.index)?;
    ensure!(
        shown.trust && !shown.spoofchk && shown.rate.max_tx == 200 && shown.vlan() == vlan,
        "VF {vf}: {shown:?}"
    );
    ensure!(shown.address == pair.mac.to_string(), "VF {vf}: {shown:?}");
    let below = match vlan {
        0 => row.pf.to_string(),
        vlan => format!("{}.{vlan}", row.pf),
    };
    let tap = pair.mac.standby_name();
    let link = host.ok(&format!("ip -o link show {tap}"))?;
    ensure!(
        link.contains(&format!("@{below}:")) && link.contains("mtu 1500"),
        "{link}"
    );
    Ok(row)
}

/// As drivers begin, and without a sub-interface that nobody needs.
fn is_as_it_was(host: &Host, pf: &str, row: &VfRow) -> Result<()> {
    let shown = Shown::of(host, pf, row.index)?;
    ensure!(
        !shown.trust && shown.spoofchk && shown.rate.max_tx == 0 && shown.vlan() == 0,
        "VF {}: {shown:?}",
        row.name
    );
    ensure!(shown.address == "00:00:00:00:00:00", "VF {}: {shown:?}", row.name);
    let sub = host.run(&format!("ip link show {pf}.{VLAN}"))?;
    ensure!(!sub.success(), "{} is left on {}", sub.stdout.trim(), host.name());
    Ok(())
}

fn reached_by_v6(scene: &Scene<'_>) -> Result<()> {
    reaches(scene.stage.lab.peer(), "-6", V6)
}

fn reaches(from: &impl Machine, options: &str, address: &str) -> Result<()> {
    // A neighbour that was asked for in vain stays unknown for a second or three.
    from.until(
        &format!("ping of {address}"),
        &format!("ping {options} -c 1 -W 2 {address}"),
        SOON,
    )
    .map(drop)
}

/// By one guest, of another.
fn guest_reaches(guest: &HybridGuest, host: &Host, address: &str) -> Result<()> {
    let said = guest.guest.ok(host, &format!("ping -c 5 -W 2 {address}"));
    said.map(drop)
        .with_context(|| format!("guest {} pings {address}", guest.name()))
}
