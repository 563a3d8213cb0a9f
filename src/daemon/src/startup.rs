//! From a configuration to a daemon that runs: look at the machine, read the journal, take the guests up again.

use crate::adapters::{Adapters, chain};
use crate::api;
use crate::disk::Disk;
use crate::memory;
use crate::pools::{self, Pools, Reader};
use crate::reservations;
use crate::shared::Shared;
use anyhow::Context;
use hybond_config::{Config, Tls};
use hybond_core::guest::{Event, Record, Stage};
use hybond_core::ids::PeerAddr;
use hybond_core::pool::PoolBook;
use hybond_journal::Journal;
use hybond_libvirt::{Events, Libvirt, LibvirtEvent, Lifecycle};
use hybond_netlink::Netlink;
use hybond_peer::{IncomingRequest, Limits, PeerClient, PeerServer, TlsFiles};
use hybond_vfio::{Detection, PlugWay, Plugger, Sysfs, detect};
use hybond_wire::{control, hook};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

/// Group of those who may use hybondctl, beside root.
const GROUP: &str = "hybond";

/// Ready to run.
pub struct Daemon {
    shared: Arc<Shared>,
    about: api::control::About,
    events: Events,
    hook: UnixListener,
    control: UnixListener,
    reader: Reader,
    hangup: Signal,
    peers: Option<(PeerServer, mpsc::Receiver<IncomingRequest>)>,
}

fn way(config: &Config, sysfs: &Sysfs) -> Detection {
    if let Some(way) = config.plug {
        return Detection {
            way,
            reason: "set in the configuration (host.plug)".into(),
            rejected: Vec::new(),
        };
    }
    if pools::all_emulated(&config.pools) {
        let reason = "every pool is emulated".into();
        return Detection {
            way: PlugWay::Emulated,
            reason,
            rejected: Vec::new(),
        };
    }
    detect(sysfs)
}

fn me(config: &Config) -> anyhow::Result<PeerAddr> {
    if let Some(peer) = &config.peer {
        return Ok(peer.clone());
    }
    let host = nix::unistd::gethostname().context("cannot read the host's name")?;
    let host = host.to_string_lossy();
    host.parse()
        .with_context(|| format!("the host's name {host:?} is no peer address: set host.peer"))
}

fn tls(tls: &Tls) -> TlsFiles {
    let mut files = TlsFiles::default();
    if let Some(ca) = &tls.ca {
        files.ca.clone_from(ca);
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        (files.server_cert, files.client_cert) = (cert.clone(), cert.clone());
        (files.server_key, files.client_key) = (key.clone(), key.clone());
    }
    files
}

/// Looks, reads, and listens. Nothing is changed on the machine yet.
pub async fn begin(mut config: Config, file: PathBuf, state: &Path) -> anyhow::Result<Daemon> {
    // Before systemd may send one: it ends a process that does not wait for it.
    let hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let sysfs = Sysfs::at(Path::new("/sys"));
    let detection = way(&config, &sysfs);
    let (way, reason) = (detection.way, &detection.reason);
    info!(%way, reason, "primaries are plugged by {way}: {reason}");
    for (other, why) in &detection.rejected {
        debug!(way = %other, why, "not this way");
    }
    let mut book = PoolBook::default();
    let mut reader = Reader::new(file, sysfs.clone(), config.clone());
    let (vfs, paths) = reader.look();
    book.set_pools(vfs);
    let journal = Journal::open(state)?;
    let records = records(&journal, &mut book)?;
    reservations::load(&journal, &mut book);
    let disk = Disk::start(journal).context("cannot start the journal's threads")?;
    let me = me(&config)?;
    let files = tls(&config.tls);
    let peers = match PeerServer::bind(config.listen, files.clone(), Limits::default()).await {
        Ok(peers) => Some(peers),
        // Guests start and run without; only migrations are refused.
        Err(error) => {
            error!(
                error = chain(&error),
                "no migration can leave this host: {}",
                chain(&error)
            );
            None
        }
    };
    let hook = api_socket(hook::SOCKET, None)?;
    let group = nix::unistd::Group::from_name(GROUP)
        .context("cannot look up a group")?
        .map(|group| group.gid.as_raw());
    if group.is_none() {
        warn!("there is no group {GROUP:?}: only root can use hybondctl");
    }
    let control = api_socket(control::SOCKET, group)?;
    let (libvirt, events) = Libvirt::spawn(hybond_libvirt::Settings {
        uri: config.libvirt.clone(),
        ..Default::default()
    });
    let adapters = Adapters {
        me,
        way: detection.way,
        libvirt,
        netlink: Netlink::new()?,
        plugger: Plugger::new(sysfs.clone()),
        sysfs,
        peers: PeerClient::new(files),
        book: Mutex::new(book),
        pools: Pools::new(
            std::mem::take(&mut config.pools),
            std::mem::take(&mut config.alias),
            paths,
        ),
        started: Instant::now(),
        config,
    };
    let shared = Shared::new(adapters, disk);
    for (record, kept) in records {
        info!(domain = record.spec.name, domain_uuid = %record.spec.id, stage = record.stage_name(), "{}: taken up again", record.spec.name);
        shared.take_up(record, kept);
    }
    let about = api::control::About {
        plug_reason: detection.reason,
    };
    Ok(Daemon {
        shared,
        about,
        events,
        hook,
        control,
        reader,
        hangup,
        peers,
    })
}

