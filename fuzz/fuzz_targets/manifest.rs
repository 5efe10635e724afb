//! The manifest of a probe, which is TOML and may come from a stranger's component.
#![no_main]

use karat_engine::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Manifest::parse(text, "probe.toml") {
        Ok(manifest) => assert!(!manifest.id.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
