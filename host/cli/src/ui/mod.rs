//! Everything a person sees. [`printer`] alone owns stdout and stderr; [`text`] makes foreign text harmless; [`display`],
//! [`verdicts`] and [`plan`] turn events, records and plans into lines without printing them; [`progress`] shows a run while
//! it goes on; [`lint`] and [`verify`] list findings; [`diagnostics`] words errors.

pub(crate) mod diagnostics;
pub(crate) mod display;
pub(crate) mod lint;
pub(crate) mod plan;
pub(crate) mod printer;
pub(crate) mod product;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod verdicts;
pub(crate) mod verify;

#[cfg(test)]
pub(crate) mod samples;
