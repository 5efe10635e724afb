//! A scripted API server: each test says which requests must come and what is answered.

use super::*;
use tower_test::mock;

type Handle = mock::Handle<http::Request<Body>, http::Response<Body>>;

fn scripted() -> (Cluster, Handle) {
    let (service, handle) = mock::pair::<http::Request<Body>, http::Response<Body>>();
    (
        Cluster::for_test(kube::Client::new(service, "default")),
        handle,
    )
}

async fn answer(handle: &mut Handle, code: u16, body: &str) -> http::Request<Body> {
    let (request, send) = handle.next_request().await.expect("a request");
    let response = http::Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Body::from(body.as_bytes().to_vec()))
        .unwrap();
    send.send_response(response);
    request
}

#[tokio::test]
async fn a_read_is_repeated_and_says_how_often() {
    let (cluster, mut handle) = scripted();
    let server = async {
        answer(&mut handle, 503, "{}").await;
        let (_, send) = handle.next_request().await.unwrap();
        send.send_error("connection reset");
        answer(&mut handle, 200, r#"{"kind":"Pod"}"#).await
    };
    let (got, request) = tokio::join!(
        async {
            cluster
                .send(&Request::get("/api/v1/pods/a").audited("id-1"))
                .await
        },
        server
    );
    let got = got.unwrap();
    assert_eq!((got.code, got.tries), (200, 3));
    assert_eq!(request.headers()["audit-id"], "id-1");
    assert_eq!(cluster.requests(), 3);
}

#[tokio::test]
async fn a_write_is_sent_once_unless_the_server_did_not_process_it() {
    let (cluster, mut handle) = scripted();
    let post = Request::with_body(Method::Post, "/api/v1/pods", b"{}".to_vec());
    let server = async {
        answer(&mut handle, 503, "{}").await;
    };
    let (got, ()) = tokio::join!(cluster.send(&post), server);
    let got = got.unwrap();
    assert_eq!((got.code, got.tries), (503, 1));

    let server = async {
        let (_, send) = handle.next_request().await.unwrap();
        send.send_error("connection reset");
    };
    let (got, ()) = tokio::join!(cluster.send(&post), server);
    assert!(matches!(got, Err(SendError::NoAnswer { tries: 1, .. })));

    let server = async {
        answer(&mut handle, 429, "{}").await;
        answer(&mut handle, 201, "{}").await;
    };
    let (got, ()) = tokio::join!(cluster.send(&post), server);
    let got = got.unwrap();
    assert_eq!((got.code, got.tries), (201, 2));
}

#[tokio::test]
async fn an_eviction_held_by_a_disruption_budget_is_an_answer() {
    let (cluster, mut handle) = scripted();
    let post = Request::with_body(
        Method::Post,
        "/api/v1/namespaces/n/pods/p/eviction?fieldManager=karat",
        b"{}".to_vec(),
    );
    let (got, _) = tokio::join!(cluster.send(&post), answer(&mut handle, 429, "{}"));
    assert_eq!(got.unwrap().code, 429);
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_not_read() {
    let (cluster, mut handle) = scripted();
    let get = Request::get("/api/v1/pods").limited(10);
    let (got, _) = tokio::join!(cluster.send(&get), answer(&mut handle, 200, "12345678901"));
    assert_eq!(
        got,
        Err(SendError::TooLarge {
            limit: 10,
            tries: 1
        })
    );
}

#[tokio::test]
async fn lists_follow_pages_and_begin_again_when_they_expired() {
    let (cluster, mut handle) = scripted();
    let server = async {
        let page = r#"{"items":[{"n":1}],"metadata":{"continue":"a/b"}}"#;
        answer(&mut handle, 200, page).await;
        let second = answer(&mut handle, 410, r#"{"kind":"Status","reason":"Expired"}"#).await;
        assert!(second.uri().to_string().ends_with("&continue=a%2Fb"));
        answer(&mut handle, 200, r#"{"items":[{"n":2}],"metadata":{}}"#).await;
    };
    let (got, ()) = tokio::join!(
        cluster.list_json("/api/v1/pods", "labelSelector=a%3Db"),
        server
    );
    assert_eq!(got.unwrap(), vec![serde_json::json!({"n": 2})]);
}

#[tokio::test]
async fn a_wrong_uid_is_no_deletion() {
    let (cluster, mut handle) = scripted();
    let server = async {
        let body = r#"{"kind":"Status","reason":"Conflict","message":"the UID differs"}"#;
        let request = answer(&mut handle, 409, body).await;
        let sent = request.into_body().collect_bytes().await.unwrap();
        assert!(String::from_utf8_lossy(&sent).contains(r#""preconditions":{"uid":"u-1"}"#));
    };
    let (got, ()) = tokio::join!(cluster.delete_uid("/api/v1/namespaces/n", "u-1"), server);
    assert_eq!(got, Ok(false));
}

#[tokio::test]
async fn watch_lines_survive_any_chunking() {
    let (cluster, mut handle) = scripted();
    let server = async {
        let (_, send) = handle.next_request().await.unwrap();
        let body = Body::from(b"{\"a\":1}\n{\"b\":2}\n\n{\"cut".to_vec());
        send.send_response(http::Response::new(body));
    };
    let request = Request::get("/api/v1/pods?watch=1");
    let (streamed, ()) = tokio::join!(cluster.stream(&request), server);
    let Ok(Streamed::Lines(mut lines)) = streamed else {
        panic!("no stream");
    };
    assert_eq!(lines.next().await.unwrap().unwrap(), b"{\"a\":1}");
    assert_eq!(lines.next().await.unwrap().unwrap(), b"{\"b\":2}");
    assert_eq!(lines.next().await.unwrap(), None);
}

#[test]
fn the_bucket_lets_a_burst_through_and_then_spaces_requests() {
    let pace = Pace::new(10);
    let now = Instant::now() + Duration::from_secs(60);
    let mut at = now;
    for _ in 0..21 {
        at = pace.reserve(now);
    }
    assert_eq!(at, now);
    assert_eq!(pace.reserve(now), now + Duration::from_millis(100));
    pace.quiet(now, Duration::from_secs(5));
    assert_eq!(pace.reserve(now), now + Duration::from_secs(5));
    pace.quiet(now, Duration::from_secs(86_400));
    assert_eq!(pace.reserve(now), now + RETRY_AFTER_MAX);
}

#[test]
fn encoding_leaves_nothing_that_a_path_could_misread() {
    assert_eq!(encode("a/../b?x=1&y#z%"), "a%2F..%2Fb%3Fx%3D1%26y%23z%25");
    assert_eq!(encode("ä"), "%C3%A4");
}
