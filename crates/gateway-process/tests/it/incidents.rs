//! Configurations that were destroyed, or repaired into something else, as a corpus: `tests/corpus/<incident>/`.
//!
//! | file | what it is |
//! |---|---|
//! | `before.json5` | the configuration; without it there is none, or `setup` makes one |
//! | `doctor.json5` | what the doctor writes into it |
//! | `edit.json5` | what somebody else saves when the doctor has finished |
//! | `beside-<x>`, `include-<x>` | `openclaw.json.<x>` and `<x>` beside it |
//! | `incident.json` | [`Incident`] |
//!
//! For each of them: the file is afterwards the best version there is, a difference can be shown, it shows no secret, and the doctor ran
//! at most once however often it was asked.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway_policy::failure::{ExitEvidence, classify_exit};
use gateway_process::{
    Aftermath, BlockingWork, ConfigRepair, Environment, LaunchSpec, ManagedChild, OsProcessHost,
    PortError, PortOwner, ProcessHost, RepairError, RepairVerdict, RunError, RunLimits, RunReport,
    SpawnError,
};
use serde::Deserialize;

use crate::support::{PATIENCE, executable, soon};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Incident {
    /// What happened, in a line.
    why: String,
    verdict: Verdict,
    /// What the reasons of a refusal say; each has to be found in one of them, and there are none without.
    #[serde(default)]
    reasons: Vec<String>,
    /// Lines of the difference.
    #[serde(default)]
    diff: Vec<String>,
    /// How the gateway ended that could not use the configuration.
    gateway: Option<GatewayExit>,
    /// What the doctor does instead of writing `doctor.json5` and ending with `exit`.
    script: Option<String>,
    #[serde(default)]
    exit: u8,
    setup: Option<Setup>,
}

#[derive(Deserialize)]
struct GatewayExit {
    code: i32,
    stderr: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Repaired,
    Unchanged,
    NotRepaired,
    Refused,
    EditedMeanwhile,
    /// It was ended by us, and what it had done was taken back.
    DoctorEnded,
    /// The doctor is not run, because the file cannot be copied.
    Unreadable,
    /// The doctor is not run, because the configuration is not the cause.
    NotAsked,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Setup {
    SymbolicLink,
    ReadOnly,
    Huge,
}

/// Somebody saves another version of the configuration just before it would be put back.
struct EditingHost {
    edit: Option<(PathBuf, Vec<u8>)>,
    works: AtomicUsize,
}

#[async_trait]
impl ProcessHost for EditingHost {
    async fn spawn(&self, spec: &LaunchSpec) -> Result<Arc<dyn ManagedChild>, SpawnError> {
        OsProcessHost::new().spawn(spec).await
    }

    async fn port_owners(&self, port: u16) -> Result<Vec<PortOwner>, PortError> {
        OsProcessHost::new().port_owners(port).await
    }

    async fn run(&self, spec: &LaunchSpec, limits: RunLimits) -> Result<RunReport, RunError> {
        OsProcessHost::new().run(spec, limits).await
    }

    async fn do_blocking(&self, work: BlockingWork) {
        // Copy, compare, settle.
        if self.works.fetch_add(1, Ordering::Relaxed) == 2
            && let Some((path, content)) = &self.edit
        {
            fs::write(path, content).unwrap();
        }
        work.run();
    }

