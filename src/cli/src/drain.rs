//! `drain` and `plug`.

use crate::args::Act;
use crate::control::{Exchange, unexpected};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use hybond_wire::control::{Request, Response};
use std::path::Path;
use std::time::Duration;

/// `hybondctl drain`.
pub fn drain(socket: &Path, what: &Act, output: &Output) -> Result<(), Failure> {
    let domain = what.domain.clone();
    let progress = Progress::new(output.is_quiet());
    let message = act(socket, &Request::Drain { domain }, what.timeout, &progress)?;
    output.done(&message)
}

/// `hybondctl plug`.
pub fn plug(socket: &Path, what: &Act, output: &Output) -> Result<(), Failure> {
    let domain = what.domain.clone();
    let progress = Progress::new(output.is_quiet());
    let message = act(socket, &Request::Plug { domain }, what.timeout, &progress)?;
    output.done(&message)
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
