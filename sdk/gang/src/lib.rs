//! Groups of pods that start together or not at all: one adapter for each solution, and the steps that every probe about
//! groups takes.
//!
//! Read in this order: [`adapter`] (what a solution must be told and asked), [`upstream`] (the Workload API of Kubernetes),
//! [`kueue`], [`room`] (what is scarce and how many pods fit), [`watching`] (what is seen of a group), [`steps`] (the cases).
//!
//! The steps believe behaviour, not status: a group started when its pods run, and was held back when none of them did while
//! the solution said that it does not fit. That it was held back by scarcity alone is shown by letting go of the one unit that
//! was missing.

pub mod adapter;
pub mod extra;
pub mod kueue;
pub mod room;
pub mod steps;
pub mod upstream;
pub mod watching;

pub use adapter::{Adapter, Decision, GROUP, Group};
pub use kueue::Kueue;
pub use room::{Room, Scarce};
pub use steps::{Gang, Held, Needs, Waits};
pub use upstream::{Upstream, Version};
