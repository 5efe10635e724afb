//! A puppet: makes the calls of a script, whatever they are, and logs what each one gave.
//!
//! `${run}` stands for the run id, `${ns:ALIAS}` for a sandbox namespace, and `${uid}` for the uid of the object that was
//! created last. A step is `{"do": "get", "api": "v1", "resource":
//! "pods", "ns": "…", "name": "…"}`; the words of `do` are those of [`Step`].

use crate::bindings::karat::probe::{
    cases, clock, http, kube_read, kube_write, leases, log, metrics, pods, run, types, wait,
};
use serde::Deserialize;
use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Step {
    Open {
        id: String,
        #[serde(default)]
        subject: String,
    },
    Observe {
        name: String,
        value: String,
    },
    /// `pass`, `fail`, `unknown: …`, `not-applicable: …`
    Conclude {
        outcome: String,
    },
    Get {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        name: String,
    },
    List {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        #[serde(default)]
        labels: String,
        #[serde(default)]
        fields: String,
        #[serde(default)]
        keep: Vec<String>,
    },
    Snapshot {
        api: String,
        resource: String,
    },
    /// Reads all pages and keeps none, as a probe does on a large cluster.
    CountSnapshot {
        api: String,
        resource: String,
    },
    Watch {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        ms: u32,
    },
    Raw {
        path: String,
    },
    Discover,
    Create {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        body: Value,
        #[serde(default)]
        dry: bool,
    },
    Replace {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        name: String,
        body: Value,
    },
    Patch {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        name: String,
        kind: String,
        body: Value,
    },
    Delete {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        name: String,
    },
    DeleteCollection {
        api: String,
        resource: String,
        #[serde(default)]
        ns: String,
        labels: String,
    },
    /// One request to a workload, read to its end.
    Http {
        method: String,
        target: String,
        path: String,
        #[serde(default)]
        headers: Vec<(String, String)>,
        #[serde(default)]
        body: String,
        ms: u32,
    },
    /// So many requests at once, of which none is read.
    Flood {
        target: String,
        path: String,
        times: u32,
    },
    Scrape {
        target: String,
        path: String,
        names: Vec<String>,
    },
    Query {
        endpoint: String,
        promql: String,
    },
    Log {
        text: String,
    },
    Now,
    Sleep {
        ms: u32,
    },
    Name {
        prefix: String,
    },
    Namespace {
        alias: String,
    },
    Acquire {
        names: Vec<String>,
        ms: u32,
    },
    Release,
    /// Waits until an object has this value there.
    Until {
        api: String,
        resource: String,
        ns: String,
        name: String,
        pointer: String,
        value: Value,
        ms: u32,
    },
    /// Reads a log to its end.
    Logs {
        ns: String,
        name: String,
        #[serde(default)]
        follow: bool,
        /// Bytes of one read.
        #[serde(default = "most")]
        max: u32,
    },
    /// Runs a command; gives code, output and errors, in lines.
    Exec {
        ns: String,
        name: String,
        argv: Vec<String>,
        ms: u32,
    },
    Fail {
        text: String,
    },
    /// Reads objects in every way there is, and logs, shows and keeps all it saw.
    Spill {
        api: String,
        resource: String,
        #[serde(default)]
        labels: String,
        ms: u32,
    },
    /// Keeps a refusal with its whole body, as [`Step::Spill`] does with objects: creates what is not admitted.
    Provoke {
        api: String,
        resource: String,
        ns: String,
        body: Value,
    },
    /// Gives up, with the end of what was kept.
    Despair,
}

fn most() -> u32 {
    1 << 20
}

