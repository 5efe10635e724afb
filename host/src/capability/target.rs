//! Workloads as targets of requests: what a guest calls them, how the API server is asked for them, and whether they are
//! pods of this run.
//!
//! The API server's proxy sends a request wherever an endpoint leads, from the network of the control plane. So before each
//! request to a workload of the sandbox its endpoints are looked at, with the engine's own credentials: each must be a pod of
//! this run, with an address of that pod and a network of its own. Workloads of others need a line that names them
//! ([`crate::grant::Effective::names_target`]). Paths are taken in their plainest spelling only: what the API server and the
//! workload make of `..`, `//`, `%2e` or `;` differs.

use super::address::malformed;
use crate::cluster::{Request, encode};
use crate::gate::facts::note;
use crate::gate::{Trouble, Wire};
use crate::journal::Ledger;
use crate::manifest::values;
use crate::recording::format::{Facts, Failure, ObjectFact, ResourceAccess};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Longest path of a request, and longest query.
const PATH_MAX: usize = 2048;
const QUERY_MAX: usize = 8192;
/// How long what was found out about a target is believed: requests that come close together look once.
const BELIEVED: Duration = Duration::from_secs(1);
/// Targets that are kept in mind.
const TARGETS_MAX: usize = 256;
/// Pods of a namespace that are looked at; a sandbox has at most 500.
const PODS: &str = "?limit=1000";

/// A service or pod of a namespace, with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    resource: &'static str,
    namespace: String,
    /// `[scheme:]name:port`, as the API server takes it.
    name: String,
}

impl Target {
    /// Reads `service:<namespace>/[scheme:]<name>:<port>` or `pod:…`.
    pub(crate) fn parse(text: &str) -> Result<Target, Failure> {
        const FORM: &str =
            "is not `service:<namespace>/<name>:<port>` or `pod:<namespace>/<name>:<port>`";
        let wrong = || malformed("target", text, FORM);
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let resource = match kind {
            "service" => "services",
            "pod" => "pods",
            _ => return Err(wrong()),
        };
        let (namespace, name) = rest.split_once('/').ok_or_else(wrong)?;
        if !values::is_dns_label(namespace, 63) || !values::is_proxy_name(name) {
            return Err(wrong());
        }
        Ok(Target {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The access for a request with this verb and path.
    pub(crate) fn access(&self, verb: &str, path: &str) -> ResourceAccess {
        ResourceAccess {
            verb: verb.to_owned(),
            version: "v1".to_owned(),
            resource: self.resource.to_owned(),
            subresource: "proxy".to_owned(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: path.to_owned(),
            ..ResourceAccess::default()
        }
    }
}

/// The verb by which the API server authorises a method; none for methods that are not sent.
pub(crate) fn verb(method: &http::Method) -> Option<&'static str> {
    Some(match *method {
        http::Method::GET | http::Method::HEAD => "get",
        http::Method::POST => "create",
        http::Method::PUT => "update",
        http::Method::PATCH => "patch",
        http::Method::DELETE => "delete",
        _ => return None,
    })
}

/// Splits a path of a guest into path and query (empty for none), both in their plainest spelling.
pub(crate) fn split(text: &str) -> Result<(&str, &str), Failure> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    check_path(path)?;
    if query.len() > QUERY_MAX {
        return Err(malformed("query", query, "is longer than 8192 bytes"));
    }
    if !escapes_hold(query, |byte| byte != 0)
        || !query
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\"#<>[\\]^`{|}".contains(&b))
    {
        return Err(malformed(
            "query",
            query,
            "holds a character that a query must escape",
        ));
    }
    Ok((path, query))
}

/// Refuses every spelling of a path that one server could read in another way than the next.
pub(crate) fn check_path(path: &str) -> Result<(), Failure> {
    let why = if !path.starts_with('/') {
        "does not start with `/`"
    } else if path.len() > PATH_MAX {
        "is longer than 2048 bytes"
    } else if path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
        "is not in its shortest form"
    } else if !path
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,=:@%".contains(&b))
    {
        "holds a character that a path must escape"
    } else if !escapes_hold(path, |byte| {
        // What may stand there as it is, and what another reading makes a separator of.
        !byte.is_ascii_alphanumeric()
            && byte >= b' '
            && byte != 0x7f
            && !b"-._~/\\%;?#".contains(&byte)
    }) {
        "escapes a character that must not be, or need not be, escaped"
    } else {
        return Ok(());
    };
    Err(malformed("path", path, why))
}

