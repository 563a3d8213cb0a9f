//! Carries out actions. Decides nothing.

use crate::model::{Action, Kind, Link, Saved, View};
use crate::nl::link::{self, RTM_DELLINK, RTM_NEWLINK, V6_NONE};
use crate::nl::moved::{INET, RTM_NEWADDR};
use crate::nl::msg;
use crate::nl::{GROUP_ADDRESSES, GROUP_LINK, Socket};
use crate::state::StateDir;
use hybond_announce::frames;
use hybond_core::ids::Mac;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The guest's kernel.
#[derive(Debug)]
pub struct Kernel {
    requests: Socket,
    events: Socket,
    /// Sends announcements. Kept open, as closing it waits until no CPU uses it any more (`synchronize_net()` in
    /// `packet_release()`).
    packets: Option<OwnedFd>,
    state: StateDir,
    for_udev: bool,
    /// NICs that udev has not named, and since when.
    fresh: BTreeMap<u32, u64>,
}

/// How often, in milliseconds, and how long at most udev is waited for.
const UDEV_EVERY: u64 = 100;
const UDEV_AT_MOST: u64 = 60_000;

/// An error as a sentence: what was attempted, on what, and why it failed.
fn because(what: impl FnOnce() -> String) -> impl FnOnce(Errno) -> String {
    move |error| format!("{}: {}", what(), error.desc())
}

impl Kernel {
    /// Opens the netlink sockets; the view is empty until the first [`Kernel::look`].
    /// Without `for_udev` a NIC that udev has not named is looked at all the same: udev itself may be asking.
    pub fn open(state: StateDir, for_udev: bool) -> Result<Self, Errno> {
        Ok(Self {
            requests: Socket::requests()?,
            events: Socket::events(GROUP_LINK | GROUP_ADDRESSES)?,
            packets: None,
            state,
            for_udev,
            fresh: BTreeMap::new(),
        })
    }

    /// For epoll.
    pub fn events(&self) -> &OwnedFd {
        self.events.fd()
    }

    /// Looks at everything.
    pub fn look(&mut self, view: &mut View) -> Result<(), Errno> {
        view.links.clear();
        let links = &mut view.links;
        let for_udev = self.for_udev;
        self.requests.links(|payload| {
            if let Some(link) = link::parse(payload, |index, name| driver(index, name, for_udev)) {
                links.insert(link.index, link);
            }
        })?;
        view.addressed.clear();
        self.requests.addressed(|index| view.has_address(index))?;
        view.saved = self
            .state
            .takeovers()
            .into_iter()
            .map(|saved| (saved.mac, saved))
            .collect();
        Ok(())
    }

    /// Takes in what has happened.
    pub fn hear(&mut self, view: &mut View) -> Result<(), Errno> {
        let heard = self.events.heard(|message| match message.kind {
            RTM_NEWLINK => update(view, message.payload),
            RTM_NEWADDR => msg::u32_at(message.payload, 4)
                .into_iter()
                .for_each(|index| view.has_address(index)),
            RTM_DELLINK => drop(msg::u32_at(message.payload, 4).map(|index| view.links.remove(&index))),
            _ => {}
        });
        match heard {
            Err(Errno::ENOBUFS) => self.look(view),
            other => other,
        }
    }

    /// Looks again at NICs that udev had not named; the time of the next look, while there are any. `now` is in milliseconds.
    pub fn settle(&mut self, view: &mut View, now: u64) -> Option<u64> {
        let fresh = &mut self.fresh;
        fresh.retain(|index, _| view.get(*index).is_some_and(|link| link.kind == Kind::Fresh));
        for link in view.links.values_mut().filter(|link| link.kind == Kind::Fresh) {
            let since = *fresh.entry(link.index).or_insert(now);
            if now >= since + UDEV_AT_MOST {
                log!(warning, "udev has not named {}: taking it as it is", link.name);
            } else if !named_by_udev(link.index) {
                continue;
            }
            fresh.remove(&link.index);
            let virtio = fs::read_link(format!("/sys/class/net/{}/device/driver", link.name))
                .is_ok_and(|path| path.ends_with("virtio_net"));
            link.kind = if virtio { Kind::Virtio } else { Kind::Nic };
        }
        (!fresh.is_empty()).then_some(now + UDEV_EVERY)
    }

