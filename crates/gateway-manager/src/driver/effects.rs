//! How each effect is performed.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_client::{
    ConnectError, ConnectOptions, Connection, Credentials, Delivery, DeviceIdentity, Endpoint,
    HandshakeProgress, PROBE_DEADLINE, ProbeOutcome, Transport, TransportErrorKind,
    probe_challenge,
};
use gateway_policy::lifecycle::{
    AttachMode, ConnectPlan, CredentialChoice, DisconnectReason, EndReason, Look, PortHolder,
    Progress,
};
use gateway_policy::liveness::{Activity, HandshakeSign, RequestSign};
use gateway_policy::{Effect, Epoch, Failure, FailureClass, Observation, Phase};
use gateway_process::host::blocking;
use gateway_process::ports::{check_port_free, reserve_free_port};
use gateway_process::{
    Claim, ClaimError, ConfigRepair, Ending, EndingStage, GatewayLaunch, LaunchSpec, ManagedChild,
    OwnerDeath, PortOwner, ProcessHost, Redactor, StopMode, TerminateError, Termination,
    TerminationReason,
};
use gateway_protocol::close::CloseCode;
use gateway_protocol::handshake::ProtocolRange;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{ChildInUse, ConnectionInUse, Discovered, Driver, Reading, Report, Work};
use crate::builder::PortChoice;
use crate::causes;
use crate::events::{EventBus, GatewayEvent, event_of};
use crate::launch::{self, LaunchRecord};
use crate::output::OutputRoad;
use crate::services;

/// Output counts as progress of a start at most this often; a flood must not keep the loop busy.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is told that a gateway still works on its end.
const ENDING_INTERVAL: Duration = Duration::from_secs(5);

/// The first pause before a port is tried again on which nobody listens yet. Each one is twice as long as the one before, up to what the
/// machine asks for: a gateway that starts in no time is not waited for in vain, and one that takes its time is asked as often as it should be.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// How long the exit of a child waits for what it printed last.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A configuration file is a few KiB; a larger one is not worth reading for a hint.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Where a manager keeps what has to outlast it, within the gateway's state directory.
const INSTANCE_DIR: &str = "gateway-manager";

/// What the loop can answer itself, without a task.
type Immediate = Option<(Epoch, Observation)>;

