//! Rules: which requests, at which moment, and what happens to them. Nothing is done here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use regex::Regex;
use serde_json::{Value, json};

use super::body::BodyFault;
use super::dice::Dice;
use super::events::{EventFault, Picked};
use super::kubelet::Said;

/// What a rule does with a whole JSON answer or one object of it; `false` hides the object.
pub(super) type Edit = Arc<dyn Fn(&mut Value) -> bool + Send + Sync>;

/// An answer that the proxy makes up.
#[derive(Clone)]
pub(super) struct Canned {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

#[derive(Clone)]
pub(super) enum Action {
    Forward,
    Swallow,
    Answer(Canned),
    /// The request takes effect; the answer is another one.
    AnswerAfter(Canned),
    EditWhole(Edit),
    EditObjects(Edit),
    EditRequest(Edit),
    DropParameter(String),
    SetParameter(String, String),
    Disconnect,
    /// The request takes effect; its answer never arrives.
    DisconnectAfter,
    Refuse(Duration),
    Body(BodyFault),
    Events(EventFault, Picked),
    /// A log of a made-up kubelet.
    Log(Said),
    /// A command of a made-up kubelet.
    Exec(Said),
}

/// How often something happened, shared by the clones of a rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits(Arc<AtomicU32>);

impl Hits {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// One deviation: which requests, and what happens to them. A rule without an action forwards them.
#[derive(Clone)]
pub struct Rule {
    method: Option<Method>,
    path: Regex,
    query: Option<Regex>,
    skip: Arc<AtomicU32>,
    dice: Option<(Dice, u32)>,
    left: Option<Arc<AtomicU32>>,
    pub(super) hits: Hits,
    pub(super) delay: Duration,
    pub(super) headers: Vec<(String, String)>,
    pub(super) action: Action,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("method", &self.method)
            .field("path", &self.path.as_str())
            .finish_non_exhaustive()
    }
}

impl Rule {
    /// Matches requests with this method (`*` for any) whose path (without query) matches the regular expression.
    ///
    /// # Panics
    /// If the expression or the method is not valid; both are literals in tests.
    #[must_use]
    pub fn on(method: &str, path: &str) -> Self {
        let method = (method != "*").then(|| {
            Method::from_bytes(method.as_bytes())
                .unwrap_or_else(|e| panic!("method {method:?}: {e}"))
        });
        Self {
            method,
            path: expression(path),
            query: None,
            skip: Arc::default(),
            dice: None,
            left: None,
            hits: Hits::default(),
            delay: Duration::ZERO,
            headers: Vec::new(),
            action: Action::Forward,
        }
    }

    /// Matches only if the query string matches too, such as `watch=(1|true)`.
    ///
    /// # Panics
    /// If the expression is not valid.
    #[must_use]
    pub fn query(mut self, query: &str) -> Self {
        self.query = Some(expression(query));
        self
    }

    /// Applies only to the first `n` matching requests.
    #[must_use]
    pub fn times(mut self, n: u32) -> Self {
        self.left = Some(Arc::new(AtomicU32::new(n)));
        self
    }

    /// Lets the first `n` matching requests pass.
    #[must_use]
    pub fn skip(mut self, n: u32) -> Self {
        self.skip = Arc::new(AtomicU32::new(n));
        self
    }

    /// Begins at a random one of the first `among` matching requests. The same seed gives the same one.
    #[must_use]
    pub fn at_random(self, seed: u64, among: u32) -> Self {
        let at = Dice::new(seed).below(among);
        self.skip(at)
    }

    /// Applies to a random share of the matching requests, in percent. The same seed gives the same throws.
    #[must_use]
    pub fn chance(mut self, seed: u64, percent: u32) -> Self {
        self.dice = Some((Dice::new(seed), percent));
        self
    }

    /// Waits before doing anything.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets a header of the answer, whatever else happens to it.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Pretends success without forwarding: a delete gets a `Success` status, any other write its own body back.
    #[must_use]
    pub fn swallow(self) -> Self {
        self.act(Action::Swallow)
    }

