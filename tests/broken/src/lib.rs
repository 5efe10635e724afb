//! Clusters that are broken on purpose, and such as are unusual and conform: what each probe must say about them.
//!
//! The clusters are data, `tests/broken/*.yaml`; `docs/broken-clusters.md` says how to add one. Reading order: [`data`] (the
//! form), [`table`] (putting entries together), [`place`], [`rules`] and [`actors`] (how a cluster is made), [`one`] (one
//! entry from start to end), [`pool`] (all of them), [`verdict`] (was it right), [`report`] (the JSON file).
//!
//! Nothing here judges a platform: verdicts come from the engine, through the same path as those of the program. Nothing
//! here touches a cluster that it did not start.

pub mod actors;
pub mod data;
pub mod edit;
pub mod lab;
#[cfg(test)]
mod live;
pub mod named;
pub mod one;
pub mod place;
pub mod pool;
#[cfg(test)]
mod recordings;
pub mod report;
pub mod rules;
pub mod table;
pub mod units;
pub mod verdict;
pub mod words;
