//! Signed texts, against those that real gateways accepted.

use gateway_protocol::{
    ClientInfo, ClientMode, ConnectAuth, ConnectParams, DeviceAuthPayload, DevicePayloadVersion,
    Role, Sensitive, scope,
};

const DEVICE_ID: &str = "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c";

fn params() -> ConnectParams {
    ConnectParams {
        scopes: scope::ALL.map(Into::into).to_vec(),
        auth: Some(ConnectAuth::token("probe-token-0001")),
        ..ConnectParams::new(ClientInfo::new("0.1.0", "linux"))
    }
}

/// Each text was signed and accepted by a gateway of the version named.
#[test]
fn texts_accepted_by_gateways() {
    let ui = ConnectParams {
        client: ClientInfo {
            mode: ClientMode::Ui,
            device_family: Some("Desktop".into()),
            ..ClientInfo::new("0.1.0", "Linux")
        },
        ..params()
    };
    for (gateway, version, device, params, signed_at, nonce, text) in [
        (
            "2026.9.6",
            DevicePayloadVersion::V2,
            DEVICE_ID,
            params(),
            1_795_402_435_978,
            "20e0b47f-a918-4587-9438-b6b2f29a1d24",
            "v2|56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c|gateway-client|backend|operator|operator.admin,operator.read,operator.write,operator.approvals,operator.pairing|1795402435978|probe-token-0001|20e0b47f-a918-4587-9438-b6b2f29a1d24",
        ),
        (
            "2026.9.6",
            DevicePayloadVersion::V3,
            DEVICE_ID,
            params(),
            1_795_402_436_158,
            "643f6cf2-40a0-4c26-b81c-d53d3b1d704c",
            "v3|56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c|gateway-client|backend|operator|operator.admin,operator.read,operator.write,operator.approvals,operator.pairing|1795402436158|probe-token-0001|643f6cf2-40a0-4c26-b81c-d53d3b1d704c|linux|",
        ),
        (
            "2026.3.2",
            DevicePayloadVersion::V2,
            DEVICE_ID,
            params(),
            1_795_402_500_748,
            "4a129a8a-2bdc-4443-b2b0-2158e23f3b3f",
            "v2|56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c|gateway-client|backend|operator|operator.admin,operator.read,operator.write,operator.approvals,operator.pairing|1795402500748|probe-token-0001|4a129a8a-2bdc-4443-b2b0-2158e23f3b3f",
        ),
        (
            "2026.9.6",
            DevicePayloadVersion::V3,
            "93b7d87e2a3c0f3a1bae9f507b77c138f0666e17994ae85eec05853889c357b3",
            ui,
            1_795_402_437_438,
            "4faaab85-b476-4a84-a3fd-3a590a52915b",
            "v3|93b7d87e2a3c0f3a1bae9f507b77c138f0666e17994ae85eec05853889c357b3|gateway-client|ui|operator|operator.admin,operator.read,operator.write,operator.approvals,operator.pairing|1795402437438|probe-token-0001|4faaab85-b476-4a84-a3fd-3a590a52915b|linux|desktop",
        ),
    ] {
        let payload = DeviceAuthPayload::for_connect(version, device, &params, signed_at, nonce);
        assert_eq!(payload.signing_text(), text, "{gateway} {version}");
    }
}

fn payload(version: DevicePayloadVersion) -> DeviceAuthPayload {
    DeviceAuthPayload {
        version,
        device_id: "d".into(),
        client_id: "cli".into(),
        client_mode: "cli".into(),
        role: Role::Node,
        scopes: vec!["b".into(), "a".into()],
        signed_at_ms: 5,
        token: None,
        nonce: Some("n".into()),
        platform: None,
        device_family: None,
    }
}

#[test]
fn layouts() {
    assert_eq!(
        payload(DevicePayloadVersion::V1).signing_text(),
        "v1|d|cli|cli|node|b,a|5|"
    );
    assert_eq!(
        payload(DevicePayloadVersion::V2).signing_text(),
        "v2|d|cli|cli|node|b,a|5||n"
    );
    assert_eq!(
        payload(DevicePayloadVersion::V3).signing_text(),
        "v3|d|cli|cli|node|b,a|5||n||"
    );
    let empty = DeviceAuthPayload {
        scopes: Vec::new(),
        token: Some("t".into()),
        nonce: None,
        ..payload(DevicePayloadVersion::V2)
    };
    assert_eq!(empty.signing_text(), "v2|d|cli|cli|node||5|t|");
}

