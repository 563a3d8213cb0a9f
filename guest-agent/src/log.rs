//! Lines on stderr with the priority prefix of sd-daemon(3), which journald and the kernel's log understand.

use std::io::Write;

/// One line, in one write: a half of it is of no use in `/dev/kmsg`. What cannot be logged has nowhere else to go.
pub fn write(priority: u8, text: std::fmt::Arguments<'_>) {
    let line = format!("<{priority}>hybond-agent: {text}\n");
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// `log!(info, "…", …)`: `error` the administrator must act, `warning` degraded, `info` a phase of the pair's life.
macro_rules! log {
    (error, $($arg:tt)*) => { $crate::log::write(3, format_args!($($arg)*)) };
    (warning, $($arg:tt)*) => { $crate::log::write(4, format_args!($($arg)*)) };
    (info, $($arg:tt)*) => { $crate::log::write(6, format_args!($($arg)*)) };
}
