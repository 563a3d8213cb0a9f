//! The properties against the corpora, against each of their files cut short, and against what is made of them, the same each
//! time: what `cargo fuzz` has found stays found, and a bounded part of what it does is in every run.

use hybond_test_fuzz::mutate::{elements, lines, messages};
use std::path::Path;

/// Inputs made of a corpus.
const MADE: u32 = 2_000;
/// Longest of them, as `make test-fuzz` has it.
const LONGEST: usize = 8192;
/// Times that one is changed, at most.
const CHANGES: u32 = 4;

/// Changes the first bytes of a buffer, and answers how many they are now; `None` where it does not know how.
type Mutate = fn(&mut [u8], usize, usize, u32) -> Option<usize>;

/// Every file of a target's corpus, and what is made of them.
fn hold(target: &str, run: fn(&[u8]), mutate: Mutate) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    // Or each machine would make others of them.
    paths.sort();
    assert!(paths.len() >= 5, "{} files in {}", paths.len(), folder.display());
    let mut corpus = Vec::new();
    for path in &paths {
        let bytes = std::fs::read(path).expect("read");
        // Shown where it fails.
        eprintln!("{}", path.display());
        run(&bytes);
        for part in [1, 2, 3] {
            run(bytes.get(..bytes.len() * part / 4).unwrap_or_default());
        }
        corpus.push(bytes);
    }
    let mut others = 0;
    for (number, bytes) in (0..MADE).zip(corpus.iter().cycle()) {
        let made = made_of(bytes, number, mutate);
        others += u32::from(made != *bytes);
        eprintln!("number {number}: {}", String::from_utf8_lossy(&made));
        run(&made);
    }
    assert!(others > MADE / 2, "only {others} were changed");
}

fn made_of(bytes: &[u8], number: u32, mutate: Mutate) -> Vec<u8> {
    let mut made = bytes.get(..LONGEST).unwrap_or(bytes).to_vec();
    let mut size = made.len();
    made.resize(LONGEST, 0);
    for change in 0..=number % CHANGES {
        let seed = number.wrapping_mul(2_654_435_761).wrapping_add(change);
        match mutate(&mut made, size, LONGEST, seed) {
            Some(new) => size = new,
            // No text any more.
            None if size > 0 => made[seed as usize % size] ^= 1 << (seed % 8),
            None => {}
        }
    }
    made.truncate(size);
    made
}

#[test]
fn the_xml_of_domains() {
    hold("xml", hybond_test_fuzz::xml::run, elements);
}

#[test]
fn what_qemu_says() {
    hold("qmp", hybond_test_fuzz::qmp::run, messages);
}

#[test]
fn what_a_guest_sends() {
    hold("guest", hybond_test_fuzz::guest::run, messages);
}

#[test]
fn what_another_host_asks_for() {
    hold("peer", hybond_test_fuzz::peer::run, messages);
}

#[test]
fn what_local_clients_ask_for() {
    hold("api", hybond_test_fuzz::api::run, messages);
}

#[test]
fn what_an_administrator_writes() {
    hold("config", hybond_test_fuzz::config::run, lines);
}
