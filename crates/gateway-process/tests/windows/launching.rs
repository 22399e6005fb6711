//! What a child gets at its start on Windows, and what happens when there is none.

use gateway_process::{
    Environment, LaunchSpec, OsProcessHost, OutputSource, OwnerDeath, ProcessHost, SpawnError,
};

use crate::child::{PATIENCE, next_said, part, soon};

async fn refused(spec: &LaunchSpec) -> SpawnError {
    match OsProcessHost::new().spawn(spec).await {
        Ok(child) => panic!("process {} was started", child.pid()),
        Err(error) => error,
    }
}

/// The first thing that a child does finds it in its job, in its folder, and without input.
#[tokio::test]
async fn a_child_begins_its_life_in_a_job() {
    let folder = tempfile::tempdir().unwrap();
    let real = std::path::absolute(folder.path()).unwrap();
    let child = OsProcessHost::new()
        .spawn(&part("facts").current_dir(&real))
        .await
        .unwrap();
    let mut output = child.output();
    assert_eq!(next_said(&mut output).await, "in a job: true");
    assert!(next_said(&mut output).await.starts_with("consoles: "));
    assert_eq!(next_said(&mut output).await, "input: Ok(0)");
    assert_eq!(
        next_said(&mut output).await,
        format!("folder: {}", real.display())
    );
    soon(child.wait()).await;
}

/// Closing our console must not end a gateway, and none may appear for it.
#[tokio::test]
async fn a_child_is_not_at_the_console_of_its_owner() {
    let report = soon(OsProcessHost::new().run(&part("console"), PATIENCE.into()))
        .await
        .unwrap();
    assert!(report.success(), "{report:?}");
    let said: Vec<&str> = report
        .lines(OutputSource::Stdout)
        .filter_map(|line| line.strip_prefix("said "))
        .collect();
    let [owner, consoles] = said[..] else {
        panic!("{said:?}");
    };
    assert!(consoles.starts_with("consoles: "), "{consoles}");
    let mut at_it = consoles.split(|c: char| !c.is_ascii_digit());
    assert!(at_it.all(|pid| pid != owner), "{consoles}, owner {owner}");
}

/// The environment is what was asked for, and the folder of Windows, without which there are no sockets.
#[tokio::test]
async fn the_environment_is_complete_and_sockets_work_in_it() {
    let mut spec = part("facts");
    let mut environment = Environment::from_vars([
        ("INVOCATION_ID", "x"),
        ("NODE_OPTIONS", "--inspect"),
        ("Given", "1"),
    ]);
    environment
        .set("TEST_CHILD_PART", "facts")
        .set("GIVEN", "2")
        .set_secret("OPENCLAW_GATEWAY_TOKEN", "s3cret-value".into());
    spec.env = environment.clone();
    let report = soon(OsProcessHost::new().run(&spec, PATIENCE.into()))
        .await
        .unwrap();
    assert!(report.success(), "{report:?}");
    let said = |text: &str| {
        report
            .lines(OutputSource::Stdout)
            .filter_map(|line| line.strip_prefix("said "))
            .any(|line| line.starts_with(text))
    };
    assert!(said("GIVEN=2") && said("OPENCLAW_GATEWAY_TOKEN=s3cret-value") && said("SYSTEMROOT="));
    for absent in ["INVOCATION_ID=", "NODE_OPTIONS=", "GIVEN=1", "USERNAME="] {
        assert!(!said(absent), "{absent}");
    }

    spec.env = environment;
    spec.env.set("TEST_CHILD_PART", "socket");
    let report = soon(OsProcessHost::new().run(&spec, PATIENCE.into()))
        .await
        .unwrap();
    assert!(report.success(), "{report:?}");
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let env = Environment::from_parent;
    let error =
        refused(&LaunchSpec::new(r"C:\no\such\openclaw.exe", env()).args(["--token", "abc"])).await;
    assert!(
        matches!(error, SpawnError::ProgramNotFound { .. }),
        "{error}"
    );
    assert!(!error.to_string().contains("abc"), "{error}");

    let error = refused(&part("wait").current_dir(r"C:\no\such\folder")).await;
    assert!(
        matches!(error, SpawnError::WorkingDirectory { .. }),
        "{error}"
    );

    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.exe");
    std::fs::write(&plain, "text").unwrap();
    let error = refused(&LaunchSpec::new(&plain, env())).await;
    assert!(error.to_string().contains("plain.exe"), "{error}");
}

/// Nobody could prove later whose it is.
#[tokio::test]
async fn a_child_that_is_to_outlive_its_owner_is_refused_and_leaves_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let host = OsProcessHost::new();
    let claim = host.claim(folder.path()).await.unwrap();
    let spec = part("wait")
        .owner_death(OwnerDeath::ChildSurvives)
        .claimed(claim.clone());
    let error = refused(&spec).await;
    assert!(error.to_string().contains("outlive"), "{error}");
    assert_eq!(claim.record().unwrap(), None);
    let spec = part("facts").claimed(claim.clone());
    let child = host.spawn(&spec).await.unwrap();
    soon(child.wait()).await;
    assert_eq!(claim.record().unwrap(), None);
    assert!(host.survivor(&claim).await.unwrap().is_none());
}
