//! Keys, envelopes, statements and the list of files. Whole bundles are attacked in the tests that cross packages.

use super::archive::{pack, unpack};
use super::signature::{Envelope, KeyError, PublicKey, SigningKey};
use super::statement::{Predicate, Statement};
use super::{BundleError, File, Limits, Place, list};
use crate::model::ClusterRecord;
use flate2::Compression;
use flate2::write::GzEncoder;
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

/// A folder that passes for a bundle as far as packing goes.
fn packable(folder: &Path) {
    let attempt =
        "probes/a-probe-with-the-longest-name-that-any-manifest-may-give-it-63c/attempt-100000";
    put(folder, "run.json");
    put(folder, &format!("{attempt}/recording.jsonl.zst"));
    put(folder, &format!("{attempt}/blobs/{}", "0f".repeat(32)));
    fs::write(folder.join("statement.json"), statement().to_json()).unwrap();
}

fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    list(folder, &Limits::default())
        .unwrap()
        .into_iter()
        .map(|file| (file.path.clone(), fs::read(folder.join(file.path)).unwrap()))
        .collect()
}

#[test]
fn a_packed_bundle_comes_back_and_equal_bundles_are_packed_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    packable(&one);
    let packed = pack(&one).unwrap();
    assert_eq!((packed.run.as_str(), packed.files), ("abcdefgh", 4));
    let made = unpack(&packed.bytes, &two, &Limits::default()).unwrap();
    assert_eq!((made.run.as_str(), made.files), ("abcdefgh", 4));
    assert_eq!(content(&one), content(&two));
    assert_eq!(pack(&two).unwrap(), packed);

    // What is there stays there, even if it is the same.
    let again = unpack(&packed.bytes, &two, &Limits::default()).unwrap_err();
    assert!(matches!(again, BundleError::Occupied { .. }), "{again}");
    put(&one, "notes.txt");
    assert!(pack(&one).unwrap_err().to_string().contains("notes.txt"));
}

/// A tar with the given entries behind a whole statement, packed.
fn hostile(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let statement = statement().to_json();
    let first = (
        "statement.json",
        tar::EntryType::Regular,
        statement.as_bytes(),
    );
    for (path, kind, bytes) in std::iter::once(&first).chain(entries) {
        let mut header = tar::Header::new_ustar();
        // The name is written as it is: setting it as a path would refuse what a hostile one says.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_hostile_archive_leaves_nothing() {
    use tar::EntryType::{Char, Directory, GNULongName, Link, Regular, Symlink};
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle");
    let whole = hostile(&[("run.json", Regular, b"{}")]);
    unpack(&whole, &folder.path().join("whole"), &Limits::default()).unwrap();
    let large = vec![0u8; 1 << 20];
    let empty = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let empty = empty.into_inner().unwrap().finish().unwrap();
    let limits = Limits {
        entries: 3,
        bytes: 1 << 19,
    };
    for (what, bytes, wanted) in [
        ("no gzip", b"hello".to_vec(), "damaged"),
        ("nothing", Vec::new(), "damaged"),
        ("no statement", empty, "no statement"),
        ("cut off", whole[..whole.len() / 2].to_vec(), "damaged"),
        (
            "above",
            hostile(&[("../run.json", Regular, b"{}")]),
            "no part",
        ),
        (
            "absolute",
            hostile(&[("/run.json", Regular, b"{}")]),
            "no part",
        ),
        (
            "inside",
            hostile(&[("witness/../run.json", Regular, b"")]),
            "no part",
        ),
        ("added", hostile(&[("notes.txt", Regular, b"")]), "no part"),
        (
            "link",
            hostile(&[("run.json", Symlink, b"")]),
            "no plain file",
        ),
        (
            "hard link",
            hostile(&[("run.json", Link, b"")]),
            "no plain file",
        ),
        (
            "device",
            hostile(&[("run.json", Char, b"")]),
            "no plain file",
        ),
        (
            "folder",
            hostile(&[("witness", Directory, b"")]),
            "no plain file",
        ),
        (
            "long name",
            hostile(&[("x", GNULongName, b"run.json\0")]),
            "no plain file",
        ),
        (
            "twice",
            hostile(&[("statement.json", Regular, b"{}")]),
            "twice",
        ),
        (
            "large",
            hostile(&[("run.json", Regular, &large)]),
            "more than",
        ),
        (
            "many",
            hostile(&[
                ("run.json", Regular, b""),
                ("witness/tokens.json", Regular, b""),
                ("witness/account.json", Regular, b""),
            ]),
            "more than",
        ),
    ] {
        let refused = unpack(&bytes, &to, &limits).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{what}: {refused}");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{what}: {left:?}");
    }
}
