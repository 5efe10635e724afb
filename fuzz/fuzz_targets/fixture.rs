//! A recording in the form of tests. What is read is written and read again to the same text.
#![no_main]

use karat_engine::recording::fixture::{export, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(recording) = load(text) else { return };
    let Ok(once) = export(&recording) else { return };
    let again = load(&once).expect("what was written is read");
    assert_eq!(export(&again).expect("and written again"), once);
});
