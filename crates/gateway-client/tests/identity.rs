//! The device identity: byte-exact signatures, and a file that is never replaced silently.

use std::path::{Path, PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use gateway_client::{DeviceIdentity, IdentityError, IdentityOrigin};
use gateway_protocol::{
    ClientId, ClientMode, DeviceAuthPayload, DevicePayloadVersion, Role, Sensitive, scope,
};
use proptest::prelude::*;
use serde_json::Value;

/// 0x00, 0x01, … 0x1f.
fn counting_seed() -> [u8; 32] {
    std::array::from_fn(|n| u8::try_from(n).expect("below 32"))
}

const COUNTING_ID: &str = "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c";

struct Vector {
    seed: [u8; 32],
    version: DevicePayloadVersion,
    mode: &'static str,
    platform: &'static str,
    device_family: Option<&'static str>,
    signed_at: u64,
    nonce: &'static str,
    text_end: &'static str,
    signature: &'static str,
}

/// Signatures that running gateways of 2026.9.6 and 2026.3.2 accepted.
fn vectors() -> Vec<Vector> {
    let other_seed = [
        0xa4, 0xea, 0xd6, 0xa5, 0x82, 0x40, 0x42, 0x5d, 0x08, 0x31, 0xe5, 0x41, 0xce, 0x0b, 0xfc,
        0x2e, 0x1f, 0x37, 0x35, 0x58, 0xd6, 0x75, 0xe8, 0x39, 0xdd, 0x83, 0x7b, 0x64, 0x37, 0xf6,
        0x20, 0x33,
    ];
    vec![
        Vector {
            seed: counting_seed(),
            version: DevicePayloadVersion::V2,
            mode: "backend",
            platform: "linux",
            device_family: None,
            signed_at: 1_795_402_435_978,
            nonce: "20e0b47f-a918-4587-9438-b6b2f29a1d24",
            text_end: "|20e0b47f-a918-4587-9438-b6b2f29a1d24",
            signature: "Mg6kjUHG4dixs0myXIBqzUSGNNtM8QVzxWntPW8wwtBWq0PGtx30uSPt7vCijRAGePrIvM6ZHAKiqZdyxY4HBg",
        },
        Vector {
            seed: counting_seed(),
            version: DevicePayloadVersion::V3,
            mode: "backend",
            platform: "linux",
            device_family: None,
            signed_at: 1_795_402_436_158,
            nonce: "643f6cf2-40a0-4c26-b81c-d53d3b1d704c",
            text_end: "|linux|",
            signature: "9ws8dpTdfJT0eaNSDPm4O91HqAHQ-UJEWzaUwcNEtx1rv7IM-znstNZmgiqGU6DxQVhG1pxRXrnpnVZXt1HVCA",
        },
        Vector {
            seed: counting_seed(),
            version: DevicePayloadVersion::V2,
            mode: "backend",
            platform: "linux",
            device_family: None,
            signed_at: 1_795_402_500_748,
            nonce: "4a129a8a-2bdc-4443-b2b0-2158e23f3b3f",
            text_end: "|4a129a8a-2bdc-4443-b2b0-2158e23f3b3f",
            signature: "Vj7faMdOPvlIXvosuxEXkbJodhfYYIGy6rLg9l8Wy3S5MGzfXHtCpEtpnlFkYj9C_46q7B4zT_UPx3iLU1toCA",
        },
        Vector {
            seed: other_seed,
            version: DevicePayloadVersion::V3,
            mode: "ui",
            platform: "Linux",
            device_family: Some("Desktop"),
            signed_at: 1_795_402_437_438,
            nonce: "4faaab85-b476-4a84-a3fd-3a590a52915b",
            text_end: "|linux|desktop",
            signature: "OjFQIEEsdYYy1boI3NNMcPVRUEKMbHH0D-4h1pZy1VQNV7x1WbzsRN-UBQ0UI_17sELQxlCgs8JwxSHrS2iyBg",
        },
    ]
}

#[test]
fn signatures_equal_those_that_gateways_accepted() {
    let identity = DeviceIdentity::from_seed(&counting_seed());
    assert_eq!(identity.device_id(), COUNTING_ID);
    assert_eq!(
        identity.public_key_base64url(),
        "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
    );
    for vector in vectors() {
        let identity = DeviceIdentity::from_seed(&vector.seed);
        let payload = DeviceAuthPayload {
            version: vector.version,
            device_id: identity.device_id().to_owned(),
            client_id: ClientId::GatewayClient,
            client_mode: ClientMode::from(vector.mode),
            role: Role::Operator,
            scopes: scope::ALL.map(str::to_owned).to_vec(),
            signed_at_ms: vector.signed_at,
            token: Some(Sensitive::from("probe-token-0001")),
            nonce: Some(vector.nonce.to_owned()),
            platform: Some(vector.platform.to_owned()),
            device_family: vector.device_family.map(str::to_owned),
        };
        let text = payload.signing_text();
        assert!(text.ends_with(vector.text_end), "{text}");
        let signature = identity.sign(&payload);
        assert_eq!(signature, vector.signature, "{text}");
        verify(&identity, &text, &signature);
    }
}

fn verify(identity: &DeviceIdentity, text: &str, signature: &str) {
    let key = Base64UrlUnpadded::decode_vec(&identity.public_key_base64url()).expect("base64url");
    let key = VerifyingKey::from_bytes(&key.try_into().expect("32 bytes")).expect("a point");
    let signature = Base64UrlUnpadded::decode_vec(signature).expect("base64url");
    let signature = Signature::from_slice(&signature).expect("64 bytes");
    key.verify(text.as_bytes(), &signature).expect("verifies");
}

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state/identity/device.json");
    Place {
        _directory: directory,
        path,
    }
}

