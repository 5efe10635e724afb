//! Redaction of text and objects of a hostile cluster: no panic, no text that grows without end, and what was redacted once
//! does not change again.
#![no_main]

use karat_engine::redact::{Class, Redactor};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fuzz_target!(|text: &str| {
    // One for all inputs, so that it also meets what it made.
    static REDACTOR: OnceLock<Redactor> = OnceLock::new();
    let redactor = REDACTOR.get_or_init(|| {
        let redactor = Redactor::new("abcdefgh").expect("random bytes");
        redactor.learn(Class::Node, "gpu-node-17.example.com");
        redactor.learn(Class::Namespace, "production");
        redactor
    });
    let once = redactor.redact_text(text);
    assert!(once.len() <= text.len() * 8 + 256, "{} bytes became {}", text.len(), once.len());
    let _ = redactor.restore_text(&once);
    if let Ok(mut object) = serde_json::from_str(text) {
        redactor.redact("", "pods", &mut object);
        redactor.redact("", "nodes", &mut object);
        redactor.redact_status(&mut object);
        let _ = redactor.restore(&mut object);
    }
});
