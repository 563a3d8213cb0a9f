use super::*;
use crate::testing::{FakeMonitor, Opener, Tree, bdf};

const MIB: u64 = 1 << 20;

/// VF 0000:01:10.0 in group 7, whose node is in truth /dev/zero.
fn bound() -> Tree {
    let tree = Tree::with_igb();
    tree.driver("0000:01:10.0", "vfio-pci");
    tree.group_dev(7, "1:5");
    tree
}

fn plugger(tree: &Tree) -> Plugger {
    let mut plugger = Plugger::new(tree.sysfs(None));
    plugger.headroom = 0;
    plugger
}

fn request(pid: u32) -> PlugRequest {
    PlugRequest {
        pid,
        vf: bdf("0000:01:10.0"),
        id: "hbvf525400aa0001".into(),
        bus: "hbrp525400aa0001".into(),
        guest_ram_bytes: MIB,
    }
}

fn locked_limit(pid: u32) -> u64 {
    let process = Process::open(pid).expect("it runs");
    crate::memlock::limit(&process).expect("it runs").soft
}

#[tokio::test]
async fn a_group_is_granted_before_the_plug_and_taken_back_after_the_unplug() {
    let Some(mut qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    let (plugger, qmp, request) = (plugger(&tree), monitor.connect().await, request(qemu.pid()));

    let change = plugger.plug(PlugWay::Group, &qmp, &request).await.expect("plugged");
    assert_eq!(change, Change::Made);
    let sent = monitor.state().arguments_of("device_add").cloned().expect("sent");
    assert_eq!(
        sent,
        json!({"driver": "vfio-pci", "host": "0000:01:10.0", "id": "hbvf525400aa0001", "bus": "hbrp525400aa0001",
            "failover_pair_id": "hybond-none"})
    );
    assert!(qemu.can_open("/dev/vfio/7"));
    assert!(qemu.exists("/dev/vfio/vfio"));
    assert_eq!(locked_limit(qemu.pid()), MIB);

    for _ in 0..2 {
        let revoked = plugger
            .revoke(PlugWay::Group, Some(qemu.pid()), request.vf, Some(&qmp))
            .await;
        revoked.expect("everything");
        assert!(!qemu.can_open("/dev/vfio/7"));
        assert!(!qemu.exists("/dev/vfio"));
        assert_eq!(locked_limit(qemu.pid()), 64 * 1024);
    }
    qemu.end();
}

#[tokio::test]
async fn what_qemu_refuses_leaves_no_grant() {
    let Some(mut qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    monitor.state().refuse = Some("vfio 0000:01:10.0: failed to open /dev/vfio/7: Permission denied");
    let (plugger, qmp, request) = (plugger(&tree), monitor.connect().await, request(qemu.pid()));

    let refused = plugger.plug(PlugWay::Group, &qmp, &request).await.expect_err("refused");
    assert!(
        matches!(
            refused,
            PlugError::Qmp {
                command: "device_add",
                ..
            }
        ),
        "{refused}"
    );
    assert!(!qemu.can_open("/dev/vfio/7"));
    assert!(!qemu.exists("/dev/vfio"));
    assert_eq!(locked_limit(qemu.pid()), 64 * 1024);
    qemu.end();
}

#[tokio::test]
async fn a_grant_that_fails_takes_the_earlier_ones_back() {
    let Some(mut qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    let (plugger, qmp, mut request) = (plugger(&tree), monitor.connect().await, request(qemu.pid()));
    // More than any hard limit without CAP_SYS_RESOURCE; with it, the plug succeeds and this test has no case.
    request.guest_ram_bytes = 1 << 50;
    match plugger.plug(PlugWay::Group, &qmp, &request).await {
        Ok(_) => eprintln!("skipped: this machine lets us raise any limit"),
        Err(PlugError::Grant {
            source: GrantError::Memlock { .. },
            ..
        }) => {
            assert!(!qemu.can_open("/dev/vfio/7"));
            assert!(!qemu.exists("/dev/vfio"));
            assert!(
                monitor.state().arguments_of("device_add").is_none(),
                "QEMU was not even asked"
            );
        }
        Err(other) => panic!("{other}"),
    }
    qemu.end();
}

#[tokio::test]
async fn a_second_daemon_takes_back_what_the_first_granted() {
    let Some(mut qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    let (qmp, request) = (monitor.connect().await, request(qemu.pid()));
    plugger(&tree)
        .plug(PlugWay::Group, &qmp, &request)
        .await
        .expect("plugged");

    let second = plugger(&tree);
    let revoked = second
        .revoke(PlugWay::Group, Some(qemu.pid()), request.vf, Some(&qmp))
        .await;
    revoked.expect("everything that can be opened");
    assert!(!qemu.can_open("/dev/vfio/7"));
    assert!(!qemu.exists("/dev/vfio"));
    assert_eq!(
        locked_limit(qemu.pid()),
        MIB,
        "what it was before is not known any more"
    );
    qemu.end();
}

#[tokio::test]
async fn of_a_vf_that_was_taken_off_its_pf_all_is_taken_back_that_is_remembered() {
    let Some(mut qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    let (plugger, qmp, request) = (plugger(&tree), monitor.connect().await, request(qemu.pid()));
    plugger.plug(PlugWay::Group, &qmp, &request).await.expect("plugged");
    tree.remove(&request.vf.to_string());
    for _ in 0..2 {
        let revoked = plugger.revoke(PlugWay::Group, Some(qemu.pid()), request.vf, Some(&qmp));
        revoked.await.expect("nothing of it is left, the second time");
        assert!(!qemu.can_open("/dev/vfio/7"));
        assert!(!qemu.exists("/dev/vfio"));
    }
    qemu.end();
}

#[tokio::test]
async fn an_id_that_another_device_has_is_refused_and_a_qemu_that_is_gone_is_no_error() {
    let Some(qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    let (plugger, qmp, request) = (plugger(&tree), monitor.connect().await, request(qemu.pid()));
    monitor.state().devices.push(request.id.clone());
    let refused = plugger.plug(PlugWay::Group, &qmp, &request).await;
    assert!(matches!(refused, Err(PlugError::IdInUse { .. })), "{refused:?}");
    let pid = qemu.pid();
    qemu.end();
    for pid in [Some(pid), None] {
        plugger
            .revoke(PlugWay::Group, pid, request.vf, None)
            .await
            .expect("nothing left");
    }
}

#[tokio::test]
async fn a_vf_that_is_not_bound_is_refused_before_any_grant() {
    let Some(qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (Tree::with_igb(), FakeMonitor::start());
    let (plugger, qmp, request) = (plugger(&tree), monitor.connect().await, request(qemu.pid()));
    for way in [PlugWay::Group, PlugWay::Iommufd] {
        let refused = plugger.plug(way, &qmp, &request).await;
        assert!(matches!(refused, Err(PlugError::NotPossible { .. })), "{refused:?}");
    }
    assert!(!qemu.exists("/dev/vfio"));
    let refused = plugger.plug(PlugWay::Libvirt, &qmp, &request).await;
    assert!(
        matches!(refused, Err(PlugError::OtherWay(PlugWay::Libvirt))),
        "{refused:?}"
    );
    qemu.end();
}

#[tokio::test]
async fn descriptors_are_passed_with_one_context_for_all_primaries() {
    let Some(qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    tree.file("bus/pci/devices/0000:01:10.0/vfio-dev/vfio0/dev", "1:5\n");
    tree.file("dev/iommu", "");
    tree.file("dev/vfio/devices/vfio0", "");
    let mut plugger = plugger(&tree);
    plugger.dev = tree.path("dev");
    let (qmp, request) = (monitor.connect().await, request(qemu.pid()));
    // A second primary: QEMU has the context, and keeps it.
    monitor.state().objects.push("hbiom".into());
    plugger.plug(PlugWay::Iommufd, &qmp, &request).await.expect("plugged");
    {
        let state = monitor.state();
        assert!(state.arguments_of("object-add").is_none());
        let fd = state.arguments_of("getfd").expect("sent")["fdname"].clone();
        let device = state.arguments_of("device_add").expect("sent");
        assert_eq!((&device["fd"], &device["iommufd"]), (&fd, &json!("hbiom")));
        assert_eq!(device["failover_pair_id"], "hybond-none");
    }
    let revoked = plugger
        .revoke(PlugWay::Iommufd, Some(qemu.pid()), request.vf, Some(&qmp))
        .await;
    revoked.expect("everything");
    assert_eq!(locked_limit(qemu.pid()), 64 * 1024);
    assert!(
        monitor.state().arguments_of("object-del").is_none(),
        "it would leave a descriptor behind"
    );
    assert_eq!(
        monitor.state().arguments_of("closefd").expect("sent")["fdname"],
        "hbfd-0000:01:10.0"
    );
    qemu.end();
}

#[tokio::test]
async fn a_context_that_counts_per_user_is_told_from_one_that_counts_per_process() {
    let Some(qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    tree.file("bus/pci/devices/0000:01:10.0/vfio-dev/vfio0/dev", "1:5\n");
    // A plain file refuses the option, as the kernel does without CAP_SYS_RESOURCE.
    tree.file("dev/iommu", "");
    tree.file("dev/vfio/devices/vfio0", "");
    let mut plugger = plugger(&tree);
    plugger.dev = tree.path("dev");
    let (qmp, request) = (monitor.connect().await, request(qemu.pid()));
    let plugged = plugger.plug(PlugWay::Iommufd, &qmp, &request).await;
    assert_eq!(monitor.state().objects, ["hbiom-user"]);
    // No limit is enough for all QEMUs of a user but none at all, which takes CAP_SYS_RESOURCE, too.
    match plugged {
        Ok(_) => assert_eq!(locked_limit(qemu.pid()), libc::RLIM_INFINITY),
        Err(e) => assert!(
            matches!(
                e,
                PlugError::Grant {
                    source: GrantError::Memlock { bytes: u64::MAX, .. },
                    ..
                }
            ),
            "{e:?}"
        ),
    }
    qemu.end();
}

#[tokio::test]
async fn a_group_granted_before_the_kernel_had_iommufd_is_taken_back_all_the_same() {
    let Some(mut qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    let (qmp, request) = (monitor.connect().await, request(qemu.pid()));
    plugger(&tree)
        .plug(PlugWay::Group, &qmp, &request)
        .await
        .expect("plugged");
    let second = plugger(&tree);
    let revoked = second
        .revoke(PlugWay::Iommufd, Some(qemu.pid()), request.vf, Some(&qmp))
        .await;
    revoked.expect("everything");
    assert!(!qemu.can_open("/dev/vfio/7"));
    assert!(!qemu.exists("/dev/vfio"));
    qemu.end();
}

#[tokio::test]
async fn an_unplug_of_what_is_not_there_is_done() {
    let monitor = FakeMonitor::start();
    let qmp = monitor.connect().await;
    assert_eq!(
        request_unplug(&qmp, "hbvf525400aa0001").await.expect("fine"),
        Unplug::Gone
    );
    monitor.state().devices.push("hbvf525400aa0001".into());
    assert_eq!(
        request_unplug(&qmp, "hbvf525400aa0001").await.expect("fine"),
        Unplug::Pending
    );
}

#[tokio::test]
async fn an_emulated_primary_takes_a_tap_by_descriptor() {
    use crate::emulated::{EmulatedModel, plug, revoke};
    let monitor = FakeMonitor::start();
    let qmp = monitor.connect().await;
    let mac = "52:54:00:aa:00:01".parse().expect("a MAC");
    let tap = std::fs::File::open("/dev/null").expect("there");
    let change = plug(&qmp, mac, EmulatedModel::Igb, tap.as_fd()).await.expect("plugged");
    assert_eq!(change, Change::Made);
    {
        let state = monitor.state();
        let netdev = state.arguments_of("netdev_add").expect("sent");
        let device = state.arguments_of("device_add").expect("sent");
        assert_eq!(netdev["fd"], state.arguments_of("getfd").expect("sent")["fdname"]);
        assert_eq!(device["netdev"], netdev["id"]);
        assert_eq!(
            (&device["driver"], &device["bus"]),
            (&json!("igb"), &json!("hbrp525400aa0001"))
        );
    }
    let change = plug(&qmp, mac, EmulatedModel::Igb, tap.as_fd()).await.expect("is so");
    assert_eq!(change, Change::AlreadyThere);
    assert_eq!(revoke(&qmp, mac).await.expect("none left"), Change::AlreadyThere);
}

#[tokio::test]
async fn a_group_stays_until_its_last_vf_is_gone() {
    // A NIC without ACS: both VFs in one group.
    let Some(mut qemu) = Opener::private_root() else { return };
    let (tree, monitor) = (bound(), FakeMonitor::start());
    tree.group("0000:01:10.2", 7);
    tree.driver("0000:01:10.2", "vfio-pci");
    let (plugger, qmp, first) = (plugger(&tree), monitor.connect().await, request(qemu.pid()));
    let second = PlugRequest {
        vf: bdf("0000:01:10.2"),
        id: "hbvf525400aa0002".into(),
        ..first.clone()
    };
    for request in [&first, &second] {
        plugger.plug(PlugWay::Group, &qmp, request).await.expect("plugged");
    }
    let revoke = async |vf| plugger.revoke(PlugWay::Group, Some(qemu.pid()), vf, Some(&qmp)).await;
    revoke(first.vf).await.expect("what was its alone");
    assert!(qemu.exists("/dev/vfio/7"));
    revoke(second.vf).await.expect("everything");
    assert!(!qemu.can_open("/dev/vfio/7"));
    assert!(!qemu.exists("/dev/vfio"));
    qemu.end();
}
