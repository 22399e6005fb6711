//! Services of a machine that exists below a temporary folder, with a `systemctl` and a `launchctl` that are scripts and keep a diary.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gateway_process::OsProcessHost;
use gateway_process::service::{
    CompetingService, Consent, Disabled, ServiceError, ServiceManager, ServiceSearch, ServiceState,
};
use tempfile::TempDir;

use crate::support::{executable, soon};

struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("state")).unwrap();
        fs::write(root.path().join("diary"), "").unwrap();
        Self { root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn write(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A unit, started by itself when it is wanted.
    fn unit(&self, below: &str, command: &str, is_wanted: bool) -> PathBuf {
        let path = self.write(below, &format!("[Service]\nExecStart={command}\n"));
        if is_wanted {
            let wants = path.parent().unwrap().join("default.target.wants");
            fs::create_dir_all(&wants).unwrap();
            symlink(&path, wants.join(path.file_name().unwrap())).unwrap();
        }
        path
    }

    /// Writes down what the manager knows about a service.
    fn knows(&self, service: &str, facts: &str) {
        fs::write(self.path("state").join(service), facts).unwrap();
    }

    /// What the programs were asked, and empties the diary.
    fn diary(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("diary")).unwrap();
        fs::write(self.path("diary"), "").unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// A program that writes its arguments down and then does `what`; `$last` is its last argument.
    fn program(&self, name: &str, what: &str) -> PathBuf {
        let root = self.root.path().display();
        executable(
            &self.path(name),
            &format!("cd '{root}/state'; echo \"$*\" >> ../diary; for last; do :; done\n{what}"),
        )
    }

    /// A systemd whose units are files with the answer of `show` in them.
    fn systemd(&self) -> ServiceSearch {
        let program = self.program(
            "systemctl",
            r#"
            [ "$1" = --user ] && shift
            change() { sed -i.old "$1" "$last" && rm -f "$last.old"; }
            case $1 in
                show) if [ -f "$last" ]; then cat "$last"; else echo ActiveState=inactive; fi ;;
                disable) change 's/^UnitFileState=.*/UnitFileState=disabled/' ;;
                enable) change 's/^UnitFileState=.*/UnitFileState=enabled/' ;;
                stop) change 's/^ActiveState=.*/ActiveState=inactive/' ;;
                start) change 's/^ActiveState=.*/ActiveState=active/' ;;
                *) exit 64 ;;
            esac"#,
        );
        ServiceSearch::systemd_below(self.root.path(), Some(&self.home())).systemctl(program)
    }

    async fn find(&self, search: &ServiceSearch) -> Vec<CompetingService> {
        soon(search.find(&OsProcessHost::new())).await
    }
}

const GATEWAY: &str = "/usr/bin/node /opt/openclaw/dist/index.js gateway --port 18789";
const USER: &str = "home/.config/systemd/user";

fn names(services: &[CompetingService]) -> Vec<&str> {
    services
        .iter()
        .map(|service| service.name.as_str())
        .collect()
}

fn yes() -> Consent {
    Consent::given_by_user("the button \"turn it off\"")
}

#[tokio::test]
async fn units_that_run_a_gateway_are_told_from_all_others() {
    let machine = Machine::new();
    let user = |name: &str| format!("{USER}/{name}");
    machine.unit(&user("openclaw-gateway.service"), GATEWAY, true);
    // The one in front hides this one, whose command is none of ours.
    machine.unit(
        "etc/systemd/user/openclaw-gateway.service",
        "/bin/true",
        true,
    );
    machine.unit(
        &user("openclaw-gateway-work.service"),
        "/home/u/start.sh",
        true,
    );
    machine.unit(
        &user("openclaw.service"),
        "\\\n openclaw \\\n gateway run",
        true,
    );
    machine.unit(&user("clawdbot-gateway.service"), "clawdbot gateway", true);
    machine.unit(&user("openclaw-node.service"), "openclaw node run", true);
    machine.unit(&user("openclaw-backup.timer"), GATEWAY, true);
    machine.unit(&user("another.service"), GATEWAY, true);
    machine.unit(&user("openclaw-gateway-idle.service"), GATEWAY, false);
    symlink(
        "/dev/null",
        machine.path(&user("openclaw-gateway-masked.service")),
    )
    .unwrap();
    fs::create_dir(machine.path(&user("openclaw-gateway-folder.service"))).unwrap();
    symlink(
        machine.path("gone"),
        machine.path(&user("openclaw-gateway-gone.service")),
    )
    .unwrap();
    fs::write(
        machine.path(&user("openclaw-gateway-empty.service")),
        [0xff, 0xfe],
    )
    .unwrap();
    let template = machine.unit(
        "etc/systemd/system/openclaw-gateway@.service",
        GATEWAY,
        false,
    );
    let wants = machine.path("etc/systemd/system/multi-user.target.wants");
    fs::create_dir(&wants).unwrap();
    symlink(&template, wants.join("openclaw-gateway@one.service")).unwrap();

    let search = machine.systemd();
    let found = machine.find(&search).await;
    assert_eq!(
        names(&found),
        [
            "clawdbot-gateway.service",
            "openclaw-gateway-work.service",
            "openclaw-gateway.service",
            "openclaw.service",
            "openclaw-gateway@one.service",
        ]
    );
    assert!(
        found
            .iter()
            .all(|service| service.enabled && service.state == ServiceState::Stopped)
    );
    assert_eq!(
        found[2].file,
        machine.path(&user("openclaw-gateway.service"))
    );
    assert_eq!(
        found[2].turn_off,
        "systemctl --user disable --now openclaw-gateway.service"
    );
    assert_eq!(found[4].manager, ServiceManager::SystemdSystem);
    assert_eq!(
        found[4].turn_off,
        "sudo systemctl disable --now openclaw-gateway@one.service"
    );
}

