//! Two hosts on one lan, in the network namespace of a test: what stands between a guest and its traffic.
//!
//! ```text
//!  traffic ── lan (bridge) ─┬─ wire ── pf ── macvtap ──┐ standby            ┌ standby ── macvtap ── pf2 ── wire2 ─┐
//!                           └─ tap ────────────────────┘ primary    A ──▶ B └ primary ── tap ─────────────────────┴─ lan
//! ```

use crate::guest::{Clock, Start};
use crate::{Guest, Image, LONG};
use hybond_core::ids::{IfName, Mac};
use hybond_guest::{GuestEvent, GuestHandle, GuestLink};
use hybond_netlink::StandbySpec;
use hybond_qmp::{Event, LinkEvent, MigrationStatus, Qmp, QmpLink};
use hybond_test_netns::Host;
use hybond_vfio::emulated::{self, EmulatedModel};
use hybond_wire::agent::{PairState, Path};
use serde_json::Value;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The guest's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 50);
/// Around a switch the guest takes frames on both paths, until the bridge has learned where it is.
const OVERLAP_MS: u32 = 200;

/// The pair's MAC.
///
/// # Panics
/// Never.
#[must_use]
pub fn mac() -> Mac {
    "52:54:00:aa:00:01".parse().expect("MAC")
}

/// The migration has come to this.
pub fn has(status: MigrationStatus) -> impl Fn(&Event) -> bool {
    move |event| *event == Event::Migration { status: status.clone() }
}

/// The lan, with a host's `pf` on it and another one's `pf2`.
pub fn lan(host: &Host) {
    host.ip("link add lan address 02:00:00:00:00:fe type bridge forward_delay 0 mcast_snooping 0");
    host.ip("addr add 10.88.0.254/24 dev lan");
    host.ip("link set lan up");
    host.ip("link add pf2 type veth peer name wire2");
    for port in ["wire", "wire2"] {
        host.ip(&format!("link set {port} master lan up"));
    }
    host.ip("link set pf2 up");
}

fn name(text: &str) -> IfName {
    text.parse().expect("interface name")
}

/// One of the two hosts: a PF on the lan, a standby over it, and a guest.
pub struct Side {
    /// The guest.
    pub guest: Guest,
    /// Its standby's name.
    pub standby: IfName,
    /// Its monitor.
    pub qmp: Qmp,
    /// What its monitor reports.
    pub events: mpsc::Receiver<Box<LinkEvent>>,
    /// Its agent.
    pub agent: GuestHandle,
    /// What its agent reports.
    pub reports: mpsc::Receiver<Box<GuestEvent>>,
    /// The primary's tap.
    pub primary: Option<OwnedFd>,
    _link: QmpLink,
}

impl Side {
    /// A running guest on its standby, whose agent has made the bond.
    ///
    /// # Panics
    /// It does not come to that.
    pub async fn booted(host: &Host, image: &Image, clock: Clock, pf: &str, standby: &str) -> Self {
        let mut side = Self::new(host, image, Start::Boot(clock), pf, standby).await;
        host.netlink
            .set_standby_up(&side.standby, true)
            .await
            .expect("standby up");
        side.guest.booted().await.expect("boot");
        let pair = side.pair(|pair| pair.bond.is_some()).await;
        assert_eq!(pair.active, Path::Standby);
        side
    }

    /// A host whose PF is there and up, with its guest on a standby that is down.
    ///
    /// # Panics
    /// Something of it cannot be had.
    pub async fn new(host: &Host, image: &Image, start: Start, pf: &str, standby: &str) -> Self {
        let spec = StandbySpec {
            name: name(standby),
            mac: mac(),
            lower: name(pf),
            vlan: None,
            allmulticast: true,
            mtu: None,
            passthru: false,
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

    /// Waits until QEMU reports this.
    ///
    /// # Panics
    /// It does not; with what it reported instead.
    pub async fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
        let mut seen = Vec::new();
        loop {
            let event = timeout(LONG, self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("not in time, only {seen:?}"));
            match *event.expect("the link lives") {
                LinkEvent::Event(stamped) if wanted(&stamped.event) => return,
                other => seen.push(other),
            }
        }
    }

    /// Waits until the agent has said hello, or has reported a change, to this effect.
    ///
    /// # Panics
    /// It does not.
    pub async fn pair(&mut self, wanted: impl Fn(&PairState) -> bool) -> PairState {
        loop {
            let report = timeout(LONG, self.reports.recv()).await;
            let report = report.unwrap_or_else(|_| panic!("no report in time: {}", self.guest.console()));
            let states = match *report.expect("the link lives") {
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

    /// Plugs the primary, and waits until it is in the bond.
    ///
    /// # Panics
    /// It does not come to that.
    pub async fn plug(&mut self, host: &Host, tap: &str) {
        let tap = host.netlink.make_tap(&name(tap), &name("lan")).await.expect("tap");
        let model = EmulatedModel::Igb;
        emulated::plug(&self.qmp, mac(), model, tap.as_fd())
            .await
            .expect("plug");
        self.primary = Some(tap);
        self.pair(|pair| pair.primary.is_some() && pair.primary_up).await;
    }

    /// Unplugs the primary, and waits until it is gone.
    ///
    /// # Panics
    /// It does not go.
    pub async fn unplug(&mut self) {
        let id = mac().primary_id();
        self.qmp.device_del(&id).await.expect("device_del");
        self.until(|e| matches!(e, Event::DeviceDeleted { device: Some(device), .. } if *device == id))
            .await;
        emulated::revoke(&self.qmp, mac()).await.expect("revoke");
        self.primary = None;
    }

    /// Moves the traffic to the standby.
    ///
    /// # Panics
    /// The agent does not.
    pub async fn failover(&self) {
        let pair = self.agent.failover(mac(), OVERLAP_MS, LONG).await.expect("failover");
        assert_eq!(pair.active, Path::Standby);
    }

    /// Moves the traffic to the primary.
    ///
    /// # Panics
    /// The agent does not.
    pub async fn failback(&self) {
        let pair = self.agent.failback(mac(), OVERLAP_MS, LONG).await.expect("failback");
        assert_eq!(pair.active, Path::Primary);
    }

    /// Runs a command of QEMU's.
    ///
    /// # Panics
    /// QEMU refuses it.
    pub async fn run(&self, command: &str, arguments: Value) {
        self.qmp.command(command, arguments, None, LONG).await.expect(command);
    }
}
