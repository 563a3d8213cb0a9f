//! libvirt's default event loop: one per process, registered before the first connection is opened, for ever.

use std::sync::OnceLock;

/// Registers the event loop and starts its thread, once. libvirt looks for the loop while it opens a connection: one that
/// is opened earlier delivers no events and answers no keepalive (`virNetClientRegisterAsyncIO`).
pub(crate) fn ensure_running() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(start).clone()
}

fn start() -> Result<(), String> {
    // Without a callback libvirt prints every error to stderr.
    virt::error::clear_error_callback();
    virt::event::event_register_default_impl().map_err(|e| format!("libvirt's event loop is not there: {e}"))?;
    std::thread::Builder::new()
        .name("libvirt-events".into())
        .spawn(run)
        .map(drop)
        .map_err(|e| format!("no thread for libvirt's events: {e}"))
}

fn run() {
    loop {
        // Returns after each round of callbacks. It fails only where poll() itself does; without the pause such a loop
        // would take a whole CPU.
        if let Err(error) = virt::event::event_run_default_impl() {
            tracing::error!(%error, "libvirt's event loop failed, going on");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}
