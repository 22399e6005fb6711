//! The complete environment of a gateway, as the child itself sees it.

use gateway_process::env::NOT_INHERITED;
use gateway_process::ownership::LAUNCH_SIGN;
use gateway_process::{
    Environment, GatewayLaunch, LaunchSpec, NodeOptions, OpenClaw, OsProcessHost, OutputSource,
    ProcessHost, ProviderKeys, ProxySettings,
};

use crate::support::{PATIENCE, soon};

/// What a child prints that gets this environment.
async fn seen_by_a_child(environment: Environment) -> Vec<String> {
    let spec = LaunchSpec::new("/usr/bin/env", environment);
    let report = soon(OsProcessHost::new().run(&spec, PATIENCE.into()))
        .await
        .unwrap();
    let mut lines: Vec<_> = report
        .lines(OutputSource::Stdout)
        // The one thing that is added is another one each time.
        .map(|line| match line.strip_prefix(LAUNCH_SIGN) {
            Some(_) => format!("{LAUNCH_SIGN}=…"),
            None => line.to_owned(),
        })
        .collect();
    lines.sort_unstable();
    lines
}

/// A parent with everything in its environment that misleads a gateway, and with what the gateway needs.
fn parent() -> Vec<(&'static str, &'static str)> {
    let mut variables: Vec<_> = NOT_INHERITED.iter().map(|name| (*name, "1")).collect();
    variables.extend([
        ("PATH", "/usr/bin:/bin"),
        ("HOME", "/home/u"),
        ("LANG", "C.UTF-8"),
        ("EDITOR", "vi"),
        ("FORCE_COLOR", "1"),
        ("OPENCLAW_DISABLE_BONJOUR", "0"),
        ("https_proxy", "http://system:3128"),
        ("OPENAI_API_KEY", "of the shell"),
    ]);
    variables
}

fn launch(environment: Environment) -> GatewayLaunch {
    GatewayLaunch {
        token: Some("s3cret-value".into()),
        state_dir: Some("/srv/state".into()),
        environment,
        ..GatewayLaunch::new(18789)
    }
}

async fn of_the_gateway(environment: Environment) -> Vec<String> {
    let command = OpenClaw::Command {
        program: "openclaw".into(),
        args: vec![],
    };
    let launch = launch(environment);
    let gateway = seen_by_a_child(command.gateway_spec(&launch).env).await;
    let doctor = seen_by_a_child(command.doctor_spec(&launch).env).await;
    assert_eq!(gateway, doctor);
    gateway
}

const DIRECT: &str = "localhost,127.0.0.1,::1,[::1]";

#[tokio::test]
async fn everything_that_an_inheriting_gateway_gets() {
    assert_eq!(
        of_the_gateway(Environment::from_vars(parent())).await,
        [
            "EDITOR=vi",
            "GATEWAY_PROCESS_LAUNCH=…",
            "HOME=/home/u",
            "LANG=C.UTF-8",
            "NO_COLOR=1",
            &format!("NO_PROXY={DIRECT}"),
            "OPENAI_API_KEY=of the shell",
            "OPENCLAW_DISABLE_BONJOUR=1",
            "OPENCLAW_GATEWAY_TOKEN=s3cret-value",
            "OPENCLAW_NO_RESPAWN=1",
            "OPENCLAW_STATE_DIR=/srv/state",
            "PATH=/usr/bin:/bin",
            "https_proxy=http://system:3128",
            &format!("no_proxy={DIRECT}"),
        ]
    );
}

#[tokio::test]
async fn everything_that_an_embedded_gateway_gets() {
    let mut environment = Environment::from_vars(parent()).into_embedded();
    let proxies = ProxySettings::new().general("proxy:8080").bypass("intra;x");
    proxies.apply(&mut environment).unwrap();
    let mut keys = ProviderKeys::new();
    keys.add("OPENAI_API_KEY", "of the application").unwrap();
    keys.apply(&mut environment);
    let mut options = NodeOptions::new();
    options.push("--no-warnings").unwrap();
    options.require_file("/opt/My App/x.cjs").unwrap();
    options.apply(&mut environment);
    environment
        .skip_channels(true)
        .set("NODE_COMPILE_CACHE", "/cache")
        .prepend_paths(["/opt/app/bin", "/opt/app/uv"])
        .append_path("/opt/last");
    assert_eq!(
        of_the_gateway(environment).await,
        [
            "ALL_PROXY=http://proxy:8080",
            "CLAWDBOT_SKIP_CHANNELS=1",
            "GATEWAY_PROCESS_LAUNCH=…",
            "HOME=/home/u",
            "HTTPS_PROXY=http://proxy:8080",
            "HTTP_PROXY=http://proxy:8080",
            "LANG=C.UTF-8",
            "NODE_OPTIONS=--no-warnings \"--require=/opt/My App/x.cjs\"",
            "NO_COLOR=1",
            &format!("NO_PROXY=intra,x,{DIRECT}"),
            "OPENAI_API_KEY=of the application",
            "OPENCLAW_DISABLE_BONJOUR=1",
            "OPENCLAW_EXEC_SHELL_SNAPSHOT=0",
            "OPENCLAW_GATEWAY_TOKEN=s3cret-value",
            "OPENCLAW_NO_RESPAWN=1",
            "OPENCLAW_SKIP_CHANNELS=1",
            "OPENCLAW_STATE_DIR=/srv/state",
            "PATH=/opt/app/bin:/opt/app/uv:/usr/bin:/bin:/opt/last",
            "all_proxy=http://proxy:8080",
            "http_proxy=http://proxy:8080",
            "https_proxy=http://proxy:8080",
            &format!("no_proxy=intra,x,{DIRECT}"),
        ]
    );
}
