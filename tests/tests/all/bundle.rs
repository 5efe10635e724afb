//! Bundles against forgers: a real run, its bundle, and a table of everything that somebody might do to it. Each attack is
//! tried against a reviewer with the vendor's key and against one without; where only the key helps, the table says so.

use anyhow::{Context as _, Result, ensure};
use karat_engine::bundle::archive;
use karat_engine::bundle::signature::SigningKey;
use karat_engine::bundle::statement::{Predicate, Statement};
use karat_engine::bundle::{self, BundleError, Limits, Place, Withhold, list};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::model::{Reach, RunRecord, Verdict};
use karat_engine::recording::sha256_hex;
use karat_engine::run::{Mode, run};
use karat_engine::runfolder::{RunHead, read_record};
use karat_engine::verify::{Reviewer, Signed, VerifyReport, verify};
use karat_registry::{Layout, Piece};
use karat_tests::guests::{Guest, case};
use karat_tests::program;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

use crate::end_to_end::request;

const NONCE: &str = "reviewer-1";
const STEADY: &str = "probes/steady/attempt-1";
const STERN: &str = "probes/stern/attempt-1";

/// A probe that reads one object and concludes what it is told to.
pub(crate) fn guest(id: &str, outcome: &str) -> Guest {
    let script = json!([
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": outcome},
    ]);
    Guest::scripted(id, &script).cases(&case("alive", "get namespaces"))
}

pub(crate) fn new_key() -> Result<SigningKey> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(SigningKey::from_pem(&key.serialize_pem())?)
}

/// A run with one probe that passes and one that fails twice, and its signed bundle.
struct Bench {
    engine: Engine,
    folder: tempfile::TempDir,
    key: SigningKey,
    /// Digests of the honest probes.
    trusted: BTreeSet<String>,
}

impl Bench {
    async fn new() -> Result<Bench> {
        let folder = tempfile::tempdir()?;
        // Hundreds of verifications compile each guest once.
        let engine = Engine::new(&EngineOptions {
            cache: Some(folder.path().join("cache")),
            ..EngineOptions::default()
        })?;
        let bench = Bench {
            engine,
            folder,
            key: new_key()?,
            trusted: BTreeSet::new(),
        };
        let probes = bench.probes("fail")?;
        let trusted = probes
            .iter()
            .map(|probe| probe.digest().to_owned())
            .collect();
        bench.make("honest", probes, true).await?;
        bench.make("other", bench.probes("fail")?, false).await?;
        bench
            .make("always-pass", bench.probes("pass")?, false)
            .await?;
        Ok(Bench { trusted, ..bench })
    }

    fn probes(&self, stern: &str) -> Result<Vec<Probe>> {
        [guest("steady", "pass"), guest("stern", stern)]
            .iter()
            .map(|guest| Ok(component::load(&self.engine, guest.component()?)?))
            .collect()
    }

    async fn make(&self, name: &str, probes: Vec<Probe>, again: bool) -> Result<()> {
        let plane = karat_testbed::shared().await?;
        let out = self.path(&format!("run-{name}"));
        let mut first = request(&self.engine, plane, probes.clone(), &out).await?;
        first.reach = Reach::Sandbox;
        first.parallel = 1;
        run(first).await?;
        if again {
            let mut second = request(&self.engine, plane, probes, &out).await?;
            second.reach = Reach::Sandbox;
            second.mode = Mode::RerunFailed;
            second.nonce = None;
            run(second).await?;
        }
        bundle::create(&out, &self.path(name), Some(&self.key))?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the honest bundle, to be attacked.
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let to = self.path(name);
        copy_folder(&self.path("honest"), &to)?;
        Ok(to)
    }

    fn reviewer(&self, with_key: bool) -> Reviewer {
        Reviewer {
            keys: with_key.then(|| self.key.public()).into_iter().collect(),
            trusted: self
                .trusted
                .iter()
                .map(|digest| (digest.clone(), None))
                .collect(),
            nonce: Some(NONCE.to_owned()),
            ..Reviewer::default()
        }
    }

