//! Kueue: a Job is admitted as a whole when its queue has quota for all of its pods, and stays suspended until then.
//!
//! Kueue counts quota, not places on nodes, so a group is held back by scarcity only where quota and free places are equal. The
//! adapter makes a flavor and a queue of its own, with a quota that the steps set to what is free. A queue of somebody else can
//! be named instead; its quota is left as it is, and what comes of it is that queue's doing.
//!
//! Pods of a held group do not exist. Their owner is a Job, so played pods end as soon as they run.

use crate::adapter::{Adapter, Decision, GROUP, Group};
use crate::room::{Room, Scarce};
use karat_sdk::build::from_text;
use karat_sdk::discovery::Discovery;
use karat_sdk::kube::{PatchKind, wait_for};
use karat_sdk::{Case, Conclusion, Error, Object, Query, Reason, Result, Target, Value, json, run};
use std::time::Duration;

const GROUP_NAME: &str = "kueue.x-k8s.io";
/// Versions whose form is known, newest first. What is used here is the same in both.
const KNOWN: [&str; 2] = ["v1beta2", "v1beta1"];
/// Label of a Job that names its queue.
const QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Until a queue is in force.
const ACTIVE: Duration = Duration::from_secs(60);
/// What pods of a group may take besides the scarce thing; far more than they do, so that only the scarce thing decides.
const BESIDES: [(&str, &str); 2] = [("cpu", "100"), ("memory", "100Gi")];

const JOB: &str = r#"{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": {}}, "spec": {"suspend": true, "backoffLimit": 0, "template": {}}}"#;

/// What a server has of Kueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// Queues and workloads, in a version that is spoken here.
    Known(&'static str),
    /// Only these versions, none of which is spoken here.
    Unknown(String),
    /// None of its kinds.
    Absent,
}

/// Finds the newest version that is served and known.
pub fn served(discovery: &Discovery) -> Served {
    let versions = discovery.versions(GROUP_NAME);
    let has = |version: &str, resource| discovery.resource(GROUP_NAME, version, resource).is_some();
    let known = KNOWN.into_iter().find(|version| {
        versions.contains(version) && has(version, "clusterqueues") && has(version, "workloads")
    });
    match known {
        Some(version) => Served::Known(version),
        None if versions.iter().any(|version| has(version, "clusterqueues")) => {
            Served::Unknown(versions.join(", "))
        }
        None => Served::Absent,
    }
}

/// The adapter.
#[derive(Clone, Debug)]
pub struct Kueue {
    version: &'static str,
    namespace: String,
    /// The one object of each kind that is ours.
    name: String,
    /// A queue of somebody else.
    foreign: Option<String>,
}

impl Kueue {
    /// For Jobs in one of the run's namespaces, in a queue of our own or in a ClusterQueue of this name.
    pub fn new(version: &'static str, namespace: &str, foreign: Option<String>) -> Self {
        Kueue {
            version,
            namespace: namespace.to_owned(),
            name: run::name("gang"),
            foreign,
        }
    }

