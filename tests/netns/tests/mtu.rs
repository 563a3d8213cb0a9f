//! The MTU of a standby and of what is below it.

use hybond_netlink::{Change, Error, StandbySpec};
use hybond_test_netns::{Host, mac, name, on_a_host, standby};

fn jumbo(vlan: Option<u16>) -> StandbySpec {
    StandbySpec {
        vlan,
        mtu: Some(9000),
        ..standby()
    }
}

async fn mtu(host: &Host) -> u32 {
    let found = host.netlink.standby(&mac().standby_name()).await.expect("a look");
    found.expect("it").mtu
}

#[test]
fn a_pf_that_carries_less_than_the_pool_says_is_named_with_the_remedy() {
    on_a_host(|host| async move {
        let before = host.devices();
        let refusal = host.netlink.make_standby(&jumbo(None)).await.expect_err("pf has 1500");
        assert_eq!(
            refusal.to_string(),
            "pf carries packets of 1500 bytes, and 9000 are needed; `ip link set pf mtu 9000` mends it, where what is below \
             allows it"
        );
        assert_eq!(host.devices(), before);
        host.ip("link set pf mtu 9216");
        assert_eq!(
            host.netlink.make_standby(&jumbo(None)).await.expect("made"),
            Change::Made
        );
        assert_eq!(mtu(&host).await, 9000);
        let smaller = StandbySpec {
            mtu: Some(1500),
            ..standby()
        };
        assert_eq!(
            host.netlink.make_standby(&smaller).await.expect("changed"),
            Change::Made
        );
        assert_eq!(mtu(&host).await, 1500);
        // What somebody does to the PF is seen: the kernel narrows what is over it.
        host.netlink.make_standby(&jumbo(None)).await.expect("changed");
        host.ip("link set pf mtu 1400");
        assert_eq!(mtu(&host).await, 1400);
    });
}

#[test]
fn a_sub_interface_of_hybonds_is_widened_and_another_is_named() {
    on_a_host(|host| async move {
        // Made when the PF carried less, for a pool that needs no more.
        let small = StandbySpec {
            vlan: Some(7),
            ..standby()
        };
        match host.netlink.make_standby(&small).await {
            // This kernel has no 8021q; tests/vlan.rs says how that is told.
            Err(Error::NoModule { .. }) => return,
            made => assert_eq!(made.expect("made"), Change::Made),
        }
        host.ip("link set pf mtu 9216");
        assert_eq!(mtu(&host).await, 1500);
        assert_eq!(
            host.netlink.make_standby(&jumbo(Some(7))).await.expect("widened"),
            Change::Made
        );
        assert_eq!(mtu(&host).await, 9000);
        host.netlink
            .remove_standby(&mac().standby_name())
            .await
            .expect("removed");

        host.ip("link add link pf name storage mtu 1500 type vlan id 8");
        host.ip("link set storage up");
        let refusal = host
            .netlink
            .make_standby(&jumbo(Some(8)))
            .await
            .expect_err("not hybond's");
        assert!(
            matches!(&refusal, Error::LowerMtu { lower, .. } if *lower == name("storage")),
            "{refusal}"
        );
    });
}
