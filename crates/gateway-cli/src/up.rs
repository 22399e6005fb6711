//! `gatewayctl up`: start a gateway, keep it running, stop it cleanly.
//!
//! Whatever ends a run, the way out is the same: stop the gateway, end the runtime, which kills what would not stop, remove what was
//! temporary, and only then say how it ended.

use std::pin::pin;
use std::time::{Duration, Instant};

use gateway_manager::{
    FailureClass, GatewayManager, JournalEntry, LifecycleConfig, OutputLogConfig, OwnerDeath,
    PortChoice, StopMode,
};
use tokio::time::{sleep_until, timeout};

use crate::arguments::{Attach, UpArguments};
use crate::choice::{Choice, choose};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::hint;
use crate::places::Places;
use crate::printer::{Format, Printer};
use crate::report::{Outcome, Report, Summary};
use crate::session::{Fixed, News, Session, Shown};
use crate::signals::Signals;
use crate::{token, trace};

/// A stop that takes so much longer than the gateway was given is forced. The manager itself needs at most 5 s after it was killed.
const STOP_RESERVE: Duration = Duration::from_secs(20);

/// How many decisions an error is told with. The newest ones tell why; `--why` tells all.
const DECISIONS_OF_AN_ERROR: usize = 12;

/// How long the last events may take to arrive after the stop was answered.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(1);

/// How long the runtime may take to drop its tasks, which kills the gateway if it is still there.
const RUNTIME_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Why a run ends.
enum Reason {
    Signal(&'static str),
    UntilReady,
    Failed(Error),
}

/// How a run ended, before the last word.
struct Ending {
    error: Option<Error>,
    /// Whether a second signal came.
    forced: bool,
    /// What is known of the gateway; `None` when none took part.
    facts: Option<Summary>,
    /// The newest launch in one line, without secrets.
    launch: Option<String>,
    /// The newest decisions before it ended, oldest first.
    why: Vec<String>,
    /// Kept until the gateway is gone for good.
    _places: Option<Places>,
}

impl Ending {
    fn early(error: Option<Error>) -> Self {
        Self {
            error,
            forced: false,
            facts: None,
            launch: None,
            why: Vec::new(),
            _places: None,
        }
    }
}

/// Runs the command to its end.
pub(crate) fn main(arguments: UpArguments) -> ExitCode {
    let mut printer = Printer::new(Format::json_if(arguments.json));
    if let Some(filter) = &arguments.log {
        trace::begin(filter);
    }
    // One worker for the manager; printing stays on this thread, so that a slow terminal holds up nothing else.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let ending = match runtime {
        Ok(runtime) => {
            let ending = runtime.block_on(run(&arguments, &mut printer));
            runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN);
            ending
        }
        Err(error) => Ending::early(Some(Error::Runtime(error))),
    };
    last_word(ending, &arguments, &mut printer)
}

fn last_word(ending: Ending, arguments: &UpArguments, printer: &mut Printer) -> ExitCode {
    let Ending {
        error,
        forced,
        facts,
        launch,
        why,
        _places: places,
    } = ending;
    drop(places);
    let lost = printer.take_loss().map(Error::OutputGone);
    let error = error.or(lost);
    let code = match &error {
        _ if forced => ExitCode::Forced,
        Some(error) => error.exit_code(),
        None => ExitCode::Success,
    };
    let outcome = match &error {
        _ if forced => Outcome::Forced,
        Some(_) => Outcome::Failed,
        None => Outcome::Done,
    };
    if let Some(error) = error {
        let class = error.class();
        let has_a_history = error.has_a_history();
        printer.show(&Report::Error {
            message: error.to_string(),
            class: class.map(FailureClass::name),
            next_step: class
                .and_then(|class| hint::next_step(class, arguments))
                .map(str::to_owned),
            // The launch is worth a look only when the gateway is at fault.
            launch: launch.filter(|_| class.is_some()),
            why: if has_a_history { why } else { Vec::new() },
            exit_code: code.number(),
        });
    }
    printer.show(&match facts {
        Some(facts) => Report::Summary(Summary {
            outcome,
            exit_code: code.number(),
            ..facts
        }),
        None => Report::summary(outcome, code),
    });
    code
}