fn put(path: &Path, contents: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    std::fs::write(path, contents).expect("written");
}

/// The file that Node's `crypto` makes of the counting seed.
fn node_file() -> String {
    [
        "{\n  \"version\": 1,\n  \"deviceId\": \"56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c\",\n",
        "  \"publicKeyPem\": \"-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\\n-----END PUBLIC KEY-----\\n\",\n",
        "  \"privateKeyPem\": \"-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\\n-----END PRIVATE KEY-----\\n\",\n",
        "  \"createdAtMs\": 1700000000000\n}\n",
    ]
    .concat()
}

#[test]
fn a_file_of_the_node_clients_is_read_and_left_alone() {
    let place = place();
    put(&place.path, node_file().as_bytes());
    let (identity, origin) = DeviceIdentity::load_or_create(&place.path).expect("loads");
    assert_eq!(origin, IdentityOrigin::Loaded);
    assert_eq!(identity.device_id(), COUNTING_ID);
    assert_eq!(identity.created_at_ms(), 1_700_000_000_000);
    assert_eq!(
        std::fs::read_to_string(&place.path).expect("reads"),
        node_file()
    );
}

#[test]
fn a_new_identity_is_written_in_the_form_of_the_node_clients() {
    let place = place();
    let (identity, origin) = DeviceIdentity::load_or_create(&place.path).expect("creates");
    assert_eq!(origin, IdentityOrigin::Created);
    let text = std::fs::read_to_string(&place.path).expect("reads");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let template: Value = serde_json::from_str(&node_file()).expect("JSON");
    // Same names in the same order, same layout, same PEM frames.
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("  \""));
        lines
            .map(|line| line.split(':').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names(&text), names(&node_file()));
    assert!(
        text.starts_with("{\n  \"version\": 1,\n") && text.ends_with("\n}\n"),
        "{text}"
    );
    for (name, prefix) in [("publicKeyPem", 52), ("privateKeyPem", 49)] {
        let (ours, theirs) = (
            file[name].as_str().unwrap(),
            template[name].as_str().unwrap(),
        );
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let (ours, theirs): (Vec<&str>, Vec<&str>) =
            (ours.split('\n').collect(), theirs.split('\n').collect());
        assert_eq!(
            (ours[0], ours[2], ours[3]),
            (theirs[0], theirs[2], theirs[3]),
            "{name}"
        );
        // The DER frame around the key is the same; only the key differs.
        let der = prefix.min(16);
        assert_eq!(ours[1][..der], theirs[1][..der], "{name}");
    }
    assert_eq!(file["deviceId"], identity.device_id());
    assert_eq!(file["createdAtMs"], identity.created_at_ms());
    assert!(identity.created_at_ms() > 1_600_000_000_000);
    assert_private(&place.path);

    let (again, origin) = DeviceIdentity::load_or_create(&place.path).expect("loads");
    assert_eq!(origin, IdentityOrigin::Loaded);
    assert_eq!(again.device_id(), identity.device_id());
    assert_eq!(std::fs::read_to_string(&place.path).expect("reads"), text);
    let left: Vec<_> = std::fs::read_dir(place.path.parent().unwrap())
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "no temporary file is left: {left:?}");
}

fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file: Value = serde_json::from_str(&node_file()).expect("JSON");
    change(&mut file);
    serde_json::to_vec(&file).expect("encodes")
}

