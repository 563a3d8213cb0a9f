//! Link events.

use crate::{Error, Link, Netlink, Result};
use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use hybond_core::ids::IfName;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::SocketAddr;
use tokio::sync::mpsc;

/// How many events may wait for their reader.
const QUEUE: usize = 256;

/// A change of a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is new, or changed; what it is now.
    Changed(Link),
    /// It is gone.
    Removed {
        /// Its last name.
        name: IfName,
        /// Its index.
        index: u32,
    },
    /// Events were lost. Look at everything again.
    Resync,
}

impl Netlink {
    /// Events of all devices from now on. A reader that is too slow loses some, and is told by [`LinkEvent::Resync`].
    /// The channel closes if the kernel's socket fails; then call this again, and look at everything.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn watch(&self) -> Result<mpsc::Receiver<LinkEvent>> {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(Error::Socket)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let connection = tokio::spawn(connection);
        tokio::spawn(async move {
            forward(messages, sender).await;
            connection.abort();
            // The connection ends when its last handle does; it must not before.
            drop(handle);
        });
        Ok(receiver)
    }
}

/// Moves events to the bounded queue without ever waiting for its reader, so that the unbounded one below stays empty.
async fn forward(
    mut messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    sender: mpsc::Sender<LinkEvent>,
) {
    let mut lost = false;
    loop {
        let message = tokio::select! {
            () = sender.closed() => return,
            // Once there is room again, the reader learns that it was too slow.
            permit = sender.reserve(), if lost => match permit {
                Ok(permit) => {
                    permit.send(LinkEvent::Resync);
                    lost = false;
                    continue;
                }
                Err(_) => return,
            },
            message = messages.next() => message,
        };
        let Some((message, _)) = message else { return };
        let Some(event) = event(&message.payload) else { continue };
        // While something is lost, later events are too: what the reader finds by looking is newer than they are.
        if !lost && sender.try_send(event).is_err() {
            lost = true;
        }
    }
}

fn event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<LinkEvent> {
    // A bridge announces its ports in messages of its own family, whose RTM_DELLINK says that a port has left it.
    let is_of_a_device = |message: &LinkMessage| message.header.interface_family == AddressFamily::Unspec;
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) if is_of_a_device(message) => {
            Link::from_message(message).map(LinkEvent::Changed)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) if is_of_a_device(message) => {
            Link::from_message(message).map(|link| LinkEvent::Removed {
                name: link.name,
                index: link.index,
            })
        }
        // ENOBUFS: the kernel had more than the socket could hold.
        NetlinkPayload::Overrun(_) => Some(LinkEvent::Resync),
        _ => None,
    }
}