fn api_socket(path: &str, group: Option<u32>) -> anyhow::Result<UnixListener> {
    Ok(api::listen(Path::new(path), group)?)
}

/// The guests of before, each with its record as it is kept, their leases put back into the book. One whose lease somebody
/// else holds loses it: a VF has one lease, and what is plugged is found by looking.
fn records(journal: &Journal, book: &mut PoolBook) -> anyhow::Result<Vec<(Arc<Record>, Arc<Record>)>> {
    let mut records = Vec::new();
    for (id, record) in journal.load_all::<Record>()? {
        match record {
            Ok(kept) => {
                let kept = Arc::new(kept);
                let mut record = Arc::clone(&kept);
                for (mac, pair) in &kept.pairs {
                    let conflict = pair.lease.as_ref().and_then(|lease| book.restore(lease).err());
                    if let Some(conflict) = conflict {
                        error!(domain_uuid = %id, error = %conflict, "the record of domain {id} loses its lease: {conflict}");
                        Arc::make_mut(&mut record).pairs.entry(*mac).or_default().lease = None;
                    }
                }
                records.push((record, kept));
            }
            Err(error) => {
                error!(domain_uuid = %id, error = chain(&error), "the record of domain {id} is lost: {}", chain(&error))
            }
        }
    }
    Ok(records)
}

impl Daemon {
    /// Until SIGTERM or SIGINT. Guests go on by themselves; their records are on stable storage.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            shared,
            about,
            events,
            hook,
            control,
            reader,
            hangup,
            peers,
        } = self;
        tokio::spawn(pools::follow(Arc::clone(&shared), reader, hangup));
        tokio::spawn(api::hook::serve(Arc::clone(&shared), hook));
        tokio::spawn(reservations::expire(Arc::clone(&shared)));
        tokio::spawn(memory::give_back(Arc::clone(&shared)));
        tokio::spawn(api::control::serve(Arc::clone(&shared), about, control));
        // Listens until it is dropped.
        let _server = peers.map(|(server, requests)| {
            tokio::spawn(api::peer::serve(Arc::clone(&shared), requests));
            server
        });
        shared.adapters.name_pfs().await;
        let follow = tokio::spawn(follow(Arc::clone(&shared), events));
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
            ended = follow => ended.context("following libvirt ended")?,
        }
        Ok(())
    }
}

/// Passes libvirt's events on to the guests' tasks.
async fn follow(shared: Arc<Shared>, mut events: Events) {
    while let Some(event) = events.recv().await {
        match event {
            LibvirtEvent::Connected | LibvirtEvent::Resync => {
                adopt(&shared).await;
                shared.tell_all(&Event::LookAgain).await;
            }
            LibvirtEvent::Lost { reason } => {
                warn!(reason, "libvirt cannot be reached, guests stay as they are: {reason}")
            }
            LibvirtEvent::Lifecycle { id, name, event } => {
                if let Some(task) = shared.task(id).filter(|task| task.name != name) {
                    task.tell(Event::Renamed(name)).await;
                }
                if matches!(event, Lifecycle::Started(_)) {
                    adopt(&shared).await;
                }
                // Not for every step: libvirt is busy with the domain while it suspends and resumes it.
                if matches!(
                    event,
                    Lifecycle::Started(_) | Lifecycle::Stopped(_) | Lifecycle::Crashed
                ) {
                    tell(&shared, id).await;
                }
            }
            LibvirtEvent::JobCompleted { id, .. } | LibvirtEvent::DeviceRemoved { id, .. } => tell(&shared, id).await,
            LibvirtEvent::DeviceRemovalFailed { .. }
            | LibvirtEvent::MigrationIteration { .. }
            | LibvirtEvent::Reboot { .. }
            | LibvirtEvent::MetadataChanged { .. } => {}
        }
    }
}

async fn tell(shared: &Arc<Shared>, id: hybond_core::ids::DomainId) {
    if let Some(task) = shared.task(id) {
        task.tell(Event::LookAgain).await;
    }
}

/// Takes up domains of hybond's that run and have no record: they were started while the daemon was away.
pub(crate) async fn adopt(shared: &Arc<Shared>) {
    let domains = match shared.adapters.libvirt.list_active().await {
        Ok(domains) => domains,
        Err(error) => {
            return warn!(
                error = chain(&error),
                "libvirt does not list its domains: {}",
                chain(&error)
            );
        }
    };
    for (id, name) in domains {
        if shared.task(id).is_some() {
            continue;
        }
        match shared.adapters.libvirt.spec(id).await {
            Ok(Some(spec)) => {
                info!(domain = name, domain_uuid = %id, "{name}: found running");
                let spec = match shared.adapters.resolved(spec.clone()).await {
                    Ok(spec) => spec,
                    // It runs all the same, and is guarded: a PF of that name has no VF to give to it.
                    Err(failure) => {
                        let reason = failure.reason;
                        warn!(domain = name, domain_uuid = %id, reason, "{name}: {reason}");
                        spec
                    }
                };
                shared.task_or_start(Record::new(spec, Stage::Running), false);
            }
            Ok(None) => {}
            Err(error) => {
                warn!(domain = name, domain_uuid = %id, error = chain(&error), "{name} cannot be taken up: {}", chain(&error))
            }
        }
    }
}
