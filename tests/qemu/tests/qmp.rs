//! The QMP client and its guard against a real QEMU.

use hybond_core::ids::Mac;
use hybond_qmp::{Event, LinkEvent, MigrationStatus, PRIMARY_PREFIX, Qmp, QmpError, QmpLink, Stamped};
use hybond_test_qemu::{LONG, Monitor, Qemu};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const MAC: &str = "52:54:00:aa:00:01";

fn mac() -> Mac {
    MAC.parse().expect("MAC")
}

/// A stand-in for a VF, marked as hybond's VFs are, with a partner that does not exist.
fn primary() -> Value {
    let id = mac().primary_id();
    json!({"driver": "e1000e", "id": id, "bus": "rp1", "mac": MAC, "romfile": "", "failover_pair_id": "none"})
}

/// QEMU copies zero pages fast; this much bandwidth makes a migration of 128 MiB of them last.
fn slow(libvirt: &mut Monitor) {
    libvirt.run("migrate-set-parameters", json!({"max-bandwidth": 10_000}));
}

fn to_file(qemu: &Qemu) -> Value {
    json!({"uri": format!("file:{}", qemu.path("image").display())})
}

async fn next(events: &mut mpsc::Receiver<Box<LinkEvent>>) -> LinkEvent {
    let event = timeout(LONG, events.recv()).await.expect("an event comes");
    *event.expect("the link lives")
}

/// The next event of QEMU's or the guard's that is wanted.
async fn until(events: &mut mpsc::Receiver<Box<LinkEvent>>, wanted: impl Fn(&Event) -> bool) -> Stamped {
    loop {
        if let LinkEvent::Event(stamped) = next(events).await {
            if wanted(&stamped.event) {
                return stamped;
            }
        }
    }
}

fn is(status: MigrationStatus) -> impl Fn(&Event) -> bool {
    move |event| *event == Event::Migration { status: status.clone() }
}

#[test]
fn every_primary_is_the_guards() {
    assert!(mac().primary_id().starts_with(PRIMARY_PREFIX));
    assert!(!mac().root_port_id().starts_with(PRIMARY_PREFIX));
}

#[tokio::test]
async fn commands_are_answered_and_refusals_are_told() {
    let qemu = Qemu::idle();
    let (_link, _events, qmp) = qemu.link().await;
    let (major, _, _) = qmp.query_version().await.expect("version");
    assert!(major >= 7, "{major}");
    assert!(!qmp.is_running().await.expect("status"));
    assert_eq!(qmp.devices().await.expect("devices"), ["rp1", "rp2"]);
    assert_eq!(qmp.query_migrate().await.expect("migration"), MigrationStatus::None);
    qmp.migrate_cancel().await.expect("nothing to cancel");

    let unknown = qmp.command("make-coffee", Value::Null, None, LONG).await;
    let Err(QmpError::Refused { class, .. }) = unknown else {
        panic!("{unknown:?}")
    };
    assert_eq!(class, "CommandNotFound");
    let absent = qmp.device_del("net7").await.expect_err("no such device");
    assert!(absent.is_not_found(), "{absent}");
    let absent = qmp.object_del("iom7").await.expect_err("no such object");
    assert!(absent.is_not_found(), "{absent}");
    let absent = qmp.netdev_del("net7").await.expect_err("no such back end");
    assert!(absent.is_not_found(), "{absent}");
    let absent = qmp.closefd("fd7").await.expect_err("no such descriptor");
    assert!(absent.is_not_found(), "{absent}");
    let schema = qmp
        .command("query-qmp-schema", Value::Null, None, LONG)
        .await
        .expect("schema");
    assert!(schema.as_array().expect("list").len() > 500);
}

#[tokio::test]
async fn a_descriptor_arrives_and_carries_frames() {
    let qemu = Qemu::idle();
    let (_link, _events, qmp) = qemu.link().await;
    let (mut ours, qemus) = UnixStream::pair().expect("socket pair");
    qmp.getfd("wire", qemus.as_fd()).await.expect("getfd");
    drop(qemus);
    let netdev = json!({"type": "socket", "id": "net0", "fd": "wire"});
    qmp.netdev_add(netdev.clone()).await.expect("netdev_add");
    // The name was used up with it.
    qmp.netdev_add(netdev).await.expect_err("the descriptor is gone");
    let nic =
        json!({"driver": "virtio-net-pci", "id": "nic0", "netdev": "net0", "bus": "rp1", "mac": MAC, "romfile": ""});
    qmp.device_add(nic, LONG).await.expect("device_add");
    // A guest that does not run sends nothing; what it runs is its firmware, looking for a disk.
    qmp.command("cont", Value::Null, None, LONG).await.expect("cont");
    let announcement = json!({"initial": 50, "max": 50, "rounds": 1, "step": 0});
    qmp.command("announce-self", announcement, None, LONG)
        .await
        .expect("announce-self");

    // Each frame comes after its length in four bytes. RARP: to all, from the NIC's MAC, type 8035.
    ours.set_read_timeout(Some(LONG)).expect("timeout");
    let mut frame = [0u8; 4 + 14];
    ours.read_exact(&mut frame).expect("a frame");
    assert_eq!(frame[4..10], [0xff; 6]);
    assert_eq!(frame[10..16], mac().octets());
    assert_eq!(frame[16..18], [0x80, 0x35]);
}

