//! The calls, as data: for every row hostile ones, and for rows that check also one in order. They run from top to bottom
//! in one probe, so that later ones can use what earlier ones made.

use serde_json::{Value, json};

/// The one image that the probe may use.
pub(super) const IMAGE: &str = "registry.example/tool@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const RBAC: &str = "rbac.authorization.k8s.io";
const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";
const ADMISSION: &str = "admissionregistration.k8s.io";
const ADMISSION_V1: &str = "admissionregistration.k8s.io/v1";
const DRA: &str = "resource.k8s.io";
const DRA_V1: &str = "resource.k8s.io/v1";
const GATEWAY: &str = "gateway.networking.k8s.io";
const GATEWAY_V1: &str = "gateway.networking.k8s.io/v1";
const SNAPSHOT: &str = "snapshot.storage.k8s.io";
const SNAPSHOT_V1: &str = "snapshot.storage.k8s.io/v1";
const SCHEDULING_V1: &str = "scheduling.k8s.io/v1";
const CERTIFICATES: &str = "certificates.k8s.io";
const MAIN: &str = "${ns:main}";

/// Kinds of add-ons that a plain API server does not have: group, plural, kind, scope.
pub(super) const ADD_ONS: &[(&str, &str, &str, &str)] = &[
    (GATEWAY, "gateways", "Gateway", "Namespaced"),
    (GATEWAY, "httproutes", "HTTPRoute", "Namespaced"),
    (GATEWAY, "referencegrants", "ReferenceGrant", "Namespaced"),
    (SNAPSHOT, "volumesnapshots", "VolumeSnapshot", "Namespaced"),
    (SNAPSHOT, "volumesnapshotcontents", "VolumeSnapshotContent", "Cluster"),
    ("external-secrets.io", "externalsecrets", "ExternalSecret", "Namespaced"),
    ("kueue.x-k8s.io", "localqueues", "LocalQueue", "Namespaced"),
];

/// Everything that the probe asks for and is granted, with every verb.
pub(super) const ASKED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "namespaces",
            "namespaces/finalize",
            "namespaces/status",
            "nodes",
            "nodes/proxy",
            "nodes/status",
            "configmaps",
            "configmaps/anything",
            "secrets",
            "serviceaccounts",
            "serviceaccounts/token",
            "pods",
            "pods/proxy",
            "pods/binding",
            "pods/attach",
            "pods/portforward",
            "pods/status",
            "pods/exec",
            "pods/eviction",
            "pods/ephemeralcontainers",
            "bindings",
            "services",
            "services/proxy",
            "endpoints",
            "persistentvolumes",
            "persistentvolumeclaims",
            "resourcequotas",
        ],
    ),
    ("apps", &["deployments", "deployments/scale", "statefulsets", "controllerrevisions"]),
    ("batch", &["cronjobs"]),
    (RBAC, &["roles", "rolebindings", "clusterroles", "clusterrolebindings"]),
    (
        ADMISSION,
        &[
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ],
    ),
    ("apiregistration.k8s.io", &["apiservices"]),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("discovery.k8s.io", &["endpointslices"]),
    (CERTIFICATES, &["certificatesigningrequests", "certificatesigningrequests/approval", "clustertrustbundles"]),
    ("authentication.k8s.io", &["tokenreviews", "selfsubjectreviews"]),
    ("authorization.k8s.io", &["selfsubjectaccessreviews", "localsubjectaccessreviews"]),
    ("node.k8s.io", &["runtimeclasses"]),
    ("storage.k8s.io", &["storageclasses"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas"]),
    ("networking.k8s.io", &["ingresses", "ingressclasses"]),
    (SNAPSHOT, &["volumesnapshots", "volumesnapshotcontents"]),
    ("scheduling.k8s.io", &["priorityclasses"]),
    (DRA, &["deviceclasses", "resourceslices", "resourceclaims", "resourceclaims/status"]),
    (GATEWAY, &["gateways", "httproutes", "referencegrants"]),
    ("external-secrets.io", &["externalsecrets"]),
    ("kueue.x-k8s.io", &["localqueues"]),
];

/// What must become of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// This row refuses it.
    Stopped(&'static str),
    /// It is the harmless neighbour of this row: the server takes it, and its answer holds.
    Taken(&'static str, fn(&Value) -> bool),
    /// The capability refuses it before any row is asked, with this word.
    Early(&'static str),
    /// The server takes it.
    Setup,
}

/// One call of the puppet.
pub(super) struct Step {
    pub(super) expect: Expect,
    pub(super) call: Value,
}

fn bad(row: &'static str, call: Value) -> Step {
    Step { expect: Expect::Stopped(row), call }
}

fn good(row: &'static str, call: Value, holds: fn(&Value) -> bool) -> Step {
    Step { expect: Expect::Taken(row, holds), call }
}

fn early(call: Value, word: &'static str) -> Step {
    Step { expect: Expect::Early(word), call }
}

fn setup(call: Value) -> Step {
    Step { expect: Expect::Setup, call }
}

fn place(word: &str, api: &str, resource: &str, ns: &str) -> Value {
    json!({"do": word, "api": api, "resource": resource, "ns": ns})
}

fn with(mut call: Value, more: Value) -> Value {
    if let (Value::Object(call), Value::Object(more)) = (&mut call, more) {
        call.extend(more);
    }
    call
}

/// An object with the name, unless the rest has metadata of its own.
fn object(name: &str, rest: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}});
    if let (Value::Object(metadata), Value::Object(more)) = (&mut object["metadata"], &rest["metadata"]) {
        metadata.extend(more.clone());
    }
    if let (Value::Object(object), Value::Object(mut rest)) = (&mut object, rest) {
        rest.remove("metadata");
        object.extend(rest);
    }
    object
}

