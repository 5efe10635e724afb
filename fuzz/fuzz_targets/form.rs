//! An official form, which is YAML: no bomb, no panic.
#![no_main]

use karat_engine::form::read_form;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = read_form("form.yaml", text) {
        assert!(!error.to_string().is_empty());
    }
});
