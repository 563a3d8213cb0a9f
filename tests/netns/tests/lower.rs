//! Lower devices by the names that a domain's XML has for them.

use hybond_netlink::{Change, Error, Lower};
use hybond_test_netns::{name, on_a_host};

#[test]
fn a_pf_is_found_by_each_of_its_names() {
    on_a_host(|host| async move {
        let logical = name("eth02bc4aec-b4");
        assert_eq!(host.netlink.lower(&logical).await.expect("asked"), None);
        host.ip("link property add dev pf altname eth02bc4aec-b4");
        let found = host.netlink.lower(&logical).await.expect("asked");
        let pf = Lower {
            name: name("pf"),
            pf: name("pf"),
            vlan: None,
        };
        assert_eq!(found, Some(pf.clone()));
        assert_eq!(host.netlink.lower(&name("pf")).await.expect("asked"), Some(pf));
    });
}

#[test]
fn a_sub_interface_is_its_pf_and_a_vlan() {
    on_a_host(|host| async move {
        assert_eq!(host.netlink.sub_interface(&name("pf"), 42).await.expect("asked"), None);
        if !host.has_8021q() {
            // Then no domain can be on one either.
            return;
        }
        host.ip("link add link pf name pf.42 type vlan id 42");
        host.ip("link property add dev pf.42 altname lan42");
        let found = host.netlink.lower(&name("lan42")).await.expect("asked").expect("there");
        assert_eq!(
            (found.name, found.pf, found.vlan),
            (name("pf.42"), name("pf"), Some(42))
        );
        let of_pf = host.netlink.sub_interface(&name("pf"), 42).await.expect("asked");
        assert_eq!(of_pf, Some(name("pf.42")));
        // One of hybond's goes with its last standby, and is nothing for libvirt to build on.
        host.ip("link set pf.42 alias hybond");
        assert_eq!(host.netlink.sub_interface(&name("pf"), 42).await.expect("asked"), None);
    });
}

#[test]
fn a_further_name_is_given_once_and_not_taken_from_others() {
    on_a_host(|host| async move {
        let logical = name("eth02bc4aec-b4");
        let pf = name("pf");
        assert_eq!(
            host.netlink.add_altname(&pf, &logical).await.expect("given"),
            Change::Made
        );
        assert_eq!(
            host.netlink.add_altname(&pf, &logical).await.expect("has it"),
            Change::AlreadyThere
        );
        assert!(host.show("link show eth02bc4aec-b4").contains("altname eth02bc4aec-b4"));
        let error = host
            .netlink
            .add_altname(&name("wire"), &logical)
            .await
            .expect_err("taken");
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        let error = host
            .netlink
            .add_altname(&name("pf9"), &logical)
            .await
            .expect_err("no such PF");
        assert!(matches!(error, Error::NoLink { .. }), "{error}");
    });
}

#[test]
fn a_further_name_is_taken_back_and_another_device_may_have_it() {
    on_a_host(|host| async move {
        let logical = name("eth02bc4aec-b4");
        let pf = name("pf");
        host.netlink.add_altname(&pf, &logical).await.expect("given");
        let of_another = host.netlink.remove_altname(&name("wire"), &logical).await;
        assert_eq!(of_another.expect("not its own"), Change::AlreadyThere);
        assert_eq!(
            host.netlink.remove_altname(&pf, &logical).await.expect("taken"),
            Change::Made
        );
        assert_eq!(
            host.netlink.remove_altname(&pf, &logical).await.expect("gone"),
            Change::AlreadyThere
        );
        assert_eq!(
            host.netlink.remove_altname(&pf, &pf).await.expect("its own name stays"),
            Change::AlreadyThere
        );
        assert_eq!(
            host.netlink
                .add_altname(&name("wire"), &logical)
                .await
                .expect("it is free"),
            Change::Made
        );
    });
}
