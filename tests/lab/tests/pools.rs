//! Who gets which VF, each test a story told on two namespaced hosts: guests that queue, a scheduler that looks ahead, a
//! libvirt network in the domain's XML. Ignored by `cargo test`, because they boot guests:
//! `cargo test -p hybond-lab --test pools -- --ignored --test-threads=1`.

use anyhow::{Context, Result, ensure};
use hybond_lab::tier2::Node;
use hybond_lab::tier2_hybond::{
    Daemon, Hybrid, POOL, PoolOn, configured, end, moved, nothing_is_left, on_its_vf, on_stage,
};
use hybond_lab::{Machine, inventory};
use hybond_wire::agent::Path;
use hybond_wire::inventory::VfState;

#[test]
#[ignore = "boots guests under TCG"]
fn guests_that_wait_get_the_vfs_that_are_freed_in_the_order_in_which_they_came() -> Result<()> {
    on_stage("pools-queue", |pair, _, [source, destination]| {
        let src = pair.host("src");
        let source = configured(src, source, &one_vf(src))?;
        let guests = ["owner", "first", "second"].map(str::to_owned);
        let guests: Vec<Hybrid> = (1..)
            .zip(&guests)
            .map(|(number, name)| Hybrid::numbered(name, number))
            .collect();
        let [owner, first, second] = guests.as_slice() else {
            unreachable!("three names")
        };
        owner.start(src)?;
        let vf = on_its_vf(owner, src)?.vf;
        for guest in [first, second] {
            guest.start(src)?;
            guest.wait_path(src, Path::Standby)?;
        }
        let shown = src.ok("hybondctl pool")?;
        let places = [first, second].map(|guest| shown.find(guest.name()));
        ensure!(places[0].is_some() && places[0] < places[1], "the queue: {shown}");

        src.ok("virsh destroy owner")?;
        ensure!(on_its_vf(first, src)?.vf == vf, "the first has another VF");
        let waits = second.wait_path(src, Path::Standby)?;
        ensure!(waits.vf.is_none() && waits.degraded.is_some(), "{waits:?}");
        // One that is drained for good gives its VF up as well as one that ends.
        src.ok("hybondctl set first --policy never")?;
        ensure!(on_its_vf(second, src)?.vf == vf, "the second has another VF");

        end(src, &["first", "second"])?;
        source.stop()?;
        destination.stop()
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn a_scheduler_sees_what_is_free_keeps_a_place_and_finds_the_guest_in_it() -> Result<()> {
    on_stage("pools-ahead", |pair, _, [source, destination]| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        let destination = configured(dst, destination, &one_vf(dst))?;
        let guest = Hybrid::numbered("expected", 1);
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        let vf = state_of_the_only_vf(dst, VfState::Free)?;

        let check = |options: &str| src.run(&format!("hybondctl --json check expected --to dst {options}"));
        let fits = check("")?;
        ensure!(fits.status == 0 && fits.stdout.contains(&vf), "{fits:?}");
        src.ok("hybondctl reserve expected --to dst --for 600")?;
        ensure!(state_of_the_only_vf(dst, VfState::Reserved)? == vf, "another VF");

        // Free for everybody else it is not.
        let other = Hybrid::numbered("other", 2);
        other.start(dst)?;
        let without = other.wait_path(dst, Path::Standby)?;
        ensure!(without.vf.is_none() && without.degraded.is_some(), "{without:?}");
        ensure!(check("")?.status == 0, "its own reservation is in its way");

        let there = moved(&guest, src, dst)?;
        ensure!(
            there.vf.is_some_and(|found| found.to_string() == vf),
            "not on the reserved VF"
        );
        state_of_the_only_vf(dst, VfState::Plugged)?;

        // There is none left for a second one: it would be on its standby, or refused.
        let late = Hybrid::numbered("late", 3);
        late.define(src, &format!("--pool {POOL}"))?;
        src.ok("virsh start late")?;
        let late_check = || src.run("hybondctl --json check late --to dst");
        let fits = late_check()?;
        ensure!(fits.status == 7 && fits.stdout.contains("\"standby\""), "{fits:?}");
        src.ok("hybondctl set late --policy require")?;
        let refused = late_check()?;
        ensure!(
            refused.status == 4 && refused.stdout.contains("every VF of pool"),
            "{refused:?}"
        );
        let asked = src.run("hybondctl reserve late --to dst")?;
        eprintln!("refused: {}", asked.stderr.trim());
        ensure!(!asked.success() && asked.stderr.contains(POOL), "{asked:?}");

        end(src, &["late"])?;
        dst.ok("virsh destroy other")?;
        end(dst, &["expected"])?;
        source.stop()?;
        destination.stop()
    })
}

#[test]
#[ignore = "boots guests under TCG"]
fn a_domain_on_a_libvirt_network_keeps_its_xml_wherever_it_is() -> Result<()> {
    on_stage("pools-network", |pair, _, daemons| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        for node in [src, dst] {
            let interfaces: String = node.pfs().iter().map(|pf| format!("<interface dev='{pf}'/>")).collect();
            let network =
                format!("<network><name>{POOL}</name><forward mode='bridge'>{interfaces}</forward></network>");
            node.write_file("/root/network.xml", network.as_bytes(), "644")?;
            node.ok(&format!("virsh net-define /root/network.xml && virsh net-start {POOL}"))?;
        }
        let guest = Hybrid::new("networked");
        let xml = guest.domain.xml();
        let kept = xml
            .replace("<interface type='direct'>", "<interface type='network'>")
            .replace("<source dev='' mode='bridge'/>", &format!("<source network='{POOL}'/>"));
        ensure!(kept != xml, "the domain's interface is not as it was: {xml}");
        src.write_file("/root/networked.xml", kept.as_bytes(), "644")?;
        src.ok("virsh define /root/networked.xml")?;
        let interface = interface_of(src)?;
        src.ok(&format!("hybondctl enable networked --pool {POOL} --keep-interface"))?;
        guest.boot(src)?;
        standby_is_on_its_vfs_pf(&guest, src)?;
        for (from, to) in [(src, dst), (dst, src)] {
            moved(&guest, from, to)?;
            standby_is_on_its_vfs_pf(&guest, to)?;
            ensure!(
                interface_of(to)? == interface,
                "the XML has become {}",
                interface_of(to)?
            );
        }
        end(src, &["networked"])?;
        nothing_is_left(dst)?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

/// One VF in all.
fn one_vf(node: &Node) -> [PoolOn<'_>; 1] {
    [PoolOn {
        name: POOL,
        pfs: &node.pfs()[1..],
        vfs: 1,
    }]
}

/// Whether the host's only VF is that; answers its name.
fn state_of_the_only_vf(node: &Node, wanted: VfState) -> Result<String> {
    let rows = inventory(node)?;
    let [row] = rows.as_slice() else {
        anyhow::bail!("VFs of {}: {rows:?}", node.name())
    };
    ensure!(row.state == wanted, "{row:?}");
    Ok(row.name.to_string())
}

/// The definition of the domain's interface, as `virsh edit` shows it.
fn interface_of(node: &Node) -> Result<String> {
    node.ok("virsh dumpxml --inactive networked | sed -n '/<interface/,/<\\/interface>/p'")
}

fn standby_is_on_its_vfs_pf(guest: &Hybrid, node: &Node) -> Result<()> {
    let pair = on_its_vf(guest, node)?;
    let pf = pair.pf.context("no PF")?;
    let xml = node.ok("virsh dumpxml networked")?;
    let tap = xml
        .lines()
        .find_map(|line| line.trim().strip_prefix("<target dev='")?.split('\'').next())
        .context("no macvtap in the XML")?;
    let link = node.ok(&format!("ip -o link show {tap}"))?;
    ensure!(link.contains(&format!("@{pf}:")), "the VF's PF is {pf}: {link}");
    Ok(())
}
