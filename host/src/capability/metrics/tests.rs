//! Readings of workloads against a scripted API server.

use super::*;
use crate::capability::testing::{Rig, Sent, whole};
use http::Response;

const TARGET: &str = "service:monitoring/exporter:9400";

fn rig() -> Rig {
    Rig::new("get services/proxy monitoring exporter:9400 /metrics")
}

fn exposition(kind: &str, text: impl Into<bytes::Bytes>) -> Response<Sent> {
    Response::builder()
        .header("content-type", kind)
        .body(whole(text))
        .unwrap()
}

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn named_series_arrive_with_their_text_and_are_replayed() {
    let mut rig = rig();
    let real = "worker-node-of-somebody";
    let pseudonym = rig.redactor.learn(crate::redact::Class::Node, real);
    let text = format!(
        "# TYPE DCGM_FI_DEV_GPU_TEMP gauge\nDCGM_FI_DEV_GPU_TEMP{{gpu=\"0\",Hostname=\"{real}\"}} 9223372036854775794\nsecret_series 1\n"
    );
    let names = named(&["DCGM_FI_DEV_GPU_TEMP"]);
    let door = rig.door.clone();
    let (found, got) = tokio::join!(
        scrape(&door, TARGET, "/metrics?x=1", &names),
        rig.respond(exposition("text/plain; version=0.0.4", text))
    );
    let found = found.unwrap();
    assert!(
        got.uri
            .ends_with("/services/exporter:9400/proxy/metrics?x=1"),
        "{}",
        got.uri
    );
    assert!(
        got.headers["accept"]
            .to_str()
            .unwrap()
            .contains("openmetrics")
    );
    assert_eq!((found.len(), found.name(0)), (1, "DCGM_FI_DEV_GPU_TEMP"));
    assert_eq!(found.text(0), "9223372036854775794");
    assert_eq!(found.value(0), 9_223_372_036_854_775_794_f64);
    assert_eq!(
        found.labels(0),
        [
            ("Hostname".to_owned(), pseudonym),
            ("gpu".to_owned(), "0".to_owned())
        ]
    );
    assert_eq!((found.name(1), found.text(1)), ("", ""));
    assert!(found.value(1).is_nan());
    let replay = rig.replay();
    assert_eq!(
        scrape(&replay, TARGET, "/metrics?x=1", &names)
            .await
            .unwrap(),
        found
    );
    assert_eq!(replay.finish_replay(), Ok(vec![]));
    let entry = &rig.entries()[0];
    assert!(entry.facts.live && entry.facts.code == Some(200));
}

#[tokio::test]
async fn what_is_no_exposition_is_an_answer_that_says_so() {
    for (response, code, part) in [
        (exposition("text/plain", "a 1\nb"), 200, "line 2"),
        (exposition("text/html", "<html>"), 200, "content type"),
        (exposition("text/plain", vec![b'a', 0xff]), 200, "no UTF-8"),
    ] {
        let mut rig = rig();
        let door = rig.door.clone();
        let names = named(&["a"]);
        let (found, _) = tokio::join!(
            scrape(&door, TARGET, "/metrics", &names),
            rig.respond(response)
        );
        let Err(Failure::Answered {
            code: told,
            reason,
            message,
            ..
        }) = &found
        else {
            panic!("{found:?}");
        };
        assert_eq!((*told, reason.as_str()), (code, "InvalidExposition"));
        assert!(message.contains(part), "{message}");
    }
    // An answer other than 200 is told apart from the API server's own words by its empty reason.
    let mut rig = rig();
    let door = rig.door.clone();
    let names = named(&["a"]);
    let failing = Response::builder().status(500).body(whole("oops")).unwrap();
    let (found, _) = tokio::join!(
        scrape(&door, TARGET, "/metrics", &names),
        rig.respond(failing)
    );
    assert!(
        matches!(&found, Err(Failure::Answered { code: 500, reason, body, .. }) if reason.is_empty() && body == "oops"),
        "{found:?}"
    );
}

#[tokio::test]
async fn limits_and_denials_are_named() {
    let rig = rig();
    let many: Vec<String> = (0..65).map(|at| format!("a{at}")).collect();
    for (names, path) in [
        (named(&[]), "/metrics"),
        (many, "/metrics"),
        (named(&["a b"]), "/metrics"),
        (named(&[".*"]), "/metrics"),
        (named(&["a"]), "/metrics/../x"),
    ] {
        let found = scrape(&rig.door, TARGET, path, &names).await;
        assert!(matches!(found, Err(Failure::Malformed(_))), "{found:?}");
    }
    for (target, path) in [
        (TARGET, "/federate"),
        ("service:other/exporter:9400", "/metrics"),
    ] {
        let found = scrape(&rig.door, target, path, &named(&["a"])).await;
        assert!(matches!(found, Err(Failure::Refused(_))), "{found:?}");
    }
    assert_eq!(rig.door.usage(0).requests, 0);
}