fn damaged_files() -> Vec<(&'static str, Vec<u8>)> {
    let node = node_file().into_bytes();
    let other_public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    vec![
        ("empty", Vec::new()),
        ("blank", b" \n\n".to_vec()),
        ("truncated", node[..node.len() / 2].to_vec()),
        ("last brace missing", node[..node.len() - 2].to_vec()),
        ("not JSON", b"identity".to_vec()),
        ("not UTF-8", vec![0xff, 0xfe, 0x00]),
        ("another shape", b"[]".to_vec()),
        ("no version", b"{\"deviceId\":\"x\"}".to_vec()),
        ("version 0", with(|file| file["version"] = 0.into())),
        ("version as text", with(|file| file["version"] = "1".into())),
        (
            "no private key",
            with(|file| {
                file.as_object_mut().unwrap().remove("privateKeyPem");
            }),
        ),
        (
            "damaged private key",
            with(|file| {
                let pem = file["privateKeyPem"]
                    .as_str()
                    .unwrap()
                    .replace("MC4CAQ", "MC4CAR");
                file["privateKeyPem"] = pem.into();
            }),
        ),
        (
            "empty private key",
            with(|file| file["privateKeyPem"] = "".into()),
        ),
        (
            "public key of another pair",
            with(|file| file["publicKeyPem"] = other_public.into()),
        ),
        (
            "damaged public key",
            with(|file| file["publicKeyPem"] = "-----BEGIN PUBLIC KEY-----".into()),
        ),
        ("huge", vec![b' '; 100_000]),
    ]
}

#[test]
fn a_damaged_file_is_an_error_and_stays_as_it_is() {
    for (name, contents) in damaged_files() {
        let place = place();
        put(&place.path, &contents);
        let error = DeviceIdentity::load_or_create(&place.path).expect_err(name);
        assert!(
            matches!(error, IdentityError::Damaged { .. }),
            "{name}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("device.json") && text.contains("restore it"),
            "{name}: {text}"
        );
        assert!(
            !text.contains("MC4C"),
            "{name} shows a piece of the key: {text}"
        );
        assert_eq!(
            std::fs::read(&place.path).expect("reads"),
            contents,
            "{name}"
        );
    }
}

#[test]
fn a_damaged_file_is_moved_aside_only_on_request_and_never_lost() {
    for (name, contents) in damaged_files() {
        let place = place();
        put(&place.path, &contents);
        // An earlier one must not be overwritten either.
        let taken = place.path.with_file_name("device.json.damaged");
        std::fs::write(&taken, "earlier").expect("written");
        let (identity, origin) = DeviceIdentity::replace_damaged(&place.path).expect(name);
        let IdentityOrigin::Quarantined { moved_to } = origin else {
            panic!("{name}: {origin:?}");
        };
        assert_eq!(std::fs::read(&moved_to).expect("reads"), contents, "{name}");
        assert_eq!(std::fs::read(&taken).expect("reads"), b"earlier", "{name}");
        let (again, origin) = DeviceIdentity::load_or_create(&place.path).expect(name);
        assert_eq!(origin, IdentityOrigin::Loaded);
        assert_eq!(again.device_id(), identity.device_id());
        assert_private(&place.path);
    }
    let sound = place();
    put(&sound.path, node_file().as_bytes());
    let (_, origin) = DeviceIdentity::replace_damaged(&sound.path).expect("loads");
    assert_eq!(
        origin,
        IdentityOrigin::Loaded,
        "a sound file is not touched"
    );
    assert_eq!(
        std::fs::read_to_string(&sound.path).expect("reads"),
        node_file()
    );
}

