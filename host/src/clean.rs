//! Removes what a run left that died before it could: from its journal, or, on another machine, from the seals alone.
//!
//! [`plan_clean`] only looks and lists; [`execute`] removes what the plan lists, by uid. Without the journal nothing is
//! believed because of a label: the key comes from the run's home namespace, which must itself be sealed with it, and an
//! object counts only if its seal verifies for exactly its resource, namespace and name, and its name has the form that
//! only this run gives. Everything else with our label is listed as left alone, with the reason.
//!
//! A run that holds the cluster's Lease may still be going: [`RunPlan::lease`] is there to be watched
//! ([`crate::run_lease::is_alive`]) before anything of it is touched. A run that was told to take none is not recognised;
//! whoever asks sees when it began and until when it may last.

use crate::cluster::{ApiError, Cluster, encode};
use crate::journal::{self, Journal, JournalError, ObjectRef};
use crate::names::{
    ANNOTATION_EXPIRES, LABEL_MANAGED_BY, LABEL_RUN, LEASE_NAME, MANAGED_BY, home_namespace,
};
use crate::run_lease::{self, Seen, lease_ref};
use crate::sandbox::remove::{self, Left, Options, Removed, Target};
use crate::sandbox::{KEY_SECRET, KEY_SECRET_TYPE, namespace_ref};
use crate::seal::{self, RunKey};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From what to clean.
#[derive(Clone, Debug)]
pub enum CleanSource {
    /// The journal of one run.
    Journal(PathBuf),
    /// The seals in the cluster.
    Seals(SealFilter),
}

/// Which runs to clean from seals. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealFilter {
    /// Only this run.
    pub run: Option<String>,
    /// Only runs whose time is up.
    pub expired: bool,
    /// Only runs whose home namespace is older than this.
    pub older_than: Option<SignedDuration>,
}

/// Why nothing can be planned.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal is of another cluster.
    #[error(
        "journal {}: it is of the cluster at {server}, and this is another one; choose the right context", path.display()
    )]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Address in the journal.
        server: String,
    },
    /// The API server said no, or nothing.
    #[error("{what}: {source}")]
    Api {
        /// What was being done.
        what: &'static str,
        /// What came back.
        source: ApiError,
    },
}

/// What would be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanPlan {
    /// One entry for each run, sorted by run id.
    pub runs: Vec<RunPlan>,
    /// Objects that carry our label and are left alone, with the reason.
    pub left_alone: Vec<Left>,
}

impl CleanPlan {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.targets.is_empty())
    }
}

/// What would be removed of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// Run id.
    pub run: String,
    /// When the run began or its home namespace was made, RFC 3339; empty when unknown.
    pub began: String,
    /// Until when the run may last, RFC 3339; empty when unknown. In the future: it may still be going.
    pub expires: String,
    /// What would be removed.
    pub targets: Vec<Target>,
    /// The cluster's Lease, if this run holds it. While it is renewed, the run is going.
    pub lease: Option<Seen>,
    /// The journal, to note what is gone.
    journal: Option<PathBuf>,
}

impl RunPlan {
    /// Whether the run may still be going: its time is not up.
    pub fn may_be_alive(&self, now: Timestamp) -> bool {
        self.expires
            .parse::<Timestamp>()
            .is_ok_and(|until| until > now)
    }
}

/// Looks for what a run left. Changes nothing.
///
/// # Errors
/// A journal that cannot be read or is of another cluster; an API server that does not answer.
pub async fn plan_clean(cluster: &Cluster, source: &CleanSource) -> Result<CleanPlan, CleanError> {
    let mut plan = match source {
        CleanSource::Journal(path) => from_journal(cluster, path).await?,
        CleanSource::Seals(filter) => from_seals(cluster, filter).await?,
    };
    if plan.is_empty() {
        return Ok(plan);
    }
    match run_lease::seen(cluster).await {
        Ok(Some(lease)) => {
            for run in &mut plan.runs {
                run.lease = (run.run == lease.holder.run).then(|| lease.clone());
            }
        }
        // Who may not look must not be kept from cleaning up.
        Ok(None) | Err(ApiError::Answered { .. }) => {}
        Err(source) => {
            return Err(CleanError::Api {
                what: "looking whether a run is going",
                source,
            });
        }
    }
    Ok(plan)
}

