//! The engine of Karat: it loads probes, confines them, runs them against a cluster, records what they saw and judges it.
//! It never prints, reads no environment and knows no home directory; whoever embeds it hands in a cluster, folders and
//! consents, and listens to [`event::RunEvent`]s.
//!
//! # The life of a run
//!
//! 1. **Load.** [`component`] refuses what is no probe before anything is compiled, each refusal with its own message, and
//!    reads the [`manifest`]: everything a probe asks for and claims is data. [`engine`] compiles it; compiled code is
//!    cached, and never accepted from elsewhere.
//! 2. **Plan.** [`run::plan`] selects and orders probes, sets what they ask ([`manifest`]) beside what is granted
//!    ([`grant`]), and asks the cluster what it would allow. Nothing has been created yet.
//! 3. **Prepare.** [`run::run`] draws the run id, opens the folder ([`runfolder`]) and the [`journal`], takes the
//!    cluster's Lease ([`run_lease`]) so that no other run writes meanwhile, teaches the redaction
//!    ([`redact`]) the names it must hide, and makes the [`sandbox`] namespaces.
//! 4. **Execute.** Each attempt is one guest in a fresh store. Everything it can do comes through [`contract`], which only
//!    converts types, to [`capability`], which describes the call, to the one door: [`gate`]. The door checks permissions
//!    ([`grant`]) and what no grant opens ([`guard`]), speaks to the [`cluster`], redacts, reduces, records
//!    ([`recording`]) and only then answers. The guest sees exactly what was recorded.
//! 5. **Clean up.** What the run wrote carries its [`seal`] and stands in the journal; it is removed by uid. What a killed run
//!    left is found again by [`clean`].
//! 6. **Judge.** [`judge`] computes the verdict from the manifest and the recorded calls alone, by rules that a probe cannot
//!    bend; [`catalog`] knows what each requirement demands at least.
//! 7. **Bundle.** [`bundle`] copies what may be given away, with a statement and a signature; where the operator asks for it,
//!    the cluster's issuer has witnessed the run meanwhile ([`witness`]).
//! 8. **Replay.** [`replay`] does 4 and 6 again from the folder, without a cluster, and compares; [`mod@verify`] does so for a bundle of a stranger.
//!    [`redacted_copy`] hides more in a copy and keeps it only if it replays to the same verdicts.
//! 9. **Report.** [`report`] writes what a finished folder says, for people and machines.
//!
//! A product folder for the programme is made by [`product`] from a run that was computed again, checked by [`lint`], which
//! reads official forms through [`form`], and commented on by [`review`].
//!
//! [`model`] has the nouns of all this, [`event`] what the outside hears meanwhile, [`names`] every name that is left on a
//! cluster, [`package`] turns a core module and a manifest into a component.
//!
//! # Reading order
//!
//! [`model`], [`manifest`], [`gate`], one capability ([`capability::kube_read`]), [`judge`], [`run`].

pub mod bundle;
pub mod capability;
pub mod catalog;
pub mod clean;
pub mod cluster;
pub mod component;
pub mod contract;
pub mod engine;
pub mod event;
pub mod form;
pub mod gate;
pub mod grant;
pub mod guard;
pub mod images;
pub mod journal;
pub mod judge;
pub mod lease;
pub mod lint;
pub mod manifest;
pub mod model;
pub mod names;
pub mod package;
pub mod product;
pub mod recording;
pub mod redact;
pub mod redacted_copy;
pub mod replay;
pub mod report;
pub mod review;
pub mod run;
pub mod run_lease;
pub mod runfolder;
pub mod sandbox;
#[doc(hidden)]
pub mod scratch;
pub mod seal;
pub mod verify;
pub mod witness;

#[cfg(test)]
mod test_guests;
