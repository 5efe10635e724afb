//! A recording survives a crash, and no edit of it stays unseen.

use super::format::*;
use super::*;
use crate::model::{ClusterRecord, Outcome, Usage};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn header() -> Header {
    Header {
        format: FORMAT.to_owned(),
        run: "abcdefgh".to_owned(),
        salt: "00".repeat(16),
        nonce: None,
        probe: "p".to_owned(),
        probe_version: "1.0.0".to_owned(),
        component: format!("sha256:{}", "0".repeat(64)),
        manifest: "0".repeat(64),
        contract: "0.1.0-dev.1".to_owned(),
        engine: "9.8.7".to_owned(),
        rules: crate::judge::RULES.to_owned(),
        redaction: "1".to_owned(),
        attempt: 1,
        started: "2026-01-01T00:00:00Z".to_owned(),
        limits: Limits {
            wall_ms: 1,
            cpu_ms: 1,
            memory_bytes: 1,
            calls: 1,
            seen_bytes: 1,
        },
        settings: Default::default(),
        namespaces: Default::default(),
        images: Default::default(),
        granted: "0".repeat(64),
        cluster: ClusterRecord::default(),
    }
}

pub(crate) fn draft(function: &str, arguments: Value) -> EntryDraft {
    EntryDraft {
        at_ms: 1,
        done_ms: 2,
        case: None,
        function: function.to_owned(),
        arguments,
        access: None,
        facts: Facts::default(),
        tries: 1,
    }
}

pub(crate) fn end() -> EndDraft {
    EndDraft {
        outcome: Outcome::Concluded,
        usage: Usage::default(),
        alive: Default::default(),
        left_behind: Vec::new(),
    }
}

fn text(text: &str) -> Reply {
    Ok(Seen::Text(text.to_owned()))
}

/// Three entries and an end, in a folder of its own.
fn sample() -> (tempfile::TempDir, PathBuf, String) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("attempt-1");
    let mut recorder = Recorder::create(&folder, &header()).unwrap();
    for n in 1..=3 {
        assert_eq!(recorder.next_sequence(), n);
        let got = recorder
            .append(draft("f", json!({"n": n})), &text(&format!("answer {n}")))
            .unwrap();
        assert_eq!(got, n);
    }
    let head = recorder.finish(end()).unwrap();
    (temp, folder, head)
}

fn lines(folder: &Path) -> Vec<String> {
    let bytes = zstd::decode_all(fs::File::open(folder.join(RECORDING_FILE)).unwrap()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn rewrite(folder: &Path, lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let bytes = zstd::encode_all(text.as_bytes(), 3).unwrap();
    fs::write(folder.join(RECORDING_FILE), bytes).unwrap();
}

/// Chains lines anew after an edit, as a forger would.
fn rechain(lines: &mut [String]) {
    for index in 1..lines.len() {
        let previous = sha256_hex(lines[index - 1].as_bytes());
        if index == lines.len() - 1 {
            let mut end: End = serde_json::from_str(&lines[index]).unwrap();
            end.previous = previous;
            lines[index] = serde_json::to_string(&end).unwrap();
        } else {
            let mut entry: Entry = serde_json::from_str(&lines[index]).unwrap();
            entry.previous = previous;
            lines[index] = serde_json::to_string(&entry).unwrap();
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let (_temp, folder, head) = sample();
    let recording = read_with(
        &folder,
        &ReadOptions {
            expected_head: Some(head.clone()),
            ..ReadOptions::default()
        },
    )
    .unwrap();
    assert_eq!(recording.head(), head);
    assert_eq!(recording.header(), &header());
    assert_eq!(recording.entries().len(), 3);
    assert_eq!(recording.end().unwrap().entries, 3);
    assert_eq!(
        recording.reply(&recording.entries()[1]).unwrap(),
        text("answer 2")
    );
    assert_eq!(head, sha256_hex(lines(&folder).last().unwrap().as_bytes()));
}

#[test]
fn answers_are_salted() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a");
    let mut recorder = Recorder::create(&folder, &header()).unwrap();
    for _ in 0..200 {
        recorder
            .append(draft("f", json!({})), &text("same"))
            .unwrap();
    }
    recorder.finish(end()).unwrap();
    let recording = read(&folder).unwrap();
    let digests: std::collections::BTreeSet<_> =
        recording.entries().iter().map(|e| &e.reply).collect();
    assert_eq!(digests.len(), 200);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let (_temp, folder, _) = sample();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join(BLOBS_FOLDER)), 0o700);
    assert_eq!(mode(&folder.join(RECORDING_FILE)), 0o600);
}

#[test]
fn an_attempt_is_never_overwritten() {
    let (_temp, folder, _) = sample();
    let before = fs::read(folder.join(RECORDING_FILE)).unwrap();
    assert!(Recorder::create(&folder, &header()).is_err());
    assert_eq!(before, fs::read(folder.join(RECORDING_FILE)).unwrap());
}

#[test]
fn a_killed_run_leaves_a_readable_prefix() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a");
    let mut recorder = Recorder::create(&folder, &header()).unwrap();
    recorder.append(draft("f", json!({})), &text("1")).unwrap();
    recorder.append(draft("g", json!({})), &text("2")).unwrap();
    drop(recorder);
    // What a kill in the middle of an answer leaves.
    fs::write(folder.join(BLOBS_FOLDER).join("0".repeat(64)), b"torn").unwrap();

    match read(&folder).unwrap_err() {
        RecordError::Unfinished { entries: 2, .. } => {}
        other => panic!("{other}"),
    }
    let indulgent = ReadOptions {
        unfinished: true,
        ..ReadOptions::default()
    };
    let recording = read_with(&folder, &indulgent).unwrap();
    assert!(recording.end().is_none());
    assert_eq!(recording.entries().len(), 2);
    assert_eq!(recording.reply(&recording.entries()[1]).unwrap(), text("2"));
}

