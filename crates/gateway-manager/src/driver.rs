//! The one loop: takes commands and observations, feeds the lifecycle machine, performs its effects.
//!
//! It decides nothing. Everything that may take time runs in a task that the loop owns and that reports back with the epoch of its
//! effect; dropping the loop drops its tasks, sockets and child.

mod effects;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gateway_client::{Connection, DeviceIdentity, Disconnected, Endpoint};
use gateway_policy::liveness::{HandshakeSign, ProcessSample, RequestSign};
use gateway_policy::startup_trace::StartupSummary;
use gateway_policy::status::{GatewayStatus, SessionFacts, Ticket, TicketOutcome};
use gateway_policy::{Epoch, Failure, Input, Lifecycle, Observation, Phase, Time, Trigger};
use gateway_process::{
    ChildExit, Claim, LaunchFingerprint, ManagedChild, Redactor, RepairError, RepairOutcome,
    StopMode, Survivor,
};
use secrecy::SecretString;
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::builder::{PortChoice, Settings};
use crate::causes;
use crate::events::{EventBus, GatewayEvent};
use crate::hooks::PreparationHook;
use crate::journal::SharedJournal;
use crate::launch::LaunchRecord;

/// How many reports of tasks may wait for the loop; a task that reports more waits for room.
const REPORT_QUEUE: usize = 256;

/// A command of a handle.
pub(crate) struct Command {
    pub(crate) verb: Verb,
    pub(crate) reply: oneshot::Sender<TicketOutcome>,
}

/// What a handle can ask for.
pub(crate) enum Verb {
    Start,
    Stop {
        /// How much time running work gets; `None` for what the settings say.
        mode: Option<StopMode>,
    },
    Restart,
    RestartDebounced {
        delay: Duration,
    },
}

/// Where the loop writes what handles read.
pub(crate) struct Outputs {
    pub(crate) status: watch::Sender<GatewayStatus>,
    pub(crate) connection: watch::Sender<Option<Connection>>,
    pub(crate) port: watch::Sender<Option<u16>>,
    /// The newest launch in one line, without secrets.
    pub(crate) launched: watch::Sender<Option<String>>,
    /// The newest start, as far as the gateway has told of it.
    pub(crate) startup: watch::Sender<Option<StartupSummary>>,
    pub(crate) bus: EventBus,
    pub(crate) journal: Arc<SharedJournal>,
}

/// What a task reports: an observation, or something that has to be kept before it becomes one.
pub(super) enum Report {
    Observed(Epoch, Observation),
    Discovered(Epoch, Box<Discovered>),
    Prepared(Epoch, Box<LaunchRecord>),
    /// With what removes the secrets of its environment from whatever it prints.
    Spawned(Epoch, Arc<dyn ManagedChild>, Arc<Redactor>),
    Exited(Epoch, ChildExit),
    Connected(Epoch, Connection),
    Disconnected(Epoch, Disconnected),
    RequestMade(Epoch, RequestSign),
    HandshakeTried(Epoch, HandshakeSign),
    Repaired(Epoch, Box<Result<RepairOutcome, RepairError>>),
}

/// What a look at the instance and at its port has shown.
pub(super) struct Discovered {
    pub(super) observation: Observation,
    /// The right to run the instance, once we have it.
    pub(super) claim: Option<Claim>,
    /// The token that is kept for the instance.
    pub(super) token: Option<SecretString>,
    /// What an earlier owner has left us.
    pub(super) survivor: Option<Survivor>,
}

/// The child in use and the tasks that watch it.
struct ChildInUse {
    epoch: Epoch,
    handle: Arc<dyn ManagedChild>,
    /// Removes the secrets of its environment from what it prints: the token, and whatever a hook or this program's own environment
    /// gave it.
    redactor: Arc<Redactor>,
    /// What it was launched as, where an earlier owner did that.
    launched_as: Option<LaunchFingerprint>,
    /// Whether there was a session with it.
    served: bool,
    _watchers: Vec<AbortOnDropHandle<()>>,
}

/// The connection in use and the tasks that watch it.
struct ConnectionInUse {
    epoch: Epoch,
    connection: Connection,
    /// What the last look at it saw; the next one is compared with it.
    looked: Reading,
    /// Reports that it has ended; absent once we end it ourselves.
    end_watcher: Option<AbortOnDropHandle<()>>,
    _event_watcher: AbortOnDropHandle<()>,
}

/// The counters at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    asleep: Duration,
    process: Option<ProcessSample>,
}

/// What a task does for its epoch. A child or a connection can have several at once, and the end of one must not end another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    /// Finds the answer to an effect; cancelling the effect drops it.
    Answer,
    /// Runs the doctor; it has to be seen through to its end even when it is cancelled.
    Repair,
    Verify,
    Knock,
    Disconnect,
    Terminate,
    /// Makes an ending quicker that is under way.
    Hasten,
}

