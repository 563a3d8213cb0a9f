//! A domain's XML, as hybond reads and changes it.
//!
//! libvirt holds what it gets back against what it sent out, and people keep their XML in order, so nothing here prints
//! XML anew: roxmltree says where things stand in the text, and only those bytes are replaced. What comes out is parsed
//! again before anyone sees it.
//!
//! | who | uses |
//! |---|---|
//! | hook | [`mentions_hybond`], [`parse`], [`set_sources`], [`preallocate`] |
//! | daemon | [`parse`], [`set_sources`], [`set_source_peer`], [`change_pairs`], [`virtualport`](fn@virtualport), [`agent_channel`], [`slots`](fn@slots), [`qmp_path`] |
//! | hybondctl | [`parse`], [`give_macs`], [`enable`], [`preallocate_at_start`], [`disable`] |
//!
//! # What stands in a domain
//! ```xml
//! <metadata>
//!   <hybond:domain xmlns:hybond="urn:hybond:domain:1">
//!     <hybond:pair mac="52:54:00:aa:00:01" pool="10GE" policy="prefer" vlan="42">
//!       <hybond:interface>…the interface as it was, escaped, for `disable`…</hybond:interface>
//!     </hybond:pair>
//!     <hybond:memory allocation="immediate"/>
//!     <hybond:source peer="node1.example.org:16515"/>
//!   </hybond:domain>
//! </metadata>
//! ```

mod bounds;
mod disable;
mod document;
mod enable;
mod error;
mod memory;
mod metadata;
mod numa;
mod pcie;
mod read;
mod slots;
mod splice;
mod virtualport;

pub use disable::disable;
pub use enable::enable;
pub use error::{Fault, XmlError};
pub use memory::{preallocate, preallocate_at_start};
pub use metadata::{PairChange, change_pairs, set_source_peer};
pub use read::{AgentChannel, agent_channel, candidates, mentions_hybond, parse, qmp_path};
pub use slots::{Slots, give_macs, has_only_pairs, slots};
pub use splice::set_sources;
pub use virtualport::virtualport;

/// Namespace of hybond's element in `<metadata>`.
pub const NAMESPACE: &str = "urn:hybond:domain:1";
/// Prefix that hybond's element is written with: libvirt's `key` for `virDomainSetMetadata`.
pub const PREFIX: &str = "hybond";
/// Name of the guest agent's virtio-serial port.
pub const AGENT_PORT: &str = "org.hybond.agent.0";
/// Longest XML that is looked at, in bytes. libvirt's own RPC stops at this size (`VIR_NET_MESSAGE_STRING_MAX`).
pub const MAX_XML: usize = 4 * 1024 * 1024;
