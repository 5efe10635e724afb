use super::*;
use serde_json::json;

fn redactor() -> Redactor {
    Redactor::with_salt("abcdefgh", b"salt of a test")
}

const JWT: &str =
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLW9mLWl0";

#[test]
fn nodes_lose_names_addresses_and_serials_and_equality_survives() {
    let redactor = redactor();
    let mut node = json!({
        "metadata": {"name": "n1", "uid": "5f0c1f3e-1111-4222-8333-944455556666",
            "labels": {"kubernetes.io/hostname": "n1", "zone": "a"},
            "managedFields": [{"manager": "kubelet"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"n1\":1}"}},
        "spec": {"providerID": "aws:///eu-west-1a/i-0abcdef1234567890", "podCIDR": "10.1.0.0/24"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.20.30.40"}, {"type": "Hostname", "address": "n1"}],
            "nodeInfo": {"machineID": "0123456789abcdef0123456789abcdef", "systemUUID": "4C4C4544-0042-3510-8054-B7C04F4D3233",
                "kubeletVersion": "v1.37.0"}},
    });
    redactor.redact("", "nodes", &mut node);
    let name = node["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("node-") && name.len() == 21, "{name}");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], name);
    assert_eq!(node["status"]["addresses"][1]["address"], name);
    assert_eq!(
        node["metadata"]["uid"],
        "5f0c1f3e-1111-4222-8333-944455556666"
    );
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.37.0");
    assert!(node["metadata"].get("managedFields").is_none());
    assert!(node["metadata"].get("annotations").is_none());
    let system = node["status"]["nodeInfo"]["systemUUID"].as_str().unwrap();
    assert!(scan::is_uuid(system.as_bytes()) && system == system.to_uppercase());
    let text = node.to_string();
    for secret in [
        "\"n1\"",
        "10.20.30.40",
        "10.1.0.0",
        "i-0abcdef",
        "0123456789abcdef",
        "4C4C4544",
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }

    let mut pod = json!({"metadata": {"namespace": "karat-abcdefgh-p-main", "name": "a-abcdefgh"},
        "spec": {"nodeName": "n1"}, "status": {"hostIP": "10.20.30.40", "hostIPs": [{"ip": "10.20.30.40"}], "podIP": "10.1.0.7"}});
    redactor.redact("", "pods", &mut pod);
    assert_eq!(pod["spec"]["nodeName"], name);
    assert_eq!(
        pod["status"]["hostIP"],
        node["status"]["addresses"][0]["address"]
    );
    assert_eq!(pod["status"]["hostIPs"][0]["ip"], pod["status"]["hostIP"]);
    assert_eq!(pod["metadata"]["namespace"], "karat-abcdefgh-p-main");
    assert_eq!(pod["metadata"]["name"], "a-abcdefgh");
}

#[test]
fn what_was_hidden_can_be_used_again() {
    let redactor = redactor();
    let node = redactor.learn(Class::Node, "gpu-node-17.example.com");
    let uuid = redactor.learn(Class::Device, "5c89852c-d268-c3f3-1b07-005d5ae1dc3f");
    let mut body = json!({
        "spec": {"nodeName": node,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "selectors": [{"cel": {"expression": format!("device.attributes[\"x\"].uuid == \"{uuid}\" && true")}}]},
        node.clone(): 1,
    });
    redactor.restore(&mut body).unwrap();
    assert_eq!(body["spec"]["nodeName"], "gpu-node-17.example.com");
    assert_eq!(body["gpu-node-17.example.com"], 1);
    assert_eq!(
        body["spec"]["selectors"][0]["cel"]["expression"],
        "device.attributes[\"x\"].uuid == \"5c89852c-d268-c3f3-1b07-005d5ae1dc3f\" && true"
    );
    assert_eq!(
        redactor
            .restore_text(&format!("spec.nodeName={node},x{node}y"))
            .unwrap(),
        "spec.nodeName=gpu-node-17.example.com,xgpu-node-17.example.comy"
    );
    // What only looks like a pseudonym stays.
    for text in [
        "node-0123456789abcdef",
        "5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
        "node-",
        "redacted-0123456789abcdef",
    ] {
        assert_eq!(redactor.restore_text(text).unwrap(), text);
    }
}

#[test]
fn secrets_and_environment_never_come_back() {
    let redactor = redactor();
    let mut secret = json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "aHVudGVyMg==", "b": "aHVudGVyMg==", "c": "b3RoZXI="}});
    redactor.redact("", "secrets", &mut secret);
    assert_eq!(secret["data"]["a"], secret["data"]["b"]);
    assert_ne!(secret["data"]["a"], secret["data"]["c"]);
    assert!(secret.get("stringData").is_none());
    assert!(!secret.to_string().contains("aHVudGVyMg"));

    let mut pod = json!({"spec": {"containers": [{"name": "c", "env": [
        {"name": "PASSWORD", "value": "hunter2"}, {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}}]}]}});
    redactor.redact("", "pods", &mut pod);
    let mark = pod["spec"]["containers"][0]["env"][0]["value"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(mark.starts_with("redacted-"), "{mark}");
    assert_eq!(
        pod["spec"]["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["name"],
        "s"
    );
    assert_eq!(redactor.restore(&mut pod), Err(Removed));
    assert_eq!(redactor.restore_text(&format!("a {mark} b")), Err(Removed));
    assert_eq!(redactor.restore(&mut json!({ mark: 1 })), Err(Removed));
}

#[test]
fn a_second_pass_changes_nothing() {
    let redactor = redactor();
    let mut pod = json!({"metadata": {"namespace": "tenant-a", "name": "x"}, "spec": {"nodeName": "node-with-a-long-name",
        "containers": [{"env": [{"name": "A", "value": "b"}]}]}});
    redactor.redact("", "pods", &mut pod);
    let once = pod.clone();
    redactor.redact("", "pods", &mut pod);
    assert_eq!(pod, once);
}

#[test]
fn names_of_kubernetes_and_of_this_run_stay() {
    let redactor = redactor();
    for stays in [
        "default",
        "kube-system",
        "kube-node-lease",
        "karat-abcdefgh-p-main",
    ] {
        assert_eq!(redactor.learn(Class::Namespace, stays), stays);
    }
    for goes in ["tenant-a", "karat-bbbbbbbb-p-main", "gpu-operator"] {
        assert!(
            redactor.learn(Class::Namespace, goes).starts_with("ns-"),
            "{goes}"
        );
    }
    assert_eq!(redactor.learn(Class::Address, "127.0.0.1"), "127.0.0.1");
}

#[test]
fn a_node_that_this_run_made_up_stays_wherever_its_name_is_met() {
    let redactor = redactor();
    let mut slice = json!({"spec": {"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["none-abcdefgh"]},
    ]}]}}});
    let sent = slice.clone();
    redactor.redact("resource.k8s.io", "resourceslices", &mut slice);
    assert_eq!(slice, sent);
    assert!(
        redactor
            .learn(Class::Node, "none-bbbbbbbb")
            .starts_with("node-")
    );
}

