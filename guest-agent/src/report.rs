//! `--check` and `--role`: what is there, without changing it.

use crate::cli::Options;
use crate::kernel::Kernel;
use crate::model::{Kind, View};
use crate::port::Port;
use crate::state::{DIRECTORY, StateDir};
use crate::takeover::{self, Step};
use hybond_core::ids::Mac;
use std::process::ExitCode;

fn look(directory: Option<&str>) -> Result<View, String> {
    let mut view = View::default();
    let state = StateDir::at(directory.unwrap_or(DIRECTORY));
    let mut kernel = Kernel::open(state, false).map_err(|e| format!("cannot open a netlink socket: {}", e.desc()))?;
    kernel
        .look(&mut view)
        .map_err(|e| format!("cannot list the links: {}", e.desc()))?;
    Ok(view)
}

/// Says what is there and what would be done.
pub fn check(options: &Options) -> Result<ExitCode, String> {
    let view = look(options.state.as_deref())?;
    let mut well = true;
    let port = options
        .port
        .clone()
        .or_else(|| Port::find().map(|p| p.display().to_string()));
    let mut text = match port {
        Some(port) => format!("port      {port}\n"),
        None => {
            well = false;
            "port      missing: the domain needs <channel type='unix'> with <target name='org.hybond.agent.0'/>\n"
                .to_owned()
        }
    };
    let standbys = view.links.values().filter(|l| l.kind == Kind::Virtio);
    let mut macs: Vec<Mac> = standbys.filter_map(|l| l.permanent.or(l.mac)).collect();
    macs.extend(&options.named.macs);
    macs.sort_unstable();
    macs.dedup();
    for mac in macs {
        let bond = view.bond(mac);
        let primary = view.primary(mac, bond.map(|(b, _)| b.index));
        let named = options.named.all || options.named.macs.contains(&mac);
        text += &match (view.standby(mac), bond, primary) {
            (None, _, _) => {
                well = false;
                format!("{mac} no virtio NIC of this MAC\n")
            }
            (Some(standby), Some((bond, options)), primary) => {
                let active = options.active.and_then(|i| view.get(i)).map_or("none", |l| &l.name);
                let primary = primary.map_or("none", |l| &l.name);
                format!(
                    "{mac} bond {}, standby {}, primary {primary}, active {active}\n",
                    bond.name, standby.name
                )
            }
            (Some(standby), None, Some(primary)) => {
                format!(
                    "{mac} {} and {} are a pair without a bond\n",
                    standby.name, primary.name
                )
            }
            (Some(standby), None, None) if named => format!("{mac} {} is to be a standby\n", standby.name),
            (Some(standby), None, None) => {
                format!(
                    "{mac} {} is alone: left as it is unless the host, --mac or --all names it\n",
                    standby.name
                )
            }
        };
        if let Step::Refused(reason) = takeover::next(&view, view.saved.get(&mac), mac) {
            well = false;
            text += &format!("{mac} cannot be bonded: {reason}\n");
        }
    }
    crate::print(&text)?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Prints a NIC's part in its pair.
pub fn role(name: &str) -> Result<ExitCode, String> {
    let view = look(None)?;
    let Some(link) = view.links.values().find(|l| l.name == name) else {
        return Ok(ExitCode::from(1));
    };
    let mac = link.permanent.or(link.mac);
    match (link.kind, mac) {
        (Kind::Nic, Some(mac)) if view.standby(mac).is_some() => crate::print("primary\n"),
        (Kind::Virtio, Some(mac)) if view.bond(mac).is_some() || view.saved.contains_key(&mac) => {
            crate::print("standby\n")
        }
        _ => Ok(ExitCode::from(1)),
    }
}
