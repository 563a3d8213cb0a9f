//! The link against guests that answer, lie, shout, die and come back.

mod common;

use common::*;
use hybond_guest::{GuestError, GuestEvent, Pace};
use hybond_wire::agent::{FromAgent, Path, ToAgent, VERSION};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn an_agent_that_starts_late_is_greeted_again_and_then_obeys() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(BRIEF);
    let mut port = guest.accept().await;
    assert!(matches!(port.read().await, ToAgent::Hello { .. }));
    assert!(matches!(
        host.failover(mac(1), 0, LONG).await,
        Err(GuestError::NoAgent { .. })
    ));
    port.greet(vec![state(1, Path::Primary)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Primary)]));

    let asking = tokio::spawn({
        let host = host.clone();
        async move { host.failover(mac(1), 250, LONG).await }
    });
    let request = port.request().await;
    let ToAgent::Failover {
        id,
        mac: pair,
        overlap_ms,
    } = request
    else {
        panic!("{request:?}")
    };
    assert_eq!((pair, overlap_ms), (mac(1), 250));
    let done = state(1, Path::Standby);
    port.write(&FromAgent::Done {
        id,
        state: done.clone(),
    })
    .await;
    assert_eq!(asking.await.expect("task"), Ok(done.clone()));
    assert_eq!(next(&mut events).await, GuestEvent::State(done));
}

#[tokio::test]
async fn an_agent_at_work_is_not_greeted_because_it_would_forget_whom_to_answer() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(BRIEF);
    let mut port = guest.accept().await;
    port.greet(vec![state(1, Path::Primary)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Primary)]));

    let asked = tokio::spawn(async move {
        let answer = host.failover(mac(1), 300, LONG).await;
        (answer, host)
    });
    let ToAgent::Failover { id, .. } = port.request().await else {
        panic!("not what was asked for")
    };
    // The switch takes longer than the agent is left in peace at other times.
    let meanwhile = timeout(BRIEF.keepalive * 10, port.lines.next_line()).await;
    assert!(meanwhile.is_err(), "{meanwhile:?}");
    let done = state(1, Path::Standby);
    port.write(&FromAgent::Done {
        id,
        state: done.clone(),
    })
    .await;
    let (answer, _host) = asked.await.expect("asked");
    assert_eq!(answer, Ok(done.clone()));
    port.greet(vec![done]).await;
}

#[tokio::test]
async fn a_refusal_carries_the_guests_words_and_a_late_answer_is_only_a_report() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(Pace::default());
    let mut port = guest.accept().await;
    port.greet(vec![]).await;
    assert_eq!(next(&mut events).await, hello(vec![]));

    let host_2 = host.clone();
    let refused = tokio::spawn(async move { host_2.failback(mac(2), 0, LONG).await });
    let ToAgent::Failback { id, .. } = port.request().await else {
        panic!("no failback")
    };
    let reason = "no primary\u{1b}[2J".to_owned();
    port.write(&FromAgent::Failed { id, reason }).await;
    let error = refused.await.expect("task").expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the agent refused to fail back pair 52:54:00:aa:00:02: no primary [2J"
    );

    let brief = Duration::from_millis(50);
    let late = host.announce(mac(1), brief).await;
    assert!(matches!(late, Err(GuestError::Timeout { after, .. }) if after == brief));
    let ToAgent::Announce { id, .. } = port.request().await else {
        panic!("no announce")
    };
    let report = state(1, Path::Primary);
    port.write(&FromAgent::Done {
        id,
        state: report.clone(),
    })
    .await;
    assert_eq!(next(&mut events).await, GuestEvent::State(report));
}

