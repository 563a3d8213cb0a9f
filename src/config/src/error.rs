//! Why a configuration cannot be used.

use crate::file::LIMIT;
use std::path::PathBuf;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More than any configuration needs.
    #[error("{path} is larger than {LIMIT} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// Not TOML, an unknown key, a value that is not allowed, or values that are allowed alone and not together.
    #[error("{path}:{line}: {problem}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong, and what is allowed there.
        problem: String,
    },
}
