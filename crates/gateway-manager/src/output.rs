//! What becomes of the lines that a gateway prints: without secrets, into the output log, and to whoever listens, once.

use std::time::Duration;

use gateway_policy::Time;
use gateway_policy::duplicates::{Duplicates, Repeats, Seen};
use gateway_policy::readiness::says_ready;
use gateway_policy::startup_trace::StartupSummary;
use gateway_policy::stderr::classify;
use gateway_process::{
    OutputEvent, OutputLine, OutputLog, OutputSource, OutputStream, Redactor, StderrLevel,
};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::events::{EventBus, GatewayEvent};

/// How often it is told at most that lines were missed.
const MISSED_INTERVAL: Duration = Duration::from_secs(5);

/// How often a gateway may say that it is ready and be believed to say something new.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// The road that the output of one process takes. What it still has to tell it tells when it is dropped.
pub(crate) struct OutputRoad {
    redactor: Arc<Redactor>,
    log: Option<OutputLog>,
    bus: EventBus,
    /// Told when the gateway says that it is ready.
    ready: Box<dyn Fn() + Send>,
    /// When it was told last.
    ready_told: Option<Instant>,
    summary: watch::Sender<Option<StartupSummary>>,
    startup: StartupSummary,
    begin: Instant,
    stdout: Duplicates,
    stderr: Duplicates,
    missed: u64,
    /// When lines were last told to be missed.
    missed_told: Option<Instant>,
}

impl OutputRoad {
    pub(crate) fn new(
        redactor: Arc<Redactor>,
        log: Option<OutputLog>,
        bus: EventBus,
        ready: impl Fn() + Send + 'static,
        summary: watch::Sender<Option<StartupSummary>>,
    ) -> Self {
        Self {
            redactor,
            log,
            bus,
            ready: Box::new(ready),
            ready_told: None,
            summary,
            startup: StartupSummary::default(),
            begin: Instant::now(),
            stdout: Duplicates::default(),
            stderr: Duplicates::default(),
            missed: 0,
            missed_told: None,
        }
    }

