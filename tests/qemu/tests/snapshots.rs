//! Snapshots of a guest with a VF plugged, against a real QEMU: which of them the guard has to do with.

use hybond_core::ids::Mac;
use hybond_qmp::{Event, LinkEvent, MigrationStatus, Qmp};
use hybond_test_qemu::{LONG, Qemu};
use serde_json::{Value, json};
use std::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

fn mac() -> Mac {
    "52:54:00:aa:00:01".parse().expect("MAC")
}

/// A machine with a disk that can hold snapshots, whose CPUs do not run.
fn with_disk() -> Qemu {
    let folder = tempfile::tempdir().expect("temporary directory");
    let disk = folder.path().join("disk.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&disk)
        .arg("256M")
        .status();
    assert!(
        made.expect("qemu-img runs: it is in Debian's package qemu-utils")
            .success()
    );
    let blockdev = format!(
        "driver=qcow2,node-name=disk0,file.driver=file,file.filename={}",
        disk.display()
    );
    let arguments = [
        "-S",
        "-m",
        "128",
        "-accel",
        "tcg,tb-size=16",
        "-blockdev",
        &blockdev,
        "-device",
        "virtio-blk-pci,drive=disk0,id=vd0",
    ];
    Qemu::start(&arguments.map(str::to_owned), folder)
}

async fn plug(qmp: &Qmp) {
    let device = json!({
        "driver": "e1000e", "id": mac().primary_id(), "bus": "rp1", "mac": mac(), "romfile": "",
        "failover_pair_id": "none"
    });
    qmp.device_add(device, LONG).await.expect("device_add");
}

async fn command(qmp: &Qmp, name: &'static str, arguments: Value) {
    qmp.command(name, arguments, None, LONG).await.expect(name);
}

/// What came until an event of this name of QEMU's.
async fn heard_until(events: &mut mpsc::Receiver<Box<LinkEvent>>, last: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut heard = Vec::new();
    loop {
        let event = timeout(LONG, events.recv()).await.expect("an event comes");
        if let LinkEvent::Event(stamped) = *event.expect("the link lives") {
            let ends = last(&stamped.event);
            heard.push(stamped.event);
            if ends {
                return heard;
            }
        }
    }
}

fn of_the_guard(event: &Event) -> bool {
    matches!(event, Event::GuardCancelled { .. } | Event::GuardTooLate { .. })
}

fn is_migration(event: &Event) -> bool {
    matches!(event, Event::Migration { .. })
}

/// `virsh snapshot-create-as --disk-only`, and what backup tools do: no memory is copied.
#[tokio::test]
async fn an_external_snapshot_of_the_disks_goes_on_untouched() {
    let qemu = with_disk();
    let (_link, mut events, qmp) = qemu.link().await;
    plug(&qmp).await;
    let overlay = qemu.path("overlay.qcow2");
    let snapshot = json!({
        "node-name": "disk0", "snapshot-file": overlay.to_str().expect("UTF-8"), "snapshot-node-name": "disk1"
    });
    command(&qmp, "blockdev-snapshot-sync", snapshot).await;
    assert!(overlay.exists());
    // Whatever it would have caused has been sent before this.
    command(&qmp, "cont", Value::Null).await;
    let heard = heard_until(&mut events, |event| *event == Event::Resume).await;
    assert!(
        !heard.iter().any(|event| of_the_guard(event) || is_migration(event)),
        "{heard:?}"
    );
    assert!(qmp.plugged().borrow().contains(&mac().primary_id()));
}

/// `virsh snapshot-create` with memory in the qcow2: QEMU copies it in one go, while its main loop does nothing else.
#[tokio::test]
async fn an_internal_snapshot_with_a_vf_plugged_is_not_kept_secret() {
    let qemu = with_disk();
    let (_link, mut events, qmp) = qemu.link().await;
    plug(&qmp).await;
    let job = json!({"job-id": "snap", "tag": "one", "vmstate": "disk0", "devices": ["disk0"]});
    command(&qmp, "snapshot-save", job).await;
    let completed = Event::Migration {
        status: MigrationStatus::Completed,
    };
    let heard = heard_until(&mut events, |event| *event == completed).await;
    let guard: Vec<&Event> = heard.iter().filter(|event| of_the_guard(event)).collect();
    let told = matches!(guard[..], [Event::GuardCancelled { .. }, Event::GuardTooLate { .. }]);
    assert!(told, "{heard:?}");
    // The cancellation that came after all of it does no harm.
    assert_eq!(
        qmp.query_migrate().await.expect("migration"),
        MigrationStatus::Completed
    );
    assert!(qmp.plugged().borrow().contains(&mac().primary_id()));
}
