//! The guest's inside, as the running domain's XML tells it: its agent's channel, and where its NICs are.

use crate::adapters::chain;
use crate::shared::Shared;
use hybond_core::ids::DomainId;
use hybond_domxml::{AgentChannel, Slots};
use hybond_libvirt::Scope;
use hybond_qmp::Qmp;
use hybond_vfio::PlugWay;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, warn};

/// What the running domain's XML tells.
pub struct Inside {
    /// The agent's channel. libvirt chooses its socket, with the domain's number in it.
    pub agent: AgentChannel,
    /// Where the NICs are in the guest.
    pub slots: Vec<Slots>,
}

/// Waits until libvirt has it all. `None` where the domain is not there, or has no agent's channel after a minute. `comes`: the
/// guest has yet to run here.
pub async fn look_inside(shared: Arc<Shared>, id: DomainId, qmp: Qmp, comes: bool) -> Option<Inside> {
    const PAUSE: Duration = Duration::from_millis(500);
    const TRIES: u32 = 120;
    let mut connected = shared.adapters.libvirt.connected();
    for _ in 0..TRIES {
        match shared.adapters.libvirt.domain_xml(id, Scope::Live).await {
            Ok(Some(xml)) => match hybond_domxml::agent_channel(&xml) {
                Ok(Some(agent)) => {
                    let slots = hybond_domxml::slots(&xml).unwrap_or_else(|error| {
                        debug!(
                            error = chain(&error),
                            "the domain's XML does not say where its NICs are"
                        );
                        Vec::new()
                    });
                    if comes {
                        spare_the_guest(&shared, &qmp, &xml).await;
                    }
                    return Some(Inside { agent, slots });
                }
                Ok(None) => debug!("the domain's XML has no path for the agent's channel yet"),
                Err(error) => debug!(error = chain(&error), "the domain's XML cannot be read"),
            },
            Ok(None) => return None,
            Err(error) => debug!(error = chain(&error), "the domain's XML cannot be had"),
        }
        // Right after a start, libvirt's connection is being opened.
        let gone = tokio::time::timeout(PAUSE, connected.changed()).await;
        if let Ok(Err(_)) = gone {
            // Nobody keeps the connection any more: the daemon ends.
            return None;
        }
    }
    warn!("the domain has no channel org.hybond.agent.0: its traffic cannot be moved; run hybondctl enable again");
    None
}

/// Before the guest runs, in case it comes by migration. A virtio guest is asked by QEMU to announce itself, five times, and has
/// better to do in its first moments; each time its CPU reads a register for that, which waits for QEMU's main lock. The MACs of
/// pairs are announced from their standbys instead. Other NICs are QEMU's to announce.
async fn spare_the_guest(shared: &Shared, qmp: &Qmp, xml: &str) {
    let rounds = match hybond_domxml::has_only_pairs(xml) {
        Ok(true) => 0,
        // An emulated primary that is plugged soon would be announced with the rest.
        _ if shared.adapters.way == PlugWay::Emulated => 1,
        _ => return,
    };
    if let Err(error) = qmp.announce_arrivals(rounds).await {
        debug!(error = chain(&error), "QEMU announces the guest as often as it likes");
    }
}