/// Whether every `%` begins an escape of a byte that may be escaped.
fn escapes_hold(text: &str, may: impl Fn(u8) -> bool) -> bool {
    text.split('%').skip(1).all(|rest| {
        rest.get(..2)
            .and_then(|digits| {
                u8::from_str_radix(digits, 16)
                    .ok()
                    .filter(|_| !digits.starts_with('+'))
            })
            .is_some_and(&may)
    })
}

/// A query with real values for pseudonyms. Values are looked at without their escapes.
pub(crate) fn restored_query(wire: &Wire, query: &str) -> Result<String, Trouble> {
    let mut out = String::with_capacity(query.len());
    for (at, pair) in query.split('&').enumerate() {
        if at > 0 {
            out.push('&');
        }
        for (at, part) in pair.splitn(2, '=').enumerate() {
            if at > 0 {
                out.push('=');
            }
            let real = match unescaped(part) {
                Some(plain) => wire
                    .restore(&plain)
                    .map(|real| (real != plain).then_some(real))?,
                None => None,
            };
            match real {
                Some(real) => out.push_str(&encode(&real)),
                None => out.push_str(part),
            }
        }
    }
    Ok(out)
}

/// A part of a query as its reader sees it; none where it is no text.
fn unescaped(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The address of a request at the API server. The access was checked and holds real values.
pub(crate) fn address(at: &ResourceAccess, query: &str) -> String {
    let mut text = format!(
        "/api/v1/namespaces/{}/{}/{}/proxy{}",
        encode(&at.namespace),
        at.resource,
        at.name,
        at.path
    );
    if !query.is_empty() {
        text.push('?');
        text.push_str(query);
    }
    text
}

/// What was found out about targets a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Targets(Mutex<BTreeMap<String, (Instant, Facts)>>);

impl Targets {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Instant, Facts)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, key: &str) -> Option<Facts> {
        let known = self.lock();
        let (at, facts) = known.get(key)?;
        (at.elapsed() < BELIEVED).then(|| facts.clone())
    }

    fn keep(&self, key: String, facts: Facts) {
        let mut known = self.lock();
        if known.len() >= TARGETS_MAX {
            known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        if known.len() < TARGETS_MAX {
            known.insert(key, (Instant::now(), facts));
        }
    }
}

/// The access of a call with real values, once more in the plainest spelling, and the pods behind it: every endpoint is one
/// of this run, or a line in effect names the target. The facts hold the pods of this run that the request may reach.
pub(crate) async fn reachable(wire: &Wire) -> Result<(ResourceAccess, Facts), Trouble> {
    let at = wire.resource()?.clone();
    // Pseudonyms may stand for anything.
    check_path(&at.path)?;
    if !values::is_proxy_name(&at.name) || !values::is_dns_label(&at.namespace, 63) {
        return Err(malformed("target", &at.name, "is no name with a port").into());
    }
    let key = format!("{} {}/{}", at.resource, at.namespace, at.name);
    if let Some(facts) = wire.live.targets.known(&key) {
        return Ok((at, facts));
    }
    let facts = if wire.live.effective.names_target(&at) {
        named(&at)
    } else if at.resource == "pods" {
        own_pod(wire, &at).await?
    } else {
        own_service(wire, &at).await?
    };
    wire.live.targets.keep(key, facts.clone());
    Ok((at, facts))
}

/// The name without scheme and port.
fn plain_name(at: &ResourceAccess) -> &str {
    let rest = at
        .name
        .rsplit_once(':')
        .map_or(at.name.as_str(), |(rest, _)| rest);
    rest.split_once(':').map_or(rest, |(_, name)| name)
}

fn named(at: &ResourceAccess) -> Facts {
    let kind = if at.resource == "pods" {
        "Pod"
    } else {
        "Service"
    };
    Facts {
        objects: vec![ObjectFact {
            kind: kind.to_owned(),
            namespace: at.namespace.clone(),
            name: plain_name(at).to_owned(),
            ..ObjectFact::default()
        }],
        ..Facts::default()
    }
}

async fn read(wire: &Wire, path: String) -> Result<Value, Trouble> {
    let answer = wire.look_at(Request::get(path)).await?;
    serde_json::from_slice(&answer.body)
        .map_err(|e| Trouble::Foreign(Failure::NoAnswer(format!("the answer is no JSON: {e}"))))
}

