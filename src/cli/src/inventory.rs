//! `hybondctl inventory`.

use crate::control::{query, unexpected};
use crate::failure::Failure;
use crate::output::{Output, or_dash, plain, table};
use hybond_core::ids::PoolName;
use hybond_wire::control::{Request, Response};
use hybond_wire::inventory::VfRow;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Vfs {
    vfs: Vec<VfRow>,
}

/// `hybondctl inventory`.
pub fn inventory(socket: &Path, output: &Output) -> Result<(), Failure> {
    match query(socket, &Request::Inventory)? {
        Response::Inventory { vfs } => {
            let json = Vfs { vfs };
            output.result(&json, || text(&json.vfs))
        }
        other => Err(unexpected(&other)),
    }
}

fn text(vfs: &[VfRow]) -> String {
    if vfs.is_empty() {
        return "this host has no VF; they are made by writing their number to \
                /sys/class/net/PF/device/sriov_numvfs\n"
            .to_owned();
    }
    let head = [
        "HOST", "NAME", "POOLS", "PF", "DRIVER", "NUMA", "STATE", "DOMAIN", "UUID", "MAC",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for vf in vfs {
        let owner = vf.lease.as_ref().map(|lease| &lease.owner);
        let pools: Vec<&str> = vf.pools.iter().map(PoolName::as_str).collect();
        rows.push(vec![
            plain(&vf.host),
            vf.name.to_string(),
            or_dash((!pools.is_empty()).then(|| pools.join(","))),
            vf.pf.to_string(),
            or_dash(vf.driver.as_deref().map(plain)),
            or_dash(vf.numa_node),
            vf.state.as_str().to_owned(),
            or_dash(owner.map(|owner| plain(&owner.name))),
            or_dash(owner.map(|owner| owner.domain)),
            or_dash(owner.map(|owner| owner.mac)),
        ]);
    }
    table(&rows)
}
