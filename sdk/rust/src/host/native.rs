//! The host of unit tests: one fake cluster per thread while a probe runs.

use crate::case::Conclusion;
use crate::error::Result;
use crate::kube::{EventKind, Query, RawAnswer, Target};

fn outside() -> ! {
    panic!("karat-sdk was called natively outside of a run")
}

#[derive(Debug)]
pub(crate) struct Case;
#[derive(Debug)]
pub(crate) struct Cursor;
#[derive(Debug)]
pub(crate) struct Watch;
#[derive(Debug)]
pub(crate) struct Source;
pub(crate) fn run_id() -> String {
    outside()
}
pub(crate) fn run_name(_prefix: &str) -> String {
    outside()
}
pub(crate) fn namespace(_alias: &str) -> Result<String> {
    outside()
}
pub(crate) fn image(_name: &str) -> Result<String> {
    outside()
}
pub(crate) fn now() -> String {
    outside()
}
pub(crate) fn elapsed_ms() -> u32 {
    outside()
}
pub(crate) fn log(_level: &str, _text: &str) {
    outside()
}
pub(crate) fn setting(_key: &str) -> Option<String> {
    outside()
}
pub(crate) fn open_case(_id: &str, _subject: &str) -> Result<Case> {
    outside()
}
impl Case {
    pub(crate) fn observe(&self, _name: &str, _value: &str) {
        outside()
    }
}
impl Case {
    pub(crate) fn conclude(self, _conclusion: &Conclusion) -> Result<()> {
        outside()
    }
}
pub(crate) fn get(_from: &Query, _name: &str) -> Result<String> {
    outside()
}
pub(crate) fn open_list(_from: &Query) -> Result<Cursor> {
    outside()
}
pub(crate) fn open_snapshot(_from: &Query) -> Result<Cursor> {
    outside()
}
impl Cursor {
    pub(crate) fn next(&self) -> Result<Option<Vec<String>>> {
        outside()
    }
}
impl Cursor {
    pub(crate) fn position(&self) -> String {
        outside()
    }
}
pub(crate) fn open_watch(_from: &Query) -> Result<Watch> {
    outside()
}
impl Watch {
    pub(crate) fn next(&self) -> Result<Option<(EventKind, String)>> {
        outside()
    }
}
impl Watch {
    pub(crate) fn ready(&self) -> Source {
        outside()
    }
}
impl Watch {
    pub(crate) fn close(&self) {
        outside()
    }
}
pub(crate) fn wait_any(_sources: &[&Source], _timeout_ms: u32) -> Result<Vec<u32>> {
    outside()
}
pub(crate) fn discover() -> Result<String> {
    outside()
}
pub(crate) fn raw(_path: &str) -> Result<RawAnswer> {
    outside()
}
pub(crate) fn create(_to: &Target, _manifest: &str) -> Result<String> {
    outside()
}
pub(crate) fn replace(_to: &Target, _name: &str, _manifest: &str) -> Result<String> {
    outside()
}
pub(crate) fn patch(_to: &Target, _name: &str, _kind: &str, _body: &str) -> Result<String> {
    outside()
}
pub(crate) fn delete(_to: &Target, _name: &str, _grace_seconds: Option<u32>) -> Result<()> {
    outside()
}
pub(crate) fn delete_collection(_to: &Target, _labels: &str) -> Result<u32> {
    outside()
}
