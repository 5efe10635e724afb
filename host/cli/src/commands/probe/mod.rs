//! Verbs for authors of probes.

pub(crate) mod build;
