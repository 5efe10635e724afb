//! Writing to the Kubernetes API: only objects of this run.
//!
//! Creation is a POST under a name of [`super::run::name`], journalled and synced before it is sent. Every later write
//! carries the uid of the object that this run created, so that the server refuses it on anybody else's. A creation
//! without an answer, or with one that does not say whether it happened, is looked up by name and seal; nothing that
//! writes is ever repeated.

use super::address::{self, Resource, check_name, check_selector, malformed};
use super::write_body;
use super::{nothing, text, unexpected};
use crate::cluster::{Method, Request};
use crate::gate::reduce::each_item;
use crate::gate::{ARGUMENTS_MAX, Answer, Call, Content, Door, Trouble, Wire};
use crate::guard::{self, PatchKind};
use crate::journal::ObjectRef;
use crate::names::{FIELD_MANAGER, LABEL_RUN};
use crate::recording::format::{Access, Failure, Reply, ResourceAccess, Seen};
use crate::seal::{self, Stamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest answer to a write.
const OBJECT_MAX: u64 = 16 << 20;
/// Objects that one `delete-collection` may remove; more than any probe creates.
const COLLECTION_MAX: usize = 10_000;

/// One resource to write to, as the guest built it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `resource.k8s.io/v1`, `v1`.
    pub api_version: String,
    /// Plural, with a subresource after `/`.
    pub resource: String,
    /// Namespace; none for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Whether the server only checks.
    pub dry_run: bool,
}

impl Target {
    /// A target without options.
    pub fn new(api_version: impl Into<String>, resource: impl Into<String>) -> Target {
        Target {
            api_version: api_version.into(),
            resource: resource.into(),
            ..Target::default()
        }
    }

    fn call(&self, function: &'static str, more: Value) -> Call {
        let mut arguments = json!({"api-version": self.api_version, "resource": self.resource});
        if let Some(namespace) = &self.namespace {
            arguments["namespace"] = json!(namespace);
        }
        if self.dry_run {
            arguments["dry-run"] = json!(true);
        }
        if let (Value::Object(arguments), Value::Object(more)) = (&mut arguments, more) {
            arguments.extend(more);
        }
        let mut call = Call::new(function, arguments);
        call.dry_run = self.dry_run;
        call.write = true;
        call
    }

    fn check(&self) -> Result<(Resource, String), Failure> {
        let resource = Resource::parse(&self.api_version, &self.resource)?;
        if self.namespace.as_deref() == Some("") {
            return Err(malformed(
                "namespace",
                "",
                "is empty; leave it out for cluster-scoped objects",
            ));
        }
        let namespace = self.namespace.clone().unwrap_or_default();
        address::check(&resource.access("create", &namespace, ""))?;
        Ok((resource, namespace))
    }

    /// Query parameters of every write.
    fn query(&self, is_object: bool) -> String {
        address::query(&[
            ("fieldManager", FIELD_MANAGER),
            ("fieldValidation", if is_object { "Strict" } else { "" }),
            ("dryRun", if self.dry_run { "All" } else { "" }),
        ])
    }

    /// Body of a deletion: options in the query do not count beside a body.
    fn delete_options(&self, uid: Option<&str>, grace: Option<u32>) -> Vec<u8> {
        let mut options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
        });
        if let Some(uid) = uid {
            options["preconditions"] = json!({"uid": uid});
        }
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = json!(grace);
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options.to_string().into_bytes()
    }
}

/// A write that makes sense: where to, and its body.
struct Prepared {
    access: ResourceAccess,
    body: Option<Value>,
}

/// Runs a prepared write, or refuses what makes no sense.
async fn run<F, Fut>(
    door: &Door,
    mut call: Call,
    prepared: Result<Prepared, Failure>,
    live: F,
) -> Reply
where
    F: FnOnce(Wire) -> Fut,
    Fut: Future<Output = Result<Answer, Trouble>>,
{
    match prepared {
        Err(failure) => door.refuse(call, failure),
        Ok(prepared) => {
            call.body = prepared.body;
            door.call(call.reaching(Access::Resource(prepared.access)), live)
                .await
                .0
        }
    }
}

/// A body beyond the limit is not even parsed; the door refuses its arguments.
fn size(body: &str) -> Result<(), Failure> {
    if body.len() <= ARGUMENTS_MAX {
        return Ok(());
    }
    Err(Failure::Malformed(format!(
        "the body is {} bytes; at most {ARGUMENTS_MAX} are taken",
        body.len()
    )))
}

