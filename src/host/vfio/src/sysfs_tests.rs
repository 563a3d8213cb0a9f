use super::*;
use crate::testing::{Tree, bdf};
use crate::{BindError, Change};

fn name(text: &str) -> IfName {
    text.parse().expect("an interface name")
}

#[test]
fn a_pf_and_its_vfs_are_found_from_either_end() {
    let tree = Tree::with_igb();
    tree.driver("0000:01:10.2", "vfio-pci");
    tree.interface("0000:01:10.0", "ens1v0", 0, None);
    let sys = tree.sysfs(None);

    assert_eq!(sys.bdf_of(&name("ens1")).expect("there"), bdf("0000:01:00.0"));
    let vfs = sys.vfs_of(&name("ens1")).expect("there");
    assert_eq!(
        vfs,
        [
            Vf {
                bdf: bdf("0000:01:10.0"),
                index: 0,
                iommu_group: Some(7),
                driver: None,
                id: (0x8086, 0x10ca),
                interface: Some(name("ens1v0")),
            },
            Vf {
                bdf: bdf("0000:01:10.2"),
                index: 1,
                iommu_group: Some(8),
                driver: Some("vfio-pci".into()),
                id: (0x8086, 0x10ca),
                interface: None,
            },
        ]
    );
    assert_eq!(sys.pf_of(bdf("0000:01:10.2")).expect("a VF"), (name("ens1"), 1));

    let (pfs, faults) = sys.pfs().expect("readable");
    assert_eq!((pfs.len(), faults.len()), (1, 0), "VFs are no PFs");
    assert_eq!((pfs[0].numvfs, pfs[0].totalvfs, pfs[0].numa_node), (2, 7, None));
    assert_eq!((pfs[0].id, pfs[0].driver.as_deref()), ((0x8086, 0x10c9), Some("igb")));
}

#[test]
fn of_several_interfaces_the_uplinks_first_port_is_the_pf() {
    // A card in switchdev mode: its VFs' representors hang on the same function.
    let tree = Tree::with_igb();
    tree.interface("0000:01:00.0", "a0", 1, Some("pf0vf0"));
    tree.interface("0000:01:00.0", "a1", 1, Some("pf0vf1"));
    tree.interface("0000:01:00.0", "a2", 1, Some("p1"));
    tree.interface("0000:01:00.0", "ens1", 0, Some("p0"));
    let sys = tree.sysfs(None);
    assert_eq!(sys.pf_of(bdf("0000:01:10.0")).expect("a VF"), (name("ens1"), 0));
}

#[test]
fn a_broken_pf_does_not_hide_the_others() {
    let tree = Tree::with_igb();
    tree.pf("0000:02:00.0", "ens2", &["0000:02:10.0"]);
    tree.file("bus/pci/devices/0000:01:00.0/sriov_totalvfs", "many\n");
    let (pfs, faults) = tree.sysfs(None).pfs().expect("readable");
    assert_eq!(pfs.iter().map(|pf| pf.name.as_str()).collect::<Vec<_>>(), ["ens2"]);
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert!(fault.to_string().contains("sriov_totalvfs holds \"many\""), "{fault}");
}

#[test]
fn what_is_not_there_is_named() {
    let tree = Tree::with_igb();
    tree.folder("class/net/br0");
    tree.device("0000:00:03.0", "0x1af4", "0x1041");
    tree.file("bus/pci/devices/0000:01:00.0/sriov_numvfs", "-3\n");
    let sys = tree.sysfs(None);
    assert!(matches!(sys.bdf_of(&name("eth7")), Err(SysfsError::NoInterface(_))));
    assert!(matches!(sys.bdf_of(&name("br0")), Err(SysfsError::NotPci(_))));
    let there = sys.has_interface(&name("br0")).expect("a look");
    assert!(there, "which is there all the same");
    assert!(!sys.has_interface(&name("eth7")).expect("a look"));
    assert!(matches!(sys.driver(bdf("0000:09:00.0")), Err(SysfsError::NoDevice(_))));
    assert!(matches!(sys.pf_of(bdf("0000:01:00.0")), Err(SysfsError::NotAVf(_))));
    assert!(matches!(sys.totalvfs(bdf("0000:00:03.0")), Err(SysfsError::NoSriov(_))));
    let text = sys.vfs_of(&name("ens1")).expect_err("not a number").to_string();
    assert!(text.contains("sriov_numvfs holds \"-3\""), "{text}");
}

