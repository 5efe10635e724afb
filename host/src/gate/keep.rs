//! Projections: a set of paths `/a/b/*/c` says what of an object the guest gets.
//!
//! The object keeps its shape, so that the same structs parse it with and without projection: arrays keep order and length
//! (an element without a kept field is `{}`, a scalar in its place is `null`), and `apiVersion`, `kind` and the identity in
//! `metadata` always stay. `*` stands for every element of an array or every key of an object; `/` in a key is written
//! `~1` and `~` is `~0`, as in JSON Pointer. Redaction looks at the whole object before any of this.

use serde_json::Value;
use std::collections::BTreeMap;

/// Most paths of one query; a probe that wants more wants the object.
const PATHS_MAX: usize = 64;
/// Longest path in bytes.
const PATH_MAX: usize = 512;
/// What always stays.
const IDENTITY: &[&str] = &[
    "/apiVersion",
    "/kind",
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/uid",
    "/metadata/resourceVersion",
];

/// A compiled set of paths. The default keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    root: Option<Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// A path ends here: everything below stays.
    whole: bool,
    any: Option<Box<Node>>,
    keys: BTreeMap<String, Node>,
}

impl Keep {
    /// Compiles paths. No paths means whole objects.
    pub(crate) fn parse(paths: &[String]) -> Result<Keep, String> {
        if paths.is_empty() {
            return Ok(Keep::default());
        }
        if paths.len() > PATHS_MAX {
            return Err(format!(
                "{} paths to keep; at most {PATHS_MAX} are taken",
                paths.len()
            ));
        }
        let mut root = Node::default();
        for path in IDENTITY
            .iter()
            .copied()
            .chain(paths.iter().map(String::as_str))
        {
            root.insert(path)?;
        }
        Ok(Keep { root: Some(root) })
    }

    /// Both sets together. Whole objects win.
    pub(crate) fn union(&self, other: &Keep) -> Keep {
        Keep {
            root: match (&self.root, &other.root) {
                (Some(a), Some(b)) => Some(a.union(b)),
                _ => None,
            },
        }
    }

    /// Whether everything that `other` keeps is kept here too.
    pub(crate) fn covers(&self, other: &Keep) -> bool {
        match (&self.root, &other.root) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(a), Some(b)) => a.covers(b),
        }
    }

    /// Reduces an object.
    pub(crate) fn apply(&self, object: &mut Value) {
        if let Some(root) = &self.root {
            prune(object, &[root]);
        }
    }
}

impl Node {
    fn insert(&mut self, path: &str) -> Result<(), String> {
        let wrong = |why: &str| {
            let shown: String = path.chars().take(80).collect();
            Err(format!("path {shown:?} to keep {why}"))
        };
        let Some(rest) = path.strip_prefix('/') else {
            return wrong("does not start with `/`");
        };
        if path.len() > PATH_MAX {
            return wrong("is longer than 512 bytes");
        }
        let mut node = self;
        for segment in rest.split('/') {
            if segment.is_empty() {
                return wrong("has an empty segment");
            }
            node = if segment == "*" {
                node.any.get_or_insert_default()
            } else {
                let key = segment.replace("~1", "/").replace("~0", "~");
                node.keys.entry(key).or_default()
            };
        }
        node.whole = true;
        Ok(())
    }

    fn union(&self, other: &Node) -> Node {
        let mut keys = self.keys.clone();
        for (key, node) in &other.keys {
            let merged = match keys.get(key) {
                Some(mine) => mine.union(node),
                None => node.clone(),
            };
            keys.insert(key.clone(), merged);
        }
        Node {
            whole: self.whole || other.whole,
            any: match (&self.any, &other.any) {
                (Some(a), Some(b)) => Some(Box::new(a.union(b))),
                (a, b) => a.clone().or_else(|| b.clone()),
            },
            keys,
        }
    }

    fn covers(&self, other: &Node) -> bool {
        if self.whole {
            return true;
        }
        let any_covered = match (&self.any, &other.any) {
            (_, None) => true,
            (Some(a), Some(b)) => a.covers(b),
            (None, Some(_)) => false,
        };
        !other.whole
            && any_covered
            && other.keys.iter().all(|(key, theirs)| {
                self.keys.get(key).is_some_and(|mine| mine.covers(theirs))
                    || self.any.as_ref().is_some_and(|mine| mine.covers(theirs))
            })
    }
}

