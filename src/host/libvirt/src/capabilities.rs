//! What libvirt says of its host.

use hybond_core::ids::DomainId;
use roxmltree::Document;

/// `<host><uuid>`: the firmware's, or what libvirtd.conf says instead (`host_uuid`). `None` where libvirt has none.
pub(crate) fn host_uuid(capabilities: &str) -> Option<[u8; 16]> {
    let document = Document::parse(capabilities).ok()?;
    let root = document.root_element();
    let host = root.children().find(|n| n.has_tag_name("host"))?;
    let uuid = host.children().find(|n| n.has_tag_name("uuid"))?.text()?;
    // A host's UUID is written as a domain's is.
    uuid.trim().parse::<DomainId>().ok().map(DomainId::bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_uuid_is_found_where_libvirt_has_one() {
        let of = |host: &str| {
            host_uuid(&format!(
                "<capabilities><host>{host}<cpu/></host><guest/></capabilities>"
            ))
        };
        let bytes = of("<uuid>00010203-0405-0607-0809-0a0b0c0d0e0f</uuid>").expect("one");
        assert_eq!(bytes, std::array::from_fn(|n| n as u8));
        assert_eq!(of(""), None);
        assert_eq!(of("<uuid>none</uuid>"), None);
        assert_eq!(host_uuid("<capabilities>"), None);
    }
}
