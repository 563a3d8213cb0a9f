//! `enable`, `disable` and `migrate` against libvirt's test driver. Its state is of one process, so that what `enable`
//! has defined is gone when hybondctl ends; what libvirt makes of the XML is looked at in this process.

mod common;

use common::{Daemon, Outcome, hybondctl};
use hybond_core::spec::{Flavor, PairSpec, Policy};
use hybond_domxml::{NAMESPACE, PREFIX, disable, enable, parse, set_source_peer};
use hybond_wire::control::{DomainStatus, HostStatus, Response};
use std::path::Path;
use virt::connect::Connect;
use virt::sys;

const URI: &str = concat!("test://", env!("CARGO_MANIFEST_DIR"), "/tests/data/node.xml");
const NOWHERE: &str = "/nonexistent/control.sock";

fn ctl(arguments: &[&str]) -> Outcome {
    let mut all = vec!["--connect", URI];
    all.extend(arguments);
    hybondctl(Path::new(NOWHERE), &all)
}

#[test]
fn a_domain_is_enabled_and_the_user_told_from_when_it_holds() {
    let text = ctl(&["enable", "web-1", "--pool", "10GE"]).ok();
    // The test driver starts what it reads from its file.
    assert!(
        text.starts_with("domain web-1: 52:54:00:aa:00:01 (10GE) enabled; it runs, and"),
        "{text}"
    );
    let json = ctl(&[
        "enable",
        "a2a2a2a2-0000-4000-8000-000000000002",
        "--pool",
        "10GE",
        "--policy",
        "require",
        "--json",
    ])
    .json();
    assert_eq!(json["running"], true);
    assert_eq!(json["pairs"][0]["policy"], "require");
}

#[test]
fn print_changes_nothing_and_shows_no_secret() {
    let xml = ctl(&["enable", "web-1", "--pool", "10GE", "--vlan", "42", "--print"]).ok();
    assert!(xml.contains("<target dev='hb525400aa0001' managed='no'/>"), "{xml}");
    assert!(
        xml.contains("vlan=\"42\"") && xml.contains("hybond-qmp") && !xml.contains("TopSecret"),
        "{xml}"
    );
}

#[test]
fn files_are_edited_without_libvirt() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("plain.xml");
    let xml = ctl(&["disable", "web-1", "--print"]);
    xml.assert_failed(4, "it is not enabled");
    let original = "<domain type='kvm'>\n  <name>f</name>\n  <uuid>a2a2a2a2-0000-4000-8000-000000000009</uuid>\n  <os>\
        <type machine='q35'>hvm</type></os>\n  <devices>\n    <interface type='bridge'>\n      \
        <mac address='52:54:00:aa:00:09'/>\n      <source bridge='br0'/>\n      <model type='virtio'/>\n    </interface>\n  \
        </devices>\n</domain>\n";
    std::fs::write(&plain, original).expect("a file");
    let file = plain.to_str().expect("UTF-8");
    let enabled = hybondctl(Path::new(NOWHERE), &["enable", "--file", file, "--pool", "10GE"]).ok();
    assert_eq!(parse(&enabled).expect("readable").expect("hybond's").pairs.len(), 1);
    std::fs::write(&plain, enabled).expect("a file");
    assert_eq!(
        hybondctl(Path::new(NOWHERE), &["disable", "--file", file]).ok(),
        original
    );
}

#[test]
fn memory_is_got_at_the_start_unless_that_is_to_stay_as_it_is() {
    let immediate = "<allocation mode='immediate'/>";
    let xml = |more: &[&str]| {
        let mut arguments = vec!["enable", "web-1", "--pool", "10GE", "--print"];
        arguments.extend(more);
        ctl(&arguments).ok()
    };
    assert!(xml(&[]).contains(immediate));
    assert!(!xml(&["--keep-memory"]).contains(immediate));
    assert!(!xml(&["--flavor", "virtual"]).contains(immediate), "no VF, no pin");
    let told = ctl(&["enable", "web-1", "--pool", "10GE"]).ok();
    assert!(told.contains("all of its memory is got when it starts"), "{told}");
    let told = ctl(&["enable", "web-1", "--pool", "10GE", "--keep-memory"]).ok();
    assert!(!told.contains("memory"), "{told}");
}

