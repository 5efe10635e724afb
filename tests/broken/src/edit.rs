//! Conditions on JSON and changes of it, as the tables write them. Pure; nothing here talks to a cluster.
//!
//! A place is a JSON pointer in which `*` stands for every item of an array or every value of an object, and `~1` for a
//! slash, as in `/metadata/labels/example.com~1tenant`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::words::Pattern;

/// A place in JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(Vec<String>);

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| format!("place {text:?}: begin with `/`, as in /metadata/name"))?;
        let parts = rest.split('/');
        Ok(Self(
            parts
                .map(|p| p.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ))
    }
}

impl Pointer {
    /// Every value that stands there.
    #[must_use]
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        self.0.iter().fold(vec![value], |found, part| {
            found.into_iter().flat_map(|v| below(v, part)).collect()
        })
    }

    /// Puts a value there and makes objects on the way. Nothing happens below an array without such an item.
    pub fn set(&self, value: &mut Value, new: &Value) {
        set(value, &self.0, new);
    }

    /// Takes away what stands there.
    pub fn remove(&self, value: &mut Value) {
        let Some((last, parents)) = self.0.split_last() else {
            return;
        };
        each(value, parents, &mut |parent| match parent {
            Value::Object(map) if last == "*" => map.clear(),
            Value::Object(map) => {
                map.remove(last);
            }
            Value::Array(items) if last == "*" => items.clear(),
            Value::Array(items) => {
                if let Some(i) = last.parse().ok().filter(|i| *i < items.len()) {
                    items.remove(i);
                }
            }
            _ => {}
        });
    }

    /// Calls this with every value that stands there.
    pub fn each(&self, value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
        each(value, &self.0, change);
    }
}

fn below<'a>(value: &'a Value, part: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(map) if part == "*" => map.values().collect(),
        Value::Array(items) if part == "*" => items.iter().collect(),
        Value::Object(map) => map.get(part).into_iter().collect(),
        Value::Array(items) => {
            let item = part.parse().ok().and_then(|i: usize| items.get(i));
            item.into_iter().collect()
        }
        _ => vec![],
    }
}

fn each(value: &mut Value, parts: &[String], change: &mut dyn FnMut(&mut Value)) {
    let Some((part, rest)) = parts.split_first() else {
        change(value);
        return;
    };
    match value {
        Value::Object(map) if part == "*" => map.values_mut().for_each(|v| each(v, rest, change)),
        Value::Array(items) if part == "*" => items.iter_mut().for_each(|v| each(v, rest, change)),
        Value::Object(map) => {
            if let Some(v) = map.get_mut(part) {
                each(v, rest, change);
            }
        }
        Value::Array(items) => {
            if let Some(v) = part.parse().ok().and_then(|i: usize| items.get_mut(i)) {
                each(v, rest, change);
            }
        }
        _ => {}
    }
}

fn set(value: &mut Value, parts: &[String], new: &Value) {
    let Some((part, rest)) = parts.split_first() else {
        *value = new.clone();
        return;
    };
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) if part == "*" => map.values_mut().for_each(|v| set(v, rest, new)),
        Value::Array(items) if part == "*" => items.iter_mut().for_each(|v| set(v, rest, new)),
        Value::Object(map) => set(map.entry(part.as_str()).or_insert(Value::Null), rest, new),
        Value::Array(items) => {
            if let Some(v) = part.parse().ok().and_then(|i: usize| items.get_mut(i)) {
                set(v, rest, new);
            }
        }
        _ => {}
    }
}

/// What a value must be like: a plain value it must equal, or one of `{matches: EXPRESSION}`, `{not: VALUE}`,
/// `{one-of: [VALUES]}`, `{absent: true}`, `{present: true}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub enum Test {
    /// Equal to this.
    Is(Value),
    /// There, and not equal to this.
    Not(Value),
    /// One of these.
    OneOf(Vec<Value>),
    /// A text in which this occurs.
    Matches(Pattern),
    /// Nothing is there.
    Absent,
    /// Something is there.
    Present,
}

impl TryFrom<Value> for Test {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let Some((word, with)) = value
            .as_object()
            .filter(|map| map.len() == 1)
            .and_then(|map| map.iter().next())
        else {
            return Ok(Self::Is(value));
        };
        let given = |what: &str| format!("`{word}`: expected {what}");
        match word.as_str() {
            "not" => Ok(Self::Not(with.clone())),
            "one-of" => {
                let values = with.as_array().cloned();
                values.map(Self::OneOf).ok_or_else(|| given("a list"))
            }
            "matches" => {
                let text = with.as_str().ok_or_else(|| given("an expression"))?;
                Pattern::try_from(text.to_owned()).map(Self::Matches)
            }
            "absent" | "present" if *with != Value::Bool(true) => Err(given("`true`")),
            "absent" => Ok(Self::Absent),
            "present" => Ok(Self::Present),
            _ => Ok(Self::Is(value)),
        }
    }
}

