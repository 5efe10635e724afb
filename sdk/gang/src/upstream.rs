//! The Workload API of Kubernetes (`scheduling.k8s.io`): Workload, PodGroup, and a field of the pod.
//!
//! Field names change in every release, so each version has its own form here, and a version that is not here is not spoken.
//! The API of 1.35 (`v1alpha1`) has no PodGroup objects and so no decision to be seen; it is not supported.

use crate::adapter::{Adapter, Decision, Group};
use karat_sdk::build::from_text;
use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, Conclusion, Object, Query, Reason, Result, Target, Value, json, run};

/// A version whose form is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.37, gate GenericWorkload.
    V1Beta1,
    /// 1.37 as well; the same form for what is used here.
    V1Alpha3,
    /// 1.36.
    V1Alpha2,
}

const WORKLOAD: &str =
    r#"{"kind": "Workload", "metadata": {}, "spec": {"podGroupTemplates": [{"name": "workers"}]}}"#;
const POD_GROUP: &str = r#"{"kind": "PodGroup", "metadata": {}, "spec": {}}"#;
/// The template that the workloads here have.
const TEMPLATE: &str = "workers";

impl Version {
    /// Group of all versions. PriorityClass is in it too, so the group alone says nothing.
    pub const GROUP: &str = "scheduling.k8s.io";

    /// The version of this name.
    pub fn parse(version: &str) -> Option<Self> {
        match version {
            "v1beta1" => Some(Version::V1Beta1),
            "v1alpha3" => Some(Version::V1Alpha3),
            "v1alpha2" => Some(Version::V1Alpha2),
            _ => None,
        }
    }

    /// `v1beta1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V1Beta1 => "v1beta1",
            Version::V1Alpha3 => "v1alpha3",
            Version::V1Alpha2 => "v1alpha2",
        }
    }

    /// `scheduling.k8s.io/v1beta1`.
    pub fn api_version(self) -> String {
        format!("{}/{}", Version::GROUP, self.as_str())
    }

    /// Type of the condition that says whether the group was scheduled.
    pub fn condition(self) -> &'static str {
        match self {
            Version::V1Beta1 | Version::V1Alpha3 => "PodGroupInitiallyScheduled",
            Version::V1Alpha2 => "PodGroupScheduled",
        }
    }

    fn template_ref(self, workload: &str) -> (&'static str, Value) {
        match self {
            Version::V1Beta1 | Version::V1Alpha3 => (
                "workloadRef",
                json!({"workloadName": workload, "templateName": TEMPLATE}),
            ),
            Version::V1Alpha2 => (
                "podGroupTemplateRef",
                json!({"workload": {"workloadName": workload, "podGroupTemplateName": TEMPLATE}}),
            ),
        }
    }
}

/// What a server has of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// Workload and PodGroup, in a version that is spoken here.
    Known(Version),
    /// The kind Workload, only in these versions, none of which is spoken here.
    Unknown(String),
    /// No kind Workload at all.
    Absent,
}

/// Finds the newest version that is served and known.
pub fn served(discovery: &Discovery) -> Served {
    let with_workloads: Vec<&str> = discovery
        .versions(Version::GROUP)
        .into_iter()
        .filter(|version| {
            discovery
                .resource(Version::GROUP, version, "workloads")
                .is_some_and(|found| found.kind() == "Workload")
        })
        .collect();
    if with_workloads.is_empty() {
        return Served::Absent;
    }
    let known = with_workloads.iter().find_map(|version| {
        discovery.resource(Version::GROUP, version, "podgroups")?;
        Version::parse(version)
    });
    known.map_or_else(|| Served::Unknown(with_workloads.join(", ")), Served::Known)
}

/// What a case finds of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A version that is served and spoken here. Its groups were listed.
    Spoken(Version),
    /// Only versions that are not spoken; what the case concludes.
    Unspoken(Conclusion),
    /// No kind Workload at all, by discovery alone.
    Absent,
}

