//! The rows: what goes wrong, and what is promised then.
//!
//! `Same` is promised where the engine can repeat, resume or look for itself; `Unknown` where a write got no answer, because
//! nobody knows whether it took effect and the engine repeats no write. `Fail` stands where a server lies and its lie is a
//! breach of the API in itself.

use super::{Promise, Row};
use karat_engine::model::Reason;
use karat_testbed::proxy::{EventFault, Rule};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Everything that the probe asks of the API under test.
const GROUP: &str = "^/apis/resource\\.k8s\\.io/";
/// One object of the probe. Behind the name comes nothing but the run's id.
const OBJECT: &str = "^/apis/resource\\.k8s\\.io/.+/(class|slice|template|claim)-[^/]+$";
/// A collection in which the probe creates.
const COLLECTION: &str = "^/apis/resource\\.k8s\\.io/.+/(deviceclasses|resourceslices|resourceclaims|resourceclaimtemplates)$";
const WATCH: &str = "watch=1";
const LIST: &str = "labelSelector=.*limit=";
const HTML: &str = "<html><head><title>Please wait</title></head><body>maintenance</body></html>";
const UNKNOWN: Promise = Promise::Unknown(Reason::Deadline);

fn watches() -> Rule {
    Rule::on("GET", GROUP).query(WATCH)
}

fn is(kind: &'static str) -> impl Fn(&Value) -> bool + Send + Sync + 'static {
    move |event| event["type"] == kind
}

fn row(name: &'static str, promise: Promise, rules: fn(u64) -> Vec<Rule>) -> Row {
    Row {
        name,
        rules,
        promise,
    }
}

/// All of them, the slow ones first.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = silence();
    rows.extend(streams());
    rows.extend(statuses());
    rows.extend(bodies());
    rows.extend(resets());
    rows.extend(lies());
    rows.extend(sandboxes());
    rows.extend(everything());
    rows
}

/// Silence lasts until the end of a wait, where the engine looks again from where the watch stands.
fn silence() -> Vec<Row> {
    vec![
        row("a stream hangs from its beginning", Promise::Same, |seed| {
            vec![watches().at_random(seed, 4).times(1).hang_after(0)]
        }),
        row("a stream falls silent at a change", Promise::Same, |_| {
            vec![watches().events(EventFault::Hang, 1, is("MODIFIED"))]
        }),
        row("the event of a deletion is lost", Promise::Same, |_| {
            vec![watches().events(EventFault::Lose, 1, is("DELETED"))]
        }),
        row("the event of a patch is lost", Promise::Same, |_| {
            let patched = |event: &Value| {
                event["type"] == "MODIFIED"
                    && event["object"]["metadata"]["labels"]["dra-support/note"] == "patched"
            };
            vec![watches().events(EventFault::Lose, 1, patched)]
        }),
        row(
            "connections are refused for three seconds",
            Promise::Same,
            |seed| {
                let three = Duration::from_secs(3);
                vec![
                    Rule::on("GET", OBJECT)
                        .at_random(seed, 16)
                        .times(1)
                        .refuse_for(three),
                ]
            },
        ),
        row(
            "a create meets a port that refuses for three seconds",
            UNKNOWN,
            |seed| {
                let three = Duration::from_secs(3);
                vec![
                    Rule::on("POST", COLLECTION)
                        .at_random(seed, 8)
                        .times(1)
                        .refuse_for(three),
                ]
            },
        ),
    ]
}

