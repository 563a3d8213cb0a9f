//! What a user sees of hybondd through hybondctl.

mod common;

use common::{Daemon, hybondctl};
use hybond_wire::agent;
use hybond_wire::control::{
    Check, DomainStatus, ErrorKind, HandoverStatus, HostStatus, LeaseStatus, LibvirtStatus, PairStatus, Phase,
    PoolStatus, Request, ReservationStatus, Reserved, Response, Run, VfStatus,
};
use hybond_wire::peer::{Fit, Held, PairFit};
use std::path::Path;

fn pair(n: u8, active: agent::Path) -> PairStatus {
    PairStatus {
        mac: format!("52:54:00:aa:00:{n:02x}").parse().expect("a MAC"),
        pool: "10GE".parse().expect("a pool"),
        flavor: hybond_core::spec::Flavor::Hybrid,
        policy: hybond_core::spec::Policy::Prefer,
        active: Some(active),
        vf: Some("0000:01:10.2".parse().expect("a VF")),
        plugged: true,
        pf: Some("enp1s0f0".parse().expect("a name")),
        degraded: None,
        drained: false,
        since_ms: None,
        primary_slot: Some("00:1c.0/00.0".to_owned()),
        standby_slot: Some("00:02.0/00.0".to_owned()),
    }
}

fn web() -> DomainStatus {
    let standby = PairStatus {
        vf: None,
        plugged: false,
        degraded: Some("pool 10GE has\nno free VF".to_owned()),
        ..pair(2, agent::Path::Standby)
    };
    DomainStatus {
        id: "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID"),
        name: "web-1".to_owned(),
        stage: "running".to_owned(),
        agent: true,
        pairs: vec![pair(1, agent::Path::Primary), standby],
    }
}

fn phase(name: &str, start_ms: f64, end_ms: Option<f64>) -> Phase {
    Phase {
        name: name.to_owned(),
        start_ms,
        end_ms,
        detail: None,
    }
}

fn progress(phase: Phase) -> Response {
    let domain = "web-1".to_owned();
    Response::Progress { domain, phase }
}

#[test]
fn status_shows_each_pair_and_why_one_is_not_as_it_should_be() {
    let daemon = Daemon::answering(vec![vec![Response::Status { domains: vec![web()] }]]);
    let text = hybondctl(&daemon.socket(), &["status", "web-1"]).ok();
    let expected = "\
DOMAIN  STAGE    AGENT  PAIR               POOL  FLAVOR  POLICY  PATH     VF            PF        SINCE
web-1   running  yes    52:54:00:aa:00:01  10GE  hybrid  prefer  primary  0000:01:10.2  enp1s0f0  -
web-1   running  yes    52:54:00:aa:00:02  10GE  hybrid  prefer  standby  -             enp1s0f0  -
web-1 52:54:00:aa:00:02: pool 10GE has no free VF
PAIR               PRIMARY IN THE GUEST  STANDBY IN THE GUEST (lspci -P)
52:54:00:aa:00:01  00:1c.0/00.0          00:02.0/00.0
52:54:00:aa:00:02  00:1c.0/00.0          00:02.0/00.0
";
    assert_eq!(text, expected);
    let domain = Some("web-1".to_owned());
    assert_eq!(daemon.requests(), [Request::Status { domain }]);
}

#[test]
fn json_is_what_the_daemon_said() {
    let daemon = Daemon::answering(vec![vec![Response::Status { domains: vec![web()] }]]);
    let outcome = hybondctl(&daemon.socket(), &["status", "--json"]);
    let json = outcome.json();
    assert_eq!(json["domains"][0]["name"], "web-1");
    assert_eq!(json["domains"][0]["pairs"][0]["plugged"], true);
    assert_eq!(json["domains"][0]["pairs"][1]["active"], "standby");
    // The package's prerm looks for this text.
    assert!(outcome.stdout.contains("\"plugged\": true"));
    assert_eq!(daemon.requests(), [Request::Status { domain: None }]);
}

#[test]
fn a_host_without_hybrid_domains_says_so() {
    let daemon = Daemon::answering(vec![vec![Response::Status { domains: Vec::new() }]]);
    assert!(
        hybondctl(&daemon.socket(), &["status"])
            .ok()
            .starts_with("no hybrid domain runs on this host")
    );
}

fn handover() -> Vec<HandoverStatus> {
    vec![HandoverStatus {
        pf: "enp1s0f0".parse().expect("a name"),
        driver: Some("igb".to_owned()),
        row: "set_mac = \"before-plug\", clear_mac = true, standby = \"keep\"".to_owned(),
        source: "measured".to_owned(),
    }]
}