#[test]
fn a_namespace_that_is_an_ordinary_word_breaks_no_object() {
    let redactor = redactor();
    redactor.learn(Class::Namespace, "monitoring");
    let mut object = json!({"apiVersion": "monitoring.coreos.com/v1", "metadata": {"namespace": "monitoring"},
        "spec": {"group": "monitoring.coreos.com"},
        "status": {"conditions": [{"message": "not found in monitoring, see kube-system"}]}});
    redactor.redact("monitoring.coreos.com", "servicemonitors", &mut object);
    assert_eq!(object["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(object["spec"]["group"], "monitoring.coreos.com");
    let name = object["metadata"]["namespace"].as_str().unwrap();
    assert_eq!(
        object["status"]["conditions"][0]["message"],
        format!("not found in {name}, see kube-system")
    );
}

#[test]
fn references_and_selector_terms_are_known_by_their_shape() {
    let redactor = redactor();
    let mut object = json!({
        "involvedObject": {"kind": "Node", "name": "n1"},
        "metadata": {"ownerReferences": [{"kind": "Node", "name": "n1", "uid": "u"}]},
        "spec": {
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}],
                 "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]},
                                      {"key": "zone", "operator": "In", "values": ["n1"]}]}]}},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tenant"}},
        },
    });
    redactor.redact("", "events", &mut object);
    let node = redactor.learn(Class::Node, "n1");
    let term = &object["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0];
    assert_eq!(object["involvedObject"]["name"], node);
    assert_eq!(object["metadata"]["ownerReferences"][0]["name"], node);
    assert_eq!(term["matchFields"][0]["values"][0], node);
    assert_eq!(term["matchExpressions"][0]["values"][0], node);
    // A short word in a place that says nothing stays: it could be anything.
    assert_eq!(term["matchExpressions"][1]["values"][0], "n1");
    assert_eq!(
        object["spec"]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        redactor.learn(Class::Namespace, "tenant")
    );
}

