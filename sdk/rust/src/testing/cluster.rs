//! The fake cluster: objects in memory with the semantics of the Kubernetes API that a probe can notice.
//!
//! It has uids, resource versions, generations, conflicts, selectors, finalizers, owner references and watches. It has no
//! admission, no defaulting and no validation but what a test adds with [`FakeCluster::admit`], [`FakeCluster::refuse`] and
//! [`FakeCluster::validate`], and nothing runs in it but the controllers that a test adds. A probe that passes here has shown that its logic is right, nothing about a platform.

use super::pods::{FakeLog, FakeResult, PodRequest};
use super::selector;
use crate::error::{Answer, Error};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A resource that the fake cluster serves.
#[derive(Clone, Debug)]
struct Served {
    group: String,
    /// Newest first.
    versions: Vec<String>,
    plural: String,
    kind: String,
    namespaced: bool,
    subresources: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Put,
    Deleted,
}

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    pub(super) key: Key,
    pub(super) object: Value,
}

/// What a fault does instead of the real thing.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server answers with this code, reason and message; nothing happens.
    Answer(u16, &'static str, &'static str),
    /// No answer arrives; nothing happened.
    Lost,
    /// No answer arrives, but it happened.
    LostAfter,
    /// The server says that it did it, and did not. A broken cluster.
    Swallowed,
    /// A list or watch loses its place.
    Expired,
}

struct Rule {
    verb: String,
    resource: String,
    fault: Fault,
    skip: u32,
    left: u32,
}

type Planned = Box<dyn FnOnce(&mut FakeCluster)>;
type Controller = Box<dyn FnMut(&mut FakeCluster)>;
type Validator = Box<dyn Fn(&Value) -> Vec<String>>;
type Refusal = Box<dyn Fn(&Admission<'_>) -> Option<(u16, String)>>;
type LogScript = Box<dyn Fn(&PodRequest<'_>) -> FakeLog>;
type CommandScript = Box<dyn Fn(&PodRequest<'_>) -> FakeResult>;
type Mutator = Box<dyn Fn(&FakeCluster, &mut Value)>;

/// What admission looks at when an object is created or changed.
#[derive(Debug)]
pub struct Admission<'a> {
    /// The cluster as it is, without the object.
    pub cluster: &'a FakeCluster,
    /// The object as it would be stored.
    pub object: &'a Value,
    /// Whether a controller of the cluster asks, and not the probe.
    pub by_controller: bool,
    /// Whether nothing would be stored.
    pub dry_run: bool,
}

/// A cluster in memory.
pub struct FakeCluster {
    version: String,
    served: Vec<Served>,
    objects: BTreeMap<Key, Value>,
    revision: u64,
    uids: u64,
    pub(super) changes: Vec<Change>,
    pub(super) now: Duration,
    pub(super) cuts: u32,
    controllers: Vec<Controller>,
    later: Vec<(Duration, Planned)>,
    validators: Vec<(String, Validator)>,
    refusals: Vec<(String, Refusal)>,
    mutators: Vec<(String, Mutator)>,
    rules: Vec<Rule>,
    raw: BTreeMap<String, (u16, String)>,
    dropped: Vec<(String, String)>,
    page: usize,
    held: BTreeMap<String, String>,
    pub(super) workloads: super::workload::Workloads,
    logs: Option<LogScript>,
    commands: Option<CommandScript>,
    no_images: bool,
}

impl std::fmt::Debug for FakeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeCluster")
            .field("version", &self.version)
            .field("objects", &self.objects.keys())
            .finish_non_exhaustive()
    }
}

fn answer(code: u16, reason: &str, message: String) -> Error {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    Error::Answered(Answer {
        code,
        reason: reason.to_owned(),
        message,
        body: body.to_string(),
    })
}

