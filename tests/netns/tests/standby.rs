//! A standby's life on a host: made down, set up, removed; and what is said when that is not possible.

use hybond_core::paths::{Multicast, StandbyMode};
use hybond_netlink::{Change, Error, StandbySpec};
use hybond_test_netns::{mac, name, on_a_host, standby};

#[test]
fn a_standby_is_made_down_set_up_and_removed_without_a_trace() {
    on_a_host(|host| async move {
        let spec = standby();
        let before = host.devices();
        assert_eq!(host.netlink.standby(&spec.name).await.expect("a look"), None);

        assert_eq!(host.netlink.make_standby(&spec).await.expect("made"), Change::Made);
        let made = host
            .netlink
            .standby(&spec.name)
            .await
            .expect("a look")
            .expect("a standby");
        assert_eq!(made.mac, mac());
        assert_eq!(made.lower, name("pf"));
        assert_eq!(made.pf(), &name("pf"));
        assert_eq!(
            (made.up, made.mode, made.multicast),
            (false, StandbyMode::Bridge, Multicast::asked(false, []))
        );
        assert!(std::path::Path::new(&format!("/dev/tap{}", made.index)).exists());
        let shown = host.show("-d link show hb525400aa0001");
        assert!(
            shown.contains("macvtap mode bridge") && shown.contains("state DOWN"),
            "{shown}"
        );
        assert!(
            shown.contains("addrgenmode none"),
            "the host would speak IPv6 with the guest's MAC: {shown}"
        );
        assert!(
            !host.filters("pf", "52:54:00:aa:00:01"),
            "a standby that is down takes no frames"
        );

        assert_eq!(
            host.netlink.set_standby_up(&spec.name, true).await.expect("up"),
            Change::Made
        );
        assert!(host.filters("pf", "52:54:00:aa:00:01"));
        assert!(host.netlink.standby(&spec.name).await.expect("a look").expect("it").up);
        assert_eq!(
            host.netlink.set_standby_up(&spec.name, false).await.expect("down"),
            Change::Made
        );
        assert!(!host.filters("pf", "52:54:00:aa:00:01"));

        assert_eq!(
            host.netlink.remove_standby(&spec.name).await.expect("removed"),
            Change::Made
        );
        assert_eq!(host.devices(), before);
        assert!(!std::path::Path::new(&format!("/dev/tap{}", made.index)).exists());
    });
}

#[test]
fn doing_it_again_changes_nothing() {
    on_a_host(|host| async move {
        let spec = standby();
        assert_eq!(host.netlink.make_standby(&spec).await.expect("made"), Change::Made);
        let first = host.netlink.standby(&spec.name).await.expect("a look");
        assert_eq!(
            host.netlink.make_standby(&spec).await.expect("again"),
            Change::AlreadyThere
        );
        assert_eq!(host.netlink.standby(&spec.name).await.expect("a look"), first);

        assert_eq!(
            host.netlink.set_standby_up(&spec.name, true).await.expect("up"),
            Change::Made
        );
        assert_eq!(
            host.netlink.set_standby_up(&spec.name, true).await.expect("again"),
            Change::AlreadyThere
        );
        // Made again, it stays up.
        assert_eq!(
            host.netlink.make_standby(&spec).await.expect("again"),
            Change::AlreadyThere
        );
        assert!(host.netlink.standby(&spec.name).await.expect("a look").expect("it").up);

        assert_eq!(
            host.netlink.remove_standby(&spec.name).await.expect("removed"),
            Change::Made
        );
        assert_eq!(
            host.netlink.remove_standby(&spec.name).await.expect("again"),
            Change::AlreadyThere
        );
    });
}