impl Driver {
    pub(super) fn perform(&mut self, effect: Effect) -> Immediate {
        match effect {
            Effect::Discover { epoch } => return self.discover(epoch),
            Effect::Prepare { epoch } => self.prepare(epoch),
            Effect::Spawn { epoch } => return self.spawn_child(epoch),
            Effect::Connect { epoch, plan } => return self.connect(epoch, plan),
            Effect::Cancel { epoch } => self.cancel(epoch),
            Effect::Disconnect { connection, reason } => self.disconnect(connection, reason),
            Effect::Look { connection } => {
                let look = self.look_at(connection)?;
                return Some((connection, Observation::Looked(look)));
            }
            Effect::Verify { connection, within } => self.verify(connection, within),
            Effect::Knock { connection, within } => self.knock(connection, within),
            Effect::Terminate { child, reason } => self.terminate(child, reason),
            Effect::Repair { epoch } => return self.repair(epoch),
            Effect::PublishStatus(status) => {
                tracing::debug!(state = %status.state, phase = %status.phase, "gateway status");
                if status.phase == Phase::Stopped {
                    self.claim = None;
                }
                self.outputs.status.send_replace(status.clone());
                self.outputs.bus.publish(GatewayEvent::Status(status));
            }
            Effect::Answer { ticket, outcome } => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    // The caller may have stopped waiting; the work was done all the same.
                    let _ = reply.send(outcome);
                }
            }
            Effect::IgnoredStale { epoch } => {
                tracing::debug!(%epoch, "ignored news of something that is gone")
            }
        }
        None
    }

    /// Runs the work of an effect; its report arrives in the inbox. Without one, what the work leads to is reported by somebody else.
    fn begin(
        &mut self,
        epoch: Epoch,
        work: Work,
        doing: impl Future<Output: Into<Option<Report>> + Send> + Send + 'static,
    ) {
        let reports = self.reports.clone();
        let task = tokio::spawn(async move {
            if let Some(report) = doing.await.into() {
                // The loop is gone only when the manager is; then nobody is left to tell.
                let _ = reports.send(report).await;
            }
        });
        self.in_flight.retain(|_, task| !task.is_finished());
        self.in_flight
            .insert((epoch, work), AbortOnDropHandle::new(task));
    }

    fn discover(&mut self, epoch: Epoch) -> Immediate {
        let look = Discovery {
            host: self.settings.host.clone(),
            transport: self.settings.transport.clone(),
            endpoint: match self.settings.port {
                PortChoice::Fixed(_) => Some(self.endpoint()?),
                PortChoice::Free => None,
            },
            claim: self.claim.clone(),
            instance_dir: self.instance_dir(),
            state_dir: self.base_launch().resolved_state_dir(),
            token: self
                .settings
                .token
                .clone()
                .filter(|_| self.settings.token_is_random)
                .filter(|_| self.settings.owner_death == OwnerDeath::ChildSurvives),
        };
        let free_port = match self.settings.port {
            PortChoice::Fixed(_) => None,
            PortChoice::Free => {
                let current = *self.outputs.port.borrow();
                let port = match current {
                    Some(port) if check_port_free(port).is_ok() => Ok(port),
                    _ => reserve_free_port(),
                };
                match port {
                    Ok(port) => {
                        self.outputs.port.send_replace(Some(port));
                        None
                    }
                    Err(error) => Some(Failure::new(FailureClass::Temporary, error.to_string())),
                }
            }
        };
        if let Some(failure) = free_port {
            return Some((epoch, Observation::DiscoveryFailed(failure)));
        }
        self.begin(epoch, Work::Answer, async move {
            Report::Discovered(epoch, Box::new(look.discover().await))
        });
        None
    }

    /// The directory of the instance; `None` when nothing is ever launched, or when the state directory cannot be told.
    fn instance_dir(&self) -> Option<PathBuf> {
        if self.settings.lifecycle.attach == AttachMode::Only {
            return None;
        }
        self.settings.instance_dir.clone().or_else(|| {
            let state_dir = self.base_launch().resolved_state_dir()?;
            Some(state_dir.join(INSTANCE_DIR))
        })
    }

    /// The launch as the settings have it, before any hook.
    pub(super) fn base_launch(&self) -> GatewayLaunch {
        let mut launch = GatewayLaunch::new(self.outputs.port.borrow().unwrap_or_default());
        launch.token = self.settings.token.clone();
        launch.state_dir = self.settings.state_dir.clone();
        launch.home = self.settings.home.clone();
        launch.extra_args = self.settings.extra_args.clone();
        launch.startup_trace = self.settings.startup_trace;
        if let Some(environment) = &self.settings.environment {
            launch.environment = environment.clone();
        }
        launch
    }

    /// What is started for a launch.
    pub(super) fn spec(&self, record: &LaunchRecord) -> LaunchSpec {
        let spec = record.spec().owner_death(self.settings.owner_death);
        match &self.claim {
            Some(claim) => spec.claimed(claim.clone()),
            None => spec,
        }
    }

    fn prepare(&mut self, epoch: Epoch) {
        if let Some(search) = self.settings.services.take() {
            let (host, bus) = (self.settings.host.clone(), self.outputs.bus.clone());
            let look = tokio::spawn(services::warn_of_others(search, host, bus));
            self._service_look = Some(AbortOnDropHandle::new(look));
        }
        let launch = self.base_launch();
        let (openclaw, hooks, bus) = (
            self.settings.openclaw.clone(),
            self.hooks.clone(),
            self.outputs.bus.clone(),
        );
        let host = self.settings.host.clone();
        self.begin(epoch, Work::Answer, async move {
            match launch::prepare(openclaw, launch, hooks, bus, host.as_ref()).await {
                Ok(record) => Report::Prepared(epoch, Box::new(record)),
                Err(failure) => Report::Observed(epoch, Observation::PreparationFailed(failure)),
            }
        });
    }

    fn spawn_child(&mut self, epoch: Epoch) -> Immediate {
        let Some(record) = &self.launch else {
            return Some((epoch, Observation::SpawnFailed(no_launch())));
        };
        let spec = self.spec(record);
        tracing::info!("launching {spec}");
        self.outputs.launched.send_replace(Some(spec.to_string()));
        let host = self.settings.host.clone();
        self.begin(epoch, Work::Answer, async move {
            match host.spawn(&spec).await {
                Ok(child) => Report::Spawned(epoch, child, Arc::new(spec.env.redactor())),
                Err(error) => {
                    Report::Observed(epoch, Observation::SpawnFailed(causes::of_spawn(&error)))
                }
            }
        });
        None
    }

    pub(super) fn watch_child(
        &self,
        epoch: Epoch,
        handle: Arc<dyn ManagedChild>,
        redactor: Arc<Redactor>,
    ) -> ChildInUse {
        let reports = self.reports.clone();
        let road = OutputRoad::new(
            redactor.clone(),
            self.settings.output_log.clone(),
            self.outputs.bus.clone(),
            move || {
                // Only a hint: a loop that is too busy to take it will ask in time.
                let said = Observation::Progress(Progress::SaysReady);
                let _ = reports.try_send(Report::Observed(epoch, said));
            },
            self.outputs.startup.clone(),
        );
        let output = tokio::spawn(road.take_all(handle.output()));
        let output = AbortOnDropHandle::new(output);
        let force = publish_force(handle.ending(), self.outputs.bus.clone());
        let exit = report_exit(epoch, handle.clone(), output, force, self.reports.clone());
        let progress = report_progress(epoch, handle.clone(), self.reports.clone());
        let watchers = vec![
            AbortOnDropHandle::new(tokio::spawn(exit)),
            AbortOnDropHandle::new(tokio::spawn(progress)),
        ];
        ChildInUse {
            epoch,
            handle,
            redactor,
            launched_as: None,
            served: false,
            _watchers: watchers,
        }
    }

    fn connect(&mut self, epoch: Epoch, plan: ConnectPlan) -> Immediate {
        let endpoint = self.endpoint()?;
        let credentials = match plan.credential {
            CredentialChoice::Primary => self
                .token(plan.attached)
                .map_or_else(Credentials::none, Credentials::token),
            CredentialChoice::Alternative => match &self.device_token {
                Some(token) => Credentials::none().with_device_token(token.clone()),
                None => {
                    let refusal = self.last_refusal.clone();
                    let failure = refusal.unwrap_or_else(|| {
                        Failure::new(
                            FailureClass::Credentials,
                            "There is no other credential to try.",
                        )
                    });
                    return Some((epoch, Observation::ConnectFailed(failure)));
                }
            },
        };
        let reports = self.reports.clone();
        let mut options = ConnectOptions::new(credentials)
            .with_scopes(self.settings.scopes.iter().cloned())
            .with_caps(self.settings.caps.iter().cloned())
            .with_protocol(ProtocolRange {
                min: plan.protocols.0,
                max: plan.protocols.1,
            })
            .with_handshake_timeout(self.settings.handshake_timeout)
            .with_call_timeout(self.settings.call_timeout)
            .with_progress(move |progress| {
                if progress == HandshakeProgress::TcpAccepted {
                    // A hint for the status; when the queue is full there is no lack of signs of life.
                    let _ = reports.try_send(Report::Observed(
                        epoch,
                        Observation::Progress(Progress::Listening),
                    ));
                }
            });
        if let Some(client) = &self.settings.client {
            options = options.with_client(client.clone());
        }
        let transport = self.settings.transport.clone();
        let config = self
            .launch
            .as_ref()
            .filter(|_| !plan.attached)
            .and_then(|record| record.launch.config_path());
        let identity = self
            .settings
            .identity_file
            .clone()
            .map(|path| (path, self.identity.clone()));
        let bus = self.outputs.bus.clone();
        let host = self.settings.host.clone();
        self.begin(epoch, Work::Answer, async move {
            if let Some((path, cell)) = identity {
                match cell.get_or_try_init(|| load_identity(path)).await {
                    Ok(identity) => options = options.with_identity(identity.clone()),
                    Err(message) => {
                        tracing::warn!("{message}");
                        bus.publish(GatewayEvent::Warning { message });
                    }
                }
            }
            let mut pause = FIRST_PAUSE.min(plan.wait_for_listener.unwrap_or(FIRST_PAUSE));
            let opened = loop {
                let opened = Connection::open(transport.as_ref(), &endpoint, options.clone()).await;
                match (opened, plan.wait_for_listener) {
                    (Err(error), Some(longest)) if is_nobody_there(&error) => {
                        tokio::time::sleep(pause).await;
                        pause = longest.min(2 * pause);
                    }
                    (opened, _) => break opened,
                }
            };
            match opened {
                Ok(connection) => Report::Connected(epoch, connection),
                Err(error) => {
                    let failure = explain_refusal(host.as_ref(), &error, config).await;
                    Report::Observed(epoch, Observation::ConnectFailed(failure))
                }
            }
        });
        None
    }

    /// The shared token of the gateway that is connected to. A process of ours has the one of its launch; an attached gateway was launched
    /// by somebody else, so only the settings can know its token.
    fn token(&self, attached: bool) -> Option<SecretString> {
        if attached {
            self.settings.token.clone()
        } else {
            match &self.launch {
                Some(record) => record.token(),
                // A survivor in whose place nothing could be prepared.
                None => self.settings.token.clone(),
            }
        }
    }

    pub(super) fn watch_connection(&self, epoch: Epoch, connection: Connection) -> ConnectionInUse {
        // Watchers must not keep the connection alive: they hold its end and its events, not the handle.
        let (closed, reports) = (connection.closed(), self.reports.clone());
        let (mut events, bus) = (connection.events(), self.outputs.bus.clone());
        let end_watcher = AbortOnDropHandle::new(tokio::spawn(async move {
            let disconnected = closed.await;
            let _ = reports
                .send(Report::Disconnected(epoch, disconnected))
                .await;
        }));
        let event_watcher = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(delivery) = events.next().await {
                match delivery {
                        Delivery::Frame(frame) => {
                            if let Some(event) = event_of(frame) {
                                bus.publish(event);
                            }
                        }
                        Delivery::Lagged { missed } => bus.publish(GatewayEvent::Warning {
                            message: format!("{missed} events of the gateway were dropped because this program was too busy to take them."),
                        }),
                    }
            }
        }));
        ConnectionInUse {
            epoch,
            connection,
            looked: self.reading(),
            end_watcher: Some(end_watcher),
            _event_watcher: event_watcher,
        }
    }

    fn cancel(&mut self, epoch: Epoch) {
        self.in_flight.remove(&(epoch, Work::Answer));
        if let Some(repair) = self.in_flight.remove(&(epoch, Work::Repair)) {
            repair.abort();
            // Nothing may be launched until the doctor is gone; dropping its run kills it.
            self.begin(epoch, Work::Answer, async move {
                let _ = repair.await;
                let failure =
                    Failure::new(FailureClass::Configuration, "The repair was called off.");
                Report::Observed(epoch, Observation::RepairFailed(failure))
            });
        }
    }

    fn disconnect(&mut self, epoch: Epoch, reason: DisconnectReason) {
        self.outputs.connection.send_replace(None);
        // What is being found out about it does not matter any more, and must not outlive it.
        self.in_flight.remove(&(epoch, Work::Verify));
        self.in_flight.remove(&(epoch, Work::Knock));
        let Some(in_use) = self
            .connection
            .as_mut()
            .filter(|connection| connection.epoch == epoch)
        else {
            return;
        };
        // The connection has ended as soon as it is said to; its socket is gone only after the goodbye, and that is what is reported.
        in_use.end_watcher = None;
        let (code, text) = match reason {
            DisconnectReason::UserStop => (CloseCode::NORMAL, "Gateway stopped by user"),
            DisconnectReason::Restart => (CloseCode::NORMAL, "Gateway restart"),
            DisconnectReason::ChildGone => (CloseCode::NORMAL, "Gateway process is gone"),
            DisconnectReason::Unresponsive => (CloseCode::LIVENESS_TIMEOUT, "no answer"),
        };
        let connection = in_use.connection.clone();
        self.begin(epoch, Work::Disconnect, async move {
            Report::Disconnected(epoch, connection.close(code, text).await)
        });
    }

    fn reading(&self) -> Reading {
        Reading {
            at: Instant::now(),
            asleep: self.settings.host.time_asleep(),
            process: self.child.as_ref().and_then(|child| child.handle.sample()),
        }
    }

    /// How a connection and the process behind it look, compared with the last time.
    pub(super) fn look_at(&mut self, epoch: Epoch) -> Option<Look> {
        let now = self.reading();
        let in_use = self
            .connection
            .as_mut()
            .filter(|connection| connection.epoch == epoch)?;
        let before = std::mem::replace(&mut in_use.looked, now);
        Some(Look {
            // The clock behind this stands still while the machine sleeps, so sleep never shows up as silence.
            silence: in_use.connection.last_inbound().elapsed(),
            suspended: now.asleep.saturating_sub(before.asleep),
            activity: match (before.process, now.process) {
                (Some(earlier), Some(later)) => {
                    Activity::between(&earlier, &later, now.at - before.at)
                }
                _ => Activity::Unknown,
            },
        })
    }

    fn verify(&mut self, epoch: Epoch, within: Duration) {
        let Some(in_use) = self
            .connection
            .as_ref()
            .filter(|connection| connection.epoch == epoch)
        else {
            return;
        };
        let connection = in_use.connection.clone();
        self.begin(epoch, Work::Verify, async move {
            let sign = match connection.verify(within).await {
                Ok(after) => RequestSign::Answered { after },
                // A connection that was lost meanwhile is reported as lost, with what the gateway said about it.
                Err(_) if connection.disconnected().is_some() => return None,
                Err(_) => RequestSign::Unanswered,
            };
            Some(Report::RequestMade(epoch, sign))
        });
    }

    fn knock(&mut self, epoch: Epoch, within: Duration) {
        let Some(endpoint) = self.endpoint() else {
            return;
        };
        let transport = self.settings.transport.clone();
        self.begin(epoch, Work::Knock, async move {
            let sign = match probe_challenge(transport.as_ref(), &endpoint, within).await {
                ProbeOutcome::Nothing { error } if error.kind == TransportErrorKind::Refused => {
                    HandshakeSign::Refused
                }
                // Whatever answers, even with a refusal, has an event loop that runs.
                ProbeOutcome::Gateway { .. }
                | ProbeOutcome::UpgradeRefused { .. }
                | ProbeOutcome::NotAGateway { .. } => HandshakeSign::Answered,
                _ => HandshakeSign::Stalled,
            };
            Report::HandshakeTried(epoch, sign)
        });
    }

    fn terminate(&mut self, epoch: Epoch, reason: EndReason) {
        let Some(child) = self.child.as_ref().filter(|child| child.epoch == epoch) else {
            return;
        };
        let reason = match reason {
            EndReason::UserStop => TerminationReason::UserStop,
            EndReason::Restart => TerminationReason::Restart,
            EndReason::NotReady => TerminationReason::NotReady,
            EndReason::Outdated => TerminationReason::Other(
                "it was launched by an earlier manager with other settings".to_owned(),
            ),
            EndReason::Unusable => TerminationReason::Other("it cannot be connected to".to_owned()),
            EndReason::Wedged => TerminationReason::Other("it does not answer any more".to_owned()),
        };
        let mode = match &reason {
            TerminationReason::UserStop => self.stop_mode,
            _ => StopMode::Bounded(self.settings.ask_for),
        };
        let request = Termination::in_mode(reason, mode).reap_within(self.settings.reap_within);
        let (handle, bus) = (child.handle.clone(), self.outputs.bus.clone());
        self.begin(epoch, Work::Terminate, async move {
            let ended = tokio::select! {
                ended = handle.terminate(request) => ended,
                never = publish_ending(handle.ending(), &bus) => match never {},
            };
            match ended {
                // The exit itself is reported by the watcher of the child.
                Ok(_) => None,
                Err(error @ TerminateError::GroupAlive { .. }) => {
                    bus.publish(GatewayEvent::Warning {
                        message: error.to_string(),
                    });
                    None
                }
                Err(error) => Some(Report::Observed(
                    epoch,
                    Observation::TerminationFailed(causes::of_termination(&error)),
                )),
            }
        });
    }

    /// Passes the stop mode on to an ending that is under way.
    pub(super) fn hasten(&mut self) {
        let Some(child) = &self.child else { return };
        let epoch = child.epoch;
        if !self.in_flight.contains_key(&(epoch, Work::Terminate)) {
            return;
        }
        let ending = *child.handle.ending().borrow();
        let sooner = Instant::now().checked_add(self.stop_mode.ask_for());
        if ending.forced_at.is_some()
            || ending
                .force_at
                .is_some_and(|at| sooner.is_none_or(|sooner| sooner >= at))
        {
            return;
        }
        let handle = child.handle.clone();
        let request = Termination::in_mode(TerminationReason::UserStop, self.stop_mode)
            .reap_within(self.settings.reap_within);
        self.begin(epoch, Work::Hasten, async move {
            // How it ends is told to whoever asked first.
            let _ = handle.terminate(request).await;
            None
        });
    }

    /// Ends a child that arrived when nobody wanted it any more.
    pub(super) fn end_unwanted(&mut self, epoch: Epoch, child: Arc<dyn ManagedChild>) {
        let request = Termination::new(TerminationReason::Superseded)
            .ask_for(self.settings.ask_for)
            .reap_within(self.settings.reap_within);
        self.begin(epoch, Work::Terminate, async move {
            if let Err(error) = child.terminate(request).await {
                tracing::warn!("{error}");
            }
            None
        });
    }

    fn repair(&mut self, epoch: Epoch) -> Immediate {
        let Some(record) = self.launch.clone() else {
            return Some((epoch, Observation::RepairFailed(no_launch())));
        };
        let host = self.settings.host.clone();
        self.begin(epoch, Work::Repair, async move {
            let outcome = match ConfigRepair::for_launch(&record.openclaw, &record.launch) {
                Ok(repair) => repair.run(host.as_ref()).await,
                Err(error) => Err(error),
            };
            Report::Repaired(epoch, Box::new(outcome))
        });
        None
    }
}

