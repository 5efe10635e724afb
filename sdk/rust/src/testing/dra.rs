//! Dynamic resource allocation for the fake cluster: the API with its validation, nodes, slices, and a scheduler that can be
//! told to misbehave.
//!
//! The scheduler understands the CEL that the probes of this project write: conjunctions of comparisons. It is a test double;
//! what a real scheduler does is tested against a real one.

use super::FakeCluster;
use crate::build::DraVersion;
use crate::{Value, json};
use std::collections::BTreeMap;

/// Serves `resource.k8s.io` in these versions, newest first, with the validation of a real API server as far as probes test it.
pub fn install(cluster: &mut FakeCluster, versions: &[&str]) {
    let group = DraVersion::GROUP;
    cluster.serve(group, versions, "deviceclasses", "DeviceClass", false, &[]);
    cluster.serve(
        group,
        versions,
        "resourceslices",
        "ResourceSlice",
        false,
        &[],
    );
    cluster.serve(
        group,
        versions,
        "resourceclaims",
        "ResourceClaim",
        true,
        &["status"],
    );
    cluster.serve(
        group,
        versions,
        "resourceclaimtemplates",
        "ResourceClaimTemplate",
        true,
        &[],
    );
    cluster.validate("resourceclaims", |object| requests(&object["spec"]));
    cluster.validate("resourceclaimtemplates", |object| {
        requests(&object["spec"]["spec"])
    });
    cluster.validate("deviceclasses", |object| selectors(&object["spec"]));
    cluster.validate("resourceslices", |object| {
        list(&object["spec"]["devices"])
            .iter()
            .filter(|device| {
                let name = device["name"].as_str().unwrap_or_default();
                name.is_empty()
                    || !name
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
            .map(|device| format!("spec.devices[0].name: Invalid value: {}: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'", device["name"]))
            .collect()
    });
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn requests(spec: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for request in list(&spec["devices"]["requests"]) {
        let one = request["exactly"].is_object() || request["deviceClassName"].is_string();
        let many = request["firstAvailable"].is_array();
        if one == many {
            problems.push("spec.devices.requests[0]: Invalid value: exactly one of `exactly` or `firstAvailable` is required".to_owned());
        }
        let body = if request["exactly"].is_object() {
            &request["exactly"]
        } else {
            request
        };
        if body["allocationMode"] == "All" && body["count"].is_number() {
            problems.push("spec.devices.requests[0].exactly.count: Invalid value: must not be specified when allocationMode is 'All'".to_owned());
        }
        problems.extend(selectors(body));
    }
    problems
}

/// CEL is not compiled here; an expression with unbalanced parentheses stands for all that do not compile.
fn selectors(body: &Value) -> Vec<String> {
    list(&body["selectors"])
        .iter()
        .filter_map(|selector| selector["cel"]["expression"].as_str())
        .filter(|text| text.matches('(').count() != text.matches(')').count())
        .map(|text| format!("spec.selectors[0].cel.expression: Invalid value: \"{text}\": compilation failed: ERROR: <input>:1:1: Syntax error"))
        .collect()
}

/// Adds a Ready node with a taint of this key.
pub fn node(cluster: &mut FakeCluster, name: &str, taint: &str) {
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": taint, "value": "present", "effect": "NoSchedule"}]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "nodeInfo": {"kubeletVersion": "v1.37.0"},
        },
    }));
}

/// Adds the DeviceClass of a driver, under the driver's name.
pub fn class(cluster: &mut FakeCluster, version: DraVersion, driver: &str) {
    cluster.put(json!({
        "apiVersion": version.api_version(), "kind": "DeviceClass",
        "metadata": {"name": driver},
        "spec": {"selectors": [{"cel": {"expression": format!("device.driver == '{driver}'")}}]},
    }));
}

/// A slice to publish: the pool has the node's name.
#[derive(Clone, Debug)]
pub struct Slice<'a> {
    /// Driver name.
    pub driver: &'a str,
    /// Node and pool.
    pub node: &'a str,
    /// Generation of the pool.
    pub generation: u32,
    /// Slices of the whole pool.
    pub of: u32,
    /// Names of the devices; each gets the attributes `index` and `model`.
    pub devices: &'a [&'a str],
}

