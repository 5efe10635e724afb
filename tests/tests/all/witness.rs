//! Witnesses against forgers: real runs on a real API server whose issuer has an address on the web, and a table of what
//! somebody might do to their tokens. And the tokens themselves, tried as credentials.

mod issuer;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use issuer::{Forger, Issuer, part, parts};
use jiff::{SignedDuration, Timestamp};
use karat_engine::bundle::signature::SigningKey;
use karat_engine::bundle::{self, Withhold};
use karat_engine::cluster::{Cluster, ConnectOptions, Method, Request};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::event::{Events, RunEventKind};
use karat_engine::gate::StopSignal;
use karat_engine::model::{Outcome, Reach, RunRecord, Verdict};
use karat_engine::recording::format::ReplyKind;
use karat_engine::recording::{self, ReadOptions};
use karat_engine::run::{Mode, RunError, run};
use karat_engine::verify::{Check, Reviewer, VerifyReport, verify};
use karat_engine::witness::issuer::Online;
use karat_engine::witness::keys::KeySet;
use karat_engine::witness::{self, Account, Entry, Grade, Release, Tokens};
use karat_testbed::ControlPlane;
use karat_testbed::proxy::Rule;
use karat_tests::guests::{Guest, case};
use karat_tests::{folders, program};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::sync::OnceCell;

use crate::bundle::{
    copy_folder, edit_json, edit_record, guest, lines_of, new_key, position, rechain, restate, told,
};
use crate::end_to_end::request;

const STEADY: &str = "probes/steady/attempt-1";

/// One control plane for these tests, whose tokens name an issuer on the web.
struct Lab {
    plane: ControlPlane,
    issuer: Issuer,
    /// The issuer's keys, as the API server shows them.
    jwks: Value,
}

static LAB: OnceCell<Lab> = OnceCell::const_new();

async fn lab() -> Result<&'static Lab> {
    LAB.get_or_try_init(|| async {
        let issuer = Issuer::start()?;
        let plane = ControlPlane::builder()
            .issuer(issuer.url.clone())
            .start()
            .await?;
        let mut keys = Request::get("/openid/v1/jwks");
        keys.accept = "application/jwk-set+json";
        let jwks = cluster(&plane.kubeconfig()).await?.send_json(&keys).await?;
        Ok(Lab {
            plane,
            issuer,
            jwks,
        })
    })
    .await
}

async fn cluster(kubeconfig: &Path) -> Result<Cluster> {
    Ok(Cluster::connect(ConnectOptions {
        kubeconfig: Some(kubeconfig.to_owned()),
        ..ConnectOptions::default()
    })
    .await?)
}

/// Long after every token has expired.
fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(1)
}

/// A run that was gone on with, another one, and their bundles.
struct Bench {
    engine: Engine,
    folder: tempfile::TempDir,
    key: SigningKey,
}

impl Bench {
    async fn new() -> Result<Bench> {
        let bench = Bench {
            engine: Engine::new(&EngineOptions::default())?,
            folder: tempfile::tempdir()?,
            key: new_key()?,
        };
        bench.make("honest", true).await?;
        bench.make("other", false).await?;
        Ok(bench)
    }

    fn probes(&self) -> Result<Vec<Probe>> {
        [guest("steady", "pass"), guest("stern", "fail")]
            .iter()
            .map(|guest| Ok(component::load(&self.engine, guest.component()?)?))
            .collect()
    }

    async fn make(&self, name: &str, again: bool) -> Result<()> {
        let plane = &lab().await?.plane;
        let out = self.path(&format!("run-{name}"));
        for mode in [Mode::New, Mode::RerunFailed] {
            if mode == Mode::RerunFailed && !again {
                continue;
            }
            let mut request = request(&self.engine, plane, self.probes()?, &out).await?;
            request.reach = Reach::Sandbox;
            request.parallel = 1;
            request.witness = true;
            request.mode = mode;
            run(request).await?;
        }
        bundle::create_at(&out, &self.path(name), Some(&self.key), later())?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the honest bundle.
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let to = self.path(name);
        copy_folder(&self.path("honest"), &to)?;
        Ok(to)
    }

    async fn verify(&self, folder: &Path, reviewer: Reviewer) -> Result<VerifyReport> {
        let reviewer = Reviewer {
            run_foreign: true,
            ..reviewer
        };
        Ok(verify(&self.engine, folder, &reviewer).await?)
    }
}

fn pinned(jwks: &Value) -> Result<Reviewer> {
    Ok(Reviewer {
        issuer_keys: Some(KeySet::parse(jwks.to_string().as_bytes())?),
        ..Reviewer::default()
    })
}

