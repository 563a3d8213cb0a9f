//! Link events: what the daemon hears of devices that others change.

use hybond_netlink::{Link, LinkEvent};
use hybond_test_netns::{SOON, name, on_a_host};
use tokio::sync::mpsc::Receiver;

/// The first event that is looked for; others pass.
async fn heard(events: &mut Receiver<LinkEvent>, wanted: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    let next = async {
        loop {
            let event = events.recv().await.expect("the watch goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("the event")
}

fn is_change(event: &LinkEvent, device: &str, wanted: impl Fn(&Link) -> bool) -> bool {
    matches!(event, LinkEvent::Changed(link) if link.name.as_str() == device && wanted(link))
}

#[test]
fn a_device_is_heard_to_come_change_and_go() {
    on_a_host(|host| async move {
        let mut events = host.netlink.watch().expect("a watch");
        host.ip("link add br0 type bridge");
        heard(&mut events, |event| is_change(event, "br0", |link| !link.up)).await;
        host.ip("link set br0 up");
        heard(&mut events, |event| is_change(event, "br0", |link| link.up)).await;
        host.ip("link del br0");
        let gone = heard(&mut events, |event| matches!(event, LinkEvent::Removed { .. })).await;
        assert!(matches!(gone, LinkEvent::Removed { name: gone, .. } if gone == name("br0")));
    });
}

#[test]
fn a_pf_that_loses_its_carrier_is_heard() {
    on_a_host(|host| async move {
        let mut events = host.netlink.watch().expect("a watch");
        host.ip("link set wire down");
        heard(&mut events, |event| {
            is_change(event, "pf", |link| link.up && !link.carrier)
        })
        .await;
        host.ip("link set wire up");
        heard(&mut events, |event| is_change(event, "pf", |link| link.carrier)).await;
    });
}

#[test]
fn leaving_a_bridge_is_not_taken_for_being_removed() {
    on_a_host(|host| async move {
        host.ip("link add br0 type bridge");
        host.ip("link set pf master br0");
        let mut events = host.netlink.watch().expect("a watch");
        host.ip("link set pf nomaster");
        host.ip("link del br0");
        let gone = heard(&mut events, |event| matches!(event, LinkEvent::Removed { .. })).await;
        assert!(
            matches!(&gone, LinkEvent::Removed { name: gone, .. } if *gone == name("br0")),
            "{gone:?}"
        );
    });
}

#[test]
fn a_watcher_that_was_asleep_is_told_to_look_again_and_then_hears_what_follows() {
    on_a_host(|host| async move {
        let mut events = host.netlink.watch().expect("a watch");
        // This thread runs the watch too, so nothing is read while `ip` is waited for: the socket overflows.
        let batch = (0..2000)
            .map(|n| format!("link set pf mtu {}\n", 1400 + n % 100))
            .collect::<String>();
        let path = std::env::temp_dir().join(format!("hybond-batch-{}", std::process::id()));
        std::fs::write(&path, batch).expect("a batch");
        host.ip(&format!("-batch {}", path.display()));
        std::fs::remove_file(&path).expect("the batch's end");
        heard(&mut events, |event| *event == LinkEvent::Resync).await;
        host.ip("link add br0 type bridge");
        heard(&mut events, |event| is_change(event, "br0", |_| true)).await;
    });
}

#[test]
fn a_reader_that_does_not_read_is_told_too() {
    on_a_host(|host| async move {
        let mut events = host.netlink.watch().expect("a watch");
        // In small portions, each of them forwarded: the socket never overflows, the reader's queue does.
        for n in 0..600 {
            host.ip(&format!("link set pf mtu {}", 1400 + n % 100));
            tokio::task::yield_now().await;
            assert!(host.netlink.link(&name("pf")).await.expect("a look").is_some());
        }
        heard(&mut events, |event| *event == LinkEvent::Resync).await;
    });
}
