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

/// A text that must change, and a part of it that must be gone.
#[test]
fn secrets_are_known_by_prefix_key_and_place() {
    let redactor = redactor();
    for (text, gone) in [
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "1234567890"),
        ("xoxb-123456789012-abcdefghijklmnop", "abcdefghijklmnop"),
        ("glpat-a1b2c3d4e5f6g7h8i9j0", "a1b2c3"),
        ("nvapi-a1b2c3d4e5f6g7h8i9j0", "a1b2c3"),
        ("hvs.a1b2c3d4e5f6g7h8i9j0", "a1b2c3"),
        ("postgres://app:hunter2@db:5432/x", "hunter2"),
        ("redis://:hunter2@db", "hunter2"),
        ("https://a1b2c3d4e5f6g7h8@sentry.example/1", "a1b2c3"),
        ("mongodb://u:p@ss@db/x", "p@ss"),
        ("DB_PASSWORD=hunter2", "hunter2"),
        ("db-password: \"abc\"", "abc"),
        ("spring.datasource.password=hunter2", "hunter2"),
        ("x {\"password\":\"abc\"} y", "abc"),
        ("x {\\\"password\\\":\\\"hunter2\\\"} y", "hunter2"),
        ("x-api-key: 0123456789", "0123456789"),
        ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("Cookie: a=b; session=c", "session"),
        (
            "{\"auths\":{\"r\":{\"auth\":\"dXNlcjpwYXNz\"}}}",
            "dXNlcjpwYXNz",
        ),
        ("https://b.example/c?sig=a1b2c3d4e5&x=1", "a1b2c3"),
        ("u:$2y$10$abcdefghijklmnopqrstuv0123456789", "ghijkl"),
        (
            "Authorization: Digest username=\"u\", response=\"a1b2c3\"",
            "a1b2c3",
        ),
        ("password: grün-7", "grün"),
        ("see {\"kty\":\"RSA\",\"d\":\"a1b2c3\"} here", "a1b2c3"),
        (
            "see {\"kind\":\"Secret\",\"data\":{\"a\":\"b1b2c3\"}} here",
            "b1b2c3",
        ),
    ] {
        let seen = redactor.redact_text(text);
        assert!(
            !seen.contains(gone) && seen.contains("redacted-"),
            "{text}: {seen}"
        );
    }
    for same in [
        "docker.io/library/nginx:1.25@sha256:0123456789abcdef",
        "max_token: 4096",
        "pad_token=<pad>",
        "--authorization-mode=Node,RBAC",
        "{\"authorization\":{\"mode\":\"Webhook\"}}",
        "{\"password\":\"\",\"x\":\"some-thing\"}",
        "password: true",
        "auth: required",
        "basic authentication is off",
        "sk-learn is a library",
        "xoxb-short",
        "hf_transfer enabled for the download of models",
        "https://example.com/path?x=a@b",
        "ssh://git@example.com/x",
        "time_per_output_token: 0.25",
        "100% of 5 nodes",
        "rate 50%20 is odd",
        "author: somebody",
        "cpu{node=\"x\"} 5",
    ] {
        assert_eq!(redactor.redact_text(same), same);
    }
}

#[test]
fn packed_secrets_are_found_and_packed_words_are_not() {
    let redactor = redactor();
    let key = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
    let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zip, key.as_bytes()).unwrap();
    let zipped = zip.finish().unwrap();
    let mut binary = vec![0_u8, 1, 2, 200];
    binary.extend_from_slice(format!("\u{1}{key}\u{2}").as_bytes());
    let wide: Vec<u8> = key.bytes().flat_map(|b| [b, 0]).collect();
    let wrapped = base64(&format!("{} {key}", "word ".repeat(20)));
    let wrapped = format!("  {}\n  {}", &wrapped[..76], &wrapped[76..]);
    for packed in [
        base64(key),
        base64(&base64(key)),
        base64(key).trim_end_matches('=').to_owned(),
        data_encoding::BASE64URL_NOPAD.encode(format!("??>~ {key}").as_bytes()),
        data_encoding::BASE64.encode(&zipped),
        data_encoding::BASE64.encode(&zstd::encode_all(key.as_bytes(), 1).unwrap()),
        data_encoding::BASE64.encode(&binary),
        data_encoding::BASE64.encode(&wide),
        data_encoding::BASE64.encode(&[&[0xff, 0xfe], wide.as_slice()].concat()),
        data_encoding::HEXLOWER.encode(key.as_bytes()),
        data_encoding::HEXUPPER.encode(key.as_bytes()),
        key.bytes().map(|b| format!("%{b:02x}")).collect(),
        key.replace('_', "%255f"),
        wrapped,
        format!("/callback/{}/x", base64(key)),
        serde_json::json!({"a": serde_json::json!({"b": base64(key)}).to_string()}).to_string(),
    ] {
        let seen = redactor.redact_text(&format!("got {packed} today"));
        assert!(seen.contains("redacted-"), "{packed}: {seen}");
        assert!(
            seen.starts_with("got ") && seen.ends_with(" today"),
            "{seen}"
        );
        let first: String = packed.trim().chars().take(24).collect();
        assert!(
            !seen.contains(&first) || first.starts_with("/callback") || first.starts_with('{'),
            "{packed}: {seen}"
        );
    }
    for same in [
        "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "workload-aware-scheduling-gang-0-abcdefgh",
        "registry.k8s.io/kube-scheduler-amd64/something-long",
        "aGVsbG8gd29ybGQgaG93IGFyZSB5b3UgdG9kYXk=",
        "H100-SXM5-80GB-HBM3-0123456789",
        "MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJRTESMBAGA1UE",
        "/var/lib/kubelet/plugins/kubernetes.io/csi/example",
    ] {
        assert_eq!(redactor.redact_text(same), same);
    }
}

