//! A run folder has one writer, loses nothing, and its record cannot be edited unseen.

use super::*;
use crate::model::{
    AttemptRecord, ClusterRecord, Judgement, Outcome, ProbeRecord, Reach, Tier, Usage, Verdict,
};
use std::fs;

fn attempt(number: u32, head: Option<&str>, folded: Option<u32>) -> AttemptRecord {
    AttemptRecord {
        attempt: number,
        started: "2026-01-01T00:00:00Z".to_owned(),
        outcome: Outcome::Concluded,
        judgement: Judgement {
            verdict: Some(Verdict::Pass),
            reason: None,
            explanation: String::new(),
            tier: Tier::Unmarked,
            tier_because: Vec::new(),
            cases: Vec::new(),
            rules: "1".to_owned(),
        },
        usage: Usage::default(),
        recording: Some(format!("probes/p/attempt-{number}")),
        head: head.map(str::to_owned),
        folded,
        left_behind: Vec::new(),
    }
}

fn record() -> RunRecord {
    let salt = [7u8; 16];
    RunRecord {
        leases: None,
        redacted: vec![crate::model::RedactionRecord {
            from: "0".repeat(64),
            rules: "1".repeat(64),
        }],
        format: RUN_FORMAT.to_owned(),
        run: run_id(&salt, Some("n")),
        salt: data_encoding::HEXLOWER.encode(&salt),
        nonce: Some("n".to_owned()),
        engine: "9.8.7".to_owned(),
        plan: "0".repeat(64),
        started: "2026-01-01T00:00:00Z".to_owned(),
        ended: None,
        cluster: ClusterRecord::default(),
        reach: Reach::Sandbox,
        head: RunHead::new().text(),
        probes: vec![ProbeRecord {
            probe: "p".to_owned(),
            version: "1.0.0".to_owned(),
            title: String::new(),
            requirements: Vec::new(),
            digest: format!("sha256:{}", "0".repeat(64)),
            contract: "0.1.0-dev.1".to_owned(),
            attempts: Vec::new(),
        }],
    }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("deep/out");
    (temp, path)
}

#[test]
fn a_run_id_is_short_and_follows_from_salt_and_nonce() {
    let id = run_id(&[0; 16], None);
    assert_eq!(id.len(), RUN_ID_LENGTH);
    assert!(
        id.bytes()
            .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
    );
    assert_eq!(id, run_id(&[0; 16], None));
    assert_eq!(id, run_id(&[0; 16], Some("")), "no nonce is the empty one");
    assert_ne!(id, run_id(&[0; 16], Some("n")));
    assert_ne!(id, run_id(&[1; 16], None));
    assert_ne!(new_salt().unwrap(), new_salt().unwrap());
}

#[test]
fn the_record_is_written_whole_and_read_back() {
    let (_temp, path) = folder();
    let run = RunFolder::create(&path).unwrap();
    assert!(matches!(read_record(&path), Err(FolderError::NoRun { .. })));
    let mut record = record();
    run.write_record(&record).unwrap();
    assert_eq!(read_record(&path).unwrap(), record);
    record.ended = Some("2026-01-01T00:01:00Z".to_owned());
    run.write_record(&record).unwrap();
    assert_eq!(read_record(&path).unwrap(), record);
    // What a crash between write and rename leaves changes nothing.
    fs::write(path.join("run.json.new"), "{").unwrap();
    assert_eq!(read_record(&path).unwrap(), record);
    run.write_record(&record).unwrap();
    assert!(!path.join("run.json.new").exists());
}

#[test]
fn a_folder_has_one_writer() {
    let (_temp, path) = folder();
    let run = RunFolder::create(&path).unwrap();
    run.write_record(&record()).unwrap();
    match RunFolder::open(&path).unwrap_err() {
        FolderError::Locked { holder, .. } => assert_eq!(holder, std::process::id().to_string()),
        other => panic!("{other}"),
    }
    assert!(read_record(&path).is_ok(), "readers need no lock");
    drop(run);
    let (again, read) = RunFolder::open(&path).unwrap();
    assert_eq!(read, record());
    assert_eq!(again.path(), path);
}

