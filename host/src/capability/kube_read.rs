//! Reading the Kubernetes API: one object, consistent lists page by page, discovery, paths outside the resource API.
//!
//! Lists are read without a resource version, so each list is one consistent state; a page that the server forgot is
//! `expired` and never silently begun anew. An answer that is older than one before is none (`gate/freshness.rs`). Watches are in [`super::watch`], shared snapshots in [`super::snapshot`].

use super::address::{self, Resource, check_name, check_selector, malformed};
use super::{discovery, text, unexpected};
use crate::cluster::{HttpAnswer, Request, SendError};
use crate::gate::keep::Keep;
use crate::gate::{Answer, Call, Content, Door, Trouble, Wire};
use crate::recording::format::{Access, Failure, Reply, ResourceAccess, Seen};
use serde_json::{Value, json};

/// Objects of a page that we ask for; the server may give fewer.
pub(crate) const PAGE: u32 = 500;
/// Largest answer for one object; etcd holds 1.5 MiB, aggregated servers may hold more.
const OBJECT_MAX: u64 = 16 << 20;
/// Largest page as it comes over the wire. A page that is larger is asked for again with fewer objects.
pub(crate) const PAGE_MAX: u64 = 32 << 20;
/// Largest body of [`raw`].
const RAW_MAX: u64 = 1 << 20;

/// One read, as the guest built it. Nothing is checked before it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `resource.k8s.io/v1`, `v1`.
    pub api_version: String,
    /// Plural, with a subresource after `/`.
    pub resource: String,
    /// One namespace; none for all of them, or for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Label selector.
    pub labels: String,
    /// Field selector.
    pub fields: String,
    /// Paths to keep.
    pub keep: Vec<String>,
}

impl Query {
    /// A query without options.
    pub fn new(api_version: impl Into<String>, resource: impl Into<String>) -> Query {
        Query {
            api_version: api_version.into(),
            resource: resource.into(),
            ..Query::default()
        }
    }

    pub(crate) fn arguments(&self) -> Value {
        let mut arguments = json!({"api-version": self.api_version, "resource": self.resource});
        if let Some(namespace) = &self.namespace {
            arguments["namespace"] = json!(namespace);
        }
        for (key, value) in [("labels", &self.labels), ("fields", &self.fields)] {
            if !value.is_empty() {
                arguments[key] = json!(value);
            }
        }
        if !self.keep.is_empty() {
            arguments["keep"] = json!(self.keep);
        }
        arguments
    }

    /// Checks everything but an object's name.
    pub(crate) fn check(&self) -> Result<Checked, Failure> {
        let resource = Resource::parse(&self.api_version, &self.resource)?;
        if self.namespace.as_deref() == Some("") {
            return Err(malformed(
                "namespace",
                "",
                "is empty; leave it out to mean all",
            ));
        }
        check_selector("label selector", &self.labels)?;
        check_selector("field selector", &self.fields)?;
        let checked = Checked {
            keep: Keep::parse(&self.keep).map_err(Failure::Malformed)?,
            namespace: self.namespace.clone().unwrap_or_default(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            resource,
        };
        address::check(&checked.access("get", ""))?;
        Ok(checked)
    }
}

/// A query that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) labels: String,
    pub(crate) fields: String,
    pub(crate) keep: Keep,
}

impl Checked {
    pub(crate) fn access(&self, verb: &str, name: &str) -> ResourceAccess {
        self.resource.access(verb, &self.namespace, name)
    }

    /// For lists and watches: there is no list of a subresource.
    pub(crate) fn of_collection(self) -> Result<Checked, Failure> {
        if self.resource.subresource.is_empty() {
            return Ok(self);
        }
        let shown = format!("{}/{}", self.resource.resource, self.resource.subresource);
        Err(malformed(
            "resource",
            &shown,
            "is a subresource, which has no list",
        ))
    }

    /// A call that lists.
    pub(crate) fn listing(&self, mut call: Call) -> Call {
        call.labels.clone_from(&self.labels);
        call.reaching(Access::Resource(self.access("list", "")))
    }

