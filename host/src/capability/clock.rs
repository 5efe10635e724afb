//! Time: read once, recorded, and replayed instead of relived.

use super::{text, unexpected};
use crate::gate::{Answer, Call, Content, Door};
use crate::recording::format::{Failure, Seen};
use jiff::Timestamp;
use serde_json::json;

/// Wall-clock time in UTC with milliseconds: `2026-11-21T10:00:00.000Z`.
///
/// # Errors
/// The attempt is over.
pub fn now(door: &Door) -> Result<String, Failure> {
    let call = Call::new("clock.now", json!({})).always();
    let reply = door.local(call, |_| {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
        Ok(Answer::own(Content::Own(now.to_string())))
    });
    text("clock.now", reply)
}

/// Milliseconds since the attempt began. Never goes back; stays at the largest value after 49 days.
///
/// # Errors
/// The attempt is over.
pub fn elapsed(door: &Door) -> Result<u32, Failure> {
    let call = Call::new("clock.elapsed", json!({})).always();
    let ms = door.elapsed_ms();
    match door.local(call, |_| Ok(Answer::own(Content::Number(ms))))? {
        Seen::Number(ms) => Ok(u32::try_from(ms).unwrap_or(u32::MAX)),
        other => unexpected("clock.elapsed", &other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::Rig;

    #[tokio::test]
    async fn time_is_recorded_and_replayed() {
        let mut rig = Rig::new("");
        let (first, ms) = (now(&rig.door).unwrap(), elapsed(&rig.door).unwrap());
        assert_eq!(first.len(), "2026-11-21T10:00:00.000Z".len());
        assert!(first.ends_with('Z'));
        let replay = rig.replay();
        assert_eq!(
            (now(&replay).unwrap(), elapsed(&replay).unwrap()),
            (first, ms)
        );
        assert_eq!(replay.finish_replay(), Ok(vec![]));
    }
}
