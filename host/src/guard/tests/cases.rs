//! The requests. Written as data, so that a new row is a few lines here.

use super::{IMAGE, NS, Shot, bad, good};
use crate::model::Reach;
use serde_json::{Value, json};

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
/// What a copy of a pull secret is called here.
pub(super) const PULLED: &str = "karat-pull-0f0f";
const ROLES: &str = "roles.rbac.authorization.k8s.io";
const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
const ROUTES: &str = "httproutes.gateway.networking.k8s.io";

pub(super) fn all() -> Vec<Shot> {
    [
        places(),
        metadata(),
        workloads(),
        rights(),
        network(),
        cluster(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn create(kind: &str, namespace: &str) -> String {
    format!("create {kind} {namespace} a-abcdefgh")
}

fn own(verb: &str, kind: &str, namespace: &str) -> String {
    format!("{verb} {kind} {namespace} own-abcdefgh")
}

fn places() -> Vec<Shot> {
    vec![
        bad("verbs", "impersonate users - admin"),
        bad("verbs", &own("escalate", ROLES, "@")),
        bad(
            "verbs",
            "bind clusterroles.rbac.authorization.k8s.io - admin",
        ),
        bad("verbs", "approve signers.certificates.k8s.io - x"),
        bad("verbs", "GET pods @ x"),
        good("verbs", "get pods @ x"),
        bad(
            "token-request",
            &own("create", "serviceaccounts/token", "@"),
        ),
        bad(
            "token-request",
            "create serviceaccounts/token kube-system default",
        ),
        good("token-request", &own("get", "serviceaccounts", "@")),
        bad("node-proxy", "get nodes/proxy - n1"),
        bad("node-proxy", "create nodes/proxy - n1").at("/run"),
        good("node-proxy", "get nodes - n1"),
        bad("proxy", &own("get", "services/proxy", "@")),
        bad("proxy", "create pods/proxy kube-system x"),
        bad(
            "proxy",
            "get services/proxy kube-system https:metrics-server:443",
        )
        .at("/metrics"),
        bad(
            "proxy",
            "create pods/proxy karat-abcdefgh-other-main own-abcdefgh:80",
        )
        .at("/"),
        bad("proxy", "get services/proxy - x:80").at("/"),
        good("proxy", "get services/proxy @ own-abcdefgh:80").at("/metrics"),
        good("proxy", "create pods/proxy @ own-abcdefgh:80").at("/v1/models"),
        bad("binding", &own("create", "pods/binding", "@")),
        bad("binding", &create("bindings", "@")),
        good("binding", &own("get", "pods", "@")),
        bad("attach", &own("create", "pods/attach", "@")),
        bad("attach", "get pods/portforward @ x"),
        good("attach", &own("get", "pods/log", "@")),
        bad("status", &own("patch", "pods/status", "@"))
            .merge(json!({"status": {"phase": "Running"}})),
        bad(
            "status",
            &own("update", "resourceclaims.resource.k8s.io/status", "@"),
        ),
        bad("status", "patch nodes/status - n1").merge(json!({})),
        good("status", &own("get", "pods/status", "@")),
        bad("finalize", "update namespaces/finalize - default"),
        bad(
            "finalize",
            "update certificatesigningrequests.certificates.k8s.io/approval - x",
        ),
        good("finalize", "get namespaces - default"),
        bad("namespaces", "create namespaces - x-abcdefgh").with(json!({})),
        bad("namespaces", &format!("delete namespaces - {NS}")),
        bad("namespaces", "patch namespaces - kube-system")
            .merge(json!({"metadata": {"labels": {"a": "b"}}})),
        good("namespaces", "list namespaces - -"),
        bad("nodes", "delete nodes - n1").reach(Reach::Disruptive),
        bad("nodes", "patch nodes - n1").merge(json!({"spec": {"unschedulable": true}})),
        bad("nodes", "patch nodes - n1")
            .reach(Reach::Disruptive)
            .merge(json!({"spec": {"unschedulable": true, "taints": []}})),
        bad("nodes", "patch nodes - n1")
            .reach(Reach::Disruptive)
            .merge(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"unschedulable": true}})),
        bad("nodes", "patch nodes - n1")
            .reach(Reach::Disruptive)
            .apply(json!({"spec": {"unschedulable": true}})),
        good("nodes", "patch nodes - n1")
            .reach(Reach::Disruptive)
            .merge(json!({"spec": {"unschedulable": true}})),
        good("nodes", "watch nodes - -"),
        bad(
            "cluster-roles",
            &create("clusterroles.rbac.authorization.k8s.io", "-"),
        ),
        bad(
            "cluster-roles",
            "delete clusterrolebindings.rbac.authorization.k8s.io - cluster-admin",
        ),
        good(
            "cluster-roles",
            "list clusterroles.rbac.authorization.k8s.io - -",
        ),
        bad(
            "webhooks",
            &create(
                "mutatingwebhookconfigurations.admissionregistration.k8s.io",
                "-",
            ),
        ),
        bad(
            "webhooks",
            "delete validatingwebhookconfigurations.admissionregistration.k8s.io - x",
        ),
        bad(
            "webhooks",
            &create(
                "mutatingadmissionpolicies.admissionregistration.k8s.io",
                "-",
            ),
        ),
        good(
            "webhooks",
            "list validatingwebhookconfigurations.admissionregistration.k8s.io - -",
        ),
        bad(
            "api-services",
            &create("apiservices.apiregistration.k8s.io", "-"),
        ),
        bad(
            "api-services",
            "delete apiservices.apiregistration.k8s.io - v1beta1.metrics.k8s.io",
        ),
        good(
            "api-services",
            "list apiservices.apiregistration.k8s.io - -",
        ),
        bad(
            "definitions",
            &create("customresourcedefinitions.apiextensions.k8s.io", "-"),
        ),
        bad(
            "definitions",
            "deletecollection customresourcedefinitions.apiextensions.k8s.io - -",
        ),
        good(
            "definitions",
            "list customresourcedefinitions.apiextensions.k8s.io - -",
        ),
        bad("persistent-volumes", &create("persistentvolumes", "-")),
        bad("persistent-volumes", "patch persistentvolumes - pv1")
            .merge(json!({"spec": {"claimRef": null}})),
        good("persistent-volumes", "list persistentvolumes - -"),
        bad(
            "snapshot-contents",
            &create("volumesnapshotcontents.snapshot.storage.k8s.io", "-"),
        ),
        bad(
            "snapshot-contents",
            "delete volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io - x",
        ),
        good(
            "snapshot-contents",
            "list volumesnapshotcontents.snapshot.storage.k8s.io - -",
        ),
        bad("endpoints", &create("endpoints", "@")),
        bad("endpoints", &create("endpointslices.discovery.k8s.io", "@")),
        good("endpoints", "watch endpointslices.discovery.k8s.io @ -"),
        bad(
            "certificate-requests",
            &create("certificatesigningrequests.certificates.k8s.io", "-"),
        ),
        bad(
            "certificate-requests",
            &create("podcertificaterequests.certificates.k8s.io", "@"),
        ),
        good(
            "certificate-requests",
            "list certificatesigningrequests.certificates.k8s.io - -",
        ),
        bad("reviews", "create tokenreviews.authentication.k8s.io - -"),
        bad(
            "reviews",
            "create selfsubjectaccessreviews.authorization.k8s.io - -",
        ),
        bad(
            "reviews",
            "create localsubjectaccessreviews.authorization.k8s.io @ -",
        ),
        good("reviews", "list events @ -"),
        bad("revisions", &create("controllerrevisions.apps", "@")),
        bad("revisions", "patch controllerrevisions.apps @ x").merge(json!({"data": {}})),
        good("revisions", "list controllerrevisions.apps @ -"),
        bad(
            "unknown-subresource",
            &own("update", "virtualmachines.kubevirt.io/start", "@"),
        ),
        bad("unknown-subresource", &own("create", "pods/anything", "@")),
        good("unknown-subresource", &own("get", "pods/log", "@")),
        bad("reach", &create("configmaps", "@"))
            .reach(Reach::Read)
            .with(json!({})),
        bad(
            "reach",
            &own("delete", "deviceclasses.resource.k8s.io", "-"),
        )
        .reach(Reach::Sandbox),
        good("reach", &create("configmaps", "@"))
            .reach(Reach::Sandbox)
            .with(json!({})),
        bad("foreign-namespace", &create("configmaps", "default")).with(json!({})),
        bad(
            "foreign-namespace",
            &create("pods", "karat-abcdefgh-other-main"),
        )
        .with(json!({})),
        bad(
            "foreign-namespace",
            "delete secrets karat-abcdefgh-home karat-run-key",
        ),
        bad("foreign-namespace", "deletecollection pods kube-system -"),
        bad("foreign-namespace", "create pods/eviction kube-system dns").with(json!({})),
        good("foreign-namespace", &create("configmaps", "@")).with(json!({})),
        good("foreign-namespace", "create pods/eviction tenant web")
            .except("foreign-objects = [\"pods/eviction\"]")
            .with(json!({})),
        bad("foreign-object", "delete configmaps @ kube-root-ca.crt"),
        bad("foreign-object", "patch resourcequotas @ karat").merge(json!({"spec": {"hard": {}}})),
        bad(
            "foreign-object",
            "update deviceclasses.resource.k8s.io - gpu.nvidia.com",
        )
        .with(json!({})),
        bad(
            "foreign-object",
            "delete deviceclasses.resource.k8s.io - theirs-abcdefgh",
        ),
        bad("foreign-object", "get pods/exec kube-system etcd"),
        // Whose it is the door looks up before it enters it.
        good("foreign-object", "get pods/exec @ made-by-a-controller"),
        good(
            "foreign-object",
            "delete jobsets.jobset.x-k8s.io @ made-by-a-controller",
        ),
        bad(
            "foreign-object",
            "patch jobsets.jobset.x-k8s.io @ made-by-a-controller",
        )
        .merge(json!({"spec": {"suspend": true}})),
        bad("foreign-object", "patch deployments.apps/scale @ foreign")
            .merge(json!({"spec": {"replicas": 0}})),
        bad("foreign-object", "patch pods/ephemeralcontainers @ foreign").merge(json!({})),
        bad("foreign-object", "patch pods/resize @ foreign").merge(json!({})),
        good("foreign-object", &own("delete", "configmaps", "@")),
        good(
            "foreign-object",
            &own("patch", "deployments.apps/scale", "@"),
        )
        .merge(json!({"spec": {"replicas": 0}})),
        good("foreign-object", "get deployments.apps/scale tenant web"),
        good("foreign-object", "get pods/exec elsewhere injected")
            .except("foreign-objects = [\"pods/exec\"]"),
        bad("foreign-secrets", "get secrets kube-system bootstrap-token"),
        bad(
            "foreign-secrets",
            "get secrets karat-abcdefgh-home karat-run-key",
        ),
        bad("foreign-secrets", "get secrets @ copied-by-a-controller"),
        bad("foreign-secrets", "list secrets - -"),
        bad("foreign-secrets", "watch secrets kube-system -"),
        good("foreign-secrets", &own("get", "secrets", "@")),
        good("foreign-secrets", "list secrets @ -"),
        bad("pull-secrets", &create("pods", "@")).with(json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": PULLED}}]}})),
        bad("pull-secrets", &create("pods", "@")).with(json!({"spec": {"containers": [{"name": "c", "image": IMAGE, "envFrom": [{"secretRef": {"name": PULLED}}]}]}})),
        bad("pull-secrets", &create("deployments.apps", "@")).with(json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": PULLED}}]}}]}}}})),
        bad("pull-secrets", &create("anythings.example.com", "@")).with(json!({"spec": {"mount": format!("secret:{PULLED}:/x")}})),
        bad("pull-secrets", &create("anythings.example.com", "@")).with(json!({"spec": {PULLED: "/x"}})),
        bad("pull-secrets", &own("patch", "pods", "@")).json(json!([{"op": "add", "path": "/metadata/labels/a", "value": PULLED}])),
        good("pull-secrets", &create("pods", "@")).with(json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "own-abcdefgh"}}]}})),
        bad("collection", "deletecollection pods/exec @ own-abcdefgh")
            .except("foreign-objects = [\"pods/exec\"]"),
        bad("collection", "deletecollection deployments.apps/scale @ -")
            .except("foreign-objects = [\"deployments.apps/scale\"]"),
        good("collection", "deletecollection pods @ -"),
    ]
}

