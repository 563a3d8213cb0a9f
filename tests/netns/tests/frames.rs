//! What the link state of a standby is for: frames pass only while it is up.

use hybond_netlink::StandbySpec;
use hybond_test_netns::{Host, Port, mac, name, on_a_host, standby};

const PEER: [u8; 6] = [0x52, 0x54, 0, 0xbb, 0, 1];

/// A standby that is down, over a PF whose wire the test holds: a tap, taken out of its bridge.
async fn wired_standby(host: &Host) -> (Port, StandbySpec) {
    host.ip("link add br0 type bridge");
    let wire = Port::tap(host.netlink.make_tap(&name("nic0"), &name("br0")).await.expect("a tap"));
    host.ip("link set nic0 nomaster");
    let spec = StandbySpec {
        lower: name("nic0"),
        ..standby()
    };
    host.netlink.make_standby(&spec).await.expect("made");
    (wire, spec)
}

#[test]
fn frames_pass_in_both_directions_only_while_the_standby_is_up() {
    on_a_host(|host| async move {
        let (wire, spec) = wired_standby(&host).await;
        let index = host
            .netlink
            .standby(&spec.name)
            .await
            .expect("a look")
            .expect("it")
            .index;
        let guest = Port::macvtap(index);
        let guest_mac = mac().octets();

        guest.send(PEER, guest_mac, 1);
        wire.send(guest_mac, PEER, 2);
        host.netlink.set_standby_up(&spec.name, true).await.expect("up");
        guest.send(PEER, guest_mac, 3);
        wire.send(guest_mac, PEER, 4);
        assert_eq!(wire.receive(), 3, "1 was sent while the standby was down");
        assert_eq!(guest.receive(), 4, "2 was sent while the standby was down");

        host.netlink.set_standby_up(&spec.name, false).await.expect("down");
        wire.send(guest_mac, PEER, 5);
        guest.send(PEER, guest_mac, 6);
        host.netlink.set_standby_up(&spec.name, true).await.expect("up again");
        guest.send(PEER, guest_mac, 7);
        wire.send(guest_mac, PEER, 8);
        assert_eq!((wire.receive(), guest.receive()), (7, 8));
    });
}

#[test]
fn a_guest_is_announced_from_its_standby_without_its_help() {
    on_a_host(|host| async move {
        let (wire, spec) = wired_standby(&host).await;
        let down = host.netlink.announce_standby(&spec.name, mac()).await;
        let said = down.expect_err("a standby that is down sends nothing").to_string();
        assert_eq!(said, "cannot announce 52:54:00:aa:00:01 from hb525400aa0001");

        host.netlink.set_standby_up(&spec.name, true).await.expect("up");
        host.netlink
            .announce_standby(&spec.name, mac())
            .await
            .expect("announced");
        let frame = wire.receive_of([0x80, 0x35]);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..12], mac().octets(), "switches learn from the sender");
    });
}

#[test]
fn two_standbys_of_one_pf_reach_each_other() {
    on_a_host(|host| async move {
        let mut guests = Vec::new();
        for text in ["52:54:00:aa:00:01", "52:54:00:aa:00:02"] {
            let mac: hybond_core::ids::Mac = text.parse().expect("a MAC");
            let spec = StandbySpec {
                name: mac.standby_name(),
                mac,
                ..standby()
            };
            host.netlink.make_standby(&spec).await.expect("made");
            host.netlink.set_standby_up(&spec.name, true).await.expect("up");
            let index = host
                .netlink
                .standby(&spec.name)
                .await
                .expect("a look")
                .expect("it")
                .index;
            guests.push((Port::macvtap(index), mac.octets()));
        }
        let [(first, first_mac), (second, second_mac)] = guests.as_slice() else {
            panic!("two")
        };
        first.send(*second_mac, *first_mac, 9);
        assert_eq!(second.receive(), 9);
    });
}
