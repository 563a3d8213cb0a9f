//! What hybond reads out of a domain, and what it says where it cannot.

mod common;

use common::{PLAIN, mac};
use hybond_core::port::PortProfile;
use hybond_core::spec::{Flavor, Policy, StandbyKind};
use hybond_domxml::{NAMESPACE, XmlError, agent_channel, candidates, parse, qmp_path, virtualport};
use proptest::prelude::*;

/// A domain of this metadata and these devices.
fn domain(metadata: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'><name>web-1</name><uuid>a2a2a2a2-0000-4000-8000-000000000002</uuid>\
         <metadata>{metadata}</metadata><os><type machine='q35'>hvm</type></os><devices>{devices}</devices></domain>"
    )
}

const ETHERNET: &str = "<interface type='ethernet'><mac address='52:54:00:aa:00:01'/>\
     <target dev='hb525400aa0001' managed='no'/><model type='virtio'/></interface>";

fn hybond(inner: &str) -> String {
    format!("<hybond:domain xmlns:hybond='urn:hybond:domain:1'>{inner}</hybond:domain>")
}

/// The error of a domain with this inside its hybond element, with its causes.
fn error_of(inner: &str, devices: &str) -> String {
    let error = parse(&domain(&hybond(inner), devices)).expect_err(inner);
    let cause = std::error::Error::source(&error).map_or(String::new(), |s| format!(": {s}"));
    format!("{error}{cause}")
}

#[test]
fn domains_that_are_not_hybonds_ask_nothing() {
    assert_eq!(parse(PLAIN).expect("other metadata is no fault"), None);
    assert_eq!(parse("this is not even XML <<<").expect("and none of ours"), None);
    let comment = PLAIN.replace("<memory ", "<!-- urn:hybond:domain:1 --><memory ");
    assert_eq!(parse(&comment).expect("a comment is no element"), None);
    let deeper = domain("<x xmlns:h='urn:hybond:domain:1'><h:domain/></x>", ETHERNET);
    assert_eq!(parse(&deeper).expect("only a child of <metadata> counts"), None);
}

#[test]
fn the_nodes_of_the_guests_memory_are_read() {
    let pair = hybond("<hybond:pair mac='52:54:00:aa:00:01' pool='10GE'/>");
    let nodes = |numatune: &str| {
        let xml = domain(&pair, ETHERNET).replace("<os>", &format!("{numatune}<os>"));
        parse(&xml).expect("valid").expect("hybond's").numa_nodes
    };
    let tuned = |inner: &str| nodes(&format!("<numatune>{inner}</numatune>"));
    assert_eq!(nodes(""), []);
    assert_eq!(tuned("<memory mode='strict' nodeset='1'/>"), [1]);
    assert_eq!(tuned("<memory mode='preferred' nodeset='0-3,^2, 6'/>"), [0, 1, 3, 6]);
    assert_eq!(tuned("<memory mode='strict' placement='auto'/>"), []);
    let cells = "<memnode cellid='0' mode='strict' nodeset='2'/><memnode cellid='1' mode='strict' nodeset='0'/>";
    assert_eq!(tuned(cells), [0, 2]);
    let both = format!("<memory mode='strict' nodeset='1'/>{cells}");
    assert_eq!(tuned(&both), [1], "of the domain as a whole");
    for strange in ["", "a", "3-1", "0-4294967295", "-1", "1,,2", "^"] {
        assert_eq!(tuned(&format!("<memory nodeset='{strange}'/>")), [], "{strange}");
    }
}

