//! `karat completions`: the completion script of a shell, made from the arguments themselves.

use super::Context;
use crate::args::{self, CompletionsArgs};
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandResult};

/// Prints the script.
pub(crate) fn execute(context: &Context, args: &CompletionsArgs) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "karat", &mut script);
    let script = String::from_utf8(script).bug("cannot write the completion script")?;
    context.printer.data(script.trim_end());
    Ok(Exit::Passed)
}
