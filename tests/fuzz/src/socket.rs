//! A runtime and a unix socket for all runs of a thread: making them anew for each costs more than the run.

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;

/// Longer than anything here takes. Whoever needs it hangs.
pub const LONG: Duration = Duration::from_secs(10);

struct Bench {
    runtime: Runtime,
    listener: UnixListener,
    folder: tempfile::TempDir,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// The far end of a connection: what hybond connects to.
pub struct Far<'a> {
    listener: &'a UnixListener,
    /// Where it listens.
    pub path: PathBuf,
}

impl Far<'_> {
    /// The next connection.
    pub async fn accept(&self) -> UnixStream {
        let accepted = tokio::time::timeout(LONG, self.listener.accept()).await;
        accepted.expect("hybond connects").expect("accepted").0
    }
}

/// Runs with the thread's socket. What was spawned and is not over by then goes on in the next run.
pub fn with<F: AsyncFnOnce(Far<'_>) -> T, T>(run: F) -> T {
    BENCH.with_borrow_mut(|bench| {
        let bench = bench.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let folder = tempfile::tempdir().expect("a folder");
            let _inside = runtime.enter();
            let listener = UnixListener::bind(folder.path().join("far")).expect("a socket");
            Bench {
                runtime,
                listener,
                folder,
            }
        });
        let far = Far {
            listener: &bench.listener,
            path: bench.folder.path().join("far"),
        };
        bench.runtime.block_on(run(far))
    })
}

/// What has to come soon.
pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, wait).await {
        Ok(came) => came,
        Err(_) => panic!("{what} does not come"),
    }
}

/// The bytes in pieces of the sizes that the first byte leads to.
pub fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let size = match data.first().map_or(0, |b| b % 4) {
        0 => data.len().max(1),
        1 => 1024,
        2 => 61,
        _ => 7,
    };
    data.chunks(size)
}
