//! What is changed on a standby under a running guest: the multicast groups that it takes, and how it stands beside the other
//! standbys of its PF while its guest is on a VF.

use hybond_core::ids::Mac;
use hybond_core::paths::{Group, Multicast, StandbyMode};
use hybond_netlink::{Change, StandbySpec};
use hybond_test_netns::{Host, Port, mac, name, on_a_host};

const PEER: [u8; 6] = [0x52, 0x54, 0, 0xbb, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];

/// A group of IPv6 neighbour solicitations.
fn solicited(n: u8) -> [u8; 6] {
    [0x33, 0x33, 0xff, 0xaa, 0, n]
}

fn groups(addresses: &[[u8; 6]]) -> Multicast {
    Multicast::asked(false, addresses.iter().copied())
}

/// A PF whose wire the test holds: a tap, taken out of its bridge.
async fn nic(host: &Host) -> Port {
    host.ip("link add br0 type bridge");
    let wire = host.netlink.make_tap(&name("nic0"), &name("br0")).await.expect("a tap");
    host.ip("link set nic0 nomaster");
    Port::tap(wire)
}

/// A standby over it that is up, and takes no group.
async fn standby_of(host: &Host, mac: Mac) -> Port {
    let spec = StandbySpec {
        name: mac.standby_name(),
        mac,
        lower: name("nic0"),
        passthru: false,
        vlan: None,
        allmulticast: false,
        mtu: None,
        replace: false,
    };
    host.netlink.make_standby(&spec).await.expect("made");
    host.netlink.set_standby_up(&spec.name, true).await.expect("up");
    let found = host.netlink.standby(&spec.name).await.expect("a look").expect("it");
    Port::macvtap(found.index)
}

async fn tune(host: &Host, mac: Mac, mode: StandbyMode, multicast: &Multicast) -> Change {
    let change = host.netlink.tune_standby(&mac.standby_name(), mode, multicast).await;
    let found = host
        .netlink
        .standby(&mac.standby_name())
        .await
        .expect("a look")
        .expect("it");
    assert_eq!((found.mode, &found.multicast), (mode, multicast), "it reads back");
    change.expect("tuned")
}

#[test]
fn a_neighbour_is_heard_once_its_group_is_carried_over() {
    on_a_host(|host| async move {
        let wire = nic(&host).await;
        let guest = standby_of(&host, mac()).await;
        let bridge = StandbyMode::Bridge;
        // A macvtap has a filter of 256 hashes, so one group may pass for another; not eight of them.
        let ask = |first: u8| (first..first + 8).for_each(|n| wire.send(solicited(n), PEER, n));
        ask(1);
        // Multicast and broadcast wait in one queue of the PF's, unicast passes them (`macvlan_broadcast_enqueue()`).
        wire.send(BROADCAST, PEER, 100);
        let heard = guest.until(100);
        assert!(
            heard.len() < 8,
            "without its groups a guest is deaf to its neighbours: {heard:?}"
        );

        let wanted: Vec<_> = (1..9).map(solicited).collect();
        assert_eq!(tune(&host, mac(), bridge, &groups(&wanted)).await, Change::Made);
        assert_eq!(tune(&host, mac(), bridge, &groups(&wanted)).await, Change::AlreadyThere);
        let shown = host.show("maddress show dev hb525400aa0001");
        let added = |line: &str| line.contains("33:33:ff:aa:00:01") && line.ends_with("static");
        assert!(shown.lines().any(added), "as `ip maddress add` does: {shown}");
        ask(1);
        let heard: Vec<u8> = (1..9).map(|_| guest.receive()).collect();
        assert_eq!(heard, (1..9).collect::<Vec<u8>>());

        // The PF takes them, too.
        assert!(host.show("maddress show dev nic0").contains("33:33:ff:aa:00:01"));
        assert_eq!(tune(&host, mac(), bridge, &groups(&[solicited(2)])).await, Change::Made);
        assert!(!host.show("maddress show dev nic0").contains("33:33:ff:aa:00:01"));
        assert_eq!(tune(&host, mac(), bridge, &Multicast::Everything).await, Change::Made);
        ask(21);
        let heard: Vec<u8> = (21..29).map(|_| guest.receive()).collect();
        assert_eq!(heard, (21..29).collect::<Vec<u8>>());
    });
}

