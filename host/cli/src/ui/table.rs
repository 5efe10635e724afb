//! Aligned columns of harmless text, the engine's own.

pub(crate) use karat_engine::report::terminal::{Cell, Table};