    async fn verify(&self, folder: &Path, with_key: bool) -> Result<VerifyReport> {
        Ok(verify(&self.engine, folder, &self.reviewer(with_key)).await?)
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Everything that is wrong or could not be checked, in one text.
pub(crate) fn told(report: &VerifyReport) -> String {
    report
        .findings
        .iter()
        .map(|found| {
            format!(
                "wrong: {}: {}: {}\n",
                found.check.word(),
                found.subject,
                found.message
            )
        })
        .chain(report.unchecked.iter().map(|found| {
            format!(
                "unchecked: {}: {}: {}\n",
                found.check.word(),
                found.subject,
                found.message
            )
        }))
        .collect()
}

// The forger's tools.

pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let mut json: Value = serde_json::from_slice(&fs::read(path)?)?;
    edit(&mut json);
    fs::write(path, serde_json::to_vec_pretty(&json)?)?;
    Ok(())
}

pub(crate) fn edit_record(folder: &Path, edit: impl FnOnce(&mut RunRecord)) -> Result<()> {
    let path = folder.join("run.json");
    let mut record: RunRecord = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut record);
    // The forger knows the format: places and run head are made anew.
    let mut head = RunHead::new();
    let mut attempts: Vec<_> = record
        .probes
        .iter_mut()
        .flat_map(|probe| &mut probe.attempts)
        .filter(|attempt| attempt.head.is_some())
        .collect();
    attempts.sort_by_key(|attempt| attempt.folded);
    for attempt in attempts {
        let text = attempt.head.clone().context("a head")?;
        attempt.folded = Some(head.fold(&text).map_err(anyhow::Error::msg)?);
    }
    record.head = head.text();
    fs::write(path, serde_json::to_vec_pretty(&record)?)?;
    Ok(())
}

/// A new statement about whatever lies there now; the old signature goes, because it would show at once.
pub(crate) fn restate(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder.join("signatures"));
    let record: RunRecord = serde_json::from_slice(&fs::read(folder.join("run.json"))?)?;
    let mut subjects = BTreeMap::new();
    for file in list(folder, &Limits::default())? {
        if matches!(file.place, Place::Record | Place::Recording(_)) {
            subjects.insert(
                file.path.clone(),
                sha256_hex(&fs::read(folder.join(&file.path))?),
            );
        }
    }
    let statement = Statement {
        subjects,
        predicate: Predicate::from(&record),
    };
    fs::write(folder.join("statement.json"), statement.to_json())?;
    Ok(())
}

