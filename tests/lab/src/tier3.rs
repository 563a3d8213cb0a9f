//! Tier 3: two emulated hosts, a management network, a data network, and a traffic peer on the latter.

use crate::cache::{self, Lock, progress};
use crate::host::{Host, Images, LAYOUTS, Start};
use crate::machine::{Machine, Namespace};
use crate::net;
use crate::place::Place;
use crate::process::Ledger;
use crate::saved::{self, each};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The running lab. Dropped, it ends all that it has started, unless it was [`Lab::attach`]ed or told to [`Lab::leave`].
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    peer: Namespace,
    place: Place,
    /// Held by whoever answers for the lab's end.
    owner: Option<Lock>,
}

/// From a restore until a host answers; it takes seconds.
const WAKES: Duration = Duration::from_secs(60);
/// From power on until a host answers: a minute where it is alone.
const BOOTS: Duration = Duration::from_secs(900);
/// Of some two dozen restores on a loaded machine, two left a host whose NIC heard nothing, for as long as was waited; the same
/// state, restored anew, was well.
const RESTORES: u32 = 3;

/// The traffic peer's address on the data network. It also has fd88::fe.
pub const PEER: &str = "10.88.0.254";

impl Lab {
    /// Brings the lab up afresh: builds what is missing, and restores both hosts. A lab that is still up is ended.
    ///
    /// # Errors
    /// Something cannot be built or started; the error says what.
    pub fn up() -> Result<Self> {
        Self::restore(Path::to_owned)
    }

    /// As [`Lab::up`], with hosts at which `prepare` has been. What it makes of them is saved under the name and the key
    /// of all that it depends on, and is restored by the next call: no VF may be plugged in the end, and no guest run.
    ///
    /// # Errors
    /// As [`Lab::up`], or those of `prepare`.
    pub fn up_prepared(name: &str, key: &str, prepare: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let name = format!("prepared.{name}");
        let folder = |states: &Path| saved::prepared_folder(&name, states, key);
        let states = saved::folder(&images()?)?;
        if !folder(&states).exists() {
            let lab = Self::up()?;
            prepare(&lab)?;
            saved::save(&name, &folder(&states), &lab.hosts)?;
            lab.down()?;
        }
        Self::restore(folder)
    }

    fn restore(choose: impl FnOnce(&Path) -> PathBuf) -> Result<Self> {
        let start = Instant::now();
        cache::artifact("packages")?;
        let images = images()?;
        let identity = cache::artifact("identity")?;
        // Another run, of other scripts, may prune what is not the newest.
        let _held = [
            cache::hold(&images.disk)?,
            cache::hold(&images.emulator)?,
            cache::hold(&identity)?,
        ];
        let place = Place::new("3")?;
        let owner = place.take(Duration::from_secs(3600))?;
        // From here on, dropping the lab clears up.
        let mut lab = Self {
            hosts: hosts(&place, &identity),
            peer: peer(&place),
            place,
            owner: Some(owner),
        };
        if let Err(error) = lab.start(&images, choose) {
            let logs = lab.place.keep_logs()?;
            return Err(error.context(format!("tier 3 does not come up; its logs are in {}", logs.display())));
        }
        progress(&format!("both hosts are up after {} s", start.elapsed().as_secs()));
        Ok(lab)
    }

    fn start(&mut self, images: &Images, choose: impl FnOnce(&Path) -> PathBuf) -> Result<()> {
        let ledger = self.place.ledger()?;
        network(&self.place)?;
        let states = saved::folder(images)?;
        if !states.exists() {
            saved::build(&states, images, &mut self.hosts, &ledger)?;
        }
        // What is made of them needs them, too: its disks are layers above theirs.
        let _base = cache::hold(&states)?;
        let states = choose(&states);
        let _hold = cache::hold(&states)?;
        let mut tries = RESTORES;
        while let Err(error) = self.wake(&states, images, &ledger) {
            tries -= 1;
            if tries == 0 {
                return Err(error);
            }
            progress(&format!("restoring both hosts once more: {error:#}"));
            ledger.end_all()?;
        }
        let offsets = each(&self.hosts, Host::set_clock)?;
        for (host, offset) in self.hosts.iter().zip(offsets) {
            progress(&format!(
                "{} is up, PFs {}, its clock {:+.2} ms off (± {:.2})",
                host.name(),
                host.pfs().join(" and "),
                offset.offset_ms,
                offset.error_ms
            ));
        }
        Ok(())
    }

    /// Restores both hosts, and waits until they answer.
    fn wake(&mut self, states: &Path, images: &Images, ledger: &Ledger) -> Result<()> {
        progress("restoring both hosts");
        each(&self.hosts, |host| {
            let state = states.join(format!("{}.state", host.name()));
            host.start(&Start::Restore(&state), images, ledger)
        })?;
        for host in &mut self.hosts {
            host.connect(ledger, WAKES)?;
            host.look()?;
        }
        Ok(())
    }

