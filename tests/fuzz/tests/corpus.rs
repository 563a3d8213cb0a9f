//! The properties against the corpora, and against each of their lines cut short: what `cargo fuzz` has found stays found.

use std::path::Path;

/// Every file of a target's corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("a file").path();
        let bytes = std::fs::read(&path).expect("read");
        // Shown where it fails.
        eprintln!("{}", path.display());
        run(&bytes);
        for part in [1, 2, 3] {
            run(bytes.get(..bytes.len() * part / 4).unwrap_or_default());
        }
        count += 1;
    }
    assert!(count >= 5, "{count} files in {}", folder.display());
}

#[test]
fn the_xml_of_domains() {
    replay("xml", hybond_test_fuzz::xml::run);
}

#[test]
fn what_qemu_says() {
    replay("qmp", hybond_test_fuzz::qmp::run);
}

#[test]
fn what_a_guest_sends() {
    replay("guest", hybond_test_fuzz::guest::run);
}

#[test]
fn what_another_host_asks_for() {
    replay("peer", hybond_test_fuzz::peer::run);
}

#[test]
fn what_local_clients_ask_for() {
    replay("api", hybond_test_fuzz::api::run);
}

#[test]
fn what_an_administrator_writes() {
    replay("config", hybond_test_fuzz::config::run);
}