#[test]
fn every_cut_of_the_stream_is_a_prefix_or_an_error() {
    let (_temp, folder, _) = sample();
    let path = folder.join(RECORDING_FILE);
    let whole = fs::read(&path).unwrap();
    let indulgent = ReadOptions {
        unfinished: true,
        ..ReadOptions::default()
    };
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(read(&folder).is_err(), "cut at {length}");
        if let Ok(recording) = read_with(&folder, &indulgent) {
            assert!(recording.entries().len() <= 3);
            assert!(recording.end().is_none());
        }
    }
}

#[test]
fn case_boundaries_reach_the_file_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a");
    let mut recorder = Recorder::create(&folder, &header()).unwrap();
    recorder
        .append(
            draft(function::CASES_OPEN, json!({"id": "a"})),
            &Ok(Seen::Nothing),
        )
        .unwrap();
    let indulgent = ReadOptions {
        unfinished: true,
        ..ReadOptions::default()
    };
    // The writer is another thread: ask until it is there, with a patience far above any flush.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match read_with(&folder, &indulgent) {
            Ok(recording) if recording.entries().len() == 1 => break,
            _ => assert!(std::time::Instant::now() < deadline, "never flushed"),
        }
        std::thread::yield_now();
    }
    drop(recorder);
}

#[test]
fn each_kind_of_tampering_has_its_own_error() {
    type Edit = fn(&Path);
    type Expected = fn(&RecordError) -> bool;
    fn edit(folder: &Path, change: impl FnOnce(&mut Vec<String>)) {
        let mut all = lines(folder);
        change(&mut all);
        rewrite(folder, &all);
    }
    fn blob(folder: &Path, index: usize) -> PathBuf {
        let entry: Entry = serde_json::from_str(&lines(folder)[index]).unwrap();
        folder.join(BLOBS_FOLDER).join(entry.reply)
    }
    let table: &[(&str, Edit, Expected)] = &[
        (
            "a word of an entry changed",
            |f| edit(f, |l| l[2] = l[2].replace("\"n\":2", "\"n\":9")),
            |e| matches!(e, RecordError::Chain { line: 4, .. }),
        ),
        (
            "header changed",
            |f| edit(f, |l| l[0] = l[0].replace("1.0.0", "1.0.1")),
            |e| matches!(e, RecordError::Chain { line: 2, .. }),
        ),
        (
            "entry cut",
            |f| edit(f, |l| drop(l.remove(2))),
            |e| {
                matches!(
                    e,
                    RecordError::Sequence {
                        line: 3,
                        expected: 2,
                        found: 3,
                        ..
                    }
                )
            },
        ),
        (
            "entries swapped",
            |f| edit(f, |l| l.swap(2, 3)),
            |e| matches!(e, RecordError::Sequence { line: 3, .. }),
        ),
        (
            "entry doubled",
            |f| edit(f, |l| l.insert(2, l[1].clone())),
            |e| matches!(e, RecordError::Sequence { line: 3, .. }),
        ),
        (
            "end cut",
            |f| edit(f, |l| drop(l.pop())),
            |e| matches!(e, RecordError::Unfinished { entries: 3, .. }),
        ),
        (
            "end doubled",
            |f| edit(f, |l| l.push(l[4].clone())),
            |e| matches!(e, RecordError::AfterEnd { line: 6, .. }),
        ),
        (
            "end miscounts",
            |f| {
                edit(f, |l| {
                    l[4] = l[4].replace("{\"entries\":3", "{\"entries\":4");
                })
            },
            |e| {
                matches!(
                    e,
                    RecordError::Count {
                        counted: 4,
                        found: 3,
                        ..
                    }
                )
            },
        ),
        (
            "header cut",
            |f| edit(f, |l| drop(l.remove(0))),
            |e| {
                matches!(
                    e,
                    RecordError::Line {
                        line: 1,
                        expected: "header",
                        ..
                    }
                )
            },
        ),
        (
            "header twice",
            |f| edit(f, |l| l.insert(1, l[0].clone())),
            |e| matches!(e, RecordError::Line { line: 2, .. }),
        ),
        (
            "unknown field",
            |f| {
                edit(f, |l| {
                    l[1] = l[1].replacen('{', "{\"sequence\":1,\"x\":1,", 1).replacen(
                        "\"x\":1,\"sequence\":1",
                        "\"x\":1",
                        1,
                    )
                })
            },
            |e| {
                matches!(
                    e,
                    RecordError::Line {
                        line: 2,
                        expected: "entry",
                        ..
                    }
                )
            },
        ),
        (
            "an unknown major version",
            |f| {
                edit(f, |l| {
                    l[0] = l[0].replace("\"format\":\"1.2\"", "\"format\":\"2.0\"")
                })
            },
            |e| {
                e.to_string()
                    .contains("recording format 2.0, this engine reads 1.2; use karat 9.8.7")
            },
        ),
        (
            "a newer minor version",
            |f| {
                edit(f, |l| {
                    l[0] = l[0].replace("\"format\":\"1.2\"", "\"format\":\"1.3\"")
                })
            },
            |e| matches!(e, RecordError::Format { .. }),
        ),
        (
            "an answer changed",
            |f| fs::write(blob(f, 1), b"0123456789abcdef{\"Ok\":{\"text\":\"other\"}}").unwrap(),
            |e| matches!(e, RecordError::BlobDigest { .. }),
        ),
        (
            "an answer removed",
            |f| fs::remove_file(blob(f, 2)).unwrap(),
            |e| matches!(e, RecordError::BlobMissing { sequence: 2, .. }),
        ),
        (
            "an answer added",
            |f| fs::write(f.join(BLOBS_FOLDER).join("0".repeat(64)), b"x").unwrap(),
            |e| matches!(e, RecordError::BlobUnreferenced { .. }),
        ),
        (
            "two answers swapped",
            |f| {
                let (a, b) = (blob(f, 1), blob(f, 2));
                let (x, y) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
                fs::write(a, y).unwrap();
                fs::write(b, x).unwrap();
            },
            |e| matches!(e, RecordError::BlobDigest { .. }),
        ),
        (
            "an answer shared",
            |f| {
                edit(f, |l| {
                    let first: Entry = serde_json::from_str(&l[1]).unwrap();
                    let mut second: Entry = serde_json::from_str(&l[2]).unwrap();
                    second.reply = first.reply;
                    l[2] = serde_json::to_string(&second).unwrap();
                    rechain(l);
                })
            },
            |e| matches!(e, RecordError::BlobShared { sequence: 2, .. }),
        ),
        (
            "an entry that contradicts its answer",
            |f| {
                edit(f, |l| {
                    l[1] = l[1].replace("\"result\":\"ok\"", "\"result\":\"answered\"");
                    rechain(l);
                })
            },
            |e| {
                matches!(
                    e,
                    RecordError::Contradiction {
                        sequence: 1,
                        field: "result",
                        ..
                    }
                )
            },
        ),
        (
            "a file too many",
            |f| fs::write(f.join("notes"), b"x").unwrap(),
            |e| matches!(e, RecordError::Unexpected { .. }),
        ),
        (
            "a blob with another name",
            |f| fs::write(f.join(BLOBS_FOLDER).join("x"), b"x").unwrap(),
            |e| matches!(e, RecordError::Unexpected { .. }),
        ),
        (
            "bytes behind the stream",
            |f| {
                let path = f.join(RECORDING_FILE);
                let mut bytes = fs::read(&path).unwrap();
                bytes.extend_from_slice(b"x");
                fs::write(path, bytes).unwrap();
            },
            |e| matches!(e, RecordError::Trailing { .. }),
        ),
        (
            "a second stream behind the first",
            |f| {
                let path = f.join(RECORDING_FILE);
                let mut bytes = fs::read(&path).unwrap();
                bytes.extend(zstd::encode_all(&b"hidden"[..], 3).unwrap());
                fs::write(path, bytes).unwrap();
            },
            |e| matches!(e, RecordError::Trailing { .. }),
        ),
    ];
    for (name, change, expected) in table {
        let (_temp, folder, _) = sample();
        change(&folder);
        let error = read(&folder).expect_err(name);
        assert!(expected(&error), "{name}: {error} ({error:?})");
    }
}

