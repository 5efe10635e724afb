//! The state of a cluster as one comparable value, to show that a run changed nothing that was there before.

use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, ListParams};
use kube::discovery::{Discovery, verbs};
use std::collections::BTreeMap;

/// Kinds that change by themselves on an idle cluster: heartbeats and notes about the past.
const RESTLESS: [&str; 2] = ["Event", "Lease"];

/// Object to uid and content.
pub type State = BTreeMap<String, String>;

/// Every object of every listable resource: `apiVersion/Kind namespace/name` to uid and everything but status and
/// bookkeeping. Two states of a cluster that nobody touched are equal.
pub async fn of(client: &kube::Client) -> Result<State> {
    let discovery = Discovery::new(client.clone())
        .run()
        .await
        .context("discover the API")?;
    let mut state = BTreeMap::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST)
                || RESTLESS.contains(&resource.kind.as_str())
            {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let list = api
                .list(&ListParams::default())
                .await
                .with_context(|| format!("list {}", resource.plural))?;
            for object in list {
                let name = object.metadata.name.clone().unwrap_or_default();
                let namespace = object.metadata.namespace.clone().unwrap_or_default();
                let uid = object.metadata.uid.clone().unwrap_or_default();
                let mut value = serde_json::to_value(&object)?;
                if let Some(top) = value.as_object_mut() {
                    top.remove("status");
                    if let Some(meta) = top.get_mut("metadata").and_then(|m| m.as_object_mut()) {
                        meta.remove("managedFields");
                        meta.remove("resourceVersion");
                        meta.remove("generation");
                    }
                }
                state.insert(
                    format!(
                        "{}/{} {namespace}/{name}",
                        resource.api_version, resource.kind
                    ),
                    format!("{uid} {value}"),
                );
            }
        }
    }
    Ok(state)
}

/// The state without what other runs of Karat have in the cluster at the moment: tests share one.
pub fn without_other_runs(state: State, run: &str) -> State {
    let ours = format!("karat-{run}-");
    state
        .into_iter()
        .filter(|(key, _)| !key.contains("karat-") || key.contains(&ours))
        .collect()
}

/// What differs between two states, one line each; empty when they are equal.
pub fn differences(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let gone = before
        .keys()
        .filter(|key| !after.contains_key(*key))
        .map(|key| format!("gone: {key}"));
    let new = after
        .keys()
        .filter(|key| !before.contains_key(*key))
        .map(|key| format!("new: {key}"));
    let changed = before.iter().filter_map(|(key, was)| {
        after
            .get(key)
            .filter(|is| *is != was)
            .map(|is| format!("changed: {key}\n  was {was}\n  is  {is}"))
    });
    gone.chain(new).chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::differences;
    use std::collections::BTreeMap;

    #[test]
    fn names_what_is_gone_new_and_changed() {
        let before = BTreeMap::from([("a".into(), "1".into()), ("b".into(), "1".into())]);
        let after = BTreeMap::from([("b".into(), "2".into()), ("c".into(), "1".into())]);
        let lines = differences(&before, &after);
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with("gone: a")
                && lines[1].starts_with("new: c")
                && lines[2].starts_with("changed: b")
        );
        assert!(differences(&before, &before).is_empty());
    }
}
