//! `echo`: says who answered and what was asked; some paths answer in a way that a client has to cope with.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::Failure;
use crate::serve::{Answer, Request, forever};

/// Most pieces of one answer.
const MOST_PIECES: u64 = 1000;
/// Longest wait before an answer or a piece, in milliseconds.
const LONGEST: u64 = 60_000;

pub(crate) fn run(port: u16) -> Result<ExitCode, Failure> {
    forever(port, answer)
}

fn answer(request: &Request, to: &mut Answer<'_>) -> io::Result<()> {
    let number = |name: &str, most: u64, otherwise: u64| {
        request
            .parameter(name)
            .and_then(|v| v.parse().ok())
            .unwrap_or(otherwise)
            .min(most)
    };
    match request.path.as_str() {
        "/healthz" => to.plain(200, &[], "ok\n"),
        "/chunks" => {
            let count = number("count", MOST_PIECES, 10);
            let gap = number("gap", LONGEST, 100);
            to.head(
                200,
                &[
                    ("Content-Type", "text/plain"),
                    ("Transfer-Encoding", "chunked"),
                ],
            )?;
            for n in 0..count {
                if n > 0 {
                    std::thread::sleep(Duration::from_millis(gap));
                }
                to.piece(&format!("piece {n}\n"))?;
            }
            to.piece("")
        }
        "/redirect" => to.plain(
            302,
            &[("Location", request.parameter("to").unwrap_or("/"))],
            "",
        ),
        path if path.starts_with("/status/") => {
            let status = path["/status/".len()..].parse().unwrap_or(0);
            if (200..600).contains(&status) {
                to.plain(status, &[], &format!("{status}\n"))
            } else {
                to.plain(400, &[], "a status from 200 to 599 is expected\n")
            }
        }
        path => {
            if path == "/wait" {
                std::thread::sleep(Duration::from_millis(number("ms", LONGEST, 1000)));
            }
            to.plain(
                200,
                &[("Content-Type", "application/json")],
                &format!("{}\n", mirror(request)),
            )
        }
    }
}

fn mirror(request: &Request) -> serde_json::Value {
    let variable = |name: &str| std::env::var(name).ok();
    json!({
        "pod": variable("POD_NAME").or_else(|| variable("HOSTNAME")),
        "namespace": variable("POD_NAMESPACE"),
        "node": variable("NODE_NAME"),
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "body": String::from_utf8_lossy(&request.body),
    })
}