/// Creates an object under a name of this run; `ns` is empty for the cluster.
fn create(api: &str, resource: &str, ns: &str, rest: Value) -> Value {
    create_named("own-${run}", api, resource, ns, rest)
}

fn create_named(name: &str, api: &str, resource: &str, ns: &str, rest: Value) -> Value {
    with(place("create", api, resource, ns), json!({"body": object(name, rest)}))
}

fn patch(kind: &str, name: &str, api: &str, resource: &str, ns: &str, body: Value) -> Value {
    with(place("patch", api, resource, ns), json!({"name": name, "kind": kind, "body": body}))
}

fn merge(name: &str, api: &str, resource: &str, ns: &str, body: Value) -> Value {
    patch("merge", name, api, resource, ns, body)
}

fn of(word: &str, name: &str, api: &str, resource: &str, ns: &str) -> Value {
    with(place(word, api, resource, ns), json!({"name": name}))
}

fn replace(name: &str, api: &str, resource: &str, ns: &str, rest: Value) -> Value {
    with(of("replace", name, api, resource, ns), json!({"body": object(name, rest)}))
}

fn collection(api: &str, resource: &str, ns: &str, labels: &str) -> Value {
    with(place("delete-collection", api, resource, ns), json!({"labels": labels}))
}

fn http(method: &str, target: &str, path: &str) -> Value {
    json!({"do": "http", "method": method, "target": target, "path": path, "ms": 1000})
}

fn exec(ns: &str) -> Value {
    json!({"do": "exec", "ns": ns, "name": "bystander", "argv": ["true"], "ms": 1000})
}

/// All calls. `stranger` is the uid of an object of others.
pub(super) fn steps(stranger: &str) -> Vec<Step> {
    [places(), metadata(stranger), workloads(), rights(), network(), cluster(), crowd()].into_iter().flatten().collect()
}

