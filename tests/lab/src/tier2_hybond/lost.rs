//! What a migration of tier 2 has cost in packets.

use crate::probe::{Record, Span, Summary, analyse};
use crate::report::AFTERMATH_MS;
use anyhow::{Context, Result};
use hybond_wire::control::Run;
use serde::Serialize;

/// Packets at the two switches, and over the whole migration.
#[derive(Debug, Clone, Serialize)]
pub struct Lost {
    /// From the failover until the source's VF is reset, or the guest's CPUs stand still.
    pub failover: Summary,
    /// From the VF's preparation until the traffic has gone over it for a moment.
    pub failback: Summary,
    /// All that was measured.
    pub whole: Summary,
}

impl Lost {
    /// By both hosts' accounts of the migration. Both hosts have one clock.
    ///
    /// # Errors
    /// A phase is missing, or nothing was measured.
    pub fn of(records: &[Record], left: &Run, came: &Run) -> Result<Self> {
        let around = |name: &str, start: f64, end: f64| -> Result<Summary> {
            let span = Span::new(name, start, end);
            analyse(records, &[span]).pop().context("nothing was measured")
        };
        // The source resets the VF once more when the guest is away, which has nothing to do with the failover; nor has what
        // is lost while the guest's CPUs stand still.
        let (_, drained) = phase(left, "reset-vf")?;
        let (stop, _) = phase(left, "stop")?;
        let (_, switched) = phase(came, "failback")?;
        Ok(Self {
            failover: around("failover", phase(left, "failover")?.0, stop.min(drained + AFTERMATH_MS))?,
            failback: around("failback", phase(came, "prepare-vf")?.0, switched + AFTERMATH_MS)?,
            whole: around("whole", f64::MIN, f64::MAX)?,
        })
    }
}

/// Start and end of a phase of a run, in milliseconds.
///
/// # Errors
/// It has none of that name, or it has not ended.
pub fn phase(run: &Run, name: &str) -> Result<(f64, f64)> {
    let phase = run.phases.iter().find(|phase| phase.name == name);
    let phase = phase.with_context(|| format!("{} has no phase {name}: {run:?}", run.kind))?;
    let end = phase.end_ms.with_context(|| format!("{name} has no end: {run:?}"))?;
    Ok((phase.start_ms, end))
}