async fn own_pod(wire: &Wire, at: &ResourceAccess) -> Result<Facts, Trouble> {
    let name = plain_name(at);
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}",
        encode(&at.namespace),
        encode(name)
    );
    let pod = read(wire, path).await?;
    if let Err(why) = is_own(&pod, &wire.live.ledger) {
        return Err(foreign(format!("pod {name} {why}")));
    }
    Ok(facts_of(wire, vec![pod]))
}

async fn own_service(wire: &Wire, at: &ResourceAccess) -> Result<Facts, Trouble> {
    let name = plain_name(at);
    let namespace = encode(&at.namespace);
    let service = read(
        wire,
        format!("/api/v1/namespaces/{namespace}/services/{}", encode(name)),
    )
    .await?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName"
        || spec["selector"]
            .as_object()
            .is_none_or(|selector| selector.is_empty())
    {
        return Err(foreign(format!("service {name} does not select pods")));
    }
    let slices = read(
        wire,
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?limit=1000&labelSelector={}",
            encode(&format!("kubernetes.io/service-name={name}"))
        ),
    )
    .await?;
    let endpoints: Vec<&Value> = items(&slices)
        .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
        .collect();
    if endpoints.is_empty() {
        // The API server says so in its own words.
        return Ok(Facts::default());
    }
    let pods = read(wire, format!("/api/v1/namespaces/{namespace}/pods{PODS}")).await?;
    let mut behind: Vec<Value> = Vec::new();
    for endpoint in endpoints {
        let pod = own_endpoint(endpoint, &at.namespace, &pods, &wire.live.ledger)
            .map_err(|why| foreign(format!("an endpoint of service {name} {why}")))?;
        if !behind.contains(pod) {
            behind.push(pod.clone());
        }
    }
    Ok(facts_of(wire, behind))
}

/// The pod that an endpoint leads to.
fn own_endpoint<'a>(
    endpoint: &Value,
    namespace: &str,
    pods: &'a Value,
    ledger: &Ledger,
) -> Result<&'a Value, String> {
    let target = &endpoint["targetRef"];
    let elsewhere = target["namespace"]
        .as_str()
        .is_some_and(|at| at != namespace);
    if target["kind"] != "Pod" || elsewhere {
        return Err("is no pod of the same namespace".to_owned());
    }
    let uid = target["uid"].as_str().unwrap_or_default();
    let pod = items(pods)
        .find(|pod| !uid.is_empty() && pod["metadata"]["uid"] == uid)
        .ok_or_else(|| "is a pod that is not there".to_owned())?;
    is_own(pod, ledger).map_err(|why| format!("is a pod that {why}"))?;
    let addresses: Vec<&str> = pod["status"]["podIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["ip"].as_str())
        .chain(pod["status"]["podIP"].as_str())
        .collect();
    let all_its_own = endpoint["addresses"].as_array().is_some_and(|all| {
        all.iter()
            .all(|address| address.as_str().is_some_and(|ip| addresses.contains(&ip)))
    });
    if all_its_own {
        Ok(pod)
    } else {
        Err("has an address that its pod does not have".to_owned())
    }
}