/// Removes what the plan lists and waits. An object that changed hands since the plan was made stays: each deletion
/// carries the uid.
pub async fn execute(cluster: &Cluster, plan: &CleanPlan, options: Options<'_>) -> Removed {
    let mut all = Removed::default();
    for run in &plan.runs {
        let home = namespace_ref(&home_namespace(&run.run));
        let (mut last, rest): (Vec<Target>, Vec<Target>) = run
            .targets
            .iter()
            .cloned()
            .partition(|target| target.object == home);
        let journal = run
            .journal
            .as_deref()
            .and_then(|path| Journal::resume(path).ok());
        let on_gone = |object: &ObjectRef| {
            if let Some(journal) = &journal {
                let _ = journal.gone(object);
            }
        };
        let removed = remove::remove(cluster, rest, last.pop(), options, &on_gone).await;
        if let Some(journal) = &journal
            && removed.left.is_empty()
            && journal.ledger().entries().is_empty()
        {
            let _ = journal.closed();
        }
        all.gone += removed.gone;
        all.left.extend(removed.left);
    }
    all
}

async fn from_journal(cluster: &Cluster, path: &Path) -> Result<CleanPlan, CleanError> {
    let record = journal::read(path)?;
    let uid = cluster
        .get_json("/api/v1/namespaces/kube-system")
        .await
        .map_err(|source| CleanError::Api {
            what: "asking which cluster this is",
            source,
        })?;
    if uid["metadata"]["uid"] != record.head.cluster.as_str() {
        return Err(CleanError::OtherCluster {
            path: path.to_owned(),
            server: record.head.server,
        });
    }
    let mut plan = CleanPlan::default();
    let (confirmed, left) = remove::confirm(
        cluster,
        &record.head.key,
        &record.head.run,
        record.ledger.entries(),
        &|_| {},
    )
    .await;
    plan.left_alone.extend(left);
    let mut expires = String::new();
    let mut targets = Vec::new();
    for target in confirmed {
        match cluster.find_json(&target.object.path()).await {
            Ok(Some(present)) if present["metadata"]["uid"] == target.uid.as_str() => {
                if expires.is_empty() {
                    expires = annotation(&present, ANNOTATION_EXPIRES).to_owned();
                }
                targets.push(target);
            }
            Ok(_) => {}
            Err(e) => plan.left_alone.push(Left {
                object: target.object,
                why: e.to_string(),
            }),
        }
    }
    plan.runs.push(RunPlan {
        run: record.head.run,
        began: record.head.started,
        expires,
        targets,
        lease: None,
        journal: Some(path.to_owned()),
    });
    Ok(plan)
}

/// A run that was found by its home namespace.
struct Home {
    /// None for a home that its run never furnished, see [`unfurnished`].
    key: Option<RunKey>,
    began: String,
    expires: String,
}