#[test]
fn an_edited_and_rechained_recording_is_found_by_its_head() {
    let (_temp, folder, head) = sample();
    let mut all = lines(&folder);
    all[2] = all[2].replace("\"n\":2", "\"n\":9");
    rechain(&mut all);
    rewrite(&folder, &all);
    assert!(read(&folder).is_ok(), "inside, everything fits");
    let error = read_with(
        &folder,
        &ReadOptions {
            expected_head: Some(head),
            ..ReadOptions::default()
        },
    )
    .unwrap_err();
    assert!(matches!(error, RecordError::Head { .. }), "{error}");
}

#[test]
fn a_changed_byte_is_found() {
    let (_temp, folder, head) = sample();
    let options = ReadOptions {
        expected_head: Some(head),
        ..ReadOptions::default()
    };
    let original = read_with(&folder, &options).unwrap();
    // The content: any byte counts. Every seventh is tried, so that each field of each line is hit and the test stays quick.
    let text = lines(&folder).join("\n") + "\n";
    for index in (0..text.len()).step_by(7) {
        let mut bytes = text.clone().into_bytes();
        bytes[index] ^= 1;
        fs::write(
            folder.join(RECORDING_FILE),
            zstd::encode_all(&bytes[..], 1).unwrap(),
        )
        .unwrap();
        assert!(read_with(&folder, &options).is_err(), "byte {index}");
    }
    // The container: an error, or the very same content.
    rewrite(&folder, &lines_of(&text));
    let container = fs::read(folder.join(RECORDING_FILE)).unwrap();
    for index in (0..container.len()).step_by(3) {
        let mut bytes = container.clone();
        bytes[index] ^= 0x10;
        fs::write(folder.join(RECORDING_FILE), &bytes).unwrap();
        if let Ok(read) = read_with(&folder, &options) {
            assert_eq!(read.entries(), original.entries(), "byte {index}");
        }
    }
    fs::write(folder.join(RECORDING_FILE), &container).unwrap();
    for entry in original.entries() {
        let path = folder.join(BLOBS_FOLDER).join(&entry.reply);
        let whole = fs::read(&path).unwrap();
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(read_with(&folder, &options).is_err());
        }
        fs::write(&path, whole).unwrap();
    }
    assert!(read_with(&folder, &options).is_ok());
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[cfg(unix)]
#[test]
fn symlinks_are_not_followed() {
    use std::os::unix::fs::symlink;
    let (_temp, folder, _) = sample();
    let entry: Entry = serde_json::from_str(&lines(&folder)[1]).unwrap();
    let path = folder.join(BLOBS_FOLDER).join(entry.reply);
    let elsewhere = folder.parent().unwrap().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(matches!(
        read(&folder).unwrap_err(),
        RecordError::Unexpected { .. }
    ));

    let (_temp, folder, _) = sample();
    let elsewhere = folder.parent().unwrap().join("recording");
    fs::rename(folder.join(RECORDING_FILE), &elsewhere).unwrap();
    symlink(&elsewhere, folder.join(RECORDING_FILE)).unwrap();
    assert!(matches!(
        read(&folder).unwrap_err(),
        RecordError::Unexpected { .. }
    ));
}

