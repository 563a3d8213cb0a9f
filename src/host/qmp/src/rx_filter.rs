//! What a guest's driver wants of the frames that come to its NIC.

use crate::commands::QUICK;
use crate::error::QmpError;
use crate::qmp::Qmp;
use serde::Deserialize;
use serde_json::Value;

/// The receive filter of one NIC. QEMU tells of virtio-net only, and of a NIC's next change once, until it is asked again.
/// Everything in it but the name is the guest's choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RxFilter {
    /// Id of the NIC.
    pub name: String,
    /// Its address now; `None` where it cannot be read.
    pub mac: Option<[u8; 6]>,
    /// It wants every multicast frame: it says so, is promiscuous, or has asked for more groups than QEMU keeps. A NIC whose
    /// driver is not up yet is promiscuous.
    pub all_multicast: bool,
    /// The groups that it wants, in QEMU's order.
    pub groups: Vec<[u8; 6]>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Told {
    name: String,
    promiscuous: bool,
    multicast: String,
    multicast_overflow: bool,
    main_mac: String,
    multicast_table: Vec<String>,
}

impl From<Told> for RxFilter {
    fn from(told: Told) -> Self {
        Self {
            mac: octets(&told.main_mac),
            all_multicast: told.promiscuous || told.multicast_overflow || told.multicast == "all",
            groups: match told.multicast.as_str() {
                "none" => Vec::new(),
                _ => told.multicast_table.iter().filter_map(|text| octets(text)).collect(),
            },
            name: told.name,
        }
    }
}

fn octets(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

impl Qmp {
    /// The receive filters of all NICs that have one, and from now on the events of their next changes.
    ///
    /// # Errors
    /// As [`Qmp::command`], or the answer is not understood.
    pub async fn query_rx_filter(&self) -> Result<Vec<RxFilter>, QmpError> {
        // Not through the typed answer, whose states end where some release of QEMU ended.
        let answer = self.command("query-rx-filter", Value::Null, None, QUICK).await?;
        let told = serde_json::from_value::<Vec<Told>>(answer).map_err(|source| QmpError::Answer {
            command: "query-rx-filter".to_owned(),
            source,
        })?;
        Ok(told.into_iter().map(RxFilter::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> RxFilter {
        serde_json::from_value::<Told>(value).expect("readable").into()
    }

    #[test]
    fn what_a_guest_wants_is_read_and_what_nobody_can_read_is_left_out() {
        let filter = read(json!({
            "name": "net0", "promiscuous": false, "multicast": "normal", "multicast-overflow": false,
            "main-mac": "52:54:00:aa:00:01", "vlan": "all", "vlan-table": [],
            "multicast-table": ["33:33:ff:aa:00:01", "a new kind of address"]
        }));
        assert_eq!(filter.mac, Some([0x52, 0x54, 0, 0xaa, 0, 1]));
        assert_eq!(filter.groups, [[0x33, 0x33, 0xff, 0xaa, 0, 1]]);
        assert!(!filter.all_multicast);
    }

    #[test]
    fn a_guest_that_wants_more_than_qemu_keeps_wants_everything() {
        for value in [
            json!({"multicast": "all"}),
            json!({"multicast": "normal", "multicast-overflow": true}),
            json!({"multicast": "normal", "promiscuous": true}),
        ] {
            assert!(read(value.clone()).all_multicast, "{value}");
        }
        let none = read(json!({"multicast": "none", "multicast-table": ["33:33:00:00:00:01"]}));
        assert!(!none.all_multicast && none.groups.is_empty());
    }
}
