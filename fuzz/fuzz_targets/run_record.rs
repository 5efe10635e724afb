//! The record of a run, `run.json`, with the paths that it names.
#![no_main]

use karat_engine::runfolder::{component_path, read_record, recording};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("run.json"), data).expect("a record");
    let Ok(record) = read_record(folder.path()) else {
        return;
    };
    for probe in &record.probes {
        for path in probe
            .attempts
            .iter()
            .filter_map(|attempt| attempt.recording.as_deref())
            .filter_map(|relative| recording(folder.path(), relative).ok())
            .chain(component_path(folder.path(), &probe.digest).ok())
        {
            assert!(path.starts_with(folder.path()), "{}", path.display());
            assert!(!path.components().any(|part| part.as_os_str() == ".."), "{}", path.display());
        }
    }
});
