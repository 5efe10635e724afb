//! The recorded conversation of one attempt: a header, then entries chained by hash, then an end.
//!
//! Written by [`recorder`] while the attempt runs, read back by [`player`] for strict replay (the n-th call is the n-th
//! entry) or as a fixture for authors' tests (by request). The format itself is in [`format`].

pub mod format;
