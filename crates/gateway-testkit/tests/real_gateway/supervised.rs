//! A manager whose every event is kept, so that a test can ask what happened, in which order, and wait for what is to come.

use gateway_manager::events::Delivered;
use gateway_manager::{
    Failure, GatewayEvent, GatewayManager, GatewayManagerBuilder, GatewayStatus, ManagerError,
    Phase,
};
use gateway_process::ChildExit;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::processes::{self, Process};
use crate::report::{ANSWER, BOOT, STOP, step};

pub(crate) struct Supervised {
    pub(crate) manager: GatewayManager,
    seen: watch::Receiver<Vec<GatewayEvent>>,
}

impl Supervised {
    pub(crate) fn new(builder: GatewayManagerBuilder) -> Self {
        let manager = builder.build().expect("settings that fit together");
        let mut events = manager.events();
        let (writer, seen) = watch::channel(Vec::new());
        // Ends with the manager.
        tokio::spawn(async move {
            while let Some(delivered) = events.next().await {
                let event = match delivered {
                    Delivered::Event(event) => event,
                    Delivered::Lagged { missed } => GatewayEvent::Warning {
                        message: format!("the test missed {missed} events"),
                    },
                };
                writer.send_modify(|seen| seen.push(event));
            }
        });
        Self { manager, seen }
    }

    /// Starts it, which has to work.
    pub(crate) async fn start(&self, name: &str) -> u32 {
        step(name, BOOT, self.manager.start())
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.running_pid()
    }

    /// Starts it, which must not work, and hands back why.
    pub(crate) async fn start_fails(&self, name: &str, limit: std::time::Duration) -> Failure {
        match step(name, limit, self.manager.start()).await {
            Err(ManagerError::Failed(failure)) => failure,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Stops it and checks that nothing of it is left: no process of the tree, no listener, no connection.
    pub(crate) async fn stop(&self, name: &str) {
        let tree = self.tree();
        step(name, STOP, self.manager.stop())
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.is_stopped();
        processes::gone(&tree).await;
        if let Some(port) = self.manager.port().filter(|_| !tree.is_empty()) {
            gateway_process::ports::check_port_free(port).expect("a port that was let go");
        }
    }

    pub(crate) fn is_stopped(&self) {
        assert_eq!(self.status(), GatewayStatus::default());
        assert!(self.manager.hello().is_none());
    }

    /// The gateway that we launched, with all its descendants.
    pub(crate) fn tree(&self) -> Vec<Process> {
        self.status().pid.map(processes::tree).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> GatewayStatus {
        self.manager.status().borrow().clone()
    }

    /// The process id of the gateway that we launched and that serves.
    pub(crate) fn running_pid(&self) -> u32 {
        let status = self.status();
        assert!(status.is_running(), "{status:?}");
        assert_eq!(status.phase, Phase::Ready);
        assert_eq!(status.failure, None);
        assert!(!status.attached);
        status.pid.expect("a child of ours")
    }

    /// Makes a small call.
    pub(crate) async fn serves(&self) {
        let health: Value = timeout(ANSWER, self.manager.call("health", &json!({})))
            .await
            .expect("an answer in time")
            .expect("health");
        assert_eq!(health["ok"], true, "{health}");
    }

    /// How many events there were so far; a place in the log.
    pub(crate) fn mark(&self) -> usize {
        self.seen.borrow().len()
    }

    /// What `pick` makes of the events since `mark`, up to the one that told the present status.
    pub(crate) async fn picked<T>(
        &self,
        mark: usize,
        pick: impl Fn(&GatewayEvent) -> Option<T>,
    ) -> Vec<T> {
        let told = |events: &Vec<GatewayEvent>| {
            let mut newest = events.iter().rev().filter_map(status_of);
            newest.next().unwrap_or_default() == self.status()
        };
        let mut seen = self.seen.clone();
        let events = timeout(ANSWER, seen.wait_for(told))
            .await
            .expect("an event for every status")
            .expect("a manager that lives");
        events[mark..].iter().filter_map(pick).collect()
    }

    /// Waits for the first event since `mark` of which `pick` makes something.
    pub(crate) async fn next<T>(
        &self,
        mark: usize,
        pick: impl Fn(&GatewayEvent) -> Option<T>,
    ) -> T {
        let mut seen = self.seen.clone();
        let events = seen
            .wait_for(|events| events[mark..].iter().any(|event| pick(event).is_some()))
            .await
            .expect("a manager that lives");
        events[mark..].iter().find_map(pick).expect("just seen")
    }

    /// The phases since `mark`, each once in a row.
    pub(crate) async fn phases(&self, mark: usize) -> Vec<Phase> {
        let mut phases = self
            .picked(mark, |event| status_of(event).map(|status| status.phase))
            .await;
        phases.dedup();
        phases
    }

    /// How often it has entered a phase.
    pub(crate) async fn times_in(&self, phase: Phase) -> usize {
        let phases = self.phases(0).await;
        phases.iter().filter(|seen| **seen == phase).count()
    }

    /// The ends of child processes since `mark`.
    pub(crate) async fn exits(&self, mark: usize) -> Vec<ChildExit> {
        self.picked(mark, exit).await
    }

    /// Nothing happened that the launch had to do without.
    pub(crate) async fn no_warnings(&self) {
        let warnings = self
            .picked(0, |event| match event {
                GatewayEvent::Warning { message } => Some(message.clone()),
                _ => None,
            })
            .await;
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

/// A change of status.
pub(crate) fn status_of(event: &GatewayEvent) -> Option<GatewayStatus> {
    match event {
        GatewayEvent::Status(status) => Some(status.clone()),
        _ => None,
    }
}

/// The end of a child process.
pub(crate) fn exit(event: &GatewayEvent) -> Option<ChildExit> {
    match event {
        GatewayEvent::Exited(exit) => Some(exit.clone()),
        _ => None,
    }
}

impl Drop for Supervised {
    /// Tells the story of a scenario that failed. Neither events nor journal hold a secret.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for event in self.seen.borrow().iter() {
            match event {
                GatewayEvent::Output(line) => eprintln!("    {}", line.text),
                GatewayEvent::Notification { method, .. } => eprintln!("  event {method}"),
                other => eprintln!("  {other:?}"),
            }
        }
        const NEWEST: usize = 60;
        let why = self.manager.why();
        for entry in &why[why.len().saturating_sub(NEWEST)..] {
            eprintln!("  {entry}");
        }
    }
}
