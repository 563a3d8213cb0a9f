//! `save` and `managedsave`: libvirt's, with the VFs out of the guest.
//!
//! ```text
//! domain ──▶ drain ──▶ virDomainSaveFlags, virDomainManagedSave ──▶ done: plugged when it is restored
//!              │                    └──fails──▶ plug again, where this command drained
//!              └──fails──▶ nothing has changed
//! ```

use crate::args::{Managedsave, Save, SaveHow};
use crate::drain::{act, after_failure};
use crate::failure::{Failure, Kind};
use crate::interrupt::Interrupt;
use crate::job::Monitor;
use crate::libvirt;
use crate::output::Output;
use crate::progress::Progress;
use crate::show::domain_status;
use crate::time::duration;
use hybond_wire::control::Request;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

/// How long the drain may take.
const ACT_SECONDS: u64 = 300;

/// `hybondctl save`.
pub fn save(socket: &Path, uri: &str, what: &Save, output: &Output) -> Result<(), Failure> {
    let Some(file) = what.file.to_str() else {
        return Err(Failure::new(Kind::Usage, "libvirt takes names of files in UTF-8 only"));
    };
    // libvirt's own client does the same: the file is written by libvirtd, whose working directory is another.
    let path = std::path::absolute(file)
        .map_err(|error| Failure::new(Kind::Usage, format!("{file} is no name of a file: {error}")))?;
    let path = path.to_string_lossy().into_owned();
    let to = format!(" to {path}; 'virsh restore {path}' brings it back, with VFs");
    let work = |domain: &Domain| libvirt::save(domain, &path, flags(&what.how));
    saved(socket, uri, &what.domain, &what.how, (&to, work), output)
}

/// `hybondctl managedsave`.
pub fn managedsave(socket: &Path, uri: &str, what: &Managedsave, output: &Output) -> Result<(), Failure> {
    let to = format!("; 'virsh start {}' brings it back, with VFs", what.domain);
    let work = |domain: &Domain| domain.managed_save(flags(&what.how));
    saved(socket, uri, &what.domain, &what.how, (&to, work), output)
}

fn flags(how: &SaveHow) -> u32 {
    let choices = [
        (how.bypass_cache, sys::VIR_DOMAIN_SAVE_BYPASS_CACHE),
        (how.running, sys::VIR_DOMAIN_SAVE_RUNNING),
        (how.paused, sys::VIR_DOMAIN_SAVE_PAUSED),
    ];
    let chosen = choices.into_iter().filter(|(chosen, _)| *chosen);
    chosen.fold(0, |flags, (_, flag)| flags | flag)
}

fn saved(
    socket: &Path,
    uri: &str,
    name: &str,
    how: &SaveHow,
    (to, work): (&str, impl Fn(&Domain) -> Result<(), Error>),
    output: &Output,
) -> Result<(), Failure> {
    let interrupt = Interrupt::catch()?;
    let status = domain_status(socket, name)?;
    let connection = libvirt::open(uri)?;
    let domain = libvirt::find(&connection, name)?;
    if !libvirt::is_active(&domain)? {
        let message = format!("domain {name} does not run: there is no state to save");
        return Err(Failure::new(Kind::Refused, message));
    }
    let progress = Arc::new(Progress::new(output.is_quiet()));
    let started = Instant::now();
    // Also where none is plugged now: one may be about to be. What an administrator has drained stays drained.
    let drain = status.pairs.iter().any(|pair| !pair.drained);
    interrupt.arm();
    if drain {
        let request = Request::Drain {
            domain: name.to_owned(),
        };
        progress.line(&act(socket, &request, ACT_SECONDS, &progress)?);
    }
    let within = how.timeout.map(Duration::from_secs);
    let result = if interrupt.came() {
        Err(Failure::new(Kind::Failed, "interrupted before the save began"))
    } else {
        let monitor = Monitor::new(domain.clone(), Arc::clone(&progress), interrupt, within);
        monitor
            .watch(|| work(&domain))
            .map_err(|error| match monitor.cancelled() {
                Some(why) => Failure::new(Kind::Failed, format!("save of domain {name} cancelled: {why}")),
                None => libvirt::failed(&format!("save of domain {name}"), &error),
            })
    };
    progress.clear();
    let took = duration(started.elapsed().as_secs_f64() * 1000.0);
    match result {
        Ok(()) => output.done(&format!("domain {name} saved in {took}{to}")),
        Err(failure) => {
            let gone = "the domain no longer runs here; 'virsh list --all' tells whether it was saved all the same";
            Err(after_failure(socket, &domain, name, (drain, gone), failure, &progress))
        }
    }
}
