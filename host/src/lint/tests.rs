//! One table of what each rule refuses and of the harmless neighbour that it lets pass. A rule without a row fails the test.

use super::*;
use crate::form::read_form;
use std::fmt::Write as _;

const LOG: &str = "=== RUN   TestSecureAcceleratorAccess\n\
    === RUN   TestSecureAcceleratorAccess/Positive\n    util_test.go:12: fine\n\
    --- PASS: TestSecureAcceleratorAccess (2.10s)\n    --- PASS: TestSecureAcceleratorAccess/Positive (2.00s)\n\
    === RUN   TestGangScheduling\n--- PASS: TestGangScheduling (4.75s)\n\
    === RUN   TestAcceleratorClusterAutoscaling\n--- PASS: TestAcceleratorClusterAutoscaling (60.00s)\n\
    PASS\nok  \texample.test/ai\t67.1s\n";

const JUNIT: &str = "<?xml version=\"1.0\"?>\n<testsuites>\n <testsuite name=\"ai\" timestamp=\"2026-10-02T10:00:00Z\">\n\
    <properties><property name=\"cluster.uid\" value=\"11111111-1111-4111-8111-111111111111\"/></properties>\n\
    <testcase name=\"TestGangScheduling\" time=\"4.75\"></testcase>\n\
    <testcase name=\"TestOther\" time=\"1\"><skipped message=\"a &lt; b\"/></testcase>\n </testsuite>\n</testsuites>\n";

const JSON: &str = r#"{"Time":"2026-10-02T10:00:00Z","Action":"start","Package":"p"}
{"Time":"2026-10-02T10:00:00Z","Action":"run","Package":"p","Test":"TestGangScheduling"}
{"Time":"2026-10-02T10:00:09Z","Action":"pass","Package":"p","Test":"TestGangScheduling","Elapsed":9}
{"Time":"2026-10-02T10:00:09Z","Action":"pass","Package":"p","Elapsed":9}
"#;

