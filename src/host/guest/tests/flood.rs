//! Guests that mean harm: what they cost is bounded, and no other guest waits for it. All links of a test share one thread,
//! as those of the daemon share two.

mod common;

use common::*;
use hybond_core::ids::Mac;
use hybond_guest::{GuestEvent, Pace};
use hybond_wire::agent::{FromAgent, PairState, Path, ToAgent};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What the host's side gives out at once, and each second after that.
const BURST: usize = 128;
const PER_SECOND: usize = 10;
/// What the kernel holds between both ends, at most.
const SOCKETS: usize = 512 * 1024;
/// Requests to the other guest.
const ASKED: usize = 200;

/// Writes the same until told to end; gives how many bytes the host has taken, of which it may take so many.
fn flood(mut port: Port, bytes: Vec<u8>, mut end: oneshot::Receiver<()>) -> JoinHandle<Port> {
    tokio::spawn(async move {
        let begun = Instant::now();
        let mut taken = 0;
        loop {
            tokio::select! {
                written = port.write_some(&bytes) => taken += written,
                _ = &mut end => break,
            }
        }
        let seconds = usize::try_from(begun.elapsed().as_secs()).expect("few") + 1;
        assert!(
            taken < SOCKETS + 256 * 1024 + seconds * 32 * 1024,
            "{taken} bytes in {seconds} s"
        );
        port
    })
}

fn line(message: &FromAgent) -> Vec<u8> {
    (serde_json::to_string(message).expect("message") + "\n").into_bytes()
}

fn stranger(n: u32) -> PairState {
    let [a, b, c, d] = n.to_be_bytes();
    PairState {
        mac: Mac::from_octets([0x02, a, b, c, d, 1]).expect("unicast"),
        ..state(1, Path::Primary)
    }
}

/// Floods, and asks another guest meanwhile; gives what the daemon is told of the one that floods.
async fn flooded(bytes: Vec<u8>) -> Vec<GuestEvent> {
    let (bad, good) = (Guest::new(), Guest::new());
    let (_bad_host, mut bad_events) = bad.host(Pace::default());
    let (good_host, mut good_events) = good.host(Pace::default());
    let mut bad_port = bad.accept().await;
    bad_port.greet(vec![]).await;
    assert_eq!(next(&mut bad_events).await, hello(vec![]));
    let mut good_port = good.accept().await;
    good_port.greet(vec![]).await;
    assert_eq!(next(&mut good_events).await, hello(vec![]));

    let (end, ended) = oneshot::channel();
    let begun = Instant::now();
    let flooding = flood(bad_port, bytes, ended);
    let agent = tokio::spawn(async move {
        for _ in 0..ASKED {
            let ToAgent::Announce { id, .. } = good_port.request().await else {
                panic!("no announce")
            };
            let state = state(1, Path::Primary);
            good_port.write(&FromAgent::Done { id, state }).await;
        }
    });
    let mut events = Vec::new();
    for _ in 0..ASKED {
        good_host
            .announce(mac(1), LONG)
            .await
            .expect("the other guest is served");
        while let Ok(event) = bad_events.try_recv() {
            events.push(*event);
        }
    }
    agent.await.expect("answered");
    assert!(!flooding.is_finished(), "the flood goes on all the while");
    // Until what it may send at once is used up.
    while let Ok(Some(event)) = timeout(Duration::from_millis(500), bad_events.recv()).await {
        events.push(*event);
        if events.len() > 2 * BURST {
            break;
        }
    }
    end.send(()).expect("it listens");
    flooding.await.expect("flooded");
    let seconds = usize::try_from(begun.elapsed().as_secs()).expect("few") + 1;
    assert!(
        events.len() <= BURST + seconds * PER_SECOND,
        "{} events in {seconds} s",
        events.len()
    );
    events
}

fn complaints(events: &[GuestEvent]) -> usize {
    events
        .iter()
        .filter(|e| matches!(e, GuestEvent::Misbehaves { .. }))
        .count()
}

#[tokio::test]
async fn garbage_is_read_slowly_and_mentioned_once() {
    let events = flooded(vec![0xa5; 4096]).await;
    assert_eq!((complaints(&events), events.len()), (1, 1), "{events:?}");
}

#[tokio::test]
async fn rubbish_in_lines_is_mentioned_once() {
    let events = flooded(b"{\"type\":\"reboot-the-host\"}\n".repeat(100)).await;
    assert_eq!((complaints(&events), events.len()), (1, 1), "{events:?}");
}

#[tokio::test]
async fn an_agent_that_says_hello_all_day_is_heard_now_and_then_and_answered_seldom() {
    let again = FromAgent::Hello {
        id: 0,
        version: 1,
        agent: "0.1.0".into(),
        pairs: vec![state(1, Path::Primary)],
    };
    let events = flooded(line(&again).repeat(50)).await;
    let hellos = events
        .iter()
        .filter(|event| matches!(event, GuestEvent::AgentHello { .. }));
    // It sends more than its budget, which is mentioned.
    assert!(
        hellos.count() + complaints(&events) == events.len() && complaints(&events) <= 1,
        "{events:?}"
    );
}

#[tokio::test]
async fn a_guest_with_thousands_of_nics_has_the_pairs_of_its_xml() {
    // Twenty a line is what a line takes, and so it says them in many.
    let lines: Vec<u8> = (0..200)
        .flat_map(|n| {
            line(&FromAgent::Hello {
                id: 0,
                version: 1,
                agent: "0.1.0".into(),
                pairs: (0..20).map(|m| stranger(20 * n + m)).collect(),
            })
        })
        .collect();
    let events = flooded(lines).await;
    for event in &events {
        match event {
            GuestEvent::AgentHello { pairs, .. } => assert!(pairs.is_empty(), "{pairs:?}"),
            GuestEvent::Misbehaves { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let states: Vec<u8> = (0..1000)
        .flat_map(|n| line(&FromAgent::State { state: stranger(n) }))
        .collect();
    let events = flooded(states).await;
    assert_eq!((complaints(&events), events.len()), (1, 1), "{events:?}");
}

#[tokio::test]
async fn a_guest_that_asks_for_hellos_and_reads_none_is_written_few() {
    let guest = Guest::new();
    let (_host, mut events) = guest.host(BRIEF);
    let mut port = guest.accept().await;
    port.greet(vec![]).await;
    assert_eq!(next(&mut events).await, hello(vec![]));
    let again = line(&FromAgent::Hello {
        id: 0,
        version: 1,
        agent: "0.1.0".into(),
        pairs: vec![],
    });
    let draining = tokio::spawn(async move { while events.recv().await.is_some() {} });
    let (end, ended) = oneshot::channel();
    let begun = Instant::now();
    let flooding = flood(port, again, ended);
    tokio::time::sleep(Duration::from_secs(1)).await;
    end.send(()).expect("it listens");
    let mut port = flooding.await.expect("flooded");
    // One for each of the shortest pauses.
    let most = begun.elapsed().as_millis() / BRIEF.first.as_millis() + 2;
    let mut unread = 0;
    while let Ok(Ok(Some(_))) = timeout(Duration::from_millis(10), port.lines.next_line()).await {
        unread += 1;
    }
    assert!((1..=most).contains(&unread), "{unread} hellos, {most} are allowed");
    draining.abort();
}
