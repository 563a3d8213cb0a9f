//! VFs held ahead for domains that are to come: kept in the journal, and given up when their time is over.

use crate::adapters::chain;
use crate::shared::Shared;
use hybond_core::ids::DomainId;
use hybond_core::pool::{PoolBook, Reservation};
use hybond_journal::{Journal, JournalError};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{error, info};

/// The journal's record of them.
const RECORD: &str = "reservations";
/// Longest sleep of who gives up what has ended: the host's clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Milliseconds since the epoch.
#[must_use]
pub fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Those of before, after the leases of the guests' records. A record that cannot be read costs reservations only.
pub fn load(journal: &Journal, book: &mut PoolBook) {
    match journal.get_named::<Vec<Reservation>>(RECORD) {
        Ok(held) => {
            book.restore_reservations(held.unwrap_or_default());
            book.expire(epoch_ms());
        }
        Err(error) => error!(
            error = chain(&error),
            "the reservations of VFs are lost: {}",
            chain(&error)
        ),
    }
}

/// Puts what the book has on stable storage.
///
/// # Errors
/// It could not be written; what is there is from before.
pub async fn keep(shared: &Shared) -> Result<(), JournalError> {
    // One at a time, or an older list could be written last.
    let _turn = shared.reserving.lock().await;
    let held: Vec<Reservation> = shared.adapters.book().reservations().cloned().collect();
    shared.keep_named(RECORD, (!held.is_empty()).then_some(held)).await
}

/// Gives up what is held for a domain: it has come, or somebody says so. True if there was anything.
///
/// # Errors
/// It is given up, and could not be written down: after a restart it is held again, until its time is over.
pub async fn give_up(shared: &Shared, domain: DomainId) -> Result<bool, JournalError> {
    if !shared.adapters.book().cancel(domain) {
        return Ok(false);
    }
    shared.tell_waiting().await;
    keep(shared).await?;
    Ok(true)
}

/// Gives up what has ended, when it ends.
pub async fn expire(shared: Arc<Shared>) {
    loop {
        let now = epoch_ms();
        if shared.adapters.book().expire(now) {
            info!("a reservation of VFs has ended");
            shared.tell_waiting().await;
            if let Err(error) = keep(&shared).await {
                // What is left there has ended, and is not taken up again.
                error!(
                    error = chain(&error),
                    "reservations cannot be written down: {}",
                    chain(&error)
                );
            }
        }
        let next = shared.adapters.book().reservations().map(|held| held.until).min();
        let next = next.map(|until| Duration::from_millis(until.saturating_sub(now).max(1)));
        tokio::select! {
            () = tokio::time::sleep(next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) => {}
            () = shared.reserved.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybond_core::pool::{Lease, Vf};

    fn held(vf: &str, until: u64) -> Reservation {
        let vf = Vf {
            id: vf.parse().expect("vf"),
            pf: "pf0".parse().expect("name"),
            index: 0,
            numa_node: None,
        };
        let lease = Lease {
            vf,
            domain: DomainId::from_bytes([7; 16]),
            mac: "52:54:00:aa:00:01".parse().expect("mac"),
        };
        Reservation {
            lease,
            name: "web".into(),
            by: "node1".into(),
            until,
        }
    }

    #[test]
    fn what_is_held_outlives_the_daemon_and_not_its_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        let later = held("0000:01:10.0", epoch_ms() + 60_000);
        let record = vec![later.clone(), held("0000:01:10.2", epoch_ms() - 1)];
        journal.put_named(RECORD, &record).expect("written");
        let mut book = PoolBook::default();
        load(&journal, &mut book);
        assert_eq!(book.reservations().collect::<Vec<_>>(), [&later]);
    }

    #[test]
    fn a_record_that_is_damaged_or_not_there_holds_nothing_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        let mut book = PoolBook::default();
        load(&journal, &mut book);
        std::fs::write(folder.path().join("named/reservations.json"), "[").expect("written");
        load(&journal, &mut book);
        assert_eq!(book.reservations().count(), 0);
    }
}
