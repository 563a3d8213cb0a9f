//! One whole cycle between two QEMUs, with the real guest, the real agent and the real adapters, under traffic: plug,
//! failback, failover, unplug, migrate, plug, failback.
//!
//! ```text
//!  traffic ── lan (bridge) ─┬─ wire ── pf ── macvtap ──┐ standby            ┌ standby ── macvtap ── pf2 ── wire2 ─┐
//!                           └─ tap ────────────────────┘ primary    A ──▶ B └ primary ── tap ─────────────────────┴─ lan
//! ```

use hybond_core::ids::{IfName, Mac};
use hybond_guest::{GuestEvent, GuestHandle, GuestLink};
use hybond_netlink::StandbySpec;
use hybond_qmp::{Event, LinkEvent, MigrationStatus, Qmp, QmpLink};
use hybond_test_netns::{Host, on_a_host};
use hybond_test_qemu::guest::Start;
use hybond_test_qemu::{Guest, Image, LONG, Traffic};
use hybond_vfio::emulated::EmulatedModel;
use hybond_wire::agent::{PairState, Path};
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const ADDRESS: &str = "10.88.0.50";
/// Around a switch the guest takes frames on both paths, until the bridge has learned where it is.
const OVERLAP_MS: u32 = 200;

fn mac() -> Mac {
    "52:54:00:aa:00:01".parse().expect("MAC")
}

fn name(text: &str) -> IfName {
    text.parse().expect("interface name")
}

/// One of the two hosts: a PF on the lan, a standby over it, and a guest.
struct Side {
    guest: Guest,
    standby: IfName,
    qmp: Qmp,
    events: mpsc::Receiver<LinkEvent>,
    agent: GuestHandle,
    reports: mpsc::Receiver<GuestEvent>,
    primary: Option<OwnedFd>,
    _link: QmpLink,
}