fn pools() -> Response {
    let vf = |address: &str, lease| VfStatus {
        vf: address.parse().expect("a VF"),
        pf: "enp1s0f0".parse().expect("a name"),
        numa_node: Some(0),
        lease,
        reserved: None,
    };
    let lease = LeaseStatus {
        domain: web().id,
        name: "web-1".to_owned(),
        mac: web().pairs[0].mac,
    };
    let vfs = vec![vf("0000:01:10.0", None), vf("0000:01:10.2", Some(lease))];
    let name = "10GE".parse().expect("a pool");
    Response::Pools {
        pools: vec![PoolStatus {
            name,
            vfs,
            handover: handover(),
            waiting: Vec::new(),
        }],
    }
}

#[test]
fn pools_show_who_holds_what() {
    let daemon = Daemon::answering(vec![vec![pools()], vec![pools()]]);
    let expected = "\
POOL  VF            PF        NUMA  HELD BY
10GE  0000:01:10.0  enp1s0f0  0     -
10GE  0000:01:10.2  enp1s0f0  0     web-1 52:54:00:aa:00:01
10GE: 1 of 2 free

how MACs are handed over:
enp1s0f0 (igb): set_mac = \"before-plug\", clear_mac = true, standby = \"keep\"
";
    assert_eq!(hybondctl(&daemon.socket(), &["pool"]).ok(), expected);
    let outcome = hybondctl(&daemon.socket(), &["pool", "25GE"]);
    outcome.assert_failed(3, "this host has no pool 25GE: it has 10GE");
}

fn about(plug: &str) -> Response {
    Response::Host {
        host: HostStatus {
            release: "0.1.0".to_owned(),
            peer: "node1.example.org:16515".parse().expect("a peer"),
            plug: plug.to_owned(),
            plug_reason: "the kernel has no iommufd".to_owned(),
            libvirt: Some(LibvirtStatus {
                uri: "qemu:///system".to_owned(),
                daemon: (plug == "group").then(|| "virtqemud".to_owned()),
                problem: (plug != "group").then(|| "Failed to connect socket".to_owned()),
            }),
            handover: handover(),
        },
    }
}

#[test]
fn host_says_how_it_plugs_and_what_that_means() {
    let daemon = Daemon::answering(vec![vec![about("group")], vec![about("libvirt")]]);
    let expected = "\
release            0.1.0
peers reach it as  node1.example.org:16515
plugs VFs by       group
because            the kernel has no iommufd
libvirt            virtqemud, connected at qemu:///system

how MACs are handed over:
enp1s0f0 (igb): set_mac = \"before-plug\", clear_mac = true, standby = \"keep\"
  measured
";
    assert_eq!(hybondctl(&daemon.socket(), &["host"]).ok(), expected);
    let text = hybondctl(&daemon.socket(), &["host"]).ok();
    assert!(
        text.contains("use 'hybondctl migrate', or 'hybondctl drain' first"),
        "{text}"
    );
    let without = "libvirt            not connected at qemu:///system: Failed to connect socket\n";
    assert!(text.contains(without), "{text}");
}

#[test]
fn a_drain_shows_its_phases_while_it_goes() {
    let script = vec![
        progress(phase("failover", 1000.0, None)),
        progress(phase("failover", 1000.0, Some(1012.4))),
        progress(phase("unplug", 1012.4, Some(1425.0))),
        Response::Done {
            message: "web-1 drained: 1 VF back in pool 10GE".to_owned(),
        },
    ];
    let daemon = Daemon::answering(vec![script.clone(), script]);
    let outcome = hybondctl(&daemon.socket(), &["drain", "web-1"]);
    assert_eq!(
        outcome.stderr,
        "failover …\nfailover             12 ms\nunplug              413 ms\n"
    );
    assert_eq!(outcome.ok(), "web-1 drained: 1 VF back in pool 10GE\n");
    let outcome = hybondctl(&daemon.socket(), &["drain", "web-1", "--json", "--quiet"]);
    assert_eq!(outcome.stderr, "");
    assert_eq!(outcome.json()["message"], "web-1 drained: 1 VF back in pool 10GE");
    let domain = "web-1".to_owned();
    assert_eq!(daemon.requests()[0], Request::Drain { domain });
}

