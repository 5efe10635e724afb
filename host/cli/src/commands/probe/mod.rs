//! Verbs for authors of probes.

pub(crate) mod build;
pub(crate) mod new;
pub(crate) mod templates;
