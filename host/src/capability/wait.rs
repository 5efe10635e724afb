//! Waiting for one of several things: the only way in which time passes for a probe.

use super::unexpected;
use crate::gate::{Answer, Call, Content, Door};
use crate::recording::format::{Failure, Seen};
use futures::future::{join_all, select_all};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// Most sources of one wait.
const SOURCES_MAX: usize = 256;
/// The shortest wait at whose end watches are proved: a proof takes this long, and must not prolong the wait by much.
pub const PROVED_FROM: Duration = Duration::from_secs(1);

/// Something that can become ready, and stays ready until its owner was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The number of the watch or stream, which names the source in recordings.
    number: u32,
    /// None in a replay: the recording knows what was ready.
    news: Option<watch::Receiver<News>>,
    proof: Option<Proof>,
}

/// What a source has for its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    #[default]
    None,
    /// Something that came from a server that lives.
    Some,
    /// Something, and a gap or an end is among it.
    Broken,
}

/// Finds out whether a source that is silent has missed anything.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// Asks the source's own task for a proof.
    pub(crate) demanded: Arc<Notify>,
    /// Counts the proofs.
    pub(crate) proved: watch::Receiver<u64>,
}

impl Proof {
    /// Returns when the server, asked from where the source stands, had nothing more. What it had makes the source ready,
    /// and so does a gap if it does not answer; this then does not return.
    async fn demand(&self) {
        let mut proved = self.proved.clone();
        proved.mark_unchanged();
        self.demanded.notify_one();
        if proved.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Source {
    /// Both are none in a replay.
    pub(crate) fn new(
        number: u32,
        news: Option<watch::Receiver<News>>,
        proof: Option<Proof>,
    ) -> Source {
        Source {
            number,
            news,
            proof,
        }
    }

    fn news(&self) -> News {
        self.news.as_ref().map_or(News::None, |news| *news.borrow())
    }

    /// Returns when the source is ready; never for one whose owner is gone.
    async fn wait(&self) {
        if let Some(mut news) = self.news.clone()
            && news.wait_for(|news| *news != News::None).await.is_ok()
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
                let indices = (0..)
                    .zip(sources)
                    .filter(|(_, source)| source.news() != News::None);
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
                    .filter(|source| {
                        source.proof.is_some()
                            && match source.news() {
                                News::Some => true,
                                News::None => silent,
                                News::Broken => false,
                            }
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
        let (first, a) = watch::channel(News::None);
        let (second, b) = watch::channel(News::Some);
        let sources = [Source::new(1, Some(a), None), Source::new(2, Some(b), None)];
        assert_eq!(any(&rig.door, &sources, 60_000).await.unwrap(), [1]);
        second.send_replace(News::None);
        assert!(any(&rig.door, &sources, 1).await.unwrap().is_empty());
        let door = rig.door.clone();
        let (got, ()) = tokio::join!(any(&door, &sources, 60_000), async {
            first.send_replace(News::Some);
        });
        assert_eq!(got.unwrap(), [0]);
        assert!(any(&rig.door, &[], 1).await.unwrap().is_empty());
        // An owner that is gone is never ready, and does not end the wait either.
        drop(first);
        drop(second);
        assert_eq!(any(&rig.door, &sources, 1).await.unwrap(), [0]);

        let replay = rig.replay();
        let sources = [Source::new(1, None, None), Source::new(2, None, None)];
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
