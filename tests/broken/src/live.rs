//! Tests on a real control plane: ingredients do what they say and go without a trace, and a few entries run as the whole
//! table does. The whole table is `cargo xtask mutants`.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use karat_testbed::ControlPlane;
use karat_testbed::proxy::Proxy;
use karat_tests::state;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::actors;
use crate::data::Make;
use crate::one::Surroundings;
use crate::place::{self, api, place};
use crate::pool::{self, Progress};
use crate::rules::RuleData;
use crate::table;
use crate::verdict::Mark;

fn make(yaml: &str) -> Result<Make> {
    Ok(serde_yaml_ng::from_str(yaml)?)
}

async fn proxy(lab: &ControlPlane, yaml: &str) -> Result<Proxy> {
    let rules: Vec<RuleData> = serde_yaml_ng::from_str(yaml)?;
    let mut proxy = lab.proxy();
    for rule in rules {
        proxy = proxy.rule(rule.rule()?);
    }
    Ok(proxy.start().await?)
}

async fn maps(client: &Client, namespace: &str) -> Result<Api<DynamicObject>> {
    api(client, "v1", "ConfigMap", Some(namespace)).await
}

async fn namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces = api(client, "v1", "Namespace", None).await?;
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let object = serde_json::from_value(object)?;
    namespaces.create(&PostParams::default(), &object).await?;
    Ok(())
}

fn map(name: &str) -> Result<DynamicObject> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"of": name}}, "data": {"a": "1"}});
    Ok(serde_json::from_value(object)?)
}