fn metadata() -> Vec<Shot> {
    let uid = "uid-probe-own-abcdefgh-configmaps";
    let owner = |uid: &str| json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "own-abcdefgh", "uid": uid}]}});
    let cm = create("configmaps", "@");
    let patch = own("patch", "configmaps", "@");
    let pointer = |op: &str, path: &str| json!([{"op": op, "path": path, "value": "x"}]);
    vec![
        bad("identity", &cm).with(json!({"metadata": {"name": "other-abcdefgh"}})),
        bad("identity", &cm).with(json!({"metadata": {"namespace": "kube-system"}})),
        bad("identity", &cm).with(json!({"metadata": {"generateName": "x-"}})),
        bad("identity", &cm).with(json!({"metadata": 5})),
        bad("identity", &cm),
        bad("identity", &own("delete", "configmaps", "@")).with(json!({})),
        bad("identity", &own("update", "configmaps", "@")).merge(json!({})),
        bad("identity", &patch).merge(json!({"metadata": {"name": "kube-root-ca.crt"}})),
        bad("identity", &patch).merge(json!([1])),
        good("identity", &cm).with(json!({"metadata": {"namespace": NS}})),
        good("identity", &patch).merge(json!({"data": {"a": "b"}})),
        bad("run-name", "create configmaps @ plain").with(json!({})),
        bad("run-name", "create configmaps @ abcdefgh").with(json!({})),
        bad("run-name", "create configmaps @ aabcdefgh").with(json!({})),
        bad("run-name", "create configmaps @ -abcdefgh").with(json!({})),
        good("run-name", &cm).with(json!({})),
        bad("reserved", &patch).merge(json!({"status": {"phase": "Running"}})),
        bad("reserved", &patch).merge(json!({"metadata": {"labels": null}})),
        bad("reserved", &patch).apply(json!({"metadata": {"annotations": []}})),
        good("reserved", &patch).merge(json!({"metadata": {"labels": {"karat.internal/run": null}}})),
        bad("finalizers", &cm).with(json!({"metadata": {"finalizers": ["example.com/hold"]}})),
        bad("finalizers", &patch).merge(json!({"metadata": {"finalizers": null}})),
        bad("finalizers", &patch).apply(json!({"metadata": {"finalizers": []}})),
        good("finalizers", &cm).with(json!({"metadata": {"finalizers": []}})),
        good("finalizers", &own("update", "configmaps", "@")).with(json!({"metadata": {"finalizers": ["a/b"]}})),
        bad("owners", &cm).with(owner("uid-of-a-stranger")),
        bad("owners", &cm).with(owner("uid-other-own-abcdefgh-configmaps")),
        bad("owners", &cm).with(owner("uid-probe-own-abcdefgh-deviceclasses")),
        bad("owners", &cm).with(json!({"metadata": {"ownerReferences": [{"name": "x"}]}})),
        bad("owners", &patch).merge(json!({"metadata": {"ownerReferences": null}})),
        good("owners", &cm).with(owner(uid)),
        good("owners", &patch).merge(owner(uid)),
        bad("json-patch", &patch).json(pointer("add", "/metadata/finalizers/-")),
        bad("json-patch", &patch).json(pointer("replace", "/metadata")),
        bad("json-patch", &patch).json(pointer("replace", "")),
        bad("json-patch", &patch).json(pointer("remove", "/metadata/labels")),
        bad("json-patch", &patch).json(pointer("add", "/metadata/labels/karat.internal~1run")),
        bad("json-patch", &patch).json(pointer("test", "/data/password")),
        bad("json-patch", &patch).json(json!([{"op": "copy", "from": "/data/a", "path": "/metadata/labels/b"}])),
        bad("json-patch", &patch).json(pointer("replace", "data")),
        bad("json-patch", &patch).json(json!({"data": {}})),
        bad("json-patch", &own("patch", "deployments.apps", "@")).json(pointer("replace", "/spec")),
        bad("json-patch", &own("patch", "deployments.apps", "@")).json(pointer("replace", "/spec/template/spec/containers/0/image")),
        bad("json-patch", &own("patch", "services", "@")).json(pointer("remove", "/spec/selector")),
        bad("json-patch", &own("patch", "priorityclasses.scheduling.k8s.io", "-")).json(pointer("replace", "/globalDefault")),
        bad("json-patch", &own("patch", "sandboxes.agents.x-k8s.io", "@")).json(pointer("replace", "/spec/podTemplate/spec/serviceAccountName")),
        bad("json-patch", &own("patch", "sandboxes.agents.x-k8s.io", "@")).json(json!([{"op": "add", "path": "/spec/podTemplate", "value": {"spec": {"containers": [{"image": "evil"}]}}}])),
        good("json-patch", &patch).json(json!([
            {"op": "test", "path": "/metadata/uid", "value": "x"}, {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"},
            {"op": "remove", "path": "/metadata/annotations/x"}, {"op": "replace", "path": "/data/a", "value": "b"}])),
        good("json-patch", &own("patch", "deployments.apps", "@")).json(json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])),
        bad("acting-annotations", &cm).with(json!({"metadata": {"annotations": {"replicator.v1.mittwald.de/replicate-to": "*"}}})),
        bad("acting-annotations", &create("serviceaccounts", "@")).with(json!({"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "arn"}}})),
        bad("acting-annotations", &own("patch", "services", "@")).merge(json!({"metadata": {"annotations": {"external-dns.alpha.kubernetes.io/hostname": "www.example.com"}}})),
        bad("acting-annotations", &own("patch", "services", "@")).json(json!([{"op": "add", "path": "/metadata/annotations/external-dns.alpha.kubernetes.io~1hostname", "value": "x"}])),
        bad("acting-annotations", &create("deployments.apps", "@")).with(json!({"spec": {"template": {"metadata": {"labels": {"azure.workload.identity/use": "true"}}}}})),
        good("acting-annotations", &cm).with(json!({"metadata": {"annotations": {"example.com/note": "x"}}})),
        good("acting-annotations", &cm).except("annotations = [\"prometheus.io/scrape\"]").with(json!({"metadata": {"annotations": {"prometheus.io/scrape": "true"}}})),
    ]
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": IMAGE}]);
    }
    json!({"spec": spec})
}

