//! Letting time pass. Every wait has an end; there is no way to wait for ever.

use crate::error::{Error, Result};
use crate::host;
use std::time::Duration;

/// Something that can become ready.
#[derive(Debug)]
pub struct Source(pub(crate) host::Source);

/// A moment of the attempt's clock, which is recorded and replayed like everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Duration);

impl Deadline {
    /// So much time from now.
    pub fn after(time: Duration) -> Self {
        Deadline(crate::clock::elapsed() + time)
    }

    /// The time that is left; zero when it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_sub(crate::clock::elapsed())
    }
}

fn millis(time: Duration) -> u32 {
    // Rounded up: a rest of half a millisecond must not become a busy loop of waits for nothing.
    u32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// Waits until at least one source is ready or the time has passed; gives the positions of the ready ones.
///
/// # Errors
/// Budget and end of the run.
pub fn any(sources: &[&Source], timeout: Duration) -> Result<Vec<usize>> {
    let sources: Vec<&host::Source> = sources.iter().map(|source| &source.0).collect();
    let ready = host::wait_any(&sources, millis(timeout))?;
    Ok(ready.into_iter().map(|at| at as usize).collect())
}

/// Lets time pass.
///
/// # Errors
/// Budget and end of the run.
pub fn sleep(time: Duration) -> Result<()> {
    host::wait_any(&[], millis(time)).map(drop)
}

/// Asks `found` every `every` until it gives something. For what cannot be watched.
///
/// # Errors
/// [`Error::Deadline`] with `what` when the time is up, and the errors of `found`.
pub fn poll<T>(
    every: Duration,
    timeout: Duration,
    what: &str,
    mut found: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Deadline::after(timeout);
    loop {
        if let Some(result) = found()? {
            return Ok(result);
        }
        let left = deadline.left();
        if left.is_zero() {
            return Err(Error::Deadline {
                what: what.to_owned(),
                after: timeout,
            });
        }
        sleep(every.min(left))?;
    }
}
