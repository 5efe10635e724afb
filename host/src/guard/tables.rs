//! The data of the guards: the rows in order, and the lists that they look things up in.

use super::never::{Pattern, Verbs};
use super::{
    Row, RowKind, Rule, cluster, metadata, network, never, patch, rbac, secrets, templates,
    workload,
};

const fn writes(group: &'static str, resource: &'static str) -> Pattern {
    Pattern {
        group,
        resource,
        subresource: "*",
        verbs: Verbs::Writes,
    }
}

const fn any(group: &'static str, resource: &'static str, subresource: &'static str) -> Pattern {
    Pattern {
        group,
        resource,
        subresource,
        verbs: Verbs::All,
    }
}

const fn write_sub(subresource: &'static str) -> Pattern {
    Pattern {
        group: "*",
        resource: "*",
        subresource,
        verbs: Verbs::Writes,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

macro_rules! never {
    ($id:literal, $stops:literal, $why:literal, $patterns:expr) => {
        Row {
            id: $id,
            kind: RowKind::Never,
            stops: $stops,
            why: $why,
            rule: Rule::Patterns($patterns),
        }
    };
}

macro_rules! row {
    ($kind:ident, $id:literal, $stops:literal, $why:literal, $code:path) => {
        Row {
            id: $id,
            kind: RowKind::$kind,
            stops: $stops,
            why: $why,
            rule: Rule::Code($code),
        }
    };
}

/// Every row. Places first, since they need no body; then metadata, since later rows rely on it; then kinds.
pub(super) static ROWS: &[Row] = &[
    row!(
        Never,
        "verbs",
        "impersonate, escalate, bind, approve, sign, and verbs nobody knows",
        "they turn one permission into others",
        never::verbs
    ),
    never!(
        "token-request",
        "tokens of service accounts",
        "a token acts outside the door (Kubernetes RBAC good practices: token request)",
        &[any("", "serviceaccounts", "token")]
    ),
    never!(
        "node-proxy",
        "nodes/proxy",
        "a GET of it runs commands in every pod (kubernetes#119640)",
        &[any("", "nodes", "proxy")]
    ),
    row!(
        Never,
        "proxy",
        "pods/proxy and services/proxy as resources; by `http` and `metrics`, workloads of others that no line names",
        "the proxies reach whatever the control plane reaches (CVE-2021-25740), so each request says port and path, and its endpoints are looked at",
        never::proxy
    ),
    never!(
        "binding",
        "binding pods to nodes",
        "it walks around the scheduler and fakes its decision",
        &[any("", "pods", "binding"), writes("", "bindings")]
    ),
    never!(
        "attach",
        "attach and portforward",
        "they are streams into processes that nothing can record whole",
        &[any("", "pods", "attach"), any("", "pods", "portforward")]
    ),
    never!(
        "status",
        "writing any status",
        "a probe must not make its own evidence",
        &[write_sub("status")]
    ),
    never!(
        "finalize",
        "writing finalize and approval",
        "they end protections and approve what others asked for",
        &[write_sub("finalize"), write_sub("approval")]
    ),
    never!(
        "namespaces",
        "writing Namespaces",
        "the engine alone makes sandboxes, and deleting one deletes everything in it",
        &[writes("", "namespaces")]
    ),
    row!(
        Never,
        "nodes",
        "writing Nodes, except cordoning at reach `disruptive`",
        "a node's labels and taints decide where everybody's pods run",
        never::nodes
    ),
    never!(
        "cluster-roles",
        "writing ClusterRoles and their bindings",
        "they give rights in the whole cluster",
        &[
            writes(RBAC, "clusterroles"),
            writes(RBAC, "clusterrolebindings")
        ]
    ),
    never!(
        "webhooks",
        "webhook configurations and mutating admission policies",
        "a wrong one stops or changes every write of the cluster",
        &[
            writes(ADMISSION, "mutatingwebhookconfigurations"),
            writes(ADMISSION, "validatingwebhookconfigurations"),
            writes(ADMISSION, "mutatingadmissionpolicies"),
            writes(ADMISSION, "mutatingadmissionpolicybindings"),
        ]
    ),
    never!(
        "api-services",
        "APIServices",
        "they send part of the API to another server",
        &[writes("apiregistration.k8s.io", "apiservices")]
    ),
    never!(
        "definitions",
        "CustomResourceDefinitions",
        "deleting one deletes all its objects",
        &[writes("apiextensions.k8s.io", "customresourcedefinitions")]
    ),
    never!(
        "persistent-volumes",
        "PersistentVolumes",
        "a volume of type hostPath walks around Pod Security (kubernetes#81110)",
        &[writes("", "persistentvolumes")]
    ),
    never!(
        "snapshot-contents",
        "contents of volume snapshots",
        "they name data of others in the storage system",
        &[
            writes("snapshot.storage.k8s.io", "volumesnapshotcontents"),
            writes(
                "groupsnapshot.storage.k8s.io",
                "volumegroupsnapshotcontents"
            ),
        ]
    ),
    never!(
        "endpoints",
        "Endpoints and EndpointSlices",
        "they aim Services at any address (CVE-2021-25740)",
        &[
            writes("", "endpoints"),
            writes("discovery.k8s.io", "endpointslices")
        ]
    ),
    never!(
        "certificate-requests",
        "certificate requests and trust bundles",
        "a signed certificate is an identity outside the door",
        &[
            writes("certificates.k8s.io", "certificatesigningrequests"),
            writes("certificates.k8s.io", "clustertrustbundles"),
            writes("certificates.k8s.io", "podcertificaterequests"),
        ]
    ),
    never!(
        "reviews",
        "token, access and identity reviews",
        "they tell what the operator may do, and whether a token is good",
        &[
            any("authentication.k8s.io", "*", "*"),
            any("authorization.k8s.io", "*", "*")
        ]
    ),
    never!(
        "revisions",
        "ControllerRevisions",
        "they hold pod templates that no row can read",
        &[writes("apps", "controllerrevisions")]
    ),
    row!(
        Never,
        "unknown-subresource",
        "writing subresources that this table does not know",
        "nobody has looked at what they do",
        never::unknown_subresource
    ),
    row!(
        Never,
        "reach",
        "writes beyond the reach of the run",
        "the operator named how far the run may go",
        never::reach
    ),
    row!(
        Never,
        "foreign-namespace",
        "writes outside the probe's own namespaces",
        "a probe's objects must not meet those of others",
        never::namespace
    ),
    row!(
        Never,
        "foreign-object",
        "changing, deleting or entering objects that this probe did not create",
        "the one unforgivable mistake is to touch what belongs to others",
        never::foreign_object
    ),
    row!(
        Never,
        "foreign-secrets",
        "reading Secrets of others by any verb or selector",
        "even whether one exists is told by a selector",
        secrets::reads
    ),
    row!(
        Never,
        "pull-secrets",
        "any word of what the kubelet pulls images with",
        "its copies lie beside the probe's pods, and one that is mounted can be read",
        secrets::pulls
    ),
    row!(
        Checked,
        "collection",
        "deletion of collections is narrowed to this run and probe",
        "the server takes no uid with it",
        never::collection
    ),
    row!(
        Checked,
        "identity",
        "bodies that name another object than the request",
        "rows would look at one object and the server at another",
        metadata::identity
    ),
    row!(
        Checked,
        "run-name",
        "objects whose name does not end in the run id",
        "clean-up and readers of audit logs tell our objects by name",
        metadata::run_name
    ),
    row!(
        Checked,
        "reserved",
        "status, managedFields, and labels and annotations below our prefix",
        "they belong to the server and to the door",
        metadata::reserved
    ),
    row!(
        Never,
        "finalizers",
        "finalizers written by a guest",
        "they hang the clean-up for ever, and removing others' ends their protection",
        metadata::finalizers
    ),
    row!(
        Checked,
        "owners",
        "owner references to anything but objects of this probe in the same namespace",
        "the garbage collector would delete for the probe",
        metadata::owners
    ),
    row!(
        Checked,
        "json-patch",
        "JSON Patches of anything guarded, and `test` as an oracle",
        "a path can hit what a row would have to read",
        patch::json_patch
    ),
    row!(
        Checked,
        "acting-annotations",
        "annotations and labels by which controllers act outside the namespace",
        "DNS records, certificates, cloud identities and copies of objects are made by them",
        metadata::annotations
    ),
    row!(
        Checked,
        "cluster-limit",
        "more than 20 cluster-scoped objects of a run",
        "what a crash leaves must stay small",
        cluster::limit
    ),
    row!(
        Checked,
        "cluster-kinds",
        "cluster-scoped objects of kinds without a row here",
        "they concern everybody; the operator must name the kind",
        cluster::kinds
    ),
    row!(
        Checked,
        "acts-outside",
        "kinds whose controllers act outside the namespace",
        "they copy Secrets, buy nodes or change networks; the operator must name the kind",
        cluster::acts_outside
    ),
    row!(
        Checked,
        "pod-templates",
        "accounts, tokens, images, priorities and device access in pod templates of any kind",
        "pods made by controllers never pass the door",
        templates::pod_templates
    ),
    row!(
        Checked,
        "roles",
        "Roles that give more than the probe's own sandbox lines",
        "an account with a Role acts outside the door",
        rbac::roles
    ),
    row!(
        Checked,
        "role-bindings",
        "RoleBindings to other Roles or for others' accounts",
        "they would give rights to strangers",
        rbac::bindings
    ),
    row!(
        Never,
        "token-secrets",
        "Secrets that are filled with, or are, a credential",
        "a controller fills a service-account-token Secret with a token",
        secrets::types
    ),
    row!(
        Checked,
        "services",
        "Services without selector, with addresses, or that cost money or open nodes",
        "they aim the API server's proxy at any address",
        network::services
    ),
    row!(
        Checked,
        "routes",
        "routes on gateways of others without a path of this run",
        "they catch the traffic of others",
        network::routes
    ),
    row!(
        Checked,
        "gateways",
        "Gateways open to others, or without consent to their cost",
        "they start load balancers",
        network::gateways
    ),
    row!(
        Checked,
        "reference-grants",
        "ReferenceGrants to namespaces of others",
        "they open the sandbox",
        network::reference_grants
    ),
    row!(
        Checked,
        "ingresses",
        "Ingresses of shared classes without a path of this run",
        "they catch the traffic of others",
        network::ingresses
    ),
    row!(
        Checked,
        "claims",
        "claims that choose a volume or copy a source of others",
        "data of others would come into the sandbox",
        workload::claims
    ),
    row!(
        Checked,
        "snapshots",
        "snapshots of claims of others",
        "data of others would come into the sandbox",
        workload::snapshots
    ),
    row!(
        Checked,
        "priority-classes",
        "PriorityClasses of 0 and above, or the global default",
        "they push out pods of others",
        cluster::priority_classes
    ),
    row!(
        Checked,
        "admission-policies",
        "admission policies beyond the probe's own namespaces",
        "a wrong one stops the cluster; the door writes the selector",
        cluster::admission
    ),
    row!(
        Checked,
        "device-classes",
        "DeviceClasses that select devices of other drivers",
        "claims of others could name them and get devices unasked",
        cluster::device_classes
    ),
    row!(
        Checked,
        "resource-slices",
        "ResourceSlices of real drivers or for real nodes",
        "a kubelet would try to prepare their devices",
        cluster::resource_slices
    ),
];

/// Paths that a JSON Patch of this kind must not meet, as JSON pointers.
pub(super) fn guarded_paths(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "replicationcontrollers" | "podtemplates")
        | ("apps", "deployments" | "replicasets" | "daemonsets")
        | ("batch", "jobs") => &["/spec/template", "/template"],
        ("apps", "statefulsets") => &["/spec/template", "/spec/volumeClaimTemplates"],
        ("batch", "cronjobs") => &["/spec/jobTemplate"],
        ("", "pods" | "services" | "persistentvolumeclaims")
        | ("networking.k8s.io", "ingresses")
        | ("gateway.networking.k8s.io", _)
        | ("snapshot.storage.k8s.io", _)
        | (ADMISSION, _)
        | ("resource.k8s.io", _) => &["/spec"],
        ("scheduling.k8s.io", "priorityclasses") => &["/value", "/globalDefault"],
        ("", "secrets") => &["/type"],
        (RBAC, _) => &["/rules", "/subjects", "/roleRef", "/aggregationRule"],
        _ => &[],
    }
}

