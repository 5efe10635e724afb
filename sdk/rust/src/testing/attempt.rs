//! One run of a probe on the fake cluster: what the door does, as far as a probe can notice.
//!
//! It refuses what the manifest does not ask for, completes names and labels, keeps the cases and writes down every call. It
//! has no guard table and no redaction: those are the engine's, and tests of the engine show them.

use super::cluster::{ChangeKind, FakeCluster, Fault, Key, matches};
use super::manifest::Manifest;
use super::workload::ResponseState;
use super::{Call, CaseRecord, SourceId};
use crate::case::Conclusion;
use crate::error::{Answer, Error, Result};
use crate::kube::{EventKind, Query, RawAnswer, Target};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

mod pods;

pub(super) const RUN: &str = "abcd2345";

/// What a call costs: enough that a loop without a wait comes to its deadline.
const CALL: Duration = Duration::from_millis(1);

thread_local! {
    static CURRENT: RefCell<Option<Attempt>> = const { RefCell::new(None) };
}

/// Everything of one run.
pub(crate) struct Attempt {
    pub(super) cluster: FakeCluster,
    pub(super) manifest: Manifest,
    pub(super) settings: Vec<(String, String)>,
    pub(super) cases: Vec<CaseRecord>,
    pub(super) open: Option<usize>,
    pub(super) calls: Vec<Call>,
    pub(super) log: Vec<(String, String)>,
    pub(super) leases: Vec<(Vec<String>, bool)>,
    cursors: Vec<CursorState>,
    watches: Vec<WatchState>,
    pub(super) responses: Vec<ResponseState>,
    streams: Vec<pods::StreamState>,
    executions: Vec<pods::ExecutionState>,
}

struct CursorState {
    pages: VecDeque<Vec<String>>,
    position: String,
    resource: String,
}

struct WatchState {
    api_version: String,
    group: String,
    query: Query,
    queue: VecDeque<(EventKind, String)>,
    /// Changes read so far.
    seen: usize,
    /// uids that were delivered and not yet deleted.
    present: BTreeSet<String>,
    cuts: u32,
    open: bool,
}

/// Puts an attempt in place, runs, and takes it away again.
pub(super) fn during<T>(attempt: Attempt, run: impl FnOnce() -> T) -> (Attempt, T) {
    CURRENT.with_borrow_mut(|current| {
        assert!(
            current.is_none(),
            "a probe is already running on this thread"
        );
        *current = Some(attempt);
    });
    // A panic of the probe must not leave the attempt behind for the next test of this thread.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(|current| *current = None);
        }
    }
    let clear = Clear;
    let result = run();
    let attempt = CURRENT.with_borrow_mut(Option::take);
    drop(clear);
    let Some(attempt) = attempt else {
        unreachable!("the attempt was put in place above");
    };
    (attempt, result)
}

/// The attempt of this thread.
///
/// # Panics
/// Outside of a run: natively, the SDK works only below [`super::run`].
pub(crate) fn with<T>(act: impl FnOnce(&mut Attempt) -> T) -> T {
    CURRENT.with_borrow_mut(|current| match current {
        Some(attempt) => act(attempt),
        None => panic!("natively, karat-sdk works only inside of karat_sdk::testing::run"),
    })
}

/// As [`with`], and nothing where no attempt is in place: a handle may be dropped while a panic unwinds.
pub(crate) fn if_running(act: impl FnOnce(&mut Attempt)) {
    CURRENT.with(|current| {
        if let Ok(mut current) = current.try_borrow_mut()
            && let Some(attempt) = current.as_mut()
        {
            act(attempt);
        }
    });
}

/// A call on its way.
struct Request<'a> {
    verb: &'a str,
    api_version: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
    dry_run: bool,
    body: String,
}