fn template(spec: Value) -> Value {
    json!({"spec": {"template": pod(spec)}})
}

fn workloads() -> Vec<Shot> {
    let row = "pod-templates";
    let pods = create("pods", "@");
    let deployments = create("deployments.apps", "@");
    let patch = own("patch", "deployments.apps", "@");
    let claim = |spec: Value| json!({"spec": spec});
    let claims = create("persistentvolumeclaims", "@");
    let snapshots = create("volumesnapshots.snapshot.storage.k8s.io", "@");
    vec![
        bad(row, &pods).with(pod(json!({"serviceAccountName": "admin"}))),
        bad(row, &pods).with(pod(json!({"serviceAccount": "admin"}))),
        bad(row, &pods).with(pod(json!({"automountServiceAccountToken": true}))),
        bad(row, &pods).with(pod(json!({"containers": [{"image": "docker.io/evil"}]}))),
        bad(row, &pods).with(pod(json!({"initContainers": [{"image": "docker.io/evil"}]}))),
        bad(row, &pods).with(pod(json!({"volumes": [{"image": {"reference": "docker.io/evil"}}]}))),
        bad(row, &pods).with(pod(json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}))),
        bad(row, &pods).with(pod(json!({"volumes": [{"projected": {"sources": [{"podCertificate": {"signerName": "s"}}]}}]}))),
        bad(row, &pods).with(pod(json!({"priorityClassName": "high"}))),
        bad(row, &pods).with(pod(json!({"priorityClassName": "system-cluster-critical"}))),
        bad(row, &pods).with(pod(json!({"priorityClassName": "theirs-abcdefgh"}))),
        bad(row, &pods).with(pod(json!({"priority": 5}))),
        bad(row, &deployments).with(template(json!({"serviceAccountName": "admin"}))),
        bad(row, &create("cronjobs.batch", "@")).with(json!({"spec": {"jobTemplate": template(json!({"priority": 1}))}})),
        bad(row, &create("daemonsets.apps", "@")).with(template(json!({"containers": [{"image": "evil"}]}))),
        bad(row, &create("sandboxes.agents.x-k8s.io", "@")).with(json!({"spec": {"podTemplate": pod(json!({"serviceAccountName": "admin"}))}})),
        bad(row, &create("jobsets.jobset.x-k8s.io", "@")).with(json!({"spec": {"replicatedJobs": [{"template": {"spec": {"template": pod(json!({"containers": [{"image": "evil"}]}))}}}]}})),
        bad(row, &create("resourceclaims.resource.k8s.io", "@")).with(json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"adminAccess": true}}]}}})),
        bad(row, &create("resourceclaimtemplates.resource.k8s.io", "@")).with(json!({"spec": {"spec": {"devices": {"requests": [{"name": "r", "adminAccess": true}]}}}})),
        bad(row, &patch).merge(json!({"spec": {"template": {"spec": {"automountServiceAccountToken": null}}}})),
        bad(row, &patch).merge(json!({"spec": {"template": null}})),
        bad(row, &patch).apply(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "evil"}]}}}})),
        bad(row, &patch).apply(json!({"spec": {"template": {"spec": {"priority": 7}}}})),
        good(row, &pods).with(pod(json!({"serviceAccountName": "default", "priorityClassName": "zero"}))),
        good(row, &pods).with(pod(json!({"serviceAccountName": "own-abcdefgh", "automountServiceAccountToken": true, "priorityClassName": "own-abcdefgh",
            "volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}))),
        good(row, &pods).with(pod(json!({"priority": -5, "priorityClassName": "low", "nodeName": "n1", "schedulerName": "volcano"}))),
        good(row, &patch).merge(json!({"spec": {"replicas": 3}})),
        good(row, &create("resourceclaims.resource.k8s.io", "@")).with(json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "adminAccess": false}}]}}})),
        bad("claims", &claims).with(claim(json!({"volumeName": "pv-of-others"}))),
        bad("claims", &claims).with(claim(json!({"selector": {"matchLabels": {"a": "b"}}}))),
        bad("claims", &claims).with(claim(json!({"storageClassName": ""}))),
        bad("claims", &claims).with(claim(json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "theirs"}}))),
        bad("claims", &claims).with(claim(json!({"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "own-abcdefgh", "namespace": "tenant"}}))),
        bad("claims", &create("statefulsets.apps", "@")).with(json!({"spec": {"volumeClaimTemplates": [{"spec": {"volumeName": "pv"}}]}})),
        bad("claims", &pods).with(pod(json!({"volumes": [{"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": ""}}}}]}))),
        good("claims", &claims).with(claim(json!({"storageClassName": "fast", "dataSource": {"kind": "PersistentVolumeClaim", "name": "own-abcdefgh"}}))),
        good("claims", &own("update", "persistentvolumeclaims", "@")).with(claim(json!({"volumeName": "bound"}))),
        bad("snapshots", &snapshots).with(json!({"spec": {"source": {"persistentVolumeClaimName": "theirs"}}})),
        bad("snapshots", &snapshots).with(json!({"spec": {"source": {"volumeSnapshotContentName": "x"}}})),
        good("snapshots", &snapshots).with(json!({"spec": {"source": {"persistentVolumeClaimName": "own-abcdefgh"}}})),
    ]
}

