use super::*;
use crate::Config;
use hybond_core::ids::{DomainId, Mac};
use hybond_core::pool::{Ask, NoVf, PoolBook};
use hybond_vfio::tree::Tree;

/// Two igb on node 0 and one mlx5 on node 1, and one igb without VFs.
fn machine() -> Tree {
    let tree = Tree::with_igb();
    tree.numa_node("0000:01:00.0", 0);
    tree.pf(
        "0000:02:00.0",
        "ens2",
        &["0000:02:10.0", "0000:02:10.2", "0000:02:10.4"],
    );
    tree.driver("0000:02:00.0", "igb");
    tree.numa_node("0000:02:00.0", 0);
    tree.pf("0000:81:00.0", "ens9", &["0000:81:00.2", "0000:81:00.3"]);
    for vf in ["0000:81:00.2", "0000:81:00.3"] {
        tree.device(vf, "0x15b3", "0x101e");
    }
    tree.driver("0000:81:00.0", "mlx5_core");
    tree.numa_node("0000:81:00.0", 1);
    tree.pf("0000:03:00.0", "ens3", &[]);
    tree
}

/// The inventory of a configuration.
fn inventory(tree: &Tree, toml: &str) -> Inventory {
    let file = tree.path("hybond.toml");
    std::fs::write(&file, toml).expect("a file");
    let config = Config::load(&file).expect("valid");
    read(&Sysfs::at(&tree.path("")), &config.pools)
}

/// The VFs of the pool `lan`, with their PFs, and the warnings.
fn lan(tree: &Tree, keys: &str) -> (Vec<String>, Vec<String>) {
    let found = inventory(tree, &format!("[[pool]]\nname = 'lan'\n{keys}\n"));
    let vfs = found.pools[&"lan".parse().expect("a name")].iter();
    let warnings = found.warnings.iter().map(ToString::to_string);
    (
        vfs.map(|vf| format!("{} {}", vf.id, vf.pf)).collect(),
        warnings.collect(),
    )
}

/// A pool of these VFs, given without domain and PF, and no warning.
#[track_caller]
fn selects(keys: &str, expected: &[&str]) {
    let (vfs, warnings) = lan(&machine(), keys);
    let short: Vec<&str> = vfs.iter().map(|vf| &vf["0000:".len()..]).collect();
    let short: Vec<&str> = short.iter().filter_map(|vf| vf.split(' ').next()).collect();
    assert_eq!(short, expected, "{keys}");
    assert_eq!(warnings, Vec::<String>::new(), "{keys}");
}

/// A pool of no VF, and one warning.
#[track_caller]
fn selects_nothing(keys: &str, warning: &str) {
    let (vfs, warnings) = lan(&machine(), keys);
    assert_eq!(vfs, Vec::<String>::new(), "{keys}");
    assert_eq!(warnings, [warning], "{keys}");
}

#[test]
fn vfs_are_selected_by_each_of_their_marks() {
    selects(
        "pf = ['ens2', 'ens1']",
        &["02:10.0", "02:10.2", "02:10.4", "01:10.0", "01:10.2"],
    );
    selects("pf = 'ens9'", &["81:00.2", "81:00.3"]);
    selects("vf = '0000:02:10.2'", &["02:10.2"]);
    selects(
        "vf = ['0000:01:10.2-0000:02:10.1', '81:00.3']",
        &["01:10.2", "02:10.0", "81:00.3"],
    );
    selects("pci_id = '15b3:101e'", &["81:00.2", "81:00.3"]);
    selects("numa_node = 1", &["81:00.2", "81:00.3"]);
    selects(
        "numa_node = [0, 1]",
        &[
            "01:10.0", "01:10.2", "02:10.0", "02:10.2", "02:10.4", "81:00.2", "81:00.3",
        ],
    );
    selects("pf_driver = 'mlx5_core'", &["81:00.2", "81:00.3"]);
}

#[test]
fn selectors_narrow_each_other() {
    selects(
        "pf = ['ens1', 'ens2']\nvf = ['01:10.2', '02:10.4']",
        &["01:10.2", "02:10.4"],
    );
    selects(
        "numa_node = 0\npci_id = '8086:10ca'\nvf = '02:10.0-02:10.2'",
        &["02:10.0", "02:10.2"],
    );
    selects(
        "pf_driver = ['igb', 'mlx5_core']\nnuma_node = 1",
        &["81:00.2", "81:00.3"],
    );
    selects_nothing(
        "pf = 'ens1'\nnuma_node = 1",
        "pool lan has no VF: each of its selectors matches some, and no VF matches all of them; the VFs here are \
         0000:01:10.0, 0000:01:10.2, 0000:02:10.0, 0000:02:10.2, 0000:02:10.4, 0000:81:00.2, 0000:81:00.3",
    );
}

#[test]
fn the_list_form_names_vfs_and_whole_pfs() {
    let found = inventory(
        &machine(),
        "[host]\ndevices = '01:10.2|lan,81:00.0|lan,0000:81:00.3|gold,05:00.0|gold,03:00.0|gold'\n",
    );
    let ids = |pool: &str| {
        let vfs = found.pools[&pool.parse().expect("a name")].iter();
        vfs.map(|vf| vf.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids("lan"), ["0000:01:10.2", "0000:81:00.2", "0000:81:00.3"]);
    assert_eq!(ids("gold"), ["0000:81:00.3"]);
    let warnings: Vec<String> = found.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "pool gold: host.devices \"0000:05:00.0\" matches no VF; the VFs here are 0000:01:10.0, 0000:01:10.2, \
             0000:02:10.0, 0000:02:10.2, 0000:02:10.4, 0000:81:00.2, 0000:81:00.3",
            "pool gold: host.devices \"0000:03:00.0\" is a PF without VFs: write how many, up to 7, to \
             /sys/class/net/ens3/device/sriov_numvfs",
        ]
    );
}