#[test]
fn a_policy_is_set_and_said_what_came_of_it() {
    let done = Response::Done {
        message: "web-1: policy of 52:54:00:aa:00:01 is never, on its standby".to_owned(),
    };
    let script = vec![progress(phase("unplug", 1000.0, Some(1412.0))), done];
    let daemon = Daemon::answering(vec![script]);
    let outcome = hybondctl(&daemon.socket(), &["set", "web-1", "--policy", "never", "--vlan", "0"]);
    assert_eq!(outcome.stderr, "unplug              412 ms\n");
    assert_eq!(
        outcome.ok(),
        "web-1: policy of 52:54:00:aa:00:01 is never, on its standby\n"
    );
    let asked = Request::Set {
        domain: "web-1".to_owned(),
        mac: None,
        policy: Some(hybond_core::spec::Policy::Never),
        vlan: Some(0),
    };
    assert_eq!(daemon.requests(), [asked]);
}

#[test]
fn all_domains_are_drained_and_every_failure_told() {
    let other = DomainStatus {
        id: "a2a2a2a2-0000-4000-8000-000000000003".parse().expect("a UUID"),
        name: "db-1".to_owned(),
        ..web()
    };
    let mut drained = other.clone();
    drained.name = "drained".to_owned();
    drained.pairs.iter_mut().for_each(|pair| pair.drained = true);
    let domains = vec![web(), other, drained];
    let done = Response::Done {
        message: "drained".to_owned(),
    };
    let refused = Response::Error {
        kind: ErrorKind::Refused,
        message: "hybond-agent does not answer in the guest".to_owned(),
    };
    let status = vec![Response::Status { domains }];
    let daemon = Daemon::answering(vec![status.clone(), vec![done.clone()], vec![done.clone()]]);
    let text = hybondctl(&daemon.socket(), &["drain", "--all"]).ok();
    assert_eq!(text, "all 2 domains are drained\n");
    assert_eq!(daemon.requests().len(), 3, "what is drained is left alone");
    let daemon = Daemon::answering(vec![status, vec![done], vec![refused]]);
    let outcome = hybondctl(&daemon.socket(), &["drain", "--all"]);
    outcome.assert_failed(1, "1 of 2 domains were not drained: ");
    outcome.assert_failed(1, ": hybond-agent does not answer in the guest");
    let daemon = Daemon::answering(vec![vec![Response::Status { domains: vec![web()] }]]);
    let text = hybondctl(&daemon.socket(), &["plug", "--all"]).ok();
    assert_eq!(text, "no domain on this host is to be plugged\n");
}

fn check(fit: Fit) -> Response {
    let pair = PairFit {
        mac: web().pairs[0].mac,
        pool: "10GE".parse().expect("a pool"),
        policy: hybond_core::spec::Policy::Prefer,
        fit,
        vf: (fit == Fit::Vf).then(|| "0000:01:10.4".parse().expect("a VF")),
        pf: Some("enp1s0f1".parse().expect("a name")),
        why: (fit != Fit::Vf).then(|| "every VF of pool 10GE is leased".to_owned()),
    };
    let obstacles = (fit == Fit::No).then(|| "node2 cannot ask node1 for the drain".to_owned());
    Response::Check {
        check: Check {
            domain: "web-1".to_owned(),
            to: "node2".parse().expect("a peer"),
            fit,
            plug: Some("group".to_owned()),
            pairs: vec![pair],
            obstacles: obstacles.into_iter().collect(),
            notes: Vec::new(),
        },
    }
}

#[test]
fn a_check_tells_where_the_domain_would_be_and_has_an_exit_code_for_each_outcome() {
    let ask = |fit| {
        let daemon = Daemon::answering(vec![vec![check(fit)]]);
        hybondctl(&daemon.socket(), &["check", "web-1", "--to", "node2"])
    };
    let expected = "\
web-1 on node2: fits
PAIR               POOL  POLICY  PATH     VF            PF
52:54:00:aa:00:01  10GE  prefer  primary  0000:01:10.4  enp1s0f1
";
    assert_eq!(ask(Fit::Vf).ok(), expected);
    let standby = ask(Fit::Standby);
    assert_eq!(standby.code, Some(7));
    assert!(
        standby
            .stdout
            .starts_with("web-1 on node2: fits, and would run on its standby")
    );
    assert!(
        standby
            .stdout
            .ends_with("52:54:00:aa:00:01: every VF of pool 10GE is leased\n")
    );
    let no = ask(Fit::No);
    assert_eq!(no.code, Some(4));
    assert!(
        no.stdout.contains("obstacle: node2 cannot ask node1 for the drain\n"),
        "{}",
        no.stdout
    );
    let daemon = Daemon::answering(vec![vec![check(Fit::Standby)]]);
    let json = hybondctl(&daemon.socket(), &["check", "web-1", "--to", "node2", "--json"]);
    assert_eq!((json.code, json.json()["fit"].as_str()), (Some(7), Some("standby")));
    let asked = Request::Check {
        domain: "web-1".to_owned(),
        to: "node2".parse().expect("a peer"),
    };
    assert_eq!(daemon.requests(), [asked]);
}