async fn run(arguments: &UpArguments, printer: &mut Printer) -> Ending {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return Ending::early(Some(Error::Runtime(error))),
    };
    let choice = tokio::select! {
        _ = signals.next() => return Ending::early(None),
        choice = choose(arguments) => choice,
    };
    let prepared = choice.and_then(|choice| {
        let places = Places::find(arguments, choice.kind)?;
        let manager = build(arguments, &choice, &places)?;
        Ok((choice, places, manager))
    });
    let (choice, places, manager) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Ending::early(Some(error)),
    };
    let state_dir = places
        .state_dir
        .as_ref()
        .map(|directory| directory.display().to_string());
    printer.show(&announcement(arguments, &choice, state_dir.clone()));
    let fixed = Fixed {
        kind: choice.kind,
        program: choice.program(),
        state_dir,
    };
    let shown = Shown::from(arguments);
    let mut session = Session::new(printer, manager, fixed, shown, arguments.why);
    let mut ending = supervise(arguments, &mut session, &mut signals).await;
    ending._places = Some(places);
    ending
}

fn build(
    arguments: &UpArguments,
    choice: &Choice,
    places: &Places,
) -> Result<GatewayManager, Error> {
    let mut lifecycle = LifecycleConfig::default();
    lifecycle.attach = arguments.attach.into();
    lifecycle.repair = !arguments.no_repair;
    let mut builder = GatewayManager::builder()
        .lifecycle(lifecycle)
        .port(choice.port(arguments));
    if let Some(openclaw) = &choice.openclaw {
        builder = builder.openclaw(openclaw.clone());
    }
    if let Some(environment) = choice.environment() {
        builder = builder.environment(environment);
    }
    if let Some(token) = token::find(arguments.token_file.as_deref())? {
        builder = builder.token(token);
    }
    if let Some(state_dir) = &places.state_dir {
        builder = builder.state_dir(state_dir);
    }
    if let Some(home) = &places.home {
        builder = builder.home(home);
    }
    if let Some(directory) = &arguments.output_log {
        builder = builder.output_log(OutputLogConfig::new(directory));
    }
    if arguments.survive {
        builder = builder.owner_death(OwnerDeath::ChildSurvives);
    }
    if let Some(identity) = &places.identity {
        builder = builder.identity_file(identity);
    }
    Ok(builder.build()?)
}

fn announcement(arguments: &UpArguments, choice: &Choice, state_dir: Option<String>) -> Report {
    Report::Gateway {
        kind: choice.kind,
        program: choice.program(),
        version: choice.version(),
        node: choice.node(),
        state_dir,
        port: match choice.port(arguments) {
            PortChoice::Fixed(port) => Some(port),
            PortChoice::Free => None,
        },
        attach: match arguments.attach {
            Attach::Never => "never",
            Attach::IfPresent => "if-present",
            Attach::Only => "only",
        },
        message: choice.announcement(arguments.attach),
    }
}

async fn supervise(
    arguments: &UpArguments,
    session: &mut Session<'_>,
    signals: &mut Signals,
) -> Ending {
    let mut events = session.manager().events();
    let reason = run_until(arguments, session, signals, &mut events).await;
    let (name, error) = match reason {
        Reason::Signal(name) => (name, None),
        Reason::UntilReady => ("until-ready", None),
        Reason::Failed(error) => ("failure", Some(error)),
    };
    // The stop that follows is no part of how it came to an error.
    let before_the_stop = error.is_some().then(|| newest_decisions(session.manager()));
    session.begin_stopping(name);
    let begun = Instant::now();
    let mode = if arguments.drain {
        StopMode::Drain
    } else {
        StopMode::default()
    };
    let stopped = stop(session, signals, &mut events, mode).await;
    let took = begun.elapsed();
    let (forced, stop_error) = match stopped {
        Ok(()) => (false, None),
        Err(StopFailure::Forced) => (true, None),
        Err(StopFailure::Failed(error)) => (false, Some(error)),
    };
    Ending {
        error: error.or(stop_error),
        forced,
        facts: Some(session.facts(took)),
        launch: session.manager().last_launch(),
        why: before_the_stop.unwrap_or_else(|| newest_decisions(session.manager())),
        _places: None,
    }
}

/// The decisions that an error is told with, each on one line.
fn newest_decisions(manager: &GatewayManager) -> Vec<String> {
    newest(manager.why())
}