impl Attempt {
    pub(super) fn new(
        cluster: FakeCluster,
        manifest: Manifest,
        settings: Vec<(String, String)>,
    ) -> Self {
        let mut attempt = Attempt {
            cluster,
            manifest,
            settings,
            cases: Vec::new(),
            open: None,
            calls: Vec::new(),
            log: Vec::new(),
            leases: Vec::new(),
            cursors: Vec::new(),
            watches: Vec::new(),
            responses: Vec::new(),
            streams: Vec::new(),
            executions: Vec::new(),
        };
        for alias in attempt.manifest.aliases() {
            let name = attempt.namespace_name(&alias);
            attempt.cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}}));
        }
        attempt
    }

    fn namespace_name(&self, alias: &str) -> String {
        let id = self.manifest.id.rsplit('/').next().unwrap_or_default();
        format!("karat-{RUN}-{id}-{alias}")
    }

    pub(super) fn is_sandbox(&self, namespace: &str) -> bool {
        self.manifest
            .aliases()
            .iter()
            .any(|alias| self.namespace_name(alias) == namespace)
    }

    /// Whether the manifest asks for it; the door refuses what it does not.
    fn permitted(&self, request: &Request<'_>) -> Result<()> {
        let group = request
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let sandbox = self.is_sandbox(request.namespace);
        if self.manifest.allows(
            group,
            request.resource,
            request.verb,
            sandbox,
            request.namespace,
        ) {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "probe.toml has no permission line for {} {} in group \"{group}\" {}",
            request.verb,
            request.resource,
            if request.namespace.is_empty() {
                "with scope \"cluster\"".to_owned()
            } else {
                format!("in namespace {}", request.namespace)
            }
        )))
    }

    /// One recorded call: permission, fault or deed, and a line in the transcript.
    fn call(
        &mut self,
        request: &Request<'_>,
        act: impl FnOnce(&mut Attempt, &str) -> Result<String>,
    ) -> Result<String> {
        self.cluster.now += CALL;
        let result = self.perform(request, act);
        let group = request
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let (code, live) = match &result {
            Ok(_) => (200, true),
            Err(Error::Answered(answer)) => (answer.code, true),
            Err(_) => (0, false),
        };
        self.calls.push(Call {
            case: self.open,
            verb: request.verb.to_owned(),
            group: group.to_owned(),
            resource: request.resource.to_owned(),
            namespace: request.namespace.to_owned(),
            name: request.name.to_owned(),
            dry_run: request.dry_run,
            live,
            code,
            sent: request.body.clone(),
            seen: result.clone().unwrap_or_default(),
        });
        result
    }

    fn perform(
        &mut self,
        request: &Request<'_>,
        act: impl FnOnce(&mut Attempt, &str) -> Result<String>,
    ) -> Result<String> {
        self.permitted(request)?;
        let group = match self.cluster.fault(request.verb, request.resource) {
            Some(Fault::Answer(code, reason, message)) => {
                return Err(Error::Answered(Answer {
                    code,
                    reason: reason.to_owned(),
                    message: message.to_owned(),
                    body: String::new(),
                }));
            }
            Some(Fault::Lost) => return Err(Error::NoAnswer("connection reset by peer".into())),
            Some(Fault::Expired) => return Err(Error::Expired),
            Some(Fault::Swallowed) => return Ok("{}".into()),
            Some(Fault::LostAfter) => {
                let group = self
                    .cluster
                    .resolve(request.api_version, request.resource)?;
                act(self, &group)?;
                return Err(Error::NoAnswer("connection reset by peer".into()));
            }
            None => self
                .cluster
                .resolve(request.api_version, request.resource)?,
        };
        act(self, &group)
    }

    pub(crate) fn namespace(&mut self, alias: &str) -> Result<String> {
        if self.manifest.aliases().iter().any(|have| have == alias) {
            Ok(self.namespace_name(alias))
        } else {
            Err(Error::Refused(format!(
                "probe.toml has no namespace `{alias}`"
            )))
        }
    }

    pub(crate) fn image(&mut self, name: &str) -> Result<String> {
        self.manifest
            .image(name)
            .ok_or_else(|| Error::Refused(format!("probe.toml has no image `{name}`")))
    }

    pub(crate) fn setting(&mut self, key: &str) -> Option<String> {
        self.settings
            .iter()
            .find(|(have, _)| have == key)
            .map(|(_, value)| value.clone())
            .or_else(|| self.manifest.setting_default(key))
    }

    pub(crate) fn elapsed_ms(&mut self) -> u32 {
        u32::try_from(self.cluster.now.as_millis()).unwrap_or(u32::MAX)
    }

    pub(crate) fn now(&mut self) -> String {
        super::cluster::timestamp(self.cluster.now).replace('Z', ".000Z")
    }

    pub(crate) fn log(&mut self, level: &str, text: &str) {
        self.log.push((level.to_owned(), text.to_owned()));
    }

    pub(crate) fn open_case(&mut self, id: &str, subject: &str) -> Result<usize> {
        if !self.manifest.cases.iter().any(|case| case.id == id) {
            return Err(Error::Refused(format!("probe.toml has no case `{id}`")));
        }
        if let Some(open) = self.open {
            return Err(Error::Refused(format!(
                "case `{}` is still open",
                self.cases[open].id
            )));
        }
        if self
            .cases
            .iter()
            .any(|case| case.id == id && case.subject == subject)
        {
            return Err(Error::Refused(format!(
                "case `{id}` was opened before for `{subject}`"
            )));
        }
        self.cases.push(CaseRecord {
            id: id.to_owned(),
            subject: subject.to_owned(),
            observations: Vec::new(),
            conclusion: None,
        });
        self.open = Some(self.cases.len() - 1);
        Ok(self.cases.len() - 1)
    }

    pub(crate) fn observe(&mut self, case: usize, name: &str, value: &str) {
        self.cases[case]
            .observations
            .push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn conclude(&mut self, case: usize, conclusion: &Conclusion) -> Result<()> {
        self.cases[case].conclusion = Some(conclusion.clone());
        self.open = None;
        Ok(())
    }

    /// All the named leases, or none.
    pub(crate) fn acquire(&mut self, names: &[String], timeout_ms: u32) -> Result<String> {
        self.cluster.now += CALL;
        if self.leases.last().is_some_and(|(_, released)| !released) {
            return Err(Error::Refused(
                "this attempt holds a lease; release it first, or take everything at once".into(),
            ));
        }
        let mut lines = Vec::new();
        for name in names {
            lines.push(
                self.manifest
                    .lease(name)
                    .ok_or_else(|| Error::Refused(format!("probe.toml has no lease `{name}`")))?,
            );
        }
        if let Some(held) = names
            .iter()
            .find_map(|name| self.cluster.lease_holder(name))
        {
            let text = format!("busy: {held}");
            self.cluster
                .pass_all(Duration::from_millis(u64::from(timeout_ms)));
            return Err(crate::leases::Denied(text).into());
        }
        let number = self.leases.len() + 1;
        let granted = super::leases::grant(&self.cluster, number, &lines)?;
        self.leases.push((names.to_vec(), false));
        Ok(granted.to_string())
    }

    pub(crate) fn release_lease(&mut self) {
        self.cluster.now += CALL;
        if let Some((_, released)) = self.leases.last_mut() {
            *released = true;
        }
    }

    pub(crate) fn get(&mut self, query: &Query, name: &str) -> Result<String> {
        let namespace = query.namespace.clone().unwrap_or_default();
        let request = Request {
            verb: "get",
            api_version: &query.api_version,
            resource: &query.resource,
            namespace: &namespace,
            name,
            dry_run: false,
            body: String::new(),
        };
        self.call(&request, |attempt, group| {
            let key = key(group, query, name);
            let object = attempt.cluster.find(&key)?;
            Ok(shown(object, &query.api_version).to_string())
        })
    }

    pub(crate) fn open_list(&mut self, query: &Query) -> Result<usize> {
        self.list(query, "list")
    }

    pub(crate) fn open_snapshot(&mut self, query: &Query) -> Result<usize> {
        if !self
            .manifest
            .has_snapshot(&query.api_version, &query.resource)
        {
            return Err(Error::Refused(format!(
                "probe.toml has no snapshot of {}",
                query.resource
            )));
        }
        self.list(query, "list")
    }

    fn list(&mut self, query: &Query, verb: &str) -> Result<usize> {
        let namespace = query.namespace.clone().unwrap_or_default();
        let request = Request {
            verb,
            api_version: &query.api_version,
            resource: &query.resource,
            namespace: &namespace,
            name: "",
            dry_run: false,
            body: String::new(),
        };
        let seen = self.call(&request, |attempt, group| {
            let found = attempt.selected(query, group)?;
            Ok(Value::from(found).to_string())
        })?;
        let found: Vec<Value> = serde_json::from_str(&seen)?;
        let texts: Vec<String> = found.iter().map(Value::to_string).collect();
        self.cursors.push(CursorState {
            pages: texts
                .chunks(self.cluster.page())
                .map(<[String]>::to_vec)
                .collect(),
            position: self.cluster.revision(),
            resource: query.resource.clone(),
        });
        Ok(self.cursors.len() - 1)
    }

    fn selected(&mut self, query: &Query, group: &str) -> Result<Vec<Value>> {
        let found = self.cluster.select(
            group,
            &query.resource,
            query.namespace.as_deref(),
            query.labels.as_deref().unwrap_or_default(),
            query.fields.as_deref().unwrap_or_default(),
        )?;
        Ok(found
            .iter()
            .map(|(_, object)| shown(object, &query.api_version))
            .collect())
    }

    pub(crate) fn next_page(&mut self, cursor: usize) -> Result<Option<Vec<String>>> {
        let resource = self.cursors[cursor].resource.clone();
        if let Some(Fault::Expired) = self.cluster.fault("page", &resource) {
            return Err(Error::Expired);
        }
        Ok(self.cursors[cursor].pages.pop_front())
    }

    pub(crate) fn position(&mut self, cursor: usize) -> String {
        self.cursors[cursor].position.clone()
    }

    pub(crate) fn open_watch(&mut self, query: &Query) -> Result<usize> {
        let namespace = query.namespace.clone().unwrap_or_default();
        let request = Request {
            verb: "watch",
            api_version: &query.api_version,
            resource: &query.resource,
            namespace: &namespace,
            name: "",
            dry_run: false,
            body: String::new(),
        };
        let group = self.call(&request, |_, group| Ok(group.to_owned()))?;
        let mut watch = WatchState {
            api_version: query.api_version.clone(),
            group,
            query: query.clone(),
            queue: VecDeque::new(),
            seen: 0,
            present: BTreeSet::new(),
            cuts: self.cluster.cuts,
            open: true,
        };
        watch.fill(&self.cluster)?;
        self.watches.push(watch);
        Ok(self.watches.len() - 1)
    }

    pub(crate) fn next_event(&mut self, watch: usize) -> Result<Option<(EventKind, String)>> {
        self.cluster.now += CALL;
        let state = &mut self.watches[watch];
        state.catch_up(&self.cluster)?;
        let event = state.queue.pop_front();
        if let Some((kind, text)) = &event {
            let group = state.group.clone();
            self.calls.push(Call {
                case: self.open,
                verb: "watch".into(),
                group,
                resource: state.query.resource.clone(),
                namespace: state.query.namespace.clone().unwrap_or_default(),
                name: String::new(),
                dry_run: false,
                live: *kind != EventKind::Gap,
                code: 200,
                sent: String::new(),
                seen: text.clone(),
            });
        }
        Ok(event)
    }

    pub(crate) fn close_watch(&mut self, watch: usize) {
        self.watches[watch].open = false;
    }

    pub(crate) fn wait_any(&mut self, sources: &[SourceId], timeout_ms: u32) -> Result<Vec<u32>> {
        let end = self.cluster.now + Duration::from_millis(u64::from(timeout_ms));
        loop {
            let mut ready = Vec::new();
            let mut next = end;
            for (at, source) in (0u32..).zip(sources) {
                let is_ready = match source {
                    SourceId::Watch(watch) => {
                        let state = &mut self.watches[*watch];
                        state.catch_up(&self.cluster)?;
                        !state.queue.is_empty() || !state.open
                    }
                    SourceId::Stream(stream) => self.streams[*stream].is_ready(self.cluster.now),
                    SourceId::Response(response) => {
                        let state = &self.responses[*response];
                        if let Some(due) = state.next() {
                            next = next.min(due);
                        }
                        state.is_ready(self.cluster.now)
                    }
                };
                if is_ready {
                    ready.push(at);
                }
            }
            if !ready.is_empty() || self.cluster.now >= end {
                return Ok(ready);
            }
            self.cluster.pass(next - self.cluster.now);
            let wall = self.manifest.wall();
            if self.cluster.now > wall {
                return Err(Error::Budget(format!("wall: {} s", wall.as_secs())));
            }
        }
    }

    pub(crate) fn discover(&mut self) -> Result<String> {
        self.cluster.now += CALL;
        let seen = self.cluster.discovery().to_string();
        self.calls.push(Call {
            case: self.open,
            verb: "discover".into(),
            group: String::new(),
            resource: String::new(),
            namespace: String::new(),
            name: String::new(),
            dry_run: false,
            live: true,
            code: 200,
            sent: String::new(),
            seen: seen.clone(),
        });
        Ok(seen)
    }

    pub(crate) fn raw(&mut self, path: &str) -> Result<RawAnswer> {
        self.cluster.now += CALL;
        if !self.manifest.allows_path(path) {
            return Err(Error::Refused(format!(
                "probe.toml has no permission line for the path {path}"
            )));
        }
        let (code, body) = self
            .cluster
            .path(path)
            .cloned()
            .unwrap_or((404, "404 page not found".into()));
        self.calls.push(Call {
            case: self.open,
            verb: "get".into(),
            group: String::new(),
            resource: path.to_owned(),
            namespace: String::new(),
            name: String::new(),
            dry_run: false,
            live: true,
            code,
            sent: String::new(),
            seen: body.clone(),
        });
        Ok(RawAnswer {
            code,
            content_type: "application/json".into(),
            body,
        })
    }

    pub(crate) fn create(&mut self, target: &Target, manifest: &str) -> Result<String> {
        let mut object: Value = serde_json::from_str(manifest)
            .map_err(|error| Error::Malformed(format!("not JSON: {error}")))?;
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if !name.ends_with(&format!("-{RUN}")) {
            return Err(Error::Refused(format!(
                "the name `{name}` does not end in the run id; take it from run.name"
            )));
        }
        // The only subresource that can be created: the pod goes, as if it had been deleted.
        if target.resource == "pods/eviction" {
            return self.write("create", target, &name, manifest, |cluster, key| {
                let pod = Key {
                    resource: "pods".to_owned(),
                    ..key
                };
                if !target.dry_run {
                    cluster.delete(&pod)?;
                }
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            });
        }
        self.complete(&mut object);
        self.write("create", target, &name, manifest, |cluster, key| {
            cluster.insert(key, object, target.dry_run)
        })
    }

    pub(crate) fn replace(
        &mut self,
        target: &Target,
        name: &str,
        manifest: &str,
    ) -> Result<String> {
        let mut object: Value = serde_json::from_str(manifest)
            .map_err(|error| Error::Malformed(format!("not JSON: {error}")))?;
        self.complete(&mut object);
        self.write("update", target, name, manifest, |cluster, key| {
            cluster.update(&key, object, target.dry_run)
        })
    }

    pub(crate) fn patch(
        &mut self,
        target: &Target,
        name: &str,
        kind: &str,
        body: &str,
    ) -> Result<String> {
        let patch: Value = serde_json::from_str(body)
            .map_err(|error| Error::Malformed(format!("not JSON: {error}")))?;
        self.write("patch", target, name, body, |cluster, key| {
            let mut object = cluster.find(&key)?.clone();
            match kind {
                "merge" | "apply" => merge(&mut object, &patch),
                "json" => json_patch(&mut object, &patch)?,
                other => return Err(Error::Malformed(format!("no such kind of patch: {other}"))),
            }
            cluster.update(&key, object, target.dry_run)
        })
    }

    pub(crate) fn delete(&mut self, target: &Target, name: &str) -> Result<()> {
        self.write("delete", target, name, "", |cluster, key| {
            if !target.dry_run {
                cluster.delete(&key)?;
            }
            Ok(json!({}))
        })
        .map(drop)
    }

    pub(crate) fn delete_collection(&mut self, target: &Target, labels: &str) -> Result<u32> {
        let query = Query {
            labels: Some(labels.to_owned()),
            ..target.query()
        };
        let mut number = 0;
        self.write("deletecollection", target, "", "", |cluster, key| {
            let found = cluster.select(
                &key.group,
                &key.resource,
                query.namespace.as_deref(),
                labels,
                "",
            )?;
            if found.iter().any(|(key, _)| !key.name.ends_with(RUN)) {
                return Err(Error::Refused(
                    "an object that this run did not create would be deleted".into(),
                ));
            }
            number = u32::try_from(found.len()).unwrap_or(u32::MAX);
            for (key, _) in found {
                cluster.delete(&key)?;
            }
            Ok(json!({}))
        })?;
        Ok(number)
    }

    /// The labels that the door puts on every object of the run.
    fn complete(&self, object: &mut Value) {
        let labels = &mut object["metadata"]["labels"];
        labels["app.kubernetes.io/managed-by"] = json!("karat");
        labels["karat.internal/run"] = json!(RUN);
        labels["karat.internal/probe"] = json!(self.manifest.id.replace('/', "."));
    }

    fn write(
        &mut self,
        verb: &str,
        target: &Target,
        name: &str,
        body: &str,
        act: impl FnOnce(&mut FakeCluster, Key) -> Result<Value>,
    ) -> Result<String> {
        let namespace = target.namespace.clone().unwrap_or_default();
        let request = Request {
            verb,
            api_version: &target.api_version,
            resource: &target.resource,
            namespace: &namespace,
            name,
            dry_run: target.dry_run,
            body: body.to_owned(),
        };
        self.call(&request, |attempt, group| {
            let plural = target.resource.split('/').next().unwrap_or_default();
            if attempt.cluster.is_namespaced(group, plural) == namespace.is_empty() {
                return Err(Error::Malformed(format!(
                    "{} and a namespace do not go together as asked",
                    target.resource
                )));
            }
            let mut key = key(group, &target.query(), name);
            // What is written below an object changes the object.
            plural.clone_into(&mut key.resource);
            let stored = act(&mut attempt.cluster, key)?;
            Ok(shown(&stored, &target.api_version).to_string())
        })
    }
}

