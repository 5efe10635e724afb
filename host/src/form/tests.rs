use super::*;

const SMALL: &str = "# A form of two.\nmetadata:\n  kubernetesVersion: v1.36\n  platformName: \"[Platform Name]\"\nspec:\n  security:\n    - id: first_one\n      description: \"The first: invented.\"\n      level: MUST\n      status: \"\" # one of four\n      evidence: []\n      notes: \"\"\n  operator:\n    - id: second\n      description: >-\n        The second,\n        folded.\n      level: SHOULD\n      status: \"\"\n      evidence: []\n      notes: \"\"\n";

fn form(old: &str, new: &str) -> Result<Form, FormError> {
    assert!(SMALL.contains(old), "{old}");
    read_form("f.yaml", &SMALL.replacen(old, new, 1))
}

#[test]
fn a_form_reads_with_its_lines() {
    let form = read_form("f.yaml", SMALL).unwrap();
    assert_eq!(form.version, "1.36");
    let [first, second] = &form.requirements[..] else {
        panic!("{form:?}");
    };
    assert_eq!(
        (first.id.as_str(), first.level, first.line),
        ("first_one", Level::Must, 7)
    );
    assert_eq!(first.description, "The first: invented.");
    assert_eq!(
        (second.category.as_str(), second.level),
        ("operator", Level::Should)
    );
    assert_eq!(second.description, "The second, folded.");
}

#[test]
fn broken_forms_say_file_line_and_what_to_do() {
    for (old, new, line, says) in [
        (
            "level: MUST",
            "level: MAY",
            9,
            "`MAY`; expected MUST or SHOULD",
        ),
        ("id: second", "id: first_one", 14, "a second time"),
        ("id: second", "id: Second", 14, "`Second`"),
        ("id: second", "id: \"a b\"", 14, "`a b`"),
        ("\"The first: invented.\"", "\"\"", 7, "no description"),
        (
            "\"The first: invented.\"",
            "The first: invented.",
            8,
            "no YAML",
        ),
        (
            "kubernetesVersion: v1.36",
            "kubernetesVersion: 1.36",
            3,
            "no text",
        ),
        (
            "kubernetesVersion: v1.36",
            "kubernetesVersion: soon",
            3,
            "`soon`",
        ),
        (
            "  kubernetesVersion: v1.36\n",
            "",
            1,
            "`metadata.kubernetesVersion` is missing",
        ),
        ("      level: MUST", "\t  level: MUST", 9, "no YAML"),
        (
            "  security:",
            "  security: 3\n  x:",
            6,
            "a number stands here",
        ),
        ("evidence: []", "evidence: yes", 11, "a text stands here"),
        ("evidence: []", "evidence: [a]", 7, "filled in"),
        ("notes: \"\"", "nots: \"\"", 12, "`nots` is unknown"),
        (
            "metadata:",
            "spec: {}\nmetadata:",
            6,
            "`spec` stands here a second time",
        ),
        ("level: MUST", "level: *must", 9, "no YAML"),
        ("status: \"\"", "status: &a \"\"", 10, "an anchor"),
        (
            "  operator:",
            "  ? [a]\n  : b\n  operator:",
            13,
            "a key is no word",
        ),
    ] {
        let error = form(old, new).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(says), "{new}: {text}");
        assert!(
            text.starts_with(&format!("f.yaml:{line}: ")),
            "{new}: {text}"
        );
        assert!(
            !error.hint.is_empty() && !error.hint.ends_with('.'),
            "{error:?}"
        );
    }
    let tab = form("      level: MUST", "\t  level: MUST").unwrap_err();
    assert!(tab.hint.contains("tabs"), "{tab:?}");
    assert!(read_form("f.yaml", "metadata:\n  kubernetesVersion: v1.36\nspec:\n").is_err());
    assert!(read_form("f.yaml", "metadata:\n  kubernetesVersion: v1.36\n").is_err());
}

#[test]
fn bombs_are_refused_before_they_grow() {
    let mut bomb = String::from("a0: &a0 [x, x]\n");
    for n in 1..40 {
        bomb += &format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1);
    }
    for text in [
        bomb,
        "[".repeat(500_000),
        "{a: ".repeat(200_000),
        "- ".repeat(400_000),
        "- x\n".repeat(200_000),
        "x".repeat(10 << 20),
        "&a ".repeat(100_000),
        "? ".repeat(300_000),
    ] {
        let error = read_product("p.yaml", &text).unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }
}

#[test]
fn files_are_read_with_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.yaml");
    std::fs::write(&path, vec![b'a'; 2 << 20]).unwrap();
    assert!(
        read_file(&path, "f")
            .unwrap_err()
            .what
            .contains("more than 1 MB")
    );
    std::fs::write(&path, b"a: b\n\xff").unwrap();
    let error = read_file(&path, "f").unwrap_err();
    assert_eq!((error.line, error.what.as_str()), (2, "a byte is no UTF-8"));
    assert!(
        read_file(folder.path(), "f")
            .unwrap_err()
            .what
            .contains("no file")
    );
    assert!(read_file(&folder.path().join("no"), "f").is_err());
    std::fs::write(&path, SMALL).unwrap();
    assert_eq!(read_file(&path, "f").unwrap(), SMALL);
}

#[test]
fn plain_words_are_what_the_programme_takes_them_for() {
    for (text, noun) in [
        ("1.34", "a number"),
        ("-3", "a number"),
        ("0x1F", "a number"),
        (".inf", "a number"),
        ("1e3", "a number"),
        ("true", "a boolean"),
        ("2026-01-31", "a date"),
        ("2026-01-31T10:00:00Z", "a date"),
        ("1.34.2", "a text"),
        ("v1.34", "a text"),
        ("yes", "a text"),
        ("inf", "a text"),
        ("2026-01-31x", "a text"),
        ("", "a text"),
    ] {
        assert_eq!(tree::plain_noun(text), noun, "{text}");
    }
}

#[test]
fn versions_are_cut_to_the_minor() {
    for (text, minor) in [
        ("v1.36", Some("1.36")),
        ("1.36", Some("1.36")),
        ("v1.36.2-gke.100", Some("1.36")),
        ("v1", None),
        ("v1.x", None),
        ("v1.36-rc", None),
        ("v1.36.x", None),
        ("", None),
        ("v1.99999", None),
    ] {
        assert_eq!(minor_version(text).as_deref(), minor, "{text}");
    }
}
