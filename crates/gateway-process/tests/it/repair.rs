//! The doctor: a copy first, an honest verdict after.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_process::openclaw::{GatewayLaunch, OpenClaw};
use gateway_process::{
    AttemptResult, ConfigRepair, Environment, OsProcessHost, RefusalReason, RepairError,
    RepairOutcome, RepairVerdict, RunError, RunLimits,
};
use tempfile::TempDir;

use crate::support::{PATIENCE, eventually, executable, is_alive, soon};

const BROKEN: &str = "{ gateway: { prot: 1 } }";

struct Patient {
    folder: TempDir,
}

impl Patient {
    fn new(config: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let patient = Self { folder };
        fs::create_dir(patient.state()).unwrap();
        if let Some(config) = config {
            fs::write(patient.config(), config).unwrap();
        }
        patient
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.state().join("openclaw.json")
    }

    /// A repair whose doctor checks how it was called and then does as the script says.
    fn repair(&self, script: &str) -> ConfigRepair {
        let check = r#"[ "$*" = "doctor --fix --yes --non-interactive" ] || exit 90
            [ "$OPENCLAW_NO_RESPAWN$OPENCLAW_GATEWAY_TOKEN" = 1tok ] || exit 91
            config="$OPENCLAW_STATE_DIR/openclaw.json"
        "#;
        let program = executable(
            &self.folder.path().join("doctor"),
            &format!("{check}{script}"),
        );
        let openclaw = OpenClaw::Command {
            program,
            args: vec![],
        };
        let launch = GatewayLaunch {
            token: Some("tok".into()),
            state_dir: Some(self.state()),
            environment: Environment::from_parent(),
            ..GatewayLaunch::new(1)
        };
        ConfigRepair::for_launch(&openclaw, &launch).unwrap()
    }

