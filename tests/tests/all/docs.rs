//! The pages against the program: what they link to is there, what they tell people to type exists, and the tables that
//! repeat a table of the code say the same. Whether the guide works is another test, `guide`.
//!
//! Prose is not checked: a sentence can be wrong and pass here.

use anyhow::{Context as _, Result, bail};
use karat_engine::grant::Grants;
use karat_engine::guard::{self, RowKind};
use karat_engine::manifest::Manifest;
use karat_engine::model::{Outcome, Reason};
use karat_engine::recording::format::{End, Entry, Facts, Header, Limits};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders that hold no pages of ours.
const SKIPPED: &[&str] = &["target", "node_modules", ".git", ".venv", "karat-runs"];

pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages of the repository, below its root.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of this repository can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The lines of a page that are prose, and those inside of fences, with the word behind the fence.
fn split(text: &str) -> (Vec<&str>, Vec<(&str, Vec<&str>)>) {
    let (mut prose, mut fences) = (Vec::new(), Vec::<(&str, Vec<&str>)>::new());
    let mut open = false;
    for line in text.lines() {
        if let Some(word) = line.trim_start().strip_prefix("```") {
            open = !open;
            if open {
                fences.push((word.trim(), Vec::new()));
            }
        } else if open && let Some((_, lines)) = fences.last_mut() {
            lines.push(line);
        } else {
            prose.push(line);
        }
    }
    (prose, fences)
}

/// Text without what stands between backquotes.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// Targets of `[text](target)`.
fn links(line: &str) -> Vec<String> {
    without_code(line)
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// The name by which a heading can be linked to.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
            _ => None,
        })
        .collect()
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(page).is_ok_and(|text| {
        split(&text)
            .0
            .iter()
            .any(|line| line.starts_with('#') && anchor(line) == wanted)
    })
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in split(&text).0.iter().flat_map(|line| links(line)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (path, wanted) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap_or(&page).join(path),
            };
            if !target.exists() || !wanted.is_empty() && !has_anchor(&target, wanted) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 20, "only {count} links were found");
}

/// What `karat` takes, as its own help says: flags by subcommand, written with blanks.
pub(crate) struct Commands(BTreeMap<String, BTreeSet<String>>);

impl Commands {
    pub(crate) fn ask(karat: &Path) -> Result<Commands> {
        let mut commands = BTreeMap::new();
        let mut waiting = vec![String::new()];
        while let Some(path) = waiting.pop() {
            let output = Command::new(karat)
                .args(path.split_whitespace())
                .arg("--help")
                .env("COLUMNS", "200")
                .output()
                .with_context(|| format!("karat {path} --help"))?;
            if !output.status.success() {
                bail!(
                    "karat {path} --help: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            let help = String::from_utf8(output.stdout)?;
            for name in subcommands(&help).filter(|name| name != "help") {
                waiting.push(format!("{path} {name}").trim().to_owned());
            }
            commands.insert(path, flags(&help));
        }
        Ok(Commands(commands))
    }

    /// What is wrong with a command line, given without the program.
    pub(crate) fn check(&self, words: &[String]) -> Option<String> {
        let mut path = String::new();
        let mut rest = words.iter().peekable();
        while let Some(word) = rest.peek() {
            let longer = format!("{path} {word}").trim().to_owned();
            if !self.0.contains_key(&longer) {
                break;
            }
            path = longer;
            rest.next();
        }
        let first = rest.peek().map_or("", |word| word.as_str());
        let takes_subcommand = self.0.keys().any(|key| {
            key.strip_prefix(path.as_str())
                .is_some_and(|rest| !rest.is_empty() && (path.is_empty() || rest.starts_with(' ')))
        });
        if takes_subcommand && !first.starts_with('-') && !first.is_empty() {
            return Some(format!("`karat {path}` has no subcommand `{first}`"));
        }
        let known = &self.0[&path];
        rest.filter(|word| word.starts_with('-') && word.len() > 1)
            .map(|word| word.split_once('=').map_or(word.as_str(), |(flag, _)| flag))
            .find(|flag| !known.contains(*flag))
            .map(|flag| format!("`karat {path}` has no flag `{flag}`"))
    }
}

/// Names in the section `Commands:` of a help text.
fn subcommands(help: &str) -> impl Iterator<Item = String> + '_ {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
}

/// Flags at the beginning of lines: `  -y, --yes`, `      --out <DIR>`.
fn flags(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim)
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| line.split_whitespace().take(2))
        .map(|word| word.trim_end_matches([',', '.']))
        .filter(|word| word.starts_with('-'))
        .map(str::to_owned)
        .collect()
}