    /// Answers with this status and body without forwarding.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a literal of `json!` reads better without a borrow"
    )]
    pub fn answer(self, status: u16, body: Value) -> Self {
        self.answer_text(status, "application/json", &body.to_string())
    }

    /// Answers with this status, content type and text without forwarding, as things between client and server do.
    #[must_use]
    pub fn answer_text(self, status: u16, content_type: &str, body: &str) -> Self {
        let canned = canned(status, content_type, body);
        self.act(Action::Answer(canned))
    }

    /// Forwards, waits for the answer and gives this one instead: what was asked for took effect.
    #[must_use]
    pub fn answer_after(self, status: u16, content_type: &str, body: &str) -> Self {
        let canned = canned(status, content_type, body);
        self.act(Action::AnswerAfter(canned))
    }

    /// Answers with a `Status` object of this code and reason, as the API server does for errors.
    #[must_use]
    pub fn fail(self, code: u16, reason: &str, message: &str) -> Self {
        self.answer(code, json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code }))
    }

    /// Edits the JSON of the answer. In a watch it sees each event (`type` and `object`).
    #[must_use]
    pub fn rewrite(self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.act(Action::EditWhole(Arc::new(move |value| {
            edit(value);
            true
        })))
    }

    /// Edits every object of the answer, be it alone, in a list or in a watch. Returning `false` hides the object.
    #[must_use]
    pub fn rewrite_objects(
        self,
        edit: impl Fn(&mut Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.act(Action::EditObjects(Arc::new(edit)))
    }

    /// Edits the JSON body of the request before it is forwarded.
    #[must_use]
    pub fn rewrite_request(self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.act(Action::EditRequest(Arc::new(move |value| {
            edit(value);
            true
        })))
    }

    /// Forwards the request without this parameter of its query, as a server that does not know it would treat it.
    #[must_use]
    pub fn drop_parameter(self, name: &str) -> Self {
        self.act(Action::DropParameter(name.to_owned()))
    }

    /// Forwards the request with another value of this parameter, such as a smaller `limit`.
    #[must_use]
    pub fn set_parameter(self, name: &str, value: &str) -> Self {
        self.act(Action::SetParameter(name.to_owned(), value.to_owned()))
    }

    /// Answers requests for logs as a kubelet would, with what the container says on its output.
    #[must_use]
    pub fn log(self, said: Said) -> Self {
        self.act(Action::Log(said))
    }

    /// Answers requests for commands as a kubelet would: a WebSocket with the channels of the real protocol.
    #[must_use]
    pub fn exec(self, said: Said) -> Self {
        self.act(Action::Exec(said))
    }

    /// Closes the connection without an answer. The request is not forwarded.
    #[must_use]
    pub fn disconnect(self) -> Self {
        self.act(Action::Disconnect)
    }

    /// Forwards, waits for the answer, and closes the connection without it: what was asked for took effect.
    #[must_use]
    pub fn disconnect_after(self) -> Self {
        self.act(Action::DisconnectAfter)
    }

    /// Closes every connection and refuses new ones for a while. The request is not forwarded.
    #[must_use]
    pub fn refuse_for(self, time: Duration) -> Self {
        self.act(Action::Refuse(time))
    }

    /// Forwards, and closes the connection after `bytes` bytes of the answer's body.
    #[must_use]
    pub fn cut_after(self, bytes: usize) -> Self {
        self.body(BodyFault::Cut { after: bytes })
    }

    /// Forwards, and ends the body after `bytes` bytes as if it were whole.
    #[must_use]
    pub fn end_after(self, bytes: usize) -> Self {
        self.body(BodyFault::End { after: bytes })
    }

    /// Forwards, and gives the body in pieces of `bytes` bytes with a pause between them.
    #[must_use]
    pub fn trickle(self, bytes: usize, every: Duration) -> Self {
        self.body(BodyFault::Trickle { bytes, every })
    }

    /// Forwards, and says nothing more after `bytes` bytes of the answer's body. The connection stays.
    #[must_use]
    pub fn hang_after(self, bytes: usize) -> Self {
        self.body(BodyFault::Hang { after: bytes })
    }

    /// Spoils at most `most` events of the watches that match, those that `pick` chooses.
    #[must_use]
    pub fn events(
        self,
        fault: EventFault,
        most: u32,
        pick: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.act(Action::Events(fault, Picked::new(most, pick)))
    }

    /// The server says it is another version, such as `1.33.4`.
    #[must_use]
    pub fn version(version: &str) -> Self {
        let git = format!("v{version}");
        let minor = version.split('.').nth(1).unwrap_or_default().to_owned();
        Self::on("GET", "^/version/?$").rewrite(move |info| {
            for (field, value) in [
                ("gitVersion", &git),
                ("minor", &minor),
                ("emulationMinor", &minor),
            ] {
                if info.get(field).is_some() {
                    info[field] = value.clone().into();
                }
            }
        })
    }

    fn body(self, fault: BodyFault) -> Self {
        self.act(Action::Body(fault))
    }

    fn act(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// True if the rule applies, which uses up one of its [`times`](Self::times).
    pub(super) fn takes(&self, method: &Method, path: &str, query: &str) -> bool {
        let fits = self.method.as_ref().is_none_or(|m| m == method)
            && self.path.is_match(path)
            && self.query.as_ref().is_none_or(|q| q.is_match(query));
        fits && !used_up(&self.skip)
            && self
                .dice
                .as_ref()
                .is_none_or(|(dice, percent)| dice.below(100) < *percent)
            && self.left.as_ref().is_none_or(|left| used_up(left))
    }
}

/// Takes one of a number; false when none is left.
pub(super) fn used_up(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

#[expect(
    clippy::panic,
    reason = "a bad literal in a test should stop that test where it stands"
)]
fn canned(status: u16, content_type: &str, body: &str) -> Canned {
    Canned {
        status: StatusCode::from_u16(status).unwrap_or_else(|e| panic!("{status}: {e}")),
        content_type: content_type.to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

impl Canned {
    pub(super) fn response(&self) -> Result<http::Response<super::forward::Body>, http::Error> {
        http::Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, &self.content_type)
            .body(super::forward::full(self.body.clone()))
    }
}

#[expect(
    clippy::panic,
    reason = "a bad literal in a test should stop that test where it stands"
)]
fn expression(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|e| panic!("{e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_by_method_path_and_query_and_wears_out() {
        let rule = Rule::on("GET", "^/api/v1/pods$").query("watch=1").times(1);
        assert!(!rule.takes(&Method::POST, "/api/v1/pods", "watch=1"));
        assert!(!rule.takes(&Method::GET, "/api/v1/pods/x", "watch=1"));
        assert!(!rule.takes(&Method::GET, "/api/v1/pods", ""));
        assert!(rule.takes(&Method::GET, "/api/v1/pods", "watch=1"));
        assert!(!rule.takes(&Method::GET, "/api/v1/pods", "watch=1"));
    }

    #[test]
    fn a_moment_can_be_given_or_thrown() {
        let taken = |rule: &Rule| {
            let takes = (0..40).map(|_| rule.takes(&Method::GET, "/", ""));
            takes.collect::<Vec<bool>>()
        };
        let given = taken(&Rule::on("*", "^/").skip(2).times(1));
        assert_eq!(given.iter().position(|takes| *takes), Some(2));
        assert_eq!(given.iter().filter(|takes| **takes).count(), 1);

        let thrown = |seed| taken(&Rule::on("*", "^/").at_random(seed, 20).times(1));
        assert_eq!(thrown(7), thrown(7));
        assert!((0..20).any(|seed| thrown(seed) != thrown(7)));

        let shares = |seed| taken(&Rule::on("*", "^/").chance(seed, 50));
        assert_eq!(shares(3), shares(3));
        let often = shares(3).iter().filter(|takes| **takes).count();
        assert!((5..35).contains(&often), "{often} of 40");
    }
}