#[test]
fn pairs_pools_and_the_peer_are_read() {
    let direct = "<interface type='direct'><mac address='52:54:00:AA:00:02'/>\
         <source dev='enp1s0f1' mode='bridge'/></interface>";
    let xml = domain(
        "<o:os xmlns:o='urn:other'/><h:domain xmlns:h=\"urn:hybond:domain:1\">\
         <h:pair mac='52:54:00:aa:00:01' pool='10GE'/>\
         <h:pair mac='52:54:00:aa:00:02' pool='storage' policy='require' vlan='42'/>\
         <h:source peer='node1.example.org:16515'/></h:domain>",
        &format!("{ETHERNET}{direct}"),
    );
    let spec = parse(&xml).expect("valid").expect("hybond's");
    assert_eq!(spec.id.to_string(), "a2a2a2a2-0000-4000-8000-000000000002");
    assert_eq!(spec.name, "web-1");
    assert_eq!(spec.source_peer.expect("a peer").as_str(), "node1.example.org:16515");
    let [first, second] = &spec.pairs[..] else {
        panic!("two pairs");
    };
    assert_eq!((first.mac, first.pool.as_str()), (mac(1), "10GE"));
    assert_eq!((first.policy, first.vlan), (Policy::Prefer, None));
    assert_eq!(first.standby, StandbyKind::Ethernet);
    assert_eq!((second.policy, second.vlan), (Policy::Require, Some(42)));
    let source = "enp1s0f1".parse().expect("an interface name");
    assert_eq!(second.standby, StandbyKind::Direct { source });
}

#[test]
fn what_a_network_has_chosen_is_read_from_the_running_domain() {
    let of = |source: &str, kind: &str| {
        let interface = format!(
            "<interface type='{kind}'><mac address='52:54:00:aa:00:01'/><source {source}/><model type='virtio'/></interface>"
        );
        let pair = "<hybond:pair mac='52:54:00:aa:00:01' pool='p'/>";
        parse(&domain(&hybond(pair), &interface)).map(|spec| spec.expect("hybond's").pairs[0].standby.clone())
    };
    let inactive = of("network='lan'", "network").expect("valid");
    assert_eq!(inactive, StandbyKind::Network { source: None });
    let live = of("network='lan' portid='1' dev='pf1' mode='bridge'", "direct").expect("valid");
    let source = Some("pf1".parse().expect("a name"));
    assert_eq!(live, StandbyKind::Network { source });
    let nat = of("network='default' bridge='virbr0'", "bridge")
        .expect_err("no macvtap")
        .to_string();
    assert!(nat.contains("<forward mode='bridge'>"), "{nat}");
}

#[test]
fn the_port_profile_of_an_interface_that_is_kept_is_read() {
    let of = |kind: &str, source: &str, virtualport: &str| {
        let interface = format!(
            "<interface type='{kind}'><mac address='52:54:00:aa:00:01'/><source {source}/>{virtualport}<model type='virtio'/></interface>"
        );
        let pair = "<hybond:pair mac='52:54:00:aa:00:01' pool='p'/>";
        parse(&domain(&hybond(pair), &interface)).map(|spec| spec.expect("hybond's").pairs[0].port.clone())
    };
    let qbh = |inner: &str| format!("<virtualport type='802.1Qbh'>{inner}</virtualport>");
    let profile = "web & mail".parse().expect("a profile");
    let expected = PortProfile::Qbh { profile };
    let written = qbh("<parameters profileid='web &amp; mail'/>");
    assert_eq!(
        of("direct", "dev='pf1'", &written).expect("valid"),
        Some(expected.clone())
    );
    assert_eq!(virtualport(&expected), written, "and given to libvirt as it was");
    let qbg = "<virtualport type='802.1Qbg'><parameters managerid='11' typeid='1193047' typeidversion='2' \
               instanceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/></virtualport>";
    assert_eq!(
        of("direct", "dev='pf1'", qbg).expect("valid"),
        Some(PortProfile::Qbg {})
    );
    assert_eq!(of("direct", "dev='pf1'", "").expect("valid"), None);
    assert_eq!(of("direct", "dev='pf1'", "<virtualport/>").expect("valid"), None);

    // What the network's portgroup says, libvirt adds when it starts the domain.
    assert_eq!(of("network", "network='lan'", &qbh("")).expect("valid"), None);
    let live = of("direct", "network='lan' dev='pf1'", &written).expect("valid");
    assert_eq!(live, Some(expected));
    let error = of("direct", "dev='pf1'", &qbh("<parameters/>"))
        .expect_err("no profile")
        .to_string();
    assert!(error.contains("without <parameters profileid=…/>"), "{error}");
    let long = qbh(&format!("<parameters profileid='{}'/>", "x".repeat(40)));
    let error = of("direct", "dev='pf1'", &long).expect_err("the kernel keeps 39");
    let cause = std::error::Error::source(&error).expect("why").to_string();
    assert!(cause.contains("at most 39 bytes"), "{cause}");
}

