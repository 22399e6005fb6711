//! The gateway's side of the device proof.

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::options::Refusal;

/// How far `signedAt` may be from the server clock, either way.
const CLOCK_TOLERANCE_MS: u64 = 120_000;

/// The parts of `connect` that are signed.
pub(super) struct Claim<'a> {
    pub(super) client: &'a Value,
    pub(super) role: &'a str,
    pub(super) scopes: &'a [String],
    /// `auth.token`, else `auth.deviceToken`, else (protocol 4) `auth.bootstrapToken`, else empty.
    pub(super) token: &'a str,
}

/// Checks `connect.device` in the gateway's order: id, age, nonce, signature.
pub(super) fn verify(
    device: &Value,
    claim: &Claim<'_>,
    nonce: &str,
    now_ms: u64,
) -> Result<(), Box<Refusal>> {
    let id = device["id"].as_str().unwrap_or_default();
    let key = device["publicKey"].as_str().and_then(public_key);
    let Some(key) = key.filter(|key| hex_sha256(key) == id) else {
        return Err(refusal(
            "device identity mismatch",
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            "device-id-mismatch",
        ));
    };
    let signed_at = device["signedAt"].as_u64().unwrap_or_default();
    if signed_at.abs_diff(now_ms) > CLOCK_TOLERANCE_MS {
        return Err(refusal(
            "device signature expired",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            "device-signature-stale",
        ));
    }
    if device["nonce"].as_str() != Some(nonce) {
        return Err(refusal(
            "device nonce mismatch",
            "DEVICE_AUTH_NONCE_MISMATCH",
            "device-nonce-mismatch",
        ));
    }
    let signature = device["signature"]
        .as_str()
        .and_then(decode)
        .and_then(|bytes| Signature::from_slice(&bytes).ok());
    let key = VerifyingKey::from_bytes(&key).ok();
    let good = signature.zip(key).is_some_and(|(signature, key)| {
        signed_texts(id, claim, signed_at, nonce)
            .iter()
            .any(|text| key.verify_strict(text.as_bytes(), &signature).is_ok())
    });
    if good {
        Ok(())
    } else {
        Err(refusal(
            "device signature invalid",
            "DEVICE_AUTH_SIGNATURE_INVALID",
            "device-signature",
        ))
    }
}

/// The texts a signature is tried against, the newest form first.
fn signed_texts(id: &str, claim: &Claim<'_>, signed_at: u64, nonce: &str) -> [String; 2] {
    let text = |name: &str| claim.client[name].as_str().unwrap_or_default();
    let common = format!(
        "{id}|{}|{}|{}|{}|{signed_at}|{}|{nonce}",
        text("id"),
        text("mode"),
        claim.role,
        claim.scopes.join(","),
        claim.token
    );
    let normal = |name: &str| text(name).trim().to_ascii_lowercase();
    [
        format!(
            "v3|{common}|{}|{}",
            normal("platform"),
            normal("deviceFamily")
        ),
        format!("v2|{common}"),
    ]
}

fn refusal(message: &str, code: &str, reason: &str) -> Box<Refusal> {
    Box::new(
        Refusal::new("INVALID_REQUEST", message).details(json!({"code": code, "reason": reason})),
    )
}

/// Base64url without padding, standard base64, or PEM.
fn public_key(text: &str) -> Option<[u8; 32]> {
    if text.contains("BEGIN PUBLIC KEY") {
        let body: String = text
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .map(str::trim)
            .collect();
        let der = Base64::decode_vec(&body).ok()?;
        return der.last_chunk::<32>().copied().filter(|_| der.len() == 44);
    }
    decode(text)?.try_into().ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let url: String = text
        .trim_end_matches('=')
        .chars()
        .map(|letter| match letter {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    Base64UrlUnpadded::decode_vec(&url).ok()
}

pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature that a real 2026.9.6 gateway accepted.
    #[test]
    fn a_recorded_signature_is_accepted_and_any_change_is_not() {
        let nonce = "643f6cf2-40a0-4c26-b81c-d53d3b1d704c";
        let client = json!({"id": "gateway-client", "mode": "backend", "platform": " Linux "});
        let scopes: Vec<String> = ["admin", "read", "write", "approvals", "pairing"]
            .iter()
            .map(|name| format!("operator.{name}"))
            .collect();
        let device = json!({
            "id": "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c",
            "publicKey": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg",
            "signature": "9ws8dpTdfJT0eaNSDPm4O91HqAHQ-UJEWzaUwcNEtx1rv7IM-znstNZmgiqGU6DxQVhG1pxRXrnpnVZXt1HVCA",
            "signedAt": 1_795_402_436_158_u64,
            "nonce": nonce,
        });
        let claim = Claim {
            client: &client,
            role: "operator",
            scopes: &scopes,
            token: "probe-token-0001",
        };
        let now = 1_795_402_436_158;
        assert!(verify(&device, &claim, nonce, now).is_ok());
        assert!(verify(&device, &claim, nonce, now + 120_000).is_ok());

        let code = |result: Result<(), Box<Refusal>>| {
            result
                .err()
                .and_then(|refusal| refusal.details)
                .map(|details| details["code"].as_str().unwrap().to_owned())
        };
        let other = Claim {
            token: "another",
            ..claim
        };
        assert_eq!(
            code(verify(&device, &other, nonce, now)).as_deref(),
            Some("DEVICE_AUTH_SIGNATURE_INVALID")
        );
        assert_eq!(
            code(verify(&device, &claim, "other", now)).as_deref(),
            Some("DEVICE_AUTH_NONCE_MISMATCH")
        );
        assert_eq!(
            code(verify(&device, &claim, nonce, now + 120_001)).as_deref(),
            Some("DEVICE_AUTH_SIGNATURE_EXPIRED")
        );
        let mut foreign = device.clone();
        foreign["id"] = json!("00");
        assert_eq!(
            code(verify(&foreign, &claim, nonce, now)).as_deref(),
            Some("DEVICE_AUTH_DEVICE_ID_MISMATCH")
        );
    }
}
