//! Plays a story and holds it against the rules.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_manager::{
    CallOptions, GatewayManager, GatewayState, JournalEntry, ManagerError, OpenClaw, PortChoice,
};
use gateway_policy::FailureClass;
use gateway_process::Environment;
use gateway_protocol::Payload;
use gateway_testkit::scripted::{Foreign, ForeignKind, Happening, Machine, Record};
use gateway_testkit::{FakeGateway, FakeGatewayConfig, Vintage};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::rules;
use crate::story::{Act, Method, Story, Stranger, Verb};

const PORT: u16 = 18_789;
const TOKEN: &str = "simulated-token";

/// What a stop may take at most: a second for the goodbye of the socket, ten of asking and five of force, and something for the
/// last words of the child.
const STOP_WITHIN: Duration = Duration::from_secs(17);

/// What a call may take at most: its own limit of 30 s. A call of which the answer comes in the last moment is settled by it.
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// What any other command may take at most, if no stop comes: every launch that the budget allows without a pause, each as slow as
/// a launch of these stories can be, and the doctor.
const COMMAND_WITHIN: Duration = Duration::from_secs(7_200);

/// The connection in use, and the second one that is tried beside it when it is silent.
const SOCKETS_AT_MOST: u64 = 2;

/// How long the story is watched once all is over.
const AFTERWARDS: Duration = Duration::from_secs(3_600);

/// How long a story may go on without a look at it.
const LOOK_AT_LEAST: Duration = Duration::from_secs(20);

/// The answer to a command or a call.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// What was asked for.
    asked: String,
    after: Duration,
    within: Duration,
    outcome: String,
}

/// All that a story leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) records: Vec<Record>,
    pub(crate) moves: Vec<JournalEntry>,
    /// In the order of the questions; `None` for one whose caller had gone.
    pub(crate) answers: Vec<Option<Answer>>,
}

/// Plays a story on a machine of its own, whose clock it moves. `tell` prints what happened, also of a story that fails.
pub(crate) fn play_alone(story: &Story, tell: bool) -> Account {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut player = Player::new(story, tell);
        for act in &story.acts {
            player.act(*act).await;
            player.look();
        }
        player.finish(story).await
    })
}

struct Player {
    machine: Machine,
    users: [GatewayManager; 2],
    tell: bool,
    /// Whether a stranger was put on the port and has not been taken off it.
    occupied: bool,
    moves: Vec<JournalEntry>,
    answers: Arc<Mutex<Vec<Option<Answer>>>>,
    errands: Vec<JoinHandle<()>>,
}

impl Player {
    fn new(story: &Story, tell: bool) -> Self {
        let machine = Machine::new();
        machine.replan(story.plans());
        story.run_plans().for_each(|plan| machine.plan_run(plan));
        let mut environment = Environment::empty();
        if story.configured {
            // There is no such file, so the doctor finds nothing to copy.
            environment.set("OPENCLAW_CONFIG_PATH", "no-such-directory/openclaw.json");
        }
        // Neither a state directory nor an identity: both are looked at by real threads, in real time.
        let manager = GatewayManager::builder()
            .openclaw(OpenClaw::Command {
                program: "openclaw".into(),
                args: Vec::new(),
            })
            .environment(environment)
            .port(PortChoice::Fixed(PORT))
            .token(TOKEN)
            .attach(story.attach)
            .process_host(Arc::new(machine.host()))
            .transport(Arc::new(machine.transport()))
            .build()
            .unwrap();
        Self {
            machine,
            users: [manager.clone(), manager],
            tell,
            occupied: false,
            moves: Vec::new(),
            answers: Arc::default(),
            errands: Vec::new(),
        }
    }

    fn manager(&self) -> &GatewayManager {
        &self.users[0]
    }

