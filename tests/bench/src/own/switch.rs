//! The agent at work: from the event that wakes it until the bond has switched, by the clock of the guest's own kernel. Where
//! the guest's CPU is emulated, that clock goes by the machine's in one guest, and by instructions in another.
//!
//! A guest with Debian's kernel in a QEMU, a standby and an emulated primary. The kernel traces when it wakes the agent, when its
//! bonding driver is asked for another slave and when it has made that the one in use, so that nothing of QEMU, the port or this
//! program is in the figure.

use crate::figures::{Figure, Point, Section};
use crate::picture;
use anyhow::{Context, Result, bail, ensure};
use hybond_test_netns::on_a_host;
use hybond_test_qemu::guest::Clock;
use hybond_test_qemu::side::{Side, lan, mac};
use hybond_test_qemu::{Image, guest};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WHAT: &str = "event until the bond has switched";
const DRIVER: &str = "of that, within the bonding driver";
/// Wakings of one switch are closer together than this; switches are not.
const TOGETHER_MS: f64 = 20.0;
/// Between two orders. The agent answers one when it has closed the bond's gate, and without a pause the waking for that would be
/// taken for the one by the next order.
const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);

/// The driver's option, probed at its begin, and its function that makes another slave the one in use, at its return.
const BEGIN: &str = "mount -t tracefs nodev /sys/kernel/tracing; cd /sys/kernel/tracing && \
    echo 'p:hb/asked bonding:bond_option_active_slave_set' >kprobe_events && \
    echo 'r:hb/switched bonding:bond_change_active_slave' >>kprobe_events && echo 1 >events/hb/asked/enable && \
    echo 'comm == \"hybond-agent\"' >events/sched/sched_waking/filter && echo 1 >events/sched/sched_waking/enable && \
    echo 1 >events/hb/switched/enable && echo BENCH-BEGIN >/dev/console";
const END: &str = "cd /sys/kernel/tracing; echo 0 >tracing_on; cat trace >/dev/console; echo BENCH-END >/dev/console";

/// For each switch in a trace, how long before it the agent was woken, and the driver was asked, in milliseconds.
fn switches(trace: &str) -> Vec<(f64, f64)> {
    let mut woken: Vec<f64> = Vec::new();
    let mut asked = None;
    let mut found = Vec::new();
    for line in trace.lines() {
        // `TASK-PID [CPU] FLAGS SECONDS: EVENT: …`
        let mut words = line.split_whitespace().peekable();
        let mut at = None;
        while let Some(word) = words.next() {
            let seconds = word.strip_suffix(':').and_then(|word| word.parse::<f64>().ok());
            if let (Some(seconds), Some(event)) = (seconds, words.peek()) {
                at = Some((seconds * 1e3, (*event).trim_end_matches(':')));
                break;
            }
        }
        match at {
            Some((ms, "sched_waking")) => woken.push(ms),
            Some((ms, "asked")) => asked = Some(ms),
            Some((ms, "switched")) => {
                let own = woken.iter().find(|woken| ms - **woken < TOGETHER_MS);
                found.extend(own.zip(asked.take()).map(|(woken, asked)| (ms - woken, ms - asked)));
                woken.clear();
            }
            _ => {}
        }
    }
    found
}

