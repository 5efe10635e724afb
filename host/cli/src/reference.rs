//! The reference of the command line, made from the arguments themselves and compared with `docs/reference/cli.md`.
//! `KARAT_UPDATE=1 cargo test -p karat reference` writes it anew.

use crate::args;
use crate::env;
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

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let made = reference();
    if std::env::var_os("KARAT_UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == there,
        "docs/reference/cli.md differs from the program; write it anew with `KARAT_UPDATE=1 cargo test -p karat reference`"
    );
}
