//! The connection, and one bounded request on it.

use crate::{Change, Error, Link, Result};
use futures::{StreamExt, TryStreamExt};
use hybond_core::ids::IfName;
use nix::libc;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, LinkGetRequest, LinkUnspec};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest wait for one answer. The kernel holds RTNL while a card resets, which takes seconds on real ones.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How often a listing is begun again because devices came or went during it.
const LISTINGS: u32 = 10;

/// A connection to the kernel's rtnetlink, in the network namespace of the thread that made it. Clones share it.
#[derive(Clone)]
pub struct Netlink {
    connection: Arc<Mutex<Option<Connection>>>,
    /// Held while standbys and their VLAN sub-interfaces come and go: a sub-interface may be shared, and must not be
    /// removed by one caller between another's look and its use of it.
    pub(crate) shared_lowers: Arc<tokio::sync::Mutex<()>>,
    /// Sends announcements, or why there are none. Open for good: closing it waits for every CPU (`synchronize_net()` in
    /// `packet_release()`), and a guest's traffic would wait for that.
    pub(crate) frames: Arc<nix::Result<OwnedFd>>,
}

struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    fn open() -> Result<Self> {
        let (connection, handle, unsolicited) = rtnetlink::new_connection().map_err(Error::Socket)?;
        // No group is joined, so nothing unsolicited is expected; with its receiver gone the connection keeps none.
        drop(unsolicited);
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }
}

impl Netlink {
    /// Connects, and spawns the connection's task on the current tokio runtime.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn new() -> Result<Self> {
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(Connection::open()?))),
            shared_lowers: Arc::default(),
            frames: Arc::new(hybond_announce::open()),
        })
    }

    /// The device of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Timeout`].
    pub async fn link(&self, name: &IfName) -> Result<Option<Link>> {
        let found = self
            .request(format!("look up {name}"), |handle| async move {
                let get = without_counters(handle.link().get()).match_name(name.to_string());
                pin!(get.execute()).try_next().await
            })
            .await;
        Self::found(found)
    }

    /// The device of that index, if there is one.
    pub(crate) async fn link_at(&self, index: u32) -> Result<Option<Link>> {
        let found = self
            .request(format!("look up device {index}"), |handle| async move {
                let get = without_counters(handle.link().get()).match_index(index);
                pin!(get.execute()).try_next().await
            })
            .await;
        Self::found(found)
    }

    fn found(answer: Result<Option<LinkMessage>>) -> Result<Option<Link>> {
        match answer {
            Ok(message) => Ok(message.as_ref().and_then(Link::from_message)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The device of that name, which must be there.
    pub(crate) async fn required(&self, name: &IfName) -> Result<Link> {
        let found = self.link(name).await?;
        found.ok_or_else(|| Error::NoLink { name: name.clone() })
    }

    /// All devices, by index. Those whose name is not one of ours to handle (not UTF-8) are left out.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Timeout`].
    pub async fn links(&self) -> Result<Vec<Link>> {
        let doing = || "list network devices".to_owned();
        for _ in 0..LISTINGS {
            let (links, is_whole) = self.request(doing(), list).await?;
            if is_whole {
                return Ok(links);
            }
        }
        Err(Error::Kernel {
            doing: doing(),
            source: io::Error::other(format!("they changed during each of {LISTINGS} listings")),
        })
    }

    /// Removes a device, whatever its kind; [`Change::AlreadyThere`] if there is none of that name.
    ///
    /// # Errors
    /// [`Error::Kernel`] if it cannot be removed, such as a physical one.
    pub async fn remove_link(&self, name: &IfName) -> Result<Change> {
        match self.link(name).await? {
            Some(link) => self.remove(&link).await,
            None => Ok(Change::AlreadyThere),
        }
    }

    pub(crate) async fn remove(&self, link: &Link) -> Result<Change> {
        let index = link.index;
        let removed = self
            .request(format!("remove {}", link.name), |handle| async move {
                handle.link().del(index).execute().await
            })
            .await;
        match removed {
            Ok(()) => Ok(Change::Made),
            // It went away between the look and this, for example with its lower device.
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(Change::AlreadyThere),
            Err(error) => Err(error),
        }
    }

    /// Sets a device up or down. Reading back is the caller's, who knows what else to look for.
    pub(crate) async fn set_link_up(&self, link: &Link, up: bool) -> Result<()> {
        let change = LinkUnspec::new_with_index(link.index);
        let change = if up { change.up() } else { change.down() };
        let doing = format!("set {} {}", link.name, if up { "up" } else { "down" });
        self.change_link(doing, change.build()).await
    }

    /// Changes a device by its index (by name and index at once, some kinds apply half and answer EBUSY).
    pub(crate) async fn change_link(&self, doing: String, message: LinkMessage) -> Result<()> {
        self.request(
            doing,
            |handle| async move { handle.link().set(message).execute().await },
        )
        .await
    }

    /// One request with a limit of time. A connection that let a request time out, or has ended, is not used again.
    pub(crate) async fn request<T, F>(&self, doing: String, send: impl FnOnce(Handle) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, rtnetlink::Error>>,
    {
        let handle = self.handle()?;
        match tokio::time::timeout(TIMEOUT, send(handle)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(rtnetlink::Error::NetlinkError(message))) => Err(Error::Kernel {
                doing,
                source: message.to_io(),
            }),
            Ok(Err(_)) => {
                self.disconnect();
                Err(Error::Lost { doing })
            }
            Err(_) => {
                self.disconnect();
                Err(Error::Timeout { doing, after: TIMEOUT })
            }
        }
    }

    fn handle(&self) -> Result<Handle> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = slot.as_ref().filter(|connection| !connection.task.is_finished());
        if let Some(connection) = alive {
            return Ok(connection.handle.clone());
        }
        let connection = Connection::open()?;
        let handle = connection.handle.clone();
        *slot = Some(connection);
        Ok(handle)
    }

    /// Other requests under way on the same connection fail with [`Error::Lost`]; every effect may be repeated.
    fn disconnect(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Nobody here reads a device's counters: to print and to parse them is most of what an answer costs kernel and daemon
/// (`RTEXT_FILTER_SKIP_STATS`, Linux 4.4; older ones send them all the same).
const NO_COUNTERS: [LinkExtentMask; 1] = [LinkExtentMask::SkipStats];

fn without_counters(get: LinkGetRequest) -> LinkGetRequest {
    get.set_filter_mask(AddressFamily::Unspec, NO_COUNTERS.to_vec())
}

/// Lists devices. The kernel marks what it sends once devices have come or gone meanwhile: then some may be missing.
async fn list(mut handle: Handle) -> std::result::Result<(Vec<Link>, bool), rtnetlink::Error> {
    let mut what = LinkMessage::default();
    what.attributes.push(LinkAttribute::ExtMask(NO_COUNTERS.to_vec()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(what));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = handle.request(request)?;
    let mut links = Vec::new();
    let mut is_whole = true;
    while let Some(answer) = answers.next().await {
        is_whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                links.extend(Link::from_message(&message));
            }
            NetlinkPayload::Error(error) => return Err(rtnetlink::Error::NetlinkError(error)),
            _ => {}
        }
    }
    links.sort_by_key(|link| link.index);
    Ok((links, is_whole))
}