#[test]
fn bombs_are_refused_before_they_unfold() {
    let (_temp, folder, _) = sample();
    let path = folder.join(RECORDING_FILE);
    let one_line = zstd::encode_all(&vec![b'a'; LINE_MAX + 2][..], 3).unwrap();
    assert!(one_line.len() < 4096);
    fs::write(&path, one_line).unwrap();
    assert!(matches!(
        read(&folder).unwrap_err(),
        RecordError::TooLarge { .. }
    ));
}

#[test]
fn a_copy_may_withhold_answers_and_says_so() {
    let (_temp, folder, head) = sample();
    let recording = read(&folder).unwrap();
    let second = recording.entries()[1].clone();
    fs::remove_file(folder.join(BLOBS_FOLDER).join(&second.reply)).unwrap();
    let copy = read_with(
        &folder,
        &ReadOptions {
            expected_head: Some(head),
            withheld: true,
            ..ReadOptions::default()
        },
    )
    .unwrap();
    assert_eq!(copy.withheld().iter().copied().collect::<Vec<_>>(), [2]);
    let mut player = Player::strict(copy);
    assert!(player.next("f", &json!({"n": 1})).is_ok());
    assert!(matches!(
        player.next("f", &json!({"n": 2})).unwrap_err(),
        PlayError::Record(RecordError::Withheld { sequence: 2, .. })
    ));
}

