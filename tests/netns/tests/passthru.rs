//! A standby over a VF of its own: here the end of a veth pair stands in for the VF's device.

use hybond_core::paths::{Multicast, StandbyMode};
use hybond_netlink::{Change, Error, StandbySpec};
use hybond_test_netns::{Host, mac, name, on_a_host, standby};

fn over_vf() -> StandbySpec {
    StandbySpec {
        lower: name("vf0"),
        passthru: true,
        ..standby()
    }
}

fn with_vf(host: &Host) {
    host.ip("link add vf0 address 02:00:00:00:00:99 type veth peer name vfwire");
    host.ip("link set vfwire up");
}

#[test]
fn the_vf_has_the_guests_address_and_goes_up_and_down_with_the_standby() {
    on_a_host(|host| async move {
        with_vf(&host);
        let spec = over_vf();
        assert_eq!(host.netlink.make_standby(&spec).await.expect("made"), Change::Made);
        assert_eq!(
            host.netlink.make_standby(&spec).await.expect("there"),
            Change::AlreadyThere
        );
        let made = host.netlink.standby(&spec.name).await.expect("read").expect("there");
        assert_eq!((made.mode, made.up), (StandbyMode::Passthru, false));
        assert_eq!((made.mac, made.lower.as_str()), (mac(), "vf0"));
        let vf = host.show("-d link show vf0");
        assert!(vf.contains("52:54:00:aa:00:01") && vf.contains("state DOWN"), "{vf}");
        assert!(
            vf.contains("addrgenmode none"),
            "the host says nothing with the guest's address: {vf}"
        );

        host.netlink.set_standby_up(&spec.name, true).await.expect("up");
        assert!(
            host.show("link show up dev vf0").contains("vf0"),
            "a standby over a device that is down has no carrier"
        );
        let made = host.netlink.standby(&spec.name).await.expect("read").expect("there");
        assert!(made.up);

        host.netlink.remove_standby(&spec.name).await.expect("removed");
        let vf = host.show("link show vf0");
        assert!(
            vf.contains("state DOWN") && !vf.contains("52:54:00:aa:00:01"),
            "nothing is left: {vf}"
        );
        assert_eq!(
            host.netlink.remove_standby(&spec.name).await.expect("gone"),
            Change::AlreadyThere
        );
    });
}

#[test]
fn a_standby_moves_between_pf_and_vf_only_if_told_to() {
    on_a_host(|host| async move {
        with_vf(&host);
        host.netlink.make_standby(&standby()).await.expect("on the PF");
        let error = host.netlink.make_standby(&over_vf()).await.expect_err("another");
        assert!(matches!(error, Error::OtherStandby { .. }), "{error}");
        let told = StandbySpec {
            replace: true,
            ..over_vf()
        };
        host.netlink.make_standby(&told).await.expect("on the VF");
        let back = StandbySpec {
            replace: true,
            ..standby()
        };
        host.netlink.make_standby(&back).await.expect("on the PF");
        let made = host.netlink.standby(&back.name).await.expect("read").expect("there");
        assert_eq!((made.lower.as_str(), made.mode), ("pf", StandbyMode::Bridge));
    });
}

#[test]
fn a_vf_serves_one_standby() {
    on_a_host(|host| async move {
        with_vf(&host);
        host.netlink.make_standby(&over_vf()).await.expect("made");
        let second = StandbySpec {
            name: name("hb525400aa0002"),
            mac: "52:54:00:aa:00:02".parse().expect("a MAC"),
            ..over_vf()
        };
        let error = host.netlink.make_standby(&second).await.expect_err("it is taken");
        assert!(error.to_string().contains("vf0"), "{error}");
    });
}

#[test]
fn packets_of_the_pools_size_pass_and_the_guests_groups_reach_the_vf() {
    on_a_host(|host| async move {
        with_vf(&host);
        let spec = StandbySpec {
            mtu: Some(9000),
            allmulticast: true,
            ..over_vf()
        };
        host.netlink.make_standby(&spec).await.expect("made");
        let made = host.netlink.standby(&spec.name).await.expect("read").expect("there");
        assert_eq!(
            (made.mtu, made.multicast),
            (9000, Multicast::Everything),
            "the VF is made to fit"
        );
        host.netlink.set_standby_up(&spec.name, true).await.expect("up");
        let group = [0x33, 0x33, 0, 0, 0xbe, 0xef];
        let wanted = Multicast::asked(false, [group]);
        let tuned = host.netlink.tune_standby(&spec.name, StandbyMode::Passthru, &wanted);
        assert_eq!(tuned.await.expect("tuned"), Change::Made);
        let made = host.netlink.standby(&spec.name).await.expect("read").expect("there");
        assert_eq!((made.mode, made.multicast), (StandbyMode::Passthru, wanted));
        let below = host.show("maddress show dev vf0");
        assert!(below.contains("33:33:00:00:be:ef"), "{below}");
    });
}

#[test]
fn a_vf_that_is_given_back_carries_what_its_driver_began_with() {
    on_a_host(|host| async move {
        with_vf(&host);
        let vf = name("vf0");
        let mtu = async || host.netlink.link(&vf).await.expect("read").expect("there").mtu;
        let spec = StandbySpec {
            mtu: Some(9000),
            ..over_vf()
        };
        host.netlink.make_standby(&spec).await.expect("made");
        assert_eq!(mtu().await, 9000, "the VF is made to fit");
        host.netlink.remove_standby(&spec.name).await.expect("removed");
        assert_eq!(mtu().await, 9000, "the standby may come again");
        assert_eq!(host.netlink.narrow(&vf).await.expect("narrowed"), Change::Made);
        assert_eq!(mtu().await, 1500);
        assert_eq!(host.netlink.narrow(&vf).await.expect("as it is"), Change::AlreadyThere);
        host.ip("link set vf0 mtu 1400");
        assert_eq!(
            host.netlink.narrow(&vf).await.expect("smaller"),
            Change::AlreadyThere,
            "nobody of hybond's has done that"
        );
        let gone = host.netlink.narrow(&name("vf7")).await;
        assert_eq!(gone.expect("no driver, no device"), Change::AlreadyThere);
    });
}