/// Reduces a value by all nodes that lead to it. False when nothing of it is kept.
fn prune(value: &mut Value, nodes: &[&Node]) -> bool {
    if nodes.iter().any(|node| node.whole) {
        return true;
    }
    match value {
        Value::Object(map) => {
            map.retain(|key, child| {
                let below: Vec<&Node> = nodes
                    .iter()
                    .flat_map(|node| node.keys.get(key).into_iter().chain(node.any.as_deref()))
                    .collect();
                !below.is_empty() && prune(child, &below)
            });
            true
        }
        Value::Array(elements) => {
            let below: Vec<&Node> = nodes
                .iter()
                .filter_map(|node| node.any.as_deref())
                .collect();
            if below.is_empty() {
                return false;
            }
            for element in elements {
                if !prune(element, &below) {
                    *element = Value::Null;
                }
            }
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keep(paths: &[&str]) -> Keep {
        Keep::parse(&paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn reduced(paths: &[&str], mut object: Value) -> Value {
        keep(paths).apply(&mut object);
        object
    }

    #[test]
    fn shape_and_identity_stay() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"x": "1"}},
            "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d"}], "nodeName": "n1"},
        });
        assert_eq!(
            reduced(&["/spec/containers/*/image"], object),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7"},
                "spec": {"containers": [{"image": "i"}, {}]},
            })
        );
    }

    #[test]
    fn stars_match_keys_and_elements_and_keys_may_hold_slashes() {
        let object = json!({"metadata": {"labels": {"a.b/c": "1", "d": "2"}}, "m": {"x": {"v": 1, "w": 2}, "y": {"v": 3}}});
        assert_eq!(
            reduced(&["/metadata/labels/a.b~1c", "/m/*/v"], object),
            json!({"metadata": {"labels": {"a.b/c": "1"}}, "m": {"x": {"v": 1}, "y": {"v": 3}}})
        );
        let object = json!({"list": [{"k": 1}, "scalar", [1]]});
        assert_eq!(
            reduced(&["/list/*/k"], object),
            json!({"list": [{"k": 1}, null, null]})
        );
    }

    #[test]
    fn a_star_and_a_key_at_one_place_add_up() {
        let object = json!({"m": {"x": {"a": 1, "b": 2, "c": 3}, "y": {"a": 4, "b": 5}}});
        assert_eq!(
            reduced(&["/m/*/a", "/m/x/b"], object),
            json!({"m": {"x": {"a": 1, "b": 2}, "y": {"a": 4}}})
        );
    }

    #[test]
    fn no_paths_keep_everything_and_wrong_ones_are_named() {
        let mut object = json!({"a": [1, {"b": null}]});
        let before = object.clone();
        Keep::default().apply(&mut object);
        assert_eq!(object, before);
        for bad in ["spec", "/", "/a//b", "/a/", ""] {
            let error = Keep::parse(&[bad.to_owned()]).unwrap_err();
            assert!(error.contains("to keep"), "{error}");
        }
        assert!(Keep::parse(&vec!["/a".to_owned(); 65]).is_err());
        assert!(Keep::parse(&[format!("/{}", "a".repeat(600))]).is_err());
    }

    #[test]
    fn unions_cover_their_parts_and_nothing_more() {
        let a = keep(&["/spec/containers/*/image"]);
        let b = keep(&["/status/phase", "/spec/nodeName"]);
        let both = a.union(&b);
        assert!(both.covers(&a) && both.covers(&b));
        assert!(!a.covers(&b) && !a.covers(&Keep::default()));
        assert!(Keep::default().covers(&both));
        assert!(keep(&["/spec"]).covers(&a));
        assert!(!keep(&["/spec/containers/*/image"]).covers(&keep(&["/spec/containers"])));
        assert_eq!(a.union(&Keep::default()), Keep::default());
        let mut object = json!({"spec": {"containers": [{"image": "i", "name": "n"}], "nodeName": "x"}, "status": {"phase": "P", "y": 1}});
        both.apply(&mut object);
        assert_eq!(
            object,
            json!({"spec": {"containers": [{"image": "i"}], "nodeName": "x"}, "status": {"phase": "P"}})
        );
    }
}