#[test]
fn layout_for_a_nonce() {
    for (nonce, version) in [
        (None, DevicePayloadVersion::V1),
        (Some(""), DevicePayloadVersion::V1),
        (Some("n"), DevicePayloadVersion::V2),
    ] {
        assert_eq!(DevicePayloadVersion::for_nonce(nonce), version, "{nonce:?}");
    }
    assert_eq!(DevicePayloadVersion::default(), DevicePayloadVersion::V3);
}

#[test]
fn platform_and_family_are_normalised() {
    for (given, written) in [
        ("Linux", "linux"),
        ("  MacOS \t", "macos"),
        ("\u{feff}iPadOS\u{a0}", "ipados"),
        // ASCII only: other letters stay as they are.
        ("ÄB", "Äb"),
        ("\u{85}x", "\u{85}x"),
        ("   ", ""),
    ] {
        let payload = DeviceAuthPayload {
            platform: Some(given.into()),
            device_family: Some(given.into()),
            ..payload(DevicePayloadVersion::V3)
        };
        assert_eq!(
            payload.signing_text(),
            format!("v3|d|cli|cli|node|b,a|5||n|{written}|{written}")
        );
    }
}

#[test]
fn which_secret_is_signed() {
    let secret = |text: &str| Some(Sensitive::new(text));
    let all = ConnectAuth {
        token: secret("t"),
        device_token: secret("d"),
        bootstrap_token: secret("b"),
        password: secret("p"),
    };
    let signed = |auth: &ConnectAuth| auth.signed_token().map(|token| token.expose().to_owned());
    assert_eq!(signed(&all).as_deref(), Some("t"));
    let all = ConnectAuth { token: None, ..all };
    assert_eq!(signed(&all).as_deref(), Some("d"));
    let all = ConnectAuth {
        device_token: None,
        ..all
    };
    assert_eq!(signed(&all).as_deref(), Some("b"));
    let all = ConnectAuth {
        bootstrap_token: None,
        ..all
    };
    assert_eq!(signed(&all), None);
}

#[test]
fn separators_inside_values() {
    let clean = payload(DevicePayloadVersion::V3);
    assert_eq!(clean.ambiguous_field(), None);
    let with = |change: fn(&mut DeviceAuthPayload)| {
        let mut payload = payload(DevicePayloadVersion::V3);
        change(&mut payload);
        payload.ambiguous_field()
    };
    assert_eq!(
        with(|payload| payload.device_id = "a|b".into()),
        Some("deviceId")
    );
    assert_eq!(
        with(|payload| payload.client_id = "a|b".into()),
        Some("client.id")
    );
    assert_eq!(
        with(|payload| payload.token = Some("a|b".into())),
        Some("token")
    );
    assert_eq!(
        with(|payload| payload.nonce = Some("|".into())),
        Some("nonce")
    );
    assert_eq!(
        with(|payload| payload.scopes = vec!["a,b".into()]),
        Some("scopes")
    );
    assert_eq!(
        with(|payload| payload.scopes = vec!["a|b".into()]),
        Some("scopes")
    );
    assert_eq!(
        with(|payload| payload.platform = Some("a|b".into())),
        Some("client.platform")
    );
}

#[test]
fn nothing_prints_a_secret() {
    let payload = DeviceAuthPayload {
        token: Some("hush-hush".into()),
        ..payload(DevicePayloadVersion::V3)
    };
    assert!(!format!("{payload:?} {:?}", params()).contains("hush"));
    assert!(!format!("{:#?}", params()).contains("probe-token"));
    for wrong in [
        "7712",
        "true",
        "-5",
        "7.5",
        "[\"hush\"]",
        "{\"hush\":1}",
        "null",
    ] {
        let error = serde_json::from_str::<Sensitive>(wrong)
            .unwrap_err()
            .to_string();
        assert!(
            !error.contains("7712") && !error.contains("hush") && !error.contains("7.5"),
            "{error}"
        );
    }
}