/// Plays the script to its end, whatever the steps give.
pub(crate) fn play(script: &str) -> Result<(), String> {
    let script = fill_in(script)?;
    let steps: Vec<Value> = serde_json::from_str(&script).map_err(|e| format!("script: {e}"))?;
    let mut open: Option<cases::Case> = None;
    let mut uid = String::new();
    let mut lease: Option<leases::Lease> = None;
    let mut kept = String::new();
    for (at, step) in steps.into_iter().enumerate() {
        let step = step.to_string().replace("${uid}", &uid);
        let step: Step = serde_json::from_str(&step).map_err(|e| format!("step {at}: {e}"))?;
        let gave = match step {
            Step::Open { id, subject } => cases::open(&id, &subject).map(|case| {
                open = Some(case);
                String::new()
            }),
            Step::Observe { name, value } => {
                if let Some(case) = &open {
                    case.observe(&name, &value);
                }
                Ok(String::new())
            }
            Step::Conclude { outcome } => match open.take() {
                Some(case) => {
                    cases::Case::conclude(case, &outcome_of(&outcome)).map(|()| String::new())
                }
                None => Ok("no case is open".into()),
            },
            Step::Acquire { names, ms } => leases::acquire(&names, ms).map(|got| {
                let granted = got.granted();
                lease = Some(got);
                granted
            }),
            Step::Release => {
                if let Some(lease) = lease.take() {
                    lease.release();
                }
                Ok(String::new())
            }
            Step::Get {
                api,
                resource,
                ns,
                name,
            } => query(&api, &resource, &ns).get(&name),
            Step::List {
                api,
                resource,
                ns,
                labels,
                fields,
                keep,
            } => {
                let query = query(&api, &resource, &ns);
                if !labels.is_empty() {
                    query.labels(&labels);
                }
                if !fields.is_empty() {
                    query.fields(&fields);
                }
                if !keep.is_empty() {
                    query.keep(&keep);
                }
                query.open_list().and_then(drain)
            }
            Step::Snapshot { api, resource } => {
                query(&api, &resource, "").open_snapshot().and_then(drain)
            }
            Step::CountSnapshot { api, resource } => query(&api, &resource, "")
                .open_snapshot()
                .and_then(|cursor| {
                    let mut count = 0;
                    while let Some(page) = cursor.next()? {
                        count += page.len();
                    }
                    Ok(format!("{count} objects"))
                }),
            Step::Watch {
                api,
                resource,
                ns,
                ms,
            } => query(&api, &resource, &ns).open_watch().and_then(|watch| {
                let ready = watch.ready();
                let mut seen = 0;
                let end = clock::elapsed().saturating_add(ms);
                loop {
                    let left = end.saturating_sub(clock::elapsed());
                    if wait::any(&[&ready], left)?.is_empty() {
                        return Ok(format!("{seen} events"));
                    }
                    while watch.next()?.is_some() {
                        seen += 1;
                    }
                }
            }),
            Step::Raw { path } => {
                kube_read::raw(&path).map(|answer| format!("{} {}", answer.code, answer.body))
            }
            Step::Discover => kube_read::discover(),
            Step::Create {
                api,
                resource,
                ns,
                body,
                dry,
            } => {
                let target = target(&api, &resource, &ns);
                if dry {
                    target.dry_run();
                }
                target.create(&text_of(&body)).inspect(|created| {
                    let created: Value = serde_json::from_str(created).unwrap_or_default();
                    uid = created["metadata"]["uid"]
                        .as_str()
                        .unwrap_or_default()
                        .into();
                })
            }
            Step::Replace {
                api,
                resource,
                ns,
                name,
                body,
            } => target(&api, &resource, &ns).replace(&name, &text_of(&body)),
            Step::Patch {
                api,
                resource,
                ns,
                name,
                kind,
                body,
            } => target(&api, &resource, &ns).patch(&name, &kind, &text_of(&body)),
            Step::Delete {
                api,
                resource,
                ns,
                name,
            } => target(&api, &resource, &ns)
                .delete(&name, None)
                .map(|()| String::new()),
            Step::DeleteCollection {
                api,
                resource,
                ns,
                labels,
            } => target(&api, &resource, &ns)
                .delete_collection(&labels)
                .map(|n| n.to_string()),
            Step::Http {
                method,
                target,
                path,
                headers,
                body,
                ms,
            } => {
                let request = http::Request::new(&method, &target, &path);
                for (name, value) in &headers {
                    request.header(name, value);
                }
                if !body.is_empty() {
                    request.body(body.as_bytes());
                }
                request.send(ms).and_then(|response| finish(&response, ms))
            }
            Step::Flood {
                target,
                path,
                times,
            } => {
                let mut open = Vec::new();
                (0..times)
                    .try_for_each(|_| {
                        open.push(http::Request::new("GET", &target, &path).send(60_000)?);
                        Ok(())
                    })
                    .map(|()| format!("{times} are open"))
            }
            Step::Scrape {
                target,
                path,
                names,
            } => metrics::scrape(&target, &path, &names).map(|found| readings(&found)),
            Step::Query { endpoint, promql } => {
                metrics::query(&endpoint, &promql).map(|found| readings(&found))
            }
            Step::Log { text } => {
                log::write("info", &text);
                Ok(String::new())
            }
            Step::Now => Ok(clock::now()),
            Step::Sleep { ms } => wait::any(&[], ms).map(|_| String::new()),
            Step::Name { prefix } => Ok(run::name(&prefix)),
            Step::Namespace { alias } => run::namespace(&alias),
            Step::Until {
                api,
                resource,
                ns,
                name,
                pointer,
                value,
                ms,
            } => {
                let query = query(&api, &resource, &ns);
                query.fields(&format!("metadata.name={name}"));
                until(&query, &pointer, &value, ms)
            }
            Step::Logs {
                ns,
                name,
                follow,
                max,
            } => {
                let query = pods::LogQuery::new(&ns, &name);
                if follow {
                    query.follow();
                }
                query.open().and_then(|stream| read(&stream, max))
            }
            Step::Exec { ns, name, argv, ms } => execute(&ns, &name, &argv, ms),
            Step::Fail { text } => return Err(text),
            Step::Spill {
                api,
                resource,
                labels,
                ms,
            } => spill(&api, &resource, &labels, ms, open.as_ref(), &mut kept),
            Step::Provoke {
                api,
                resource,
                ns,
                body,
            } => match target(&api, &resource, &ns).create(&text_of(&body)) {
                Ok(created) => Ok(created),
                Err(error) => {
                    tell(&word_of(&error), open.as_ref(), &mut kept);
                    if let types::Error::Answered(answer) = &error {
                        tell(&answer.body, open.as_ref(), &mut kept);
                    }
                    Err(error)
                }
            },
            Step::Despair => {
                let from = kept.len().saturating_sub(60_000);
                let from = (from..kept.len()).find(|at| kept.is_char_boundary(*at));
                return Err(from.map(|at| kept[at..].to_string()).unwrap_or_default());
            }
        };
        let line = match &gave {
            Ok(text) => format!(
                "step {at}: ok {}",
                text.chars().take(200).collect::<String>()
            ),
            Err(error) => format!("step {at}: {}", word_of(error)),
        };
        log::write("info", &line);
    }
    Ok(())
}

