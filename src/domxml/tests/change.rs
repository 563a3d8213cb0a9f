//! What hybond changes in a domain, and that it changes nothing else.

mod common;

use common::{PLAIN, mac};
use hybond_core::spec::{Flavor, PairSpec, Policy, StandbyKind};
use hybond_domxml::{
    PairChange, XmlError, change_pairs, disable, enable, give_macs, has_only_pairs, parse, preallocate,
    preallocate_at_start, set_source_peer, set_sources, slots,
};
use proptest::prelude::*;

fn pair(n: u8) -> PairSpec {
    PairSpec {
        // The first interface of PLAIN says so.
        mtu: (n == 1).then_some(9000),
        ..PairSpec::new(mac(n), "10GE".parse().expect("a pool"))
    }
}

/// PLAIN with its first interface on a libvirt network, as people have them.
fn of_network() -> String {
    PLAIN.replace("type='direct' trust", "type='network' trust").replace(
        "<source dev='enp1s0f0' mode='bridge'/>",
        "<source network='lan' portgroup='web'/>\n      <virtualport type='802.1Qbh'>\n        <parameters profileid='web'/>\n      </virtualport>",
    )
}

fn direct(n: u8) -> PairSpec {
    let source = "enp1s0f0".parse().expect("a name");
    PairSpec {
        standby: StandbyKind::Direct { source },
        ..pair(n)
    }
}

#[test]
fn a_new_lower_device_is_the_only_change() {
    let sources = [(mac(1), "pf1".parse().expect("a name"))];
    let changed = set_sources(PLAIN, &sources).expect("it has one");
    assert_eq!(changed, PLAIN.replace("dev='enp1s0f0'", "dev='pf1'"));
}

#[test]
fn lower_devices_are_found_whatever_the_xml_looks_like() {
    let xml = "<?xml version='1.0'?>\r\n<!-- <source dev='a'/> --><domain><devices>\
        <x:interface xmlns:x='urn:x' type='direct'><mac address='52:54:00:aa:00:01'/><source dev='no'/></x:interface>\
        <interface\ttype = \"direct\" ><mac  address = \"52:54:00:AA:00:01\"/><!--<source dev='no'/>-->\
        <description><![CDATA[<source dev='no'/>]]></description>\
        <source mode='bridge'\n dev\n=\n\"e&quot;1\"   /></interface></devices></domain><!-- end -->";
    let sources = [(mac(1), "a'<b>&\"c".parse().expect("the kernel takes such a name"))];
    let changed = set_sources(xml, &sources).expect("it has one");
    assert_eq!(changed, xml.replace("e&quot;1", "a&apos;&lt;b&gt;&amp;&quot;c"));
}

#[test]
fn an_interface_of_a_network_is_put_on_its_pf_and_keeps_everything_else() {
    let plain = of_network();
    let sources = [(mac(1), "pf1".parse().expect("a name"))];
    let changed = set_sources(&plain, &sources).expect("it is on a network");
    let expected = plain.replace("type='network' trust", "type='direct' trust").replace(
        "<source network='lan' portgroup='web'/>",
        "<source dev='pf1' mode='bridge'/>",
    );
    assert_eq!(changed, expected);
    assert!(changed.contains("trustGuestRxFilters='yes'") && changed.contains("<parameters profileid='web'/>"));
    // As libvirt shows it while the domain runs.
    let live = expected.replace(
        "<source dev='pf1' mode='bridge'/>",
        "<source network='lan' portid='2df6bd17-8644-403a-93fe-4201eba435a8' dev='pf0' mode='private'/>",
    );
    let changed = set_sources(&live, &sources).expect("it is of type 'direct' now");
    assert_eq!(changed, live.replace("dev='pf0'", "dev='pf1'"));
}