#[tokio::test]
async fn a_restarted_agent_is_told_its_pairs_and_a_dead_one_is_missed() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(BRIEF);
    let mut port = guest.accept().await;
    port.greet(vec![state(1, Path::Primary)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Primary)]));

    // Restarted in the middle of a line, it says hello without having been asked.
    port.raw(b"{\"type\":\"sta").await;
    port.raw(b"\n").await;
    assert!(matches!(next(&mut events).await, GuestEvent::Misbehaves { .. }));
    let agent = "0.1.0".to_owned();
    port.write(&FromAgent::Hello {
        id: 0,
        version: 1,
        agent,
        pairs: vec![],
    })
    .await;
    assert_eq!(next(&mut events).await, hello(vec![]));
    port.greet(vec![state(2, Path::Standby)]).await;
    assert_eq!(next(&mut events).await, GuestEvent::State(state(2, Path::Standby)));

    // Then it answers no more.
    assert_eq!(next(&mut events).await, GuestEvent::AgentGone);
    assert_eq!(host.agent(), None);
    assert!(matches!(
        host.failover(mac(1), 0, LONG).await,
        Err(GuestError::NoAgent { .. })
    ));
}

#[tokio::test]
async fn an_agent_of_another_release_is_spoken_to_in_the_lower_version_and_one_of_version_0_is_none() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(BRIEF);
    let mut port = guest.accept().await;
    for (version, understood) in [(0, None), (VERSION + 1, Some(VERSION))] {
        let ToAgent::Hello { id, .. } = port.read().await else {
            panic!("no hello")
        };
        let (agent, pairs) = ("0.0.1".to_owned(), vec![]);
        port.write(&FromAgent::Hello {
            id,
            version,
            agent,
            pairs,
        })
        .await;
        match next(&mut events).await {
            GuestEvent::Misbehaves { what } if version == 0 => assert!(what.contains("version 0"), "{what}"),
            GuestEvent::AgentHello { agent, .. } => assert_eq!(Some(agent.version), understood),
            other => panic!("{other:?}"),
        }
        assert_eq!(host.agent().map(|agent| agent.version), understood);
    }
}

#[tokio::test]
async fn an_agent_whose_port_is_watched_is_left_alone_and_gone_once_it_is_closed() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(Pace {
        keepalive: LONG,
        ..BRIEF
    });
    let mut port = guest.accept().await;
    port.greet(vec![state(1, Path::Primary)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Primary)]));
    let meanwhile = timeout(BRIEF.longest * 5, port.lines.next_line()).await;
    assert!(meanwhile.is_err(), "{meanwhile:?}");

    // Reports may have been lost: it is still there.
    host.check();
    port.greet(vec![state(1, Path::Primary)]).await;
    assert!(host.agent().is_some());

    let asking = tokio::spawn({
        let host = host.clone();
        async move { host.failover(mac(1), 0, LONG).await }
    });
    port.request().await;
    host.closed();
    assert!(matches!(asking.await.expect("task"), Err(GuestError::Gone { .. })));
    assert_eq!(next(&mut events).await, GuestEvent::AgentGone);
    // And comes back.
    port.greet(vec![state(1, Path::Standby)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Standby)]));

    // Or hangs.
    host.check();
    assert_eq!(next(&mut events).await, GuestEvent::AgentGone);
}

#[tokio::test]
async fn a_guest_whose_cpus_have_not_run_yet_is_greeted_once_they_do_and_once() {
    let guest = Guest::new();
    let (host, mut events) = guest.host_of_arriving(Pace {
        keepalive: LONG,
        ..BRIEF
    });
    let mut port = guest.accept().await;
    // What QEMU tells of its port as it takes the guest's state over.
    host.hello();
    let meanwhile = timeout(BRIEF.longest * 5, port.lines.next_line()).await;
    assert!(meanwhile.is_err(), "{meanwhile:?}");

    assert!(host.awake(BRIEF.first));
    let ToAgent::Hello { id, .. } = port.read().await else {
        panic!("no hello")
    };
    // And tells again once they run.
    host.hello();
    port.answer_hello(id, vec![state(1, Path::Standby)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Standby)]));
    let meanwhile = timeout(BRIEF.longest * 5, port.lines.next_line()).await;
    assert!(meanwhile.is_err(), "{meanwhile:?}");
}

#[tokio::test]
async fn an_answer_that_arrives_after_its_agent_has_gone_is_not_taken_for_the_next_agents() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(Pace {
        keepalive: LONG,
        ..BRIEF
    });
    let mut port = guest.accept().await;
    port.greet(vec![state(1, Path::Primary)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Primary)]));

    host.closed();
    assert_eq!(next(&mut events).await, GuestEvent::AgentGone);
    port.answer_hello(1, vec![state(1, Path::Primary)]).await;
    port.greet(vec![state(1, Path::Standby)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Standby)]));
}