fn online(authority: &str) -> Result<Reviewer> {
    Ok(Reviewer {
        online: Some(Online::with_authorities(authority.as_bytes())?),
        ..Reviewer::default()
    })
}

fn tokens_of(folder: &Path) -> Result<Vec<Entry>> {
    let tokens: Tokens = serde_json::from_slice(&fs::read(folder.join("witness/tokens.json"))?)?;
    Ok(tokens.tokens)
}

fn account_of(folder: &Path) -> Result<Account> {
    Ok(serde_json::from_slice(&fs::read(
        folder.join("witness/account.json"),
    )?)?)
}

fn edit_tokens(folder: &Path, edit: impl FnOnce(&mut Vec<Entry>)) -> Result<()> {
    let path = folder.join("witness/tokens.json");
    let mut tokens: Tokens = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut tokens.tokens);
    Ok(fs::write(path, serde_json::to_vec_pretty(&tokens)?)?)
}

/// All tokens anew with a key of one's own, which goes into the bundle, so that only what they claim can be wrong.
fn forge(folder: &Path, name: &str, edit: impl Fn(usize, &mut Value)) -> Result<Forger> {
    let forger = Forger::new()?;
    let mut forged = Vec::new();
    for (at, entry) in tokens_of(folder)?.iter().enumerate() {
        let (_, mut claims) = parts(&entry.token)?;
        edit(at, &mut claims);
        forged.push(forger.sign(name, &claims)?);
    }
    edit_tokens(folder, |tokens| {
        for (entry, token) in tokens.iter_mut().zip(forged) {
            entry.token = token;
        }
    })?;
    edit_json(&folder.join("witness/account.json"), |account| {
        account["jwks"] = forger.jwks(name);
    })?;
    Ok(forger)
}

/// The name under which the issuer publishes its key.
fn key_name(folder: &Path) -> Result<String> {
    let (header, _) = parts(&tokens_of(folder)?[0].token)?;
    Ok(header["kid"].as_str().context("a key's name")?.to_owned())
}

/// The second token with another header and signature.
fn resign(folder: &Path, header: &Value, sign: impl FnOnce(&str) -> String) -> Result<()> {
    let (_, claims) = parts(&tokens_of(folder)?[1].token)?;
    let signed = format!("{}.{}", part(header), part(&claims));
    let token = format!("{signed}.{}", sign(&signed));
    edit_tokens(folder, |tokens| tokens[1].token = token)
}

type Deed = fn(&Bench, &Path) -> Result<()>;