/// Creates an object, given as JSON, and gives it as created.
///
/// # Errors
/// All of the contract. `NoAnswer` means that nobody knows whether the object will appear.
pub async fn create(door: &Door, target: &Target, manifest: &str) -> Result<String, Failure> {
    const FUNCTION: &str = "kube-write.target.create";
    let call = target.call(FUNCTION, json!({"manifest": manifest}));
    let prepare = || {
        size(manifest)?;
        let (resource, namespace) = target.check()?;
        if !matches!(resource.subresource.as_str(), "" | "eviction") {
            return Err(Failure::Refused(format!(
                "creating {}/{} is not served by `kube-write`; `eviction` is the only subresource that it creates, and commands in pods belong to the interface `pods`",
                resource.resource, resource.subresource
            )));
        }
        let (body, name) = write_body::object(manifest, &resource, &namespace)?;
        Ok(Prepared {
            access: resource.access("create", &namespace, &name),
            body: Some(body),
        })
    };
    let reply = run(door, call, prepare(), |wire| async move {
        if wire.resource()?.subresource.is_empty() {
            create_object(&wire, target).await
        } else {
            evict(&wire, target).await
        }
    })
    .await;
    text(FUNCTION, reply)
}

async fn create_object(wire: &Wire, target: &Target) -> Result<Answer, Trouble> {
    let live = &wire.live;
    let at = wire.resource()?;
    let object = reference(at);
    let mut body = wire.body.clone().unwrap_or_default();
    stamp(wire, &object, &mut body);
    let collection = address::path(&ResourceAccess {
        name: String::new(),
        ..at.clone()
    });
    let mut request = Request::with_body(
        Method::Post,
        collection + &target.query(true),
        body.to_string().into_bytes(),
    );
    request.max_bytes = OBJECT_MAX;
    if target.dry_run {
        let answer = wire.ask(request).await?;
        return Ok(Answer::live(Content::Object(answer.body), answer.code));
    }
    let (journal, probe) = (live.journal.clone(), live.manifest.id.clone());
    let noted = {
        let (journal, object, probe) = (journal.clone(), object.clone(), probe.clone());
        tokio::task::spawn_blocking(move || journal.intend(&object, &probe)).await
    };
    match noted {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(unwritten(&e)),
        Err(e) => return Err(unwritten(&e)),
    }
    let lost = match wire.send(request).await {
        Ok(answer) if (200..300).contains(&answer.code) => {
            journal
                .created(&object, &probe, &uid_of(&answer.body)?)
                .map_err(|e| unwritten(&e))?;
            return Ok(Answer::live(Content::Object(answer.body), answer.code));
        }
        // Below 500 the server says that it did not do it; above, it may have.
        Ok(answer) if answer.code < 500 => {
            journal
                .refused(&object, &probe)
                .map_err(|e| unwritten(&e))?;
            return Err(Trouble::Answered(answer.code, answer.body));
        }
        Ok(answer) => Trouble::Answered(answer.code, answer.body),
        Err(lost) => lost.into(),
    };
    let found = wire
        .look(Request::get(address::path(at)).limited(OBJECT_MAX))
        .await;
    match found {
        Ok(answer) if answer.code == 200 && is_sealed(wire, &object, &answer.body) => {
            wire.note_tries(2);
            journal
                .created(&object, &probe, &uid_of(&answer.body)?)
                .map_err(|e| unwritten(&e))?;
            // The object is what the POST would have answered, so the code is what it would have been.
            Ok(Answer::live(Content::Object(answer.body), 201))
        }
        _ => Err(lost),
    }
}

async fn evict(wire: &Wire, target: &Target) -> Result<Answer, Trouble> {
    let at = wire.resource()?;
    let uid = identity(wire, at).await?;
    let mut body = wire.body.clone().unwrap_or_default();
    if !body["deleteOptions"].is_object() {
        body["deleteOptions"] = json!({});
    }
    body["deleteOptions"]["preconditions"] = json!({"uid": uid});
    let path = address::path(at) + &target.query(false);
    let request = Request::with_body(Method::Post, path, body.to_string().into_bytes());
    let answer = wire.ask(request.limited(OBJECT_MAX)).await?;
    Ok(Answer::live(Content::Object(answer.body), answer.code))
}