#[test]
fn packed_text_is_followed_only_so_far() {
    let redactor = redactor();
    // Ten megabytes of zeros in ten kilobytes: what cannot be followed is hidden.
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zip, &vec![b' '; 10 << 20]).unwrap();
    let bomb = data_encoding::BASE64.encode(&zip.finish().unwrap());
    let seen = redactor.redact_text(&bomb);
    assert!(seen.starts_with("redacted-") && seen.len() < 40, "{seen}");
    // JSON that never closes, and text that opens it again and again.
    redactor.redact_text(&"{\"a\":".repeat(20_000));
    redactor.redact_text(&"%41".repeat(50_000));
    redactor.redact_text(&"a-".repeat(50_000));
    redactor.redact_text(&"QUFB/".repeat(50_000));
    redactor.redact_text(&"[".repeat(50_000));
}

#[test]
fn arguments_environments_and_keys_hide_their_values() {
    let redactor = redactor();
    let mut pod = json!({"metadata": {"name": "a", "labels": {"token": "abc", "x": "glpat-a1b2c3d4e5f6g7h8i9j0"},
            "annotations": {"example.com/db-password": "abc", "AKIAIOSFODNN7EXAMPLE": "key"}},
        "spec": {"containers": [{"args": ["--password", "abc", "--token=def", "--v=2", "--max-token=17", "serve"],
            "command": ["sh", "-c", "export API_KEY=abcdef12; run"], "env": [{"name": "A", "value": "b"}]}],
            "runtime": {"env": {"A": "value-of-it"}}}});
    redactor.redact("", "pods", &mut pod);
    let text = pod.to_string();
    for gone in [
        "\"abc\"",
        "=def",
        "abcdef12",
        "value-of-it",
        "glpat-",
        "AKIAIOS",
    ] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    for stays in [
        "\"--v=2\"",
        "\"--max-token=17\"",
        "\"serve\"",
        "\"--password\"",
        "; run",
    ] {
        assert!(text.contains(stays), "{stays} in {text}");
    }
    assert!(text.contains("\"--token=redacted-"));
}

#[test]
fn what_looks_drawn_at_random_is_found_again_elsewhere() {
    let redactor = redactor();
    let mut pod = json!({"spec": {"containers": [{"env": [
        {"name": "A", "value": "Zk3Jx9QpLm4VtB8s"}, {"name": "B", "value": "production"},
        {"name": "C", "value": "Zk3Jx9QpLm4VtB8abcdefgh"}]}]}});
    redactor.redact("", "pods", &mut pod);
    let mark = pod["spec"]["containers"][0]["env"][0]["value"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        redactor.redact_text("cannot log in with Zk3Jx9QpLm4VtB8s"),
        format!("cannot log in with {mark}")
    );
    let same = "in production with Zk3Jx9QpLm4VtB8abcdefgh";
    assert_eq!(
        redactor.redact_text(same),
        same,
        "words and names of this run stay"
    );
    let mut secret = json!({"data": {"a": data_encoding::BASE64.encode(b"Hu4nTer2Hu4nTer2x")}});
    redactor.redact("", "secrets", &mut secret);
    assert!(
        redactor
            .redact_text("login Hu4nTer2Hu4nTer2x failed")
            .contains("redacted-")
    );
}