fn is_nobody_there(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Transport { error, .. } if error.kind == TransportErrorKind::Refused)
}

fn no_launch() -> Failure {
    Failure::new(
        FailureClass::InvalidSettings,
        "There is no launch to work with; start the gateway again.",
    )
}

/// What a look at the instance and at its port needs.
struct Discovery {
    host: Arc<dyn ProcessHost>,
    transport: Arc<dyn Transport>,
    /// Where a gateway may be; `None` when a port was chosen that is free.
    endpoint: Option<Endpoint>,
    claim: Option<Claim>,
    instance_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    /// What becomes the token of the instance when it has none yet; `None` when a token was chosen or need not outlast us.
    token: Option<SecretString>,
}

impl Discovery {
    async fn discover(self) -> Discovered {
        match self.take_over().await {
            Ok(discovered) => discovered,
            // Nothing may be launched, but what is there may be attached to.
            Err(failure) => Discovered {
                observation: match self.port().await {
                    Observation::PortFree => Observation::DiscoveryFailed(failure),
                    found => found,
                },
                claim: None,
                token: None,
                survivor: None,
            },
        }
    }

    async fn claim(&self) -> Result<Option<Claim>, Failure> {
        let Some(directory) = self.instance_dir.as_ref().filter(|_| self.claim.is_none()) else {
            return Ok(self.claim.clone());
        };
        if let Some(state_dir) = &self.state_dir {
            launch::check_state_dir(self.host.as_ref(), state_dir.clone()).await?;
        }
        let claim = self.host.claim(directory).await;
        claim.map(Some).map_err(|error| causes::of_claim(&error))
    }

