//! The handle of a fake gateway and the task that owns its port.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::options::{FakeGatewayConfig, FakeGatewayError, FakeGatewayFaults};
use super::session;
use super::state::{Command, FakeGatewayStatistics, Phase, Shared};
use super::wire::Wire;

const BACKLOG: u32 = 1024;
/// `restartExpectedMs` of the shutdown event before a restart.
const RESTART_EXPECTED_MS: u64 = 1500;
/// How often a restart tries to get its port back.
const REBIND_ATTEMPTS: u32 = 50;

/// How a fake gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopOutcome {
    /// An orderly stop.
    Stopped,
    /// It could not get its port back after a restart.
    PortLost,
}

/// A running fake gateway. Dropping it cuts every connection and frees the port at once, like a `SIGKILL`.
///
/// ```
/// use gateway_testkit::{FakeGateway, FakeGatewayConfig, Vintage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = FakeGateway::start(FakeGatewayConfig::new(Vintage::V2026_9_6)).await?;
/// println!("{}", gateway.url());
/// gateway.stop().await;
/// # Ok(())
/// # }
/// ```
pub struct FakeGateway {
    shared: Arc<Shared>,
    outcome: watch::Receiver<Option<StopOutcome>>,
    task: JoinHandle<()>,
}

impl FakeGateway {
    /// Binds `127.0.0.1` (and `[::1]` when that works) and serves.
    ///
    /// # Errors
    ///
    /// [`FakeGatewayError::Bind`] when the IPv4 port is taken, [`FakeGatewayError::Random`] without random numbers.
    pub async fn start(config: FakeGatewayConfig) -> Result<Self, FakeGatewayError> {
        getrandom::u32().map_err(|error| FakeGatewayError::Random(error.to_string()))?;
        let listeners = Listeners::bind(config.port, config.ipv6)?;
        Ok(Self::serve(config, |_| listeners))
    }