#[test]
fn a_pool_has_one_name_in_slices_and_in_claims_however_short() {
    let redactor = redactor();
    let mut slice = json!({"spec": {"nodeName": "n1", "pool": {"name": "n1"}}});
    redactor.redact("resource.k8s.io", "resourceslices", &mut slice);
    let mut shared = json!({"spec": {"allNodes": true, "pool": {"name": "gpus"}}});
    redactor.redact("resource.k8s.io", "resourceslices", &mut shared);
    let mut claim = json!({
        "status": {
            "allocation": {"devices": {"results": [{"pool": "n1"}, {"pool": "gpus"}]}},
            "devices": [{"pool": "n1"}],
        }
    });
    redactor.redact("resource.k8s.io", "resourceclaims", &mut claim);
    let results = &claim["status"]["allocation"]["devices"]["results"];
    assert_ne!(results[0]["pool"], "n1");
    assert_eq!(results[0]["pool"], slice["spec"]["pool"]["name"]);
    assert_eq!(results[1]["pool"], shared["spec"]["pool"]["name"]);
    assert_eq!(
        claim["status"]["devices"][0]["pool"],
        slice["spec"]["pool"]["name"]
    );
}

#[test]
fn device_attributes_keep_their_shape() {
    let redactor = redactor();
    let mut slice = json!({"metadata": {"name": "worker-node-1-gpu.example.com-x7k2p"}, "spec": {"driver": "gpu.example.com", "nodeName": "worker-node-1",
        "pool": {"name": "worker-node-1", "generation": 1},
        "devices": [{"name": "gpu-0", "attributes": {
            "uuid": {"string": "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"},
            "gpu.example.com/serialNumber": {"string": "1322621091234"},
            "model": {"string": "H100"}, "odd-uuid": {"string": "x\" || true || \"y"}}}]}});
    redactor.redact("resource.k8s.io", "resourceslices", &mut slice);
    let node = redactor.learn(Class::Node, "worker-node-1");
    assert_eq!(slice["spec"]["pool"]["name"], node);
    assert_eq!(
        slice["metadata"]["name"],
        format!("{node}-gpu.example.com-x7k2p")
    );
    let attributes = &slice["spec"]["devices"][0]["attributes"];
    assert_eq!(attributes["model"]["string"], "H100");
    let uuid = attributes["uuid"]["string"].as_str().unwrap().to_owned();
    assert!(!uuid.contains("5c89852c"), "{uuid}");
    assert_eq!(
        redactor.restore_text(&uuid).unwrap(),
        "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
    );
    assert!(
        attributes["gpu.example.com/serialNumber"]["string"]
            .as_str()
            .unwrap()
            .starts_with("device-")
    );
    // A value that could change an expression is never put back.
    let odd = attributes["odd-uuid"]["string"].as_str().unwrap();
    assert_eq!(redactor.restore_text(odd), Err(Removed));
}