    /// Does one thing, and looks at what came of it.
    pub fn execute(&mut self, view: &mut View, action: &Action) -> Result<(), String> {
        let result = self.attempt(view, action);
        if let (Action::SetAllActive { bond, on: true }, Ok(())) = (action, &result) {
            // A switch follows at once, and the bond is looked at after that: it does not wait for a look in between.
            // The kernel itself refuses a slave whose carrier has just gone (`bond_option_active_slave_set()`).
            if let Some(options) = view.links.get_mut(bond).and_then(|link| link.bond.as_mut()) {
                options.all_active = true;
            }
            return result;
        }
        let touched: Vec<u32> = match action {
            Action::SetUp { index, .. } | Action::Rename { index, .. } | Action::Delete { index } => vec![*index],
            Action::SetMaster { index, master } => [Some(*index), *master].into_iter().flatten().collect(),
            Action::Enslave { index, bond } => vec![*index, *bond],
            Action::Join { saved, bond } => vec![saved.index, *bond],
            Action::SetActive { bond, .. } | Action::SetAllActive { bond, .. } | Action::Adjust { bond } => vec![*bond],
            Action::MakeBond(_)
            | Action::Save(_)
            | Action::Flush { .. }
            | Action::Restore { .. }
            | Action::Count { .. }
            | Action::Announce { .. } => Vec::new(),
        };
        // The kernel has told of its changes before it acknowledged the request; not every option's change is told of.
        let heard = self.hear(view).and_then(|()| {
            touched.into_iter().try_for_each(
                |index| match self.requests.link(index, |payload| update(view, payload)) {
                    Err(Errno::ENODEV) => {
                        view.links.remove(&index);
                        Ok(())
                    }
                    other => other,
                },
            )
        });
        result.and(heard.map_err(because(|| "cannot look at the links".to_owned())))
    }

    fn attempt(&mut self, view: &mut View, action: &Action) -> Result<(), String> {
        let name = |index: &u32| {
            view.get(*index)
                .map_or_else(|| format!("link {index}"), |l| l.name.clone())
        };
        match action {
            Action::Save(saved) => {
                let accept_ra = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", saved.name);
                let kernel_ra = fs::read_to_string(accept_ra).is_ok_and(|text| text.trim() != "0");
                self.state
                    .begin(saved, |file| self.requests.save(saved.index, kernel_ra, file))
                    .map_err(|e| format!("cannot write down the addresses and routes of {}: {e}", saved.name))?;
                view.saved.insert(saved.mac, saved.clone());
                log!(info, "pair {}: taking over {}", saved.mac, saved.name);
                Ok(())
            }
            Action::SetUp { index, up } => {
                let word = if *up { "up" } else { "down" };
                self.requests
                    .set_up(*index, *up)
                    .map_err(because(|| format!("cannot set {} {word}", name(index))))
            }
            Action::Rename { index, name: new } => {
                let renamed = match self.requests.rename(*index, new) {
                    Err(Errno::EBUSY) => self
                        .requests
                        .set_up(*index, false)
                        .and_then(|()| self.requests.rename(*index, new)),
                    other => other,
                };
                renamed.map_err(because(|| format!("cannot rename {} to {new}", name(index))))
            }
            Action::MakeBond(saved) => self.make_bond(saved),
            Action::Join { saved, bond } => self.join(saved, *bond, &name(&saved.index)),
            Action::SetMaster { index, master } => self.requests.set_master(*index, *master).map_err(because(|| {
                let to = master.map_or("no master".to_owned(), |m| name(&m));
                format!("cannot give {} to {to}", name(index))
            })),
            Action::Enslave { index, bond } => {
                let (slave, bond_name) = (name(index), name(bond));
                // The kernel sets a slave up before it is one (`bond_enslave()`), and meanwhile takes what arrives on it as on any
                // NIC: a second time. Strict, it drops what its routes do not lead back to. A guest without IPv4 has no such file.
                drop(fs::write(format!("/proc/sys/net/ipv4/conf/{slave}/rp_filter"), "1"));
                let enslaved = self
                    .requests
                    .flush(*index)
                    .and_then(|()| self.requests.set_up(*index, false))
                    .and_then(|()| self.requests.set_master(*index, Some(*bond)));
                enslaved.map_err(because(|| {
                    format!("cannot bring {slave} into {bond_name} (another manager of {slave}, or an MTU it has not?)")
                }))?;
                log!(info, "{slave} is in {bond_name}");
                Ok(())
            }
            Action::Flush { index } => {
                let name = name(index);
                view.addressed.remove(index);
                log!(
                    warning,
                    "something has given {name} addresses: deleting them, it is a slave"
                );
                self.requests
                    .flush(*index)
                    .map_err(because(|| format!("cannot delete the addresses of {name}")))
            }
            Action::Restore { saved, to } => self.restore(view, saved, *to),
            Action::Delete { index } => self
                .requests
                .delete(*index)
                .map_err(because(|| format!("cannot delete {}", name(index)))),
            Action::Adjust { bond } => self.requests.adjust_bond(*bond).map_err(because(|| {
                format!("cannot set miimon and primary_reselect of {}", name(bond))
            })),
            Action::SetActive { bond, slave } => self.requests.set_active(*bond, *slave).map_err(because(|| {
                format!("cannot make {} the active slave of {}", name(slave), name(bond))
            })),
            Action::SetAllActive { bond, on } => self.requests.set_all_active(*bond, *on).map_err(because(|| {
                format!("cannot set all_slaves_active={} of {}", u8::from(*on), name(bond))
            })),
            Action::Count { slave } => {
                let received = self.requests.received(*slave);
                let received = received.map_err(because(|| format!("cannot count what {} receives", name(slave))))?;
                match received {
                    Some(packets) => view.received.insert(*slave, packets),
                    None => view.received.remove(slave),
                };
                Ok(())
            }
            Action::Announce { bond } => self
                .announce(view, *bond)
                .map_err(because(|| format!("cannot announce the addresses of {}", name(bond)))),
        }
    }