/// Replaces an object (PUT) and gives it as it is then.
///
/// # Errors
/// All of the contract; `Answered` with 409 where the object is another one by now.
pub async fn replace(
    door: &Door,
    target: &Target,
    name: &str,
    manifest: &str,
) -> Result<String, Failure> {
    const FUNCTION: &str = "kube-write.target.replace";
    let call = target.call(FUNCTION, json!({"name": name, "manifest": manifest}));
    let prepare = || {
        size(manifest)?;
        let (resource, namespace) = target.check()?;
        let (body, inner) = write_body::object(manifest, &resource, &namespace)?;
        if inner != name {
            return Err(malformed(
                "name",
                &inner,
                "of the body is not the name to replace",
            ));
        }
        Ok(Prepared {
            access: resource.access("update", &namespace, name),
            body: Some(body),
        })
    };
    let reply = run(door, call, prepare(), |wire| async move {
        let at = wire.resource()?;
        let uid = identity(&wire, at).await?;
        let mut body = wire.body.clone().unwrap_or_default();
        if at.subresource.is_empty() {
            // A PUT without them would remove finalizers, owners and the seal.
            let present = wire
                .look_at(Request::get(address::path(at)).limited(OBJECT_MAX))
                .await?;
            let present: Value = serde_json::from_slice(&present.body).unwrap_or_default();
            guard::carry_over(&present, &mut body);
        }
        write_body::set_uid(&mut body, &uid)?;
        let path = address::path(at) + &target.query(true);
        let request = Request::with_body(Method::Put, path, body.to_string().into_bytes());
        let answer = wire.ask(request.limited(OBJECT_MAX)).await?;
        Ok(Answer::live(Content::Object(answer.body), answer.code))
    })
    .await;
    text(FUNCTION, reply)
}

/// Patches an object and gives it as it is then. Kinds: `merge`, `json`, `apply` (never forced).
///
/// # Errors
/// All of the contract; `Answered` with 409 or 422 where the object is another one by now.
pub async fn patch(
    door: &Door,
    target: &Target,
    name: &str,
    kind: &str,
    body: &str,
) -> Result<String, Failure> {
    const FUNCTION: &str = "kube-write.target.patch";
    let mut call = target.call(FUNCTION, json!({"name": name, "kind": kind, "body": body}));
    let prepare = || {
        size(body)?;
        let (resource, namespace) = target.check()?;
        check_name(name)?;
        let kind = write_body::kind(kind)?;
        let parsed = match kind {
            PatchKind::Apply => {
                let (parsed, inner) = write_body::object(body, &resource, &namespace)?;
                if inner != name {
                    return Err(malformed(
                        "name",
                        &inner,
                        "of the body is not the name to apply to",
                    ));
                }
                parsed
            }
            PatchKind::Merge | PatchKind::Json => write_body::parse(body)?,
        };
        // Form and identity are checked before anything is asked of the server; the real uid follows.
        write_body::identify(kind, &mut parsed.clone(), "")?;
        let access = resource.access("patch", &namespace, name);
        Ok((kind, access, parsed))
    };
    let (kind, prepared) = match prepare() {
        Err(failure) => (PatchKind::Merge, Err(failure)),
        Ok((kind, access, parsed)) => {
            call.patch = Some(kind);
            let body = Some(parsed);
            (kind, Ok(Prepared { access, body }))
        }
    };
    let reply = run(door, call, prepared, |wire| async move {
        let at = wire.resource()?;
        let uid = identity(&wire, at).await?;
        let mut body = wire.body.clone().unwrap_or_default();
        write_body::identify(kind, &mut body, &uid)?;
        let path = address::path(at) + &target.query(true);
        let mut request = Request::with_body(Method::Patch, path, body.to_string().into_bytes());
        request.content_type = kind.content_type();
        let answer = wire.ask(request.limited(OBJECT_MAX)).await?;
        Ok(Answer::live(Content::Object(answer.body), answer.code))
    })
    .await;
    text(FUNCTION, reply)
}