#[tokio::test]
async fn the_hosts_driver_is_bound_anew_so_that_it_asks_for_the_address() {
    let tree = Tree::with_igb();
    tree.driver("0000:01:10.0", "igbvf");
    let sys = tree.sysfs(Some("igbvf"));
    let vf = bdf("0000:01:10.0");
    assert_eq!(sys.bind_host(vf).await.expect("bound"), "igbvf");
    assert_eq!(sys.bind_vfio(vf).await.expect("bound"), Change::Made);
    assert_eq!(sys.bind_host(vf).await.expect("bound"), "igbvf");
    let kernel = sys.kernel.clone().expect("a fake one");
    assert_eq!(
        kernel.writes(),
        [
            "unbind=0000:01:10.0",
            "drivers_probe=0000:01:10.0",
            "driver_override=vfio-pci",
            "unbind=0000:01:10.0",
            "drivers_probe=0000:01:10.0",
            "driver_override=",
            "unbind=0000:01:10.0",
            "drivers_probe=0000:01:10.0",
        ]
    );
    let driverless = tree.sysfs(None);
    let why = async || {
        driverless
            .bind_host(vf)
            .await
            .expect_err("the host has none")
            .to_string()
    };
    let error = why().await;
    assert!(
        error.contains("no driver of the host") && error.contains("modprobe"),
        "{error}"
    );
    tree.file("bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe", "0\n");
    let error = why().await;
    assert!(error.contains("sriov_drivers_autoprobe of its PF is 0"), "{error}");
}

#[tokio::test]
async fn binding_takes_the_vf_from_its_driver_and_unbinding_gives_it_back() {
    let tree = Tree::with_igb();
    tree.driver("0000:01:10.0", "igbvf");
    let sys = tree.sysfs(Some("igbvf"));
    let vf = bdf("0000:01:10.0");

    assert_eq!(sys.bind_vfio(vf).await.expect("bound"), Change::Made);
    assert_eq!(sys.driver(vf).expect("there").as_deref(), Some("vfio-pci"));
    assert_eq!(sys.bind_vfio(vf).await.expect("bound"), Change::AlreadyThere);

    assert_eq!(sys.unbind_vfio(vf).await.expect("unbound"), Change::Made);
    assert_eq!(sys.driver(vf).expect("there").as_deref(), Some("igbvf"));
    assert_eq!(sys.unbind_vfio(vf).await.expect("unbound"), Change::AlreadyThere);

    let kernel = sys.kernel.clone().expect("a fake one");
    assert_eq!(
        kernel.writes(),
        [
            "driver_override=vfio-pci",
            "unbind=0000:01:10.0",
            "drivers_probe=0000:01:10.0",
            "driver_override=",
            "unbind=0000:01:10.0",
            "drivers_probe=0000:01:10.0",
        ]
    );
}

#[tokio::test]
async fn without_a_host_driver_the_vf_is_left_without_one() {
    let tree = Tree::with_igb();
    let sys = tree.sysfs(None);
    let vf = bdf("0000:01:10.0");
    assert_eq!(sys.bind_vfio(vf).await.expect("bound"), Change::Made);
    assert_eq!(sys.unbind_vfio(vf).await.expect("unbound"), Change::Made);
    assert_eq!(sys.driver(vf).expect("there"), None);
    assert_eq!(
        sys.unbind_vfio(bdf("0000:01:11.6")).await.expect("gone is fine"),
        Change::AlreadyThere
    );
}

#[tokio::test]
async fn a_group_that_the_host_uses_is_refused_by_name() {
    let tree = Tree::with_igb();
    tree.device("0000:01:11.0", "0x8086", "0x10ca");
    tree.group("0000:01:11.0", 7);
    tree.driver("0000:01:11.0", "igbvf");
    tree.device("0000:00:1c.0", "0x8086", "0x3420");
    tree.group("0000:00:1c.0", 7);
    tree.driver("0000:00:1c.0", "pcieport");
    let sys = tree.sysfs(None);
    match sys.bind_vfio(bdf("0000:01:10.0")).await {
        Err(BindError::SharedGroup { group: 7, others, .. }) => assert_eq!(others, "0000:01:11.0 (igbvf)"),
        other => panic!("{other:?}"),
    }
    assert!(sys.kernel.expect("a fake one").writes().is_empty());
}

#[tokio::test]
async fn without_vfio_pci_or_iommu_nothing_is_touched() {
    let tree = Tree::with_igb();
    std::fs::remove_dir_all(tree.path("bus/pci/drivers/vfio-pci")).expect("there");
    std::fs::remove_file(tree.path("bus/pci/devices/0000:01:10.2/iommu_group")).expect("there");
    let sys = tree.sysfs(None);
    let bound = sys.bind_vfio(bdf("0000:01:10.0")).await;
    assert!(matches!(bound, Err(BindError::NoDriver(_))), "{bound:?}");
    let bound = sys.bind_vfio(bdf("0000:01:10.2")).await;
    assert!(matches!(bound, Err(BindError::NoGroup(_))), "{bound:?}");
    assert!(sys.kernel.expect("a fake one").writes().is_empty());
}
