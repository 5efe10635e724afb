//! The engine of Karat: it loads probes, confines them, runs them against a cluster, records what they saw and judges it.
//! It never prints, reads no environment and knows no home directory; whoever embeds it hands in a cluster, folders and
//! consents, and listens to [`event::RunEvent`]s.

pub mod capability;
pub mod catalog;
pub mod clean;
pub mod cluster;
pub mod component;
pub mod contract;
pub mod engine;
pub mod event;
pub mod gate;
pub mod grant;
pub mod guard;
pub mod journal;
pub mod judge;
pub mod manifest;
pub mod model;
pub mod names;
pub mod package;
pub mod recording;
pub mod redact;
pub mod replay;
pub mod run;
pub mod runfolder;
pub mod sandbox;
pub mod seal;

#[cfg(test)]
mod test_guests;