#[test]
fn a_port_profile_that_no_vf_can_have_is_told_when_the_pair_is_enabled() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("port.xml");
    let mac = "52:54:00:aa:00:01";
    let xml = |port: &str| {
        format!(
            "<domain type='kvm'><name>port</name><uuid>a2a2a2a2-0000-4000-8000-000000000009</uuid>\
             <os><type machine='q35'>hvm</type></os><devices><interface type='direct'><mac address='{mac}'/>\
             <source dev='pf0' mode='bridge'/>{port}<model type='virtio'/></interface></devices></domain>"
        )
    };
    let enabled = |port: &str, how: &[&str]| {
        std::fs::write(&file, xml(port)).expect("a file");
        let mut arguments = vec!["enable", "--file", file.to_str().expect("UTF-8"), "--pool", "10GE"];
        arguments.extend(how);
        hybondctl(Path::new(NOWHERE), &arguments)
    };
    let qbg = "<virtualport type='802.1Qbg'><parameters managerid='11' typeid='1' typeidversion='2'/></virtualport>";
    let qbh = "<virtualport type='802.1Qbh'><parameters profileid='web'/></virtualport>";
    let outcome = enabled(qbg, &["--keep-interface"]);
    assert!(
        outcome.stderr.contains(&format!("pair {mac} stays on its standby")),
        "{}",
        outcome.stderr
    );
    assert!(outcome.ok().contains(qbg), "it is enabled all the same");
    let outcome = enabled(qbh, &["--keep-interface"]);
    assert!(!outcome.stderr.contains("stays on its standby"), "{}", outcome.stderr);
    assert!(outcome.ok().contains(qbh));
    enabled(qbh, &["--keep-interface", "--vlan", "42"]).ok();
    enabled(qbh, &[]).assert_failed(4, "use --keep-interface");
}

#[test]
fn what_cannot_be_enabled_is_explained() {
    ctl(&["enable", "nobody", "--pool", "p"]).assert_failed(3, "libvirt has no domain \"nobody\" on this host");
    let several = "choose with --mac from 52:54:00:aa:00:02, 52:54:00:aa:00:03";
    ctl(&["enable", "two-nics", "--pool", "p"]).assert_failed(2, several);
    ctl(&["enable", "two-nics", "--pool", "p", "--mac", "52:54:00:aa:00:02"]).ok();
    ctl(&["enable", "two-nics", "--pool", "p", "--mac", "52:54:00:aa:00:07"])
        .assert_failed(3, "no <interface> with the MAC");
    ctl(&[
        "enable",
        "two-nics",
        "--pool",
        "p",
        "--mac",
        "52:54:00:aa:00:02",
        "--keep-interface",
    ])
    .ok();
    ctl(&["enable", "old", "--pool", "p"]).assert_failed(4, "hybond needs q35");
    ctl(&["disable", "web-1"]).assert_failed(4, "it is not enabled");
    let outcome = hybondctl(
        Path::new(NOWHERE),
        &["--connect", "test:///nonexistent.xml", "disable", "web-1"],
    );
    outcome.assert_failed(6, "libvirt cannot be reached at test:///nonexistent.xml");
}

