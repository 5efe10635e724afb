use super::*;

fn object(name: &str) -> ObjectRef {
    ObjectRef {
        group: "resource.k8s.io".into(),
        version: "v1".into(),
        resource: "deviceclasses".into(),
        namespace: String::new(),
        name: name.into(),
    }
}

fn head() -> JournalHead {
    JournalHead {
        run: "abcdefgh".into(),
        key: RunKey::generate().unwrap(),
        cluster: "uid-of-kube-system".into(),
        server: "https://127.0.0.1:6443".into(),
        started: "2026-08-01T00:00:00Z".into(),
    }
}

fn names(record: &JournalRecord) -> Vec<(String, Option<String>)> {
    record
        .ledger
        .entries()
        .into_iter()
        .map(|entry| (entry.object.name, entry.uid))
        .collect()
}

#[test]
fn what_was_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let head = head();
    let journal = Journal::create(&path, head.clone()).unwrap();
    journal.intend(&object("a"), "dra-support").unwrap();
    journal
        .created(&object("a"), "dra-support", "uid-a")
        .unwrap();
    journal.intend(&object("b"), "dra-support").unwrap();
    journal.intend(&object("c"), "").unwrap();
    journal.created(&object("c"), "", "uid-c").unwrap();
    journal.gone(&object("c")).unwrap();

    let record = read(&path).unwrap();
    assert_eq!(record.head, head);
    assert!(!record.torn && !record.closed);
    assert_eq!(
        names(&record),
        [("a".into(), Some("uid-a".into())), ("b".into(), None)]
    );
    assert_eq!(record.ledger.entries()[0].probe, "dra-support");
    assert!(record.ledger.ever_created("uid-c"));
    assert_eq!(record.ledger.cluster_objects(), 2);
    assert_eq!(
        record
            .ledger
            .uid("dra-support", "resource.k8s.io", "deviceclasses", "", "a"),
        Some("uid-a".into())
    );
    assert_eq!(
        record
            .ledger
            .uid("other", "resource.k8s.io", "deviceclasses", "", "a"),
        None
    );
    journal.gone(&object("a")).unwrap();
    journal.gone(&object("b")).unwrap();
    journal.closed().unwrap();
    assert!(read(&path).unwrap().closed);
}

#[cfg(unix)]
#[test]
fn others_cannot_read_the_key_and_a_file_is_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    Journal::create(&path, head()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(
        Journal::create(&path, head()),
        Err(JournalError::Io { .. })
    ));
}

#[test]
fn a_cut_anywhere_loses_at_most_the_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::create(&path, head()).unwrap();
    journal.intend(&object("a"), "p").unwrap();
    journal.created(&object("a"), "p", "uid-a").unwrap();
    journal.intend(&object("b"), "p").unwrap();
    let whole = std::fs::read(&path).unwrap();
    let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    for cut in first..=whole.len() {
        let copy = folder.path().join(format!("cut-{cut}"));
        std::fs::write(&copy, &whole[..cut]).unwrap();
        let record = read(&copy).unwrap();
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
        assert_eq!(record.torn, !whole[..cut].ends_with(b"\n"), "cut {cut}");
        assert_eq!(record.ledger.entries().len(), [0, 0, 1, 1, 2][lines]);

        // After a resume the journal is whole again and goes on.
        let resumed = Journal::resume(&copy).unwrap();
        resumed.intend(&object("z"), "p").unwrap();
        if lines >= 2 {
            resumed.gone(&object("a")).unwrap();
        }
        let again = read(&copy).unwrap();
        assert!(!again.torn);
        assert!(names(&again).iter().any(|(name, _)| name == "z"));
        assert!(!names(&again).iter().any(|(name, _)| name == "a"));
    }
}

#[test]
fn damage_in_the_middle_is_an_error_that_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::create(&path, head()).unwrap();
    for name in ["a", "b", "c"] {
        journal.intend(&object(name), "p").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let spoil = |number: usize, with: &str| {
        let mut lines = lines.clone();
        lines[number - 1] = with;
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        read(&path).unwrap_err()
    };
    for bad in [
        "",
        "{",
        "{\"op\":\"intend\",\"id\":2}",
        "{\"op\":\"gone\",\"id\":77}",
    ] {
        match spoil(3, bad) {
            JournalError::Damaged { line, .. } => assert_eq!(line, 3, "{bad}"),
            other => panic!("{other}"),
        }
    }
    assert!(matches!(
        spoil(4, lines[1]),
        JournalError::Damaged { line: 4, .. }
    ));
    let other = lines[0].replace("\"1.0\"", "\"2.0\"");
    assert!(matches!(spoil(1, &other), JournalError::Format { .. }));
    assert!(matches!(
        spoil(1, lines[2]),
        JournalError::Damaged { line: 1, .. }
    ));
}

#[test]
fn an_empty_file_and_an_unannounced_object_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty");
    std::fs::write(&path, "").unwrap();
    assert!(matches!(read(&path), Err(JournalError::Damaged { .. })));
    let journal = Journal::create(&folder.path().join("j"), head()).unwrap();
    assert!(matches!(
        journal.gone(&object("never")),
        Err(JournalError::Unannounced { .. })
    ));
}

#[test]
fn many_threads_share_one_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::create(&path, head()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let journal = journal.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    let object = object(&format!("t{thread}-{n}"));
                    journal.intend(&object, "p").unwrap();
                    journal
                        .created(&object, "p", &format!("uid-{thread}-{n}"))
                        .unwrap();
                }
            });
        }
    });
    let record = read(&path).unwrap();
    assert_eq!(record.ledger.entries().len(), 80);
    assert!(record.ledger.entries().iter().all(|e| e.uid.is_some()));
}

#[test]
fn creating_a_name_twice_never_forgets_the_first_object() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::create(&path, head()).unwrap();
    journal.intend(&object("a"), "p").unwrap();
    journal.created(&object("a"), "p", "uid-a").unwrap();
    for probe in ["p", "q"] {
        journal.intend(&object("a"), probe).unwrap();
        journal.refused(&object("a"), probe).unwrap();
    }
    let entry = journal.ledger().entry(&object("a")).unwrap();
    assert_eq!(
        (entry.probe.as_str(), entry.uid.as_deref()),
        ("p", Some("uid-a"))
    );

    // A refused first attempt leaves nothing; the loser of a race withdraws nothing of the winner's.
    journal.intend(&object("b"), "p").unwrap();
    journal.refused(&object("b"), "p").unwrap();
    assert_eq!(journal.ledger().entry(&object("b")), None);
    journal.intend(&object("c"), "p").unwrap();
    journal.intend(&object("c"), "q").unwrap();
    journal.refused(&object("c"), "q").unwrap();
    journal.refused(&object("c"), "p").unwrap();
    journal.created(&object("c"), "q", "uid-c").unwrap();
    let record = read(&path).unwrap();
    assert_eq!(
        record
            .ledger
            .uid("q", "resource.k8s.io", "deviceclasses", "", "c")
            .unwrap(),
        "uid-c"
    );
    assert_eq!(record.ledger.entries().len(), 2);
}