fn places() -> Vec<Step> {
    let config = |ns: &str| create("v1", "configmaps", ns, json!({}));
    vec![
        bad("token-request", of("get", "default", "v1", "serviceaccounts/token", MAIN)),
        bad("token-request", replace("default", "v1", "serviceaccounts/token", "kube-system", json!({}))),
        bad("node-proxy", merge("any", "v1", "nodes/proxy", "", json!({}))),
        bad("proxy", http("GET", "service:default/https:kubernetes:443", "/version")),
        bad("proxy", http("POST", "pod:kube-system/any:10250", "/run/a/b/c")),
        bad("proxy", http("DELETE", "service:default/any:http", "/")),
        bad("proxy", replace("kubernetes", "v1", "services/proxy", "default", json!({}))),
        early(of("get", "any", "v1", "nodes/proxy", ""), "no object"),
        early(of("get", "any", "v1", "pods/proxy", MAIN), "no object"),
        early(create("v1", "pods/proxy", MAIN, json!({})), "not served"),
        bad("binding", create("v1", "bindings", MAIN, json!({"target": {"kind": "Node", "name": "any"}}))),
        bad("binding", merge("any", "v1", "pods/binding", MAIN, json!({}))),
        bad("attach", merge("any", "v1", "pods/attach", MAIN, json!({}))),
        bad("attach", replace("any", "v1", "pods/portforward", "kube-system", json!({}))),
        early(of("get", "any", "v1", "pods/attach", MAIN), "no object"),
        early(of("get", "any", "v1", "pods/exec", MAIN), "no object"),
        bad("foreign-object", exec("kube-system")),
        bad("foreign-object", exec("default")),
        early(create("v1", "pods/exec", MAIN, json!({})), "not served"),
        bad("status", merge("any", "v1", "pods/status", MAIN, json!({"status": {"phase": "Running"}}))),
        bad("status", merge("any", "v1", "nodes/status", "", json!({"status": {}}))),
        bad("status", replace("any", DRA_V1, "resourceclaims/status", MAIN, json!({"status": {}}))),
        bad("finalize", replace("default", "v1", "namespaces/finalize", "", json!({"spec": {"finalizers": []}}))),
        bad("finalize", merge("any", "certificates.k8s.io/v1", "certificatesigningrequests/approval", "", json!({}))),
        bad("namespaces", create("v1", "namespaces", "", json!({}))),
        bad("namespaces", of("delete", "kube-public", "v1", "namespaces", "")),
        bad("namespaces", of("delete", MAIN, "v1", "namespaces", "")),
        bad("namespaces", merge(MAIN, "v1", "namespaces", "", json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}))),
        bad("nodes", create("v1", "nodes", "", json!({}))),
        bad("nodes", merge("any", "v1", "nodes", "", json!({"spec": {"unschedulable": true}}))),
        bad("nodes", collection("v1", "nodes", "", "")),
        bad("cluster-roles", create(RBAC_V1, "clusterroles", "", json!({"rules": []}))),
        bad("cluster-roles", of("delete", "cluster-admin", RBAC_V1, "clusterrolebindings", "")),
        bad("cluster-roles", merge("view", RBAC_V1, "clusterroles", "", json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}))),
        bad("webhooks", create(ADMISSION_V1, "mutatingwebhookconfigurations", "", json!({"webhooks": []}))),
        bad("webhooks", create(ADMISSION_V1, "validatingwebhookconfigurations", "", json!({"webhooks": []}))),
        bad("webhooks", create(ADMISSION_V1, "mutatingadmissionpolicies", "", json!({"spec": {}}))),
        bad("api-services", of("delete", "v1.apps", "apiregistration.k8s.io/v1", "apiservices", "")),
        bad("definitions", of("delete", "gateways.gateway.networking.k8s.io", "apiextensions.k8s.io/v1", "customresourcedefinitions", "")),
        bad("definitions", collection("apiextensions.k8s.io/v1", "customresourcedefinitions", "", "")),
        bad(
            "persistent-volumes",
            create(
                "v1",
                "persistentvolumes",
                "",
                json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}}}),
            ),
        ),
        bad("snapshot-contents", create(SNAPSHOT_V1, "volumesnapshotcontents", "", json!({"spec": {}}))),
        bad("endpoints", create("v1", "endpoints", MAIN, json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}))),
        bad("endpoints", merge("kubernetes", "discovery.k8s.io/v1", "endpointslices", "default", json!({"endpoints": []}))),
        bad(
            "certificate-requests",
            create(
                "certificates.k8s.io/v1",
                "certificatesigningrequests",
                "",
                json!({"spec": {"request": "YQ==", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}}),
            ),
        ),
        bad("reviews", create("authentication.k8s.io/v1", "tokenreviews", "", json!({"spec": {"token": "t"}}))),
        bad(
            "reviews",
            create("authorization.k8s.io/v1", "selfsubjectaccessreviews", "", json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}})),
        ),
        bad("reviews", create("authentication.k8s.io/v1", "selfsubjectreviews", "", json!({}))),
        bad("revisions", create("apps/v1", "controllerrevisions", MAIN, json!({"revision": 1}))),
        bad("unknown-subresource", merge("any", "v1", "configmaps/anything", MAIN, json!({}))),
        bad("foreign-namespace", config("default")),
        bad("foreign-namespace", merge("bystander", "v1", "configmaps", "default", json!({"data": {"a": "c"}}))),
        bad("foreign-namespace", of("delete", "bystander", "v1", "configmaps", "default")),
        bad("foreign-namespace", of("delete", "karat-run-key", "v1", "secrets", "karat-${run}-home")),
        bad("foreign-namespace", collection("v1", "configmaps", "kube-system", "")),
        bad("foreign-object", of("delete", "kube-root-ca.crt", "v1", "configmaps", MAIN)),
        bad("foreign-object", merge("karat", "v1", "resourcequotas", MAIN, json!({"spec": {"hard": {}}}))),
        bad("foreign-object", of("delete", "bystander", SCHEDULING_V1, "priorityclasses", "")),
        bad("foreign-object", of("delete", "system-node-critical", SCHEDULING_V1, "priorityclasses", "")),
        bad("foreign-object", merge("any", "apps/v1", "deployments/scale", MAIN, json!({"spec": {"replicas": 0}}))),
        bad("foreign-object", merge("any", "v1", "pods/ephemeralcontainers", MAIN, json!({}))),
        bad("foreign-secrets", of("get", "bystander", "v1", "secrets", "default")),
        bad("foreign-secrets", of("get", "karat-run-key", "v1", "secrets", "karat-${run}-home")),
        bad("foreign-secrets", place("list", "v1", "secrets", "")),
        bad("foreign-secrets", with(place("list", "v1", "secrets", "default"), json!({"labels": "app=x"}))),
    ]
}