    /// Lists the workloads of the namespace, so that the solution was seen to answer.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn look(&self, case: &Case) -> Result<()> {
        self.local("workloads").query().list()?;
        case.observe("version used", self.version);
        match &self.foreign {
            Some(queue) => case.observe("ClusterQueue, by setting", queue),
            None => case.observe("ClusterQueue", "of our own"),
        }
        Ok(())
    }

    fn api_version(&self) -> String {
        format!("{GROUP_NAME}/{}", self.version)
    }

    fn cluster(&self, resource: &str) -> Target {
        Target::new(&self.api_version(), resource)
    }

    fn local(&self, resource: &str) -> Target {
        self.cluster(resource).in_namespace(&self.namespace)
    }

    fn jobs(&self) -> Target {
        Target::new("batch/v1", "jobs").in_namespace(&self.namespace)
    }

    fn object(&self, kind: &str, spec: &Value) -> Value {
        json!({"apiVersion": self.api_version(), "kind": kind, "metadata": {"name": self.name}, "spec": spec})
    }

    /// The groups of resources with quota for so many pods.
    fn quota(&self, room: &Room, pods: u64) -> Value {
        let scarce = match &room.scarce {
            Scarce::Extended(name) => name.as_str(),
            Scarce::Cpu => "cpu",
            // Claims are not counted by Kueue, unless it was told how; see `takes_claims`.
            Scarce::Devices(..) => "pods",
        };
        let amount = match room.scarce {
            Scarce::Devices(..) => pods.to_string(),
            _ => room.amount(pods * room.size),
        };
        let mut covered = vec![scarce];
        let mut quotas = vec![json!({"name": scarce, "nominalQuota": amount})];
        for (name, amount) in BESIDES.iter().filter(|(name, _)| *name != scarce) {
            covered.push(name);
            quotas.push(json!({"name": name, "nominalQuota": amount}));
        }
        json!([{"coveredResources": covered, "flavors": [{"name": self.name, "resources": quotas}]}])
    }

    /// The queues, each waited for until Kueue has taken it up.
    fn make(&self, room: &Room) -> Result<()> {
        let queue = match &self.foreign {
            Some(queue) => queue.as_str(),
            None => {
                let flavor = self.object("ResourceFlavor", &json!({}));
                self.cluster("resourceflavors").create(&flavor)?;
                let namespace =
                    json!({"matchLabels": {"kubernetes.io/metadata.name": self.namespace}});
                let spec = json!({"namespaceSelector": namespace, "resourceGroups": self.quota(room, room.fits())});
                let queue = self.object("ClusterQueue", &spec);
                let stored = self.cluster("clusterqueues").create(&queue)?;
                self.in_force(&self.cluster("clusterqueues"), &stored)?;
                self.name.as_str()
            }
        };
        let local = self.object("LocalQueue", &json!({"clusterQueue": queue}));
        let stored = self.local("localqueues").create(&local)?;
        self.in_force(&self.local("localqueues"), &stored)
    }

    /// Another quota. Until Kueue has seen it, it would admit by the old one.
    fn change(&self, room: &Room, pods: u64) -> Result<()> {
        let body = json!({"spec": {"resourceGroups": self.quota(room, pods)}});
        let queues = self.cluster("clusterqueues");
        let stored = queues.patch(&self.name, PatchKind::Merge, &body)?;
        self.in_force(&queues, &stored)
    }

    /// Waits until Kueue says that it works with a queue as it is stored now.
    fn in_force(&self, target: &Target, stored: &Object) -> Result<()> {
        let what = "that Kueue takes up a queue (its condition Active); is its controller running?";
        let generation = stored.generation();
        wait_for(&target.query(), stored.name(), ACTIVE, what, |queue| {
            let active = queue.condition("Active")?;
            let seen = queue
                .items("/status/conditions")
                .iter()
                .find(|one| one["type"] == "Active")
                .and_then(|one| one["observedGeneration"].as_i64());
            let current = seen.is_none() || seen >= generation;
            (active.status == "True" && current).then_some(())
        })
    }
}

/// What work on queues says when it fails: a platform whose webhook is down shows nothing about gangs.
fn done(result: Result<()>) -> Result<Option<Conclusion>> {
    match result {
        Ok(()) => Ok(None),
        Err(error) if error.ends_the_probe() => Err(error),
        Err(error) => Ok(Some(trouble(&error))),
    }
}

fn trouble(error: &Error) -> Conclusion {
    match error {
        Error::Answered(answer) if answer.message.contains("failed calling webhook") => {
            Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "Kueue is installed and its webhook does not answer, so no queue can be made: {}",
                    answer.message
                ),
            )
        }
        error => match error.conclusion() {
            Conclusion::Fail(text) => Conclusion::unknown(Reason::VersionSkew, text),
            other => other,
        },
    }
}

impl Adapter for Kueue {
    fn describe(&self) -> String {
        format!("Kueue, {}", self.api_version())
    }

