//! The wish that a run ends, on its way from a signal handler to every waiting call.

use std::sync::Arc;
use tokio::sync::watch;

/// Asks a run to stop. Dropping it does not.
#[derive(Clone, Debug)]
pub struct StopHandle {
    sender: Arc<watch::Sender<bool>>,
}

/// Hears of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StopSignal {
    ears: Vec<Ear>,
}

/// One channel that is listened to.
#[derive(Clone, Debug)]
struct Ear {
    receiver: watch::Receiver<bool>,
    // Keeps the channel open when the handle is gone, so that waiting never ends by accident.
    _sender: Arc<watch::Sender<bool>>,
}

impl StopSignal {
    /// A handle and its signal.
    pub fn pair() -> (StopHandle, StopSignal) {
        let (sender, receiver) = watch::channel(false);
        let sender = Arc::new(sender);
        let handle = StopHandle {
            sender: Arc::clone(&sender),
        };
        let ear = Ear {
            receiver,
            _sender: sender,
        };
        (handle, StopSignal { ears: vec![ear] })
    }

    /// A signal that never comes.
    pub fn never() -> StopSignal {
        StopSignal::pair().1
    }

    /// A signal that comes when either of two does.
    #[must_use]
    pub fn or(mut self, other: StopSignal) -> StopSignal {
        self.ears.extend(other.ears);
        self
    }

    /// Whether the run was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.ears.iter().any(|ear| *ear.receiver.borrow())
    }

    /// Returns when the run is asked to stop, at once if it already was.
    pub async fn stopped(&self) {
        let waits = self.ears.iter().map(|ear| {
            let mut receiver = ear.receiver.clone();
            // The sender lives in `self`, so the only way out is the value.
            Box::pin(async move {
                let _ = receiver.wait_for(|stop| *stop).await;
            })
        });
        futures::future::select_all(waits).await;
    }
}

impl StopHandle {
    /// Asks the run to stop.
    pub fn stop(&self) {
        self.sender.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_wakes_everyone_and_stays() {
        let (handle, signal) = StopSignal::pair();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { signal.stopped().await }
        });
        assert!(!signal.is_stopping());
        handle.stop();
        waiting.await.unwrap();
        drop(handle);
        assert!(signal.is_stopping());
        signal.stopped().await;
    }

    #[tokio::test]
    async fn either_of_two_is_heard() {
        for first in [true, false] {
            let (one, a) = StopSignal::pair();
            let (other, b) = StopSignal::pair();
            let both = a.or(b);
            assert!(!both.is_stopping());
            if first {
                one.stop()
            } else {
                other.stop()
            }
            assert!(both.is_stopping());
            both.stopped().await;
        }
    }
}
