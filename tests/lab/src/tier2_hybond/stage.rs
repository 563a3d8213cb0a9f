//! Two fresh hosts with hybond on them, for one test.

use super::daemon::{Daemon, install};
use super::programs::{Programs, top};
use crate::image;
use crate::tier2::Pair;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

/// Brings two hosts up, puts hybond on them, starts its daemons, and has `play` do what the test is about. What the hosts
/// have said is kept in `target/test/NAME.failed` where it fails.
///
/// # Errors
/// The hosts do not come up or down, or `play` fails.
pub fn on_stage(name: &str, play: impl FnOnce(&Pair, &Programs, [Daemon; 2]) -> Result<()>) -> Result<()> {
    on_stage_with(name, &Programs::built()?, play)
}

/// As [`on_stage`], with programs of another build.
///
/// # Errors
/// As there.
pub fn on_stage_with(
    name: &str,
    programs: &Programs,
    play: impl FnOnce(&Pair, &Programs, [Daemon; 2]) -> Result<()>,
) -> Result<()> {
    let folder = results()?;
    let pair = Pair::up()?;
    let played = deploy(&pair, programs).and_then(|daemons| play(&pair, programs, daemons));
    if played.is_err() {
        let kept = folder.join(format!("{name}.failed"));
        for node in pair.hosts() {
            Daemon::keep_logs(node, &kept)?;
        }
        eprintln!("what the hosts have said is in {}", kept.display());
    }
    played?;
    pair.down()
}

/// Installs hybond on both hosts and starts its daemons, on `src` first.
fn deploy(pair: &Pair, programs: &Programs) -> Result<[Daemon; 2]> {
    let image = results()?.join(format!("{}.initramfs", std::process::id()));
    let inside = [
        (programs.agent.as_path(), "hybond-agent"),
        (programs.probe.as_path(), "hybond-probe"),
    ];
    image::guest_image(&inside, &image)?;
    let initramfs = fs::read(&image)?;
    fs::remove_file(&image)?;
    let deploy = |name| {
        install(pair.host(name), programs, &initramfs)?;
        Daemon::start(pair.host(name))
    };
    Ok([deploy("src")?, deploy("dst")?])
}

/// Where tests leave what they have measured.
///
/// # Errors
/// It cannot be made.
pub fn results() -> Result<PathBuf> {
    let folder = top().join("target/test");
    fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}