/// Publishes a slice.
pub fn slice(cluster: &mut FakeCluster, version: DraVersion, slice: &Slice<'_>) {
    let devices: Vec<Value> = (0..)
        .zip(slice.devices)
        .map(|(index, name)| {
            version.device(
                name,
                &json!({"index": {"int": index}, "model": {"string": "A100"}, "host": {"string": slice.node}}),
                &json!({"memory": {"value": "80Gi"}}),
            )
        })
        .collect();
    cluster.put(json!({
        "apiVersion": version.api_version(), "kind": "ResourceSlice",
        "metadata": {"name": format!("{}-{}-g{}", slice.node, slice.driver, slice.generation)},
        "spec": {
            "driver": slice.driver, "nodeName": slice.node,
            "pool": {"name": slice.node, "generation": slice.generation, "resourceSliceCount": slice.of},
            "devices": devices,
        },
    }));
}

/// Scheduler, claim controller and kubelet in one. Default: as they should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scheduler {
    /// Allocates whatever device there is, also one that the selectors exclude.
    pub ignores_selectors: bool,
    /// Allocates from slices of older pool generations first.
    pub trusts_stale_slices: bool,
    /// Keeps claims of pods that are gone.
    pub never_releases: bool,
    /// Allocates but does not reserve the claim for the pod.
    pub never_reserves: bool,
    /// Does nothing at all.
    pub is_down: bool,
}

#[derive(Clone, Debug)]
struct Device {
    driver: String,
    pool: String,
    name: String,
    node: String,
    generation: u64,
    attributes: Value,
}

impl Scheduler {
    /// Starts it.
    pub fn start(self, cluster: &mut FakeCluster) {
        if !self.is_down {
            cluster.controller(move |cluster| self.work(cluster));
        }
    }

    fn work(self, cluster: &mut FakeCluster) {
        if !self.never_releases {
            release(cluster);
        }
        for pod in cluster.objects("pods") {
            let waiting =
                pod["spec"]["nodeName"].is_null() && pod["metadata"]["deletionTimestamp"].is_null();
            let template = pod["spec"]["resourceClaims"][0]["resourceClaimTemplateName"].as_str();
            if let Some(template) = template.filter(|_| waiting) {
                self.schedule(cluster, &pod, template);
            }
        }
    }

    fn schedule(self, cluster: &mut FakeCluster, pod: &Value, template: &str) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let (namespace, pod_name, uid) = (text("namespace"), text("name"), text("uid"));
        let name = format!("{pod_name}-device-x7f2q");
        if cluster.object("resourceclaims", namespace, &name).is_null() {
            let template = cluster
                .object("resourceclaimtemplates", namespace, template)
                .clone();
            cluster.put(json!({
                "apiVersion": template["apiVersion"], "kind": "ResourceClaim",
                "metadata": {"name": name, "namespace": namespace,
                    "annotations": {"resource.kubernetes.io/pod-claim-name": "device"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod_name, "uid": uid, "controller": true}]},
                "spec": template["spec"]["spec"],
            }));
        }
        let claim = cluster.object("resourceclaims", namespace, &name).clone();
        match self.pick(cluster, &claim) {
            Some(device) => {
                let reserved = if self.never_reserves {
                    json!([])
                } else {
                    json!([{"resource": "pods", "name": pod_name, "uid": uid}])
                };
                cluster.change("resourceclaims", namespace, &name, |claim| {
                    claim["metadata"]["finalizers"] =
                        json!(["resource.kubernetes.io/delete-protection"]);
                    claim["status"] = json!({
                        "allocation": {"devices": {"results": [{"request": "device", "driver": device.driver, "pool": device.pool, "device": device.name}]}},
                        "reservedFor": reserved,
                    });
                });
                cluster.change("pods", namespace, pod_name, |pod| {
                    pod["spec"]["nodeName"] = json!(device.node);
                    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}],
                        "resourceClaimStatuses": [{"name": "device", "resourceClaimName": name}]});
                });
            }
            None => cluster.change("pods", namespace, pod_name, |pod| {
                pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/1 nodes are available: 1 cannot allocate all claims."}]});
            }),
        }
    }

    fn pick(self, cluster: &FakeCluster, claim: &Value) -> Option<Device> {
        let request = &claim["spec"]["devices"]["requests"][0];
        let request = if request["exactly"].is_object() {
            &request["exactly"]
        } else {
            request
        };
        let class = cluster.object(
            "deviceclasses",
            "",
            request["deviceClassName"].as_str().unwrap_or_default(),
        );
        let expressions: Vec<&str> = list(&class["spec"]["selectors"])
            .iter()
            .chain(list(&request["selectors"]))
            .filter_map(|selector| selector["cel"]["expression"].as_str())
            .collect();
        let mut devices = devices(cluster, self.trusts_stale_slices);
        if self.trusts_stale_slices {
            devices.sort_by_key(|device| device.generation);
        }
        let taken: Vec<(String, String, String)> = cluster
            .objects("resourceclaims")
            .iter()
            .flat_map(|claim| list(&claim["status"]["allocation"]["devices"]["results"]).to_vec())
            .map(|result| {
                let text = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
                (text("driver"), text("pool"), text("device"))
            })
            .collect();
        devices.into_iter().find(|device| {
            let key = (
                device.driver.clone(),
                device.pool.clone(),
                device.name.clone(),
            );
            !class.is_null()
                && !taken.contains(&key)
                && (self.ignores_selectors || expressions.iter().all(|text| holds(text, device)))
        })
    }
}

