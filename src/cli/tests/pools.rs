//! What a user sees of pools: `config check`, which asks nobody, and `inventory`.

mod common;

use common::{Daemon, Outcome, hybondctl};
use hybond_vfio::tree::Tree;
use hybond_wire::control::{LeaseStatus, Request, Response};
use hybond_wire::inventory::{VfLease, VfRow, VfState};
use std::path::Path;

/// `config check` of this text, on a machine with one igb of two VFs.
fn check(toml: &str, json: bool) -> (Tree, Outcome) {
    let tree = Tree::with_igb();
    tree.file("etc/hybond.toml", toml);
    let file = tree.path("etc/hybond.toml");
    let sysfs = tree.path("");
    let mut arguments = vec!["config", "check"];
    arguments.extend([file.to_str().expect("UTF-8"), "--sysfs", sysfs.to_str().expect("UTF-8")]);
    arguments.extend(json.then_some("--json"));
    let outcome = hybondctl(Path::new("/nonexistent"), &arguments);
    (tree, outcome)
}

#[test]
fn config_check_shows_what_each_pool_has_here() {
    let toml = "[host]\ndevices = '01:10.2|gold'\n[[pool]]\nname = 'lan'\npf = 'ens1'\n\
                [[pool]]\nname = 'storage'\npf_driver = 'mlx5_core'\n";
    let (tree, outcome) = check(toml, false);
    let expected = "\
POOL  VF            PF    NUMA
gold  0000:01:10.2  ens1  -
lan   0000:01:10.0  ens1  -
lan   0000:01:10.2  ens1  -
gold: 1 VFs on this machine
lan: 2 VFs on this machine
storage: 0 VFs on this machine
warning: pool storage: pf_driver \"mlx5_core\" matches no VF; the PFs of the VFs here have the driver igb
";
    let file = tree.path("etc/hybond.toml");
    assert_eq!(outcome.ok(), format!("{}: valid\n{expected}", file.display()));

    let json = check(toml, true).1.json();
    assert_eq!(json["pools"][1]["vfs"][0]["vf"], "0000:01:10.0");
    assert_eq!(json["warnings"][0]["pool"], "storage");
    assert_eq!(json["warnings"][0]["selector"], "pf_driver \"mlx5_core\"");
}

#[test]
fn config_check_names_file_line_and_what_is_allowed() {
    let (tree, outcome) = check("[[pool]]\nname = 'lan'\nvf = '01:10'\n", false);
    let place = format!("hybondctl: {}:3: ", tree.path("etc/hybond.toml").display());
    outcome.assert_failed(1, &place);
    outcome.assert_failed(1, "is not a VF's address such as \"0000:01:10.0\", or a range");
    let (_, outcome) = check("[[pool]]\nname = 'lan'\nvfs = '01:10.0'\n", true);
    outcome.assert_failed(1, "unknown field `vfs`, expected one of `name`, `pf`, `vf`, `pci_id`");
    assert_eq!(outcome.json()["error"]["kind"], "failed");
    let outcome = hybondctl(
        Path::new("/nonexistent"),
        &["config", "check", "/nonexistent/hybond.toml"],
    );
    outcome.assert_failed(1, "there is no /nonexistent/hybond.toml");
}

#[test]
fn a_configuration_without_pools_says_where_to_read_on() {
    let (_, outcome) = check("", false);
    assert!(outcome.ok().ends_with("no pool is configured; see hybond.toml(5)\n"));
}

fn row(function: &str, state: VfState) -> VfRow {
    let name = format!("0000:01:10.{function}");
    let bdf: hybond_core::ids::Bdf = name.parse().expect("an address");
    VfRow {
        host: "node1".to_owned(),
        pools: vec!["10GE".parse().expect("a pool"), "gold".parse().expect("a pool")],
        name: name.parse().expect("a VF"),
        address: Some(bdf.into()),
        pf: "enp1s0f0".parse().expect("a name"),
        pf_driver: Some("igb".to_owned()),
        index: 0,
        driver: Some("vfio-pci".to_owned()),
        interface: None,
        pci_id: Some("8086:10ca".to_owned()),
        numa_node: Some(1),
        state,
        lease: None,
    }
}

#[test]
fn the_inventory_has_a_row_for_each_vf() {
    let owner = LeaseStatus {
        domain: "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID"),
        name: "web-1".to_owned(),
        mac: "52:54:00:aa:00:01".parse().expect("a MAC"),
    };
    let plugged = VfRow {
        lease: Some(VfLease {
            pool: Some("10GE".parse().expect("a pool")),
            owner,
        }),
        ..row("2", VfState::Plugged)
    };
    let unused = VfRow {
        pools: Vec::new(),
        driver: None,
        numa_node: None,
        ..row("4", VfState::NoPool)
    };
    let answer = Response::Inventory {
        vfs: vec![row("0", VfState::Free), plugged, unused],
    };
    let none = Response::Inventory { vfs: Vec::new() };
    let daemon = Daemon::answering(vec![vec![answer.clone()], vec![answer], vec![none]]);
    let expected = "\
HOST   NAME          POOLS      PF        DRIVER    NUMA  STATE    DOMAIN  UUID                                  MAC
node1  0000:01:10.0  10GE,gold  enp1s0f0  vfio-pci  1     free     -       -                                     -
node1  0000:01:10.2  10GE,gold  enp1s0f0  vfio-pci  1     plugged  web-1   a2a2a2a2-0000-4000-8000-000000000002  52:54:00:aa:00:01
node1  0000:01:10.4  -          enp1s0f0  -         -     no-pool  -       -                                     -
";
    assert_eq!(hybondctl(&daemon.socket(), &["inventory"]).ok(), expected);
    let json = hybondctl(&daemon.socket(), &["inventory", "--json"]).json();
    let vf = &json["vfs"][1];
    let address = serde_json::json!({"domain": 0, "bus": 1, "slot": 16, "function": 2});
    assert_eq!((&vf["address"], vf["state"].as_str()), (&address, Some("plugged")));
    assert_eq!(vf["lease"]["owner"]["mac"], "52:54:00:aa:00:01");
    let text = hybondctl(&daemon.socket(), &["inventory"]).ok();
    assert!(text.starts_with("this host has no VF"), "{text}");
    assert_eq!(daemon.requests()[0], Request::Inventory);
}
