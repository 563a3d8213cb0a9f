//! `drain` and `plug`, of one domain or of all.

use crate::args::Act;
use crate::control::{Exchange, query, unexpected};
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::progress::Progress;
use hybond_wire::control::{DomainStatus, Request, Response};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use virt::domain::Domain;

/// Domains that are drained or plugged at one time: as many as a host's switch-overs do not disturb.
const AT_ONCE: usize = 8;
/// How long a plug may take that puts back what a drain took.
const PLUG_SECONDS: u64 = 300;

/// `hybondctl drain`.
pub fn drain(socket: &Path, what: &Act, output: &Output) -> Result<(), Failure> {
    let has_work = |domain: &DomainStatus| domain.pairs.iter().any(|pair| !pair.drained);
    one_or_all(
        socket,
        what,
        (has_work, "drained"),
        |domain| Request::Drain { domain },
        output,
    )
}

/// `hybondctl plug`.
pub fn plug(socket: &Path, what: &Act, output: &Output) -> Result<(), Failure> {
    let has_work = |domain: &DomainStatus| domain.pairs.iter().any(|pair| pair.drained);
    one_or_all(
        socket,
        what,
        (has_work, "plugged"),
        |domain| Request::Plug { domain },
        output,
    )
}

fn one_or_all(
    socket: &Path,
    what: &Act,
    (has_work, done): (impl Fn(&DomainStatus) -> bool, &str),
    request: impl Fn(String) -> Request + Sync,
    output: &Output,
) -> Result<(), Failure> {
    let progress = Progress::new(output.is_quiet());
    if let Some(domain) = &what.domain {
        let message = act(socket, &request(domain.clone()), what.timeout, &progress)?;
        return output.done(&message);
    }
    let domains = match query(socket, &Request::Status { domain: None })? {
        Response::Status { domains } => domains,
        other => return Err(unexpected(&other)),
    };
    let todo: Vec<DomainStatus> = domains.into_iter().filter(has_work).collect();
    if todo.is_empty() {
        return output.done(&format!("no domain on this host is to be {done}"));
    }
    let count = todo.len();
    let failures = all(socket, todo, what.timeout, request, &progress);
    if failures.is_empty() {
        return output.done(&format!("all {count} domains are {done}"));
    }
    let message = format!(
        "{} of {count} domains were not {done}: {}",
        failures.len(),
        failures.join("; ")
    );
    Err(Failure::new(Kind::Failed, message))
}

/// Each within what is left of the time. Goes on past failures, and gives all of them.
fn all(
    socket: &Path,
    mut todo: Vec<DomainStatus>,
    seconds: u64,
    request: impl Fn(String) -> Request + Sync,
    progress: &Progress,
) -> Vec<String> {
    let ends = Instant::now() + Duration::from_secs(seconds);
    todo.reverse();
    let workers = todo.len().min(AT_ONCE);
    let (todo, failures) = (Mutex::new(todo), Mutex::new(Vec::new()));
    let work = || {
        while let Some(domain) = locked(&todo).pop() {
            // By UUID: names can be those of others.
            let request = request(domain.id.to_string());
            let left = ends.saturating_duration_since(Instant::now()).as_secs();
            let result = if left == 0 {
                Err(Failure::new(Kind::Failed, format!("not begun within {seconds} s")))
            } else {
                act(socket, &request, left, progress)
            };
            match result {
                Ok(_) => progress.line(&format!("{}: done", domain.name)),
                Err(failure) => {
                    progress.line(&format!("{}: {failure}", domain.name));
                    locked(&failures).push(format!("{}: {failure}", domain.name));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn locked<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks, shows the phases, and gives hybondd's sentence.
pub fn act(socket: &Path, request: &Request, seconds: u64, progress: &Progress) -> Result<String, Failure> {
    let exchange = Exchange::begin(socket, request, Some(Duration::from_secs(seconds)))?;
    let answer = exchange.finish(|_, phase| progress.phase(phase));
    progress.clear();
    match answer? {
        Response::Done { message } => Ok(message),
        other => Err(unexpected(&other)),
    }
}

/// Puts back what a drain took, after what it was for has failed, and says how things stand. `gone`: what to say of a domain
/// that runs no longer.
pub fn after_failure(
    socket: &Path,
    domain: &Domain,
    name: &str,
    (drained, gone): (bool, &str),
    failure: Failure,
    progress: &Progress,
) -> Failure {
    let stands = match domain.is_active() {
        Ok(true) if drained => {
            let request = Request::Plug {
                domain: name.to_owned(),
            };
            match act(socket, &request, PLUG_SECONDS, progress) {
                Ok(done) => format!("the domain runs on here ({done})"),
                Err(error) => format!("the domain runs on here, on its standby: {error}; try 'hybondctl plug {name}'"),
            }
        }
        Ok(true) => "the domain runs on here".to_owned(),
        Ok(false) => gone.to_owned(),
        Err(error) => format!("whether the domain runs on is not known: {}", error.message()),
    };
    Failure::new(failure.kind, format!("{}; {stands}", failure.message))
}