    /// Takes all lines until the stream ends.
    pub(crate) async fn take_all(mut self, mut output: OutputStream) {
        loop {
            let due = self.due();
            tokio::select! {
                // Lines come before the time, so that a story can be played again.
                biased;
                event = output.next() => match event {
                    Some(OutputEvent::Line(line)) => self.take(line),
                    Some(OutputEvent::Missed(lines)) => self.take_missed(lines),
                    None => return,
                },
                () = sleep_until(due) => self.on_time(),
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_origin(self.begin.elapsed())
    }

    fn due(&self) -> Option<Instant> {
        let notes = [&self.stdout, &self.stderr].map(Duplicates::poll_timeout);
        let notes = notes.into_iter().flatten().min();
        let note = notes.and_then(|due| self.begin.checked_add(due.elapsed_from_origin()));
        let missed = self.missed_told.filter(|_| self.missed > 0);
        let missed = missed.map(|told| told + MISSED_INTERVAL);
        [note, missed].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = self.now();
        let stdout = self.stdout.handle_timeout(now);
        let stderr = self.stderr.handle_timeout(now);
        self.tell_repeats(stdout, stderr);
        self.tell_missed(false);
    }

    /// A line was classified as it was printed; it is shown and kept without the secrets that the process was given.
    fn take(&mut self, mut line: OutputLine) {
        let now = self.now();
        line.text = self.redactor.clean(&line.text).into();
        if let Some(log) = &self.log {
            log.write(&line);
        }
        self.look_for_step(&line.text);
        self.look_for_ready(&line.text);
        let source = line.stream;
        let seen = match source {
            OutputSource::Stdout => self.stdout.see(now, &line.text),
            OutputSource::Stderr => self.stderr.see(now, &line.text),
        };
        if let Some(repeats) = seen.1 {
            self.tell(source, repeats);
        }
        if seen.0 == Seen::New {
            self.bus.publish(GatewayEvent::Output(line));
        }
    }

    fn look_for_ready(&mut self, text: &str) {
        let lately = self
            .ready_told
            .is_some_and(|told| told.elapsed() < READY_INTERVAL);
        if !lately && says_ready(text) {
            self.ready_told = Some(Instant::now());
            (self.ready)();
        }
    }

    fn look_for_step(&mut self, text: &str) {
        let was_slow = self.startup.is_slow();
        let Some(step) = self.startup.take(text) else {
            return;
        };
        if step.is_slow() {
            self.warn(format!(
                "A step of the gateway's start is slow: {} took {:.1} s.",
                step.name,
                step.took.as_secs_f64()
            ));
        }
        self.bus.publish(GatewayEvent::StartupStep(step));
        if self.startup.is_slow() && !was_slow {
            self.warn(format!("The gateway's start is slow: {}.", self.startup));
        }
        self.summary.send_replace(Some(self.startup.clone()));
        if self.startup.ready.is_some() {
            tracing::info!("gateway start: {}", self.startup);
            self.bus
                .publish(GatewayEvent::Startup(self.startup.clone()));
        }
    }

    fn warn(&self, message: String) {
        tracing::warn!("{message}");
        self.bus.publish(GatewayEvent::Warning { message });
    }

    fn take_missed(&mut self, lines: u64) {
        if let Some(log) = &self.log {
            log.missed(lines);
        }
        self.missed += lines;
        self.tell_missed(false);
    }

    /// A flood is told of now and then, and not once for each of its waves.
    fn tell_missed(&mut self, at_once: bool) {
        let told_lately = self
            .missed_told
            .is_some_and(|told| told.elapsed() < MISSED_INTERVAL);
        if self.missed == 0 || told_lately && !at_once {
            return;
        }
        let missed = std::mem::take(&mut self.missed);
        self.missed_told = Some(Instant::now());
        self.bus.publish(GatewayEvent::Warning {
            message: format!(
                "{missed} lines of the gateway's output were dropped because they came too fast."
            ),
        });
    }

    fn tell_repeats(&self, stdout: Vec<Repeats>, stderr: Vec<Repeats>) {
        for (source, repeats) in [
            (OutputSource::Stdout, stdout),
            (OutputSource::Stderr, stderr),
        ] {
            for repeats in repeats {
                self.tell(source, repeats);
            }
        }
    }

    fn tell(&self, stream: OutputSource, repeats: Repeats) {
        let level = match stream {
            OutputSource::Stdout => StderrLevel::Quiet,
            OutputSource::Stderr => classify(&repeats.line),
        };
        self.bus.publish(GatewayEvent::OutputRepeated {
            stream,
            level,
            repeats,
        });
    }
}

impl Drop for OutputRoad {
    fn drop(&mut self) {
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        self.tell_repeats(stdout, stderr);
        self.tell_missed(true);
        // It ended on the way.
        if self.startup.steps > 0 && self.startup.ready.is_none() {
            self.bus
                .publish(GatewayEvent::Startup(self.startup.clone()));
        }
    }
}

/// Sleeps until the deadline; for ever without one.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use gateway_process::{Environment, OutputLogConfig, OutputSender};

    use super::*;
    use crate::events::{Delivered, EventSubscription};

    struct Road {
        sender: OutputSender,
        events: EventSubscription,
        summary: watch::Receiver<Option<StartupSummary>>,
    }

    fn road(log: Option<OutputLog>, capacity: usize) -> (Road, impl Future<Output = ()>) {
        let mut environment = Environment::empty();
        environment.set_secret("TOKEN", "s3cret-value".into());
        let bus = EventBus::new(64);
        let events = bus.subscribe();
        let (sender, output) = OutputSender::channel(capacity);
        let (writer, summary) = watch::channel(None);
        let work = OutputRoad::new(Arc::new(environment.redactor()), log, bus, || {}, writer);
        let road = Road {
            sender,
            events,
            summary,
        };
        (road, work.take_all(output))
    }

    impl Road {
        fn print(&self, text: &str) {
            self.sender.send(OutputLine {
                stream: OutputSource::Stderr,
                text: text.into(),
                level: StderrLevel::Warn,
                truncated: false,
            });
        }

        /// What has been told so far, in words.
        async fn told(&mut self) -> Vec<String> {
            let mut told = Vec::new();
            let moment = Duration::from_millis(1);
            while let Ok(Some(Delivered::Event(event))) =
                tokio::time::timeout(moment, self.events.next()).await
            {
                told.push(match event {
                    GatewayEvent::Output(line) => line.text.to_string(),
                    GatewayEvent::OutputRepeated { repeats, .. } => {
                        format!("{} x{} of {}", repeats.line, repeats.repeats, repeats.total)
                    }
                    GatewayEvent::Warning { message } => message,
                    GatewayEvent::StartupStep(step) => format!("step {}", step.name),
                    GatewayEvent::Startup(summary) => summary.to_string(),
                    other => format!("{other:?}"),
                });
            }
            told
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_told_once_and_its_repeats_are_counted() {
        let (mut road, work) = road(None, 1024);
        let work = tokio::spawn(work);
        for second in 0..3 {
            road.print(&format!("10:00:0{second} cannot connect with s3cret-value"));
        }
        road.print("something else");
        assert_eq!(
            road.told().await,
            ["10:00:00 cannot connect with [redacted]", "something else"]
        );
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(
            road.told().await,
            ["cannot connect with [redacted] x2 of 2"]
        );
        road.print("something else");
        let Road { sender, .. } = &mut road;
        let (closed, _) = OutputSender::channel(1);
        drop(std::mem::replace(sender, closed));
        work.await.unwrap();
        assert_eq!(road.told().await, ["something else x1 of 1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_listening_early_loses_no_count() {
        let (mut road, work) = road(None, 1024);
        let work = tokio::spawn(work);
        road.print("x");
        road.print("x");
        assert_eq!(road.told().await, ["x"]);
        work.abort();
        assert_eq!(road.told().await, ["x x1 of 1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_steps_of_a_start_are_told_and_summed_up() {
        let (mut road, work) = road(None, 1024);
        let work = tokio::spawn(work);
        road.print("[gateway] startup trace: plugins 12000.0ms total=13000.0ms");
        road.print("[gateway] startup trace: ready 1.0ms total=31000.0ms");
        let told = road.told().await;
        let is = |what: &str| told.iter().filter(|told| told.starts_with(what)).count();
        assert_eq!(
            (
                is("step "),
                is("A step of the gateway's start is slow: plugins took 12.0 s")
            ),
            (2, 1),
            "{told:#?}"
        );
        assert_eq!(
            (
                is("The gateway's start is slow"),
                is("ready after 31.0 s, 2 steps")
            ),
            (1, 1),
            "{told:#?}"
        );
        let summary = road.summary.borrow().clone();
        assert_eq!(
            summary.and_then(|summary| summary.ready),
            Some(Duration::from_secs(31))
        );
        work.abort();
    }

    #[tokio::test]
    async fn the_log_has_every_line_without_secrets_and_says_what_it_has_not() {
        let directory = tempfile::tempdir().unwrap();
        let log = OutputLog::open(OutputLogConfig::new(directory.path())).unwrap();
        let (mut road, work) = road(Some(log), 3);
        for text in ["lost", "x", "x", "s3cret-value"] {
            road.print(text);
        }
        let (closed, _) = OutputSender::channel(1);
        drop(std::mem::replace(&mut road.sender, closed));
        work.await;
        let text = std::fs::read_to_string(directory.path().join("gateway.log")).unwrap();
        let mut lines: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, rest)| rest)
            .collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "- [1 lines are missing here]",
                "stderr [redacted]",
                "stderr x",
                "stderr x"
            ]
        );
        let told = road.told().await;
        assert!(
            told.iter()
                .any(|told| told.starts_with("1 lines of the gateway's output were dropped")),
            "{told:?}"
        );
    }
}
