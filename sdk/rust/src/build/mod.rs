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

/// JSON that is written in a source file. Read at run time, because code that builds it by hand is ten times its size.
///
/// # Panics
/// When the text is no JSON; it never comes from outside.
pub fn from_text(text: &'static str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}
