//! Watches whose events come twice, in another order or not at all, and streams that end at a chosen event.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use super::edit::lines;
use super::forward::{Body, BoxError};
use super::rule::{Hits, used_up};

/// What happens to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFault {
    /// It comes twice.
    Duplicate,
    /// It never comes.
    Lose,
    /// It comes after the next event of the same object.
    SwapWithSame,
    /// It comes after the next event of another object.
    SwapWithOther,
    /// The connection breaks before it.
    CutBefore,
    /// The connection breaks in the middle of it.
    CutInside,
    /// Neither it nor anything after it comes, and the connection stays.
    Hang,
}

/// Which events, and how many of them.
#[derive(Clone)]
pub(super) struct Picked {
    left: Arc<AtomicU32>,
    pick: Arc<dyn Fn(&Value) -> bool + Send + Sync>,
}

impl Picked {
    pub(super) fn new(most: u32, pick: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        Self {
            left: Arc::new(AtomicU32::new(most)),
            pick: Arc::new(pick),
        }
    }

    /// True if the event is chosen, which uses up one of them.
    fn takes(&self, event: &Value) -> bool {
        (self.pick)(event) && used_up(&self.left)
    }

    /// The chosen event could not be spoiled after all.
    fn put_back(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }
}

struct Spoiled {
    lines: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
    ready: VecDeque<Result<Bytes, BoxError>>,
    /// Waits for an event to change places with.
    held: Option<(Bytes, Value)>,
    is_over: bool,
    fault: EventFault,
    picked: Picked,
    hits: Hits,
}

/// Spoils the events of a watch's body.
pub(super) fn spoil(body: Body, fault: EventFault, picked: Picked, hits: Hits) -> Body {
    let spoiled = Spoiled {
        lines: lines(body).boxed(),
        ready: VecDeque::new(),
        held: None,
        is_over: false,
        fault,
        picked,
        hits,
    };
    let given = stream::unfold(spoiled, |mut spoiled| async move {
        let line = spoiled.line().await?;
        Some((line.map(Frame::data), spoiled))
    });
    StreamBody::new(given).boxed_unsync()
}

impl Spoiled {
    async fn line(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            let next = self.lines.next().await;
            let Some(Ok(line)) = next else {
                self.is_over = true;
                if let Some((held, _)) = self.held.take() {
                    self.picked.put_back();
                    self.ready.push_back(Ok(held));
                }
                self.ready.extend(next);
                continue;
            };
            let event = serde_json::from_slice::<Value>(&line).unwrap_or_default();
            if let Some((held, first)) = self.held.take() {
                let is_bookmark = event["type"] == "BOOKMARK";
                let uid = |event: &Value| event["object"]["metadata"]["uid"].clone();
                let is_same = uid(&event) == uid(&first);
                if !is_bookmark && is_same == (self.fault == EventFault::SwapWithSame) {
                    self.hits.add();
                    self.ready.extend([Ok(line), Ok(held)]);
                    continue;
                }
                // Not this one: the held event goes, and the new one may be chosen.
                self.picked.put_back();
                self.ready.push_back(Ok(held));
            }
            if self.picked.takes(&event) {
                self.spoil(line, event).await;
            } else {
                self.ready.push_back(Ok(line));
            }
        }
    }

    async fn spoil(&mut self, line: Bytes, event: Value) {
        if matches!(
            self.fault,
            EventFault::SwapWithSame | EventFault::SwapWithOther
        ) {
            self.held = Some((line, event));
            return;
        }
        self.hits.add();
        let broken = || Err(BoxError::from("cut by a rule"));
        match self.fault {
            EventFault::Duplicate => self.ready.extend([Ok(line.clone()), Ok(line)]),
            EventFault::CutBefore => self.ready.push_back(broken()),
            EventFault::CutInside => {
                let half = line.slice(..line.len() / 2);
                self.ready.extend([Ok(half), broken()]);
            }
            EventFault::Hang => std::future::pending().await,
            EventFault::Lose | EventFault::SwapWithSame | EventFault::SwapWithOther => {}
        }
        self.is_over = matches!(self.fault, EventFault::CutBefore | EventFault::CutInside);
    }
}

#[cfg(test)]
mod tests {
    use super::super::forward::full;
    use super::*;
    use serde_json::json;

    /// Each event is its kind and its object, such as `A1`; the second `A2` is the one to spoil.
    async fn given(fault: EventFault, events: &[&str]) -> (Vec<String>, u32) {
        let lines: String = events
            .iter()
            .map(|name| {
                let uid = &name[1..];
                format!(
                    "{}\n",
                    json!({"type": name, "object": {"metadata": {"uid": uid}}})
                )
            })
            .collect();
        let hits = Hits::default();
        let picked = Picked::new(1, |event| event["type"] == "M1");
        let body = spoil(full(lines.into()), fault, picked, hits.clone());
        let pieces = body.into_data_stream().map(|line| match line {
            Ok(line) => serde_json::from_slice::<Value>(&line).map_or_else(
                |_| "half".to_owned(),
                |event| event["type"].as_str().unwrap_or_default().to_owned(),
            ),
            Err(_) => "cut".to_owned(),
        });
        (pieces.collect().await, hits.count())
    }

    #[tokio::test]
    async fn one_event_is_spoiled_and_the_others_pass() {
        let events = ["A1", "M1", "A2", "D1", "M1"];
        for (fault, want, fired) in [
            (
                EventFault::Duplicate,
                vec!["A1", "M1", "M1", "A2", "D1", "M1"],
                1,
            ),
            (EventFault::Lose, vec!["A1", "A2", "D1", "M1"], 1),
            (
                EventFault::SwapWithOther,
                vec!["A1", "A2", "M1", "D1", "M1"],
                1,
            ),
            // The next event is of another object, and after the last one none comes.
            (
                EventFault::SwapWithSame,
                vec!["A1", "M1", "A2", "D1", "M1"],
                0,
            ),
            (EventFault::CutBefore, vec!["A1", "cut"], 1),
            (EventFault::CutInside, vec!["A1", "half", "cut"], 1),
        ] {
            let (got, hits) = given(fault, &events).await;
            assert_eq!(
                (got, hits),
                (want.iter().map(|w| (*w).to_owned()).collect(), fired),
                "{fault:?}"
            );
        }
        let (got, hits) = given(EventFault::SwapWithSame, &["A1", "M1", "D1"]).await;
        assert_eq!(
            (got, hits),
            (vec!["A1".into(), "D1".into(), "M1".into()], 1)
        );
    }
}
