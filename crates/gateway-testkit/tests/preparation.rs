//! What a manager does beside and before a launch, with the fake gateway as the child and scripts in place of the programs of the machine.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_manager::events::Delivered;
use gateway_manager::hooks::{
    ConfigSync, MirrorUse, PythonMirror, PythonWarmUp, Region, WarmUpError, WarmUpOutcome,
};
use gateway_manager::{
    EventSubscription, GatewayEvent, GatewayManager, GatewayManagerBuilder, OpenClaw, PortChoice,
};
use gateway_process::{Environment, ServiceSearch};
use gateway_testkit::child::{ChildScript, SCRIPT_VARIABLE};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

const TOKEN: &str = "preparation-token-0123456789";
const PATIENCE: Duration = Duration::from_secs(30);

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work)
        .await
        .expect("no answer within 30 s")
}

/// A gateway's home, and programs beside it.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("diary"), "").unwrap();
        Self { folder }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// A program that writes down its arguments, and then does `what`.
    fn program(&self, name: &str, what: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let folder = self.folder.path().display();
        let script = format!(
            "#!/bin/sh\ncd '{folder}'; echo \"$*${{UV_PYTHON_INSTALL_MIRROR+ from $UV_PYTHON_INSTALL_MIRROR}}\" >> diary\n{what}\n"
        );
        // A script that is still open for writing in a child of another test cannot be run.
        let unfinished = path.with_extension("unfinished");
        fs::write(&unfinished, script).unwrap();
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(unfinished, &path).unwrap();
        path
    }

    fn diary(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("diary")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// A manager of a fake gateway whose environment has nothing in it but a search path.
    fn builder(&self) -> GatewayManagerBuilder {
        let mut environment = Environment::from_vars([("PATH", "/usr/bin:/bin")]);
        let script = serde_json::to_string(&ChildScript::default()).unwrap();
        environment
            .set(SCRIPT_VARIABLE, script)
            .set_secret("PROVIDER_API_KEY", "of-the-provider".into());
        GatewayManager::builder()
            .openclaw(OpenClaw::Command {
                program: PathBuf::from(env!("CARGO_BIN_EXE_fake-openclaw")),
                args: Vec::new(),
            })
            .environment(environment)
            .state_dir(self.path("state"))
            .port(PortChoice::Free)
            .token(TOKEN)
            .detect_services(false)
    }
}

async fn warning(events: &mut EventSubscription) -> String {
    within(async {
        loop {
            match events.next().await {
                Some(Delivered::Event(GatewayEvent::Warning { message })) => return message,
                Some(_) => {}
                None => panic!("the manager is gone"),
            }
        }
    })
    .await
}

/// What the gateway has in its environment, on systems that tell.
#[cfg(target_os = "linux")]
fn environment_of_the_gateway(manager: &GatewayManager) -> Vec<String> {
    let pid = manager.status().borrow().pid.unwrap();
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = text.split(|byte| *byte == 0);
    variables
        .map(|variable| String::from_utf8_lossy(variable).into_owned())
        .collect()
}