impl WatchState {
    /// Queues what is there, and `synced`.
    fn fill(&mut self, cluster: &FakeCluster) -> Result<()> {
        let found = cluster.select(
            &self.group,
            &self.query.resource,
            self.query.namespace.as_deref(),
            self.query.labels.as_deref().unwrap_or_default(),
            self.query.fields.as_deref().unwrap_or_default(),
        )?;
        self.present.clear();
        for (_, object) in found {
            self.present.insert(uid(&object));
            self.queue.push_back((
                EventKind::Added,
                shown(&object, &self.api_version).to_string(),
            ));
        }
        self.queue
            .push_back((EventKind::Synced, cluster.revision()));
        self.seen = cluster.changes.len();
        Ok(())
    }

    /// Queues what changed since.
    fn catch_up(&mut self, cluster: &FakeCluster) -> Result<()> {
        if self.cuts != cluster.cuts {
            self.cuts = cluster.cuts;
            self.queue.clear();
            self.queue
                .push_back((EventKind::Gap, "too old resource version".into()));
            return self.fill(cluster);
        }
        for change in &cluster.changes[self.seen..] {
            let here = change.key.group == self.group
                && change.key.resource == self.query.resource
                && self
                    .query
                    .namespace
                    .as_deref()
                    .is_none_or(|name| name == change.key.namespace);
            if !here {
                continue;
            }
            let selected = change.kind == ChangeKind::Put
                && matches(
                    self.query.labels.as_deref().unwrap_or_default(),
                    self.query.fields.as_deref().unwrap_or_default(),
                    &change.object,
                )?;
            let uid = uid(&change.object);
            let kind = match (selected, self.present.contains(&uid)) {
                (true, false) => EventKind::Added,
                (true, true) => EventKind::Modified,
                (false, true) => EventKind::Deleted,
                (false, false) => continue,
            };
            if selected {
                self.present.insert(uid);
            } else {
                self.present.remove(&uid);
            }
            self.queue
                .push_back((kind, shown(&change.object, &self.api_version).to_string()));
        }
        self.seen = cluster.changes.len();
        Ok(())
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn key(group: &str, query: &Query, name: &str) -> Key {
    Key {
        group: group.to_owned(),
        resource: query.resource.clone(),
        namespace: query.namespace.clone().unwrap_or_default(),
        name: name.to_owned(),
    }
}

/// The object in the version that was asked for. Fields are not converted.
fn shown(object: &Value, api_version: &str) -> Value {
    let mut object = object.clone();
    if object["apiVersion"].is_string() {
        object["apiVersion"] = json!(api_version);
    }
    object
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// RFC 6902, without `move` and `copy`.
fn json_patch(target: &mut Value, patch: &Value) -> Result<()> {
    let bad = |text: &str| Error::Malformed(format!("JSON patch: {text}"));
    for step in patch
        .as_array()
        .ok_or_else(|| bad("an array was expected"))?
    {
        let path = step["path"].as_str().unwrap_or_default();
        let (parent, last) = path.rsplit_once('/').ok_or_else(|| bad("no path"))?;
        let last = last.replace("~1", "/").replace("~0", "~");
        let parent = target
            .pointer_mut(parent)
            .ok_or_else(|| bad("the path does not exist"))?;
        match (step["op"].as_str().unwrap_or_default(), parent) {
            ("add" | "replace", Value::Object(object)) => {
                object.insert(last, step["value"].clone());
            }
            ("add", Value::Array(items)) if last == "-" => items.push(step["value"].clone()),
            ("replace", Value::Array(items)) => {
                let at: usize = last.parse().map_err(|_| bad("no such element"))?;
                *items.get_mut(at).ok_or_else(|| bad("no such element"))? = step["value"].clone();
            }
            ("remove", Value::Object(object)) => {
                object.remove(&last);
            }
            ("test", Value::Object(object)) if object.get(&last) == Some(&step["value"]) => {}
            _ => return Err(bad("a step cannot be applied")),
        }
    }
    Ok(())
}
