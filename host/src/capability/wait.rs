//! Waiting for one of several things: the only way in which time passes for a probe.

use super::unexpected;
use super::watch::Proof;
use crate::gate::{Answer, Call, Content, Door};
use crate::recording::format::{Failure, Seen};
use futures::future::{join_all, select_all};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Most sources of one wait.
const SOURCES_MAX: usize = 256;
/// The shortest wait at whose end watches are proved: a proof takes this long, and must not prolong the wait by much.
pub const PROVED_FROM: Duration = Duration::from_secs(1);

/// Something that can become ready, and stays ready until its owner was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The number of the watch, which names the source in recordings.
    number: u32,
    /// None in a replay: the recording knows what was ready.
    ready: Option<watch::Receiver<bool>>,
    proof: Option<Proof>,
}

impl Source {
    pub(crate) fn new(number: u32, ready: Option<watch::Receiver<bool>>) -> Source {
        Source {
            number,
            ready,
            proof: None,
        }
    }

    /// With the means to find out whether silence is silence.
    pub(crate) fn proving(mut self, proof: Option<Proof>) -> Source {
        self.proof = proof;
        self
    }

    fn is_ready(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| *ready.borrow())
    }

    /// Returns when the source is ready; never for one whose owner is gone.
    async fn wait(&self) {
        if let Some(mut ready) = self.ready.clone()
            && ready.wait_for(|ready| *ready).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Waits until a source is ready or the timeout has passed. Gives the positions of the ready ones, none after the timeout.
///
/// A stream that hangs looks like a quiet cluster. So the last second of a wait proves its watches: the server is asked
/// anew from where each stands, and would deliver what was missed. The facts name the watches that lived to the end of the
/// wait: those proved, and those that had news other than a gap.
///
/// # Errors
/// The deadline of the probe or the end of the run came first; too many sources.
pub async fn any(door: &Door, sources: &[Source], timeout_ms: u32) -> Result<Vec<u32>, Failure> {
    let numbers: Vec<u32> = sources.iter().take(SOURCES_MAX).map(|s| s.number).collect();
    let call = Call::new(
        "wait.any",
        json!({"sources": numbers, "timeout": timeout_ms}),
    );
    let until = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
    let reply = if sources.len() > SOURCES_MAX {
        let text = format!("{} sources; at most {SOURCES_MAX} are taken", sources.len());
        door.refuse(call, Failure::Malformed(text))
    } else {
        door.call(call, |_| async {
            let ready = || {
                let indices = (0..).zip(sources).filter(|(_, source)| source.is_ready());
                indices.map(|(at, _)| at).collect::<Vec<u32>>()
            };
            let mut positions = ready();
            let mut proved = Vec::new();
            if positions.is_empty() {
                let waiting = async {
                    if sources.is_empty() {
                        return std::future::pending().await;
                    }
                    select_all(sources.iter().map(|source| Box::pin(source.wait()))).await
                };
                let silent = tokio::select! {
                    _ = waiting => false,
                    silent = silence(sources, until, timeout_ms) => silent,
                };
                positions = ready();
                proved = sources
                    .iter()
                    .filter(|source| match &source.proof {
                        Some(proof) if source.is_ready() => proof.has_news(),
                        Some(_) => silent,
                        None => false,
                    })
                    .map(|source| source.number)
                    .collect();
            }
            let mut answer = Answer::own(Content::Ready(positions));
            answer.facts.proved = proved;
            Ok(answer)
        })
        .await
        .0
    };
    match reply? {
        Seen::Ready(positions) => Ok(positions),
        other => unexpected("wait.any", &other),
    }
}

/// Returns when the time is up; true if every watch was proved, false if there was no time for it.
async fn silence(sources: &[Source], until: Instant, timeout_ms: u32) -> bool {
    let proves = Duration::from_millis(u64::from(timeout_ms)) >= PROVED_FROM;
    if proves {
        sleep_until(until - PROVED_FROM).await;
        let proofs = sources.iter().filter_map(|source| source.proof.as_ref());
        join_all(proofs.map(Proof::demand)).await;
    }
    sleep_until(until).await;
    proves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::Rig;

    #[tokio::test]
    async fn the_ready_ones_are_named_and_time_runs_out() {
        let mut rig = Rig::new("");
        let (first, a) = watch::channel(false);
        let (second, b) = watch::channel(true);
        let sources = [Source::new(1, Some(a)), Source::new(2, Some(b))];
        assert_eq!(any(&rig.door, &sources, 60_000).await.unwrap(), [1]);
        second.send_replace(false);
        assert!(any(&rig.door, &sources, 1).await.unwrap().is_empty());
        let door = rig.door.clone();
        let (got, ()) = tokio::join!(any(&door, &sources, 60_000), async {
            first.send_replace(true);
        });
        assert_eq!(got.unwrap(), [0]);
        assert!(any(&rig.door, &[], 1).await.unwrap().is_empty());
        // An owner that is gone is never ready, and does not end the wait either.
        drop(first);
        drop(second);
        assert_eq!(any(&rig.door, &sources, 1).await.unwrap(), [0]);

        let replay = rig.replay();
        let sources = [Source::new(1, None), Source::new(2, None)];
        assert_eq!(any(&replay, &sources, 60_000).await.unwrap(), [1]);
    }

    #[tokio::test]
    async fn a_stop_wakes_a_wait_at_once() {
        let rig = Rig::new("");
        let (got, ()) = tokio::join!(any(&rig.door, &[], u32::MAX), async { rig.stop.stop() });
        assert_eq!(got, Err(Failure::Stopping));
        assert_eq!(any(&rig.door, &[], 0).await, Err(Failure::Stopping));
    }

    #[tokio::test]
    async fn the_deadline_cuts_a_wait_short() {
        let rig = Rig::with_limits("", |limits| limits.wall_ms = 20);
        let got = any(&rig.door, &[], u32::MAX).await;
        let Err(Failure::Budget(text)) = got else {
            panic!("{got:?}");
        };
        assert!(
            text.contains("`wall`") && text.contains("probe.toml"),
            "{text}"
        );
        assert!(rig.door.budget_hit().is_some());
    }
}