#[test]
fn a_run_never_begins_on_top_of_something() {
    let (_temp, path) = folder();
    drop(RunFolder::create(&path).unwrap());
    drop(RunFolder::create(&path).unwrap());
    fs::write(path.join("notes"), "mine").unwrap();
    let error = RunFolder::create(&path).unwrap_err().to_string();
    assert!(error.contains("holds notes"), "{error}");
    fs::remove_file(path.join("notes")).unwrap();
    RunFolder::create(&path)
        .unwrap()
        .write_record(&record())
        .unwrap();
    let error = RunFolder::create(&path).unwrap_err().to_string();
    assert!(error.contains("holds a run"), "{error}");
    let missing = path.join("missing");
    assert!(matches!(
        RunFolder::open(&missing),
        Err(FolderError::NoRun { .. })
    ));
    assert!(!missing.exists(), "looking creates nothing");
}

#[test]
fn attempts_add_and_never_replace() {
    let (_temp, path) = folder();
    let run = RunFolder::create(&path).unwrap();
    let first = run.new_attempt("p").unwrap();
    assert_eq!(
        (first.number, first.relative.as_str()),
        (1, "probes/p/attempt-1")
    );
    assert_eq!(run.new_attempt("p").unwrap().number, 2);
    fs::create_dir(path.join("probes/p/attempt-9")).unwrap();
    fs::create_dir(path.join("probes/p/attempt-0099")).unwrap();
    fs::create_dir(path.join("probes/p/attempt-x")).unwrap();
    assert_eq!(run.new_attempt("p").unwrap().number, 10);
    let foreign = run.new_attempt("vendor.example/fabric").unwrap();
    assert_eq!(foreign.relative, "probes/vendor.example.fabric/attempt-1");
    assert_eq!(recording(&path, &foreign.relative).unwrap(), foreign.folder);
    for bad in ["", "..", "../x", ".hidden", "a/../b", "A", "a b", "a\0"] {
        assert!(run.new_attempt(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn no_name_of_a_record_leads_out_of_the_folder() {
    let root = Path::new("/run");
    for bad in [
        "",
        "/etc/passwd",
        "probes/p",
        "probes/p/attempt-0",
        "probes/p/attempt-01",
        "probes/p/attempt-+1",
        "probes/../attempt-1",
        "probes/./attempt-1",
        "probes//attempt-1",
        "probes/p/attempt-1/..",
        "probes/p/../../x",
        "components/p/attempt-1",
        "probes\\p\\attempt-1",
    ] {
        assert!(recording(root, bad).is_err(), "{bad}");
    }
    assert_eq!(
        recording(root, "probes/p/attempt-12").unwrap(),
        Path::new("/run/probes/p/attempt-12")
    );
    for bad in ["", "sha256:", "sha256:../../x", "sha512:00"] {
        assert!(component_path(root, bad).is_err(), "{bad}");
    }
}

#[test]
fn components_are_kept_under_their_digest() {
    let (_temp, path) = folder();
    let run = RunFolder::create(&path).unwrap();
    let digest = format!("sha256:{}", sha256_hex(b"wasm"));
    let kept = run.keep_component(&digest, b"wasm").unwrap();
    assert_eq!(fs::read(&kept).unwrap(), b"wasm");
    assert_eq!(run.keep_component(&digest, b"wasm").unwrap(), kept);
    assert!(matches!(
        run.keep_component(&digest, b"other"),
        Err(FolderError::Digest { .. })
    ));
}

#[test]
fn an_edited_record_is_found() {
    let (_temp, path) = folder();
    let run = RunFolder::create(&path).unwrap();
    let (a, b) = (sha256_hex(b"a"), sha256_hex(b"b"));
    let mut head = RunHead::new();
    let places = [head.fold(&a).unwrap(), head.fold(&b).unwrap()];
    assert_eq!(places, [1, 2]);
    let mut good = record();
    // In the record the order of the plan, in the head the order of the endings.
    good.probes[0].attempts = vec![
        attempt(1, Some(&b), Some(2)),
        attempt(2, Some(&a), Some(1)),
        attempt(3, None, None),
    ];
    good.head = head.text();
    run.write_record(&good).unwrap();
    assert_eq!(read_record(&path).unwrap(), good);
    assert_eq!(head_of(&good).unwrap(), head);

    type Edit = fn(&mut RunRecord);
    let edits: &[(&str, Edit)] = &[
        ("another nonce", |r| r.nonce = None),
        ("another run id", |r| r.run = "aaaaaaaa".to_owned()),
        ("a broken salt", |r| r.salt = "x".to_owned()),
        ("another head of a recording", |r| {
            r.probes[0].attempts[0].head = Some("0".repeat(64))
        }),
        ("an attempt cut", |r| drop(r.probes[0].attempts.remove(0))),
        ("the first attempt cut", |r| {
            drop(r.probes[0].attempts.remove(1))
        }),
        ("another order", |r| {
            r.probes[0].attempts[0].folded = Some(1);
            r.probes[0].attempts[1].folded = Some(2);
        }),
        ("one place for two", |r| {
            r.probes[0].attempts[0].folded = Some(1)
        }),
        ("a head without place", |r| {
            r.probes[0].attempts[0].folded = None
        }),
        ("a broken head", |r| {
            r.probes[0].attempts[0].head = Some("x".to_owned())
        }),
        ("another run head", |r| r.head = "0".repeat(64)),
    ];
    for (name, edit) in edits {
        let mut bad = good.clone();
        edit(&mut bad);
        run.write_record(&bad).unwrap();
        let error = read_record(&path).expect_err(name);
        assert!(
            matches!(error, FolderError::Inconsistent { .. }),
            "{name}: {error}"
        );
    }
    for (text, expected) in [
        ("", "no run record"),
        ("{}", "no run record"),
        (r#"{"format":"2.0","engine":"3.1.4"}"#, "use karat 3.1.4"),
        (
            r#"{"format":"1.1","engine":"3.1.4"}"#,
            "this engine reads 1.0",
        ),
    ] {
        fs::write(path.join(RUN_FILE), text).unwrap();
        let error = read_record(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_enter() {
    use std::os::unix::fs::PermissionsExt;
    let (_temp, path) = folder();
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let run = RunFolder::create(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&run.new_attempt("p").unwrap().folder), 0o700);
    assert_eq!(run.journal(), path.join("journal.jsonl"));
}

#[test]
fn the_published_schema_is_the_present_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/run.schema.json");
    let text = format!("{:#}\n", run_schema());
    if std::env::var_os("KARAT_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == text,
        "docs/reference/run.schema.json is not what the types say; run this test with KARAT_UPDATE=1 and review the change"
    );
}

#[test]
fn the_schema_knows_every_field_of_a_record() {
    fn fields(schema: &serde_json::Value, name: &str) -> Vec<String> {
        let definition = if name == "RunRecord" {
            schema
        } else {
            &schema["$defs"][name]
        };
        definition["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }
    let schema = run_schema();
    let keys = |value: serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let record = record();
    assert_eq!(
        fields(&schema, "RunRecord"),
        keys(serde_json::to_value(&record).unwrap())
    );
    assert_eq!(
        fields(&schema, "ProbeRecord"),
        keys(serde_json::to_value(&record.probes[0]).unwrap())
    );
    let attempt = attempt(1, None, None);
    assert_eq!(
        fields(&schema, "AttemptRecord"),
        keys(serde_json::to_value(&attempt).unwrap())
    );
    assert_eq!(
        fields(&schema, "Judgement"),
        keys(serde_json::to_value(&attempt.judgement).unwrap())
    );
}