    async fn take_over(&self) -> Result<Discovered, Failure> {
        let failed = |error: ClaimError| causes::of_claim(&error);
        let claim = self.claim().await?;
        let (mut token, mut survivor) = (None, None);
        if let Some(claim) = &claim {
            if let Some(fresh) = self.token.clone() {
                let claim = claim.clone();
                let kept = move || claim.kept_token(|| fresh);
                token = Some(blocking(self.host.as_ref(), kept).await.map_err(failed)?);
            }
            survivor = self.host.survivor(claim).await.map_err(failed)?;
        }
        let observation = match &survivor {
            Some(survivor) => Observation::SurvivorFound {
                pid: survivor.child.pid(),
            },
            None => self.port().await,
        };
        Ok(Discovered {
            observation,
            claim,
            token,
            survivor,
        })
    }

    async fn port(&self) -> Observation {
        match &self.endpoint {
            Some(endpoint) => discover(self.host.as_ref(), self.transport.as_ref(), endpoint).await,
            None => Observation::PortFree,
        }
    }
}

/// Who is on the port, told by the operating system, and what it is, told by itself.
async fn discover(
    host: &dyn ProcessHost,
    transport: &dyn Transport,
    endpoint: &Endpoint,
) -> Observation {
    let owners = host.port_owners(endpoint.port()).await;
    if matches!(&owners, Ok(owners) if owners.is_empty()) {
        return Observation::PortFree;
    }
    // The table may be closed to us; that is not "nobody", so the port itself is asked.
    let holder = |detail: String| {
        let owner: Option<&PortOwner> = owners.as_ref().ok().and_then(|owners| owners.first());
        PortHolder {
            pid: owner.and_then(|owner| owner.pid),
            program: owner.and_then(|owner| owner.program.clone()),
            user: owner.and_then(|owner| owner.user.clone()),
            detail,
        }
    };
    match probe_challenge(transport, endpoint, PROBE_DEADLINE).await {
        ProbeOutcome::Gateway { .. } => Observation::GatewayFound(holder(String::new())),
        // Somebody listens on another address of this machine; the loopback addresses are free, or just became so.
        ProbeOutcome::Nothing { .. } => match &owners {
            Err(error) if !endpoint.is_loopback() => {
                Observation::DiscoveryFailed(causes::of_port_table(error))
            }
            _ => Observation::PortFree,
        },
        ProbeOutcome::UpgradeRefused { status: 503, .. } => Observation::ForeignFound(holder(
            "it answers HTTP 503, as a gateway does that is stopping".to_owned(),
        )),
        ProbeOutcome::UpgradeRefused { status, .. } => {
            Observation::ForeignFound(holder(format!("it answers HTTP {status}")))
        }
        ProbeOutcome::NotAGateway { evidence } => Observation::ForeignFound(holder(evidence)),
        ProbeOutcome::Silent { .. } => {
            Observation::ForeignFound(holder("it accepts connections and says nothing".to_owned()))
        }
        _ => Observation::ForeignFound(holder(String::new())),
    }
}

