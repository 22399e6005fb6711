//! `gateway run`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::arguments::{self, RunOptions};
use super::log::Log;
use super::script::{ChildScript, Flood, StartScript};
use super::signals::{Received, Signals};
use super::state_lock::{LockFailure, StateLock};
use super::surroundings::Surroundings;
use super::{grandchild, launcher};
use crate::fake_gateway::{
    FakeGateway, FakeGatewayConfig, FakeGatewayError, LogHook, StopOutcome, Vintage,
    check_configuration, lookup, random_token,
};

const DEFAULT_PORT: u16 = 18_789;

/// An end before the gateway serves: the exit code and the lines for stderr.
struct EarlyEnd {
    code: u8,
    stderr: Vec<String>,
}

impl EarlyEnd {
    fn new(code: u8, line: impl Into<String>) -> Self {
        Self {
            code,
            stderr: vec![line.into()],
        }
    }
}

pub(super) fn run(
    script: &ChildScript,
    options: &RunOptions,
    surroundings: &Surroundings,
) -> ExitCode {
    let log = Log::new(script.vintage);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            log.plain_error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if script.has_launcher() && !launcher::is_behind() {
        return match runtime.block_on(launcher::run(script.vintage, log)) {
            Ok(code) => code,
            Err(error) => {
                log.plain_error(&format!("cannot start the gateway: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    match runtime.block_on(serve(script, options, surroundings, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => {
            for line in &end.stderr {
                log.plain_error(line);
            }
            ExitCode::from(end.code)
        }
    }
}

async fn serve(
    script: &ChildScript,
    options: &RunOptions,
    surroundings: &Surroundings,
    log: Log,
) -> Result<(), EarlyEnd> {
    let failed = |error: io::Error| EarlyEnd::new(1, format!("Gateway failed to start: {error}"));
    let start = script.next_start().map_err(failed)?;
    for line in &start.stderr {
        log.plain_error(line);
    }
    if let Some(exit) = &start.exit_at_start {
        return Err(EarlyEnd {
            code: exit.code,
            stderr: exit.stderr.clone(),
        });
    }
    let mut signals = Signals::install(script.vintage).map_err(failed)?;
    let port = match (options.port, &surroundings.port) {
        (Some(port), _) => port,
        (None, Some(text)) => arguments::port(text).map_err(|problem| EarlyEnd::new(1, problem))?,
        (None, None) => DEFAULT_PORT,
    };
    if let Some(script) = &start.grandchild {
        let pid = grandchild::spawn(script, port).map_err(failed)?;
        log.plain(&format!("[fake] grandchild pid {pid}"));
    }
    let token = configured_token(script.vintage, options, surroundings)?;
    std::fs::create_dir_all(&surroundings.state_dir).map_err(failed)?;
    let _lock = take_lock(script.vintage, start, surroundings, port)?;

    let boot = async {
        sleep(Duration::from_millis(start.listen_after_ms)).await;
        if start.never_listen {
            std::future::pending::<()>().await;
        }
        bind(
            settings(script.vintage, start, surroundings, port, token, log),
            start,
        )
        .await
    };
    let gateway = tokio::select! {
        // Signals first: one that has been taken from its queue must not be forgotten.
        biased;
        () = stop_signal(&mut signals, start, log) => {
            sleep(Duration::from_millis(start.stop_delay_ms)).await;
            return Ok(());
        }
        gateway = boot => gateway?,
    };
    flood(start.stderr_flood.as_ref(), io::stderr);
    flood(start.stdout_flood.as_ref(), io::stdout);
    tokio::select! {
        outcome = gateway.stopped() => match outcome {
            StopOutcome::Stopped => Ok(()),
            StopOutcome::PortLost => Err(port_taken(port)),
        },
        never = obey_signals(&gateway, &mut signals, start, log) => match never {},
        never = misbehave(&gateway, start) => match never {},
    }
}

/// `--token` wins, then the file, then the environment; without any the gateway makes one up.
fn configured_token(
    vintage: Vintage,
    options: &RunOptions,
    surroundings: &Surroundings,
) -> Result<String, EarlyEnd> {
    let path = &surroundings.config_path;
    let mut value = match std::fs::read_to_string(path) {
        Ok(text) => check_configuration(&text).map_err(|problems| {
            let mut stderr = vec![format!("Invalid config at {}:", path.display())];
            stderr.extend(
                problems
                    .iter()
                    .map(|problem| format!("- {}: {}", problem.path(), problem.message())),
            );
            stderr.push("Run: openclaw doctor --fix".to_owned());
            EarlyEnd {
                code: vintage.invalid_config_exit(),
                stderr,
            }
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && options.allow_unconfigured => {
            json!({})
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = "Missing config. Run `openclaw setup` or set gateway.mode=local (or pass --allow-unconfigured).";
            return Err(EarlyEnd::new(vintage.invalid_config_exit(), text));
        }
        Err(error) => {
            return Err(EarlyEnd::new(
                1,
                format!("cannot read {}: {error}", path.display()),
            ));
        }
    };
    let in_file = lookup(&value, "gateway.auth.token")
        .and_then(|token| token.as_str())
        .map(substituted);
    let known = options
        .token
        .clone()
        .or(in_file)
        .or_else(|| surroundings.token.clone());
    if let Some(token) = known {
        return Ok(token);
    }
    let token = random_token();
    if vintage == Vintage::V2026_3_2 {
        value["gateway"]["auth"]["token"] = json!(token);
        let written = std::fs::create_dir_all(&surroundings.state_dir)
            .and_then(|()| std::fs::write(path, format!("{value:#}\n")));
        written.map_err(|error| {
            EarlyEnd::new(1, format!("cannot write {}: {error}", path.display()))
        })?;
    }
    Ok(token)
}

/// `${NAME}` in the file stands for an environment variable.
fn substituted(text: &str) -> String {
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|name| std::env::var(name).ok())
        .unwrap_or_else(|| text.to_owned())
}

fn take_lock(
    vintage: Vintage,
    start: &StartScript,
    surroundings: &Surroundings,
    port: u16,
) -> Result<StateLock, EarlyEnd> {
    let path = StateLock::path(vintage, &surroundings.state_dir, port);
    StateLock::take(&path, Duration::from_millis(start.lock_wait_ms)).map_err(|failure| match (failure, vintage) {
        (LockFailure::Io { path, error }, _) => {
            EarlyEnd::new(1, format!("Gateway failed to start: cannot lock {}: {error}", path.display()))
        }
        (LockFailure::Held { pid }, Vintage::V2026_3_2) => EarlyEnd::new(
            1,
            format!("Gateway failed to start: gateway already running (pid {pid}); lock timeout after 5000ms"),
        ),
        (LockFailure::Held { pid }, Vintage::V2026_9_6) => EarlyEnd::new(
            78,
            format!("Gateway failed to start: another OpenClaw process owns gateway-lifecycle (pid {pid})"),
        ),
    })
}

fn settings(
    vintage: Vintage,
    start: &StartScript,
    surroundings: &Surroundings,
    port: u16,
    token: String,
    log: Log,
) -> FakeGatewayConfig {
    let mut config = FakeGatewayConfig::new(vintage)
        .with_port(port)
        .with_token(token)
        .with_faults(start.faults.clone());
    config.state_dir.clone_from(&surroundings.state_dir);
    config.config_path = Some(surroundings.config_path.clone());
    config.ready_after = Duration::from_millis(start.ready_after_ms);
    config.tick_interval = Duration::from_millis(start.tick_interval_ms.max(1));
    config.run_duration = Duration::from_millis(start.run_duration_ms);
    config.restart_gap = Duration::from_millis(start.restart_gap_ms);
    config.log = LogHook::new(move |subsystem, message| log.info(subsystem, message));
    config
}

/// Binds the port; 2026.9.6 tries again while it is taken.
async fn bind(config: FakeGatewayConfig, start: &StartScript) -> Result<FakeGateway, EarlyEnd> {
    let retries = if config.vintage == Vintage::V2026_9_6 {
        start.bind_retries
    } else {
        0
    };
    let port = config.port;
    for attempt in 0..=retries {
        match FakeGateway::start(config.clone()).await {
            Ok(gateway) => return Ok(gateway),
            Err(FakeGatewayError::Bind { .. }) if attempt < retries => {
                sleep(Duration::from_millis(start.bind_retry_ms)).await;
            }
            Err(FakeGatewayError::Bind { .. }) => break,
            Err(error) => {
                return Err(EarlyEnd::new(
                    1,
                    format!("Gateway failed to start: {error}"),
                ));
            }
        }
    }
    Err(port_taken(port))
}

fn port_taken(port: u16) -> EarlyEnd {
    EarlyEnd {
        code: 1,
        stderr: vec![
            format!(
                "Gateway failed to start: another gateway instance is already listening on ws://127.0.0.1:{port}"
            ),
            format!("Error: listen EADDRINUSE: address already in use 127.0.0.1:{port}"),
            format!("Port {port} is already in use."),
        ],
    }
}

/// Waits for a signal that ends the process while it boots.
async fn stop_signal(signals: &mut Signals, start: &StartScript, log: Log) {
    loop {
        match signals.next().await {
            Received::Stop if start.ignore_sigterm => {}
            Received::Stop => return,
            Received::Inspector => inspector(log),
            Received::Restart => {}
        }
    }
}

async fn obey_signals(
    gateway: &FakeGateway,
    signals: &mut Signals,
    start: &StartScript,
    log: Log,
) -> std::convert::Infallible {
    loop {
        match signals.next().await {
            Received::Stop if start.ignore_sigterm => log.info("fake", "signal ignored"),
            Received::Stop => {
                sleep(Duration::from_millis(start.stop_delay_ms)).await;
                gateway.begin_stop();
            }
            Received::Restart => gateway.begin_restart(),
            Received::Inspector => inspector(log),
        }
    }
}

fn inspector(log: Log) {
    log.plain_error(
        "Debugger listening on ws://127.0.0.1:9229/00000000-0000-4000-8000-000000000000",
    );
}

/// Crashes and stalls when the script says so.
async fn misbehave(gateway: &FakeGateway, start: &StartScript) -> std::convert::Infallible {
    let crash = async {
        match start.crash_after_ms {
            Some(after) => sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
    };
    let stall = async {
        match start.stall_after_ms {
            Some(after) => sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
        gateway.stall();
        std::future::pending::<()>().await;
    };
    let half_close = async {
        if let Some(after) = start.close_stdout_after_ms {
            sleep(Duration::from_millis(after)).await;
            close_stdout();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = crash => {}
        () = stall => {}
        () = half_close => {}
    }
    if start.crash_by_signal {
        std::process::abort();
    }
    std::process::exit(start.crash_code);
}

/// Whoever reads it sees its end, while the process lives on.
fn close_stdout() {
    #[cfg(unix)]
    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        // There is nothing else to do where it fails.
        let _ = rustix::stdio::dup2_stdout(nowhere);
    }
}

/// Writes on a thread of its own: a full pipe must not stop the gateway.
fn flood<W: io::Write + 'static>(flood: Option<&Flood>, stream: fn() -> W) {
    let Some(flood) = flood.cloned() else { return };
    std::thread::spawn(move || {
        let mut line = "f".repeat(flood.line_bytes);
        line.push('\n');
        let mut stream = io::BufWriter::with_capacity(64 * 1024, stream());
        for _ in 0..flood.lines {
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
        // Nobody reads: nothing to do about it.
        let _ = stream.flush();
    });
}
