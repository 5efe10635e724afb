//! Redaction rules of an operator, and what they do to an object.
#![no_main]

use karat_engine::redact::{Redactor, Rules};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|text: &str| {
    match Rules::parse(text, "rules.toml") {
        Ok(rules) => {
            let redactor = Redactor::only("abcdefgh", Arc::new(rules)).expect("random bytes");
            let mut object = serde_json::json!({"kind": "Node", "metadata": {"name": "n1", "annotations":
                {"example.com/rack": "row-3-rack-17"}}, "spec": {"list": [{"a": "b"}, 3, true, null]}});
            redactor.redact("", "nodes", &mut object);
            redactor.redact_text("row-3-rack-17 TICKET-4711");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