    fn make_bond(&mut self, saved: &Saved) -> Result<(), String> {
        self.requests.make_bond(saved).map_err(|error| {
            let remedy = match error {
                Errno::EOPNOTSUPP => " (the kernel has no bonding: load the module bonding)",
                _ => "",
            };
            format!("cannot make the bond {}: {}{remedy}", saved.name, error.desc())
        })
    }

    fn join(&mut self, saved: &Saved, bond: u32, standby: &str) -> Result<(), String> {
        for family in ["ipv4", "ipv6"] {
            copy_sysctls(family, standby, &saved.name);
        }
        if saved.up {
            // Otherwise the bond makes its own link-local address when it is set up, and spends a second on DAD.
            match self.requests.set_v6_mode(bond, V6_NONE) {
                // A guest without IPv6.
                Ok(()) | Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOENT) => {}
                Err(error) => return Err(format!("cannot set addrgenmode of {}: {}", saved.name, error.desc())),
            }
        }
        self.requests
            .set_up(saved.index, false)
            .and_then(|()| self.requests.set_master(saved.index, Some(bond)))
            .map_err(because(|| format!("cannot bring {standby} into {}", saved.name)))
    }

    fn restore(&mut self, view: &mut View, saved: &Saved, to: u32) -> Result<(), String> {
        let name = view.get(to).map_or_else(|| saved.name.clone(), |l| l.name.clone());
        let file = self
            .state
            .saved(saved.mac)
            .map_err(|e| format!("cannot read what was written down of {}: {e}", saved.name))?;
        let outcome = self
            .requests
            .put_back(file, saved.index, to)
            .map_err(|e| format!("cannot put addresses and routes on {name}: {e}"))?;
        if let Some(first) = outcome.first {
            log!(
                error,
                "{} addresses and routes of {name} were refused: {}",
                outcome.refused,
                first.desc()
            );
        }
        if to != saved.index {
            self.requests
                .flush(saved.index)
                .map_err(because(|| "cannot delete the standby's addresses".to_owned()))?;
            if outcome.link_local {
                self.requests
                    .set_v6_mode(to, saved.v6_mode)
                    .map_err(because(|| format!("cannot set addrgenmode of {name}")))?;
            } else if saved.up {
                // By sysctl the kernel acts on it at once and makes the address. A guest without IPv6 has no such file.
                let path = format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode");
                drop(fs::write(path, saved.v6_mode.to_string()));
            }
            log!(
                info,
                "pair {}: {name} has {} addresses and routes",
                saved.mac,
                outcome.made
            );
        }
        self.state
            .end(saved.mac)
            .map_err(|e| format!("cannot delete what was written down of {}: {e}", saved.name))?;
        view.saved.remove(&saved.mac);
        Ok(())
    }

    /// Announces from the bond, from what is stacked on it, and from the bridge it is a port of.
    fn announce(&mut self, view: &View, bond: u32) -> Result<(), Errno> {
        let master = view.get(bond).and_then(|b| b.master).and_then(|m| view.get(m));
        let stacked = view
            .links
            .values()
            .filter(|l| l.lower == Some(bond) && l.kind == Kind::Stacked);
        let from: Vec<(&Link, Mac)> = view
            .get(bond)
            .into_iter()
            .chain(master)
            .chain(stacked)
            .filter(|l| l.up)
            .filter_map(|l| l.mac.map(|mac| (l, mac)))
            .collect();
        let packets = match self.packets.take() {
            Some(socket) => self.packets.insert(socket),
            None => self.packets.insert(hybond_announce::open()?),
        };
        for (link, mac) in from {
            let router = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{}/forwarding", link.name))
                .is_ok_and(|text| text.trim() == "1");
            let addresses = self.requests.addresses(link.index)?;
            for (family, octets) in &addresses {
                let frame = match octets {
                    [a, b, c, d, ..] if *family == INET => frames::ipv4(mac, [*a, *b, *c, *d]),
                    octets => frames::ipv6(mac, octets, router),
                };
                hybond_announce::send(packets, link.index, &frame)?;
            }
            // Such as the port of a bridge.
            if addresses.is_empty() {
                hybond_announce::send(packets, link.index, &frames::rarp(mac))?;
            }
        }
        Ok(())
    }
}