#[test]
fn a_pair_that_is_never_to_have_its_vf_is_virtual_until_that_is_set_otherwise() {
    let pair = "<hybond:pair mac='52:54:00:aa:00:01' pool='p' policy='never'/>";
    let spec = parse(&domain(&hybond(pair), ETHERNET))
        .expect("valid")
        .expect("hybond's");
    assert_eq!(
        (spec.pairs[0].flavor, spec.pairs[0].policy),
        (Flavor::Hybrid, Policy::Never)
    );
    assert_eq!(spec.pairs[0].flavor(), Flavor::Virtual);
    assert!(
        error_of(&pair.replace("policy='never'", "flavor='direct'"), ETHERNET).contains("'flavor' of <hybond:pair>")
    );
}

#[test]
fn a_primary_that_libvirt_knows_is_not_taken_for_the_standby() {
    let primary = "<interface type='hostdev'><mac address='52:54:00:aa:00:01'/></interface>";
    let xml = domain(
        &hybond("<hybond:pair mac='52:54:00:aa:00:01' pool='p'/>"),
        &format!("{primary}{ETHERNET}"),
    );
    let spec = parse(&xml).expect("valid").expect("hybond's");
    assert_eq!(spec.pairs[0].standby, StandbyKind::Ethernet);
}

#[test]
fn faults_are_named() {
    const PAIR: &str = "<hybond:pair mac='52:54:00:aa:00:01' pool='p'/>";
    let cases = [
        ("", "names no pair"),
        ("<hybond:pair pool='p'/>", "<hybond:pair> has no attribute 'mac'"),
        (
            "<hybond:pair mac='52:54:00:aa:00:01'/>",
            "<hybond:pair> has no attribute 'pool'",
        ),
        (
            "<hybond:pair mac='53:00:00:00:00:01' pool='p'/>",
            "\"53:00:00:00:00:01\" is not a unicast MAC",
        ),
        (
            "<hybond:pair mac='52:54:00:aa:00:01' pool='a b'/>",
            "\"a b\" is not a pool name",
        ),
        (
            "<hybond:pair mac='52:54:00:aa:00:01' pool='p' policy='maybe'/>",
            "'policy' of <hybond:pair> is \"maybe\"",
        ),
        (
            "<hybond:pair mac='52:54:00:aa:00:01' pool='p' vlan='4095'/>",
            "'vlan' of <hybond:pair> is \"4095\"",
        ),
        (
            "<hybond:pair mac='52:54:00:aa:00:01' pool='p' vlan='+1'/>",
            "'vlan' of <hybond:pair> is \"+1\"",
        ),
        (
            "<hybond:pair mac='52:54:00:aa:00:01' pool='p' vlna='7'/>",
            "attribute 'vlna' in <hybond:pair>",
        ),
        ("<hybond:pear/>", "element <hybond:pear> in <hybond:domain>"),
        (
            "<pair mac='52:54:00:aa:00:01' pool='p'/>",
            "element <pair> in <hybond:domain>",
        ),
        (&format!("{PAIR}{PAIR}"), "two pairs have the MAC 52:54:00:aa:00:01"),
        (
            "<hybond:pair mac='52:54:00:aa:00:09' pool='p'/>",
            "no <interface> with the MAC 52:54:00:aa:00:09",
        ),
        (
            &format!("{PAIR}<hybond:source peer='a b'/>"),
            "\"a b\" is not a host name",
        ),
        (
            &format!("{PAIR}<hybond:source peer='a'/><hybond:source peer='b'/>"),
            "more than one <hybond:source>",
        ),
        (
            &format!("{PAIR}<hybond:memory allocation='ondemand'/>"),
            "'allocation' of <hybond:memory> is \"ondemand\"",
        ),
        (
            &format!("{PAIR}<hybond:memory allocation='immediate'/><hybond:memory allocation='immediate'/>"),
            "more than one <hybond:memory>",
        ),
    ];
    for (inner, expected) in cases {
        let error = error_of(inner, ETHERNET);
        assert!(error.contains(expected), "{inner}\n gave: {error}\n not: {expected}");
    }
    let many: String = (0..17)
        .map(|n| format!("<hybond:pair mac='52:54:00:aa:01:{n:02x}' pool='p'/>"))
        .collect();
    assert!(error_of(&many, ETHERNET).contains("17 pairs; a domain may have 16 at most"));
    let twice = domain(&format!("{}{}", hybond(PAIR), hybond(PAIR)), ETHERNET);
    assert!(matches!(parse(&twice), Err(XmlError::Repeated { .. })));
}

