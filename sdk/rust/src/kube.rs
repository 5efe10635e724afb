//! Reading and writing the Kubernetes API.
//!
//! [`Query`] reads, [`Target`] writes, [`Object`] is what comes back: JSON with the few paths that every check needs. A probe
//! writes only objects of its own run; the door sees to that, whatever is asked here.

use crate::error::{Error, Result};
use crate::host;
use crate::inventory::pulled;
use crate::wait::{Deadline, Source};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// One object of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Value);

impl Object {
    /// Wraps a JSON value.
    pub fn new(value: Value) -> Self {
        Object(value)
    }

    /// Reads JSON text.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when the text is no JSON object.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        if value.is_object() {
            Ok(Object(value))
        } else {
            Err(Error::Unexpected("an object was expected".into()))
        }
    }

    /// `metadata.name`, empty when missing.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// `metadata.resourceVersion`: opaque, only good for comparing.
    pub fn resource_version(&self) -> &str {
        self.text("/metadata/resourceVersion")
    }

    /// `metadata.generation`, where the kind has one.
    pub fn generation(&self) -> Option<i64> {
        self.at("/metadata/generation").as_i64()
    }

    /// The value at a JSON pointer; null when there is none.
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at a JSON pointer; empty when there is none, or something else.
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// The elements of the array at a JSON pointer; none when there is no array.
    pub fn items(&self, pointer: &str) -> &[Value] {
        self.at(pointer).as_array().map_or(&[], Vec::as_slice)
    }

    /// The label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.at("/metadata/labels").get(key)?.as_str()
    }

    /// Whether the object with this uid is among the owners of this one.
    pub fn is_owned_by(&self, uid: &str) -> bool {
        let owners = self.items("/metadata/ownerReferences");
        owners.iter().any(|owner| owner["uid"] == uid)
    }

    /// The status of a condition of `status.conditions` (`True`, `False`, `Unknown`) with its reason and message.
    pub fn condition(&self, kind: &str) -> Option<Condition<'_>> {
        let found = self
            .items("/status/conditions")
            .iter()
            .find(|condition| condition["type"] == kind)?;
        let text = |key: &str| found[key].as_str().unwrap_or_default();
        Some(Condition {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// The object as a type of the probe.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when it has another form.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(T::deserialize(&self.0)?)
    }

    /// The JSON value.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The JSON value, to be changed and written back.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// The JSON value itself.
    pub fn into_value(self) -> Value {
        self.0
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace().is_empty() {
            write!(f, "{} {}", self.text("/kind"), self.name())
        } else {
            write!(
                f,
                "{} {}/{}",
                self.text("/kind"),
                self.namespace(),
                self.name()
            )
        }
    }
}

/// One condition of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// `True`, `False`, `Unknown`.
    pub status: &'a str,
    /// One word.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

/// One read of the API. Plain data until one of its calls is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub(crate) api_version: String,
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
    pub(crate) keep: Vec<String>,
}

impl Query {
    /// `("resource.k8s.io/v1", "deviceclasses")`, `("v1", "pods")`: the plural name.
    pub fn new(api_version: &str, resource: &str) -> Self {
        Query {
            api_version: api_version.to_owned(),
            resource: resource.to_owned(),
            ..Query::default()
        }
    }

    /// Only this namespace; without it all of them, or the cluster's own objects.
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Label selector in Kubernetes' syntax.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }

    /// Field selector in Kubernetes' syntax.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }

    /// Keeps only these paths (`/spec/devices/*/name`), the object's form and its identity. Large lists cost less of the
    /// budget this way.
    #[must_use]
    pub fn keep(mut self, paths: &[&str]) -> Self {
        self.keep
            .extend(paths.iter().map(|path| (*path).to_owned()));
        self
    }

    /// One object by name.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when it is not there.
    pub fn get(&self, name: &str) -> Result<Object> {
        Object::parse(&host::get(self, name)?)
    }

    /// One object by name, or none when the server says that it is not there.
    ///
    /// # Errors
    /// Those of [`Query::get`] but 404.
    pub fn get_opt(&self, name: &str) -> Result<Option<Object>> {
        match self.get(name) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects, page by page and collected. A list that lost its place is begun again, at most three times.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn list(&self) -> Result<Vec<Object>> {
        let mut left = 3;
        loop {
            match self.pages()?.collect() {
                Err(error) if error.is_expired() && left > 0 => left -= 1,
                other => return other,
            }
        }
    }

    /// A consistent list, page by page.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn pages(&self) -> Result<Pages> {
        Ok(Pages(host::open_list(self)?))
    }

