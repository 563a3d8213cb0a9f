//! What hybond's own programs cost, with nothing of hosts or guests around them.

pub mod agent;
pub mod hook;
pub mod switch;
