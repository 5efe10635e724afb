//! The journal that a crash left.
#![no_main]

use karat_engine::journal::{Journal, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.jsonl");
    std::fs::write(&path, data).expect("a journal");
    let read = read(&path).is_ok();
    let resumed = Journal::resume(&path);
    // What can be gone on with can be read, and the other way round; a torn last line is dropped for good.
    assert_eq!(read, resumed.is_ok(), "{:?}", resumed.err());
});
