//! One object of each kind as a dry run, so that policies, quotas and injectors of a cluster speak up before a probe meets
//! them half-way.
//!
//! The objects are plain samples of ours, not what the probe will write; a refusal is a warning to look at, not a verdict.
//! Kinds without a sample are named as not tried. Nothing is stored: each request carries `dryRun=All`.

use crate::cluster::{ApiError, Cluster};
use crate::judge::is_authoriser;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Where and what to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Namespace for namespaced kinds.
    pub namespace: String,
    /// Kinds as in [`super::PlannedProbe::creates`].
    pub kinds: Vec<String>,
    /// An image for pods, by digest.
    pub image: Option<String>,
    /// Ends the names, so that a name of an existing object is not met.
    pub suffix: String,
}

/// What came of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// What happened.
    pub result: TrialResult,
}

/// What happened to a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "detail")]
pub enum TrialResult {
    /// The server would take it as it is.
    Accepted,
    /// The server would take it and change it, for instance add a container.
    Changed(Vec<String>),
    /// The server would refuse it.
    Refused(String),
    /// There is no sample of this kind, or the server does not serve it.
    NotTried(String),
}

/// Tries each kind once.
///
/// # Errors
/// The server cannot be reached. Answers, of whatever kind, are results.
pub async fn attempt(cluster: &Cluster, trial: &Trial) -> Result<Vec<Tried>, ApiError> {
    let mut tried = Vec::new();
    for kind in trial.kinds.iter().collect::<BTreeSet<_>>() {
        let Some(sample) = SAMPLES.iter().find(|sample| sample.kind == kind) else {
            tried.push(Tried {
                kind: kind.clone(),
                namespace: trial.namespace.clone(),
                result: TrialResult::NotTried("there is no sample of this kind".to_owned()),
            });
            continue;
        };
        let namespace = if sample.namespaced {
            trial.namespace.clone()
        } else {
            String::new()
        };
        let result = one(cluster, sample, trial).await?;
        tried.push(Tried {
            kind: kind.clone(),
            namespace,
            result,
        });
    }
    Ok(tried)
}

async fn one(cluster: &Cluster, sample: &Sample, trial: &Trial) -> Result<TrialResult, ApiError> {
    let Some(version) = served_version(cluster, sample).await? else {
        return Ok(TrialResult::NotTried(
            "the server does not serve it".to_owned(),
        ));
    };
    let name = format!("karat-trial-{}", trial.suffix);
    let mut object = (sample.body)(&version, trial);
    object["apiVersion"] = match sample.group {
        "" => json!(version),
        group => json!(format!("{group}/{version}")),
    };
    object["metadata"]["name"] = json!(name);
    let root = match sample.group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    let resource = sample.kind.split('.').next().unwrap_or(sample.kind);
    let path = if sample.namespaced {
        object["metadata"]["namespace"] = json!(trial.namespace);
        format!(
            "{root}/namespaces/{}/{resource}?dryRun=All",
            trial.namespace
        )
    } else {
        format!("{root}/{resource}?dryRun=All")
    };
    match cluster.create_json(&path, &object).await {
        Ok(answer) => {
            let changes = changes(&object, &answer);
            Ok(if changes.is_empty() {
                TrialResult::Accepted
            } else {
                TrialResult::Changed(changes)
            })
        }
        // What the account may do is asked beforehand, and a missing right says nothing about policies.
        Err(ApiError::Answered {
            code: 403, message, ..
        }) if is_authoriser(&message) => Ok(TrialResult::NotTried(
            "this account may not create it".to_owned(),
        )),
        Err(ApiError::Answered {
            code,
            reason,
            message,
            ..
        }) => {
            let said = if message.is_empty() { reason } else { message };
            Ok(TrialResult::Refused(format!(
                "{code}: {}",
                said.chars().take(500).collect::<String>()
            )))
        }
        Err(error) => Err(error),
    }
}