/// What libvirt stores and gives back is what hybond reads, also after libvirt has printed it its own way.
#[test]
fn libvirt_keeps_what_hybond_writes() {
    virt::error::clear_error_callback();
    let connection = Connect::open(Some(URI)).expect("the test driver");
    let (mac, pool) = (
        "52:54:00:aa:00:01".parse().expect("a MAC"),
        "10GE".parse().expect("a pool"),
    );
    let pair = PairSpec {
        flavor: Flavor::Indirect,
        policy: Policy::Require,
        vlan: Some(42),
        ..PairSpec::new(mac, pool)
    };
    let domain = connection.lookup_domain_by_name("web-1").expect("it is there");
    let inactive = sys::VIR_DOMAIN_XML_INACTIVE;
    let before = domain.xml_desc(inactive).expect("an XML");
    let enabled = enable(&before, std::slice::from_ref(&pair)).expect("possible");
    let domain = connection.define_domain_xml(&enabled).expect("libvirt takes it");
    let stored = domain.xml_desc(inactive).expect("an XML");
    let spec = parse(&stored).expect("readable").expect("hybond's");
    assert_eq!(spec.pairs, [pair]);

    let peer = "node1.example.org:16515".parse().expect("a peer");
    let element = set_source_peer(&stored, &peer).expect("enabled");
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).expect("small");
    for flags in [sys::VIR_DOMAIN_AFFECT_CONFIG, sys::VIR_DOMAIN_AFFECT_LIVE] {
        let set = domain.set_metadata(kind, Some(&element), Some(PREFIX), Some(NAMESPACE), flags);
        set.expect("libvirt takes the element");
    }
    let stored = domain.xml_desc(inactive).expect("an XML");
    let with_peer = parse(&stored).expect("readable").expect("hybond's");
    assert_eq!(with_peer.source_peer, Some(peer));
    assert_eq!(with_peer.pairs, spec.pairs);

    let restored = disable(&stored).expect("enabled");
    let domain = connection.define_domain_xml(&restored).expect("libvirt takes it");
    let after = domain.xml_desc(inactive).expect("an XML");
    // libvirt adds the controller that the agent's port needed; it stays, as any that libvirt adds.
    let controller = "    <controller type='virtio-serial' index='0'/>\n";
    assert_eq!(after.replace(controller, ""), before);
}

fn host(plug: &str) -> Response {
    Response::Host {
        host: HostStatus {
            release: "0.1.0".to_owned(),
            peer: "node1".parse().expect("a peer"),
            plug: plug.to_owned(),
            plug_reason: "set in the configuration".to_owned(),
            libvirt: None,
            handover: Vec::new(),
        },
    }
}

fn status() -> Response {
    let pair = hybond_wire::control::PairStatus {
        mac: "52:54:00:aa:00:01".parse().expect("a MAC"),
        pool: "10GE".parse().expect("a pool"),
        flavor: Flavor::Hybrid,
        policy: Policy::Prefer,
        active: None,
        vf: Some("0000:01:10.2".parse().expect("a VF")),
        plugged: true,
        pf: None,
        degraded: None,
        drained: false,
        since_ms: None,
        primary_slot: None,
        standby_slot: None,
    };
    let domain = DomainStatus {
        id: "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID"),
        name: "web-1".to_owned(),
        stage: "running".to_owned(),
        agent: true,
        pairs: vec![pair],
    };
    Response::Status { domains: vec![domain] }
}

fn done(message: &str) -> Response {
    let message = message.to_owned();
    Response::Done { message }
}

/// The test driver cannot migrate: the whole way up to libvirt's call, and back.
#[test]
fn a_failed_migration_puts_the_vf_back_where_it_had_to_be_drained() {
    let daemon = Daemon::answering(vec![
        vec![host("libvirt")],
        vec![status()],
        vec![done("web-1 drained")],
        vec![],
        vec![done("web-1 plugged")],
    ]);
    let outcome = hybondctl(
        &daemon.socket(),
        &["--connect", URI, "migrate", "web-1", "test:///default"],
    );
    outcome.assert_failed(1, "migration of domain web-1 failed: ");
    outcome.assert_failed(1, "; the domain runs on here (web-1 plugged)");
    assert!(outcome.stderr.starts_with("web-1 drained\n"), "{}", outcome.stderr);
    let asked: Vec<String> = daemon.requests().iter().map(|r| format!("{r:?}")).collect();
    let names = ["Host", "Status", "Drain", "Watch", "Plug"];
    assert!(
        asked.iter().zip(names).all(|(asked, name)| asked.starts_with(name)),
        "{asked:?}"
    );
}

#[test]
fn a_host_that_plugs_by_itself_is_not_drained_by_hand() {
    let daemon = Daemon::answering(vec![vec![host("iommufd")], vec![status()], vec![]]);
    let outcome = hybondctl(
        &daemon.socket(),
        &["--connect", URI, "migrate", "web-1", "test:///default", "--p2p"],
    );
    outcome.assert_failed(1, "; the domain runs on here");
    assert_eq!(daemon.requests().len(), 3);
}

