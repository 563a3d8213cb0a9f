//! The agent in a guest: Debian's kernel in QEMU, a virtio NIC and an emulated VF of one MAC on a bridge, the host's end of
//! the port spoken by the test, echo requests all the while.
//!
//! Needs root, qemu-system-x86, the guest image of tests/lab, and the static agent:
//! `cargo test -p hybond-agent --test qemu -- --ignored --test-threads 1 --nocapture`

mod machine;

use machine::{GUEST, Lines, MAC, Machine, Ping, host};
use serde_json::{Value, json};
use std::time::Duration;

fn hello(port: &mut Lines) -> Value {
    port.send(&json!({"type": "hello", "id": 1, "version": 1, "pairs": [MAC]}));
    port.wait(|m| m["type"] == "hello")["pairs"][0].clone()
}

fn request(port: &mut Lines, kind: &str, id: u64, overlap: u32) -> Value {
    port.send(&json!({"type": kind, "id": id, "mac": MAC, "overlap_ms": overlap}));
    port.wait(|m| m["id"] == id)
}

/// Addresses and routes, without what differs from moment to moment. Flag 02 is "nodad", which the kernel keeps.
fn network(machine: &mut Machine) -> String {
    machine.guest(
        "ip -o addr show dev eth0 | sed 's/^[0-9]*: //; s/<[^>]*>//; s/ *flags 02//; s/ *valid_lft.*//' | sort; ip route; ip route show table 7; \
         ip -6 route | grep -v '^ff00' | sed 's/ pref medium//; s/ expires.*//' | sort",
    )
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn the_bond_takes_the_standbys_place_and_moves_the_traffic_without_loss() {
    let mut guest = Machine::boot("place", &[]);
    guest.guest("ip route add default via 10.99.0.254 metric 50");
    guest.guest(
        "ip addr add 10.99.1.1/24 dev eth0 label eth0:1; ip route add 10.7.0.0/16 via 10.99.1.9 table 7 mtu 1400",
    );
    guest.guest("ip -6 addr add fd99::50/64 dev eth0; ip -6 route add default via fd99::fe; ip link set eth0 mtu 1450");
    // Duplicate address detection of the link-local address takes a second or two.
    guest.guest("until ip -6 addr show dev eth0 | grep fe80 | grep -vq tentative; do sleep 0.1; done");
    guest.guest("while ip -6 addr show dev eth0 | grep -q tentative; do sleep 0.1; done");
    let before = network(&mut guest);

    let ping = Ping::start(GUEST);
    let mut port = guest.agent();
    let state = hello(&mut port);
    let moved = ping.stop();
    println!("takeover: {moved:?}");
    assert_eq!(state["bond"], "eth0");
    assert_eq!(state["standby"], "eth0nsby");
    assert_eq!(state["active"], "standby");
    assert_eq!(network(&mut guest), before);
    assert_eq!(guest.guest("ip addr show dev eth0nsby | grep -c inet; true"), "0");
    assert_eq!(guest.guest("cat /sys/class/net/eth0/mtu"), "1450");
    assert_eq!(guest.guest("ls /run/hybond-agent"), "host");
    let rss = guest.guest("grep VmRSS /proc/$(pidof hybond-agent)/status");
    println!("agent: {rss}");

    for (round, driver) in ["igb", "e1000e"].into_iter().enumerate() {
        let ping = Ping::start(GUEST);
        guest.plug(driver);
        let state = port.wait(|m| m["type"] == "state" && m["state"]["primary_up"] == true);
        assert_eq!(
            state["state"]["active"], "standby",
            "a fresh primary waits for the failback"
        );
        println!("{driver} plugged: {:?}", ping.stop());

        for overlap in [0, 100, 300] {
            for kind in ["failback", "failover"] {
                let ping = Ping::start(GUEST);
                let begin = std::time::Instant::now();
                std::thread::sleep(Duration::from_millis(1000));
                let id = u64::from(overlap) * 10 + round as u64 * 2 + u64::from(kind == "failover");
                let done = request(&mut port, kind, 100 + id, overlap);
                assert_eq!(done["type"], "done", "{done}");
                let expected = if kind == "failback" { "primary" } else { "standby" };
                assert_eq!(done["state"]["active"], expected);
                std::thread::sleep(Duration::from_millis(3000));
                let pinged = ping.stop();
                println!("{driver} {kind} overlap {overlap}: {pinged:?} in {:?}", begin.elapsed());
                assert_eq!(guest.guest("cat /sys/class/net/eth0/bonding/all_slaves_active"), "0");
            }
        }
        let ping = Ping::start(GUEST);
        guest.unplug();
        let state = port.wait(|m| m["type"] == "state" && m["state"]["primary"].is_null());
        assert_eq!(state["state"]["active"], "standby");
        println!("{driver} unplugged after the failover: {:?}", ping.stop());
    }
    let ping6 = Ping::start("fd99::50");
    std::thread::sleep(Duration::from_secs(1));
    println!("IPv6: {:?}", ping6.stop());
    println!("{}", host("bridge fdb show br br0 | grep -i aa:00:01 || true"));
    println!("{}", guest.console());
}
