//! Reports of a whole folder through the program, and the page in a real browser.
//!
//! The browser part needs node, npm and Chromium. Where one of them is missing, the test says on stderr what was not run, in
//! every case and not only when output is shown.

use crate::docs::root;
use crate::polyglot::{installed, run, target};
use anyhow::{Context as _, Result, ensure};
use karat_engine::model::RunRecord;
use karat_engine::recording::format::{EntryDraft, Reply, Seen};
use karat_tests::folders::{AsItWas, Edit, Part, write};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A run with everything in it: passes, fails, a pass after a fail.
const MIXED: &[Part<'_>] = &[
    Part {
        probe: "dra_support",
        attempts: &["pass"],
    },
    Part {
        probe: "gang_scheduling",
        attempts: &["fail", "pass"],
    },
    Part {
        probe: "workload_aware_scheduling",
        attempts: &["fail"],
    },
    Part {
        probe: "priority_preemption",
        attempts: &["pass"],
    },
    Part {
        probe: "resource_reclamation",
        attempts: &["pass"],
    },
    Part {
        probe: "admission_policy",
        attempts: &["fail"],
    },
];

fn report(folder: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(karat_tests::program::karat()?)
        .arg("report")
        .arg(folder)
        .args(arguments)
        .env_remove("NO_COLOR")
        .output()
        .context("karat report")
}

