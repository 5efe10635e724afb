//! From the bytes of the API server to what the guest sees: redact, note facts, project, write compactly.
//!
//! Lists are taken apart object by object, so that of a page of any size one object at a time exists as a tree. What would
//! exceed the room that is left for the guest stops the reading at once.

use super::facts::{note, note_markers};
use super::freshness::Freshness;
use super::keep::Keep;
use crate::journal::Ledger;
use crate::recording::format::{Facts, Failure};
use crate::redact::Redactor;
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use std::fmt;

/// Longest body of an error that reaches the guest.
const ERROR_BODY_MAX: usize = 64 << 10;

/// Why an answer cannot be given to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It is larger than the room that is left.
    Overflow,
    /// It is not what the API promises.
    Shape(String),
}

/// A page of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// The objects, each in JSON.
    pub(crate) objects: Vec<String>,
    /// Resource version of the list.
    pub(crate) position: String,
    /// Token of the next page; empty at the end.
    pub(crate) next: String,
}

/// Reduces the answers of one call.
pub(crate) struct Reducer<'a> {
    pub(crate) redactor: &'a Redactor,
    pub(crate) keep: &'a Keep,
    pub(crate) ledger: &'a Ledger,
    /// API group of the objects.
    pub(crate) group: &'a str,
    /// Plural name of the objects.
    pub(crate) resource: &'a str,
    /// Bytes that the guest may still see.
    pub(crate) room: u64,
    /// What was seen before.
    pub(crate) seen: &'a Freshness,
    /// Whether the answer must not be older than that.
    pub(crate) newest: bool,
}

impl Reducer<'_> {
    /// One object that has been parsed already.
    pub(crate) fn value(&self, mut object: Value, facts: &mut Facts) -> Result<String, Broken> {
        strip(&mut object);
        self.redactor.redact(self.group, self.resource, &mut object);
        note(facts, &object, |uid| self.ledger.ever_created(uid));
        let newer = self.seen.object(self.group, self.resource, &object);
        if let Some(newer) = newer.filter(|_| self.newest) {
            let version = object["metadata"]["resourceVersion"].as_str();
            return Err(stale("object", version.unwrap_or_default(), newer));
        }
        self.keep.apply(&mut object);
        let text = object.to_string();
        if text.len() as u64 > self.room {
            return Err(Broken::Overflow);
        }
        Ok(text)
    }

    /// One object.
    pub(crate) fn object(&self, body: &[u8], facts: &mut Facts) -> Result<String, Broken> {
        let object = serde_json::from_slice(body)
            .map_err(|e| Broken::Shape(format!("the answer is no JSON: {e}")))?;
        self.value(object, facts)
    }

    /// A page of a list. `api_version` goes into objects that lack it, as in lists of built-in kinds.
    pub(crate) fn list(
        &self,
        body: &[u8],
        api_version: &str,
        facts: &mut Facts,
    ) -> Result<Page, Broken> {
        let mut objects = Vec::new();
        let mut seen = 0;
        let mut broken = None;
        let head = each_item(body, api_version, |object| {
            let text = self
                .value(object, facts)
                .map_err(|e| broken = Some(e))
                .ok()?;
            seen += text.len() as u64;
            if seen > self.room {
                broken = Some(Broken::Overflow);
                return None;
            }
            objects.push(text);
            Some(())
        });
        let head = head.map_err(|e| broken.take().unwrap_or(e))?;
        let newer = self.seen.list(self.group, self.resource, &head.position);
        if let Some(newer) = newer.filter(|_| self.newest) {
            return Err(stale("list", &head.position, newer));
        }
        Ok(Page {
            objects,
            position: head.position,
            next: head.next,
        })
    }

    /// What the engine itself read of a pod and of its node. The guest sees nothing of it.
    pub(crate) fn about(&self, pod: Option<Value>, node: Option<Value>, facts: &mut Facts) {
        if let Some(mut pod) = pod {
            self.redactor.redact("", "pods", &mut pod);
            note(facts, &pod, |uid| self.ledger.ever_created(uid));
        }
        if let Some(mut node) = node {
            self.redactor.redact("", "nodes", &mut node);
            note_markers(facts, &node);
        }
    }

    /// An error of the server, as the guest sees it: a redacted Status where it sent one, redacted text otherwise.
    pub(crate) fn failure(&self, code: u16, body: &[u8]) -> Failure {
        let parsed = serde_json::from_slice::<Value>(body).ok();
        let status = parsed.filter(|value| value["kind"] == "Status");
        let Some(mut status) = status else {
            let text = String::from_utf8_lossy(body);
            return Failure::Answered {
                code,
                reason: String::new(),
                message: String::new(),
                body: self.redactor.redact_text(clip(&text, ERROR_BODY_MAX)),
            };
        };
        self.redactor.redact_status(&mut status);
        let text = |key: &str, max| clip(status[key].as_str().unwrap_or_default(), max).to_owned();
        let (reason, message) = (text("reason", 253), text("message", ERROR_BODY_MAX / 4));
        let mut body = status.to_string();
        if body.len() > ERROR_BODY_MAX {
            // Too large to pass on whole, and half a Status would be no JSON.
            body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": code, "reason": reason, "message": message})
            .to_string();
        }
        Failure::Answered {
            code,
            reason,
            message,
            body,
        }
    }
}

fn stale(what: &str, version: &str, newer: u64) -> Broken {
    Broken::Shape(format!(
        "the answer is older than an earlier one: the {what} has resource version {version}, and {newer} was seen before"
    ))
}