#[test]
fn memory_is_got_at_once_where_the_domain_does_not_say_how() {
    let all = "<memoryBacking>\n    <allocation mode='immediate'/>\n  </memoryBacking>\n  <devices>\n    <emulator";
    let whole = PLAIN.replace("<devices>\n    <emulator", all);
    assert_ne!(whole, PLAIN);
    assert_eq!(preallocate(PLAIN).expect("a domain"), Some(whole.clone()));
    assert_eq!(preallocate(&whole).expect("a domain"), None, "it is so already");

    let with = |backing: &str| PLAIN.replace("  <vcpu ", &format!("  {backing}\n  <vcpu "));
    let own = [
        "<memoryBacking><hugepages/></memoryBacking>",
        "<memoryBacking><hugepages><page size='1' unit='GiB' nodeset='0'/></hugepages></memoryBacking>",
        "<memoryBacking><allocation mode='ondemand'/></memoryBacking>",
        "<memoryBacking><locked/><allocation mode='immediate' threads='4'/></memoryBacking>",
    ];
    for backing in own {
        assert_eq!(preallocate(&with(backing)).expect("a domain"), None, "{backing}");
    }
    let others = [
        (
            "<memoryBacking/>",
            "<memoryBacking><allocation mode='immediate'/></memoryBacking>",
        ),
        (
            "<memoryBacking>\n  </memoryBacking>",
            "<memoryBacking>\n  <allocation mode='immediate'/></memoryBacking>",
        ),
        (
            "<memoryBacking>\n    <nosharepages/>\n  </memoryBacking>",
            "<memoryBacking>\n    <nosharepages/>\n    <allocation mode='immediate'/>\n  </memoryBacking>",
        ),
        (
            "<memoryBacking><x:hugepages xmlns:x='urn:x'/></memoryBacking>",
            "<memoryBacking><x:hugepages xmlns:x='urn:x'/><allocation mode='immediate'/></memoryBacking>",
        ),
    ];
    for (backing, changed) in others {
        assert_eq!(preallocate(&with(backing)).expect("a domain"), Some(with(changed)));
    }
    let none = preallocate("<domain type='kvm'/>").expect_err("no devices");
    assert!(
        matches!(none, XmlError::MissingElement { element: "devices", .. }),
        "{none}"
    );
}

#[test]
fn an_interface_that_is_kept_stays_byte_for_byte() {
    for plain in [PLAIN.to_owned(), of_network()] {
        let xml = enable(&plain, &[direct(1)]).expect("possible");
        let start = plain.find("' trustGuestRxFilters").expect("one");
        let end = start + plain[start..].find("</interface>").expect("one");
        assert!(xml.contains(&plain[start..end]), "{xml}");
        assert_eq!(disable(&xml).expect("enabled"), plain);
    }
    let spec = parse(&enable(&of_network(), &[direct(1)]).expect("possible")).expect("readable");
    assert_eq!(
        spec.expect("hybond's").pairs[0].standby,
        StandbyKind::Network { source: None }
    );
}

#[test]
fn an_interface_with_a_port_profile_is_not_turned_into_one_that_no_switch_knows() {
    for kind in ["802.1Qbh", "802.1Qbg"] {
        let plain = of_network().replace("802.1Qbh", kind);
        let error = enable(&plain, &[pair(1)])
            .expect_err("its <virtualport> would be lost")
            .to_string();
        assert!(error.contains(&format!("<virtualport type='{kind}'>")), "{error}");
        assert!(error.contains("use --keep-interface"), "{error}");
    }
}

#[test]
fn a_flavor_is_written_and_read() {
    for flavor in [Flavor::Virtual, Flavor::Indirect] {
        let wanted = PairSpec { flavor, ..pair(1) };
        let xml = enable(PLAIN, &[wanted.clone(), pair(2)]).expect("possible");
        let spec = parse(&xml).expect("readable").expect("hybond's");
        assert_eq!(spec.pairs, [wanted, pair(2)], "flavors can be mixed");
        assert_eq!(xml.matches(" flavor=").count(), 1, "what is usual is not written");
    }
    let required = PairSpec {
        flavor: Flavor::Indirect,
        policy: Policy::Require,
        ..pair(1)
    };
    let xml = enable(PLAIN, &[required]).expect("possible");
    let prefer = [(mac(1), PairChange::Policy(Policy::Prefer))];
    let changed = change_pairs(&xml, &prefer).expect("possible").expect("another policy");
    assert!(
        changed.contains("flavor=\"indirect\""),
        "another policy leaves it alone: {changed}"
    );
    let kept = PairSpec {
        flavor: Flavor::Indirect,
        ..direct(1)
    };
    let error = enable(PLAIN, &[kept])
        .expect_err("libvirt makes its macvtap")
        .to_string();
    assert!(error.contains("without --keep-interface"), "{error}");
}

