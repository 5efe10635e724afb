//! The file format: JSON Lines, compressed with zstd. The first line is a [`Header`], then one [`Entry`] a call, the last
//! line is an [`End`]. Each line but the first holds the SHA-256 of the line before it (without its newline), so nothing can
//! be cut, reordered or edited without breaking the chain. What the guest saw lies beside it as salted blobs, so a public
//! copy may withhold some of them while chain and signature stay valid.

use crate::manifest::Budget;
use crate::model::{CaseKey, ClusterRecord, Outcome, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// `major.minor`. A reader refuses another major version, and a newer minor one: a field that it does not know could
/// change a verdict.
pub const FORMAT: &str = "1.2";
/// Name of the recording in the folder of an attempt.
pub const RECORDING_FILE: &str = "recording.jsonl.zst";
/// Name of the folder beside it that holds the answers.
pub const BLOBS_FOLDER: &str = "blobs";
/// Random bytes before the answer in each blob, so that nobody can guess a withheld answer from its digest.
pub const SALT_BYTES: usize = 16;
/// Longest line in bytes. The door clamps arguments far below; without a cap one line could fill a reviewer's memory.
pub const LINE_MAX: usize = 4 << 20;
/// Most entries in one recording.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Most bytes of a recording after decompression.
pub const RECORDING_MAX: u64 = 256 << 20;
/// Most bytes of one blob, with its salt.
pub const BLOB_MAX: u64 = 64 << 20;
/// Most bytes of all blobs of one recording.
pub const BLOBS_MAX: u64 = 512 << 20;

/// Functions whose entries mean something to the judge, and their arguments. Every other function is named the same way:
/// interface, resource where there is one, function.
pub mod function {
    /// `{"id": …, "subject": …}`; opens a case when the result is `ok`.
    pub const CASES_OPEN: &str = "cases.open";
    /// `{"name": …, "value": …}`, for the open case.
    pub const CASES_OBSERVE: &str = "cases.case.observe";
    /// `{"outcome": …}` with a [`crate::model::Conclusion`] in JSON; ends the open case when the result is `ok`.
    pub const CASES_CONCLUDE: &str = "cases.case.conclude";
    /// `{"key": …}`.
    pub const SETTINGS_GET: &str = "settings.get";
    /// Opens a watch; `facts.watch` is its number.
    pub const WATCH_OPEN: &str = "kube-read.query.open-watch";
    /// Takes one event of a watch; `facts.watch` is its number, `facts.event` the kind, empty when there was none.
    pub const WATCH_NEXT: &str = "kube-read.watch.next";
    /// `{"stream": number, "max": bytes}`; text is what arrived, nothing the end of the stream.
    pub const STREAM_READ: &str = "pods.byte-stream.read";
    /// `{"execution": number}`; a number is the exit code, which `facts.exit` repeats.
    pub const EXECUTION_EXIT: &str = "pods.execution.exit";
    /// `{"names": …, "timeout": milliseconds}`; when the result is `ok`, `facts.lease` is what was granted.
    pub const LEASES_ACQUIRE: &str = "leases.acquire";
    /// `{"lease": number}`; ends a lease.
    pub const LEASES_RELEASE: &str = "leases.lease.release";
    /// Ends a watch; `facts.watch` is its number.
    pub const WATCH_CLOSE: &str = "kube-read.watch.close";
    /// `{"sources": [numbers of watches and streams], "timeout": milliseconds}`; the reply holds the positions of those that had news.
    pub const WAIT_ANY: &str = "wait.any";
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// `major.minor`, see [`FORMAT`].
    pub format: String,
    /// Run id.
    pub run: String,
    /// Random part of the run id, hex.
    pub salt: String,
    /// The reviewer's nonce.
    pub nonce: Option<String>,
    /// Probe id.
    pub probe: String,
    /// Version of the probe.
    pub probe_version: String,
    /// Digest of the component, `sha256:…`.
    pub component: String,
    /// SHA-256 of the manifest text.
    pub manifest: String,
    /// Contract version.
    pub contract: String,
    /// Engine version.
    pub engine: String,
    /// Version of the verdict rules.
    pub rules: String,
    /// Version of the redaction rules.
    pub redaction: String,
    /// Counts from 1.
    pub attempt: u32,
    /// When the attempt began, RFC 3339.
    pub started: String,
    /// Limits in force.
    pub limits: Limits,
    /// Settings as the guest sees them.
    pub settings: BTreeMap<String, String>,
    /// Sandbox namespaces by alias.
    pub namespaces: BTreeMap<String, String>,
    /// Images by name, after mirrors.
    pub images: BTreeMap<String, String>,
    /// SHA-256 of the permissions that were in effect, in canonical form.
    pub granted: String,
    /// The cluster.
    pub cluster: ClusterRecord,
}

/// Limits that change what a guest can see or do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Milliseconds of wall time.
    pub wall_ms: u64,
    /// Milliseconds of CPU time.
    pub cpu_ms: u64,
    /// Bytes of linear memory.
    pub memory_bytes: u64,
    /// Host calls.
    pub calls: u64,
    /// Bytes of answers.
    pub seen_bytes: u64,
}

