//! The pods: all on the node of the lease, all as root, so that what is refused is refused by the kernel's device cgroup and not by
//! the mode of a file.

use crate::inventory::{Ask, Place};
use crate::manifest::{images, settings};
use crate::profile::VARIABLES;
use crate::sight::{Device, looking, trying};
use karat_sdk::build::{ClaimSpec, DraVersion, PodBuilder, claim_template};
use karat_sdk::kube::{Object, wait_for};
use karat_sdk::pods::{Logs, Script};
use karat_sdk::{Case, Conclusion, Reason, Result, Target, Value, inventory, json, run};
use std::time::Duration;

/// The program of the tool image.
const PROGRAM: &str = "/bin/tool";
/// The container that comes first in every pod.
pub(crate) const FIRST: &str = "tool";
/// The one beside it.
pub(crate) const SECOND: &str = "second";
/// The template of claims.
const TEMPLATE: &str = "device";
/// How long a container may take to tell everything once its pod has started.
const LOG_WAIT: Duration = Duration::from_secs(60);

/// Makes pods and reads what they say.
pub(crate) struct Pods<'a> {
    pub(crate) place: &'a Place,
    pub(crate) namespace: String,
}

/// What a started pod is, or why it did not start.
pub(crate) type Started = std::result::Result<Object, Conclusion>;