#[test]
fn machines_and_accounts_are_known_by_their_parts() {
    let redactor = redactor();
    redactor.learn_machine(&json!({"spec": {"providerID": "aws:///eu-west-1a/i-0abcdef1234567890"},
        "status": {"nodeInfo": {"systemUUID": "4C4C4544-0042-3510-8054-B7C04F4D3233", "machineID": "0123456789abcdef0123456789abcdef"}}}));
    redactor.learn_machine(
        &json!({"spec": {"providerID": "gce://acme-prod-17/europe-west1-b/gke-pool-1-abcd"}}),
    );
    redactor.learn_machine(&json!({"spec": {"providerID": "azure:///subscriptions/5c89852c-d268-c3f3-1b07-005d5ae1dc3f/resourceGroups/rg-tenant-9/providers/Microsoft.Compute/virtualMachines/vm-worker-01"}}));
    let text = "i-0abcdef1234567890 4c4c4544-0042-3510-8054-b7c04f4d3233 4c4c4544004235108054b7c04f4d3233 \
                0123456789abcdef0123456789abcdef acme-prod-17 gke-pool-1-abcd rg-tenant-9 vm-worker-01 5c89852c-d268-c3f3-1b07-005d5ae1dc3f";
    let seen = redactor.redact_text(text);
    for word in text.split_whitespace() {
        assert!(!seen.contains(word), "{word} in {seen}");
    }
    for same in ["eu-west-1a", "europe-west1-b"] {
        assert_eq!(redactor.redact_text(same), same);
    }
    assert_eq!(redactor.restore_text(&seen).unwrap(), text);
}

#[test]
fn rules_of_the_operator_hide_paths_and_patterns() {
    let rules = Rules::parse(
        "[[rule]]\nname = \"rack\"\nkind = \"Node\"\npath = \"metadata.annotations['example.com/rack']\"\n\
         [[rule]]\nname = \"floor\"\nkind = \"Node\"\npath = \"metadata.labels.floor\"\n\
         [[rule]]\nname = \"power\"\nkind = \"Node\"\npath = \"status.power\"\n\
         [[rule]]\nname = \"ticket\"\npattern = \"TICKET-[0-9]+\"\n",
        "rules.toml",
    )
    .unwrap();
    let redactor = Redactor::with_rules("abcdefgh", std::sync::Arc::new(rules.clone())).unwrap();
    assert_eq!(
        redactor.version(),
        format!("{VERSION}+{}", rules.digest().unwrap())
    );
    let node = json!({"kind": "Node", "metadata": {"name": "n1", "annotations": {"example.com/rack": "row-3-rack-17"},
        "labels": {"floor": "4", "zone": "a"}}, "status": {"power": {"watts": 700}}});
    let mut seen = node.clone();
    redactor.redact("", "nodes", &mut seen);
    let mark = seen["metadata"]["annotations"]["example.com/rack"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(is_mark(&mark), "{mark}");
    assert!(is_mark(
        seen["metadata"]["labels"]["floor"].as_str().unwrap()
    ));
    assert_eq!(seen["metadata"]["labels"]["zone"], "a");
    assert_eq!(seen["status"]["power"]["watts"], 0);
    assert_eq!(
        redactor.redact_text("fire at row-3-rack-17, floor 4, see TICKET-815"),
        format!(
            "fire at {mark}, floor 4, see {}",
            redactor.redact_text("TICKET-815")
        )
    );
    let mut other = json!({"kind": "Pod", "metadata": {"labels": {"floor": "4", "TICKET-9": "x"}}});
    redactor.redact("", "pods", &mut other);
    assert_eq!(other["metadata"]["labels"]["floor"], "4");
    assert!(!other.to_string().contains("TICKET-9"));
    // A copy of the object in a string, and the same in base64.
    let inner = redactor.redact_text(&node.to_string());
    assert!(
        !inner.contains("rack-17") && !inner.contains("\"floor\":\"4\""),
        "{inner}"
    );
    assert!(is_mark(&redactor.redact_text(
        &data_encoding::BASE64.encode(b"see TICKET-815 there")
    )));

    let only = Redactor::only("abcdefgh", std::sync::Arc::new(rules)).unwrap();
    let text = "password: hunter2hunter2 TICKET-4";
    let seen = only.redact_text(text);
    assert!(
        seen.starts_with("password: hunter2hunter2 redacted-"),
        "{seen}"
    );
    let mut pod = json!({"kind": "Pod", "spec": {"nodeName": "n1", "containers": [{"env": [{"name": "A", "value": "b"}]}]}});
    let before = pod.clone();
    only.redact("", "pods", &mut pod);
    assert_eq!(pod, before);
}
