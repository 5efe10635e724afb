//! Secrets planted all over a cluster, and a probe that reads what it can in every way and tells it wherever it can. None of
//! them may be in any file of the run, nor in anything that the program says: plain, in base64, in hex or in percent form.
//!
//! Each place also holds a word that is no secret. It must be found, or nobody looked there.

mod kinds;
mod search;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use karat_testbed::{ControlPlane, client_of};
use karat_tests::guests::{Guest, case};
use karat_tests::program;
use kinds::{Draw, FORMS, KINDS};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use search::Search;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// Longest time for anything that the test waits for.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a secret was planted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    kind: String,
    place: String,
    form: String,
}

/// Everything that was planted.
struct Garden {
    client: Client,
    draw: Draw,
    namespace: String,
    planted: BTreeMap<String, Spot>,
    /// Words that must be found, by place.
    visible: BTreeMap<String, String>,
    node: String,
    /// What is known to be private only because an object of the cluster says so: a node's name, its machine, its devices.
    known: Vec<(&'static str, String)>,
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

impl Garden {
    fn spot(&mut self, kind: &str, place: &str, form: &str, needles: Vec<String>) {
        for needle in needles {
            self.planted.insert(
                needle,
                Spot {
                    kind: kind.to_owned(),
                    place: place.to_owned(),
                    form: form.to_owned(),
                },
            );
        }
    }

    /// A new secret of every kind that fits, in each of these forms.
    fn texts(
        &mut self,
        place: &str,
        forms: &[&str],
        fits: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for (form, write) in FORMS
            .iter()
            .filter(|(form, _)| forms.is_empty() || forms.contains(form))
        {
            for (kind, make) in KINDS {
                let secret = make(&self.draw);
                let text = write(&secret.text)?;
                if fits(&text) {
                    self.spot(kind, place, form, secret.needles);
                    all.push((format!("{kind}.{form}"), text));
                }
            }
            // The same texts everywhere: their needles are one spot each.
            for (kind, text) in self.known.clone() {
                let text = write(&text)?;
                if fits(&text) {
                    all.push((format!("{kind}.{form}"), text));
                }
            }
        }
        Ok(all)
    }

    /// A word that is no secret, for a place.
    fn word(&mut self, place: &str) -> String {
        let word = format!("visible-{}", self.draw.small(12).replace('7', "g"));
        self.visible.insert(place.to_owned(), word.clone());
        word
    }

    async fn create(&self, what: &ApiResource, namespace: &str, mut object: Value) -> Result<()> {
        object["apiVersion"] = what.api_version.clone().into();
        object["kind"] = what.kind.clone().into();
        let object: DynamicObject = serde_json::from_value(object)?;
        let api: Api<DynamicObject> = match namespace {
            "" => Api::all_with(self.client.clone(), what),
            namespace => Api::namespaced_with(self.client.clone(), namespace, what),
        };
        let name = object.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("plant {} {name}", what.kind))?;
        Ok(())
    }

    async fn status(
        &self,
        what: &ApiResource,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> Result<()> {
        let api: Api<DynamicObject> = match namespace {
            "" => Api::all_with(self.client.clone(), what),
            namespace => Api::namespaced_with(self.client.clone(), namespace, what),
        };
        api.patch_status(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await
        .with_context(|| format!("status of {} {name}", what.kind))?;
        Ok(())
    }

    async fn node(&mut self) -> Result<()> {
        let nodes = resource("", "v1", "Node", "nodes");
        let instance = format!("i-{}", self.draw.hex(17));
        let machine = self.draw.uuid();
        let machine_id = self.draw.hex(32);
        let boot = self.draw.uuid();
        let address = format!(
            "fd{}:{}:{}::{}",
            self.draw.hex(2),
            self.draw.hex(4),
            self.draw.hex(4),
            self.draw.hex(4)
        );
        let (device, serial) = (self.draw.uuid(), self.draw.digits(13));
        let word = self.word("node label");
        for (kind, text) in [
            ("node-name", self.node.clone()),
            ("instance-id", instance.clone()),
            ("machine-uuid", machine.clone()),
            ("machine-id", machine_id.clone()),
            ("boot-id", boot.clone()),
            ("node-address", address.clone()),
            ("device-serial", serial.clone()),
        ] {
            self.spot(kind, "node and device", "anywhere", vec![text.clone()]);
            self.known.push((kind, text));
        }
        // Its bare form has no sign of its own; the machine's other spellings are met in files of tools.
        self.spot(
            "device-uuid",
            "node and device",
            "anywhere",
            vec![device.clone()],
        );
        self.known
            .push(("machine-uuid-upper", machine.to_uppercase()));
        self.known
            .push(("machine-uuid-plain", machine.replace('-', "")));
        self.spot(
            "machine-uuid",
            "node and device",
            "anywhere",
            vec![machine.replace('-', "")],
        );
        self.create(
            &nodes,
            "",
            json!({
                "metadata": {"name": self.node, "labels": {"canary": "yes", "kubernetes.io/hostname": self.node, "word": word}},
                "spec": {"providerID": format!("aws:///eu-west-1a/{instance}"), "unschedulable": true,
                    "taints": [{"key": "canary", "effect": "NoSchedule"}]},
            }),
        )
        .await?;
        self.status(
            &nodes,
            "",
            &self.node,
            json!({
                "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": self.node}],
                "nodeInfo": {"machineID": machine_id, "systemUUID": machine.to_uppercase(), "bootID": boot, "kernelVersion": "6.8",
                    "osImage": "x", "containerRuntimeVersion": "containerd://2", "kubeletVersion": "v1.37.0",
                    "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"},
            }),
        )
        .await?;
        self.create(
            &resource("resource.k8s.io", "v1", "ResourceSlice", "resourceslices"),
            "",
            json!({
                "metadata": {"name": format!("canary-{}", self.draw.small(5)), "labels": {"canary": "yes"}},
                "spec": {"driver": "gpu.canary.example.com", "nodeName": self.node,
                    "pool": {"name": self.node, "generation": 1, "resourceSliceCount": 1},
                    "devices": [{"name": "gpu-0", "attributes": {"uuid": {"string": format!("GPU-{device}")},
                        "serialNumber": {"string": serial}}}]},
            }),
        )
        .await
    }

    async fn config_maps(&mut self) -> Result<()> {
        let maps = resource("", "v1", "ConfigMap", "configmaps");
        let word = self.word("config map");
        let data: BTreeMap<String, String> = self
            .texts("config map", &[], |_| true)?
            .into_iter()
            .collect();
        let mut by_kind: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (key, text) in data {
            let kind = key.split('.').next().unwrap_or_default().to_owned();
            by_kind.entry(kind).or_default().insert(key, text.into());
        }
        for (kind, mut data) in by_kind {
            data.insert("word".to_owned(), word.clone().into());
            let metadata = json!({"name": format!("data-{kind}"), "labels": {"canary": "yes"}});
            self.create(
                &maps,
                &self.namespace,
                json!({"metadata": metadata, "data": data}),
            )
            .await?;
        }

        let word = self.word("annotation");
        for (key, text) in self.texts(
            "annotation",
            &["plain", "base64", "gzip", "json-string"],
            |_| true,
        )? {
            let applied =
                json!({"metadata": {"annotations": {"x": text}}, "data": {"x": text}}).to_string();
            let metadata = json!({
                "name": format!("notes-{key}"),
                "labels": {"canary": "yes"},
                "annotations": {"example.com/note": text, "example.com/word": word,
                    "kubectl.kubernetes.io/last-applied-configuration": applied, "objectset.example.com/applied": applied},
            });
            self.create(&maps, &self.namespace, json!({ "metadata": metadata }))
                .await?;
        }

        // Keys, names and labels hold what their grammar allows.
        let legal = |text: &str| {
            text.len() <= 63
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                && text
                    .bytes()
                    .next_back()
                    .is_some_and(|b| b.is_ascii_alphanumeric())
        };
        let word = self.word("label");
        for (place, field) in [
            ("label", "labels"),
            ("annotation key", "annotations"),
            ("data key", "data"),
        ] {
            for (key, text) in self.texts(place, &["plain", "base64", "hex"], legal)? {
                let mut object = json!({"metadata": {"name": format!("{field}-{key}"), "labels": {"canary": "yes", "word": word}}});
                match field {
                    "labels" => object["metadata"]["labels"]["x"] = text.into(),
                    "annotations" => {
                        object["metadata"]["annotations"] =
                            json!({ format!("example.com/{text}"): "x" })
                    }
                    _ => object["data"] = json!({ text: "x" }),
                }
                self.create(&maps, &self.namespace, object).await?;
            }
        }
        for (kind, name) in self.known.clone() {
            let name = name.to_lowercase();
            let is_name = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
            if is_name && kind != "machine-uuid-upper" {
                let metadata = json!({"name": name, "labels": {"canary": "yes"}});
                self.create(&maps, &self.namespace, json!({ "metadata": metadata }))
                    .await?;
            }
        }
        let binary = format!("\u{1}\u{2} ghp_{} \u{3}", self.draw.letters(36));
        self.spot(
            "github",
            "binary data",
            "binary",
            vec![binary[7..43].to_owned()],
        );
        let data =
            json!({"blob": STANDARD.encode([b"\xff\xfe".as_slice(), binary.as_bytes()].concat())});
        let metadata = json!({"name": "binary", "labels": {"canary": "yes"}});
        self.create(
            &maps,
            &self.namespace,
            json!({"metadata": metadata, "binaryData": data}),
        )
        .await
    }

    async fn pods(&mut self) -> Result<()> {
        let pods = resource("", "v1", "Pod", "pods");
        let forms = ["plain", "base64"];
        let word = self.word("arguments");
        let said = self.word("status");
        let arguments = self.texts("arguments", &forms, |_| true)?;
        let statuses = self.texts("status", &forms, |_| true)?;
        for ((key, argument), (_, status)) in arguments.into_iter().zip(statuses) {
            let environment = format!("{}2468", self.draw.letters(20));
            let flag = self.draw.letters(24);
            let (plain, spaced) = (self.draw.small(14), self.draw.small(14));
            self.spot(
                "value",
                "environment",
                &key,
                vec![environment.clone(), plain.clone()],
            );
            self.spot(
                "flag",
                "arguments",
                &key,
                vec![flag.clone(), spaced.clone()],
            );
            let name = format!("pod-{key}");
            self.create(
                &pods,
                &self.namespace,
                json!({
                    "metadata": {"name": name, "labels": {"canary": "yes"}},
                    "spec": {"schedulerName": "nobody", "automountServiceAccountToken": false, "containers": [{
                        "name": "main", "image": "example.com/x",
                        "command": ["sh", "-c", format!("run {argument}; echo {word}")],
                        "args": [argument, "--password", spaced, format!("--token={flag}")],
                        "env": [{"name": "A", "value": environment}, {"name": "B", "value": plain}],
                    }]},
                }),
            )
            .await?;
            let message = format!("{said}: login with {environment} failed at {status}");
            let conditions =
                json!([{"type": "Ready", "status": "False", "reason": "X", "message": message}]);
            self.status(
                &pods,
                &self.namespace,
                &name,
                json!({"message": message, "conditions": conditions}),
            )
            .await?;
        }
        Ok(())
    }

    async fn events(&mut self) -> Result<()> {
        let events = resource("", "v1", "Event", "events");
        let word = self.word("event");
        for (key, text) in self.texts("event", &["plain", "percent", "in-a-sentence"], |_| true)? {
            let about = json!({"kind": "Pod", "namespace": self.namespace, "name": "x"});
            let message = format!("{word} in {}: {text}", self.namespace);
            let metadata = json!({"name": format!("event-{key}"), "labels": {"canary": "yes"}});
            let event = json!({"metadata": metadata, "involvedObject": about, "message": message, "reason": "Canary", "type": "Warning"});
            self.create(&events, &self.namespace, event).await?;
        }
        Ok(())
    }

    /// A policy that refuses and quotes a secret. Gives the keys by which it does.
    async fn errors(&mut self) -> Result<Vec<String>> {
        let word = self.word("error");
        let one_line = |text: &str| !text.contains('\n');
        let texts = self.texts("error", &["plain", "base64", "in-a-sentence"], one_line)?;
        let mut data = Map::new();
        for (number, (_, text)) in texts.into_iter().enumerate() {
            data.insert(format!("e{number}"), format!("{word}: {text}").into());
        }
        let keys: Vec<String> = data.keys().cloned().collect();
        let maps = resource("", "v1", "ConfigMap", "configmaps");
        self.create(
            &maps,
            &self.namespace,
            json!({"metadata": {"name": "echo"}, "data": data}),
        )
        .await?;
        let group = "admissionregistration.k8s.io";
        self.create(
            &resource(group, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            "",
            json!({"metadata": {"name": "canary"}, "spec": {
                "failurePolicy": "Fail",
                "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
                "matchConstraints": {
                    "objectSelector": {"matchExpressions": [{"key": "canary-error", "operator": "Exists"}]},
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                },
                "validations": [{
                    "expression": "!(object.metadata.labels['canary-error'] in params.data)",
                    "messageExpression": "string(params.data[object.metadata.labels['canary-error']])",
                }],
            }}),
        )
        .await?;
        self.create(
            &resource(group, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            "",
            json!({"metadata": {"name": "canary"}, "spec": {
                "policyName": "canary", "validationActions": ["Deny"],
                "paramRef": {"name": "echo", "namespace": self.namespace, "parameterNotFoundAction": "Deny"},
            }}),
        )
        .await?;
        Ok(keys)
    }

    /// Waits until the policy speaks.
    async fn speaks(&self, lab: &ControlPlane) -> Result<()> {
        let maps = resource("", "v1", "ConfigMap", "configmaps");
        lab.wait_until("the policy to refuse", || async {
            let object =
                json!({"metadata": {"generateName": "try-", "labels": {"canary-error": "e0"}}});
            match self.create(&maps, &self.namespace, object).await {
                Ok(()) => Err("it still lets pass".to_owned()),
                Err(error) if format!("{error:#}").contains("denied request: visible-") => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        Ok(())
    }
}

/// The probe: reads everything with the label, provokes every error, and gives up with what it saw.
fn reader(errors: &[String]) -> Guest {
    let spill = |api: &str, resource: &str| json!({"do": "spill", "api": api, "resource": resource, "labels": "canary=yes", "ms": 500});
    let mut steps = vec![
        json!({"do": "open", "id": "reads"}),
        spill("v1", "nodes"),
        spill("resource.k8s.io/v1", "resourceslices"),
        spill("v1", "pods"),
        spill("v1", "configmaps"),
        spill("v1", "events"),
    ];
    for key in errors {
        let metadata = json!({"name": format!("{key}-${{run}}"), "labels": {"canary-error": key}});
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        steps.push(json!({"do": "provoke", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "body": body}));
    }
    steps.push(json!({"do": "observe", "name": "kind", "value": "ConfigMap"}));
    steps.push(json!({"do": "conclude", "outcome": "pass"}));
    steps.push(json!({"do": "despair"}));
    Guest::scripted("reader", &Value::Array(steps))
        .namespace("main")
        .permit(
            "",
            &["nodes", "configmaps", "pods", "events"],
            &["get", "list", "watch"],
            "cluster",
        )
        .permit(
            "resource.k8s.io",
            &["resourceslices"],
            &["get", "list", "watch"],
            "cluster",
        )
        .permit("", &["configmaps"], &["create"], "sandbox")
        .lines("\n[settings.password]\ntype = \"secret\"\nhelp = \"A password.\"\n")
        .budget(
            "calls = 50000\nseen = \"128Mi\"\nmemory = \"128Mi\"\nwall = \"150s\"\ncpu = \"60s\"",
        )
        .cases(&case("reads", "list configmaps"))
}

/// A receiver of telemetry that keeps every body it is sent.
async fn receiver() -> Result<(String, Arc<Mutex<Vec<u8>>>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                let mut chunk = [0_u8; 16 << 10];
                while let Ok(count) = stream.read(&mut chunk).await {
                    if count == 0 {
                        break;
                    }
                    buffer.extend_from_slice(&chunk[..count]);
                    while let Some(length) = whole(&buffer) {
                        let body: Vec<u8> = buffer.drain(..length).collect();
                        if let Ok(mut kept) = keep.lock() {
                            kept.extend_from_slice(&body);
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok((address, kept))
}

/// Length of the request at the beginning of a buffer, once it is there.
fn whole(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))?;
    let whole = head + length.trim().parse::<usize>().ok()?;
    (buffer.len() >= whole).then_some(whole)
}

/// All files below a folder with what they hold; recordings unpacked beside as they are.
fn files(folder: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, all)?;
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if path.extension().is_some_and(|end| end == "zst") {
            all.push((path.with_extension(""), zstd::decode_all(bytes.as_slice())?));
        }
        all.push((path, bytes));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what this test shows")]
fn show(garden: &Garden, found: &BTreeSet<Spot>) {
    let mut table: BTreeMap<(&str, &str), (usize, Vec<&str>)> = BTreeMap::new();
    let spots: BTreeSet<&Spot> = garden.planted.values().collect();
    for spot in spots {
        let cell = table.entry((&spot.kind, &spot.place)).or_default();
        cell.0 += 1;
        if found.contains(spot) {
            cell.1.push(&spot.form);
        }
    }
    println!("{:<18} {:<18} {:>7}  found", "kind", "place", "planted");
    for ((kind, place), (count, found)) in &table {
        let said = if found.is_empty() {
            "no".to_owned()
        } else {
            format!("YES: {}", found.join(", "))
        };
        println!("{kind:<18} {place:<18} {count:>7}  {said}");
    }
    let all: usize = table.values().map(|(count, _)| count).sum();
    println!(
        "{all} secrets of {} kinds at {} places",
        KINDS.len() + 10,
        garden.visible.len() + 5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_reach_no_file_and_no_output() -> Result<()> {
    let lab = ControlPlane::builder().start().await?;
    let draw = Draw;
    let namespace = format!("canary-{}", draw.small(10));
    let mut garden = Garden {
        client: client_of(&lab.kubeconfig()).await?,
        node: format!("gpu-worker-{}.example.com", draw.small(8)),
        draw,
        planted: BTreeMap::new(),
        visible: BTreeMap::new(),
        known: Vec::new(),
        namespace: namespace.clone(),
    };
    garden.spot("namespace", "everywhere", "plain", vec![namespace.clone()]);
    let namespaces = resource("", "v1", "Namespace", "namespaces");
    garden
        .create(&namespaces, "", json!({"metadata": {"name": namespace}}))
        .await?;
    let accounts: Api<DynamicObject> = Api::namespaced_with(
        garden.client.clone(),
        &namespace,
        &resource("", "v1", "ServiceAccount", "serviceaccounts"),
    );
    lab.wait_until("the account of pods", || async {
        match accounts.get_opt("default").await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("not there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    let errors = garden.errors().await?;
    garden.node().await?;
    garden.config_maps().await?;
    garden.pods().await?;
    garden.events().await?;
    garden.speaks(&lab).await?;
    let setting = garden.draw.letters(24);
    garden.spot("secret-setting", "program", "plain", vec![setting.clone()]);
    let kubeconfig: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(lab.kubeconfig())?)?;
    let key = kubeconfig["users"][0]["user"]["client-key-data"]
        .as_str()
        .context("no key in the kubeconfig")?;
    let key = key[key.len() / 2..key.len() / 2 + 48].to_owned();
    garden.spot("operator-key", "program", "plain", vec![key]);

    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("probes"))?;
    std::fs::write(
        folder.path().join("probes/reader.wasm"),
        reader(&errors).component()?,
    )?;
    let (address, telemetry) = receiver().await?;
    let mut searched: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let set = format!("reader.password={setting}");
    for line in [
        &["run", "--out", "first", "--verbose"][..],
        &["run", "--out", "second", "--json"],
        &["plan", "--json"],
        &["replay", "first", "--json"],
        &["explain", "reader", "--run", "first"],
    ] {
        let mut command = Command::new(program::karat()?);
        command
            .args(line)
            .env_clear()
            .env("KARAT_CACHE_DIR", folder.path().join("cache"))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &address)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if matches!(line[0], "run" | "plan") {
            command.args(["--probes-from", "probes", "--rbac", "off", "--set", &set]);
            command.arg("--kubeconfig").arg(lab.kubeconfig());
        }
        if line[0] == "run" {
            command.args(["--yes", "--lock", "none"]);
        }
        let output = tokio::time::timeout(PATIENCE, command.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        // The probe gives up at the end, so nobody can tell; its replay agrees.
        let expected = match line[0] {
            "run" => Some(2),
            _ => Some(0),
        };
        ensure!(code == expected, "{line:?}: {code:?}\n{said}");
        searched.push((
            format!("stdout of {}", line.join(" ")).into(),
            output.stdout,
        ));
        searched.push((
            format!("stderr of {}", line.join(" ")).into(),
            output.stderr,
        ));
    }
    for out in ["first", "second"] {
        files(&folder.path().join(out), &mut searched)?;
    }
    let telemetry = telemetry
        .lock()
        .map(|kept| kept.clone())
        .unwrap_or_default();
    ensure!(
        telemetry.len() > 10_000,
        "only {} bytes of telemetry",
        telemetry.len()
    );
    searched.push(("telemetry".into(), telemetry));

    let record: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("first/run.json"))?)?;
    let attempt = &record["probes"][0]["attempts"][0];
    ensure!(
        attempt["outcome"]["kind"] == "probe-error",
        "{}",
        attempt["outcome"]
    );
    ensure!(
        attempt["judgement"]["cases"][0]["concluded"]["kind"] == "pass",
        "{}",
        attempt["judgement"]["cases"][0]
    );
    let everything: Vec<&[u8]> = searched.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    for (place, word) in &garden.visible {
        let word = word.as_bytes();
        let seen = everything
            .iter()
            .any(|bytes| bytes.windows(word.len()).any(|window| window == word));
        ensure!(seen, "nothing of place `{place}` was seen at all");
    }

    let search = Search::new(garden.planted.keys().map(String::as_str));
    let mut found = BTreeSet::new();
    let mut lines = BTreeSet::new();
    for (path, bytes) in &searched {
        for hit in search.look(bytes) {
            let spot = &garden.planted[&hit.needle];
            found.insert(spot.clone());
            let file = path.strip_prefix(folder.path()).unwrap_or(path);
            let file = if file.components().any(|part| part.as_os_str() == "blobs") {
                Path::new("an answer")
            } else {
                file
            };
            lines.insert(format!(
                "{} at {} as {}: {} in {}",
                spot.kind,
                spot.place,
                spot.form,
                hit.written,
                file.display()
            ));
        }
    }
    show(&garden, &found);
    ensure!(
        garden.planted.len() >= 500,
        "only {} secrets",
        garden.planted.len()
    );
    let lines: Vec<String> = lines.into_iter().collect();
    ensure!(
        lines.is_empty(),
        "{} were found:\n{}",
        lines.len(),
        lines.join("\n")
    );
    Ok(())
}
