//! Everything a person sees. [`printer`] alone owns stdout and stderr; [`text`] makes foreign text harmless; [`verdicts`]
//! and [`plan`] turn records and plans into lines without printing them; [`diagnostics`] words errors.

pub(crate) mod diagnostics;
pub(crate) mod plan;
pub(crate) mod printer;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod verdicts;

#[cfg(test)]
pub(crate) mod samples;