    async fn outcome(&self, script: &str) -> RepairOutcome {
        soon(self.repair(script).run(&OsProcessHost::new()))
            .await
            .unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn assert_is_copy(copy: &Path, content: &str) {
    assert_eq!(fs::read_to_string(copy).unwrap(), content);
    assert_eq!(
        fs::metadata(copy).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn success_and_change_are_two_things() {
    let table = [
        ("echo '{}' > $config; echo fixed; exit 0", "repaired", ""),
        (
            "echo '{}' > $config.new; mv $config.new $config",
            "repaired",
            "",
        ),
        ("echo nothing to do; exit 0", "unchanged", ""),
        ("touch $config", "unchanged", ""),
        (
            "echo '{}' > $config; exit 1",
            "refused",
            "the doctor failed half-way",
        ),
        ("exit 1", "not-repaired", ""),
        ("rm $config; exit 0", "refused", "was removed"),
        ("kill -9 $$", "not-repaired", ""),
    ];
    for (script, expected, reason) in table {
        let patient = Patient::new(Some(BROKEN));
        let outcome = patient.outcome(script).await;
        let verdict = &outcome.aftermath.verdict;
        assert_eq!(verdict.name(), expected, "{script}: {outcome}");
        assert_eq!(
            verdict.reasons().is_empty(),
            reason.is_empty(),
            "{script}: {outcome}"
        );
        assert!(outcome.to_string().contains(reason), "{script}: {outcome}");
        assert_eq!(outcome.changed(), expected == "repaired");
        let copy = outcome.aftermath.backup.as_deref().unwrap();
        assert_is_copy(copy, BROKEN);
        assert!(
            copy.to_str()
                .unwrap()
                .starts_with(&format!("{}.before-repair-", patient.config().display()))
        );
        assert!(
            outcome.to_string().contains(copy.to_str().unwrap()),
            "{outcome}"
        );
        assert_eq!(outcome.config, patient.config());
        let now = fs::read_to_string(patient.config()).unwrap();
        let expected = if outcome.changed() { "{}\n" } else { BROKEN };
        assert_eq!(now, expected, "{script}");
    }
}

#[tokio::test]
async fn the_doctors_words_are_kept_but_for_the_token() {
    let outcome = Patient::new(Some(BROKEN))
        .outcome("echo looking; echo bad: $OPENCLAW_GATEWAY_TOKEN >&2; exit 1")
        .await;
    assert_eq!(outcome.exit.code, Some(1));
    let mut lines: Vec<_> = outcome.output.iter().map(|line| &*line.text).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["bad: [redacted]", "looking"]);
}

#[tokio::test]
async fn without_a_file_there_is_no_copy_and_a_new_file_stays() {
    let patient = Patient::new(None);
    let outcome = patient.outcome("exit 0").await.aftermath;
    assert_eq!(
        (outcome.backup, outcome.verdict),
        (None, RepairVerdict::Unchanged)
    );
    // There is nothing that a file made half-way could replace.
    let outcome = patient.outcome("echo '{' > $config").await.aftermath;
    assert!(
        matches!(outcome.verdict, RepairVerdict::Refused { .. }),
        "{outcome}"
    );
    let [rejected] = &outcome.rejected[..] else {
        panic!("{outcome}")
    };
    assert_is_copy(rejected, "{\n");
    fs::remove_file(rejected).unwrap();
    assert_eq!(patient.files().len(), 0);
    let outcome = patient.outcome("echo '{}' > $config").await.aftermath;
    assert_eq!(
        (outcome.backup, outcome.verdict),
        (None, RepairVerdict::Repaired)
    );
    assert_eq!(patient.files(), ["openclaw.json"]);
}

#[tokio::test]
async fn the_same_content_is_copied_once_and_no_copy_is_overwritten() {
    let patient = Patient::new(Some(BROKEN));
    let backup = async || {
        let repair = patient.repair("exit 1").again(true);
        let outcome = soon(repair.run(&OsProcessHost::new())).await.unwrap();
        outcome.aftermath.backup.unwrap()
    };
    let first = backup().await;
    assert_eq!(backup().await, first);
    // The file, its copy, what was tried, and the lock.
    assert_eq!(patient.files().len(), 4);
    // Somebody has edited the copy.
    fs::write(&first, "edited").unwrap();
    let second = backup().await;
    assert_eq!(fs::read_to_string(&first).unwrap(), "edited");
    assert_ne!(second, first);
    assert_is_copy(&second, BROKEN);
    assert_eq!(backup().await, second);
    assert_eq!(patient.files().len(), 5);
}

#[tokio::test]
async fn without_a_copy_the_doctor_does_not_run() {
    let patient = Patient::new(None);
    // Not a file at all.
    fs::create_dir(patient.config()).unwrap();
    let error = soon(
        patient
            .repair("touch $OPENCLAW_STATE_DIR/ran")
            .run(&OsProcessHost::new()),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, RepairError::Unreadable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(patient.config().to_str().unwrap()),
        "{error}"
    );
    assert_eq!(patient.files(), ["openclaw.json"]);
}

/// Not even the administrator can create files there, so this holds whoever runs the test.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_that_takes_no_copy_stops_the_repair() {
    let patient = Patient::new(None);
    let marker = patient.folder.path().join("ran");
    let program = executable(
        &patient.folder.path().join("doctor"),
        &format!("touch {}", marker.display()),
    );
    let doctor = gateway_process::LaunchSpec::new(program, Environment::from_parent());
    let error = soon(ConfigRepair::new(doctor, "/proc/self/status").run(&OsProcessHost::new()))
        .await
        .unwrap_err();
    assert!(matches!(error, RepairError::NoBackup { .. }), "{error}");
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_doctor_that_hangs_is_gone_when_the_repair_returns() {
    let overall = |milliseconds| RunLimits::from(Duration::from_millis(milliseconds));
    let silence = RunLimits {
        overall: PATIENCE,
        silence: Some(Duration::from_millis(300)),
    };
    for (limits, says) in [
        (overall(300), "within 300ms"),
        (silence, "nothing for 300ms"),
    ] {
        let patient = Patient::new(Some(BROKEN));
        // It does not obey, so that whoever does not wait for it finds it alive.
        let repair = patient
            .repair("trap '' TERM; echo '{' > $config; echo $$; exec sleep 1000")
            .limits(limits);
        let error = soon(repair.run(&OsProcessHost::new())).await.unwrap_err();
        let RepairError::Doctor {
            source: RunError::TimedOut { report, .. } | RunError::Silent { report, .. },
            aftermath,
        } = &error
        else {
            panic!("{error}");
        };
        assert!(!is_alive(report.output[0].text.parse().unwrap()));
        assert!(
            matches!(&aftermath.verdict, RepairVerdict::Refused { reasons } if reasons[0] == RefusalReason::DoctorFailed),
            "{error}"
        );
        let backup = aftermath.backup.as_deref().unwrap();
        assert_is_copy(backup, BROKEN);
        assert_eq!(fs::read_to_string(patient.config()).unwrap(), BROKEN);
        let text = error.to_string();
        assert!(
            text.contains(says) && text.contains(backup.to_str().unwrap()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_missing_doctor_is_named_and_not_held_against_the_file() {
    let patient = Patient::new(Some(BROKEN));
    let repair = patient.repair("exit 0");
    let doctor = patient.folder.path().join("doctor");
    let away = patient.folder.path().join("away");
    fs::rename(&doctor, &away).unwrap();
    let error = soon(repair.run(&OsProcessHost::new())).await.unwrap_err();
    assert!(
        matches!(
            &error,
            RepairError::Doctor { source: RunError::Spawn(_), aftermath } if aftermath.verdict == RepairVerdict::NotRepaired
        ),
        "{error}"
    );
    fs::rename(&away, &doctor).unwrap();
    soon(repair.run(&OsProcessHost::new())).await.unwrap();
}

#[tokio::test]
async fn one_content_is_tried_once_whoever_asks() {
    let patient = Patient::new(Some(BROKEN));
    let count = patient.folder.path().join("count");
    let script = format!("echo >> {}; exit 1", count.display());
    let runs = || {
        fs::read_to_string(&count)
            .unwrap_or_default()
            .lines()
            .count()
    };
    let host = OsProcessHost::new();
    patient.outcome(&script).await;
    let error = soon(patient.repair(&script).run(&host)).await.unwrap_err();
    let RepairError::AlreadyTried {
        at, result, memory, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(*result, AttemptResult::Unchanged);
    assert!(at.elapsed().unwrap() < PATIENCE);
    let text = error.to_string();
    assert!(
        text.contains(" UTC: the file was left unchanged")
            && text.contains(memory.to_str().unwrap()),
        "{text}"
    );
    assert_eq!(runs(), 1);
    // A person may insist; another content is another matter; and so is the old one after it.
    soon(patient.repair(&script).again(true).run(&host))
        .await
        .unwrap();
    assert_eq!(runs(), 2);
    fs::write(patient.config(), "{ gateway: { prot: 2 } }").unwrap();
    patient.outcome(&script).await;
    assert_eq!(runs(), 3);
    fs::write(patient.config(), BROKEN).unwrap();
    soon(patient.repair(&script).run(&host)).await.unwrap_err();
    assert_eq!(runs(), 3);
    // Whoever cannot read what was tried does not overwrite it.
    fs::write(memory, "{").unwrap();
    patient.outcome(&script).await;
    soon(patient.repair(&script).run(&host)).await.unwrap_err();
    assert_eq!(
        (runs(), fs::read_to_string(memory).unwrap().as_str()),
        (4, "{")
    );
}

#[tokio::test]
async fn two_at_a_time_are_one() {
    let patient = Patient::new(Some(BROKEN));
    let gate = patient.folder.path().join("gate");
    let script = format!(
        "echo begun; while [ ! -e {} ]; do sleep 0.01; done",
        gate.display()
    );
    let first = patient.repair(&script);
    let running = tokio::spawn(async move { first.run(&OsProcessHost::new()).await });
    let notes = patient.state().join("openclaw.json.repairs.json");
    soon(async {
        while !notes.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let error = soon(patient.repair("exit 0").run(&OsProcessHost::new()))
        .await
        .unwrap_err();
    assert!(matches!(error, RepairError::InProgress { .. }), "{error}");
    fs::write(&gate, "").unwrap();
    soon(running).await.unwrap().unwrap();
}

/// The manager is gone in the middle of a repair, and so is its memory of it: what it has written down is enough for the next one.
#[tokio::test]
async fn a_repair_that_nobody_finished_is_finished_by_the_next_one() {
    let half = "{ half";
    let interrupted = async |patient: &Patient| {
        patient.outcome("exit 1").await;
        // As if the doctor had been at work when the machine was switched off.
        let notes = patient.state().join("openclaw.json.repairs.json");
        let text = fs::read_to_string(&notes).unwrap();
        assert!(text.contains("\"unchanged\""), "{text}");
        fs::write(&notes, text.replace("\"unchanged\"", "\"unfinished\"")).unwrap();
        fs::write(patient.config(), half).unwrap();
    };
    let now = |patient: &Patient| fs::read_to_string(patient.config()).unwrap();
    let result = |error| match error {
        RepairError::AlreadyTried { result, .. } => result,
        error => panic!("{error}"),
    };

    let patient = Patient::new(Some(BROKEN));
    interrupted(&patient).await;
    let run = patient.repair("exit 1");
    let error = soon(run.run(&OsProcessHost::new())).await.unwrap_err();
    assert_eq!(result(error), AttemptResult::Refused);
    assert_eq!(now(&patient), BROKEN);

    // A change that does no harm stays, and is looked at as what it is.
    let patient = Patient::new(Some(BROKEN));
    interrupted(&patient).await;
    fs::write(patient.config(), "{ gateway: { prot: 1, port: 1 } }").unwrap();
    let outcome = patient.outcome("exit 1").await;
    assert_eq!(outcome.aftermath.verdict, RepairVerdict::NotRepaired);
    assert!(now(&patient).contains("port: 1"));

    // What was written long after that is no doctor's work.
    let patient = Patient::new(Some(BROKEN));
    interrupted(&patient).await;
    let later = std::time::SystemTime::now() + 2 * PATIENCE;
    let file = fs::File::options()
        .append(true)
        .open(patient.config())
        .unwrap();
    file.set_modified(later).unwrap();
    let repair = patient.repair("exit 1").limits(PATIENCE);
    let outcome = soon(repair.run(&OsProcessHost::new())).await.unwrap();
    assert_eq!(outcome.aftermath.verdict, RepairVerdict::NotRepaired);
    assert_eq!(now(&patient), half);
}

/// Whoever calls a repair off has the file as it was, and may have it repaired later.
#[tokio::test]
async fn a_repair_that_is_called_off_is_undone() {
    let patient = Patient::new(Some(BROKEN));
    let repair = patient.repair("echo '{ half' > $config; echo $$ > $config.pid; exec sleep 1000");
    let running = tokio::spawn(async move { repair.run(&OsProcessHost::new()).await });
    let pid_file = patient.state().join("openclaw.json.pid");
    let pid = soon(async {
        loop {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            if let Ok(pid) = text.trim().parse::<u32>() {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    running.abort();
    assert!(soon(running).await.unwrap_err().is_cancelled());
    assert_eq!(fs::read_to_string(patient.config()).unwrap(), BROKEN);
    eventually("the end of the doctor", || !is_alive(pid));
    assert!(
        patient
            .files()
            .iter()
            .any(|name| name.contains(".after-repair-")),
        "{:?}",
        patient.files()
    );
    let outcome = patient.outcome("echo '{}' > $config").await;
    assert!(outcome.changed(), "{outcome}");
}

#[test]
fn an_unknown_configuration_is_said_to_be_unknown() {
    let openclaw = OpenClaw::Command {
        program: "openclaw".into(),
        args: vec![],
    };
    let launch = GatewayLaunch {
        environment: Environment::empty(),
        ..GatewayLaunch::new(1)
    };
    assert!(matches!(
        ConfigRepair::for_launch(&openclaw, &launch),
        Err(RepairError::UnknownConfig)
    ));
}