/// The newest version that the server prefers and we have a sample for; none when the group is not served.
async fn served_version(cluster: &Cluster, sample: &Sample) -> Result<Option<String>, ApiError> {
    if sample.group.is_empty() {
        return Ok(Some("v1".to_owned()));
    }
    let group = match cluster.get_json(&format!("/apis/{}", sample.group)).await {
        Ok(group) => group,
        Err(error) if error.code().is_some() => return Ok(None),
        Err(error) => return Err(error),
    };
    let preferred = group["preferredVersion"]["version"]
        .as_str()
        .unwrap_or_default();
    let served = |version: &str| {
        group["versions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["version"] == version))
    };
    Ok(sample
        .versions
        .iter()
        .find(|version| **version == preferred)
        .or_else(|| sample.versions.iter().find(|version| served(version)))
        .map(|version| (*version).to_owned()))
}

/// What somebody added: containers, and a service account or runtime class that was not asked for.
fn changes(sent: &Value, got: &Value) -> Vec<String> {
    let mut changes = Vec::new();
    for place in ["/spec", "/spec/template/spec"] {
        let Some(spec) = got.pointer(place) else {
            continue;
        };
        for list in ["containers", "initContainers"] {
            let names = |object: &Value| -> Vec<String> {
                object[list]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|container| container["name"].as_str().map(str::to_owned))
                    .take(16)
                    .collect()
            };
            let before = names(sent.pointer(place).unwrap_or(&Value::Null));
            for name in names(spec) {
                if !before.contains(&name) {
                    changes.push(format!("adds container {name}"));
                }
            }
        }
        for key in ["runtimeClassName", "priorityClassName"] {
            if let Some(value) = spec[key].as_str()
                && !value.is_empty()
            {
                changes.push(format!("sets {key} to {value}"));
            }
        }
    }
    changes
}

struct Sample {
    /// `deployments.apps`.
    kind: &'static str,
    group: &'static str,
    /// Versions that the body fits, newest first.
    versions: &'static [&'static str],
    namespaced: bool,
    body: fn(version: &str, trial: &Trial) -> Value,
}

