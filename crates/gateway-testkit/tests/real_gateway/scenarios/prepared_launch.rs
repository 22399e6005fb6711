//! Every ready step at once: a real gateway accepts the environment, the script and the configuration that they make, and runs on them.

use gateway_manager::hooks::{ConfigSync, PreloadScript};
use gateway_process::ProviderKeys;
use gateway_process::embedding::{EMBEDDED, SUPERVISED};
use gateway_process::preload::{Hosts, Preload};

use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

/// What older applications left behind, with a token that would win over ours.
const CONFIG: &str = "// mine\n{\n  skills: { enabled: ['a'], disabled: [] }, // theirs\n  gateway: {\n    auth: { token: 'an older one', }, /* where from? */\n  },\n}\n";

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    sandbox.write_config(CONFIG);
    let mut environment = sandbox.environment().into_embedded();
    let mut keys = ProviderKeys::new();
    keys.add("OPENROUTER_API_KEY", "of nobody").expect("a key");
    keys.apply(&mut environment);
    environment.skip_channels(true);
    let mut preload = Preload::new();
    preload
        .attribute(
            Hosts::WithSubdomains("openrouter.ai"),
            [("X-Title", "Gateway Manager")],
        )
        .expect("a header")
        .hide_windows(true);
    let builder = sandbox
        .builder()
        .await
        .environment(environment)
        .hook(PreloadScript::new(
            preload,
            sandbox.identity_file().with_file_name("a \"script\""),
        ))
        .hook(
            ConfigSync::new()
                .sanitize_skills(true)
                .local_mode(true)
                .browser_defaults(true)
                .token(true),
        );
    let gateway = Supervised::new(builder);
    let pid = gateway.start("start with every ready step").await;
    gateway.serves().await;

    let variables = std::fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let variables: Vec<_> = variables
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    for setting in SUPERVISED.iter().chain(EMBEDDED) {
        let found = variables
            .iter()
            .find_map(|variable| variable.strip_prefix(setting.name)?.strip_prefix('='));
        assert_eq!(found, setting.value, "{}", setting.name);
    }
    assert!(
        variables
            .iter()
            .any(|variable| variable.starts_with("NODE_OPTIONS=\"--require="))
    );

    let config = String::from_utf8(sandbox.read_config()).expect("text");
    for comment in ["// mine", "// theirs", "/* where from? */"] {
        assert!(config.contains(comment), "{config}");
    }
    assert!(config.contains(&sandbox.token) && !config.contains("an older one"));
    gateway.stop("stop").await;
    gateway.no_warnings().await;

    // What was brought into line is not written again.
    let before = sandbox.read_config();
    let again = Supervised::new(
        sandbox
            .builder()
            .await
            .hook(ConfigSync::new().token(true).local_mode(true)),
    );
    again.start("start with a configuration in line").await;
    again.stop("stop").await;
    assert!(
        sandbox.read_config() == before,
        "the configuration was written again"
    );
}
