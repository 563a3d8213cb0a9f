//! The calls.

use crate::call::{Caller, Failure, Lane};
use crate::error::LibvirtError;
use crate::event::{self, Events};
use crate::supervisor::{self, Link};
use crate::{DomainState, Job, capabilities, job, metadata, persistent, pidfile, state};
use hybond_core::ids::{DomainId, IfName, Mac, PeerAddr};
use hybond_core::spec::DomainSpec;
use hybond_domxml::PairChange;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

/// How libvirt is reached and how long it is waited for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `qemu:///system`.
    pub uri: String,
    /// For calls that only look.
    pub query: Duration,
    /// For calls that change a domain. libvirt itself lets them wait 30 s for the domain's other jobs.
    pub modify: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".into(),
            query: Duration::from_secs(5),
            modify: Duration::from_secs(35),
        }
    }
}

/// Which of a domain's two definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What runs.
    Live,
    /// What the next cold boot takes.
    Persistent,
}

impl Scope {
    /// Never `VIR_DOMAIN_XML_SECURE`: secrets are neither needed nor wanted here.
    pub(crate) fn xml_flags(self) -> sys::virDomainXMLFlags {
        match self {
            Self::Live => 0,
            Self::Persistent => sys::VIR_DOMAIN_XML_INACTIVE,
        }
    }

    pub(crate) fn impact(self) -> sys::virDomainModificationImpact {
        match self {
            Self::Live => sys::VIR_DOMAIN_AFFECT_LIVE,
            Self::Persistent => sys::VIR_DOMAIN_AFFECT_CONFIG,
        }
    }
}

/// libvirt on this host. Clones share one connection; it is closed when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Libvirt {
    caller: Arc<Caller>,
    link: Arc<Link>,
    settings: Arc<Settings>,
    _alive: mpsc::Sender<()>,
}

impl Libvirt {
    /// Starts to connect, and goes on for as long as a handle or a call is left; [`crate::LibvirtEvent::Connected`] tells
    /// when the connection stands. Must be called within a tokio runtime.
    #[must_use]
    pub fn spawn(settings: Settings) -> (Self, Events) {
        let (sink, events) = event::queue(event::QUEUE);
        let link = Arc::new(Link::new(&settings.uri));
        // Nothing is ever sent: the channel closes with the last handle.
        let (alive, handles) = mpsc::channel(1);
        tokio::spawn(supervisor::run(Arc::clone(&link), sink, handles));
        let handle = Self {
            caller: Arc::new(Caller::new(Arc::clone(&link))),
            link,
            settings: Arc::new(settings),
            _alive: alive,
        };
        (handle, events)
    }