/// Shows the version of the server and looks for the API, with a list of the groups of a namespace where it is spoken.
///
/// # Errors
/// Those of the server and of the door.
pub fn look(case: &Case, discovery: &Discovery, namespace: &str) -> Result<Found> {
    case.observe("server version", &discovery.version().git_version);
    Ok(match served(discovery) {
        Served::Known(version) => {
            let groups = Query::new(&version.api_version(), "podgroups");
            groups.in_namespace(namespace).list()?;
            Found::Spoken(version)
        }
        Served::Unknown(versions) => {
            let text = format!(
                "scheduling.k8s.io has workloads only in {versions}, which this probe does not know; use another release of it"
            );
            Found::Unspoken(Conclusion::unknown(Reason::VersionSkew, text))
        }
        Served::Absent => Found::Absent,
    })
}

/// The adapter.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The version that is spoken.
    pub version: Version,
    namespace: String,
}

impl Upstream {
    /// For groups in one of the run's namespaces.
    pub fn new(version: Version, namespace: &str) -> Self {
        Upstream {
            version,
            namespace: namespace.to_owned(),
        }
    }

    /// `podgroups` or `workloads` of the namespace.
    pub fn target(&self, resource: &str) -> Target {
        Target::new(&self.version.api_version(), resource).in_namespace(&self.namespace)
    }

    /// Creates Workload and PodGroup; `extend` may add fields that both template and group have.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn create_with(
        &self,
        name: &str,
        count: u64,
        extend: impl Fn(&mut Value),
    ) -> Result<Object> {
        let policy = json!({"gang": {"minCount": count}});
        let mut workload = from_text(WORKLOAD);
        workload["apiVersion"] = json!(self.version.api_version());
        workload["metadata"]["name"] = json!(name);
        let template = &mut workload["spec"]["podGroupTemplates"][0];
        template["schedulingPolicy"] = policy.clone();
        extend(template);
        self.target("workloads").create(&workload)?;

        let mut group = from_text(POD_GROUP);
        group["apiVersion"] = json!(self.version.api_version());
        group["metadata"]["name"] = json!(name);
        let spec = &mut group["spec"];
        let (field, reference) = self.version.template_ref(name);
        spec[field] = reference;
        spec["schedulingPolicy"] = policy;
        extend(spec);
        self.target("podgroups").create(&group)
    }

    /// Ties a pod to its group.
    pub fn link(&self, pod: &mut Value, group: &str) {
        pod["spec"]["schedulingGroup"] = json!({"podGroupName": group});
    }

    /// Whether a pod as stored is still tied to the group: servers drop fields of gates that are off without a word.
    pub fn is_linked(&self, pod: &Object, group: &str) -> bool {
        pod.text("/spec/schedulingGroup/podGroupName") == group
    }
}

impl Adapter for Upstream {
    fn describe(&self) -> String {
        format!("Workload API, {}", self.version.api_version())
    }

    fn create(&self, group: &Group) -> Result<Option<u64>> {
        let stored = self.create_with(&group.name, group.count, |_| ())?;
        Ok(stored.at("/spec/schedulingPolicy/gang/minCount").as_u64())
    }

    fn start(&self, group: &Group) -> Result<bool> {
        let pods = Target::new("v1", "pods").in_namespace(&self.namespace);
        let base = group.name.trim_end_matches(&run::id()).to_owned();
        for at in 0..group.count {
            let mut pod = group.pod.clone();
            self.link(&mut pod, &group.name);
            pod["metadata"]["name"] = json!(run::name(&format!("{base}{at}")));
            let stored = pods.create(&pod)?;
            // The other pods would start without their group, so there is no point in creating them.
            if !self.is_linked(&stored, &group.name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn decisions(&self) -> Query {
        self.target("podgroups").query()
    }

    fn decision(&self, object: &Object, group: &str) -> Option<Decision> {
        if object.name() != group {
            return None;
        }
        let condition = object.condition(self.version.condition())?;
        let said = || format!("{}: {}", condition.reason, condition.message);
        Some(match (condition.status, condition.reason) {
            ("True", _) => Decision::Admitted,
            ("False", "Unschedulable") => Decision::Rejected(said()),
            _ => Decision::Trouble(said()),
        })
    }

    fn remove(&self, group: &str) -> Result<()> {
        for resource in ["podgroups", "workloads"] {
            match self.target(resource).delete(group) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