    /// The run's shared snapshot of this resource, which the manifest must declare. Never an effect.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn snapshot(&self) -> Result<Vec<Object>> {
        Pages(host::open_snapshot(self)?).collect()
    }

    /// The present objects and every change from then on.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn watch(&self) -> Result<Watch> {
        Ok(Watch {
            handle: host::open_watch(self)?,
            synced: false,
        })
    }
}

/// The pages of a list.
#[derive(Debug)]
pub struct Pages(host::Cursor);

impl Pages {
    /// The next page; none at the end.
    ///
    /// # Errors
    /// [`Error::Expired`] when the server forgot the list meanwhile.
    pub fn next_page(&mut self) -> Result<Option<Vec<Object>>> {
        self.0
            .next()?
            .map(|page| page.iter().map(|text| Object::parse(text)).collect())
            .transpose()
    }

    /// The resource version of the list, once the first page was read.
    pub fn position(&self) -> String {
        self.0.position()
    }

    fn collect(mut self) -> Result<Vec<Object>> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page()? {
            all.extend(page);
        }
        Ok(all)
    }
}

/// Kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
    Synced,
    Gap,
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An object that is there, or new.
    Added(Object),
    /// An object that changed.
    Modified(Object),
    /// The last state of an object that is gone.
    Deleted(Object),
    /// Everything present was delivered.
    Synced,
    /// Continuity was lost; the present objects follow again. Whatever must not have happened may have.
    Gap(String),
}

impl Event {
    /// The object of an addition or a change.
    pub fn present(&self) -> Option<&Object> {
        match self {
            Event::Added(object) | Event::Modified(object) => Some(object),
            _ => None,
        }
    }

    /// The last state of an object that is gone.
    pub fn deleted(&self) -> Option<&Object> {
        match self {
            Event::Deleted(object) => Some(object),
            _ => None,
        }
    }
}

/// How a quiet window ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Quiet {
    /// Nothing forbidden was seen for the whole time, without a gap.
    Held,
    /// The forbidden thing was seen.
    Broken(Object),
    /// The watch lost continuity, so nothing can be said.
    Gap(String),
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    handle: host::Watch,
    /// Whether everything present was delivered, since the beginning or the last gap.
    synced: bool,
}

