//! Steps that say what they do, how long it took the last time, and how long it took now.
//!
//! The times lie in the cache folder. Losing them costs nothing but an estimate, so no error here stops a command.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::say::say;

/// Runs one step. On failure the error says which step it was and what to try.
pub(crate) fn step<T>(title: &str, advice: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let estimate = last(title).map_or_else(
        || "first time".to_owned(),
        |s| format!("last time {}", human(s)),
    );
    say(&format!("==> {title} ({estimate})"));
    let began = Instant::now();
    let value = work().with_context(|| {
        format!(
            "{title} failed after {}; try: {advice}",
            human(began.elapsed().as_secs_f64())
        )
    })?;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!("    done in {}", human(seconds)));
    remember(title, seconds);
    Ok(value)
}

/// `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn human(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 120 {
        format!("{whole} s")
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// Seconds that a step took the last time.
pub(crate) fn last(title: &str) -> Option<f64> {
    load().get(title).copied()
}

/// Stores the seconds of a step.
pub(crate) fn remember(title: &str, seconds: f64) {
    let Some(path) = path() else { return };
    let mut all = load();
    all.insert(title.to_owned(), seconds);
    let Ok(text) = serde_json::to_vec_pretty(&all) else {
        return;
    };
    let beside = path.with_extension(format!("{}", std::process::id()));
    if let Some(dir) = path.parent()
        && std::fs::create_dir_all(dir).is_ok()
        && std::fs::write(&beside, text).is_ok()
    {
        let _ = std::fs::rename(&beside, &path);
    }
}

fn path() -> Option<PathBuf> {
    Some(karat_testbed::cache_dir().ok()?.join("xtask-timings.json"))
}

fn load() -> BTreeMap<String, f64> {
    path()
        .and_then(|p| std::fs::read(p).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        assert_eq!(human(0.44), "0.4 s");
        assert_eq!(human(12.3), "12 s");
        assert_eq!(human(185.2), "3 min 05 s");
    }

    #[test]
    fn a_failed_step_names_itself_and_a_way_out() {
        let error = step::<()>("a test step", "turning it off and on", || {
            anyhow::bail!("broken")
        })
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("a test step failed")
                && text.contains("turning it off and on")
                && text.contains("broken"),
            "{text}"
        );
    }
}