/// A change to a folder in which nothing is wrong.
enum Edit {
    /// In PRODUCT.yaml, once; it must be there.
    Text(&'static str, String),
    File(&'static str, String),
    Remove(&'static str),
    Link(&'static str, &'static str),
    /// The folder lies below this one in place of `v1.37`.
    Above(&'static str),
    /// The official form is given, after a replacement in it.
    Form(&'static str, &'static str),
}

use Edit::{Above, File, Form as WithForm, Link, Remove, Text as In};

fn text(old: &'static str, new: &str) -> Edit {
    In(old, new.to_owned())
}

fn file(path: &'static str, content: &str) -> Edit {
    File(path, content.to_owned())
}

fn entries(filled: bool) -> String {
    let mut out = String::from("spec:\n");
    let mut category = "";
    for requirement in catalog::REQUIREMENTS {
        let level = requirement.level("1.37").unwrap();
        if level == Level::Absent {
            continue;
        }
        if category != requirement.category.key() {
            category = requirement.category.key();
            writeln!(out, "  {category}:").unwrap();
        }
        let id = requirement.id;
        let evidence = match id {
            "gang_scheduling" | "secure_accelerator_access" | "cluster_autoscaling" => "e2e.log",
            _ => "shown.md",
        };
        let (status, evidence) = match (filled, level) {
            (true, Level::Must) => ("Implemented", format!("[\"{evidence}\"]")),
            _ => ("", "[]".to_owned()),
        };
        write!(
            out,
            "    - id: {id}\n      description: \"Invented text of {id}.\"\n      level: {level}\n      status: \"{status}\"\n      evidence: {evidence}\n      notes: \"notes of {id}\"\n"
        )
        .unwrap();
    }
    out
}

fn product() -> String {
    format!(
        "metadata:\n  kubernetesVersion: v1.37\n  platformName: \"Acme\"\n  platformVersion: \"7.1\"\n  vendorName: \"Acme Inc.\"\n  \
         websiteUrl: \"https://acme.example\"\n  repoUrl: \"https://acme.example/repo\"\n  documentationUrl: \"https://acme.example/docs\"\n  \
         productLogoUrl: \"https://acme.example/logo.SVG\"\n  description: \"A platform.\"\n  contactEmailAddress: \"a@acme.example\"\n  \
         k8sConformanceUrl: \"https://github.com/cncf/k8s-conformance/tree/master/v1.37/acme\"\n{}",
        entries(true)
    )
}

fn official() -> String {
    format!("metadata:\n  kubernetesVersion: v1.37\n{}", entries(false))
}

struct Folder {
    _home: tempfile::TempDir,
    path: PathBuf,
    form: Option<Form>,
}

fn folder(edits: &[Edit]) -> Folder {
    let home = tempfile::tempdir().unwrap();
    let above = edits.iter().find_map(|edit| match edit {
        Above(name) => Some(*name),
        _ => None,
    });
    let path = home.path().join(above.unwrap_or("v1.37")).join("acme");
    std::fs::create_dir_all(&path).unwrap();
    let mut yaml = product();
    let put = |name: &str, content: &str| {
        let at = path.join(name);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, content).unwrap();
    };
    put("shown.md", "how it was shown");
    put("e2e.log", LOG);
    std::fs::write(home.path().join("outside.md"), "not of the product").unwrap();
    let mut form = None;
    for edit in edits {
        match edit {
            In(old, new) => {
                assert!(yaml.contains(old), "`{old}` is not in the product");
                yaml = yaml.replacen(old, new, 1);
            }
            WithForm(old, new) => {
                let text = official();
                assert!(text.contains(old));
                form = Some(read_form("form.yaml", &text.replacen(old, new, 1)).unwrap());
            }
            File(name, content) => put(name, content),
            Link(name, target) => std::os::unix::fs::symlink(target, path.join(name)).unwrap(),
            Remove(_) | Above(_) => {}
        }
    }
    if !edits
        .iter()
        .any(|edit| matches!(edit, File("PRODUCT.yaml", _) | Link("PRODUCT.yaml", _)))
    {
        put("PRODUCT.yaml", &yaml);
    }
    for edit in edits {
        if let Remove(name) = edit {
            std::fs::remove_file(path.join(name)).unwrap();
        }
    }
    Folder {
        _home: home,
        path,
        form,
    }
}

fn report(edits: &[Edit]) -> Report {
    let folder = folder(edits);
    lint(&folder.path, folder.form.as_ref()).unwrap()
}

fn rules_of(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|found| found.rule.id).collect()
}

/// Evidence of an id, replaced.
fn evidence(id: &'static str, new: &str) -> Edit {
    let old: &'static str = match id {
        "gang_scheduling" => "evidence: [\"e2e.log\"]\n      notes: \"notes of gang_scheduling\"",
        "ai_inference" => "evidence: [\"shown.md\"]\n      notes: \"notes of ai_inference\"",
        _ => panic!("{id}"),
    };
    In(
        old,
        format!("evidence: {new}\n      notes: \"notes of {id}\""),
    )
}

const GANG_PASS: &str = "--- PASS: TestGangScheduling (4.75s)";
const AUTOSCALING: &str = "status: \"Implemented\"\n      evidence: [\"e2e.log\"]\n      notes: \"notes of cluster_autoscaling\"";
const POD: &str = "status: \"Implemented\"\n      evidence: [\"shown.md\"]\n      notes: \"notes of pod_autoscaling\"";
const SHARING: &str = "status: \"\"\n      evidence: []\n      notes: \"notes of gpu_sharing\"";

/// Rule, folders that it finds something in, folders next to them in which it does not.
type Row = (&'static str, Vec<Vec<Edit>>, Vec<Vec<Edit>>);

#[rustfmt::skip]
fn table() -> Vec<Row> {
    let logo = "https://acme.example/logo.SVG";
    let url = "https://github.com/cncf/k8s-conformance/tree/master/v1.37/acme";
    let gang = |path: &'static str, content: &str| vec![
        evidence("gang_scheduling", &format!("[\"{path}\"]")),
        file(path, content),
    ];
    let log = |old: &str, new: &str| { assert!(LOG.contains(old)); vec![file("e2e.log", &LOG.replace(old, new))] };
    vec![
        ("product-missing", vec![vec![Remove("PRODUCT.yaml")]], vec![vec![]]),
        ("product-yaml", vec![
            vec![text("metadata:", "metadata: {")],
            vec![text("  platformName:", "\tplatformName:")],
            vec![text("  platformName:", "  vendorName: \"x\"\n  platformName:")],
            vec![evidence("ai_inference", "\"shown.md\"")],
            vec![text("notes: \"notes of ai_inference\"", "notes: [a]")],
            vec![file("PRODUCT.yaml", "")],
            vec![file("PRODUCT.yaml", "- a\n- b\n")],
        ], vec![
            vec![text("notes: \"notes of ai_inference\"", "notes: |\n        a:\n        \tb")],
            vec![text("notes: \"notes of ai_inference\"", "notes: 12")],
        ]),
        ("product-unsupported", vec![
            vec![text("\"Acme Inc.\"", "&a \"Acme Inc.\"")],
            vec![text("\"Acme Inc.\"", "!!str \"Acme Inc.\"")],
            vec![text("  platformName:", "  <<: {a: b}\n  platformName:")],
            vec![file("PRODUCT.yaml", &format!("{}---\na: b\n", product()))],
            vec![file("PRODUCT.yaml", &"a".repeat(10 << 20))],
            vec![file("PRODUCT.yaml", &"[".repeat(100_000))],
            vec![Link("PRODUCT.yaml", "shown.md")],
        ], vec![vec![text("\"Acme Inc.\"", "\"&a *b !c\"")]]),
        ("version-unknown", vec![
            vec![Above("x"), text("v1.37", "latest")],
            vec![Above("v1.2"), text("v1.37", "v1.2")],
        ], vec![vec![Above("x")]]),
        ("metadata-missing", vec![
            vec![text("  platformName: \"Acme\"\n", "")],
            vec![text("\"Acme\"", "\"\"")],
            vec![text("\"Acme\"", "null")],
            vec![text("k8sConformanceUrl", "conformanceUrl")],
        ], vec![
            vec![text("platformName", "platform_name")],
            vec![text("  repoUrl: \"https://acme.example/repo\"\n", "")],
            vec![text("\"https://acme.example/repo\"", "\"\"")],
        ]),
        ("metadata-type", vec![
            vec![text("\"7.1\"", "7.1")], vec![text("\"7.1\"", "2026-01-31")], vec![text("\"7.1\"", "true")], vec![text("\"7.1\"", "[a]")],
        ], vec![vec![text("\"7.1\"", "7.1.2")], vec![text("\"7.1\"", "\"7\"")]]),
        ("metadata-placeholder", vec![vec![text("\"Acme\"", "\"[Platform Name]\"")], vec![text("\"https://acme.example/repo\"", "\"[Repository URL]\"")]],
            vec![vec![text("\"Acme\"", "\"Acme [beta] one\"")]]),
        ("k8s-conformance-url", vec![
            vec![text(url, "https://github.com/cncf/k8s-conformance/tree/master/v1.37")],
            vec![text(url, "https://github.com/cncf/k8s-conformance/pull/1")],
            vec![text(url, "https://github.com/cncf/k8s-conformance/tree/master/v1.37/acme/x")],
            vec![text(url, "https://acme.example/?https://github.com/cncf/k8s-conformance/tree/master/v1.37/acme")],
        ], vec![vec![text(url, "https://github.com/cncf/k8s-conformance/tree/main/v1.36/acme/")]]),
        ("logo-type", vec![vec![text(logo, "https://acme.example/logo.png")], vec![text(logo, "https://acme.example/logo.svg?raw=1")]],
            vec![vec![text(logo, "https://acme.example/logo.eps")], vec![text(logo, "logo.ai")]]),
        ("category-missing", vec![vec![text("  operator:", "  operators:")], vec![text("spec:", "specification:")]], vec![vec![]]),
        ("id-missing", vec![vec![text("id: gpu_sharing", "id: gpu_shared")], vec![text("id: ai_inference", "id: \"\"")]],
            vec![vec![text("id: ai_inference", "id: 'ai_inference'")]]),
        ("status-invalid", vec![
            vec![text(SHARING, "status: \"implemented\"\n      evidence: []")],
            vec![text(SHARING, "status: \"\"\n      evidence: [\"shown.md\"]")],
        ], vec![vec![text(SHARING, "status: Partially Implemented\n      evidence: []")], vec![]]),
        ("must-not-implemented", vec![
            vec![text(POD, "status: \"Partially Implemented\"\n      evidence: []")],
            vec![text(POD, "status: \"N/A\"\n      evidence: []\n      notes: \"x\"")],
            vec![text(POD, "status: \"\"\n      evidence: []")],
            vec![text(AUTOSCALING, "status: \"Not Implemented\"\n      evidence: []")],
        ], vec![
            vec![text(AUTOSCALING, "status: \"N/A\"\n      evidence: []\n      notes: \"x\"")],
            vec![text(SHARING, "status: \"Not Implemented\"\n      evidence: []")],
        ]),
        ("na-notes", vec![
            vec![text(AUTOSCALING, "status: \"N/A\"\n      evidence: []\n      notes: \"  \"")],
            vec![text(SHARING, "status: \"N/A\"\n      evidence: []")],
        ], vec![vec![text(SHARING, "status: \"N/A\"\n      evidence: []\n      notes: \"no GPUs\"")]]),
        ("must-na", vec![vec![text(AUTOSCALING, "status: \"N/A\"\n      evidence: []\n      notes: \"x\"")]],
            vec![vec![text(SHARING, "status: \"N/A\"\n      evidence: []\n      notes: \"x\"")]]),
        ("evidence-path", vec![
            vec![evidence("ai_inference", "[\"../shown.md\"]")],
            vec![evidence("ai_inference", "[\"../../outside.md\"]")],
            vec![evidence("ai_inference", "[\"file://\"]")],
            vec![evidence("ai_inference", "[\"#TestX\"]")],
            vec![evidence("ai_inference", "[\".\"]")],
            vec![evidence("ai_inference", "[\"v1.37/other/shown.md\"]")],
            vec![evidence("ai_inference", "[\"a\\0b\"]")],
        ], vec![
            vec![evidence("ai_inference", "[\"v1.37/acme/shown.md\"]")],
            vec![evidence("ai_inference", "[\"x/../shown.md\"]")],
            vec![evidence("ai_inference", "[\"/shown.md\"]")],
            vec![evidence("ai_inference", "[\"../acme/shown.md\"]")],
        ]),
        ("evidence-missing", vec![
            vec![evidence("ai_inference", "[\"Shown.md\"]")],
            vec![evidence("ai_inference", "[\"/etc/passwd\"]")],
            vec![evidence("ai_inference", "[\"ftp://acme.example/x\"]")],
            vec![evidence("ai_inference", "[\"dead.md\"]"), Link("dead.md", "nowhere")],
        ], vec![vec![evidence("ai_inference", "[\"shown.md\", \"\", \"https://acme.example/x\"]")]]),
        ("evidence-file-url", vec![
            vec![evidence("gang_scheduling", "[\"file://e2e.log\"]")],
            vec![evidence("gang_scheduling", "[\"e2e.log#TestGangScheduling\"]")],
        ], vec![vec![]]),
        ("artifact-unreadable", vec![
            vec![file("e2e.log", "all is well\n")],
            vec![file("e2e.log", "")],
            gang("results.json", "{\"Action\":\"pass\"\n"),
            gang("results.json", "{}\n"),
            gang("results.json", "[1]\n"),
            gang("results.json", "{\"Test\":1}\n"),
            gang("junit.xml", &JUNIT.replace("version=\"1.0\"", "version=\"1.0\" encoding=\"utf-16\"")),
            gang("junit.xml", &JUNIT.replace("</testcase>", "</case>")),
            gang("junit.xml", ""),
            gang("junit.xml", "<testsuite></testsuite>"),
            gang("junit.xml", "<testsuite><testcase name=\"a\">"),
            gang("junit.xml", &JUNIT.replace("a &lt; b", "&lol;")),
            gang("junit.xml", &JUNIT.replace("TestOther", "&lol;")),
            gang("junit.xml", "<a><b><testcase name=\"x\" time=\"1\"/></b></a>"),
        ], vec![gang("junit.xml", JUNIT), gang("results.json", JSON), gang("a/b/E2E.log", LOG), gang("junit.xml", "<x><testcase name=\"TestGangScheduling\" time=\"1\"/></x> & more"), gang("results.json", &format!("{JSON}\nnull\n"))]),
        ("artifact-unsupported", vec![
            gang("junit.xml", "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><testsuite><testcase name=\"&b;\"/></testsuite>"),
            gang("results.json", &" \n".repeat(9 << 20)),
            gang("junit.xml", &"<testsuite>".repeat(100_000)),
            vec![evidence("gang_scheduling", "[\"x/e2e.log\"]"), file("x/a", "a"), Link("x/e2e.log", "../e2e.log")],
        ], vec![gang("junit.xml", &JUNIT.replace("<testsuites>", "<!DOCTYPE testsuites>\n<testsuites>"))]),
        ("artifact-failing", vec![
            log("PASS: TestAccelerator", "FAIL: TestAccelerator"),
            vec![file("e2e.log", &format!("{LOG}=== RUN   TestShould\n    --- FAIL: TestShould/x (0.10s)\n"))],
            gang("junit.xml", &JUNIT.replace("<skipped", "<failure/><skipped")),
            gang("junit.xml", &JUNIT.replace("<skipped message=\"a &lt; b\"/>", "<error>x</error>")),
            gang("results.json", "{\"Action\":\"fail\",\"Package\":\"p\"}\n"),
            gang("results.json", &format!("{JSON}{{\"action\":\"fail\",\"test\":\"TestX\"}}\n")),
        ], vec![
            log("    util_test.go:12: fine", "    a word of FAIL: and x --- FAIL: y"),
            gang("junit.xml", &JUNIT.replace("<skipped", "<system-out><failure/></system-out><skipped")),
        ]),
        ("test-missing", vec![
            log("TestGangScheduling", "TestGang"),
            vec![evidence("ai_inference", "[\"e2e.log#TestInference\"]")],
        ], vec![
            vec![evidence("ai_inference", "[\"e2e.log\"]")],
            vec![evidence("ai_inference", "[\"e2e.log#TestSecureAcceleratorAccess/Positive\"]")],
            log("TestGangScheduling", "TestGangScheduling/sub"),
            vec![evidence("gang_scheduling", "[\"shown.md#anything\"]")],
        ]),
        ("test-failed", vec![log(GANG_PASS, "--- FAIL: TestGangScheduling (4.75s)"), vec![file("e2e.log", &LOG.replace(GANG_PASS, "--- FAIL: TestGangScheduling/a (1.00s)\n--- PASS: TestGangScheduling/b (1.00s)"))]],
            vec![vec![file("e2e.log", &format!("{LOG}--- FAIL: TestGangSchedulingMore (1.00s)\n"))]]),
        ("test-skipped", vec![
            log(GANG_PASS, "--- SKIP: TestGangScheduling (0.00s)"),
            log(GANG_PASS, "--- SKIP: TestGangScheduling/a (0.00s)\n--- SKIP: TestGangScheduling/b (0.00s)"),
        ], vec![
            log(GANG_PASS, "--- SKIP: TestGangScheduling/a (0.00s)\n--- PASS: TestGangScheduling/b (0.00s)"),
            gang("junit.xml", JUNIT),
        ]),
        ("artifact-absent", vec![vec![evidence("gang_scheduling", "[\"shown.md\"]")]],
            vec![vec![Above("v1.36"), evidence("gang_scheduling", "[\"shown.md\"]")], vec![evidence("ai_inference", "[\"shown.md\", \"x\"]")]]),
        ("folder-version", vec![vec![Above("1.37")], vec![Above("v1.37.0")]], vec![vec![]]),
        ("version-mismatch", vec![vec![text("v1.37", "v1.36")], vec![Above("v1.36")], vec![WithForm("v1.37", "v1.36")]],
            vec![vec![text("v1.37", "v1.37.2-acme.1")], vec![WithForm("v1.37", "v1.37")]]),
        ("description-changed", vec![
            vec![WithForm("v1.37", "v1.37"), text("Invented text of ai_inference.", "Invented text of ai_inference!")],
            vec![WithForm("v1.37", "v1.37"), text("      description: \"Invented text of ai_inference.\"\n", "")],
        ], vec![vec![text("Invented text of ai_inference.", "Another.")], vec![WithForm("v1.37", "v1.37"), text("\"Invented text of ai_inference.\"", "'Invented text of ai_inference.'")]]),
        ("level-changed", vec![
            vec![text("Invented text of ai_inference.\"\n      level: MUST", "x\"\n      level: SHOULD")],
            vec![WithForm("level: MUST", "level: SHOULD")],
            vec![text("level: MUST", "level: must")],
        ], vec![vec![text("level: MUST", "level: \"MUST\"")]]),
        ("id-unknown", vec![
            vec![text("    - id: ai_inference", "    - id: dra_support\n      level: MUST\n    - id: ai_inference")],
            vec![text("    - id: ai_inference", "    - id: gang_scheduling\n    - id: ai_inference")],
            vec![text("    - id: ai_inference", "    - notes: x\n    - id: ai_inference")],
        ], vec![vec![]]),
        ("id-duplicate", vec![vec![text("    - id: ai_inference", "    - id: ai_inference\n    - id: ai_inference")]],
            vec![vec![text("    - id: ai_inference", "    - id: gang_scheduling\n    - id: ai_inference")]]),
        ("key-unknown", vec![
            vec![text("notes: \"notes of ai_inference\"", "note: \"x\"")],
            vec![text("repoUrl", "repositoryUrl")],
            vec![text("spec:", "extra: 1\nspec:")],
        ], vec![vec![text("      notes: \"notes of ai_inference\"\n", "")]]),
        ("text-hidden", vec![
            vec![text("\"notes of ai_inference\"", "\"a\\u202eb\"")],
            vec![text("\"Acme\"", "\"A\\e[31mcme\"")],
        ], vec![vec![text("\"notes of ai_inference\"", "\"a\\n\\tü 漢\"")]]),
        ("evidence-empty", vec![
            vec![evidence("ai_inference", "[]")],
            vec![evidence("ai_inference", "[\"\"]")],
            vec![text(SHARING, "status: \"Implemented\"\n      evidence: []")],
        ], vec![vec![text(SHARING, "status: \"Not Implemented\"\n      evidence: []")]]),
        ("evidence-hollow", vec![
            vec![file("shown.md", "")],
            vec![evidence("ai_inference", "[\"gone\"]"), file("gone/x", ""), Remove("gone/x")],
        ], vec![vec![file("shown.md", "x")], vec![evidence("ai_inference", "[\"there\"]"), file("there/x", "x")]]),
        ("evidence-links-only", vec![vec![evidence("ai_inference", "[\"https://acme.example/x\"]")]], vec![
            vec![evidence("ai_inference", "[\"https://acme.example/x\", \"shown.md\"]")],
            vec![text(SHARING, "status: \"Implemented\"\n      evidence: [\"https://acme.example/x\"]")],
        ]),
        ("evidence-symlink", vec![
            vec![evidence("ai_inference", "[\"out.md\"]"), Link("out.md", "../../outside.md")],
            vec![evidence("ai_inference", "[\"out/outside.md\"]"), Link("out", "../..")],
        ], vec![vec![Link("unused.md", "../../outside.md")]]),
        ("artifact-name", vec![
            vec![evidence("ai_inference", "[\"gang.log\"]"), file("gang.log", LOG)],
            vec![evidence("ai_inference", "[\"gang.xml\"]"), file("gang.xml", JUNIT)],
            vec![evidence("ai_inference", "[\"gang.json\"]"), file("gang.json", JSON)],
        ], vec![
            vec![evidence("ai_inference", "[\"install.log\"]"), file("install.log", "installed\n")],
            vec![evidence("ai_inference", "[\"notes.md\"]"), file("notes.md", LOG)],
        ]),
        ("artifact-hand-typed", vec![
            vec![file("e2e.log", "--- PASS: TestGangScheduling\n")],
            vec![file("e2e.log", "--- PASS: TestGangScheduling (1.00s)\nPASS\n")],
            log("(4.75s)", "(5s)"),
            log("PASS\nok  \texample.test/ai\t67.1s\n", ""),
            gang("junit.xml", &JUNIT.replace(" time=\"4.75\"", "")),
            gang("results.json", "{\"Action\":\"pass\",\"Test\":\"TestGangScheduling\"}\n"),
            gang("results.json", &JSON.replace(",\"Elapsed\":9}", "}")),
        ], vec![vec![], gang("junit.xml", JUNIT), gang("results.json", JSON)]),
        ("evidence-stale", vec![
            gang("junit.xml", &JUNIT.replace("2026-10", "2026-07")),
            gang("results.json", &JSON.replace("2026-10", "2025-10")),
        ], vec![gang("junit.xml", &JUNIT.replace("2026-10-02", "2026-08-01")), gang("junit.xml", &JUNIT.replace("2026-10", "yesterday"))]),
        ("evidence-version", vec![
            log("util_test.go:12: fine", "Server Version: v1.36.2"),
            log("util_test.go:12: fine", "{\"gitVersion\":\"v1.30.0-gke.1\"}"),
        ], vec![log("util_test.go:12: fine", "Server Version: v1.37.0"), log("util_test.go:12: fine", "driver v1.36.2")]),
        ("evidence-foreign", vec![vec![
            evidence("gang_scheduling", "[\"junit.xml\"]"), file("junit.xml", JUNIT),
            file("e2e.log", &LOG.replace("util_test.go:12: fine", "cluster UID: 22222222-2222-4222-8222-222222222222")),
        ]], vec![vec![
            evidence("gang_scheduling", "[\"junit.xml\"]"), file("junit.xml", JUNIT),
            file("e2e.log", &LOG.replace("util_test.go:12: fine", "cluster UID: 11111111-1111-4111-8111-111111111111")),
        ]]),
    ]
}

#[test]
fn the_folder_without_edits_is_clean() {
    for edits in [vec![], vec![WithForm("v1.37", "v1.37")]] {
        let report = report(&edits);
        assert_eq!(report.findings, [], "{edits_len}", edits_len = edits.len());
        assert_eq!(report.verdict, Verdict::Accepts);
        assert_eq!(report.version.as_deref(), Some("1.37"));
        assert_eq!(report.unchecked.len(), 3 - edits.len());
    }
}

#[test]
fn each_rule_finds_its_cases_and_leaves_their_neighbours() {
    let mut wrong = String::new();
    let mut rows = std::collections::BTreeSet::new();
    for (id, bad, good) in table() {
        rows.insert(id);
        assert!(!bad.is_empty() && !good.is_empty(), "{id}");
        for (number, edits) in bad.iter().enumerate() {
            let report = report(edits);
            let found = rules_of(&report);
            if !found.contains(&id) {
                writeln!(wrong, "{id}: case {number} is not found, but {found:?}").unwrap();
            }
            let said = match rules::rule(id).unwrap().programme {
                Programme::Refuses => report.verdict == Verdict::Refuses,
                Programme::Unknown => report.verdict != Verdict::Accepts,
                Programme::Warns | Programme::Silent => true,
            };
            if !said {
                writeln!(wrong, "{id}: case {number} ends as {:?}", report.verdict).unwrap();
            }
        }
        for (number, edits) in good.iter().enumerate() {
            let found = report(edits);
            if rules_of(&found).contains(&id) {
                writeln!(
                    wrong,
                    "{id}: neighbour {number} is found: {:?}",
                    found.findings
                )
                .unwrap();
            }
        }
    }
    for rule in rules::RULES {
        if !rows.contains(rule.id) {
            writeln!(wrong, "{}: no row", rule.id).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_the_programme_does_not_see_leaves_its_verdict() {
    // A hand-typed line, empty evidence and a changed level pass there.
    for (edits, id) in [
        (
            vec![file(
                "e2e.log",
                "--- PASS: TestGangScheduling\n--- PASS: TestSecureAcceleratorAccess\n--- PASS: TestAcceleratorClusterAutoscaling\n",
            )],
            "artifact-hand-typed",
        ),
        (vec![evidence("ai_inference", "[]")], "evidence-empty"),
        (vec![text("level: MUST", "level: must")], "level-changed"),
    ] {
        let report = report(&edits);
        assert!(rules_of(&report).contains(&id));
        assert_eq!(report.verdict, Verdict::Accepts, "{id}");
        assert!(report.errors() > 0);
    }
}

#[test]
fn findings_are_in_order_and_bounded() {
    let many: String = (0..3000)
        .map(|n| format!("    - id: x{n}\n      status: [\n      ]\n").replace("[\n      ]", "a"))
        .collect();
    let report = report(&[In(
        "    - id: ai_inference",
        format!("{many}    - id: ai_inference"),
    )]);
    assert_eq!(report.findings.len(), FINDINGS_MAX);
    assert_eq!(report.dropped, 3000 - FINDINGS_MAX);
    assert!(
        report
            .findings
            .is_sorted_by_key(|found| (found.file.clone(), found.line))
    );
    // Warnings make room for an error, wherever it stands.
    let keys: String = (0..3000).map(|n| format!("k{n}: 1\n")).collect();
    let crowded = self::report(&[
        In("metadata:", format!("{keys}metadata:")),
        text("\"7.1\"", "7.1"),
        file("shown.md", ""),
    ]);
    assert_eq!(crowded.findings.len(), FINDINGS_MAX);
    for id in ["metadata-type", "evidence-hollow"] {
        assert!(rules_of(&crowded).contains(&id), "{id}");
    }
}

#[test]
fn a_folder_that_is_none_is_an_error_of_its_own() {
    let folder = folder(&[]);
    assert!(matches!(
        lint(&folder.path.join("no"), None),
        Err(LintError::Folder { .. })
    ));
    assert!(matches!(
        lint(&folder.path.join(PRODUCT), None),
        Err(LintError::NoFolder { .. })
    ));
}

#[test]
fn no_mutilated_file_brings_a_reader_down() {
    use super::artifact::{Kind, read};
    // A small generator with a fixed seed: the same mutilations every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    let pieces = [
        "<",
        ">",
        "</testcase>",
        "&",
        "&lt;",
        "\"",
        "'",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\t",
        "\n",
        "\u{feff}",
        "\u{202e}",
        "--- FAIL: ",
        "=== RUN ",
        "<!DOCTYPE a [",
        "]]>",
        "<![CDATA[",
        "null",
        "&a ",
        "*a",
        "!!x ",
        "|",
        ">-",
        "\0",
        "%YAML 9\n",
        "---\n",
        "漢",
    ];
    for whole in [product(), LOG.to_owned(), JUNIT.to_owned(), JSON.to_owned()] {
        for _ in 0..150 {
            let mut text: Vec<char> = whole.chars().collect();
            for _ in 0..=next(3) {
                let at = next(text.len());
                let until = (at + next(12)).min(text.len());
                let piece = pieces[next(pieces.len())].chars();
                text.splice(at..until, piece);
            }
            let text: String = text.into_iter().collect();
            for kind in [Kind::Text, Kind::Json, Kind::Junit] {
                let _ = read(kind, &text);
            }
            let _ = Kind::guess(&text);
            let _ = read_form("f", &text);
            if let Ok(list) = form::read_product("p", &text) {
                let mut findings = Findings::default();
                product::check(&list, &expected("1.37", None).unwrap(), &mut findings);
            }
        }
    }
}
