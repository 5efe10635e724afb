//! Asks a cluster whether the operator's account may do what a plan needs. Creates nothing: reviews are answers, not
//! objects.
//!
//! Every access is asked one by one with a SelfSubjectAccessReview, because a rules review may be incomplete where another
//! authoriser than RBAC is at work. The answer is the server's word and no promise: policies speak later ([`super::trial`]).

use super::{RUN_PLACEHOLDER, accesses, group_resource, rbac, writes};
use crate::cluster::{ApiError, Cluster};
use crate::images::PullSecretName;
use crate::manifest::{Manifest, Scope};
use crate::model::ClusterRecord;
use crate::recording::format::{Access, ResourceAccess};
use crate::run_lease::{self, Holder};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Reviews that are asked at one time.
const AT_ONCE: usize = 8;

/// Most reviews of one plan. A manifest that asks for more than this asks for everything.
const REVIEWS_MAX: usize = 2000;

/// What the engine itself does in a run that writes: API group, resource, verbs, and whether in the run's own namespaces.
const ENGINE_NEEDS: &[(&str, &str, &[&str], bool)] = &[
    (
        "",
        "namespaces",
        &["get", "list", "create", "delete"],
        false,
    ),
    ("", "nodes", &["list"], false),
    ("scheduling.k8s.io", "priorityclasses", &["list"], false),
    ("", "secrets", &["get", "create"], true),
    ("", "resourcequotas", &["get", "create"], true),
    ("", "serviceaccounts", &["patch"], true),
    ("", "pods", &["create", "list"], true),
    ("", "persistentvolumeclaims", &["list"], true),
];

/// What the engine looks at before a probe's request to a workload of its own, as [`ENGINE_NEEDS`].
const TARGET_NEEDS: &[(&str, &str, &[&str], bool)] = &[
    ("", "services", &["get"], true),
    ("", "pods", &["get", "list"], true),
    ("discovery.k8s.io", "endpointslices", &["list"], true),
];

/// What the engine does with the Lease of runs: verbs, and whether the name is known then.
const LEASE_NEEDS: &[(&str, bool)] = &[
    ("create", false),
    ("get", true),
    ("patch", true),
    ("delete", true),
];

/// What the engine does for a probe with an account of its own, as [`ENGINE_NEEDS`]. To impersonate is a right over every
/// account of a namespace, so it is asked for only then.
const ACCOUNT_NEEDS: &[(&str, &str, &[&str], bool)] = &[
    (
        "",
        "serviceaccounts",
        &["get", "create", "delete", "impersonate"],
        true,
    ),
    (RBAC, "roles", &["get", "create", "delete"], true),
    (RBAC, "rolebindings", &["get", "create", "delete"], true),
    (RBAC, "clusterroles", &["get", "create", "delete"], false),
    (
        RBAC,
        "clusterrolebindings",
        &["get", "create", "delete"],
        false,
    ),
];

/// What the engine does for the witness of a run, as [`ENGINE_NEEDS`], with the subresource.
const WITNESS_NEEDS: &[(&str, &str, &str)] = &[
    ("serviceaccounts", "", "get"),
    ("serviceaccounts", "", "create"),
    ("serviceaccounts", "token", "create"),
];

/// The issuer's documents, which go into the witness.
const WITNESS_PATHS: &[&str] = &["/.well-known/openid-configuration", "/openid/v1/jwks"];

const RBAC: &str = "rbac.authorization.k8s.io";

/// What a cluster said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preflight {
    /// Address of the server.
    pub server: String,
    /// What identifies the cluster.
    pub cluster: ClusterRecord,
    /// The account's name as the server sees it; empty where the server does not say.
    pub username: String,
    /// How many accesses were asked for.
    pub asked: usize,
    /// Accesses that the account does not have.
    pub missing: Vec<Missing>,
    /// The same as YAML that grants them; none when nothing is missing.
    pub rbac: Option<String>,
    /// The run that holds the cluster's Lease now, which a run that writes would have to wait for.
    pub held_by: Option<Holder>,
}

/// An access that the account does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// `create pods in the run's namespaces`.
    pub what: String,
    /// The server's explanation; often empty.
    pub reason: String,
    /// Probe ids that need it; `karat` is the engine itself.
    pub needed_by: Vec<String>,
}