    async fn act(&mut self, act: Act) {
        let gateway = self.machine.gateway(PORT);
        match act {
            Act::Command { user, verb } => self.command(user, verb, None),
            Act::Together(first, second) => {
                self.command(0, first, None);
                self.command(1, second, None);
            }
            Act::Forgotten { verb, milliseconds } => {
                self.command(0, verb, Some(from_milliseconds(milliseconds)));
            }
            Act::Call(method) => self.call(method),
            Act::CheckHealth => {
                let user = self.users[1].clone();
                self.errand("health".to_owned(), CALL_WITHIN, async move {
                    Some(format!("{:?}", user.check_health().await))
                });
            }
            Act::Pass { milliseconds } => return self.pass(from_milliseconds(milliseconds)).await,
            Act::AwaitRunning { milliseconds } => {
                return self.await_running(from_milliseconds(milliseconds)).await;
            }
            Act::Yield { turns } => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Act::DropSockets => gateway
                .iter()
                .for_each(|gateway| gateway.drop_connections()),
            Act::CloseSockets { code } => gateway
                .iter()
                .for_each(|gateway| gateway.close_connections(code, "on purpose")),
            Act::RestartInPlace => gateway.iter().for_each(|gateway| gateway.begin_restart()),
            Act::AnnounceStop => gateway.iter().for_each(|gateway| gateway.begin_stop()),
            Act::Stall => gateway.iter().for_each(|gateway| gateway.stall()),
            Act::Freeze { milliseconds } => gateway.into_iter().for_each(|gateway| {
                gateway.stall();
                tokio::spawn(async move {
                    sleep(from_milliseconds(milliseconds)).await;
                    gateway.resume();
                });
            }),
            Act::Resume => gateway.iter().for_each(|gateway| gateway.resume()),
            Act::LoseListener => {
                if !self.occupied {
                    self.machine.vacate(PORT);
                }
            }
            Act::Sleep { seconds } => self.machine.sleep(Duration::from_secs(seconds.into())),
            Act::Occupy(stranger) => self.occupy(stranger),
            Act::Vacate => {
                if std::mem::take(&mut self.occupied) {
                    self.machine.vacate(PORT);
                }
            }
        }
        // What was asked for is on its way before the next act.
        tokio::task::yield_now().await;
    }

    fn occupy(&mut self, stranger: Stranger) {
        if self.machine.is_taken(PORT) {
            return;
        }
        let kind = match stranger {
            Stranger::Silent => ForeignKind::Silent,
            Stranger::WebServer => ForeignKind::WebServer,
            Stranger::Gateway { ours, restart } => {
                let mut config = FakeGatewayConfig::new(Vintage::default());
                config.token = Some(if ours { TOKEN } else { "their token" }.into());
                config.restart_gap = from_milliseconds(restart);
                ForeignKind::Gateway(Box::new(FakeGateway::start_in_memory(config)))
            }
        };
        let foreign = Foreign {
            pid: Some(7),
            program: Some("somebody".into()),
            kind,
        };
        self.machine.occupy(PORT, foreign);
        self.occupied = true;
    }

    fn command(&mut self, user: usize, verb: Verb, forgotten_after: Option<Duration>) {
        let user = self.users[user].clone();
        let within = match verb {
            Verb::Stop => STOP_WITHIN,
            _ => COMMAND_WITHIN,
        };
        self.errand(format!("{verb:?}"), within, async move {
            let command = async {
                match verb {
                    Verb::Start => user.start().await,
                    Verb::Stop => user.stop().await,
                    Verb::Restart => user.restart().await,
                    Verb::Debounced { milliseconds } => {
                        let delay = Some(from_milliseconds(milliseconds));
                        user.restart_debounced(delay).await
                    }
                }
            };
            let outcome = match forgotten_after {
                Some(after) => timeout(after, command).await.ok()?,
                None => command.await,
            };
            Some(format!("{outcome:?}"))
        });
    }