/// One kind a line: `plural.group`, or `*.group` for every kind of a group and the groups below it; then the reason.
const ACTS_OUTSIDE: &str = include_str!("acts-outside.txt");

/// One key a line, `prefix/` for every key below a prefix.
const ACTS_BY_ANNOTATION: &str = include_str!("acts-by-annotation.txt");

fn lines(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(char::is_whitespace).unwrap_or((line, "")))
}

/// Why the controllers of a kind act outside its namespace, if they do.
pub(super) fn acts_outside(group: &str, resource: &str) -> Option<&'static str> {
    if group.is_empty() {
        return None;
    }
    lines(ACTS_OUTSIDE)
        .find(|(pattern, _)| match pattern.strip_prefix("*.") {
            Some(domain) => group
                .strip_suffix(domain)
                .is_some_and(|front| front.is_empty() || front.ends_with('.')),
            None => pattern
                .strip_prefix(resource)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|rest| rest == group),
        })
        .map(|(_, why)| why.trim())
}

/// Whether a label or annotation makes a controller act outside the namespace.
pub(super) fn acts_by_annotation(key: &str) -> bool {
    lines(ACTS_BY_ANNOTATION).any(|(pattern, _)| {
        if pattern.ends_with('/') {
            key.starts_with(pattern)
        } else {
            key == pattern
        }
    })
}

#[cfg(test)]
pub(super) fn listed_kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    lines(ACTS_OUTSIDE)
}
