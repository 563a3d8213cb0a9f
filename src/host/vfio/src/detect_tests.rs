//! x
pub(crate) struct Kernel;
