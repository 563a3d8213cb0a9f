//! Answers `hybondctl inventory`: every VF of this host, in a pool or not.

use crate::adapters::chain;
use crate::shared::Shared;
use hybond_config::inventory::{PfVfs, machine};
use hybond_core::ids::{Bdf, DomainId, Mac, PoolName, VfId};
use hybond_core::pool::{Lease, PoolBook, Vf};
use hybond_wire::control::{ErrorKind, LeaseStatus, Response};
use hybond_wire::inventory::{VfLease, VfRow, VfState};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::debug;

/// What a guest's task knows of a pair.
struct Holder {
    name: String,
    pool: PoolName,
    plugged: bool,
}

type Holders = BTreeMap<(DomainId, Mac), Holder>;

/// The answer.
pub async fn inventory(shared: &Arc<Shared>) -> Response {
    let sysfs = shared.adapters.sysfs.clone();
    // Reading waits while a number of VFs is being written.
    let (pfs, faults) = match tokio::task::spawn_blocking(move || machine(&sysfs)).await {
        Ok(found) => found,
        Err(panic) => {
            return Response::Error {
                kind: ErrorKind::Failed,
                message: panic.to_string(),
            };
        }
    };
    for fault in faults {
        // Warned of when the pools were read.
        debug!(error = chain(&fault), "left out of the inventory: {}", chain(&fault));
    }
    let mut holders = Holders::new();
    for (id, task) in shared.all() {
        let Some(view) = task.view().await else { continue };
        for pair in view.status.pairs {
            let holder = Holder {
                name: view.status.name.clone(),
                pool: pair.pool,
                plugged: pair.plugged,
            };
            holders.insert((id, pair.mac), holder);
        }
    }
    let host = shared.adapters.me.to_string();
    let vfs = rows(&host, &pfs, &shared.adapters.book(), &holders);
    Response::Inventory { vfs }
}

/// One row for each VF that the machine has, a pool offers, or a guest holds.
fn rows(host: &str, pfs: &[PfVfs], book: &PoolBook, holders: &Holders) -> Vec<VfRow> {
    let mut pools: BTreeMap<&VfId, Vec<PoolName>> = BTreeMap::new();
    for (pool, vfs) in book.pools() {
        for vf in vfs {
            pools.entry(&vf.id).or_default().push(pool.clone());
        }
    }
    let mut rows: BTreeMap<VfId, VfRow> = BTreeMap::new();
    for (pf, vf) in pfs.iter().flat_map(|pf| pf.vfs.iter().map(move |vf| (&pf.pf, vf))) {
        // A PCI address is always a valid id.
        let Ok(id) = vf.bdf.to_string().parse::<VfId>() else {
            continue;
        };
        let (vendor, device) = vf.id;
        let row = VfRow {
            pf_driver: pf.driver.clone(),
            driver: vf.driver.clone(),
            interface: vf.interface.clone(),
            pci_id: Some(format!("{vendor:04x}:{device:04x}")),
            ..known(
                host,
                &Vf {
                    id: id.clone(),
                    pf: pf.name.clone(),
                    index: vf.index,
                    numa_node: pf.numa_node,
                },
            )
        };
        rows.insert(id, row);
    }
    // Emulated ones, which are offered by a pool and not by PCI; and what a guest still holds.
    let offered = book.pools().values().flatten().filter(|vf| bdf(&vf.id).is_none());
    for vf in offered.chain(book.leases().map(|lease| &lease.vf)) {
        rows.entry(vf.id.clone()).or_insert_with(|| VfRow {
            state: VfState::Missing,
            ..known(host, vf)
        });
    }
    for (id, row) in &mut rows {
        row.pools = pools.remove(id).unwrap_or_default();
        let holder = book
            .holder(id)
            .map(|lease| (lease, holders.get(&(lease.domain, lease.mac))));
        row.lease = holder.map(|(lease, holder)| vf_lease(lease, holder));
        let emulated = row.address.is_none();
        row.state = match (row.state, holder) {
            (_, Some((_, Some(Holder { plugged: true, .. })))) => VfState::Plugged,
            (VfState::Missing, _) if !emulated => VfState::Missing,
            (_, Some(_)) => VfState::Leased,
            (_, None) if row.pools.is_empty() => VfState::NoPool,
            (_, None) if book.reserved(&row.name).is_some() => VfState::Reserved,
            (_, None) => VfState::Free,
        };
    }
    let mut rows: Vec<VfRow> = rows.into_values().collect();
    // As lspci has them; ids of capital and small letters would be in another order.
    rows.sort_by_key(|row| bdf(&row.name));
    rows
}

/// What is known of a VF wherever it is named.
fn known(host: &str, vf: &Vf) -> VfRow {
    VfRow {
        host: host.to_owned(),
        pools: Vec::new(),
        name: vf.id.clone(),
        address: bdf(&vf.id).map(Into::into),
        pf: vf.pf.clone(),
        pf_driver: None,
        index: vf.index,
        driver: None,
        interface: None,
        pci_id: None,
        numa_node: vf.numa_node,
        state: VfState::Free,
        lease: None,
    }
}