#[test]
fn the_recorder_writes_nothing_that_the_reader_refuses() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a");
    let mut recorder = Recorder::create(&folder, &header()).unwrap();
    let huge = "x".repeat(LINE_MAX + 1);
    assert!(matches!(
        recorder
            .append(draft("f", json!({"huge": huge})), &text(""))
            .unwrap_err(),
        RecordError::TooLarge { .. }
    ));
    recorder.append(draft("f", json!({})), &text("1")).unwrap();
    recorder.finish(end()).unwrap();
    assert_eq!(read(&folder).unwrap().entries().len(), 1);
}

#[test]
fn a_writer_that_fails_stops_the_attempt() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a");
    let mut recorder = Recorder::create(&folder, &header()).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let mut result = Ok(0);
    for _ in 0..10_000 {
        result = recorder.append(draft("f", json!({})), &text("1"));
        if result.is_err() {
            break;
        }
    }
    assert!(matches!(result.unwrap_err(), RecordError::Io { .. }));
    assert!(recorder.append(draft("f", json!({})), &text("1")).is_err());
}

#[test]
fn without_answers_the_chain_still_holds() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a");
    let mut recorder = Recorder::create_with(&folder, &header(), BlobSink::Discard).unwrap();
    recorder.append(draft("f", json!({})), &text("1")).unwrap();
    recorder.finish(end()).unwrap();
    assert!(matches!(
        read(&folder).unwrap_err(),
        RecordError::BlobMissing { .. }
    ));
    let options = ReadOptions {
        withheld: true,
        ..ReadOptions::default()
    };
    assert_eq!(read_with(&folder, &options).unwrap().withheld().len(), 1);
}

#[test]
fn strict_replay_is_the_same_conversation_or_none() {
    let (_temp, folder, _) = sample();
    let mut player = Player::open(&folder).unwrap();
    let played = player.next("f", &json!({"n": 1})).unwrap();
    assert_eq!(played.reply, text("answer 1"));
    assert_eq!(played.entry.done_ms, 2);
    let error = player.next("f", &json!({"n": 3})).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains("call 2 differs"), "{shown}");
    assert!(shown.contains("recorded: f {\"n\":2}"), "{shown}");
    assert!(shown.contains("called:   f {\"n\":3}"), "{shown}");
    assert!(player.next("f", &json!({"n": 2})).is_ok());
    assert_eq!(player.remaining(), 1);
    assert!(matches!(
        player.finish().unwrap_err(),
        Divergence::Unused {
            count: 1,
            sequence: 3,
            ..
        }
    ));

    let mut player = Player::open(&folder).unwrap();
    for n in 1..=3 {
        player.next("f", &json!({"n": n})).unwrap();
    }
    assert!(matches!(
        player.next("f", &json!({"n": 4})).unwrap_err(),
        PlayError::Divergence(Divergence::Beyond { sequence: 4, .. })
    ));
    assert_eq!(player.finish().unwrap(), Vec::<u64>::new());
}