fn streams() -> Vec<Row> {
    vec![
        row("410 for a watch", Promise::Same, |seed| {
            let rule = watches().at_random(seed, 4).times(1);
            vec![rule.fail(410, "Expired", "too old resource version")]
        }),
        row("410 as an event", Promise::Same, |seed| {
            vec![watches().at_random(seed, 4).times(1).answer_text(
                200,
                "application/json",
                EXPIRED,
            )]
        }),
        row("429 and 503 for watches", Promise::Same, |_| {
            let slow = watches().times(2).fail(429, "TooManyRequests", "slow down");
            let ill = watches().times(2).fail(503, "ServiceUnavailable", "away");
            vec![slow.header("retry-after", "1"), ill]
        }),
        row(
            "a stream breaks in the middle of a line",
            Promise::Same,
            |_| vec![watches().events(EventFault::CutInside, 3, is("MODIFIED"))],
        ),
        row("a stream breaks between lines", Promise::Same, |_| {
            vec![watches().events(EventFault::CutBefore, 3, is("DELETED"))]
        }),
        row(
            "a stream ends in the middle of a line as if all were well",
            Promise::Same,
            |_| vec![watches().times(3).end_after(700)],
        ),
        row("streams trickle", Promise::Same, |_| {
            vec![watches().trickle(100, Duration::from_millis(20))]
        }),
        row("events come twice", Promise::Same, |_| {
            vec![watches().events(EventFault::Duplicate, 100, |event| {
                event["type"] != "BOOKMARK"
            })]
        }),
        row("events of one object change places", Promise::Same, |_| {
            vec![watches().events(EventFault::SwapWithSame, 4, is("ADDED"))]
        }),
        row(
            "a deletion comes before the change that preceded it",
            Promise::Same,
            |_| vec![watches().events(EventFault::SwapWithSame, 4, is("MODIFIED"))],
        ),
        row("a stream is HTML", Promise::Same, |seed| {
            vec![
                watches()
                    .at_random(seed, 4)
                    .times(1)
                    .answer_text(200, "text/html", HTML),
            ]
        }),
        row("a stream is empty", Promise::Same, |_| {
            vec![watches().times(4).answer_text(200, "application/json", "")]
        }),
    ]
}

const EXPIRED: &str = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\
    \"reason\":\"Expired\",\"message\":\"too old resource version\",\"code\":410}}\n";

fn statuses() -> Vec<Row> {
    vec![
        row("429 with Retry-After", Promise::Same, |seed| {
            let rule = Rule::on("*", GROUP).at_random(seed, 60).times(3);
            vec![
                rule.fail(429, "TooManyRequests", "slow down")
                    .header("retry-after", "1"),
            ]
        }),
        row("500 for reads", Promise::Same, |seed| {
            let rule = Rule::on("GET", OBJECT).at_random(seed, 16).times(3);
            vec![rule.fail(500, "InternalError", "etcdserver: request timed out")]
        }),
        row("503 with Retry-After for reads", Promise::Same, |seed| {
            let rule = Rule::on("GET", OBJECT).at_random(seed, 16).times(2);
            vec![
                rule.fail(503, "ServiceUnavailable", "away")
                    .header("retry-after", "1"),
            ]
        }),
        row("504 for reads", Promise::Same, |seed| {
            let rule = Rule::on("GET", GROUP).at_random(seed, 30).times(2);
            vec![rule.fail(504, "Timeout", "the request timed out")]
        }),
        row("503 for a create that did not happen", UNKNOWN, |seed| {
            let rule = Rule::on("POST", COLLECTION).at_random(seed, 8).times(1);
            vec![rule.fail(503, "ServiceUnavailable", "away")]
        }),
        row("504 for a create that happened", Promise::Same, |seed| {
            let rule = Rule::on("POST", COLLECTION).at_random(seed, 8).times(1);
            vec![rule.answer_after(504, "application/json", "{}")]
        }),
        row("502 in HTML for reads", Promise::Same, |seed| {
            let rule = Rule::on("GET", GROUP).at_random(seed, 30).times(2);
            vec![rule.answer_text(502, "text/html", HTML)]
        }),
        row("502 in HTML for a delete", UNKNOWN, |seed| {
            let rule = Rule::on("DELETE", OBJECT).at_random(seed, 6).times(1);
            vec![rule.answer_text(502, "text/html; charset=utf-8", HTML)]
        }),
        row("404 in HTML for a read", Promise::Same, |seed| {
            let rule = Rule::on("GET", OBJECT).at_random(seed, 16).times(1);
            vec![rule.answer_text(404, "text/html", HTML)]
        }),
        row("a list expires between its pages", Promise::Same, |_| {
            let expired = Rule::on("GET", GROUP).query("continue=").times(2);
            let small = Rule::on("GET", GROUP).query("limit=");
            vec![
                expired.fail(410, "Expired", "the provided continue parameter is too old"),
                small.set_parameter("limit", "1"),
            ]
        }),
    ]
}

