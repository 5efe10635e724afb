//! `karat`: arguments, speech, exit codes. What the program does lies in the engine; what it says lies in [`ui`].

mod args;
mod commands;
mod env;
mod exit;
mod images;
mod probes;
#[cfg(test)]
mod reference;
mod settings;
mod signals;
mod telemetry;
mod ui;

fn main() -> std::process::ExitCode {
    commands::start(std::env::args_os()).into()
}
