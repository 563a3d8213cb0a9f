//! `enable` and `disable`: a domain's persistent XML.

use crate::args::{Disable, Enable};
use crate::failure::{Failure, Kind, chain};
use crate::libvirt;
use crate::output::{Output, note, write_stdout};
use hybond_core::ids::Mac;
use hybond_core::spec::{DomainSpec, PairSpec, StandbyKind};
use hybond_domxml::MAX_XML;
use serde::Serialize;
use std::io::Read;
use std::path::Path;
use virt::connect::Connect;

#[derive(Serialize)]
struct Changed<'a> {
    domain: &'a str,
    pairs: &'a [PairSpec],
    running: bool,
    message: &'a str,
}

/// `hybondctl enable`.
pub fn enable(uri: &str, what: &Enable, output: &Output) -> Result<(), Failure> {
    if let Some(file) = &what.file {
        let xml = read(file)?;
        let Enabled { xml, .. } = enabled("in the file", &xml, what)?;
        hints(&xml).iter().for_each(|hint| note(&format!("hybondctl: {hint}")));
        return write_stdout(&xml);
    }
    let Some(domain) = &what.domain else {
        return Err(Failure::new(Kind::Usage, "no domain given"));
    };
    let connection = libvirt::open(uri)?;
    let found = libvirt::find(&connection, domain)?;
    let xml = libvirt::inactive_xml(&found, domain, !what.print)?;
    let Enabled { xml, preallocated } = enabled(domain, &xml, what)?;
    if what.print {
        hints(&xml).iter().for_each(|hint| note(&format!("hybondctl: {hint}")));
        return write_stdout(&xml);
    }
    let running = libvirt::is_active(&found)?;
    define(&connection, domain, &xml)?;
    let spec = stored(&connection, domain)?.ok_or_else(|| {
        Failure::new(
            Kind::Failed,
            format!("libvirt took the XML of domain {domain} and dropped hybond's metadata: its driver keeps none"),
        )
    })?;
    let macs: Vec<String> = spec.pairs.iter().map(|p| format!("{} ({})", p.mac, p.pool)).collect();
    let mut message = format!("domain {domain}: {} enabled{}", macs.join(", "), from_when(running));
    for pair in spec.pairs.iter().filter_map(PairSpec::no_vf_because) {
        message += "; ";
        message += &pair;
    }
    if preallocated {
        message += "; all of its memory is got when it starts, so that it need not wait for that when a VF is plugged \
                    (--keep-memory leaves its <memoryBacking> as it is)";
    }
    changed(output, domain, &spec.pairs, running, &message)
}

/// `hybondctl disable`.
pub fn disable(uri: &str, what: &Disable, output: &Output) -> Result<(), Failure> {
    let taken_out = |domain: &str, xml: &str| hybond_domxml::disable(xml).map_err(|e| Failure::xml(domain, &e));
    if let Some(file) = &what.file {
        let xml = read(file)?;
        return write_stdout(&taken_out("in the file", &xml)?);
    }
    let Some(domain) = &what.domain else {
        return Err(Failure::new(Kind::Usage, "no domain given"));
    };
    let connection = libvirt::open(uri)?;
    let found = libvirt::find(&connection, domain)?;
    let xml = taken_out(domain, &libvirt::inactive_xml(&found, domain, !what.print)?)?;
    if what.print {
        return write_stdout(&xml);
    }
    let running = libvirt::is_active(&found)?;
    define(&connection, domain, &xml)?;
    let message = format!("domain {domain}: disabled{}", from_when(running));
    changed(output, domain, &[], running, &message)
}

/// Why pairs of this XML will have no VF.
fn hints(xml: &str) -> Vec<String> {
    // What cannot be read back, `enabled` has said.
    let spec = hybond_domxml::parse(xml).ok().flatten();
    let pairs = spec.map(|spec| spec.pairs).unwrap_or_default();
    pairs.iter().filter_map(PairSpec::no_vf_because).collect()
}

fn changed(output: &Output, domain: &str, pairs: &[PairSpec], running: bool, message: &str) -> Result<(), Failure> {
    let json = Changed {
        domain,
        pairs,
        running,
        message,
    };
    output.result(&json, || format!("{message}\n"))
}

fn from_when(running: bool) -> &'static str {
    if running {
        "; it runs, and this holds from its next start (shut it down and start it; a reboot inside the guest is not enough)"
    } else {
        ""
    }
}

