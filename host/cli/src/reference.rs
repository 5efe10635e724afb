//! The reference of the command line, made from the arguments themselves and compared with `docs/reference/cli.md`.
//! `KARAT_UPDATE=1 cargo test -p karat reference` writes it anew, and `docs/reference/lint.md` from the table of rules.

use crate::args;
use crate::env;
use karat_engine::lint::rules::RULES;
use std::fmt::Write as _;
use std::path::Path;

const WIDTH: usize = 100;

fn reference() -> String {
    let mut out = String::from(
        "# Command line\n\n\
         Made from the program itself; `KARAT_UPDATE=1 cargo test -p karat reference` writes it anew.\n\
         Exit codes: [exit-codes.md](exit-codes.md).\n",
    );
    let mut root = args::command()
        .term_width(WIDTH)
        .disable_help_subcommand(true);
    root.build();
    section(&mut out, &root, "karat");
    let _ = write!(
        out,
        "\n## Environment\n\n| Variable | Meaning |\n|---|---|\n"
    );
    for variable in env::ALL {
        let _ = writeln!(out, "| `{}` | {} |", variable.name, variable.help);
    }
    out
}

fn section(out: &mut String, command: &clap::Command, path: &str) {
    let help = command.clone().render_long_help().to_string();
    let _ = write!(out, "\n## `{path}`\n\n```text\n");
    for line in help.trim_end().lines() {
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push_str("```\n");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        section(out, sub, &format!("{path} {}", sub.get_name()));
    }
}

fn rules() -> String {
    let mut out = String::from(
        "# Rules of `karat lint`\n\n\
         Made from the program itself; `KARAT_UPDATE=1 cargo test -p karat reference` writes it anew.\n\
         `karat lint --explain RULE` shows one of them.\n\n\
         The verdict is that of the newest known validator of the programme (cncf/k8s-ai-conformance#141, with the fix for #145 and the\n\
         logo check of #133), as far as it goes without a network: links are counted and not followed, the names of CNCF members are not\n\
         looked up. The output says so each time. Where earlier validators refuse what this one accepts, there is a warning.\n",
    );
    for rule in RULES {
        let _ = write!(
            out,
            "\n## `{}`\n{}: {}.\n\n- Why: {}\n- {}\n- What to do: {}.\n",
            rule.id,
            rule.severity.word(),
            escaped(rule.what),
            escaped(rule.why),
            rule.programme.sentence(),
            escaped(rule.todo)
        );
    }
    out
}

/// `<` opens HTML in Markdown, except between backquotes.
fn escaped(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    let pieces: Vec<String> = pieces
        .map(|(at, piece)| {
            if at % 2 == 0 {
                piece.replace('<', "\\<")
            } else {
                piece.to_owned()
            }
        })
        .collect();
    pieces.join("`")
}

#[test]
fn the_reference_is_up_to_date() {
    for (page, made) in [("cli.md", reference()), ("lint.md", rules())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/reference")
            .join(page);
        if std::env::var_os("KARAT_UPDATE").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            made == there,
            "docs/reference/{page} differs from the program; write it anew with `KARAT_UPDATE=1 cargo test -p karat reference`"
        );
    }
}