/// Each with the words of the finding that it must give to a reviewer who brings no key at all.
const ATTACKS: &[(&str, Deed, &str)] = &[
    (
        "a token of another run",
        |bench, to| {
            let other = tokens_of(&bench.path("other"))?;
            edit_tokens(to, |tokens| tokens[1].token = other[1].token.clone())
        },
        "not of the witness of this run",
    ),
    (
        "the witness of another run",
        |bench, to| {
            fs::remove_dir_all(to.join("witness"))?;
            copy_folder(&bench.path("other/witness"), &to.join("witness"))
        },
        "this is another one",
    ),
    (
        "tokens reordered",
        |_, to| edit_tokens(to, |tokens| tokens.swap(0, 1)),
        "not about run head 0",
    ),
    (
        "tokens reordered under their labels",
        |_, to| {
            edit_tokens(to, |tokens| {
                let first = tokens[0].token.clone();
                tokens[0].token = tokens[1].token.clone();
                tokens[1].token = first;
            })
        },
        "its audience is not what it is listed with",
    ),
    (
        "a recording edited, chained anew, restated",
        |_, to| {
            let mut lines = lines_of(to, STEADY)?;
            let at = position(&lines, "kube-read.query.get")?;
            lines[at]["facts"]["live"] = json!(false);
            rechain(to, STEADY, lines)
        },
        "not about run head 1",
    ),
    (
        "a recording edited, chained anew, labels too",
        |_, to| {
            let mut lines = lines_of(to, STEADY)?;
            let at = position(&lines, "kube-read.query.get")?;
            lines[at]["facts"]["live"] = json!(false);
            rechain(to, STEADY, lines)?;
            let record: RunRecord = serde_json::from_slice(&fs::read(to.join("run.json"))?)?;
            let heads = karat_engine::runfolder::heads_of(&record).map_err(anyhow::Error::msg)?;
            edit_tokens(to, |tokens| {
                // Heads 2 and 3 stand at places 2, 3 and 4: the run was gone on with.
                for (at, head) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
                    tokens[at].head = Some(heads[head].clone());
                }
            })
        },
        "its audience is not what it is listed with",
    ),
    (
        "run.json edited, restated",
        |_, to| {
            edit_record(to, |record| {
                record.ended = Some("2030-01-01T00:00:00Z".to_owned());
            })?;
            restate(to)
        },
        "about another statement",
    ),
    (
        "the last recording dropped, restated",
        |_, to| {
            edit_record(to, |record| {
                record.probes[1].attempts.pop();
            })?;
            fs::remove_dir_all(to.join("probes/stern/attempt-2"))?;
            restate(to)
        },
        "not about run head 3",
    ),
    (
        "another key under the same name",
        |_, to| {
            let jwks = Forger::new()?.jwks(&key_name(to)?);
            edit_json(&to.join("witness/account.json"), |account| {
                account["jwks"] = jwks;
            })
        },
        "no key of account.json signed it",
    ),
    (
        "the key under another name",
        |_, to| {
            edit_json(&to.join("witness/account.json"), |account| {
                account["jwks"]["keys"][0]["kid"] = "another".into();
            })
        },
        "no key of account.json signed it",
    ),
    (
        "a signature edited",
        |_, to| {
            edit_tokens(to, |tokens| {
                let (signed, signature) = tokens[1].token.rsplit_once('.').unwrap_or_default();
                let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
                bytes[5] ^= 1;
                tokens[1].token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
            })
        },
        "no key of account.json signed it",
    ),
    (
        "algorithm none",
        |_, to| resign(to, &json!({"alg": "none"}), |_| String::new()),
        "algorithm none is not accepted",
    ),
    (
        "HS256 with the public key as secret",
        |_, to| {
            let account = account_of(to)?;
            let key = &account.jwks.context("keys")?["keys"][0];
            let number = |name: &str| {
                URL_SAFE_NO_PAD
                    .decode(key[name].as_str().unwrap_or_default())
                    .unwrap_or_default()
            };
            let public = [vec![4], number("x"), number("y")].concat();
            let header = json!({"alg": "HS256", "kid": key_name(to)?});
            resign(to, &header, |signed| {
                let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
                URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, signed.as_bytes()))
            })
        },
        "algorithm HS256 is not accepted",
    ),
    (
        "a key for HS256 put beside",
        |_, to| {
            let header = json!({"alg": "HS256", "kid": "mine"});
            edit_json(&to.join("witness/account.json"), |account| {
                account["jwks"]["keys"] =
                    json!([{"kty": "oct", "kid": "mine", "k": "AAAA", "alg": "HS256"}]);
            })?;
            resign(to, &header, |signed| {
                let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[0, 0, 0]);
                URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, signed.as_bytes()))
            })
        },
        "algorithm HS256 is not accepted",
    ),
    (
        "a credential's audience",
        |_, to| {
            let edit = |at: usize, claims: &mut Value| {
                if at == 1 {
                    claims["aud"] = json!(["https://kubernetes.default.svc"]);
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "its audience is not what it is listed with",
    ),
    (
        "an audience more",
        |_, to| {
            let edit = |_: usize, claims: &mut Value| {
                if let Some(all) = claims["aud"].as_array_mut() {
                    all.push("https://kubernetes.default.svc".into());
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "its audience is not what it is listed with",
    ),
    (
        "a foreign account uid",
        |_, to| {
            let edit = |at: usize, claims: &mut Value| {
                if at == 1 {
                    claims["kubernetes.io"]["serviceaccount"]["uid"] = "foreign".into();
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "with uid foreign, which account.json does not name",
    ),
    (
        "the account of the second part in the first",
        |_, to| {
            let uid = account_of(to)?.accounts[1].uid.clone();
            let edit = |at: usize, claims: &mut Value| {
                if at == 0 {
                    claims["kubernetes.io"]["serviceaccount"]["uid"] = uid.clone().into();
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "does not name at this place",
    ),
    (
        "a token without an account",
        |_, to| {
            let edit = |_: usize, claims: &mut Value| {
                if let Some(claims) = claims.as_object_mut() {
                    claims.remove("kubernetes.io");
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "does not say which account it is of",
    ),
    (
        "another account's subject",
        |_, to| {
            let edit = |at: usize, claims: &mut Value| {
                if at == 1 {
                    claims["sub"] = "system:serviceaccount:kube-system:default".into();
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "not of the witness of this run",
    ),
    (
        "another issuer in one token",
        |_, to| {
            let edit = |at: usize, claims: &mut Value| {
                if at == 1 {
                    claims["iss"] = "https://issuer.example".into();
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "another issuer signed it",
    ),
    (
        "another issuer in all tokens",
        |_, to| {
            let edit = |_: usize, claims: &mut Value| {
                claims["iss"] = "https://issuer.example".into();
            };
            forge(to, "mine", edit).map(drop)
        },
        "the discovery document is of another issuer",
    ),
    (
        "a token dated back",
        |_, to| {
            let edit = |at: usize, claims: &mut Value| {
                if at == 2 {
                    claims["iat"] = 1_000_000_000.into();
                }
            };
            forge(to, "mine", edit).map(drop)
        },
        "older than the one in front of it",
    ),
    (
        "the first token removed",
        |_, to| edit_tokens(to, |tokens| drop(tokens.remove(0))),
        "not about run head 0",
    ),
    (
        "a token removed from the middle",
        |_, to| edit_tokens(to, |tokens| drop(tokens.remove(1))),
        "not about run head 1",
    ),
    (
        "the last token removed",
        |_, to| edit_tokens(to, |tokens| drop(tokens.pop())),
        "no token about the statement",
    ),
    (
        "the last head's token removed",
        |_, to| edit_tokens(to, |tokens| drop(tokens.remove(4))),
        "no token about run head 3",
    ),
    (
        "all tokens removed",
        |_, to| edit_tokens(to, Vec::clear),
        "it holds no token",
    ),
    (
        "tokens.json removed",
        |_, to| Ok(fs::remove_file(to.join("witness/tokens.json"))?),
        "it was removed",
    ),
    (
        "account.json removed",
        |_, to| Ok(fs::remove_file(to.join("witness/account.json"))?),
        "it was removed",
    ),
    (
        "a version of the future",
        |_, to| {
            edit_json(&to.join("witness/tokens.json"), |json| {
                json["format"] = "2.0".into();
            })
        },
        "this release reads 1.0",
    ),
    (
        "tokens without end",
        |_, to| {
            let file = fs::File::create(to.join("witness/tokens.json"))?;
            Ok(file.set_len(1 << 30)?)
        },
        "larger than",
    ),
    (
        "a file put beside",
        |_, to| Ok(fs::write(to.join("witness/note.txt"), "trust me")?),
        "no part of a bundle",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_on_a_witness_is_seen() -> Result<()> {
    let bench = Bench::new().await?;
    let report = bench
        .verify(&bench.path("honest"), Reviewer::default())
        .await?;
    ensure!(report.holds(), "{}", told(&report));
    ensure!(tokens_of(&bench.path("honest"))?.len() == 6);

    let mut table = String::new();
    let mut unseen = Vec::new();
    for (at, (name, deed, words)) in ATTACKS.iter().enumerate() {
        let folder = bench.copy(&format!("attack-{at}"))?;
        deed(&bench, &folder).with_context(|| (*name).to_owned())?;
        let report = bench.verify(&folder, Reviewer::default()).await?;
        let seen = report.findings.iter().any(|found| {
            found.message.contains(words)
                && matches!(found.check, Check::Witness | Check::Structure)
        });
        // A file too many is no part of the witness, and takes nothing from it.
        if !seen || (*words != "no part of a bundle" && report.witnessed.grade != Grade::None) {
            unseen.push(format!("{name}: wanted {words}\n{}", told(&report)));
        }
        table.push_str(&format!("{name:48} {words}\n"));
        fs::remove_dir_all(&folder)?;
    }
    println!("{table}{} attacks", ATTACKS.len());
    ensure!(unseen.is_empty(), "{}", unseen.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_word_a_witness_is_depends_on_where_the_keys_come_from() -> Result<()> {
    let bench = Bench::new().await?;
    let lab = lab().await?;
    let honest = bench.path("honest");
    let graded = |report: &VerifyReport, grade: Grade| {
        ensure!(
            report.witnessed.grade == grade,
            "{:?}\n{}",
            report.witnessed,
            told(report)
        );
        Ok(())
    };

    let report = bench.verify(&honest, Reviewer::default()).await?;
    graded(&report, Grade::SelfAsserted)?;
    ensure!(report.witnessed.issuer.as_ref() == Some(&lab.issuer.url));
    ensure!(report.witnessed.tokens == 6 && report.witnessed.fetched.is_none());

    let report = bench.verify(&honest, pinned(&lab.jwks)?).await?;
    graded(&report, Grade::Pinned)?;
    ensure!(report.holds(), "{}", told(&report));

    lab.issuer.publish(&lab.jwks);
    let before = Timestamp::now();
    let report = bench
        .verify(&honest, online(&lab.issuer.authority)?)
        .await?;
    graded(&report, Grade::Issuer)?;
    ensure!(report.holds(), "{}", told(&report));
    let fetched = report.witnessed.fetched.clone().context("a date")?;
    ensure!((before..=Timestamp::now()).contains(&fetched.parse()?));
    let said = report.limits_of_proof().join("\n");
    ensure!(
        said.contains(&lab.issuer.url) && said.contains(&fetched),
        "{said}"
    );

    // Whoever believes other authorities gets no keys, and no lie about it.
    let stranger = Reviewer {
        online: Some(Online::with_web_roots()?),
        ..Reviewer::default()
    };
    let report = bench.verify(&honest, stranger).await?;
    graded(&report, Grade::SelfAsserted)?;
    ensure!(
        report.findings.is_empty() && told(&report).contains("certificate"),
        "{}",
        told(&report)
    );

    // Keys that changed since, a document of somebody else, no document.
    let forger = Forger::new()?;
    lab.issuer.publish(&forger.jwks("newer"));
    let report = bench
        .verify(&honest, online(&lab.issuer.authority)?)
        .await?;
    graded(&report, Grade::SelfAsserted)?;
    ensure!(
        report.findings.is_empty() && told(&report).contains("no key for 6 of 6"),
        "{}",
        told(&report)
    );
    lab.issuer.publish_as("https://issuer.example", &lab.jwks);
    let report = bench
        .verify(&honest, online(&lab.issuer.authority)?)
        .await?;
    graded(&report, Grade::SelfAsserted)?;
    ensure!(
        told(&report).contains("another issuer"),
        "{}",
        told(&report)
    );
    lab.issuer.unpublish();
    let report = bench
        .verify(&honest, online(&lab.issuer.authority)?)
        .await?;
    graded(&report, Grade::SelfAsserted)?;
    ensure!(
        report.findings.is_empty() && told(&report).contains("404"),
        "{}",
        told(&report)
    );

    // Without keys of the bundle's own, and without any.
    let bare = bench.copy("bare")?;
    edit_json(&bare.join("witness/account.json"), |account| {
        account["jwks"] = Value::Null;
        account["discovery"] = Value::Null;
    })?;
    graded(
        &bench.verify(&bare, pinned(&lab.jwks)?).await?,
        Grade::Pinned,
    )?;
    let report = bench.verify(&bare, Reviewer::default()).await?;
    graded(&report, Grade::None)?;
    ensure!(
        report.findings.is_empty() && told(&report).contains("--issuer-keys"),
        "{}",
        told(&report)
    );

    // All of it made anew with a key of one's own. Only who knows the issuer's keys sees it.
    lab.issuer.publish(&lab.jwks);
    for name in ["mine".to_owned(), key_name(&honest)?] {
        let forged = bench.copy(&format!("forged-{}", name.len()))?;
        forge(&forged, &name, |_, _| ())?;
        graded(
            &bench.verify(&forged, Reviewer::default()).await?,
            Grade::SelfAsserted,
        )?;
        let report = bench.verify(&forged, pinned(&lab.jwks)?).await?;
        graded(&report, Grade::None)?;
        ensure!(
            told(&report).contains("no key that you gave"),
            "{}",
            told(&report)
        );
        let report = bench
            .verify(&forged, online(&lab.issuer.authority)?)
            .await?;
        ensure!(
            report.witnessed.grade < Grade::Issuer && !report.holds(),
            "{}",
            told(&report)
        );
    }

    // A run without one, and a public copy, which keeps it.
    fs::remove_dir_all(bare.join("witness"))?;
    let report = bench.verify(&bare, Reviewer::default()).await?;
    graded(&report, Grade::None)?;
    ensure!(report.holds(), "{}", told(&report));
    let public = bench.path("public");
    bundle::withhold(&honest, &public, &Withhold::default())?;
    let report = bench.verify(&public, pinned(&lab.jwks)?).await?;
    graded(&report, Grade::Pinned)?;
    ensure!(report.findings.is_empty(), "{}", told(&report));
    Ok(())
}

/// The vendor holds the cluster: the namespace and the account can be made again, and real tokens asked for afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_token_that_was_asked_for_afterwards_is_of_another_account() -> Result<()> {
    let bench = Bench::new().await?;
    let lab = lab().await?;
    let cluster = cluster(&lab.plane.kubeconfig()).await?;
    let folder = bench.copy("afterwards")?;
    let account = account_of(&folder)?.accounts[0].clone();
    cluster
        .create_json(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": account.namespace}}),
        )
        .await?;
    let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", account.namespace);
    cluster
        .create_json(
            &accounts,
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account.name}}),
        )
        .await?;
    let entry = tokens_of(&folder)?[2].clone();
    let head = entry.head.context("a head")?;
    let asked = cluster
        .create_json(
            &format!("{accounts}/{}/token", account.name),
            &json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {"audiences": [witness::audience(&head)], "expirationSeconds": 600},
            }),
        )
        .await?;
    let token = asked["status"]["token"]
        .as_str()
        .context("a token")?
        .to_owned();
    edit_tokens(&folder, |tokens| tokens[2].token = token)?;
    let report = bench.verify(&folder, pinned(&lab.jwks)?).await?;
    ensure!(
        told(&report).contains("which account.json does not name"),
        "{}",
        told(&report)
    );
    ensure!(
        told(&report).contains("older than the one in front"),
        "{}",
        told(&report)
    );
    Ok(())
}

/// A guest that is granted everything and wants a token of the witness itself, and then waits to be stopped.
fn greedy() -> Guest {
    let at = |mut step: Value| {
        step["api"] = "v1".into();
        step["resource"] = "serviceaccounts/token".into();
        step["ns"] = "karat-${run}-home".into();
        step["name"] = "karat-witness".into();
        step
    };
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "metadata": {"name": "karat-witness", "namespace": "karat-${run}-home"},
        "spec": {"audiences": ["urn:karat:witness:1:sha256:00"]},
    });
    let script = json!([
        at(json!({"do": "get"})),
        at(json!({"do": "replace", "body": body.clone()})),
        at(json!({"do": "patch", "kind": "merge", "body": body.clone()})),
        {"do": "create", "api": "v1", "resource": "serviceaccounts/token", "ns": "karat-${run}-home", "body": body},
        {"do": "open", "id": "alive"},
        {"do": "sleep", "ms": 60_000},
    ]);
    Guest::scripted("greedy", &script)
        .reach("cluster-objects")
        .permit(
            "",
            &["serviceaccounts/token"],
            &["get", "create", "update", "patch"],
            "cluster",
        )
        .cases(&case("alive", "get namespaces"))
}

/// Whether a token opens anything, and whether the server knows it for its own audience.
async fn tried(lab: &Lab, folder: &Path, token: &str) -> Result<(Vec<u16>, bool, bool)> {
    let mut config: Value =
        serde_yaml_ng::from_str(&lab.plane.pki().kubeconfig(&lab.plane.url(), None))?;
    config["users"][0]["user"]["token"] = token.into();
    let path = folder.join("token.kubeconfig");
    fs::write(&path, config.to_string())?;
    let stranger = cluster(&path).await?;
    let mut codes = Vec::new();
    for path in ["/api/v1/namespaces", "/version", "/apis", "/openid/v1/jwks"] {
        codes.push(stranger.send(&Request::get(path)).await?.code);
    }
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
    });
    let body = review.to_string().into_bytes();
    let request = Request::with_body(
        Method::Post,
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        body,
    );
    codes.push(stranger.send(&request).await?.code);
    let admin = cluster(&lab.plane.kubeconfig()).await?;
    let (_, claims) = parts(token)?;
    let mut known = Vec::new();
    for audiences in [claims["aud"].clone(), json!([])] {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences},
        });
        let answer = admin
            .create_json("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .await?;
        known.push(answer["status"]["authenticated"] == true);
    }
    Ok((codes, known[0], known[1]))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_useless_as_credentials_and_probes_cannot_ask_for_one() -> Result<()> {
    let lab = lab().await?;
    let engine = Engine::new(&EngineOptions::default())?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let probe = component::load(&engine, greedy().component()?)?;
    let (events, mut stream) = Events::channel();
    let (stop, stop_signal) = StopSignal::pair();
    let mut request = request(&engine, &lab.plane, vec![probe], &out).await?;
    request.witness = true;
    request.events = events;
    request.stop = stop_signal;
    let going = tokio::spawn(run(request));
    // All four calls of the guest are over when it opens its case.
    loop {
        match stream.recv().await.context("the run ended early")?.kind {
            RunEventKind::CaseOpened { .. } => break,
            RunEventKind::RunFinished { .. } => bail!("the run ended early"),
            _ => {}
        }
    }
    let live = tokens_of(&out)?;
    ensure!(live.len() == 1);
    let (codes, known, opens) = tried(lab, folder.path(), &live[0].token).await?;
    ensure!(known, "the token is alive, and of its own audience");
    ensure!(!opens && codes.iter().all(|code| *code == 401), "{codes:?}");
    stop.stop();
    let record = going.await??;

    let tokens = tokens_of(&out)?;
    ensure!(tokens.len() == 3, "{tokens:?}");
    for entry in &tokens {
        let forgotten = || async {
            match tried(lab, folder.path(), &entry.token).await {
                Ok((codes, known, opens)) => {
                    assert!(!opens && codes.iter().all(|code| *code == 401), "{codes:?}");
                    // The server remembers for some seconds whom it knew.
                    (!known).then_some(()).ok_or_else(|| "known".to_owned())
                }
                Err(error) => Err(format!("{error:#}")),
            }
        };
        lab.plane
            .wait_until("a token whose account is gone ends", forgotten)
            .await?;
    }

    let attempt = &record.probes[0].attempts[0];
    ensure!(attempt.outcome == Outcome::Interrupted, "{attempt:?}");
    let relative = attempt.recording.as_ref().context("a recording")?;
    let recording = recording::read_with(
        &out.join(relative),
        &ReadOptions {
            expected_head: attempt.head.clone(),
            unfinished: attempt.head.is_none(),
            withheld: false,
        },
    )?;
    let calls: Vec<_> = recording
        .entries()
        .iter()
        .filter(|entry| entry.function.starts_with("kube-"))
        .collect();
    ensure!(calls.len() == 4);
    for call in calls {
        ensure!(
            call.result == ReplyKind::Refused && !call.facts.live,
            "{call:?}"
        );
    }

    // Its home is gone, and nothing but the witness holds a token.
    let cluster = cluster(&lab.plane.kubeconfig()).await?;
    let home = format!("/api/v1/namespaces/karat-{}-home", record.run);
    ensure!(cluster.find_json(&home).await?.is_none());
    let mut holders = Vec::new();
    for (path, bytes) in folders::files(&out)? {
        let text = String::from_utf8_lossy(&bytes);
        if tokens.iter().any(|entry| {
            let signature = entry.token.rsplit('.').next().unwrap_or_default();
            text.contains(signature)
        }) {
            holders.push(path.strip_prefix(&out)?.to_owned());
        }
    }
    ensure!(holders == [Path::new("witness/tokens.json")], "{holders:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_live_token_enters_a_bundle_and_the_home_of_a_run_that_only_reads_goes() -> Result<()> {
    let lab = lab().await?;
    let bench = Bench {
        engine: Engine::new(&EngineOptions::default())?,
        folder: tempfile::tempdir()?,
        key: new_key()?,
    };
    bench.make("honest", true).await?;
    let run = bench.path("run-honest");
    let record = karat_engine::runfolder::read_record(&run)?;
    let home = format!("/api/v1/namespaces/karat-{}-home", record.run);
    let server = cluster(&lab.plane.kubeconfig()).await?;
    ensure!(server.find_json(&home).await?.is_none());

    let to = bench.path("now");
    let made = bundle::create(&run, &to, Some(&bench.key))?;
    let Some(Release::Alive(until)) = made.witness else {
        bail!("{made:?}");
    };
    ensure!(until > Timestamp::now() + SignedDuration::from_mins(9));
    ensure!(!to.join("witness").exists());
    let report = bench.verify(&to, Reviewer::default()).await?;
    ensure!(
        report.holds() && report.witnessed.grade == Grade::None,
        "{}",
        told(&report)
    );

    let moment = SignedDuration::from_secs(1);
    let made = bundle::create_at(&run, &to, None, until - moment)?;
    ensure!(made.witness == Some(Release::Alive(until)) && !to.join("witness").exists());
    // The signature of before is about the same statement, and stays.
    let made = bundle::create_at(&run, &to, None, until + moment)?;
    ensure!(made.witness == Some(Release::Expired));
    let signed = Reviewer {
        keys: vec![bench.key.public()],
        ..pinned(&lab.jwks)?
    };
    let report = bench.verify(&to, signed).await?;
    ensure!(
        report.holds() && report.witnessed.grade == Grade::Pinned,
        "{}",
        told(&report)
    );

    // A part that began and did not come far leaves a record that the last token is not about.
    let record = fs::read(run.join("run.json"))?;
    edit_json(&run.join("run.json"), |record| {
        record["ended"] = Value::Null
    })?;
    let unfinished = bundle::create_at(&run, &bench.path("unfinished"), None, later())?;
    ensure!(unfinished.witness == Some(Release::Unfinished));
    ensure!(!bench.path("unfinished/witness").exists());
    fs::write(run.join("run.json"), record)?;

    // A run does not change its mind.
    let mut without = request(&bench.engine, &lab.plane, bench.probes()?, &run).await?;
    without.reach = Reach::Sandbox;
    without.mode = Mode::RerunFailed;
    let Err(error) = karat_engine::run::run(without).await else {
        bail!("it went on without");
    };
    ensure!(
        matches!(
            error,
            RunError::Changed {
                what: "the witness",
                ..
            }
        ),
        "{error}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_cannot_be_had_stops_the_run_at_its_start_and_goes_whole_later() -> Result<()>
{
    let lab = lab().await?;
    let engine = Engine::new(&EngineOptions::default())?;
    let refuse = |rule: Rule| {
        lab.plane
            .proxy()
            .rule(rule.fail(403, "Forbidden", "no tokens today"))
            .start()
    };
    let token = || Rule::on("POST", "/serviceaccounts/karat-witness/token$");
    for (rule, starts) in [(token(), false), (token().skip(2), true)] {
        let proxy = refuse(rule).await?;
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("run");
        let probes = vec![
            component::load(&engine, guest("steady", "pass").component()?)?,
            component::load(&engine, guest("stern", "pass").component()?)?,
        ];
        let (events, mut stream) = Events::channel();
        let mut request = request(&engine, &lab.plane, probes, &out).await?;
        request.engine_cluster = cluster(proxy.kubeconfig()).await?;
        request.parallel = 1;
        request.witness = true;
        request.events = events;
        let result = run(request).await;
        let record = match (result, starts) {
            (Ok(record), true) => record,
            (Err(error @ RunError::Prepare(_)), false) => {
                ensure!(error.to_string().contains("no tokens today"), "{error}");
                karat_engine::runfolder::read_record(&out)?
            }
            (other, _) => bail!("{other:?}"),
        };
        let cluster = cluster(&lab.plane.kubeconfig()).await?;
        let home = format!("/api/v1/namespaces/karat-{}-home", record.run);
        ensure!(
            cluster.find_json(&home).await?.is_none(),
            "the home is left"
        );
        if !starts {
            continue;
        }
        let mut warnings = String::new();
        while let Ok(event) = stream.try_recv() {
            if let RunEventKind::Warned { text } = event.kind {
                warnings.push_str(&text);
            }
        }
        ensure!(warnings.contains("no witness any more"), "{warnings}");
        ensure!(!out.join("witness").exists());
        let verdicts: Vec<_> = record
            .probes
            .iter()
            .map(|probe| probe.attempts[0].judgement.verdict)
            .collect();
        ensure!(verdicts == [Some(Verdict::Pass); 2], "{verdicts:?}");
        let made = bundle::create_at(&out, &folder.path().join("bundle"), None, later())?;
        ensure!(made.witness == Some(Release::Absent));
    }
    Ok(())
}

/// The words of the program, from the run to the reviewer.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_whose_word_it_is() -> Result<()> {
    let lab = lab().await?;
    let folder = tempfile::tempdir()?;
    let probe = folder.path().join("steady.wasm");
    fs::write(&probe, guest("steady", "pass").component()?)?;
    let keys = folder.path().join("keys.json");
    fs::write(&keys, lab.jwks.to_string())?;
    let karat = |words: &[&str]| -> Result<(Option<i32>, String, String)> {
        let output = Command::new(program::karat()?)
            .args(words)
            .current_dir(folder.path())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .output()?;
        Ok((
            output.status.code(),
            String::from_utf8(output.stdout)?,
            String::from_utf8(output.stderr)?,
        ))
    };
    let kubeconfig = lab.plane.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a path")?;
    let (code, out, err) = karat(&[
        "run",
        "--yes",
        "--witness",
        "--lock",
        "none",
        "--rbac",
        "off",
        "--out",
        "run",
        "--probes-from",
        "steady.wasm",
        "--kubeconfig",
        kubeconfig,
    ])?;
    ensure!(code == Some(0), "{out}{err}");
    ensure!(
        err.contains("witnesses this run: its evidence will name the issuer"),
        "{err}"
    );
    ensure!(
        err.contains("without its witness yet: tokens in the run folder live until"),
        "{err}"
    );
    let (_, out, err) = karat(&["bundle", "create", "run"])?;
    ensure!(out.contains("without its witness yet"), "{out}{err}");

    // What the program would write ten minutes later.
    let to = folder.path().join("bundle");
    bundle::create_at(&folder.path().join("run"), &to, None, later())?;
    let verify = [
        "verify",
        "bundle",
        "--run-foreign-probes",
        "--probes-from",
        "steady.wasm",
    ];
    let (code, out, _) = karat(&verify)?;
    ensure!(
        code == Some(0) && out.contains("witness self-asserted: 3 tokens of https://"),
        "{out}"
    );
    let with_keys = [&verify[..], &["--issuer-keys", "keys.json", "--json"]].concat();
    let (code, out, err) = karat(&with_keys)?;
    ensure!(code == Some(0), "{out}{err}");
    let json: BTreeMap<String, Value> = serde_json::from_str(&out)?;
    ensure!(
        json["witness"]["grade"] == "pinned" && json["witness"]["issuer"] == lab.issuer.url,
        "{out}"
    );
    let (code, _, err) = karat(&[
        "run",
        "--yes",
        "--witness",
        "--reach",
        "read",
        "--probes-from",
        "steady.wasm",
    ])?;
    ensure!(
        code == Some(3) && err.contains("makes a namespace and an account"),
        "{err}"
    );
    Ok(())
}
