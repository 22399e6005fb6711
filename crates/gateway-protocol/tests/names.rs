//! Closed lists and their names, ranges, close codes.

use std::collections::BTreeSet;

use gateway_protocol::{
    ClientId, ClientInfo, ClientMode, CloseCode, ConnectParams, Payload, ProtocolRange, Role,
    limits,
};

#[test]
fn names_of_clients() {
    let ids: Vec<&str> = ClientId::KNOWN.iter().map(ClientId::as_str).collect();
    for common in [
        "webchat-ui",
        "openclaw-control-ui",
        "webchat",
        "cli",
        "gateway-client",
        "openclaw-macos",
        "openclaw-ios",
        "openclaw-android",
        "node-host",
        "test",
        "fingerprint",
        "openclaw-probe",
        "openclaw-tui",
        "openclaw-linux",
        "openclaw-watchos",
        "openclaw-browser-copilot",
        "openclaw-worker",
    ] {
        assert!(ids.contains(&common), "{common}");
    }
    assert_eq!(
        ids.len(),
        ids.iter().collect::<BTreeSet<_>>().len(),
        "a name twice"
    );
    let modes: Vec<&str> = ClientMode::KNOWN.iter().map(ClientMode::as_str).collect();
    assert_eq!(
        modes.iter().copied().collect::<BTreeSet<_>>(),
        [
            "webchat", "cli", "ui", "backend", "node", "probe", "test", "worker"
        ]
        .into(),
    );
    for id in ClientId::KNOWN {
        assert!(
            !matches!(ClientId::from(id.as_str()), ClientId::Other(_)),
            "{id}"
        );
        assert_eq!(serde_json::to_string(id).unwrap(), format!("\"{id}\""));
    }
    assert_eq!(ClientId::Other("cli".into()), ClientId::Cli);
    assert_eq!(
        "from-next-year".parse(),
        Ok(ClientId::Other("from-next-year".into()))
    );
    assert_eq!(Role::from("worker"), Role::Other("worker".into()));
    let read: Role = serde_json::from_str("\"n\\u006fde\"").unwrap();
    assert_eq!(read, Role::Node);
    assert!(serde_json::from_str::<ClientMode>("7").is_err());
}

#[test]
fn protocol_ranges() {
    for (version, inside) in [(2, false), (3, true), (4, true), (5, false)] {
        assert_eq!(
            ProtocolRange::SUPPORTED.contains(version),
            inside,
            "{version}"
        );
    }
    assert_eq!(ProtocolRange::default(), (3..=4).into());
    assert_eq!(ProtocolRange::SUPPORTED.to_string(), "3..4");
    assert_eq!(ProtocolRange::only(3).to_string(), "3");
    let params = ConnectParams::new(ClientInfo::new("1", "linux"));
    assert_eq!(params.protocol_range(), ProtocolRange::SUPPORTED);
}

#[test]
fn all_connect_parameters() {
    let text = concat!(
        r#"{"minProtocol":3,"maxProtocol":4,"#,
        r#""client":{"id":"node-host","version":"1","platform":"linux","mode":"node","displayName":"d","#,
        r#""deviceFamily":"f","modelIdentifier":"m","instanceId":"i"},"#,
        r#""role":"node","scopes":[],"caps":["tool-events"],"commands":["run"],"permissions":{"camera":true},"#,
        r#""pathEnv":"/bin","locale":"de-CH","userAgent":"u/1","#,
        r#""auth":{"token":"t","deviceToken":"d","bootstrapToken":"b","password":"p"},"#,
        r#""device":{"id":"i","publicKey":"k","signature":"s","signedAt":5,"nonce":"n"}}"#,
    );
    let params: ConnectParams = serde_json::from_str(text).unwrap();
    assert_eq!(Payload::from_serialize(&params).unwrap().as_str(), text);
    // A wrong kind of value is an error that names its field, never a panic.
    let text = text.replace(r#""signedAt":5"#, r#""signedAt":"5""#);
    assert!(serde_json::from_str::<ConnectParams>(&text).is_err());
}

#[test]
fn close_codes() {
    let codes: Vec<u16> = CloseCode::NAMED.iter().map(|code| code.0).collect();
    assert!(codes.is_sorted(), "{codes:?}");
    for code in [
        1000, 1001, 1002, 1005, 1006, 1008, 1009, 1012, 1013, 4000, 4001,
    ] {
        assert!(codes.contains(&code), "{code}");
        assert!(!CloseCode(code).description().is_empty());
    }
    assert_eq!(
        CloseCode::SERVICE_RESTART.to_string(),
        "1012 (service restart)"
    );
    assert_eq!(CloseCode(4242).to_string(), "4242");
    assert_eq!(
        CloseCode(4242).description(),
        "a code private to the application"
    );
    assert_eq!(
        CloseCode(3001).description(),
        "a code registered for libraries and applications"
    );
    assert_eq!(CloseCode(7).description(), "an unknown code");
    for (code, sent) in [
        (999, false),
        (1000, true),
        (1004, false),
        (1005, false),
        (1006, false),
        (1012, true),
        (1015, false),
        (2000, false),
        (3000, true),
        (4999, true),
        (5000, false),
    ] {
        assert_eq!(CloseCode(code).may_be_sent(), sent, "{code}");
    }
    assert_eq!(u16::from(CloseCode::from(1008)), 1008);
}

#[test]
fn limits_of_the_gateways_seen() {
    assert_eq!(limits::PRE_AUTH_MAX_BYTES, 65_536);
    assert_eq!(limits::DEFAULT_MAX_PAYLOAD, 25 * 1024 * 1024);
    assert_eq!(limits::DEFAULT_MAX_BUFFERED, 50 * 1024 * 1024);
    assert_eq!(limits::DEFAULT_TICK_INTERVAL_MS, 30_000);
    assert_eq!(limits::DEFAULT_PORT, 18_789);
}
