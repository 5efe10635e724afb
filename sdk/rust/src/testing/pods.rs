//! Logs and commands of the fake cluster: what a test says that containers say.

use super::cluster::FakeCluster;
use serde_json::{Value, json};
use std::time::Duration;

/// What is asked of a pod.
#[derive(Debug)]
pub struct PodRequest<'a> {
    /// The cluster as it is.
    pub cluster: &'a FakeCluster,
    /// The pod.
    pub pod: &'a Value,
    /// The container, where one was named.
    pub container: Option<&'a str>,
    /// Whether the log of the instance before is meant.
    pub previous: bool,
    /// The command; empty for a log.
    pub argv: &'a [String],
}

impl PodRequest<'_> {
    /// Name of the pod.
    pub fn name(&self) -> &str {
        self.pod["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// A log, as it grows.
#[derive(Clone, Debug, Default)]
pub struct FakeLog {
    pub(super) pieces: Vec<(Duration, String)>,
    pub(super) end: FakeEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FakeEnd {
    /// In good order, with the last piece.
    #[default]
    Over,
    /// Never.
    Open,
    /// The connection breaks after the last piece.
    Broken,
}

impl FakeLog {
    /// This text, and the end.
    pub fn text(text: &str) -> Self {
        FakeLog::default().then(Duration::ZERO, text)
    }

    /// More text, so much time after it was opened.
    #[must_use]
    pub fn then(mut self, at: Duration, text: &str) -> Self {
        self.pieces.push((at, text.to_owned()));
        self
    }

    /// It does not end, as that of a container which goes on.
    #[must_use]
    pub fn goes_on(mut self) -> Self {
        self.end = FakeEnd::Open;
        self
    }

    /// The connection breaks after the last piece.
    #[must_use]
    pub fn breaks(mut self) -> Self {
        self.end = FakeEnd::Broken;
        self
    }
}

/// How a command ends.
#[derive(Clone, Debug, Default)]
pub struct FakeResult {
    pub(super) code: i32,
    pub(super) output: String,
    pub(super) errors: String,
    pub(super) takes: Duration,
    pub(super) refusal: Option<String>,
    pub(super) lost: bool,
}

impl FakeResult {
    /// At once, with exit code 0 and this output.
    pub fn output(text: &str) -> Self {
        FakeResult {
            output: text.to_owned(),
            ..FakeResult::default()
        }
    }

    /// With this exit code and these errors.
    pub fn failed(code: i32, errors: &str) -> Self {
        FakeResult {
            code,
            errors: errors.to_owned(),
            ..FakeResult::default()
        }
    }

    /// It cannot be started, with the words of the runtime.
    pub fn not_started(words: &str) -> Self {
        FakeResult {
            refusal: Some(words.to_owned()),
            ..FakeResult::default()
        }
    }

    /// After so much time.
    #[must_use]
    pub fn takes(mut self, time: Duration) -> Self {
        self.takes = time;
        self
    }

    /// The connection breaks when it would have ended.
    #[must_use]
    pub fn breaks(mut self) -> Self {
        self.lost = true;
        self
    }
}

/// What the kubelet says where no image can be had.
pub(super) const NO_IMAGE: &str = "Back-off pulling image \"none\": ErrImagePull: not found";

/// A pod that says that it has begun waits for its image in place of it.
pub(super) fn hold_back(pod: &mut Value) {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if !matches!(phase, "Running" | "Succeeded" | "Failed") {
        return;
    }
    // A test may leave them out.
    let plain = [json!({})];
    let containers = pod["spec"]["containers"].as_array();
    let containers = containers.map_or(&plain[..], Vec::as_slice);
    let waits = |container: &Value| {
        json!({
            "name": container["name"], "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": NO_IMAGE}},
        })
    };
    let all: Vec<Value> = containers.iter().map(waits).collect();
    pod["status"] = json!({
        "phase": "Pending", "containerStatuses": all,
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
    });
}
