use super::*;
use crate::testing::Tree;

const WITH_GROUPS: &str = "Character devices:\n 10 misc\n511 vfio\n\nBlock devices:\n  7 vfio-dev\n";
const WITH_ALL: &str = "Character devices:\n 10 misc\n511 vfio\n510 vfio-dev\n\nBlock devices:\n  7 loop\n";

fn look(tree: &Tree, devices: &str, nodes: &[&str], bpf: Result<(), String>) -> Detection {
    tree.file("proc/devices", devices);
    for node in nodes {
        tree.file(&format!("dev/{node}"), "");
    }
    detect_in(&tree.sysfs(None), &tree.path("proc"), &tree.path("dev"), || bpf)
}

#[test]
fn the_best_way_that_the_kernel_has_is_taken_and_the_others_explained() {
    let found = look(&Tree::with_igb(), WITH_ALL, &["iommu", "vfio/vfio"], Ok(()));
    assert_eq!(found.way, PlugWay::Iommufd);

    // Debian's stock kernel.
    let found = look(&Tree::with_igb(), WITH_GROUPS, &["vfio/vfio"], Ok(()));
    assert_eq!(found.way, PlugWay::Group);
    assert!(found.reason.contains("CONFIG_IOMMUFD"), "{}", found.reason);
    assert_eq!(found.rejected.len(), 1);

    // iommufd without VFIO's character devices.
    let found = look(&Tree::with_igb(), WITH_GROUPS, &["iommu", "vfio/vfio"], Ok(()));
    assert_eq!(found.way, PlugWay::Group);
    assert!(found.reason.contains("CONFIG_VFIO_DEVICE_CDEV"), "{}", found.reason);

    let found = look(&Tree::with_igb(), WITH_GROUPS, &["vfio/vfio"], Err("no bpf".into()));
    assert_eq!(found.way, PlugWay::Libvirt);
    assert!(found.reason.contains("no bpf"), "{}", found.reason);
    assert_eq!(found.rejected.len(), 2);
}

#[test]
fn without_an_iommu_every_way_says_so() {
    let tree = Tree::with_igb();
    fs::remove_dir_all(tree.path("kernel/iommu_groups")).expect("there");
    let found = look(&tree, WITH_ALL, &["iommu", "vfio/vfio"], Ok(()));
    assert_eq!(found.way, PlugWay::Libvirt);
    assert!(found.rejected.iter().all(|(_, why)| why.contains("intel_iommu=on")));
}

#[test]
fn ways_are_written_as_they_are_read() {
    for way in PlugWay::ALL {
        assert_eq!(way.to_string().parse::<PlugWay>().expect("itself"), way);
        assert_eq!(serde_json::to_value(way).expect("text"), way.as_str());
    }
    assert!("vfio".parse::<PlugWay>().is_err());
}
