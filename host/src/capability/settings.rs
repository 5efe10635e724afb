//! The operator's settings for a probe. A secret is a reference here; only the host can turn it into the value.

use super::unexpected;
use crate::gate::{Answer, Call, Content, Door, reduce::clip};
use crate::recording::format::{Failure, Seen};
use serde_json::json;

/// The value as text, or the manifest's default; none for a key without either.
///
/// # Errors
/// The attempt is over.
pub fn get(door: &Door, key: &str) -> Result<Option<String>, Failure> {
    let key = clip(key, 253);
    let call = Call::new("settings.get", json!({"key": key})).always();
    let reply = door.local(call, |live| {
        let default = || door.manifest().settings.get(key)?.default.clone();
        let value = live.settings.get(key).cloned().or_else(default);
        Ok(Answer::own(value.map_or(Content::Nothing, Content::Own)))
    });
    match reply? {
        Seen::Nothing => Ok(None),
        Seen::Text(value) => Ok(Some(value)),
        other => unexpected("settings.get", &other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::Rig;

    #[tokio::test]
    async fn values_come_before_defaults() {
        let mut rig = Rig::new("");
        assert_eq!(get(&rig.door, "given").unwrap().as_deref(), Some("90s"));
        assert_eq!(get(&rig.door, "unknown").unwrap(), None);
        let replay = rig.replay();
        assert_eq!(get(&replay, "given").unwrap().as_deref(), Some("90s"));
        assert_eq!(get(&replay, "unknown").unwrap(), None);
    }
}
