//! What a probe states about itself before anything runs: `probe.toml`, embedded in the component as the custom section
//! `karat:manifest`.
//!
//! The manifest asks; the operator grants ([`crate::grant`]). Cases are data here, so that a probe can neither add, drop
//! nor weaken one while it runs. Words that will grow (case kinds, reasons, verbs) are text checked against a table of the engine.

mod cases;
mod leases;
mod parse;
mod permissions;
mod raw;
pub mod section;
mod settings;
pub(crate) mod source;
#[cfg(test)]
mod tests;
pub(crate) mod values;

pub use parse::{CAPABILITIES, CORE_INTERFACES};
pub use source::{FileError, ManifestError, Problem};
pub use values::{VERBS, is_quantity, parse_duration};

use crate::model::Reach;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Largest manifest in bytes. Ours have some ten kilobytes; a larger one wastes the reader's memory and patience.
pub const MAX_MANIFEST_SIZE: usize = 256 << 10;

/// Everything the engine knows about a probe before it runs it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Manifest {
    /// A DNS label of at most 40 characters, or `vendor.example/name` for probes outside the core.
    pub id: String,
    /// Semantic version of the probe.
    pub version: String,
    /// One line for lists.
    pub title: String,
    /// What a pass asserts, for people.
    pub claim: String,
    /// How a pass could mislead, for people.
    pub misleads: String,
    /// Contract version, matched exactly while it is `0.1.0-dev.N`.
    pub contract: String,
    /// Requirement ids it answers.
    pub requirements: Vec<String>,
    /// How far it goes.
    pub reach: Reach,
    /// Interfaces beyond the core ones (`run`, `wait`, `clock`, `log`, `settings`, `cases`): `kube-read`, `kube-write`, …
    pub capabilities: Vec<String>,
    /// What it may do, if granted.
    pub permissions: Vec<PermissionLine>,
    /// Sandbox namespaces by alias.
    pub namespaces: Vec<NamespaceLine>,
    /// Images by name.
    pub images: Vec<ImageLine>,
    /// Shared snapshots.
    pub snapshots: Vec<SnapshotLine>,
    /// Leases it may take.
    pub leases: Vec<LeaseLine>,
    /// Typed settings by key.
    pub settings: BTreeMap<String, Setting>,
    /// Limits.
    pub budget: Budget,
    /// The cases, in the order of reports.
    pub cases: Vec<Case>,
}

/// Where a permission line applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Every namespace of the manifest.
    Sandbox,
    /// The whole cluster: cluster-scoped objects, and all namespaces.
    Cluster,
    /// One named namespace.
    Namespace(String),
}

/// One permission, Kubernetes-shaped: every combination of its lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PermissionLine {
    /// API groups; `""` is the core group.
    pub api_groups: Vec<String>,
    /// Plural resource names, subresources as `pods/log`.
    pub resources: Vec<String>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    /// Where.
    pub scope: Scope,
    /// Only these names; empty means all.
    pub names: Vec<String>,
    /// Paths outside the resource API (`/version`); such a line has no groups, resources or verbs but `get`.
    pub non_resource: Vec<String>,
    /// What of a workload may be reached, for lines of `services/proxy` and `pods/proxy`.
    #[serde(skip_serializing_if = "ProxyLine::is_empty")]
    pub proxy: ProxyLine,
    /// Whether the probe works without it.
    pub optional: bool,
    /// Why it is needed, for the operator who grants it.
    pub why: String,
    /// Line of `probe.toml`, for refusals.
    pub line: usize,
}

/// What of a workload may be reached through the proxy of the API server. Empty lists mean all, but for `matchers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ProxyLine {
    /// Ports of services or pods, by number or name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Prefixes of paths, which end where a segment ends: `/metrics` is no prefix of `/metricsx`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Matchers (`job="dcgm"`) of which each selector of a PromQL query must hold one, beside those that name this run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<String>,
}

impl ProxyLine {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == ProxyLine::default()
    }
}

/// Pod Security level of a sandbox namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodSecurity {
    /// The default.
    Restricted,
    /// Known privilege escalations are prevented.
    Baseline,
    /// By consent only.
    Privileged,
}

impl PodSecurity {
    /// The value of the `pod-security.kubernetes.io/enforce` label.
    pub fn label(self) -> &'static str {
        match self {
            PodSecurity::Restricted => "restricted",
            PodSecurity::Baseline => "baseline",
            PodSecurity::Privileged => "privileged",
        }
    }
}

/// A sandbox namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamespaceLine {
    /// At most 7 characters, a DNS label.
    pub alias: String,
    /// Pod Security level.
    pub pod_security: PodSecurity,
    /// Most pods at one time; becomes the ResourceQuota.
    pub pods: u32,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageLine {
    /// Name for `run.image`.
    pub name: String,
    /// Where it comes from.
    pub source: ImageSource,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// `registry/repository@sha256:…`.
    Reference(String),
    /// One that the program brings, by its name: [`crate::images`].
    Own(String),
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageSource::Reference(reference) => f.write_str(reference),
            ImageSource::Own(name) => write!(f, "{name} of this program"),
        }
    }
}

