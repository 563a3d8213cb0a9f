//! What outlives the agent but not the guest: takeovers begun, and what the host named. In /run, so that a guest that
//! starts anew, with its network configured anew, finds none of it.

use crate::model::Saved;
use hybond_core::ids::Mac;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

/// Where.
pub const DIRECTORY: &str = "/run/hybond-agent";
const EXTENSION: &str = "takeover";
const HOST: &str = "host";

/// The directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Makes the directory where it is not there.
    pub fn open(path: &str) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.into()))
    }

    /// The directory, whether it is there or not: for those who only read.
    pub fn at(path: &str) -> Self {
        Self(path.into())
    }

    fn path(&self, mac: Mac) -> PathBuf {
        self.0.join(format!("{}.{EXTENSION}", mac.compact()))
    }

    /// Begins a takeover: `fill` writes what is to be kept. The file is there whole or not at all.
    pub fn begin(&self, saved: &Saved, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
        let path = self.path(saved.mac);
        let new = path.with_extension("new");
        let mut file = BufWriter::new(File::create(&new)?);
        let Saved {
            mac,
            index,
            name,
            up,
            mtu,
            master,
            v6_mode,
        } = saved;
        writeln!(
            file,
            "{mac} {index} {} {mtu} {} {v6_mode} {name}",
            u8::from(*up),
            master.unwrap_or(0)
        )?;
        fill(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(new, path)
    }

    /// The takeovers that were begun. A file that cannot be read is of no use to anybody.
    pub fn takeovers(&self) -> Vec<Saved> {
        let Ok(files) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let paths = files.flatten().map(|f| f.path());
        paths
            .filter(|path| path.extension().is_some_and(|e| e == EXTENSION))
            .filter_map(|path| header(&mut BufReader::new(File::open(path).ok()?)))
            .collect()
    }

    /// What was kept, behind the header.
    pub fn saved(&self, mac: Mac) -> io::Result<impl Read + use<>> {
        let mut file = BufReader::new(File::open(self.path(mac))?);
        header(&mut file).ok_or(io::ErrorKind::InvalidData)?;
        Ok(file)
    }

    /// Ends a takeover.
    pub fn end(&self, mac: Mac) -> io::Result<()> {
        match fs::remove_file(self.path(mac)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What the last hello named; `None` where no host has said hello since the guest started.
    pub fn host(&self) -> Option<Vec<Mac>> {
        let text = fs::read_to_string(self.0.join(HOST)).ok()?;
        Some(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Keeps what a hello named. Most name what the last one did: what is kept already is not written again, as the hello of a
    /// guest's new host comes when its traffic is waited for.
    pub fn keep_host(&self, pairs: &[Mac]) -> io::Result<()> {
        if self.host().is_some_and(|kept| kept == pairs) {
            return Ok(());
        }
        let text: String = pairs.iter().map(|mac| format!("{mac}\n")).collect();
        let new = self.0.join("host.new");
        fs::write(&new, text)?;
        fs::rename(new, self.0.join(HOST))
    }
}

fn header(file: &mut impl BufRead) -> Option<Saved> {
    let mut line = String::new();
    file.take(256).read_line(&mut line).ok()?;
    let mut words = line.strip_suffix('\n')?.splitn(7, ' ');
    let number = |words: &mut std::str::SplitN<'_, char>| words.next()?.parse::<u32>().ok();
    let mac = words.next()?.parse().ok()?;
    let index = number(&mut words)?;
    let up = number(&mut words)? != 0;
    let mtu = number(&mut words)?;
    let master = Some(number(&mut words)?).filter(|m| *m != 0);
    let v6_mode = number(&mut words)? as u8;
    Some(Saved {
        mac,
        index,
        name: words.next()?.to_owned(),
        up,
        mtu,
        master,
        v6_mode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_found_again_and_forgotten_at_its_end() {
        let path = std::env::temp_dir().join(format!("hybond-agent-state-{}", std::process::id()));
        let state = StateDir::open(path.to_str().expect("a text")).expect("a directory");
        let saved = Saved {
            mac: "52:54:00:aa:00:01".parse().expect("a MAC"),
            index: 2,
            name: "eth0".to_owned(),
            up: true,
            mtu: 1500,
            master: None,
            v6_mode: 0,
        };
        assert_eq!(state.takeovers(), []);
        state.begin(&saved, |file| file.write_all(b"kept")).expect("written");
        assert_eq!(state.takeovers(), std::slice::from_ref(&saved));
        let mut kept = String::new();
        state
            .saved(saved.mac)
            .expect("there")
            .read_to_string(&mut kept)
            .expect("read");
        assert_eq!(kept, "kept");
        state.end(saved.mac).expect("deleted");
        state.end(saved.mac).expect("deleting twice is well");
        assert_eq!(state.takeovers(), []);
        assert_eq!(state.host(), None);
        state.keep_host(&[saved.mac]).expect("written");
        assert_eq!(state.host(), Some(vec![saved.mac]));
        fs::remove_dir_all(path).expect("cleaned");
    }
}
