//! Migrations other than the plain one: what hybond has to do is the same, whoever drives libvirt and how.

use crate::scene::{SETTLE, SOON, Scene};
use anyhow::{Result, ensure};
use hybond_lab::Machine;
use std::time::Instant;

fn goes(scene: &mut Scene<'_>, words: &str) -> Result<String> {
    let begun = Instant::now();
    let output = scene.migrate(words)?;
    scene.arrived(output)?;
    Ok(format!("migrated in {:.1} s", begun.elapsed().as_secs_f32()))
}

pub fn peer_to_peer(scene: &mut Scene<'_>) -> Result<String> {
    goes(scene, "--p2p")
}

pub fn tunnelled(scene: &mut Scene<'_>) -> Result<String> {
    goes(scene, "--p2p --tunnelled")
}

pub fn undefined_at_the_source(scene: &mut Scene<'_>) -> Result<String> {
    let told = goes(scene, "--undefinesource")?;
    let known = scene.to().run(&format!("virsh dominfo {}", scene.name()))?;
    ensure!(!known.success(), "the source has the domain yet");
    Ok(told)
}

pub fn with_xml(scene: &mut Scene<'_>) -> Result<String> {
    let name = scene.name().to_owned();
    scene.from().ok(&format!(
        "virsh dumpxml --migratable {name} | sed 's#</uuid>#</uuid><title>moved</title>#' >/root/other.xml"
    ))?;
    let told = goes(scene, "--xml /root/other.xml")?;
    let title = scene.from().ok(&format!("virsh desc --title {name}"))?;
    ensure!(title.trim() == "moved", "title: {title}");
    Ok(told)
}

/// The guest is stopped at its source when it takes too long, and goes on at the destination.
pub fn suspended_after_a_time_out(scene: &mut Scene<'_>) -> Result<String> {
    // virsh counts from its own start: the guest must not be stopped before its VF is gone.
    let under_way = scene.copying("--timeout 20 --timeout-suspend")?;
    let paused = format!("virsh domstate {} | grep -q paused", scene.name());
    scene.from().until("the time-out", &paused, SOON)?;
    scene.hasten()?;
    let output = under_way.end()?;
    scene.arrived(output)?;
    Ok("stopped at the source, and migrated".to_owned())
}

pub fn postcopy(scene: &mut Scene<'_>) -> Result<String> {
    // Debian's libvirt has QEMU's user allowed to use it by a setting of the kernel's, which is the whole machine's here.
    let there = scene.there();
    let node = "/dev/userfaultfd";
    scene.inject(there, &format!("mknod -m 666 {node} c 10 257"), &format!("rm {node}"))?;
    goes(scene, "--postcopy --postcopy-after-precopy")
}

pub fn offline(scene: &mut Scene<'_>) -> Result<String> {
    let name = scene.name().to_owned();
    scene.from().ok(&format!("virsh destroy {name}"))?;
    scene.nothing_of(&scene.usual)?;
    let to = scene.to().name();
    let script = format!("virsh migrate --offline --persistent --undefinesource {name} qemu+tls://{to}/system");
    let begun = Instant::now();
    let output = scene.begin_as(script).end()?;
    scene.arrived(output)?;
    let moved = begun.elapsed().as_secs_f32();
    scene.nothing_of(&scene.usual)?;
    scene.boot(&scene.usual, scene.here(), "")?;
    // Its definition came by libvirt alone, and is put right by its first start there.
    let peer = format!(
        "virsh dumpxml --inactive {name} | grep \"source peer=.{}.\"",
        scene.from().name()
    );
    scene.from().until("the definition", &peer, SETTLE)?;
    Ok(format!("moved in {moved:.1} s, and started there"))
}
