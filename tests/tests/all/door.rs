//! The door in front of a real API server: what the server does with the identities that the door puts into writes, what
//! lists, watches and discovery look like, and whether the audit log names every call.

use anyhow::{Context, Result, ensure};
use karat_engine::capability::kube_read::{Query, discover, get, open_list, raw};
use karat_engine::capability::kube_write::{
    Target, create, delete, delete_collection, patch, replace,
};
use karat_engine::capability::snapshot::open_snapshot;
use karat_engine::capability::wait;
use karat_engine::capability::watch::{Watch, open_watch};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::gate::Door;
use karat_engine::manifest::Manifest;
use karat_engine::model::Outcome;
use karat_engine::recording::Player;
use karat_engine::recording::format::Failure;
use karat_engine::scratch::Scratch;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const RUN: &str = "doorabcd";
const SANDBOX: &str = "karat-doorabcd-door-main";
const MANIFEST: &str = r#"
id = "door"
version = "0.1.0"
title = "Walks through the door"
claim = "the door works"
misleads = "it is a test"
contract = "0.1.0-dev.1"
requirements = ["test.example/door"]
reach = "sandbox"
capabilities = ["kube-read", "kube-write"]
permissions = [
  { api-groups = [""], resources = ["configmaps"], verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"], scope = "sandbox", why = "test" },
  { api-groups = [""], resources = ["namespaces"], verbs = ["get", "list"], scope = "cluster", why = "test" },
  { non-resource = ["/version"], why = "test" },
]
namespaces = [{ alias = "main" }]
snapshots = [{ api-version = "v1", resource = "namespaces", keep = ["/status/phase"] }]
cases = [
  { id = "one", kind = "observation", required = "always", claim = "the door works", effect = ["configmaps"] },
]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_enforces_what_the_door_writes() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let cluster = Cluster::connect(ConnectOptions {
        kubeconfig: Some(lab.kubeconfig()),
        ..ConnectOptions::default()
    })
    .await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SANDBOX}});
    let made = cluster
        .create_json("/api/v1/namespaces", &namespace)
        .await?;
    let folder = tempfile::tempdir()?;
    let (door, manifest) = door(&cluster, folder.path())?;
    walk(&door, &cluster).await?;

    let usage = door.usage(0);
    ensure!(usage.requests > 20, "{usage:?}");
    door.finish(Outcome::Concluded, usage, BTreeMap::new(), Vec::new())
        .map_err(anyhow::Error::msg)?;

    // The same walk once more, from the recording alone.
    let player = Player::open(&folder.path().join("attempt-1"))?;
    let sequences: Vec<u64> = player
        .recording()
        .entries()
        .iter()
        .filter(|entry| entry.facts.live && entry.facts.event.is_empty())
        .map(|entry| entry.sequence)
        .collect();
    let replay = Door::replay(player, manifest);
    reads(&replay).await?;
    ensure!(replay.ended().is_none(), "{:?}", replay.ended());

    // Whoever holds the audit log finds each live call in it.
    lab.wait_until("the audit log to name every call", || async {
        let events = lab.audit_events().map_err(|error| error.to_string())?;
        let ids: Vec<&str> = events
            .iter()
            .filter_map(|event| event["auditID"].as_str())
            .collect();
        let missing = sequences
            .iter()
            .map(|sequence| format!("karat-{RUN}-door-{sequence}-1"))
            .find(|id| !ids.contains(&id.as_str()));
        missing.map_or(Ok(()), Err)
    })
    .await?;
    let uid = made["metadata"]["uid"].as_str().context("a uid")?;
    ensure!(
        cluster
            .delete_uid(&format!("/api/v1/namespaces/{SANDBOX}"), uid)
            .await?
    );
    Ok(())
}