/// A snapshot that is listed once for all probes of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SnapshotLine {
    /// `group/version` or `v1`.
    pub api_version: String,
    /// Plural resource name.
    pub resource: String,
    /// Label selector; empty means all.
    pub labels: String,
    /// Paths to keep; empty means whole objects.
    pub keep: Vec<String>,
}

/// Something that the probe may take for itself for a while, so that no other probe of the run spoils what it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaseLine {
    /// Name for `leases.acquire`.
    pub name: String,
    /// Nodes or a lock.
    #[serde(flatten)]
    pub wish: Wish,
    /// How long it is usually held; the plan adds these up.
    #[serde(rename = "for")]
    pub usual: Duration,
}

/// What a lease asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Worker nodes.
    Nodes(NodesWish),
    /// A lock.
    Lock {
        /// `pool/NAME`, `node/NAME`, `metrics/NAME`, `cluster/RESOURCE`, `preemption`, `autoscaler`.
        name: String,
        /// Whether others may hold it too.
        shared: bool,
    },
}

/// Ready, schedulable worker nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodesWish {
    /// At least so many, at least 1.
    pub least: u32,
    /// At most so many; as many as can be had.
    pub most: u32,
    /// Accelerator units that must be free on each of them, and are taken.
    pub units: UnitsWish,
    /// Whether nobody else of the run gets anything on these nodes meanwhile.
    pub alone: bool,
    /// Whether they must run containers, which nodes that a simulator plays do not.
    pub containers: bool,
}

/// Accelerator units on each node of a lease: an extended resource, or DRA devices of one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitsWish {
    /// So many of one kind; 0 asks for none and takes none.
    Count(u32),
    /// Every free one of every kind, at least one.
    All,
}

/// A typed setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// What kind of value.
    pub kind: SettingKind,
    /// Value when the operator gives none.
    pub default: Option<String>,
    /// One sentence for the operator.
    pub help: String,
}

/// Kinds of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingKind {
    /// Any text.
    String,
    /// `true` or `false`.
    Bool,
    /// A 64-bit integer.
    Integer,
    /// `90s`, `5m`.
    Duration,
    /// Kubernetes' quantity: `2Gi`.
    Quantity,
    /// One of these words.
    OneOf(Vec<String>),
    /// Reaches the guest only as a reference.
    Secret,
}

/// Limits of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Wall time of the whole attempt.
    pub wall: Duration,
    /// CPU time inside the guest.
    pub cpu: Duration,
    /// Linear memory in bytes.
    pub memory_bytes: u64,
    /// Host calls.
    pub calls: u64,
    /// Bytes of answers that the guest may see.
    pub seen_bytes: u64,
    /// How long the whole probe usually takes; the plan reckons with it. No limit.
    pub usual: Option<Duration>,
}

impl Default for Budget {
    /// 5 minutes, 10 s of CPU, 64 MiB, 20,000 calls, 8 MiB: the figures of the specification for a small probe.
    fn default() -> Self {
        Budget {
            wall: Duration::from_secs(300),
            cpu: Duration::from_secs(10),
            memory_bytes: 64 << 20,
            calls: 20_000,
            seen_bytes: 8 << 20,
            usual: None,
        }
    }
}

/// When a case must be concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Required {
    /// Always; its absence is `not_exercised`.
    Always,
    /// Only if the probe opened it: the worst-case rule includes it then.
    IfOpened,
    /// Never part of the verdict; reported as an observation.
    Optional,
}

/// Kinds of cases that this engine's rules know. A manifest with another word is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseKind {
    /// Something is looked at; nothing is claimed to happen.
    Observation,
    /// Something happens that should.
    Positive,
    /// Something that should not happen does not: an attempt is refused by the platform, or nothing happens for the quiet time.
    Negative,
}

/// One declared case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// DNS label, unique in the manifest.
    pub id: String,
    /// What kind of claim.
    pub kind: CaseKind,
    /// When it must be concluded.
    pub required: Required,
    /// The claim in one sentence.
    pub claim: String,
    /// What is expected, for people.
    pub expected: String,
    /// Cases that must have passed before a fail of this one counts.
    pub needs: Vec<String>,
    /// Calls that count as the effect; one of them must have been answered live while the case was open.
    pub effect: Vec<EffectPattern>,
    /// Positive cases that show that the forbidden thing could have happened.
    pub controls: Vec<Control>,
    /// For a negative that waits: how long nothing must happen, seen by a watch without gap.
    pub quiet: Option<Duration>,
    /// Whether the case leaves pods pending on purpose.
    pub pending: bool,
    /// Line of `probe.toml`.
    pub line: usize,
}

/// A pattern of calls, written `[verb ]resource[/subresource][.group]`: `create resourceclaims.resource.k8s.io`, `pods/log`.
/// `get /readyz` matches a path outside the resource API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectPattern {
    /// Only this verb; none means any.
    pub verb: Option<String>,
    /// Plural resource, `*` for any; with a subresource after `/`. A path starting with `/` for `raw`.
    pub resource: String,
    /// API group; none means any.
    pub group: Option<String>,
}

/// A control of a negative case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Control {
    /// The positive case.
    pub case: String,
    /// Which facts must be equal in both: `node`, `image`, `object`, `service`, `lease`.
    pub same: Vec<String>,
    /// Whether the control's objects must still exist when the engine asks at the end.
    pub alive: bool,
}
