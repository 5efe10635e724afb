//! The pod that is resized, and what it says of itself: through the API, and from inside.

use crate::manifest::{images, settings};
use karat_sdk::build::PodBuilder;
use karat_sdk::discovery::Discovery;
use karat_sdk::inventory::{milli, reason_of};
use karat_sdk::kube::{Object, PatchKind, wait_for};
use karat_sdk::leases::Lease;
use karat_sdk::{Case, Conclusion, Error, Reason, Result, Target, Value, json, pods, run};
use std::time::Duration;

/// The container that must go on while it is resized.
pub(crate) const STEADY: &str = "steady";
/// The container that asks for a restart when its memory changes.
pub(crate) const AGAIN: &str = "again";
/// The limit of CPU that `steady` starts with, in thousandths.
const AT_FIRST: u64 = 200;
/// The program of the tool image.
const PROGRAM: &str = "/bin/tool";
/// How long a look into a container may take.
const LOOK: Duration = Duration::from_secs(20);
/// Where a container finds quota and period of its CPU: cgroup v2, then v1.
const QUOTA: [&[&str]; 2] = [
    &["/sys/fs/cgroup/cpu.max"],
    &[
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
    ],
];

/// The pod.
pub(crate) struct Subject {
    namespace: String,
    pod: Object,
}

/// What the API says of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// The runtime's id: another one is another container.
    pub(crate) id: String,
    pub(crate) restarts: u64,
    /// What the node gives, as it says: thousandths of CPU, thousandths of a byte.
    pub(crate) cpu: Option<u64>,
    pub(crate) memory: Option<u64>,
}

/// Starts the pod and compares its limit of CPU with that of its cgroup.
pub(crate) fn start(
    case: &Case,
    namespace: &str,
    lease: &Lease,
    subject: &mut Option<Subject>,
) -> Result<Conclusion> {
    let discovery = Discovery::read()?;
    let pods = discovery.resource("", "v1", "pods");
    if !pods.is_some_and(|pods| pods.has_subresource("resize")) {
        let stable = discovery.version().at_least(1, 35).unwrap_or(true);
        return Ok(if stable {
            Conclusion::fail("pods/resize is not served, and it is stable since Kubernetes 1.35")
        } else {
            let why = "pods/resize is not served; before Kubernetes 1.35 the feature gate InPlacePodVerticalScaling decides";
            Conclusion::unknown(Reason::FeatureGateOff, why)
        });
    }
    let Some(node) = lease.nodes().first() else {
        return Ok(Conclusion::unknown(
            Reason::InsufficientCapacity,
            "the lease has no node",
        ));
    };
    let mut pod = PodBuilder::tool(&run::name("resized"), &run::image(images::TOOL)?)
        .command(&[PROGRAM, "sleep", "forever"])
        .on_leased(std::slice::from_ref(node))
        .build();
    // A pod that never restarts may not ask for a restart.
    pod["spec"]["restartPolicy"] = json!("Always");
    let mut again = pod["spec"]["containers"][0].clone();
    again["name"] = json!(AGAIN);
    again["resources"] = resources("50m", "100m", "32Mi", "64Mi");
    again["resizePolicy"] = json!([
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
    ]);
    let steady = &mut pod["spec"]["containers"][0];
    steady["name"] = json!(STEADY);
    steady["resources"] = resources("100m", "200m", "32Mi", "64Mi");
    steady["resizePolicy"] = json!([
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "NotRequired"},
    ]);
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.push(again);
    }
    let target = Target::new("v1", "pods").in_namespace(namespace);
    let made = target.create(&pod)?;
    case.observe("pod", made.uid());
    let patience = settings::POD_WAIT.get_or(Duration::from_secs(120))?;
    let running = |pod: &Object| {
        let both = [STEADY, AGAIN].map(|name| status(pod, name));
        let started = both
            .iter()
            .flatten()
            .all(|one| !one["state"]["running"].is_null());
        (started && both.iter().all(Option::is_some)).then(|| pod.clone())
    };
    let query = target.query();
    let pod = match wait_for(&query, made.name(), patience, "the pod to run", running) {
        Ok(pod) => pod,
        Err(error) if error.is_deadline() => {
            let now = query.get(made.name())?;
            let waiting = status(&now, STEADY).map_or("", |one| {
                one["state"]["waiting"]["reason"]
                    .as_str()
                    .unwrap_or_default()
            });
            let why = format!(
                "{now} does not run after {} s: {waiting}",
                patience.as_secs()
            );
            return Ok(Conclusion::unknown(reason_of(waiting), why));
        }
        Err(error) => return Err(error),
    };
    case.observe("node", pod.text("/spec/nodeName"));
    let own = Subject {
        namespace: namespace.to_owned(),
        pod,
    };
    let inside = own.quota(case)?;
    if inside != Some(AT_FIRST) {
        let inside = shown(inside);
        return Ok(Conclusion::unknown(
            Reason::FeatureGateOff,
            format!(
                "the limit is 200m and the cgroup says {inside}: this node does not enforce limits of CPU by quotas, so nothing could be compared"
            ),
        ));
    }
    *subject = Some(own);
    Ok(Conclusion::Pass)
}

