//! hybond as its users have it: packages, systemd, AppArmor, stock libvirt, emulated SR-IOV, and a plain `virsh migrate`.
//! Ignored by `cargo test`, because it wants root, the images and minutes: `cargo test -p hybond-lab -- --ignored`. Wants
//! the packages that `make packages` builds.
//!
//! A guest takes a minute to boot, so that one lab and one guest serve all the scenarios of a way of plugging, one after
//! the other. Each begins with the guest on `src` and on its VF, and leaves it so, but for the last, which may leave it on
//! `dst`; what a scenario has changed on a host is put back.

mod faults;
mod health;
mod indirect;
mod paths;
mod refusals;
mod scene;
mod soak;
mod there_and_back;
mod ways;

use anyhow::{Context, Result, ensure};
use health::Health;
use hybond_lab::Lab;
use hybond_lab::scenario::{Packages, Stage};
use scene::{Scene, nothing_is_left};
use std::time::Instant;

type Play = fn(&Scene<'_>) -> Result<()>;

struct Scenario {
    name: &'static str,
    play: Play,
    /// Where the guest is afterwards.
    ends_on: &'static str,
}

const fn home(name: &'static str, play: Play) -> Scenario {
    let ends_on = "src";
    Scenario { name, play, ends_on }
}

const fn away(name: &'static str, play: Play) -> Scenario {
    let ends_on = "dst";
    Scenario { name, play, ends_on }
}

/// On a stock kernel, where VFs are plugged by their group. What is told at the end is told in this order.
const STOCK: [Scenario; 9] = [
    home(
        "there and back without losing a packet to hybond",
        there_and_back::there_and_back,
    ),
    home(
        "no free VF: refused where one is required, else it arrives on its standby and gets the VF that is freed",
        refusals::no_vf_is_free,
    ),
    home(
        "a guest that ignores the unplug keeps its VF",
        refusals::guest_ignores_the_unplug,
    ),
    home("the destination's daemon is down", refusals::destination_daemon_down),
    home("the source's daemon does not answer", refusals::source_daemon_down),
    home("the destination has a wrong certificate", refusals::wrong_certificate),
    home(
        "the domain names another host as its source",
        refusals::domain_unknown_to_the_source,
    ),
    home("a save with a VF plugged is cancelled", refusals::save_is_cancelled),
    home("out of a file onto a VF", there_and_back::out_of_a_file),
];

const INDIRECT: [Scenario; 1] = [home(
    "an indirect pair there and back over VFs that their host drives",
    indirect::there_and_back,
)];

const PATHS: [Scenario; 1] = [home(
    "both paths of a pair are alike, on any host and in any VLAN",
    paths::alike,
)];

/// The last ones boot hosts.
const FAULTS: [Scenario; 6] = [
    home(
        "the VFs of a PF are taken away, and come back",
        faults::vfs_are_taken_away,
    ),
    home("the driver of the PFs is reloaded", faults::driver_is_reloaded),
    home("the clocks of both hosts are set back", faults::clock_is_set_back),
    home(
        "the destination lacks the guest's memory",
        faults::destination_lacks_memory,
    ),
    home("the destination loses its power", faults::destination_loses_power),
    home("the source loses its power", faults::source_loses_power),
];

const SOAK: [Scenario; 1] = [home("there and back many times", soak::back_and_forth)];

/// On a kernel with iommufd, where VFs are plugged by descriptors. Both ends are alike, so one migration shows all.
const IOMMUFD: [Scenario; 1] = [away("there without losing a packet to hybond", there_and_back::there)];

/// Where VFs are plugged through libvirt.
const LIBVIRT: [Scenario; 2] = [
    home("a plain virsh migrate is refused by libvirt", ways::refused_by_libvirt),
    away("there by hybondctl migrate", there_and_back::there),
];

#[test]
#[ignore = "boots two emulated hosts and a guest"]
fn a_hybrid_guest_migrates_or_keeps_its_vf() -> Result<()> {
    play(ways::stock, &STOCK)
}

#[test]
#[ignore = "boots two emulated hosts and a guest"]
fn a_hybrid_guest_migrates_where_vfs_are_plugged_by_descriptors() -> Result<()> {
    play(ways::iommufd, &IOMMUFD)
}

#[test]
#[ignore = "boots two emulated hosts and a guest"]
fn a_hybrid_guest_is_migrated_by_hybondctl_where_vfs_are_plugged_through_libvirt() -> Result<()> {
    play(ways::through_libvirt, &LIBVIRT)
}

/// As often as `HYBOND_SOAK_MIGRATIONS` says.
mod long {
    use super::{Result, SOAK, play, ways};

    #[test]
    #[ignore = "boots two emulated hosts, and takes half an hour"]
    fn a_hybrid_guest_goes_back_and_forth_and_nothing_grows() -> Result<()> {
        play(ways::stock, &SOAK)
    }
}

/// What befalls a host; a part of `make test-faults`.
mod befallen {
    use super::{FAULTS, Result, play, ways};

    #[test]
    #[ignore = "boots two emulated hosts, one of them again, and a guest"]
    fn a_hybrid_guest_is_well_or_off_whatever_befalls_its_hosts() -> Result<()> {
        play(ways::stock, &FAULTS)
    }
}

/// More of what a card's functions are set to; longer than a test of everything may be, for other guests boot.
mod cards {
    use super::{INDIRECT, PATHS, Result, play, ways};

    #[test]
    #[ignore = "boots two emulated hosts and two guests"]
    fn a_guest_without_passthrough_migrates_over_vfs_that_the_hosts_drive() -> Result<()> {
        play(ways::stock, &INDIRECT)
    }

    #[test]
    #[ignore = "boots two emulated hosts and two guests"]
    fn both_paths_are_what_their_pool_says_and_neighbours_reach_each_other() -> Result<()> {
        play(ways::stock, &PATHS)
    }
}

/// Emulated machines crash by themselves (docs/lab.md): after so many crashes nothing more is hoped for.
const CRASHES: usize = 3;

/// Plays the scenarios that are wanted. Where a crash of the emulated machines has cut one off, it and those after it are
/// played on hosts that are restored anew.
fn play(set_up: ways::SetUp, scenarios: &[Scenario]) -> Result<()> {
    let mut left: Vec<&Scenario> = scenarios.iter().filter(|scenario| is_wanted(scenario.name)).collect();
    if left.is_empty() {
        eprintln!("no scenario of these is wanted");
        return Ok(());
    }
    let mut failed = Vec::new();
    let mut crashes = Vec::new();
    while let Some(crash) = play_until_crash(set_up, &mut left, &mut failed)? {
        eprintln!("THE EMULATION HAS CRASHED, as it does without hybond, too: {crash}");
        crashes.push(crash);
        ensure!(
            crashes.len() < CRASHES,
            "the emulation crashed {CRASHES} times: {}",
            crashes.join("; ")
        );
    }
    eprintln!("crashes of the emulation: {}", crashes.len());
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// Sets two hosts up, starts a guest, and plays what is left. Answers what has crashed, if something has.
fn play_until_crash(
    set_up: ways::SetUp,
    left: &mut Vec<&Scenario>,
    failed: &mut Vec<String>,
) -> Result<Option<String>> {
    let packages = Packages::built()?;
    let begun = Instant::now();
    let lab = Lab::up_prepared("test", &packages.key()?, |lab| {
        let scene = Scene::new(lab, Stage::deploy(lab, &packages)?);
        let started = scene.start();
        scene.told(started.and_then(|()| scene.guest.rest(scene.src)))
    })?;
    let mut scene = Scene::new(&lab, Stage::restored(&lab, &packages)?);
    set_up(&scene.stage, &mut scene.guest)?;
    let awake = scene.guest.wake(scene.src);
    let health = Health::of(&scene)?;
    if let Err(error) = scene.told(awake.map(drop)) {
        eprintln!("{error:#}");
        return health.crash(&scene).map(Some).ok_or(error);
    }
    eprintln!("the guest is on its VF after {} s", begun.elapsed().as_secs());

    while let Some(&&Scenario { name, play, ends_on }) = left.first() {
        let begun = Instant::now();
        eprintln!("scenario: {name}");
        // One that leaves the guest elsewhere makes the next ones meaningless.
        let result = play(&scene).and_then(|()| scene.is_settled(lab.host(ends_on)).context("afterwards"));
        let seconds = begun.elapsed().as_secs();
        match result {
            Ok(()) => eprintln!("scenario: {name}: ok, {seconds} s"),
            Err(error) => {
                eprintln!(
                    "scenario: {name}: FAILED after {seconds} s: {error:#}\n{}",
                    scene.journals()
                );
                if let Some(crash) = health.crash(&scene) {
                    return Ok(Some(format!("{crash}, in \"{name}\"")));
                }
                failed.push(format!("{name}: {error:#}"));
                scene
                    .mend()
                    .with_context(|| format!("after \"{name}\" the guest cannot be brought back"))?;
            }
        }
        left.remove(0);
    }
    scene.guest.remove(lab.hosts())?;
    for host in lab.hosts() {
        nothing_is_left(&scene, host).context("after the guest's end")?;
    }
    lab.down()?;
    Ok(None)
}

/// `HYBOND_SCENARIO` chooses those whose names contain it.
fn is_wanted(name: &str) -> bool {
    std::env::var("HYBOND_SCENARIO").map_or(true, |part| name.contains(&part))
}