impl Watch {
    /// The next event, or none when there is nothing at the moment. Never waits.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn poll(&mut self) -> Result<Option<Event>> {
        let Some((kind, text)) = self.handle.next()? else {
            return Ok(None);
        };
        // Read in one place: the code of an object is large.
        let object = match kind {
            EventKind::Synced => {
                self.synced = true;
                return Ok(Some(Event::Synced));
            }
            EventKind::Gap => {
                self.synced = false;
                return Ok(Some(Event::Gap(text)));
            }
            _ => Object::parse(&text)?,
        };
        Ok(Some(match kind {
            EventKind::Deleted => Event::Deleted(object),
            EventKind::Modified => Event::Modified(object),
            _ => Event::Added(object),
        }))
    }

    /// Ready while [`Watch::poll`] has something to give; for [`crate::wait::any`] over several watches.
    pub fn source(&self) -> Source {
        Source(self.handle.ready())
    }

    /// The next event, waiting for it until the deadline; none when the deadline came first.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn next(&mut self, deadline: Deadline) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.poll()? {
                return Ok(Some(event));
            }
            let left = deadline.left();
            if left.is_zero() {
                return Ok(None);
            }
            let source = self.source();
            crate::wait::any(&[&source], left)?;
        }
    }

    /// Waits until `found` gives something for an object that is there, newest state first seen. Gaps are harmless here: the
    /// present objects are delivered again.
    ///
    /// # Errors
    /// [`Error::Deadline`] with `what` when the time is up, [`Error::ImageUnavailable`] before that when an object is a pod whose
    /// node does not get an image, and for which `found` gives nothing.
    pub fn until<T>(
        &mut self,
        timeout: Duration,
        what: &str,
        mut found: impl FnMut(&Object) -> Option<T>,
    ) -> Result<T> {
        let deadline = Deadline::after(timeout);
        while let Some(event) = self.next(deadline)? {
            let Some(object) = event.present() else {
                continue;
            };
            if let Some(result) = found(object) {
                return Ok(result);
            }
            pulled(object)?;
        }
        Err(Error::Deadline {
            what: what.to_owned(),
            after: timeout,
        })
    }

    /// Waits until the object of this name was seen to go. The watch must have delivered it before.
    ///
    /// # Errors
    /// [`Error::Deadline`] when the time is up.
    pub fn until_gone(&mut self, name: &str, timeout: Duration) -> Result<Object> {
        let deadline = Deadline::after(timeout);
        while let Some(event) = self.next(deadline)? {
            if let Some(object) = event.deleted().filter(|object| object.name() == name) {
                return Ok(object.clone());
            }
        }
        Err(Error::Deadline {
            what: format!("the end of {name}"),
            after: timeout,
        })
    }

    /// Watches for the whole time that nothing forbidden happens. `forbidden` looks at every object that is there or changes.
    ///
    /// The time begins when everything present was delivered: before that, the watch saw nothing, and the engine counts from
    /// there as well.
    ///
    /// # Errors
    /// [`Error::Deadline`] when what is present was not delivered within a minute; those of the server and of the door.
    pub fn quiet(
        &mut self,
        time: Duration,
        mut forbidden: impl FnMut(&Object) -> bool,
    ) -> Result<Quiet> {
        self.quiet_events(time, |event| event.present().is_some_and(&mut forbidden))
    }

    /// As [`Watch::quiet`], for what must not vanish either: `forbidden` looks at every addition, change and deletion.
    ///
    /// # Errors
    /// As [`Watch::quiet`].
    pub fn quiet_events(
        &mut self,
        time: Duration,
        mut forbidden: impl FnMut(&Event) -> bool,
    ) -> Result<Quiet> {
        let delivery = Duration::from_secs(60);
        let mut deadline = Deadline::after(if self.synced { time } else { delivery });
        let mut begun = self.synced;
        loop {
            while let Some(event) = self.poll()? {
                let broken = forbidden(&event);
                match event {
                    Event::Gap(reason) => return Ok(Quiet::Gap(reason)),
                    Event::Added(object) | Event::Modified(object) | Event::Deleted(object)
                        if broken =>
                    {
                        return Ok(Quiet::Broken(object));
                    }
                    Event::Synced if !begun => {
                        begun = true;
                        deadline = Deadline::after(time);
                    }
                    _ => {}
                }
            }
            let left = deadline.left();
            if left.is_zero() && begun {
                return Ok(Quiet::Held);
            }
            if left.is_zero() {
                return Err(Error::Deadline {
                    what: "the delivery of what is there".into(),
                    after: delivery,
                });
            }
            // A shorter wait would not prove that the stream lives, and its silence would not count.
            let source = self.source();
            crate::wait::any(&[&source], left.max(Duration::from_secs(1)))?;
        }
    }

    /// Ends the watch. Without it, it ends with the attempt.
    pub fn close(self) {
        self.handle.close();
    }
}

/// How often [`wait_for_beside`] looks elsewhere.
const LOOK: Duration = Duration::from_secs(5);

/// Waits until an object satisfies `found`, by a watch of one object name.
///
/// # Errors
/// As [`Watch::until`].
pub fn wait_for<T>(
    query: &Query,
    name: &str,
    timeout: Duration,
    what: &str,
    found: impl FnMut(&Object) -> Option<T>,
) -> Result<T> {
    let mut watch = query
        .clone()
        .fields(format!("metadata.name={name}"))
        .watch()?;
    let result = watch.until(timeout, what, found);
    watch.close();
    result
}

/// As [`wait_for`], for an object that depends on others: `look` is asked about them every five seconds, and its error ends the
/// wait. For the pods of something, whose images a node may not get.
///
/// # Errors
/// As [`Watch::until`], and those of `look`.
pub fn wait_for_beside<T>(
    query: &Query,
    name: &str,
    timeout: Duration,
    what: &str,
    mut found: impl FnMut(&Object) -> Option<T>,
    mut look: impl FnMut() -> Result<()>,
) -> Result<T> {
    let own = query.clone().fields(format!("metadata.name={name}"));
    let mut watch = own.watch()?;
    let deadline = Deadline::after(timeout);
    let result = loop {
        let left = deadline.left();
        match watch.until(left.min(LOOK), what, &mut found) {
            Err(error) if error.is_deadline() && left > LOOK => match look() {
                Ok(()) => {}
                Err(error) => break Err(error),
            },
            Err(Error::Deadline { what, .. }) => {
                break Err(Error::Deadline {
                    what,
                    after: timeout,
                });
            }
            other => break other,
        }
    };
    watch.close();
    result
}

