//! Builders for what probes create again and again: tool pods, accelerator pods, resource claims, selectors.
//!
//! They give plain JSON, so that a probe can add what it needs. Their defaults satisfy Pod Security `restricted` and leave
//! little behind when a run dies: a deadline in every pod, no service account token, no privileges.

mod claim;
mod pod;
mod selector;

pub use claim::{ClaimSpec, DraVersion, claim, claim_template};
pub use pod::PodBuilder;
pub use selector::Selector;
