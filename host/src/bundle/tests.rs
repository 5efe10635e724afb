//! Keys, envelopes, statements and the list of files. Whole bundles are attacked in the tests that cross packages.

use super::signature::{Envelope, KeyError, PublicKey, SigningKey};
use super::statement::{Predicate, Statement};
use super::{BundleError, File, Limits, Place, list};
use crate::model::ClusterRecord;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Made with `openssl ecparam -name prime256v1 -genkey -noout`; signs nothing but this test.
const SEC1: &str = include_str!("tests/sec1.pem");
/// The same key through `openssl pkcs8 -topk8 -nocrypt`.
const PKCS8: &str = include_str!("tests/pkcs8.pem");
/// Its public half, by `openssl pkey -pubout`.
const PUBLIC: &str = include_str!("tests/public.pem");
/// `openssl dgst -sha256 -sign` over the bytes that DSSE signs for the payload `hello`.
const BY_OPENSSL: &str = include_str!("tests/by-openssl.json");

#[test]
fn keys_of_openssl_are_read_in_each_form() {
    let sec1 = SigningKey::from_pem(SEC1).unwrap();
    let pkcs8 = SigningKey::from_pem(PKCS8).unwrap();
    let public = PublicKey::from_pem(PUBLIC).unwrap();
    assert_eq!(sec1.public(), public);
    assert_eq!(pkcs8.public(), public);
    assert_eq!(public.to_pem().unwrap().trim(), PUBLIC.trim());
    let with_curve = format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{SEC1}"
    );
    assert_eq!(SigningKey::from_pem(&with_curve).unwrap().public(), public);
}

#[test]
fn each_wrong_key_has_its_own_message() {
    let wrong = |text: &str| SigningKey::from_pem(text).unwrap_err();
    assert!(matches!(
        wrong(PUBLIC),
        KeyError::Half {
            found: "public",
            ..
        }
    ));
    assert!(matches!(
        wrong("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIG\n-----END ENCRYPTED PRIVATE KEY-----"),
        KeyError::Encrypted
    ));
    assert!(matches!(
        wrong(
            "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJ\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----"
        ),
        KeyError::Encrypted
    ));
    for text in [
        "",
        "hello",
        "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----",
        &"x".repeat(1 << 20),
    ] {
        assert!(matches!(wrong(text), KeyError::Unreadable(_)), "{text:.20}");
    }
    assert!(matches!(
        PublicKey::from_pem(PKCS8).unwrap_err(),
        KeyError::Half {
            found: "private",
            ..
        }
    ));
}

#[test]
fn an_envelope_of_openssl_is_accepted_and_ours_is_read_back() {
    let public = PublicKey::from_pem(PUBLIC).unwrap();
    let theirs = Envelope::parse(BY_OPENSSL.as_bytes()).unwrap();
    assert_eq!(theirs.payload(), b"hello");
    assert!(theirs.is_signed_by(&public));

    let ours = SigningKey::from_pem(SEC1).unwrap().envelope(b"hello");
    let ours = Envelope::parse(ours.as_bytes()).unwrap();
    assert!(ours.is_signed_by(&public));
    assert_eq!(ours.claimed_keys().collect::<Vec<_>>(), [public.id()]);
}

#[test]
fn nothing_in_an_envelope_can_be_changed() {
    let public = PublicKey::from_pem(PUBLIC).unwrap();
    let envelope = SigningKey::from_pem(SEC1).unwrap().envelope(b"hello");
    type Edit = fn(&mut serde_json::Value);
    let edits: [(&str, Edit); 3] = [
        ("payload", |json| json["payload"] = "aGVsbG8h".into()),
        ("type", |json| json["payloadType"] = "text/plain".into()),
        ("signature", |json| {
            json["signatures"][0]["sig"] = "AAAA".into()
        }),
    ];
    for (what, edit) in edits {
        let mut json: serde_json::Value = serde_json::from_str(&envelope).unwrap();
        edit(&mut json);
        let edited = Envelope::parse(json.to_string().as_bytes()).unwrap();
        assert!(!edited.is_signed_by(&public), "{what}");
    }
    for text in [
        "",
        "{}",
        r#"{"payload":"","payloadType":"","signatures":[]}"#,
    ] {
        assert!(Envelope::parse(text.as_bytes()).is_err(), "{text}");
    }
}

