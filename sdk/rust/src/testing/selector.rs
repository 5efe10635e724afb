//! Label and field selectors of the fake cluster, as far as Kubernetes' own syntax goes.

use serde_json::Value;

/// Whether labels satisfy a selector: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
pub(super) fn labels(selector: &str, object: &Value) -> Result<bool, String> {
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    for part in split(selector) {
        let held = if let Some((key, values)) = set(part, " notin ") {
            !label(key).is_some_and(|value| values.contains(&value))
        } else if let Some((key, values)) = set(part, " in ") {
            label(key).is_some_and(|value| values.contains(&value))
        } else if let Some((key, value)) = part.split_once("!=") {
            label(key.trim()) != Some(value.trim())
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            label(key.trim()) == Some(value.trim())
        } else if let Some(key) = part.strip_prefix('!') {
            label(key.trim()).is_none()
        } else if part.contains(char::is_whitespace) {
            return Err(format!("unable to parse requirement: {part}"));
        } else {
            label(part).is_some()
        };
        if !held {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether fields satisfy a selector: `metadata.name=a,spec.nodeName!=b`.
pub(super) fn fields(selector: &str, object: &Value) -> Result<bool, String> {
    for part in selector
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (path, value, true)
        } else {
            return Err(format!("invalid field selector: {part}"));
        };
        let pointer = format!("/{}", path.trim().replace('.', "/"));
        let found = match object.pointer(&pointer) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        if (found == value.trim()) != equal {
            return Ok(false);
        }
    }
    Ok(true)
}

fn set<'a>(part: &'a str, word: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (key, rest) = part.split_once(word)?;
    let inner = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some((key.trim(), inner.split(',').map(str::trim).collect()))
}

/// Splits at commas outside of parentheses.
fn split(selector: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0u32, 0);
    for (at, c) in selector.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&selector[start..]);
    parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_of_every_form() {
        let object =
            json!({"metadata": {"name": "n", "labels": {"a": "b", "c": "d"}}, "spec": {"x": 3}});
        for (selector, expected) in [
            ("", true),
            ("a=b", true),
            ("a==b,c=d", true),
            ("a!=b", false),
            ("z!=b", true),
            ("a in (x, b)", true),
            ("a in (x),c=d", false),
            ("a notin (x)", true),
            ("a,!z", true),
            ("z", false),
        ] {
            assert_eq!(labels(selector, &object), Ok(expected), "{selector}");
        }
        assert!(labels("a b", &object).is_err());
        assert_eq!(fields("metadata.name=n,spec.x=3", &object), Ok(true));
        assert_eq!(fields("metadata.name!=n", &object), Ok(false));
        assert_eq!(fields("spec.nodeName=", &object), Ok(true));
        assert!(fields("metadata.name", &object).is_err());
    }
}