#[test]
fn the_list_form_adds_to_what_a_section_selects_and_repeats_nothing() {
    let found = inventory(
        &machine(),
        "[host]\ndevices = '81:00.2|lan,01:10.0|lan'\n[[pool]]\nname = 'lan'\npf = 'ens1'\n",
    );
    let vfs: Vec<String> = found.pools.values().flatten().map(|vf| vf.id.to_string()).collect();
    assert_eq!(vfs, ["0000:01:10.0", "0000:01:10.2", "0000:81:00.2"]);
}

#[test]
fn a_selector_that_matches_nothing_is_told_with_what_is_there() {
    let pfs = "the PFs here are ens1 0000:01:00.0 (2 VFs), ens2 0000:02:00.0 (3 VFs), ens3 0000:03:00.0 (0 VFs), ens9 \
               0000:81:00.0 (2 VFs)";
    selects_nothing(
        "pf = 'ens7'",
        &format!(
            "pool lan: pf \"ens7\" cannot be used: there is no network interface ens7 on this host; see the names in \
             /sys/class/net; {pfs}"
        ),
    );
    selects_nothing(
        "pf = 'ens3'",
        "pool lan: pf \"ens3\" is a PF without VFs: write how many, up to 7, to \
         /sys/class/net/ens3/device/sriov_numvfs",
    );
    selects_nothing(
        "vf = '0000:01:00.0'",
        "pool lan: vf \"0000:01:00.0\" is PF ens1 and no VF: for all its VFs, pf = [\"ens1\"]",
    );
    selects_nothing(
        "pci_id = '8086:1889'",
        "pool lan: pci_id \"8086:1889\" matches no VF; the VFs here are 15b3:101e, 8086:10ca",
    );
    selects_nothing(
        "pf = 'ens1'\nnuma_node = 2",
        "pool lan: numa_node 2 matches no VF; the VFs here are on NUMA node 0, 1",
    );
    selects_nothing(
        "pf_driver = 'ice'",
        "pool lan: pf_driver \"ice\" matches no VF; the PFs of the VFs here have the driver igb, mlx5_core",
    );
    let (vfs, warnings) = lan(&machine(), "pf = 'ens1'\nvf = ['01:10.0', '02:10.0']");
    assert_eq!(vfs, ["0000:01:10.0 ens1"]);
    assert_eq!(
        warnings,
        ["pool lan: vf \"0000:02:10.0\" matches VFs here, and none of them is left by the pool's other selectors"]
    );
}

#[test]
fn a_machine_without_vfs_says_so() {
    let (_, warnings) = lan(&Tree::new(), "numa_node = 0");
    assert_eq!(
        warnings,
        [
            "pool lan: numa_node 0 matches no VF; there is no VF here; there is no PF here: no NIC with SR-IOV and a \
             network interface (lspci -v)"
        ]
    );
    let (_, warnings) = lan(&Tree::with_igb(), "numa_node = 0");
    assert_eq!(
        warnings,
        ["pool lan: numa_node 0 matches no VF; the machine does not say this of its VFs"]
    );
}

#[test]
fn a_pf_that_cannot_be_read_takes_nothing_from_the_others() {
    let tree = machine();
    tree.file("bus/pci/devices/0000:02:00.0/sriov_numvfs", "some\n");
    let (vfs, warnings) = lan(&tree, "numa_node = 0");
    assert_eq!(vfs, ["0000:01:10.0 ens1", "0000:01:10.2 ens1"]);
    assert_eq!(warnings, ["PFs or VFs are left out"], "and its cause says which file");
}

#[test]
fn the_other_interface_of_a_pf_is_a_name_for_it_too() {
    // One function that drives two ports: the VFs are the same.
    let tree = machine();
    tree.interface("0000:01:00.0", "ens1d1", 1, None);
    let (vfs, warnings) = lan(&tree, "pf = 'ens1d1'");
    assert_eq!(vfs, ["0000:01:10.0 ens1d1", "0000:01:10.2 ens1d1"]);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn emulated_pools_look_at_no_pci() {
    let (vfs, warnings) = lan(&Tree::new(), "pf = 'veth0'\nemulated = { bridge = 'br0', count = 2 }");
    assert_eq!(vfs, ["veth0.0 veth0", "veth0.1 veth0"]);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_lease_from_one_pool_takes_the_vf_from_all_that_have_it() {
    let found = inventory(
        &machine(),
        "[[pool]]\nname = 'lan'\npf = 'ens1'\n[[pool]]\nname = 'gold'\nvf = '01:10.0'\n[host]\ndevices = '01:10.0|old'\n",
    );
    let mut book = PoolBook::default();
    book.set_pools(found.pools);
    let ask = |pool: &str, n: u8| Ask {
        pool: pool.parse().expect("a name"),
        domain: DomainId::from_bytes([n; 16]),
        mac: Mac::from_octets([0x52, 0x54, 0, 0, 0, n]).expect("unicast"),
        pf: None,
        numa_nodes: Vec::new(),
    };
    assert_eq!(
        book.lease(&ask("gold", 1)).expect("free").vf.id.as_str(),
        "0000:01:10.0"
    );
    assert!(matches!(book.lease(&ask("old", 2)), Err(NoVf::AllLeased { .. })));
    assert_eq!(book.lease(&ask("lan", 3)).expect("free").vf.id.as_str(), "0000:01:10.2");
}