#[tokio::test]
async fn what_asks_while_qemu_goes_is_told_so_and_the_next_qemu_is_found() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(BRIEF);
    let mut port = guest.accept().await;
    port.greet(vec![]).await;
    assert_eq!(next(&mut events).await, hello(vec![]));
    let host_2 = host.clone();
    let asking = tokio::spawn(async move { host_2.failover(mac(1), 0, LONG).await });
    port.request().await;
    drop(port);
    assert!(matches!(asking.await.expect("task"), Err(GuestError::Gone { .. })));
    assert_eq!(next(&mut events).await, GuestEvent::AgentGone);
    let mut port = guest.accept().await;
    port.greet(vec![]).await;
    assert_eq!(next(&mut events).await, hello(vec![]));
    assert!(host.wait_for_agent(LONG).await.is_some());
}

#[tokio::test]
async fn a_guest_speaks_for_its_own_pairs_only() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(Pace::default());
    let mut port = guest.accept().await;
    port.greet(vec![state(9, Path::Primary), state(1, Path::Primary)]).await;
    assert_eq!(next(&mut events).await, hello(vec![state(1, Path::Primary)]));
    port.write(&FromAgent::State {
        state: state(9, Path::Standby),
    })
    .await;
    assert!(matches!(next(&mut events).await, GuestEvent::Misbehaves { .. }));
    assert_eq!(
        host.failover(mac(9), 0, LONG).await,
        Err(GuestError::UnknownPair { mac: mac(9) })
    );

    let asking = tokio::spawn(async move { host.failover(mac(1), 0, LONG).await });
    let ToAgent::Failover { id, .. } = port.request().await else {
        panic!("no failover")
    };
    port.write(&FromAgent::Done {
        id,
        state: state(2, Path::Standby),
    })
    .await;
    assert!(matches!(asking.await.expect("task"), Err(GuestError::Refused { .. })));
}

#[tokio::test]
async fn a_guest_that_shouts_costs_little_and_its_last_word_arrives() {
    let guest = Guest::new();
    let (_host, mut events) = guest.host(Pace::default());
    let mut port = guest.accept().await;
    port.greet(vec![]).await;
    assert_eq!(next(&mut events).await, hello(vec![]));

    // 400 changes and lines without end, faster than anyone reads.
    let shouting = tokio::spawn(async move {
        for n in 0..400 {
            let active = if n % 2 == 0 { Path::Primary } else { Path::Standby };
            port.write(&FromAgent::State {
                state: state(1, active),
            })
            .await;
        }
        port.raw(&[b'x'; 64 * 1024]).await;
        port.raw(b"\n").await;
        port.write(&FromAgent::State {
            state: state(1, Path::None),
        })
        .await;
        port
    });
    let mut seen = 0;
    let last = state(1, Path::None);
    loop {
        seen += 1;
        if next(&mut events).await == GuestEvent::State(last.clone()) {
            break;
        }
    }
    // 128 at once and 10 a second after that, so what was merged was most of it.
    assert!(seen < 300, "{seen} events");
    shouting.await.expect("task");
}

#[tokio::test]
async fn a_guest_that_does_not_read_is_not_written_to_for_ever() {
    let guest = Guest::new();
    let (host, mut events) = guest.host(Pace {
        answer: LONG,
        keepalive: LONG,
        ..BRIEF
    });
    let mut port = guest.accept().await;
    port.greet(vec![]).await;
    assert_eq!(next(&mut events).await, hello(vec![]));
    let brief = Duration::from_millis(2);
    for _ in 0..200 {
        let unread = host.failover(mac(1), 0, brief).await;
        assert!(matches!(unread, Err(GuestError::Timeout { .. })), "{unread:?}");
    }
    // What it finds when it reads again is what the socket took, not 200 orders of long ago.
    let asking = tokio::spawn(async move { host.announce(mac(2), LONG).await });
    let mut stale = 0;
    while matches!(port.request().await, ToAgent::Failover { .. }) {
        stale += 1;
    }
    assert!(stale < 50, "{stale} orders");
    asking.abort();
}
