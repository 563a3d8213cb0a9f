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
    /// Not TOML, an unknown key, or a value that is not allowed: the source says where.
    #[error("{path} is not valid")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Line, column, key and what is allowed there.
        source: Box<toml::de::Error>,
    },
    /// Values that are valid alone and not together.
    #[error("{path}: {problem}")]
    Meaning {
        /// Which.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        problem: String,
    },
}