    /// The path of a page.
    pub(crate) fn page_path(&self, wire: &Wire, limit: u32, next: &str) -> Result<String, Trouble> {
        let limit = limit.to_string();
        let query = address::query(&[
            ("labelSelector", &wire.labels),
            ("fieldSelector", &wire.restore(&self.fields)?),
            ("limit", &limit),
            ("continue", next),
        ]);
        Ok(address::path(wire.resource()?) + &query)
    }
}

/// One object by name.
///
/// # Errors
/// All of the contract; a missing object is `Answered` with 404.
pub async fn get(door: &Door, query: &Query, name: &str) -> Result<String, Failure> {
    const FUNCTION: &str = "kube-read.query.get";
    let mut arguments = query.arguments();
    arguments["name"] = json!(name);
    let call = Call::new(FUNCTION, arguments);
    let checked = match query.check().and_then(|checked| {
        check_name(name)?;
        check_subresource(&checked.resource)?;
        Ok(checked)
    }) {
        Ok(checked) => checked,
        Err(failure) => return text(FUNCTION, door.refuse(call, failure)),
    };
    let mut call = call
        .reaching(Access::Resource(checked.access("get", name)))
        .keeping(&checked.keep);
    call.newest = true;
    let (reply, _) = door
        .call(call, |wire| async move {
            let path = address::path(wire.resource()?);
            let answer = wire.ask(Request::get(path).limited(OBJECT_MAX)).await?;
            Ok(Answer::live(Content::Object(answer.body), answer.code))
        })
        .await;
    text(FUNCTION, reply)
}

/// Subresources whose answer is no object belong to other interfaces.
fn check_subresource(resource: &Resource) -> Result<(), Failure> {
    match resource.subresource.as_str() {
        "log" | "exec" | "attach" | "portforward" | "proxy" => Err(Failure::Refused(format!(
            "{}/{} is no object: logs and commands belong to the interface `pods`, requests to workloads \
             to `http` and `metrics`",
            resource.resource, resource.subresource
        ))),
        _ => Ok(()),
    }
}

/// A list that is being read.
#[derive(Debug)]
pub struct Cursor {
    number: u32,
    source: CursorSource,
    position: String,
    done: bool,
}

#[derive(Debug)]
pub(crate) enum CursorSource {
    /// Pages of the API server. None in a replay.
    List(Option<Box<ListState>>),
    /// The run's snapshot.
    Snapshot(Box<super::snapshot::SnapshotState>),
}

#[derive(Debug)]
pub(crate) struct ListState {
    checked: Checked,
    limit: u32,
    next: String,
}

impl Cursor {
    pub(crate) fn new(door: &Door, source: CursorSource) -> Cursor {
        let number = door.next_cursor();
        door.cursor_opened();
        Cursor {
            number,
            source,
            position: String::new(),
            done: false,
        }
    }

    /// The resource version of the list, once the first page was read; empty before.
    pub fn position(&self) -> &str {
        &self.position
    }

    /// The next page, one JSON text an object; none at the end.
    ///
    /// # Errors
    /// `Expired` when the server forgot the list meanwhile; all others of the contract.
    pub async fn next(&mut self, door: &Door) -> Result<Option<Vec<String>>, Failure> {
        const FUNCTION: &str = "kube-read.cursor.next";
        let call = Call::new(FUNCTION, json!({"cursor": self.number}));
        let (reply, end) = match &mut self.source {
            CursorSource::List(state) => next_page(door, call, state, self.done).await,
            CursorSource::Snapshot(state) => state.next(door, call, self.done),
        };
        match reply? {
            Seen::Nothing => Ok(None),
            Seen::Page { objects, position } => {
                self.position = position;
                self.done = end;
                Ok(Some(objects))
            }
            other => unexpected(FUNCTION, &other),
        }
    }
}

/// Begins a consistent list. The first page is read by [`Cursor::next`].
///
/// # Errors
/// No permission, or a query that makes no sense.
pub fn open_list(door: &Door, query: &Query) -> Result<Cursor, Failure> {
    const FUNCTION: &str = "kube-read.query.open-list";
    let call = Call::new(FUNCTION, query.arguments());
    let reply = match query.check().and_then(Checked::of_collection) {
        Err(failure) => door.refuse(call, failure).map(|_| None),
        Ok(checked) => {
            let call = checked.listing(call);
            door.local(call, |_| Ok(Answer::own(Content::Nothing)))
                .map(|_| Some(checked))
        }
    };
    let state = reply?.map(|checked| {
        Box::new(ListState {
            checked,
            limit: PAGE,
            next: String::new(),
        })
    });
    Ok(Cursor::new(door, CursorSource::List(state)))
}

