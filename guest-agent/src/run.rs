//! The loop.

use crate::agent::Agent;
use crate::cli::Options;
use crate::kernel::Kernel;
use crate::model::View;
use crate::port::{Incoming, Port, unplugged};
use crate::state::{DIRECTORY, StateDir};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Instant;

/// Actions between two looks at what happens outside. A takeover has seven for each pair.
const ACTIONS_MAX: usize = 200;
/// How long the service manager waits, in milliseconds, before it goes on with the network: for the first hello, and where
/// there was one, for the pairs' NICs to appear and be named.
const HELLO_WITHIN: u64 = 2_000;
const READY_WITHIN: u64 = 20_000;

const LINKS: u64 = 0;
const PORT: u64 = 1;
const UEVENTS: u64 = 2;

struct Loop {
    agent: Agent,
    kernel: Kernel,
    view: View,
    epoll: Epoll,
    port: Option<Port>,
    path: Option<PathBuf>,
    uevents: Option<OwnedFd>,
    state: StateDir,
    started: Instant,
    ready: bool,
}

/// Runs until it is killed, which it may be at any time.
pub fn run(options: &Options) -> Result<(), String> {
    let directory = options.state.as_deref().unwrap_or(DIRECTORY);
    let state = StateDir::open(directory).map_err(|e| format!("cannot make {directory}: {e}"))?;
    load_bonding();
    let open = || -> Result<(Kernel, Epoll), Errno> {
        let kernel = Kernel::open(state.clone(), true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(kernel.events(), EpollEvent::new(EpollFlags::EPOLLIN, LINKS))?;
        Ok((kernel, epoll))
    };
    let (kernel, epoll) = open().map_err(|e| format!("cannot open a netlink socket: {}", e.desc()))?;
    let mut new = Loop {
        agent: Agent::new(options.named.clone(), state.host()),
        kernel,
        view: View::default(),
        epoll,
        port: None,
        path: options.port.as_ref().map(PathBuf::from),
        uevents: None,
        state,
        started: Instant::now(),
        // Without a service manager there is nobody to tell, and nothing to wake up for.
        ready: std::env::var_os("NOTIFY_SOCKET").is_none(),
    };
    new.kernel
        .look(&mut new.view)
        .map_err(|e| format!("cannot list the links: {}", e.desc()))?;
    new.open_port()?;
    loop {
        new.turn()?;
    }
}

impl Loop {
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Does what there is to do, then sleeps.
    fn turn(&mut self) -> Result<(), String> {
        let more = self.read_port();
        let now = self.now();
        let look_again = self.kernel.settle(&mut self.view, now);
        let announced = std::mem::take(&mut self.view.announced);
        self.agent.announced(&self.view, &announced, now);
        let settled = self.act();
        self.write_port();
        self.tell_ready();
        let wait = if more || !settled {
            Some(self.now() + 10)
        } else {
            self.deadline().into_iter().chain(look_again).min()
        };
        let timeout = match wait {
            None => EpollTimeout::NONE,
            // One more: what is due within this millisecond is not due yet.
            Some(at) => {
                EpollTimeout::try_from(at.saturating_sub(self.now()).min(60_000) + 1).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut events = [EpollEvent::empty(); 4];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(format!("epoll: {}", error.desc())),
        };
        for event in events.iter().take(count) {
            match event.data() {
                LINKS => {
                    self.kernel
                        .hear(&mut self.view)
                        .map_err(|e| format!("cannot hear of links: {}", e.desc()))?;
                }
                UEVENTS => self.look_for_port()?,
                // Read in the next turn, whatever the event says.
                _ => {}
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Option<u64> {
        let ready = (!self.ready).then(|| self.ready_at());
        self.agent.deadline().into_iter().chain(ready).min()
    }

    /// Carries out actions until there is none; false if there seems to be no end to them.
    fn act(&mut self) -> bool {
        for _ in 0..ACTIONS_MAX {
            let now = self.now();
            let Some(action) = self.agent.next(&self.view, now) else {
                return true;
            };
            let result = self.kernel.execute(&mut self.view, &action);
            let now = self.now();
            self.agent.done(&action, result, now);
        }
        log!(
            error,
            "{ACTIONS_MAX} actions and no end: does something else change the bond?"
        );
        false
    }

    fn read_port(&mut self) -> bool {
        let now = self.now();
        let Some(port) = &mut self.port else {
            return false;
        };
        let agent = &mut self.agent;
        let mut named = false;
        let result = port.read(|incoming| match incoming {
            Incoming::Message(message) => {
                named |= matches!(message, hybond_wire::agent::ToAgent::Hello { .. });
                agent.host(message, now);
            }
            Incoming::NotUnderstood(id, reason) => agent.not_understood(id, reason),
            Incoming::Gone => agent.host_gone(),
        });
        if named {
            if let Err(error) = self.state.keep_host(self.agent.host_pairs().unwrap_or_default()) {
                log!(
                    warning,
                    "what the host named is not kept for a restart of the agent: {error}"
                );
            }
        }
        result.unwrap_or_else(|error| {
            self.lost(&error);
            false
        })
    }

    fn write_port(&mut self) {
        if let Some(port) = &mut self.port {
            if let Err(error) = port.write(self.agent.output()) {
                self.lost(&error);
            }
        }
    }

    fn lost(&mut self, error: &std::io::Error) {
        if unplugged(error) {
            log!(warning, "the port to the host was unplugged");
        } else {
            log!(error, "the port to the host: {error}");
        }
        self.agent.host_gone();
        // Closing takes it out of the epoll, too.
        self.port = None;
        if let Err(reason) = self.open_port() {
            log!(error, "{reason}");
        }
    }

    /// Opens the port, or waits for one to be plugged.
    fn open_port(&mut self) -> Result<(), String> {
        if let Some(path) = self.path.clone().or_else(Port::find) {
            match Port::open(&path) {
                Ok(port) => {
                    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                    self.epoll
                        .add(port.file(), EpollEvent::new(flags, PORT))
                        .map_err(|e| format!("{} cannot be waited for: {}", path.display(), e.desc()))?;
                    self.port = Some(port);
                    self.uevents = None;
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    return Err(format!("{} is in use: another agent runs", path.display()));
                }
                Err(error) => log!(warning, "{}: {error}", path.display()),
            }
        } else if self.uevents.is_none() {
            log!(
                warning,
                "no port org.hybond.agent.0: going by the links alone until one is plugged"
            );
        }
        if self.uevents.is_none() {
            self.uevents = Some(
                self.watch_uevents()
                    .map_err(|e| format!("cannot wait for a port: {}", e.desc()))?,
            );
        }
        Ok(())
    }

    fn watch_uevents(&self) -> Result<OwnedFd, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        self.epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, UEVENTS))?;
        Ok(fd)
    }

    fn look_for_port(&mut self) -> Result<(), String> {
        let mut buffer = [0u8; 4096];
        let mut plugged = false;
        while let Some(fd) = &self.uevents {
            match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => plugged |= contains(&buffer[..length], b"SUBSYSTEM=virtio-ports"),
                // Some were lost: it may have been among them.
                Err(Errno::ENOBUFS) => plugged = true,
                Err(_) => break,
            }
        }
        if plugged { self.open_port() } else { Ok(()) }
    }

    fn ready_at(&self) -> u64 {
        if self.agent.greeted() {
            READY_WITHIN
        } else {
            HELLO_WITHIN
        }
    }

    /// Tells systemd once that the network may be configured: the bonds are there, or no host says that there are any.
    fn tell_ready(&mut self) {
        let nobody = !self.agent.greeted() && self.port.as_ref().is_none_or(Port::nobody);
        if self.ready || !(nobody || self.agent.settled(&self.view) || self.now() >= self.ready_at()) {
            return;
        }
        self.ready = true;
        if let (Some(path), Ok(socket)) = (std::env::var_os("NOTIFY_SOCKET"), UnixDatagram::unbound()) {
            if let Err(error) = socket.send_to(b"READY=1", path) {
                log!(warning, "systemd was not told that the agent is ready: {error}");
            }
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Loads the bonding module before a takeover has to wait for it, and without the bond0 that it makes by default. A
/// kernel with bonding built in, or one that will load it by itself, needs no help.
fn load_bonding() {
    if std::path::Path::new("/sys/module/bonding").exists() {
        return;
    }
    let modprobe = std::process::Command::new("modprobe")
        .args(["bonding", "max_bonds=0"])
        .status();
    if !modprobe.is_ok_and(|status| status.success()) {
        log!(warning, "modprobe bonding failed: leaving it to the kernel");
    }
}
