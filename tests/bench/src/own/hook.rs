//! The hook: libvirt runs it for every domain of the host, at every step of its life, and waits.
//!
//! Beside an empty C program, which costs what starting any program costs. hybondd is a stand-in that answers at once:
//! what a daemon takes for its answer is no time of the hook's.

use crate::Programs;
use crate::figures::{Figure, Point, Section};
use crate::picture;
use crate::variant::{Measures, Rounds, Variant, interleave};
use anyhow::{Context, Result, ensure};
use hybond_wire::hook::{LIMIT, Request, Response};
use hybond_wire::line;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const WHAT: &str = "time of a call";
const EMPTY: &str = "empty C program";
const OTHERS: &str = "hook, domain of others";
const OURS: &str = "hook, domain of hybond's";
/// As large as the XML of a domain with a few disks, which libvirt writes in full to the hook.
const XML: usize = 12 * 1024;

/// A program that is started, gets a domain's XML, and ends.
struct Call<'a> {
    name: &'a str,
    program: &'a Path,
    xml: &'a Path,
    socket: &'a Path,
}

impl Variant for Call<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn once(&mut self, _round: usize) -> Result<Measures> {
        let xml = File::open(self.xml).with_context(|| format!("cannot read {}", self.xml.display()))?;
        let mut command = Command::new(self.program);
        command
            .args(["guest1", "prepare", "begin", "-"])
            .env_clear()
            .env("HYBOND_HOOK_SOCKET", self.socket)
            .stdin(xml)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let begun = Instant::now();
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        ensure!(status.success(), "it ended with {status}");
        Ok(Measures::from([(WHAT.to_owned(), vec![ms])]))
    }
}

/// Answers each request at once, for as long as this program runs.
fn answer(socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let proceed = line::encode(&Response::unchanged(), LIMIT)?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = Vec::new();
            // A request that makes no sense gets no answer: the call then fails, and with it the benchmark.
            let read = BufReader::new(&stream).read_until(b'\n', &mut request);
            let asked = read.is_ok() && line::decode::<Request>(&request, LIMIT).is_ok();
            if asked && stream.write_all(&proceed).is_err() {
                // Who asked has gone, which its call tells.
                continue;
            }
        }
    });
    Ok(())
}

/// A domain's XML of about the usual size, with or without hybond's element.
fn domain(ours: bool) -> String {
    let element = "<metadata><hybond:domain xmlns:hybond='urn:hybond:domain:1'>\
                   <hybond:pair mac='52:54:00:aa:00:01' pool='lan' policy='prefer'/></hybond:domain></metadata>";
    let disk = "    <disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2'/>\n      \
                <source file='/var/lib/libvirt/images/guest1.qcow2'/>\n      <target dev='vda' bus='virtio'/>\n    </disk>\n";
    let head = format!(
        "<domain type='kvm'>\n  <name>guest1</name>\n  <uuid>a2a2a2a2-0000-4000-8000-000000000002</uuid>\n  {}\n  \
         <memory unit='KiB'>1048576</memory>\n  <devices>\n",
        if ours { element } else { "" }
    );
    let tail = "    <interface type='ethernet'>\n      <mac address='52:54:00:aa:00:01'/>\n      \
                <target dev='hb525400aa0001' managed='no'/>\n      <model type='virtio'/>\n    </interface>\n  </devices>\n\
                </domain>\n";
    head + &disk.repeat(XML / disk.len()) + tail
}

/// Compiles the empty program.
fn empty(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("empty.c"), folder.join("empty"));
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let mut cc = Command::new("cc");
    hybond_lab::process::run_ok(cc.arg("-O2").arg("-o").arg(&program).arg(&source)).context("cc is in Debian's gcc")?;
    Ok(program)
}

/// Measures it.
///
/// # Errors
/// A program is missing, or a call fails.
pub fn bench(programs: &Programs, folder: &Path, rounds: usize) -> Result<Section> {
    let own = tempfile::tempdir().context("no temporary folder")?;
    let socket = own.path().join("hook.sock");
    answer(&socket)?;
    let (others, ours) = (own.path().join("others.xml"), own.path().join("ours.xml"));
    fs::write(&others, domain(false))?;
    fs::write(&ours, domain(true))?;
    let empty = empty(own.path())?;
    let call = |name, program, xml| -> Box<dyn Variant> {
        Box::new(Call {
            name,
            program,
            xml,
            socket: &socket,
        })
    };
    let mut variants = [
        call(EMPTY, empty.as_path(), others.as_path()),
        call(OTHERS, &programs.hook, &others),
        call(OURS, &programs.hook, &ours),
    ];
    let rounds = Rounds {
        warm: 5,
        count: rounds,
        failures: 0,
    };
    let taken = interleave(&mut variants, rounds, &mut |_, _| Ok(()))?;
    drop(variants);
    let figure = |name| Figure::of(WHAT, name, "ms", &taken.samples(name, WHAT)).context("no round was taken");
    let base = figure(EMPTY)?;
    let over = |name: &str, at_most: f64| {
        let own = taken.samples(name, WHAT);
        let rounds = own.iter().zip(&base.samples);
        let more: Vec<f64> = rounds.map(|(own, base)| own - base).collect();
        let figure = Figure::of("more than the empty program", name, "ms", &more);
        figure
            .map(|figure| figure.at_most(Point::Median, at_most))
            .context("no round was taken")
    };
    let times = [
        base.clone(),
        figure(OTHERS)?.against(EMPTY, &taken.ratios(OTHERS, EMPTY, WHAT)),
        figure(OURS)?.against(EMPTY, &taken.ratios(OURS, EMPTY, WHAT)),
    ];
    let title = "The hook, beside an empty C program";
    let drawn = picture::boxes(title, &times.each_ref());
    hybond_lab::svg::write(folder, "hook", drawn)?;
    let mut figures = times.to_vec();
    figures.push(over(OTHERS, 1.0)?);
    figures.push(over(OURS, 5.0)?);
    let size = fs::metadata(&programs.hook)?.len() as f64 / 1024.0;
    figures.extend(Figure::of("size of the program", "hook", "KiB", &[size]));
    Ok(Section {
        name: "hook".to_owned(),
        title: title.to_owned(),
        about: "libvirt runs the hook for every domain of the host and waits for it. Each call is a process from its start \
                to its end, with 12 KiB of XML on its standard input (a file), one of each kind in each round. hybondd is a \
                stand-in that answers at once."
            .to_owned(),
        figures,
        slopes: Vec::new(),
        failed: Vec::new(),
        pictures: vec![("hook".to_owned(), "times of calls".to_owned())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domains_are_of_the_usual_size_and_differ_by_hybonds_element() {
        let (others, ours) = (domain(false), domain(true));
        assert!((10_000..14_000).contains(&others.len()), "{}", others.len());
        assert!(ours.contains("urn:hybond:domain:1") && !others.contains("urn:hybond"));
    }
}