#[test]
fn allmulticast_is_set_when_made_and_changed_later() {
    on_a_host(|host| async move {
        let spec = StandbySpec {
            allmulticast: true,
            ..standby()
        };
        assert_eq!(host.netlink.make_standby(&spec).await.expect("made"), Change::Made);
        let found = host.netlink.standby(&spec.name).await.expect("a look").expect("it");
        assert!(found.multicast == Multicast::Everything && !found.up);
        let without = StandbySpec {
            allmulticast: false,
            ..spec
        };
        assert_eq!(
            host.netlink.make_standby(&without).await.expect("changed"),
            Change::Made
        );
        let found = host.netlink.standby(&without.name).await.expect("a look").expect("it");
        assert_eq!(found.multicast, Multicast::asked(false, []));
    });
}

#[test]
fn all_standbys_are_listed_and_nothing_else() {
    on_a_host(|host| async move {
        host.ip("link add link pf name other0 type macvtap mode bridge");
        host.ip("link add link pf name hbffffffffffff type macvlan mode bridge");
        for last in ["52:54:00:aa:00:02", "52:54:00:aa:00:01"] {
            let mac: hybond_core::ids::Mac = last.parse().expect("a MAC");
            let spec = StandbySpec {
                name: mac.standby_name(),
                mac,
                ..standby()
            };
            assert_eq!(host.netlink.make_standby(&spec).await.expect("made"), Change::Made);
        }
        let listed = host.netlink.list_standbys().await.expect("a list");
        let mut names: Vec<_> = listed.iter().map(|standby| standby.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["hb525400aa0001", "hb525400aa0002"]);
        assert!(listed.iter().all(|standby| standby.lower == name("pf")));
    });
}

#[test]
fn a_standby_elsewhere_is_refused_and_replaced_when_told() {
    on_a_host(|host| async move {
        host.ip("link add pf2 type veth peer name wire2");
        host.ip("link set pf2 up");
        let first = standby();
        host.netlink.make_standby(&first).await.expect("made");
        let elsewhere = StandbySpec {
            lower: name("pf2"),
            ..first
        };
        let refusal = host.netlink.make_standby(&elsewhere).await.expect_err("it is on pf");
        assert_eq!(
            refusal.to_string(),
            "standby hb525400aa0001 is there already, with lower device pf instead of pf2; remove it, or ask for it to \
             be replaced"
        );
        let told = StandbySpec {
            replace: true,
            ..elsewhere
        };
        assert_eq!(host.netlink.make_standby(&told).await.expect("replaced"), Change::Made);
        let found = host.netlink.standby(&told.name).await.expect("a look").expect("it");
        assert_eq!((found.lower, found.up), (name("pf2"), false));
        assert_eq!(
            host.netlink.make_standby(&told).await.expect("again"),
            Change::AlreadyThere
        );
    });
}

#[test]
fn a_standby_of_another_mode_or_address_is_refused() {
    on_a_host(|host| async move {
        host.ip("link add link pf name hb525400aa0001 address 52:54:00:aa:00:01 type macvtap mode private");
        let refusal = host.netlink.make_standby(&standby()).await.expect_err("it is private");
        assert!(
            refusal.to_string().contains("mode private instead of bridge"),
            "{refusal}"
        );
        host.ip("link del hb525400aa0001");
        host.ip("link add link pf name hb525400aa0001 address 52:54:00:aa:00:09 type macvtap mode bridge");
        let refusal = host
            .netlink
            .make_standby(&standby())
            .await
            .expect_err("it has another address");
        assert!(
            refusal.to_string().contains("address 52:54:00:aa:00:09 instead of"),
            "{refusal}"
        );
    });
}

#[test]
fn a_lower_device_that_cannot_carry_it_is_named() {
    on_a_host(|host| async move {
        let over = |lower: &str| StandbySpec {
            lower: name(lower),
            ..standby()
        };
        let before = host.devices();
        let missing = host
            .netlink
            .make_standby(&over("pf9"))
            .await
            .expect_err("there is no pf9");
        assert_eq!(missing.to_string(), "there is no network device pf9");

        host.ip("link set pf down");
        let down = host.netlink.make_standby(&over("pf")).await.expect_err("pf is down");
        assert_eq!(
            down.to_string(),
            "pf is down, so nothing can be put over it; `ip link set pf up` mends it"
        );
        assert_eq!(host.devices(), before);

        host.ip("link set pf up");
        host.ip("link add br0 type bridge");
        host.ip("link set pf master br0");
        let port = host
            .netlink
            .make_standby(&over("pf"))
            .await
            .expect_err("pf is a bridge's");
        assert_eq!(
            port.to_string(),
            "no macvtap can be put over pf: it is a port of br0; take it out with `ip link set pf nomaster`, or name \
             br0 instead"
        );
        assert!(!host.devices().contains(&"hb525400aa0001".to_owned()));
    });
}

