//! One file per verb. [`start`] parses, dispatches and is the one place where an error becomes lines and an exit code.

mod bundle;
mod clean;
mod completions;
mod explain;
mod images;
mod inspect;
mod lint;
mod list;
mod plan;
mod probe;
mod product;
mod redact;
mod replay;
mod report;
mod review;
mod run;
mod verify;

use crate::args::{self, BundleCommand, Cli, Command, ImagesCommand, ProbeCommand};
use crate::env::Environment;
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::printer::{Paint, Printer, Verbosity};
use clap::FromArgMatches as _;
use karat_engine::engine::{Engine, EngineOptions};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What every verb gets.
pub(crate) struct Context {
    /// Speech.
    pub(crate) printer: Printer,
    /// Environment variables.
    pub(crate) environment: Environment,
}

impl Context {
    /// One whose speech is kept, for tests of verbs.
    #[cfg(test)]
    fn captured() -> (Context, crate::ui::printer::Captured) {
        let (printer, captured) = Printer::captured(Verbosity::Normal);
        let environment = Environment::of_process();
        let context = Context {
            printer,
            environment,
        };
        (context, captured)
    }

    /// An engine with the cache of this user.
    ///
    /// # Errors
    /// It cannot start here.
    pub(crate) fn engine(&self) -> Result<Engine, CommandError> {
        Engine::new(&EngineOptions {
            cache: self.environment.cache_dir(),
            on_demand: false,
        })
        .environment("cannot start the engine")
    }
}

/// Parses the arguments and does what they say.
pub(crate) fn start(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let environment = Environment::of_process();
    // One TLS stack: ring, chosen once for everything that speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match args::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error, &environment),
    };
    let verbosity = match (cli.speech.quiet, cli.speech.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let no_color = cli.speech.no_color || environment.no_color();
    let printer = Printer::of_process(verbosity, no_color, environment.is_ci());
    let context = Context {
        printer: printer.clone(),
        environment,
    };

    // A panic is a mistake of ours: one message in our own form, and the code that says so.
    let said = remember_panics();
    match catch_unwind(AssertUnwindSafe(|| dispatch(&context, cli.command))) {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => tell(&printer, &error),
        Err(_) => {
            let said = said.lock().ok().and_then(|mut said| said.take());
            let said = said.unwrap_or_else(|| "no message".to_owned());
            let error = CommandError::bug(anyhow::anyhow!("internal error: {said}"));
            tell(&printer, &error)
        }
    }
}

fn dispatch(context: &Context, command: Command) -> CommandResult {
    match command {
        Command::Clean(args) => clean::execute(context, &args),
        Command::Run(args) => run::execute(context, &args),
        Command::Replay(args) => replay::execute(context, &args),
        Command::Bundle(BundleCommand::Create(args)) => bundle::create_bundle(context, &args),
        Command::Bundle(BundleCommand::Withhold(args)) => bundle::withhold_answers(context, &args),
        Command::Bundle(BundleCommand::Pack(args)) => bundle::pack_bundle(context, &args),
        Command::Bundle(BundleCommand::Unpack(args)) => bundle::unpack_bundle(context, &args),
        Command::Verify(args) => verify::execute(context, &args),
        Command::Report(args) => report::execute(context, &args),
        Command::Redact(args) => redact::execute(context, &args),
        Command::Lint(args) => lint::execute(context, &args),
        Command::Product(args) => product::execute(context, &args),
        Command::Review(args) => review::execute(context, &args),
        Command::Plan(args) => plan::execute(context, &args),
        Command::List(args) => list::execute(context, &args),
        Command::Images(ImagesCommand::List(args)) => images::execute(context, &args),
        Command::Images(ImagesCommand::Export(args)) => images::export::execute(context, &args),
        Command::Images(ImagesCommand::Import(args)) => images::import::execute(context, &args),
        Command::Images(ImagesCommand::Push(args)) => images::push::execute(context, &args),
        Command::Images(ImagesCommand::Check(args)) => images::check::execute(context, &args),
        Command::Inspect(args) | Command::Probe(ProbeCommand::Inspect(args)) => {
            inspect::execute(context, &args)
        }
        Command::Explain(args) => explain::execute(context, &args),
        Command::Completions(args) => completions::execute(context, &args),
        Command::Probe(ProbeCommand::New(args)) => probe::new::execute(context, &args),
        Command::Probe(ProbeCommand::Build(args)) => probe::build::execute(context, &args),
    }
}

fn tell(printer: &Printer, error: &CommandError) -> Exit {
    for line in error.lines(printer.err_paint()) {
        printer.always(&line);
    }
    error.exit()
}

/// Help and version are data; everything else that clap says is wrong usage, which has a code of its own with us.
fn wrong_usage(error: &clap::Error, environment: &Environment) -> Exit {
    let printer = Printer::of_process(
        Verbosity::Normal,
        environment.no_color(),
        environment.is_ci(),
    );
    let styled = error.render();
    let text = |paint| match paint {
        Paint::Ansi => styled.ansi().to_string(),
        Paint::Never => styled.to_string(),
    };
    match error.kind() {
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => {
            printer.data(text(printer.out_paint()).trim_end());
            Exit::Passed
        }
        _ => {
            printer.always(text(printer.err_paint()).trim_end());
            Exit::Usage
        }
    }
}

/// Keeps the message of the last panic instead of printing it at once. `RUST_BACKTRACE` still gives the usual output.
fn remember_panics() -> Arc<Mutex<Option<String>>> {
    let place = Arc::new(Mutex::new(None));
    let kept = place.clone();
    let usual = std::panic::take_hook();
    let wants_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    std::panic::set_hook(Box::new(move |info| {
        if wants_backtrace {
            usual(info);
        }
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let place = info
            .location()
            .map_or(String::new(), |place| format!(" at {place}"));
        if let Ok(mut kept) = kept.lock() {
            *kept = Some(format!("{message}{place}"));
        }
    }));
    place
}

/// How long threads that are still busy at the end are waited for. What they hold lies in the journal.
const LINGER: Duration = Duration::from_secs(1);

/// Runs the work of a verb that talks to a cluster.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn block_on<F: Future>(work: F) -> Result<F::Output, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .environment("cannot start worker threads")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LINGER);
    Ok(result)
}