impl Test {
    fn holds(&self, found: &[&Value]) -> bool {
        let any = |test: &dyn Fn(&Value) -> bool| found.iter().any(|v| test(v));
        match self {
            Self::Is(value) => any(&|v| v == value),
            Self::Not(value) => any(&|v| v != value),
            Self::OneOf(values) => any(&|v| values.contains(v)),
            Self::Matches(pattern) => any(&|v| v.as_str().is_some_and(|t| pattern.fits(t))),
            Self::Absent => found.is_empty(),
            Self::Present => !found.is_empty(),
        }
    }
}

/// Conditions that must all hold. At a place with `*` one value that fits is enough.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Where(BTreeMap<Pointer, Test>);

impl Where {
    /// Whether all hold.
    #[must_use]
    pub fn holds(&self, value: &Value) -> bool {
        self.0
            .iter()
            .all(|(place, test)| test.holds(&place.find(value)))
    }
}

/// One change of a JSON value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Edit {
    /// Only where this holds.
    #[serde(default, rename = "where")]
    pub condition: Where,
    /// Values to put at places.
    #[serde(default)]
    pub set: BTreeMap<Pointer, Value>,
    /// Places to empty.
    #[serde(default)]
    pub remove: Vec<Pointer>,
    /// Arrays, and which of their items to take out.
    #[serde(default)]
    pub without: BTreeMap<Pointer, Where>,
    /// Hides the whole object.
    #[serde(default)]
    pub hide: bool,
}

impl Edit {
    /// Makes the change. False if the value shall be hidden.
    pub fn apply(&self, value: &mut Value) -> bool {
        if !self.condition.holds(value) {
            return true;
        }
        for (place, new) in &self.set {
            place.set(value, new);
        }
        for place in &self.remove {
            place.remove(value);
        }
        for (place, which) in &self.without {
            place.each(value, &mut |array| {
                if let Some(items) = array.as_array_mut() {
                    items.retain(|item| !which.holds(item));
                }
            });
        }
        !self.hide
    }

    /// Whether it does anything at all.
    #[must_use]
    pub fn does_something(&self) -> bool {
        self.hide || !(self.set.is_empty() && self.remove.is_empty() && self.without.is_empty())
    }
}

/// Makes all changes in order. False as soon as one hides the value.
pub fn apply_all(edits: &[Edit], value: &mut Value) -> bool {
    edits.iter().all(|edit| edit.apply(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn edit(yaml: &str) -> Edit {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn places_are_set_removed_and_made_on_the_way() {
        let edit = edit(
            "{set: {/metadata/labels/a.b~1c: x, '/items/*/n': 1}, remove: [/metadata/gone, /list/0]}",
        );
        let mut value = json!({"metadata": {"gone": 1}, "items": [{"n": 0}, {}], "list": [1, 2]});
        assert!(edit.apply(&mut value));
        assert_eq!(
            value,
            json!({"metadata": {"labels": {"a.b/c": "x"}}, "items": [{"n": 1}, {"n": 1}], "list": [2]})
        );
    }

    #[test]
    fn an_edit_keeps_to_its_condition() {
        let edit = edit(
            "{where: {/metadata/name: {matches: ^bad-}, /spec/x: {absent: true}, /n: {one-of: [1, 2]}}, hide: true}",
        );
        let hidden = |name: &str, spec: Value, n: u32| {
            let mut value = json!({"metadata": {"name": name}, "spec": spec, "n": n});
            !edit.apply(&mut value)
        };
        assert!(hidden("bad-1", json!({}), 1));
        assert!(!hidden("good-1", json!({}), 1));
        assert!(!hidden("bad-1", json!({"x": null}), 1));
        assert!(!hidden("bad-1", json!({}), 3));
    }

    #[test]
    fn items_are_taken_out_of_arrays() {
        let edit = edit("{without: {/spec/devices: {/name: gpu-0}}}");
        let mut value = json!({"spec": {"devices": [{"name": "gpu-0"}, {"name": "gpu-1"}]}});
        assert!(edit.apply(&mut value));
        assert_eq!(value, json!({"spec": {"devices": [{"name": "gpu-1"}]}}));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (yaml, part) in [
            ("- set:\n    no-slash: 1\n", "begin with `/`"),
            ("- where:\n    /a: {matches: '('}\n", "expression"),
            ("- where:\n    /a: {absent: false}\n", "expected `true`"),
            ("- hode: true\n", "unknown field `hode`"),
        ] {
            let error = serde_yaml_ng::from_str::<Vec<Edit>>(yaml)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part) && error.contains("line"), "{error}");
        }
    }
}