fn bdf(id: &VfId) -> Option<Bdf> {
    id.as_str().parse().ok()
}

fn vf_lease(lease: &Lease, holder: Option<&Holder>) -> VfLease {
    VfLease {
        pool: holder.map(|holder| holder.pool.clone()),
        owner: LeaseStatus {
            domain: lease.domain,
            name: holder.map_or_else(|| lease.domain.to_string(), |holder| holder.name.clone()),
            mac: lease.mac,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybond_config::{Config, inventory};
    use hybond_core::pool::Ask;
    use hybond_vfio::Sysfs;
    use hybond_vfio::tree::Tree;

    fn ask(pool: &str, n: u8) -> Ask {
        Ask {
            pool: pool.parse().expect("a name"),
            domain: DomainId::from_bytes([n; 16]),
            mac: Mac::from_octets([0x52, 0x54, 0, 0, 0, n]).expect("unicast"),
            pf: None,
            numa_nodes: Vec::new(),
        }
    }

    fn holder(lease: &Lease, plugged: bool) -> ((DomainId, Mac), Holder) {
        let holder = Holder {
            name: "web-1".into(),
            pool: "lan".parse().expect("a name"),
            plugged,
        };
        ((lease.domain, lease.mac), holder)
    }

    fn states(rows: &[VfRow]) -> Vec<String> {
        let state = |row: &VfRow| {
            let pools: Vec<&str> = row.pools.iter().map(PoolName::as_str).collect();
            format!("{} {} [{}]", row.name, row.state.as_str(), pools.join(","))
        };
        rows.iter().map(state).collect()
    }

    #[test]
    fn every_vf_has_a_row_with_its_pools_and_its_owner() {
        let tree = Tree::with_igb();
        tree.driver("0000:01:10.0", "vfio-pci");
        tree.numa_node("0000:01:00.0", 1);
        tree.pf("0000:02:00.0", "ens2", &["0000:02:10.0", "0000:02:10.2"]);
        tree.interface("0000:02:10.0", "ens2v0", 0, None);
        let file = tree.path("hybond.toml");
        let toml = "[[pool]]\nname = 'lan'\npf = ['ens1', 'ens2']\nvf = '01:10.0-02:10.0'\n\
                    [[pool]]\nname = 'gold'\nvf = '01:10.0'\n\
                    [[pool]]\nname = 'lab'\npf = 'veth0'\nemulated = { bridge = 'br0', count = 1 }\n";
        std::fs::write(&file, toml).expect("a file");
        let pools = Config::load(&file).expect("valid").pools;
        let sysfs = Sysfs::at(&tree.path(""));
        let mut book = PoolBook::default();
        book.set_pools(inventory::read(&sysfs, &pools).pools);
        let plugged = book.lease(&ask("gold", 1)).expect("free");
        let held = book.lease(&ask("lan", 2)).expect("free");
        let holders = Holders::from([holder(&plugged, true), holder(&held, false)]);

        let (pfs, _) = machine(&sysfs);
        let all = rows("node1", &pfs, &book, &holders);
        assert_eq!(
            states(&all),
            [
                "veth0.0 free [lab]",
                "0000:01:10.0 plugged [gold,lan]",
                "0000:01:10.2 leased [lan]",
                "0000:02:10.0 free [lan]",
                "0000:02:10.2 no-pool []",
            ]
        );
        let json = serde_json::to_value(&all[1]).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "host": "node1", "pools": ["gold", "lan"], "name": "0000:01:10.0",
                "address": {"domain": 0, "bus": 1, "slot": 16, "function": 0},
                "pf": "ens1", "pf_driver": "igb", "index": 0, "driver": "vfio-pci", "interface": null,
                "pci_id": "8086:10ca", "numa_node": 1, "state": "plugged",
                "lease": {"pool": "lan", "owner": {
                    "domain": "01010101-0101-0101-0101-010101010101", "name": "web-1", "mac": "52:54:00:00:00:01"}},
            })
        );
        assert_eq!(all[3].interface.as_ref().expect("the host's").as_str(), "ens2v0");

        // A VF that a guest has, of a PF whose VFs are gone, and of no pool any more.
        tree.pf("0000:01:00.0", "ens1", &[]);
        book.set_pools(BTreeMap::new());
        let (pfs, _) = machine(&sysfs);
        let all = rows("node1", &pfs, &book, &Holders::from([holder(&plugged, true)]));
        assert_eq!(
            states(&all),
            [
                "0000:01:10.0 plugged []",
                "0000:01:10.2 missing []",
                "0000:02:10.0 no-pool []",
                "0000:02:10.2 no-pool []",
            ]
        );
        let lease = all[1].lease.as_ref().expect("held");
        assert_eq!((lease.pool.as_ref(), lease.owner.domain), (None, held.domain));
    }
}