struct Enabled {
    xml: String,
    /// Its memory is got when it starts, which its XML said nothing of.
    preallocated: bool,
}

/// The XML with the pairs that are asked for.
fn enabled(domain: &str, xml: &str, what: &Enable) -> Result<Enabled, Failure> {
    let xml = &hybond_domxml::give_macs(xml, random_octets()?).map_err(|error| Failure::xml(domain, &error))?;
    let macs = match &what.mac[..] {
        [] => vec![only_candidate(domain, xml)?],
        given => given.to_vec(),
    };
    let pairs: Vec<PairSpec> = macs.into_iter().map(|mac| pair(mac, what)).collect();
    let xml = hybond_domxml::enable(xml, &pairs).map_err(|error| Failure::xml(domain, &error))?;
    let preallocated = match what.keep_memory {
        true => None,
        false => hybond_domxml::preallocate_at_start(&xml).map_err(|error| Failure::xml(domain, &error))?,
    };
    Ok(Enabled {
        preallocated: preallocated.is_some(),
        xml: preallocated.unwrap_or(xml),
    })
}

fn pair(mac: Mac, what: &Enable) -> PairSpec {
    let standby = if what.keep_interface {
        // `enable` leaves the interface as it is, its lower device with it; this one is not written.
        StandbyKind::Direct {
            source: mac.standby_name(),
        }
    } else {
        StandbyKind::Ethernet
    };
    PairSpec {
        flavor: what.flavor.into(),
        policy: what.policy.into(),
        vlan: what.vlan,
        standby,
        ..PairSpec::new(mac, what.pool.clone())
    }
}

/// The kernel's chance, for MACs. Enough is read at once for any domain; where it runs out, it begins again, and what is
/// taken already is drawn no second time.
fn random_octets() -> Result<impl FnMut() -> [u8; 3], Failure> {
    let mut octets = [0u8; 3 * 256];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut octets));
    read.map_err(|error| Failure::new(Kind::Failed, format!("/dev/urandom cannot be read: {error}")))?;
    let mut at = 0u32;
    Ok(move || {
        let mut drawn = [0; 3];
        let start = (at as usize * 3) % octets.len();
        for (octet, random) in drawn.iter_mut().zip(octets.iter().skip(start)) {
            // Counted on, so that no second round is the same as the first.
            *octet = random.wrapping_add((at / 256) as u8);
        }
        at = at.wrapping_add(1);
        drawn
    })
}

fn only_candidate(domain: &str, xml: &str) -> Result<Mac, Failure> {
    let candidates = hybond_domxml::candidates(xml).map_err(|error| Failure::xml(domain, &error))?;
    match &candidates[..] {
        [mac] => Ok(*mac),
        [] => Err(Failure::new(
            Kind::NotFound,
            format!(
                "domain {domain} has no virtio interface; the standby has to be one, add it with <model type='virtio'/>"
            ),
        )),
        several => {
            let list: Vec<String> = several.iter().map(Mac::to_string).collect();
            let list = list.join(", ");
            let message = format!("domain {domain} has several virtio interfaces; choose with --mac from {list}");
            Err(Failure::new(Kind::Usage, message))
        }
    }
}

fn define(connection: &Connect, domain: &str, xml: &str) -> Result<(), Failure> {
    let defined = connection.define_domain_xml(xml);
    defined
        .map(drop)
        .map_err(|error| libvirt::failed(&format!("redefining domain {domain}"), &error))
}

/// What libvirt has now.
fn stored(connection: &Connect, domain: &str) -> Result<Option<DomainSpec>, Failure> {
    let xml = libvirt::inactive_xml(&libvirt::find(connection, domain)?, domain, false)?;
    hybond_domxml::parse(&xml).map_err(|error| Failure::xml(domain, &error))
}

fn read(file: &Path) -> Result<String, Failure> {
    let fault = |error: std::io::Error| {
        Failure::new(
            Kind::Failed,
            format!("{} cannot be read: {}", file.display(), chain(&error)),
        )
    };
    let mut xml = String::new();
    // One more than is read anyway, so that more is noticed.
    let limit = MAX_XML as u64 + 1;
    if file == Path::new("-") {
        note("hybondctl: reading the domain's XML from stdin");
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut xml)
            .map_err(fault)?;
    } else {
        let file = std::fs::File::open(file).map_err(fault)?;
        file.take(limit).read_to_string(&mut xml).map_err(fault)?;
    }
    Ok(xml)
}