#[test]
fn fixture_replay_goes_by_request() {
    let same = |n: u32| (draft("f", json!({"a": 1, "b": 2})), text(&n.to_string()));
    let other = (draft("g", json!({})), text("g"));
    let recording = fixture::build(header(), vec![same(1), other, same(2)], Some(end())).unwrap();
    let mut player = Player::fixture(recording);
    let arguments: Value = serde_json::from_str(r#"{"b": 2, "a": 1}"#).unwrap();
    assert_eq!(player.next("f", &arguments).unwrap().reply, text("1"));
    assert_eq!(player.next("f", &arguments).unwrap().reply, text("2"));
    let spent = player.next("f", &arguments).unwrap_err().to_string();
    assert!(spent.contains("all 2 were given"), "{spent}");
    let unknown = player.next("f", &json!({"a": 2})).unwrap_err().to_string();
    assert!(
        unknown.contains("nearest:  f {\"a\":1,\"b\":2}"),
        "{unknown}"
    );
    assert_eq!(player.finish().unwrap(), [2]);
}

#[test]
fn a_fixture_is_readable_and_loses_nothing() {
    let object = json!({"kind": "Pod", "metadata": {"name": "a"}}).to_string();
    let replies: Vec<Reply> = vec![
        Ok(Seen::Nothing),
        text(&object),
        text("{ not compact: }"),
        text("{ \"spaced\": 1 }"),
        Ok(Seen::Page {
            objects: vec![object.clone(), "[1]".to_owned()],
            position: "7".to_owned(),
        }),
        Ok(Seen::Event {
            kind: "added".to_owned(),
            text: object.clone(),
        }),
        Ok(Seen::Ready(vec![1, 2])),
        Ok(Seen::Number(9)),
        Err(Failure::Expired),
        Err(Failure::Answered {
            code: 404,
            reason: "NotFound".to_owned(),
            message: "gone \"x\"".to_owned(),
            body: object.clone(),
        }),
    ];
    let calls: Vec<_> = replies
        .iter()
        .enumerate()
        .map(|(n, reply)| {
            let mut call = draft("f", json!({"n": n, "manifest": object}));
            call.facts.live = true;
            (call, reply.clone())
        })
        .collect();
    let recording = fixture::build(header(), calls, Some(end())).unwrap();
    let text = fixture::export(&recording).unwrap();
    assert!(text.contains(r#"{"$json":{"kind":"Pod""#), "{text}");
    assert!(!text.contains("\\\"kind"), "{text}");
    let again = fixture::load(&format!("// a comment\n\n{text}")).unwrap();
    assert_eq!(again.header(), recording.header());
    assert_eq!(again.entries(), recording.entries());
    assert_eq!(again.end(), recording.end());
    assert_eq!(again.head(), recording.head());
    for (entry, reply) in again.entries().iter().zip(&replies) {
        assert_eq!(again.reply(entry).unwrap(), *reply);
    }
}

#[test]
fn a_broken_fixture_names_its_line() {
    let recording = fixture::build(header(), Vec::new(), Some(end())).unwrap();
    let good = fixture::export(&recording).unwrap();
    let (first, last) = good.split_once('\n').unwrap();
    for (text, line) in [
        (String::new(), 1),
        (last.to_owned(), 1),
        (format!("{first}\n{first}\n"), 2),
        (format!("{first}\n{last}{last}"), 3),
        (format!("{first}\n{{\"call\":{{}}}}\n"), 2),
        (
            format!(
                "{first}\n{{\"call\":{{\"function\":\"f\",\"arguments\":{{}},\"reply\":{{\"Ok\":{{\"text\":{{\"$json\":{{}},\"x\":1}}}}}}}}}}\n"
            ),
            2,
        ),
        (first.replace("\"format\":\"1.2\"", "\"format\":\"3.0\""), 1),
    ] {
        match fixture::load(&text).unwrap_err() {
            RecordError::Fixture { line: found, .. } => assert_eq!(found, line, "{text}"),
            other => panic!("{other}"),
        }
    }
}