impl Pods<'_> {
    fn target(&self) -> Target {
        Target::new("v1", "pods").in_namespace(&self.namespace)
    }

    fn claims(&self, version: DraVersion, resource: &str) -> Target {
        Target::new(&version.api_version(), resource).in_namespace(&self.namespace)
    }

    /// What the first container needs before it can ask: a template of claims for one device of the driver, whichever of the node is
    /// free.
    pub(crate) fn prepare(&self) -> Result<()> {
        let Ask::Claim {
            version,
            driver,
            class,
        } = &self.place.first
        else {
            return Ok(());
        };
        let spec = ClaimSpec::new(class).cel(&format!("device.driver == \"{driver}\""));
        self.claims(*version, "resourceclaimtemplates")
            .create(&claim_template(*version, &run::name(TEMPLATE), &spec))
            .map(drop)
    }

    fn pod(&self, name: &str, words: &[String]) -> Result<PodBuilder> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let pod = PodBuilder::tool(name, &run::image(images::TOOL)?).command(&words);
        let taints = self.place.tolerate.iter().map(String::as_str);
        Ok(pod.as_root().tolerate(taints))
    }

    /// A pod with a device, which looks, tries `foreign`, and goes on so that it keeps its device. A container that asks for none
    /// is beside it.
    pub(crate) fn tenant(
        &self,
        prefix: &str,
        ask: &Ask,
        foreign: Option<&Device>,
    ) -> Result<Object> {
        let mut words: Vec<String> = [PROGRAM, "beside", "karat-tenant", "8099", "8080"]
            .map(str::to_owned)
            .into();
        words.extend(looking(&self.place.profile));
        words.extend(foreign.map(trying).unwrap_or_default());
        let pod = self.pod(&run::name(prefix), &words)?;
        let pod = match ask {
            Ask::Claim { .. } => pod.claim_template(&run::name(TEMPLATE)),
            Ask::Units { resource, count } => pod.extended_resource(resource, *count),
        };
        let mut pod = pod.pin(&self.place.node).build();
        let mut second = pod["spec"]["containers"][0].clone();
        second["name"] = json!(SECOND);
        second["command"] = look(looking(&self.place.profile));
        if let Some(resources) = second["resources"].as_object_mut() {
            resources.remove("claims");
            resources.remove("limits");
        }
        if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
            containers.push(second);
        }
        self.target().create(&pod)
    }

    /// A pod that asks for no device, past the scheduler, which looks and tries a device that is not its own.
    pub(crate) fn stranger(&self, prefix: &str, foreign: &Device) -> Result<Object> {
        let mut words = looking(&self.place.profile);
        words.extend(trying(foreign));
        let pod = self
            .pod(&run::name(prefix), &[])?
            .bound_to(&self.place.node);
        let mut pod = pod.build();
        pod["spec"]["containers"][0]["command"] = look(words);
        self.target().create(&pod)
    }

    /// A pod that asks for no device and says by its environment that it wants all devices, and in a second container that it wants none,
    /// which some runtimes take for all.
    pub(crate) fn by_environment(&self, prefix: &str, class: Option<&str>) -> Result<Object> {
        let pod = self
            .pod(&run::name(prefix), &[])?
            .bound_to(&self.place.node);
        let mut pod = match class {
            Some(class) => pod.runtime_class(class),
            None => pod,
        }
        .build();
        pod["spec"]["containers"][0]["command"] = look(looking(&self.place.profile));
        let with = |mut container: Value, value: &str| {
            let mut variables = VARIABLES
                .map(|name| json!({"name": name, "value": value}))
                .to_vec();
            // What of a driver is wanted has no such word.
            variables.push(json!({"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "all"}));
            container["env"] = json!(variables);
            container
        };
        let first = pod["spec"]["containers"][0].clone();
        let mut second = with(first.clone(), "void");
        second["name"] = json!(SECOND);
        pod["spec"]["containers"] = json!([with(first, "all"), second]);
        self.target().create(&pod)
    }

    /// Deletes a pod and waits until it is gone.
    pub(crate) fn remove(&self, pod: &Object) -> Result<()> {
        let mut watch = self
            .target()
            .query()
            .fields(format!("metadata.name={}", pod.name()))
            .watch()?;
        self.target().delete(pod.name())?;
        watch.until_gone(pod.name(), patience()?)?;
        watch.close();
        Ok(())
    }

    /// The devices that were given to a pod: by the scheduler, as driver, pool and name, or by the kubelet, as resource and name, as far
    /// as it tells them.
    pub(crate) fn allocated(&self, pod: &Object, ask: &Ask) -> Result<Vec<String>> {
        let version = match ask {
            Ask::Claim { version, .. } => *version,
            Ask::Units { resource, .. } => {
                let now = self.target().query().get(pod.name())?;
                return Ok(units(&now, resource));
            }
        };
        let claims = self
            .claims(version, "resourceclaims")
            .query()
            .keep(&[
                "/metadata/ownerReferences",
                "/status/allocation/devices/results",
            ])
            .list()?;
        let own = claims.iter().filter(|claim| claim.is_owned_by(pod.uid()));
        let devices = own.flat_map(inventory::devices::allocated);
        Ok(devices.map(|device| device.to_string()).collect())
    }

    /// What a container told, all of it.
    pub(crate) fn told(&self, pod: &Object, container: &str) -> Result<Script> {
        let logs = Logs::of(pod).container(container).follow();
        logs.open()?.script(LOG_WAIT)
    }

    /// Whether the pod that holds a device still runs.
    pub(crate) fn holds_on(&self, case: &Case, pod: &Object) -> Result<bool> {
        let now = self.target().query().get(pod.name())?;
        case.observe("pod with a device", now.uid());
        Ok(now.uid() == pod.uid() && now.text("/status/phase") == "Running")
    }

    /// Waits until the containers of a pod run or have run. One that does not come that far says why, in the words of its node.
    pub(crate) fn started(&self, pod: &Object) -> Result<Started> {
        let patience = patience()?;
        let query = self.target().query();
        let found = wait_for(
            &query,
            pod.name(),
            patience,
            "the start of the pod",
            |pod| {
                let phase = pod.text("/status/phase");
                let waits = pod.items("/status/containerStatuses").iter();
                let waits = waits
                    .filter(|one| one["state"]["waiting"].is_object())
                    .count();
                let begun = phase == "Running" && waits == 0;
                (begun || inventory::has_ended(pod)).then(|| pod.clone())
            },
        );
        match found {
            Ok(pod) => Ok(match refused(&pod) {
                Some(conclusion) => Err(conclusion),
                None => Ok(pod),
            }),
            Err(error) if error.is_deadline() => {
                let now = query.get(pod.name())?;
                Ok(Err(self.stuck(&now, patience)?))
            }
            Err(error) => Err(error),
        }
    }

    fn stuck(&self, pod: &Object, patience: Duration) -> Result<Conclusion> {
        let scheduled = pod.condition("PodScheduled");
        if let Some(scheduled) = scheduled.filter(|scheduled| scheduled.status == "False") {
            return Ok(Conclusion::unknown(
                Reason::InsufficientCapacity,
                format!("{pod} found no node: {}", scheduled.message),
            ));
        }
        let said = inventory::complaint(pod)?;
        let waiting = inventory::waiting(pod);
        Ok(Conclusion::unknown(
            inventory::reason_of(waiting),
            format!(
                "{pod} is {} {waiting} after {} s; {said}",
                pod.text("/status/phase"),
                patience.as_secs()
            ),
        ))
    }

    /// A pod that mounts the devices of the node; nothing is stored.
    pub(crate) fn try_host_path(&self) -> Result<Object> {
        let mut pod = self.pod(&run::name("mounts"), &[])?.build();
        pod["spec"]["containers"][0]["command"] = look(vec!["mounts".to_owned()]);
        pod["spec"]["volumes"] = json!([{"name": "dev", "hostPath": {"path": "/dev"}}]);
        self.target().dry_run().create(&pod)
    }
}

/// What a pod that its node did not take, or ended, is worth: the node's words.
fn refused(pod: &Object) -> Option<Conclusion> {
    let reason = pod.text("/status/reason");
    let so = pod.text("/status/phase") == "Failed" && !reason.is_empty();
    so.then(|| {
        let message = pod.text("/status/message");
        Conclusion::unknown(
            Reason::InsufficientCapacity,
            format!("{pod} was ended by its node: {reason}, {message}"),
        )
    })
}

/// Names of the units of a resource that the containers of a pod have, where the kubelet tells them.
fn units(pod: &Object, resource: &str) -> Vec<String> {
    let statuses = pod.items("/status/containerStatuses").iter();
    let kinds = statuses.filter_map(|status| status["allocatedResourcesStatus"].as_array());
    let ours = kinds.flatten().filter(|kind| kind["name"] == resource);
    let units = ours
        .filter_map(|kind| kind["resources"].as_array())
        .flatten();
    let names = units.filter_map(|unit| unit["resourceID"].as_str());
    names.map(|name| format!("{resource}/{name}")).collect()
}

fn patience() -> Result<Duration> {
    settings::POD_WAIT.get_or(Duration::from_secs(120))
}

/// The command that looks at these things.
fn look(words: Vec<String>) -> Value {
    let mut all = vec![PROGRAM.to_owned(), "look".to_owned()];
    all.extend(words);
    json!(all)
}