    fn prepare(&self, room: &Room) -> Result<Option<Conclusion>> {
        done(self.make(room))
    }

    fn set_quota(&self, room: &Room, pods: u64) -> Result<Option<Conclusion>> {
        if self.foreign.is_some() {
            return Ok(None);
        }
        done(self.change(room, pods))
    }

    fn create(&self, _: &Group) -> Result<Option<u64>> {
        Ok(None)
    }

    fn start(&self, group: &Group) -> Result<bool> {
        let mut job = from_text(JOB);
        job["metadata"]["name"] = json!(group.name);
        job["metadata"]["labels"][QUEUE] = json!(self.name);
        for field in ["parallelism", "completions"] {
            job["spec"][field] = json!(group.count);
        }
        job["spec"]["template"] =
            json!({"metadata": {"labels": {GROUP: group.name}}, "spec": group.pod["spec"]});
        let stored = self.jobs().create(&job)?;
        Ok(stored.label(QUEUE) == Some(self.name.as_str()))
    }

    fn decisions(&self) -> Query {
        self.local("workloads").query()
    }

    fn decision(&self, object: &Object, group: &str) -> Option<Decision> {
        let owners = object.items("/metadata/ownerReferences");
        if !owners
            .iter()
            .any(|owner| owner["kind"] == "Job" && owner["name"] == group)
        {
            return None;
        }
        let reserved = object.condition("QuotaReserved")?;
        let said = format!("{}: {}", reserved.reason, reserved.message);
        Some(match reserved.status {
            "True" => Decision::Admitted,
            // A queue that is missing or stopped holds back everything; only too little quota is a rejection.
            _ if matches!(
                reserved.reason,
                "WaitingForQuota" | "ExceedsMaxQuota" | "TopologyPlacementFailed"
            ) || reserved.message.contains("insufficient") =>
            {
                Decision::Rejected(said)
            }
            _ => Decision::Trouble(said),
        })
    }

    fn remove(&self, group: &str) -> Result<()> {
        match self.jobs().delete(group) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn by_quota(&self) -> bool {
        true
    }

    fn owns_quota(&self) -> bool {
        self.foreign.is_none()
    }

    fn takes_claims(&self) -> bool {
        false
    }

    fn finish(&self) -> Result<()> {
        // Users first: a ClusterQueue stays while a workload is in it, a flavor while a queue names it.
        self.local("localqueues").discard(&self.name, None)?;
        if self.foreign.is_none() {
            self.cluster("clusterqueues").discard(&self.name, None)?;
            self.cluster("resourceflavors").discard(&self.name, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(reason: &str, status: &str, message: &str) -> Object {
        Object::new(json!({
            "metadata": {"ownerReferences": [{"kind": "Job", "name": "lacking-x"}]},
            "status": {"conditions": [{"type": "QuotaReserved", "status": status, "reason": reason, "message": message}]},
        }))
    }

    #[test]
    fn only_too_little_quota_is_a_rejection() {
        let kueue = Kueue {
            version: "v1beta2",
            namespace: "n".into(),
            name: "gang-x".into(),
            foreign: None,
        };
        let decision = |object: &Object| kueue.decision(object, "lacking-x");
        let message = "couldn't assign flavors to pod set main: insufficient quota for vendor.example/gpu in flavor gang-x, request > maximum capacity (4 > 3)";
        assert!(matches!(
            decision(&workload("Pending", "False", message)),
            Some(Decision::Rejected(_))
        ));
        assert!(matches!(
            decision(&workload("WaitingForQuota", "False", "")),
            Some(Decision::Rejected(_))
        ));
        assert!(matches!(
            decision(&workload(
                "Inadmissible",
                "False",
                "LocalQueue gang-x is inactive"
            )),
            Some(Decision::Trouble(_))
        ));
        assert_eq!(
            decision(&workload("QuotaReserved", "True", "")),
            Some(Decision::Admitted)
        );
        assert_eq!(
            kueue.decision(&workload("Pending", "False", message), "other"),
            None
        );
    }
}
