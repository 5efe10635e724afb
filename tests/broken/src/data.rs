//! The form of the tables: what a file below `tests/broken` may say. Strict; a mistake is told with line and column.
//!
//! Nothing here knows what an ingredient does. [`crate::table`] reads the files and puts entries together.

use std::collections::BTreeMap;

use karat_engine::model::{Reach, Tier};
use serde::Deserialize;
use serde_json::Value;

use crate::actors::ActorData;
use crate::edit::Where;
use crate::rules::RuleData;
use crate::words::Said;

/// A file of one probe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProbeFile {
    /// Id of the probe.
    pub probe: String,
    /// How far its runs may go.
    #[serde(default = "cluster_objects")]
    pub reach: Reach,
    /// Settings of the probe in every run.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// `[[exception]]`s of a grants file, beside all that the probe asks for.
    #[serde(default)]
    pub exceptions: Option<String>,
    /// Control planes that only this file names.
    #[serde(default)]
    pub labs: BTreeMap<String, LabData>,
    /// A cluster in which nothing is wrong, from which every entry departs.
    pub healthy: Healthy,
    /// The clusters.
    #[serde(default)]
    pub entries: Vec<EntryData>,
}

fn cluster_objects() -> Reach {
    Reach::ClusterObjects
}

/// The file `everywhere.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EverywhereFile {
    /// Control planes that any file may name.
    pub labs: BTreeMap<String, LabData>,
    /// Conforming clusters that every probe meets.
    pub variants: Vec<Variant>,
}

/// What a control plane is started with. Entries whose control planes are equal share one, whatever its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LabData {
    /// Served versions of `resource.k8s.io`.
    #[serde(default)]
    pub dra: Dra,
    /// The Workload API with gangs, topology and claims of groups.
    #[serde(default)]
    pub workload_api: bool,
    /// Feature gates of all programs; they win over `workload-api`.
    #[serde(default)]
    pub feature_gates: BTreeMap<String, bool>,
    /// Entries of `--runtime-config`.
    #[serde(default)]
    pub runtime_config: Vec<String>,
    /// Further arguments by program, as in `kube-scheduler: [--v=2]`.
    #[serde(default)]
    pub args: BTreeMap<String, Vec<String>>,
    /// A `KubeSchedulerConfiguration`, as text.
    #[serde(default)]
    pub scheduler_config: Option<String>,
    /// Files of `tests/testbed/fixtures` that are there from the beginning.
    #[serde(default)]
    pub fixtures: Vec<String>,
    /// Objects that are there from the beginning, as YAML text.
    #[serde(default)]
    pub objects: Option<String>,
    /// Nodes whose pods run. An entry whose machine cannot have them is not run, and counted as such.
    #[serde(default)]
    pub real_nodes: u8,
    /// What runs the containers of a RuntimeClass's handler on the real nodes, where it is not what its name says.
    #[serde(default)]
    pub handlers: BTreeMap<String, HandlerData>,
    /// Programs beside the real nodes, such as `dra-driver`, and operators, such as `kueue`.
    #[serde(default)]
    pub with: Vec<String>,
    /// What the configuration files of operators say differently, by name, as YAML text.
    #[serde(default)]
    pub with_config: BTreeMap<String, String>,
    /// Devices of the machine that the DRA driver and the device plugin give out, in place of two harmless ones.
    #[serde(default)]
    pub devices: Vec<String>,
    /// A device plugin that departs from the usual one, as YAML text; see [`karat_testbed::DevicePluginSettings`].
    #[serde(default)]
    pub device_plugin: Option<String>,
    /// A Prometheus that departs from the usual one, as YAML text; see [`karat_testbed::PrometheusSettings`].
    #[serde(default)]
    pub prometheus: Option<String>,
    /// An adapter of metrics that departs from the usual one, as YAML text; see [`karat_testbed::AdapterSettings`].
    #[serde(default)]
    pub metrics_adapter: Option<String>,
    /// Runs at one time, for entries that only put a proxy before it. One by default, because runs share capacity.
    #[serde(default)]
    pub together: Option<usize>,
}

/// What runs the containers of a handler; see [`karat_testbed::RuntimeHandler`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HandlerData {
    /// The program.
    pub runs: Runs,
    /// A program that stands before runc and is called as it.
    #[serde(default)]
    pub through: Option<String>,
    /// Flags of gVisor's `runsc`.
    #[serde(default)]
    pub flags: BTreeMap<String, String>,
    /// What each of its containers has beyond the usual, as YAML text; see
    /// [`karat_testbed::ControlPlaneBuilder::runtime_spec`].
    #[serde(default)]
    pub spec: Option<String>,
}

/// A program that runs containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "these are names of programs")]
pub enum Runs {
    #[default]
    Runc,
    Gvisor,
}

/// Served versions of `resource.k8s.io`; see [`karat_testbed::DraApi`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "documented where it is used")]
pub enum Dra {
    #[default]
    Stable,
    All,
    OldOnly,
    Off,
}

/// A cluster in which nothing is wrong, for one probe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Healthy {
    /// Name of the control plane.
    pub lab: String,
    /// What is put into it.
    #[serde(default)]
    pub make: Make,
    /// What the probe says about it, and about every conforming variant of it.
    #[serde(default)]
    pub expect: Expect,
    /// Writes the recording to `recordings/NAME.jsonl` of the probe when recordings are asked for.
    #[serde(default)]
    pub record_as: Option<String>,
    /// Variants of `everywhere.yaml` that this probe does not meet, and why.
    #[serde(default)]
    pub except: BTreeMap<String, String>,
}

