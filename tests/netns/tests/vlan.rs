//! Standbys of tagged pairs. Kernels without 8021q say so; where the kernel has it, the sub-interface comes and goes
//! with its standbys.

use hybond_netlink::{Change, Error, StandbySpec};
use hybond_test_netns::{Host, mac, name, on_a_host, standby};

fn tagged(vlan: u16) -> StandbySpec {
    StandbySpec {
        vlan: Some(vlan),
        ..standby()
    }
}

#[test]
fn a_tagged_standby_is_over_a_sub_interface_that_goes_with_it() {
    on_a_host(|host| async move {
        let before = host.devices();
        if !host.has_8021q() {
            let refusal = host.netlink.make_standby(&tagged(7)).await.expect_err("no 8021q");
            assert_eq!(
                refusal.to_string(),
                "cannot make pf.7: this kernel has no 8021q; `modprobe 8021q` mends it where the module is installed"
            );
            assert_eq!(host.devices(), before);
            return;
        }
        with_8021q(&host, &before).await;
    });
}

async fn with_8021q(host: &Host, before: &[String]) {
    let spec = tagged(7);
    assert_eq!(host.netlink.make_standby(&spec).await.expect("made"), Change::Made);
    assert_eq!(
        host.netlink.make_standby(&spec).await.expect("again"),
        Change::AlreadyThere
    );
    let found = host.netlink.standby(&spec.name).await.expect("a look").expect("it");
    assert_eq!((found.lower.as_str(), found.pf().as_str()), ("pf.7", "pf"));
    assert_eq!(found.vlan.map(|vlan| vlan.id), Some(7));
    let shown = host.show("-d link show pf.7");
    assert!(
        shown.contains("alias hybond") && shown.contains("vlan protocol 802.1Q id 7"),
        "{shown}"
    );

    // A second pair of the same VLAN shares the sub-interface; the last one takes it along.
    let other: hybond_core::ids::Mac = "52:54:00:aa:00:02".parse().expect("a MAC");
    let second = StandbySpec {
        name: other.standby_name(),
        mac: other,
        ..spec.clone()
    };
    host.netlink.make_standby(&second).await.expect("made");
    host.netlink.remove_standby(&spec.name).await.expect("removed");
    assert!(host.devices().contains(&"pf.7".to_owned()));
    host.netlink.remove_standby(&second.name).await.expect("removed");
    assert_eq!(host.devices(), before);

    // An administrator's own sub-interface is used, and stays.
    host.ip("link add link pf name storage type vlan id 8");
    let down = host.netlink.make_standby(&tagged(8)).await.expect_err("it is down");
    assert!(matches!(down, Error::VlanDown { .. }), "{down}");
    host.ip("link set storage up");
    host.netlink.make_standby(&tagged(8)).await.expect("made");
    let found = host
        .netlink
        .standby(&mac().standby_name())
        .await
        .expect("a look")
        .expect("it");
    assert_eq!(found.lower, name("storage"));
    host.netlink
        .remove_standby(&mac().standby_name())
        .await
        .expect("removed");
    assert!(host.devices().contains(&"storage".to_owned()));

    // What a crash left between the two removals.
    host.netlink.make_standby(&tagged(10)).await.expect("made");
    host.ip("link del hb525400aa0001");
    assert_eq!(
        host.netlink.remove_idle_vlans().await.expect("a sweep"),
        [name("pf.10")]
    );
}

#[test]
fn a_number_that_is_no_vlan_is_refused() {
    on_a_host(|host| async move {
        for vlan in [0, 4095] {
            let refusal = host.netlink.make_standby(&tagged(vlan)).await.expect_err("no VLAN");
            assert_eq!(refusal.to_string(), format!("{vlan} is no VLAN: 1 to 4094 are"));
        }
    });
}
