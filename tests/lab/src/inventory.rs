//! What hybond says of a host's VFs.

use crate::Machine;
use anyhow::{Context, Result};
use hybond_wire::inventory::VfRow;
use serde::Deserialize;

/// The rows of `hybondctl inventory`.
///
/// # Errors
/// hybondd does not answer.
pub fn inventory(host: &impl Machine) -> Result<Vec<VfRow>> {
    #[derive(Deserialize)]
    struct Inventory {
        vfs: Vec<VfRow>,
    }
    let text = host.ok("hybondctl --json inventory")?;
    let inventory: Inventory = serde_json::from_str(&text).context("hybondctl inventory")?;
    Ok(inventory.vfs)
}