fn rights() -> Vec<Shot> {
    let role = |groups: &str, resources: &str, verbs: &str, names: &[&str]| json!({"rules": [{"apiGroups": [groups], "resources": [resources], "verbs": [verbs], "resourceNames": names}]});
    let roles = create(ROLES, "@");
    let bindings = create(ROLE_BINDINGS, "@");
    let binding = |kind: &str, name: &str, subject: Value| json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}, "subjects": [subject]});
    let account = json!({"kind": "ServiceAccount", "name": "own-abcdefgh", "namespace": NS});
    let secrets = create("secrets", "@");
    vec![
        bad("roles", &roles).with(role("", "pods", "delete", &[])),
        bad("roles", &roles).with(role("", "*", "get", &[])),
        bad("roles", &roles).with(role("*", "pods", "get", &[])),
        bad("roles", &roles).with(role("", "serviceaccounts/token", "create", &[])),
        bad("roles", &roles).with(role("", "pods/status", "create", &[])),
        bad("roles", &roles).with(role("", "secrets", "get", &[])),
        bad("roles", &roles).with(role("", "pods", "impersonate", &[])),
        bad("roles", &roles).with(role("", "configmaps", "get", &[])),
        bad("roles", &roles).with(role("", "configmaps", "get", &["two"])),
        bad("roles", &roles).with(json!({"rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]})),
        bad("roles", &own("patch", ROLES, "@")).merge(json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]})),
        bad("roles", &own("patch", ROLES, "@")).merge(json!({"rules": {"0": 1}})),
        good("roles", &roles).with(role("", "pods", "get", &[])),
        good("roles", &roles).with(role("", "configmaps", "get", &["one"])),
        bad("role-bindings", &bindings).with(binding("ClusterRole", "cluster-admin", account.clone())),
        bad("role-bindings", &bindings).with(binding("Role", "theirs", account.clone())),
        bad("role-bindings", &bindings).with(binding("Role", "own-abcdefgh", json!({"kind": "Group", "name": "system:authenticated"}))),
        bad("role-bindings", &bindings).with(binding("Role", "own-abcdefgh", json!({"kind": "ServiceAccount", "name": "default", "namespace": "tenant"}))),
        bad("role-bindings", &own("patch", ROLE_BINDINGS, "@")).merge(json!({"subjects": [{"kind": "User", "name": "eve"}]})),
        good("role-bindings", &bindings).with(binding("Role", "own-abcdefgh", account)),
        bad("token-secrets", &secrets).with(json!({"type": "kubernetes.io/service-account-token", "metadata": {"annotations": {"kubernetes.io/service-account.name": "default"}}})),
        bad("token-secrets", &secrets).with(json!({"type": "bootstrap.kubernetes.io/token"})),
        good("token-secrets", &secrets).with(json!({"type": "Opaque", "stringData": {"a": "b"}})),
    ]
}

