//! Answers that are edited on their way: whole documents, single objects, events of a watch line by line.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::{Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::forward::{Body, BoxError, answer, full};
use super::rule::Action;

pub(super) async fn edit_response(
    response: Response<Body>,
    action: Action,
    watch: bool,
) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    if watch {
        let lines = lines(body).filter_map(move |line| {
            let edited = line.map(|line| edit_event(&action, &line));
            std::future::ready(edited.transpose())
        });
        let frames = lines.map(|line| line.map(Frame::data));
        return Ok(Response::from_parts(
            parts,
            StreamBody::new(frames).boxed_unsync(),
        ));
    }
    let bytes = body.collect().await?.to_bytes();
    let edited = match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut value) => {
            if !edit_value(&action, &mut value) {
                return answer(
                    404,
                    &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "message": "hidden by a rule", "code": 404 }),
                );
            }
            serde_json::to_vec(&value)?.into()
        }
        Err(_) => bytes,
    };
    Ok(Response::from_parts(parts, full(edited)))
}

/// Edits an answer that is not a watch. False if its only object is hidden.
fn edit_value(action: &Action, value: &mut Value) -> bool {
    match action {
        Action::EditWhole(edit) => edit(value),
        Action::EditObjects(edit) => {
            let is_list = value["kind"].as_str().is_some_and(|k| k.ends_with("List"));
            match value.get_mut("items").and_then(Value::as_array_mut) {
                Some(items) if is_list => {
                    items.retain_mut(|item| edit(item));
                    true
                }
                _ => edit(value),
            }
        }
        _ => true,
    }
}

/// Edits one line of a watch; `None` hides it. Bookmarks and errors hold no object of the collection.
fn edit_event(action: &Action, line: &Bytes) -> Option<Bytes> {
    let Ok(mut event) = serde_json::from_slice::<Value>(line) else {
        return Some(line.clone());
    };
    let keep = match action {
        Action::EditWhole(edit) => edit(&mut event),
        Action::EditObjects(edit)
            if matches!(
                event["type"].as_str(),
                Some("ADDED" | "MODIFIED" | "DELETED")
            ) =>
        {
            edit(&mut event["object"])
        }
        _ => true,
    };
    let mut bytes = serde_json::to_vec(&event).ok()?;
    bytes.push(b'\n');
    keep.then(|| bytes.into())
}

/// The lines of a body, each with its line feed.
pub(super) fn lines(body: Body) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let chunks = body.into_data_stream();
    stream::unfold(
        (chunks, BytesMut::new(), false),
        |(mut chunks, mut buffer, ended)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    let line = buffer.split_to(end + 1).freeze();
                    return Some((Ok(line), (chunks, buffer, ended)));
                }
                if ended {
                    return None;
                }
                match chunks.next().await {
                    Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                    Some(Err(e)) => return Some((Err(e), (chunks, BytesMut::new(), true))),
                    None if buffer.is_empty() => return None,
                    None => return Some((Ok(buffer.split().freeze()), (chunks, buffer, true))),
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn objects_are_edited_and_hidden_in_lists_and_events() {
        let action = Action::EditObjects(Arc::new(|o| {
            o["seen"] = true.into();
            o["metadata"]["name"] != "secret"
        }));
        let mut list = json!({ "kind": "PodList", "items": [{ "metadata": { "name": "a" } }, { "metadata": { "name": "secret" } }] });
        assert!(edit_value(&action, &mut list));
        assert_eq!(
            list["items"],
            json!([{ "metadata": { "name": "a" }, "seen": true }])
        );
        let mut one = json!({ "kind": "Pod", "metadata": { "name": "secret" } });
        assert!(!edit_value(&action, &mut one));
        let event = Bytes::from(r#"{"type":"ADDED","object":{"metadata":{"name":"secret"}}}"#);
        assert!(edit_event(&action, &event).is_none());
        let bookmark =
            Bytes::from(r#"{"type":"BOOKMARK","object":{"metadata":{"name":"secret"}}}"#);
        assert!(edit_event(&action, &bookmark).is_some());
    }

    #[tokio::test]
    async fn lines_are_put_together_from_any_chunks() {
        let parts = ["{\"a\"", ":1}\n{\"b\":2}\n{", "\"c\":3}"]
            .map(|p| Ok::<_, BoxError>(Frame::data(Bytes::from(p))));
        let body = StreamBody::new(stream::iter(parts)).boxed_unsync();
        let all: Vec<_> = lines(body)
            .map(|l| String::from_utf8(l.unwrap().to_vec()).unwrap())
            .collect()
            .await;
        assert_eq!(all, ["{\"a\":1}\n", "{\"b\":2}\n", "{\"c\":3}"]);
    }
}