    /// Finds the lab that another process has left up. It stays up when this is dropped.
    ///
    /// # Errors
    /// There is none.
    pub fn attach() -> Result<Self> {
        let place = Place::new("3")?;
        if !place.is_up()? {
            bail!("tier 3 is not up; `hybond-lab up` brings it up");
        }
        let identity = cache::artifact("identity")?;
        let mut hosts = hosts(&place, &identity);
        for host in &mut hosts {
            host.look()?;
        }
        Ok(Self {
            hosts,
            peer: peer(&place),
            place,
            owner: None,
        })
    }

    /// Host `src` or `dst`.
    ///
    /// # Panics
    /// For any other name: the caller's text is wrong.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        match self.hosts.iter().find(|host| host.name() == name) {
            Some(host) => host,
            None => panic!("tier 3 has hosts src and dst, not {name}"),
        }
    }

    /// Both hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The traffic peer: a namespace on the data network, with the addresses [`PEER`] and fd88::fe.
    #[must_use]
    pub fn peer(&self) -> &Namespace {
        &self.peer
    }

    /// Does the same on both hosts at once.
    ///
    /// # Errors
    /// The first of them.
    pub fn each<T: Send>(&self, work: impl Fn(&Host) -> Result<T> + Sync) -> Result<Vec<T>> {
        each(&self.hosts, work)
    }

    /// Puts iommufd and the VFIO modules that use it on both hosts, in place of the stock ones. No VF may be bound to
    /// vfio-pci. It takes a minute the first time.
    ///
    /// # Errors
    /// The modules cannot be built, or a module is in use.
    pub fn load_iommufd(&self) -> Result<()> {
        let folder = cache::artifact("iommufd")?;
        let names = std::fs::read_to_string(folder.join("modules"))?;
        self.each(|host| {
            for name in names.lines() {
                host.copy(&folder.join(name), &format!("/var/lib/lab/iommufd/{name}"))?;
            }
            let inserts: String = names
                .lines()
                .map(|name| format!("insmod /var/lib/lab/iommufd/{name}\n"))
                .collect();
            host.ok(&format!(
                "set -e\nmodprobe -r vfio_pci vfio_iommu_type1 vfio\nmodprobe irqbypass\n{inserts}test -c /dev/iommu"
            ))?;
            Ok(())
        })?;
        Ok(())
    }

    /// Takes a host's power away: what was in its memory is gone, with the guests.
    ///
    /// # Errors
    /// It is off.
    pub fn cut_power(&self, name: &str) -> Result<()> {
        self.host(name).cut_power()
    }

    /// Boots a host whose power was cut, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot_again(&self, name: &str) -> Result<()> {
        let (host, ledger) = (self.host(name), self.place.ledger()?);
        host.start_with_disk(&Start::Boot, &images()?, &ledger)?;
        host.wait_booted(BOOTS)?;
        host.connect(&ledger, WAKES)?;
        host.set_clock().map(drop)
    }

    /// Leaves the lab up: for [`Lab::attach`] in another process.
    pub fn leave(mut self) {
        self.owner = None;
    }

    /// Ends the lab.
    ///
    /// # Errors
    /// A process or a namespace of it cannot be removed.
    pub fn down(mut self) -> Result<()> {
        // Whoever waits for the lab takes it as soon as the lock is free.
        let owner = self.owner.take();
        let cleared = self.place.clear();
        drop(owner);
        cleared
    }

    /// Ends a lab that was left up, or whatever an interrupted run has left.
    ///
    /// # Errors
    /// A process or a namespace of it cannot be removed.
    pub fn clear() -> Result<()> {
        Place::new("3")?.release()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owner.is_some() {
            // Nobody has said that it went well.
            match self.place.keep_logs() {
                Ok(kept) => progress(&format!("what the emulated hosts have said is in {}", kept.display())),
                Err(error) => progress(&format!("the logs of the emulated hosts cannot be kept: {error:#}")),
            }
            if let Err(error) = self.place.clear() {
                progress(&format!("the lab is not all gone: {error:#}"));
            }
        }
    }
}

/// What the hosts are made of; it is built where it is not there.
fn images() -> Result<Images> {
    Ok(Images {
        disk: cache::artifact("disk")?,
        emulator: cache::artifact("emulator")?,
    })
}

fn hosts(place: &Place, identity: &Path) -> Vec<Host> {
    let network = place.namespace("net");
    LAYOUTS
        .iter()
        .map(|layout| Host::new(*layout, &network, place.run(), identity))
        .collect()
}

fn peer(place: &Place) -> Namespace {
    Namespace::new("peer", PEER, &place.namespace("peer"))
}

/// Bridges in a namespace of their own, and the peer in another. Each host brings its taps.
fn network(place: &Place) -> Result<()> {
    let (net, peer) = (place.namespace("net"), place.namespace("peer"));
    let (net, peer) = (net.as_str(), peer.as_str());
    place.namespaces().add(&[net, peer])?;
    net::bridge(net, "br-mgmt")?;
    net::bridge(net, "br-data")?;
    net::ip(net, "addr add 10.77.0.254/24 dev br-mgmt")?;
    net::peer(net, peer, PEER)
}
