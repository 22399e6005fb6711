//! The world of scripted processes and ports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_process::PortOwner;
use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::child::Launched;
use super::host::ScriptedHost;
use super::plan::{ChildPlan, RunPlan};
use super::record::{Happening, Record};
use super::transport::ScriptedTransport;
use crate::fake_gateway::FakeGateway;

/// The first process id that is given out.
const FIRST_PID: u32 = 1000;

/// A program on a port that the machine's user did not start.
#[derive(Debug)]
pub struct Foreign {
    /// Its process id; `None` hides it, as the operating system does for other users' processes.
    pub pid: Option<u32>,
    /// Its program.
    pub program: Option<String>,
    /// What answers on the port.
    pub kind: ForeignKind,
}

/// What answers on a foreign program's port.
#[derive(Debug)]
pub enum ForeignKind {
    /// A gateway that somebody else runs; made with [`FakeGateway::start_in_memory`].
    Gateway(Box<FakeGateway>),
    /// It accepts connections and says nothing.
    Silent,
    /// It is a web server without WebSockets.
    WebServer,
}

/// A machine in memory. Cloning gives another handle to the same one. Needs a tokio runtime with a clock.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    began: Instant,
    records: Vec<Record>,
    violations: Vec<String>,
    plans: VecDeque<ChildPlan>,
    run_plans: VecDeque<RunPlan>,
    ports: BTreeMap<u16, Listener>,
    living: BTreeSet<u32>,
    max_living: usize,
    next_pid: u32,
    asleep: Duration,
    sockets: u64,
    /// Counts the owners that have died; handles of an earlier one reach nobody.
    owner: u64,
    /// Which instances are claimed, and by whom.
    claims: BTreeMap<PathBuf, u64>,
    /// What instances keep, by directory and name.
    kept: BTreeMap<(PathBuf, String), Vec<u8>>,
    /// The newest launch of each instance.
    launches: BTreeMap<PathBuf, Launched>,
}

/// The client's end of a socket, for as long as the client holds it.
#[derive(Debug)]
pub(super) struct HeldSocket(Machine);

impl Drop for HeldSocket {
    fn drop(&mut self) {
        self.0.world().sockets -= 1;
    }
}

#[derive(Debug)]
struct Listener {
    owner: PortOwner,
    answers: Answers,
}

#[derive(Debug)]
enum Answers {
    Gateway(Arc<FakeGateway>),
    Silent,
    WebServer,
}

/// What a dial finds.
pub(super) enum Dialled {
    Nobody,
    Gateway(DuplexStream),
    Silent,
    WebServer,
}