fn metadata(stranger: &str) -> Vec<Step> {
    let config = |name: &str, rest: Value| create_named(name, "v1", "configmaps", MAIN, rest);
    let part = |body: Value| merge("own-${run}", "v1", "configmaps", MAIN, body);
    let json_patch = |operations: Value| patch("json", "own-${run}", "v1", "configmaps", MAIN, operations);
    vec![
        // Claims to be another run, and brings the bookkeeping of the server along.
        good(
            "reserved",
            config(
                "own-${run}",
                json!({"metadata": {"labels": {"karat.internal/run": "another", "app": "x"}, "annotations": {"karat.internal/seal": "forged"}, "managedFields": []}, "data": {"a": "b"}}),
            ),
            |object| object["metadata"]["annotations"]["karat.internal/seal"] != "forged" && object["metadata"]["labels"]["app"] == "x",
        ),
        good("run-name", config("second-${run}", json!({})), |object| object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("second-"))),
        setup(config("third-${run}", json!({"metadata": {"ownerReferences": [], "finalizers": []}}))),
        good(
            "owners",
            config("owned-${run}", json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "third-${run}", "uid": "${uid}"}]}})),
            |object| object["metadata"]["ownerReferences"][0]["name"].as_str().is_some_and(|name| name.starts_with("third-")),
        ),
        bad("identity", config("own-${run}", json!({"metadata": {"generateName": "x-"}}))),
        bad("identity", part(json!({"metadata": {"name": "kube-root-ca.crt"}}))),
        bad("identity", part(json!({"metadata": {"namespace": "kube-system"}}))),
        good("identity", part(json!({"metadata": {"name": "own-${run}"}, "data": {"a": "c"}})), |object| object["data"]["a"] == "c"),
        bad("run-name", config("plain", json!({}))),
        bad("run-name", config("x${run}", json!({}))),
        bad("reserved", part(json!({"status": {"phase": "Running"}}))),
        bad("reserved", part(json!({"metadata": {"labels": null}}))),
        bad("finalizers", config("fourth-${run}", json!({"metadata": {"finalizers": ["example.com/hold"]}}))),
        bad("finalizers", part(json!({"metadata": {"finalizers": ["example.com/hold"]}}))),
        bad(
            "owners",
            config(
                "fourth-${run}",
                json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "bystander", "uid": stranger}]}}),
            ),
        ),
        bad("owners", part(json!({"metadata": {"ownerReferences": null}}))),
        bad("json-patch", json_patch(json!([{"op": "copy", "from": "/data/a", "path": "/data/b"}]))),
        bad("json-patch", json_patch(json!([{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/hold"]}]))),
        early(json_patch(json!([{"op": "replace", "path": "", "value": {}}])), "as a whole"),
        good(
            "json-patch",
            json_patch(json!([{"op": "add", "path": "/metadata/labels/note", "value": "x"}, {"op": "replace", "path": "/data/a", "value": "d"}])),
            |object| object["data"]["a"] == "d" && object["metadata"]["labels"]["note"] == "x",
        ),
        bad("acting-annotations", config("fourth-${run}", json!({"metadata": {"annotations": {"replicator.v1.mittwald.de/replicate-to": "*"}}}))),
        bad("acting-annotations", part(json!({"metadata": {"annotations": {"external-dns.alpha.kubernetes.io/hostname": "www.example.com"}}}))),
        good("acting-annotations", part(json!({"metadata": {"annotations": {"prometheus.io/scrape": "true"}}})), |object| {
            object["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
        }),
    ]
}

/// A pod that the baseline of Pod Security allows.
fn pod(more: Value) -> Value {
    with(json!({"containers": [{"name": "c", "image": IMAGE}]}), more)
}

fn workloads() -> Vec<Step> {
    let row = "pod-templates";
    let pods = |spec: Value| create("v1", "pods", MAIN, json!({"spec": spec}));
    let deployment = |spec: Value| {
        create(
            "apps/v1",
            "deployments",
            MAIN,
            json!({"spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": spec},
            }}),
        )
    };
    let claims = |name: &str, more: Value| {
        let spec = with(json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}), more);
        create_named(name, "v1", "persistentvolumeclaims", MAIN, json!({"spec": spec}))
    };
    let snapshots = |source: Value| create(SNAPSHOT_V1, "volumesnapshots", MAIN, json!({"kind": "VolumeSnapshot", "spec": {"source": source}}));
    vec![
        bad(row, pods(pod(json!({"containers": [{"name": "c", "image": "docker.io/evil"}]})))),
        bad(row, pods(pod(json!({"automountServiceAccountToken": true})))),
        bad(row, pods(pod(json!({"serviceAccountName": "stranger"})))),
        bad(row, pods(pod(json!({"priorityClassName": "system-cluster-critical"})))),
        bad(row, pods(pod(json!({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]})))),
        bad(row, deployment(pod(json!({"serviceAccountName": "stranger"})))),
        bad(
            row,
            create(
                "batch/v1",
                "cronjobs",
                MAIN,
                json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": pod(json!({"priority": 1}))}}}}}),
            ),
        ),
        bad(
            row,
            create(
                DRA_V1,
                "resourceclaims",
                MAIN,
                json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "x", "adminAccess": true}}]}}}),
            ),
        ),
        good(row, pods(pod(json!({}))), |object| {
            let mounts = object["spec"]["volumes"].as_array().is_some_and(|volumes| !volumes.is_empty());
            object["spec"]["automountServiceAccountToken"] == false && !mounts
        }),
        good(row, deployment(pod(json!({}))), |object| {
            let template = &object["spec"]["template"];
            template["spec"]["automountServiceAccountToken"] == false
                && template["metadata"]["labels"]["karat.internal/run"] == object["metadata"]["labels"]["karat.internal/run"]
        }),
        bad(row, merge("own-${run}", "apps/v1", "deployments", MAIN, json!({"spec": {"template": {"spec": {"automountServiceAccountToken": null}}}}))),
        bad(
            "json-patch",
            patch(
                "json",
                "own-${run}",
                "apps/v1",
                "deployments",
                MAIN,
                json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "docker.io/evil"}]),
            ),
        ),
        bad("claims", claims("other-${run}", json!({"volumeName": "of-others"}))),
        bad("claims", claims("other-${run}", json!({"storageClassName": ""}))),
        bad("claims", claims("other-${run}", json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "of-others"}}))),
        bad("claims", create("apps/v1", "statefulsets", MAIN, json!({"spec": {"volumeClaimTemplates": [{"spec": {"volumeName": "of-others"}}]}}))),
        good("claims", claims("own-${run}", json!({})), |object| object["spec"]["volumeName"].is_null() && object["status"]["phase"] == "Pending"),
        bad("snapshots", snapshots(json!({"persistentVolumeClaimName": "of-others"}))),
        bad("snapshots", snapshots(json!({"volumeSnapshotContentName": "of-others"}))),
        good("snapshots", snapshots(json!({"persistentVolumeClaimName": "own-${run}"})), |object| {
            object["spec"]["source"]["persistentVolumeClaimName"].is_string()
        }),
    ]
}