    /// Whether the connection stands now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.session().is_ok()
    }

    /// Follows whether the connection stands.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.link.connected()
    }

    /// Why there is no connection; `None` while there is one.
    #[must_use]
    pub fn disconnected_because(&self) -> Option<String> {
        self.link.session().err()
    }

    /// Where libvirt is asked.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.link.uri()
    }

    /// Which of libvirt's daemons has this host's QEMUs now, `virtqemud` or `libvirtd`. `None` where neither runs, or libvirt
    /// is not asked for this host's guests.
    #[must_use]
    pub fn daemon(&self) -> Option<&'static str> {
        pidfile::daemon(self.link.uri())
    }

    /// The domains that have a QEMU, with their names.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn list_active(&self) -> Result<Vec<(DomainId, String)>, LibvirtError> {
        self.list("list of running domains", sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            .await
    }

    /// All domains, with their names.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn list_all(&self) -> Result<Vec<(DomainId, String)>, LibvirtError> {
        self.list("list of domains", 0).await
    }

    async fn list(&self, call: &'static str, flags: u32) -> Result<Vec<(DomainId, String)>, LibvirtError> {
        let work = move |connect: &Connect| {
            let domains = connect.list_all_domains(flags)?;
            domains
                .iter()
                .map(|domain| Ok((DomainId::from_bytes(*domain.uuid()?.as_bytes()), domain.name()?)))
                .collect()
        };
        self.caller
            .run((call, Lane::Query), None, self.settings.query, work)
            .await
    }

    /// The host's name, as libvirt has it.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn host_name(&self) -> Result<String, LibvirtError> {
        let work = |connect: &Connect| Ok(connect.hostname()?);
        self.caller
            .run(("host name", Lane::Query), None, self.settings.query, work)
            .await
    }

    /// The host's UUID, as libvirt has it; `None` where it has none.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn host_uuid(&self) -> Result<Option<[u8; 16]>, LibvirtError> {
        let work = |connect: &Connect| Ok(capabilities::host_uuid(&connect.capabilities()?));
        self.caller
            .run(("host's UUID", Lane::Query), None, self.settings.query, work)
            .await
    }

    /// The domain's XML without its secrets; `None` where libvirt knows no such domain. For a domain without QEMU both
    /// scopes give the persistent definition.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn domain_xml(&self, id: DomainId, scope: Scope) -> Result<Option<String>, LibvirtError> {
        let work = move |domain: &Domain| Ok(domain.xml_desc(scope.xml_flags())?);
        optional(self.query("XML", id, work).await)
    }

    /// hybond's element of the domain; `None` without one, and without such a domain.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn metadata(&self, id: DomainId, scope: Scope) -> Result<Option<String>, LibvirtError> {
        let work = move |domain: &Domain| metadata::read(domain, scope);
        Ok(optional(self.query("metadata", id, work).await)?.flatten())
    }

    /// What the running domain, or where it does not run the persistent one, asks of hybond; `None` where that is
    /// nothing, and where there is no such domain.
    ///
    /// # Errors
    /// [`LibvirtError::Spec`] where hybond's element is not valid.
    pub async fn spec(&self, id: DomainId) -> Result<Option<DomainSpec>, LibvirtError> {
        let work = |domain: &Domain| {
            let xml = domain.xml_desc(Scope::Live.xml_flags())?;
            hybond_domxml::parse(&xml).map_err(metadata::invalid)
        };
        Ok(optional(self.query("XML", id, work).await)?.flatten())
    }

    /// The domain's state; takes no job, so a migration does not delay it.
    ///
    /// # Errors
    /// See [`LibvirtError`]; a domain that is not there is [`DomainState::NotFound`].
    pub async fn state(&self, id: DomainId) -> Result<DomainState, LibvirtError> {
        Ok(optional(self.query("state", id, state::of).await)?.unwrap_or(DomainState::NotFound))
    }

    /// The job that the domain is in. The only thing that tells of an outgoing migration that fails or is cancelled before
    /// its end: libvirt sends no event of that at the source. Waits while libvirt starts or ends the domain's QEMU, which
    /// takes seconds.
    ///
    /// # Errors
    /// See [`LibvirtError`]; a domain that is not there, or not running, is in [`Job::None`].
    pub async fn job(&self, id: DomainId) -> Result<Job, LibvirtError> {
        Ok(optional(self.query("job", id, job::of).await)?.unwrap_or(Job::None))
    }

    /// Process id of the domain's QEMU; `None` where it has none.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn pid(&self, id: DomainId) -> Result<Option<u32>, LibvirtError> {
        let work = move |domain: &Domain| pidfile::read(id, &domain.name()?).map_err(Failure::Unusable);
        Ok(optional(self.query("process id", id, work).await)?.flatten())
    }

    /// The most RAM that the domain can have, hotplug slots included, in bytes: what VFIO may have to lock.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn memory_bytes(&self, id: DomainId) -> Result<u64, LibvirtError> {
        let work = |domain: &Domain| Ok(domain.max_memory()?.saturating_mul(1024));
        self.query("memory size", id, work).await
    }

    /// Whether the domain has a persistent definition.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn is_persistent(&self, id: DomainId) -> Result<bool, LibvirtError> {
        self.query("persistence", id, |domain: &Domain| Ok(domain.is_persistent()?))
            .await
    }

    /// Writes into the domain's metadata, running and persistent, which daemon a destination has to ask. Returns whether
    /// that was another one before. Needs a modify job: not while a migration goes on.
    ///
    /// # Errors
    /// [`LibvirtError::Spec`] where the domain is not hybond's.
    pub async fn set_source_peer(&self, id: DomainId, peer: PeerAddr) -> Result<bool, LibvirtError> {
        let work = move |domain: &Domain| metadata::set_source_peer(domain, &peer);
        self.modify("change of the metadata", id, work).await
    }

    /// Changes pairs in the domain's metadata: the persistent one, and with `live` also that of what runs. Returns whether
    /// anything was another before. Needs a modify job, as [`Self::set_source_peer`].
    ///
    /// # Errors
    /// [`LibvirtError::Spec`] where the domain is not hybond's.
    pub async fn change_pairs(
        &self,
        id: DomainId,
        changes: Vec<(Mac, PairChange)>,
        live: bool,
    ) -> Result<bool, LibvirtError> {
        let work = move |domain: &Domain| metadata::change_pairs(domain, &changes, live);
        self.modify("change of the metadata", id, work).await
    }

    /// Sets the lower devices of `direct` interfaces in the persistent definition, where it has others. Returns the MACs
    /// that were changed; none for a domain that has no persistent definition.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn repair_persistent(&self, id: DomainId, sources: Vec<(Mac, IfName)>) -> Result<Vec<Mac>, LibvirtError> {
        let work = move |domain: &Domain| persistent::repair(domain, &sources);
        self.modify("repair of the persistent definition", id, work).await
    }

    /// Plugs a device into the running domain.
    ///
    /// # Errors
    /// See [`LibvirtError`]. After a time-out libvirt may still carry it out.
    pub async fn attach_device(&self, id: DomainId, xml: String) -> Result<(), LibvirtError> {
        // Not virDomainAttachDevice: for a domain that does not run that one changes the persistent definition.
        let work = move |domain: &Domain| Ok(domain.attach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)?);
        self.modify("plugging of a device", id, work).await
    }

    /// Asks the running domain to give up a device; [`crate::LibvirtEvent::DeviceRemoved`] tells when it has.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn detach_device(&self, id: DomainId, xml: String) -> Result<(), LibvirtError> {
        let work = move |domain: &Domain| Ok(domain.detach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)?);
        self.modify("unplugging of a device", id, work).await
    }

    /// As [`Self::detach_device`], by the device's alias.
    ///
    /// # Errors
    /// See [`LibvirtError`].
    pub async fn detach_alias(&self, id: DomainId, alias: String) -> Result<(), LibvirtError> {
        let work = move |domain: &Domain| job::detach_alias(domain, &alias);
        self.modify("unplugging of a device", id, work).await
    }

    /// Cancels the domain's job, such as an outgoing migration.
    ///
    /// # Errors
    /// See [`LibvirtError`]; libvirt refuses where there is no job.
    pub async fn abort_job(&self, id: DomainId) -> Result<(), LibvirtError> {
        let work = move |connect: &Connect| job::abort(&lookup(connect, id)?);
        self.caller
            .run(
                ("cancelling of the job", Lane::Abort),
                Some(id),
                self.settings.query,
                work,
            )
            .await
    }

    async fn query<T, F>(&self, call: &'static str, id: DomainId, work: F) -> Result<T, LibvirtError>
    where
        T: Send + 'static,
        F: FnOnce(&Domain) -> Result<T, Failure> + Send + 'static,
    {
        let work = move |connect: &Connect| work(&lookup(connect, id)?);
        self.caller
            .run((call, Lane::Query), Some(id), self.settings.query, work)
            .await
    }

    async fn modify<T, F>(&self, call: &'static str, id: DomainId, work: F) -> Result<T, LibvirtError>
    where
        T: Send + 'static,
        F: FnOnce(&Domain) -> Result<T, Failure> + Send + 'static,
    {
        let work = move |connect: &Connect| work(&lookup(connect, id)?);
        self.caller
            .run((call, Lane::Modify), Some(id), self.settings.modify, work)
            .await
    }
}

fn lookup(connect: &Connect, id: DomainId) -> Result<Domain, Failure> {
    Ok(connect.lookup_domain_by_uuid_string(&id.to_string())?)
}

/// A domain that is not there is an answer where the question was what it is.
fn optional<T>(result: Result<T, LibvirtError>) -> Result<Option<T>, LibvirtError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(LibvirtError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LibvirtEvent;
    use std::sync::mpsc as blocking;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(20);

    async fn connected() -> Libvirt {
        let settings = Settings {
            uri: "test:///default".into(),
            ..Settings::default()
        };
        let (libvirt, mut events) = Libvirt::spawn(settings);
        let event = tokio::time::timeout(LONG, events.recv()).await;
        assert_eq!(event, Ok(Some(LibvirtEvent::Connected)));
        libvirt
    }

    /// A call that libvirt answers when it is let go.
    async fn stuck(libvirt: &Libvirt, lane: Lane, id: DomainId) -> blocking::Sender<()> {
        let (let_go, held) = blocking::channel::<()>();
        let work = move |_: &Connect| {
            // Let go by a message or by the end of the test.
            held.recv().ok();
            Ok(())
        };
        let error = libvirt.caller.run(("test", lane), Some(id), SHORT, work).await;
        assert!(matches!(error, Err(LibvirtError::Timeout { .. })), "{error:?}");
        let_go
    }

    async fn quick(libvirt: &Libvirt, lane: Lane, id: DomainId, bound: Duration) -> Result<(), LibvirtError> {
        libvirt.caller.run(("test", lane), Some(id), bound, |_| Ok(())).await
    }

    #[tokio::test]
    async fn a_stuck_domain_holds_up_nobody_else() {
        let libvirt = connected().await;
        let (a, b) = (DomainId::from_bytes([1; 16]), DomainId::from_bytes([2; 16]));
        let let_go = stuck(&libvirt, Lane::Query, a).await;
        let error = quick(&libvirt, Lane::Query, a, SHORT).await;
        assert!(
            matches!(error, Err(LibvirtError::Timeout { .. })),
            "its turn has not come: {error:?}"
        );
        quick(&libvirt, Lane::Abort, a, LONG).await.expect("another lane");
        quick(&libvirt, Lane::Query, b, LONG).await.expect("another domain");
        let_go.send(()).expect("the call still waits");
        quick(&libvirt, Lane::Query, a, LONG).await.expect("its turn");
    }

    #[tokio::test]
    async fn domains_that_wait_for_a_modify_job_keep_none_from_being_looked_at() {
        let libvirt = connected().await;
        let mut held = Vec::new();
        for n in 1..=2 {
            held.push(stuck(&libvirt, Lane::Modify, DomainId::from_bytes([n; 16])).await);
        }
        let third = DomainId::from_bytes([3; 16]);
        let error = quick(&libvirt, Lane::Modify, third, SHORT).await;
        assert!(
            matches!(error, Err(LibvirtError::Timeout { .. })),
            "the lane is full: {error:?}"
        );
        quick(&libvirt, Lane::Query, third, LONG).await.expect("a look");
        held.clear();
        quick(&libvirt, Lane::Modify, third, LONG).await.expect("room again");
    }

    #[tokio::test]
    async fn a_call_that_panics_is_an_error() {
        let libvirt = connected().await;
        let work = |_: &Connect| -> Result<(), Failure> { panic!("on purpose") };
        let error = libvirt
            .caller
            .run(("test", Lane::Query), None, LONG, work)
            .await
            .expect_err("broken");
        assert_eq!(
            error.to_string(),
            "test of this host: the call's thread has broken down"
        );
    }
}
