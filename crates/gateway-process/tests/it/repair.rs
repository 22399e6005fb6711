//! The doctor: a copy first, an honest verdict after.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_process::openclaw::{GatewayLaunch, OpenClaw};
use gateway_process::{
    ConfigRepair, Environment, OsProcessHost, RepairError, RepairOutcome, RunError,
};
use tempfile::TempDir;

use crate::support::{executable, is_alive, soon};

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
        ("echo '{}' > $config; echo fixed; exit 0", true, true),
        (
            "echo '{}' > $config.new; mv $config.new $config",
            true,
            true,
        ),
        ("echo nothing to do; exit 0", true, false),
        ("touch $config", true, false),
        ("echo '{}' > $config; exit 1", false, true),
        ("exit 1", false, false),
        ("rm $config; exit 0", true, true),
        ("kill -9 $$", false, false),
    ];
    for (script, succeeded, changed) in table {
        let patient = Patient::new(Some(BROKEN));
        let outcome = patient.outcome(script).await;
        assert_eq!(
            (outcome.succeeded(), outcome.changed),
            (succeeded, changed),
            "{script}: {outcome}"
        );
        let copy = outcome.backup.as_deref().unwrap();
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
    }
}

#[tokio::test]
async fn the_doctors_words_are_kept_but_for_the_token() {
    let outcome = Patient::new(Some(BROKEN))
        .outcome("echo looking; echo bad: $OPENCLAW_GATEWAY_TOKEN >&2; exit 1")
        .await;
    assert_eq!(outcome.exit.code, Some(1));
    let mut lines: Vec<_> = outcome
        .output
        .iter()
        .map(|line| line.text.as_str())
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["bad: [redacted]", "looking"]);
}

#[tokio::test]
async fn without_a_file_there_is_no_copy_and_a_new_file_is_a_change() {
    let patient = Patient::new(None);
    let outcome = patient.outcome("exit 0").await;
    assert_eq!((outcome.backup.as_ref(), outcome.changed), (None, false));
    let outcome = patient.outcome("echo '{}' > $config").await;
    assert_eq!((outcome.backup.as_ref(), outcome.changed), (None, true));
    assert_eq!(patient.files(), ["openclaw.json"]);
}

#[tokio::test]
async fn the_same_content_is_copied_once_and_no_copy_is_overwritten() {
    let patient = Patient::new(Some(BROKEN));
    let first = patient.outcome("exit 1").await.backup.unwrap();
    assert_eq!(patient.outcome("exit 1").await.backup.unwrap(), first);
    assert_eq!(patient.files().len(), 2);
    // Somebody has edited the copy.
    fs::write(&first, "edited").unwrap();
    let second = patient.outcome("exit 1").await.backup.unwrap();
    assert_eq!(fs::read_to_string(&first).unwrap(), "edited");
    assert_ne!(second, first);
    assert_is_copy(&second, BROKEN);
    assert_eq!(patient.outcome("exit 1").await.backup.unwrap(), second);
    assert_eq!(patient.files().len(), 3);
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
    let patient = Patient::new(Some(BROKEN));
    // It does not obey, so that whoever does not wait for it finds it alive.
    let repair = patient
        .repair("trap '' TERM; echo '{' > $config; echo $$; exec sleep 1000")
        .deadline(Duration::from_millis(300));
    let error = soon(repair.run(&OsProcessHost::new())).await.unwrap_err();
    let RepairError::Doctor {
        source: RunError::TimedOut { report, .. },
        changed,
        backup: Some(backup),
    } = &error
    else {
        panic!("{error}");
    };
    assert!(!is_alive(report.output[0].text.parse().unwrap()));
    assert!(changed);
    assert_is_copy(backup, BROKEN);
    let text = error.to_string();
    assert!(
        text.contains("300ms") && text.contains(backup.to_str().unwrap()),
        "{text}"
    );
}

#[tokio::test]
async fn a_missing_doctor_is_named() {
    let patient = Patient::new(Some(BROKEN));
    let repair = patient.repair("exit 0");
    fs::remove_file(patient.folder.path().join("doctor")).unwrap();
    let error = soon(repair.run(&OsProcessHost::new())).await.unwrap_err();
    assert!(
        matches!(
            &error,
            RepairError::Doctor {
                source: RunError::Spawn(_),
                changed: false,
                ..
            }
        ),
        "{error}"
    );
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