/// The whole answer: code, then the body.
fn finish(response: &http::Response, ms: u32) -> Result<String, types::Error> {
    let ready = response.ready();
    let mut code = None;
    let mut body = Vec::new();
    loop {
        if code.is_none() {
            code = response.status()?;
        }
        match response.read(65_536)? {
            None => break,
            Some(bytes) if bytes.is_empty() => {
                if wait::any(&[&ready], ms)?.is_empty() {
                    return Ok("nothing arrived".into());
                }
            }
            Some(bytes) => body.extend(bytes),
        }
    }
    let text = String::from_utf8_lossy(&body);
    Ok(format!("{} {text}", code.unwrap_or_default()))
}

fn readings(found: &metrics::Samples) -> String {
    let lines = (0..found.len()).map(|at| {
        let labels = found.labels(at);
        format!("{}{labels:?} {}", found.name(at), found.text(at))
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// A body given as a string is sent as it is, so that scripts can send what is no JSON.
fn text_of(body: &Value) -> String {
    match body {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn query(api: &str, resource: &str, ns: &str) -> kube_read::Query {
    let query = kube_read::Query::new(api, resource);
    if !ns.is_empty() {
        query.in_namespace(ns);
    }
    query
}

fn target(api: &str, resource: &str, ns: &str) -> kube_write::Target {
    let target = kube_write::Target::new(api, resource);
    if !ns.is_empty() {
        target.in_namespace(ns);
    }
    target
}

fn drain(cursor: kube_read::Cursor) -> Result<String, types::Error> {
    let mut all = Vec::new();
    while let Some(page) = cursor.next()? {
        all.extend(page);
    }
    Ok(format!("{} objects {}", all.len(), all.join(" ")))
}

/// Everything about some objects: as a list, one by one, in parts, and as events.
fn spill(
    api: &str,
    resource: &str,
    labels: &str,
    ms: u32,
    case: Option<&cases::Case>,
    kept: &mut String,
) -> Result<String, types::Error> {
    const PARTS: &[&str] = &[
        "/metadata/annotations",
        "/data",
        "/spec/containers/*/env/*/value",
        "/spec/providerID",
    ];
    let selected = || {
        let query = query(api, resource, "");
        if !labels.is_empty() {
            query.labels(labels);
        }
        query
    };
    let mut whole = Vec::new();
    let cursor = selected().open_list()?;
    while let Some(page) = cursor.next()? {
        whole.extend(page);
    }
    for text in &whole {
        tell(text, case, kept);
        let object: Value = serde_json::from_str(text).unwrap_or_default();
        let part = |name: &str| {
            object["metadata"][name]
                .as_str()
                .unwrap_or_default()
                .to_string()
        };
        match query(api, resource, &part("namespace")).get(&part("name")) {
            Ok(again) => show(&again, case),
            Err(error) => tell(&word_of(&error), case, kept),
        }
    }
    let parts = selected();
    parts.keep(&PARTS.iter().map(ToString::to_string).collect::<Vec<_>>());
    let cursor = parts.open_list()?;
    while let Some(page) = cursor.next()? {
        page.iter().for_each(|text| show(text, case));
    }
    let watch = selected().open_watch()?;
    let ready = watch.ready();
    let end = clock::elapsed().saturating_add(ms);
    loop {
        let left = end.saturating_sub(clock::elapsed());
        if wait::any(&[&ready], left)?.is_empty() {
            return Ok(format!("{} objects", whole.len()));
        }
        while let Some(event) = watch.next()? {
            let (kube_read::Event::Added(text)
            | kube_read::Event::Modified(text)
            | kube_read::Event::Deleted(text)
            | kube_read::Event::Synced(text)
            | kube_read::Event::Gap(text)
            | kube_read::Event::Other(text)) = event;
            show(&text, case);
        }
    }
}

fn tell(text: &str, case: Option<&cases::Case>, kept: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(8_000);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        log::write("info", &rest[..end]);
        rest = &rest[end..];
    }
    show(text, case);
    kept.push_str(text);
}

/// Every observation is looked for in every answer, so a few say as much as all.
fn show(text: &str, case: Option<&cases::Case>) {
    const SHOWN: u32 = 80;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    if let Some(case) = case
        && count.is_multiple_of(25)
        && count / 25 < SHOWN
    {
        case.observe("seen", text);
    }
}

fn until(
    query: &kube_read::Query,
    pointer: &str,
    value: &Value,
    ms: u32,
) -> Result<String, types::Error> {
    let watch = query.open_watch()?;
    let ready = watch.ready();
    let end = clock::elapsed().saturating_add(ms);
    loop {
        while let Some(event) = watch.next()? {
            if let kube_read::Event::Added(text) | kube_read::Event::Modified(text) = event {
                let object: Value = serde_json::from_str(&text).unwrap_or_default();
                if object.pointer(pointer) == Some(value) {
                    return Ok(text);
                }
            }
        }
        let left = end.saturating_sub(clock::elapsed());
        if wait::any(&[&ready], left)?.is_empty() && left == 0 {
            return Ok("never".into());
        }
    }
}

/// All that a stream gives, waited for.
fn read(stream: &pods::ByteStream, max: u32) -> Result<String, types::Error> {
    let ready = stream.ready();
    let mut all = Vec::new();
    while let Some(bytes) = stream.read(max)? {
        if bytes.is_empty() {
            wait::any(&[&ready], u32::MAX)?;
        }
        all.extend(bytes);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

fn execute(ns: &str, name: &str, argv: &[String], ms: u32) -> Result<String, types::Error> {
    let command = pods::Command::new(ns, name, argv.first().map_or("", String::as_str));
    for argument in argv.iter().skip(1) {
        command.arg(argument);
    }
    let running = command.start(ms)?;
    let output = read(&running.output(), most());
    let errors = read(&running.errors(), most());
    let exit = running.exit()?;
    Ok(format!("{exit:?}\n{}\n{}", output?, errors?))
}

fn outcome_of(text: &str) -> cases::Outcome {
    let (word, detail) = text.split_once(": ").unwrap_or((text, ""));
    match word {
        "pass" => cases::Outcome::Pass,
        "fail" => cases::Outcome::Fail,
        "not-applicable" => cases::Outcome::NotApplicable(detail.into()),
        "unknown" => cases::Outcome::Unknown(detail.into()),
        _ => cases::Outcome::Other(text.into()),
    }
}

fn word_of(error: &types::Error) -> String {
    match error {
        types::Error::Refused(text) => format!("refused {text}"),
        types::Error::Answered(answer) => format!(
            "answered {} {} {}",
            answer.code, answer.reason, answer.message
        ),
        types::Error::NoAnswer(text) => format!("no-answer {text}"),
        types::Error::Expired => "expired".into(),
        types::Error::Budget(text) => format!("budget {text}"),
        types::Error::Stopping => "stopping".into(),
        types::Error::Malformed(text) => format!("malformed {text}"),
        types::Error::Other(text) => format!("other {text}"),
    }
}

/// Replaces `${run}` and `${ns:ALIAS}`. The values are names, so JSON needs no escaping.
fn fill_in(script: &str) -> Result<String, String> {
    let mut text = script.replace("${run}", &run::id());
    while let Some(start) = text.find("${ns:") {
        let end = start + text[start..].find('}').ok_or("`${ns:` without `}`")?;
        let alias = text[start + 5..end].to_string();
        let namespace = run::namespace(&alias).map_err(|error| word_of(&error))?;
        text.replace_range(start..=end, &namespace);
    }
    Ok(text)
}