/// Command lines of `karat` in a page, without the program: lines of `console` fences, and code in prose.
pub(crate) fn command_lines(text: &str) -> Vec<Vec<String>> {
    let (prose, fences) = split(text);
    let typed = fences
        .iter()
        .filter(|(word, _)| word.starts_with("console"))
        .flat_map(|(_, lines)| lines)
        .filter_map(|line| line.strip_prefix("$ "))
        .map(str::to_owned);
    let mentioned = prose
        .iter()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned);
    typed
        .chain(mentioned)
        .flat_map(|line| {
            let line = line.split(" #").next().unwrap_or_default().to_owned();
            line.split(['|', ';', '>', '(', ')'])
                .flat_map(|part| part.split("&&"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|part| {
            let mut words = part.split_whitespace().map(str::to_owned);
            let program = words.next()?;
            let is_karat = program == "karat" || program.ends_with("/karat");
            let words: Vec<String> = words.collect();
            // The name of the program alone is a name.
            (is_karat && !words.is_empty()).then_some(words)
        })
        .collect()
}

#[test]
fn every_command_in_the_pages_exists() {
    let commands = Commands::ask(&karat_tests::program::karat().unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for words in command_lines(&text) {
            count += 1;
            if let Some(cause) = commands.check(&words) {
                wrong.push(format!("{}: {cause}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 10, "only {count} commands were found");
}

#[test]
fn a_wrong_command_and_a_broken_link_would_be_found() {
    let help = "Usage\n\nCommands:\n  run   Run\n  probe  Authors\n\nOptions:\n  -q, --quiet   x\n      --out <DIR>  y\n";
    assert_eq!(subcommands(help).collect::<Vec<_>>(), ["run", "probe"]);
    let tree = [
        ("", "--quiet"),
        ("run", "--out"),
        ("probe", "--help"),
        ("probe new", "--lang"),
    ];
    let commands = Commands(
        tree.iter()
            .map(|(path, flag)| ((*path).to_owned(), BTreeSet::from([(*flag).to_owned()])))
            .collect(),
    );
    let page = "Type `karat run --out x` or `karat fly`, `karat run --in`.\n```console\n$ ./karat probe new --lang js x && karat probe old\n```\n";
    let found: Vec<Option<String>> = command_lines(page)
        .iter()
        .map(|words| commands.check(words))
        .collect();
    assert_eq!(found.len(), 5, "{found:?}");
    let says = |at: usize, text: &str| {
        assert!(
            found[at]
                .as_deref()
                .is_some_and(|cause| cause.contains(text)),
            "{found:?}"
        );
    };
    assert_eq!((&found[0], &found[2]), (&None, &None));
    says(1, "no subcommand `old`");
    says(3, "no subcommand `fly`");
    says(4, "no flag `--in`");
    assert_eq!(
        links("see [a](b.md#c) and `[x](y)` and [d](e)"),
        ["b.md#c", "e"]
    );
    assert_eq!(anchor("## Seal, journal, clean"), "seal-journal-clean");
}

/// The guard table as the page has it.
fn guard_table() -> String {
    let mut table = String::from("| Row | | Stops | Why |\n|---|---|---|---|\n");
    for row in guard::rows() {
        let kind = match row.kind {
            RowKind::Never => "never",
            RowKind::Checked => "checked",
        };
        table += &format!("| `{}` | {kind} | {} | {} |\n", row.id, row.stops, row.why);
    }
    table
}

#[test]
fn the_guard_table_is_that_of_the_code() {
    const PAGE: &str = "docs/permissions.md";
    let page = read(PAGE);
    let begin = page.find("<!-- guards:").unwrap();
    let begin = begin + page[begin..].find("-->\n").unwrap() + 4;
    let end = page.find("<!-- /guards -->").unwrap();
    if std::env::var_os("KARAT_UPDATE").is_some() {
        let new = format!("{}{}{}", &page[..begin], guard_table(), &page[end..]);
        std::fs::write(root().join(PAGE), new).unwrap();
        return;
    }
    assert!(
        page[begin..end] == guard_table(),
        "{PAGE} has other guards than the code; run this test with KARAT_UPDATE=1 and review the change"
    );
}

#[test]
fn the_example_of_redaction_rules_can_be_read() {
    let text = std::fs::read_to_string(root().join("examples/redaction.toml")).unwrap();
    let rules = karat_engine::redact::Rules::parse(&text, "examples/redaction.toml").unwrap();
    assert_eq!(rules.names(), ["rack", "owner", "ticket"]);
}

#[test]
fn the_example_of_grants_can_be_read() {
    let text = read("examples/grants.toml");
    let grants = Grants::parse(&text, "examples/grants.toml").unwrap();
    let manifest = |path: &str| Manifest::parse(&read(path), path).unwrap();
    for path in [
        "probes/dra_support/probe.toml",
        "examples/smallest-probe/rust/probe.toml",
    ] {
        let manifest = manifest(path);
        for line in grants.required_lines(&manifest) {
            assert!(line.granted, "{path}: {:?}", line.missing);
        }
    }
}

/// The words of a serde message: `unknown field `x`, expected one of `a`, `b``.
fn expected_words(message: &str) -> BTreeSet<String> {
    let after = message
        .split_once(", expected")
        .map_or("", |(_, after)| after);
    after
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The part of a page from a heading to the next one of the same or a higher level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("there is no heading {heading:?}"));
    let body = &page[start + heading.len() + 2..];
    let level = heading.chars().take_while(|c| *c == '#').count();
    let end = body
        .match_indices("\n#")
        .find(|(at, _)| {
            let hashes = body[at + 1..].chars().take_while(|c| *c == '#').count();
            hashes <= level
        })
        .map_or(body.len(), |(at, _)| at);
    &body[..end]
}

/// First cells of the rows of the tables in a text, each split at the words in backquotes.
fn keys(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_key_of_the_manifest_is_described() {
    let page = read("docs/contract.md");
    let frame = "id = \"a\"\nversion = \"0.1.0\"\ntitle = \"t\"\nclaim = \"c\"\nmisleads = \"m\"\ncontract = \"0.1.0-dev.1\"\nrequirements = []\n";
    for (heading, text) in [
        ("### Top level", "zzz = 1\n".to_owned()),
        (
            "### `[[permissions]]`",
            format!("{frame}[[permissions]]\nzzz = 1\n"),
        ),
        (
            "### `[[namespaces]]`",
            format!("{frame}[[namespaces]]\nzzz = 1\n"),
        ),
        ("### `[[images]]`", format!("{frame}[[images]]\nzzz = 1\n")),
        (
            "### `[[snapshots]]`",
            format!("{frame}[[snapshots]]\nzzz = 1\n"),
        ),
        ("### `[[leases]]`", format!("{frame}[[leases]]\nzzz = 1\n")),
        (
            "### `[settings.KEY]`",
            format!("{frame}[settings.a]\nzzz = 1\n"),
        ),
        ("### `[budget]`", format!("{frame}[budget]\nzzz = 1\n")),
        ("### `[[cases]]`", format!("{frame}[[cases]]\nzzz = 1\n")),
    ] {
        let message = Manifest::parse(&text, "probe.toml")
            .unwrap_err()
            .to_string();
        let expected = expected_words(&message);
        assert!(expected.len() > 1, "{heading}: {message}");
        assert_eq!(keys(section(&page, heading)), expected, "{heading}");
    }
}

#[test]
fn every_key_of_a_grants_file_is_described() {
    let page = read("docs/permissions.md");
    let described = keys(section(&page, "## The grants file"));
    let mut all = BTreeSet::new();
    for text in ["[[grant]]\nzzz = 1\n", "[[exception]]\nzzz = 1\n"] {
        let message = Grants::parse(text, "x").unwrap_err().to_string();
        all.extend(expected_words(&message));
    }
    assert_eq!(described, all);
}

fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
    let message = match serde_json::from_str::<T>("{\"zzz\": 1}") {
        Ok(_) => panic!("unknown keys are not refused"),
        Err(error) => error.to_string(),
    };
    expected_words(&message)
}

#[test]
fn every_field_of_a_recording_is_described() {
    let page = read("docs/recording-format.md");
    for (heading, fields) in [
        ("### Header", fields::<Header>()),
        ("### Entry", fields::<Entry>()),
        ("### End", fields::<End>()),
    ] {
        assert_eq!(keys(section(&page, heading)), fields, "{heading}");
    }
    for (heading, fields) in [
        ("### Header", fields::<Limits>()),
        ("### Entry", fields::<Facts>()),
    ] {
        for field in fields {
            assert!(
                section(&page, heading).contains(&format!("`{field}`")),
                "{heading} says nothing of `{field}`"
            );
        }
    }
}

#[test]
fn reasons_and_outcomes_are_those_of_the_code() {
    let page = read("docs/verdict-rules.md");
    let section = section(&page, "## Verdicts, outcomes, reasons");
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} |", reason.code(), reason.meaning().0);
        assert!(section.contains(&row), "missing: {row}");
    }
    let text = String::new;
    let outcomes = [
        Outcome::Concluded,
        Outcome::ProbeError(text()),
        Outcome::Denied(text()),
        Outcome::OverBudget(text()),
        Outcome::Trapped(text()),
        Outcome::Skipped(text()),
        Outcome::Untrusted(text()),
        Outcome::Interrupted,
    ];
    let words: BTreeSet<String> = outcomes
        .iter()
        .map(Outcome::word)
        .chain(Reason::ALL.iter().map(|reason| reason.code()))
        .map(str::to_owned)
        .collect();
    assert_eq!(keys(section), words);
    assert!(page.contains(&format!("rules version `{}`", karat_engine::judge::RULES)));
}
