//! The handle: cheap to clone, every verb a message to the one loop that owns the gateway.

use std::sync::Arc;
use std::time::Duration;

use gateway_client::{CallOptions, Connection};
use gateway_policy::restart::DEFAULT_DEBOUNCE;
use gateway_policy::startup_trace::StartupSummary;
use gateway_policy::status::{GatewayStatus, TicketOutcome};
use gateway_policy::{Journal, JournalEntry, Lifecycle};
use gateway_process::StopMode;
use gateway_protocol::{HelloOk, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::builder::{GatewayManagerBuilder, Settings};
use crate::driver::{Command, Driver, Verb};
use crate::error::ManagerError;
use crate::events::{EventBus, EventSubscription};
use crate::health::Health;
use crate::journal::SharedJournal;

/// How many commands may wait for the loop. It takes them at once; more can only wait while the machine is overloaded.
const COMMAND_QUEUE: usize = 64;

/// How long a health check waits for its one request.
const HEALTH_WITHIN: Duration = Duration::from_secs(3);

/// Runs one OpenClaw Gateway and keeps it running. See the [crate] for an example.
///
/// Clones are handles to the same manager. Futures of commands may be dropped: the command goes on. When the last handle is dropped,
/// the manager stops the gateway and ends; when the runtime ends first, the gateway process is killed with it.
#[derive(Clone)]
pub struct GatewayManager {
    shared: Arc<Shared>,
}

/// What handles and loop share. The loop writes, the handles read.
struct Shared {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<GatewayStatus>,
    connection: watch::Receiver<Option<Connection>>,
    port: watch::Receiver<Option<u16>>,
    launched: watch::Receiver<Option<String>>,
    startup: watch::Receiver<Option<StartupSummary>>,
    bus: EventBus,
    journal: Arc<SharedJournal>,
    origin: Instant,
}

impl GatewayManager {
    /// Begins the settings of a manager.
    pub fn builder() -> GatewayManagerBuilder {
        GatewayManagerBuilder::default()
    }

    pub(crate) fn spawn(settings: Settings, runtime: &tokio::runtime::Handle) -> Self {
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (status_writer, status) = watch::channel(GatewayStatus::default());
        let (connection_writer, connection) = watch::channel(None);
        let (port_writer, port) = watch::channel(None);
        let (launched_writer, launched) = watch::channel(None);
        let (startup_writer, startup) = watch::channel(None);
        let bus = EventBus::new(settings.event_queue);
        let machine = Lifecycle::new(settings.lifecycle.clone());
        let journal = Arc::new(SharedJournal::new(&machine));
        let origin = Instant::now();
        let driver = Driver::new(
            settings,
            machine,
            crate::driver::Outputs {
                status: status_writer,
                connection: connection_writer,
                port: port_writer,
                launched: launched_writer,
                startup: startup_writer,
                bus: bus.clone(),
                journal: journal.clone(),
            },
            origin,
        );
        // The loop ends by itself once the last handle is gone; nobody has to hold its task.
        drop(runtime.spawn(driver.run(inbox)));
        Self {
            shared: Arc::new(Shared {
                commands,
                status,
                connection,
                port,
                launched,
                startup,
                bus,
                journal,
                origin,
            }),
        }
    }

    /// Starts the gateway, or joins a start that is under way. Returns once it is running; at once when it is already.
    ///
    /// # Errors
    /// [`ManagerError::Failed`] when it cannot run, when recovery has given up, when five automatic launches within five minutes did not
    /// help and the next ones lie far apart, or when somebody else has to do something first (free the port, approve the device). In the
    /// last two cases it goes on by itself afterwards: see the status.
    /// [`ManagerError::Superseded`] when a stop came in between.
    pub async fn start(&self) -> Result<(), ManagerError> {
        self.command(Verb::Start).await
    }

    /// Stops the gateway: closes the connection, ends the process with its whole group, waits for the exit. An attached gateway is only
    /// disconnected from. When it returns `Ok`, nothing is left.
    ///
    /// # Errors
    /// [`ManagerError::Failed`] when the process could not be ended within its limits. [`ManagerError::Superseded`] never.
    pub async fn stop(&self) -> Result<(), ManagerError> {
        self.command(Verb::Stop { mode: None }).await
    }

    /// The same with another time for work that is still running. A stop that is under way can only be made quicker:
    /// `stop_with(StopMode::Now)` shortens a [`StopMode::Drain`]. Progress comes as [`GatewayEvent::Ending`](crate::GatewayEvent::Ending).
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn stop_with(&self, mode: StopMode) -> Result<(), ManagerError> {
        self.command(Verb::Stop { mode: Some(mode) }).await
    }

    /// Replaces the gateway by a fresh launch, or starts it when it is stopped. Returns once a launch that began after this call is
    /// running. Requests that come while a launch is under way share the next one. An attached gateway is not ours to replace: it is only
    /// connected to anew.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&self) -> Result<(), ManagerError> {
        self.command(Verb::Restart).await
    }

    /// Asks for a fresh launch because settings have changed. Waits for more such requests first: each one replaces the delay (2 s unless
    /// given). Does nothing while the gateway is meant to be stopped; a stop forgets it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart_debounced(&self, delay: Option<Duration>) -> Result<(), ManagerError> {
        let delay = delay.unwrap_or(DEFAULT_DEBOUNCE);
        self.command(Verb::RestartDebounced { delay }).await
    }

    async fn command(&self, verb: Verb) -> Result<(), ManagerError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.commands.send(Command { verb, reply }).await;
        sent.map_err(|_| ManagerError::ShutDown)?;
        match answer.await {
            Ok(TicketOutcome::Running | TicketOutcome::Stopped | TicketOutcome::NothingToDo) => {
                Ok(())
            }
            Ok(TicketOutcome::Superseded) => Err(ManagerError::Superseded),
            Ok(TicketOutcome::Failed(failure)) => Err(ManagerError::Failed(failure)),
            Err(_) => Err(ManagerError::ShutDown),
        }
    }

    /// Calls a method of the gateway with typed parameters and answer.
    ///
    /// # Errors
    /// [`ManagerError::NotConnected`] when there is no connection; otherwise [`ManagerError::Call`], which tells whether the call may have
    /// happened.
    pub async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, ManagerError>
    where
        P: Serialize + ?Sized + Sync,
        R: DeserializeOwned,
    {
        Ok(self.connection()?.call(method, params).await?)
    }

    /// Calls a method with parameters and answer as raw JSON.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_raw(
        &self,
        method: &str,
        params: Option<Payload>,
        options: CallOptions,
    ) -> Result<Option<Payload>, ManagerError> {
        Ok(self.connection()?.call_raw(method, params, options).await?)
    }

    fn connection(&self) -> Result<Connection, ManagerError> {
        self.shared
            .connection
            .borrow()
            .clone()
            .ok_or_else(|| ManagerError::NotConnected {
                state: self.shared.status.borrow().state,
            })
    }

    /// Looks whether the gateway can serve: is there a connection, did anything arrive lately, and does a small request come back within
    /// 3 s. Takes no action; an unhealthy answer is a reading, not a decision.
    pub async fn check_health(&self) -> Health {
        let state = self.shared.status.borrow().state;
        let uptime = self.uptime();
        let connection = match self.connection() {
            Ok(connection) => connection,
            Err(error) => {
                return Health {
                    state,
                    last_inbound: None,
                    round_trip: None,
                    uptime,
                    error: Some(error.to_string()),
                };
            }
        };
        let last_inbound = Some(connection.last_inbound().elapsed());
        let (round_trip, error) = match connection.verify(HEALTH_WITHIN).await {
            Ok(elapsed) => (Some(elapsed), None),
            Err(error) => (None, Some(format!("Health check failed: {error}"))),
        };
        Health {
            state,
            last_inbound,
            round_trip,
            uptime,
            error,
        }
    }

    /// The status, now and from now on. The newest value is always there; in between ones may be skipped by a slow reader.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<GatewayStatus> {
        self.shared.status.clone()
    }

    /// The events from now on.
    #[must_use]
    pub fn events(&self) -> EventSubscription {
        self.shared.bus.subscribe()
    }

    /// How long the current session has lasted; `None` without one.
    #[must_use]
    pub fn uptime(&self) -> Option<Duration> {
        let now = gateway_policy::Time::from_origin(self.shared.origin.elapsed());
        self.shared.status.borrow().uptime(now)
    }

    /// What the gateway said in its hello; `None` without a session.
    #[must_use]
    pub fn hello(&self) -> Option<HelloOk> {
        self.shared
            .connection
            .borrow()
            .as_ref()
            .map(|connection| connection.hello().clone())
    }

    /// The port in use; `None` before the first start of a manager that picks a free one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        *self.shared.port.borrow()
    }

    /// The newest launch of this manager in one line, secrets redacted: what to look at when a start fails. `None` before the first one.
    #[must_use]
    pub fn last_launch(&self) -> Option<String> {
        self.shared.launched.borrow().clone()
    }

    /// The steps of the newest start, as far as the gateway has told of them, which it does when
    /// [`startup_trace`](GatewayManagerBuilder::startup_trace) is on. `None` when no gateway has told of any.
    #[must_use]
    pub fn last_startup(&self) -> Option<StartupSummary> {
        self.shared.startup.borrow().clone()
    }

    /// The newest moves of the lifecycle machine, oldest first, at most [`JOURNAL_ENTRIES`](crate::JOURNAL_ENTRIES): what it was
    /// told, which rules fired with which facts, what it asked for. [`Journal::replay`] proves that this is the whole story.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.shared.journal.snapshot()
    }

    /// Why it is as it is: the entries of the [`journal`](Self::journal) that decided something, without those that only went on
    /// with it, oldest first. Each prints as one line. To follow them as they are made, take
    /// [`GatewayEvent::Decision`](crate::GatewayEvent::Decision) from the [`events`](Self::events).
    #[must_use]
    pub fn why(&self) -> Vec<JournalEntry> {
        let journal = self.journal();
        let telling = journal.entries().filter(|entry| !entry.is_routine());
        telling.cloned().collect()
    }
}