#[test]
fn a_migration_needs_a_domain_and_a_destination() {
    let error = Response::Error {
        kind: hybond_wire::control::ErrorKind::NotFound,
        message: "hybondd has no domain \"db-1\" on this host".to_owned(),
    };
    let daemon = Daemon::answering(vec![vec![host("group")], vec![error]]);
    let outcome = hybondctl(
        &daemon.socket(),
        &["--connect", URI, "migrate", "db-1", "test:///default"],
    );
    outcome.assert_failed(3, "hybondd has no domain \"db-1\"");
    let daemon = Daemon::answering(vec![vec![host("libvirt")], vec![status()]]);
    let outcome = hybondctl(
        &daemon.socket(),
        &["--connect", URI, "migrate", "web-1", "test:///nonexistent.xml"],
    );
    outcome.assert_failed(6, "libvirt cannot be reached at test:///nonexistent.xml");
    assert_eq!(daemon.requests().len(), 2, "nothing was drained");
}

fn saved(script: Vec<Vec<Response>>, arguments: &[&str]) -> (Outcome, Vec<String>) {
    let daemon = Daemon::answering(script);
    let mut all = vec!["--connect", URI];
    all.extend(arguments);
    let outcome = hybondctl(&daemon.socket(), &all);
    let asked = daemon.requests().into_iter().map(|request| format!("{request:?}"));
    let names = asked.map(|text| text.split([' ', '{']).next().unwrap_or_default().to_owned());
    (outcome, names.collect())
}

#[test]
fn a_domain_is_drained_and_then_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("web-1.save");
    let path = file.to_str().expect("UTF-8");
    let script = || vec![vec![status()], vec![done("web-1 is drained")]];
    let (outcome, asked) = saved(script(), &["save", "web-1", path]);
    assert_eq!(outcome.stderr, "web-1 is drained\n");
    let text = outcome.ok();
    assert!(
        text.starts_with("domain web-1 saved in ") && text.contains(&format!("'virsh restore {path}'")),
        "{text}"
    );
    assert_eq!(asked, ["Status", "Drain"]);
    assert!(file.metadata().expect("a file").len() > 0);
    let (outcome, _) = saved(script(), &["managedsave", "web-1"]);
    let text = outcome.ok();
    assert!(
        text.ends_with("; 'virsh start web-1' brings it back, with VFs\n"),
        "{text}"
    );
}

#[test]
fn a_save_that_fails_has_the_vf_plugged_again() {
    let script = vec![
        vec![status()],
        vec![done("web-1 is drained")],
        vec![done("web-1 is plugged")],
    ];
    let (outcome, asked) = saved(script, &["save", "web-1", "/nonexistent/web-1.save"]);
    outcome.assert_failed(1, "save of domain web-1 failed: ");
    outcome.assert_failed(1, "; the domain runs on here (web-1 is plugged)");
    assert_eq!(asked, ["Status", "Drain", "Plug"]);
}

#[test]
fn what_an_administrator_has_drained_stays_drained() {
    let Response::Status { mut domains } = status() else {
        panic!("a status")
    };
    domains[0].pairs[0].drained = true;
    let script = vec![vec![Response::Status { domains }]];
    let (outcome, asked) = saved(script, &["save", "web-1", "/nonexistent/web-1.save"]);
    outcome.assert_failed(1, "; the domain runs on here");
    assert_eq!(asked, ["Status"], "neither drained nor plugged");
}

#[test]
fn a_domain_that_cannot_be_drained_is_not_saved() {
    let refused = Response::Error {
        kind: hybond_wire::control::ErrorKind::Refused,
        message: "web-1: the guest did not let go of VF 0000:01:10.2".to_owned(),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("web-1.save");
    let path = file.to_str().expect("UTF-8");
    let (outcome, asked) = saved(vec![vec![status()], vec![refused]], &["save", "web-1", path]);
    outcome.assert_failed(4, "the guest did not let go");
    assert_eq!(asked, ["Status", "Drain"]);
    assert!(!file.exists());
}