#[tokio::test]
async fn an_unplug_is_over_when_qemu_says_so() {
    let qemu = Qemu::idle();
    let (_link, mut events, qmp) = qemu.link().await;
    let mut plugged = qmp.plugged();
    qmp.device_add(primary(), LONG).await.expect("device_add");
    let id = mac().primary_id();
    assert!(plugged.borrow_and_update().contains(&id));

    // The guest does not run, so nothing answers the request, and the guard goes on counting it.
    qmp.device_del(&id).await.expect("device_del");
    assert!(qmp.plugged().borrow().contains(&id));
    assert!(qmp.devices().await.expect("devices").contains(&id));
    // A reset ends an unplug that is under way.
    qmp.command("system_reset", Value::Null, None, LONG)
        .await
        .expect("system_reset");
    let gone = |event: &Event| matches!(event, Event::DeviceDeleted { device: Some(device), .. } if *device == id);
    until(&mut events, gone).await;
    let empty = timeout(LONG, plugged.wait_for(|ids| ids.is_empty())).await;
    drop(empty.expect("in time").expect("connected"));
}

#[tokio::test]
async fn a_plug_that_fails_leaves_nothing_for_the_guard() {
    let qemu = Qemu::idle();
    let (_link, _events, qmp) = qemu.link().await;
    let mut nowhere = primary();
    nowhere["bus"] = json!("rp9");
    qmp.device_add(nowhere, LONG).await.expect_err("no such bus");
    // QEMU is asked what is there before the next command is sent.
    qmp.devices().await.expect("devices");
    assert!(qmp.plugged().borrow().is_empty());

    qmp.device_add(primary(), LONG).await.expect("device_add");
    let twice = qmp.device_add(primary(), LONG).await.expect_err("the id is taken");
    assert!(twice.to_string().contains("Duplicate"), "{twice}");
    qmp.devices().await.expect("devices");
    assert!(qmp.plugged().borrow().contains(&mac().primary_id()));
}

#[tokio::test]
async fn a_migration_with_a_primary_plugged_is_called_off() {
    let qemu = Qemu::idle();
    let mut libvirt = Monitor::connect(&qemu.path("other"));
    let (_link, mut events, qmp) = qemu.link().await;
    qmp.device_add(primary(), LONG).await.expect("device_add");
    slow(&mut libvirt);
    // Nothing in QEMU stands in its way: the dangling partner keeps VFIO from blocking it.
    libvirt.run("migrate", to_file(&qemu));

    let called_off = until(&mut events, |e| matches!(e, Event::GuardCancelled { .. })).await;
    let plugged = vec![mac().primary_id()];
    let status = MigrationStatus::Setup;
    assert_eq!(called_off.event, Event::GuardCancelled { status, plugged });
    until(&mut events, is(MigrationStatus::Cancelled)).await;
    assert_eq!(libvirt.migration()["status"], "cancelled");
    assert!(qmp.devices().await.expect("devices").contains(&mac().primary_id()));
    assert!(qmp.is_connected());

    // So is the next one.
    libvirt.run("migrate", to_file(&qemu));
    until(&mut events, |e| matches!(e, Event::GuardCancelled { .. })).await;
    until(&mut events, is(MigrationStatus::Cancelled)).await;
}

#[tokio::test]
async fn a_migration_without_primaries_goes_through() {
    let qemu = Qemu::idle();
    let mut libvirt = Monitor::connect(&qemu.path("other"));
    let (_link, mut events, qmp) = qemu.link().await;
    let mut nic = primary();
    nic["id"] = json!("net0");
    qmp.device_add(nic, LONG).await.expect("device_add");
    libvirt.run("migrate", to_file(&qemu));
    let setup = until(&mut events, is(MigrationStatus::Setup)).await;
    let completed = until(&mut events, is(MigrationStatus::Completed)).await;
    assert!(setup.at <= completed.at);
    assert_eq!(libvirt.migration()["status"], "completed");
}