#[test]
fn all_reports_are_written_under_the_names_that_the_programme_knows() {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("run");
    write(&root(), &folder, MIXED, &mut AsItWas).unwrap();
    let out = work.path().join("reports");
    let output = report(&folder, &["--to", "all", "--out", out.to_str().unwrap()]).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout.is_empty());
    let mut found = BTreeSet::new();
    let mut folders = vec![out.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(&out).unwrap().display().to_string());
            }
        }
    }
    let expected = [
        "e2e.log",
        "junit.xml",
        "report.html",
        "report.json",
        "requirements/admission_policy.md",
        "requirements/dra_support.md",
        "requirements/gang_scheduling.md",
        "requirements/priority_preemption.md",
        "requirements/resource_reclamation.md",
        "requirements/workload_aware_scheduling.md",
        "results.json",
    ];
    assert_eq!(
        found.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
    let page = std::fs::metadata(out.join("report.html")).unwrap().len();
    assert!(
        page <= 2_000_000,
        "report.html of six probes has {page} bytes"
    );
    let log = std::fs::read_to_string(out.join("e2e.log")).unwrap();
    assert!(log.contains("    --- PASS: TestKarat/gang_scheduling ("));
    assert!(log.contains("    --- FAIL: TestKarat/workload_aware_scheduling ("));
    assert!(log.ends_with('\n') && log.contains("\nFAIL\tkarat\t"));

    // Alone and on stdout, the same bytes.
    for (format, name) in [
        ("html", "report.html"),
        ("json", "report.json"),
        ("junit", "junit.xml"),
        ("e2e-log", "e2e.log"),
        ("results", "results.json"),
    ] {
        let output = report(&folder, &["--to", format]).unwrap();
        assert!(
            output.stdout == std::fs::read(out.join(name)).unwrap(),
            "{name}"
        );
        assert!(
            output.stderr.is_empty(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let terminal = String::from_utf8(report(&folder, &[]).unwrap().stdout).unwrap();
    assert!(
        terminal.contains("2 of 2, after fail") && !terminal.contains('\u{1b}'),
        "{terminal}"
    );
}

#[test]
fn a_folder_that_is_no_run_and_one_with_a_hole_are_told_apart() {
    let work = tempfile::tempdir().unwrap();
    let output = report(work.path(), &["--to", "json"]).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("holds no run") && said.contains("hint:"),
        "{said}"
    );

    let folder = work.path().join("run");
    let part = Part {
        probe: "dra_support",
        attempts: &["fail"],
    };
    write(&root(), &folder, &[part], &mut AsItWas).unwrap();
    std::fs::remove_dir_all(folder.join("components")).unwrap();
    let output = report(&folder, &["--to", "json"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("its component is not in the folder"),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["problems"][0]["place"], "dra-support");
    assert_eq!(report["probes"][0]["state"], "fail");
}

/// Texts that would do something in a browser if they were more than text: each sets `owned`, asks a network, or opens a
/// dialog.
const HOSTILE: &[&str] = &[
    "<script>window.owned=1</script>",
    "\"><img src=x onerror=\"window.owned=1\">",
    "' onmouseover='window.owned=1' autofocus onfocus='window.owned=1' x='",
    "</script><script>window.owned=1</script>",
    "</style><style>body{display:none}</style>",
    "</title><script>window.owned=1</script>",
    "</pre></details></article></main><script>window.owned=1</script>",
    "<svg onload=window.owned=1><use href=data:image/svg+xml,x>",
    "<iframe srcdoc='<script>parent.owned=1</script>'></iframe>",
    "<base href=http://evil.example/><link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<form action=http://evil.example><button autofocus>x",
    "<details open ontoggle=window.owned=1>",
    "javascript:window.owned=1",
    "&lt;script&gt;window.owned=1&lt;/script&gt;",
    "&#60;img src=x onerror=alert(1)&#62;",
    "--><script>alert(1)</script><!--",
    "]]><script>alert(1)</script><![CDATA[",
    "{{constructor.constructor('alert(1)')()}}",
    "\u{202e}<b onclick=alert(1)>\u{2066}\0\u{1b}[31m",
    "@everyone ::set-output name=a::b ##vso[task.x]y",
];

/// Puts hostile text wherever a guest, a cluster or a file could have put it.
struct Hostile(usize);

impl Hostile {
    fn next(&mut self) -> String {
        self.0 += 1;
        HOSTILE[self.0 % HOSTILE.len()].to_owned()
    }
}

impl Edit for Hostile {
    fn call(&mut self, draft: &mut EntryDraft, reply: &mut Reply) {
        // What the judge reads stays, so that the cases are still those of the run.
        if draft.function.starts_with("cases.") {
            if let Some(value) = draft.arguments.get_mut("value") {
                *value = json!(self.next());
            }
            return;
        }
        if let Some(members) = draft.arguments.as_object_mut() {
            members.insert("note".to_owned(), json!(self.next()));
        }
        for object in &mut draft.facts.objects {
            object.name = self.next();
            object.kind = self.next();
            object.phase = self.next();
        }
        if let Ok(Seen::Text(text)) = reply {
            *text = self.next();
        }
    }

    fn record(&mut self, record: &mut RunRecord) {
        record.engine = self.next();
        record.cluster.uid = self.next();
        for probe in &mut record.probes {
            probe.title = self.next();
            probe.version = self.next();
            probe.requirements.push(self.next());
            for attempt in &mut probe.attempts {
                let judgement = &mut attempt.judgement;
                judgement.explanation = self.next();
                judgement.tier_because.push(self.next());
                attempt.left_behind.push(self.next());
                for case in &mut judgement.cases {
                    case.explanation = self.next();
                    for observation in &mut case.observations {
                        observation.name = self.next();
                        observation.value = self.next();
                    }
                }
            }
        }
    }
}

/// Where Chromium is, as Debian and others call it.
fn chromium() -> Option<PathBuf> {
    [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ]
    .into_iter()
    .map(PathBuf::from)
    .find(|path| path.is_file())
}

fn starts(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// Says something that the test harness does not swallow.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn the_page_holds_what_it_promises_in_a_browser() {
    let Some(chromium) = chromium().filter(|_| starts("node") && starts("npm")) else {
        say(
            "NOT RUN: the page of a run was not looked at in a browser; that needs node 18, npm and Chromium (Debian: `apt-get install nodejs npm chromium`)",
        );
        return;
    };
    drive(&chromium).unwrap();
}

fn drive(chromium: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let mut pages = Vec::new();
    let edits: [(&str, &mut dyn Edit); 2] = [("mixed", &mut AsItWas), ("hostile", &mut Hostile(0))];
    for (name, edit) in edits {
        let folder = work.path().join(name);
        write(&root(), &folder, MIXED, edit)?;
        let page = work.path().join(format!("{name}.html"));
        let output = report(
            &folder,
            &["--to", "html", "--out", page.to_str().context("path")?],
        )?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        pages.push(page);
    }
    // Kept for whoever wants to look: the screenshots are the only way to see that a page is good.
    let shots = target().join("browser/screenshots");
    std::fs::create_dir_all(&shots)?;
    let source = root().join("tests/browser");
    let folder = target().join("browser");
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?.join("tools");
    let pin = std::fs::read_to_string(source.join("package.json"))?;
    let advice = "needs node 18 or newer with npm, and access to the npm registry";
    installed(&folder, &pin, |folder| {
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(name), folder.join(name))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(folder);
        run(&mut npm, advice)
    })?;
    // Beside the tools, because node looks for modules beside the script.
    std::fs::copy(source.join("report.mjs"), folder.join("report.mjs"))?;
    let mut node = Command::new("node");
    node.arg(folder.join("report.mjs"))
        .arg(chromium)
        .args(&pages)
        .arg(shots.canonicalize()?);
    run(
        &mut node,
        "the page of a run does not hold what it promises",
    )
}
