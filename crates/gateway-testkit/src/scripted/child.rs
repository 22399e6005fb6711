//! One scripted child.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateway_process::{
    ChildExit, Ending, EndingStage, ExitReason, LaunchFingerprint, LaunchSpec, ManagedChild,
    OutputLine, OutputSender, OutputSource, OutputStream, OwnerDeath, ProcessSample, StderrLevel,
    TerminateError, Termination, TerminationReason,
};
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::machine::Machine;
use super::plan::{AskPlan, ChildPlan};
use super::record::Happening;
use crate::fake_gateway::FakeGateway;

const SIGKILL: i32 = 9;
const RECENT_LINES: usize = 120;
const DEFAULT_PORT: u16 = 18_789;
const OUTPUT_QUEUE: usize = 1024;
const END_QUEUE: usize = 16;

/// A request to end, on its way to the task of the child.
struct End {
    ask_for: Duration,
}

#[derive(Debug)]
struct State {
    reason: Option<TerminationReason>,
    recent: VecDeque<String>,
    /// Dropped with the child, which ends the readers' streams.
    output: Option<OutputSender>,
    /// For the first reader, who also gets what was printed before it came.
    first_reader: Option<OutputStream>,
}

/// What the handle and the task of a child share.
#[derive(Debug)]
struct Shared {
    machine: Machine,
    pid: u32,
    spawned: Instant,
    busy: bool,
    leftovers: Vec<u32>,
    state: Mutex<State>,
    exit: watch::Sender<Option<ChildExit>>,
    progress: watch::Sender<u64>,
    ending: watch::Sender<Ending>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &str) {
        let mut state = self.state();
        if state.recent.len() == RECENT_LINES {
            state.recent.pop_front();
        }
        state.recent.push_back(line.to_owned());
        if let Some(output) = &state.output {
            output.send(stderr_line(line));
        }
        drop(state);
        self.progress.send_modify(|lines| *lines += 1);
    }

    fn finish(&self, code: Option<i32>, signal: Option<i32>) {
        let mut state = self.state();
        let reason = state
            .reason
            .clone()
            .map_or(ExitReason::Unexpected, ExitReason::Requested);
        state.output = None;
        drop(state);
        self.machine.end(self.pid, code, signal);
        self.ending.send_modify(|ending| {
            ending.stage = EndingStage::Gone;
            ending.force_at = None;
        });
        let exit = ChildExit {
            pid: self.pid,
            code,
            signal,
            reason,
            ran_for: self.spawned.elapsed(),
            leftovers: self.leftovers.clone(),
        };
        self.exit
            .send_if_modified(|slot| slot.is_none().then(|| *slot = Some(exit)).is_some());
    }
}

/// The handle of a child.
#[derive(Debug)]
pub(super) struct ScriptedChild {
    shared: Arc<Shared>,
    orders: mpsc::Sender<End>,
    task: AbortHandle,
    /// Whose handle it is.
    owner: u64,
}

/// A launch as it is remembered under a claim.
#[derive(Clone, Debug)]
pub(super) struct Launched {
    shared: Arc<Shared>,
    orders: mpsc::Sender<End>,
    task: AbortHandle,
    survives: bool,
    fingerprint: LaunchFingerprint,
    port: Option<u16>,
}

impl Launched {
    pub(super) fn pid(&self) -> u32 {
        self.shared.pid
    }

    pub(super) fn survives(&self) -> bool {
        self.survives
    }

    /// The kernel kills it.
    pub(super) fn die_with_owner(&self) {
        self.task.abort();
        self.shared.finish(None, Some(SIGKILL));
    }

    /// A handle for the current owner, what it was launched as, and the port that it was to serve.
    pub(super) fn adopt(&self) -> (ScriptedChild, LaunchFingerprint, Option<u16>) {
        let machine = &self.shared.machine;
        machine.record(Happening::Adopted { pid: self.pid() });
        // Its new owner reads what comes from now on.
        self.shared.state().first_reader = None;
        let child = ScriptedChild {
            shared: Arc::clone(&self.shared),
            orders: self.orders.clone(),
            task: self.task.clone(),
            owner: machine.owner(),
        };
        (child, self.fingerprint.clone(), self.port)
    }
}

impl ScriptedChild {
    /// How it is remembered under a claim.
    pub(super) fn launched(&self, spec: &LaunchSpec) -> Launched {
        Launched {
            shared: Arc::clone(&self.shared),
            orders: self.orders.clone(),
            task: self.task.clone(),
            survives: spec.owner_death == OwnerDeath::ChildSurvives,
            fingerprint: spec.fingerprint(),
            port: spec.port,
        }
    }

    /// Whether whoever holds this handle was killed.
    fn is_severed(&self) -> bool {
        self.shared.machine.owner() != self.owner
    }