const PROMETHEUS: &str = "service:monitoring/prometheus:9090";

fn asking() -> Rig {
    Rig::new("get services/proxy monitoring prometheus:9090 /api/v1/query,/prom/api/v1/query")
}

fn json(code: u16, body: &str) -> Response<Sent> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(whole(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn a_query_is_restricted_sent_as_parsed_and_replayed() {
    let mut rig = asking();
    let door = rig.door.clone();
    let promql = "max( stub_requests_total{run = 'abcdefgh'} )";
    let body = r#"{"status":"success","data":{"resultType":"vector","result":[
        {"metric":{"__name__":"stub","b":"2","a":"1"},"value":[1700000000.1,"9223372036854775794"]},
        {"metric":{},"value":[1700000000.1,"NaN"]}]}}"#;
    let endpoint = format!("{PROMETHEUS}/prom/");
    let (found, got) = tokio::join!(
        query(&door, &endpoint, promql),
        rig.respond(json(200, body))
    );
    let found = found.unwrap();
    assert!(
        got.uri.contains("/services/prometheus:9090/proxy/prom/api/v1/query?query=max%28stub_requests_total%7Brun%3D%22abcdefgh%22%7D%29&timeout=10s&limit=501"),
        "{}",
        got.uri
    );
    assert_eq!(
        (found.name(0), found.text(0)),
        ("stub", "9223372036854775794")
    );
    assert_eq!(found.labels(0)[0], ("a".to_owned(), "1".to_owned()));
    assert!(found.value(1).is_nan());
    let (one, _) = tokio::join!(
        query(&door, PROMETHEUS, "vector(1)"),
        rig.respond(json(
            200,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#
        ))
    );
    assert_eq!(one.unwrap().text(0), "1");
    let replay = rig.replay();
    assert_eq!(query(&replay, &endpoint, promql).await.unwrap(), found);
}

#[tokio::test]
async fn the_errors_of_prometheus_are_told_apart() {
    let many: Vec<String> = (0..501)
        .map(|at| format!(r#"{{"metric":{{"i":"{at}"}},"value":[1,"1"]}}"#))
        .collect();
    let many = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
        many.join(",")
    );
    for (code, body, reason) in [
        (
            400,
            r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#,
            "bad_data",
        ),
        (
            503,
            r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#,
            "timeout",
        ),
        (401, "{}", ""),
        (200, "{}", "InvalidResponse"),
        (200, "<html>", "InvalidResponse"),
        (
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
            "InvalidResponse",
        ),
        (
            200,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"one"]}}"#,
            "InvalidResponse",
        ),
        (
            503,
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":503,"reason":"ServiceUnavailable","message":"no endpoints available for service \"prometheus\""}"#,
            "ServiceUnavailable",
        ),
        (200, many.as_str(), "budget"),
    ] {
        let mut rig = asking();
        let door = rig.door.clone();
        let (found, _) = tokio::join!(
            query(&door, PROMETHEUS, "vector(1)"),
            rig.respond(json(code, body))
        );
        match found {
            Err(Failure::Answered {
                code: told,
                reason: said,
                ..
            }) => {
                assert_eq!((told, said.as_str()), (code, reason), "{body}");
            }
            Err(Failure::Budget(_)) => assert_eq!(reason, "budget"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_is_asked_what_is_not_allowed() {
    let rig = asking();
    for (endpoint, promql) in [
        (PROMETHEUS, "up"),
        (PROMETHEUS, "count({__name__=~\".+\"})"),
        (PROMETHEUS, "up{"),
        ("service:monitoring/prometheus:9090/other", "vector(1)"),
        (
            "service:monitoring/prometheus:9090/../api/v1/admin?x=",
            "vector(1)",
        ),
        ("service:monitoring/prometheus:9091", "vector(1)"),
        ("prometheus", "vector(1)"),
    ] {
        let found = query(&rig.door, endpoint, promql).await;
        assert!(
            matches!(found, Err(Failure::Refused(_) | Failure::Malformed(_))),
            "{endpoint} {promql}: {found:?}"
        );
    }
    assert_eq!(rig.door.usage(0).requests, 0);
}