impl FakeCluster {
    /// A cluster of this version (`v1.37.0`) with the usual namespaces and the core resources `namespaces`, `nodes`, `pods`,
    /// `services`, `configmaps`, `events`.
    pub fn new(version: &str) -> Self {
        let mut cluster = FakeCluster {
            version: version.to_owned(),
            served: Vec::new(),
            objects: BTreeMap::new(),
            revision: 1000,
            uids: 0,
            changes: Vec::new(),
            now: Duration::ZERO,
            cuts: 0,
            controllers: Vec::new(),
            later: Vec::new(),
            validators: Vec::new(),
            refusals: Vec::new(),
            mutators: Vec::new(),
            rules: Vec::new(),
            raw: BTreeMap::new(),
            dropped: Vec::new(),
            page: 500,
            held: BTreeMap::new(),
            workloads: Default::default(),
            logs: None,
            commands: None,
            no_images: false,
        };
        for (plural, kind, namespaced) in [
            ("namespaces", "Namespace", false),
            ("nodes", "Node", false),
            ("pods", "Pod", true),
            ("services", "Service", true),
            ("configmaps", "ConfigMap", true),
            ("events", "Event", true),
        ] {
            let subresources: &[&str] = if plural == "pods" {
                &["eviction", "exec", "log", "resize", "status"]
            } else {
                &["status"]
            };
            cluster.serve("", &["v1"], plural, kind, namespaced, subresources);
        }
        for name in ["default", "kube-system", "kube-public"] {
            cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}}));
        }
        let (major, minor) = version
            .trim_start_matches('v')
            .split_once('.')
            .map(|(major, rest)| (major, rest.split('.').next().unwrap_or_default()))
            .unwrap_or_default();
        let body = json!({"major": major, "minor": minor, "gitVersion": version, "platform": "linux/amd64"});
        cluster
            .raw
            .insert("/version".into(), (200, body.to_string()));
        cluster
    }

    /// Serves one more resource; versions newest first.
    pub fn serve(
        &mut self,
        group: &str,
        versions: &[&str],
        plural: &str,
        kind: &str,
        namespaced: bool,
        subresources: &[&str],
    ) -> &mut Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        self.served.push(Served {
            group: group.to_owned(),
            versions: owned(versions),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            namespaced,
            subresources: owned(subresources),
        });
        self
    }

    /// Stops serving a subresource.
    pub fn without_subresource(&mut self, plural: &str, name: &str) -> &mut Self {
        for served in self.served.iter_mut().filter(|one| one.plural == plural) {
            served.subresources.retain(|have| have != name);
        }
        self
    }

    /// Answers a path outside the resource API.
    pub fn serve_path(&mut self, path: &str, code: u16, body: &str) -> &mut Self {
        self.raw.insert(path.to_owned(), (code, body.to_owned()));
        self
    }

    /// Objects a page of a list; 500 without.
    pub fn page_size(&mut self, objects: usize) -> &mut Self {
        self.page = objects.max(1);
        self
    }

    /// Adds or replaces an object, as somebody else would. Gives it as stored.
    ///
    /// # Panics
    /// When the cluster does not serve its kind.
    pub fn put(&mut self, object: Value) -> Value {
        let Some(key) = self.key_of(&object) else {
            panic!("the fake cluster does not serve this object: {object}");
        };
        self.store(key, object)
    }

    /// One object; null when it is not there.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> &Value {
        self.objects
            .iter()
            .find(|(key, _)| {
                key.resource == resource && key.namespace == namespace && key.name == name
            })
            .map_or(&Value::Null, |(_, object)| object)
    }

    /// All objects of a resource, by name.
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|(key, _)| key.resource == resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Changes an object, as a controller would; nothing when it is not there or `change` changes nothing.
    pub fn change(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let found = self.objects.iter().find(|(key, _)| {
            key.resource == resource && key.namespace == namespace && key.name == name
        });
        if let Some((key, object)) = found.map(|(key, object)| (key.clone(), object.clone())) {
            let mut changed = object.clone();
            change(&mut changed);
            if changed == object {
                return;
            }
            self.store(key.clone(), changed);
            self.finish_deletion(&key);
        }
    }

    /// Removes an object, as a controller would, whatever finalizers it has.
    pub fn remove(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = self
            .objects
            .keys()
            .find(|key| key.resource == resource && key.namespace == namespace && key.name == name);
        if let Some(key) = key.cloned() {
            self.drop_object(&key);
        }
    }

    /// Runs after every write and whenever time passes, until nothing changes any more.
    pub fn controller(&mut self, run: impl FnMut(&mut FakeCluster) + 'static) -> &mut Self {
        self.controllers.push(Box::new(run));
        self
    }

    /// Runs once, so much time after now.
    pub fn after(
        &mut self,
        time: Duration,
        run: impl FnOnce(&mut FakeCluster) + 'static,
    ) -> &mut Self {
        self.later.push((self.now + time, Box::new(run)));
        self
    }

    /// Refuses objects of a resource with 422 and these messages, on create and update.
    pub fn validate(
        &mut self,
        resource: &str,
        check: impl Fn(&Value) -> Vec<String> + 'static,
    ) -> &mut Self {
        self.validators.push((resource.to_owned(), Box::new(check)));
        self
    }

    /// Completes or changes objects of a resource when they are created, as mutating admission does.
    pub fn admit(
        &mut self,
        resource: &str,
        change: impl Fn(&FakeCluster, &mut Value) + 'static,
    ) -> &mut Self {
        self.mutators.push((resource.to_owned(), Box::new(change)));
        self
    }

    /// Asks before an object of a resource is created or changed, dry runs included; a code and a message refuse it.
    pub fn refuse(
        &mut self,
        resource: &str,
        check: impl Fn(&Admission<'_>) -> Option<(u16, String)> + 'static,
    ) -> &mut Self {
        self.refusals.push((resource.to_owned(), Box::new(check)));
        self
    }

    /// Creates an object as a controller would: admission and validation may refuse it. Gives it as stored.
    ///
    /// # Errors
    /// As the server answers.
    ///
    /// # Panics
    /// When the cluster does not serve its kind.
    pub fn create(&mut self, object: Value) -> Result<Value, Error> {
        let Some(key) = self.key_of(&object) else {
            panic!("the fake cluster does not serve this object: {object}");
        };
        let object = self.mutated(&key, object);
        let object = self.admitted(&key, object, true, false)?;
        Ok(self.store(key, object))
    }

    /// The time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.now
    }

    /// Forgets all validators: a broken cluster.
    pub fn bypass_validation(&mut self) -> &mut Self {
        self.validators.clear();
        self
    }

    /// Drops the field at a JSON pointer from every object of a resource before anything looks at it, as a server does with
    /// the fields of a feature gate that is off.
    pub fn drop_field(&mut self, resource: &str, pointer: &str) -> &mut Self {
        self.dropped.push((resource.to_owned(), pointer.to_owned()));
        self
    }

    /// The next call of this verb on this resource (`*` for any) fails this way.
    pub fn fail_once(&mut self, verb: &str, resource: &str, fault: Fault) -> &mut Self {
        self.fail(verb, resource, fault, 0, 1)
    }

    /// Every call of this verb on this resource (`*` for any) fails this way.
    pub fn fail_always(&mut self, verb: &str, resource: &str, fault: Fault) -> &mut Self {
        self.fail(verb, resource, fault, 0, u32::MAX)
    }

    /// After `skip` calls, the next `times` calls of this verb on this resource fail this way.
    pub fn fail(
        &mut self,
        verb: &str,
        resource: &str,
        fault: Fault,
        skip: u32,
        times: u32,
    ) -> &mut Self {
        self.rules.push(Rule {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            fault,
            skip,
            left: times,
        });
        self
    }

    /// Somebody else of the run holds what this lease asks for; `who` is the text of the error.
    pub fn hold_lease(&mut self, name: &str, who: &str) -> &mut Self {
        self.held.insert(name.to_owned(), who.to_owned());
        self
    }

    /// What containers have in their logs; nothing without. A pod whose phase is none of `Running`, `Succeeded`, `Failed` has not
    /// started and has none. A fault of verb `read` on `pods/log` breaks a log that is open.
    pub fn logs(&mut self, say: impl Fn(&PodRequest<'_>) -> FakeLog + 'static) -> &mut Self {
        self.logs = Some(Box::new(say));
        self
    }

    /// What commands in containers give; without, none can be started. A fault of verb `read` on `pods/exec` breaks the connection.
    pub fn commands(&mut self, run: impl Fn(&PodRequest<'_>) -> FakeResult + 'static) -> &mut Self {
        self.commands = Some(Box::new(run));
        self
    }

    /// No node gets an image from now on: a pod of the run that would start waits for its image, whoever says that it runs.
    pub fn without_images(&mut self) -> &mut Self {
        self.no_images = true;
        self
    }

    /// All running watches lose continuity: they give `gap`, what is there, and `synced`.
    pub fn cut_watches(&mut self) {
        self.cuts += 1;
    }

    // From here on: what the attempt uses.

    pub(super) fn fault(&mut self, verb: &str, resource: &str) -> Option<Fault> {
        for rule in &mut self.rules {
            let hit = (rule.verb == "*" || rule.verb == verb)
                && (rule.resource == "*" || rule.resource == resource);
            if !hit || rule.left == 0 {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.left -= 1;
            return Some(rule.fault.clone());
        }
        None
    }

    pub(super) fn log_of(&self, request: &PodRequest<'_>) -> FakeLog {
        let say = self.logs.as_ref();
        say.map(|say| say(request)).unwrap_or_default()
    }

    pub(super) fn result_of(&self, request: &PodRequest<'_>) -> FakeResult {
        match &self.commands {
            Some(run) => run(request),
            None => FakeResult::not_started("no command can be started here"),
        }
    }

    pub(super) fn lease_holder(&self, name: &str) -> Option<String> {
        self.held.get(name).cloned()
    }

    pub(super) fn page(&self) -> usize {
        self.page
    }

    pub(super) fn revision(&self) -> String {
        self.revision.to_string()
    }

    pub(super) fn path(&self, path: &str) -> Option<&(u16, String)> {
        self.raw.get(path)
    }

    pub(super) fn discovery(&self) -> Value {
        let mut groups: Vec<Value> = Vec::new();
        let mut names: Vec<&str> = self
            .served
            .iter()
            .map(|served| served.group.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        for group in names {
            let of_group: Vec<&Served> = self
                .served
                .iter()
                .filter(|served| served.group == group)
                .collect();
            let mut versions: Vec<&str> = Vec::new();
            for version in of_group.iter().flat_map(|served| &served.versions) {
                if !versions.contains(&version.as_str()) {
                    versions.push(version);
                }
            }
            let versions: Vec<Value> = versions
                .iter()
                .enumerate()
                .map(|(at, version)| {
                    let resources: Vec<Value> = of_group
                        .iter()
                        .filter(|served| served.versions.iter().any(|have| have == version))
                        .map(|served| {
                            json!({"name": served.plural, "kind": served.kind, "namespaced": served.namespaced,
                                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                                "subresources": served.subresources})
                        })
                        .collect();
                    json!({"version": version, "preferred": at == 0, "resources": resources})
                })
                .collect();
            groups.push(json!({"group": group, "versions": versions}));
        }
        let version: Value = self
            .raw
            .get("/version")
            .and_then(|(_, body)| serde_json::from_str(body).ok())
            .unwrap_or_default();
        json!({"version": version, "groups": groups})
    }

    /// Group and plural, if this API version and resource are served; 404 otherwise.
    pub(super) fn resolve(&self, api_version: &str, resource: &str) -> Result<String, Error> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.served
            .iter()
            .find(|served| {
                served.group == group
                    && served.plural == resource
                    && (subresource.is_empty()
                        || served.subresources.iter().any(|have| have == subresource))
                    && served.versions.iter().any(|have| have == version)
            })
            .map(|served| served.group.clone())
            .ok_or_else(|| {
                answer(
                    404,
                    "NotFound",
                    "the server could not find the requested resource".into(),
                )
            })
    }

    pub(super) fn is_namespaced(&self, group: &str, resource: &str) -> bool {
        self.served
            .iter()
            .any(|served| served.group == group && served.plural == resource && served.namespaced)
    }

    pub(super) fn select(
        &self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Vec<(Key, Value)>, Error> {
        let mut found = Vec::new();
        for (key, object) in &self.objects {
            let here = key.group == group
                && key.resource == resource
                && namespace.is_none_or(|name| name == key.namespace);
            if here && matches(labels, fields, object)? {
                found.push((key.clone(), object.clone()));
            }
        }
        Ok(found)
    }

    pub(super) fn find(&self, key: &Key) -> Result<&Value, Error> {
        self.objects.get(key).ok_or_else(|| {
            answer(
                404,
                "NotFound",
                format!("{} \"{}\" not found", qualified(key), key.name),
            )
        })
    }

    pub(super) fn insert(
        &mut self,
        key: Key,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Value, Error> {
        // The request says where and under which name; a body may leave it out.
        object["metadata"]["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(key.namespace);
        }
        let object = self.mutated(&key, object);
        let mut object = self.admitted(&key, object, false, dry_run)?;
        if self.objects.contains_key(&key) {
            return Err(answer(
                409,
                "AlreadyExists",
                format!("{} \"{}\" already exists", qualified(&key), key.name),
            ));
        }
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        object["metadata"]["generation"] = json!(1);
        if dry_run {
            object["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
            return Ok(object);
        }
        let stored = self.store(key, object);
        self.settle();
        Ok(stored)
    }

    pub(super) fn update(
        &mut self,
        key: &Key,
        object: Value,
        dry_run: bool,
    ) -> Result<Value, Error> {
        let old = self.find(key)?.clone();
        let version = &object["metadata"]["resourceVersion"];
        if version.is_string() && *version != old["metadata"]["resourceVersion"] {
            return Err(answer(
                409,
                "Conflict",
                format!(
                    "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest version and try again",
                    qualified(key),
                    key.name
                ),
            ));
        }
        let mut object = self.admitted(key, object, false, dry_run)?;
        object["status"] = old["status"].clone();
        if object["status"].is_null()
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        for field in [
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
        ] {
            object["metadata"][field] = old["metadata"][field].clone();
        }
        if object["metadata"]["deletionTimestamp"].is_null()
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("deletionTimestamp");
        }
        if object["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        if dry_run {
            return Ok(object);
        }
        let stored = self.store(key.clone(), object);
        self.finish_deletion(key);
        self.settle();
        Ok(stored)
    }

    pub(super) fn delete(&mut self, key: &Key) -> Result<(), Error> {
        let object = self.find(key)?.clone();
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|finalizers| !finalizers.is_empty());
        if held {
            let mut object = object;
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!(timestamp(self.now));
                self.store(key.clone(), object);
            }
        } else {
            self.drop_object(key);
        }
        self.settle();
        Ok(())
    }

    /// Lets time pass: to the next planned action within `time`, or by all of it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.later.sort_by_key(|(at, _)| *at);
        if self.later.first().is_some_and(|(at, _)| *at <= end) {
            let (at, run) = self.later.remove(0);
            self.now = self.now.max(at);
            run(self);
        } else {
            self.now = end;
        }
        self.settle();
    }

    /// Lets all of this time pass.
    pub(super) fn pass_all(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass(end - self.now);
        }
    }

    /// Runs the controllers until nothing changes any more.
    pub(super) fn settle(&mut self) {
        let mut controllers = std::mem::take(&mut self.controllers);
        // A controller that never settles is a mistake of the test; a bound keeps it from hanging.
        for _ in 0..20 {
            let before = self.revision;
            for controller in &mut controllers {
                controller(self);
            }
            if self.revision == before {
                break;
            }
        }
        controllers.append(&mut self.controllers);
        self.controllers = controllers;
    }

    fn key_of(&self, object: &Value) -> Option<Key> {
        let api_version = object["apiVersion"].as_str()?;
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = object["kind"].as_str()?;
        let served = self
            .served
            .iter()
            .find(|served| served.group == group && served.kind == kind)?;
        let text = |field: &str| {
            object["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        Some(Key {
            group: group.to_owned(),
            resource: served.plural.clone(),
            namespace: text("namespace"),
            name: text("name"),
        })
    }

    fn without_dropped(&self, key: &Key, object: &mut Value) {
        for (resource, pointer) in &self.dropped {
            if *resource == key.resource
                && let Some((parent, field)) = pointer.rsplit_once('/')
                && let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut)
            {
                parent.remove(field);
            }
        }
    }

    fn mutated(&self, key: &Key, mut object: Value) -> Value {
        self.without_dropped(key, &mut object);
        for (_, change) in self.mutators.iter().filter(|(of, _)| *of == key.resource) {
            change(self, &mut object);
        }
        object
    }

    /// Validation and then admission, as a real server does. Gives the object as it would be stored.
    fn admitted(
        &self,
        key: &Key,
        mut object: Value,
        by_controller: bool,
        dry_run: bool,
    ) -> Result<Value, Error> {
        self.without_dropped(key, &mut object);
        self.validated(key, &object)?;
        let admission = Admission {
            cluster: self,
            object: &object,
            by_controller,
            dry_run,
        };
        for (_, check) in self.refusals.iter().filter(|(of, _)| *of == key.resource) {
            if let Some((code, message)) = check(&admission) {
                let reason = if code == 403 { "Forbidden" } else { "Invalid" };
                let message = format!(
                    "{} \"{}\" is forbidden: {message}",
                    qualified(key),
                    key.name
                );
                return Err(answer(code, reason, message));
            }
        }
        Ok(object)
    }

    fn validated(&self, key: &Key, object: &Value) -> Result<(), Error> {
        let problems: Vec<String> = self
            .validators
            .iter()
            .filter(|(resource, _)| *resource == key.resource)
            .flat_map(|(_, check)| check(object))
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(answer(
            422,
            "Invalid",
            format!(
                "{} \"{}\" is invalid: {}",
                qualified(key),
                key.name,
                problems.join(", ")
            ),
        ))
    }

    fn store(&mut self, key: Key, mut object: Value) -> Value {
        if self.no_images && key.resource == "pods" && key.namespace.starts_with("karat-") {
            super::pods::hold_back(&mut object);
            // Whoever says again and again that it runs must not keep the controllers busy.
            if self.objects.get(&key) == Some(&object) {
                return object;
            }
        }
        self.revision += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.revision.to_string());
        if !metadata["uid"].is_string() {
            self.uids += 1;
            metadata["uid"] = json!(format!("5eed0000-0000-4000-8000-{:012}", self.uids));
        }
        if !metadata["creationTimestamp"].is_string() {
            metadata["creationTimestamp"] = json!(timestamp(self.now));
        }
        self.objects.insert(key.clone(), object.clone());
        self.changes.push(Change {
            kind: ChangeKind::Put,
            key,
            object: object.clone(),
        });
        object
    }

    fn drop_object(&mut self, key: &Key) {
        let Some(mut object) = self.objects.remove(key) else {
            return;
        };
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let uid = object["metadata"]["uid"].clone();
        self.changes.push(Change {
            kind: ChangeKind::Deleted,
            key: key.clone(),
            object,
        });
        // What it owned goes with it, as the garbage collector would have it.
        let owned: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, object)| {
                object["metadata"]["ownerReferences"]
                    .as_array()
                    .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in owned {
            self.change_for_deletion(&key);
        }
    }

    fn change_for_deletion(&mut self, key: &Key) {
        let Some(mut object) = self.objects.get(key).cloned() else {
            return;
        };
        object["metadata"]["deletionTimestamp"] = json!(timestamp(self.now));
        self.store(key.clone(), object);
        self.finish_deletion(key);
    }

    /// Removes an object that is being deleted once its last finalizer is gone.
    fn finish_deletion(&mut self, key: &Key) {
        let Some(object) = self.objects.get(key) else {
            return;
        };
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|finalizers| !finalizers.is_empty());
        if !held && object["metadata"]["deletionTimestamp"].is_string() {
            self.drop_object(key);
        }
    }
}

/// Whether an object satisfies both selectors; 400 for a selector that cannot be read.
pub(super) fn matches(labels: &str, fields: &str, object: &Value) -> Result<bool, Error> {
    let bad = |message: String| answer(400, "BadRequest", message);
    Ok(selector::labels(labels, object).map_err(bad)?
        && selector::fields(fields, object).map_err(bad)?)
}

fn qualified(key: &Key) -> String {
    if key.group.is_empty() {
        key.resource.clone()
    } else {
        format!("{}.{}", key.resource, key.group)
    }
}

/// The fake clock as a time of day: the run starts at ten o'clock.
pub(super) fn timestamp(now: Duration) -> String {
    let seconds = 36_000 + now.as_secs();
    format!(
        "2026-01-01T{:02}:{:02}:{:02}Z",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}
