//! A server that answered before and now refuses connections is most likely being restarted. It is waited for, for a while,
//! and by all requests together: a refused connection has carried nothing, so even a write may be sent again.
//!
//! A server that never answered is not waited for: a wrong address shall be told at once.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a server that refuses is waited for. Restarts take some seconds; a run shall not hang for minutes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the requests of one connection know about being refused. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    has_answered: bool,
    since: Option<Instant>,
}

impl Refusals {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server is there.
    pub(super) fn over(&self) {
        let mut state = self.lock();
        state.has_answered = true;
        state.since = None;
    }

    /// Whether it is worth trying again.
    pub(super) fn wait_on(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.has_answered && now - *state.since.get_or_insert(now) < PATIENCE
    }
}

/// Whether an error says that no connection came about, so that nothing was sent.
pub(super) fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == ErrorKind::ConnectionRefused) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_answered_is_waited_for_and_not_for_ever() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert!(!refusals.wait_on(now));
        refusals.over();
        assert!(refusals.wait_on(now));
        assert!(refusals.clone().wait_on(now + PATIENCE / 2));
        assert!(!refusals.wait_on(now + PATIENCE));
        refusals.over();
        assert!(refusals.wait_on(now + PATIENCE));
    }

    #[test]
    fn a_refusal_is_found_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert!(is_refused(&Outer(ErrorKind::ConnectionRefused.into())));
        assert!(!is_refused(&Outer(ErrorKind::ConnectionReset.into())));
    }
}