/// Whether a pod of a sandbox namespace is one of this run: created by it, or by a controller that is not a node.
fn is_own(pod: &Value, ledger: &Ledger) -> Result<(), &'static str> {
    if pod["spec"]["hostNetwork"] == true {
        return Err("uses the network of its node");
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let controlled = pod["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|owner| owner["controller"] == true && owner["kind"] != "Node");
    if controlled || ledger.ever_created(uid) {
        Ok(())
    } else {
        Err("this run did not create")
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn facts_of(wire: &Wire, pods: Vec<Value>) -> Facts {
    let mut facts = Facts::default();
    for mut pod in pods {
        pod["kind"] = "Pod".into();
        wire.live.redactor.redact("", "pods", &mut pod);
        note(&mut facts, &pod, |uid| wire.live.ledger.ever_created(uid));
    }
    facts
}

fn foreign(why: String) -> Trouble {
    Trouble::Foreign(Failure::Refused(format!(
        "{why}: requests go to pods of this run, or to what a line names (guard `proxy`)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::ObjectRef;
    use serde_json::json;

    #[test]
    fn targets_are_read_strictly() {
        let target = Target::parse("service:ns/http:echo:8080").unwrap();
        assert_eq!(
            address(&target.access("get", "/a/b"), "x=1"),
            "/api/v1/namespaces/ns/services/http:echo:8080/proxy/a/b?x=1"
        );
        assert!(Target::parse("pod:ns/a.b-1:http").is_ok());
        for bad in [
            "",
            "echo",
            "service:echo:80",
            "service:ns/echo",
            "service:ns/echo:",
            "service:ns/echo:0",
            "service:ns/echo:70000",
            "service:ns/ftp:echo:80",
            "service:ns/a:b:c:80",
            "service:ns/e/cho:80",
            "service:ns/../echo:80",
            "service:n s/echo:80",
            "service:/echo:80",
            "node:ns/n1:10250",
            "service:ns/echo:80/",
            "service:ns/%65cho:80",
            "service:ns/echo:80\r\nX: y",
        ] {
            assert!(
                matches!(Target::parse(bad), Err(Failure::Malformed(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn paths_have_one_spelling() {
        for good in [
            "/",
            "/metrics",
            "/v1/models/",
            "/a%20b",
            "/a:b@c,d=e",
            "/x?",
            "/x?a=1&b=%7B%22c%22%7D",
            "/x?q=a%0Ab",
            "/%C3%A4",
        ] {
            assert!(split(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "metrics",
            "//x",
            "/a//b",
            "/a/../b",
            "/..",
            "/a/.",
            "/a/./b",
            "/%2e%2e/x",
            "/%2E./x",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a;b",
            "/a%3bb",
            "/..;/x",
            "/a%00",
            "/a%0d%0aX",
            "/a\r\nX: y",
            "/a b",
            "/a#b",
            "/a%23b",
            "/a%3fb",
            "/a%252e",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a%61",
            "/ä",
            "/x?a b",
            "/x?a#b",
            "/x?a\r\nb",
            "/x?a%00",
            "/x?a%",
            "/x?\"",
        ] {
            assert!(matches!(split(bad), Err(Failure::Malformed(_))), "{bad}");
        }
        assert!(split(&format!("/{}", "a".repeat(3000))).is_err());
        assert!(split(&format!("/?{}", "a".repeat(9000))).is_err());
    }

    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        let pod = ObjectRef {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            namespace: "ns".to_owned(),
            name: "a".to_owned(),
        };
        ledger.intend(&pod, "demo");
        ledger.created(&pod, "u1");
        ledger
    }

    #[test]
    fn an_endpoint_is_a_pod_of_this_run_at_its_own_address() {
        let pod = |uid: &str| json!({"metadata": {"name": "a", "uid": uid}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        let endpoint = |uid: &str| json!({"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "namespace": "ns", "name": "a", "uid": uid}});
        let fits = |endpoint: &Value, pod: &Value| {
            own_endpoint(endpoint, "ns", &json!({"items": [pod]}), &ledger()).is_ok()
        };
        assert!(fits(&endpoint("u1"), &pod("u1")));
        let mut controlled = pod("u2");
        controlled["metadata"]["ownerReferences"] =
            json!([{"kind": "ReplicaSet", "controller": true}]);
        assert!(fits(&endpoint("u2"), &controlled));

        let mut node = pod("u2");
        node["metadata"]["ownerReferences"] = json!([{"kind": "Node", "controller": true}]);
        let mut host = pod("u1");
        host["spec"]["hostNetwork"] = json!(true);
        let mut hostile = vec![
            (endpoint("u2"), pod("u2")),
            (endpoint(""), pod("")),
            (endpoint("u9"), pod("u1")),
            (endpoint("u2"), node),
            (endpoint("u1"), host),
        ];
        for (key, value) in [
            ("/addresses", json!(["169.254.169.254"])),
            ("/addresses", json!(["10.0.0.1", "127.0.0.1"])),
            ("/addresses", Value::Null),
            ("/targetRef", Value::Null),
            ("/targetRef/kind", json!("Node")),
            ("/targetRef/namespace", json!("kube-system")),
        ] {
            let mut changed = endpoint("u1");
            *changed.pointer_mut(key).unwrap() = value;
            hostile.push((changed, pod("u1")));
        }
        for (endpoint, pod) in hostile {
            assert!(!fits(&endpoint, &pod), "{endpoint} {pod}");
        }
    }
}
