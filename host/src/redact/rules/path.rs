//! Paths into an object, as `kubectl` and people write them: `spec.containers[*].image`,
//! `metadata.annotations['example.com/rack']`, `status.addresses[0].address`.

use serde_json::Value;

/// Longest path in bytes.
const PATH_MAX: usize = 512;
/// Most steps of one path.
const STEPS_MAX: usize = 32;

/// A path that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    /// Every element or every key.
    All,
}

impl Path {
    /// Reads a path.
    pub(super) fn parse(text: &str) -> Result<Path, &'static str> {
        if text.len() > PATH_MAX {
            return Err("it is longer than 512 bytes");
        }
        let mut steps = Vec::new();
        // kubectl's paths begin with a dot.
        let mut rest = text.strip_prefix('.').unwrap_or(text);
        let mut wants_key = true;
        while !rest.is_empty() {
            if steps.len() == STEPS_MAX {
                return Err("it has more than 32 steps");
            }
            let (step, behind) = match rest.strip_prefix('[') {
                Some(inner) if !wants_key || steps.is_empty() => bracket(inner)?,
                Some(_) => {
                    return Err(
                        "a name is missing before `[`; a key in brackets follows without a dot",
                    );
                }
                None if wants_key => name(rest)?,
                None => return Err("steps are joined by `.`, or stand in brackets"),
            };
            steps.push(step);
            (rest, wants_key) = match behind.strip_prefix('.') {
                Some("") => return Err("it ends with a dot"),
                Some(behind) => (behind, true),
                None => (behind, false),
            };
        }
        if steps.is_empty() {
            return Err("it is empty");
        }
        Ok(Path { steps })
    }

    /// Calls `hide` for every value that the path leads to.
    pub(super) fn visit(&self, value: &mut Value, hide: &mut dyn FnMut(&mut Value)) {
        walk(&self.steps, value, hide);
    }
}

fn name(text: &str) -> Result<(Step, &str), &'static str> {
    let end = text
        .bytes()
        .position(|b| matches!(b, b'.' | b'['))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match name {
        "" => Err("a name is missing between two dots"),
        "*" => Ok((Step::All, rest)),
        name if name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) =>
        {
            Ok((Step::Key(name.to_owned()), rest))
        }
        _ => Err(
            "a key with other characters than letters, digits, `-` and `_` stands in brackets and quotes, as in `['a/b']`",
        ),
    }
}

fn bracket(inner: &str) -> Result<(Step, &str), &'static str> {
    const OPEN: &str = "`[` holds a number, `*` or a key in quotes, and ends with `]`";
    for quote in ['\'', '"'] {
        if let Some(inner) = inner.strip_prefix(quote) {
            let (key, rest) = inner.split_once(quote).ok_or(OPEN)?;
            let rest = rest.strip_prefix(']').ok_or(OPEN)?;
            if key.is_empty() {
                return Err("a key is missing between the quotes");
            }
            return Ok((Step::Key(key.to_owned()), rest));
        }
    }
    let (word, rest) = inner.split_once(']').ok_or(OPEN)?;
    if word == "*" {
        return Ok((Step::All, rest));
    }
    let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    match word.parse() {
        Ok(index) if is_number => Ok((Step::Index(index), rest)),
        _ => Err(OPEN),
    }
}

fn walk(steps: &[Step], value: &mut Value, hide: &mut dyn FnMut(&mut Value)) {
    let Some((step, rest)) = steps.split_first() else {
        hide(value);
        return;
    };
    match (step, value) {
        (Step::Key(key), Value::Object(map)) => {
            if let Some(inner) = map.get_mut(key) {
                walk(rest, inner, hide);
            }
        }
        (Step::Index(index), Value::Array(items)) => {
            if let Some(inner) = items.get_mut(*index) {
                walk(rest, inner, hide);
            }
        }
        (Step::All, Value::Object(map)) => {
            map.values_mut().for_each(|inner| walk(rest, inner, hide))
        }
        (Step::All, Value::Array(items)) => {
            items.iter_mut().for_each(|inner| walk(rest, inner, hide))
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hidden(path: &str, mut object: Value) -> Value {
        Path::parse(path)
            .unwrap()
            .visit(&mut object, &mut |value| *value = json!("X"));
        object
    }

    #[test]
    fn paths_lead_to_keys_elements_and_all_of_them() {
        let object =
            json!({"a": {"b/c.d": "1", "e": "2"}, "f": [{"g": "3"}, {"g": "4", "h": "5"}]});
        assert_eq!(
            hidden("a['b/c.d']", object.clone())["a"],
            json!({"b/c.d": "X", "e": "2"})
        );
        assert_eq!(hidden(".a[\"e\"]", object.clone())["a"]["e"], "X");
        assert_eq!(
            hidden("a.*", object.clone())["a"],
            json!({"b/c.d": "X", "e": "X"})
        );
        assert_eq!(
            hidden("f[*].g", object.clone())["f"],
            json!([{"g": "X"}, {"g": "X", "h": "5"}])
        );
        assert_eq!(
            hidden("f[1].g", object.clone())["f"],
            json!([{"g": "3"}, {"g": "X", "h": "5"}])
        );
        assert_eq!(hidden("['a'].e", object.clone())["a"]["e"], "X");
        assert_eq!(hidden("f", object.clone())["f"], "X");
        for nowhere in ["x.y", "f.g", "a[0]", "f[9]", "a.e.f"] {
            assert_eq!(hidden(nowhere, object.clone()), object, "{nowhere}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "",
            ".",
            "a.",
            "a..b",
            "a[",
            "a[]",
            "a[-1]",
            "a[+1]",
            "a['b'",
            "a['']",
            "a/b",
            "a.['b']",
            "a['b']c",
            "a[x]",
            "a b",
            "a[99999999999999999999999]",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&"a.".repeat(300)).is_err());
        assert!(Path::parse(&vec!["a"; 33].join(".")).is_err());
        assert!(Path::parse(&vec!["a"; 32].join(".")).is_ok());
    }
}
