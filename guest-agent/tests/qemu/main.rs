//! The agent in a guest: Debian's kernel in QEMU, a virtio NIC and an emulated VF of one MAC on a bridge, the host's end of
//! the port spoken by the test, echo requests all the while.
//!
//! Needs root, qemu-system-x86, iputils-ping, the guest image of tests/lab, and the static agent. A test takes about a
//! minute; figures are printed:
//! `cargo test -p hybond-agent --test qemu -- --ignored --test-threads 1 --nocapture`
#![allow(clippy::print_stdout)] // The figures are what these tests are run for.

mod machine;

use machine::{GUEST, Lines, MAC, Machine, Ping};
use serde_json::{Value, json};
use std::time::Duration;

/// Greets the agent, as hybondd does: again where no answer comes. What is sent while a port opens can be lost on the way.
fn hello(port: &mut Lines) -> Value {
    for _ in 0..10 {
        port.send(&json!({"type": "hello", "id": 1, "version": 1, "pairs": [MAC]}));
        if !port.silent(Duration::from_secs(9)) {
            break;
        }
    }
    port.wait(|m| m["type"] == "hello")["pairs"][0].clone()
}

fn request(port: &mut Lines, kind: &str, id: u64, overlap: u32) -> Value {
    port.send(&json!({"type": kind, "id": id, "mac": MAC, "overlap_ms": overlap}));
    port.wait(|m| m["id"] == id)
}

/// Plugs a primary and waits until the agent has told of its carrier.
fn plug(guest: &mut Machine, port: &mut Lines, driver: &str) {
    guest.plug(driver);
    let state = port.wait(|m| m["type"] == "state" && m["state"]["primary_up"] == true);
    assert_eq!(
        state["state"]["active"], "standby",
        "a fresh primary waits for the failback"
    );
}

/// Addresses and routes, without what differs from moment to moment. Flag 02 is "nodad", which the kernel keeps.
fn network(machine: &mut Machine) -> String {
    machine.guest(
        "ip -o addr show dev eth0 | sed 's/^[0-9]*: //; s/<[^>]*>//; s/ *flags 02//; s/ *valid_lft.*//' | sort; \
         ip route; ip route show table 7; \
         ip -6 route | grep -v '^ff00' | sed 's/ pref medium//; s/ expires.*//' | sort",
    )
}

