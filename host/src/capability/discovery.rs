//! Discovery documents, reduced to what probes ask for: groups, versions, resources, verbs, subresources.
//!
//! Two aggregated documents where the server has them (two requests for any number of groups), one per group version
//! otherwise. A group whose server is down stands in the answer as `"stale": true`: that something is registered and broken
//! is worth knowing, and no reason to know nothing of the others.

use crate::cluster::{Request, encode};
use crate::gate::{Answer, Content, Trouble, Wire};
use crate::recording::format::Failure;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
/// Largest discovery document. A cluster with a thousand CRDs has some 3 MB.
const DOCUMENT_MAX: u64 = 32 << 20;

pub(super) async fn discover(wire: &Wire) -> Result<Answer, Trouble> {
    let version = document(wire, "/version", "application/json").await?;
    let mut groups = Vec::new();
    for root in ["/api", "/apis"] {
        let found = document(wire, root, AGGREGATED).await?;
        match found["kind"].as_str() {
            Some("APIGroupDiscoveryList") => groups.extend(aggregated(&found)),
            Some("APIVersions") => groups.push(core(wire, &found).await?),
            Some("APIGroupList") => {
                for group in list(&found["groups"]) {
                    groups.push(one_group(wire, group).await?);
                }
            }
            _ => {
                let text = format!("{root} answered something that is no discovery document");
                return Err(Failure::NoAnswer(text).into());
            }
        }
    }
    let code = 200;
    let document = json!({"version": version, "groups": groups});
    Ok(Answer::live(Content::Document(document), code))
}

async fn document(wire: &Wire, path: &str, accept: &'static str) -> Result<Value, Trouble> {
    let mut request = Request::get(path).limited(DOCUMENT_MAX);
    request.accept = accept;
    let answer = wire.ask(request).await?;
    serde_json::from_slice(&answer.body)
        .map_err(|e| Trouble::Foreign(Failure::NoAnswer(format!("{path} answered no JSON: {e}"))))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn aggregated(document: &Value) -> Vec<Value> {
    let group = |item: &Value| {
        let versions: Vec<Value> = list(&item["versions"])
            .enumerate()
            .map(|(at, version)| {
                let resources: Vec<Value> = list(&version["resources"]).map(resource).collect();
                // The server sorts versions by preference.
                let mut entry = json!({
                    "version": version["version"], "preferred": at == 0, "resources": resources,
                });
                if version["freshness"] == "Stale" {
                    entry["stale"] = json!(true);
                }
                entry
            })
            .collect();
        json!({"group": word(&item["metadata"]["name"]), "versions": versions})
    };
    list(&document["items"]).map(group).collect()
}

fn resource(found: &Value) -> Value {
    let subresources: Vec<&Value> = list(&found["subresources"])
        .map(|sub| &sub["subresource"])
        .collect();
    json!({
        "name": found["resource"], "kind": found["responseKind"]["kind"], "namespaced": found["scope"] == "Namespaced",
        "verbs": found["verbs"], "subresources": subresources,
    })
}

async fn core(wire: &Wire, found: &Value) -> Result<Value, Trouble> {
    let mut versions = Vec::new();
    for (at, version) in list(&found["versions"]).enumerate() {
        let path = format!("/api/{}", encode(word(version)));
        versions.push(one_version(wire, &path, word(version), at == 0).await?);
    }
    Ok(json!({"group": "", "versions": versions}))
}

async fn one_group(wire: &Wire, group: &Value) -> Result<Value, Trouble> {
    let name = word(&group["name"]);
    let preferred = word(&group["preferredVersion"]["version"]);
    let mut versions = Vec::new();
    for version in list(&group["versions"]) {
        let version = word(&version["version"]);
        let path = format!("/apis/{}/{}", encode(name), encode(version));
        versions.push(one_version(wire, &path, version, version == preferred).await?);
    }
    Ok(json!({"group": name, "versions": versions}))
}

/// One group version from its `APIResourceList`.
async fn one_version(
    wire: &Wire,
    path: &str,
    version: &str,
    preferred: bool,
) -> Result<Value, Trouble> {
    let mut entry = json!({"version": version, "preferred": preferred, "resources": []});
    let found = match document(wire, path, "application/json").await {
        Ok(found) => found,
        Err(Trouble::Answered(code, body)) => {
            let (reason, _) = crate::cluster::status_of(&body);
            entry["stale"] = json!(true);
            entry["error"] = json!(format!("{code} {reason}").trim_end());
            return Ok(entry);
        }
        Err(other) => return Err(other),
    };
    let mut resources: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut subresources: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for item in list(&found["resources"]) {
        let name = word(&item["name"]);
        if let Some((parent, sub)) = name.split_once('/') {
            subresources
                .entry(parent.to_owned())
                .or_default()
                .push(json!(sub));
        } else {
            let mut entry = Map::new();
            for key in ["name", "kind", "namespaced", "verbs"] {
                entry.insert(key.to_owned(), item[key].clone());
            }
            resources.insert(name.to_owned(), entry);
        }
    }
    entry["resources"] = resources
        .into_iter()
        .map(|(name, mut entry)| {
            let subs = subresources.remove(&name).unwrap_or_default();
            entry.insert("subresources".to_owned(), subs.into());
            Value::Object(entry)
        })
        .collect();
    Ok(entry)
}