    /// Serves without a socket; [`connect_in_memory`](Self::connect_in_memory) gives the client's ends. With tokio's
    /// paused clock everything it does happens in virtual time, in the same order on every run.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn start_in_memory(config: FakeGatewayConfig) -> Self {
        Self::serve(config, Listeners::in_memory)
    }

    fn serve(config: FakeGatewayConfig, listen: impl FnOnce(&Shared) -> Listeners) -> Self {
        let (commands, orders) = mpsc::channel(64);
        let shared = Arc::new(Shared::new(config, commands));
        let listeners = listen(&shared);
        shared.set_port(listeners.port);
        shared.set_phase(first_phase(&shared.config));
        let (report, outcome) = watch::channel(None);
        let server = Server {
            shared: Arc::clone(&shared),
            orders,
            sessions: JoinSet::new(),
        };
        let task = tokio::spawn(async move {
            let outcome = server.run(listeners).await;
            report.send_replace(Some(outcome));
        });
        Self {
            shared,
            outcome,
            task,
        }
    }

    /// A connection to a gateway in memory; `None` while it does not listen, and for one with real sockets.
    #[must_use]
    pub fn connect_in_memory(&self) -> Option<DuplexStream> {
        self.shared.connect_memory()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.port()
    }

    /// `ws://127.0.0.1:<port>/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/", self.port())
    }

    /// The settings it was started with.
    #[must_use]
    pub fn config(&self) -> &FakeGatewayConfig {
        &self.shared.config
    }

    /// Whether it serves.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// Sets the phase, for example back to [`Phase::Starting`].
    pub fn set_phase(&self, phase: Phase) {
        self.shared.set_phase(phase);
    }

    /// Changes the faults; sockets that are open keep the old ones.
    pub fn set_faults(&self, faults: FakeGatewayFaults) {
        self.shared.set_faults(faults);
    }

    /// Changes the shared token without telling anybody.
    pub fn set_token(&self, token: impl Into<String>) {
        self.shared.set_token(token.into());
    }

    /// Stops answering, like a process under `SIGSTOP`: the kernel still completes TCP connects, nothing else happens.
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// Answers again, what waited first.
    pub fn resume(&self) {
        self.shared.stalled.send_replace(false);
    }

    /// Sends an event to every connected client.
    pub fn emit(&self, event: &str, payload: &Value) {
        self.shared.broadcast(event, payload.to_string(), false);
    }

    /// Ends every agent run that a `chat.send` began.
    pub fn end_runs(&self) {
        self.shared.runs.send_replace(0);
    }

    /// Sends a `tick` event now.
    pub fn tick(&self) {
        tick(&self.shared);
    }

    /// Closes every connected socket with that code.
    pub fn close_connections(&self, code: u16, reason: &str) {
        self.shared.close_all(code, reason, false);
    }

    /// Cuts every WebSocket's TCP connection without a close frame.
    pub fn drop_connections(&self) {
        self.shared.drop_all();
    }

    /// The counters now.
    #[must_use]
    pub fn statistics(&self) -> FakeGatewayStatistics {
        self.shared.statistics.borrow().clone()
    }

    /// Waits until the counters fulfil a condition. Put a deadline around it. Cancel safe.
    pub async fn wait_for(
        &self,
        mut condition: impl FnMut(&FakeGatewayStatistics) -> bool,
    ) -> FakeGatewayStatistics {
        let mut statistics = self.shared.statistics.subscribe();
        match statistics
            .wait_for(|statistics| condition(statistics))
            .await
        {
            Ok(found) => found.clone(),
            // The sender lives in `shared`, which this handle holds.
            Err(_) => self.statistics(),
        }
    }

    /// The params of the last 256 `connect` requests, oldest first. They hold the secrets the clients sent.
    #[must_use]
    pub fn connects(&self) -> Vec<Value> {
        self.shared.connects()
    }

    /// Begins an orderly stop and waits for its end: shutdown event, close 1012, port free.
    ///
    /// 2026.9.6 waits for agent runs first; see [`FakeGatewayConfig::drain_limit`]. Calling it twice is fine. Dropping
    /// the future does not take the stop back.
    pub async fn stop(&self) -> StopOutcome {
        self.begin_stop();
        self.stopped().await
    }

    /// Begins an orderly stop.
    pub fn begin_stop(&self) {
        // A full or closed queue means that it is stopping.
        let _ = self
            .shared
            .commands
            .try_send(Command::Stop { restart: false });
    }

    /// Ends at once, like a process under `SIGKILL`: every connection is cut, the port is free.
    pub fn kill(&self) {
        self.shared.close_memory();
        self.task.abort();
    }

    /// Begins an in-process restart: shutdown event with `restartExpectedMs`, close 1012, the same port again.
    pub fn begin_restart(&self) {
        let _ = self
            .shared
            .commands
            .try_send(Command::Stop { restart: true });
    }

    /// An in-process restart, waiting until the port answers again.
    pub async fn restart(&self) {
        let before = self.statistics().restarts;
        self.begin_restart();
        self.wait_for(|statistics| statistics.restarts > before)
            .await;
    }

    /// Waits until it has ended by itself. Cancel safe.
    pub async fn stopped(&self) -> StopOutcome {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.unwrap_or(StopOutcome::Stopped),
            Err(_) => StopOutcome::Stopped,
        }
    }
}

/// Shows no secrets: what clients have sent is left out.
impl fmt::Debug for FakeGateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FakeGateway")
            .field("port", &self.port())
            .field("phase", &self.phase())
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Listeners {
    port: u16,
    source: Source,
}

enum Source {
    Tcp {
        v4: TcpListener,
        v6: Option<TcpListener>,
    },
    Memory(mpsc::Receiver<DuplexStream>),
}