impl Machine {
    /// An empty machine that allows one living child.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(World {
            began: Instant::now(),
            records: Vec::new(),
            violations: Vec::new(),
            plans: VecDeque::new(),
            run_plans: VecDeque::new(),
            ports: BTreeMap::new(),
            living: BTreeSet::new(),
            max_living: 1,
            next_pid: FIRST_PID,
            asleep: Duration::ZERO,
            sockets: 0,
            owner: 0,
            claims: BTreeMap::new(),
            kept: BTreeMap::new(),
            launches: BTreeMap::new(),
        })))
    }

    /// The machine's processes.
    #[must_use]
    pub fn host(&self) -> ScriptedHost {
        ScriptedHost::new(self.clone())
    }

    /// The machine's sockets.
    #[must_use]
    pub fn transport(&self) -> ScriptedTransport {
        ScriptedTransport::new(self.clone())
    }

    /// Plans the next start. Plans are used in order; the last one stays for all later starts. Without any, starts follow
    /// [`ChildPlan::default`].
    pub fn plan(&self, plan: ChildPlan) {
        self.world().plans.push_back(plan);
    }

    /// Replaces every plan for starts that have not happened yet.
    pub fn replan(&self, plans: impl IntoIterator<Item = ChildPlan>) {
        self.world().plans = plans.into_iter().collect();
    }

    /// Plans the next run of a program that is not a gateway; used like [`plan`](Self::plan).
    pub fn plan_run(&self, plan: RunPlan) {
        self.world().run_plans.push_back(plan);
    }

    /// How many children may live at the same time before it counts as a violation. Default 1.
    pub fn allow_living(&self, children: usize) {
        self.world().max_living = children;
    }

    /// Puts somebody else's program on a port.
    pub fn occupy(&self, port: u16, foreign: Foreign) {
        let answers = match foreign.kind {
            ForeignKind::Gateway(gateway) => Answers::Gateway(Arc::new(*gateway)),
            ForeignKind::Silent => Answers::Silent,
            ForeignKind::WebServer => Answers::WebServer,
        };
        let owner = PortOwner {
            pid: foreign.pid,
            program: foreign.program,
            user: None,
            address: loopback(port),
        };
        self.world().ports.insert(port, Listener { owner, answers });
    }

    /// Takes whatever is there off a port; its sockets break.
    pub fn vacate(&self, port: u16) {
        let gone = self.world().ports.remove(&port);
        // Outside the lock: ending a gateway runs code of its own.
        gone.into_iter().for_each(Listener::end);
    }

    /// Whether anybody listens on a port. Looking leaves no record.
    #[must_use]
    pub fn is_taken(&self, port: u16) -> bool {
        self.world().ports.contains_key(&port)
    }

    /// The gateway on a port, to make it misbehave: stall, emit, restart, drop connections.
    #[must_use]
    pub fn gateway(&self, port: u16) -> Option<Arc<FakeGateway>> {
        match &self.world().ports.get(&port)?.answers {
            Answers::Gateway(gateway) => Some(Arc::clone(gateway)),
            _ => None,
        }
    }

    /// The machine was asleep for this long, in no time at all: its clock stands still while it sleeps, as that of Linux does.
    pub fn sleep(&self, time: Duration) {
        let mut world = self.world();
        world.asleep += time;
        world.record(Happening::Slept { time });
    }

    /// Whoever has started children here so far is killed: its claims are free, its handles reach nobody any more, and of its children
    /// only those live on that were to survive it. Its tasks cannot be taken from it; drop what is left of it.
    pub fn kill_owner(&self) {
        let mut world = self.world();
        world.owner += 1;
        world.claims.clear();
        world.record(Happening::OwnerKilled);
        let dying: Vec<Launched> = {
            let (survivors, dying) = std::mem::take(&mut world.launches)
                .into_iter()
                .partition(|(_, launched)| launched.survives());
            world.launches = survivors;
            let dying: BTreeMap<PathBuf, Launched> = dying;
            dying.into_values().collect()
        };
        drop(world);
        for launched in dying {
            launched.die_with_owner();
        }
    }

    pub(super) fn owner(&self) -> u64 {
        self.world().owner
    }

    /// Claims an instance for the current owner; false when it is claimed.
    pub(super) fn claim(&self, directory: &Path) -> bool {
        let mut world = self.world();
        let owner = world.owner;
        let free = !world.claims.contains_key(directory);
        if free {
            world.claims.insert(directory.to_owned(), owner);
        }
        free
    }

    pub(super) fn release(&self, directory: &Path, owner: u64) {
        let mut world = self.world();
        if world.claims.get(directory) == Some(&owner) {
            world.claims.remove(directory);
        }
    }

    pub(super) fn kept(&self, directory: &Path, name: &str) -> Option<Vec<u8>> {
        let key = (directory.to_owned(), name.to_owned());
        self.world().kept.get(&key).cloned()
    }

    pub(super) fn keep(&self, directory: &Path, name: &str, content: Option<Vec<u8>>) {
        let key = (directory.to_owned(), name.to_owned());
        let mut world = self.world();
        match content {
            Some(content) => world.kept.insert(key, content),
            None => world.kept.remove(&key),
        };
    }

    pub(super) fn note_launch(&self, directory: &Path, launched: Launched) {
        self.world().launches.insert(directory.to_owned(), launched);
    }

    /// What lives of the newest launch of an instance.
    pub(super) fn launched(&self, directory: &Path) -> Option<Launched> {
        let world = self.world();
        let launched = world.launches.get(directory)?;
        world
            .living
            .contains(&launched.pid())
            .then(|| launched.clone())
    }

    pub(super) fn time_asleep(&self) -> Duration {
        self.world().asleep
    }

    /// How many clients are connected to the gateways on this machine's ports, whoever they are.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        let world = self.world();
        let gateways = world
            .ports
            .values()
            .filter_map(|listener| match &listener.answers {
                Answers::Gateway(gateway) => Some(gateway.statistics().connected),
                _ => None,
            });
        gateways.sum()
    }

    /// How many sockets are held by those who opened them through the [`transport`](Self::transport), whether or not they got as far
    /// as a connection, and whether or not the other end still lives.
    #[must_use]
    pub fn open_sockets(&self) -> u64 {
        self.world().sockets
    }

    /// Counts a socket until it is dropped.
    pub(super) fn hold_socket(&self) -> HeldSocket {
        self.world().sockets += 1;
        HeldSocket(self.clone())
    }

    /// Process ids of the children that live.
    #[must_use]
    pub fn living(&self) -> Vec<u32> {
        self.world().living.iter().copied().collect()
    }

    /// Everything that has happened.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.world().records.clone()
    }

    /// How often something of a kind has happened.
    #[must_use]
    pub fn count(&self, mut of_the_kind: impl FnMut(&Happening) -> bool) -> usize {
        self.world()
            .records
            .iter()
            .filter(|record| of_the_kind(&record.happening))
            .count()
    }

    /// What must never happen and did.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.world().violations.clone()
    }

    /// Panics when something happened that never must; prints the diary.
    ///
    /// # Panics
    ///
    /// When there are violations.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let world = self.world();
        assert!(
            world.violations.is_empty(),
            "{:#?}\nafter {:#?}",
            world.violations,
            world.records
        );
    }

    pub(super) fn record(&self, happening: Happening) {
        self.world().record(happening);
    }

    pub(super) fn next_plan(&self) -> ChildPlan {
        take_or_keep(&mut self.world().plans)
    }

    pub(super) fn next_run_plan(&self) -> RunPlan {
        take_or_keep(&mut self.world().run_plans)
    }

    pub(super) fn begin_run(&self, command: String) {
        let mut world = self.world();
        if !world.living.is_empty() {
            let line = format!(
                "`{command}` runs beside the living children {:?}",
                world.living
            );
            world.violations.push(line);
        }
        world.record(Happening::RunStarted { command });
    }

    /// A new child lives.
    pub(super) fn begin(&self, command: String) -> u32 {
        let mut world = self.world();
        let pid = world.next_pid;
        world.next_pid += 1;
        world.living.insert(pid);
        world.record(Happening::Spawned { pid, command });
        if world.living.len() > world.max_living {
            let line = format!(
                "{} children live at the same time: {:?}",
                world.living.len(),
                world.living
            );
            world.violations.push(line);
        }
        pid
    }

    /// A child is gone, and with it what it had on its port.
    pub(super) fn end(&self, pid: u32, code: Option<i32>, signal: Option<i32>) {
        let mut world = self.world();
        if !world.living.remove(&pid) {
            return;
        }
        world.record(Happening::Exited { pid, code, signal });
        let ports: Vec<u16> = world
            .ports
            .iter()
            .filter(|(_, listener)| listener.owner.pid == Some(pid))
            .map(|(port, _)| *port)
            .collect();
        let gone: Vec<_> = ports
            .iter()
            .filter_map(|port| world.ports.remove(port))
            .collect();
        drop(world);
        gone.into_iter().for_each(Listener::end);
    }

    /// Binds a port for a child; false when it is taken.
    pub(super) fn listen(
        &self,
        pid: u32,
        port: u16,
        program: String,
        gateway: &Arc<FakeGateway>,
    ) -> bool {
        let mut world = self.world();
        if world.ports.contains_key(&port) {
            return false;
        }
        let owner = PortOwner {
            pid: Some(pid),
            program: Some(program),
            user: None,
            address: loopback(port),
        };
        world.ports.insert(
            port,
            Listener {
                owner,
                answers: Answers::Gateway(Arc::clone(gateway)),
            },
        );
        world.record(Happening::Listening { pid, port });
        true
    }

    pub(super) fn owners(&self, port: u16) -> Vec<PortOwner> {
        let mut world = self.world();
        world.record(Happening::PortAsked { port });
        world
            .ports
            .get(&port)
            .map(|listener| listener.owner.clone())
            .into_iter()
            .collect()
    }

    pub(super) fn dial(&self, port: u16) -> Dialled {
        let mut world = self.world();
        let found = match world.ports.get(&port).map(|listener| &listener.answers) {
            None => Dialled::Nobody,
            Some(Answers::Silent) => Dialled::Silent,
            Some(Answers::WebServer) => Dialled::WebServer,
            // A gateway between two lives has no port for a moment.
            Some(Answers::Gateway(gateway)) => gateway
                .connect_in_memory()
                .map_or(Dialled::Nobody, Dialled::Gateway),
        };
        world.record(Happening::Dialled {
            port,
            accepted: !matches!(found, Dialled::Nobody),
        });
        found
    }

    /// A poisoned lock only means that a test has failed elsewhere.
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The program is gone, even if a test still holds its gateway.
    fn end(self) {
        if let Answers::Gateway(gateway) = self.answers {
            gateway.kill();
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    fn record(&mut self, happening: Happening) {
        self.records.push(Record {
            at: self.began.elapsed(),
            happening,
        });
    }
}

/// The next of a list whose last element stays.
fn take_or_keep<T: Clone + Default>(list: &mut VecDeque<T>) -> T {
    if list.len() > 1 {
        list.pop_front().unwrap_or_default()
    } else {
        list.front().cloned().unwrap_or_default()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