    fn call(&mut self, method: Method) {
        let user = self.users[1].clone();
        let (name, params) = match method {
            Method::Health => ("health", json!({})),
            Method::Slow { milliseconds } => ("test.delay", json!({ "ms": milliseconds })),
            Method::Silent => ("test.silent", json!({})),
            Method::Drop => ("test.drop", json!({})),
        };
        self.errand(format!("{method:?}"), CALL_WITHIN, async move {
            let params = Payload::from_serialize(&params).unwrap();
            let answer = user.call_raw(name, Some(params), CallOptions::default());
            // What the gateway says has its own clock in it; that it says something is enough.
            Some(format!("{:?}", answer.await.map(drop)))
        });
    }

    /// Begins to wait for an answer, in a task of its own. Without an answer its caller had gone.
    fn errand(
        &mut self,
        asked: String,
        within: Duration,
        waiting: impl Future<Output = Option<String>> + Send + 'static,
    ) {
        let (answers, number, began) = (self.answers.clone(), self.errands.len(), Instant::now());
        answers.lock().unwrap().push(None);
        self.errands.push(tokio::spawn(async move {
            let answer = waiting.await.map(|outcome| Answer {
                asked,
                after: began.elapsed(),
                within,
                outcome,
            });
            answers.lock().unwrap()[number] = answer;
        }));
    }

    /// Lets time pass, and looks at what became of it now and then.
    async fn pass(&mut self, mut time: Duration) {
        while !time.is_zero() {
            let some = time.min(LOOK_AT_LEAST);
            time -= some;
            sleep(some).await;
            self.look();
            rules::living_child_is_in_the_status(&self.machine, self.manager());
            self.write_down_moves();
        }
    }

    /// Lets time pass until the gateway serves, or until so much has passed.
    async fn await_running(&mut self, mut at_most: Duration) {
        let mut status = self.manager().status();
        let mut running = false;
        while !running && !at_most.is_zero() {
            let some = at_most.min(LOOK_AT_LEAST);
            at_most -= some;
            let serves = status.wait_for(|status| status.is_running());
            running = timeout(some, serves).await.is_ok();
            self.look();
            self.write_down_moves();
        }
    }

    /// What holds at every moment.
    fn look(&self) {
        self.machine.assert_no_violations();
        assert!(self.machine.living().len() <= 1);
        let open = self.machine.open_connections();
        assert!(open <= 1, "{open} connections are open at the same time");
        let sockets = self.machine.open_sockets();
        assert!(sockets <= SOCKETS_AT_MOST, "{sockets} sockets are open");
        let status = self.manager().status().borrow().clone();
        rules::status_agrees_with_itself(&status);
        assert_eq!(
            self.manager().uptime().is_some(),
            status.session.is_some(),
            "{status:?}"
        );
    }

    /// Keeps the moves that the journal has made since the last time; it forgets them one day.
    fn write_down_moves(&mut self) {
        let journal = self.manager().journal();
        let newest: Vec<&JournalEntry> = journal.entries().collect();
        // The longest end of what is written down that the journal begins with.
        let ends_with = |known: &usize| {
            self.moves[self.moves.len() - known..]
                .iter()
                .eq(newest[..*known].iter().copied())
        };
        let most = newest.len().min(self.moves.len());
        let overlap = (1..=most).rev().find(ends_with);
        assert!(
            overlap.is_some() || self.moves.is_empty(),
            "the journal has forgotten everything since the last time"
        );
        let known = overlap.unwrap_or(0);
        let fresh = newest.into_iter().skip(known).cloned();
        self.moves.extend(fresh);
    }

