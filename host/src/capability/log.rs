//! Lines for people. Recorded, because a replay must meet the same calls, but never evidence: a log line is no effect.

use super::nothing;
use crate::event::RunEventKind;
use crate::gate::{Answer, Call, Content, Door, reduce::clip};
use crate::recording::format::Failure;
use serde_json::json;

/// Longest line in bytes; the rest is cut.
const LINE_MAX: usize = 8 << 10;
/// Bytes that one attempt may write. What comes later is dropped, with one note in the recording.
const TOTAL_MAX: u64 = 1 << 20;
const LEVELS: &[&str] = &["debug", "info", "warn", "error"];

/// Writes one line. Any level but `debug`, `info`, `warn` and `error` counts as `info`.
///
/// # Errors
/// The attempt is over.
pub fn write(door: &Door, level: &str, line: &str) -> Result<(), Failure> {
    let level = LEVELS
        .iter()
        .find(|known| **known == level)
        .unwrap_or(&"info");
    let line = clip(line, LINE_MAX);
    // Counted the same way in a recording and in its replay, so that both know which lines were dropped.
    let arguments = {
        let mut state = door.state();
        if state.log_full {
            return Ok(());
        }
        state.logged += line.len() as u64;
        state.log_full = state.logged > TOTAL_MAX;
        if state.log_full {
            json!({"level": "warn", "text": format!("the log of this attempt has {TOTAL_MAX} bytes; later lines are dropped")})
        } else {
            json!({"level": level, "text": line})
        }
    };
    let shown = (
        arguments["level"].as_str().unwrap_or_default().to_owned(),
        arguments["text"].as_str().unwrap_or_default().to_owned(),
    );
    let call = Call::new("log.write", arguments).always();
    let reply = door.local(call, |live| {
        door.events().send(RunEventKind::Logged {
            probe: door.probe().to_owned(),
            level: shown.0,
            text: live.redactor.redact_text(&shown.1),
        });
        Ok(Answer::own(Content::Nothing))
    });
    nothing("log.write", reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::Rig;

    #[tokio::test]
    async fn a_flood_is_cut_and_noted_once() {
        let mut rig = Rig::new("");
        let long = "x".repeat(20_000);
        for _ in 0..200 {
            write(&rig.door, "shout", &long).unwrap();
        }
        let replay = rig.replay();
        let entries = rig.entries();
        // 1 MiB / 8 KiB lines and one note; the rest left no trace.
        assert_eq!(entries.len(), 129);
        assert_eq!(entries[0].arguments["level"], "info");
        assert_eq!(
            entries[0].arguments["text"].as_str().unwrap().len(),
            LINE_MAX
        );
        assert!(
            entries[128].arguments["text"]
                .as_str()
                .unwrap()
                .contains("dropped")
        );
        for _ in 0..200 {
            write(&replay, "shout", &long).unwrap();
        }
        assert_eq!(replay.finish_replay(), Ok(vec![]));
    }
}