#[tokio::test]
async fn what_systemd_knows_counts_more_than_the_files() {
    let machine = Machine::new();
    for (name, is_wanted) in [
        ("runs", false),
        ("off", true),
        ("static", true),
        ("fails", true),
    ] {
        machine.unit(
            &format!("{USER}/openclaw-gateway-{name}.service"),
            GATEWAY,
            is_wanted,
        );
    }
    let knows =
        |name: &str, facts: &str| machine.knows(&format!("openclaw-gateway-{name}.service"), facts);
    knows(
        "runs",
        "MainPID=4711\nActiveState=active\nUnitFileState=disabled\n",
    );
    knows(
        "off",
        "MainPID=0\nActiveState=inactive\nUnitFileState=disabled\n",
    );
    knows(
        "static",
        "MainPID=0\nActiveState=activating\nUnitFileState=static\n",
    );
    knows(
        "fails",
        "MainPID=0\nActiveState=failed\nUnitFileState=enabled\n",
    );
    let found = machine.find(&machine.systemd()).await;
    let facts: Vec<_> = found
        .iter()
        .map(|s| (s.name.as_str(), s.enabled, s.state))
        .collect();
    assert_eq!(
        facts,
        [
            (
                "openclaw-gateway-fails.service",
                true,
                ServiceState::Stopped
            ),
            (
                "openclaw-gateway-runs.service",
                false,
                ServiceState::Running { pid: Some(4711) }
            ),
            (
                "openclaw-gateway-static.service",
                true,
                ServiceState::Running { pid: None }
            ),
        ]
    );
    let text = found[1].to_string();
    for part in [
        "openclaw-gateway-runs.service",
        "systemd (user)",
        "process 4711",
        "systemctl --user disable --now",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(
        machine.diary()[0],
        "--user show --no-pager --property=ActiveState,MainPID,UnitFileState -- openclaw-gateway-fails.service"
    );
}

#[tokio::test]
async fn without_a_candidate_nobody_is_asked_and_without_an_answer_the_files_count() {
    let machine = Machine::new();
    assert_eq!(machine.find(&machine.systemd()).await, []);
    assert_eq!(machine.diary(), [""; 0]);

    machine.unit(&format!("{USER}/openclaw-gateway.service"), GATEWAY, true);
    let missing = machine.systemd().systemctl(machine.path("missing"));
    let fails = machine
        .systemd()
        .systemctl(machine.program("fails", "echo ActiveState=active; exit 1"));
    for search in [missing, fails] {
        let found = machine.find(&search).await;
        assert_eq!(names(&found), ["openclaw-gateway.service"]);
        assert_eq!(
            (found[0].enabled, found[0].state),
            (true, ServiceState::Unknown)
        );
    }
}

/// All files below a folder with their content.
fn everything_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(everything_below(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_unit_is_turned_off_with_consent_and_put_back_as_it_was() {
    // Enabled, running; what is done to turn it off, and what to put it back.
    let table: [(bool, bool, &[&str], &[&str]); 3] = [
        (true, true, &["disable", "stop"], &["enable", "start"]),
        (true, false, &["disable"], &["enable"]),
        (false, true, &["stop"], &["start"]),
    ];
    for (enabled, running, off, on) in table {
        let machine = Machine::new();
        let unit = "openclaw-gateway.service";
        machine.unit(&format!("{USER}/{unit}"), GATEWAY, enabled);
        let (unit_state, state) = (
            if enabled { "enabled" } else { "disabled" },
            if running { "active" } else { "inactive" },
        );
        machine.knows(
            unit,
            &format!("MainPID=7\nActiveState={state}\nUnitFileState={unit_state}\n"),
        );
        let (search, host) = (machine.systemd(), OsProcessHost::new());
        let files = everything_below(&machine.home());
        let found = machine.find(&search).await;
        let verbs = || -> Vec<String> {
            let lines = machine.diary();
            let changes = lines.iter().filter(|line| !line.contains(" show "));
            changes
                .map(|line| {
                    line.replace(&format!(" --no-ask-password -- {unit}"), "")
                        .replace("--user ", "")
                })
                .collect()
        };
        assert_eq!(verbs(), [""; 0], "finding changed something");

        let receipt = soon(search.disable(&host, &found[0], yes())).await.unwrap();
        assert_eq!(verbs(), off);
        assert_eq!(machine.find(&search).await, []);
        assert_eq!(receipt.reason, "the button \"turn it off\"");
        verbs();

        // The way back goes through whatever the caller stored.
        let stored = serde_json::to_string(&receipt).unwrap();
        let receipt: Disabled = serde_json::from_str(&stored).unwrap();
        for _ in 0..2 {
            soon(search.restore(&host, &receipt)).await.unwrap();
            assert_eq!(verbs(), on);
        }
        assert_eq!(machine.find(&search).await, found);
        assert_eq!(
            everything_below(&machine.home()),
            files,
            "a file was touched"
        );
    }
}

#[tokio::test]
async fn a_service_that_does_not_give_way_is_an_error_that_leads_back() {
    let machine = Machine::new();
    let unit = "openclaw-gateway.service";
    let file = machine.unit(&format!("etc/systemd/system/{unit}"), GATEWAY, true);
    machine.knows(
        unit,
        "MainPID=7\nActiveState=active\nUnitFileState=enabled\n",
    );
    let good = machine.systemd();
    let found = machine.find(&good).await;
    let host = OsProcessHost::new();

    let refuses = r#"case $1 in show) cat "$last";; stop) echo 'Access denied' >&2; exit 4;; esac"#;
    let search = machine
        .systemd()
        .systemctl(machine.program("refuses", refuses));
    let error = soon(search.disable(&host, &found[0], yes()))
        .await
        .unwrap_err();
    let text = error.to_string();
    for part in [
        "stop --no-ask-password",
        "code 4",
        "Access denied",
        "sudo systemctl disable --now",
        "as an administrator",
    ] {
        assert!(text.contains(part), "{text}");
    }
    machine.diary();
    soon(good.restore(&host, &error.before)).await.unwrap();
    assert!(
        machine
            .diary()
            .contains(&format!("enable --no-ask-password -- {unit}"))
    );

    // Everything is fine, it says, and nothing has changed.
    let search = machine
        .systemd()
        .systemctl(machine.program("lies", r#"[ "$1" != show ] || cat "$last""#));
    let error = soon(search.disable(&host, &found[0], yes()))
        .await
        .unwrap_err();
    assert!(
        matches!(error.source, ServiceError::StillThere { what: "runs", .. }),
        "{error}"
    );

    let search = machine.systemd().systemctl(machine.path("missing"));
    let error = soon(search.disable(&host, &found[0], yes()))
        .await
        .unwrap_err();
    assert!(
        matches!(error.source, ServiceError::NotRun { .. }),
        "{error}"
    );

    fs::remove_file(&file).unwrap();
    let error = soon(good.restore(&host, &error.before)).await.unwrap_err();
    assert!(matches!(error, ServiceError::FileGone { .. }), "{error}");
}

/// A launchd that keeps a file for each loaded job and one for each that was turned off.
fn launchd(machine: &Machine) -> ServiceSearch {
    let program = machine.program(
        "launchctl",
        r#"
        job=${2##*/}
        case $1 in
            print) if [ -f "$job" ]; then cat "$job"; else echo 'Could not find service' >&2; exit 113; fi ;;
            print-disabled) echo 'disabled services = {'; cat ../disabled 2>/dev/null; echo '}' ;;
            disable) echo "  \"$job\" => disabled" > ../disabled ;;
            enable) echo "  \"$job\" => enabled" > ../disabled ;;
            bootout) [ -f "$job" ] || exit 3; rm "$job" ;;
            bootstrap) job=${3##*/}; job=${job%.plist}; [ ! -f "$job" ] || exit 37; printf 'x = {\n\tstate = running\n\tpid = 812\n}\n' > "$job" ;;
            *) exit 64 ;;
        esac"#,
    );
    ServiceSearch::launchd_below(machine.root.path(), Some(&machine.home())).launchctl(program)
}