fn network() -> Vec<Shot> {
    let services = create("services", "@");
    let service = |spec: Value| json!({"spec": spec});
    let selected = |more: Value| {
        let mut spec = json!({"selector": {"app": "a"}, "ports": [{"port": 80}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"spec": spec})
    };
    let routes = create(ROUTES, "@");
    let route = |parent: Value, more: Value| {
        let mut spec = json!({"parentRefs": [parent], "rules": [{"matches": [{"path": {"value": "/abcdefgh/"}}], "backendRefs": [{"name": "own-abcdefgh"}]}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"spec": spec})
    };
    let mine = || json!({"name": "own-abcdefgh"});
    let shared = || json!({"name": "shared", "namespace": "infra"});
    const GRANTED: &str = "gateways = [\"infra/shared\"]";
    let gateways = create("gateways.gateway.networking.k8s.io", "@");
    let gateway = |more: Value| json!({"spec": {"listeners": [more]}});
    const PAID: &str = "load-balancers = true";
    let grants = create("referencegrants.gateway.networking.k8s.io", "@");
    let ingresses = create("ingresses.networking.k8s.io", "@");
    let ingress =
        |class: Value, rule: Value| json!({"spec": {"ingressClassName": class, "rules": [rule]}});
    let path = |text: &str| json!({"http": {"paths": [{"path": text, "pathType": "Prefix"}]}});
    const CLASS: &str = "ingress-classes = [\"nginx\"]";
    vec![
        bad("services", &services).with(service(json!({"ports": [{"port": 80}]}))),
        bad("services", &services).with(service(json!({"selector": {}}))),
        bad("services", &services).with(json!({})),
        bad("services", &services).with(service(json!({"type": "ExternalName", "externalName": "metadata.internal"}))),
        bad("services", &services).with(selected(json!({"externalIPs": ["10.0.0.1"]}))),
        bad("services", &services).with(selected(json!({"type": "LoadBalancer"}))),
        bad("services", &services).with(selected(json!({"type": "NodePort"}))),
        bad("services", &services).with(selected(json!({"clusterIP": "10.96.0.10"}))),
        bad("services", &services).with(selected(json!({"ports": [{"port": 80, "nodePort": 30000}]}))),
        bad("services", &own("patch", "services", "@")).merge(json!({"spec": {"selector": null}})),
        bad("services", &own("patch", "services", "@")).merge(json!({"spec": {"selector": {"app": null}}})),
        bad("services", &own("patch", "services", "@")).merge(json!({"spec": {"type": "ExternalName"}})),
        good("services", &services).with(selected(json!({"type": "ClusterIP", "clusterIP": "None"}))),
        good("services", &services).except("node-ports = true").with(selected(json!({"type": "NodePort"}))),
        good("services", &own("patch", "services", "@")).merge(json!({"spec": {"selector": {"switch": "high"}}})),
        bad("routes", &routes).with(route(shared(), json!({}))),
        bad("routes", &routes).except(GRANTED).with(route(shared(), json!({"hostnames": ["www.example.com"]}))),
        bad("routes", &routes).except(GRANTED).with(route(shared(), json!({"rules": [{"matches": [{"path": {"value": "/"}}]}]}))),
        bad("routes", &routes).except(GRANTED).with(route(shared(), json!({"rules": [{}]}))),
        bad("routes", &routes).except(GRANTED).with(route(shared(), json!({"rules": [{"matches": [{"path": {"type": "RegularExpression", "value": ".*abcdefgh|.*"}}]}]}))),
        bad("routes", &routes).with(route(mine(), json!({"rules": [{"backendRefs": [{"name": "db", "namespace": "tenant"}]}]}))),
        bad("routes", &routes).with(route(mine(), json!({"rules": [{"filters": [{"requestMirror": {"backendRef": {"name": "db", "namespace": "tenant"}}}]}]}))),
        bad("routes", &routes).with(route(json!({"kind": "Service", "group": "", "name": "web", "namespace": "tenant"}), json!({}))),
        bad("routes", &routes).with(json!({"spec": {}})),
        bad("routes", &create("tcproutes.gateway.networking.k8s.io", "@")).except(GRANTED).with(route(shared(), json!({}))),
        good("routes", &routes).with(route(mine(), json!({"hostnames": ["x.example"]}))),
        good("routes", &routes).except(GRANTED).with(route(shared(), json!({}))),
        bad("gateways", &gateways).with(gateway(json!({"port": 80}))),
        bad("gateways", &gateways).except(PAID).with(gateway(json!({"allowedRoutes": {"namespaces": {"from": "All"}}}))),
        bad("gateways", &gateways).except(PAID).with(gateway(json!({"tls": {"certificateRefs": [{"name": "c", "namespace": "tenant"}]}}))),
        good("gateways", &gateways).except(PAID).with(gateway(json!({"port": 80, "allowedRoutes": {"namespaces": {"from": "Same"}}}))),
        bad("reference-grants", &grants).with(json!({"spec": {"from": [{"namespace": "tenant"}]}})),
        bad("reference-grants", &grants).with(json!({"spec": {"from": [{"namespace": NS}, {"kind": "HTTPRoute"}]}})),
        good("reference-grants", &grants).with(json!({"spec": {"from": [{"namespace": NS}]}})),
        bad("ingresses", &ingresses).with(ingress(json!("nginx"), path("/abcdefgh"))),
        bad("ingresses", &ingresses).with(ingress(Value::Null, path("/abcdefgh"))),
        bad("ingresses", &ingresses).except(CLASS).with(ingress(json!("nginx"), path("/"))),
        bad("ingresses", &ingresses).except(CLASS).with(ingress(json!("nginx"), json!({"host": "www.example.com", "http": path("/abcdefgh")["http"]}))),
        bad("ingresses", &ingresses).except(CLASS).with(json!({"spec": {"ingressClassName": "nginx", "defaultBackend": {"service": {"name": "x"}}}})),
        good("ingresses", &ingresses).except(CLASS).with(ingress(json!("nginx"), path("/abcdefgh"))),
    ]
}

fn class(expression: &str) -> Value {
    json!({"spec": {"selectors": [{"cel": {"expression": expression}}]}})
}

fn slice(more: Value) -> Value {
    let mut spec = json!({
        "driver": "gpu-abcdefgh.karat.invalid",
        "pool": {"name": "abcdefgh", "generation": 1, "resourceSliceCount": 1},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["none-abcdefgh"]}]}]},
        "devices": [{"name": "d0"}],
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"spec": spec})
}