#[test]
fn a_name_that_belongs_to_something_else_is_left_alone() {
    on_a_host(|host| async move {
        host.ip("link add hb525400aa0001 type bridge");
        let spec = StandbySpec {
            replace: true,
            ..standby()
        };
        let expected = "hb525400aa0001 is there already and is a bridge, not a macvtap; remove or rename it";
        assert_eq!(
            host.netlink
                .make_standby(&spec)
                .await
                .expect_err("a bridge")
                .to_string(),
            expected
        );
        assert_eq!(
            host.netlink
                .standby(&spec.name)
                .await
                .expect_err("a bridge")
                .to_string(),
            expected
        );
        assert_eq!(
            host.netlink
                .remove_standby(&spec.name)
                .await
                .expect_err("a bridge")
                .to_string(),
            expected
        );
        assert!(host.devices().contains(&"hb525400aa0001".to_owned()));
    });
}

#[test]
fn a_standby_that_is_not_there_cannot_be_set_up() {
    on_a_host(|host| async move {
        let missing = host
            .netlink
            .set_standby_up(&standby().name, true)
            .await
            .expect_err("none");
        assert!(matches!(missing, Error::NoLink { .. }), "{missing}");
    });
}

#[test]
fn whoever_has_the_address_already_is_named() {
    on_a_host(|host| async move {
        let spec = standby();
        host.ip("link add link pf name macvtap0 address 52:54:00:aa:00:01 type macvtap mode bridge");
        host.ip("link set macvtap0 up");
        // It can be made, and only cannot be up at the same time.
        host.netlink.make_standby(&spec).await.expect("made");
        let taken = host
            .netlink
            .set_standby_up(&spec.name, true)
            .await
            .expect_err("macvtap0 has it");
        assert_eq!(
            taken.to_string(),
            "hb525400aa0001 cannot be set up: macvtap0 has 52:54:00:aa:00:01 on pf already; set macvtap0 down or give \
             it another address"
        );
        host.ip("link set macvtap0 down");
        assert_eq!(
            host.netlink.set_standby_up(&spec.name, true).await.expect("up"),
            Change::Made
        );
    });
}

#[test]
fn a_standby_whose_character_device_is_another_namespaces_is_not_handed_out() {
    on_a_host(|host| async move {
        let spec = standby();
        host.netlink.make_standby(&spec).await.expect("made");
        let index = host
            .netlink
            .standby(&spec.name)
            .await
            .expect("a look")
            .expect("it")
            .index;
        // A second host of the same machine, whose standby gets the same index.
        let refusal = std::thread::spawn(move || {
            use nix::sched::{CloneFlags, unshare};
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("a network namespace");
            let none: Option<&str> = None;
            nix::mount::mount(Some("sysfs"), "/sys", Some("sysfs"), nix::mount::MsFlags::empty(), none).expect("/sys");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let netlink = hybond_netlink::Netlink::new().expect("a connection");
                let other = hybond_test_netns::Host { netlink };
                other.ip("link add pf type veth peer name wire");
                other.ip("link set pf up");
                let line = format!("link add index {index} link pf name hb525400aa0001 address 52:54:00:aa:00:01");
                other.ip(&format!("{line} type macvtap mode bridge"));
                other
                    .netlink
                    .make_standby(&standby())
                    .await
                    .expect_err("its node is the other's")
                    .to_string()
            })
        });
        let refusal = refusal.join().expect("no panic");
        assert!(
            refusal.contains("belongs to a macvtap of the same index in another network namespace"),
            "{refusal}"
        );
    });
}
