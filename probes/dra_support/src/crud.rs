//! Step 2: for each type create, get, list by label, replace, patch, watch, delete, delete collection.
//!
//! A success code proves nothing here. After each step a read, a list or the watch must show its effect: a server that takes
//! the order to delete and keeps the object is found by the 404 that does not come.

use crate::api::{Api, SET, driver};
use crate::manifest::cases;
use karat_sdk::build::DraVersion;
use karat_sdk::kube::{Event, Object, PatchKind, Target, Watch};
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{Case, CaseId, Conclusion, Reason, Result, Value, json, run};
use std::time::Duration;

/// The time that the effect of a write may take. Nothing here waits for a controller, so this is generous.
const EFFECT: Duration = Duration::from_secs(20);
/// How often an effect is looked for that no watch shows.
const LOOK: Duration = Duration::from_millis(500);
/// Annotation that the replacement sets, and label that the patch sets.
const NOTE: &str = "dra-support/note";

/// Changes `spec`, and says where and what a read must show.
type Change = fn(&Api, &mut Value) -> (String, Value);

/// One type.
struct Kind {
    case: CaseId,
    target: Target,
    /// Short word for names.
    word: &'static str,
    make: fn(&Api, &str, &str) -> Value,
    /// For the types whose `spec` may change.
    change: Option<Change>,
}

/// Concludes the four cases.
pub(crate) fn check(api: &Api) -> Result<()> {
    let kinds = [
        Kind {
            case: cases::CRUD_DEVICECLASS,
            target: api.cluster("deviceclasses"),
            word: "class",
            make: Api::device_class,
            change: Some(|_, object| {
                // One more condition; the guard of the door wants the run's own driver to stay in the expression.
                let pointer = "/spec/selectors/0/cel/expression";
                let old = object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let new = json!(format!(
                    "{old} && device.attributes[\"{}\"].index == 7",
                    driver()
                ));
                if let Some(value) = object.pointer_mut(pointer) {
                    *value = new.clone();
                }
                (pointer.to_owned(), new)
            }),
        },
        Kind {
            case: cases::CRUD_RESOURCESLICE,
            target: api.cluster("resourceslices"),
            word: "slice",
            make: Api::resource_slice,
            change: Some(|api, object| {
                let pointer = match api.version {
                    DraVersion::V1Beta1 => "/spec/devices/1/basic/attributes/index/int",
                    _ => "/spec/devices/1/attributes/index/int",
                };
                if let Some(value) = object.pointer_mut(pointer) {
                    *value = json!(7);
                }
                (pointer.to_owned(), json!(7))
            }),
        },
        Kind {
            case: cases::CRUD_CLAIMTEMPLATE,
            target: api.sandboxed("resourceclaimtemplates"),
            word: "template",
            make: Api::claim_template,
            // The spec of a template and of a claim cannot change, by design of the API.
            change: None,
        },
        Kind {
            case: cases::CRUD_CLAIM,
            target: api.sandboxed("resourceclaims"),
            word: "claim",
            make: Api::claim,
            change: None,
        },
    ];
    for kind in &kinds {
        kind.case.check("", |case| kind.life(api, case))?;
    }
    Ok(())
}

impl Kind {
    fn life(&self, api: &Api, case: &Case) -> Result<Conclusion> {
        let query = self.target.query();
        let (one, many) = (self.set("one"), self.set("many"));
        let name = run::name(self.word);
        let mut watch = query.clone().labels(format!("{SET}={one}")).watch()?;

        // Create and get.
        let sent = (self.make)(api, self.word, &one);
        let made = self.target.create(&sent)?;
        case.observe("uid", made.uid());
        let got = query.get(&name)?;
        if got.uid() != made.uid() || got.uid().is_empty() {
            return Ok(Conclusion::fail(format!(
                "created with uid `{}`, read with uid `{}`",
                made.uid(),
                got.uid()
            )));
        }
        if let Some(lost) = lost(&sent["spec"], got.at("/spec"), "spec") {
            return Ok(Conclusion::fail(format!(
                "created, and {lost} was not kept"
            )));
        }

        // List by label: ours and nothing else.
        for word in ["x", "y"] {
            self.target
                .create(&(self.make)(api, &format!("{}-{word}", self.word), &many))?;
        }
        if let Some(wrong) = self.listed(&one, &[made.uid()])? {
            return Ok(Conclusion::fail(wrong));
        }

        // Replace.
        let mut shown = None;
        let changed = self.target.update(&name, |object| {
            object["metadata"]["annotations"][NOTE] = json!("replaced");
            shown = self.change.map(|change| change(api, object));
        })?;
        let got = query.get(&name)?;
        if got.at("/metadata/annotations")[NOTE] != "replaced" {
            return Ok(Conclusion::fail(
                "replaced, and the annotation is not there",
            ));
        }
        if let Some((pointer, value)) = &shown
            && got.at(pointer) != value
        {
            return Ok(Conclusion::fail(format!(
                "replaced, and {pointer} is {} instead of {value}",
                got.at(pointer)
            )));
        }
        if changed.resource_version() == made.resource_version() {
            return Ok(Conclusion::fail(
                "replaced, and the resource version is the same",
            ));
        }
        if let (Some(before), Some(after), true) =
            (made.generation(), changed.generation(), shown.is_some())
        {
            case.observe("generation", after);
            if after <= before {
                return Ok(Conclusion::fail(format!(
                    "the spec changed, and the generation went from {before} to {after}"
                )));
            }
        }

        // Patch.
        let body = json!({"metadata": {"labels": {NOTE: "patched"}}});
        let patched = self.target.patch(&name, PatchKind::Merge, &body)?;
        case.observe(
            "resource version after the patch",
            patched.resource_version(),
        );
        let got = query.get(&name)?;
        if got.label(NOTE) != Some("patched") {
            return Ok(Conclusion::fail("patched, and the label is not there"));
        }

        // The watch saw the object, and its change.
        let seen = watch.until(EFFECT, "the watch event of the patch", |object| {
            (object.uid() == made.uid() && object.label(NOTE) == Some("patched"))
                .then(|| object.resource_version().to_owned())
        });
        match seen {
            Ok(version) => case.observe("resource version seen by the watch", version),
            Err(error) if error.is_deadline() => {
                return Ok(Conclusion::fail(format!(
                    "patched, and the watch showed nothing of it within {} s",
                    EFFECT.as_secs()
                )));
            }
            Err(error) => return Err(error),
        }

        // Delete: gone for a read, and for the watch.
        self.target.delete(&name)?;
        if let Some(conclusion) = self.gone(&name, made.uid())? {
            return Ok(conclusion);
        }
        if let Some(conclusion) = self.seen_to_go(&mut watch, made.uid())? {
            return Ok(conclusion);
        }
        watch.close();

        // Delete collection: the set goes, and only the set.
        let rest = self
            .target
            .create(&(self.make)(api, &format!("{}-z", self.word), &one))?;
        let taken = self.target.delete_collection(&format!("{SET}={many}"))?;
        case.observe("objects of the collection", taken);
        let emptied = wait::poll(LOOK, EFFECT, "the end of the collection", || {
            Ok(self.listed(&many, &[])?.is_none().then_some(()))
        });
        match emptied {
            Ok(()) => {}
            Err(error) if error.is_deadline() => {
                let left = query.clone().labels(format!("{SET}={many}")).list()?;
                return Ok(still_there(left.first(), "the collection was deleted"));
            }
            Err(error) => return Err(error),
        }
        if let Some(wrong) = self.listed(&one, &[rest.uid()])? {
            return Ok(Conclusion::fail(format!(
                "deleted a collection, then {wrong}"
            )));
        }
        self.target.delete(rest.name())?;
        if let Some(conclusion) = self.gone(rest.name(), rest.uid())? {
            return Ok(conclusion);
        }
        Ok(Conclusion::Pass)
    }