fn bodies() -> Vec<Row> {
    vec![
        row("an answer with a length is cut", Promise::Same, |seed| {
            vec![
                Rule::on("GET", OBJECT)
                    .at_random(seed, 12)
                    .times(2)
                    .cut_after(100),
            ]
        }),
        row(
            "an answer without a length ends too soon",
            Promise::Same,
            |seed| {
                vec![
                    Rule::on("GET", OBJECT)
                        .at_random(seed, 12)
                        .times(2)
                        .end_after(100),
                ]
            },
        ),
        row("the answer to a create is cut", Promise::Same, |seed| {
            vec![
                Rule::on("POST", COLLECTION)
                    .at_random(seed, 8)
                    .times(1)
                    .cut_after(100),
            ]
        }),
        row(
            "the answer to a create ends too soon",
            Promise::Same,
            |seed| {
                vec![
                    Rule::on("POST", COLLECTION)
                        .at_random(seed, 8)
                        .times(1)
                        .end_after(100),
                ]
            },
        ),
        row("answers trickle", Promise::Same, |_| {
            vec![Rule::on("GET", OBJECT).trickle(64, Duration::from_millis(5))]
        }),
        row("JSON is called text", Promise::Same, |_| {
            vec![Rule::on("*", GROUP).header("content-type", "text/plain")]
        }),
        row("200 in HTML for a read", Promise::Same, |seed| {
            let rule = Rule::on("GET", OBJECT).at_random(seed, 16).times(2);
            vec![rule.answer_text(200, "text/html", HTML)]
        }),
        row(
            "200 in HTML for a delete that did not happen",
            UNKNOWN,
            |seed| {
                let rule = Rule::on("DELETE", OBJECT).at_random(seed, 6).times(1);
                vec![rule.answer_text(200, "text/html", HTML)]
            },
        ),
        row("200 without a body for a read", Promise::Same, |seed| {
            let rule = Rule::on("GET", OBJECT).at_random(seed, 16).times(2);
            vec![rule.answer_text(200, "application/json", "")]
        }),
        row(
            "200 without a body for a delete that did not happen",
            UNKNOWN,
            |seed| {
                let rule = Rule::on("DELETE", OBJECT).at_random(seed, 6).times(1);
                vec![rule.answer_text(200, "application/json", "")]
            },
        ),
        row(
            "200 without a body for a create that did not happen",
            UNKNOWN,
            |seed| {
                let rule = Rule::on("POST", COLLECTION).at_random(seed, 8).times(1);
                vec![rule.answer_text(201, "application/json", "")]
            },
        ),
    ]
}

/// A reset before the request took effect and one after it look the same to a client.
fn resets() -> Vec<Row> {
    vec![
        row("a reset before a create", UNKNOWN, |seed| {
            vec![
                Rule::on("POST", COLLECTION)
                    .at_random(seed, 8)
                    .times(1)
                    .disconnect(),
            ]
        }),
        row("a reset after a create", Promise::Same, |seed| {
            vec![
                Rule::on("POST", COLLECTION)
                    .at_random(seed, 8)
                    .times(1)
                    .disconnect_after(),
            ]
        }),
        row("a reset before a patch", UNKNOWN, |seed| {
            vec![
                Rule::on("PATCH", OBJECT)
                    .at_random(seed, 4)
                    .times(1)
                    .disconnect(),
            ]
        }),
        row("a reset after a patch", UNKNOWN, |seed| {
            vec![
                Rule::on("PATCH", OBJECT)
                    .at_random(seed, 4)
                    .times(1)
                    .disconnect_after(),
            ]
        }),
        row("a reset before a delete", UNKNOWN, |seed| {
            vec![
                Rule::on("DELETE", OBJECT)
                    .at_random(seed, 6)
                    .times(1)
                    .disconnect(),
            ]
        }),
        row("a reset after a delete", UNKNOWN, |seed| {
            vec![
                Rule::on("DELETE", OBJECT)
                    .at_random(seed, 6)
                    .times(1)
                    .disconnect_after(),
            ]
        }),
        row("reads are reset", Promise::Same, |seed| {
            vec![
                Rule::on("GET", GROUP)
                    .at_random(seed, 30)
                    .times(3)
                    .disconnect(),
            ]
        }),
    ]
}

