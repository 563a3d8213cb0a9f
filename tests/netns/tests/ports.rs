//! Port profiles of VFs, as far as a kernel without a card that knows them has an answer: the message of an association is
//! taken, and a driver without `ndo_set_vf_port()` is told from a switch that refuses.

use hybond_netlink::{Error, PortAssociation};
use hybond_test_netns::{name, on_a_host};

fn web() -> PortAssociation {
    PortAssociation {
        profile: "web".parse().expect("a profile"),
        instance: "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID"),
        host: Some([0x11; 16]),
        mac: None,
    }
}

#[test]
fn a_pf_whose_driver_knows_no_port_profiles_is_named_with_the_ways_out() {
    on_a_host(|host| async move {
        let before = host.show("-d link show dev pf");
        let refusal = host.netlink.associate_vf(&name("pf"), 1, &web()).await;
        let refusal = refusal.expect_err("a veth has none");
        // EOPNOTSUPP is what do_setlink() answers to a well-formed IFLA_VF_PORTS of such a device.
        assert!(matches!(refusal, Error::NoPortProfiles { .. }), "{refusal:?}");
        let told = refusal.to_string();
        assert!(
            told.starts_with("VF 1 of pf cannot be associated by port profile \"web\": its driver knows none"),
            "{told}"
        );
        assert!(told.contains("flavor virtual"), "{told}");
        assert_eq!(host.show("-d link show dev pf"), before, "nothing else was changed");
    });
}

#[test]
fn where_the_vf_or_its_pf_is_gone_that_is_said_and_not_taken_for_no_association() {
    on_a_host(|host| async move {
        let no_vf = host.netlink.disassociate_vf(&name("pf"), 1).await.expect_err("no VFs");
        assert!(matches!(no_vf, Error::NoVf { index: 1, count: 0, .. }), "{no_vf:?}");
        let no_pf = host.netlink.vf_port(&name("pf9"), 1).await.expect_err("no such PF");
        assert!(matches!(no_pf, Error::NoLink { .. }), "{no_pf:?}");
    });
}
