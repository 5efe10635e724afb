//! Bodies that break, end too soon, trickle or fall silent.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use super::forward::{Body, BoxError};
use super::rule::Hits;

#[derive(Clone, Copy, Debug)]
pub(super) enum BodyFault {
    /// The connection breaks.
    Cut { after: usize },
    /// The body ends in good order, as a gateway with a small buffer does it.
    End { after: usize },
    /// Nothing follows, and the connection stays.
    Hang { after: usize },
    /// In small pieces with pauses.
    Trickle { bytes: usize, every: Duration },
}

impl BodyFault {
    /// Whether the answer's length is still what its header says.
    pub(super) fn keeps_length(self) -> bool {
        !matches!(self, Self::End { .. })
    }
}

struct Spoiled {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
    /// What came and was not given yet.
    rest: Bytes,
    given: usize,
    is_over: bool,
    fault: BodyFault,
    hits: Hits,
}

/// Counts a hit at the moment in which the body becomes another one: a body that is shorter is not spoiled.
pub(super) fn spoil(body: Body, fault: BodyFault, hits: Hits) -> Body {
    let spoiled = Spoiled {
        chunks: body.into_data_stream().boxed(),
        rest: Bytes::new(),
        given: 0,
        is_over: false,
        fault,
        hits,
    };
    let pieces = stream::unfold(spoiled, |mut spoiled| async move {
        let piece = spoiled.piece().await?;
        Some((piece.map(Frame::data), spoiled))
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl Spoiled {
    async fn piece(&mut self) -> Option<Result<Bytes, BoxError>> {
        if self.is_over {
            return None;
        }
        while self.rest.is_empty() {
            match self.chunks.next().await? {
                Ok(chunk) => self.rest = chunk,
                Err(e) => {
                    self.is_over = true;
                    return Some(Err(e));
                }
            }
        }
        let most = match self.fault {
            BodyFault::Cut { after } | BodyFault::End { after } | BodyFault::Hang { after } => {
                after - self.given
            }
            BodyFault::Trickle { bytes, .. } => bytes,
        };
        if most == 0 {
            self.hits.add();
            self.is_over = true;
            return match self.fault {
                BodyFault::Cut { .. } => Some(Err("cut by a rule".into())),
                BodyFault::Hang { .. } => std::future::pending().await,
                BodyFault::End { .. } | BodyFault::Trickle { .. } => None,
            };
        }
        if let BodyFault::Trickle { every, .. } = self.fault {
            self.hits.add();
            tokio::time::sleep(every).await;
        }
        let piece = self.rest.split_to(most.min(self.rest.len()));
        self.given += piece.len();
        Some(Ok(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::super::forward::full;
    use super::*;

    async fn pieces(fault: BodyFault) -> (Vec<Result<Bytes, String>>, u32) {
        let hits = Hits::default();
        let body = spoil(full(Bytes::from("0123456789")), fault, hits.clone());
        let pieces = body.into_data_stream();
        let pieces = pieces.map(|piece| piece.map_err(|e| e.to_string()));
        (pieces.collect().await, hits.count())
    }

    #[tokio::test]
    async fn a_cut_body_ends_with_an_error_after_the_given_bytes() {
        let (given, hits) = pieces(BodyFault::Cut { after: 4 }).await;
        assert_eq!(given[0], Ok("0123".into()));
        assert!(given[1].is_err() && given.len() == 2 && hits == 1);
    }

    #[tokio::test]
    async fn a_body_that_ends_too_soon_shows_no_error() {
        let (given, hits) = pieces(BodyFault::End { after: 4 }).await;
        assert_eq!((given, hits), (vec![Ok("0123".into())], 1));
    }

    #[tokio::test]
    async fn a_body_that_is_shorter_is_not_spoiled() {
        let (given, hits) = pieces(BodyFault::Cut { after: 40 }).await;
        assert_eq!((given, hits), (vec![Ok("0123456789".into())], 0));
    }

    #[tokio::test]
    async fn a_slow_body_is_whole_in_the_end() {
        let (given, hits) = pieces(BodyFault::Trickle {
            bytes: 4,
            every: Duration::ZERO,
        })
        .await;
        let whole: Vec<u8> = given.into_iter().flatten().flatten().collect();
        assert_eq!((whole.as_slice(), hits), (&b"0123456789"[..], 3));
    }
}
