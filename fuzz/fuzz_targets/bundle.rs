//! A whole bundle, and the reports that are made of it. The input is a bundle in one text: before each file stands a line
//! `@@ path length`.
#![no_main]

use karat_engine::bundle::{Limits, list};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::report::{self, Format, render};
use karat_engine::verify::{Reviewer, verify};
use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};
use std::sync::LazyLock;

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(&EngineOptions::default()).expect("an engine"));
static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Runtime::new().expect("a runtime"));

/// Writes the files of the input, as far as their names stay in the folder and have a place there.
fn unpack(mut data: &[u8], folder: &Path) {
    while let Some(rest) = data.strip_prefix(b"@@ ") {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return;
        };
        let Ok(line) = std::str::from_utf8(&rest[..end]) else {
            return;
        };
        let Some((path, length)) = line.rsplit_once(' ') else {
            return;
        };
        let body = &rest[end + 1..];
        let length = length.parse().unwrap_or(body.len()).min(body.len());
        let path = Path::new(path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        if inside && !path.as_os_str().is_empty() && path.as_os_str().len() < 300 {
            let path = folder.join(path);
            let made = path.parent().map(std::fs::create_dir_all);
            if made.is_some_and(|made| made.is_ok()) {
                let _ = std::fs::write(path, &body[..length]);
            }
        }
        data = &body[length..];
        data = data.strip_prefix(b"\n").unwrap_or(data);
    }
}

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    unpack(data, folder.path());
    let _ = list(folder.path(), &Limits::default());
    // No probe is trusted, so nothing is compiled and run: what is left are the readers.
    let found = RUNTIME.block_on(verify(&ENGINE, folder.path(), &Reviewer::default()));
    let found = found.expect("the folder is there");
    // Without the bytes of the probes, and nobody who trusts them, something is always left to check.
    assert!(!found.holds());
    for line in found.limits_of_proof() {
        assert!(!line.is_empty());
    }
    if let Ok(report) = report::open(folder.path()) {
        for format in [Format::Html, Format::Junit, Format::E2eLog, Format::Markdown] {
            let _ = render(&report, format);
        }
    }
});