/// Asks for everything that these probes may do, and for what the engine does when one of them writes or the run has a
/// witness.
///
/// # Errors
/// The server cannot be reached, or refuses to answer reviews.
pub async fn preflight(
    cluster: &Cluster,
    manifests: &[&Manifest],
    enforced: &BTreeSet<String>,
    witness: bool,
    pull_secrets: &[PullSecretName],
) -> Result<Preflight, ApiError> {
    let record = identify(cluster).await?;
    let username = username(cluster).await;
    let needs: Vec<(Access, Vec<String>)> = needs(manifests, enforced, witness, pull_secrets)
        .into_iter()
        .take(REVIEWS_MAX)
        .collect();
    let asked = needs.len();
    let refused: Vec<Option<(Access, Missing)>> = stream::iter(needs)
        .map(|(access, needed_by)| async move {
            let (allowed, reason) = review(cluster, &access).await?;
            Ok::<_, ApiError>((!allowed).then(|| {
                let missing = Missing {
                    what: describe(&access),
                    reason,
                    needed_by,
                };
                (access, missing)
            }))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let (mut accesses, mut missing): (Vec<Access>, Vec<Missing>) =
        refused.into_iter().flatten().unzip();
    for manifest in manifests {
        // Where something is missing anyway, that is the reason.
        if missing.is_empty()
            && enforced.contains(&manifest.id)
            && let Some(reason) = cannot_give(cluster, manifest).await?
        {
            for (access, what) in escalations() {
                missing.push(Missing {
                    what,
                    reason: reason.clone(),
                    needed_by: vec![manifest.id.clone()],
                });
                accesses.push(access);
            }
        }
    }
    Ok(Preflight {
        server: cluster.server().to_owned(),
        cluster: record,
        rbac: rbac::yaml(&accesses, &rbac::Subject::of_username(&username)),
        username,
        asked,
        missing,
        // Who may not look learns that from what is missing.
        held_by: run_lease::seen(cluster)
            .await
            .ok()
            .flatten()
            .map(|seen| seen.holder),
    })
}

/// Whether the server would let the operator give a probe's account its lines, seen by the dry run of a ClusterRole. The
/// server lets nobody give what he does not hold through RBAC himself; what another authoriser allows does not count.
async fn cannot_give(cluster: &Cluster, manifest: &Manifest) -> Result<Option<String>, ApiError> {
    let rules: Vec<Value> = manifest
        .permissions
        .iter()
        .map(|line| {
            if !line.non_resource.is_empty() {
                return json!({"nonResourceURLs": line.non_resource, "verbs": ["get"]});
            }
            let mut rule = json!({"apiGroups": line.api_groups, "resources": line.resources, "verbs": line.verbs});
            if !line.names.is_empty() {
                rule["resourceNames"] = json!(line.names);
            }
            rule
        })
        .collect();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": format!("karat-trial-{RUN_PLACEHOLDER}")}, "rules": rules,
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All";
    match cluster.create_json(path, &role).await {
        Err(ApiError::Answered {
            code: 403, message, ..
        }) if message.contains("not currently held") => {
            Ok(Some(message.chars().take(500).collect()))
        }
        Err(error) if error.code().is_none() => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// What lets an operator give rights that he does not hold through RBAC himself.
fn escalations() -> impl Iterator<Item = (Access, String)> {
    [
        ("escalate", "roles"),
        ("bind", "roles"),
        ("escalate", "clusterroles"),
        ("bind", "clusterroles"),
    ]
    .into_iter()
    .map(|(verb, resource)| {
        let access = Access::Resource(ResourceAccess {
            verb: verb.to_owned(),
            group: RBAC.to_owned(),
            resource: resource.to_owned(),
            namespace: if resource == "roles" {
                sandbox()
            } else {
                String::new()
            },
            ..ResourceAccess::default()
        });
        let what = describe(&access);
        (access, what)
    })
}

/// Before a log or a command the engine reads the pod.
fn looked_up(access: &Access) -> Option<Access> {
    let Access::Resource(at) = access else {
        return None;
    };
    let is_inside = matches!(
        (
            at.verb.as_str(),
            at.resource.as_str(),
            at.subresource.as_str()
        ),
        ("get", "pods", "log") | ("create", "pods", "exec")
    );
    is_inside.then(|| {
        Access::Resource(ResourceAccess {
            verb: "get".to_owned(),
            subresource: String::new(),
            ..at.clone()
        })
    })
}

/// Every access once, with who needs it.
fn needs(
    manifests: &[&Manifest],
    enforced: &BTreeSet<String>,
    witness: bool,
    pull_secrets: &[PullSecretName],
) -> BTreeMap<Access, Vec<String>> {
    let mut needs: BTreeMap<Access, Vec<String>> = BTreeMap::new();
    let mut add = |access: Access, who: &str| {
        let who_needs = needs.entry(access).or_default();
        if !who_needs.iter().any(|known| known == who) {
            who_needs.push(who.to_owned());
        }
    };
    for manifest in manifests {
        for line in &manifest.permissions {
            for mut access in accesses(manifest, line) {
                // All sandboxes are alike to an authoriser that cannot know them, so one stands for all.
                if let Access::Resource(resource) = &mut access
                    && rbac::is_sandbox(resource)
                {
                    resource.namespace = sandbox();
                }
                if let Some(looked_up) = looked_up(&access) {
                    add(looked_up, "karat");
                }
                add(access, &manifest.id);
            }
        }
    }
    let accounts = manifests
        .iter()
        .any(|manifest| enforced.contains(&manifest.id));
    for manifest in manifests {
        // Roles in namespaces of others, for lines that name one.
        for line in &manifest.permissions {
            if let (Scope::Namespace(name), true) = (&line.scope, enforced.contains(&manifest.id)) {
                for resource in ["roles", "rolebindings"] {
                    for verb in ["get", "create", "delete"] {
                        let access = ResourceAccess {
                            verb: verb.to_owned(),
                            group: RBAC.to_owned(),
                            resource: resource.to_owned(),
                            namespace: name.clone(),
                            ..ResourceAccess::default()
                        };
                        add(Access::Resource(access), "karat");
                    }
                }
            }
        }
    }
    if manifests.iter().any(|manifest| !manifest.images.is_empty()) {
        for secret in pull_secrets {
            let access = ResourceAccess {
                verb: "get".to_owned(),
                resource: "secrets".to_owned(),
                namespace: secret.namespace.clone(),
                name: secret.name.clone(),
                ..ResourceAccess::default()
            };
            add(Access::Resource(access), "karat");
        }
    }
    let writes = accounts || manifests.iter().any(|manifest| writes(manifest));
    if witness {
        for (resource, subresource, verb) in WITNESS_NEEDS {
            let access = ResourceAccess {
                verb: (*verb).to_owned(),
                resource: (*resource).to_owned(),
                subresource: (*subresource).to_owned(),
                namespace: sandbox(),
                ..ResourceAccess::default()
            };
            add(Access::Resource(access), "karat");
        }
        for path in WITNESS_PATHS {
            let path = (*path).to_owned();
            add(Access::NonResource { path }, "karat");
        }
    }
    if writes {
        let lease = run_lease::lease_ref();
        for (verb, named) in LEASE_NEEDS {
            let access = ResourceAccess {
                verb: (*verb).to_owned(),
                group: lease.group.clone(),
                resource: lease.resource.clone(),
                namespace: lease.namespace.clone(),
                name: if *named {
                    lease.name.clone()
                } else {
                    String::new()
                },
                ..ResourceAccess::default()
            };
            add(Access::Resource(access), "karat");
        }
    }
    if writes || witness {
        let account_needs = if accounts { ACCOUNT_NEEDS } else { &[] };
        let target_needs = if manifests.iter().any(|manifest| asks_workloads(manifest)) {
            TARGET_NEEDS
        } else {
            &[]
        };
        let engine = ENGINE_NEEDS.iter().chain(account_needs).chain(target_needs);
        for (group, resource, verbs, in_sandbox) in engine {
            for verb in *verbs {
                let access = ResourceAccess {
                    verb: (*verb).to_owned(),
                    group: (*group).to_owned(),
                    resource: (*resource).to_owned(),
                    namespace: if *in_sandbox {
                        sandbox()
                    } else {
                        String::new()
                    },
                    ..ResourceAccess::default()
                };
                add(Access::Resource(access), "karat");
            }
        }
    }
    needs
}

/// Whether a probe may send requests to workloads of its own.
fn asks_workloads(manifest: &Manifest) -> bool {
    let is_proxy = |resource: &String| matches!(resource.as_str(), "services/proxy" | "pods/proxy");
    manifest
        .permissions
        .iter()
        .any(|line| line.scope == Scope::Sandbox && line.resources.iter().any(is_proxy))
}

fn sandbox() -> String {
    crate::names::home_namespace(RUN_PLACEHOLDER)
}

/// What identifies the cluster: its version, and the uid of `kube-system` where the account may see it.
///
/// # Errors
/// No answer to `/version`.
pub async fn identify(cluster: &Cluster) -> Result<ClusterRecord, ApiError> {
    let version = cluster.get_json("/version").await?;
    let uid = match cluster.get_json("/api/v1/namespaces/kube-system").await {
        Ok(namespace) => text(&namespace["metadata"]["uid"]),
        Err(error) if error.code().is_some() => String::new(),
        Err(error) => return Err(error),
    };
    Ok(ClusterRecord {
        uid,
        server_version: text(&version["gitVersion"]),
    })
}

/// The account's name; servers before 1.28 and some gateways do not tell.
async fn username(cluster: &Cluster) -> String {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    match cluster
        .create_json("/apis/authentication.k8s.io/v1/selfsubjectreviews", &body)
        .await
    {
        Ok(answer) => text(&answer["status"]["userInfo"]["username"]),
        Err(_) => String::new(),
    }
}

async fn review(cluster: &Cluster, access: &Access) -> Result<(bool, String), ApiError> {
    let spec = match access {
        // Every authenticated user may read discovery documents.
        Access::Discovery => return Ok((true, String::new())),
        Access::NonResource { path } => {
            json!({"nonResourceAttributes": {"path": path, "verb": "get"}})
        }
        Access::Resource(resource) => json!({"resourceAttributes": {
            "verb": resource.verb,
            "group": resource.group,
            "resource": resource.resource,
            "subresource": resource.subresource,
            "namespace": resource.namespace,
            "name": resource.name,
        }}),
    };
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec,
    });
    let answer = cluster
        .create_json(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &body,
        )
        .await?;
    let status = &answer["status"];
    let mut reason = text(&status["reason"]);
    if reason.is_empty() {
        reason = text(&status["evaluationError"]);
    }
    Ok((status["allowed"].as_bool().unwrap_or(false), reason))
}

fn describe(access: &Access) -> String {
    match access {
        Access::Discovery => "read discovery documents".to_owned(),
        Access::NonResource { path } => format!("get {path}"),
        Access::Resource(resource) => {
            let mut kind = group_resource(&resource.group, &resource.resource);
            if !resource.subresource.is_empty() {
                kind = format!(
                    "{}/{}",
                    group_resource(&resource.group, &resource.resource),
                    resource.subresource
                );
            }
            if !resource.name.is_empty() {
                kind = format!("{kind} {}", resource.name);
            }
            let place = if resource.namespace.is_empty() {
                "in the whole cluster".to_owned()
            } else if rbac::is_sandbox(resource) {
                "in the run's namespaces".to_owned()
            } else {
                format!("in namespace {}", resource.namespace)
            };
            format!("{} {kind} {place}", resource.verb)
        }
    }
}

/// Text of the server, shortened: a reason may hold a whole policy.
fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(500)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::manifest;
    use super::*;
    use crate::manifest::{ImageLine, ImageSource};
    use crate::model::Reach;
    use http_body_util::BodyExt as _;

    /// An API server that answers reviews by a rule and knows its version.
    fn scripted(allowed: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Cluster {
        let allowed = std::sync::Arc::new(allowed);
        let service = tower_service_fn(move |request: http::Request<kube::client::Body>| {
            let allowed = allowed.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = match path.as_str() {
                    "/version" => (200, json!({"gitVersion": "v1.37.0"})),
                    "/apis/coordination.k8s.io/v1/namespaces/default/leases/karat-run" => {
                        (200, json!({"spec": {"holderIdentity": "k7f2mq3a"}}))
                    }
                    "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
                        (201, json!({"status": {"userInfo": {"username": "jane"}}}))
                    }
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => (
                        201,
                        json!({"status": {"allowed": allowed(&body["spec"]), "reason": "because"}}),
                    ),
                    _ => (
                        403,
                        json!({"kind": "Status", "reason": "Forbidden", "code": 403}),
                    ),
                };
                Ok::<_, std::convert::Infallible>(
                    http::Response::builder()
                        .status(code)
                        .header("content-type", "application/json")
                        .body(kube::client::Body::from(answer.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        Cluster::for_test(kube::Client::new(service, "default"))
    }

    use tower::service_fn as tower_service_fn;

    #[tokio::test]
    async fn an_administrator_misses_nothing() {
        let manifest = manifest("a", Reach::Sandbox, 1);
        let found = preflight(
            &scripted(|_| true),
            &[&manifest],
            &BTreeSet::new(),
            false,
            &[],
        )
        .await
        .unwrap();
        assert_eq!(found.missing, []);
        assert_eq!(found.rbac, None);
        assert_eq!(found.username, "jane");
        assert_eq!(found.held_by.unwrap().run, "k7f2mq3a");
        assert_eq!(found.cluster.server_version, "v1.37.0");
        assert_eq!(found.cluster.uid, "", "forbidden is no error here");
    }

    #[tokio::test]
    async fn what_is_missing_is_named_once_with_those_who_need_it() {
        let (a, b) = (
            manifest("a", Reach::Sandbox, 1),
            manifest("b", Reach::Sandbox, 1),
        );
        let cluster = scripted(|spec| {
            let resource = &spec["resourceAttributes"];
            !(resource["resource"] == "pods" && resource["verb"] == "create")
        });
        let found = preflight(&cluster, &[&a, &b], &BTreeSet::new(), false, &[])
            .await
            .unwrap();
        let what: Vec<_> = found
            .missing
            .iter()
            .map(|missing| (missing.what.as_str(), missing.needed_by.join(" ")))
            .collect();
        assert_eq!(
            what,
            [
                (
                    "create pods in the run's namespaces",
                    "a b karat".to_owned()
                ),
                ("create pods/log in the run's namespaces", "a b".to_owned()),
            ]
        );
        let yaml = found.rbac.unwrap();
        assert!(
            yaml.contains("resources: [\"pods\", \"pods/log\"]\n  verbs: [\"create\"]"),
            "{yaml}"
        );
        assert!(yaml.contains("kind: User\n  name: \"jane\""), "{yaml}");
    }

    #[tokio::test]
    async fn a_pull_secret_is_asked_for_by_name_where_a_probe_starts_images() {
        let mut starter = manifest("a", Reach::Sandbox, 1);
        let cluster = scripted(|spec| {
            let resource = &spec["resourceAttributes"];
            !(resource["resource"] == "secrets" && resource["namespace"] == "registries")
        });
        let secrets = [PullSecretName::parse("registries/pull").unwrap()];
        let none = preflight(&cluster, &[&starter], &BTreeSet::new(), false, &secrets)
            .await
            .unwrap();
        assert_eq!(none.missing, []);
        starter.images.push(ImageLine {
            name: "pause".to_owned(),
            source: ImageSource::Own("pause".to_owned()),
        });
        let found = preflight(&cluster, &[&starter], &BTreeSet::new(), false, &secrets)
            .await
            .unwrap();
        assert_eq!(found.missing.len(), 1, "{:?}", found.missing);
        assert_eq!(found.missing[0].needed_by, ["karat"]);
        let yaml = found.rbac.unwrap();
        assert!(
            yaml.contains("namespace: \"registries\"")
                && yaml.contains("resourceNames: [\"pull\"]\n  verbs: [\"get\"]"),
            "{yaml}"
        );
    }

    #[tokio::test]
    async fn probes_without_namespaces_need_nothing_for_the_engine() {
        let mut reader = manifest("a", Reach::Read, 1);
        assert!(writes(&reader));
        reader.namespaces.clear();
        reader.permissions.remove(0);
        let found = preflight(
            &scripted(|_| false),
            &[&reader],
            &BTreeSet::new(),
            false,
            &[],
        )
        .await
        .unwrap();
        assert_eq!(found.asked, 1);
        assert_eq!(
            found.missing[0].what,
            "create deviceclasses in the whole cluster"
        );
        assert_eq!(found.missing[0].reason, "because");
    }

    #[tokio::test]
    async fn a_log_needs_that_the_engine_may_read_the_pod() {
        let mut reader = manifest("a", Reach::Read, 1);
        reader.namespaces.clear();
        let line = &mut reader.permissions[0];
        line.scope = Scope::Namespace("kube-system".to_owned());
        line.resources = vec!["pods/log".to_owned()];
        line.verbs = vec!["get".to_owned()];
        reader.permissions.truncate(1);
        let cluster = scripted(|spec| spec["resourceAttributes"]["subresource"] == "log");
        let found = preflight(&cluster, &[&reader], &BTreeSet::new(), false, &[])
            .await
            .unwrap();
        assert_eq!(found.missing.len(), 1, "{:?}", found.missing);
        assert_eq!(found.missing[0].what, "get pods in namespace kube-system");
        assert_eq!(found.missing[0].needed_by, ["karat"]);
    }

    #[tokio::test]
    async fn an_account_of_its_own_needs_the_right_to_act_as_it() {
        let mut reader = manifest("a", Reach::Read, 1);
        reader.namespaces.clear();
        let enforced = BTreeSet::from(["a".to_owned()]);
        let cluster = scripted(|spec| spec["resourceAttributes"]["verb"] != "impersonate");
        let found = preflight(&cluster, &[&reader], &enforced, false, &[])
            .await
            .unwrap();
        let what: Vec<_> = found.missing.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(
            what,
            ["impersonate serviceaccounts in the run's namespaces"]
        );
        let yaml = found.rbac.unwrap();
        assert!(yaml.contains("act as every service account"), "{yaml}");
    }

    #[tokio::test]
    async fn a_witness_needs_a_home_and_tokens_whatever_the_probes_do() {
        let mut reader = manifest("a", Reach::Read, 1);
        reader.namespaces.clear();
        let cluster = scripted(|spec| spec["resourceAttributes"]["subresource"] != "token");
        let found = preflight(&cluster, &[&reader], &BTreeSet::new(), true, &[])
            .await
            .unwrap();
        let what: Vec<_> = found.missing.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(
            what,
            ["create serviceaccounts/token in the run's namespaces"]
        );
        let yaml = found.rbac.unwrap();
        assert!(yaml.contains("Who may ask for tokens"), "{yaml}");
        let none = preflight(
            &scripted(|_| false),
            &[&reader],
            &BTreeSet::new(),
            true,
            &[],
        )
        .await
        .unwrap();
        let what: Vec<_> = none.missing.iter().map(|one| one.what.as_str()).collect();
        for needed in [
            "get /openid/v1/jwks",
            "create namespaces in the whole cluster",
            "create serviceaccounts in the run's namespaces",
        ] {
            assert!(what.contains(&needed), "{what:?}");
        }
        assert!(!what.iter().any(|one| one.contains("leases")), "{what:?}");
    }

    #[tokio::test]
    async fn rights_that_cannot_be_given_on_need_escalate_and_bind() {
        let service = tower_service_fn(|request: http::Request<kube::client::Body>| async move {
            let answer = match request.uri().path() {
                "/version" => (200, json!({"gitVersion": "v1.37.0"})),
                "/apis/rbac.authorization.k8s.io/v1/clusterroles" => (
                    403,
                    json!({"kind": "Status", "code": 403, "message": "user \"jane\" is attempting to grant RBAC permissions not currently held"}),
                ),
                _ => (201, json!({"status": {"allowed": true}})),
            };
            Ok::<_, std::convert::Infallible>(
                http::Response::builder()
                    .status(answer.0)
                    .body(kube::client::Body::from(answer.1.to_string().into_bytes()))
                    .unwrap(),
            )
        });
        let cluster = Cluster::for_test(kube::Client::new(service, "default"));
        let manifest = manifest("a", Reach::Sandbox, 1);
        let enforced = BTreeSet::from(["a".to_owned()]);
        let found = preflight(&cluster, &[&manifest], &enforced, false, &[])
            .await
            .unwrap();
        assert_eq!(found.missing.len(), 4, "{:?}", found.missing);
        assert!(found.missing[0].reason.contains("not currently held"));
        assert!(found.rbac.unwrap().contains("escalate"));
        let off = preflight(&cluster, &[&manifest], &BTreeSet::new(), false, &[])
            .await
            .unwrap();
        assert_eq!(off.missing, []);
    }
}