#[test]
fn text_loses_tokens_keys_and_known_words() {
    let redactor = redactor();
    let node = redactor.learn(Class::Node, "ip-10-0-0-17.eu-west-1.compute.internal");
    let space = redactor.learn(Class::Namespace, "production");
    let same = |text: &str| assert_eq!(redactor.redact_text(text), text);
    for text in [
        format!("Authorization: Bearer {JWT}"),
        format!("token={JWT}&x=1"),
        "curl -H 'Authorization: Basic dXNlcjpwYXNz' http://x".to_owned(),
        "password: hunter2hunter2".to_owned(),
        "{\"api_key\": \"0123456789abcdef\"}".to_owned(),
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        "pushed with ghp_16C7e42F292c6912E7710c838347Ae178B4a".to_owned(),
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\n"
            .to_owned(),
        "-----BEGIN EC PRIVATE KEY-----\nMIIEpAIBAAKCAQEA".to_owned(),
    ] {
        let seen = redactor.redact_text(&text);
        for secret in [
            JWT,
            "eyJhb",
            "dXNlcjpwYXNz",
            "hunter2",
            "0123456789abcdef\"",
            "AKIAIOSFODNN7",
            "16C7e42F",
            "MIIEpAIBAAKCAQEA",
        ] {
            assert!(!seen.contains(secret), "{seen}");
        }
        assert!(seen.contains("redacted-"), "{seen}");
    }
    assert_eq!(
        redactor.redact_text("0/3 nodes: ip-10-0-0-17.eu-west-1.compute.internal in \"production\"; preproduction, production2"),
        format!("0/3 nodes: {node} in \"{space}\"; preproduction, production2")
    );
    let seen = redactor.redact_text("GPU 0: H100 (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f) Serial Number                 : 1322621091234");
    assert!(
        !seen.contains("5c89852c") && !seen.contains("1322621091234"),
        "{seen}"
    );
    let seen = redactor.redact_text("arn:aws:iam::123456789012:role/x 123456789012.dkr.ecr.eu-west-1.amazonaws.com/app /subscriptions/5c89852c-d268-c3f3-1b07-005d5ae1dc3f/x gce://my-project/z");
    assert!(
        !seen.contains("123456789012")
            && !seen.contains("5c89852c")
            && !seen.contains("my-project"),
        "{seen}"
    );
    for text in [
        "bearer authentication failed",
        "the token: not found",
        "serial: off",
        "x",
        "",
        "größe ist ü",
        "arn:aws:s3:::bucket",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "pvc-11111111-d268-c3f3-1b07-005d5ae1dc3f",
        "secretKeyRef: x",
    ] {
        same(text);
    }
}

#[test]
fn the_longest_known_word_wins_and_words_end_at_borders() {
    let redactor = redactor();
    let short = redactor.learn(Class::Node, "worker-node");
    let long = redactor.learn(Class::Node, "worker-node-12");
    assert_eq!(
        redactor.redact_text(
            "worker-node-12 worker-node worker-node-1 xworker-node worker-nodes wörker-node"
        ),
        format!("{long} {short} {short}-1 xworker-node worker-nodes wörker-node")
    );
}

#[test]
fn pseudonyms_are_one_to_one_and_differ_between_runs() {
    let redactor = redactor();
    let made: std::collections::HashSet<_> = (0..2000)
        .map(|n| redactor.learn(Class::Node, &format!("node-number-{n}")))
        .collect();
    assert_eq!(made.len(), 2000);
    let other = Redactor::new("abcdefgh").unwrap();
    assert_ne!(
        other.learn(Class::Node, "node-number-1"),
        redactor.learn(Class::Node, "node-number-1")
    );
}

#[test]
fn a_status_hides_the_name_it_is_about() {
    let redactor = redactor();
    let mut status = json!({"kind": "Status", "message": "nodes \"n1\" not found", "details": {"name": "n1", "kind": "nodes"}});
    redactor.redact_status(&mut status);
    let node = redactor.learn(Class::Node, "n1");
    assert_eq!(status["message"], format!("nodes \"{node}\" not found"));
    assert_eq!(status["details"]["name"], node);
}

#[test]
fn odd_objects_do_no_harm() {
    let redactor = redactor();
    for mut odd in [
        json!(null),
        json!("text"),
        json!([1, "production"]),
        json!({"metadata": 5, "data": 7}),
        json!({"status": {"addresses": [1]}}),
    ] {
        for resource in ["secrets", "nodes", "namespaces", "events", "pods"] {
            redactor.redact("", resource, &mut odd);
        }
        redactor.redact("resource.k8s.io", "resourceslices", &mut odd);
        redactor.redact("coordination.k8s.io", "leases", &mut odd);
        redactor.redact_status(&mut odd);
        redactor.restore(&mut odd).unwrap();
    }
    for text in [
        "eyJ",
        "eyJaaaaaaaaaa.",
        "Bearer ",
        "Authorization:",
        "serial",
        "serial:",
        "GPU-",
        "arn::::",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "ü-eyJ",
        "gce://",
    ] {
        redactor.redact_text(text);
        redactor.redact_text(&format!("{text}{}", "ä".repeat(9)));
    }
}
