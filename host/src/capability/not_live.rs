//! The interface that the contract drafts and this release does not serve: `device`.
//!
//! It is refused in words.

use crate::gate::{Call, Door};
use crate::recording::format::{Failure, Seen};
use serde_json::Value;

/// Refuses a call of a drafted interface; the refusal is recorded like any other.
pub fn refuse(door: &Door, function: &'static str, arguments: Value) -> Failure {
    let interface = function.split('.').next().unwrap_or(function);
    let failure = Failure::Refused(format!(
        "{function}: interface `{interface}` is drafted and not served in this release ({})",
        crate::names::CONTRACT_VERSION
    ));
    match door.refuse(Call::new(function, arguments), failure) {
        Err(failure) => failure,
        Ok(seen) => super::unexpected::<Seen>(function, &seen)
            .err()
            .unwrap_or(Failure::Stopping),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::Rig;
    use serde_json::json;

    #[tokio::test]
    async fn drafted_functions_say_so() {
        let rig = Rig::new("");
        let failure = refuse(&rig.door, "device.paths", json!({}));
        let Failure::Refused(text) = failure else {
            panic!("{failure:?}");
        };
        assert!(text.contains("`device` is drafted"), "{text}");
    }
}
