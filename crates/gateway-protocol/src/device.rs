//! The text that a device signs to prove that it owns its key.

use alloc::string::String;
use core::fmt;

use crate::{ClientId, ClientMode, ConnectParams, Role, Sensitive};

/// Layout of the signed text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DevicePayloadVersion {
    /// Without nonce. Gateways that send a challenge refuse it.
    V1,
    /// With nonce.
    V2,
    /// With nonce, platform and device family. Every version seen accepts it and tries it first.
    #[default]
    V3,
}

impl DevicePayloadVersion {
    /// First field of the text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    /// The layout of older clients: [`V2`](Self::V2) when there is a nonce that is not empty, else [`V1`](Self::V1).
    pub fn for_nonce(nonce: Option<&str>) -> Self {
        match nonce {
            None | Some("") => Self::V1,
            Some(_) => Self::V2,
        }
    }
}

impl fmt::Display for DevicePayloadVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a device signs. Every value must be the one that the connect request sends.
///
/// ```
/// use gateway_protocol::{ClientInfo, ConnectAuth, ConnectParams, DeviceAuthPayload, DevicePayloadVersion};
///
/// let params = ConnectParams {
///     scopes: vec!["operator.read".into()],
///     auth: Some(ConnectAuth::token("hush")),
///     ..ConnectParams::new(ClientInfo::new("0.1.0", "Linux"))
/// };
/// let payload = DeviceAuthPayload::for_connect(DevicePayloadVersion::V3, "ab12", &params, 1795402436158, "n-1");
/// assert_eq!(
///     payload.signing_text(),
///     "v3|ab12|gateway-client|backend|operator|operator.read|1795402436158|hush|n-1|linux|",
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceAuthPayload {
    /// Layout.
    pub version: DevicePayloadVersion,
    /// Lower-case hexadecimal SHA-256 of the raw public key.
    pub device_id: String,
    /// `client.id`.
    pub client_id: ClientId,
    /// `client.mode`.
    pub client_mode: ClientMode,
    /// `role`.
    pub role: Role,
    /// `scopes`, in the order in which they are sent.
    pub scopes: alloc::vec::Vec<String>,
    /// `device.signedAt`, in milliseconds since 1970.
    pub signed_at_ms: u64,
    /// The secret of the request; see [`ConnectAuth::signed_token`](crate::ConnectAuth::signed_token).
    pub token: Option<Sensitive>,
    /// Nonce of the challenge. Not part of version 1.
    pub nonce: Option<String>,
    /// `client.platform`. Part of version 3 only.
    pub platform: Option<String>,
    /// `client.deviceFamily`. Part of version 3 only.
    pub device_family: Option<String>,
}

impl DeviceAuthPayload {
    /// The payload that belongs to a connect request.
    pub fn for_connect(
        version: DevicePayloadVersion,
        device_id: impl Into<String>,
        params: &ConnectParams,
        signed_at_ms: u64,
        nonce: impl Into<String>,
    ) -> Self {
        Self {
            version,
            device_id: device_id.into(),
            client_id: params.client.id.clone(),
            client_mode: params.client.mode.clone(),
            role: params.role.clone(),
            scopes: params.scopes.clone(),
            signed_at_ms,
            token: params
                .auth
                .as_ref()
                .and_then(|auth| auth.signed_token().cloned()),
            nonce: Some(nonce.into()),
            platform: Some(params.client.platform.clone()),
            device_family: params.client.device_family.clone(),
        }
    }

    /// The text to sign, as UTF-8. **It contains the token**: sign it and drop it.
    ///
    /// Fields are joined by `|`, absent ones are empty, platform and device family are trimmed and put in ASCII
    /// lower case. Nothing is escaped: see [`ambiguous_field`](Self::ambiguous_field).
    pub fn signing_text(&self) -> String {
        let mut text = alloc::format!(
            "{}|{}|{}|{}|{}|{}|{}|{}",
            self.version,
            self.device_id,
            self.client_id,
            self.client_mode,
            self.role,
            self.scopes.join(","),
            self.signed_at_ms,
            self.token.as_ref().map_or("", Sensitive::expose),
        );
        if self.version != DevicePayloadVersion::V1 {
            text.push('|');
            text.push_str(self.nonce.as_deref().unwrap_or_default());
        }
        if self.version == DevicePayloadVersion::V3 {
            for value in [&self.platform, &self.device_family] {
                text.push('|');
                text.push_str(&normalised(value.as_deref()));
            }
        }
        text
    }

    /// Name of a field whose value holds a separator, so that two different payloads have the same text.
    ///
    /// The gateway does not mind; a careful signer refuses.
    pub fn ambiguous_field(&self) -> Option<&'static str> {
        let fields = [
            ("deviceId", Some(self.device_id.as_str())),
            ("client.id", Some(self.client_id.as_str())),
            ("client.mode", Some(self.client_mode.as_str())),
            ("role", Some(self.role.as_str())),
            ("token", self.token.as_ref().map(Sensitive::expose)),
            ("nonce", self.nonce.as_deref()),
            ("client.platform", self.platform.as_deref()),
            ("client.deviceFamily", self.device_family.as_deref()),
        ];
        if self.scopes.iter().any(|scope| scope.contains(['|', ','])) {
            return Some("scopes");
        }
        fields
            .into_iter()
            .find(|(_, value)| value.is_some_and(|value| value.contains('|')))
            .map(|(name, _)| name)
    }
}

/// Trimmed as JavaScript trims, and in ASCII lower case.
fn normalised(value: Option<&str>) -> String {
    value
        .unwrap_or_default()
        // JavaScript's `trim` also removes the byte order mark, and not the control character U+0085.
        .trim_matches(|c: char| c == '\u{FEFF}' || (c.is_whitespace() && c != '\u{85}'))
        .to_ascii_lowercase()
}
