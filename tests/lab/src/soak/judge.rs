//! What must hold while guests come and go. Pure: held against what was seen.

use super::plan::Side;
use super::view::{Held, View};
use crate::tier2_hybond::Hybrid;
use anyhow::Result;
use hybond_core::ids::{DomainId, Mac};
use hybond_wire::agent::Path;
use std::collections::BTreeMap;

/// What a guest is known by.
#[derive(Debug, Clone)]
pub struct Identity {
    /// libvirt's name.
    pub name: String,
    /// libvirt's UUID.
    pub id: DomainId,
    /// Its pair.
    pub mac: Mac,
}

impl Identity {
    /// That of a guest with one pair.
    ///
    /// # Errors
    /// Its domain has a UUID or a MAC address that is none.
    pub fn of(hybrid: &Hybrid) -> Result<Self> {
        Ok(Self {
            name: hybrid.name().to_owned(),
            id: hybrid.domain.uuid.parse()?,
            mac: hybrid.domain.nics[0].0.parse()?,
        })
    }
}

/// Where a guest is, as far as the soak knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here, and settled: everything of it has been seen to be right.
    Rests(Side),
    /// On its way: either host may have something of it.
    Moves(Side),
}

impl Place {
    /// Whether a host must have room for it.
    #[must_use]
    pub fn may_be_on(self, side: Side) -> bool {
        match self {
            Self::Rests(at) => at == side,
            Self::Moves(_) => true,
        }
    }
}

/// What is not as it must be: a sentence each. `places` are those that have not changed while the hosts were looked at.
#[must_use]
pub fn problems(guests: &[Identity], places: &[Option<Place>], seen: &[View; 2]) -> Vec<String> {
    let mut found = Vec::new();
    for (guest, place) in guests.iter().zip(places) {
        if let Some(Place::Rests(at)) = place {
            found.extend(unsettled(guest, *at, seen));
        }
    }
    for (side, view) in seen.iter().enumerate() {
        let held = view.held();
        let mut by_pair: BTreeMap<(DomainId, Mac), Vec<&Held>> = BTreeMap::new();
        for lease in &held {
            by_pair.entry((lease.domain, lease.mac)).or_default().push(lease);
        }
        for ((domain, mac), leases) in by_pair {
            if leases.len() > 1 {
                found.push(format!(
                    "host {side}: {mac} of domain {domain} holds several VFs: {leases:?}"
                ));
            }
            if !guests.iter().any(|guest| guest.id == domain && guest.mac == mac) {
                found.push(format!(
                    "host {side}: a VF is held for {mac} of unknown domain {domain}"
                ));
            }
        }
    }
    found
}

/// Why a guest cannot yet be said to rest on this host.
#[must_use]
pub fn unsettled(guest: &Identity, at: Side, seen: &[View; 2]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (here, there) = (&seen[at], &seen[1 - at]);
    let name = &guest.name;
    let mut wrong = |what: String| found.push(format!("{name} on host {at}: {what}"));

    if !here.domains.contains(name) {
        wrong("libvirt does not list it".into());
    }
    let held: Vec<Held> = here.held().into_iter().filter(|held| held.domain == guest.id).collect();
    let standby = guest.mac.standby_name().to_string();
    let below = here.links.get(&standby).cloned().flatten();
    match here.status.iter().find(|domain| domain.id == guest.id) {
        None => wrong("hybond does not know it".into()),
        Some(domain) => {
            if domain.stage != "running" {
                wrong(format!("it is {}", domain.stage));
            }
            match domain.pairs.as_slice() {
                [pair] => {
                    if pair.active != Some(Path::Primary) || !pair.plugged || pair.degraded.is_some() {
                        wrong(format!("it is not on its VF: {pair:?}"));
                    }
                    let told = (
                        pair.vf.as_ref().map(ToString::to_string),
                        pair.pf.as_ref().map(ToString::to_string),
                    );
                    match held.as_slice() {
                        [held] if told == (Some(held.vf.clone()), Some(held.pf.clone())) => {}
                        _ => wrong(format!("status says VF and PF {told:?}, the pool {held:?}")),
                    }
                    // The kernel's word, not hybond's.
                    if below.is_none() || below != told.1 {
                        wrong(format!("its standby is on {below:?}, its VF is of {:?}", told.1));
                    }
                }
                pairs => wrong(format!("it has pairs {pairs:?}")),
            }
        }
    }
    for left in leftovers(guest, there) {
        wrong(format!("host {} has {left} yet", 1 - at));
    }
    found
}