/// Reports the end of a child once its last words have been published, so that whoever hears of the exit has heard those before.
async fn report_exit(
    epoch: Epoch,
    child: Arc<dyn ManagedChild>,
    output: AbortOnDropHandle<()>,
    force: impl Future<Output = ()>,
    reports: mpsc::Sender<Report>,
) {
    let ((), exit) = tokio::join!(force, child.wait());
    // The pipes end with the child, or shortly after it; nobody waits longer for somebody who inherited them.
    let _ = tokio::time::timeout(LAST_WORDS, output).await;
    let _ = reports.send(Report::Exited(epoch, exit)).await;
}

/// Tells how the end of a child comes along, for as long as anybody listens.
async fn publish_ending(mut ending: watch::Receiver<Ending>, bus: &EventBus) -> Infallible {
    loop {
        let now = *ending.borrow_and_update();
        if matches!(now.stage, EndingStage::Asked) {
            publish_stage(&now, bus);
        }
        let news = tokio::time::timeout(ENDING_INTERVAL, ending.changed()).await;
        if matches!(news, Ok(Err(_))) {
            return std::future::pending().await;
        }
    }
}

fn publish_stage(ending: &Ending, bus: &EventBus) {
    bus.publish(GatewayEvent::Ending {
        stage: ending.stage,
        waited: ending.since.map_or(Duration::ZERO, |since| since.elapsed()),
        force_in: ending
            .force_at
            .map(|at| at.saturating_duration_since(Instant::now())),
    });
}

