//! libvirt's `qemu` hook: `50-hybond DOMAIN OPERATION SUB-OPERATION EXTRA`, the domain's XML on stdin.
//!
//! libvirt runs it for every domain of the host, waits for it without a limit of its own, and holds the domain's lock
//! meanwhile (`virHookCall`). So: a domain that is not hybond's costs a search through its XML and cannot fail; for one
//! that is, the daemon gets one request, and the whole process has a deadline. It never calls libvirt, starts no
//! process, and never writes the XML anywhere but to stdout: it holds the domain's secrets.
//!
//! Exit 0: go on; stdout is empty, or the XML to go on with. Exit 1: stop, with one sentence on stderr, which libvirt
//! shows to whoever asked for the operation.

mod ask;
mod call;
mod input;

use ask::Changes;
use call::Call;
use hybond_core::ids::{IfName, Mac};
use hybond_core::spec::{DomainSpec, PairSpec, StandbyKind};
use hybond_domxml::XmlError;
use hybond_wire::hook::{self, Operation};
use std::io::Write;
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Why it fails has been said: libvirt shows all of stderr, and it is to be one sentence.
static SAID: Mutex<bool> = Mutex::new(false);

fn main() -> ExitCode {
    let Some(call) = Call::from_arguments(std::env::args_os().skip(1)) else {
        return ExitCode::SUCCESS;
    };
    let call = Arc::new(call);
    let hybonds = Arc::new(AtomicBool::new(false));
    start_deadline(Arc::clone(&call), Arc::clone(&hybonds));
    match run(&call, &hybonds) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(xml)) => match print(&xml) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&call, &format!("libvirt did not take the XML: {error}")),
        },
        Err(reason) => fail(&call, &reason),
    }
}

/// Writes and flushes: what std flushes at the end of the process, it flushes without telling of errors.
fn print(xml: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(xml.as_bytes())?;
    stdout.flush()
}

/// What to print: nothing, or the XML with other lower devices and memory that is there before the guest. An error is a
/// sentence's end, after "on HOST: ".
fn run(call: &Call, hybonds: &AtomicBool) -> Result<Option<String>, String> {
    // Read to the end whatever comes of it: libvirt is writing.
    let input = input::read(std::io::stdin().lock());
    if !input.mentions_hybond {
        return Ok(None);
    }
    let Some(operation) = call.operation else {
        return Ok(None);
    };
    hybonds.store(true, Ordering::SeqCst);
    let xml = input.text()?;
    let mend = |error: XmlError| {
        let cause = std::error::Error::source(&error).map_or(String::new(), |c| format!(": {c}"));
        format!("{error}{cause}; mend it with 'virsh edit {}'", call.domain)
    };
    let Some(domain) = hybond_domxml::parse(xml).map_err(mend)? else {
        return Ok(None);
    };
    // Nothing has changed since `prepare`, a moment ago, but what libvirt's networks have chosen since.
    if operation == Operation::Start && !domain.pairs.iter().any(of_network) {
        return Ok(None);
    }
    let request = hook::Request {
        version: hook::VERSION,
        operation,
        reason: call.reason.clone(),
        domain,
    };
    let Changes { sources, preallocate } = ask::ask(call, &request)?;
    if sources.is_empty() && !preallocate {
        return Ok(None);
    }
    let sources = checked_sources(operation, &request.domain, sources)?;
    changed(xml, &sources, preallocate)
        .map_err(|error| format!("hybondd wants a change that is not possible: {error}; please report this"))
}

/// The XML with the changes; `None` where it is right as it is.
fn changed(xml: &str, sources: &[(Mac, IfName)], preallocate: bool) -> Result<Option<String>, XmlError> {
    let with_sources = match sources {
        [] => None,
        sources => Some(hybond_domxml::set_sources(xml, sources)?),
    };
    let with_memory = match preallocate {
        true => hybond_domxml::preallocate(with_sources.as_deref().unwrap_or(xml))?,
        false => None,
    };
    Ok(with_memory.or(with_sources))
}

fn of_network(pair: &PairSpec) -> bool {
    matches!(pair.standby, StandbyKind::Network { .. })
}

/// The daemon's edits, where edits are possible and only for pairs of the domain.
fn checked_sources(
    operation: Operation,
    domain: &DomainSpec,
    sources: Vec<hook::SourceEdit>,
) -> Result<Vec<(Mac, IfName)>, String> {
    if !matches!(operation, Operation::Migrate | Operation::Restore) {
        return Err("hybondd wants another XML where libvirt takes none; please report this".to_owned());
    }
    if let Some(other) = sources.iter().find(|s| !domain.pairs.iter().any(|p| p.mac == s.mac)) {
        return Err(format!(
            "hybondd wants another <source> for {}, which is no pair of this domain; please report this",
            other.mac
        ));
    }
    Ok(sources.into_iter().map(|s| (s.mac, s.source)).collect())
}

/// Ends the process when its time is up, wherever it hangs then: reading the XML, in `connect` on a full backlog, in the
/// daemon, or in writing the answer. Half an XML on stdout does no harm with exit code 1.
fn start_deadline(call: Arc<Call>, hybonds: Arc<AtomicBool>) {
    let deadline = call.deadline;
    let watch = move || {
        std::thread::sleep(deadline);
        if !hybonds.load(Ordering::SeqCst) {
            exit(0);
        }
        let reason = ask::no_answer(&call);
        let refused = call.may_refuse();
        fail(&call, &reason);
        exit(i32::from(refused));
    };
    // Without a thread there are still the socket's own timeouts.
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(watch);
    drop(thread);
}

/// Says why, and refuses where that is allowed.
fn fail(call: &Call, reason: &str) -> ExitCode {
    let line = format!(
        "hybond: {} of domain {} on {}: {reason}\n",
        call.name,
        call.domain,
        call::host()
    );
    // The deadline and the wait for hybondd end at about the same moment, in two threads: the first of them speaks, and the
    // other waits for that before it ends the process.
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut *said, true) {
        // Where stderr is closed there is nobody to tell.
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
    drop(said);
    if call.may_refuse() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
