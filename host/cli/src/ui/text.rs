//! Makes text of guests, clusters and files harmless for a terminal and for the log of a CI system, and numbers readable for
//! people. Both are the engine's, [`karat_engine::report::text`], so that there is one place where text is escaped.

pub(crate) use karat_engine::report::text::{shown, shown_lines, shown_within};
pub(crate) use karat_engine::report::words::{bytes, counted, duration, duration_ms, wrap};