fn job(label: &str, arguments: &[&str], more: &str) -> String {
    let words: String = arguments
        .iter()
        .map(|word| format!("<string>{word}</string>"))
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict><key>Label</key><string>{label}</string>\
         <key>ProgramArguments</key><array>{words}</array>{more}</dict></plist>"
    )
}

#[tokio::test]
async fn jobs_of_launchd_are_found_turned_off_and_put_back() {
    let machine = Machine::new();
    let agents = |name: &str| format!("home/Library/LaunchAgents/{name}.plist");
    let node = ["/usr/bin/node", "/opt/openclaw/index.js", "gateway"];
    machine.write(
        &agents("ai.openclaw.gateway"),
        &job("ai.openclaw.gateway", &node, ""),
    );
    machine.write(
        &agents("named otherwise"),
        &job("ai.openclaw.work", &node, ""),
    );
    machine.write(
        &agents("ai.openclaw.node"),
        &job("ai.openclaw.node", &["openclaw", "node", "run"], ""),
    );
    machine.write(
        &agents("com.openclaw.watch"),
        &job("com.openclaw.watch", &["watch.sh"], ""),
    );
    machine.write(&agents("com.example"), &job("com.example", &node, ""));
    machine.write(
        &agents("com.openclaw.off"),
        &job(
            "com.openclaw.off.gateway",
            &node,
            "<key>Disabled</key><true/>",
        ),
    );
    machine.write(&agents("damaged"), "<plist><dict><key>Label");
    machine.write(&agents("empty"), "");
    machine.write(
        "Library/LaunchDaemons/d.plist",
        &job("com.openclaw.gateway", &node, ""),
    );
    machine.knows("ai.openclaw.gateway", "gui/501/ai.openclaw.gateway = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 811\n}\n");
    let (search, host) = (launchd(&machine), OsProcessHost::new());
    let uid = rustix::process::getuid().as_raw();

    let found = machine.find(&search).await;
    assert_eq!(
        names(&found),
        [
            "ai.openclaw.gateway",
            "ai.openclaw.work",
            "com.openclaw.gateway"
        ]
    );
    assert_eq!(found[0].state, ServiceState::Running { pid: Some(811) });
    assert_eq!(found[1].state, ServiceState::Stopped);
    assert_eq!(found[2].manager, ServiceManager::LaunchdDaemon);
    let target = format!("gui/{uid}/ai.openclaw.gateway");
    assert_eq!(
        found[0].turn_off,
        format!("launchctl disable {target}; launchctl bootout {target}")
    );
    assert!(
        found[2]
            .turn_off
            .starts_with("sudo launchctl disable system/com.openclaw.gateway; sudo")
    );
    let asked = machine.diary();
    assert_eq!(
        asked[..2],
        [
            format!("print {target}"),
            format!("print-disabled gui/{uid}")
        ]
    );

    let files = everything_below(&machine.home());
    let receipt = soon(search.disable(&host, &found[0], yes())).await.unwrap();
    assert_eq!(
        machine.diary()[..2],
        [format!("disable {target}"), format!("bootout {target}")]
    );
    assert!(!names(&machine.find(&search).await).contains(&"ai.openclaw.gateway"));
    machine.diary();
    soon(search.restore(&host, &receipt)).await.unwrap();
    let plist = machine.path(&agents("ai.openclaw.gateway"));
    let expected = [
        format!("enable {target}"),
        format!("bootstrap gui/{uid} {}", plist.display()),
    ];
    assert_eq!(machine.diary()[2..], expected);
    // A job that is there already is not loaded twice.
    soon(search.restore(&host, &receipt)).await.unwrap();
    assert_eq!(machine.diary()[2..], expected[..1]);
    let again = machine.find(&search).await;
    assert_eq!(
        (again[0].enabled, again[0].state),
        (true, ServiceState::Running { pid: Some(812) })
    );
    assert_eq!(
        everything_below(&machine.home()),
        files,
        "a file was touched"
    );
}