#[test]
fn a_newer_version_is_refused_even_on_request() {
    let contents = b"{\"version\":2,\"keys\":{\"kind\":\"new\"}}".to_vec();
    let place = place();
    put(&place.path, &contents);
    for attempt in [
        DeviceIdentity::load_or_create,
        DeviceIdentity::replace_damaged,
    ] {
        let error = attempt(&place.path).expect_err("newer");
        assert!(
            matches!(error, IdentityError::NewerVersion { version: 2, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("update this program"), "{error}");
        assert_eq!(std::fs::read(&place.path).expect("reads"), contents);
    }
}

#[test]
fn a_byte_order_mark_and_other_layouts_are_tolerated() {
    let compact = with(|_| {});
    let marked = ["\u{feff}".as_bytes(), node_file().as_bytes()].concat();
    let windows = node_file().replace('\n', "\r\n").into_bytes();
    let unknown = with(|file| file["addedLater"] = true.into());
    for contents in [compact, marked, windows, unknown] {
        let place = place();
        put(&place.path, &contents);
        let (identity, origin) = DeviceIdentity::load_or_create(&place.path).expect("loads");
        assert_eq!(origin, IdentityOrigin::Loaded);
        assert_eq!(identity.device_id(), COUNTING_ID);
        assert_eq!(
            std::fs::read(&place.path).expect("reads"),
            contents,
            "unchanged"
        );
    }
}

#[test]
fn a_wrong_id_beside_sound_keys_is_corrected_in_place() {
    let place = place();
    let wrong = with(|file| {
        file["deviceId"] = "0000".into();
        file["addedLater"] = 7.into();
    });
    put(&place.path, &wrong);
    let (identity, origin) = DeviceIdentity::load_or_create(&place.path).expect("loads");
    assert_eq!(
        origin,
        IdentityOrigin::IdCorrected {
            found: "0000".to_owned(),
            saved: true
        }
    );
    assert_eq!(identity.device_id(), COUNTING_ID);
    let mut expected: Value = serde_json::from_str(&node_file()).expect("JSON");
    expected["addedLater"] = 7.into();
    let file: Value = serde_json::from_slice(&std::fs::read(&place.path).unwrap()).expect("JSON");
    assert_eq!(file, expected, "everything else is kept");
    assert_private(&place.path);
    let (_, origin) = DeviceIdentity::load_or_create(&place.path).expect("loads");
    assert_eq!(origin, IdentityOrigin::Loaded);
}

#[test]
fn what_cannot_be_read_is_not_replaced() {
    let place = place();
    std::fs::create_dir_all(&place.path).expect("a directory in its place");
    let error = DeviceIdentity::load_or_create(&place.path).expect_err("a directory");
    assert!(matches!(error, IdentityError::Unreadable { .. }), "{error}");
    assert!(place.path.is_dir());
    let error = DeviceIdentity::replace_damaged(&place.path).expect_err("a directory");
    assert!(matches!(error, IdentityError::Unreadable { .. }), "{error}");
    assert!(place.path.is_dir());
}

#[test]
fn what_cannot_be_saved_is_not_used() {
    let place = place();
    // The directory it belongs into is a file.
    std::fs::create_dir_all(place.path.parent().unwrap().parent().unwrap()).expect("made");
    std::fs::write(place.path.parent().unwrap(), "in the way").expect("written");
    let error = DeviceIdentity::load_or_create(&place.path).expect_err("no place");
    assert!(
        matches!(
            error,
            IdentityError::Unwritable { .. } | IdentityError::Unreadable { .. }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("device.json"), "{error}");
}

#[test]
fn load_creates_nothing() {
    let place = place();
    let error = DeviceIdentity::load(&place.path).expect_err("missing");
    assert!(matches!(error, IdentityError::Unreadable { .. }), "{error}");
    assert!(!place.path.exists() && !place.path.parent().unwrap().exists());
}

#[test]
fn processes_that_start_together_share_one_identity() {
    let place = place();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let (identity, _) =
                        DeviceIdentity::load_or_create(&place.path).expect("an identity");
                    identity.device_id().to_owned()
                })
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().expect("no panic"))
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_tightened() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    put(&place.path, node_file().as_bytes());
    std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o644)).expect("set");
    DeviceIdentity::load_or_create(&place.path).expect("loads");
    assert_private(&place.path);
    assert_eq!(
        std::fs::read_to_string(&place.path).expect("reads"),
        node_file()
    );
}

#[cfg(unix)]
fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path)
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[cfg(not(unix))]
fn assert_private(_path: &Path) {}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the key, file and memory agree, and what it signs verifies.
    #[test]
    fn an_identity_survives_its_file(nonce in "[a-f0-9-]{1,40}", seed in any::<[u8; 32]>()) {
        let place = place();
        let (created, _) = DeviceIdentity::load_or_create(&place.path).expect("creates");
        let (loaded, _) = DeviceIdentity::load_or_create(&place.path).expect("loads");
        for identity in [&created, &loaded, &DeviceIdentity::from_seed(&seed)] {
            let payload = DeviceAuthPayload {
                version: DevicePayloadVersion::V3,
                device_id: identity.device_id().to_owned(),
                client_id: ClientId::GatewayClient,
                client_mode: ClientMode::Backend,
                role: Role::Operator,
                scopes: Vec::new(),
                signed_at_ms: 1,
                token: None,
                nonce: Some(nonce.clone()),
                platform: None,
                device_family: None,
            };
            verify(identity, &payload.signing_text(), &identity.sign(&payload));
            prop_assert_eq!(identity.device_id().len(), 64);
        }
        prop_assert_eq!(created.device_id(), loaded.device_id());
        prop_assert_eq!(created.public_key_base64url(), loaded.public_key_base64url());
    }
}