fn cluster() -> Vec<Shot> {
    let priorities = create("priorityclasses.scheduling.k8s.io", "-");
    let policies = create(POLICIES, "-");
    let bindings = create(BINDINGS, "-");
    let classes = create("deviceclasses.resource.k8s.io", "-");
    let slices = create("resourceslices.resource.k8s.io", "-");
    let ours = "device.driver == \"gpu-abcdefgh.karat.invalid\"";
    let terms = |requirement: Value| json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}});
    vec![
        bad("cluster-limit", &classes).crowd(20).with(class(ours)),
        bad("cluster-limit", &priorities).crowd(25).with(json!({"value": -5})),
        good("cluster-limit", &classes).with(class(ours)),
        bad("cluster-kinds", &create("runtimeclasses.node.k8s.io", "-")).with(json!({})),
        bad("cluster-kinds", &create("devicetaintrules.resource.k8s.io", "-")).with(json!({})),
        bad("cluster-kinds", "deletecollection storageclasses.storage.k8s.io - -"),
        good("cluster-kinds", &create("runtimeclasses.node.k8s.io", "-")).except("kinds = [\"runtimeclasses.node.k8s.io\"]").with(json!({})),
        bad("acts-outside", &create("externalsecrets.external-secrets.io", "@")).with(json!({})),
        bad("acts-outside", &create("virtualservices.networking.istio.io", "@")).with(json!({})),
        bad("acts-outside", "deletecollection servicemonitors.monitoring.coreos.com @ -"),
        good("acts-outside", &create("localqueues.kueue.x-k8s.io", "@")).with(json!({})),
        good("acts-outside", &create("scaledobjects.keda.sh", "@")).except("kinds = [\"scaledobjects.keda.sh\"]").with(json!({})),
        bad("priority-classes", &priorities).with(json!({"value": 0})),
        bad("priority-classes", &priorities).with(json!({})),
        bad("priority-classes", &priorities).with(json!({"value": "-5"})),
        bad("priority-classes", &priorities).with(json!({"value": -5, "globalDefault": true})),
        bad("priority-classes", &own("patch", "priorityclasses.scheduling.k8s.io", "-")).merge(json!({"globalDefault": true})),
        good("priority-classes", &priorities).with(json!({"value": -5, "globalDefault": false})),
        bad("admission-policies", &policies).with(json!({"spec": {}})),
        bad("admission-policies", &own("patch", POLICIES, "-")).merge(json!({"spec": {"matchConstraints": null}})),
        bad("admission-policies", &policies).with(json!({"spec": {"matchConstraints": {"resourceRules": {"0": {}}}}})),
        bad("admission-policies", &bindings).with(json!({"spec": {"policyName": "of-others"}})),
        bad("admission-policies", &bindings).with(json!({"spec": {"policyName": "own-abcdefgh", "paramRef": {"namespace": "tenant", "name": "x"}}})),
        bad("admission-policies", &own("patch", BINDINGS, "-")).merge(json!({"spec": {"matchResources": null}})),
        good("admission-policies", &policies).with(json!({"spec": {"matchConstraints": {"resourceRules": []}}})),
        good("admission-policies", &bindings).with(json!({"spec": {"policyName": "own-abcdefgh"}})),
        bad("device-classes", &classes).with(json!({"spec": {}})),
        bad("device-classes", &classes).with(class("device.driver == \"gpu.nvidia.com\"")),
        bad("device-classes", &classes).with(class(&format!("{ours} || true"))),
        bad("device-classes", &classes).with(class(&format!("{ours} ? true : true"))),
        bad("device-classes", &classes).with(class(&format!("true || {ours}"))),
        bad("device-classes", &classes).with(class(&format!("!({ours})"))),
        bad("device-classes", &classes).with(class(&format!("{ours} == false"))),
        bad("device-classes", &classes).with(class("device.driver == \"xabcdefgh.karat.invalid\"")),
        bad("device-classes", &classes).with(class("device.driver == \"gpu-abcdefgh.karat.invalid.example.com\"")),
        bad("device-classes", &classes).with(json!({"spec": {"selectors": [{"cel": {"expression": ours}}], "extendedResourceName": "nvidia.com/gpu"}})),
        bad("device-classes", &classes).with(json!({"spec": {"selectors": [{"cel": {"expression": ours}}], "config": [{"opaque": {"driver": "gpu.nvidia.com"}}]}})),
        bad("device-classes", &own("patch", "deviceclasses.resource.k8s.io", "-")).merge(json!({"spec": {"selectors": null}})),
        good("device-classes", &classes).with(class(&format!("{ours} && device.attributes[\"x\"].y"))),
        good("device-classes", &classes).with(class("  device.driver=='abcdefgh.karat.invalid'")),
        good("device-classes", &own("patch", "deviceclasses.resource.k8s.io", "-")).merge(json!({"metadata": {"labels": {"a": "b"}}})),
        bad("resource-slices", &slices).with(slice(json!({"driver": "gpu.nvidia.com"}))),
        bad("resource-slices", &slices).with(slice(json!({"pool": {"name": "n1"}}))),
        bad("resource-slices", &slices).with(slice(json!({"nodeName": "n1"}))),
        bad("resource-slices", &slices).with(slice(json!({"allNodes": true}))),
        bad("resource-slices", &slices).with(slice(json!({"nodeSelector": null}))),
        bad("resource-slices", &slices).with(slice(json!({"nodeSelector": {"nodeSelectorTerms": []}}))),
        bad("resource-slices", &slices).with(slice(terms(json!({"key": "a", "operator": "Exists"})))),
        bad("resource-slices", &slices).with(slice(terms(json!({"key": "a", "operator": "NotIn", "values": ["abcdefgh"]})))),
        bad("resource-slices", &slices).with(slice(terms(json!({"key": "a", "operator": "In", "values": ["abcdefgh", "n1"]})))),
        bad("resource-slices", &slices).with(slice(json!({"devices": [{"name": "d", "nodeName": "n1"}]}))),
        bad("resource-slices", &slices).with(slice(json!({"devices": [{"name": "d", "basic": {"allNodes": true}}]}))),
        bad("resource-slices", &own("patch", "resourceslices.resource.k8s.io", "-")).merge(json!({"spec": {"nodeName": "n1"}})),
        good("resource-slices", &slices).with(slice(json!({}))),
        good("resource-slices", &slices).with(slice(terms(json!({"key": "karat.internal/none", "operator": "In", "values": ["abcdefgh"]})))),
        good("resource-slices", &own("patch", "resourceslices.resource.k8s.io", "-")).merge(json!({"spec": {"pool": {"generation": 2}}})),
    ]
}