fn rights() -> Vec<Step> {
    let role = |name: &str, group: &str, resource: &str, verb: &str| {
        create_named(name, RBAC_V1, "roles", MAIN, json!({"rules": [{"apiGroups": [group], "resources": [resource], "verbs": [verb]}]}))
    };
    let binding = |name: &str, kind: &str, role: &str, subject: Value| {
        create_named(name, RBAC_V1, "rolebindings", MAIN, json!({"roleRef": {"apiGroup": RBAC, "kind": kind, "name": role}, "subjects": [subject]}))
    };
    let account = json!({"kind": "ServiceAccount", "name": "own-${run}", "namespace": MAIN});
    let secret = |rest: Value| create("v1", "secrets", MAIN, rest);
    vec![
        bad("roles", role("other-${run}", "", "*", "get")),
        bad("roles", role("other-${run}", "", "pods", "*")),
        bad("roles", role("other-${run}", "", "secrets", "get")),
        bad("roles", role("other-${run}", "", "serviceaccounts/token", "create")),
        bad("roles", role("other-${run}", "", "pods", "impersonate")),
        bad("roles", role("other-${run}", "apps", "daemonsets", "create")),
        good("roles", role("own-${run}", "", "configmaps", "get"), |object| {
            object["rules"] == json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])
        }),
        bad("roles", merge("own-${run}", RBAC_V1, "roles", MAIN, json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}))),
        setup(create("v1", "serviceaccounts", MAIN, json!({}))),
        bad("role-bindings", binding("other-${run}", "ClusterRole", "cluster-admin", account.clone())),
        bad("role-bindings", binding("other-${run}", "Role", "of-others", account.clone())),
        bad("role-bindings", binding("other-${run}", "Role", "own-${run}", json!({"kind": "Group", "apiGroup": RBAC, "name": "system:authenticated"}))),
        bad("role-bindings", binding("other-${run}", "Role", "own-${run}", json!({"kind": "ServiceAccount", "name": "default", "namespace": "default"}))),
        good("role-bindings", binding("own-${run}", "Role", "own-${run}", account), |object| object["roleRef"]["kind"] == "Role"),
        bad(
            "token-secrets",
            secret(json!({"type": "kubernetes.io/service-account-token", "metadata": {"annotations": {"kubernetes.io/service-account.name": "default"}}})),
        ),
        bad("token-secrets", secret(json!({"type": "bootstrap.kubernetes.io/token"}))),
    ]
}

