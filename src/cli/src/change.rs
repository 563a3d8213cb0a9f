//! `set`.

use crate::args::Set;
use crate::drain::act;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use hybond_wire::control::Request;
use std::path::Path;

/// `hybondctl set`.
pub fn set(socket: &Path, what: &Set, output: &Output) -> Result<(), Failure> {
    let request = Request::Set {
        domain: what.domain.clone(),
        mac: what.mac,
        policy: what.policy.map(Into::into),
        vlan: what.vlan,
    };
    let progress = Progress::new(output.is_quiet());
    let message = act(socket, &request, what.timeout, &progress)?;
    output.done(&message)
}