#[test]
fn vfs_are_reserved_elsewhere_and_shown_there() {
    let reserved = Reserved {
        domain: "web-1".to_owned(),
        to: "node2".parse().expect("a peer"),
        held: vec![Held {
            mac: web().pairs[0].mac,
            vf: "0000:01:10.4".parse().expect("a VF"),
            pf: "enp1s0f1".parse().expect("a name"),
        }],
        until_ms: 1_795_254_123_000,
    };
    let daemon = Daemon::answering(vec![
        vec![Response::Reserved { reserved }],
        vec![Response::Done {
            message: "node2 holds no VF for web-1 any more".to_owned(),
        }],
    ]);
    let text = hybondctl(&daemon.socket(), &["reserve", "web-1", "--to", "node2", "--for", "60"]).ok();
    let expected = "node2 holds for web-1, for 60 s:\n  52:54:00:aa:00:01  0000:01:10.4 on enp1s0f1\n";
    assert_eq!(text, expected);
    let text = hybondctl(&daemon.socket(), &["reserve", "web-1", "--to", "node2", "--cancel"]).ok();
    assert_eq!(text, "node2 holds no VF for web-1 any more\n");
    assert!(matches!(
        &daemon.requests()[..],
        [Request::Reserve { seconds: 60, .. }, Request::CancelReservation { .. }]
    ));

    let Response::Pools { mut pools } = pools() else {
        panic!("pools")
    };
    pools[0].vfs[0].reserved = Some(ReservationStatus {
        domain: web().id,
        name: "web-2".to_owned(),
        mac: web().pairs[1].mac,
        by: "node1".to_owned(),
        until_ms: u64::MAX,
    });
    pools[0].waiting = vec![LeaseStatus {
        domain: web().id,
        name: "db-1".to_owned(),
        mac: web().pairs[1].mac,
    }];
    let daemon = Daemon::answering(vec![vec![Response::Pools { pools }]]);
    let text = hybondctl(&daemon.socket(), &["pool"]).ok();
    assert!(text.contains("reserved for web-2 52:54:00:aa:00:02, "), "{text}");
    assert!(
        text.contains("\n10GE: 0 of 2 free; waiting, the longest first: db-1 52:54:00:aa:00:02\n"),
        "{text}"
    );
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    for (kind, code, name) in [
        (ErrorKind::Failed, 1, "failed"),
        (ErrorKind::Invalid, 2, "usage"),
        (ErrorKind::NotFound, 3, "not-found"),
        (ErrorKind::Refused, 4, "refused"),
    ] {
        let error = Response::Error {
            kind,
            message: "domain web-1 is migrating; wait for it".to_owned(),
        };
        let daemon = Daemon::answering(vec![vec![error.clone()], vec![error]]);
        let outcome = hybondctl(&daemon.socket(), &["plug", "web-1"]);
        outcome.assert_failed(code, "hybondctl: domain web-1 is migrating; wait for it");
        assert_eq!(outcome.stdout, "");
        let outcome = hybondctl(&daemon.socket(), &["plug", "web-1", "--json"]);
        assert_eq!(outcome.json()["error"]["kind"], name);
        assert_eq!(
            outcome.json()["error"]["message"],
            "domain web-1 is migrating; wait for it"
        );
    }
}

#[test]
fn a_daemon_that_is_not_there_or_not_well_is_said_to_be_so() {
    let outcome = hybondctl(Path::new("/nonexistent/control.sock"), &["status"]);
    outcome.assert_failed(5, "hybondd is not running on this host");
    outcome.assert_failed(5, "systemctl start hybondd");
    for (bytes, words) in [
        (&b""[..], "closed the connection without an answer"),
        (b"{\"type\":\"surprise\"}\n", "does not understand"),
        (
            b"{\"type\":\"done\",\"message\":\"?\"}\n",
            "answered something else than was asked",
        ),
    ] {
        let daemon = Daemon::sending(vec![bytes.to_vec()]);
        hybondctl(&daemon.socket(), &["status"]).assert_failed(5, words);
    }
    let endless = Daemon::sending(vec![vec![b'x'; 4 * 1024 * 1024 + 2]]);
    hybondctl(&endless.socket(), &["status"]).assert_failed(5, "does not understand");
}

