//! Where a test can have the daemon die: before each effect, when the journal has it, and after it, when the journal does not
//! yet know how it went. Without feature `crash-points` there is nothing of it.
//!
//! `HYBOND_CRASH` names a folder. Each point that is passed is added to its file `passed`; at the one that its file `armed`
//! names, the daemon removes that file and kills itself.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash-points are for tests: no release may have them");

/// The effect that is no action on the host: an answer to who asked.
pub const ANSWER: &str = "answer";

/// On which side of an effect a point is.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    /// The journal has it, nothing is done yet.
    Before,
    /// It is done, and the journal does not know yet.
    After,
}

/// The daemon is here. `effect` is a phase, or [`ANSWER`].
#[cfg(not(feature = "crash-points"))]
pub const fn point(_side: Side, _effect: Option<&str>) {}

#[cfg(feature = "crash-points")]
pub use armed::{all, point};

#[cfg(feature = "crash-points")]
mod armed {
    use super::{ANSWER, Side};
    use hybond_core::guest::Action;
    use std::io::Write;
    use std::path::Path;

    fn name(side: Side, effect: &str) -> String {
        match side {
            Side::Before => format!("before:{effect}"),
            Side::After => format!("after:{effect}"),
        }
    }

    /// The name of every point that there is.
    pub fn all() -> impl Iterator<Item = String> {
        let effects = Action::PHASES.into_iter().chain([ANSWER]);
        effects.flat_map(|effect| [Side::Before, Side::After].map(|side| name(side, effect)))
    }

    /// The daemon is here. `effect` is a phase, or [`ANSWER`].
    pub fn point(side: Side, effect: Option<&str>) {
        let Some((folder, effect)) = std::env::var_os("HYBOND_CRASH").zip(effect) else {
            return;
        };
        let name = name(side, effect);
        assert!(all().any(|point| point == name), "Action::PHASES has no {effect}");
        let folder = Path::new(&folder);
        let passed = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("passed"))
            .and_then(|mut file| writeln!(file, "{name}"));
        assert!(passed.is_ok(), "HYBOND_CRASH: {passed:?}");
        let armed = folder.join("armed");
        if std::fs::read_to_string(&armed).is_ok_and(|wanted| wanted.trim() == name) {
            std::fs::remove_file(&armed).expect("what can be read can be removed");
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("a process may kill itself");
        }
    }
}