/// A configuration with a bit of everything, its link-local address settled.
fn configure(guest: &mut Machine) {
    guest.guest("ip route add default via 10.99.0.254 metric 50; ip link set eth0 mtu 1450");
    guest.guest(
        "ip addr add 10.99.1.1/24 dev eth0 label eth0:1; ip route add 10.7.0.0/16 via 10.99.1.9 table 7 mtu 1400",
    );
    guest.guest("ip -6 addr add fd99::50/64 dev eth0; ip -6 route add default via fd99::fe");
    guest.guest("until ip -6 addr show dev eth0 | grep fe80 | grep -vq tentative; do sleep 0.1; done");
    guest.guest("while ip -6 addr show dev eth0 | grep -q tentative; do sleep 0.1; done");
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn the_bond_takes_the_standbys_place_and_moves_the_traffic_without_loss() {
    let mut guest = Machine::boot("place", &[]);
    configure(&mut guest);
    let before = network(&mut guest);
    let ping = Ping::start(GUEST);
    let mut port = guest.agent();
    let state = hello(&mut port);
    println!("takeover: {:?}", ping.stop());
    assert_eq!(
        state,
        json!({"mac": MAC, "bond": "eth0", "standby": "eth0nsby", "primary": null, "primary_up": false, "active": "standby"})
    );
    assert_eq!(network(&mut guest), before);
    assert_eq!(guest.guest("ip addr show dev eth0nsby | grep -c inet; true"), "0");
    assert_eq!(guest.guest("cat /sys/class/net/eth0/mtu"), "1450");
    guest.guest("ip addr add 10.99.0.50/24 dev eth0nsby; sleep 1");
    assert_eq!(
        guest.guest("ip addr show dev eth0nsby | grep -c inet; true"),
        "0",
        "a slave keeps none"
    );
    assert_eq!(guest.guest("ls /run/hybond-agent"), "host");

    for driver in ["igb", "e1000e"] {
        let ping = Ping::start(GUEST);
        plug(&mut guest, &mut port, driver);
        println!("{driver} plugged: {:?}", ping.stop());
        for (address, overlap) in [(GUEST, 0), (GUEST, 200), ("fd99::50", 200)] {
            for (kind, to) in [("failback", "primary"), ("failover", "standby")] {
                let ping = Ping::start(address);
                let done = request(&mut port, kind, 7, overlap);
                assert_eq!(
                    (&done["type"], &done["state"]["active"]),
                    (&json!("done"), &json!(to)),
                    "{done}"
                );
                let pinged = ping.stop();
                println!("{driver} {kind} of {address}, overlap {overlap} ms: {pinged:?}");
                if overlap > 0 {
                    assert_eq!(pinged.lost, 0);
                }
                assert_eq!(guest.guest("cat /sys/class/net/eth0/bonding/all_slaves_active"), "0");
            }
        }
        let ping = Ping::start(GUEST);
        guest.unplug();
        port.wait(|m| m["type"] == "state" && m["state"]["primary"].is_null());
        let pinged = ping.stop();
        println!("{driver} unplugged after the failover: {pinged:?}");
        assert_eq!(pinged.lost, 0);
    }
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn where_everything_arrives_twice_only_the_overlap_has_duplicates() {
    let mut guest = Machine::boot("hub", &[]);
    let mut port = guest.agent();
    hello(&mut port);
    guest.hub();
    plug(&mut guest, &mut port, "igb");
    for overlap in [0, 50, 200] {
        for kind in ["failback", "failover"] {
            let ping = Ping::start(GUEST);
            let done = request(&mut port, kind, 7, overlap);
            assert_eq!(done["type"], "done", "{done}");
            let pinged = ping.stop();
            println!("hub, {kind}, overlap {overlap} ms: {pinged:?}");
            if overlap > 0 {
                assert_eq!(pinged.lost, 0);
            } else {
                assert_eq!(pinged.duplicates, 0);
            }
            assert!(
                pinged.duplicates < pinged.sent / 2,
                "the gate is closed again: {pinged:?}"
            );
        }
    }
    // The gate is open while the primary is unplugged.
    let ping = Ping::start(GUEST);
    request(&mut port, "failback", 8, 0);
    port.send(&json!({"type": "failover", "id": 9, "mac": MAC, "overlap_ms": 4000}));
    guest.unplug();
    port.wait(|m| m["id"] == 9);
    println!("hub, unplugged within the overlap: {:?}", ping.stop());
    assert!(
        !guest.console().contains("advertised our address"),
        "{}",
        guest.console()
    );
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn the_bond_is_announced_when_qemu_asks_the_nic_below_it_and_when_the_host_asks() {
    let mut guest = Machine::boot("announce", &[]);
    let mut port = guest.agent();
    hello(&mut port);
    let packets = "sleep 3; cat /sys/class/net/eth0/statistics/tx_packets";
    let count = |guest: &mut Machine| guest.guest(packets).parse::<u64>().expect("a number");
    // Router solicitations and reports of the bond's own first seconds end.
    guest.guest("sleep 15");
    let quiet = count(&mut guest);
    guest.qmp(
        "announce-self",
        json!({"initial": 50, "max": 50, "rounds": 1, "step": 0}),
    );
    let asked = count(&mut guest);
    println!("packets for an announcement of QEMU's: {}", asked - quiet);
    assert!(
        asked >= quiet + 2,
        "as often as QEMU, an IPv4 and an IPv6 address: {quiet} to {asked}"
    );
    port.send(&json!({"type": "announce", "id": 3, "mac": MAC}));
    assert_eq!(port.wait(|m| m["id"] == 3)["type"], "done");
    assert!(count(&mut guest) >= asked + 6);
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn a_nic_that_udev_has_not_named_is_waited_for() {
    let mut guest = Machine::boot("udev", &["lab.noagent"]);
    guest.guest("mkdir -p /run/udev/data; touch /run/udev/control");
    let log = "cat /tmp/log";
    guest.guest(&format!("(hybond-agent --mac {MAC} 2>/tmp/log &); sleep 1"));
    assert_eq!(guest.guest(log), "", "the standby has no lasting name yet");
    guest.guest("echo E:ID_RENAMING=1 > /run/udev/data/n$(cat /sys/class/net/eth0/ifindex); sleep 1");
    assert_eq!(guest.guest(log), "", "it is about to be renamed");
    guest.guest("ip link set eth0 down; ip link set eth0 name enp1s0; ip link set enp1s0 up");
    guest.guest("echo I:1 > /run/udev/data/n$(cat /sys/class/net/enp1s0/ifindex); sleep 1");
    assert_eq!(guest.guest("cat /sys/class/net/enp1s0/bonding/slaves"), "enp1s0nsby");
    guest.plug("igb");
    guest.guest("until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done");
    assert_eq!(
        guest.guest("hybond-agent --role eth0; hybond-agent --role enp1s0nsby"),
        "primary\nstandby"
    );
    guest.guest("echo I:1 > /run/udev/data/n$(cat /sys/class/net/eth0/ifindex); sleep 1");
    assert_eq!(
        guest.guest("cat /sys/class/net/enp1s0/bonding/slaves"),
        "enp1s0nsby eth0"
    );
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn a_primary_that_is_torn_out_costs_no_more_than_the_kernels_next_look() {
    let mut guest = Machine::boot("torn", &[]);
    let mut port = guest.agent();
    hello(&mut port);
    plug(&mut guest, &mut port, "igb");
    request(&mut port, "failback", 2, 200);
    let ping = Ping::start(GUEST);
    guest.qmp("set_link", json!({"name": "vf", "up": false}));
    port.wait(|m| m["type"] == "state" && m["state"]["active"] == "standby");
    println!("carrier lost: {:?}", ping.stop());
    guest.qmp("set_link", json!({"name": "vf", "up": true}));
    let state = port.wait(|m| m["type"] == "state" && m["state"]["primary_up"] == true);
    assert_eq!(state["state"]["active"], "standby", "the host decides when to go back");
    request(&mut port, "failback", 3, 200);
    let ping = Ping::start(GUEST);
    guest.unplug();
    port.wait(|m| m["type"] == "state" && m["state"]["active"] == "standby");
    println!("unplugged without a failover: {:?}", ping.stop());
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn an_idle_agent_sleeps_and_a_hostile_host_does_not_wake_it_for_long() {
    let mut guest = Machine::boot("idle", &[]);
    let switches = "cat /proc/$(pidof hybond-agent)/status | awk '/ctxt_switches/ { n += $2 } END { print n }'";
    let idle = |guest: &mut Machine, when: &str| {
        // The last announcements and the first look for a host end within seconds.
        guest.guest("sleep 4");
        let before = guest.guest(switches);
        guest.guest("sleep 10");
        assert_eq!(guest.guest(switches), before, "awake while {when}");
    };
    idle(&mut guest, "no host has connected");
    let mut port = guest.agent();
    hello(&mut port);
    idle(&mut guest, "connected");

    port.send_raw(b"\n\n\xff\xfe\x00garbage\n[[[[[[[[{\"type\":\n");
    port.send_raw(&[b'x'; 300_000]);
    port.send_raw(b"\n{\"type\":\"reboot\",\"id\":5}\n");
    port.wait(|m| m["type"] == "failed" && m["id"] == 5);
    port.send(&json!({"type": "failback", "id": 6, "mac": MAC, "overlap_ms": 4_000_000_000u32}));
    let failed = port.wait(|m| m["id"] == 6);
    assert!(
        failed["reason"].as_str().is_some_and(|r| r.contains("no primary")),
        "{failed}"
    );
    // A host that asks and does not read, and then goes.
    for id in 0..5_000 {
        port.send(&json!({"type": "announce", "id": id, "mac": MAC}));
    }
    drop(port);
    for _ in 0..50 {
        drop(guest.agent());
    }
    idle(&mut guest, "the host is gone");
    let mut port = guest.agent();
    hello(&mut port);
    println!(
        "{}",
        guest.guest("grep -E 'VmRSS|VmHWM' /proc/$(pidof hybond-agent)/status")
    );
    guest.guest("kill -9 $(pidof hybond-agent)");
    // A killed process closes its port a moment after kill(2) has answered, and Linux discards what the port holds
    // then (drivers/char/virtio_console.c, port_fops_release): what is said from here on waits for the next agent.
    guest.until("hybond-agent ended with 137");
    port.send(&json!({"type": "hello", "id": 77, "version": 1, "pairs": [MAC]}));
    let state = port.wait(|m| m["id"] == 77)["pairs"][0].clone();
    assert_eq!(state["bond"], "eth0", "an agent started anew finds its bond");
    drop(port);
    guest.unplug_device("port");
    guest.until("was unplugged");
    guest.qmp(
        "device_add",
        json!({"driver": "virtserialport", "id": "port", "chardev": "agent", "name": "org.hybond.agent.0"}),
    );
    let mut port = guest.agent();
    assert_eq!(
        hello(&mut port)["bond"],
        "eth0",
        "a port that was unplugged and plugged again"
    );
    idle(&mut guest, "the port is a new one");
    assert!(!guest.console().contains("panicked"), "{}", guest.console());
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn an_agent_killed_at_any_moment_of_the_takeover_completes_it_when_it_is_back() {
    let mut guest = Machine::boot("killed", &["lab.noagent"]);
    configure(&mut guest);
    let before = network(&mut guest);
    for moment in 0..12 {
        let killed = guest.guest(&format!(
            "hybond-agent --mac {MAC} 2>/tmp/log & p=$!; usleep {}; kill -9 $p; wait $p; \
             ls /run/hybond-agent /sys/class/net | tr '\\n' ' '",
            moment * 4_000
        ));
        guest.guest(&format!(
            "hybond-agent --mac {MAC} 2>>/tmp/log & p=$!; sleep 1; kill $p; wait $p; true"
        ));
        println!("killed after {} ms: {killed}", moment * 4);
        assert_eq!(
            network(&mut guest),
            before,
            "{}",
            guest.guest("cat /tmp/log; ls /run/hybond-agent")
        );
        assert_eq!(guest.guest("cat /sys/class/net/eth0/bonding/slaves"), "eth0nsby");
        assert_eq!(guest.guest("ls /run/hybond-agent"), "");
        guest.guest("ip link del eth0; ip link set eth0nsby down; ip link set eth0nsby name eth0; ip link set eth0 up");
        guest.guest(&format!("ip addr add {GUEST}/24 dev eth0"));
        configure(&mut guest);
    }
}

#[test]
#[ignore = "boots a guest: root, QEMU and the lab's guest image"]
fn where_no_host_speaks_a_pair_is_found_and_runs_on_its_primary() {
    let mut guest = Machine::boot("alone", &[]);
    guest.plug("igb");
    guest.until("back to the primary");
    guest.until("traffic is on the primary");
    assert_eq!(guest.guest("cat /sys/class/net/eth0/bonding/active_slave"), "eth1");
    let ping = Ping::start(GUEST);
    assert_eq!(ping.stop().lost, 0);
    println!(
        "{}",
        guest.guest("hybond-agent --check; for n in eth1 eth0nsby; do hybond-agent --role $n; done")
    );
    // A host that comes late finds it, and decides from now on.
    let mut port = guest.agent();
    assert_eq!(hello(&mut port)["active"], "primary");
    assert_eq!(request(&mut port, "failover", 2, 100)["state"]["active"], "standby");
    assert!(
        port.silent(Duration::from_secs(8)),
        "the agent stays where the host has put it"
    );
}
