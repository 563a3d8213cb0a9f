//! `reserve`: VFs of another host, held for a domain.

use crate::args::Reserve;
use crate::check::WITHIN;
use crate::control::{Exchange, unexpected};
use crate::failure::Failure;
use crate::output::{Output, plain};
use hybond_wire::control::{Request, Reserved, Response};
use std::path::Path;

/// `hybondctl reserve`.
pub fn reserve(socket: &Path, what: &Reserve, output: &Output) -> Result<(), Failure> {
    let (domain, to) = (what.domain.clone(), what.to.clone());
    let request = match what.cancel {
        true => Request::CancelReservation { domain, to },
        false => Request::Reserve {
            domain,
            to,
            seconds: what.seconds,
        },
    };
    match Exchange::begin(socket, &request, Some(WITHIN))?.finish(|_, _| ())? {
        Response::Reserved { reserved } => output.result(&reserved, || text(&reserved, what.seconds)),
        Response::Done { message } => output.done(&message),
        other => Err(unexpected(&other)),
    }
}

fn text(reserved: &Reserved, seconds: u64) -> String {
    let Reserved { domain, to, held, .. } = reserved;
    let mut text = format!("{to} holds for {}, for {seconds} s:\n", plain(domain));
    for held in held {
        text += &format!("  {}  {} on {}\n", held.mac, held.vf, held.pf);
    }
    text
}