fn lies() -> Vec<Row> {
    vec![
        row("a list is older than what was seen before", UNKNOWN, |_| {
            let old = |list: &mut Value| {
                list["items"] = json!([]);
                list["metadata"]["resourceVersion"] = json!("1");
            };
            vec![
                Rule::on("GET", COLLECTION)
                    .query(LIST)
                    .skip(1)
                    .times(1)
                    .rewrite(old),
            ]
        }),
        // The list claims to be of this moment. An API that creates, gets and does not list is no API that behaves.
        row(
            "a list of this moment lacks the newest object",
            Promise::Fail("the list by label gives 0 objects instead of 1"),
            |_| {
                let without = |list: &mut Value| list["items"] = json!([]);
                vec![
                    Rule::on("GET", COLLECTION)
                        .query(LIST)
                        .skip(1)
                        .times(1)
                        .rewrite(without),
                ]
            },
        ),
        row(
            "a cache gives an object as it was at first",
            UNKNOWN,
            |_| {
                let kept: Mutex<BTreeMap<String, Value>> = Mutex::default();
                let first = move |object: &mut Value| {
                    let uid = object["metadata"]["uid"].to_string();
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    *object = kept.entry(uid).or_insert_with(|| object.clone()).clone();
                };
                vec![Rule::on("GET", OBJECT).rewrite(first)]
            },
        ),
        row(
            "the server's clock is decades behind",
            Promise::Same,
            |_| {
                let old = |object: &mut Value| {
                    if object["metadata"]["creationTimestamp"].is_string() {
                        object["metadata"]["creationTimestamp"] = json!("1999-12-31T23:59:59Z");
                    }
                    true
                };
                let rule = Rule::on("*", GROUP).rewrite_objects(old);
                vec![rule.header("date", "Fri, 31 Dec 1999 23:59:59 GMT")]
            },
        ),
        row(
            "discovery lacks the group",
            Promise::Unknown(Reason::VersionSkew),
            |_| {
                let without = |document: &mut Value| {
                    if let Some(items) = document["items"].as_array_mut() {
                        items.retain(|item| item["metadata"]["name"] != "resource.k8s.io");
                    }
                };
                vec![Rule::on("GET", "^/apis$").rewrite(without)]
            },
        ),
        row("discovery is HTML once", Promise::Same, |_| {
            vec![
                Rule::on("GET", "^/apis$")
                    .times(1)
                    .answer_text(200, "text/html", HTML),
            ]
        }),
    ]
}

/// The engine's own calls.
fn sandboxes() -> Vec<Row> {
    vec![
        row(
            "a reset after a namespace was created",
            Promise::Same,
            |seed| {
                let rule = Rule::on("POST", "^/api/v1/namespaces$").at_random(seed, 2);
                vec![rule.times(1).disconnect_after()]
            },
        ),
        row(
            "a reset before the probe's namespace was created",
            Promise::NotStarted("creating namespaces"),
            |_| {
                vec![
                    Rule::on("POST", "^/api/v1/namespaces$")
                        .skip(1)
                        .times(1)
                        .disconnect(),
                ]
            },
        ),
        row(
            "a reset while the account loses its token",
            Promise::Same,
            |_| {
                vec![
                    Rule::on("PATCH", "/serviceaccounts/default$")
                        .times(1)
                        .disconnect(),
                ]
            },
        ),
        row(
            "resets before namespaces are deleted",
            Promise::Same,
            |_| {
                vec![
                    Rule::on("DELETE", "^/api/v1/namespaces/[^/]+$")
                        .times(3)
                        .disconnect(),
                ]
            },
        ),
        row(
            "resets after namespaces were deleted",
            Promise::Same,
            |_| {
                vec![
                    Rule::on("DELETE", "^/api/v1/namespaces/[^/]+$")
                        .times(2)
                        .disconnect_after(),
                ]
            },
        ),
        row(
            "deletions of namespaces are only said to happen",
            Promise::Same,
            |_| {
                let rule = Rule::on("DELETE", "^/api/v1/namespaces/[^/]+$").times(2);
                vec![rule.answer_text(200, "text/html", HTML)]
            },
        ),
    ]
}

/// All kinds at random moments.
fn everything() -> Vec<Row> {
    let mixed: fn(u64) -> Vec<Rule> = |seed| {
        let on = |at: u64, method: &str| {
            let dice = seed.wrapping_mul(31).wrapping_add(at);
            Rule::on(method, GROUP).chance(dice, 6).times(4)
        };
        vec![
            on(1, "GET").disconnect(),
            on(2, "GET").answer_text(200, "text/html", HTML),
            on(3, "GET").cut_after(150),
            on(4, "GET").fail(503, "ServiceUnavailable", "away"),
            on(5, "*").fail(429, "TooManyRequests", "slow down"),
        ]
    };
    vec![
        row("everything, one", Promise::SameOrUnknown, mixed),
        row("everything, two", Promise::SameOrUnknown, mixed),
        row("everything, three", Promise::SameOrUnknown, mixed),
    ]
}
