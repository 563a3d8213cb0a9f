//! Against libvirt's own test driver, which lives in the client library: real connections, calls and events, no daemon.
//! All connections of a process to `test:///default` share one host, with one running domain named `test`; only the test of
//! the lifecycle changes that one. The others have a host of their own, from a file.

use hybond_core::ids::DomainId;
use hybond_core::spec::Policy;
use hybond_domxml::PairChange;
use hybond_libvirt::{
    DomainState, Events, Job, Libvirt, LibvirtError, LibvirtEvent, Lifecycle, ResumedBy, Scope, Settings, StartedBy,
    StoppedBy, SuspendedBy,
};
use std::time::Duration;

const ID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

fn id(text: &str) -> DomainId {
    text.parse().expect("a UUID")
}

async fn next(events: &mut Events) -> LibvirtEvent {
    tokio::time::timeout(Duration::from_secs(20), events.recv())
        .await
        .expect("an event in time")
        .expect("the queue is open")
}

async fn connect(uri: &str) -> (Libvirt, Events) {
    let (libvirt, mut events) = Libvirt::spawn(Settings {
        uri: uri.to_owned(),
        ..Settings::default()
    });
    assert_eq!(next(&mut events).await, LibvirtEvent::Connected);
    assert!(libvirt.is_connected());
    (libvirt, events)
}

/// A host of the test driver with one hybond domain, running and persistent.
fn node(dir: &tempfile::TempDir) -> String {
    let file = dir.path().join("node.xml");
    let xml = "<node><domain type='test'>
  <name>web</name>
  <uuid>a2a2a2a2-0000-4000-8000-000000000002</uuid>
  <metadata><hybond:domain xmlns:hybond='urn:hybond:domain:1'>
    <hybond:pair mac='52:54:00:aa:00:01' pool='10GE' policy='require' vlan='42'/>
  </hybond:domain></metadata>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <os><type>hvm</type></os>
  <devices>
    <interface type='ethernet'>
      <mac address='52:54:00:aa:00:01'/>
      <target dev='hb525400aa0001' managed='no'/>
      <model type='virtio'/>
    </interface>
  </devices>
</domain></node>";
    std::fs::write(&file, xml).expect("written");
    format!("test://{}", file.display())
}

const WEB: &str = "a2a2a2a2-0000-4000-8000-000000000002";

#[tokio::test]
async fn a_running_domain_is_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let (libvirt, _events) = connect(&node(&dir)).await;
    let web = id(WEB);
    assert_eq!(libvirt.list_active().await.expect("a list"), [(web, "web".to_owned())]);
    assert_eq!(libvirt.list_all().await.expect("a list").len(), 1);
    assert_eq!(libvirt.state(web).await.expect("a state"), DomainState::Running);
    assert_eq!(libvirt.memory_bytes(web).await.expect("a size"), 512 << 20);
    assert!(libvirt.is_persistent(web).await.expect("an answer"));
    assert!(!libvirt.host_name().await.expect("a name").is_empty());
    let xml = libvirt
        .domain_xml(web, Scope::Live)
        .await
        .expect("an answer")
        .expect("XML");
    assert!(xml.contains("<name>web</name>"), "{xml}");
}

#[tokio::test]
async fn a_domain_that_is_not_there_is_an_answer_where_it_can_be_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (libvirt, _events) = connect(&node(&dir)).await;
    let nobody = id(ID);
    assert_eq!(libvirt.state(nobody).await.expect("an answer"), DomainState::NotFound);
    assert_eq!(libvirt.job(nobody).await.expect("an answer"), Job::None);
    assert_eq!(libvirt.pid(nobody).await.expect("an answer"), None);
    assert_eq!(libvirt.domain_xml(nobody, Scope::Live).await.expect("an answer"), None);
    assert_eq!(libvirt.metadata(nobody, Scope::Live).await.expect("an answer"), None);
    let error = libvirt
        .detach_alias(nobody, "net0".into())
        .await
        .expect_err("no domain");
    assert_eq!(error.to_string(), format!("libvirt knows no domain {ID}"));
}

#[tokio::test]
async fn the_peer_is_written_into_both_definitions_and_only_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (libvirt, mut events) = connect(&node(&dir)).await;
    let web = id(WEB);
    let spec = libvirt.spec(web).await.expect("valid").expect("hybond's");
    assert_eq!((spec.name.as_str(), spec.source_peer.as_ref()), ("web", None));

    let peer: hybond_core::ids::PeerAddr = "node1.example.org:16515".parse().expect("a peer");
    assert!(libvirt.set_source_peer(web, peer.clone()).await.expect("written"));
    assert!(matches!(next(&mut events).await, LibvirtEvent::MetadataChanged { id } if id == web));
    assert!(
        !libvirt
            .set_source_peer(web, peer.clone())
            .await
            .expect("nothing to write")
    );
    let after = libvirt.spec(web).await.expect("valid").expect("hybond's");
    assert_eq!(after.source_peer.as_ref(), Some(&peer));
    assert_eq!(after.pairs, spec.pairs, "nothing else has changed");
    for scope in [Scope::Live, Scope::Persistent] {
        let element = libvirt
            .metadata(web, scope)
            .await
            .expect("an answer")
            .expect("an element");
        assert!(element.contains("node1.example.org:16515"), "{scope:?}: {element}");
        let xml = libvirt.domain_xml(web, scope).await.expect("an answer").expect("XML");
        assert_eq!(xml.matches("xmlns:hybond").count(), 1, "{scope:?}: {xml}");
    }

    // A second peer replaces the first.
    let other = "node2.example.org".parse().expect("a peer");
    assert!(libvirt.set_source_peer(web, other).await.expect("written"));
    let xml = libvirt
        .domain_xml(web, Scope::Persistent)
        .await
        .expect("an answer")
        .expect("XML");
    assert!(xml.contains("node2.example.org") && !xml.contains("node1"), "{xml}");
}

