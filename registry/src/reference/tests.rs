use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_digest_survives_text_and_json() {
    let digest: Digest = EMPTY.parse().unwrap();
    assert_eq!(digest, Digest::of(b""));
    assert_eq!(digest.to_string(), EMPTY);
    assert_eq!(
        serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(),
        digest
    );
}

#[test]
fn malformed_digests_are_refused() {
    let hex = &EMPTY[7..];
    for (text, reason) in [
        (hex.to_owned(), "algorithm is missing"),
        (format!("sha512:{hex}"), "must be sha256"),
        (format!("SHA256:{hex}"), "must be sha256"),
        (format!("sha256:{}", &hex[1..]), "exactly 64 digits"),
        (format!("sha256:{hex}0"), "exactly 64 digits"),
        (format!("sha256:{}", hex.to_uppercase()), "only 0-9 and a-f"),
        (format!("sha256:../../{}", &hex[6..]), "only 0-9 and a-f"),
        (format!("sha256: {}", &hex[1..]), "only 0-9 and a-f"),
        (format!("sha256:{}é", &hex[2..]), "only 0-9 and a-f"),
        (String::new(), "algorithm is missing"),
    ] {
        let error = text.parse::<Digest>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(
            error.contains("64 hexadecimal digits in lower case"),
            "{error}"
        );
    }
}

#[test]
fn messages_show_hostile_text_shortened_and_escaped() {
    let error = format!("\u{1b}[31m{}", "a".repeat(5000))
        .parse::<Digest>()
        .unwrap_err()
        .to_string();
    assert!(error.contains("\\u{1b}"), "{error}");
    assert!(!error.contains('\u{1b}'));
    assert!(error.len() < 400, "{}", error.len());
}

#[test]
fn a_verifier_tells_long_short_and_changed_apart() {
    let verifier = || Verifier::new(Digest::of(b"hello"), 5);

    let mut long = verifier();
    long.update(b"hello").unwrap();
    assert_eq!(long.update(b"!"), Err(VerifyError::TooLong { expected: 5 }));
    assert_eq!(long.finish(), Err(VerifyError::TooLong { expected: 5 }));

    let mut short = verifier();
    short.update(b"hell").unwrap();
    assert_eq!(
        short.finish(),
        Err(VerifyError::TooShort {
            expected: 5,
            actual: 4
        })
    );

    let mut changed = verifier();
    changed.update(b"hellO").unwrap();
    assert!(matches!(
        changed.finish(),
        Err(VerifyError::Mismatch { .. })
    ));
}

#[test]
fn references_keep_their_text() {
    for text in [
        "oci://ghcr.io/example/dra-support:0.1.0",
        "oci://127.0.0.1:5000/probes/a__b.c---d",
        "oci://[::1]:5000/probe:latest",
        &format!("oci://localhost/probe@{EMPTY}"),
        &format!("oci://localhost/probe:1.0.0@{EMPTY}"),
        "layout:probes",
        "layout:/opt/a#b/probes#dra-support:0.1.0",
        "dra-support",
        "vendor.example/name:1.2.0-rc.1",
        &format!("dra_support@{EMPTY}"),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
    }
}

#[test]
fn references_are_told_apart() {
    let parse = |text: &str| text.parse::<Reference>().unwrap();
    assert_eq!(
        parse("oci://[::1]:5000/a/b:v1"),
        Reference::Registry(RegistryReference {
            registry: "[::1]:5000".to_owned(),
            repository: "a/b".to_owned(),
            tag: Some("v1".to_owned()),
            digest: None,
        })
    );
    for path in [".", "..", "./probes", "../probes", "/opt/probes"] {
        assert_eq!(
            parse(path),
            Reference::Layout {
                path: path.into(),
                component: None
            }
        );
    }
    assert_eq!(
        parse("./probes#a:1.0.0"),
        Reference::Layout {
            path: "./probes".into(),
            component: Some(NamedReference {
                name: "a".to_owned(),
                version: Some(Version::new(1, 0, 0)),
                digest: None
            }),
        }
    );
    // A name with a slash is still a name: only a leading dot or slash makes a path.
    assert!(matches!(parse("probes/a"), Reference::Named(_)));
}

#[test]
fn malformed_references_are_refused() {
    for (text, reason) in [
        ("", "it is empty"),
        ("oci://ghcr.io", "repository is missing"),
        ("oci://ghcr.io/", "each part of the repository"),
        ("oci://ghcr.io/a/../b", "each part of the repository"),
        ("oci://ghcr.io/a//b", "each part of the repository"),
        ("oci://ghcr.io/Upper", "each part of the repository"),
        ("oci://ghcr.io/a%2fb", "each part of the repository"),
        ("oci://user:secret@ghcr.io/a", "not a digest"),
        ("oci:///a", "registry must be a host"),
        ("oci://gh cr.io/a", "registry must be a host"),
        ("oci://ghcr.io:+80/a", "registry must be a host"),
        ("oci://ghcr.io:0/a", "registry must be a host"),
        ("oci://ghcr.io:99999/a", "registry must be a host"),
        ("oci://[::1/a", "registry must be a host"),
        ("oci://[zz]/a", "registry must be a host"),
        ("oci://ghcr.io/a:", "a tag has"),
        ("oci://ghcr.io/a:-x", "a tag has"),
        ("oci://ghcr.io/a@sha256:abc", "64 digits"),
        ("https://ghcr.io/a", "only scheme is oci"),
        ("layout:", "folder is missing"),
        ("./probes#../x", "not a component name"),
        ("a\nb", "control character"),
        ("-a", "not a component name"),
        ("a..b", "not a component name"),
        ("a:latest", "not a version"),
        ("a:1.0.0+build", "build metadata"),
        ("a:01.0.0", "not a version"),
    ] {
        let error = text.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let long = format!("./{}", "a".repeat(MAX_REFERENCE_LENGTH));
    assert!(
        long.parse::<Reference>()
            .unwrap_err()
            .to_string()
            .contains("longer than 1024")
    );
}

#[test]
fn images_are_named_as_everywhere() {
    let digest = format!("@sha256:{}", "ab".repeat(32));
    for (text, name, host) in [
        (
            "busybox",
            "docker.io/library/busybox",
            "registry-1.docker.io",
        ),
        ("team/app:1", "docker.io/team/app:1", "registry-1.docker.io"),
        (
            "docker.io/busybox",
            "docker.io/library/busybox",
            "registry-1.docker.io",
        ),
        (
            "registry.k8s.io/pause",
            "registry.k8s.io/pause",
            "registry.k8s.io",
        ),
        ("localhost/x", "localhost/x", "localhost"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000"),
    ] {
        let image = RegistryReference::image(&format!("{text}{digest}")).unwrap();
        assert_eq!(image.name(), format!("{name}{digest}"), "{text}");
        assert_eq!(image.host(), host, "{text}");
    }
    for text in [
        "",
        "/",
        "a.b/",
        "user@r.example/x",
        "r.example/X",
        "r.example/../x",
        "a b/c",
    ] {
        assert!(RegistryReference::image(text).is_err(), "{text}");
    }
}
