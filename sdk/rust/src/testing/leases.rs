//! Leases of the fake cluster: granted at once from its own nodes, by the engine's rules for nodes and units.

use super::FakeCluster;
use super::manifest::Lease;
use crate::error::Result;
use crate::inventory::PLAYED;
use crate::leases::{Denied, thousandths};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A node that leases may name.
struct Node {
    name: String,
    cpu: u64,
    memory: u64,
    pods: u64,
    units: BTreeMap<String, u64>,
    taints: Vec<String>,
    played: bool,
}

/// What `lease.granted` gives.
pub(super) fn grant(cluster: &FakeCluster, number: usize, lines: &[Lease]) -> Result<Value> {
    let inventory = inventory(cluster);
    let mut nodes: BTreeMap<String, Value> = BTreeMap::new();
    let mut locks = Vec::new();
    for line in lines {
        if let Some(lock) = &line.lock {
            locks.push(lock.clone());
        }
        if let Some(range) = &line.nodes {
            for (name, node) in pick(&inventory, line, range)? {
                nodes.insert(name, node);
            }
        }
    }
    locks.sort_unstable();
    let nodes: Vec<Value> = nodes.into_values().collect();
    Ok(json!({"number": number, "nodes": nodes, "locks": locks}))
}

fn pick(inventory: &[Node], line: &Lease, range: &str) -> Result<Vec<(String, Value)>> {
    let inventory: Vec<&Node> = inventory
        .iter()
        .filter(|node| !(line.containers && node.played))
        .collect();
    let (least, most) = range.split_once("..").unwrap_or((range, range));
    let least: usize = least.parse().unwrap_or(1);
    let most: usize = most.parse().unwrap_or(least);
    let count = line.units.as_ref().and_then(toml::Value::as_integer);
    let wanted = u64::try_from(count.unwrap_or_default()).unwrap_or_default();
    let all = line.units.as_ref().and_then(toml::Value::as_str) == Some("all");
    let plain = |node: &Node, units: BTreeMap<String, u64>| {
        let shown = json!({"name": node.name, "cpu": format!("{}m", node.cpu), "memory": node.memory.to_string(),
            "pods": node.pods, "units": units, "taints": node.taints});
        (node.name.clone(), shown)
    };
    let fitting: Vec<(String, Value)> = if all {
        inventory
            .iter()
            .filter(|node| node.units.values().any(|free| *free > 0))
            .map(|node| plain(node, node.units.clone()))
            .collect()
    } else if wanted == 0 {
        inventory
            .iter()
            .map(|node| plain(node, BTreeMap::new()))
            .collect()
    } else {
        let kinds: BTreeSet<&String> = inventory
            .iter()
            .flat_map(|node| node.units.keys())
            .collect();
        let of_kind = |kind: &String| -> Vec<(String, Value)> {
            inventory
                .iter()
                .filter(|node| node.units.get(kind).is_some_and(|free| *free >= wanted))
                .map(|node| plain(node, BTreeMap::from([(kind.clone(), wanted)])))
                .collect()
        };
        let mut best = Vec::new();
        for kind in kinds {
            let found = of_kind(kind);
            if found.len() > best.len() {
                best = found;
            }
        }
        best
    };
    if fitting.len() < least {
        let text = format!(
            "unavailable: lease `{}` needs {least} nodes, the fake cluster has {} that fit",
            line.name,
            fitting.len()
        );
        return Err(Denied(text).into());
    }
    Ok(fitting.into_iter().take(most).collect())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn inventory(cluster: &FakeCluster) -> Vec<Node> {
    let pods: Vec<Value> = cluster
        .objects("pods")
        .into_iter()
        .filter(|pod| {
            !matches!(
                pod["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            )
        })
        .collect();
    let devices = devices(cluster);
    let nodes = cluster.objects("nodes");
    let mut found = Vec::new();
    for node in &nodes {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let ready = list(&node["status"]["conditions"])
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let taints: Vec<String> = list(&node["spec"]["taints"])
            .iter()
            .filter(|taint| taint["effect"] != "PreferNoSchedule")
            .filter_map(|taint| taint["key"].as_str().map(str::to_owned))
            .collect();
        let refused = taints.iter().any(|key| {
            key.starts_with("node.kubernetes.io/") || key.starts_with("node-role.kubernetes.io/")
        });
        if !ready || node["spec"]["unschedulable"] == true || refused {
            continue;
        }
        let here: Vec<&Value> = pods
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] == name)
            .collect();
        let requested = |resource: &str| -> u64 {
            let containers = here.iter().flat_map(|pod| list(&pod["spec"]["containers"]));
            containers
                .filter_map(|container| {
                    let resources = &container["resources"];
                    let asked = resources["requests"][resource].as_str();
                    thousandths(asked.or(resources["limits"][resource].as_str())?)
                })
                .sum()
        };
        let allocatable = &node["status"]["allocatable"];
        let left = |resource: &str| -> u64 {
            let all = allocatable[resource].as_str().and_then(thousandths);
            all.unwrap_or_default().saturating_sub(requested(resource))
        };
        let mut units: BTreeMap<String, u64> = devices.get(name).cloned().unwrap_or_default();
        for resource in allocatable
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
        {
            let domain = resource.split_once('/').map_or("", |(domain, _)| domain);
            if !domain.is_empty()
                && domain != "kubernetes.io"
                && !domain.ends_with(".kubernetes.io")
            {
                units.insert(resource.clone(), left(resource) / 1000);
            }
        }
        units.retain(|_, free| *free > 0);
        found.push(Node {
            name: name.to_owned(),
            cpu: left("cpu"),
            memory: left("memory") / 1000,
            pods: (left("pods") / 1000).saturating_sub(here.len() as u64),
            units,
            taints,
            played: !node["metadata"]["annotations"][PLAYED].is_null(),
        });
    }
    found
}

/// Free devices of complete pools in their newest generation, by node and driver.
fn devices(cluster: &FakeCluster) -> BTreeMap<String, BTreeMap<String, u64>> {
    let taken: BTreeSet<(String, String, String)> = cluster
        .objects("resourceclaims")
        .iter()
        .flat_map(|claim| list(&claim["status"]["allocation"]["devices"]["results"]).to_vec())
        .map(|result| {
            let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
            (text("driver"), text("pool"), text("device"))
        })
        .collect();
    let slices = cluster.objects("resourceslices");
    let pool = |slice: &Value| {
        (
            slice["spec"]["driver"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            slice["spec"]["pool"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let mut found: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for slice in &slices {
        let same: Vec<&Value> = slices
            .iter()
            .filter(|other| pool(other) == pool(slice))
            .collect();
        let generation = |slice: &Value| slice["spec"]["pool"]["generation"].as_u64();
        let newest = same.iter().filter_map(|slice| generation(slice)).max();
        let of_newest = same
            .iter()
            .filter(|slice| generation(slice) == newest)
            .count();
        let declared = slice["spec"]["pool"]["resourceSliceCount"].as_u64();
        let Some(node) = slice["spec"]["nodeName"].as_str() else {
            continue;
        };
        if generation(slice) != newest || declared != Some(of_newest as u64) {
            continue;
        }
        let (driver, pool) = pool(slice);
        let free = list(&slice["spec"]["devices"])
            .iter()
            .filter(|device| {
                // Versions before v1 keep everything but the name below `basic`.
                list(&device["taints"]).is_empty() && list(&device["basic"]["taints"]).is_empty()
            })
            .filter_map(|device| device["name"].as_str())
            .filter(|name| !taken.contains(&(driver.clone(), pool.clone(), (*name).to_owned())))
            .count();
        *found
            .entry(node.to_owned())
            .or_default()
            .entry(driver)
            .or_default() += free as u64;
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::testing::{self, FakeCluster};
    use crate::{Probe, Result, json, leases};
    use std::time::Duration;

    const MANIFEST: &str = r#"
id = "example"
[[leases]]
name = "gang"
nodes = "2..3"
units = 2
alone = true
for = "9s"
[[leases]]
name = "order"
lock = "preemption"
for = "9s"
"#;

    fn node(name: &str, units: u64) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"taints": [{"key": "vendor.example/gpu", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "vendor.example/gpu": units.to_string()}}})
    }

    fn cluster(units: &[u64]) -> FakeCluster {
        let mut cluster = FakeCluster::new("v1.37.0");
        for (at, units) in units.iter().enumerate() {
            cluster.put(node(&format!("n{at}"), *units));
        }
        cluster
    }

    struct Takes;
    impl Probe for Takes {
        fn check() -> Result<()> {
            let lease = leases::acquire(&["gang", "order"], Duration::from_secs(9))?;
            assert_eq!(
                (lease.number(), lease.locks()),
                (1, &["preemption".to_owned()][..])
            );
            let node = &lease.nodes()[0];
            assert_eq!(
                (node.name(), node.cpu_millis(), node.pods()),
                ("n0", 3500, 109)
            );
            assert_eq!(node.memory_bytes(), 8 << 30);
            assert_eq!(node.units(), [("vendor.example/gpu".to_owned(), 2)]);
            assert_eq!(node.taints(), ["vendor.example/gpu"]);
            let second = leases::acquire(&["order"], Duration::ZERO);
            assert!(matches!(second, Err(Error::Refused(_))), "{second:?}");
            lease.release()?;
            leases::acquire(&["other"], Duration::ZERO).map(drop)
        }
    }

    #[test]
    fn nodes_that_fit_are_granted() {
        let mut cluster = cluster(&[2, 1, 4]);
        cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"nodeName": "n0", "containers": [{"resources": {"requests": {"cpu": "500m"}}}]}}));
        let run = testing::run::<Takes>(MANIFEST, cluster);
        assert!(
            matches!(&run.result, Err(Error::Refused(text)) if text.contains("`other`")),
            "{:?}",
            run.result
        );
        assert_eq!(run.leases.len(), 1);
        assert!(run.leases[0].1, "given back");
    }

    #[test]
    fn what_is_not_there_is_unavailable_and_what_is_held_is_busy() {
        let run = testing::run::<Takes>(MANIFEST, cluster(&[2, 1]));
        assert!(
            matches!(run.result, Err(Error::Unavailable(_))),
            "{:?}",
            run.result
        );
        let mut held = cluster(&[2, 2]);
        held.hold_lease("order", "held by another probe");
        let run = testing::run::<Takes>(MANIFEST, held);
        assert_eq!(run.result, Err(Error::Busy("held by another probe".into())));
    }

    struct Either;
    impl Probe for Either {
        fn check() -> Result<()> {
            let lease = leases::acquire_either(&["gang"], &["order"], Duration::ZERO)?;
            assert_eq!(lease.has("n0"), lease.locks().is_empty());
            assert!(!lease.has("n7"));
            lease.release()
        }
    }

    #[test]
    fn the_second_choice_is_taken_where_the_first_can_never_be_had() {
        for (units, taken) in [(2, "gang"), (1, "order")] {
            let run = testing::run::<Either>(MANIFEST, cluster(&[2, units]));
            assert_eq!(run.result, Ok(()));
            assert_eq!(run.leases, [(vec![taken.to_owned()], true)]);
        }
    }
}