#[test]
fn a_daemon_that_says_nothing_is_not_waited_for_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock");
    // It takes the connection into its backlog and never looks.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let outcome = hybondctl(&socket, &["drain", "web-1", "--timeout", "1"]);
    outcome.assert_failed(5, "hybondd has not answered within 1 s");
}

fn run() -> Run {
    Run {
        id: "6f1c".to_owned(),
        kind: "migration-in".to_owned(),
        started_ms: 1_795_254_123_000,
        phases: vec![
            phase("lease", 1_795_254_123_000.0, Some(1_795_254_123_002.5)),
            phase("drain-source", 1_795_254_123_002.5, Some(1_795_254_123_600.0)),
            Phase {
                detail: Some("0000:01:10.2 <on> \u{1b}[31menp1s0f0".to_owned()),
                ..phase("plug", 1_795_254_123_600.0, Some(1_795_254_124_000.0))
            },
        ],
        outcome: Some("ok".to_owned()),
    }
}

#[test]
fn the_timeline_shows_where_the_time_went() {
    let answer = Response::Timeline { runs: vec![run()] };
    let daemon = Daemon::answering(vec![
        vec![answer.clone()],
        vec![answer],
        vec![Response::Timeline { runs: Vec::new() }],
    ]);
    let picture = tempfile::tempdir().expect("a folder");
    let file = picture.path().join("t.svg");
    let path = file.to_str().expect("UTF-8");
    let text = hybondctl(&daemon.socket(), &["timeline", "web-1", "-n", "5", "--svg", path]).ok();
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("2026-11-21 09:42:03.000Z  migration-in  1000 ms  ok  (6f1c)")
    );
    assert_eq!(lines.next(), Some("  lease            +0.0 ms     2.5 ms  █"));
    assert!(
        lines
            .next()
            .expect("a phase")
            .starts_with("  drain-source     +2.5 ms     598 ms  ███")
    );
    assert!(
        lines
            .next()
            .expect("a phase")
            .ends_with("█  0000:01:10.2 <on>  [31menp1s0f0")
    );
    let svg = std::fs::read_to_string(&file).expect("a picture");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<rect x=").count(), 3);
    let json = hybondctl(&daemon.socket(), &["timeline", "web-1", "--json"]).json();
    assert_eq!(json["runs"][0]["phases"][1]["name"], "drain-source");
    let text = hybondctl(&daemon.socket(), &["timeline", "web-1"]).ok();
    assert_eq!(text, "nothing has happened to domain web-1 on this host yet\n");
    let (domain, limit) = ("web-1".to_owned(), 5);
    assert_eq!(daemon.requests()[0], Request::Timeline { domain, limit });
}

#[test]
fn the_help_teaches_and_the_command_line_is_checked() {
    let nowhere = Path::new("/nonexistent");
    let help = hybondctl(nowhere, &["--help"]).ok();
    for words in [
        "Examples:",
        "Exit codes:",
        "hybondctl enable web-1 --pool 10GE",
        "5  hybondd does not answer",
    ] {
        assert!(help.contains(words), "{help}");
    }
    assert!(!help.contains("generate"));
    for arguments in [
        &["drain"][..],
        &["enable", "web-1"],
        &["enable", "web-1", "--pool", "a b"],
        &["enable", "web-1", "--pool", "p", "--vlan", "4095"],
        &["enable", "web-1", "--pool", "p", "--mac", "ff:ff:ff:ff:ff:ff"],
        &["timeline", "web-1", "-n", "0"],
        &["drain", "web-1", "--all"],
        &["set", "web-1"],
        &["set", "web-1", "--policy", "sometimes"],
        &["save", "web-1"],
        &["reserve", "web-1", "--to", "node2", "--for", "0"],
        &["reserve", "web-1", "--to", "node2", "--for", "9", "--cancel"],
    ] {
        assert_eq!(hybondctl(nowhere, arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn manual_pages_and_completions_are_written_for_packages() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().to_str().expect("UTF-8");
    let nowhere = Path::new("/nonexistent");
    hybondctl(nowhere, &["generate", "man", at]).ok();
    hybondctl(nowhere, &["generate", "completions", at]).ok();
    for name in [
        "hybondctl.1",
        "hybondctl-migrate.1",
        "hybondctl.bash",
        "_hybondctl",
        "hybondctl.fish",
    ] {
        assert!(folder.path().join(name).metadata().expect(name).len() > 100, "{name}");
    }
    assert!(!folder.path().join("hybondctl-generate.1").exists());
    let outcome = hybondctl(nowhere, &["generate", "man", "/nonexistent/folder"]);
    outcome.assert_failed(1, "writing to /nonexistent/folder failed");
}