fn resources(request: &str, limit: &str, memory: &str, most: &str) -> Value {
    json!({"requests": {"cpu": request, "memory": memory}, "limits": {"cpu": limit, "memory": most}})
}

/// `steady` with this CPU.
pub(crate) fn with_cpu(request: &str, limit: &str) -> Value {
    resources(request, limit, "32Mi", "64Mi")
}

/// `again` with this much memory.
pub(crate) fn with_memory(most: &str) -> Value {
    resources("50m", "100m", "32Mi", most)
}

/// Thousandths for people.
pub(crate) fn shown(amount: Option<u64>) -> String {
    amount.map_or_else(|| "nothing".to_owned(), |amount| format!("{amount}m"))
}

fn status<'a>(pod: &'a Object, name: &str) -> Option<&'a Value> {
    let statuses = pod.items("/status/containerStatuses");
    statuses.iter().find(|one| one["name"] == name)
}

/// One container as a pod says.
pub(crate) fn container(pod: &Object, name: &str) -> Option<Container> {
    let status = status(pod, name)?;
    let limits = &status["resources"]["limits"];
    let amount = |resource: &str| milli(limits[resource].as_str()?);
    Some(Container {
        id: status["containerID"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        restarts: status["restartCount"].as_u64().unwrap_or_default(),
        cpu: amount("cpu"),
        memory: amount("memory"),
    })
}

/// What a pod says of a resize that is not done: the reason and the message of the node.
pub(crate) fn pending(pod: &Object) -> Option<(&str, &str)> {
    let of = |kind| {
        pod.condition(kind)
            .filter(|condition| condition.status == "True")
    };
    let found = of("PodResizePending").or_else(|| of("PodResizeInProgress"))?;
    Some((found.reason, found.message))
}

/// Of a pod that is not there as it was.
pub(crate) fn vanished() -> Conclusion {
    Conclusion::unknown(
        Reason::CompetingWorkload,
        "the pod is not there any more, or not with its containers: somebody else ended it",
    )
}

impl Subject {
    /// What a step gave, unless the pod was gone: then nothing can be said.
    pub(crate) fn unless_gone(&self, step: Result<Conclusion>) -> Result<Conclusion> {
        match step {
            Err(error) if error.is_not_found() => {
                let now = self.target().query().get_opt(self.pod.name())?;
                let same = now.is_some_and(|now| now.uid() == self.pod.uid());
                if same { Err(error) } else { Ok(vanished()) }
            }
            other => other,
        }
    }

    fn target(&self) -> Target {
        Target::new("v1", "pods").in_namespace(&self.namespace)
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.uid()
    }

    /// The pod as it is.
    pub(crate) fn now(&self) -> Result<Object> {
        self.target().query().get(self.pod.name())
    }

    /// Asks for other resources of some containers.
    pub(crate) fn resize(&self, wanted: &[(&str, Value)]) -> Result<Object> {
        // A merge patch replaces a list, so all containers stand in it, as the server gives them now.
        let mut containers = self.now()?.items("/spec/containers").to_vec();
        for (name, resources) in wanted {
            let container = containers.iter_mut().find(|one| one["name"] == *name);
            let Some(container) = container else {
                return Err(Error::Unexpected(format!("a pod without container {name}")));
            };
            container["resources"] = resources.clone();
        }
        let patch = json!({"spec": {"containers": containers}});
        Target::new("v1", "pods/resize")
            .in_namespace(&self.namespace)
            .patch(self.pod.name(), PatchKind::Merge, &patch)
    }

    /// Waits until the pod is as wanted.
    pub(crate) fn until(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Object) -> bool,
    ) -> Result<std::result::Result<Object, Object>> {
        let patience = settings::RESIZE_WAIT.get_or(Duration::from_secs(60))?;
        let query = self.target().query();
        let found = |pod: &Object| wanted(pod).then(|| pod.clone());
        match wait_for(&query, self.pod.name(), patience, what, found) {
            Ok(pod) => Ok(Ok(pod)),
            Err(error) if error.is_deadline() => Ok(Err(self.now()?)),
            Err(error) => Err(error),
        }
    }

    /// A watch of this pod alone.
    pub(crate) fn watch(&self) -> Result<karat_sdk::kube::Watch> {
        let name = self.pod.name();
        let query = self.target().query();
        query.fields(format!("metadata.name={name}")).watch()
    }

    /// The CPU that the cgroup of `steady` allows, in thousandths; none without a quota.
    pub(crate) fn quota(&self, case: &Case) -> Result<Option<u64>> {
        for paths in QUOTA {
            let mut look = pods::exec(&self.pod, PROGRAM).container(STEADY).arg("cat");
            for path in paths {
                look = look.arg(path);
            }
            let said = look.run(LOOK)?;
            if said.code != 0 {
                continue;
            }
            let mut words = said.output.split_whitespace();
            let (quota, period) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            case.observe("quota of its cgroup", quota);
            let numbers = quota.parse::<u64>().ok().zip(period.parse::<u64>().ok());
            return Ok(numbers
                .filter(|(_, period)| *period > 0)
                .map(|(quota, period)| quota.saturating_mul(1000) / period));
        }
        Ok(None)
    }
}