/// Everything that only reads what every cluster has; also what the replay repeats.
async fn reads(door: &Door) -> Result<()> {
    let discovery: Value = serde_json::from_str(&ok(discover(door).await)?)?;
    let groups = discovery["groups"].as_array().context("groups")?;
    let core = groups
        .iter()
        .find(|group| group["group"] == "")
        .context("the core group")?;
    let resources = core["versions"][0]["resources"]
        .as_array()
        .context("resources")?;
    let pods = resources
        .iter()
        .find(|it| it["name"] == "pods")
        .context("pods")?;
    ensure!(
        pods["kind"] == "Pod" && pods["namespaced"] == true,
        "{pods}"
    );
    ensure!(
        pods["subresources"]
            .as_array()
            .is_some_and(|subs| subs.contains(&json!("log"))),
        "{pods}"
    );
    ensure!(groups.iter().any(|group| group["group"] == "apps"));
    ensure!(
        discovery["version"]["gitVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("v1."))
    );
    let version = ok(raw(door, "/version").await)?;
    ensure!(
        version.code == 200 && version.body.contains("gitVersion"),
        "{version:?}"
    );

    let query = Query {
        keep: vec!["/status/phase".to_owned()],
        ..Query::new("v1", "namespaces")
    };
    let mut snapshot = ok(open_snapshot(door, &query).await)?;
    let page = ok(snapshot.next(door).await)?.context("a page")?;
    ensure!(
        page.iter()
            .any(|text| text.contains("kube-system") && text.contains("Active")),
        "{page:?}"
    );
    ensure!(
        page.iter()
            .all(|text| text.contains(r#""kind":"Namespace""#)),
        "{page:?}"
    );
    ensure!(ok(snapshot.next(door).await)?.is_none());
    Ok(())
}

async fn walk(door: &Door, cluster: &Cluster) -> Result<()> {
    reads(door).await?;
    let target = Target {
        namespace: Some(SANDBOX.to_owned()),
        ..Target::new("v1", "configmaps")
    };
    let query = Query {
        namespace: Some(SANDBOX.to_owned()),
        labels: "app=walk".to_owned(),
        ..Query::new("v1", "configmaps")
    };
    let watch = ok(open_watch(door, &query).await)?;
    expect(door, &watch, "synced", "").await?;

    let name = "walk-doorabcd";
    let made = ok(create(door, &target, &map(name, "1")).await)?;
    ensure!(!made.contains("managedFields"), "{made}");
    expect(door, &watch, "added", name).await?;
    ok(replace(door, &target, name, &map(name, "2")).await)?;
    expect(door, &watch, "modified", r#""k":"2""#).await?;
    for (kind, body, wanted) in [
        ("merge", json!({"data": {"k": "3"}}), r#""k":"3""#),
        (
            "json",
            json!([{"op": "replace", "path": "/data/k", "value": "4"}]),
            r#""k":"4""#,
        ),
        (
            "apply",
            json!({"kind": "ConfigMap", "metadata": {"name": name}, "data": {"l": "5"}}),
            r#""l":"5""#,
        ),
    ] {
        let got = ok(patch(door, &target, name, kind, &body.to_string()).await)?;
        ensure!(
            got.contains(wanted) && got.contains("karat.internal/seal"),
            "{kind}: {got}"
        );
        expect(door, &watch, "modified", wanted).await?;
    }

    // Somebody deletes the object and makes another one of the same name: no write of ours may hit that one.
    let path = format!("/api/v1/namespaces/{SANDBOX}/configmaps");
    let ours = cluster.get_json(&format!("{path}/{name}")).await?;
    let uid = ours["metadata"]["uid"].as_str().context("a uid")?;
    ensure!(
        !cluster
            .delete_uid(
                &format!("{path}/{name}"),
                "00000000-0000-4000-8000-000000000000"
            )
            .await?
    );
    ensure!(cluster.delete_uid(&format!("{path}/{name}"), uid).await?);
    expect(door, &watch, "deleted", name).await?;
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "theirs"}});
    cluster.create_json(&path, &foreign).await?;
    let refused = [
        (
            "replace",
            replace(door, &target, name, &map(name, "x")).await.err(),
        ),
        (
            "merge",
            patch(door, &target, name, "merge", r#"{"data":{"k":"x"}}"#)
                .await
                .err(),
        ),
        (
            "json",
            patch(
                door,
                &target,
                name,
                "json",
                r#"[{"op":"add","path":"/data/k","value":"x"}]"#,
            )
            .await
            .err(),
        ),
        (
            "apply",
            patch(door, &target, name, "apply", &map(name, "x"))
                .await
                .err(),
        ),
        ("delete", delete(door, &target, name, None).await.err()),
    ];
    for (what, failure) in refused {
        ensure!(
            matches!(
                failure,
                Some(Failure::Answered {
                    code: 409 | 422,
                    ..
                })
            ),
            "{what} of a foreign object: {failure:?}"
        );
    }
    let theirs = cluster.get_json(&format!("{path}/{name}")).await?;
    ensure!(theirs["data"] == json!({"k": "theirs"}), "{theirs}");

    // Pages, projections, a strict server, a dry run, and a collection.
    for at in 0..3 {
        ok(create(door, &target, &map(&format!("c{at}-doorabcd"), "1")).await)?;
    }
    let unknown =
        json!({"kind": "ConfigMap", "metadata": {"name": "u-doorabcd"}, "dat": {}}).to_string();
    let failure = create(door, &target, &unknown).await.err();
    ensure!(
        matches!(failure, Some(Failure::Answered { code: 400, .. })),
        "{failure:?}"
    );
    let dry = Target {
        dry_run: true,
        ..target.clone()
    };
    ok(create(door, &dry, &map("dry-doorabcd", "1")).await)?;
    let missing = get(door, &query, "dry-doorabcd").await.err();
    ensure!(
        matches!(missing, Some(Failure::Answered { code: 404, .. })),
        "{missing:?}"
    );
    let kept = Query {
        keep: vec!["/data/k".to_owned()],
        ..query.clone()
    };
    let mut cursor = ok(open_list(door, &kept))?;
    let page = ok(cursor.next(door).await)?.context("a page")?;
    ensure!(
        page.len() == 3 && page.iter().all(|text| !text.contains("labels")),
        "{page:?}"
    );
    ensure!(!cursor.position().is_empty() && ok(cursor.next(door).await)?.is_none());
    ensure!(ok(delete_collection(door, &target, "app=walk").await)? == 3);
    let mut cursor = ok(open_list(door, &kept))?;
    ensure!(ok(cursor.next(door).await)?.is_some_and(|page| page.is_empty()));
    Ok(())
}

fn map(name: &str, value: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "walk"}}, "data": {"k": value}})
        .to_string()
}

async fn expect(door: &Door, watch: &Watch, kind: &str, part: &str) -> Result<()> {
    loop {
        if let Some(event) = ok(watch.next(door))? {
            ensure!(
                event.kind == kind && event.text.contains(part),
                "wanted {kind} {part}, got {event:?}"
            );
            return Ok(());
        }
        let ready = ok(wait::any(door, &[watch.source()], 30_000).await)?;
        ensure!(!ready.is_empty(), "no {kind} {part} within 30 s");
    }
}

fn ok<T>(result: Result<T, Failure>) -> Result<T> {
    result.map_err(|failure| anyhow::anyhow!("{failure:?}"))
}

fn door(cluster: &Cluster, folder: &Path) -> Result<(Door, Arc<Manifest>)> {
    let manifest = Arc::new(Manifest::parse(MANIFEST, "door")?);
    let mut scratch = Scratch::new(RUN, Arc::clone(&manifest));
    scratch.namespaces = BTreeMap::from([("main".to_owned(), SANDBOX.to_owned())]);
    let parts = scratch.door(folder, cluster.clone());
    Ok((Door::live(parts.map_err(anyhow::Error::msg)?), manifest))
}
