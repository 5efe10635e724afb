//! `model`: a simulated model server with the paths of the OpenAI API. It computes nothing and says so in every answer; what it
//! has of a real one is its life: it loads for a time, its health can be made to fail and to heal, and it drains before it ends.
//!
//! Who is asked while it loads answers 503, and every answer names the pod in `X-Served-By`, so that a client can tell who got
//! its request and in what state. A server whose health fails goes on answering: whether anybody still asks it is the question.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Failure;
use crate::serve::{Answer, Request, forever};

/// Most words of one answer.
const MOST_WORDS: u64 = 256;
/// Words of an answer where the request does not say.
const WORDS: u64 = 16;
/// Time between two words of a stream.
const GAP: Duration = Duration::from_millis(10);
/// Longest time to load or to drain.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often the end of the last request is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// What it says, over and over.
const SAYING: [&str; 8] = [
    "this",
    "is",
    "simulated",
    "text",
    "and",
    "no",
    "model's",
    "work",
];

/// A server.
struct Model {
    name: String,
    pod: String,
    began: Instant,
    load: Duration,
    failing: AtomicBool,
    draining: AtomicBool,
    open: AtomicUsize,
}

/// An answer before it is written.
#[derive(Debug, PartialEq)]
enum Reply {
    Json(u16, Value),
    /// Events of a stream, without the last one.
    Events(Vec<Value>),
    Nothing,
}

/// `[PORT] [--name=ID] [--load=SECONDS] [--drain=SECONDS]`
pub(crate) fn run(args: &[&str]) -> Result<ExitCode, Failure> {
    let (port, flags) = match args {
        [first, rest @ ..] if !first.starts_with("--") => (first.parse()?, rest),
        all => (8080, all),
    };
    let mut model = Model::new("karat-simulated");
    let mut drain = Duration::ZERO;
    for flag in flags {
        match flag.split_once('=') {
            Some(("--name", name)) if is_plain(name) => model.name = name.to_owned(),
            Some(("--load", seconds)) => model.load = time(seconds)?,
            Some(("--drain", seconds)) => drain = time(seconds)?,
            _ => return Err(format!("{flag:?}: expected --name, --load or --drain").into()),
        }
    }
    let model: &'static Model = Box::leak(Box::new(model));
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            model.draining.store(true, Ordering::Relaxed);
            std::thread::sleep(drain);
            while model.open.load(Ordering::Relaxed) > 0 {
                std::thread::sleep(LOOK);
            }
            std::process::exit(0);
        }
    });
    forever(port, move |request, to| {
        model.open.fetch_add(1, Ordering::Relaxed);
        let result = model.write(model.reply(request), to);
        model.open.fetch_sub(1, Ordering::Relaxed);
        result
    })
}

fn time(seconds: &str) -> Result<Duration, Failure> {
    let time = Duration::try_from_secs_f64(seconds.parse()?)?;
    if time > LONGEST {
        return Err(format!("{seconds}: at most {} s", LONGEST.as_secs()).into());
    }
    Ok(time)
}

fn is_plain(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/');
    !name.is_empty() && name.bytes().all(fine)
}

fn wrong(code: u16, kind: &str, message: &str) -> Reply {
    Reply::Json(code, json!({"error": {"message": message, "type": kind}}))
}