impl From<&Budget> for Limits {
    fn from(budget: &Budget) -> Self {
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Limits {
            wall_ms: ms(budget.wall),
            cpu_ms: ms(budget.cpu),
            memory_bytes: budget.memory_bytes,
            calls: budget.calls,
            seen_bytes: budget.seen_bytes,
        }
    }
}

/// One call of the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Counts from 1 in the attempt.
    pub sequence: u64,
    /// Hash of the line before.
    pub previous: String,
    /// Milliseconds since the attempt began, when the call came in.
    pub at_ms: u64,
    /// Milliseconds since the attempt began, when the guest got its answer.
    pub done_ms: u64,
    /// The open case, if one was. For readers: the judge follows the recorded calls of `cases` instead.
    pub case: Option<CaseKey>,
    /// Interface, resource and function: `kube-read.query.get`.
    pub function: String,
    /// The arguments as the guest gave them (pseudonyms, not real values).
    pub arguments: Value,
    /// What the call reached for, where it reached for anything.
    pub access: Option<Access>,
    /// Digest (64 hexadecimal digits) of the blob that holds the [`Reply`] in JSON, salted.
    pub reply: String,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// How it ended, for readers and for the judge.
    pub result: ReplyKind,
    /// What the door knows about the answer; the judge reads these, not the blob.
    pub facts: Facts,
    /// How often the request was sent: more than once only for reads.
    pub tries: u32,
}

/// What the door knows of a call when it is over; sequence, hash and digest come from the recorder.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryDraft {
    /// See [`Entry::at_ms`].
    pub at_ms: u64,
    /// See [`Entry::done_ms`].
    pub done_ms: u64,
    /// See [`Entry::case`].
    pub case: Option<CaseKey>,
    /// See [`Entry::function`].
    pub function: String,
    /// See [`Entry::arguments`].
    pub arguments: Value,
    /// See [`Entry::access`].
    pub access: Option<Access>,
    /// See [`Entry::facts`].
    pub facts: Facts,
    /// See [`Entry::tries`].
    pub tries: u32,
}

/// What a call reaches for, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The resource API.
    Resource(ResourceAccess),
    /// A path outside of it.
    NonResource {
        /// The path, without query.
        path: String,
    },
    /// Discovery documents, which every authenticated user may read.
    Discovery,
}

/// One request to the resource API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceAccess {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group; empty is the core group.
    pub group: String,
    /// API version: `v1`.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Subresource; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// Namespace; empty for cluster-scoped objects and for all namespaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Object name; empty for lists, watches and collections. For a proxy `[scheme:]name:port`, as the API server takes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For `services/proxy` and `pods/proxy`: the path at the workload, without query. Empty for everything else, so that
    /// no call but those of `http` and `metrics` can be one of a proxy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl ResourceAccess {
    /// Whether it is a request to a workload, through the proxy of the API server.
    pub fn is_proxied(&self) -> bool {
        !self.path.is_empty() && self.is_proxy()
    }

    /// Whether it names the proxy of services or pods, by whatever call.
    pub(crate) fn is_proxy(&self) -> bool {
        self.group.is_empty()
            && self.subresource == "proxy"
            && matches!(self.resource.as_str(), "services" | "pods")
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplyKind {
    /// With a result.
    Ok,
    /// The door refused.
    Refused,
    /// The server answered with an error.
    Answered,
    /// No answer.
    NoAnswer,
    /// A cursor or watch lost its place.
    Expired,
    /// A budget is used up.
    Budget,
    /// The run is ending.
    Stopping,
    /// The request made no sense.
    Malformed,
    /// Something else, which says nothing about the platform: a lease that was not granted.
    Other,
}

/// What the door knows about an answer, after redaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Whether a server answered this very call; false for snapshots, logs, clocks and refusals of the door.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// Whether it was a dry run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// HTTP status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// `status.reason` of an error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For a watch: its number in the attempt, on open, events and gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<u32>,
    /// For a watch event: `added`, `modified`, `deleted`, `synced`, `gap`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// For a wait: the numbers of the watches that were seen to live at its end. Either there was news, or the server was
    /// asked anew from where the watch stood, and nothing had been missed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proved: Vec<u32>,
    /// The objects of the answer. At most 64 are kept; of a larger answer the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectFact>,
    /// Markers of a simulation that were seen in the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
    /// For `pods.execution.exit`: the exit code of a command that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// For `leases.acquire`: what was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseFact>,
    /// For the conclusion `fail` while nodes are leased: what others changed on them since they were granted, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

/// A lease that was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseFact {
    /// Counts from 1 in the attempt.
    pub number: u32,
    /// Its nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Its units on all of them, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, u64>,
    /// Its locks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
}