/// Deletes an object by uid. `grace` is `terminationGracePeriodSeconds`; none leaves the server's default.
///
/// # Errors
/// All of the contract.
pub async fn delete(
    door: &Door,
    target: &Target,
    name: &str,
    grace: Option<u32>,
) -> Result<(), Failure> {
    const FUNCTION: &str = "kube-write.target.delete";
    let mut arguments = json!({"name": name});
    if let Some(grace) = grace {
        arguments["grace"] = json!(grace);
    }
    let call = target.call(FUNCTION, arguments);
    let prepare = || {
        let (resource, namespace) = of_whole_objects(target)?;
        check_name(name)?;
        Ok(Prepared {
            access: resource.access("delete", &namespace, name),
            body: None,
        })
    };
    let reply = run(door, call, prepare(), |wire| async move {
        let at = wire.resource()?;
        let uid = identity(&wire, at).await?;
        let options = target.delete_options(Some(&uid), grace);
        let request = Request::with_body(Method::Delete, address::path(at), options);
        let answer = wire.ask(request.limited(OBJECT_MAX)).await?;
        // A Status says that it is gone; an object, that it still waits for finalizers or its grace period.
        let is_gone =
            serde_json::from_slice::<Head>(&answer.body).is_ok_and(|head| head.kind == "Status");
        if is_gone && !target.dry_run {
            wire.live.ledger.said_gone(&uid);
        }
        Ok(Answer::live(Content::Nothing, answer.code))
    })
    .await;
    nothing(FUNCTION, reply)
}

/// Deletes all objects of this run that match a label selector. Gives the number that the door saw.
///
/// # Errors
/// All of the contract; refused where an object of somebody else would go with them.
pub async fn delete_collection(door: &Door, target: &Target, labels: &str) -> Result<u32, Failure> {
    const FUNCTION: &str = "kube-write.target.delete-collection";
    let mut call = target.call(FUNCTION, json!({"labels": labels}));
    let prepare = || {
        let (resource, namespace) = of_whole_objects(target)?;
        check_selector("label selector", labels)?;
        let list = resource.access("list", &namespace, "");
        Ok((resource.access("deletecollection", &namespace, ""), list))
    };
    let prepared = prepare().map(|(access, list)| {
        call.also = Some(Access::Resource(list));
        labels.clone_into(&mut call.labels);
        Prepared { access, body: None }
    });
    let reply = run(door, call, prepared, |wire| async move {
        let at = wire.resource()?;
        let mut selector = wire.labels.clone();
        if !selector.is_empty() {
            selector.push(',');
        }
        selector.push_str(&format!("{LABEL_RUN}={}", wire.live.run));
        let uids = own_uids(&wire, at, &selector).await?;
        let path = address::path(at) + &address::query(&[("labelSelector", &selector)]);
        let options = target.delete_options(None, None);
        let request = Request::with_body(Method::Delete, path, options);
        // The answer lists what was deleted; only its code is of interest.
        let answer = wire.ask(request.limited(64 << 20)).await?;
        if !target.dry_run {
            for uid in &uids {
                wire.live.ledger.said_gone(uid);
            }
        }
        Ok(Answer::live(
            Content::Number(uids.len() as u64),
            answer.code,
        ))
    })
    .await;
    match reply? {
        Seen::Number(count) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        other => unexpected(FUNCTION, &other),
    }
}

/// The uids of what a selector matches; refuses if anything of it is not ours.
async fn own_uids(
    wire: &Wire,
    at: &ResourceAccess,
    selector: &str,
) -> Result<Vec<String>, Trouble> {
    let live = &wire.live;
    let mut next = String::new();
    let mut uids = Vec::new();
    loop {
        let query = address::query(&[
            ("labelSelector", selector),
            ("limit", "500"),
            ("continue", &next),
        ]);
        let request = Request::get(address::path(at) + &query).limited(32 << 20);
        let answer = wire.ask(request).await?;
        let mut foreign = None;
        let read = each_item(&answer.body, "", |object| {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            let entry = live.ledger.by_uid(uid);
            let is_own = live.is_sandbox(&at.namespace)
                || entry.is_some_and(|entry| entry.probe == live.manifest.id);
            if !is_own {
                foreign = Some(object["metadata"]["name"].to_string());
            }
            uids.push(uid.to_owned());
            (is_own && uids.len() <= COLLECTION_MAX).then_some(())
        });
        if let Some(name) = foreign {
            return Err(Trouble::Foreign(Failure::Refused(format!(
                "{} {name} matches the selector and carries the label of this run, but this probe did not create it; \
                 delete single objects instead",
                at.resource
            ))));
        }
        let head = read.map_err(|_| {
            Failure::NoAnswer(format!(
                "the server gave no list, or one of more than {COLLECTION_MAX} objects"
            ))
        })?;
        if head.next.is_empty() {
            return Ok(uids);
        }
        next = head.next;
    }
}