impl Model {
    fn new(name: &str) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let pod = variable("POD_NAME").or_else(|| variable("HOSTNAME"));
        Model {
            name: name.to_owned(),
            pod: pod.filter(|pod| is_plain(pod)).unwrap_or_default(),
            began: Instant::now(),
            load: Duration::ZERO,
            failing: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        }
    }

    fn reply(&self, request: &Request) -> Reply {
        let loading = self.began.elapsed() < self.load;
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health") => {
                let state = match () {
                    () if loading => "loading",
                    () if self.draining.load(Ordering::Relaxed) => "draining",
                    () if self.failing.load(Ordering::Relaxed) => "failing",
                    () => "ok",
                };
                let code = if state == "ok" { 200 } else { 503 };
                Reply::Json(code, json!({"status": state, "simulated": true}))
            }
            ("POST", "/switch") => match request.parameter("health") {
                Some(to @ ("fail" | "ok")) => {
                    self.failing.store(to == "fail", Ordering::Relaxed);
                    Reply::Nothing
                }
                _ => wrong(
                    400,
                    "invalid_request_error",
                    "health=fail or health=ok is expected",
                ),
            },
            (_, path) if path.starts_with("/v1/") && loading => {
                wrong(503, "service_unavailable", "the simulated model is loading")
            }
            ("GET", "/v1/models") => Reply::Json(
                200,
                json!({"object": "list", "data": [
                    {"id": self.name, "object": "model", "created": 0, "owned_by": "karat-simulated"},
                ]}),
            ),
            ("POST", "/v1/completions") => self.complete(request, "prompt"),
            ("POST", "/v1/chat/completions") => self.complete(request, "messages"),
            _ => wrong(404, "not_found_error", "no such path"),
        }
    }

    /// An answer to a prompt, or to messages.
    fn complete(&self, request: &Request, input: &str) -> Reply {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let chat = input == "messages";
        let told = if chat {
            asked[input].as_array().is_some_and(|all| !all.is_empty())
        } else {
            asked[input].is_string()
        };
        if !told {
            return wrong(400, "invalid_request_error", &format!("{input} is missing"));
        }
        if asked["model"] != self.name.as_str() {
            return wrong(404, "not_found_error", "the model does not exist");
        }
        let limit = asked["max_tokens"].as_u64().unwrap_or(WORDS);
        let count = limit.clamp(1, MOST_WORDS) as usize;
        let words: Vec<&str> = SAYING.iter().copied().cycle().take(count).collect();
        let body = |object: &str, choice: Value| {
            json!({"id": "simulated", "object": object, "created": 0, "model": self.name,
                "system_fingerprint": "karat-simulated", "choices": [choice]})
        };
        if asked["stream"] == true {
            let last = words.len() - 1;
            let events = words.iter().enumerate().map(|(at, word)| {
                let word = format!("{word} ");
                let reason = if at == last { json!("length") } else { Value::Null };
                if chat {
                    let choice = json!({"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": reason});
                    body("chat.completion.chunk", choice)
                } else {
                    body("text_completion", json!({"index": 0, "text": word, "finish_reason": reason}))
                }
            });
            return Reply::Events(events.collect());
        }
        let text = words.join(" ");
        let mut whole = if chat {
            let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"});
            body("chat.completion", choice)
        } else {
            body(
                "text_completion",
                json!({"index": 0, "text": text, "finish_reason": "length"}),
            )
        };
        // Words stand in for tokens.
        let prompt = asked[input].to_string().split_whitespace().count();
        whole["usage"] = json!({"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count});
        Reply::Json(200, whole)
    }

    fn write(&self, reply: Reply, to: &mut Answer<'_>) -> io::Result<()> {
        let by = ("X-Served-By", self.pod.as_str());
        match reply {
            Reply::Nothing => to.plain(204, &[by], ""),
            Reply::Json(code, body) => {
                let kind = ("Content-Type", "application/json");
                to.plain(code, &[by, kind], &format!("{body}\n"))
            }
            Reply::Events(events) => {
                let kind = ("Content-Type", "text/event-stream");
                to.head(200, &[by, kind, ("Transfer-Encoding", "chunked")])?;
                for event in events {
                    to.piece(&format!("data: {event}\n\n"))?;
                    std::thread::sleep(GAP);
                }
                to.piece("data: [DONE]\n\n")?;
                to.piece("")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(model: &Model, method: &str, path: &str, body: &str) -> Reply {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        model.reply(&Request {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            body: body.into(),
            ..Request::default()
        })
    }

    fn code(reply: &Reply) -> u16 {
        match reply {
            Reply::Json(code, _) => *code,
            Reply::Events(_) => 200,
            Reply::Nothing => 204,
        }
    }

    #[test]
    fn while_it_loads_it_answers_503_and_then_lists_its_model() {
        let mut model = Model::new("m");
        model.load = LONGEST;
        for path in ["/health", "/v1/models"] {
            assert_eq!(code(&ask(&model, "GET", path, "")), 503, "{path}");
        }
        model.load = Duration::ZERO;
        assert_eq!(code(&ask(&model, "GET", "/health", "")), 200);
        let Reply::Json(200, list) = ask(&model, "GET", "/v1/models", "") else {
            panic!("no list");
        };
        assert_eq!(list["data"][0]["id"], "m");
        assert_eq!(list["data"][0]["owned_by"], "karat-simulated");
    }

    #[test]
    fn its_health_fails_and_heals_and_it_serves_all_the_while() {
        let model = Model::new("m");
        assert_eq!(
            ask(&model, "POST", "/switch?health=fail", ""),
            Reply::Nothing
        );
        assert_eq!(code(&ask(&model, "GET", "/health", "")), 503);
        assert_eq!(code(&ask(&model, "GET", "/v1/models", "")), 200);
        assert_eq!(code(&ask(&model, "POST", "/switch?health=maybe", "")), 400);
        assert_eq!(code(&ask(&model, "GET", "/health", "")), 503);
        ask(&model, "POST", "/switch?health=ok", "");
        assert_eq!(code(&ask(&model, "GET", "/health", "")), 200);
        model.draining.store(true, Ordering::Relaxed);
        assert_eq!(code(&ask(&model, "GET", "/health", "")), 503);
        assert_eq!(code(&ask(&model, "GET", "/v1/models", "")), 200);
    }

    #[test]
    fn completions_are_simulated_and_of_the_length_that_was_asked_for() {
        let model = Model::new("m");
        let Reply::Json(200, answer) = ask(
            &model,
            "POST",
            "/v1/completions",
            r#"{"model": "m", "prompt": "two words", "max_tokens": 3}"#,
        ) else {
            panic!("no answer");
        };
        assert_eq!(answer["choices"][0]["text"], "this is simulated");
        assert_eq!(answer["usage"]["total_tokens"], 5);
        assert_eq!(answer["system_fingerprint"], "karat-simulated");
        let chat = r#"{"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": true, "max_tokens": 4}"#;
        let Reply::Events(events) = ask(&model, "POST", "/v1/chat/completions", chat) else {
            panic!("no stream");
        };
        assert_eq!(events.len(), 4);
        assert_eq!(events[0]["choices"][0]["delta"]["content"], "this ");
        assert_eq!(events[3]["choices"][0]["finish_reason"], "length");
        for (body, expected) in [
            (r#"{"model": "m"}"#, 400),
            (r#"{"model": "other", "prompt": "a"}"#, 404),
            ("no json", 400),
        ] {
            assert_eq!(
                code(&ask(&model, "POST", "/v1/completions", body)),
                expected
            );
        }
        let chatty = ask(
            &model,
            "POST",
            "/v1/chat/completions",
            r#"{"model": "m", "messages": []}"#,
        );
        assert_eq!(code(&chatty), 400);
    }

    #[test]
    fn flags_are_checked() {
        for bad in [
            &["--load=-1"][..],
            &["--load=99999"],
            &["--name="],
            &["--name=a b"],
            &["--unknown=1"],
            &["many"],
        ] {
            assert!(run(bad).is_err(), "{bad:?}");
        }
    }
}