#[test]
fn lower_devices_that_are_not_there_are_named() {
    let name = "pf1".parse().expect("a name");
    let bridge = PLAIN.replace("type='direct'", "type='bridge'");
    let error = set_sources(&bridge, &[(mac(1), Clone::clone(&name))]).expect_err("no macvtap");
    assert!(error.to_string().contains("is of type 'bridge'"), "{error}");
    let error = set_sources(PLAIN, &[(mac(9), Clone::clone(&name))]).expect_err("no such interface");
    let expected = "no <interface> with the MAC 52:54:00:aa:00:09";
    assert!(error.to_string().contains(expected), "{error}");
    let twice = [(mac(1), Clone::clone(&name)), (mac(1), name)];
    assert!(matches!(
        set_sources(PLAIN, &twice),
        Err(XmlError::DuplicatePair { .. })
    ));
}

#[test]
fn an_enabled_domain_has_all_that_hybond_needs() {
    let xml = enable(PLAIN, &[pair(1)]).expect("possible");
    let expected_interface = "<interface type='ethernet' trustGuestRxFilters='yes'>
      <mac address='52:54:00:AA:00:01'/>
      <target dev='hb525400aa0001' managed='no'/>
      <model type='virtio'/>
      <driver name='vhost' queues='4'/>
      <mtu size='9000'/>
      <boot order='2'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </interface>";
    assert!(xml.contains(expected_interface), "{xml}");
    let expected_end = "    <channel type='unix'>
      <target type='virtio' name='org.hybond.agent.0'/>
    </channel>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-chardev'/>
    <qemu:arg value='socket,id=hybond-qmp,path=/run/hybond/qmp/a2a2a2a2-0000-4000-8000-000000000002.qmp,server=on,wait=off'/>
    <qemu:arg value='-mon'/>
    <qemu:arg value='chardev=hybond-qmp,mode=control'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='pcie-root-port,id=hbrp525400aa0001,chassis=200,bus=pcie.0,addr=0x1c'/>
  </qemu:commandline>
</domain>
";
    assert!(xml.ends_with(expected_end), "{xml}");
    assert!(xml.starts_with("<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' type='kvm'>"));
    let spec = parse(&xml).expect("readable").expect("hybond's");
    assert_eq!(spec.pairs, [pair(1)]);
}

#[test]
fn what_enable_does_disable_undoes_byte_for_byte() {
    let vlan = PairSpec {
        policy: Policy::Require,
        vlan: Some(42),
        ..pair(2)
    };
    let no_metadata = without(PLAIN, "\n  <metadata>", "</metadata>");
    let one_line: String = no_metadata.lines().map(str::trim).collect();
    let own_arguments = PLAIN.replace(
        "<domain type='kvm'>",
        "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>",
    );
    let own_arguments = own_arguments.replace(
        "  </devices>\n",
        "  </devices>\n  <q:commandline>\n    <q:arg value='-s'/>\n    <q:env name='A' value='id=hybond-qmp'/>\n  </q:commandline>\n",
    );
    let taken_prefix = PLAIN.replace("<domain type='kvm'>", "<domain xmlns:qemu='urn:other' type='kvm'>");
    let crlf = PLAIN.replace('\n', "\r\n");
    for original in [PLAIN, &no_metadata, &one_line, &own_arguments, &taken_prefix, &crlf] {
        for pairs in [
            vec![pair(1)],
            vec![pair(1), vlan.clone()],
            vec![direct(1)],
            vec![direct(1), pair(2)],
        ] {
            let enabled = enable(original, &pairs).expect("possible");
            let spec = parse(&enabled).expect("readable").expect("hybond's");
            assert_eq!(spec.pairs, pairs);
            assert_eq!(disable(&enabled).expect("it is enabled"), *original);
        }
    }
}

