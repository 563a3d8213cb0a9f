//! `migrate`: libvirt's live migration, with hybond's phases and libvirt's progress shown.
//!
//! ```text
//! host, domain ──▶ drain ──▶ virDomainMigrate3 ──▶ done
//!                (only where VFs are plugged through libvirt)
//!                    │              └──fails──▶ plug again, where this command drained
//!                    └──fails──▶ nothing has changed
//! ```

use crate::args::Migrate;
use crate::control::{Exchange, host};
use crate::drain::{act, after_failure};
use crate::failure::{Failure, Kind};
use crate::interrupt::Interrupt;
use crate::job::Monitor;
use crate::libvirt;
use crate::output::Output;
use crate::progress::Progress;
use crate::show::domain_status;
use crate::time::duration;
use hybond_wire::control::{Request, Response};
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use virt::connect::Connect;
use virt::domain::{Domain, MigrateParameters};
use virt::sys;

/// How long a drain or a plug around a migration may take.
const ACT_SECONDS: u64 = 300;

/// `hybondctl migrate`.
pub fn migrate(socket: &Path, uri: &str, what: &Migrate, output: &Output) -> Result<(), Failure> {
    let interrupt = Interrupt::catch()?;
    let host = host(socket)?;
    let plugged = domain_status(socket, &what.domain)?.pairs.iter().any(|p| p.plugged);
    let source = libvirt::open(uri)?;
    let domain = libvirt::find(&source, &what.domain)?;
    if !libvirt::is_active(&domain)? {
        let message = format!("domain {} does not run; 'virsh start' it first", what.domain);
        return Err(Failure::new(Kind::Refused, message));
    }
    let destination = match what.p2p {
        true => None,
        false => Some(libvirt::open(&what.destination)?),
    };
    let progress = Arc::new(Progress::new(output.is_quiet()));
    let started = Instant::now();
    let drain = plugged && host.plug == "libvirt";
    interrupt.arm();
    if drain {
        let request = Request::Drain {
            domain: what.domain.clone(),
        };
        progress.line(&act(socket, &request, ACT_SECONDS, &progress)?);
    }
    let migrated = watched(socket, &domain, destination.as_ref(), what, &progress, interrupt);
    progress.clear();
    match migrated {
        Ok(()) => output.done(&format!(
            "domain {} migrated to {} in {}; its VF is plugged there by that host's hybondd",
            what.domain,
            what.destination,
            duration(started.elapsed().as_secs_f64() * 1000.0)
        )),
        Err(failure) => {
            let gone = "the domain no longer runs here; look for it at the destination";
            let name = &what.domain;
            Err(after_failure(socket, &domain, name, (drain, gone), failure, &progress))
        }
    }
}

/// Migrates, while hybond's phases and libvirt's job are shown.
fn watched(
    socket: &Path,
    domain: &Domain,
    destination: Option<&Connect>,
    what: &Migrate,
    progress: &Arc<Progress>,
    interrupt: Interrupt,
) -> Result<(), Failure> {
    if interrupt.came() {
        return Err(Failure::new(Kind::Failed, "interrupted before the migration began"));
    }
    let watch = Request::Watch {
        domain: what.domain.clone(),
    };
    let mut phases = Exchange::begin(socket, &watch, None)?;
    let stop = phases.stream()?;
    let within = what.timeout.map(Duration::from_secs);
    let monitor = Monitor::new(domain.clone(), Arc::clone(progress), interrupt, within);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Ends when the connection is shut down, or hybondd goes: the migration is libvirt's, and goes on.
            while let Ok(Response::Progress { phase, .. }) = phases.next() {
                progress.phase(&phase);
            }
        });
        let migrated = monitor.watch(|| start(domain, destination, what));
        // Where hybondd is gone the connection is down already.
        drop(stop.shutdown(Shutdown::Both));
        migrated.map_err(|error| match monitor.cancelled() {
            Some(why) => Failure::new(
                Kind::Failed,
                format!("migration of domain {} cancelled: {why}", what.domain),
            ),
            None => libvirt::failed(&format!("migration of domain {}", what.domain), &error),
        })
    })
}

fn start(domain: &Domain, destination: Option<&Connect>, what: &Migrate) -> Result<(), virt::error::Error> {
    let parameters = MigrateParameters {
        bandwidth: what.bandwidth,
        parallel_connections: what.parallel,
        uri: what.migrateuri.clone(),
        ..MigrateParameters::default()
    };
    match destination {
        Some(destination) => domain.migrate3(destination, parameters, flags(what)).map(drop),
        None => {
            let flags = flags(what) | sys::VIR_MIGRATE_PEER2PEER;
            domain.migrate_to_uri3(Some(&what.destination), parameters, flags)
        }
    }
}

fn flags(what: &Migrate) -> u32 {
    let choices = [
        (what.persistent, sys::VIR_MIGRATE_PERSIST_DEST),
        (what.undefinesource, sys::VIR_MIGRATE_UNDEFINE_SOURCE),
        (what.auto_converge, sys::VIR_MIGRATE_AUTO_CONVERGE),
        (what.parallel.is_some(), sys::VIR_MIGRATE_PARALLEL),
        (what.tls, sys::VIR_MIGRATE_TLS),
        (what.copy_storage_all, sys::VIR_MIGRATE_NON_SHARED_DISK),
        (what.force_unsafe, sys::VIR_MIGRATE_UNSAFE),
    ];
    let chosen = choices.into_iter().filter(|(chosen, _)| *chosen);
    chosen.fold(sys::VIR_MIGRATE_LIVE, |flags, (_, flag)| flags | flag)
}