/// The devices of complete pools in their newest generation; of all slices when `stale`.
fn devices(cluster: &FakeCluster, stale: bool) -> Vec<Device> {
    let mut pools: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for slice in cluster.objects("resourceslices") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (
            text(&slice["spec"]["driver"]),
            text(&slice["spec"]["pool"]["name"]),
        );
        pools.entry(key).or_default().push(slice);
    }
    let mut devices = Vec::new();
    for ((driver, pool), slices) in pools {
        let generation = |slice: &Value| slice["spec"]["pool"]["generation"].as_u64().unwrap_or(0);
        let newest = slices.iter().map(generation).max().unwrap_or(0);
        let current: Vec<&Value> = slices
            .iter()
            .filter(|slice| stale || generation(slice) == newest)
            .collect();
        let complete = current.iter().all(|slice| {
            slice["spec"]["pool"]["resourceSliceCount"].as_u64() == Some(current.len() as u64)
        });
        if !complete && !stale {
            continue;
        }
        for slice in current {
            for device in list(&slice["spec"]["devices"]) {
                let attributes = if device["basic"].is_object() {
                    &device["basic"]["attributes"]
                } else {
                    &device["attributes"]
                };
                devices.push(Device {
                    driver: driver.clone(),
                    pool: pool.clone(),
                    name: device["name"].as_str().unwrap_or_default().to_owned(),
                    node: slice["spec"]["nodeName"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    generation: generation(slice),
                    attributes: attributes.clone(),
                });
            }
        }
    }
    devices
}

/// Evaluates a conjunction of comparisons.
fn holds(expression: &str, device: &Device) -> bool {
    expression.split("&&").map(str::trim).all(|term| {
        if let Some((left, right)) = term.split_once("==") {
            let (left, right) = (left.trim(), right.trim().trim_matches(['"', '\'']));
            if left == "device.driver" {
                return device.driver == right;
            }
            attribute(left, device).is_some_and(|value| value == right)
        } else if let Some((name, map)) = term.split_once(" in ") {
            let path = format!("{}.{}", map.trim(), name.trim().trim_matches(['"', '\'']));
            attribute(&path, device).is_some()
        } else {
            false
        }
    })
}

/// The value of `device.attributes["domain"].name` as text.
fn attribute(path: &str, device: &Device) -> Option<String> {
    let rest = path.strip_prefix("device.attributes[")?;
    let (domain, name) = rest.split_once("].")?;
    let domain = domain.trim_matches(['"', '\'']);
    let found = device.attributes.get(format!("{domain}/{name}"));
    let found =
        found.or_else(|| (domain == device.driver).then(|| device.attributes.get(name))?)?;
    let value = found.as_object()?.values().next()?;
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// Claims of pods that have ended or are gone lose their allocation; those of pods that are gone go as well.
fn release(cluster: &mut FakeCluster) {
    let pods: Vec<Value> = cluster
        .objects("pods")
        .iter()
        .filter(|pod| pod["status"]["phase"] != "Succeeded" && pod["status"]["phase"] != "Failed")
        .map(|pod| pod["metadata"]["uid"].clone())
        .collect();
    for claim in cluster.objects("resourceclaims") {
        let owners = list(&claim["metadata"]["ownerReferences"]);
        if !owners.is_empty() && owners.iter().all(|owner| !pods.contains(&owner["uid"])) {
            let text = |field: &str| claim["metadata"][field].as_str().unwrap_or_default();
            cluster.change("resourceclaims", text("namespace"), text("name"), |claim| {
                claim["metadata"]["finalizers"] = json!([]);
                claim["status"] = json!({});
            });
        }
    }
}