#[tokio::test]
async fn a_policy_is_written_to_both_definitions_and_a_vlan_to_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (libvirt, _events) = connect(&node(&dir)).await;
    let web = id(WEB);
    let pair = libvirt.spec(web).await.expect("valid").expect("hybond's").pairs[0].clone();
    let vlan = (pair.mac, PairChange::Vlan(Some(77)));
    assert!(libvirt.change_pairs(web, vec![vlan], false).await.expect("written"));
    let policy = (pair.mac, PairChange::Policy(Policy::Never));
    assert!(libvirt.change_pairs(web, vec![policy], true).await.expect("written"));
    assert!(
        !libvirt
            .change_pairs(web, vec![vlan, policy], false)
            .await
            .expect("nothing to write")
    );
    for (scope, vlan) in [(Scope::Live, pair.vlan), (Scope::Persistent, Some(77))] {
        let xml = libvirt.domain_xml(web, scope).await.expect("an answer").expect("XML");
        let spec = hybond_domxml::parse(&xml).expect("valid").expect("hybond's");
        assert_eq!(
            (spec.pairs[0].policy, spec.pairs[0].vlan),
            (Policy::Never, vlan),
            "{scope:?}"
        );
    }
    let test = libvirt.list_all().await.expect("a list");
    assert!(test.iter().any(|(id, _)| *id == web));
}

#[tokio::test]
async fn a_domain_that_is_not_hybonds_gets_no_peer() {
    let (libvirt, _events) = connect("test:///default").await;
    let test = libvirt.list_all().await.expect("a list")[0].0;
    let peer = "node1.example.org".parse().expect("a peer");
    let error = libvirt.set_source_peer(test, peer).await.expect_err("not hybond's");
    assert!(matches!(error, LibvirtError::Spec { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_keeps_libvirts_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let (libvirt, _events) = connect(&node(&dir)).await;
    // The test driver has no jobs.
    let error = libvirt.abort_job(id(WEB)).await.expect_err("refused");
    assert!(!error.is_transient());
    assert_eq!(
        error.to_string(),
        format!("libvirt refused cancelling of the job of {WEB}")
    );
    let words = std::error::Error::source(&error).expect("libvirt's words").to_string();
    assert!(words.contains("not supported") && !words.contains("code="), "{words}");
}

#[tokio::test]
async fn lifecycle_events_arrive_in_order() {
    let (libvirt, mut events) = connect("test:///default").await;
    let test = libvirt.list_active().await.expect("a list")[0].0;
    // Someone else, as virsh would be.
    let user = tokio::task::spawn_blocking(move || {
        let connect = virt::connect::Connect::open(Some("test:///default")).expect("connected");
        let domain = connect.lookup_domain_by_name("test").expect("the domain");
        domain.suspend().expect("suspended");
        domain.resume().expect("resumed");
        domain.destroy().expect("destroyed");
        domain.create().expect("started");
    });
    for expected in [
        Lifecycle::Suspended(SuspendedBy::Paused),
        Lifecycle::Resumed(ResumedBy::Unpaused),
        Lifecycle::Stopped(StoppedBy::Destroyed),
        Lifecycle::Started(StartedBy::Booted),
    ] {
        let event = next(&mut events).await;
        let name = "test".to_owned();
        assert_eq!(
            event,
            LibvirtEvent::Lifecycle {
                id: test,
                name,
                event: expected
            }
        );
    }
    user.await.expect("no panic");
    assert_eq!(libvirt.state(test).await.expect("a state"), DomainState::Running);
}

#[tokio::test]
async fn a_libvirt_that_is_not_there_is_named_and_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.xml");
    let (libvirt, mut events) = Libvirt::spawn(Settings {
        uri: format!("test://{}", file.display()),
        ..Settings::default()
    });
    let LibvirtEvent::Lost { reason } = next(&mut events).await else {
        panic!("not connected");
    };
    assert!(reason.contains("node.xml"), "{reason}");
    let error = libvirt.list_active().await.expect_err("not connected");
    assert!(
        matches!(error, LibvirtError::NotConnected { .. }) && error.is_transient(),
        "{error}"
    );

    // It comes up: connected without anyone asking.
    node(&dir);
    assert_eq!(next(&mut events).await, LibvirtEvent::Connected);
    assert_eq!(libvirt.list_active().await.expect("a list")[0].1, "web");
}

#[tokio::test]
async fn the_queue_ends_with_the_last_handle() {
    let (libvirt, mut events) = connect("test:///default").await;
    let clone = libvirt.clone();
    drop(libvirt);
    assert!(clone.is_connected());
    drop(clone);
    let end = tokio::time::timeout(Duration::from_secs(20), events.recv())
        .await
        .expect("an end in time");
    assert_eq!(end, None);
}
