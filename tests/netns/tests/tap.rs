//! Taps of emulated primaries, and removal of devices of any kind.

use hybond_netlink::{Change, Error, Kind, VfConfig};
use hybond_test_netns::{Port, name, on_a_host};

const A: [u8; 6] = [0x52, 0x54, 0, 0xcc, 0, 1];
const B: [u8; 6] = [0x52, 0x54, 0, 0xcc, 0, 2];

#[test]
fn two_taps_of_one_bridge_reach_each_other_and_go_with_their_descriptors() {
    on_a_host(|host| async move {
        host.ip("link add br0 type bridge");
        host.ip("link set br0 up");
        let before = host.devices();
        let first = Port::tap(host.netlink.make_tap(&name("hbe0"), &name("br0")).await.expect("a tap"));
        let second = Port::tap(host.netlink.make_tap(&name("hbe1"), &name("br0")).await.expect("a tap"));
        let bridge = host.netlink.link(&name("br0")).await.expect("a look").expect("br0");
        let tap = host.netlink.link(&name("hbe0")).await.expect("a look").expect("hbe0");
        assert_eq!((tap.kind, tap.master, tap.up), (Kind::Tun, Some(bridge.index), true));
        first.send(B, A, 1);
        assert_eq!(second.receive(), 1);
        drop((first, second));
        assert_eq!(host.devices(), before);
    });
}

#[test]
fn a_tap_that_cannot_be_made_leaves_nothing() {
    on_a_host(|host| async move {
        let before = host.devices();
        let missing = host
            .netlink
            .make_tap(&name("hbe0"), &name("br9"))
            .await
            .expect_err("no br9");
        assert!(matches!(missing, Error::NoLink { .. }), "{missing}");
        let wrong = host
            .netlink
            .make_tap(&name("hbe0"), &name("pf"))
            .await
            .expect_err("pf is a veth");
        assert_eq!(
            wrong.to_string(),
            "pf is there already and is a veth, not a bridge; remove or rename it"
        );
        assert_eq!(host.devices(), before);

        host.ip("link add br0 type bridge");
        let _held = host.netlink.make_tap(&name("hbe0"), &name("br0")).await.expect("a tap");
        let taken = host
            .netlink
            .make_tap(&name("hbe0"), &name("br0"))
            .await
            .expect_err("held");
        assert_eq!(taken.errno(), Some(nix::libc::EBUSY));
    });
}

#[test]
fn removing_a_device_twice_is_removing_it_once() {
    on_a_host(|host| async move {
        host.ip("link add br0 type bridge");
        assert_eq!(
            host.netlink.remove_link(&name("br0")).await.expect("removed"),
            Change::Made
        );
        assert_eq!(
            host.netlink.remove_link(&name("br0")).await.expect("again"),
            Change::AlreadyThere
        );
        let refusal = host.netlink.remove_link(&name("lo")).await.expect_err("lo stays");
        assert_eq!(refusal.to_string(), "cannot remove lo");
        assert_eq!(refusal.errno(), Some(nix::libc::EOPNOTSUPP));
    });
}

#[test]
fn a_nic_without_vfs_says_so() {
    on_a_host(|host| async move {
        let refusal = host.netlink.vf(&name("pf"), 3).await.expect_err("a veth has no VF");
        assert_eq!(
            refusal.to_string(),
            "pf has no VF 3: 0 VFs are enabled; /sys/class/net/pf/device/sriov_numvfs sets their number"
        );
        let config = VfConfig {
            vlan: Some(7),
            ..VfConfig::default()
        };
        let refusal = host
            .netlink
            .set_vf(&name("pf"), 0, &config)
            .await
            .expect_err("a veth has no VF");
        assert!(matches!(refusal, Error::NoVf { .. }), "{refusal}");
    });
}
