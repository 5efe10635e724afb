//! Errors as the user meets them: what failed, why (the chain of causes), what to do. Printed once, on stderr.
//!
//! Everything a user or the environment did has a kind, and each kind has one exit code. An error without a kind is a
//! mistake of ours and says so.

use crate::exit::Exit;
use crate::ui::printer::{Paint, Style};
use crate::ui::text::{shown_lines, wrap};
use std::fmt::Display;

/// Columns of an error before it wraps. Fixed, so that messages are the same in a pipe.
const COLUMNS: usize = 110;

/// Most causes that are shown; a longer chain repeats itself.
const CAUSES_MAX: usize = 8;

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Arguments or files of the user.
    Usage,
    /// Cluster, file system, another program.
    Environment,
    /// Ours.
    Bug,
    /// Not an error: the user said no, or a signal came. Nothing is printed but the text itself.
    Stopped(Exit),
}

/// An error on its way to the user.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    error: anyhow::Error,
    hints: Vec<String>,
}

/// What commands return.
pub(crate) type CommandResult = Result<Exit, CommandError>;

impl CommandError {
    /// Wrong arguments or input.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> CommandError {
        CommandError::new(Kind::Usage, error.into())
    }

    /// The environment failed.
    pub(crate) fn environment(error: impl Into<anyhow::Error>) -> CommandError {
        CommandError::new(Kind::Environment, error.into())
    }

    /// A mistake of ours.
    pub(crate) fn bug(error: impl Into<anyhow::Error>) -> CommandError {
        CommandError::new(Kind::Bug, error.into())
            .hint("this is a bug in Karat; please report it with the command and this message")
    }

    /// An end without an error.
    pub(crate) fn stopped(exit: Exit, text: &'static str) -> CommandError {
        CommandError::new(Kind::Stopped(exit), anyhow::Error::msg(text))
    }

    /// An end that the user asked for, with what it means.
    pub(crate) fn stopped_because(exit: Exit, error: impl Into<anyhow::Error>) -> CommandError {
        CommandError::new(Kind::Stopped(exit), error.into())
    }

    fn new(kind: Kind, error: anyhow::Error) -> CommandError {
        CommandError {
            kind,
            error,
            hints: Vec::new(),
        }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> CommandError {
        self.hints.push(hint.into());
        self
    }

    /// Puts what was being done in front.
    #[must_use]
    pub(crate) fn doing(mut self, what: impl Display + Send + Sync + 'static) -> CommandError {
        self.error = self.error.context(what);
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self.kind {
            Kind::Usage => Exit::Usage,
            Kind::Environment => Exit::Environment,
            Kind::Bug => Exit::Bug,
            Kind::Stopped(exit) => exit,
        }
    }

    /// The lines for stderr. Causes and hints may quote files and servers, so all of it is made harmless.
    pub(crate) fn lines(&self, paint: Paint) -> Vec<String> {
        let mut out = Vec::new();
        // The user stopped it, which is no error.
        let label = match self.kind {
            Kind::Stopped(_) => "stopped:",
            _ => "error:",
        };
        let style = match self.kind {
            Kind::Stopped(_) => Style::Strong,
            _ => Style::Bad,
        };
        let painted = paint.paint(style, label);
        block(&mut out, &painted, label, &self.error.to_string());
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1).take(CAUSES_MAX) {
            let text = cause.to_string();
            // Transparent wrappers repeat what they wrap.
            if said.ends_with(&text) {
                continue;
            }
            block(
                &mut out,
                &paint.paint(Style::Faint, "  because:"),
                "  because:",
                &text,
            );
            said = text;
        }
        for hint in &self.hints {
            block(
                &mut out,
                &paint.paint(Style::Strong, "  hint:"),
                "  hint:",
                hint,
            );
        }
        out
    }
}

/// A label and its text, wrapped; further lines stand under the first word.
fn block(out: &mut Vec<String>, painted: &str, label: &str, text: &str) {
    let indent = " ".repeat(label.len() + 1);
    let mut first = true;
    for line in shown_lines(text, 20) {
        for piece in wrap(&line, COLUMNS - indent.len()) {
            if first {
                out.push(format!("{painted} {piece}"));
                first = false;
            } else {
                out.push(format!("{indent}{piece}").trim_end().to_owned());
            }
        }
    }
}

/// Gives errors of libraries a kind at the place where it is known.
pub(crate) trait Classify<T> {
    /// Wrong arguments or input; `doing` says what was tried.
    fn usage(self, doing: impl Display + Send + Sync + 'static) -> Result<T, CommandError>;
    /// The environment failed; `doing` says what was tried.
    fn environment(self, doing: impl Display + Send + Sync + 'static) -> Result<T, CommandError>;
    /// Cannot happen; `doing` says what was tried.
    fn bug(self, doing: impl Display + Send + Sync + 'static) -> Result<T, CommandError>;
}

impl<T, E: Into<anyhow::Error>> Classify<T> for Result<T, E> {
    fn usage(self, doing: impl Display + Send + Sync + 'static) -> Result<T, CommandError> {
        self.map_err(|error| CommandError::usage(error).doing(doing))
    }

    fn environment(self, doing: impl Display + Send + Sync + 'static) -> Result<T, CommandError> {
        self.map_err(|error| CommandError::environment(error).doing(doing))
    }

    fn bug(self, doing: impl Display + Send + Sync + 'static) -> Result<T, CommandError> {
        self.map_err(|error| CommandError::bug(error).doing(doing))
    }
}

/// Adds hints to a result.
pub(crate) trait Hint {
    /// What to do about it.
    #[must_use]
    fn hint(self, hint: impl Into<String>) -> Self;
}

impl<T> Hint for Result<T, CommandError> {
    fn hint(self, hint: impl Into<String>) -> Self {
        self.map_err(|error| error.hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    fn text(error: &CommandError) -> String {
        error.lines(Paint::Never).join("\n")
    }

    #[test]
    fn three_parts_in_order() {
        let error = CommandError::usage(anyhow!("line 3: unknown key `verb`"))
            .doing("cannot read the grants file grants.toml")
            .hint("did you mean `verbs`?");
        insta::assert_snapshot!(text(&error), @r"
        error: cannot read the grants file grants.toml
          because: line 3: unknown key `verb`
          hint: did you mean `verbs`?
        ");
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn bugs_say_that_they_are_ours() {
        let error = CommandError::bug(anyhow!("no such state"));
        insta::assert_snapshot!(text(&error), @r"
        error: no such state
          hint: this is a bug in Karat; please report it with the command and this message
        ");
        assert_eq!(error.exit().code(), 70);
    }

    #[test]
    fn hostile_causes_are_harmless_and_wrapped() {
        let error = CommandError::environment(anyhow!(
            "the server said: \u{1b}[2Jnothing to see\n::error::here {}",
            "word ".repeat(30)
        ));
        insta::assert_snapshot!(text(&error), @r"
        error: the server said: \u{1b}[2Jnothing to see
               :\u{3a}error::here word word word word word word word word word word word word word word word word word
               word word word word word word word word word word word word word
        ");
    }

    #[test]
    fn repeated_causes_are_said_once() {
        let error = CommandError::environment(anyhow!("connection refused"))
            .doing("cannot reach the cluster: connection refused");
        assert_eq!(
            text(&error),
            "error: cannot reach the cluster: connection refused"
        );
    }
}