fn service_of(home: &Home) {
    let units = home.path("etc/systemd/system");
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    let unit = units.join("openclaw-gateway.service");
    fs::write(
        &unit,
        "[Service]\nExecStart=/usr/bin/openclaw gateway run\n",
    )
    .unwrap();
    symlink(&unit, wants.join("openclaw-gateway.service")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_competing_service_is_told_of_once_and_left_alone() {
    let home = Home::new();
    service_of(&home);
    let systemctl = home.program("systemctl", "echo MainPID=4711; echo ActiveState=active");
    let search = ServiceSearch::systemd_below(home.folder.path(), None).systemctl(systemctl);
    let manager = home.builder().service_search(search).build().unwrap();
    let mut events = manager.events();
    within(manager.start()).await.unwrap();
    let text = warning(&mut events).await;
    for part in [
        "openclaw-gateway.service",
        "process 4711",
        "sudo systemctl disable --now",
    ] {
        assert!(text.contains(part), "{text}");
    }
    within(manager.restart()).await.unwrap();
    within(manager.stop()).await.unwrap();
    let asked =
        "show --no-pager --property=ActiveState,MainPID,UnitFileState -- openclaw-gateway.service";
    assert_eq!(home.diary(), [asked]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_launch_waits_for_a_service_manager_that_does_not_answer() {
    let home = Home::new();
    service_of(&home);
    let systemctl = home.program("systemctl", "echo $$ > pid; exec sleep 1000");
    let search = ServiceSearch::systemd_below(home.folder.path(), None).systemctl(systemctl);
    let manager = home.builder().service_search(search).build().unwrap();
    within(manager.start()).await.unwrap();
    // It is still being asked, and goes with its owner.
    let pid = written_pid(&home).await;
    assert!(is_alive(pid));
    within(manager.stop()).await.unwrap();
    drop(manager);
    gone(pid).await;
}

/// The process that a program has written down.
async fn written_pid(home: &Home) -> u32 {
    within(async {
        loop {
            let text = fs::read_to_string(home.path("pid")).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

fn is_alive(pid: u32) -> bool {
    let asked = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("kill -0 {pid} 2>/dev/null")])
        .status();
    asked.unwrap().success()
}

async fn gone(pid: u32) {
    within(async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn outcome(mut receiver: watch::Receiver<Option<WarmUpOutcome>>) -> WarmUpOutcome {
    let known = within(receiver.wait_for(Option::is_some)).await.unwrap();
    known.clone().unwrap()
}

/// Where the machine is and where it could download from.
fn with_mirror(warm_up: PythonWarmUp, zone: &str) -> PythonWarmUp {
    let mirror = PythonMirror {
        python: "https://mirror.example/python".to_owned(),
        packages: Some("https://mirror.example/packages".to_owned()),
    };
    warm_up
        .mirror(mirror, MirrorUse::InMainlandChina)
        .region(Region {
            time_zone: Some(zone.to_owned()),
            locale: None,
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn python_is_found_or_installed_from_a_mirror_and_without_it() {
    let find = "python find 3.12";
    let from = |command: &str| format!("{command} from https://mirror.example/python");
    let install = "python install 3.12";
    // What uv does; where the machine is; what uv was asked; how it ends.
    let table = [
        (
            "echo /py/3.12",
            "Europe/Berlin",
            vec![find.to_owned()],
            Ok("/py/3.12"),
        ),
        (
            "[ \"$2\" = find ] && [ ! -f installed ] && exit 2; touch installed; echo /py/new",
            "Europe/Berlin",
            vec![find.to_owned(), install.to_owned(), find.to_owned()],
            Ok("/py/new"),
        ),
        (
            "[ \"$2\" = find ] && [ ! -f installed ] && exit 2; touch installed; echo /py/mirrored",
            "Asia/Shanghai",
            vec![from(find), from(install), from(find)],
            Ok("/py/mirrored"),
        ),
        (
            "[ \"$2\" = find ] && [ ! -f installed ] && exit 2; [ \"$2\" = install ] && [ -n \"$UV_PYTHON_INSTALL_MIRROR\" ] && exit 2; \
             touch installed; echo /py/direct",
            "Asia/Shanghai",
            vec![
                from(find),
                from(install),
                install.to_owned(),
                find.to_owned(),
            ],
            Ok("/py/direct"),
        ),
        (
            "echo \"no network, $PROVIDER_API_KEY\" >&2; exit 2",
            "Asia/Shanghai",
            vec![from(find), from(install), install.to_owned()],
            Err("(\"no network,\")"),
        ),
    ];
    for (does, zone, asked, expected) in table {
        let home = Home::new();
        let warm_up = with_mirror(PythonWarmUp::new(), zone).bundled_uv(home.program("uv", does));
        let receiver = warm_up.outcome();
        let manager = home.builder().hook(warm_up).build().unwrap();
        within(manager.start()).await.unwrap();
        let result = outcome(receiver).await;
        match (&result, expected) {
            (Ok(python), Ok(expected)) => assert_eq!(python, Path::new(expected)),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            _ => panic!("{result:?}"),
        }
        assert_eq!(home.diary(), asked);
        #[cfg(target_os = "linux")]
        {
            let mirrored: Vec<_> = environment_of_the_gateway(&manager)
                .into_iter()
                .filter(|v| v.starts_with("UV_"))
                .collect();
            let expected: &[&str] = if zone == "Asia/Shanghai" {
                &[
                    "UV_DEFAULT_INDEX=https://mirror.example/packages",
                    "UV_INDEX_URL=https://mirror.example/packages",
                    "UV_PYTHON_INSTALL_MIRROR=https://mirror.example/python",
                ]
            } else {
                &[]
            };
            assert_eq!(mirrored, expected);
        }
        // Once per process, also after a failure.
        within(manager.restart()).await.unwrap();
        within(manager.stop()).await.unwrap();
        let again = PythonWarmUp::new().bundled_uv(home.path("uv"));
        let receiver = again.outcome();
        let other = home.builder().hook(again).build().unwrap();
        within(other.start()).await.unwrap();
        assert_eq!(outcome(receiver).await, result);
        within(other.stop()).await.unwrap();
        assert_eq!(home.diary(), asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_uv_on_the_search_path_is_taken_when_none_comes_along() {
    let home = Home::new();
    let missing = home.path("no/such/uv");
    let program = home.program("bin/uv", "echo /py/path");
    let mut environment = Environment::empty();
    environment.prepend_path(program.parent().unwrap());
    environment.append_path("/usr/bin").append_path("/bin");
    environment.set(
        SCRIPT_VARIABLE,
        serde_json::to_string(&ChildScript::default()).unwrap(),
    );
    let warm_up = PythonWarmUp::new().bundled_uv(&missing);
    let receiver = warm_up.outcome();
    let manager = home
        .builder()
        .environment(environment)
        .hook(warm_up)
        .build()
        .unwrap();
    within(manager.start()).await.unwrap();
    assert_eq!(outcome(receiver).await, Ok(PathBuf::from("/py/path")));
    within(manager.stop()).await.unwrap();

    let warm_up = PythonWarmUp::new().version("3.99");
    let receiver = warm_up.outcome();
    let mut nothing = Environment::from_vars([("PATH", "/no/such/folder")]);
    nothing.set(
        SCRIPT_VARIABLE,
        serde_json::to_string(&ChildScript::default()).unwrap(),
    );
    let manager = home
        .builder()
        .environment(nothing)
        .hook(warm_up)
        .build()
        .unwrap();
    within(manager.start()).await.unwrap();
    let error = outcome(receiver).await.unwrap_err();
    assert!(matches!(error, WarmUpError::NoUv { .. }), "{error}");
    within(manager.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_launch_waits_for_uv_and_uv_ends_with_the_manager() {
    let home = Home::new();
    let uv = home.program("uv", "echo $$ > pid; exec sleep 1000");
    let warm_up = PythonWarmUp::new().bundled_uv(uv);
    let manager = home.builder().hook(warm_up).build().unwrap();
    within(manager.start()).await.unwrap();
    let pid = written_pid(&home).await;
    assert!(is_alive(pid));
    within(manager.stop()).await.unwrap();
    drop(manager);
    gone(pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_brought_into_line_or_left_alone() {
    let home = Home::new();
    let file = home.path("state/openclaw.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let sync = || ConfigSync::new().token(true).local_mode(true);
    // A token in the file would win over the one of the launch, and the connection would be refused.
    fs::write(
        &file,
        "{\n  // mine\n  gateway: { auth: { token: 'an older one' } },\n}\n",
    )
    .unwrap();
    let manager = home.builder().hook(sync()).build().unwrap();
    within(manager.start()).await.unwrap();
    within(manager.stop()).await.unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("// mine") && text.contains(TOKEN) && !text.contains("older"),
        "{text}"
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let password = "{gateway: {mode: 'local', auth: {mode: 'password', password: 'the user''s'}}}"
        .replace("''", "\\'");
    fs::write(&file, &password).unwrap();
    let manager = home.builder().hook(sync()).build().unwrap();
    // Whether a gateway of this configuration lets us in does not matter here.
    let _ = within(manager.start()).await;
    within(manager.stop()).await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), password);

    fs::write(&file, "{ broken").unwrap();
    let manager = home.builder().hook(sync()).build().unwrap();
    let mut events = manager.events();
    let _ = within(manager.start()).await;
    let text = warning(&mut events).await;
    for part in [
        "'configuration'",
        "openclaw.json",
        "left as it is",
        "openclaw doctor",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ broken");
    within(manager.stop()).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_script_for_node_is_named_to_every_gateway_and_never_in_its_way() {
    use gateway_manager::hooks::PreloadScript;
    use gateway_process::preload::{Hosts, Preload};

    let home = Home::new();
    let mut preload = Preload::new();
    preload
        .attribute(Hosts::Exactly("openrouter.ai"), [("X-Title", "App")])
        .unwrap();
    let manager = home
        .builder()
        .hook(PreloadScript::new(preload.clone(), home.path("scripts")))
        .build()
        .unwrap();
    within(manager.start()).await.unwrap();
    let variables = environment_of_the_gateway(&manager);
    let has = |start: &str| variables.iter().any(|variable| variable.starts_with(start));
    let required = format!(
        "NODE_OPTIONS=--require={}/gateway-preload-",
        home.path("scripts").display()
    );
    assert!(
        has(&required) && has("GATEWAY_MANAGER_PRELOAD={"),
        "{variables:?}"
    );
    within(manager.stop()).await.unwrap();

    fs::write(home.path("taken"), "").unwrap();
    let manager = home
        .builder()
        .hook(PreloadScript::new(preload, home.path("taken")))
        .build()
        .unwrap();
    let mut events = manager.events();
    within(manager.start()).await.unwrap();
    let text = warning(&mut events).await;
    assert!(
        text.contains("preload script") && text.contains("taken"),
        "{text}"
    );
    let variables = environment_of_the_gateway(&manager);
    assert!(
        !variables
            .iter()
            .any(|variable| variable.starts_with("NODE_OPTIONS"))
    );
    within(manager.stop()).await.unwrap();
}