/// The answer of a path outside the resource API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAnswer {
    /// HTTP status code.
    pub code: u16,
    /// Content type as the server gave it.
    pub content_type: String,
    /// The body as text.
    pub body: String,
}

/// A path outside the resource API that the manifest asks for: `/version`, `/readyz`.
///
/// # Errors
/// Those of the door, and no answer; an HTTP error code is a [`RawAnswer`].
pub fn raw(path: &str) -> Result<RawAnswer> {
    host::raw(path)
}

/// One resource to write to. Plain data until one of its calls is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub(crate) api_version: String,
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) dry_run: bool,
}

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7386.
    Merge,
    /// RFC 6902; `test` only below `/metadata`.
    Json,
    /// Server-side apply.
    Apply,
}

impl Target {
    /// As in [`Query::new`].
    pub fn new(api_version: &str, resource: &str) -> Self {
        Target {
            api_version: api_version.to_owned(),
            resource: resource.to_owned(),
            ..Target::default()
        }
    }

    /// One of the run's own namespaces, see [`crate::run::namespace`].
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Asks the server to check everything and to change nothing. An effect only when it is refused.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// The same resource, for reading.
    pub fn query(&self) -> Query {
        Query {
            api_version: self.api_version.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            ..Query::default()
        }
    }

    /// Creates the object; its name must come from [`crate::run::name`]. Gives the object as created.
    ///
    /// # Errors
    /// [`Error::is_already_exists`], [`Error::is_invalid`] and the others of the server and the door.
    pub fn create(&self, manifest: &Value) -> Result<Object> {
        Object::parse(&host::create(self, &manifest.to_string())?)
    }

    /// Replaces the object of this name (PUT). With `metadata.resourceVersion` in it, only if nobody changed it since.
    ///
    /// # Errors
    /// [`Error::is_conflict`] and the others of the server and the door.
    pub fn replace(&self, name: &str, manifest: &Value) -> Result<Object> {
        Object::parse(&host::replace(self, name, &manifest.to_string())?)
    }

    /// Reads the object, changes it and replaces it; after a conflict again, at most five times.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn update(&self, name: &str, mut change: impl FnMut(&mut Value)) -> Result<Object> {
        let mut left = 5;
        loop {
            let mut object = self.query().get(name)?;
            change(object.value_mut());
            match self.replace(name, object.value()) {
                Err(error) if error.is_conflict() && left > 0 => left -= 1,
                other => return other,
            }
        }
    }

    /// Patches the object.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn patch(&self, name: &str, kind: PatchKind, body: &Value) -> Result<Object> {
        let kind = match kind {
            PatchKind::Merge => "merge",
            PatchKind::Json => "json",
            PatchKind::Apply => "apply",
        };
        Object::parse(&host::patch(self, name, kind, &body.to_string())?)
    }

    /// Deletes the object. A success says that the server took the order, not that the object is gone.
    ///
    /// # Errors
    /// [`Error::is_not_found`] and the others of the server and the door.
    pub fn delete(&self, name: &str) -> Result<()> {
        host::delete(self, name, None)
    }

    /// Deletes the object with `terminationGracePeriodSeconds`.
    ///
    /// # Errors
    /// As [`Target::delete`].
    pub fn delete_with_grace(&self, name: &str, seconds: u32) -> Result<()> {
        host::delete(self, name, Some(seconds))
    }

    /// Deletes what would only be in the way, with a grace period in seconds or the object's own. What stays is removed by the
    /// engine, so a failure is logged and no more.
    ///
    /// # Errors
    /// Only those after which nothing can go on: a budget is used up, the run is ending.
    pub fn discard(&self, name: &str, grace: Option<u32>) -> Result<()> {
        match host::delete(self, name, grace) {
            Err(error) if error.ends_the_probe() => Err(error),
            Err(error) if !error.is_not_found() => {
                crate::log::warn(format!(
                    "{} {name} could not be deleted: {error}",
                    self.resource
                ));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Deletes all objects of this run that match the label selector; gives the number the door saw.
    ///
    /// # Errors
    /// Refused when a foreign object would go with them.
    pub fn delete_collection(&self, labels: &str) -> Result<u32> {
        host::delete_collection(self, labels)
    }
}