#[test]
fn memory_that_is_got_at_the_start_is_given_back_by_disable_unless_it_was_changed() {
    let with = |backing: &str| PLAIN.replace("  <vcpu ", &format!("  {backing}\n  <vcpu "));
    let shared = with("<memoryBacking>\n    <nosharepages/>\n  </memoryBacking>");
    let crlf = PLAIN.replace('\n', "\r\n");
    for original in [PLAIN, &shared, &crlf] {
        let enabled = enable(original, &[pair(1)]).expect("possible");
        let xml = preallocate_at_start(&enabled).expect("readable").expect("nothing said");
        assert!(xml.contains("<allocation mode='immediate'/>"), "{xml}");
        assert_eq!(parse(&xml).expect("readable"), parse(&enabled).expect("readable"));
        assert_eq!(preallocate_at_start(&xml).expect("readable"), None, "it is so already");
        assert_eq!(disable(&xml).expect("enabled"), *original);
        // What is written on arrival and with a policy keeps it.
        let peer = "node1.example.org:16515".parse().expect("a peer");
        let element = set_source_peer(&xml, &peer).expect("hybond's");
        assert!(element.contains("<memory allocation=\"immediate\"/>"), "{element}");
        // Enabled again, without: as it would have been.
        let again = enable(&xml, &[pair(1)]).expect("possible");
        assert_eq!(again, enabled);
        let changed = xml.replace("mode='immediate'", "mode='immediate' threads='4'");
        let left = disable(&changed).expect("enabled");
        assert!(left.contains("<allocation mode='immediate' threads='4'/>"), "{left}");
    }
    let own = with("<memoryBacking><allocation mode='immediate'/></memoryBacking>");
    let enabled = enable(&own, &[pair(1)]).expect("possible");
    assert_eq!(preallocate_at_start(&enabled).expect("readable"), None);
    assert_eq!(disable(&enabled).expect("enabled"), own, "whose it was");
    let never = PairSpec {
        policy: Policy::Never,
        ..pair(1)
    };
    let without_vf = enable(PLAIN, &[never]).expect("possible");
    assert_eq!(preallocate_at_start(&without_vf).expect("readable"), None);
    assert_eq!(preallocate_at_start(PLAIN).expect("readable"), None, "not hybond's");
}

/// Cuts from the first `from` to the end of the first `to`.
fn without(text: &str, from: &str, to: &str) -> String {
    let start = text.find(from).expect(from);
    let end = text.find(to).expect(to) + to.len();
    format!("{}{}", &text[..start], &text[end..])
}

#[test]
fn a_pair_is_added_and_changed_by_enabling_again() {
    let first = enable(PLAIN, &[pair(1)]).expect("possible");
    let changed = PairSpec {
        vlan: Some(7),
        ..pair(1)
    };
    let both = enable(&first, &[pair(2)]).expect("possible");
    assert_eq!(
        parse(&both).expect("readable").expect("hybond's").pairs,
        [pair(1), pair(2)]
    );
    let both = enable(&both, std::slice::from_ref(&changed)).expect("possible");
    assert_eq!(
        parse(&both).expect("readable").expect("hybond's").pairs,
        [changed, pair(2)],
        "the root ports of both stay where they are"
    );
    assert_eq!(both.matches("pcie-root-port,id=hbrp").count(), 2);
    assert_eq!(both.matches("id=hybond-qmp").count(), 1);
    assert_eq!(disable(&both).expect("enabled"), PLAIN);
    let same = enable(&first, &[pair(1)]).expect("possible");
    assert_eq!(same, first);
}