pub(crate) fn lines_of(folder: &Path, attempt: &str) -> Result<Vec<Value>> {
    let bytes = fs::read(folder.join(attempt).join("recording.jsonl.zst"))?;
    let mut text = String::new();
    zstd::Decoder::new(&bytes[..])?.read_to_string(&mut text)?;
    text.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// Writes a recording with sequence numbers, chain, count and head made anew everywhere.
pub(crate) fn rechain(folder: &Path, attempt: &str, lines: Vec<Value>) -> Result<()> {
    // Keys stand in the order of the format, which `Value` does not keep.
    let header: karat_engine::recording::format::Header = serde_json::from_value(lines[0].clone())?;
    let mut out = vec![serde_json::to_string(&header)?];
    let last = lines.len() - 1;
    for (at, line) in lines.into_iter().enumerate().skip(1) {
        let previous = sha256_hex(out[at - 1].as_bytes());
        if at == last {
            let mut end: karat_engine::recording::format::End = serde_json::from_value(line)?;
            end.previous = previous;
            end.entries = at as u64 - 1;
            out.push(serde_json::to_string(&end)?);
        } else {
            let mut entry: karat_engine::recording::format::Entry = serde_json::from_value(line)?;
            entry.previous = previous;
            entry.sequence = at as u64;
            out.push(serde_json::to_string(&entry)?);
        }
    }
    let head = sha256_hex(out[last].as_bytes());
    let text: String = out.iter().map(|line| format!("{line}\n")).collect();
    fs::write(
        folder.join(attempt).join("recording.jsonl.zst"),
        zstd::encode_all(text.as_bytes(), 3)?,
    )?;
    edit_record(folder, |record| {
        let attempts = record
            .probes
            .iter_mut()
            .flat_map(|probe| &mut probe.attempts);
        for one in attempts {
            if one.recording.as_deref() == Some(attempt) {
                one.head = Some(head.clone());
            }
        }
    })?;
    restate(folder)
}

pub(crate) fn position(lines: &[Value], function: &str) -> Result<usize> {
    lines
        .iter()
        .position(|line| line["function"] == function)
        .with_context(|| format!("no call of {function}"))
}

/// What a reviewer without the vendor's key sees. One with the key sees every attack.
enum Seen {
    /// Something wrong, told with these words.
    Wrong(&'static str),
    /// Something that could not be checked, told with these words.
    Unchecked(&'static str),
    /// Nothing: all hashes were made anew, and the change contradicts nothing.
    OnlyWithKey,
}

type Deed = fn(&Bench, &Path) -> Result<()>;

const ATTACKS: &[(&str, Deed, Seen)] = {
    use Seen::{OnlyWithKey, Unchecked, Wrong};
    &[
        (
            "file added",
            |_, to| Ok(fs::write(to.join("README.txt"), "trust me")?),
            Wrong("no part of a bundle"),
        ),
        (
            "recording added",
            |bench, to| {
                copy_folder(
                    &bench.path("other").join(STEADY),
                    &to.join("probes/steady/attempt-2"),
                )
            },
            Wrong("does not name it"),
        ),
        (
            "recording added, restated",
            |bench, to| {
                copy_folder(
                    &bench.path("other").join(STEADY),
                    &to.join("probes/steady/attempt-2"),
                )?;
                restate(to)
            },
            Wrong("no attempt in run.json names it"),
        ),
        (
            "answer added",
            |_, to| {
                Ok(fs::write(
                    to.join(STEADY).join("blobs").join("ab".repeat(32)),
                    "x",
                )?)
            },
            Wrong("blob"),
        ),
        (
            "component added",
            |_, to| {
                Ok(fs::write(
                    to.join(format!("components/{}.wasm", "ab".repeat(32))),
                    "x",
                )?)
            },
            Wrong("no probe in run.json has this component"),
        ),
        (
            "run.json removed",
            |_, to| Ok(fs::remove_file(to.join("run.json"))?),
            Wrong("it was removed"),
        ),
        (
            "statement removed",
            |_, to| Ok(fs::remove_file(to.join("statement.json"))?),
            Wrong("there is no statement.json"),
        ),
        (
            "recording removed",
            |_, to| Ok(fs::remove_dir_all(to.join(STEADY))?),
            Wrong("it was removed"),
        ),
        (
            "recording removed, restated",
            |_, to| {
                fs::remove_dir_all(to.join(STEADY))?;
                restate(to)
            },
            Wrong("recording: recorded a chain"),
        ),
        (
            "answers removed",
            |_, to| Ok(fs::remove_dir_all(to.join(STEADY).join("blobs"))?),
            Unchecked("withheld"),
        ),
        (
            "components removed",
            |_, to| Ok(fs::remove_dir_all(to.join("components"))?),
            Unchecked("not in this copy"),
        ),
        (
            "signature removed",
            |_, to| Ok(fs::remove_dir_all(to.join("signatures"))?),
            OnlyWithKey,
        ),
        (
            "signed by somebody else",
            |_, to| {
                let statement = fs::read(to.join("statement.json"))?;
                fs::remove_dir_all(to.join("signatures"))?;
                fs::create_dir(to.join("signatures"))?;
                Ok(fs::write(
                    to.join("signatures/a.json"),
                    new_key()?.envelope(&statement),
                )?)
            },
            OnlyWithKey,
        ),
        (
            "signature of another bundle",
            |bench, to| {
                fs::remove_dir_all(to.join("signatures"))?;
                copy_folder(&bench.path("other/signatures"), &to.join("signatures"))
            },
            Wrong("signs another text"),
        ),
        (
            "attempt renamed",
            |_, to| {
                Ok(fs::rename(
                    to.join(STEADY),
                    to.join("probes/steady/attempt-7"),
                )?)
            },
            Wrong("it was removed"),
        ),
        (
            "recordings swapped",
            |_, to| {
                fs::rename(to.join(STEADY), to.join("probes/steady/attempt-9"))?;
                fs::rename(to.join(STERN), to.join(STEADY))?;
                fs::rename(to.join("probes/steady/attempt-9"), to.join(STERN))?;
                restate(to)
            },
            Wrong("recording"),
        ),
        (
            "recordings swapped, heads too",
            |_, to| {
                fs::rename(to.join(STEADY), to.join("probes/steady/attempt-9"))?;
                fs::rename(to.join(STERN), to.join(STEADY))?;
                fs::rename(to.join("probes/steady/attempt-9"), to.join(STERN))?;
                edit_record(to, |record| {
                    let (a, b) = record.probes.split_at_mut(1);
                    std::mem::swap(&mut a[0].attempts[0].head, &mut b[0].attempts[0].head);
                })?;
                restate(to)
            },
            Wrong("probe: recorded"),
        ),
        (
            "recording of another run",
            |bench, to| {
                let other = read_record(&bench.path("other"))?;
                fs::remove_dir_all(to.join(STEADY))?;
                copy_folder(&bench.path("other").join(STEADY), &to.join(STEADY))?;
                edit_record(to, |record| {
                    record.probes[0].attempts[0] = other.probes[0].attempts[0].clone();
                })?;
                restate(to)
            },
            Wrong("run id"),
        ),
        (
            "another cluster",
            |_, to| {
                edit_record(to, |record| {
                    record.cluster.uid = "0d5a2b1e-9f6c-4c88-8d1f-3f6f0d6f7a10".to_owned()
                })?;
                restate(to)
            },
            Wrong("cluster: recorded"),
        ),
        (
            "recording cut",
            |_, to| {
                let path = to.join(STEADY).join("recording.jsonl.zst");
                let bytes = fs::read(&path)?;
                Ok(fs::write(path, &bytes[..bytes.len() / 2])?)
            },
            Wrong("it was changed"),
        ),
        (
            "last call cut, chained anew",
            |_, to| {
                let mut lines = lines_of(to, STEADY)?;
                let cut = lines.remove(lines.len() - 2);
                let digest = cut["reply"].as_str().context("a digest")?;
                fs::remove_file(to.join(STEADY).join("blobs").join(digest))?;
                rechain(to, STEADY, lines)
            },
            Wrong("calls"),
        ),
        (
            "calls reordered, chained anew",
            |_, to| {
                let mut lines = lines_of(to, STEADY)?;
                let at = position(&lines, "kube-read.query.get")?;
                lines.swap(at, at + 1);
                rechain(to, STEADY, lines)
            },
            Wrong("calls"),
        ),
        (
            "conclusion edited, chained anew",
            |_, to| {
                let mut lines = lines_of(to, STERN)?;
                let at = position(&lines, "cases.case.conclude")?;
                lines[at]["arguments"] = serde_json::from_str(
                    &lines[at]["arguments"].to_string().replace("fail", "pass"),
                )?;
                rechain(to, STERN, lines)
            },
            Wrong("calls"),
        ),
        (
            "facts edited, chained anew",
            |_, to| {
                let mut lines = lines_of(to, STEADY)?;
                let at = position(&lines, "kube-read.query.get")?;
                lines[at]["facts"]["live"] = json!(false);
                rechain(to, STEADY, lines)
            },
            Wrong("verdict"),
        ),
        (
            "answer edited, chained anew",
            |_, to| {
                let mut lines = lines_of(to, STEADY)?;
                let at = position(&lines, "kube-read.query.get")?;
                let digest = lines[at]["reply"].as_str().context("a digest")?.to_owned();
                let blobs = to.join(STEADY).join("blobs");
                let bytes = fs::read(blobs.join(&digest))?;
                let edited: Vec<u8> = {
                    let text =
                        String::from_utf8_lossy(&bytes[16..]).replace("Active", "Terminating");
                    [&bytes[..16], text.as_bytes()].concat()
                };
                ensure!(edited != bytes, "nothing was edited");
                fs::remove_file(blobs.join(&digest))?;
                fs::write(blobs.join(sha256_hex(&edited)), &edited)?;
                lines[at]["reply"] = sha256_hex(&edited).into();
                lines[at]["reply_bytes"] = (edited.len() as u64 - 16).into();
                rechain(to, STEADY, lines)
            },
            OnlyWithKey,
        ),
        (
            "verdict edited",
            |_, to| {
                edit_record(to, |record| {
                    for attempt in &mut record.probes[1].attempts {
                        attempt.judgement.verdict = Some(Verdict::Pass);
                    }
                })
            },
            Wrong("it was changed"),
        ),
        (
            "verdict edited, restated",
            |_, to| {
                edit_record(to, |record| {
                    for attempt in &mut record.probes[1].attempts {
                        attempt.judgement.verdict = Some(Verdict::Pass);
                    }
                })?;
                restate(to)
            },
            Wrong("verdict: recorded pass, computed again fail"),
        ),
        (
            "case dropped, restated",
            |_, to| {
                edit_record(to, |record| {
                    record.probes[1].attempts[1].judgement.cases.clear()
                })?;
                restate(to)
            },
            Wrong("case"),
        ),
        (
            "failed attempt dropped, restated",
            |_, to| {
                edit_record(to, |record| {
                    record.probes[1].attempts.remove(0);
                })?;
                fs::remove_dir_all(to.join(STERN))?;
                restate(to)
            },
            Wrong("attempts count from 1"),
        ),
        (
            "failed attempt dropped and renumbered, restated",
            |_, to| {
                fs::remove_dir_all(to.join(STERN))?;
                fs::rename(to.join("probes/stern/attempt-2"), to.join(STERN))?;
                edit_record(to, |record| {
                    record.probes[1].attempts.remove(0);
                    record.probes[1].attempts[0].attempt = 1;
                    record.probes[1].attempts[0].recording = Some(STERN.to_owned());
                })?;
                restate(to)
            },
            Wrong("attempt: recorded 1, computed again 2"),
        ),
        (
            "probe dropped, restated",
            |_, to| {
                fs::remove_dir_all(to.join("probes/stern"))?;
                edit_record(to, |record| {
                    record.probes.remove(1);
                })?;
                restate(to)
            },
            Wrong("no probe in run.json has this component"),
        ),
        (
            "probe replaced by one that always passes",
            |bench, to| {
                fs::remove_dir_all(to)?;
                copy_folder(&bench.path("always-pass"), to)?;
                restate(to)
            },
            Unchecked("none that you trust"),
        ),
        (
            "component replaced under its old name",
            |bench, to| {
                let record = read_record(to)?;
                let other = read_record(&bench.path("always-pass"))?;
                let path = |digest: &str| format!("components/{}.wasm", &digest[7..]);
                fs::copy(
                    bench
                        .path("always-pass")
                        .join(path(&other.probes[1].digest)),
                    to.join(path(&record.probes[1].digest)),
                )?;
                Ok(())
            },
            Wrong("its bytes have digest"),
        ),
        (
            "nonce edited",
            |_, to| edit_json(&to.join("run.json"), |json| json["nonce"] = "mine".into()),
            Wrong("run id does not follow"),
        ),
        (
            "answers another nonce",
            |_, to| {
                edit_record(to, |record| {
                    record.nonce = Some("mine".to_owned());
                    let salt = data_encoding::HEXLOWER
                        .decode(record.salt.as_bytes())
                        .unwrap_or_default();
                    let salt: [u8; 16] = salt.try_into().unwrap_or_default();
                    record.run = karat_engine::runfolder::run_id(&salt, Some("mine"));
                })?;
                restate(to)
            },
            Wrong("does not answer the nonce"),
        ),
        (
            "start moved, restated",
            |_, to| {
                edit_record(to, |record| {
                    record.probes[0].attempts[0].started = "2030-01-01T00:00:00Z".to_owned()
                })?;
                restate(to)
            },
            Wrong("start"),
        ),
        (
            "end of the run moved, restated",
            |_, to| {
                edit_record(to, |record| {
                    record.ended = Some("2030-01-01T00:00:00Z".to_owned())
                })?;
                restate(to)
            },
            OnlyWithKey,
        ),
        (
            "path out of the bundle in run.json",
            |_, to| {
                edit_record(to, |record| {
                    record.probes[0].attempts[0].recording = Some("../../../etc".to_owned())
                })?;
                restate(to)
            },
            Wrong("is no path of a recording"),
        ),
        (
            "path out of the bundle in the statement",
            |_, to| {
                edit_json(&to.join("statement.json"), |json| {
                    json["subject"][0]["name"] = "../honest/run.json".into()
                })
            },
            Wrong("it was removed"),
        ),
        (
            "link in place of a file",
            |_, to| {
                fs::remove_file(to.join("run.json"))?;
                Ok(std::os::unix::fs::symlink(
                    "/etc/hostname",
                    to.join("run.json"),
                )?)
            },
            Wrong("a link"),
        ),
        (
            "link in place of a folder",
            |bench, to| {
                fs::remove_dir_all(to.join("probes"))?;
                Ok(std::os::unix::fs::symlink(
                    bench.path("honest/probes"),
                    to.join("probes"),
                )?)
            },
            Wrong("a link"),
        ),
        (
            "a hundred thousand files",
            |_, to| {
                let one = to.join("signatures/0.json");
                fs::write(&one, "{}")?;
                for at in 1..Limits::default().entries {
                    fs::hard_link(&one, to.join(format!("probes/{at}")))
                        .or_else(|_| fs::write(to.join(format!("probes/{at}")), ""))?;
                }
                Ok(())
            },
            Wrong("more than 100000 files"),
        ),
        (
            "folders without end",
            |_, to| Ok(fs::create_dir_all(to.join("a/b/c/d/e/f/g"))?),
            Wrong("nest too deeply"),
        ),
        (
            "zstd bomb",
            |_, to| {
                let mut bomb = zstd::Encoder::new(Vec::new(), 19)?;
                std::io::copy(&mut std::io::repeat(b' ').take(1 << 30), &mut bomb)?;
                fs::write(to.join(STEADY).join("recording.jsonl.zst"), bomb.finish()?)?;
                restate(to)
            },
            Wrong("recording"),
        ),
        (
            "run.json without end",
            |_, to| {
                let file = fs::File::create(to.join("run.json"))?;
                Ok(file.set_len(1 << 30)?)
            },
            Wrong("larger than"),
        ),
        (
            "statement without end",
            |_, to| {
                let file = fs::File::create(to.join("statement.json"))?;
                Ok(file.set_len(1 << 30)?)
            },
            Wrong("larger than"),
        ),
    ]
};

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_on_a_bundle_is_seen() -> Result<()> {
    let bench = Bench::new().await?;
    let honest = bench.path("honest");
    let report = bench.verify(&honest, true).await?;
    ensure!(report.holds(), "{}", told(&report));
    ensure!(matches!(&report.signed, Signed::By { keys } if *keys == [bench.key.public().id()]));
    ensure!(report.attempts.len() == 3, "{:?}", report.attempts);
    let began = Instant::now();
    bench.verify(&honest, true).await?;
    println!("the honest bundle: {} ms", began.elapsed().as_millis());

    let mut table = String::new();
    let mut unseen = Vec::new();
    for (at, (name, deed, seen)) in ATTACKS.iter().enumerate() {
        let folder = bench.copy(&format!("attack-{at}"))?;
        deed(&bench, &folder).with_context(|| (*name).to_owned())?;
        let without = bench.verify(&folder, false).await?;
        let with = bench.verify(&folder, true).await?;
        let (wanted, ok) = match seen {
            Seen::Wrong(words) => (
                *words,
                without
                    .findings
                    .iter()
                    .any(|found| found.message.contains(words)),
            ),
            Seen::Unchecked(words) => (
                *words,
                without.findings.is_empty()
                    && without
                        .unchecked
                        .iter()
                        .any(|found| found.message.contains(words)),
            ),
            Seen::OnlyWithKey => (
                "only with the vendor's key",
                without.holds() && !with.findings.is_empty(),
            ),
        };
        table.push_str(&format!("{name:48} {wanted}\n"));
        if !ok || with.holds() {
            unseen.push(format!(
                "{name}: wanted {wanted}\n without key: {}\n with key: {}",
                told(&without),
                told(&with)
            ));
        }
        fs::remove_dir_all(&folder)?;
    }
    println!("{table}{} attacks", ATTACKS.len());
    ensure!(unseen.is_empty(), "{}", unseen.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_bundle_can_be_changed() -> Result<()> {
    let bench = Bench::new().await?;
    let folder = bench.copy("flipped")?;
    let files = list(&folder, &Limits::default())?;
    let mut tried = 0;
    for file in &files {
        let path = folder.join(&file.path);
        let honest = fs::read(&path)?;
        let last = honest.len() - 1;
        // A newline at the end of an envelope is none of the signed text, and white space in JSON means nothing.
        let positions = BTreeSet::from([0, last / 3, last / 2, last * 2 / 3]);
        for at in positions {
            let mut edited = honest.clone();
            edited[at] ^= 1;
            fs::write(&path, &edited)?;
            let report = bench.verify(&folder, true).await?;
            ensure!(!report.holds(), "{} byte {at}", file.path);
            tried += 1;
        }
        fs::write(&path, &honest)?;
    }
    ensure!(bench.verify(&folder, true).await?.holds());
    println!("{tried} bytes of {} files", files.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_copy_keeps_chain_and_signature() -> Result<()> {
    let bench = Bench::new().await?;
    let honest = bench.path("honest");
    let only = |probe: &str| Withhold {
        probes: BTreeSet::from([probe.to_owned()]),
        components: false,
    };

    let some = bench.path("some");
    let made = bundle::withhold(&honest, &some, &only("steady"))?;
    ensure!(made.withheld > 0 && made.left_out.is_empty(), "{made:?}");
    let report = bench.verify(&some, true).await?;
    ensure!(report.findings.is_empty(), "{}", told(&report));
    ensure!(matches!(report.signed, Signed::By { .. }));
    let unchecked: Vec<_> = report
        .unchecked
        .iter()
        .map(|found| found.subject.as_str())
        .collect();
    ensure!(unchecked == ["steady attempt 1"], "{unchecked:?}");

    let all = bench.path("all");
    bundle::withhold(
        &honest,
        &all,
        &Withhold {
            components: true,
            ..Withhold::default()
        },
    )?;
    ensure!(!all.join("components").exists());
    let report = bench.verify(&all, true).await?;
    ensure!(report.findings.is_empty(), "{}", told(&report));
    ensure!(report.unchecked.len() == 3, "{}", told(&report));

    // Nothing is written where something else is, and a wrong name costs nothing.
    ensure!(matches!(
        bundle::withhold(&honest, &bench.path("run-honest"), &only("steady")),
        Err(BundleError::Occupied { .. })
    ));
    ensure!(matches!(
        bundle::withhold(&honest, &bench.path("none"), &only("nobody")),
        Err(BundleError::NoProbe { .. })
    ));
    ensure!(!bench.path("none").exists() && !bench.path("none.partial").exists());
    Ok(())
}

/// The way through a registry: what comes out of a layout is the bundle that went in, signature and verdicts included.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_goes_through_a_layout_unchanged() -> Result<()> {
    let bench = Bench::new().await?;
    let packed = archive::pack(&bench.path("honest"))?;
    let layout = Layout::create(bench.path("layout"))?;
    layout.put_piece(&Piece {
        artifact_type: archive::ARTIFACT_TYPE,
        media_type: archive::MEDIA_TYPE,
        name: &packed.run,
        file: "bundle.tar.gz",
        bytes: &packed.bytes,
    })?;
    let taken = Layout::open(bench.path("layout"))?.piece(
        archive::ARTIFACT_TYPE,
        None,
        archive::PACKED_MAX,
    )?;
    let back = bench.path("back");
    archive::unpack(&taken, &back, &Limits::default())?;
    let report = bench.verify(&back, true).await?;
    ensure!(report.holds(), "{}", told(&report));
    ensure!(matches!(report.signed, Signed::By { .. }));
    Ok(())
}

/// A bundle is made by the program again and again, and killed at another moment each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bundle_leaves_the_old_one_or_none() -> Result<()> {
    let bench = Bench::new().await?;
    let run_folder = bench.path("run-honest");
    let to = bench.path("made");
    let command = || -> Result<Command> {
        let mut command = Command::new(program::karat()?);
        command
            .args(["bundle", "create"])
            .arg(&run_folder)
            .arg("--out")
            .arg(&to)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    };
    let began = Instant::now();
    let status = command()?.status().await?;
    ensure!(status.success());
    let whole = began.elapsed();
    fs::remove_dir_all(&to)?;
    let (mut killed, mut there) = (0, 0);
    for at in 0..30u32 {
        let mut child = command()?.spawn()?;
        tokio::time::sleep(whole * at / 30).await;
        let _ = child.start_kill();
        if !child.wait().await?.success() {
            killed += 1;
        }
        if to.exists() {
            there += 1;
            let report = bench.verify(&to, false).await?;
            ensure!(report.holds(), "{}", told(&report));
        }
    }
    println!("{killed} of 30 killed, {there} times a bundle was there, each whole");
    ensure!(killed > 0);
    let status = command()?.status().await?;
    ensure!(status.success(), "what a crash leaves is in the way");
    ensure!(bench.verify(&to, false).await?.holds());
    ensure!(!bench.path("made.partial").exists());
    Ok(())
}