async fn next_page(
    door: &Door,
    mut call: Call,
    state: &mut Option<Box<ListState>>,
    done: bool,
) -> (Reply, bool) {
    let Some(state) = state else {
        return (
            door.local(call, |_| Ok(Answer::own(Content::Nothing))),
            true,
        );
    };
    if done {
        return (
            door.local(call, |_| Ok(Answer::own(Content::Nothing))),
            true,
        );
    }
    call = state.checked.listing(call).keeping(&state.checked.keep);
    // Later pages are of the moment of the first one.
    call.newest = state.next.is_empty();
    let mut limit = state.limit;
    let (reply, extras) = door
        .call(call, |wire| {
            let (limit, state) = (&mut limit, &*state);
            async move {
                let answer = page(&wire, &state.checked, limit, PAGE_MAX, &state.next).await?;
                if answer.code == 410 && !state.next.is_empty() {
                    return Err(Failure::Expired.into());
                }
                if answer.code != 200 {
                    return Err(Trouble::Answered(answer.code, answer.body));
                }
                let api_version = state.checked.resource.api_version();
                Ok(Answer::live(
                    Content::List(answer.body, api_version),
                    answer.code,
                ))
            }
        })
        .await;
    state.limit = limit;
    let end = extras.next.is_empty();
    if reply.is_ok() {
        state.next = extras.next;
    }
    (reply, end)
}

/// One page, asked for with ever fewer objects while it is too large.
pub(crate) async fn page(
    wire: &Wire,
    checked: &Checked,
    limit: &mut u32,
    max_bytes: u64,
    next: &str,
) -> Result<HttpAnswer, Trouble> {
    loop {
        let path = checked.page_path(wire, *limit, next)?;
        match wire.send(Request::get(path).limited(max_bytes)).await {
            Err(SendError::TooLarge { .. }) if *limit > 1 => *limit = (*limit / 8).max(1),
            other => return Ok(other?),
        }
    }
}

/// What the server serves, in the form that the contract documents.
///
/// # Errors
/// No permission, no answer, or an answer that is no discovery document.
pub async fn discover(door: &Door) -> Result<String, Failure> {
    const FUNCTION: &str = "kube-read.discover";
    let call = Call::new(FUNCTION, json!({})).reaching(Access::Discovery);
    let (reply, _) = door
        .call(call, |wire| async move { discovery::discover(&wire).await })
        .await;
    text(FUNCTION, reply)
}

/// The answer to [`raw`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAnswer {
    /// HTTP status.
    pub code: u16,
    /// Content type as the server gave it.
    pub content_type: String,
    /// The body as text.
    pub body: String,
}

/// A path outside the resource API. Any status is an answer here; a body beyond 1 MiB is `Budget`.
///
/// # Errors
/// No permission, no answer, or a path that is not plain.
pub async fn raw(door: &Door, path: &str) -> Result<RawAnswer, Failure> {
    const FUNCTION: &str = "kube-read.raw";
    let call = Call::new(FUNCTION, json!({"path": path}));
    let reply = match address::raw_path(path) {
        Err(failure) => door.refuse(call, failure),
        Ok(path) => {
            let call = call.reaching(Access::NonResource {
                path: path.to_owned(),
            });
            door.call(call, |wire| async move {
                let mut request = Request::get(path).limited(RAW_MAX);
                // `/metrics` and `/readyz` are text.
                request.accept = "*/*";
                let answer = wire.send(request).await?;
                let code = answer.code;
                Ok(Answer::live(Content::Raw(answer), code))
            })
            .await
            .0
        }
    };
    match reply? {
        Seen::Raw {
            code,
            content_type,
            body,
        } => Ok(RawAnswer {
            code,
            content_type,
            body,
        }),
        other => unexpected(FUNCTION, &other),
    }
}

#[cfg(test)]
mod tests;