#[test]
fn what_changed_since_enable_survives_disable() {
    let enabled = enable(PLAIN, &[pair(1), pair(2)]).expect("possible");
    // libvirt gives the second an address when it defines the domain, and prints quotes and order its own way.
    let later = enabled
        .replace(
            "<target dev='hb525400aa0002' managed='no'/>\n      <model type=\"virtio\"/>",
            "<target dev=\"hb525400aa0002\" managed=\"no\"/>\n      <model type='virtio'/>\n      <address type='pci' bus='0x05' slot='0x00'/>",
        )
        .replace("queues='4'", "queues='8'");
    assert_ne!(later, enabled);
    let plain = disable(&later).expect("enabled");
    let expected = "<interface type=\"network\">
      <mac address=\"52:54:00:aa:00:02\"/>
      <source network=\"default\" portgroup='a \"quoted\" group'/>
      <target dev='vnet7'/>
      <virtualport type='openvswitch'/>
      <model type='virtio'/>
      <address type='pci' bus='0x05' slot='0x00'/>
    </interface>";
    assert!(plain.contains(expected), "{plain}");
    assert!(plain.contains(
        "<source dev='enp1s0f0' mode='bridge'/>\n      <model type='virtio'/>\n      <driver name='vhost' queues='8'/>"
    ));
    assert!(!plain.contains("hybond") && !plain.contains("qemu:"), "{plain}");
}

#[test]
fn root_ports_take_slots_that_nothing_has() {
    let xml = enable(PLAIN, &[pair(1), pair(2)]).expect("possible");
    // 0x1c is a host's address in PLAIN, not the guest's; 0x19 is the guest's.
    assert!(
        xml.contains("id=hbrp525400aa0001,chassis=200,bus=pcie.0,addr=0x1c"),
        "{xml}"
    );
    assert!(
        xml.contains("id=hbrp525400aa0002,chassis=201,bus=pcie.0,addr=0x18"),
        "{xml}"
    );
    let crowd: String = (1..31)
        .map(|slot| format!("<rng><address type='pci' bus='0' slot='{slot}'/></rng>"))
        .collect();
    let full = PLAIN.replace("</devices>", &format!("{crowd}</devices>"));
    let error = enable(&full, &[pair(1)]).expect_err("full").to_string();
    assert!(error.contains("bus 0 has no free slot"), "{error}");
}

#[test]
fn nothing_of_libvirts_gets_the_slot_of_a_root_port_of_hybonds() {
    let enabled = enable(PLAIN, &[pair(1), pair(2)]).expect("possible");
    // Root ports that libvirt may hand out: one with an address, one that gets its address when the domain is defined, from
    // the other end of the bus (qemuDomainPCIAddressReserveNextAddr).
    let ports = "<controller type='pci' index='7' model='pcie-root-port'>\n      <address type='pci' domain='0x0000' bus='0x00' slot='0x1c' function='0x0'/>\n    </controller>\n    <controller type='pci' index='8' model='pcie-root-port'/>\n    ";
    let with_ports = PLAIN.replacen("<!-- <interface", &format!("{ports}<!-- <interface"), 1);
    let beside = enable(&with_ports, &[pair(1), pair(2)]).expect("possible");
    let found = slots(&beside).expect("readable");
    let primaries: Vec<_> = found.iter().filter_map(|slots| slots.primary.as_deref()).collect();
    assert_eq!(
        primaries,
        ["00:18.0/00.0", "00:17.0/00.0"],
        "1c is libvirt's here, 19 a device's"
    );
    // Enabled first, and the port added later: enabling again makes room.
    let later = enabled.replacen("<!-- <interface", &format!("{ports}<!-- <interface"), 1);
    let again = enable(&later, &[pair(1)]).expect("possible");
    assert_eq!(slots(&again).expect("readable"), found);
}

