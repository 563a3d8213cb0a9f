//! Properties that hold for whatever bytes come from outside: what hybond reads of a domain's XML, of QEMU, of a guest's
//! agent, of another host, of its local clients and of its own configuration.
//!
//! Each module has a `run`, which takes any bytes and panics where a property does not hold. `cargo fuzz` calls it with
//! bytes that it makes up (`targets/`), `tests/corpus.rs` with those of `corpus/` and some made of them, in every `cargo test`.
//!
//! | module | who sends the bytes | what is held against it |
//! |---|---|---|
//! | [`xml`] | libvirt, with what a user or another host wrote | only the edited bytes change; what is read is what was there |
//! | [`qmp`] | QEMU | the guard acts, and nothing unreadable ends the connection |
//! | [`guest`] | a process in the guest | it speaks for its own pairs, in short and clean words, and the last one counts |
//! | [`peer`] | another host's daemon, authenticated | one request at most, answered by lines with a bound |
//! | [`api`] | hybondctl and the hook | a line means the same however it is cut, and is written as it was read |
//! | [`config`] | the administrator | an error names file and line, and what is accepted can be used |
//!
//! Memory is bounded everywhere: [`memory`] counts what a run holds at most.

pub mod api;
pub mod config;
pub mod guest;
pub mod memory;
pub mod mutate;
pub mod peer;
pub mod qmp;
pub mod socket;
pub mod xml;

/// No text for people is longer than this, whatever was sent.
pub(crate) const LONGEST_TEXT: usize = 4096;

/// An error with all its causes, as the programs show it: one line of bounded length that steers no terminal.
#[track_caller]
pub(crate) fn fit_to_show(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    assert_fit_to_show(&text);
    text
}

/// As above, of a text.
#[track_caller]
pub(crate) fn assert_fit_to_show(text: &str) {
    assert!(!text.is_empty(), "an error without words");
    assert!(
        text.len() <= LONGEST_TEXT,
        "{} bytes of error: {:?}…",
        text.len(),
        text.chars().take(200).collect::<String>()
    );
    assert!(!text.contains(char::is_control), "steers a terminal: {text:?}");
}
