//! `check`: would a domain fit on another host?

use crate::args;
use crate::control::{Exchange, unexpected};
use crate::failure::{Failure, Kind};
use crate::output::{Output, or_dash, plain, table};
use hybond_wire::control::{Check, Request, Response};
use hybond_wire::peer::Fit;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// hybondd gives up on the other host before.
pub const WITHIN: Duration = Duration::from_secs(90);
/// It fits, and would run on its standby.
const ON_STANDBY: u8 = 7;

/// `hybondctl check`.
pub fn check(socket: &Path, what: &args::Check, output: &Output) -> Result<ExitCode, Failure> {
    let request = Request::Check {
        domain: what.domain.clone(),
        to: what.to.clone(),
    };
    let answer = Exchange::begin(socket, &request, Some(WITHIN))?.finish(|_, _| ())?;
    let Response::Check { check } = answer else {
        return Err(unexpected(&answer));
    };
    output.result(&check, || text(&check))?;
    Ok(match check.fit {
        Fit::Vf => ExitCode::SUCCESS,
        Fit::Standby => ExitCode::from(ON_STANDBY),
        Fit::No => ExitCode::from(Kind::Refused.code()),
    })
}

fn text(check: &Check) -> String {
    let verdict = match check.fit {
        Fit::Vf => "fits",
        Fit::Standby => "fits, and would run on its standby",
        Fit::No => "does not fit",
    };
    let mut text = format!("{} on {}: {verdict}\n", plain(&check.domain), check.to);
    if !check.pairs.is_empty() {
        let mut rows = vec![
            ["PAIR", "POOL", "POLICY", "PATH", "VF", "PF"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for pair in &check.pairs {
            rows.push(vec![
                pair.mac.to_string(),
                pair.pool.to_string(),
                crate::show::policy(pair.policy).to_owned(),
                match (pair.fit, &pair.vf) {
                    (Fit::Vf, Some(_)) => "primary",
                    (Fit::Vf | Fit::Standby, _) => "standby",
                    (Fit::No, _) => "refused",
                }
                .to_owned(),
                or_dash(pair.vf.as_ref()),
                or_dash(pair.pf.as_ref()),
            ]);
        }
        text += &table(&rows);
    }
    for pair in &check.pairs {
        if let Some(why) = &pair.why {
            text += &format!("{}: {}\n", pair.mac, plain(why));
        }
    }
    for line in check.obstacles.iter() {
        text += &format!("obstacle: {}\n", plain(line));
    }
    for line in check.notes.iter() {
        text += &format!("note: {}\n", plain(line));
    }
    text
}