pub(crate) struct Driver {
    settings: Settings,
    hooks: Arc<[Arc<dyn PreparationHook>]>,
    outputs: Outputs,
    machine: Lifecycle,
    origin: Instant,
    reports: mpsc::Sender<Report>,
    inbox: mpsc::Receiver<Report>,
    tickets: HashMap<Ticket, oneshot::Sender<TicketOutcome>>,
    last_ticket: u64,
    in_flight: HashMap<(Epoch, Work), AbortOnDropHandle<()>>,
    /// The right to run the instance; given back when the gateway is stopped.
    claim: Option<Claim>,
    /// The newest launch; its token is used for every connection to the process that came of it.
    launch: Option<LaunchRecord>,
    child: Option<ChildInUse>,
    connection: Option<ConnectionInUse>,
    identity: Arc<OnceCell<Arc<DeviceIdentity>>>,
    /// What the gateway issued to this device in its last hello.
    device_token: Option<SecretString>,
    /// How much time running work gets when the user stops the gateway.
    stop_mode: StopMode,
    last_refusal: Option<Failure>,
    /// Looks for services that run a gateway of their own; begun by the first launch.
    _service_look: Option<AbortOnDropHandle<()>>,
}

impl Driver {
    pub(crate) fn new(
        mut settings: Settings,
        machine: Lifecycle,
        outputs: Outputs,
        origin: Instant,
    ) -> Self {
        let (reports, inbox) = mpsc::channel(REPORT_QUEUE);
        if let PortChoice::Fixed(port) = settings.port {
            outputs.port.send_replace(Some(port));
        }
        Self {
            hooks: std::mem::take(&mut settings.hooks).into(),
            machine,
            settings,
            outputs,
            origin,
            reports,
            inbox,
            tickets: HashMap::new(),
            last_ticket: 0,
            in_flight: HashMap::new(),
            claim: None,
            launch: None,
            child: None,
            connection: None,
            identity: Arc::new(OnceCell::new()),
            device_token: None,
            stop_mode: StopMode::default(),
            last_refusal: None,
            _service_look: None,
        }
    }