    pub(super) fn start(machine: &Machine, spec: &LaunchSpec, plan: ChildPlan) -> Self {
        let pid = machine.begin(spec.to_string());
        let (output, first_reader) = OutputSender::channel(OUTPUT_QUEUE);
        let shared = Arc::new(Shared {
            machine: machine.clone(),
            pid,
            spawned: Instant::now(),
            busy: plan.busy,
            leftovers: plan.leftovers.clone(),
            state: Mutex::new(State {
                reason: None,
                recent: VecDeque::new(),
                output: Some(output),
                first_reader: Some(first_reader),
            }),
            exit: watch::Sender::default(),
            progress: watch::Sender::default(),
            ending: watch::Sender::default(),
        });
        let (orders, received) = mpsc::channel(END_QUEUE);
        let life = Life {
            port: port_of(spec),
            token: spec
                .env
                .expose("OPENCLAW_GATEWAY_TOKEN")
                .map(|token| token.to_string_lossy().into_owned().into()),
            program: spec.program.display().to_string(),
            shared: Arc::clone(&shared),
            plan,
            orders: received,
        };
        let task = tokio::spawn(life.live()).abort_handle();
        Self {
            shared,
            orders,
            task,
            owner: machine.owner(),
        }
    }
}

impl Drop for ScriptedChild {
    /// The last handle is gone, so the group is killed on the spot.
    fn drop(&mut self) {
        if self.is_severed() {
            return;
        }
        self.task.abort();
        if self.shared.exit.borrow().is_none() {
            self.shared
                .state()
                .reason
                .get_or_insert(TerminationReason::Superseded);
            self.shared.machine.record(Happening::Killed {
                pid: self.shared.pid,
            });
            self.shared.finish(None, Some(SIGKILL));
        }
    }
}

#[async_trait]
impl ManagedChild for ScriptedChild {
    fn pid(&self) -> u32 {
        self.shared.pid
    }

    fn recent_stderr(&self) -> Vec<String> {
        self.shared.state().recent.iter().cloned().collect()
    }

    fn output(&self) -> OutputStream {
        let mut state = self.shared.state();
        if let Some(first) = state.first_reader.take() {
            return first;
        }
        match &state.output {
            Some(output) => output.subscribe(),
            // Ended: a stream whose sender is gone.
            None => OutputSender::channel(1).1,
        }
    }

    fn progress(&self) -> watch::Receiver<u64> {
        self.shared.progress.subscribe()
    }

    fn sample(&self) -> Option<ProcessSample> {
        let alive = self.shared.exit.borrow().is_none();
        alive.then(|| ProcessSample {
            processor_time: if self.shared.busy {
                self.shared.spawned.elapsed()
            } else {
                Duration::ZERO
            },
            lines: *self.shared.progress.borrow(),
            halted: false,
        })
    }

    fn ending(&self) -> watch::Receiver<Ending> {
        self.shared.ending.subscribe()
    }

    async fn wait(&self) -> ChildExit {
        if self.is_severed() {
            return std::future::pending().await;
        }
        let mut exit = self.shared.exit.subscribe();
        match exit
            .wait_for(Option::is_some)
            .await
            .map(|exit| exit.clone())
        {
            Ok(Some(exit)) => exit,
            // The sender lives in `shared`, which this handle holds, and the condition says that there is an exit.
            _ => std::future::pending().await,
        }
    }

    async fn terminate(&self, request: Termination) -> Result<ChildExit, TerminateError> {
        if self.is_severed() {
            return std::future::pending().await;
        }
        if let Some(exit) = self.shared.exit.borrow().clone() {
            return Ok(exit);
        }
        self.shared.state().reason.get_or_insert(request.reason);
        let begin = Instant::now();
        // The task is there as long as there is no exit; should it be ending just now, the exit follows.
        let end = End {
            ask_for: request.ask_for,
        };
        let _ = self.orders.send(end).await;
        timeout(request.ask_for + request.reap_within, self.wait())
            .await
            .map_err(|_| TerminateError::StillAlive {
                pid: self.shared.pid,
                waited: begin.elapsed(),
                signal_error: None,
            })
    }
}

/// The task of a child.
struct Life {
    shared: Arc<Shared>,
    plan: ChildPlan,
    port: u16,
    token: Option<SecretString>,
    program: String,
    orders: mpsc::Receiver<End>,
}

