//! The sets that are created, all of them small, and how they are created.

use crate::manifest::{images, settings};
use karat_sdk::build::PodBuilder;
use karat_sdk::leases::LeasedNode;
use karat_sdk::{Object, Result, Target, Value, admission, json, run};
use std::time::Duration;

pub(crate) const GROUP: &str = "jobset.x-k8s.io";
pub(crate) const VERSION: &str = "v1alpha2";
/// The program of the tool image.
const PROGRAM: &str = "/bin/tool";
/// Where a worker answers.
pub(crate) const PORT: u16 = 8080;
/// Names of the replicated jobs.
pub(crate) const DRIVER: &str = "driver";
pub(crate) const WORKERS: &str = "workers";
/// Labels of JobSet on Jobs and pods.
pub(crate) const OF_SET: &str = "jobset.sigs.k8s.io/jobset-name";
pub(crate) const OF_JOB: &str = "jobset.sigs.k8s.io/replicatedjob-name";
pub(crate) const INDEX: &str = "jobset.sigs.k8s.io/job-index";
pub(crate) const REPLICAS: &str = "jobset.sigs.k8s.io/replicatedjob-replicas";
pub(crate) const ATTEMPT: &str = "jobset.sigs.k8s.io/restart-attempt";
/// How long a webhook that cannot be called is asked again.
const ANSWER: Duration = Duration::from_secs(20);

/// Where sets are made, and how long they are waited for.
pub(crate) struct Sets {
    pub(crate) namespace: String,
    nodes: Vec<LeasedNode>,
    image: String,
    /// For pods to run.
    pub(crate) pods: Duration,
    /// For everything else.
    pub(crate) step: Duration,
}

impl Sets {
    pub(crate) fn new(namespace: String, nodes: &[LeasedNode]) -> Result<Self> {
        Ok(Sets {
            namespace,
            nodes: nodes.to_vec(),
            image: run::image(images::TOOL)?,
            pods: settings::POD_WAIT.get_or(Duration::from_secs(120))?,
            step: settings::STEP_WAIT.get_or(Duration::from_secs(60))?,
        })
    }

    pub(crate) fn target(&self) -> Target {
        Target::new(&[GROUP, VERSION].join("/"), "jobsets").in_namespace(&self.namespace)
    }

    /// A replicated job of this name whose Jobs run one pod with this command.
    pub(crate) fn job(&self, name: &str, replicas: u32, words: &[&str]) -> Value {
        let mut command = vec![PROGRAM];
        command.extend(words);
        let mut pod = PodBuilder::tool(name, &self.image)
            .command(&command)
            .on_leased(&self.nodes)
            .build();
        json!({
            "name": name, "replicas": replicas,
            "template": {"spec": {
                "parallelism": 1, "completions": 1, "backoffLimit": 0,
                "template": {"spec": pod["spec"].take()},
            }},
        })
    }

    /// As [`Sets::job`], with a pod that fails in the first attempt and succeeds in every other.
    ///
    /// The attempt is in a label of the pod, and a command without a shell can do nothing with it but look for a variable
    /// of that name: there is one for the second attempt and none for the first.
    pub(crate) fn fails_once(&self, name: &str) -> Value {
        let mut job = self.job(name, 1, &["env", "KARAT_$(ATTEMPT)"]);
        let mut field = json!({"name": "ATTEMPT"});
        field["valueFrom"]["fieldRef"]["fieldPath"] =
            json!(["metadata.labels['", ATTEMPT, "']"].concat());
        job["template"]["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([field, {"name": "KARAT_1", "value": "yes"}]);
        job
    }

    /// Creates a set of these replicated jobs, with more fields beside them.
    pub(crate) fn create(&self, name: &str, jobs: Value, more: Value) -> Result<Object> {
        let mut spec = more;
        spec["replicatedJobs"] = jobs;
        let api_version = [GROUP, VERSION].join("/");
        let set = json!({
            "apiVersion": api_version, "kind": "JobSet",
            "metadata": {"name": name}, "spec": spec,
        });
        admission::create_patiently(&self.target(), &set, ANSWER, |_| true)
    }
}
