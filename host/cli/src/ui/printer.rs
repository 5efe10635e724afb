//! The sole owner of stdout and stderr. stdout carries data (results, tables that were asked for, JSON), stderr everything
//! else. A reader that closes the pipe ends nothing and is not an error: the rest is dropped quietly, so that
//! `karat run --json | head` still cleans up and exits by its verdicts.
//!
//! Callers hand in harmless text only; see [`crate::ui::text`].

pub(crate) use karat_engine::report::terminal::{Paint, Style};

use indicatif::{MultiProgress, ProgressDrawTarget};
use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Results, warnings and errors.
    Quiet,
    /// Also progress.
    Normal,
    /// Also each call and each log line.
    Verbose,
}

/// Writes what a person or a pipeline gets. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Printer {
    verbosity: Verbosity,
    out_paint: Paint,
    err_paint: Paint,
    interactive: bool,
    out_terminal: bool,
    live: Option<MultiProgress>,
    streams: Arc<Mutex<Streams>>,
}

struct Streams {
    /// None once the reader has gone.
    out: Option<Box<dyn Write + Send>>,
    err: Option<Box<dyn Write + Send>>,
}

impl Printer {
    /// A printer on the streams of the process.
    pub(crate) fn of_process(verbosity: Verbosity, no_color: bool, ci: bool) -> Printer {
        let out_terminal = std::io::stdout().is_terminal();
        let err_terminal = std::io::stderr().is_terminal();
        let paint = |terminal: bool| {
            if terminal && !no_color {
                Paint::Ansi
            } else {
                Paint::Never
            }
        };
        // The live area needs a terminal that can move its cursor; a CI system may pretend to have one.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = err_terminal && !ci && !dumb && verbosity != Verbosity::Quiet;
        Printer {
            verbosity,
            out_paint: paint(out_terminal),
            err_paint: paint(err_terminal),
            interactive: err_terminal && std::io::stdin().is_terminal(),
            out_terminal,
            live: live
                .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10))),
            streams: Arc::new(Mutex::new(Streams {
                out: Some(Box::new(std::io::stdout())),
                err: Some(Box::new(std::io::stderr())),
            })),
        }
    }

    /// A printer that keeps what it is given.
    #[cfg(test)]
    pub(crate) fn captured(verbosity: Verbosity) -> (Printer, Captured) {
        let captured = Captured::default();
        let printer = Printer {
            verbosity,
            out_paint: Paint::Never,
            err_paint: Paint::Never,
            interactive: false,
            out_terminal: false,
            live: None,
            streams: Arc::new(Mutex::new(Streams {
                out: Some(Box::new(captured.out.clone())),
                err: Some(Box::new(captured.err.clone())),
            })),
        };
        (printer, captured)
    }

    /// Whether a question can be asked and answered.
    pub(crate) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// The live area, where there is one.
    pub(crate) fn live(&self) -> Option<&MultiProgress> {
        self.live.as_ref()
    }

    /// Colours of stdout.
    pub(crate) fn out_paint(&self) -> Paint {
        self.out_paint
    }

    /// Colours of stderr.
    pub(crate) fn err_paint(&self) -> Paint {
        self.err_paint
    }

    /// A line of data on stdout.
    pub(crate) fn data(&self, line: &str) {
        self.write_out(&format!("{line}\n"));
    }

    /// Lines of data on stdout.
    pub(crate) fn data_lines<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) {
        for line in lines {
            self.data(line.as_ref());
        }
    }

    /// A value as indented JSON on stdout.
    ///
    /// # Errors
    /// A value that JSON cannot hold.
    pub(crate) fn json(&self, value: &impl serde::Serialize) -> Result<(), serde_json::Error> {
        self.data(&serde_json::to_string_pretty(value)?);
        Ok(())
    }

    /// Whether stdout is a terminal.
    pub(crate) fn out_is_terminal(&self) -> bool {
        self.out_terminal
    }

    /// stdout for data that is no text. Here a closed pipe is an error: half of such data is worth nothing.
    pub(crate) fn raw_out(&self) -> RawOut {
        RawOut(self.streams.clone())
    }

    /// A line about what is going on, on stderr; silent when quiet.
    pub(crate) fn status(&self, line: &str) {
        if self.verbosity >= Verbosity::Normal {
            self.write_err(line);
        }
    }

    /// A line for those who want to know everything.
    pub(crate) fn detail(&self, line: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.write_err(line);
        }
    }

    /// Something the user should know and that stops nothing.
    pub(crate) fn warn(&self, line: &str) {
        let label = self.err_paint.paint(Style::Unsure, "warning:");
        self.write_err(&format!("{label} {line}"));
    }

    /// A line on stderr that is written in any case: errors and questions.
    pub(crate) fn always(&self, line: &str) {
        self.write_err(line);
    }

    /// Asks a question that is answered by yes or no; anything but yes is no.
    pub(crate) fn ask(&self, question: &str) -> bool {
        {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(err) = &mut streams.err {
                let _ = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
            }
        }
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer).is_err() {
            return false;
        }
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    fn write_out(&self, text: &str) {
        let write = || {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(out) = &mut streams.out
                && out
                    .write_all(text.as_bytes())
                    .and_then(|()| out.flush())
                    .is_err()
            {
                streams.out = None;
            }
        };
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
    }

    fn write_err(&self, line: &str) {
        let write = || {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(err) = &mut streams.err
                && writeln!(err, "{line}").is_err()
            {
                streams.err = None;
            }
        };
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
    }
}

/// stdout, byte by byte.
pub(crate) struct RawOut(Arc<Mutex<Streams>>);

impl Write for RawOut {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut streams.out {
            Some(out) => out.write(bytes),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.out.as_mut().map_or(Ok(()), |out| out.flush())
    }
}

/// What a captured printer was given.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Captured {
    out: Shared,
    err: Shared,
}

#[cfg(test)]
impl Captured {
    /// Everything on stdout.
    pub(crate) fn out(&self) -> String {
        self.out.text()
    }

    /// Everything on stderr.
    pub(crate) fn err(&self) -> String {
        self.err.text()
    }
}

#[cfg(test)]
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_keeps_data_and_warnings() {
        let (printer, captured) = Printer::captured(Verbosity::Quiet);
        printer.status("progress");
        printer.detail("call");
        printer.warn("careful");
        printer.data("result");
        assert_eq!(captured.out(), "result\n");
        assert_eq!(captured.err(), "warning: careful\n");
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (printer, captured) = Printer::captured(Verbosity::Normal);
        printer.streams.lock().unwrap().out = Some(Box::new(Closed));
        printer.data("lost");
        printer.data("lost too");
        printer.status("still here");
        assert!(printer.streams.lock().unwrap().out.is_none());
        assert_eq!(captured.err(), "still here\n");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert_eq!(Paint::Never.paint(Style::Bad, "fail"), "fail");
        assert_eq!(
            Paint::Ansi.paint(Style::Bad, "fail"),
            "\u{1b}[1;31mfail\u{1b}[0m"
        );
        assert_eq!(Paint::Ansi.paint(Style::Good, ""), "");
    }
}
