//! `hybond-lab`: the lab from the command line.

use anyhow::{Context, Result, bail};
use hybond_lab::tier2::Pair;
use hybond_lab::{Domain, Guest, Lab, Machine, cache, image, scenario};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

const USAGE: &str = "\
usage: hybond-lab up                      restore (or first build) the two emulated hosts, and leave them up
       hybond-lab down                    end them
       hybond-lab status                  what is up, and the hosts' clocks
       hybond-lab ssh HOST [COMMAND…]     a command on src, dst or peer; without one, a shell
       hybond-lab guest DOMAIN COMMAND…   a command in a guest, on whichever host it runs
       hybond-lab guest-image [--agent FILE] [--probe FILE] -o FILE
                                          the initramfs of the guest with these programs
       hybond-lab domain NAME PF [KERNEL-ARGUMENT…]
                                          XML of a guest with a virtio NIC on PF, for virsh define
       hybond-lab iommufd                 put the rebuilt iommufd and VFIO modules on the running hosts
       hybond-lab tier2 up | down | ssh HOST COMMAND…
                                          the same for the two namespaced hosts
       hybond-lab demo [--migrations N] [--out FOLDER]
                                          migrate a hybrid guest there and back (2) under traffic; the report goes to
                                          target/demo. Wants the packages of `make packages`
       hybond-lab clean-cache             remove everything that the lab has built

The cache is $HYBOND_CACHE, by default /var/cache/hybond-lab. $HYBOND_LAB names a second lab beside the usual one.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["up"] => Lab::up().map(Lab::leave).map(|()| ExitCode::SUCCESS),
        ["down"] => Lab::clear().map(|()| ExitCode::SUCCESS),
        ["status"] => status(),
        ["ssh", host, command @ ..] => ssh(host, command),
        ["guest", domain, command @ ..] => guest(domain, command),
        ["guest-image", rest @ ..] => guest_image(rest),
        ["domain", name, pf, arguments @ ..] => domain(name, pf, arguments),
        ["iommufd"] => Lab::attach()
            .and_then(|lab| lab.load_iommufd())
            .map(|()| ExitCode::SUCCESS),
        ["tier2", "up"] => Pair::up().map(Pair::leave).map(|()| ExitCode::SUCCESS),
        ["tier2", "down"] => Pair::clear().map(|()| ExitCode::SUCCESS),
        ["tier2", "ssh", host, command @ ..] => Pair::attach().and_then(|pair| match *host {
            "src" | "dst" => interact(pair.host(host), command),
            "peer" => interact(pair.peer(), command),
            _ => bail!("there is no host {host}: src, dst and peer are there"),
        }),
        ["demo", rest @ ..] => demo(rest),
        ["clean-cache"] => clean_cache(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("hybond-lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn status() -> Result<ExitCode> {
    let lab = Lab::attach()?;
    let mut out = std::io::stdout().lock();
    for host in lab.hosts() {
        let clock = host.clock_offset()?;
        writeln!(
            out,
            "{} {}: clock {:+.2} ms (± {:.2})",
            host.name(),
            host.address(),
            clock.offset_ms,
            clock.error_ms
        )?;
        for pf in host.pfs() {
            writeln!(out, "  {pf}: VFs {}", host.vfs(pf)?.join(" "))?;
        }
        write!(out, "{}", host.ok("virsh -q list --all | sed 's/^/  domain/'")?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ssh(host: &str, command: &[&str]) -> Result<ExitCode> {
    let lab = Lab::attach()?;
    match host {
        "src" | "dst" => interact(lab.host(host), command),
        "peer" => interact(lab.peer(), command),
        _ => bail!("there is no host {host}: src, dst and peer are there"),
    }
}

fn interact(machine: &impl Machine, command: &[&str]) -> Result<ExitCode> {
    let script = if command.is_empty() {
        "exec bash -i".to_owned()
    } else {
        command.join(" ")
    };
    let status = machine
        .command(&script)
        .stdin(Stdio::inherit())
        .status()
        .context("cannot start it")?;
    Ok(ExitCode::from(
        status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
    ))
}

fn guest(domain: &str, command: &[&str]) -> Result<ExitCode> {
    let lab = Lab::attach()?;
    let guest = Guest::new(domain);
    for host in lab.hosts() {
        if !host
            .run(&format!("virsh domstate {domain} | grep -q running"))?
            .success()
        {
            continue;
        }
        let output = guest.run_within(host, &command.join(" "), Duration::from_secs(60))?;
        write!(std::io::stdout(), "{}", output.stdout)?;
        return Ok(ExitCode::from(u8::try_from(output.status).unwrap_or(1)));
    }
    bail!("domain {domain} runs on neither host")
}

fn guest_image(arguments: &[&str]) -> Result<ExitCode> {
    let mut programs: Vec<(&Path, &str)> = Vec::new();
    let mut out: Option<PathBuf> = None;
    for pair in arguments.chunks(2) {
        match pair {
            ["--agent", file] => programs.push((Path::new(file), "hybond-agent")),
            ["--probe", file] => programs.push((Path::new(file), "hybond-probe")),
            ["-o", file] => out = Some(file.into()),
            _ => bail!("\"{}\" is not an option with its value\n{USAGE}", pair.join(" ")),
        }
    }
    image::guest_image(&programs, &out.context("-o FILE is missing")?)?;
    Ok(ExitCode::SUCCESS)
}

fn domain(name: &str, pf: &str, arguments: &[&str]) -> Result<ExitCode> {
    let mut domain = Domain::new(name, pf);
    for argument in arguments {
        domain.kernel_arguments += &format!(" {argument}");
    }
    write!(std::io::stdout(), "{}", domain.xml())?;
    Ok(ExitCode::SUCCESS)
}

fn demo(arguments: &[&str]) -> Result<ExitCode> {
    let (migrations, folder) = scenario::demo_arguments(arguments)?;
    let mut out = std::io::stdout().lock();
    Ok(match scenario::demo(migrations, &folder, &mut out)? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn clean_cache() -> Result<ExitCode> {
    Lab::clear()?;
    let root = cache::root();
    let prepared = ["prepared.demo", "prepared.test"];
    for name in prepared
        .into_iter()
        .chain(["saved", "disk", "emulator", "iommufd", "guest", "identity", "rootfs"])
    {
        cache::prune(name, None).with_context(|| format!("the cache is in {}", root.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