fn code<T>(result: kube::Result<T>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(answer)) => Some(answer.code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_do_what_they_say() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let (direct, new) = (lab.client().await?, PostParams::default());
    namespace(&direct, "rules").await?;
    let stored = maps(&direct, "rules").await?;
    let data = |object: &DynamicObject| object.data["data"].clone();

    let rules = "
- {method: DELETE, path: /configmaps/, times: 1, swallow: true}
- {method: PATCH, path: /configmaps/, fail: {code: 503, reason: ServiceUnavailable, message: not now}}
- {method: POST, path: /configmaps$, requests: [{where: {/metadata/name: {matches: ^mended}}, set: {/data/a: '2', /data/b: x}}]}
";
    let through = proxy(lab, rules).await?;
    let seen = maps(&through.client().await?, "rules").await?;
    seen.create(&new, &map("mended")?).await?;
    seen.create(&new, &map("plain")?).await?;
    let mended = stored.get("mended").await?;
    ensure!(data(&mended) == json!({"a": "2", "b": "x"}), "{mended:?}");
    ensure!(data(&stored.get("plain").await?) == json!({"a": "1"}));
    let patch = kube::api::Patch::Merge(json!({"data": {"a": "3"}}));
    ensure!(
        code(
            seen.patch("plain", &kube::api::PatchParams::default(), &patch)
                .await
        ) == Some(503)
    );
    seen.delete("plain", &DeleteParams::default()).await?;
    ensure!(
        stored.get_opt("plain").await?.is_some(),
        "the first delete happened"
    );
    seen.delete("plain", &DeleteParams::default()).await?;
    ensure!(
        stored.get_opt("plain").await?.is_none(),
        "the second did not"
    );

    let rules = "
- {method: GET, path: /configmaps$, drop-parameter: labelSelector}
- method: GET
  path: /configmaps/
  objects:
  - {where: {/metadata/name: secret}, hide: true}
  - {set: {/data/a: shown}, remove: [/data/b]}
";
    let through = proxy(lab, rules).await?;
    let seen = maps(&through.client().await?, "rules").await?;
    stored.create(&new, &map("secret")?).await?;
    let list = seen
        .list(&ListParams::default().labels("of=mended"))
        .await?;
    ensure!(list.items.len() >= 2, "the selector was heeded");
    ensure!(code(seen.get("secret").await) == Some(404));
    ensure!(data(&seen.get("mended").await?) == json!({"a": "shown"}));
    ensure!(data(&stored.get("mended").await?) == json!({"a": "2", "b": "x"}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_act_once_where_they_shall() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let client = lab.client().await?;
    namespace(&client, "actors").await?;
    let maps = maps(&client, "actors").await?;
    let yaml = "
controllers:
- {api-version: v1, kind: ConfigMap, namespace: ^actors$, name: ^patched, when: {/data/a: '1'}, patch: {data: {by: '{name} in {namespace}'}}}
- {api-version: v1, kind: ConfigMap, namespace: ^actors$, name: ^freed, gone: true, times: 1, create: {apiVersion: v1, kind: ConfigMap, metadata: {name: 'taken-{name}', namespace: '{namespace}'}}}
- {api-version: v1, kind: ConfigMap, namespace: ^actors$, name: ^doomed, delete: true}
";
    let made = make(yaml)?;
    let mut acting = Vec::new();
    for data in &made.controllers {
        data.check()?;
        acting.push(actors::start(client.clone(), data).await?);
    }
    for name in ["patched", "freed", "freed-2", "doomed", "other"] {
        maps.create(&PostParams::default(), &map(name)?).await?;
    }
    for name in ["freed", "freed-2"] {
        maps.delete(name, &DeleteParams::default()).await?;
    }
    lab.wait_until("the controllers have acted", async || {
        let list = maps.list(&ListParams::default()).await;
        let list = list.map_err(|e| e.to_string())?.items;
        let names: Vec<String> = list.iter().map(DynamicObject::name_any).collect();
        let patched = list
            .iter()
            .any(|o| o.data["data"]["by"] == "patched in actors");
        let taken = names.iter().any(|n| n.starts_with("taken-freed"));
        let doomed = names.iter().any(|n| n == "doomed");
        (patched && taken && !doomed)
            .then_some(())
            .ok_or_else(|| format!("{names:?}"))
    })
    .await?;
    let mut notes = Vec::new();
    for mut actor in acting {
        for made in actor.stop().await {
            place::remove(lab, &client, &made).await?;
        }
        notes.extend(actor.notes());
    }
    let list = maps.list(&ListParams::default()).await?.items;
    ensure!(
        !list.iter().any(|o| o.name_any().starts_with("taken-")),
        "what a controller made stays"
    );
    ensure!(notes.len() == 3, "each acts once: {notes:?}");
    let other = maps.get("other").await?;
    ensure!(other.data["data"]["by"] == Value::Null, "{other:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_placed_goes_without_a_trace() -> Result<()> {
    // Of its own: the others make namespaces meanwhile.
    let lab = ControlPlane::builder().start().await?;
    let client = lab.client().await?;
    let before = state::of(&client).await?;
    let yaml = "
fixtures: [exhausted-pool.yaml]
crowd: {nodes: 5, pods: 10, definitions: 3}
objects: |
  apiVersion: v1
  kind: Namespace
  metadata: {name: placed}
  ---
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: a, namespace: placed}
  ---
  apiVersion: admissionregistration.k8s.io/v1
  kind: ValidatingAdmissionPolicy
  metadata: {name: no-such.example}
  spec:
    matchConstraints:
      resourceRules:
      - {apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
    validations: [{expression: 'object.metadata.name != \"no-such\"', message: no such map}]
  ---
  apiVersion: admissionregistration.k8s.io/v1
  kind: ValidatingAdmissionPolicyBinding
  metadata: {name: no-such.example}
  spec: {policyName: no-such.example, validationActions: [Deny]}
until:
- {api-version: v1, kind: Pod, namespace: exhausted, where: {/status/phase: Running}}
- {api-version: v1, kind: Pod, namespace: busy-tenant, where: {/status/phase: Running}}
- dry-run: {apiVersion: v1, kind: ConfigMap, metadata: {name: no-such, namespace: placed}}
  refused: no such map
- dry-run: {apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: placed}}
  where: {/metadata/name: other}
";
    let placed = place(&lab, &make(yaml)?).await?;
    // A definition's own objects can be listed only a moment later.
    lab.wait_until("everything is there", async || {
        let there = state::of(&client).await.map_err(|e| format!("{e:#}"))?;
        let all = [
            "v1/Node /busy-tenant-4",
            "v1/ConfigMap placed/a",
            "v1/Pod busy-tenant/busy-tenant-9",
            "apiextensions.k8s.io/v1/CustomResourceDefinition /things2.busy-2.example",
        ];
        let missing: Vec<_> = all
            .iter()
            .filter(|key| !there.contains_key(**key))
            .collect();
        missing
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("{missing:?}"))
    })
    .await?;
    placed.remove().await?;
    lab.wait_until("everything is as it was", async || {
        let now = state::of(&client).await.map_err(|e| format!("{e:#}"))?;
        let changed = state::differences(&before, &now);
        changed
            .is_empty()
            .then_some(())
            .ok_or_else(|| changed.join("; "))
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_found_and_cleared_as_by_the_command() -> Result<()> {
    let names = [
        "healthy",
        "lists-ignore-their-selector",
        "flawed-objects-are-accepted",
    ];
    let mut entries = table::load(&table::folder())?;
    entries.retain(|e| e.probe == "dra-support" && names.contains(&e.name.as_str()));
    ensure!(entries.len() == names.len(), "{entries:?}");
    // One that cannot be: the cluster is healthy, and is said to be broken.
    let mut lie = entries[0].clone();
    lie.name = "lie".into();
    lie.conforming = false;
    lie.expect = serde_yaml_ng::from_str("{verdict: fail}")?;
    entries.push(lie);
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).map(PathBuf::from);
    let around = Surroundings {
        components: target.context("no target folder")?.join("components"),
        record_below: None,
        images: karat_engine::images::Images::default(),
    };
    let told = Mutex::new(Vec::new());
    let done = pool::run(entries, 1, &around, &|progress| {
        if let Progress::Done(done) = progress {
            told.lock().unwrap().push(done.entry.name.clone());
        }
    })
    .await;
    let mark = |name: &str| {
        let mut found = done.iter().filter(|d| d.entry.name == name);
        found.next().map(|d| (d.mark, d.wrong.clone()))
    };
    ensure!(
        mark("healthy") == Some((Mark::Cleared, vec![])),
        "{done:#?}"
    );
    for name in &names[1..] {
        ensure!(mark(name) == Some((Mark::Found, vec![])), "{done:#?}");
    }
    ensure!(mark("lie").is_some_and(|(mark, _)| mark == Mark::Missed));
    ensure!(told.lock().unwrap().len() == 4);
    Ok(())
}