impl Listeners {
    fn bind(port: u16, ipv6: bool) -> Result<Self, FakeGatewayError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v4 = listen(address).map_err(|source| FakeGatewayError::Bind { address, source })?;
        let port = v4
            .local_addr()
            .map_err(|source| FakeGatewayError::Bind { address, source })?
            .port();
        let v6 = ipv6.then(|| listen(SocketAddr::from((Ipv6Addr::LOCALHOST, port)))).and_then(|bound| {
            bound.inspect_err(|error| tracing::warn!(port, %error, "cannot listen on [::1]; serving IPv4 alone")).ok()
        });
        Ok(Self {
            port,
            source: Source::Tcp { v4, v6 },
        })
    }

    /// Listens in memory, on a port that is only a number.
    fn in_memory(shared: &Shared) -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG as usize);
        shared.open_memory(sender);
        Self {
            port: shared.config.port,
            source: Source::Memory(receiver),
        }
    }

    fn describe(&self) -> String {
        let (port, pid) = (self.port, std::process::id());
        let has_v6 = matches!(&self.source, Source::Tcp { v6: Some(_), .. });
        let v6 = if has_v6 {
            format!(", ws://[::1]:{port}")
        } else {
            String::new()
        };
        format!("listening on ws://127.0.0.1:{port}{v6} (PID {pid})")
    }

    async fn accept(&mut self) -> io::Result<Wire> {
        let (v4, v6) = match &mut self.source {
            Source::Tcp { v4, v6 } => (v4, v6),
            Source::Memory(receiver) => {
                return match receiver.recv().await {
                    Some(stream) => Ok(Wire::Memory(stream)),
                    // The sender lives as long as this listens.
                    None => std::future::pending().await,
                };
            }
        };
        let (stream, _) = match v6 {
            Some(v6) => tokio::select! {
                biased;
                accepted = v4.accept() => accepted?,
                accepted = v6.accept() => accepted?,
            },
            None => v4.accept().await?,
        };
        stream.set_nodelay(true)?;
        Ok(Wire::Tcp(stream))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Unix keeps a port in TIME_WAIT otherwise; on Windows the option would let two servers share it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// 2026.3.2 is ready as soon as it listens.
fn starts_slowly(config: &FakeGatewayConfig) -> bool {
    config.vintage.is_new() && !config.ready_after.is_zero()
}

fn first_phase(config: &FakeGatewayConfig) -> Phase {
    if starts_slowly(config) {
        Phase::Starting
    } else {
        Phase::Ready
    }
}

fn tick(shared: &Shared) {
    shared.broadcast("tick", json!({"ts": shared.now_ms()}).to_string(), false);
}

struct Server {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Command>,
    sessions: JoinSet<()>,
}

impl Server {
    async fn run(mut self, mut listeners: Listeners) -> StopOutcome {
        loop {
            let restart = self.serve(&mut listeners).await;
            self.announce_end(restart);
            let port = listeners.port;
            let in_memory = matches!(listeners.source, Source::Memory(_));
            self.shared.close_memory();
            drop(listeners);
            self.finish_sessions().await;
            if !restart {
                return StopOutcome::Stopped;
            }
            sleep(self.shared.config.restart_gap).await;
            let bound = if in_memory {
                Some(Listeners::in_memory(&self.shared))
            } else {
                rebind(port, self.shared.config.ipv6).await
            };
            match bound {
                Some(bound) => listeners = bound,
                None => return StopOutcome::PortLost,
            }
            self.shared.new_boot();
            self.shared.set_phase(first_phase(&self.shared.config));
            self.shared.count(|statistics| statistics.restarts += 1);
        }
    }

    /// Serves until somebody wants it to end; says whether it is to come back.
    async fn serve(&mut self, listeners: &mut Listeners) -> bool {
        let config = &self.shared.config;
        config.log.line("gateway", &listeners.describe());
        if !starts_slowly(config) {
            config.log.line("gateway", "ready");
        }
        let (tick_interval, health_interval) = (config.tick_interval, config.health_interval);
        let mut next_tick = Instant::now() + tick_interval;
        let mut next_health = Instant::now() + health_interval;
        let mut ready_at = starts_slowly(config).then(|| Instant::now() + config.ready_after);
        let mut end: Option<(Instant, bool)> = None;
        let mut close: Option<(Instant, u16, String)> = None;
        let mut stalled = self.shared.stalled.subscribe();
        let mut runs = self.shared.runs.subscribe();
        let mut draining: Option<(Instant, bool)> = None;
        let new = config.vintage.is_new();
        loop {
            let accepting = !*stalled.borrow_and_update();
            tokio::select! {
                biased;
                Some(_) = self.sessions.join_next() => {}
                _ = stalled.changed() => {}
                order = self.orders.recv() => match order {
                    Some(Command::Stop { restart }) => end = Some((Instant::now(), restart)),
                    Some(Command::StopAfter { restart, delay }) => end = Some((Instant::now() + delay, restart)),
                    Some(Command::CloseAll { code, reason, delay }) => {
                        close = Some((Instant::now() + delay, code, reason));
                    }
                    None => return false,
                },
                // 2026.9.6 first waits for agent runs, and listens to no further request to end meanwhile.
                restart = until(end), if draining.is_none() => {
                    if !(new && *runs.borrow() > 0) {
                        return restart;
                    }
                    self.shared.set_phase(Phase::Draining);
                    draining = Some((Instant::now() + self.shared.config.drain_limit, restart));
                }
                restart = drained(&mut runs, draining) => return restart,
                () = until(close.as_ref().map(|(at, ..)| (*at, ()))) => {
                    if let Some((_, code, reason)) = close.take() {
                        self.shared.close_all(code, &reason, false);
                    }
                }
                () = until(ready_at.map(|at| (at, ()))) => {
                    ready_at = None;
                    // Somebody may have set the phase by hand meanwhile.
                    if self.shared.phase() == Phase::Starting {
                        self.shared.set_phase(Phase::Ready);
                        self.shared.config.log.line("gateway", "ready");
                    }
                }
                accepted = listeners.accept(), if accepting => {
                    if let Ok(stream) = accepted {
                        self.shared.count(|statistics| statistics.accepted += 1);
                        self.sessions.spawn(session::run(Arc::clone(&self.shared), stream));
                    }
                }
                () = sleep_until(next_tick) => {
                    next_tick += tick_interval;
                    if accepting && !self.shared.faults().no_ticks {
                        tick(&self.shared);
                    }
                }
                () = sleep_until(next_health) => {
                    next_health += health_interval;
                    if accepting {
                        self.shared.broadcast_health();
                    }
                }
            }
        }
    }

    /// The last words.
    fn announce_end(&self, restart: bool) {
        let new = self.shared.config.vintage.is_new();
        let what = if restart {
            "restarting"
        } else {
            "shutting down"
        };
        self.shared
            .config
            .log
            .line("gateway", &format!("signal received; {what}"));
        let payload = match (restart, new) {
            (true, _) => {
                json!({"reason": "gateway restarting", "restartExpectedMs": RESTART_EXPECTED_MS})
            }
            (false, true) => json!({"reason": "gateway stopping"}),
            (false, false) => json!({"reason": "gateway stopping", "restartExpectedMs": null}),
        };
        self.shared
            .broadcast("shutdown", payload.to_string(), false);
        self.shared.close_all(1012, "service restart", new);
    }

    /// Waits for the sockets to end; for those that never connected only as long as the release does.
    async fn finish_sessions(&mut self) {
        const CLOSE_LIMIT: Duration = Duration::from_secs(2);
        self.shared.closing.send_modify(|count| *count += 1);
        let cut = Instant::now() + self.shared.config.unauthenticated_linger;
        let give_up = cut.max(Instant::now() + CLOSE_LIMIT);
        let mut waiting = !self.shared.config.vintage.is_new();
        loop {
            tokio::select! {
                biased;
                ended = self.sessions.join_next() => if ended.is_none() {
                    return;
                },
                () = sleep_until(cut), if waiting => {
                    waiting = false;
                    self.shared.drop_unauthenticated();
                }
                () = sleep_until(give_up) => return self.sessions.shutdown().await,
            }
        }
    }
}

async fn rebind(port: u16, ipv6: bool) -> Option<Listeners> {
    for _ in 0..REBIND_ATTEMPTS {
        if let Ok(listeners) = Listeners::bind(port, ipv6) {
            return Some(listeners);
        }
        sleep(Duration::from_millis(20)).await;
    }
    None
}

/// Waits for the end of the agent runs, or of the patience with them.
async fn drained(runs: &mut watch::Receiver<usize>, draining: Option<(Instant, bool)>) -> bool {
    let Some((limit, restart)) = draining else {
        return std::future::pending().await;
    };
    // The sender lives in `shared`; and past the limit the stop goes on regardless.
    let _ = timeout_at(limit, runs.wait_for(|runs| *runs == 0)).await;
    restart
}

async fn until<T>(deadline: Option<(Instant, T)>) -> T {
    match deadline {
        Some((at, value)) => {
            sleep_until(at).await;
            value
        }
        None => std::future::pending().await,
    }
}