    async fn finish(mut self, story: &Story) -> Account {
        if story.patient {
            self.pass(COMMAND_WITHIN).await;
            let open: Vec<_> = self
                .errands
                .iter()
                .filter(|errand| !errand.is_finished())
                .collect();
            assert!(open.is_empty(), "{} commands without an answer", open.len());
        }
        let began = Instant::now();
        let stopped = timeout(STOP_WITHIN, self.manager().stop()).await;
        let stopped = stopped.expect("the last stop is answered in time");
        self.look();
        self.write_down_moves();
        if !self.occupied {
            assert_eq!(self.machine.open_sockets(), 0, "it outlived the stop");
        }
        match &stopped {
            Ok(()) => assert_eq!(self.machine.living(), Vec::<u32>::new()),
            Err(ManagerError::Failed(failure)) => {
                assert_eq!(failure.class, FailureClass::Unkillable, "{failure}");
                assert!(story.has_unkillable(), "{failure}");
                assert_eq!(self.machine.living().len(), 1);
            }
            Err(error) => panic!("{error:?} after {:?}", began.elapsed()),
        }
        self.assert_answered().await;
        self.assert_quiet(stopped.is_err()).await;
        self.write_down_moves();
        let answers = self.answers.lock().unwrap().clone();
        let account = Account {
            records: self.machine.records(),
            moves: std::mem::take(&mut self.moves),
            answers,
        };
        let replayed = self.manager().journal().replay();
        assert!(replayed.is_ok(), "{replayed:?}");
        rules::hold(&account);
        account
    }

    /// Every command has its answer by the time the last stop has its own, and nobody waited longer than he may.
    async fn assert_answered(&mut self) {
        for errand in self.errands.drain(..) {
            let answered = timeout(Duration::from_secs(1), errand).await;
            answered.expect("it was never answered").unwrap();
        }
        for answer in self.answers.lock().unwrap().iter().flatten() {
            assert!(answer.after <= answer.within, "{answer:?}");
        }
    }

    /// Stopped means: nothing is left, and nothing goes on.
    async fn assert_quiet(&mut self, unkillable: bool) {
        sleep(Duration::from_millis(1)).await;
        assert_eq!(self.machine.open_sockets(), 0);
        // A gateway that stands still does not notice that its client has gone.
        if let Some(gateway) = self.machine.gateway(PORT) {
            gateway.resume();
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(self.machine.open_connections(), 0);
        let journal = |manager: &GatewayManager| {
            let journal = manager.journal();
            journal.entries().last().cloned()
        };
        let before = (self.machine.records().len(), journal(self.manager()));
        sleep(AFTERWARDS).await;
        let records = self.machine.records();
        let status = self.manager().status().borrow().clone();
        let went_on = &records[before.0..];
        if !unkillable || self.machine.living().is_empty() {
            assert_eq!(status, Default::default());
        } else {
            // The person who asked was told, and sees it.
            assert_eq!(status.state, GatewayState::Error);
            let class = status.failure.as_ref().map(|failure| failure.class);
            assert_eq!(class, Some(FailureClass::Unkillable));
            assert_eq!(
                status.pid.into_iter().collect::<Vec<_>>(),
                self.machine.living()
            );
        }
        if unkillable {
            // The child itself may still do what it was going to do.
            let own = |record: &Record| {
                matches!(
                    record.happening,
                    Happening::Exited { .. } | Happening::Listening { .. }
                )
            };
            assert!(went_on.iter().all(own), "{went_on:#?}");
        } else {
            assert_eq!(went_on, [], "something went on after the stop");
            assert_eq!(journal(self.manager()), before.1);
        }
    }
}

impl Drop for Player {
    /// Also tells the end of a story that fails.
    fn drop(&mut self) {
        if !self.tell {
            return;
        }
        println!("\nWhat happened:");
        for Record { at, happening } in self.machine.records() {
            println!("{:>12.3} s  {happening:?}", at.as_secs_f64());
        }
        println!("\nWhy:");
        for entry in self.manager().why() {
            println!("{entry}");
        }
        println!("\nAnswers:");
        for answer in self.answers.lock().unwrap().iter() {
            match answer {
                Some(answer) => println!(
                    "{} after {:?}: {}",
                    answer.asked, answer.after, answer.outcome
                ),
                None => println!("nobody waited for the answer"),
            }
        }
    }
}

fn from_milliseconds(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into())
}
