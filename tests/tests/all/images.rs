//! `karat images` against real registries (docker-registry): list, export, import, push, check, with the program's own images and
//! one of a made-up registry that a made-up probe starts. Registries that lie are met in the tests of the registry crate.

use anyhow::{Context as _, Result, ensure};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_registry::remote::{Login, Logins, Settings};
use karat_registry::{Digest, Layout, RegistryReference, Remote};
use karat_testbed::{
    ControlPlane, KubernetesVersion, Registry, can_run_nodes, not_run, survey_nodes,
};
use karat_tests::guests::{Guest, case};
use karat_tests::program;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// Longest time of one command.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who may read and write the private registry.
const USER: (&str, &str) = ("karat", "correct-horse");

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A folder with a probe that starts an image of the upstream registry and one of the program.
struct Bench {
    folder: TempDir,
    upstream: Registry,
    private: Registry,
    /// The image of the upstream registry.
    app: String,
    digest: Digest,
}

impl Bench {
    /// None where this machine cannot.
    async fn new(test: &str) -> Result<Option<Bench>> {
        if skipped(test) {
            return Ok(None);
        }
        Ok(Some(Bench::with(Registry::start(Some(USER))?).await?))
    }

    async fn with(private: Registry) -> Result<Bench> {
        let folder = tempfile::tempdir()?;
        let upstream = Registry::start(None)?;
        let digest = fill(&upstream, folder.path()).await?;
        let app = format!("{}/team/app@{digest}", upstream.host());
        let probes = folder.path().join("probes");
        std::fs::create_dir(&probes)?;
        let guest = Guest::scripted("starter", &json!([]))
            .cases(&case("alive", "get namespaces"))
            .lines(&format!(
                "\n[[images]]\nname = \"app\"\nreference = {app:?}\n\n[[images]]\nname = \"tool\"\nown = \"tool\"\n"
            ));
        std::fs::write(probes.join("starter.wasm"), guest.component()?)?;
        let config = format!(
            "[images]\npushed-to = \"{0}/karat\"\nmirrors = {{ \"{1}/team\" = \"{0}/mirror\" }}\n",
            private.host(),
            upstream.host()
        );
        std::fs::write(folder.path().join("karat.toml"), config)?;
        for (name, password) in [("right", USER.1), ("wrong", "battery")] {
            let login = folder.path().join(name);
            std::fs::create_dir(&login)?;
            private.write_login(&login, USER.0, password)?;
        }
        Ok(Bench {
            folder,
            upstream,
            private,
            app,
            digest,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `karat images …` with the credentials in a folder.
    async fn images(&self, login: Option<&str>, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(login, arguments)?;
        tokio::time::timeout(PATIENCE, command.output())
            .await
            .with_context(|| format!("{command:?} did not end"))?
            .map_err(Into::into)
    }

    fn command(&self, login: Option<&str>, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program::karat()?);
        command
            .arg("images")
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("KARAT_PROBES", self.path("probes"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(login) = login {
            command.env("DOCKER_CONFIG", self.path(login));
        }
        Ok(command)
    }

    /// As [`Bench::images`], and it must end with this code.
    async fn must(&self, login: Option<&str>, arguments: &[&str], code: i32) -> Result<String> {
        let output = self.images(login, arguments).await?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {}\n{out}\n{err}",
            output.status
        );
        for said in [&out, &err] {
            ensure!(
                !said.contains(USER.1) && !said.contains("battery"),
                "a password was told: {said}"
            );
        }
        Ok(format!("{out}{err}"))
    }

    async fn json(&self, login: Option<&str>, arguments: &[&str], code: i32) -> Result<Value> {
        let output = self
            .images(login, &[arguments, &["--json"]].concat())
            .await?;
        let err = text(&output.stderr);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {}\n{err}",
            output.status
        );
        serde_json::from_slice(&output.stdout).with_context(|| text(&output.stdout))
    }
}

/// True if this machine cannot, which is then said by the test's name.
fn skipped(test: &str) -> bool {
    let built = || karat_testbed::images::build(|_| {}).map_err(|why| why.to_string());
    match Registry::can_run().and_then(|_| built()) {
        Ok(_) => false,
        Err(why) => {
            not_run(&format!("images::{test}"), &why);
            true
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Nobody;

impl Logins for Nobody {
    fn login(&self, _: &str) -> Result<Option<Login>, String> {
        Ok(None)
    }
}

/// A tar without files: blocks of zeros, more or fewer of them.
fn layer(architecture: &str) -> Vec<u8> {
    vec![0; 512 * if architecture == "amd64" { 600 } else { 700 }]
}

/// Puts an image for two platforms into a registry.
async fn fill(registry: &Registry, folder: &Path) -> Result<Digest> {
    let root = folder.join("made");
    let blobs = root.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let put = |bytes: &[u8], media_type: &str| -> Result<Value> {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    };
    let mut children = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let layer = put(
            &layer(architecture),
            "application/vnd.oci.image.layer.v1.tar",
        )?;
        let config = json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
        let config = put(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        )?;
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let mut child = put(manifest.to_string().as_bytes(), MANIFEST)?;
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        children.push(child);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    let mut index = put(index.to_string().as_bytes(), INDEX)?;
    index["annotations"] = json!({"org.opencontainers.image.ref.name": "app"});
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let entries = json!({"schemaVersion": 2, "manifests": [index]});
    std::fs::write(root.join("index.json"), entries.to_string())?;

    let remote = Remote::new(Settings {
        roots: rustls::RootCertStore::empty(),
        plain_http: BTreeSet::new(),
        logins: Arc::new(Nobody),
    })?;
    let layout = Layout::open(&root)?;
    let image = layout.named_images()?.remove(0);
    let digest = image.contents.root.digest;
    let to = RegistryReference::image(&format!("{}/team/app@{digest}", registry.host()))?;
    remote.push(&to, "1", &layout, &image.contents).await?;
    Ok(digest)
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_from_their_registry_over_an_archive_to_a_private_one() -> Result<()> {
    let Some(bench) =
        Bench::new("images_go_from_their_registry_over_an_archive_to_a_private_one").await?
    else {
        return Ok(());
    };
    let mirrored = format!("{}/mirror/app@{}", bench.private.host(), bench.digest);
    let listed = bench
        .json(None, &["list", "--config", "karat.toml"], 0)
        .await?;
    ensure!(
        listed.to_string().contains(&mirrored),
        "the mirror is not named: {listed}"
    );

    // Nothing is there yet, and without credentials nobody says so.
    let check = &["check", "--config", "karat.toml"];
    let said = bench.must(None, check, 2).await?;
    ensure!(
        said.contains("it wants credentials and there are none"),
        "{said}"
    );
    let said = bench.must(Some("right"), check, 1).await?;
    ensure!(said.contains("not there"), "{said}");

    // The archive: equal bytes for equal images, nothing overwritten, own images without any registry.
    let made = bench.json(None, &["export", "images.tar"], 0).await?;
    ensure!(
        made["images"].to_string().contains(&bench.app),
        "the image of the registry is not in it: {made}"
    );
    let said = bench.must(None, &["export", "images.tar"], 3).await?;
    ensure!(said.contains("is there already"), "{said}");
    bench.must(None, &["export", "again.tar"], 0).await?;
    let archive = std::fs::read(bench.path("images.tar"))?;
    ensure!(
        archive == std::fs::read(bench.path("again.tar"))?,
        "other bytes"
    );
    let piped = bench.images(None, &["export", "-"]).await?;
    ensure!(
        piped.stdout == archive,
        "other bytes on stdout: {}",
        text(&piped.stderr)
    );

    bench
        .must(None, &["import", "images.tar", "images"], 0)
        .await?;
    let said = bench
        .must(None, &["import", "images.tar", "images"], 3)
        .await?;
    ensure!(said.contains("is in the way"), "{said}");

    // From here on there is no upstream registry.
    bench.upstream.stop()?;
    let said = bench.must(None, &["export", "gone.tar"], 4).await?;
    ensure!(said.contains("no answer from"), "{said}");
    ensure!(!bench.path("gone.tar").exists(), "half an archive");
    bench.must(None, &["export", "--own", "own.tar"], 0).await?;

    let push = &["push", "--from", "images", "--config", "karat.toml"];
    let said = bench.must(None, push, 4).await?;
    ensure!(said.contains("docker login"), "{said}");
    let said = bench.must(Some("wrong"), push, 4).await?;
    ensure!(said.contains("credentials do not do"), "{said}");
    let states = |pushed: &Value| {
        let all = pushed.as_array().into_iter().flatten();
        all.filter_map(|one| one["state"].as_str().map(str::to_owned))
            .collect::<BTreeSet<String>>()
    };
    let pushed = bench.json(Some("right"), push, 0).await?;
    ensure!(
        states(&pushed) == BTreeSet::from(["pushed".to_owned()]),
        "{pushed}"
    );
    ensure!(pushed.to_string().contains(&mirrored), "{pushed}");
    let pushed = bench.json(Some("right"), push, 0).await?;
    ensure!(
        states(&pushed) == BTreeSet::from(["was-there".to_owned()]),
        "{pushed}"
    );

    let found = bench.json(Some("right"), check, 0).await?;
    let app = found["images"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["image"] == mirrored.as_str())
        .context("not asked for")?;
    ensure!(
        app["platforms"] == json!(["linux/amd64", "linux/arm64"]),
        "{app}"
    );
    ensure!(app["state"] == "there", "{app}");

    // Without the configuration pods would ask a registry that is gone, and karat.local, which is none.
    let said = bench.must(None, &["check"], 2).await?;
    ensure!(
        said.contains("could not tell") && said.contains("on the nodes or nowhere"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_push_goes_on_where_it_was() -> Result<()> {
    let Some(bench) = Bench::new("an_interrupted_push_goes_on_where_it_was").await? else {
        return Ok(());
    };
    bench.must(None, &["export", "images.tar"], 0).await?;
    bench
        .must(None, &["import", "images.tar", "images"], 0)
        .await?;
    let push = &["push", "--from", "images", "--config", "karat.toml"];
    bench.must(Some("right"), push, 0).await?;
    // As a push leaves it that ended before the last manifest: layers are there, the image is not.
    let manifests = bench
        .private
        .data()
        .join("docker/registry/v2/repositories/mirror/app/_manifests");
    std::fs::remove_dir_all(&manifests).with_context(|| manifests.display().to_string())?;
    bench
        .must(Some("right"), &["check", "--config", "karat.toml"], 1)
        .await?;
    let pushed = bench.json(Some("right"), push, 0).await?;
    let app = pushed
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| {
            one["to"]
                .as_str()
                .is_some_and(|to| to.contains("/mirror/app"))
        })
        .context("not pushed")?;
    ensure!(app["state"] == "pushed" && app["sent"] == 0, "{app}");
    bench
        .must(Some("right"), &["check", "--config", "karat.toml"], 0)
        .await?;

    // A platform that the mirror lost.
    let index: Value = serde_json::from_slice(&std::fs::read(
        bench.path("images/blobs/sha256").join(bench.digest.hex()),
    )?)?;
    let child = index["manifests"][1]["digest"]
        .as_str()
        .context("a child")?;
    std::fs::remove_dir_all(
        manifests
            .join("revisions/sha256")
            .join(&child["sha256:".len()..]),
    )?;
    let said = bench
        .must(Some("right"), &["check", "--config", "karat.toml"], 1)
        .await?;
    ensure!(
        said.contains("not whole") && said.contains("linux/arm64"),
        "{said}"
    );
    let pushed = bench.json(Some("right"), push, 0).await?;
    ensure!(pushed.to_string().contains("\"pushed\""), "{pushed}");
    bench
        .must(Some("right"), &["check", "--config", "karat.toml"], 0)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_nowhere_is_said() -> Result<()> {
    let Some(bench) = Bench::new("what_leads_nowhere_is_said").await? else {
        return Ok(());
    };
    let said = bench.must(None, &["push"], 3).await?;
    ensure!(said.contains("[images] pushed-to ="), "{said}");

    // An image without a mirror is no error as long as something can be pushed.
    bench.must(None, &["export", "images.tar"], 0).await?;
    bench
        .must(None, &["import", "images.tar", "images"], 0)
        .await?;
    let only_own = format!("[images]\npushed-to = \"{}/karat\"\n", bench.private.host());
    std::fs::write(bench.path("own.toml"), only_own)?;
    let said = bench
        .must(
            Some("right"),
            &["push", "--from", "images", "--config", "own.toml"],
            0,
        )
        .await?;
    let nowhere = format!("no mirror for {}", bench.app);
    ensure!(said.contains(&nowhere), "{said}");

    // An archive that was changed on the way.
    let mut archive = std::fs::read(bench.path("images.tar"))?;
    // In the middle of a layer, which follows its header.
    let name = format!("blobs/sha256/{}", Digest::of(&layer("amd64")).hex());
    let at = archive
        .windows(name.len())
        .position(|bytes| bytes == name.as_bytes());
    archive[at.context("no layer")? + 1000] ^= 1;
    std::fs::write(bench.path("changed.tar"), &archive)?;
    let said = bench
        .must(None, &["import", "changed.tar", "changed"], 3)
        .await?;
    ensure!(said.contains("was changed or damaged"), "{said}");
    std::fs::write(bench.path("cut.tar"), &archive[..archive.len() / 2])?;
    bench.must(None, &["import", "cut.tar", "cut"], 3).await?;
    Ok(())
}

/// A registry that gives a manifest, and of its layer the first bytes and no more.
async fn stuck() -> Result<(String, Digest)> {
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"{}"), "size": 1000});
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let manifest = manifest.to_string();
    let digest = Digest::of(manifest.as_bytes());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let host = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let manifest = manifest.clone();
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                loop {
                    let count = stream.read(&mut asked).await.unwrap_or_default();
                    let asked = text(&asked[..count]);
                    // A try of TLS, or the end.
                    if !asked.starts_with("GET ") {
                        return;
                    }
                    let (length, body) = if asked.contains("/blobs/") {
                        (1000, "{")
                    } else {
                        (manifest.len(), manifest.as_str())
                    };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: {MANIFEST}\r\ncontent-length: {length}\r\n\r\n{body}"
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok((host, digest))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_leaves_nothing_half() -> Result<()> {
    let Some(bench) = Bench::new("a_signal_leaves_nothing_half").await? else {
        return Ok(());
    };
    bench.must(None, &["export", "images.tar"], 0).await?;
    let archive = std::fs::read(bench.path("images.tar"))?;
    let (host, digest) = stuck().await?;
    let guest = Guest::scripted("stuck", &json!([]))
        .cases(&case("alive", "get namespaces"))
        .lines(&format!(
            "\n[[images]]\nname = \"app\"\nreference = \"{host}/x@{digest}\"\n"
        ));
    std::fs::write(bench.path("stuck.wasm"), guest.component()?)?;
    let export = ["export", "stopped.tar", "--probes-from", "stuck.wasm"];
    // The import waits for the rest of its input, the export for the rest of a layer.
    for arguments in [&["import", "-", "stopped"][..], &export] {
        let before = files(bench.folder.path());
        let partial = || {
            let new = files(bench.folder.path());
            new.difference(&before).next().cloned()
        };
        let mut command = bench.command(None, arguments)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("stdin")?;
        let importing = arguments[0] == "import";
        if importing {
            input.write_all(&archive[..100_000]).await?;
        }
        tokio::time::timeout(PATIENCE, async {
            while partial().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .with_context(|| format!("{arguments:?} never began"))?;
        let pid = child.id().context("it ended")?.to_string();
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()?;
        // The signal takes its time, so the input neither rests nor ends before the program does.
        let feed = async {
            for piece in archive[100_000..].chunks(512).filter(|_| importing) {
                if input.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            drop(input);
        };
        let ended = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(PATIENCE, ended).await??;
        let said = text(&output.stderr);
        ensure!(
            output.status.code() == Some(130),
            "{arguments:?}: {}: {said}",
            output.status
        );
        ensure!(said.contains("nothing was written"), "{said}");
        ensure!(partial().is_none(), "{arguments:?} left {:?}", partial());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_gives_the_password_and_nothing_repeats_what_it_says() -> Result<()> {
    let Some(bench) =
        Bench::new("a_helper_gives_the_password_and_nothing_repeats_what_it_says").await?
    else {
        return Ok(());
    };
    let (user, password) = USER;
    let programs = bench.path("programs");
    std::fs::create_dir(&programs)?;
    for (name, script) in [
        (
            "good",
            format!("echo '{{\"Username\": \"{user}\", \"Secret\": \"{password}\"}}'"),
        ),
        (
            "bad",
            format!("echo {password}; echo {password} >&2; exit 1"),
        ),
    ] {
        let helper = programs.join(format!("docker-credential-{name}"));
        std::fs::write(&helper, format!("#!/bin/sh\ncat >/dev/null\n{script}\n"))?;
        std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let config = json!({"credHelpers": {bench.private.host(): name}});
        std::fs::create_dir(bench.path(name))?;
        std::fs::write(bench.path(name).join("config.json"), config.to_string())?;
    }
    let path = format!("{}:/usr/bin:/bin", programs.display());
    for (login, code, told) in [("good", 0, "pushed"), ("bad", 4, "docker-credential-bad")] {
        let mut command = bench.command(Some(login), &["push", "--config", "karat.toml"])?;
        let output = tokio::time::timeout(PATIENCE, command.env("PATH", &path).output()).await??;
        let said = text(&output.stdout) + &text(&output.stderr);
        ensure!(output.status.code() == Some(code), "{login}: {said}");
        ensure!(
            said.contains(told) && !said.contains(password),
            "{login}: {said}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_an_image_is_not_for_are_named() -> Result<()> {
    let Some(bench) = Bench::new("nodes_that_an_image_is_not_for_are_named").await? else {
        return Ok(());
    };
    // Not the shared one: others there count nodes.
    let lab = ControlPlane::builder().start().await?;
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "images-other", "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "s390x"}},
    });
    lab.apply_yaml("a node of another kind", &node.to_string())
        .await?;
    let kubeconfig = lab.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a path")?;
    let found = bench
        .json(None, &["check", "--kubeconfig", kubeconfig], 1)
        .await?;
    let app = found["images"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["image"] == bench.app.as_str())
        .context("not asked for")?;
    ensure!(
        app["lacking"]
            .to_string()
            .contains("images-other (linux/s390x)"),
        "{app}"
    );
    Ok(())
}

/// Needs a kubelet and a container runtime: the proof that what was pushed and exported is what nodes take.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_takes_what_was_pushed_and_what_was_exported() -> Result<()> {
    const NAME: &str = "a_real_node_takes_what_was_pushed_and_what_was_exported";
    if skipped(NAME) {
        return Ok(());
    }
    if let Err(why) = can_run_nodes() {
        not_run(&format!("images::{NAME}"), &why);
        return Ok(());
    }
    let lab = ControlPlane::builder().real_nodes(1).start().await?;
    let node = lab.real_nodes().first().context("a node")?;
    let bench = Bench::with(Registry::start_at(lab.address().into(), None)?).await?;
    let host = bench.private.host();
    bench.private.trusted_by(node)?;
    let plain = ["--config", "karat.toml", "--plain-http", &host];

    // Not a loopback address, so plain HTTP must be asked for.
    let said = bench
        .must(None, &["push", "--config", "karat.toml"], 4)
        .await?;
    ensure!(said.contains("--plain-http"), "{said}");
    bench.must(None, &["export", "images.tar"], 0).await?;
    bench
        .must(None, &["import", "images.tar", "images"], 0)
        .await?;
    let push = [&["push", "--from", "images"][..], &plain].concat();
    let pushed = bench.json(None, &push, 0).await?;
    let kubeconfig = lab.kubeconfig();
    let nodes = ["--kubeconfig", kubeconfig.to_str().context("a path")?];
    bench
        .must(None, &[&["check"][..], &plain, &nodes].concat(), 0)
        .await?;

    let tool = pushed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["to"].as_str())
        .find(|to| to.contains("/karat/tool@"))
        .context("the tool was not pushed")?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pulls", "namespace": "default"},
        "spec": {
            "restartPolicy": "Never", "nodeName": node.name(), "automountServiceAccountToken": false,
            "containers": [{"name": "tool", "image": tool, "imagePullPolicy": "Always", "args": ["pause"]}],
        },
    });
    lab.apply_yaml("a pod that pulls", &pod.to_string()).await?;
    let cluster = Cluster::connect(ConnectOptions {
        kubeconfig: Some(lab.kubeconfig()),
        ..ConnectOptions::default()
    })
    .await?;
    let mut last = Value::Null;
    let runs = async {
        while last["phase"] != "Running" {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let path = "/api/v1/namespaces/default/pods/pulls";
            last = cluster.get_json(path).await?["status"].take();
        }
        Ok::<_, anyhow::Error>(())
    };
    let done = tokio::time::timeout(PATIENCE, runs).await;
    done.map_err(|_| anyhow::anyhow!("the pod does not run: {last}"))??;
    let (_, digest) = tool.split_once('@').context("a digest")?;
    let image = last["containerStatuses"][0]["imageID"].as_str();
    ensure!(image.is_some_and(|image| image.ends_with(digest)), "{last}");
    ensure!(
        bench
            .private
            .served_a_runtime(&format!("/v2/karat/tool/manifests/{digest}")),
        "the node did not ask the registry"
    );

    // Without a registry: an archive on the node, made of what the mirror has.
    let ctr = survey_nodes(KubernetesVersion::default())
        .into_iter()
        .find(|program| program.name == "containerd")
        .context("no containerd")?
        .path
        .with_file_name("ctr");
    let ctr = async |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(&ctr);
        command
            .arg("-a")
            .arg(node.dir().join("run/containerd.sock"));
        command.args(["-n", "k8s.io", "images"]).args(arguments);
        let output = tokio::time::timeout(PATIENCE, command.output()).await??;
        let said = text(&output.stdout) + &text(&output.stderr);
        ensure!(output.status.success(), "ctr {arguments:?}: {said}");
        Ok(said)
    };
    bench.upstream.stop()?;
    bench
        .must(None, &[&["export", "nodes.tar"][..], &plain].concat(), 0)
        .await?;
    let archive = bench.path("nodes.tar");
    ctr(&["import", archive.to_str().context("a path")?]).await?;
    let names = ctr(&["ls", "-q"]).await?;
    for name in [&bench.app, &format!("{host}/mirror/app@{}", bench.digest)] {
        ensure!(
            names.lines().any(|line| line == name),
            "{name} is not there:\n{names}"
        );
    }
    Ok(())
}