async fn from_seals(cluster: &Cluster, filter: &SealFilter) -> Result<CleanPlan, CleanError> {
    let selector = match &filter.run {
        Some(run) => format!("{LABEL_RUN}={run}"),
        None => LABEL_RUN.to_owned(),
    };
    let query = format!("labelSelector={}", encode(&selector));
    let mut found = Vec::new();
    for kind in cluster_kinds(cluster).await? {
        let path = kind.collection_path();
        match cluster.list_json(&path, &query).await {
            Ok(objects) => found.extend(objects.into_iter().map(|object| (kind.clone(), object))),
            // Kinds that this user must not list, or whose server is down, hold nothing that we could remove.
            Err(ApiError::Answered { .. }) => {}
            Err(source) => {
                return Err(CleanError::Api {
                    what: "looking for objects of runs",
                    source,
                });
            }
        }
    }
    found.extend(in_foreign_namespaces(cluster, &query).await?);
    found.extend(the_lease(cluster, filter).await?);

    let mut homes: BTreeMap<String, Result<Home, String>> = BTreeMap::new();
    for (_, object) in &found {
        let run = run_of(object);
        if !homes.contains_key(run) {
            let mut home = home(cluster, run).await;
            let others: Vec<_> = found
                .iter()
                .filter(|(kind, other)| run_of(other) == run && *kind != lease_ref())
                .collect();
            if home.is_err()
                && let [(_, only)] = others[..]
                && unfurnished(cluster, run, only).await
            {
                home = Ok(Home {
                    key: None,
                    ..home_times(only)
                });
            }
            // Taken before the home was made, or not yet let go after it went. Nothing depends on it but its own run.
            let lease = found
                .iter()
                .find(|(kind, other)| run_of(other) == run && *kind == lease_ref());
            if home.is_err()
                && let Some((_, lease)) = lease
                && is_bare_lease(run, lease)
                && others
                    .iter()
                    .all(|(kind, other)| is_ending(run, &named(kind, other), other))
            {
                home = Ok(Home {
                    key: None,
                    ..home_times(lease)
                });
            }
            homes.insert(run.to_owned(), home);
        }
    }

    let now = Timestamp::now();
    let mut plan = CleanPlan::default();
    let mut runs: BTreeMap<String, RunPlan> = BTreeMap::new();
    for (kind, object) in found {
        let run = run_of(&object);
        let target = Target {
            object: named(&kind, &object),
            uid: object["metadata"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        let ending;
        let verdict = match &homes[run] {
            Err(_) if is_ending(run, &target.object, &object) => {
                ending = home_times(&object);
                Ok(&ending)
            }
            Err(why) => Err(why.clone()),
            Ok(home) => proved(home, run, &target.object, &object).map(|()| home),
        };
        if verdict
            .as_ref()
            .is_ok_and(|home| !matches_filter(home, filter, now))
        {
            continue;
        }
        match verdict {
            Ok(home) => runs
                .entry(run.to_owned())
                .or_insert_with(|| RunPlan {
                    run: run.to_owned(),
                    began: home.began.clone(),
                    expires: home.expires.clone(),
                    targets: Vec::new(),
                    lease: None,
                    journal: None,
                })
                .targets
                .push(target),
            Err(why) => plan.left_alone.push(Left {
                object: target.object,
                why,
            }),
        }
    }
    plan.runs = runs.into_values().collect();
    Ok(plan)
}

/// Roles of accounts of probes, and their bindings, in namespaces that are not the run's own.
async fn in_foreign_namespaces(
    cluster: &Cluster,
    query: &str,
) -> Result<Vec<(ObjectRef, Value)>, CleanError> {
    let mut found = Vec::new();
    for resource in ["rolebindings", "roles"] {
        let kind = ObjectRef {
            group: "rbac.authorization.k8s.io".to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            ..ObjectRef::default()
        };
        match cluster.list_json(&kind.collection_path(), query).await {
            Ok(objects) => found.extend(
                objects
                    .into_iter()
                    .filter(|object| {
                        let own = namespace_ref(
                            object["metadata"]["namespace"].as_str().unwrap_or_default(),
                        );
                        !is_name_of(run_of(object), &own)
                    })
                    .map(|object| (kind.clone(), object)),
            ),
            Err(ApiError::Answered { .. }) => {}
            Err(source) => {
                return Err(CleanError::Api {
                    what: "looking for roles of runs",
                    source,
                });
            }
        }
    }
    Ok(found)
}

/// The Lease of runs, if one that the filter wants holds it. It lies in a namespace of everybody's.
async fn the_lease(
    cluster: &Cluster,
    filter: &SealFilter,
) -> Result<Option<(ObjectRef, Value)>, CleanError> {
    let wanted = |lease: &Value| match &filter.run {
        Some(run) => run_of(lease) == run,
        None => !run_of(lease).is_empty(),
    };
    match cluster.find_json(&lease_ref().path()).await {
        Ok(found) => Ok(found.filter(wanted).map(|lease| (lease_ref(), lease))),
        Err(ApiError::Answered { .. }) => Ok(None),
        Err(source) => Err(CleanError::Api {
            what: "looking for the Lease of a run",
            source,
        }),
    }
}

/// Whether this is the Lease of a run by everything but its seal, whose key is not to be had.
fn is_bare_lease(run: &str, object: &Value) -> bool {
    is_run_id(run)
        && object["kind"] == "Lease"
        && object["metadata"]["name"] == LEASE_NAME
        && object["metadata"]["labels"][LABEL_MANAGED_BY] == MANAGED_BY
        && object["spec"]["holderIdentity"] == run
        && seal::carried(object).is_some()
}

fn named(kind: &ObjectRef, object: &Value) -> ObjectRef {
    let text = |key: &str| {
        object["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    ObjectRef {
        name: text("name"),
        namespace: text("namespace"),
        ..kind.clone()
    }
}

/// Whether an object was made by the run under this name: seal and form of the name.
fn proved(home: &Home, run: &str, subject: &ObjectRef, object: &Value) -> Result<(), String> {
    let Some(key) = &home.key else {
        return Ok(());
    };
    if !is_name_of(run, subject) {
        return Err("its name is none that this run gives".to_owned());
    }
    match seal::carried(object) {
        None => Err("it has the label of a run and no seal".to_owned()),
        Some(text) if seal::verify(key, run, subject, text) => Ok(()),
        Some(_) => Err("its seal is forged, or copied from another object".to_owned()),
    }
}

/// Whether a name has the form that only this run gives.
fn is_name_of(run: &str, subject: &ObjectRef) -> bool {
    let name = &subject.name;
    if *subject == lease_ref() {
        return true;
    }
    if (subject.group.as_str(), subject.resource.as_str()) == ("", "namespaces") {
        name.strip_prefix("karat-")
            .and_then(|rest| rest.strip_prefix(run))
            .is_some_and(|rest| rest.starts_with('-'))
    } else {
        name.strip_suffix(run)
            .is_some_and(|front| front.ends_with('-'))
    }
}

/// Whether an object under a name of the run is already being deleted, by whoever asked for it. Waiting for its end needs
/// no proof, and asking again changes nothing. At the end of a run the key may be gone before the last namespace.
fn is_ending(run: &str, subject: &ObjectRef, object: &Value) -> bool {
    is_run_id(run)
        && is_name_of(run, subject)
        && object["metadata"]["deletionTimestamp"].is_string()
}

fn matches_filter(home: &Home, filter: &SealFilter, now: Timestamp) -> bool {
    // What cannot be read as a time does not count as passed.
    let passed = |text: &str| text.parse::<Timestamp>().is_ok_and(|at| at <= now);
    let old_enough = filter.older_than.is_none_or(|age| {
        home.began
            .parse::<Timestamp>()
            .is_ok_and(|began| now.duration_since(began) >= age)
    });
    (!filter.expired || passed(&home.expires)) && old_enough
}

/// Finds a run's key, and believes it only if the home namespace is sealed with it.
async fn home(cluster: &Cluster, run: &str) -> Result<Home, String> {
    if !is_run_id(run) {
        return Err("its label is no run id".to_owned());
    }
    let namespace = namespace_ref(&home_namespace(run));
    let get = async |path: String| match cluster.find_json(&path).await {
        Ok(Some(object)) => Ok(object),
        Ok(None) => Err(format!(
            "the run's home namespace {} or its key is gone; clean with the journal",
            namespace.name
        )),
        Err(e) => Err(format!(
            "the run's key cannot be read ({e}); clean with the journal"
        )),
    };
    let present = get(namespace.path()).await?;
    let secret = get(format!(
        "/api/v1/namespaces/{}/secrets/{KEY_SECRET}",
        namespace.name
    ))
    .await?;
    let key = secret["data"]["key"]
        .as_str()
        .filter(|_| secret["type"] == KEY_SECRET_TYPE)
        .and_then(|text| data_encoding::BASE64.decode(text.as_bytes()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| RunKey::from_hex(&text).ok())
        .ok_or_else(|| {
            format!(
                "the key in {} is damaged; clean with the journal",
                namespace.name
            )
        })?;
    if !seal::carried(&present).is_some_and(|text| seal::verify(&key, run, &namespace, text)) {
        return Err(format!(
            "home namespace {} is not sealed with the key in it",
            namespace.name
        ));
    }
    Ok(Home {
        key: Some(key),
        ..home_times(&present)
    })
}

fn home_times(namespace: &Value) -> Home {
    Home {
        key: None,
        began: namespace["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        expires: annotation(namespace, ANNOTATION_EXPIRES).to_owned(),
    }
}

/// Whether this is a home namespace without its key and without anything else: its run died before it wrote the key. No
/// seal can be checked then, but nothing can be lost either. The caller has seen that no other object of the run exists.
async fn unfurnished(cluster: &Cluster, run: &str, object: &Value) -> bool {
    let name = home_namespace(run);
    if !is_run_id(run)
        || object["metadata"]["name"] != name.as_str()
        || object["metadata"]["labels"][LABEL_MANAGED_BY] != MANAGED_BY
        || seal::carried(object).is_none()
    {
        return false;
    }
    // What every namespace gets by itself.
    for (resource, usual) in [
        ("secrets", ""),
        ("configmaps", "kube-root-ca.crt"),
        ("serviceaccounts", "default"),
        ("pods", ""),
        ("services", ""),
        ("persistentvolumeclaims", ""),
    ] {
        let path = format!("/api/v1/namespaces/{name}/{resource}");
        match cluster.list_json(&path, "").await {
            Ok(objects)
                if objects
                    .iter()
                    .all(|object| object["metadata"]["name"] == usual) => {}
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

/// 8 characters of lowercase base32.
fn is_run_id(text: &str) -> bool {
    text.len() == 8
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
}

fn run_of(object: &Value) -> &str {
    object["metadata"]["labels"][LABEL_RUN]
        .as_str()
        .unwrap_or_default()
}

fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["annotations"][key]
        .as_str()
        .unwrap_or_default()
}

/// Every cluster-scoped kind that can be listed and deleted, in its preferred version, without a name.
async fn cluster_kinds(cluster: &Cluster) -> Result<Vec<ObjectRef>, CleanError> {
    let failed = |source| CleanError::Api {
        what: "asking which kinds the cluster serves",
        source,
    };
    let groups = cluster.get_json("/apis").await.map_err(failed)?;
    let mut versions = vec![(String::new(), "v1".to_owned())];
    for group in groups["groups"].as_array().into_iter().flatten() {
        if let (Some(name), Some(version)) = (
            group["name"].as_str(),
            group["preferredVersion"]["version"].as_str(),
        ) {
            versions.push((name.to_owned(), version.to_owned()));
        }
    }
    let mut kinds = Vec::new();
    for (group, version) in versions {
        let path = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let list = match cluster.get_json(&path).await {
            Ok(list) => list,
            // An aggregated group whose server is down.
            Err(ApiError::Answered { .. }) if !group.is_empty() => continue,
            Err(e) => return Err(failed(e)),
        };
        for resource in list["resources"].as_array().into_iter().flatten() {
            let can = |verb: &str| {
                resource["verbs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|v| *v == verb)
            };
            let name = resource["name"].as_str().unwrap_or_default();
            if resource["namespaced"] == false
                && !name.contains('/')
                && can("list")
                && can("delete")
            {
                kinds.push(ObjectRef {
                    group: group.clone(),
                    version: version.clone(),
                    resource: name.to_owned(),
                    ..ObjectRef::default()
                });
            }
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ANNOTATION_SEAL;
    use serde_json::json;

    const RUN: &str = "abcdefgh";

    fn home_of(key: &RunKey) -> Home {
        Home {
            key: Some(key.clone()),
            began: "2026-08-01T00:00:00Z".into(),
            expires: "2026-08-02T00:00:00Z".into(),
        }
    }

    fn class(name: &str) -> ObjectRef {
        ObjectRef {
            group: "resource.k8s.io".into(),
            version: "v1".into(),
            resource: "deviceclasses".into(),
            name: name.into(),
            ..ObjectRef::default()
        }
    }

    fn sealed(text: &str) -> Value {
        json!({"metadata": {"annotations": {ANNOTATION_SEAL: text}}})
    }

    #[test]
    fn only_a_seal_under_a_name_of_the_run_is_proof() {
        let key = RunKey::generate().unwrap();
        let home = home_of(&key);
        let good = seal::seal(&key, RUN, &class("a-abcdefgh"));
        assert_eq!(
            proved(&home, RUN, &class("a-abcdefgh"), &sealed(&good)),
            Ok(())
        );
        for (subject, object) in [
            (class("a-abcdefgh"), json!({})),
            (class("b-abcdefgh"), sealed(&good)),
            (
                class("a-abcdefgh"),
                sealed(&seal::seal(
                    &RunKey::generate().unwrap(),
                    RUN,
                    &class("a-abcdefgh"),
                )),
            ),
            // Whoever has the key can seal anything, but nothing under another name is taken.
            (
                class("gpu.nvidia.com"),
                sealed(&seal::seal(&key, RUN, &class("gpu.nvidia.com"))),
            ),
            (
                namespace_ref("production"),
                sealed(&seal::seal(&key, RUN, &namespace_ref("production"))),
            ),
            (
                namespace_ref("karat-abcdefghx-main"),
                sealed(&seal::seal(
                    &key,
                    RUN,
                    &namespace_ref("karat-abcdefghx-main"),
                )),
            ),
        ] {
            assert!(proved(&home, RUN, &subject, &object).is_err(), "{subject}");
        }
        let ours = namespace_ref("karat-abcdefgh-probe-main");
        assert_eq!(
            proved(&home, RUN, &ours, &sealed(&seal::seal(&key, RUN, &ours))),
            Ok(())
        );
    }

    #[test]
    fn filters_take_only_what_is_surely_old() {
        let home = home_of(&RunKey::generate().unwrap());
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let expired = SealFilter {
            expired: true,
            ..SealFilter::default()
        };
        assert!(matches_filter(&home, &expired, at("2026-08-02T00:00:00Z")));
        assert!(!matches_filter(&home, &expired, at("2026-08-01T23:59:59Z")));
        let damaged = Home {
            expires: "soon".into(),
            ..home_of(&RunKey::generate().unwrap())
        };
        assert!(!matches_filter(
            &damaged,
            &expired,
            at("2036-08-01T23:59:59Z")
        ));
        let old = SealFilter {
            older_than: Some(SignedDuration::from_hours(2)),
            ..SealFilter::default()
        };
        assert!(matches_filter(&home, &old, at("2026-08-01T02:00:00Z")));
        assert!(!matches_filter(&home, &old, at("2026-08-01T01:59:59Z")));
        assert!(matches_filter(
            &damaged,
            &SealFilter::default(),
            at("2026-08-01T00:00:00Z")
        ));
    }

    #[test]
    fn run_ids_are_checked_before_they_stand_in_a_path() {
        assert!(is_run_id("abcd2345"));
        for text in [
            "",
            "abcdefg",
            "abcdefghi",
            "../../ab",
            "ABCDEFGH",
            "abcd0189",
        ] {
            assert!(!is_run_id(text), "{text}");
        }
    }
}