#[tokio::test]
async fn a_daemon_that_starts_in_the_middle_calls_it_off_too() {
    let qemu = Qemu::idle();
    let mut libvirt = Monitor::connect(&qemu.path("other"));
    libvirt.run("device_add", primary());
    slow(&mut libvirt);
    libvirt.run("migrate", to_file(&qemu));
    let (_link, mut events, qmp) = qemu.link().await;
    until(&mut events, |e| matches!(e, Event::GuardCancelled { .. })).await;
    assert_eq!(libvirt.migration()["status"], "cancelled");
    assert!(qmp.plugged().borrow().contains(&mac().primary_id()));

    // It connected while QEMU did not report migrations; it sees to that before it plugs.
    libvirt.run("device_del", json!({"id": mac().primary_id()}));
    libvirt.run("system_reset", json!({}));
    until(&mut events, |e| matches!(e, Event::DeviceDeleted { .. })).await;
    qmp.device_add(primary(), LONG).await.expect("device_add");
    libvirt.run("migrate", to_file(&qemu));
    until(&mut events, |e| matches!(e, Event::GuardCancelled { .. })).await;
    assert_eq!(libvirt.migration()["status"], "cancelled");
}

#[tokio::test]
async fn a_monitor_serves_one_client_at_a_time() {
    let qemu = Qemu::idle();
    let (link, events, qmp) = qemu.link().await;
    let brief = Duration::from_millis(300);
    let second = Qmp::connect(&qemu.path("qmp"), brief).await;
    assert!(matches!(second, Err(QmpError::NoGreeting { after, .. }) if after == brief));
    assert!(!qmp.is_running().await.expect("the first is not disturbed"));
    drop((link, events, qmp));
    let (qmp, _events) = Qmp::connect(&qemu.path("qmp"), LONG).await.expect("now it is its turn");
    assert!(!qmp.is_running().await.expect("status"));
}

#[tokio::test]
async fn a_link_outlives_its_qemu() {
    let qemu = Qemu::idle();
    let (link, mut events) = QmpLink::spawn(qemu.path("qmp"));
    let first = loop {
        if let LinkEvent::Connected(qmp) = next(&mut events).await {
            break qmp;
        }
    };
    let folder = qemu.kill();
    loop {
        if let LinkEvent::Lost { reason } = next(&mut events).await {
            assert!(!reason.is_empty());
            break;
        }
    }
    let gone = first.is_running().await;
    assert!(matches!(gone, Err(QmpError::Gone { .. })), "{gone:?}");
    assert!(link.current().is_none());
    let error = loop {
        if let LinkEvent::Unreachable { error } = next(&mut events).await {
            break error;
        }
    };
    assert!(matches!(error, QmpError::Connect { .. }), "{error:?}");
    let _qemu = Qemu::idle_in(folder);
    let second = link.connected(LONG).await.expect("the next QEMU");
    assert!(!second.is_running().await.expect("status"));
}

#[tokio::test]
async fn late_answers_are_dropped_and_what_was_not_sent_never_is() {
    let qemu = Qemu::idle();
    let (_link, _events, qmp) = qemu.link().await;
    let pid = Pid::from_raw(i32::try_from(qemu.pid()).expect("pid"));
    let brief = Duration::from_millis(100);
    kill(pid, Signal::SIGSTOP).expect("stop QEMU");
    let first = qmp.command("query-name", Value::Null, None, brief).await;
    assert!(matches!(first, Err(QmpError::Timeout { sent: true, .. })), "{first:?}");
    let second = qmp.device_add(primary(), brief).await;
    assert!(
        matches!(second, Err(QmpError::Timeout { sent: false, .. })),
        "{second:?}"
    );
    kill(pid, Signal::SIGCONT).expect("continue QEMU");
    let (major, _, _) = qmp.query_version().await.expect("the answer to this, not to the first");
    assert!(major >= 7);
    assert_eq!(qmp.devices().await.expect("devices"), ["rp1", "rp2"]);
    assert!(qmp.plugged().borrow().is_empty());
}

#[tokio::test]
async fn a_slow_reader_misses_events_and_is_told() {
    let qemu = Qemu::idle();
    let (qmp, mut events) = loop {
        if let Ok(connected) = Qmp::connect(&qemu.path("qmp"), LONG).await {
            break connected;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for _ in 0..200 {
        qmp.command("cont", Value::Null, None, LONG).await.expect("cont");
        qmp.command("stop", Value::Null, None, LONG).await.expect("stop");
    }
    let mut seen = 0;
    let lost = loop {
        let stamped = timeout(LONG, events.recv()).await.expect("in time").expect("connected");
        match stamped.event {
            Event::Resync { lost } => break lost,
            _ => seen += 1,
        }
    };
    assert_eq!(seen + lost, 400);
    qmp.command("cont", Value::Null, None, LONG).await.expect("cont");
    let stamped = timeout(LONG, events.recv()).await.expect("in time").expect("connected");
    assert_eq!(stamped.event, Event::Resume);
}