/// What a host that a guest has left has of it.
fn leftovers(guest: &Identity, view: &View) -> Vec<String> {
    let mut found = Vec::new();
    if view.domains.contains(&guest.name) {
        found.push("the domain".to_owned());
    }
    if let Some(domain) = view.status.iter().find(|domain| domain.id == guest.id) {
        found.push(format!("hybond's guest, {},", domain.stage));
    }
    for held in view.held() {
        if held.domain == guest.id {
            found.push(format!("a lease of VF {}", held.vf));
        }
    }
    let of_pair = guest.mac.compact();
    found.extend(
        view.links
            .keys()
            .filter(|l| l.contains(&of_pair))
            .map(|link| format!("device {link}")),
    );
    let of_domain = guest.id.to_string();
    found.extend(
        view.files
            .iter()
            .filter(|f| f.contains(&of_domain))
            .map(|file| format!("file {file}")),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn guest(n: u8) -> Identity {
        Identity {
            name: format!("soak{n:02}"),
            id: DomainId::from_bytes([n; 16]),
            mac: Mac::from_octets([0x52, 0x54, 0, 0xaa, 0, n]).expect("mac"),
        }
    }

    /// A host with guests on these VFs.
    fn host(pf: &str, guests: &[(u8, u32)]) -> View {
        let mut view = View::default();
        let mut vfs: Vec<serde_json::Value> = Vec::new();
        for index in 0..7 {
            let holder = guests.iter().find(|(_, vf)| *vf == index).map(|(n, _)| guest(*n));
            let lease = holder.map(|g| json!({"domain": g.id.to_string(), "name": g.name, "mac": g.mac.to_string()}));
            vfs.push(json!({"vf": format!("{pf}.{index}"), "pf": pf, "numa_node": null, "lease": lease}));
        }
        view.pools = serde_json::from_value(json!([{"name": "lan", "vfs": vfs}])).expect("pools");
        for (n, index) in guests {
            let guest = guest(*n);
            view.domains.insert(guest.name.clone());
            let pair = json!({
                "mac": guest.mac.to_string(), "pool": "lan", "policy": "prefer", "active": "primary",
                "vf": format!("{pf}.{index}"), "plugged": true, "pf": pf, "degraded": null, "since_ms": 1,
            });
            let domain = json!({
                "id": guest.id.to_string(), "name": guest.name, "stage": "running", "agent": true, "pairs": [pair],
            });
            view.status.push(serde_json::from_value(domain).expect("status"));
            view.links
                .insert(guest.mac.standby_name().to_string(), Some(pf.to_owned()));
        }
        view
    }

    #[test]
    fn guests_on_vfs_of_their_standbys_pfs_are_right() {
        let seen = [host("pf0", &[(1, 0)]), host("port4", &[(2, 3)])];
        let places = [Some(Place::Rests(0)), Some(Place::Rests(1))];
        assert_eq!(problems(&[guest(1), guest(2)], &places, &seen), Vec::<String>::new());
    }

    #[test]
    fn a_standby_on_another_pf_than_its_vf_is_found_by_what_the_kernel_says() {
        let mut seen = [host("pf0", &[(1, 0)]), host("port4", &[])];
        seen[0].links.insert("hb525400aa0001".into(), Some("pf1".into()));
        let found = problems(&[guest(1)], &[Some(Place::Rests(0))], &seen);
        assert!(
            found.len() == 1 && found[0].contains("its standby is on Some(\"pf1\")"),
            "{found:?}"
        );
    }

    #[test]
    fn two_vfs_for_one_pair_are_found_whether_it_rests_or_moves() {
        let mut seen = [host("pf0", &[(1, 0)]), host("port4", &[])];
        let lease = seen[0].pools[0].vfs[0].lease.clone();
        seen[0].pools[0].vfs[5].lease = lease;
        for place in [Some(Place::Rests(0)), Some(Place::Moves(0)), None] {
            let found = problems(&[guest(1)], &[place], &seen);
            assert!(
                found.iter().any(|f| f.contains("holds several VFs")),
                "{place:?} {found:?}"
            );
        }
    }

    #[test]
    fn what_is_left_on_the_source_is_named_and_what_belongs_to_others_is_not() {
        let mut seen = [host("pf0", &[(2, 1)]), host("port4", &[(1, 0)])];
        seen[0].links.insert("hbe525400aa0001".into(), None);
        seen[0].files.insert(format!("{}.json", guest(1).id));
        let found = unsettled(&guest(1), 1, &seen);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("host 0 has device hbe525400aa0001 yet"), "{found:?}");
        // On its way, it may have things on both.
        assert_eq!(
            problems(&[guest(1), guest(2)], &[Some(Place::Moves(0)), None], &seen),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_lease_of_nobody_and_a_guest_without_one_are_found() {
        let mut seen = [host("pf0", &[(9, 0), (1, 1)]), host("port4", &[])];
        seen[0].pools[0].vfs[1].lease = None;
        let found = problems(&[guest(1)], &[Some(Place::Rests(0))], &seen);
        assert!(
            found.iter().any(|f| f.contains("of unknown domain 09090909")),
            "{found:?}"
        );
        assert!(found.iter().any(|f| f.contains("the pool []")), "{found:?}");
    }
}