#[test]
fn both_nics_of_each_pair_are_found_in_the_guest() {
    let enabled = enable(PLAIN, &[pair(1), pair(2)]).expect("possible");
    let [first, second] = &slots(&enabled).expect("readable")[..] else {
        panic!("two pairs")
    };
    assert_eq!(first.standby.as_deref(), Some("00:02.0/00.0"), "behind libvirt's pci.1");
    assert_eq!(first.primary.as_deref(), Some("00:1c.0/00.0"));
    assert_eq!(
        (second.standby.as_deref(), second.primary.as_deref()),
        (None, Some("00:18.0/00.0"))
    );
    assert_eq!(slots(PLAIN).expect("readable"), []);
}

#[test]
fn a_domain_with_a_nic_beside_its_pairs_is_told_from_one_without() {
    // Its third NIC is on a bridge.
    let enabled = enable(PLAIN, &[pair(1), pair(2)]).expect("possible");
    assert!(!has_only_pairs(&enabled).expect("readable"));
    let start = enabled.find("<interface type='bridge'>").expect("there");
    let end = start + enabled[start..].find("</interface>").expect("there") + "</interface>".len();
    let without = format!("{}{}", &enabled[..start], &enabled[end..]);
    assert!(has_only_pairs(&without).expect("readable"));
    assert!(!has_only_pairs(PLAIN).expect("readable"));
}

#[test]
fn an_interface_without_a_mac_gets_one_that_nobody_has() {
    let nameless = PLAIN.replace("<mac address='52:54:00:AA:00:01'/>\n      ", "");
    let mut draws = [[0xaa, 0, 2], [0xaa, 0, 1]].into_iter();
    let named = give_macs(&nameless, || draws.next().expect("two draws are enough")).expect("possible");
    assert_eq!(named, PLAIN.replace("AA:00:01'/>", "aa:00:01'/>"));
    assert_eq!(give_macs(PLAIN, || panic!("each has one")).expect("possible"), PLAIN);
}