fn newest(mut why: Vec<JournalEntry>) -> Vec<String> {
    let newest = why.split_off(why.len().saturating_sub(DECISIONS_OF_AN_ERROR));
    newest.iter().map(ToString::to_string).collect()
}

/// Starts the gateway and tells what happens until there is a reason to end.
async fn run_until(
    arguments: &UpArguments,
    session: &mut Session<'_>,
    signals: &mut Signals,
    events: &mut gateway_manager::EventSubscription,
) -> Reason {
    let manager = session.manager().clone();
    let mut start = pin!(manager.start());
    let mut starting = true;
    loop {
        if let Some(error) = session.printer().take_loss() {
            return Reason::Failed(Error::OutputGone(error));
        }
        tokio::select! {
            biased;
            name = signals.next() => return Reason::Signal(name),
            delivered = events.next() => match delivered.map(|delivered| session.take(delivered)) {
                Some(News::GoOn) => {}
                Some(News::Ready) if arguments.until_ready => return Reason::UntilReady,
                Some(News::Ready) => {}
                Some(News::Over(failure)) => return Reason::Failed(Error::Gateway(failure)),
                None => return Reason::Failed(gateway_manager::ManagerError::ShutDown.into()),
            },
            started = &mut start, if starting => {
                starting = false;
                match started.map_err(Error::from) {
                    Ok(()) => {}
                    // The manager goes on by itself once a person has approved this device.
                    Err(error) if error.class() == Some(FailureClass::PairingRequired) && !arguments.until_ready => {
                        if let Some(next_step) = hint::next_step(FailureClass::PairingRequired, arguments) {
                            let message = format!("waiting for approval: {next_step}");
                            session.printer().show(&Report::Warning { message });
                        }
                    }
                    Err(error) => return Reason::Failed(error),
                }
            }
        }
    }
}

enum StopFailure {
    Forced,
    Failed(Error),
}

/// Stops the gateway and tells the rest of what happens.
async fn stop(
    session: &mut Session<'_>,
    signals: &mut Signals,
    events: &mut gateway_manager::EventSubscription,
    mode: StopMode,
) -> Result<(), StopFailure> {
    let manager = session.manager().clone();
    let within = mode.ask_for() + STOP_RESERVE;
    let mut stop = pin!(timeout(within, manager.stop_with(mode)));
    let mut answered: Option<tokio::time::Instant> = None;
    loop {
        if answered.is_some() && session.is_at_rest() {
            return Ok(());
        }
        tokio::select! {
            biased;
            _ = signals.next() => return Err(StopFailure::Forced),
            delivered = events.next() => match delivered {
                Some(delivered) => drop(session.take(delivered)),
                None => return Ok(()),
            },
            result = &mut stop, if answered.is_none() => match result {
                Ok(Ok(())) => answered = Some(tokio::time::Instant::now()),
                Ok(Err(error)) => return Err(StopFailure::Failed(error.into())),
                Err(_) => return Err(StopFailure::Failed(Error::StopTimedOut(within))),
            },
            () = last_events_are_due(answered) => return Ok(()),
        }
    }
}

async fn last_events_are_due(answered: Option<tokio::time::Instant>) {
    match answered {
        Some(answered) => sleep_until(answered + LAST_EVENTS_WITHIN).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use gateway_policy::status::Ticket;
    use gateway_policy::{Input, Lifecycle, Time, Trigger};

    use super::*;

    #[test]
    fn an_error_is_told_with_its_newest_decisions() {
        let mut machine = Lifecycle::new(LifecycleConfig::default());
        let mut entries = Vec::new();
        for number in 1..=20 {
            let start = Trigger::Input(Input::Start(Ticket::from_number(number)));
            entries.push(JournalEntry::of(
                &mut machine,
                Time::from_millis(number),
                start,
            ));
        }
        let (few, all) = (newest(entries[..3].to_vec()), newest(entries));
        let times = |lines: &[String]| -> Vec<String> {
            let first = |line: &String| line.split(' ').next().unwrap().to_owned();
            lines.iter().map(first).collect()
        };
        assert_eq!(times(&few), ["0.001", "0.002", "0.003"]);
        let newest: Vec<String> = (9..=20).map(|number| format!("0.0{number:02}")).collect();
        assert_eq!(times(&all), newest);
    }
}