/// One cluster. It is [`Healthy`] plus what is said here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EntryData {
    /// Unique among the entries of the probe; lower-case words with `-`.
    pub name: String,
    /// The one thing that is wrong.
    #[serde(default)]
    pub wrong: Option<String>,
    /// Why a careless check would pass. Goes with `wrong`.
    #[serde(default)]
    pub careless: Option<String>,
    /// What is unusual about a cluster that conforms. Instead of `wrong`.
    #[serde(default)]
    pub conforming: Option<String>,
    /// Another control plane than the healthy one.
    #[serde(default)]
    pub lab: Option<String>,
    /// Leaves out what the healthy cluster is made of.
    #[serde(default)]
    pub bare: bool,
    /// How it is made.
    #[serde(default)]
    pub make: Make,
    /// What the probe must say.
    #[serde(default)]
    pub expect: Expect,
    /// Settings of the probe, over those of the file.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Writes the recording to `recordings/NAME.jsonl` of the probe when recordings are asked for.
    #[serde(default)]
    pub record_as: Option<String>,
    /// Why this fault is not found yet.
    #[serde(default)]
    pub known_miss: Option<String>,
    /// Why such a cluster does not let go of what a run made.
    #[serde(default)]
    pub leaves: Option<String>,
}

/// A conforming cluster that every probe meets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Variant {
    /// Unique among the variants.
    pub name: String,
    /// What is unusual.
    pub conforming: String,
    /// How it is made.
    pub make: Make,
    /// Why such a cluster does not let go of what a run made.
    #[serde(default)]
    pub leaves: Option<String>,
}

/// What a cluster is made of, beside its control plane. Everything is taken away again after the run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Make {
    /// Files of `tests/testbed/fixtures`.
    #[serde(default)]
    pub fixtures: Vec<String>,
    /// Objects as YAML text, several documents.
    #[serde(default)]
    pub objects: Option<String>,
    /// Nodes, pods and definitions of others.
    #[serde(default)]
    pub crowd: Option<Crowd>,
    /// What must be so before the run begins.
    #[serde(default)]
    pub until: Vec<Until>,
    /// Operators of the control plane that do not run meanwhile.
    #[serde(default)]
    pub down: Vec<String>,
    /// Controllers that do something while the probe runs.
    #[serde(default)]
    pub controllers: Vec<ActorData>,
    /// The release that the server says it is, such as `1.33.4`.
    #[serde(default)]
    pub version: Option<String>,
    /// Rules of a proxy before the API server.
    #[serde(default)]
    pub proxy: Vec<RuleData>,
    /// Rules that data cannot say, by name; see [`crate::named`].
    #[serde(default)]
    pub rules: Vec<String>,
}

impl Make {
    /// Whether runs beside this one would notice.
    #[must_use]
    pub fn touches_the_cluster(&self) -> bool {
        !self.fixtures.is_empty()
            || self.objects.is_some()
            || self.crowd.is_some()
            || !self.controllers.is_empty()
            || !self.down.is_empty()
    }

    /// This, and then the other.
    #[must_use]
    pub fn and(&self, other: &Make) -> Make {
        let objects = [&self.objects, &other.objects];
        let objects: Vec<&str> = objects.into_iter().flatten().map(String::as_str).collect();
        // The rules of the departure come first, because the first one that fits wins.
        Make {
            fixtures: [self.fixtures.clone(), other.fixtures.clone()].concat(),
            objects: (!objects.is_empty()).then(|| objects.join("\n---\n")),
            crowd: other.crowd.or(self.crowd),
            until: [self.until.clone(), other.until.clone()].concat(),
            down: [self.down.clone(), other.down.clone()].concat(),
            controllers: [self.controllers.clone(), other.controllers.clone()].concat(),
            version: other.version.clone().or_else(|| self.version.clone()),
            proxy: [other.proxy.clone(), self.proxy.clone()].concat(),
            rules: [self.rules.clone(), other.rules.clone()].concat(),
        }
    }
}

/// What others have in the cluster.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Crowd {
    /// Nodes without accelerators.
    #[serde(default)]
    pub nodes: u32,
    /// Pods that run on them.
    #[serde(default)]
    pub pods: u32,
    /// Custom resource definitions.
    #[serde(default)]
    pub definitions: u32,
}

/// A condition before the run: about objects, or about what admission says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Until {
    /// API version of objects.
    #[serde(default)]
    pub api_version: Option<String>,
    /// Their kind.
    #[serde(default)]
    pub kind: Option<String>,
    /// Only in this namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Only the one of this name.
    #[serde(default)]
    pub name: Option<String>,
    /// An object to create in a dry run, instead of objects to look at.
    #[serde(default)]
    pub dry_run: Option<Value>,
    /// The dry run is refused with a message in which this occurs.
    #[serde(default)]
    pub refused: Option<String>,
    /// Holds for every object, of which there is at least one; or for the answer to the dry run.
    #[serde(default, rename = "where")]
    pub condition: Where,
}

/// What the probe must say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expect {
    /// The whole; `pass` if it is missing.
    #[serde(default)]
    pub verdict: Option<Said>,
    /// A part of its explanation.
    #[serde(default)]
    pub explains: Option<String>,
    /// Single cases.
    #[serde(default)]
    pub cases: BTreeMap<String, Said>,
    /// A part of the explanation or of an observation of a case.
    #[serde(default)]
    pub says: BTreeMap<String, String>,
    /// Observations of a case, whole.
    #[serde(default)]
    pub observes: BTreeMap<String, BTreeMap<String, String>>,
    /// What the evidence rests on.
    #[serde(default)]
    pub tier: Option<Tier>,
}

impl Expect {
    /// The verdict on the whole.
    #[must_use]
    pub fn verdict(&self) -> Said {
        self.verdict.clone().unwrap_or_else(Said::pass)
    }
}
