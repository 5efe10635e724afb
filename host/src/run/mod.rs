//! A run from its plan to its record.

pub mod plan;