/// Identity and place of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectFact {
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
    /// `spec.nodeName` of a pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `status.phase`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// `imageID`s of a pod's containers, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Whether this run created it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ours: bool,
}

/// What the guest saw: exactly these bytes, in JSON, are the blob.
pub type Reply = Result<Seen, Failure>;

/// A result as the guest sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Nothing: the call has no result, or the end of a cursor, or no event.
    Nothing,
    /// Text, usually one object in JSON.
    Text(String),
    /// A page of objects, each in JSON.
    Page {
        /// The objects.
        objects: Vec<String>,
        /// Resource version of the list.
        position: String,
    },
    /// A watch event: its kind and its text.
    Event {
        /// `added`, `modified`, `deleted`, `synced`, `gap`.
        kind: String,
        /// The object in JSON, the resource version, or the reason of a gap.
        text: String,
    },
    /// Positions of ready sources.
    Ready(Vec<u32>),
    /// A number.
    Number(u64),
    /// The answer of a path outside the resource API.
    Raw {
        /// HTTP status.
        code: u16,
        /// Content type.
        content_type: String,
        /// Body.
        body: String,
    },
    /// A part of a body; empty when nothing was there at the moment.
    Bytes(Bytes),
    /// Numbers: when the parts of a body arrived.
    Numbers(Vec<u32>),
}

/// Bytes in JSON: text where they are UTF-8, so that people can read a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bytes {
    /// UTF-8.
    Text(String),
    /// Everything else.
    Base64(String),
}

impl Bytes {
    /// Bytes for a recording.
    pub fn of(bytes: Vec<u8>) -> Bytes {
        match String::from_utf8(bytes) {
            Ok(text) => Bytes::Text(text),
            Err(error) => Bytes::Base64(data_encoding::BASE64.encode(error.as_bytes())),
        }
    }

    /// The bytes; none where a recording holds no base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Bytes::Text(text) => Some(text.clone().into_bytes()),
            Bytes::Base64(text) => data_encoding::BASE64.decode(text.as_bytes()).ok(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Bytes::Text(text) => text.len(),
            Bytes::Base64(text) => text.len() / 4 * 3,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A failure as the guest sees it; the contract's `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The door refused; names the line that would grant it.
    Refused(String),
    /// The server answered with an error.
    Answered {
        /// HTTP status.
        code: u16,
        /// `status.reason`.
        reason: String,
        /// `status.message`.
        message: String,
        /// The whole body.
        body: String,
    },
    /// No answer; the effect is unknown.
    NoAnswer(String),
    /// A cursor or watch lost its place.
    Expired,
    /// A budget is used up.
    Budget(String),
    /// The run is ending.
    Stopping,
    /// The request made no sense.
    Malformed(String),
    /// Something else, which says nothing about the platform: `unavailable: …` and `busy: …` of a lease.
    Other(String),
}

impl ReplyKind {
    /// How this reply ended.
    pub fn of(reply: &Reply) -> ReplyKind {
        match reply {
            Ok(_) => ReplyKind::Ok,
            Err(failure) => failure.kind(),
        }
    }
}

impl Failure {
    /// The word for entries.
    pub fn kind(&self) -> ReplyKind {
        match self {
            Failure::Refused(_) => ReplyKind::Refused,
            Failure::Answered { .. } => ReplyKind::Answered,
            Failure::NoAnswer(_) => ReplyKind::NoAnswer,
            Failure::Expired => ReplyKind::Expired,
            Failure::Budget(_) => ReplyKind::Budget,
            Failure::Stopping => ReplyKind::Stopping,
            Failure::Malformed(_) => ReplyKind::Malformed,
            Failure::Other(_) => ReplyKind::Other,
        }
    }
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Number of entries before it.
    pub entries: u64,
    /// Hash of the line before.
    pub previous: String,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// For each object of [`crate::judge::alive_wanted`]: its uid and whether the engine still found it at the end.
    pub alive: BTreeMap<String, bool>,
    /// Objects of the run that could not be removed.
    #[serde(default)]
    pub left_behind: Vec<String>,
}

/// What is known when an attempt is over; the count and the hash come from the recorder.
#[derive(Clone, Debug, PartialEq)]
pub struct EndDraft {
    /// See [`End::outcome`].
    pub outcome: Outcome,
    /// See [`End::usage`].
    pub usage: Usage,
    /// See [`End::alive`].
    pub alive: BTreeMap<String, bool>,
    /// See [`End::left_behind`].
    pub left_behind: Vec<String>,
}