async fn console_has(side: &Side, text: &str) -> Result<()> {
    let begun = Instant::now();
    while !side.guest.console().contains(text) {
        if begun.elapsed() > PATIENCE {
            bail!("{text} never came: {}", side.guest.console());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn trace(side: &mut Side, host: &hybond_test_netns::Host, rounds: usize) -> Result<String> {
    side.plug(host, "primary").await;
    side.guest.order(BEGIN).await?;
    console_has(side, "BENCH-BEGIN")
        .await
        .context("the guest's kernel does not trace")?;
    for _ in 0..rounds {
        tokio::time::sleep(PAUSE).await;
        side.failback().await;
        tokio::time::sleep(PAUSE).await;
        side.failover().await;
    }
    side.guest.order(END).await?;
    console_has(side, "BENCH-END").await?;
    Ok(side.guest.console())
}

/// What a guest measures by one clock: its switches, and what of each is the driver's.
fn by(clock: Clock, image: &Arc<Image>, rounds: usize) -> Result<(Figure, Figure)> {
    let image = Arc::clone(image);
    let (send, received) = std::sync::mpsc::channel();
    on_a_host(move |host| async move {
        lan(&host);
        let standby = mac().standby_name().to_string();
        let mut side = Side::booted(&host, &image, clock, "pf", &standby).await;
        // Who waits for it is there: it waits for this function's end.
        drop(send.send(trace(&mut side, &host, rounds).await));
    });
    let console = received.recv().context("the guest has not been traced")??;
    let found = switches(&console);
    ensure!(
        found.len() >= rounds,
        "only {} of {} switches were traced",
        found.len(),
        2 * rounds
    );
    let (whole, driver): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
    let name = called(clock);
    Figure::of(WHAT, name, "ms", &whole)
        .zip(Figure::of(DRIVER, name, "ms", &driver))
        .context("no switch was traced")
}

/// Measures it.
///
/// # Errors
/// The guest does not boot, or its kernel does not trace.
///
/// # Panics
/// Something that the two-QEMU tests rely on as well does not work.
pub fn bench(folder: &Path, rounds: usize) -> Result<Section> {
    let accelerator = guest::accelerator();
    let image = Arc::new(Image::build()?);
    // By the clock of a machine that emulates the CPU, the figure is the emulation's: the goal is held against the first of these.
    let clocks: &[Clock] = if guest::is_emulated(&accelerator) {
        &[Clock::Instructions, Clock::Machine]
    } else {
        &[Clock::Machine]
    };
    let measured: Vec<_> = clocks
        .iter()
        .map(|clock| by(*clock, &image, rounds))
        .collect::<Result<_>>()?;
    let (mut figures, drivers): (Vec<Figure>, Vec<Figure>) = measured.into_iter().unzip();
    if let Some(first) = figures.first_mut() {
        *first = first.clone().at_most(Point::Median, 1.0);
    }
    let title = "The agent's switch";
    let drawn: Vec<&Figure> = figures.iter().collect();
    hybond_lab::svg::write(folder, "switch", picture::boxes(title, &drawn))?;
    figures.extend(drivers);
    Ok(Section {
        name: "switch".to_owned(),
        title: title.to_owned(),
        about: format!(
            "From the waking of the agent by the host's order until the bonding driver has changed the slave in use, as the \
             guest's kernel traces it, each after a tenth of a second in which nothing happens: a guest with Debian's kernel \
             and one CPU in QEMU with accelerator '{accelerator}', half of the switches to the primary and half to the \
             standby. By the machine's clock a CPU that is emulated (tcg) takes some ten times as long as a real one. There a \
             second guest counts by its CPU's instructions, a nanosecond each (QEMU's -icount): what is told is what a CPU of \
             1,000 million instructions per second takes, the tracing included, and any server's CPU does more than so many. \
             The goal is held against that."
        ),
        figures,
        slopes: Vec::new(),
        failed: Vec::new(),
        pictures: vec![("switch".to_owned(), "times of switches".to_owned())],
    })
}

fn called(clock: Clock) -> &'static str {
    match clock {
        Clock::Machine => "hybond-agent",
        Clock::Instructions => "hybond-agent, 1 ns per instruction",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_counts_from_the_first_waking_that_belongs_to_it() {
        let trace = "\
# tracer: nop
          <idle>-0       [000] d.h2.    10.000000: sched_waking: comm=hybond-agent pid=99 prio=120 target_cpu=000
          <idle>-0       [000] d.h2.    12.000000: sched_waking: comm=hybond-agent pid=99 prio=120 target_cpu=000
    hybond-agent-99      [000] d..2.    12.000100: sched_waking: comm=hybond-agent pid=99 prio=120 target_cpu=000
    hybond-agent-99      [000] .....    12.000150: asked: (bond_option_active_slave_set+0x0/0x1f0 [bonding])
    hybond-agent-99      [000] .....    12.000250: switched: (bond_option_active_slave_set+0x1/0x2 [bonding] <- bond_change)
BENCH-END
    hybond-agent-99      [000] .....    15.000000: switched: (without a waking)
";
        let found = switches(trace);
        assert_eq!(found.len(), 1);
        let (whole, driver) = found[0];
        assert!((whole - 0.25).abs() < 1e-6 && (driver - 0.1).abs() < 1e-6, "{found:?}");
    }
}