impl Side {
    /// A host whose PF is there and up, with its guest on a standby that is down.
    async fn new(host: &Host, image: &Image, start: Start, pf: &str, standby: &str) -> Self {
        let spec = StandbySpec {
            name: name(standby),
            mac: mac(),
            lower: name(pf),
            vlan: None,
            allmulticast: true,
            replace: false,
        };
        host.netlink.make_standby(&spec).await.expect("standby");
        // Otherwise the host's own IPv6 sends from the guest's MAC (`addrconf_dev_config()`): a neighbour solicitation,
        // then router solicitations for seconds, each of which turns the bridge to the standby.
        host.ip(&format!("link set {standby} addrgenmode none"));
        let index = host
            .netlink
            .standby(&spec.name)
            .await
            .expect("netlink")
            .expect("standby")
            .index;
        let tap = File::options().read(true).write(true).open(format!("/dev/tap{index}"));
        let guest = Guest::start(image, start, mac(), tap.expect("macvtap"), &format!("{ADDRESS}/24")).expect("guest");
        let (link, events, qmp) = guest.qemu.link().await;
        let (agent, reports) = GuestLink::spawn(guest.agent(), vec![mac()]);
        Self {
            guest,
            standby: spec.name,
            qmp,
            events,
            agent,
            reports,
            primary: None,
            _link: link,
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
        let mut seen = Vec::new();
        loop {
            let event = timeout(LONG, self.events.recv()).await;
            match event.unwrap_or_else(|_| panic!("not in time, only {seen:?}")) {
                Some(LinkEvent::Event(stamped)) if wanted(&stamped.event) => return,
                other => seen.push(other.expect("the link lives")),
            }
        }
    }

    /// Waits until the agent has said hello, or has reported a change, to this effect.
    async fn pair(&mut self, wanted: impl Fn(&PairState) -> bool) -> PairState {
        loop {
            let report = timeout(LONG, self.reports.recv()).await;
            let report = report.unwrap_or_else(|_| panic!("no report in time: {}", self.guest.console()));
            let states = match report.expect("the link lives") {
                GuestEvent::AgentHello { pairs, .. } => pairs,
                GuestEvent::State(state) => vec![state],
                GuestEvent::AgentGone => Vec::new(),
                GuestEvent::Misbehaves { what } => panic!("{what}"),
            };
            if let Some(state) = states.into_iter().find(|state| wanted(state)) {
                return state;
            }
        }
    }

    async fn plug(&mut self, host: &Host, tap: &str) {
        let tap = host.netlink.make_tap(&name(tap), &name("lan")).await.expect("tap");
        let model = EmulatedModel::Igb;
        hybond_vfio::emulated::plug(&self.qmp, mac(), model, tap.as_fd())
            .await
            .expect("plug");
        self.primary = Some(tap);
        self.pair(|pair| pair.primary.is_some() && pair.primary_up).await;
    }

    async fn unplug(&mut self) {
        let id = mac().primary_id();
        self.qmp.device_del(&id).await.expect("device_del");
        self.until(|e| matches!(e, Event::DeviceDeleted { device: Some(device), .. } if *device == id))
            .await;
        hybond_vfio::emulated::revoke(&self.qmp, mac()).await.expect("revoke");
        self.primary = None;
    }

    async fn failover(&self) {
        let pair = self.agent.failover(mac(), OVERLAP_MS, LONG).await.expect("failover");
        assert_eq!(pair.active, Path::Standby);
    }

    async fn failback(&self) {
        let pair = self.agent.failback(mac(), OVERLAP_MS, LONG).await.expect("failback");
        assert_eq!(pair.active, Path::Primary);
    }

    async fn run(&self, command: &str, arguments: Value) {
        self.qmp.command(command, arguments, None, LONG).await.expect(command);
    }
}

fn has(status: MigrationStatus) -> impl Fn(&Event) -> bool {
    move |event| *event == Event::Migration { status: status.clone() }
}

#[test]
fn a_guest_with_a_primary_moves_from_one_qemu_to_another() {
    let image = Image::build().expect("guest image");
    on_a_host(move |host| async move { cycle(&host, &image).await });
}

async fn cycle(host: &Host, image: &Image) {
    host.ip("link add lan address 02:00:00:00:00:fe type bridge forward_delay 0 mcast_snooping 0");
    host.ip("addr add 10.88.0.254/24 dev lan");
    host.ip("link set lan up");
    host.ip("link add pf2 type veth peer name wire2");
    for port in ["wire", "wire2"] {
        host.ip(&format!("link set {port} master lan up"));
    }
    host.ip("link set pf2 up");

    let mut a = Side::new(host, image, Start::Boot, "pf", "hba").await;
    host.netlink.set_standby_up(&a.standby, true).await.expect("standby up");
    a.guest.booted().await.expect("boot");
    let pair = a.pair(|pair| pair.bond.is_some()).await;
    assert_eq!(pair.active, Path::Standby);

    let mut traffic = Traffic::start(ADDRESS.parse().expect("address"));
    traffic
        .during("undisturbed", tokio::time::sleep(Duration::from_secs(3)))
        .await;
    traffic.during("plug at A", a.plug(host, "vfa")).await;
    traffic.during("failback at A", a.failback()).await;
    traffic.during("failover at A", a.failover()).await;
    traffic.during("unplug at A", a.unplug()).await;
    assert!(a.qmp.plugged().borrow().is_empty());

    let mut b = Side::new(host, image, Start::Incoming, "pf2", "hbb").await;
    traffic.during("migration", migrate(host, &mut a, &mut b)).await;
    // QEMU announces all NICs that it knows five times in 850 ms, and an emulated primary is one of them: plugged
    // earlier, it would draw packets that nobody in the guest takes yet. A VF is no NIC of QEMU's.
    traffic
        .during("announcements", tokio::time::sleep(Duration::from_secs(1)))
        .await;
    traffic.during("plug at B", b.plug(host, "vfb")).await;
    traffic.during("failback at B", b.failback()).await;
    traffic
        .during("afterwards", tokio::time::sleep(Duration::from_secs(2)))
        .await;

    let summaries = traffic.end().await.expect("the probe's report");
    // Each step but the one in which the guest stands still.
    for summary in summaries
        .iter()
        .filter(|s| !matches!(s.span.name.as_str(), "migration" | "in all"))
    {
        assert_eq!(summary.lost(), 0, "packets lost: {}", summary.span.name);
    }
}

/// From A to B, as libvirt does it, and with what hybond does to it: the standby at B is set up when RAM and devices are
/// there and the guest is about to run.
async fn migrate(host: &Host, a: &mut Side, b: &mut Side) {
    let uri = json!({"uri": format!("unix:{}", b.guest.qemu.path("migration").display())});
    b.run("migrate-incoming", uri.clone()).await;
    a.run("migrate", uri).await;
    b.until(has(MigrationStatus::Completed)).await;
    host.netlink
        .set_standby_up(&b.standby, true)
        .await
        .expect("standby up at B");
    host.netlink
        .set_standby_up(&a.standby, false)
        .await
        .expect("standby down at A");
    b.run("cont", Value::Null).await;
    a.until(has(MigrationStatus::Completed)).await;
    assert!(b.agent.wait_for_agent(LONG).await.is_some(), "no agent answers at B");
    b.agent.announce(mac(), LONG).await.expect("announce");
}