    /// Runs until the last handle is gone and the gateway is stopped.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut closing = false;
        loop {
            // A time beyond what the clock can tell is never.
            let deadline = self
                .machine
                .poll_timeout()
                .and_then(|due| self.origin.checked_add(due.elapsed_from_origin()));
            tokio::select! {
                // What has happened comes before what is wanted, and both before the time: always in this order, so that a history can
                // be played again.
                biased;
                // The loop holds a sender itself, so this never ends.
                Some(report) = self.inbox.recv() => self.on_report(report),
                command = commands.recv(), if !closing => match command {
                    Some(command) => self.on_command(command),
                    None => {
                        closing = true;
                        self.set_stop_mode(None);
                        let ticket = self.ticket();
                        self.feed(Input::Stop(ticket));
                    }
                },
                () = sleep_until(deadline) => self.advance(Trigger::Timeout),
            }
            if closing && matches!(self.machine.status().phase, Phase::Stopped | Phase::Failed) {
                return;
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_origin(self.origin.elapsed())
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket::from_number(self.last_ticket)
    }

    fn on_command(&mut self, command: Command) {
        let ticket = self.ticket();
        self.tickets.insert(ticket, command.reply);
        let input = match command.verb {
            Verb::Start => Input::Start(ticket),
            Verb::Stop { mode } => {
                self.set_stop_mode(mode);
                Input::Stop(ticket)
            }
            Verb::Restart => Input::Restart(ticket),
            Verb::RestartDebounced { delay } => Input::RestartDebounced { ticket, delay },
        };
        self.feed(input);
    }

    /// Also for a stop that is under way already: whoever asks again can make it quicker.
    fn set_stop_mode(&mut self, mode: Option<StopMode>) {
        self.stop_mode = mode.unwrap_or(StopMode::Bounded(self.settings.ask_for));
        self.hasten();
    }

    fn observe(&mut self, epoch: Epoch, observation: Observation) {
        self.feed(Input::Observed { epoch, observation });
    }

    fn feed(&mut self, input: Input) {
        self.advance(Trigger::Input(input));
    }

    /// Moves the machine and performs every effect, and whatever those lead to at once.
    fn advance(&mut self, trigger: Trigger) {
        let mut triggers = VecDeque::from([trigger]);
        while let Some(trigger) = triggers.pop_front() {
            let now = self.now();
            let (effects, decision) = self
                .outputs
                .journal
                .advance(&mut self.machine, now, trigger);
            // The reason comes before what follows from it.
            if let Some(entry) = decision {
                self.outputs.bus.publish(GatewayEvent::Decision(entry));
            }
            for effect in effects {
                if let Some((epoch, observation)) = self.perform(effect) {
                    triggers.push_back(Trigger::Input(Input::Observed { epoch, observation }));
                }
            }
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Observed(epoch, observation) => {
                if let Observation::ConnectFailed(failure) = &observation {
                    self.last_refusal = Some(failure.clone());
                }
                self.observe(epoch, observation);
            }
            Report::Discovered(epoch, discovered) => self.on_discovered(epoch, *discovered),
            Report::Prepared(epoch, record) => {
                let survivor = self.child.as_ref();
                let runs = survivor.and_then(|child| child.launched_as.as_ref());
                let as_running = runs.is_some_and(|runs| *runs == self.spec(&record).fingerprint());
                if self.machine.expects(epoch) {
                    self.launch = Some(*record);
                }
                self.observe(
                    epoch,
                    if as_running {
                        Observation::PreparedAsRunning
                    } else {
                        Observation::Prepared
                    },
                );
            }
            Report::Spawned(epoch, handle, redactor) => {
                let pid = handle.pid();
                tracing::info!(pid, "gateway process started");
                self.child = Some(self.watch_child(epoch, handle, redactor));
                self.observe(epoch, Observation::Spawned { pid });
            }
            Report::Exited(epoch, exit) => self.on_exited(epoch, exit),
            Report::Connected(epoch, connection) => {
                if self.machine.expects(epoch) {
                    self.on_connected(epoch, connection);
                }
                // Otherwise nobody waits for it any more, and dropping the last handle closes the socket.
            }
            Report::Disconnected(epoch, disconnected) => {
                if self
                    .connection
                    .as_ref()
                    .is_some_and(|connection| connection.epoch == epoch)
                {
                    self.connection = None;
                    self.outputs.connection.send_replace(None);
                    self.in_flight.remove(&(epoch, Work::Verify));
                    self.in_flight.remove(&(epoch, Work::Knock));
                }
                self.observe(
                    epoch,
                    Observation::Disconnected(causes::of_loss(&disconnected)),
                );
            }
            Report::RequestMade(epoch, sign) => {
                if let Some(look) = self.look_at(epoch) {
                    self.observe(epoch, Observation::RequestMade { sign, look });
                }
            }
            Report::HandshakeTried(epoch, sign) => {
                if let Some(look) = self.look_at(epoch) {
                    self.observe(epoch, Observation::HandshakeTried { sign, look });
                }
            }
            Report::Repaired(epoch, outcome) => {
                let observation = match *outcome {
                    Ok(outcome) => {
                        tracing::warn!("{outcome:#}");
                        let outcome = Arc::new(outcome);
                        self.outputs
                            .bus
                            .publish(GatewayEvent::Repaired(Arc::clone(&outcome)));
                        if outcome.succeeded() {
                            Observation::Repaired
                        } else {
                            Observation::RepairFailed(causes::of_failed_doctor(&outcome))
                        }
                    }
                    Err(error) => Observation::RepairFailed(causes::of_repair(&error)),
                };
                self.observe(epoch, observation);
            }
        }
    }

    fn on_discovered(&mut self, epoch: Epoch, discovered: Discovered) {
        let expected = self.machine.expects(epoch);
        if expected {
            self.claim = self.claim.take().or(discovered.claim);
            if let Some(token) = discovered.token {
                self.settings.token = Some(token);
            }
        }
        if let Some(Survivor {
            child,
            fingerprint,
            port,
        }) = discovered.survivor
        {
            if expected {
                tracing::info!(
                    pid = child.pid(),
                    "took over the gateway of an earlier manager"
                );
                if self.settings.port == PortChoice::Free && port.is_some() {
                    self.outputs.port.send_replace(port);
                }
                let redactor = Arc::new(self.base_launch().gateway_environment().redactor());
                let mut child = self.watch_child(epoch, child, redactor);
                child.launched_as = Some(fingerprint);
                self.child = Some(child);
            } else {
                // A stop came in between. It is in our hands all the same, and nobody else will end it.
                self.end_unwanted(epoch, child);
            }
        }
        self.observe(epoch, discovered.observation);
    }

    fn on_exited(&mut self, epoch: Epoch, exit: ChildExit) {
        let Some(child) = self.child.take_if(|child| child.epoch == epoch) else {
            return;
        };
        tracing::info!("gateway {exit}");
        let stderr: Vec<String> = child
            .handle
            .recent_stderr()
            .iter()
            .map(|line| child.redactor.clean(line))
            .collect();
        let config = self
            .launch
            .as_ref()
            .and_then(|record| record.launch.config_path());
        let failure = causes::of_exit(&exit, child.served, &stderr, config.as_deref());
        self.outputs.bus.publish(GatewayEvent::Exited(exit));
        self.observe(epoch, Observation::Exited(failure));
    }

    fn on_connected(&mut self, epoch: Epoch, connection: Connection) {
        let hello = connection.hello();
        let facts = SessionFacts::new(
            hello.protocol,
            hello.server.version.clone(),
            Some(Duration::from_millis(hello.policy.tick_interval_ms)),
        );
        if let Some(token) = hello
            .auth
            .as_ref()
            .and_then(|auth| auth.device_token.as_ref())
        {
            self.device_token = Some(token.expose().to_owned().into());
        }
        if let Some(child) = &mut self.child {
            child.served = true;
        }
        self.last_refusal = None;
        self.outputs
            .connection
            .send_replace(Some(connection.clone()));
        self.connection = Some(self.watch_connection(epoch, connection));
        self.observe(epoch, Observation::Connected(facts));
    }

    fn endpoint(&self) -> Option<Endpoint> {
        (*self.outputs.port.borrow()).map(Endpoint::loopback)
    }
}

/// Sleeps until the deadline; for ever without one.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