    /// The value of the set label: of this run and this type, so that nobody else's object can have it.
    fn set(&self, word: &str) -> String {
        run::name(&format!("{}-{word}", self.word))
    }

    /// What is wrong with a list by label; nothing when it has exactly these objects.
    fn listed(&self, set: &str, uids: &[&str]) -> Result<Option<String>> {
        let found = self.target.query().labels(format!("{SET}={set}")).list()?;
        let same =
            found.len() == uids.len() && found.iter().all(|object| uids.contains(&object.uid()));
        Ok((!same).then(|| {
            format!(
                "the list by label gives {} objects instead of {}, or other ones",
                found.len(),
                uids.len()
            )
        }))
    }

    /// Waits for the 404.
    fn gone(&self, name: &str, uid: &str) -> Result<Option<Conclusion>> {
        let query = self.target.query();
        let gone = wait::poll(LOOK, EFFECT, "the end of the object", || {
            Ok(match query.get_opt(name)? {
                Some(object) if object.uid() == uid => None,
                _ => Some(()),
            })
        });
        match gone {
            Ok(()) => Ok(None),
            Err(error) if error.is_deadline() => {
                let object = query.get_opt(name)?;
                Ok(Some(still_there(object.as_ref(), "the object was deleted")))
            }
            Err(error) => Err(error),
        }
    }

    fn seen_to_go(&self, watch: &mut Watch, uid: &str) -> Result<Option<Conclusion>> {
        let deadline = Deadline::after(EFFECT);
        let mut gap = false;
        while let Some(event) = watch.next(deadline)? {
            if event.deleted().is_some_and(|object| object.uid() == uid) {
                return Ok(None);
            }
            gap |= matches!(event, Event::Gap(_));
        }
        // After a gap the end of an object is not told, so its absence from the watch shows nothing.
        Ok((!gap).then(|| Conclusion::fail("deleted, and the watch did not say so")))
    }
}

/// An object that outlived its deletion: a fail, unless a finalizer that is not ours holds it, which is still under way.
fn still_there(object: Option<&Object>, what: &str) -> Conclusion {
    match object {
        Some(object) if !object.text("/metadata/deletionTimestamp").is_empty() => {
            Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "{what}, and finalizers {} hold it",
                    object.at("/metadata/finalizers")
                ),
            )
        }
        _ => Conclusion::fail(format!(
            "{what}, the server confirmed it, and it is still there after {} s",
            EFFECT.as_secs()
        )),
    }
}

/// The first field of `sent` that `got` lacks or has otherwise. The server may add fields.
fn lost(sent: &Value, got: &Value, path: &str) -> Option<String> {
    match (sent, got) {
        (Value::Object(sent), Value::Object(got)) => sent.iter().find_map(|(key, value)| {
            lost(
                value,
                got.get(key).unwrap_or(&Value::Null),
                &format!("{path}.{key}"),
            )
        }),
        (Value::Array(sent), Value::Array(got)) if sent.len() == got.len() => sent
            .iter()
            .zip(got)
            .enumerate()
            .find_map(|(at, (sent, got))| lost(sent, got, &format!("{path}[{at}]"))),
        _ => (sent != got).then(|| path.to_owned()),
    }
}