#[test]
fn what_cannot_be_enabled_is_named() {
    let cases = [
        (
            PLAIN
                .replace("pc-q35-10.0", "pc-i440fx-10.0")
                .replace("'pcie-root'", "'pci-root'"),
            pair(1),
            "\"pc-i440fx-10.0\"",
        ),
        (PLAIN.to_owned(), pair(3), "is not virtio"),
        (
            PLAIN.to_owned(),
            pair(9),
            "no <interface> with the MAC 52:54:00:aa:00:09",
        ),
        (PLAIN.to_owned(), direct(2), "cannot be kept"),
        (
            PLAIN.replace("type='direct'", "type='vhostuser'"),
            pair(1),
            "is of type 'vhostuser'",
        ),
        (
            PLAIN.replace("<mtu size='9000'/>", "<teaming type='persistent'/>"),
            pair(1),
            "<teaming>",
        ),
        (
            PLAIN.replace("<mtu size='9000'/>", "<filterref filter='clean-traffic'/>"),
            pair(1),
            "<filterref>",
        ),
        (
            PLAIN.replace("<uuid>", "<!--").replace("</uuid>", "-->"),
            pair(1),
            "<domain> has no <uuid>",
        ),
    ];
    for (xml, pair, expected) in cases {
        let error = enable(&xml, &[pair]).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(matches!(disable(PLAIN), Err(XmlError::NotEnabled)));
    assert!(matches!(enable(PLAIN, &[]), Err(XmlError::NoPairs)));
    assert!(matches!(
        enable(PLAIN, &[pair(1), pair(1)]),
        Err(XmlError::DuplicatePair { .. })
    ));
    let enabled = enable(PLAIN, &[pair(1)]).expect("possible");
    let forgotten = without(&enabled, "<hybond:interface>", "</hybond:interface>");
    let error = disable(&forgotten).expect_err("nothing to give back").to_string();
    assert!(error.contains("does not say what it was"), "{error}");
}

#[test]
fn the_peer_is_set_and_the_rest_of_the_element_kept() {
    let enabled = enable(PLAIN, &[pair(1)]).expect("possible");
    let peer = "node2.example.org:16515".parse().expect("a peer");
    let element = set_source_peer(&enabled, &peer).expect("enabled");
    assert!(
        element.starts_with("<domain>") && !element.contains("urn:hybond"),
        "{element}"
    );
    // As libvirt then stores it: the namespace declared on the element, its prefix on each without one.
    let stored = element
        .replace("<domain>", "<hybond:domain xmlns:hybond=\"urn:hybond:domain:1\">")
        .replace("</domain>", "</hybond:domain>")
        .replace("<pair ", "<hybond:pair ")
        .replace("</pair>", "</hybond:pair>")
        .replace("<interface>", "<hybond:interface>")
        .replace("</interface>", "</hybond:interface>")
        .replace("<source peer", "<hybond:source peer");
    let start = enabled.find("<hybond:domain").expect("enabled");
    let end = enabled.find("</hybond:domain>").expect("enabled") + "</hybond:domain>".len();
    let live = format!("{}{stored}{}", &enabled[..start], &enabled[end..]);
    let spec = parse(&live).expect("readable").expect("hybond's");
    assert_eq!(spec.source_peer, Some(peer));
    assert_eq!(spec.pairs, [pair(1)]);
    assert_eq!(disable(&live).expect("enabled"), PLAIN);
    assert!(matches!(
        set_source_peer(PLAIN, &"n".parse().expect("a peer")),
        Err(XmlError::NotEnabled)
    ));
}

#[test]
fn a_pair_is_changed_and_the_others_stay() {
    let enabled = enable(PLAIN, &[pair(1)]).expect("possible");
    let changes = [
        (mac(1), PairChange::Policy(Policy::Never)),
        (mac(1), PairChange::Vlan(Some(42))),
        (mac(9), PairChange::Policy(Policy::Require)),
    ];
    let element = change_pairs(&enabled, &changes).expect("enabled").expect("changed");
    assert!(element.contains("policy=\"never\" vlan=\"42\""), "{element}");
    assert!(element.contains("<interface>"), "what disable needs stays: {element}");
    let same = [
        (mac(1), PairChange::Policy(Policy::Prefer)),
        (mac(1), PairChange::Vlan(None)),
    ];
    assert_eq!(change_pairs(&enabled, &same).expect("enabled"), None);
    assert!(matches!(change_pairs(PLAIN, &changes), Err(XmlError::NotEnabled)));
}

proptest! {
    /// Whatever stands around the attribute, exactly its value changes.
    #[test]
    fn a_splice_changes_one_value(
        quote in prop::sample::select(vec!['"', '\'']),
        space in "[ \n\t\r]{1,4}",
        before in "[a-z ]{0,20}",
        value in "[a-z0-9.]{1,15}",
        mtu in 0u32..9000,
    ) {
        let whole = |value: &str| format!(
            "<domain><!--{before}--><devices>{space}<interface{space}type={quote}direct{quote}>\
             <mac address='52:54:00:aa:00:01'/><mtu size='{mtu}'/><source{space}dev{space}={space}{quote}{value}{quote}{space}\
             mode='bridge'/><!--{before}--></interface>{space}</devices></domain>{space}"
        );
        prop_assume!(value != "." && value != "..");
        let sources = [(mac(1), value.parse().expect("a name"))];
        prop_assert_eq!(set_sources(&whole("enp1s0"), &sources).expect("it has one"), whole(&value));
    }

    /// Adding and taking away again leaves the text as it was, for any arrangement of white space.
    #[test]
    fn enable_and_disable_leave_no_trace(indent in 0usize..5, keep in any::<bool>(), second in any::<bool>()) {
        let xml: String = PLAIN
            .lines()
            .map(|line| format!("{}{}\n", " ".repeat(indent * (line.len() - line.trim_start().len()) / 2), line.trim()))
            .collect();
        let mut pairs = vec![if keep { direct(1) } else { pair(1) }];
        pairs.extend(second.then(|| pair(2)));
        let enabled = enable(&xml, &pairs).expect("possible");
        prop_assert_eq!(disable(&enabled).expect("enabled"), xml);
    }
}
