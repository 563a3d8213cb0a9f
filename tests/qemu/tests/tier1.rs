//! Whole cycles between two QEMUs, with the real guest, the real agent and the real adapters, under traffic.

use hybond_netlink::Netlink;
use hybond_qmp::{Event, MigrationStatus};
use hybond_test_netns::{Host, on_a_host};
use hybond_test_qemu::guest::{Clock, Start};
use hybond_test_qemu::side::{ADDRESS, Side, has, lan, mac};
use hybond_test_qemu::{Image, LONG, Traffic};
use hybond_wire::agent::Path;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

#[test]
fn a_guest_with_a_primary_moves_from_one_qemu_to_another() {
    let image = Image::build().expect("guest image");
    on_a_host(move |host| async move { cycle(&host, &image).await });
}

#[test]
fn a_guest_keeps_its_path_when_the_guard_acts_and_when_its_agent_dies() {
    let image = Image::build().expect("guest image");
    on_a_host(move |host| async move { accidents(&host, &image).await });
}

async fn cycle(host: &Host, image: &Image) {
    lan(host);
    let mut a = Side::booted(host, image, Clock::Machine, "pf", "hba").await;
    let mut traffic = Traffic::start(ADDRESS.into());
    traffic.during("undisturbed", sleep(Duration::from_secs(3))).await;
    traffic.during("plug at A", a.plug(host, "vfa")).await;
    traffic.during("failback at A", a.failback()).await;
    traffic.during("failover at A", a.failover()).await;
    traffic.during("unplug at A", a.unplug()).await;
    assert!(a.qmp.plugged().borrow().is_empty());

    let mut b = Side::new(host, image, Start::Incoming, "pf2", "hbb").await;
    traffic
        .during("migration", migrate(&host.netlink, &mut a, &mut b))
        .await;
    // QEMU announces all NICs that it knows five times in 850 ms, and an emulated primary is one of them: plugged
    // earlier, it would draw packets that nobody in the guest takes yet. A VF is no NIC of QEMU's.
    traffic.during("announcements", sleep(Duration::from_secs(1))).await;
    traffic.during("plug at B", b.plug(host, "vfb")).await;
    traffic.during("failback at B", b.failback()).await;
    traffic.during("afterwards", sleep(Duration::from_secs(2))).await;

    let summaries = traffic.end().await.expect("the probe's report");
    // Each step but the one in which the guest stands still.
    for summary in summaries {
        if !matches!(summary.span.name.as_str(), "migration" | "in all") {
            assert_eq!(summary.lost(), 0, "packets lost: {}", summary.span.name);
        }
    }
}

/// From A to B, as libvirt does it, and with what hybond does to it: the standby at B is set up when RAM and devices are
/// there and the guest is about to run.
async fn migrate(netlink: &Netlink, a: &mut Side, b: &mut Side) {
    let uri = json!({"uri": format!("unix:{}", b.guest.qemu.path("migration").display())});
    b.run("migrate-incoming", uri.clone()).await;
    a.run("migrate", uri).await;
    b.until(has(MigrationStatus::Completed)).await;
    netlink.set_standby_up(&b.standby, true).await.expect("standby up at B");
    netlink
        .set_standby_up(&a.standby, false)
        .await
        .expect("standby down at A");
    b.run("cont", Value::Null).await;
    a.until(has(MigrationStatus::Completed)).await;
    assert!(b.agent.wait_for_agent(LONG).await.is_some(), "no agent answers at B");
    b.agent.announce(mac(), LONG).await.expect("announce");
}

async fn accidents(host: &Host, image: &Image) {
    lan(host);
    let mut a = Side::booted(host, image, Clock::Machine, "pf", "hba").await;
    let mut traffic = Traffic::start(ADDRESS.into());
    traffic.during("plug", a.plug(host, "vfa")).await;
    traffic.during("failback", a.failback()).await;
    traffic.during("migration called off", called_off(&mut a)).await;
    traffic.during("agent restarted", restart_agent(&mut a)).await;
    // Nothing was forgotten: the pair is drained as if nothing had happened.
    traffic.during("failover", a.failover()).await;
    traffic.during("unplug", a.unplug()).await;
    for summary in traffic.end().await.expect("the probe's report") {
        assert_eq!(summary.lost(), 0, "packets lost: {}", summary.span.name);
    }
}

/// Someone starts a migration without asking hybond.
async fn called_off(a: &mut Side) {
    let uri = format!("file:{}", a.guest.qemu.path("image").display());
    a.run("migrate", json!({"uri": uri})).await;
    a.until(|e| matches!(e, Event::GuardCancelled { .. })).await;
    a.until(has(MigrationStatus::Cancelled)).await;
    assert!(a.qmp.is_running().await.expect("query-status"));
    assert!(a.qmp.plugged().borrow().contains(&mac().primary_id()));
}

/// The agent is killed, and whoever watches over it starts it again.
async fn restart_agent(a: &mut Side) {
    a.guest.order("killall hybond-agent").await.expect("the guest's shell");
    let port =
        |open| move |e: &Event| matches!(e, Event::PortChanged { id, open: now } if id == "agent" && *now == open);
    a.until(port(false)).await;
    a.until(port(true)).await;
    // The bond is there, so a pair is known as soon as an agent answers; and the traffic is where it was.
    let pair = a.agent.failback(mac(), 0, LONG).await.expect("the new agent obeys");
    assert_eq!(pair.active, Path::Primary);
}
