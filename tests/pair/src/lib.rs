//! Two hosts of hybond on virtual time. Nothing here sleeps or waits; a run follows from its [`case::Case`] alone and is
//! repeated exactly by it (`HYBOND_PAIR_CASE=… cargo test -p hybond-test-pair --test schedules replay -- --nocapture`).
//!
//! ```text
//!   World ── time, chance, the link between the daemons, libvirt's operations
//!     ├ Host 0 ── daemon: guests' machines and the pool, lost in a crash
//!     │           disk: records, which survive
//!     │           machine: macvtaps, VFs, QEMUs and libvirt's word, which survive the daemon but not the power
//!     └ Host 1 ── the same
//! ```
//!
//! What is real: `hybond-core`, whole. What is modelled, each as its own source or a run has shown it to be:
//!
//! - **The driver** (`driver`): as `hybondd` does it. The record is written before an action begins; one action at a time for
//!   each guest; the pool gets back what a written record no longer names; a look or a question to a peer that the machine
//!   gives up is dropped. A daemon crashes before and after the journal is written, after an effect, before it is told, before
//!   a record is removed. Writing can fail.
//! - **The machine** (`effects`): an action takes its time, its effect comes somewhere within it, and it can fail before or
//!   after the effect. `device_add` is refused during a migration, a macvtap is raised only if it is there, an agent that is
//!   asked for a path proves it first.
//! - **QEMU and the guest** (`monitor`): the monitor connects late and breaks; its events are lost, which is noticed; the
//!   guest lets go of a device when it likes, or never, or throws one out; its agent falls silent. On the host where a
//!   migration has arrived `query-migrate` says "completed" ever after.
//! - **libvirt** (`libvirt`, `migration`): hooks are synchronous and in order for each domain (`migrate`, `prepare`,
//!   `started`; `release`), have deadlines, are given up, and are refused where the daemon is down. While `prepare` waits,
//!   whoever asks libvirt about the domain waits too. `release` comes only where `prepare` was called, and is lost on a daemon
//!   that is down. A failure on the way takes QEMU at the destination down before `release`, and ends the job at the source
//!   without an event. Lifecycle events are late and in no order to the hooks; they only make the daemon look. Also starts,
//!   saves, restores, stops and post-copy.
//! - **The guard** (`monitor`), which is not in the core: a migration or a save that no hook has announced begins with a VF
//!   plugged and is cancelled. It needs the monitor; where that is not connected, such a migration does not begin here.
//! - **The link** (`link`): loses, delays, repeats and reorders, also into another migration of the same domain.
//! - **Misfortune and wishes** (`trouble`): crashes, power cuts, and what people ask of libvirt and of hybondctl.
//!
//! A run follows chance, from a seed, or is chosen moment by moment ([`moment`]): that is how [`search`] sees every state of a
//! small world.
//!
//! What must hold is in [`invariants`]; [`plant`] has bugs to show that it would be noticed if it did not.

pub mod case;
pub mod dice;
mod driver;
mod effects;
pub mod host;
pub mod invariants;
mod libvirt;
mod link;
pub mod machine;
mod migration;
pub mod moment;
mod monitor;
pub mod plant;
pub mod search;
mod trouble;
pub mod world;
