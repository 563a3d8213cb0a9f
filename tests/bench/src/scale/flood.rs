//! A guest that floods its channel in every way that it can, beside others that want to be served.

use super::ends::End;
use hybond_core::ids::Mac;
use hybond_wire::agent::{FromAgent, LIMIT, PairState, Path as ActivePath, VERSION};
use hybond_wire::line;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;

/// What it floods with. Nothing is written faster than the daemon reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Bytes that are no messages.
    Rubbish,
    /// One line that never ends.
    Endless,
    /// Its pair's path, another one each time.
    Reports,
    /// The paths of pairs that are other guests'.
    Lies,
    /// Hellos of an agent that has just started, with other guests' NICs.
    Hellos,
    /// Nothing, and it reads nothing.
    Deaf,
}

/// Each of them.
pub const ALL: [Flood; 6] = [
    Flood::Rubbish,
    Flood::Endless,
    Flood::Reports,
    Flood::Lies,
    Flood::Hellos,
    Flood::Deaf,
];

/// Writes one piece of what the guest floods with now, or waits until it floods with something else.
///
/// # Errors
/// The daemon has closed the channel.
pub async fn write(
    flood: &mut watch::Receiver<Option<Flood>>,
    end: &Rc<RefCell<End>>,
    out: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let now = *flood.borrow_and_update();
    match now {
        None | Some(Flood::Deaf) => {
            // The sender is in the end, which outlives its connections.
            if flood.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            // What was cut off in the midst of a line ends there.
            out.write_all(b"\n").await
        }
        Some(kind) => {
            let bytes = piece(kind, end).map_err(io::Error::other)?;
            out.write_all(&bytes).await?;
            // Whoever else is on this thread has its turn.
            tokio::task::yield_now().await;
            Ok(())
        }
    }
}

fn piece(kind: Flood, end: &Rc<RefCell<End>>) -> Result<Vec<u8>, line::LineError> {
    let state = end.borrow().state();
    let other = |n: u8| Mac::from_octets([0x52, 0x54, 0, 0xbb, 0, n]).unwrap_or(state.mac);
    match kind {
        Flood::Rubbish => Ok((0..4096u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()),
        Flood::Endless | Flood::Deaf => Ok(vec![b'x'; 4096]),
        Flood::Reports => {
            let paths = [ActivePath::Primary, ActivePath::Standby].repeat(16);
            let report = |active| {
                line::encode(
                    &FromAgent::State {
                        state: PairState {
                            active,
                            ..state.clone()
                        },
                    },
                    LIMIT,
                )
            };
            paths
                .into_iter()
                .map(report)
                .collect::<Result<Vec<_>, _>>()
                .map(|lines| lines.concat())
        }
        Flood::Lies => {
            let lie = |n| {
                let state = PairState {
                    mac: other(n),
                    active: ActivePath::None,
                    ..state.clone()
                };
                line::encode(&FromAgent::State { state }, LIMIT)
            };
            (0..32)
                .map(lie)
                .collect::<Result<Vec<_>, _>>()
                .map(|lines| lines.concat())
        }
        Flood::Hellos => {
            let pairs = (0..12)
                .map(|n| PairState {
                    mac: other(n),
                    ..state.clone()
                })
                .collect();
            let agent = "x".repeat(100);
            line::encode(
                &FromAgent::Hello {
                    id: u64::MAX,
                    version: VERSION,
                    agent,
                    pairs,
                },
                LIMIT,
            )
        }
    }
}