/// Force may take effect before anybody has had the time to look; so it is told by whoever waits for it.
async fn publish_force(mut ending: watch::Receiver<Ending>, bus: EventBus) {
    let forced =
        ending.wait_for(|ending| ending.forced_at.is_some() || ending.stage == EndingStage::Gone);
    let Ok(last) = forced.await.map(|ending| *ending) else {
        return;
    };
    if last.forced_at.is_some() {
        let stage = EndingStage::Forced;
        publish_stage(&Ending { stage, ..last }, &bus);
    }
}

async fn report_progress(
    epoch: Epoch,
    child: Arc<dyn ManagedChild>,
    reports: mpsc::Sender<Report>,
) {
    let mut lines = child.progress();
    while lines.changed().await.is_ok() {
        let moved = Report::Observed(epoch, Observation::Progress(Progress::Output));
        if reports.send(moved).await.is_err() {
            return;
        }
        tokio::time::sleep(PROGRESS_INTERVAL).await;
    }
}

async fn load_identity(path: PathBuf) -> Result<Arc<DeviceIdentity>, String> {
    let loaded = tokio::task::spawn_blocking(move || DeviceIdentity::load_or_create(&path)).await;
    match loaded {
        Ok(Ok((identity, _origin))) => Ok(Arc::new(identity)),
        Ok(Err(error)) => Err(format!("Connecting without a device identity: {error}")),
        Err(error) => Err(format!(
            "Connecting without a device identity: loading it failed: {error}"
        )),
    }
}

/// The failure of a handshake; when our token was refused although the gateway is our own child, with the likely reason.
async fn explain_refusal(
    host: &dyn ProcessHost,
    error: &ConnectError,
    config: Option<PathBuf>,
) -> Failure {
    let mut failure = causes::of_connect(error);
    if failure.class == FailureClass::Credentials
        && let Some(path) = config
    {
        let shown = path.display().to_string();
        if blocking(host, move || config_sets_token(&path)).await {
            failure.message.push_str(&format!(
                " The configuration file {shown} sets gateway.auth.token, which wins over the token that the gateway was launched with; remove it there, or configure the same token here."
            ));
        }
    }
    failure
}

fn config_sets_token(path: &std::path::Path) -> bool {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_string(&mut text));
    let parsed = read
        .ok()
        .and_then(|_| json5::from_str::<serde_json::Value>(&text).ok());
    parsed.is_some_and(|config| {
        config
            .pointer("/gateway/auth/token")
            .is_some_and(|token| !token.is_null())
    })
}