impl std::fmt::Debug for GatewayManager {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("GatewayManager")
            .field("port", &self.port())
            .field("status", &*self.shared.status.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use gateway_policy::lifecycle::AttachMode;
    use gateway_policy::status::{GatewayState, Phase};
    use gateway_process::{Environment, OpenClaw};
    use gateway_testkit::scripted::{ChildPlan, Foreign, ForeignKind, Machine};
    use gateway_testkit::{FakeGateway, FakeGatewayConfig, Vintage};
    use tempfile::TempDir;
    use tokio::time::{sleep, timeout};

    use crate::builder::PortChoice;
    use crate::events::{Delivered, GatewayEvent};

    const PORT: u16 = 18_789;

    /// A machine in memory; the manager of it needs the directory as long as it lives.
    fn bench(plan: ChildPlan) -> (Machine, TempDir, GatewayManagerBuilder) {
        let (machine, state) = (Machine::new(), TempDir::new().unwrap());
        machine.plan(plan);
        let builder = GatewayManager::builder()
            .openclaw(OpenClaw::Command {
                program: "openclaw".into(),
                args: Vec::new(),
            })
            .environment(Environment::empty())
            .state_dir(state.path())
            .port(PortChoice::Fixed(PORT))
            .process_host(Arc::new(machine.host()))
            .transport(Arc::new(machine.transport()));
        (machine, state, builder)
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_socket_is_not_health() {
        let (machine, _state, builder) = bench(ChildPlan::default());
        let manager = builder.build().unwrap();
        manager.start().await.unwrap();
        let healthy = manager.check_health().await;
        assert!(healthy.is_healthy(), "{healthy:?}");

        machine.gateway(PORT).expect("it serves").stall();
        // Long enough to be silent, too short for the manager to have given it up.
        sleep(Duration::from_secs(20)).await;
        let health = manager.check_health().await;
        assert_eq!(health.state, GatewayState::Running, "{health:?}");
        assert!(!health.is_healthy(), "{health:?}");
        assert_eq!(health.round_trip, None);
        let silence = health.last_inbound.expect("there is a socket");
        assert!(silence >= Duration::from_secs(20), "{silence:?}");
        let error = health.error.expect("a reason");
        assert!(error.contains("RPC timeout: health"), "{error}");
        manager.stop().await.unwrap();
    }

    /// A child that dies at once, so that there is more to decide than a start and a stop.
    #[tokio::test(start_paused = true)]
    async fn decisions_are_told_as_they_are_made_and_before_what_follows() {
        let (machine, _state, builder) = bench(ChildPlan {
            exit: Some((Duration::from_secs(5), Some(1), None)),
            ..ChildPlan::default()
        });
        let manager = builder.build().unwrap();
        let mut events = manager.events();
        manager.start().await.unwrap();
        machine.plan(ChildPlan::default());
        sleep(Duration::from_secs(120)).await;
        manager.stop().await.unwrap();
        let why = manager.why();
        drop(manager);
        let (mut told, mut phases) = (Vec::new(), Vec::new());
        while let Some(Delivered::Event(event)) = events.next().await {
            match event {
                GatewayEvent::Decision(entry) => told.push(JournalEntry::clone(&entry)),
                GatewayEvent::Status(status) => phases.push((told.len(), status.phase)),
                _ => {}
            }
        }
        // The end of the last handle stops once more.
        assert_eq!(told.len(), why.len() + 1);
        assert!(told.starts_with(&why), "{told:#?}");
        let lines: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert!(
            lines.iter().any(|line| line.contains("back-off (")),
            "{lines:#?}"
        );
        let backing_off = phases.iter().find(|(_, phase)| *phase == Phase::BackingOff);
        let (told_before, _) = backing_off.expect("it backed off");
        assert!(
            lines[told_before - 1].contains("back-off ("),
            "{lines:#?} {phases:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn uptime_is_the_same_time_wherever_it_is_asked_for() {
        let (_machine, _state, builder) = bench(ChildPlan::default());
        let manager = builder.build().unwrap();
        assert_eq!(manager.uptime(), None);
        manager.start().await.unwrap();
        let began = Instant::now();
        let first = manager.uptime().expect("a session");
        sleep(Duration::from_secs(90)).await;
        let uptime = manager.uptime().expect("a session");
        assert_eq!(uptime - first, began.elapsed());
        assert_eq!(manager.check_health().await.uptime, Some(uptime));
        manager.stop().await.unwrap();
        assert_eq!(manager.uptime(), None);
        assert_eq!(manager.check_health().await.uptime, None);
    }

    /// Each listener fails at the first thing that it hears: in an event, in a condition on the status, and with the status in its
    /// hand.
    #[tokio::test(start_paused = true)]
    async fn listeners_that_panic_take_nothing_with_them() {
        let (machine, _state, builder) = bench(ChildPlan::default());
        let manager = builder.build().unwrap();
        let mut events = manager.events();
        let (mut condition, mut held) = (manager.status(), manager.status());
        let listeners = [
            tokio::spawn(async move {
                events.next().await;
                panic!("on purpose");
            }),
            tokio::spawn(async move {
                let starting = condition.wait_for(|status| {
                    assert_eq!(status.state, GatewayState::Stopped, "on purpose");
                    false
                });
                starting.await.map(drop).unwrap();
            }),
            tokio::spawn(async move {
                held.changed().await.unwrap();
                let _status = held.borrow();
                panic!("on purpose");
            }),
        ];
        let patience = Duration::from_secs(60);
        let started = timeout(patience, manager.start()).await;
        started.expect("the start never ends").unwrap();
        for listener in listeners {
            assert!(listener.await.expect_err("it panics").is_panic());
        }
        let restarted = timeout(patience, manager.restart()).await;
        restarted.expect("the restart never ends").unwrap();
        let stopped = timeout(patience, manager.stop()).await;
        stopped.expect("the stop never ends").unwrap();
        assert_eq!(machine.living(), Vec::<u32>::new());
    }

    /// The gateway is somebody else's, so it lives on after the stop and answers when nobody wants to know any more.
    #[tokio::test(start_paused = true)]
    async fn a_hello_that_comes_after_the_stop_is_not_announced() {
        let (machine, _state, builder) = bench(ChildPlan::default());
        let mut config = FakeGatewayConfig::new(Vintage::default());
        config.token = Some("theirs".into());
        config.faults.hello_delay = Duration::from_secs(5);
        let gateway = FakeGateway::start_in_memory(config);
        machine.occupy(
            PORT,
            Foreign {
                pid: None,
                program: None,
                kind: ForeignKind::Gateway(Box::new(gateway)),
            },
        );
        let attached = builder.attach(AttachMode::Only).token("theirs");
        let manager = attached.build().unwrap();
        let mut events = manager.events();
        let handle = manager.clone();
        let starting = tokio::spawn(async move { handle.start().await });
        sleep(Duration::from_secs(2)).await;
        assert_eq!(manager.status().borrow().phase, Phase::Handshaking);
        manager.stop().await.unwrap();
        let started = starting.await.unwrap();
        assert!(
            matches!(started, Err(ManagerError::Superseded)),
            "{started:?}"
        );

        sleep(Duration::from_secs(60)).await;
        assert!(manager.hello().is_none(), "{:?}", manager.hello());
        drop(manager);
        while let Some(Delivered::Event(event)) = events.next().await {
            if let GatewayEvent::Status(status) = event {
                assert_ne!(status.state, GatewayState::Running);
            }
        }
    }
}