    fn time_asleep(&self) -> Duration {
        Duration::ZERO
    }
}

/// The stage of an incident.
struct Scene {
    name: String,
    folder: PathBuf,
    incident: Incident,
    home: tempfile::TempDir,
}

impl Scene {
    fn of(folder: PathBuf) -> Self {
        let text = fs::read(folder.join("incident.json")).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let incident =
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let scene = Self {
            incident,
            folder,
            name,
            home: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(scene.state()).unwrap();
        for entry in fs::read_dir(&scene.folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(suffix) = name.strip_prefix("beside-") {
                fs::copy(&path, scene.state().join(format!("openclaw.json.{suffix}"))).unwrap();
            } else if let Some(included) = name.strip_prefix("include-") {
                fs::copy(&path, scene.state().join(included)).unwrap();
            }
        }
        let before = scene.folder.join("before.json5");
        match scene.incident.setup {
            Some(Setup::Huge) => {
                let file = fs::File::create(scene.config()).unwrap();
                file.set_len(16 * 1024 * 1024 + 1).unwrap();
            }
            Some(Setup::SymbolicLink) => {
                let real = scene.home.path().join("real.json");
                fs::copy(before, &real).unwrap();
                symlink("../real.json", scene.config()).unwrap();
            }
            setup => {
                fs::copy(before, scene.config()).unwrap();
                let mode = if setup == Some(Setup::ReadOnly) {
                    0o444
                } else {
                    0o640
                };
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(scene.config(), mode).unwrap();
            }
        }
        scene
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.state().join("openclaw.json")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap()
    }

    fn repair(&self) -> ConfigRepair {
        let does = match &self.incident.script {
            Some(script) => script.clone(),
            None => format!(
                "cat \"$incident/doctor.json5\" > \"$config\"; exit {}",
                self.incident.exit
            ),
        };
        let script = format!(
            "incident='{}'; state='{}'; config=\"$state/openclaw.json\"; echo >> '{}'\n{does}",
            self.folder.display(),
            self.state().display(),
            self.counter().display(),
        );
        let program = executable(&self.home.path().join("doctor"), &script);
        let limits = match self.incident.verdict {
            Verdict::DoctorEnded => RunLimits {
                overall: PATIENCE,
                silence: Some(Duration::from_millis(300)),
            },
            _ => PATIENCE.into(),
        };
        let doctor = LaunchSpec::new(program, Environment::from_parent());
        ConfigRepair::new(doctor, self.config()).limits(limits)
    }

    fn counter(&self) -> PathBuf {
        self.home.path().join("runs")
    }

    fn runs(&self) -> usize {
        fs::read(self.counter()).map_or(0, |text| text.len())
    }

    /// Whether the policy sends the doctor there at all.
    fn is_asked(&self) -> bool {
        let stderr = Vec::new();
        let (code, stderr) = match &self.incident.gateway {
            Some(exit) => (exit.code, &exit.stderr),
            None => (78, &stderr),
        };
        let evidence = ExitEvidence {
            code: Some(code),
            served: false,
            stderr,
        };
        classify_exit(&evidence).is_fixable_by_doctor()
    }

    /// What has to be there in the end.
    fn best_version(&self) -> Vec<u8> {
        match self.incident.verdict {
            Verdict::Repaired => self.read("doctor.json5"),
            Verdict::EditedMeanwhile => self.read("edit.json5"),
            _ => self.read("before.json5"),
        }
    }

    async fn play(&self) {
        let name = &self.name;
        if !self.is_asked() {
            assert_eq!(self.incident.verdict, Verdict::NotAsked, "{name}");
            return;
        }
        let edit = self.folder.join("edit.json5").exists();
        let host = EditingHost {
            edit: edit.then(|| (self.config(), self.read("edit.json5"))),
            works: AtomicUsize::new(0),
        };
        let result = soon(self.repair().run(&host)).await;
        let shown = match &result {
            Ok(outcome) => format!("{outcome:#}\n{outcome:?}"),
            Err(error) => format!("{error}\n{error:?}"),
        };
        assert!(!shown.contains("s3cret"), "{name}: {shown}");
        let aftermath = match (&result, self.incident.verdict) {
            (Err(RepairError::Unreadable { .. }), Verdict::Unreadable) => {
                assert_eq!(self.runs(), 0, "{name}");
                return;
            }
            (Ok(outcome), verdict) => {
                self.assert_verdict(&outcome.aftermath, verdict);
                &outcome.aftermath
            }
            (Err(RepairError::Doctor { aftermath, .. }), Verdict::DoctorEnded) => aftermath,
            (Err(error), _) => panic!("{name}: {error}"),
        };
        self.assert_explained(aftermath);
        self.assert_files(aftermath);
        // Nobody asks the doctor about the same content twice.
        if self.incident.verdict != Verdict::Repaired && !edit {
            let error = soon(self.repair().run(&host)).await.unwrap_err();
            assert!(
                matches!(error, RepairError::AlreadyTried { .. }),
                "{name}: {error}"
            );
        }
        assert_eq!(self.runs(), 1, "{name}");
    }

    fn assert_verdict(&self, aftermath: &Aftermath, expected: Verdict) {
        let verdict = match &aftermath.verdict {
            RepairVerdict::Repaired => Verdict::Repaired,
            RepairVerdict::Unchanged => Verdict::Unchanged,
            RepairVerdict::NotRepaired => Verdict::NotRepaired,
            RepairVerdict::Refused { .. } => Verdict::Refused,
            RepairVerdict::EditedMeanwhile { .. } => Verdict::EditedMeanwhile,
            other => panic!("{}: {other:?}", self.name),
        };
        assert_eq!(verdict, expected, "{}: {aftermath:#}", self.name);
    }

    fn assert_explained(&self, aftermath: &Aftermath) {
        let name = &self.name;
        let reasons = aftermath.verdict.reasons().iter();
        let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
        assert_eq!(
            reasons.is_empty(),
            self.incident.reasons.is_empty(),
            "{name}: {reasons:?}"
        );
        for expected in &self.incident.reasons {
            assert!(
                reasons.iter().any(|reason| reason.contains(expected)),
                "{name}: no {expected:?} among {reasons:#?}"
            );
        }
        let diff = aftermath.diff.to_string();
        let lines: Vec<&str> = diff.lines().collect();
        for expected in &self.incident.diff {
            assert!(
                lines.contains(&expected.as_str()),
                "{name}: no {expected:?} in\n{diff}"
            );
        }
        assert!(!diff.is_empty());
    }

    fn assert_files(&self, aftermath: &Aftermath) {
        let name = &self.name;
        let now = fs::read(self.config()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&now),
            String::from_utf8_lossy(&self.best_version()),
            "{name}"
        );
        let backup = fs::read(aftermath.backup.as_ref().unwrap()).unwrap();
        assert_eq!(backup, self.read("before.json5"), "{name}: the copy");
        for entry in fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            let included = path.file_name().unwrap().to_str().unwrap();
            if let Some(included) = included.strip_prefix("include-") {
                let now = fs::read(self.state().join(included)).unwrap();
                assert_eq!(now, fs::read(&path).unwrap(), "{name}: {included}");
            }
        }
        let taken_back = matches!(
            aftermath.verdict,
            RepairVerdict::Refused { .. } | RepairVerdict::EditedMeanwhile { .. }
        );
        if taken_back && self.folder.join("doctor.json5").exists() && self.incident.script.is_none()
        {
            let [rejected] = &aftermath.rejected[..] else {
                panic!("{name}: {aftermath}")
            };
            assert_eq!(
                fs::read(rejected).unwrap(),
                self.read("doctor.json5"),
                "{name}"
            );
            let mode = fs::metadata(rejected).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        match self.incident.setup {
            Some(Setup::SymbolicLink) => {
                let link = fs::read_link(self.config()).unwrap();
                assert_eq!(link, Path::new("../real.json"), "{name}");
            }
            setup if matches!(aftermath.verdict, RepairVerdict::Refused { .. }) => {
                let mode = fs::metadata(self.config()).unwrap().permissions().mode();
                let expected = if setup == Some(Setup::ReadOnly) {
                    0o444
                } else {
                    0o640
                };
                assert_eq!(mode & 0o777, expected, "{name}");
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_incident_ends_with_the_best_version() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut folders: Vec<PathBuf> = fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 25, "{} incidents", folders.len());
    let mut failed = Vec::new();
    for folder in folders {
        let scene = Scene::of(folder);
        let name = scene.name.clone();
        assert!(!scene.incident.why.is_empty(), "{name}");
        // Each for itself, so that one run shows all that went wrong.
        if tokio::spawn(async move { scene.play().await })
            .await
            .is_err()
        {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