const SAMPLES: &[Sample] = &[
    Sample {
        kind: "pods",
        group: "",
        versions: &["v1"],
        namespaced: true,
        body: |_, trial| json!({"kind": "Pod", "spec": pod(trial)}),
    },
    Sample {
        kind: "services",
        group: "",
        versions: &["v1"],
        namespaced: true,
        body: |_, _| json!({"kind": "Service", "spec": {"selector": {"karat.internal/trial": "x"}, "ports": [{"port": 80}]}}),
    },
    Sample {
        kind: "configmaps",
        group: "",
        versions: &["v1"],
        namespaced: true,
        body: |_, _| json!({"kind": "ConfigMap"}),
    },
    Sample {
        kind: "secrets",
        group: "",
        versions: &["v1"],
        namespaced: true,
        body: |_, _| json!({"kind": "Secret"}),
    },
    Sample {
        kind: "serviceaccounts",
        group: "",
        versions: &["v1"],
        namespaced: true,
        body: |_, _| json!({"kind": "ServiceAccount"}),
    },
    Sample {
        kind: "persistentvolumeclaims",
        group: "",
        versions: &["v1"],
        namespaced: true,
        body: |_, _| json!({"kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}),
    },
    Sample {
        kind: "deployments.apps",
        group: "apps",
        versions: &["v1"],
        namespaced: true,
        body: |_, trial| json!({"kind": "Deployment", "spec": {"replicas": 1, "selector": selector(), "template": template(trial)}}),
    },
    Sample {
        kind: "statefulsets.apps",
        group: "apps",
        versions: &["v1"],
        namespaced: true,
        body: |_, trial| json!({"kind": "StatefulSet", "spec": {"serviceName": "x", "replicas": 1, "selector": selector(), "template": template(trial)}}),
    },
    Sample {
        kind: "replicasets.apps",
        group: "apps",
        versions: &["v1"],
        namespaced: true,
        body: |_, trial| json!({"kind": "ReplicaSet", "spec": {"replicas": 1, "selector": selector(), "template": template(trial)}}),
    },
    Sample {
        kind: "jobs.batch",
        group: "batch",
        versions: &["v1"],
        namespaced: true,
        body: |_, trial| {
            let mut template = template(trial);
            template["spec"]["restartPolicy"] = json!("Never");
            json!({"kind": "Job", "spec": {"template": template}})
        },
    },
    Sample {
        kind: "resourceclaims.resource.k8s.io",
        group: "resource.k8s.io",
        versions: DRA,
        namespaced: true,
        body: |version, _| json!({"kind": "ResourceClaim", "spec": claim(version)}),
    },
    Sample {
        kind: "resourceclaimtemplates.resource.k8s.io",
        group: "resource.k8s.io",
        versions: DRA,
        namespaced: true,
        body: |version, _| json!({"kind": "ResourceClaimTemplate", "spec": {"spec": claim(version)}}),
    },
    Sample {
        kind: "deviceclasses.resource.k8s.io",
        group: "resource.k8s.io",
        versions: DRA,
        namespaced: false,
        body: |_, _| json!({"kind": "DeviceClass", "spec": {}}),
    },
    Sample {
        kind: "resourceslices.resource.k8s.io",
        group: "resource.k8s.io",
        versions: DRA,
        namespaced: false,
        body: |_, trial| {
            let pool = json!({"name": format!("trial-{}", trial.suffix), "generation": 1, "resourceSliceCount": 1});
            json!({"kind": "ResourceSlice", "spec": {"driver": "trial.karat.invalid", "pool": pool, "allNodes": true}})
        },
    },
    Sample {
        kind: "namespaces",
        group: "",
        versions: &["v1"],
        namespaced: false,
        body: |_, _| json!({"kind": "Namespace", "metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}),
    },
    Sample {
        kind: "horizontalpodautoscalers.autoscaling",
        group: "autoscaling",
        versions: &["v2"],
        namespaced: true,
        body: |_, _| json!({"kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}}),
    },
    Sample {
        kind: "networkpolicies.networking.k8s.io",
        group: "networking.k8s.io",
        versions: &["v1"],
        namespaced: true,
        body: |_, _| json!({"kind": "NetworkPolicy", "spec": {"podSelector": {}}}),
    },
    Sample {
        kind: "poddisruptionbudgets.policy",
        group: "policy",
        versions: &["v1"],
        namespaced: true,
        body: |_, _| json!({"kind": "PodDisruptionBudget", "spec": {"minAvailable": 0, "selector": selector()}}),
    },
    Sample {
        kind: "priorityclasses.scheduling.k8s.io",
        group: "scheduling.k8s.io",
        versions: &["v1"],
        namespaced: false,
        body: |_, _| json!({"kind": "PriorityClass", "value": -1000}),
    },
];

/// Versions of dynamic resource allocation whose forms [`claim`] knows.
const DRA: &[&str] = &["v1", "v1beta2", "v1beta1"];

fn claim(version: &str) -> Value {
    let request = match version {
        "v1beta1" => json!({"name": "one", "deviceClassName": "trial.karat.invalid"}),
        _ => json!({"name": "one", "exactly": {"deviceClassName": "trial.karat.invalid"}}),
    };
    json!({"devices": {"requests": [request]}})
}

fn selector() -> Value {
    json!({"matchLabels": {"karat.internal/trial": "x"}})
}

fn template(trial: &Trial) -> Value {
    json!({"metadata": {"labels": {"karat.internal/trial": "x"}}, "spec": pod(trial)})
}

/// A pod that the strictest Pod Security level takes.
fn pod(trial: &Trial) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "trial",
            "image": trial.image.as_deref().unwrap_or("registry.k8s.io/pause:3.10"),
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "32Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::sync::{Arc, Mutex};

    /// Answers every request by a function of method, path with query, and body.
    fn scripted(
        answer: impl Fn(&str, &str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Cluster {
        let answer = Arc::new(answer);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let answer = answer.clone();
            async move {
                let method = request.method().to_string();
                let path = request
                    .uri()
                    .path_and_query()
                    .map_or(String::new(), ToString::to_string);
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = answer(&method, &path, &body);
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

    fn trial(kinds: &[&str]) -> Trial {
        Trial {
            namespace: "here".to_owned(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            image: None,
            suffix: "abc".to_owned(),
        }
    }

    #[tokio::test]
    async fn every_request_is_a_dry_run() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let cluster = scripted(move |method, path, body| {
            if method == "GET" {
                let version = json!({"version": "v1"});
                return (
                    200,
                    json!({"preferredVersion": version, "versions": [version]}),
                );
            }
            log.lock().unwrap().push(path.to_owned());
            (201, body.clone())
        });
        let kinds: Vec<&str> = SAMPLES.iter().map(|sample| sample.kind).collect();
        let tried = attempt(&cluster, &trial(&kinds)).await.unwrap();
        let seen = seen.lock().unwrap();
        assert!(seen.len() >= SAMPLES.len() - 1, "{seen:?}");
        assert!(
            seen.iter().all(|path| path.ends_with("?dryRun=All")),
            "{seen:?}"
        );
        assert!(seen.contains(&"/apis/resource.k8s.io/v1/deviceclasses?dryRun=All".to_owned()));
        assert!(seen.contains(&"/api/v1/namespaces/here/pods?dryRun=All".to_owned()));
        let pods = tried.iter().find(|one| one.kind == "pods").unwrap();
        assert_eq!(pods.result, TrialResult::Accepted);
    }

    #[tokio::test]
    async fn policies_and_injectors_speak_up() {
        let cluster = scripted(|_, path, body| {
            if path.contains("/services") {
                return (
                    403,
                    json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "policy says no"}),
                );
            }
            if path.contains("/configmaps") {
                let message = "configmaps is forbidden: User \"bob\" cannot create resource \"configmaps\" in API group \"\"";
                return (
                    403,
                    json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": message}),
                );
            }
            let mut answer = body.clone();
            answer["spec"]["containers"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "istio-proxy"}));
            (201, answer)
        });
        let tried = attempt(
            &cluster,
            &trial(&["configmaps", "services", "pods", "widgets.example.com"]),
        )
        .await
        .unwrap();
        let results: Vec<_> = tried
            .into_iter()
            .map(|one| (one.kind, one.result))
            .collect();
        assert_eq!(
            results,
            [
                (
                    "configmaps".to_owned(),
                    TrialResult::NotTried("this account may not create it".to_owned())
                ),
                (
                    "pods".to_owned(),
                    TrialResult::Changed(vec!["adds container istio-proxy".to_owned()])
                ),
                (
                    "services".to_owned(),
                    TrialResult::Refused("403: policy says no".to_owned())
                ),
                (
                    "widgets.example.com".to_owned(),
                    TrialResult::NotTried("there is no sample of this kind".to_owned())
                ),
            ]
        );
    }

    #[tokio::test]
    async fn the_served_version_decides_the_form() {
        let cluster = scripted(|method, path, body| match method {
            "GET" => (
                200,
                json!({"preferredVersion": {"version": "v1beta1"}, "versions": [{"version": "v1beta1"}]}),
            ),
            _ => {
                assert!(path.starts_with("/apis/resource.k8s.io/v1beta1/"), "{path}");
                assert!(
                    body["spec"]["devices"]["requests"][0]["deviceClassName"].is_string(),
                    "{body}"
                );
                (201, body.clone())
            }
        });
        let tried = attempt(&cluster, &trial(&["resourceclaims.resource.k8s.io"]))
            .await
            .unwrap();
        assert_eq!(tried[0].result, TrialResult::Accepted);
    }

    #[tokio::test]
    async fn groups_that_are_not_served_are_not_tried() {
        let cluster = scripted(|_, _, _| (404, json!({"kind": "Status", "code": 404})));
        let tried = attempt(&cluster, &trial(&["resourceclaims.resource.k8s.io"]))
            .await
            .unwrap();
        assert_eq!(
            tried[0].result,
            TrialResult::NotTried("the server does not serve it".to_owned())
        );
    }
}
