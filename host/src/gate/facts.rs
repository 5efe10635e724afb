//! What the door notes about the objects of an answer: identity, place, phase, images, and markers of a simulation.
//!
//! Taken from the whole object after redaction and before projection, so that the judge sees a pod's node even where the
//! probe asked only for its phase.

use crate::recording::format::{Facts, ObjectFact};
use serde_json::Value;

/// Objects whose facts are kept of one answer.
const OBJECTS_MAX: usize = 64;
/// Markers kept of one answer; one is enough to decide the tier, a few help the reader.
pub(crate) const MARKERS_MAX: usize = 16;
/// Keys of labels and annotations below these prefixes are set by simulators.
const SIMULATOR_KEYS: &[(&str, &str)] = &[
    ("kwok.x-k8s.io/", "kwok"),
    ("run.ai/simulated-gpu-", "fake-gpu-operator"),
    ("run.ai/fake.gpu", "fake-gpu-operator"),
    ("run.ai/simulated.gpu", "fake-gpu-operator"),
];
/// DRA drivers that publish devices which do not exist.
const SIMULATOR_DRIVERS: &[&str] = &["gpu.example.com", "dra.example.com"];

/// Whether a simulator plays this Node, so that no container runs there.
pub(crate) fn is_played(node: &Value) -> bool {
    let annotations = node["metadata"]["annotations"].as_object();
    let mut keys = annotations.into_iter().flat_map(|map| map.keys());
    keys.any(|key| key.starts_with("kwok.x-k8s.io/")) || has_no_kubelet(node)
}

fn has_no_kubelet(node: &Value) -> bool {
    let provider = node["spec"]["providerID"].as_str().unwrap_or_default();
    let kubelet = node["status"]["nodeInfo"]["kubeletVersion"]
        .as_str()
        .unwrap_or_default();
    provider.starts_with("kwok:") || kubelet.starts_with("kwok") || kubelet == "fake"
}

/// Adds what is worth knowing about one object of an answer.
pub(crate) fn note(facts: &mut Facts, object: &Value, is_ours: impl FnOnce(&str) -> bool) {
    let fact = object_fact(object, is_ours);
    // A slice of this run is there to exercise the API and says nothing about the platform; a device taken from it would,
    // and is marked on the claim. The uid decides, since anybody can copy a label.
    if !(fact.ours && fact.kind == "ResourceSlice") {
        note_markers(facts, object);
    }
    if facts.objects.len() < OBJECTS_MAX && !(fact.name.is_empty() && fact.uid.is_empty()) {
        facts.objects.push(fact);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn object_fact(object: &Value, is_ours: impl FnOnce(&str) -> bool) -> ObjectFact {
    let meta = &object["metadata"];
    let kind = text(&object["kind"]);
    let mut images = Vec::new();
    if kind == "Pod" {
        for list in [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ] {
            for status in object["status"][list].as_array().into_iter().flatten() {
                if let Some(image) = status["imageID"].as_str().filter(|id| !id.is_empty()) {
                    images.push(image.to_owned());
                }
            }
        }
        images.sort_unstable();
        images.dedup();
    }
    let uid = text(&meta["uid"]);
    ObjectFact {
        namespace: text(&meta["namespace"]),
        name: text(&meta["name"]),
        ours: !uid.is_empty() && is_ours(&uid),
        uid,
        node: if kind == "Pod" {
            text(&object["spec"]["nodeName"])
        } else {
            String::new()
        },
        phase: text(&object["status"]["phase"]),
        images,
        kind,
    }
}

/// Adds the markers of a simulation that an object bears.
pub(crate) fn note_markers(facts: &mut Facts, object: &Value) {
    let mut add = |marker: String| {
        if facts.markers.len() < MARKERS_MAX && !facts.markers.contains(&marker) {
            facts.markers.push(marker);
        }
    };
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    for group in ["labels", "annotations"] {
        for key in object["metadata"][group]
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
        {
            for (prefix, simulator) in SIMULATOR_KEYS {
                if key.starts_with(prefix) {
                    add(format!("{simulator}: {kind} {name} has {key}"));
                }
            }
        }
    }
    match kind {
        "Node" if has_no_kubelet(object) => add(format!("kwok: Node {name} has no kubelet")),
        "ResourceSlice" => {
            let driver = object["spec"]["driver"].as_str().unwrap_or_default();
            if driver.ends_with(".invalid") {
                add(format!("invalid driver: ResourceSlice {name} of {driver}"));
            }
            if SIMULATOR_DRIVERS.contains(&driver) {
                add(format!(
                    "simulated driver: ResourceSlice {name} of {driver}"
                ));
            }
        }
        "ResourceClaim" => {
            for result in object["status"]["allocation"]["devices"]["results"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let driver = result["driver"].as_str().unwrap_or_default();
                if driver.ends_with(".invalid") || SIMULATOR_DRIVERS.contains(&driver) {
                    add(format!(
                        "simulated driver: ResourceClaim {name} holds a device of {driver}"
                    ));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_gives_node_phase_and_images() {
        let pod = json!({
            "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u1"},
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Running", "containerStatuses": [{"imageID": "b"}, {"imageID": "a"}, {"imageID": ""}]},
        });
        let mut facts = Facts::default();
        note(&mut facts, &pod, |uid| uid == "u1");
        let fact = &facts.objects[0];
        assert_eq!(
            (fact.node.as_str(), fact.phase.as_str()),
            ("node-1", "Running")
        );
        assert_eq!(fact.images, ["a", "b"]);
        assert!(fact.ours);
        assert!(facts.markers.is_empty());
    }

    #[test]
    fn simulations_are_marked() {
        let mut facts = Facts::default();
        let node = json!({"kind": "Node", "metadata": {"name": "n", "annotations": {"kwok.x-k8s.io/node": "fake"}}});
        let slice = json!({"kind": "ResourceSlice", "metadata": {"name": "s", "labels": {crate::names::LABEL_RUN: "abc"}},
            "spec": {"driver": "x.karat.invalid"}});
        for object in [&node, &slice] {
            note(&mut facts, object, |_| false);
        }
        assert_eq!(facts.markers.len(), 2, "{:?}", facts.markers);
    }

    #[test]
    fn a_slice_of_this_run_is_no_marker_but_a_device_taken_from_it_is() {
        let mut facts = Facts::default();
        let slice = json!({"kind": "ResourceSlice", "metadata": {"name": "s", "uid": "u1"}, "spec": {"driver": "x.karat.invalid"}});
        note(&mut facts, &slice, |uid| uid == "u1");
        assert!(facts.markers.is_empty(), "{:?}", facts.markers);
        note(&mut facts, &slice, |_| false);
        assert_eq!(
            facts.markers.len(),
            1,
            "a label or a name does not make it ours"
        );
        let claim = json!({"kind": "ResourceClaim", "metadata": {"name": "c", "uid": "u2"},
            "status": {"allocation": {"devices": {"results": [{"driver": "x.karat.invalid"}]}}}});
        note(&mut facts, &claim, |_| true);
        assert_eq!(facts.markers.len(), 2, "{:?}", facts.markers);
    }

    #[test]
    fn only_the_first_objects_are_kept() {
        let mut facts = Facts::default();
        for at in 0..100 {
            note(
                &mut facts,
                &json!({"metadata": {"name": format!("o{at}")}}),
                |_| false,
            );
        }
        assert_eq!(facts.objects.len(), OBJECTS_MAX);
    }
}