#[test]
fn interfaces_that_cannot_be_a_standby_are_named() {
    const PAIR: &str = "<hybond:pair mac='52:54:00:aa:00:01' pool='p'/>";
    for (devices, expected) in [
        (
            "<interface type='bridge'><mac address='52:54:00:aa:00:01'/></interface>",
            "is of type 'bridge'",
        ),
        (
            "<interface type='direct'><mac address='52:54:00:aa:00:01'/></interface>",
            "has no <source dev=…>",
        ),
        (
            "<interface type='ethernet'><mac address='52:54:00:aa:00:01'/><target dev='tap0'/></interface>",
            "without <target dev='hb525400aa0001' managed='no'/>",
        ),
        (&format!("{ETHERNET}{ETHERNET}"), "is there twice"),
    ] {
        let error = error_of(PAIR, devices);
        assert!(error.contains(expected), "{devices}\n gave: {error}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_and_not_followed() {
    let doctype = format!(
        "<!DOCTYPE d [<!ENTITY a 'b'>]>{}",
        domain(&hybond("<hybond:pair mac='52:54:00:aa:00:01' pool='&a;'/>"), ETHERNET)
    );
    assert!(matches!(parse(&doctype), Err(XmlError::NotXml(_))));
    let huge = format!(
        "{}<!--urn:hybond:domain:1{}-->",
        PLAIN,
        " ".repeat(hybond_domxml::MAX_XML)
    );
    assert!(matches!(parse(&huge), Err(XmlError::TooLarge { .. })));
    let deep = format!("urn:hybond:domain:1{}", "<a>".repeat(300_000));
    assert!(matches!(parse(&deep), Err(XmlError::NotXml(_))));
    let other = "<network xmlns:h='urn:hybond:domain:1'/>";
    let error = parse(other).expect_err("a network").to_string();
    assert!(error.contains("outermost element is <network>"), "{error}");
}

#[test]
fn the_agents_port_is_found_where_the_domain_runs() {
    let port = |source: &str| {
        domain(
            "",
            &format!(
                "<channel type='unix'><source mode='bind' path='/run/ga.sock'/>\
                 <target type='virtio' name='org.qemu.guest_agent.0'/><alias name='channel0'/></channel>\
                 <channel type='unix'>{source}<target type='virtio' name='org.hybond.agent.0' state='connected'/>\
                 <alias name='channel1'/></channel>"
            ),
        )
    };
    let live = port("<source mode='bind' path='/run/libvirt/qemu/channel/3-web-1/org.hybond.agent.0'/>");
    let channel = agent_channel(&live).expect("a domain").expect("a channel");
    assert_eq!(
        channel.path.to_str(),
        Some("/run/libvirt/qemu/channel/3-web-1/org.hybond.agent.0")
    );
    // By it, the port is told from the others of the guest, which open and close as they like.
    assert_eq!(channel.alias.as_deref(), Some("channel1"));
    assert_eq!(agent_channel(&port("")).expect("a domain"), None);
    assert_eq!(agent_channel(PLAIN).expect("a domain"), None);
}

#[test]
fn candidates_are_the_virtio_nics() {
    assert_eq!(candidates(PLAIN).expect("a domain"), [mac(1), mac(2)]);
    let id = "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID");
    let path = qmp_path(id);
    assert_eq!(
        path.to_str(),
        Some("/run/hybond/qmp/a2a2a2a2-0000-4000-8000-000000000002.qmp")
    );
}

proptest! {
    /// Bytes cut out of, put into and exchanged in a valid domain: an answer or an error, never a panic.
    #[test]
    fn no_text_makes_the_reader_panic(cuts in prop::collection::vec((0usize..2000, 0usize..40, "[<>/'\"&;a:= ]{0,6}"), 0..6)) {
        let mut xml = domain(&hybond("<hybond:pair mac='52:54:00:aa:00:01' pool='p'/>"), ETHERNET);
        for (at, length, text) in cuts {
            let at = at % xml.len();
            let end = (at + length).min(xml.len());
            if xml.is_char_boundary(at) && xml.is_char_boundary(end) {
                xml.replace_range(at..end, &text);
            }
        }
        if let Ok(Some(spec)) = parse(&xml) {
            prop_assert!(!spec.pairs.is_empty());
        }
    }
}

#[test]
fn the_mtu_that_the_guest_is_told_is_read() {
    let with = |mtu: &str| {
        let devices = ETHERNET.replace("<model", &format!("{mtu}<model"));
        let pair = "<hybond:pair mac='52:54:00:aa:00:01' pool='10GE'/>";
        parse(&domain(&hybond(pair), &devices)).map(|spec| spec.expect("hybond's").pairs[0].mtu)
    };
    assert_eq!(with("").expect("valid"), None);
    assert_eq!(with("<mtu size='9000'/>").expect("valid"), Some(9000));
    let error = with("<mtu size='big'/>").expect_err("no number").to_string();
    assert!(error.contains("<mtu size='big'/>"), "{error}");
}

#[test]
fn an_xml_that_would_take_the_parser_minutes_or_gigabytes_is_refused_at_once() {
    let begun = std::time::Instant::now();
    // Just below MAX_XML each; the prefix is hybond's, so nobody may pass over them.
    let domain = |inside: &str| format!("<domain xmlns:h='{NAMESPACE}'>{inside}</domain>");
    let attributes: String = (0..300_000).map(|n| format!(" a{n}=''")).collect();
    let nested: String = (0..60_000).map(|n| format!("<a xmlns:n{n}='{n}'>")).collect();
    for xml in [domain(&format!("<a{attributes}/>")), domain(&nested)] {
        let error = parse(&xml).expect_err("too many");
        assert!(error.to_string().contains("has more than 256 "), "{error}");
    }
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_fault_in_the_xml_is_told_by_its_place_and_never_by_what_stands_there() {
    let secret = "s3cr3t";
    let long = "x".repeat(100_000);
    for inside in [
        format!("<graphics passwd='a&{secret};'/>"),
        format!("<{secret}></other>"),
        format!("<graphics {secret}='' {secret}=''/>"),
        format!("<{secret}:a/>"),
        format!("<a {long}='' {long}=''/>"),
        format!("<graphics passwd={secret}/>"),
        format!("<graphics passwd='{secret}<'/>"),
        format!("<a xmlns:{secret}='a' xmlns:{secret}='b'/>"),
    ] {
        let xml = format!("<domain xmlns:h='{NAMESPACE}'>{inside}</domain>");
        let error = parse(&xml).expect_err("not well-formed");
        let cause = std::error::Error::source(&error).expect("why").to_string();
        assert!(!cause.contains(secret) && cause.len() < 200, "{cause}");
        assert!(cause.contains(" at 1:"), "{cause}");
    }
}

#[test]
fn what_an_error_shows_of_the_xml_is_short_and_steers_no_terminal() {
    const PAIR: &str = "<hybond:pair mac='52:54:00:aa:00:01' pool='p'/>";
    let long = format!("&#10;\u{9b}2J{}", "x".repeat(10_000));
    let mtu = ETHERNET.replace("<model", &format!("<mtu size='{long}'/><model"));
    let kind = ETHERNET.replace("'ethernet'", &format!("'{long}'"));
    for devices in [mtu, kind] {
        let error = error_of(PAIR, &devices);
        assert!(error.len() < 400 && !error.contains(char::is_control), "{error}");
        let plain = domain("", &devices);
        let change = [(mac(1), "ens1".parse().expect("a name"))];
        let error = hybond_domxml::set_sources(&plain, &change)
            .expect_err("not direct")
            .to_string();
        assert!(error.len() < 400 && !error.contains(char::is_control), "{error}");
    }
}