#[test]
fn groups_are_there_before_the_standby_is_up_and_what_others_put_there_stays() {
    on_a_host(|host| async move {
        let spec = StandbySpec {
            lower: name("pf"),
            ..hybond_test_netns::standby()
        };
        host.netlink.make_standby(&spec).await.expect("made");
        let all: Vec<_> = (0..64).map(solicited).collect();
        tune(&host, mac(), StandbyMode::Bridge, &groups(&all)).await;
        assert!(!host.show("maddress show dev pf").contains("33:33:ff:aa:00:3f"));
        host.netlink.set_standby_up(&spec.name, true).await.expect("up");
        assert!(host.show("maddress show dev pf").contains("33:33:ff:aa:00:3f"));
        // The kernel's own: of all IPv4 hosts, since the device is up.
        let own = "01:00:5e:00:00:01";
        assert!(host.show("maddress show dev hb525400aa0001").contains(own));
        let same = Group::from_octets([1, 0, 0x5e, 0, 0, 1]).expect("a group");
        tune(&host, mac(), StandbyMode::Bridge, &groups(&[same.octets()])).await;
        tune(&host, mac(), StandbyMode::Bridge, &groups(&[])).await;
        assert!(host.show("maddress show dev hb525400aa0001").contains(own));
        host.netlink.remove_standby(&spec.name).await.expect("removed");
        assert!(!host.show("maddress show dev pf").contains("33:33:ff:aa:00:3f"));
    });
}

/// Two guests on one PF; the first is on its VF, which is on the wire.
#[test]
fn a_guest_on_its_standby_and_one_on_its_vf_reach_each_other_through_the_card() {
    on_a_host(|host| async move {
        let wire = nic(&host).await;
        let other: Mac = "52:54:00:aa:00:02".parse().expect("a MAC");
        let (on_vf, on_standby) = (mac().octets(), other.octets());
        let idle = standby_of(&host, mac()).await;
        let neighbour = standby_of(&host, other).await;

        // In bridge mode the kernel hands it to the standby that nobody listens to.
        neighbour.send(on_vf, on_standby, 1);
        neighbour.send(PEER, on_standby, 2);
        assert_eq!((idle.receive(), wire.receive()), (1, 2));
        // And what the VF asks all, which the card brings to the PF, too, is taken for what has been heard.
        wire.send(BROADCAST, on_vf, 3);
        // Behind it in the queue of broadcasts.
        wire.send(BROADCAST, PEER, 4);
        assert_eq!(neighbour.until(4), [0; 0]);
        assert_eq!(idle.receive(), 4);

        let quiet = groups(&[]);
        assert_eq!(tune(&host, mac(), StandbyMode::Vepa, &quiet).await, Change::Made);
        neighbour.send(on_vf, on_standby, 5);
        assert_eq!(wire.receive(), 5, "it goes to the card, whose switch knows the VF");
        wire.send(BROADCAST, on_vf, 6);
        assert_eq!(neighbour.receive(), 6);
        wire.send(on_vf, PEER, 7);
        assert_eq!(idle.receive(), 7, "the standby is ready for a failover");

        // Back on its standby.
        assert_eq!(tune(&host, mac(), StandbyMode::Bridge, &quiet).await, Change::Made);
        neighbour.send(on_vf, on_standby, 8);
        assert_eq!(idle.receive(), 8);
        idle.send(BROADCAST, on_vf, 9);
        assert_eq!(neighbour.receive(), 9);
    });
}

#[test]
fn a_standby_that_is_made_again_for_a_new_start_is_in_bridge_mode() {
    on_a_host(|host| async move {
        let spec = hybond_test_netns::standby();
        host.netlink.make_standby(&spec).await.expect("made");
        tune(&host, mac(), StandbyMode::Vepa, &Multicast::Everything).await;
        assert_eq!(host.netlink.make_standby(&spec).await.expect("again"), Change::Made);
        let found = host.netlink.standby(&spec.name).await.expect("a look").expect("it");
        assert_eq!((found.mode, found.multicast), (StandbyMode::Bridge, groups(&[])));
    });
}
