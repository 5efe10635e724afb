//! `report.json` is what its published schema says. The check knows the few words that the schema uses and refuses any other,
//! so that nothing in it goes unchecked.

use super::sample::Sample;
use super::{Format, open, render};
use crate::model::Verdict;
use crate::report::json_schema;
use serde_json::Value;
use std::path::Path;

fn check(schema: &Value, root: &Value, value: &Value, place: &str) -> Result<(), String> {
    let Value::Object(words) = schema else {
        return match schema {
            Value::Bool(true) => Ok(()),
            _ => Err(format!("{place}: nothing is allowed here")),
        };
    };
    let fail = |what: String| Err(format!("{place}: {what}"));
    for (word, wanted) in words {
        match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "format" | "required"
            | "properties" => {}
            "$ref" => {
                let path = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root
                    .pointer(path)
                    .ok_or(format!("{place}: {path} is nowhere"))?;
                check(target, root, value, place)?;
            }
            "type" => {
                let fits = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "null" => value.is_null(),
                    other => panic!("the schema uses the type {other}"),
                };
                let any = match wanted {
                    Value::Array(names) => names.iter().any(fits),
                    name => fits(name),
                };
                if !any {
                    return fail(format!("{value} is no {wanted}"));
                }
            }
            "items" => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(wanted, root, item, &format!("{place}/{at}"))?;
                }
            }
            "const" => {
                if value != wanted {
                    return fail(format!("{value} is not {wanted}"));
                }
            }
            "enum" => {
                if !wanted.as_array().unwrap().contains(value) {
                    return fail(format!("{value} is none of {wanted}"));
                }
            }
            "minimum" | "maximum" => {
                if let (Some(have), Some(limit)) = (value.as_f64(), wanted.as_f64())
                    && (word == "minimum" && have < limit || word == "maximum" && have > limit)
                {
                    return fail(format!("{have} is beyond {limit}"));
                }
            }
            "anyOf" | "oneOf" => {
                let fits = wanted.as_array().unwrap().iter();
                let fits = fits
                    .filter(|one| check(one, root, value, place).is_ok())
                    .count();
                if fits == 0 || word == "oneOf" && fits > 1 {
                    return fail(format!("{value} fits {fits} of {word}"));
                }
            }
            other => panic!("the schema uses the word {other}, which is not checked here"),
        }
    }
    let properties = words.get("properties").and_then(Value::as_object);
    if let (Some(members), Some(properties)) = (value.as_object(), properties) {
        for name in words
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if !members.contains_key(name.as_str().unwrap()) {
                return fail(format!("{name} is missing"));
            }
        }
        for (name, member) in members {
            let Some(schema) = properties.get(name) else {
                return fail(format!("{name} is not in the schema"));
            };
            check(schema, root, member, &format!("{place}/{name}"))?;
        }
    }
    Ok(())
}

fn json(sample: &Sample) -> Value {
    let report = open(sample.write().path()).unwrap();
    let files = render(&report, Format::Json).unwrap();
    serde_json::from_slice(&files[0].bytes).unwrap()
}

#[test]
fn the_output_is_what_the_schema_says() {
    let schema = json_schema();
    for verdict in [
        Some(Verdict::Pass),
        Some(Verdict::Fail),
        Some(Verdict::Unknown),
        Some(Verdict::NotApplicable),
        None,
    ] {
        let mut sample = Sample::new("<plain> \u{202e}");
        sample.verdict = verdict;
        sample.reason = (verdict == Some(Verdict::Unknown)).then_some(crate::model::Reason::Gap);
        sample.attempt_before(Some(Verdict::Fail));
        let value = json(&sample);
        check(&schema, &schema, &value, "").unwrap();
        assert_eq!(value["run"]["nonce"], "<plain> \u{202e}");
    }
}

#[test]
fn other_documents_do_not_fit() {
    let schema = json_schema();
    let value = json(&Sample::new("plain"));
    for (pointer, other) in [
        ("/run/id", Value::Null),
        ("/format", 1.into()),
        ("/probes/0/state", "perhaps".into()),
        ("/probes/0/attempts/0/usage/calls", "many".into()),
        ("/summary/must/pass", (-1).into()),
        ("/requirements", Value::Object(Default::default())),
    ] {
        let mut broken = value.clone();
        *broken.pointer_mut(pointer).unwrap() = other;
        assert!(check(&schema, &schema, &broken, "").is_err(), "{pointer}");
    }
    let mut broken = value;
    broken.as_object_mut().unwrap().remove("problems");
    assert!(check(&schema, &schema, &broken, "").is_err());
}

#[test]
fn the_published_schema_is_the_present_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/report.schema.json");
    let text = format!("{:#}\n", json_schema());
    if std::env::var_os("KARAT_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "docs/reference/report.schema.json is not what the types say; run this test with KARAT_UPDATE=1 and review the change"
    );
}
