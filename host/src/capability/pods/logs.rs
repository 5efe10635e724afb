//! Logs: the container's output as the kubelet keeps it, once or for as long as the container runs.

use super::{ByteStream, Running, Shared, access, look_up, place, too_long};
use crate::capability::{address, nothing};
use crate::cluster::{Opened, Pieces, Request};
use crate::gate::{Answer, Call, Content, Door, Slot, Trouble};
use crate::recording::format::{Access, Failure};
use serde_json::{Value, json};
use std::sync::Arc;

/// One reading of a log, as the guest built it. Nothing is checked before it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The container; none for the only one.
    pub container: Option<String>,
    /// Whether to go on until the container ends.
    pub follow: bool,
    /// Whether the instance before the present one is meant.
    pub previous: bool,
    /// Milliseconds; only lines younger than this. The server counts whole seconds, so it is rounded up.
    pub since_ms: Option<u32>,
}

impl LogQuery {
    fn arguments(&self) -> Value {
        let mut arguments = json!({"namespace": self.namespace, "pod": self.pod});
        if let Some(container) = &self.container {
            arguments["container"] = json!(container);
        }
        for (key, set) in [("follow", self.follow), ("previous", self.previous)] {
            if set {
                arguments[key] = json!(true);
            }
        }
        if let Some(since) = self.since_ms {
            arguments["since"] = json!(since);
        }
        arguments
    }

    /// The query string.
    fn query(&self) -> String {
        let flag = |set: bool| if set { "true" } else { "" };
        let since = self.since_ms.map(|ms| ms.div_ceil(1000).max(1).to_string());
        address::query(&[
            ("container", self.container.as_deref().unwrap_or_default()),
            ("follow", flag(self.follow)),
            ("previous", flag(self.previous)),
            ("sinceSeconds", since.as_deref().unwrap_or_default()),
        ])
    }
}

/// Opens a log.
///
/// # Errors
/// No permission, too many open streams (`Budget`), a query that makes no sense, the server's refusal: `Answered` with 404
/// where the pod is not there, with 400 where its container has not started.
pub async fn open(door: &Door, query: &LogQuery) -> Result<ByteStream, Failure> {
    const FUNCTION: &str = "pods.log-query.open";
    let call = Call::new(FUNCTION, query.arguments());
    let at = match access(
        "get",
        "log",
        &query.namespace,
        &query.pod,
        query.container.as_deref(),
    ) {
        Ok(at) => at,
        Err(failure) => {
            nothing(FUNCTION, door.refuse(call, failure))?;
            return Err(Failure::Malformed(format!(
                "the recorded answer of {FUNCTION} opens what makes no sense"
            )));
        }
    };
    let mut running = None;
    let (reply, extras) = door
        .call(call.reaching(Access::Resource(at.clone())), |wire| {
            let running = &mut running;
            async move {
                let open = place(&wire.live)?;
                let about = look_up(&wire).await?;
                let path = address::path(wire.resource()?) + &query.query();
                let mut request = Request::get(path);
                request.accept = "*/*";
                let pieces = match wire.pieces(request).await? {
                    Opened::Stream(pieces, _) => pieces,
                    Opened::Answer(answer) => {
                        return Err(Trouble::Answered(answer.code, answer.body));
                    }
                };
                let shared = Shared::new();
                let task = tokio::spawn(follow(pieces, Arc::clone(&shared), open));
                *running = Some((shared, Arc::new(Running(task.abort_handle()))));
                Ok(Answer::live(Content::Opened(Box::new(about)), 200))
            }
        })
        .await;
    nothing(FUNCTION, reply)?;
    Ok(ByteStream::new(door, at, extras.about, running))
}

async fn follow(mut pieces: Pieces, shared: Arc<Shared>, _open: Slot) {
    loop {
        match pieces.next().await {
            Ok(Some(bytes)) => {
                if let Err(error) = shared.push(&bytes).await {
                    return shared.broken(too_long(error));
                }
            }
            Ok(None) => return shared.over(),
            Err(error) => return shared.broken(error.into()),
        }
    }
}