impl Life {
    async fn live(mut self) {
        let after = |wait: Duration| self.shared.spawned + wait;
        let exit = self
            .plan
            .exit
            .map(|(wait, code, signal)| (after(wait), code, signal));
        let mut listen_at = self.plan.listen_after.map(after);
        let mut stall_at = self.plan.stall_after.map(after);
        let mut lines: VecDeque<(Instant, String)> = self
            .plan
            .stderr
            .drain(..)
            .map(|(wait, line)| (after(wait), line))
            .collect();
        lines.make_contiguous().sort_by_key(|(at, _)| *at);
        let mut gateway: Option<Arc<FakeGateway>> = None;
        let (mut kill_at, mut exit_at) = (None::<Instant>, None::<Instant>);
        // How long after its gateway has stopped the process ends, and with which code.
        let mut obeys: Option<(Duration, i32)> = None;
        loop {
            tokio::select! {
                biased;
                Some(end) = self.orders.recv() => {
                    let deadline = Instant::now() + end.ask_for;
                    kill_at = Some(kill_at.map_or(deadline, |at| at.min(deadline)));
                    self.shared.ending.send_modify(|ending| {
                        ending.stage = EndingStage::Asked;
                        ending.since.get_or_insert_with(Instant::now);
                        ending.force_at = kill_at;
                    });
                    if !end.ask_for.is_zero() {
                        obeys = self.asked(gateway.as_deref());
                        if let (Some((after, _)), None) = (obeys, &gateway) {
                            // Nothing to stop yet, and nothing is begun any more.
                            listen_at = None;
                            exit_at = exit_at.or(Some(Instant::now() + after));
                        }
                    }
                }
                () = until(lines.front().map(|(at, _)| *at)) => {
                    if let Some((_, line)) = lines.pop_front() {
                        self.shared.say(&line);
                    }
                }
                () = until(exit.map(|(at, ..)| at)) => {
                    let (code, signal) = exit.map_or((None, None), |(_, code, signal)| (code, signal));
                    return self.shared.finish(code, signal);
                }
                () = stopped(gateway.as_deref()), if obeys.is_some() && exit_at.is_none() => {
                    exit_at = obeys.map(|(after, _)| Instant::now() + after);
                }
                () = until(exit_at) => {
                    return self.shared.finish(obeys.map(|(_, code)| code), None);
                }
                () = until(kill_at) => {
                    self.shared.machine.record(Happening::Killed { pid: self.shared.pid });
                    self.shared.ending.send_modify(|ending| {
                        ending.stage = EndingStage::Forced;
                        ending.force_at = None;
                        ending.forced_at = Some(Instant::now());
                    });
                    if !self.plan.unkillable {
                        return self.shared.finish(None, Some(SIGKILL));
                    }
                    kill_at = None;
                }
                () = until(stall_at) => {
                    stall_at = None;
                    if let Some(gateway) = &gateway {
                        gateway.stall();
                    }
                }
                () = until(listen_at) => {
                    listen_at = None;
                    match self.listen() {
                        Some(bound) => gateway = Some(bound),
                        None => {
                            self.shared.say(&format!("Port {} is already in use. (EADDRINUSE)", self.port));
                            return self.shared.finish(Some(1), None);
                        }
                    }
                }
            }
        }
    }

    /// `SIGTERM`: how long after its gateway and with which code it ends, if it obeys.
    fn asked(&self, gateway: Option<&FakeGateway>) -> Option<(Duration, i32)> {
        let reason = self
            .shared
            .state()
            .reason
            .clone()
            .unwrap_or(TerminationReason::UserStop);
        self.shared.machine.record(Happening::Asked {
            pid: self.shared.pid,
            reason,
        });
        match self.plan.ask {
            AskPlan::Ignores => None,
            AskPlan::Obeys { after, code } => {
                if let Some(gateway) = gateway {
                    gateway.begin_stop();
                }
                Some((after, code))
            }
        }
    }

    fn listen(&self) -> Option<Arc<FakeGateway>> {
        let mut config = self.plan.gateway.clone().with_port(self.port);
        if !self.plan.own_token && self.token.is_some() {
            config.token.clone_from(&self.token);
        }
        let gateway = Arc::new(FakeGateway::start_in_memory(config));
        let (pid, program) = (self.shared.pid, self.program.clone());
        self.shared
            .machine
            .listen(pid, self.port, program, &gateway)
            .then_some(gateway)
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn stopped(gateway: Option<&FakeGateway>) {
    match gateway {
        Some(gateway) => {
            gateway.stopped().await;
        }
        None => std::future::pending().await,
    }
}

/// `--port N` or `--port=N`.
fn port_of(spec: &LaunchSpec) -> u16 {
    let args: Vec<_> = spec.args.iter().map(|arg| arg.to_string_lossy()).collect();
    let after_flag = args
        .iter()
        .position(|arg| arg == "--port")
        .and_then(|at| args.get(at + 1));
    let attached = args.iter().find_map(|arg| arg.strip_prefix("--port="));
    after_flag
        .map(AsRef::as_ref)
        .or(attached)
        .and_then(|port| port.parse().ok())
        .unwrap_or(DEFAULT_PORT)
}

pub(super) fn stderr_line(text: &str) -> OutputLine {
    OutputLine {
        stream: OutputSource::Stderr,
        text: text.into(),
        level: StderrLevel::Warn,
        truncated: false,
    }
}