fn network() -> Vec<Step> {
    let service = |name: &str, spec: Value| create_named(name, "v1", "services", MAIN, json!({"spec": with(json!({"ports": [{"port": 80}]}), spec)}));
    let selected = |more: Value| with(json!({"selector": {"app": "a"}}), more);
    let route = |parent: Value, backend: Value| {
        create(GATEWAY_V1, "httproutes", MAIN, json!({"kind": "HTTPRoute", "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]}}))
    };
    let gateway = |listener: Value| create(GATEWAY_V1, "gateways", MAIN, json!({"kind": "Gateway", "spec": {"gatewayClassName": "any", "listeners": [listener]}}));
    let grant = |from: &str| {
        create(
            GATEWAY_V1,
            "referencegrants",
            MAIN,
            json!({"kind": "ReferenceGrant", "spec": {"from": [{"group": GATEWAY, "kind": "HTTPRoute", "namespace": from}], "to": [{"group": "", "kind": "Service"}]}}),
        )
    };
    let ingress = |spec: Value| create("networking.k8s.io/v1", "ingresses", MAIN, json!({"spec": spec}));
    let backend = json!({"service": {"name": "own-${run}", "port": {"number": 80}}});
    let rule = |path: &str| json!({"http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}});
    vec![
        bad("services", service("other-${run}", json!({}))),
        bad("services", service("other-${run}", json!({"type": "ExternalName", "externalName": "metadata.internal"}))),
        bad("services", service("other-${run}", selected(json!({"type": "NodePort"})))),
        bad("services", service("other-${run}", selected(json!({"externalIPs": ["10.0.0.1"]})))),
        bad("services", service("other-${run}", selected(json!({"clusterIP": "10.0.0.10"})))),
        good("services", service("own-${run}", selected(json!({}))), |object| {
            object["spec"]["selector"]["app"] == "a" && object["spec"]["type"] == "ClusterIP"
        }),
        bad("services", merge("own-${run}", "v1", "services", MAIN, json!({"spec": {"selector": null}}))),
        bad("services", merge("own-${run}", "v1", "services", MAIN, json!({"spec": {"type": "ExternalName", "externalName": "metadata.internal"}}))),
        bad("json-patch", patch("json", "own-${run}", "v1", "services", MAIN, json!([{"op": "remove", "path": "/spec/selector"}]))),
        bad("gateways", gateway(json!({"name": "l", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}))),
        bad("gateways", gateway(json!({"name": "l", "port": 80, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c", "namespace": "default"}]}}))),
        good("gateways", gateway(json!({"name": "l", "port": 80, "protocol": "HTTP"})), |object| object["spec"]["listeners"][0]["port"] == 80),
        bad("routes", route(json!({"name": "shared", "namespace": "default"}), json!({"name": "own-${run}", "port": 80}))),
        bad("routes", route(json!({"name": "own-${run}"}), json!({"name": "db", "namespace": "default", "port": 80}))),
        good("routes", route(json!({"name": "own-${run}"}), json!({"name": "own-${run}", "port": 80})), |object| {
            object["spec"]["parentRefs"][0]["name"].is_string()
        }),
        bad("reference-grants", grant("default")),
        good("reference-grants", grant(MAIN), |object| object["spec"]["from"][0]["namespace"] == object["metadata"]["namespace"]),
        bad("ingresses", ingress(json!({"rules": [rule("/${run}")]}))),
        bad("ingresses", ingress(json!({"ingressClassName": "of-others", "rules": [rule("/${run}")]}))),
        bad("ingresses", ingress(json!({"ingressClassName": "granted", "rules": [rule("/")]}))),
        bad("ingresses", ingress(json!({"ingressClassName": "granted", "defaultBackend": backend}))),
        good("ingresses", ingress(json!({"ingressClassName": "granted", "rules": [rule("/${run}")]})), |object| {
            object["spec"]["ingressClassName"] == "granted" && object["spec"]["rules"][0]["host"].is_null()
        }),
        bad("acts-outside", create("external-secrets.io/v1", "externalsecrets", MAIN, json!({"kind": "ExternalSecret", "spec": {}}))),
        good("acts-outside", create("kueue.x-k8s.io/v1", "localqueues", MAIN, json!({"kind": "LocalQueue", "spec": {"clusterQueue": "any"}})), |object| {
            object["kind"] == "LocalQueue"
        }),
    ]
}

fn cluster() -> Vec<Step> {
    let class = |name: &str, rest: Value| create_named(name, SCHEDULING_V1, "priorityclasses", "", rest);
    let policy = |constraints: Value| {
        let mut spec = json!({"validations": [{"expression": "!has(object.data) || !('forbidden' in object.data)"}]});
        if !constraints.is_null() {
            spec["matchConstraints"] = constraints;
        }
        create(ADMISSION_V1, "validatingadmissionpolicies", "", json!({"spec": spec}))
    };
    let everywhere = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["configmaps"], "scope": "*"}]});
    let bind = |name: &str| create(ADMISSION_V1, "validatingadmissionpolicybindings", "", json!({"spec": {"policyName": name, "validationActions": ["Deny"]}}));
    let devices = |expression: &str, more: Value| {
        create(DRA_V1, "deviceclasses", "", json!({"spec": with(json!({"selectors": [{"cel": {"expression": expression}}]}), more)}))
    };
    let ours = "device.driver == 'gpu-${run}.karat.invalid'";
    let slice = |more: Value| {
        let spec = json!({
            "driver": "gpu-${run}.karat.invalid",
            "pool": {"name": "${run}", "generation": 1, "resourceSliceCount": 1},
            "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["none-${run}"]}]}]},
            "devices": [{"name": "d0"}],
        });
        create(DRA_V1, "resourceslices", "", json!({"spec": with(spec, more)}))
    };
    vec![
        bad("cluster-kinds", create("storage.k8s.io/v1", "storageclasses", "", json!({"provisioner": "example.com/x"}))),
        bad("cluster-kinds", create("networking.k8s.io/v1", "ingressclasses", "", json!({"spec": {"controller": "example.com/x"}}))),
        bad("cluster-kinds", collection("flowcontrol.apiserver.k8s.io/v1", "flowschemas", "", "")),
        good("cluster-kinds", create("node.k8s.io/v1", "runtimeclasses", "", json!({"handler": "any"})), |object| object["handler"] == "any"),
        bad("priority-classes", class("other-${run}", json!({"value": 0}))),
        bad("priority-classes", class("other-${run}", json!({"value": -5, "globalDefault": true}))),
        good("priority-classes", class("own-${run}", json!({"metadata": {"labels": {"app": "x"}}, "value": -5})), |object| {
            object["value"] == -5 && object["globalDefault"] != true
        }),
        bad("priority-classes", merge("own-${run}", SCHEDULING_V1, "priorityclasses", "", json!({"globalDefault": true}))),
        // The class of somebody else has this label, too; the state of the cluster shows that it stays.
        good("collection", collection(SCHEDULING_V1, "priorityclasses", "", "app=x"), |_| true),
        bad("admission-policies", policy(Value::Null)),
        bad("admission-policies", bind("of-others")),
        good("admission-policies", policy(everywhere), |object| {
            let constraints = &object["spec"]["matchConstraints"];
            let spaces = &constraints["namespaceSelector"]["matchExpressions"];
            spaces[0]["key"] == "kubernetes.io/metadata.name"
                && spaces[0]["operator"] == "In"
                && spaces[0]["values"].as_array().is_some_and(|names| names.len() == 1 && names[0].as_str().is_some_and(|name| name.ends_with("-rows-main")))
                && spaces.as_array().is_some_and(|terms| terms.len() == 1)
                && constraints["resourceRules"][0]["scope"] == "Namespaced"
        }),
        good("admission-policies", bind("own-${run}"), |object| {
            object["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"][0].as_str().is_some_and(|name| name.ends_with("-rows-main"))
        }),
        bad("admission-policies", merge("own-${run}", ADMISSION_V1, "validatingadmissionpolicies", "", json!({"spec": {"matchConstraints": null}}))),
        bad("admission-policies", merge("own-${run}", ADMISSION_V1, "validatingadmissionpolicybindings", "", json!({"spec": {"matchResources": null}}))),
        bad("device-classes", devices("device.driver == 'gpu.nvidia.com'", json!({}))),
        bad("device-classes", devices(&format!("{ours} || true"), json!({}))),
        bad("device-classes", devices(ours, json!({"extendedResourceName": "nvidia.com/gpu"}))),
        good("device-classes", devices(ours, json!({})), |object| {
            object["spec"]["selectors"][0]["cel"]["expression"].as_str().is_some_and(|text| text.contains(".karat.invalid"))
        }),
        bad("device-classes", merge("own-${run}", DRA_V1, "deviceclasses", "", json!({"spec": {"selectors": null}}))),
        bad("resource-slices", slice(json!({"driver": "gpu.nvidia.com"}))),
        bad("resource-slices", slice(json!({"nodeSelector": null, "allNodes": true}))),
        bad("resource-slices", slice(json!({"nodeSelector": null, "nodeName": "any"}))),
        good("resource-slices", slice(json!({})), |object| {
            object["spec"]["nodeName"].is_null() && object["spec"]["driver"].as_str().is_some_and(|text| text.ends_with(".karat.invalid"))
        }),
    ]
}

/// Fills the run's share of cluster-scoped objects. Five count already: a runtime class, a policy, its binding, a device
/// class and a slice. The priority class that went with its collection does not: the server said that it is gone.
fn crowd() -> Vec<Step> {
    let class = |at: usize| create_named(&format!("crowd{at}-${{run}}"), SCHEDULING_V1, "priorityclasses", "", json!({"value": -5}));
    let mut steps: Vec<Step> = (5..karat_engine::guard::CLUSTER_OBJECTS_MAX).map(|at| good("cluster-limit", class(at), |_| true)).collect();
    steps.push(bad("cluster-limit", class(99)));
    steps.push(bad("cluster-limit", create_named("crowd-${run}", DRA_V1, "deviceclasses", "", json!({"spec": {"selectors": []}}))));
    // The last call is one that the server answers, so that its audit log can be waited for.
    steps.push(setup(of("get", "own-${run}", "v1", "configmaps", MAIN)));
    steps
}