fn statement() -> Statement {
    Statement {
        subjects: BTreeMap::from([("run.json".to_owned(), "ab".repeat(32))]),
        predicate: Predicate {
            run: "abcdefgh".to_owned(),
            head: "00".repeat(32),
            nonce: None,
            engine: "0.1.0".to_owned(),
            cluster: ClusterRecord::default(),
            started: "2026-01-01T12:00:00Z".to_owned(),
            ended: None,
        },
    }
}

#[test]
fn a_statement_is_read_back_and_nothing_else_is_one() {
    let text = statement().to_json();
    assert_eq!(Statement::parse(text.as_bytes()).unwrap(), statement());
    for (what, from, to) in [
        ("type", "in-toto.io/Statement/v1", "in-toto.io/Statement/v2"),
        ("predicate", "urn:karat:run:1", "urn:karat:run:2"),
        ("digest", "abab", "ABAB"),
        ("unknown key", "\"predicate\":", "\"more\":1,\"predicate\":"),
        (
            "named twice",
            "\"subject\":[",
            "\"subject\":[{\"name\":\"run.json\",\"digest\":{\"sha256\":\"abababababababababababababababababababababababababababababababab\"}},",
        ),
    ] {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text, "{what}");
        assert!(Statement::parse(edited.as_bytes()).is_err(), "{what}");
    }
}

fn put(folder: &Path, path: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, b"x").unwrap();
}

fn cause(folder: &Path, limits: &Limits) -> String {
    match list(folder, limits) {
        Err(BundleError::Structure { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_file_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let digest = "0f".repeat(32);
    let attempt = "probes/dra-support/attempt-1";
    let wanted = [
        (
            format!("components/{digest}.wasm"),
            Place::Component(digest.clone()),
        ),
        ("components/x.wasm".to_owned(), Place::Other),
        ("journal.jsonl".to_owned(), Place::Other),
        (
            format!("{attempt}/blobs/{digest}"),
            Place::Blob(attempt.to_owned(), digest.clone()),
        ),
        (format!("{attempt}/blobs/{digest}.txt"), Place::Other),
        (
            format!("{attempt}/recording.jsonl.zst"),
            Place::Recording(attempt.to_owned()),
        ),
        (
            "probes/dra-support/attempt-01/recording.jsonl.zst".to_owned(),
            Place::Other,
        ),
        ("run.json".to_owned(), Place::Record),
        ("signatures/a.json".to_owned(), Place::Signature),
        ("statement.json".to_owned(), Place::Statement),
        ("witness/account.json".to_owned(), Place::Witness),
        ("witness/more.json".to_owned(), Place::Other),
        ("witness/tokens.json".to_owned(), Place::Witness),
    ];
    for (path, _) in &wanted {
        put(folder.path(), path);
    }
    let found = list(folder.path(), &Limits::default()).unwrap();
    let mut wanted: Vec<File> = wanted
        .into_iter()
        .map(|(path, place)| File {
            path,
            size: 1,
            place,
        })
        .collect();
    wanted.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(found, wanted);
}

#[test]
fn a_list_has_limits() {
    let folder = tempfile::tempdir().unwrap();
    for at in 0..5 {
        put(folder.path(), &format!("{at}"));
    }
    let limits = |entries, bytes| Limits { entries, bytes };
    assert!(list(folder.path(), &limits(5, 5)).is_ok());
    assert!(cause(folder.path(), &limits(4, 5)).contains("more than 4 files"));
    assert!(cause(folder.path(), &limits(5, 4)).contains("more than 4 bytes"));
    put(folder.path(), "a/b/c/d/e/f");
    assert!(cause(folder.path(), &Limits::default()).contains("nest"));
}

#[test]
fn only_plain_files_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("run.json")).unwrap();
    assert!(cause(folder.path(), &Limits::default()).contains("a link"));
    fs::remove_file(folder.path().join("run.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(cause(folder.path(), &Limits::default()).contains("a pipe"));
}