/// Cuts text at a character boundary at or before `max` bytes.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Drops what never reaches a guest, whatever the operator's redaction says: bookkeeping that is large, and copies of
/// whole objects that redaction by path would miss.
pub(crate) fn strip(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    metadata.remove("managedFields");
    if let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.retain(|key, _| !key.contains("last-applied"));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// The head of a list.
#[derive(Debug, Default)]
pub(crate) struct ListHead {
    pub(crate) position: String,
    pub(crate) next: String,
}

/// Calls `each` for every item of a list, with `apiVersion` and `kind` filled in. `each` ends the reading with none.
pub(crate) fn each_item(
    body: &[u8],
    api_version: &str,
    each: impl FnMut(Value) -> Option<()>,
) -> Result<ListHead, Broken> {
    // API servers write the kind first. Where something in between sorted the keys, it comes behind the items, which may
    // need it; then it is looked for beforehand.
    let kind = if body.starts_with(br#"{"kind":"#) {
        String::new()
    } else {
        let head: Kind = serde_json::from_slice(body)
            .map_err(|e| Broken::Shape(format!("the answer is no list: {e}")))?;
        item_kind(&head.kind)
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = ListSeed {
        api_version,
        kind,
        each,
    };
    let head = seed
        .deserialize(&mut deserializer)
        .and_then(|head| deserializer.end().map(|()| head))
        .map_err(|e| Broken::Shape(format!("the answer is no list: {e}")))?;
    Ok(head)
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

fn item_kind(list: &str) -> String {
    list.strip_suffix("List").unwrap_or_default().to_owned()
}

struct ListSeed<'a, F> {
    api_version: &'a str,
    kind: String,
    each: F,
}

impl<'de, F: FnMut(Value) -> Option<()>> DeserializeSeed<'de> for ListSeed<'_, F> {
    type Value = ListHead;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ListHead, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Value) -> Option<()>> Visitor<'de> for ListSeed<'_, F> {
    type Value = ListHead;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of the Kubernetes API")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<ListHead, A::Error> {
        let mut head = None;
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" => {
                    self.kind = item_kind(&map.next_value::<String>()?);
                }
                "metadata" => {
                    let metadata: Value = map.next_value()?;
                    let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
                    head = Some(ListHead {
                        position: text("resourceVersion"),
                        next: text("continue"),
                    });
                }
                "items" => {
                    found = true;
                    map.next_value_seed(ItemsSeed {
                        api_version: self.api_version,
                        kind: &self.kind,
                        each: &mut self.each,
                    })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if !found {
            return Err(A::Error::missing_field("items"));
        }
        head.ok_or_else(|| A::Error::missing_field("metadata"))
    }
}

struct ItemsSeed<'a, F> {
    api_version: &'a str,
    kind: &'a str,
    each: &'a mut F,
}

impl<'de, F: FnMut(Value) -> Option<()>> DeserializeSeed<'de> for ItemsSeed<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Value) -> Option<()>> Visitor<'de> for ItemsSeed<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("items")
    }

    /// Go writes an empty list as `null`.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(mut item) = seq.next_element::<Value>()? {
            if let Some(object) = item.as_object_mut() {
                if !object.contains_key("apiVersion") {
                    object.insert("apiVersion".to_owned(), self.api_version.into());
                }
                if !object.contains_key("kind") && !self.kind.is_empty() {
                    object.insert("kind".to_owned(), self.kind.into());
                }
            }
            if (self.each)(item).is_none() {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn items(body: &str) -> Result<(Vec<Value>, ListHead), Broken> {
        let mut all = Vec::new();
        let head = each_item(body.as_bytes(), "v1", |item| {
            all.push(item);
            Some(())
        })?;
        Ok((all, head))
    }

    #[test]
    fn items_get_their_kind_back() {
        let (all, head) = items(
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"t","remainingItemCount":3},"items":[{"metadata":{"name":"a"}}]}"#,
        )
        .unwrap();
        assert_eq!(
            all,
            [json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}})]
        );
        assert_eq!((head.position.as_str(), head.next.as_str()), ("9", "t"));
        // Custom resources come in alphabetical order of the keys and carry their own kind.
        let (all, _) = items(
            r#"{"apiVersion":"x/v1","items":[{"apiVersion":"x/v1","kind":"Foo"}],"kind":"FooList","metadata":{"resourceVersion":"1"}}"#,
        )
        .unwrap();
        assert_eq!(all[0]["kind"], "Foo");
        // A proxy that sorts the keys of a built-in list.
        let (all, _) = items(
            r#"{"apiVersion":"v1","items":[{"metadata":{}}],"kind":"PodList","metadata":{}}"#,
        )
        .unwrap();
        assert_eq!(all[0]["kind"], "Pod");
    }

    #[test]
    fn no_items_are_a_list_and_other_things_are_not() {
        assert!(
            items(r#"{"kind":"PodList","metadata":{},"items":null}"#)
                .unwrap()
                .0
                .is_empty()
        );
        for other in [
            r#"{"kind":"Status"}"#,
            "[]",
            "{",
            r#"{"items":[]}"#,
            r#"{"items":3,"metadata":{}}"#,
        ] {
            assert!(matches!(items(other), Err(Broken::Shape(_))), "{other}");
        }
    }

    #[test]
    fn bookkeeping_is_dropped() {
        let mut object = json!({"metadata": {"managedFields": [1], "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{}", "x/last-applied": "y", "keep": "me"}}});
        strip(&mut object);
        assert_eq!(object, json!({"metadata": {"annotations": {"keep": "me"}}}));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(clip("aä", 2), "a");
        assert_eq!(clip("ab", 10), "ab");
    }
}
