//! How a pair's address goes from the standby to the VF and back, by the driver of the PF. Both have the same MAC on one
//! card, and what a card makes of that is its driver's doing. Pure data: a row for each family, with its reason and its
//! source. A pool may override each column.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Who gives a VF its MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetMac {
    /// The PF, before the VF is plugged and never later: every driver below resets a VF whose MAC changes.
    #[default]
    BeforePlug,
    /// Nobody on the host: the guest's bond gives it to its slave. For cards that refuse a MAC which the PF has, too. The
    /// guest must be allowed to (no MAC of the PF's on the VF, or trust).
    Never,
}

/// What the standby is while the VF carries the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhilePrimary {
    /// Up, its address in the filter of the PF: a guest whose VF loses its link goes on at once.
    #[default]
    Keep,
    /// Down: for cards that deliver to only one of two functions with one MAC, and that to the wrong one. A guest whose VF
    /// loses its link waits until hybondd has set the standby up.
    Drop,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Handover {
    /// Who gives the VF its MAC.
    pub set_mac: SetMac,
    /// Take the MAC from the VF once it is out of the guest, so that the card delivers to the standby only.
    pub clear_mac: bool,
    /// The standby, while the VF carries the traffic.
    pub standby: WhilePrimary,
    /// How long the guest's bond takes what arrives on either NIC, around a switch (`all_slaves_active`), in milliseconds;
    /// `None`: as the host's configuration says (`guest.overlap_ms`).
    pub overlap_ms: Option<u32>,
    /// Why it is so, and where that is known from.
    pub source: &'static str,
}

/// What a pool says instead of a row; each column that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandoverOverride {
    /// See [`Handover::set_mac`].
    pub set_mac: Option<SetMac>,
    /// See [`Handover::clear_mac`].
    pub clear_mac: Option<bool>,
    /// See [`Handover::standby`].
    pub standby: Option<WhilePrimary>,
    /// See [`Handover::overlap_ms`].
    pub overlap_ms: Option<u32>,
}

/// The table: driver of the PF as sysfs names it, and its row.
const TABLE: &[(&str, Handover)] = &[
    (
        "igb",
        row(
            "measured in the emulated lab: a MAC set while the VF is plugged resets it and both paths are silent for 1 s \
             (igb_set_vf_mac, igb_main.c); both functions deliver, so the standby stays up; without clearing, frames go on \
             to the unplugged VF's queue (igb_rar_set_index)",
        ),
    ),
    (
        "ixgbe",
        row(
            "read: ixgbe_ndo_set_vf_mac (ixgbe_sriov.c) wants the VF's driver reloaded, and takes the zero MAC as \"none\"; \
             ixgbe_add_mac_filter keeps one entry for each pool, so both functions deliver",
        ),
    ),
    (
        "i40e",
        row(
            "read: i40e_ndo_set_vf_mac (i40e_virtchnl_pf.c) resets the VF at each change and takes the zero MAC as \"none\"; \
             filters are kept for each VSI, so both functions deliver",
        ),
    ),
    (
        "ice",
        row(
            "read: ice_set_vf_mac (ice_sriov.c) resets the VF at each change; a second function with the MAC turns the \
             switch rule into a list of VSIs. Kernels that have ice_unicast_mac_exists refuse the VF a MAC that the standby \
             has: prepare-vf fails there, the guest stays on its standby, and set_mac = \"never\" is the way",
        ),
    ),
    (
        "mlx5_core",
        row(
            "read: mlx5_eswitch_set_vport_mac and esw_add_uc_addr (eswitch.c). Kernels before 4.19 or so refuse the second \
             vport of a MAC (\"already in use by vport\"); newer ones make a rule for each vport",
        ),
    ),
    (
        "bnxt_en",
        row(
            "read: bnxt_set_vf_mac (bnxt_sriov.c) hands the MAC to the firmware, zero meaning that the VF may choose; what the \
             firmware delivers when two functions have one MAC is not known: try it, and set standby = \"drop\" if the guest \
             hears nothing on its VF",
        ),
    ),
];

const OTHER: Handover = row("no row for this driver: as those that are known");

const fn row(source: &'static str) -> Handover {
    Handover {
        set_mac: SetMac::BeforePlug,
        clear_mac: true,
        standby: WhilePrimary::Keep,
        overlap_ms: None,
        source,
    }
}

impl Handover {
    /// The row of a driver, with a pool's overrides.
    #[must_use]
    pub fn of(driver: Option<&str>, pool: HandoverOverride) -> Self {
        let known = TABLE.iter().find(|(name, _)| driver == Some(*name));
        let row = known.map_or(OTHER, |(_, row)| *row);
        Self {
            set_mac: pool.set_mac.unwrap_or(row.set_mac),
            clear_mac: pool.clear_mac.unwrap_or(row.clear_mac),
            standby: pool.standby.unwrap_or(row.standby),
            overlap_ms: pool.overlap_ms.or(row.overlap_ms),
            source: row.source,
        }
    }
}

/// As a pool's `handover = { … }` would write it.
impl fmt::Display for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set_mac = match self.set_mac {
            SetMac::BeforePlug => "before-plug",
            SetMac::Never => "never",
        };
        let standby = match self.standby {
            WhilePrimary::Keep => "keep",
            WhilePrimary::Drop => "drop",
        };
        let clear_mac = self.clear_mac;
        write!(
            f,
            "set_mac = \"{set_mac}\", clear_mac = {clear_mac}, standby = \"{standby}\""
        )?;
        match self.overlap_ms {
            Some(ms) => write!(f, ", overlap_ms = {ms}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_has_its_row_and_a_pool_may_override_each_column() {
        let igb = Handover::of(Some("igb"), HandoverOverride::default());
        assert!(igb.source.starts_with("measured"));
        assert_eq!(
            igb.to_string(),
            "set_mac = \"before-plug\", clear_mac = true, standby = \"keep\""
        );
        let pool = HandoverOverride {
            standby: Some(WhilePrimary::Drop),
            overlap_ms: Some(500),
            ..HandoverOverride::default()
        };
        let dropped = Handover::of(Some("mlx5_core"), pool);
        assert_eq!(
            dropped.to_string(),
            "set_mac = \"before-plug\", clear_mac = true, standby = \"drop\", overlap_ms = 500"
        );
        assert_eq!(Handover::of(None, HandoverOverride::default()), OTHER);
    }
}
