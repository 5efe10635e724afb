//! SIGINT, SIGTERM and SIGHUP, all alike: the first asks the run to stop and clean up, the second to stop at once, and a
//! third ends the process, should anything hang. A closing terminal sends several within milliseconds; those count as one.

use crate::exit::Exit;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals within this time of the last one are the same wish. Nobody presses Ctrl-C twice that fast.
const SAME: Duration = Duration::from_millis(200);

/// Listens to the signals. From then on they no longer end the process by themselves.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    /// What the first one means for the exit code, and how many came.
    seen: Option<(Exit, u32)>,
    last: Option<Instant>,
}

/// A signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    /// `SIGINT`, …
    pub(crate) name: &'static str,
    /// 1 for the first.
    pub(crate) count: u32,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system refuses, or there is no runtime.
    pub(crate) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            seen: None,
            last: None,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Came {
        loop {
            let (name, exit) = tokio::select! {
                _ = self.interrupt.recv() => ("SIGINT", Exit::Interrupted),
                _ = self.terminate.recv() => ("SIGTERM", Exit::Terminated),
                _ = self.hang_up.recv() => ("SIGHUP", Exit::Terminated),
            };
            let now = Instant::now();
            if self.last.replace(now).is_some_and(|last| now - last < SAME) {
                continue;
            }
            let (first, count) = match self.seen {
                Some((first, count)) => (first, count + 1),
                None => (exit, 1),
            };
            self.seen = Some((first, count));
            return Came { name, count };
        }
    }

    /// The exit code that the first signal asks for; none if none came.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.seen.map(|(exit, _)| exit)
    }
}