fn update(view: &mut View, payload: &[u8]) {
    // What drives a link does not change while it has its number; looking it up again could meet a link half gone.
    view.announced.extend(link::notifies(payload));
    let known = msg::u32_at(payload, 4)
        .and_then(|index| view.get(index))
        .map(|l| l.kind);
    if let Some(link) = link::parse(payload, |index, name| {
        known.unwrap_or_else(|| driver(index, name, true))
    }) {
        view.links.insert(link.index, link);
    }
}

/// What drives a NIC, from sysfs: netlink does not say it.
fn driver(index: u32, name: &str, for_udev: bool) -> Kind {
    let kind = match fs::read_link(format!("/sys/class/net/{name}/device/driver")) {
        Ok(path) if path.ends_with("virtio_net") => Kind::Virtio,
        Ok(_) => Kind::Nic,
        Err(_) => return Kind::Other,
    };
    if for_udev && !named_by_udev(index) {
        return Kind::Fresh;
    }
    kind
}

/// udev gives a NIC its lasting name, and tells its managers to leave it alone. A bond with the name that the standby had
/// before would be found by nobody. Where no udev runs there is nothing to wait for.
fn named_by_udev(index: u32) -> bool {
    if !Path::new("/run/udev/control").exists() {
        return true;
    }
    let Ok(record) = fs::read_to_string(format!("/run/udev/data/n{index}")) else {
        return false;
    };
    // "I:": udev is through with it. It makes the record before, too, to say that it is about to rename the NIC.
    let has = |start: &str| record.lines().any(|line| line.starts_with(start));
    has("I:") && !has("E:ID_RENAMING=1") && !has("E:ID_PROCESSING=1")
}

/// Gives a link another's sysctls. What is read-only, or has no meaning for a bond, stays.
fn copy_sysctls(family: &str, from: &str, to: &str) {
    let Ok(files) = fs::read_dir(format!("/proc/sys/net/{family}/conf/{from}")) else {
        // A guest without IPv6.
        return;
    };
    for file in files
        .flatten()
        .filter(|f| f.file_name() != "addr_gen_mode" && f.file_name() != "stable_secret")
    {
        let target = format!(
            "/proc/sys/net/{family}/conf/{to}/{}",
            file.file_name().to_string_lossy()
        );
        let (Ok(wanted), Ok(present)) = (fs::read(file.path()), fs::read(&target)) else {
            continue;
        };
        if wanted != present {
            if let Err(error) = fs::write(&target, wanted) {
                log!(warning, "{target} stays as it is: {error}");
            }
        }
    }
}