/// Deletions concern whole objects.
fn of_whole_objects(target: &Target) -> Result<(Resource, String), Failure> {
    let (resource, namespace) = target.check()?;
    if resource.subresource.is_empty() {
        return Ok((resource, namespace));
    }
    let shown = format!("{}/{}", resource.resource, resource.subresource);
    Err(malformed(
        "resource",
        &shown,
        "is a subresource and cannot be deleted",
    ))
}

/// The uid of the one object that a later write is meant for: one that this probe created; one that a controller made
/// for it in its sandbox; or one that the guard lets through by name, such as a node to cordon.
async fn identity(wire: &Wire, at: &ResourceAccess) -> Result<String, Trouble> {
    let live = &wire.live;
    let probe = &live.manifest.id;
    let object = reference(at);
    let known = live
        .ledger
        .uid(probe, &at.group, &at.resource, &at.namespace, &at.name);
    if let Some(uid) = known {
        return Ok(uid);
    }
    let whole = ResourceAccess {
        subresource: String::new(),
        ..at.clone()
    };
    let request = Request::get(address::path(&whole)).limited(OBJECT_MAX);
    let answer = wire.look_at(request).await?;
    let uid = uid_of(&answer.body)?;
    if !live.is_sandbox(&at.namespace) {
        return Ok(uid);
    }
    if is_sealed(wire, &object, &answer.body) {
        // A creation without an answer took effect after all.
        if live.ledger.entry(&object).is_some() {
            let noted = live.journal.created(&object, probe, &uid);
            noted.map_err(|e| unwritten(&e))?;
        }
        return Ok(uid);
    }
    let head = serde_json::from_slice::<Head>(&answer.body).unwrap_or_default();
    if head.metadata.owner_references.is_empty() {
        return Err(Trouble::Foreign(Failure::Refused(format!(
            "{object} was not created by this probe, and nothing of it owns it; only such objects can be written"
        ))));
    }
    Ok(uid)
}

fn reference(at: &ResourceAccess) -> ObjectRef {
    ObjectRef {
        group: at.group.clone(),
        version: at.version.clone(),
        resource: at.resource.clone(),
        namespace: at.namespace.clone(),
        name: at.name.clone(),
    }
}

/// Labels, seal and expiry. Pod templates get the labels as well, so that pods of a controller can be found.
fn stamp(wire: &Wire, object: &ObjectRef, body: &mut Value) {
    let live = &wire.live;
    let stamp = Stamp {
        key: live.key(),
        run: &live.run,
        probe: Some(&live.manifest.id),
        expires: &live.expires,
    };
    let templates = guard::template_pointers(&object.group, &object.resource);
    // A pod is its own template, and has the labels already.
    let templates = templates.iter().filter(|pointer| !pointer.is_empty());
    let templates: Vec<String> = templates.map(|pointer| (*pointer).to_owned()).collect();
    stamp.apply(object, body, &templates);
}

/// The part of an answer that the door itself needs.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    kind: String,
    metadata: HeadMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct HeadMeta {
    uid: String,
    owner_references: Vec<serde::de::IgnoredAny>,
}

fn uid_of(body: &[u8]) -> Result<String, Trouble> {
    let head = serde_json::from_slice::<Head>(body).unwrap_or_default();
    if head.metadata.uid.is_empty() {
        let text = "the server answered an object without a uid".to_owned();
        return Err(Failure::NoAnswer(text).into());
    }
    Ok(head.metadata.uid)
}

/// Whether an object that the server has carries the seal that we would have given it.
fn is_sealed(wire: &Wire, object: &ObjectRef, body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|found| {
        seal::carried(&found)
            .is_some_and(|text| seal::verify(wire.live.key(), &wire.live.run, object, text))
    })
}

fn unwritten(error: &dyn std::fmt::Display) -> Trouble {
    Failure::Refused(format!(
        "the journal cannot be written, and nothing may be created that it does not know: {error}"
    ))
    .into()
}

#[cfg(test)]
mod tests;
