//! The custom section that holds a manifest, in bytes that claim to be a component.
#![no_main]

use karat_engine::component::inspect;
use karat_engine::manifest::section::{embed, extract};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = inspect(data);
    if let Ok(text) = extract(data) {
        let text = text.to_owned();
        if let Ok(again) = embed(data, &text) {
            assert_eq!(extract(&again).ok(), Some(text.as_str()));
        }
    }
});
