//! The device identity: an Ed25519 key pair in a file.
//!
//! The gateway pairs with the key, so losing the file means losing every pairing. This module therefore creates a
//! key only where there is none, and never writes over something it could not read: a damaged file, a file of a
//! newer version and a file that may not be read are three different errors, and none of them changes a byte.
//! [`DeviceIdentity::replace_damaged`] is the explicit way on; it keeps the damaged file under another name.
//!
//! The format is the one of the Node clients (version 1, two PEM texts), in both directions.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::pkcs8::{PublicKeyBytes, spki::DecodePublicKey};
use ed25519_dalek::{Signer, SigningKey};
use gateway_protocol::device::DeviceAuthPayload;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::private_file;

/// The version of the file format that is written and read.
const FILE_VERSION: u64 = 1;

/// An identity file is about 500 bytes. Anything this large is something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A device's key pair and the id derived from it.
///
/// Debug shows the device id, which is public. The private key never leaves this type except into its own file,
/// and is wiped from memory on drop.
pub struct DeviceIdentity {
    key: SigningKey,
    device_id: String,
    created_at_ms: u64,
}

/// Where an identity came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityOrigin {
    /// Read from the file.
    Loaded,
    /// There was no file; a new key was created and saved.
    Created,
    /// Read from the file, whose device id did not belong to its (intact) keys. The id was corrected.
    IdCorrected {
        /// The id that stood in the file.
        found: String,
        /// Whether the correction could be saved. If not, it is made again at the next start.
        saved: bool,
    },
    /// The file was damaged and was moved aside; a new key was created and saved. Devices have to be paired again.
    Quarantined {
        /// Where the damaged file is now.
        moved_to: PathBuf,
    },
}

/// Why there is no identity. No variant leaves a changed file behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is there but may not or cannot be read.
    #[error("the device identity {} cannot be read: {source}; make it readable for this user", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is there but holds no usable identity.
    #[error(
        "the device identity {} is damaged ({reason}); restore it from a backup, or move it away and pair this \
         device again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a newer program.
    #[error(
        "the device identity {} has version {version}, but this program knows only version 1; update this program",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        version: u64,
    },
    /// A new identity could not be saved. An identity that would be gone tomorrow is not used today.
    #[error(
        "a new device identity could not be saved at {}: {source}; make the directory writable or choose another",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for a new device key: {reason}")]
    NoRandomness {
        /// What the operating system said.
        reason: String,
    },
}

/// Private and public key as they stand in the file. Field order is that of the Node clients.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityFile {
    version: u64,
    device_id: String,
    public_key_pem: String,
    private_key_pem: Zeroizing<String>,
    #[serde(default)]
    created_at_ms: u64,
    /// Fields of other programs, kept when the file is corrected.
    #[serde(flatten)]
    extra: serde_json::Map<String, serde_json::Value>,
}

/// Only the version: it decides whether the rest means what we think.
#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

impl DeviceIdentity {
    /// Reads the identity at `path`, or creates one there when nothing is at that path.
    ///
    /// A byte-order mark is tolerated. On Unix a file that others may read is tightened to mode 0600. If another
    /// process creates the file at the same moment, both end up with that one identity.
    ///
    /// # Errors
    /// See [`IdentityError`]; the file is unchanged in every case.
    pub fn load_or_create(path: &Path) -> Result<(Self, IdentityOrigin), IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Self::create(path)
            }
            other => other,
        }
    }

    /// Reads the identity at `path` and creates nothing.
    ///
    /// # Errors
    /// See [`IdentityError`]. A missing file is [`IdentityError::Unreadable`] with [`io::ErrorKind::NotFound`].
    pub fn load(path: &Path) -> Result<(Self, IdentityOrigin), IdentityError> {
        let text = read(path)?;
        let (identity, found) = Self::parse(path, &text)?;
        if found.device_id == identity.device_id {
            return Ok((identity, IdentityOrigin::Loaded));
        }
        let corrected = IdentityFile {
            device_id: identity.device_id.clone(),
            ..found
        };
        let saved = encode(&corrected)
            .map_err(io::Error::other)
            .and_then(|text| private_file::write(path, text.as_bytes(), true));
        if let Err(error) = &saved {
            tracing::warn!(path = %path.display(), %error, "the corrected device id could not be saved");
        }
        let origin = IdentityOrigin::IdCorrected {
            found: found.device_id,
            saved: saved.is_ok(),
        };
        Ok((identity, origin))
    }

    /// As [`DeviceIdentity::load_or_create`], but a damaged file is moved aside (never deleted) and a new identity
    /// takes its place. Every pairing of the old key is lost, so call this only when the user has agreed.
    ///
    /// # Errors
    /// See [`IdentityError`]; only [`IdentityError::Damaged`] no longer occurs unless the file cannot be moved.
    pub fn replace_damaged(path: &Path) -> Result<(Self, IdentityOrigin), IdentityError> {
        match Self::load_or_create(path) {
            Err(IdentityError::Damaged { .. }) => {}
            other => return other,
        }
        let moved_to = move_aside(path).map_err(|source| IdentityError::Unwritable {
            path: path.to_owned(),
            source,
        })?;
        let (identity, _) = Self::create(path)?;
        Ok((identity, IdentityOrigin::Quarantined { moved_to }))
    }

    /// An identity from the 32 bytes of an Ed25519 seed. It is not saved anywhere.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let device_id = device_id_of(key.verifying_key().as_bytes());
        Self {
            key,
            device_id,
            created_at_ms: 0,
        }
    }

    /// The device id: lower-case hex SHA-256 of the raw public key.
    #[must_use]
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The raw public key as unpadded base64url, as the connect request carries it.
    #[must_use]
    pub fn public_key_base64url(&self) -> String {
        Base64UrlUnpadded::encode_string(self.key.verifying_key().as_bytes())
    }

    /// When the identity was created, in milliseconds since 1970; 0 when unknown.
    #[must_use]
    pub fn created_at_ms(&self) -> u64 {
        self.created_at_ms
    }

    /// Signs the text of `payload` and returns the signature as unpadded base64url.
    #[must_use]
    pub fn sign(&self, payload: &DeviceAuthPayload) -> String {
        // The text holds the token.
        let text = Zeroizing::new(payload.signing_text());
        Base64UrlUnpadded::encode_string(&self.key.sign(text.as_bytes()).to_bytes())
    }

    fn create(path: &Path) -> Result<(Self, IdentityOrigin), IdentityError> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|error| IdentityError::NoRandomness {
            reason: error.to_string(),
        })?;
        let mut identity = Self::from_seed(&seed);
        identity.created_at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let unwritable = |source| IdentityError::Unwritable {
            path: path.to_owned(),
            source,
        };
        let text = identity
            .to_file()
            .and_then(|file| encode(&file))
            .map_err(|reason| unwritable(io::Error::other(reason)))?;
        match private_file::write(path, text.as_bytes(), false) {
            Ok(()) => Ok((identity, IdentityOrigin::Created)),
            // Somebody was faster: theirs is the identity now.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(unwritable(error)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<(Self, IdentityFile), IdentityError> {
        let damaged = |reason: String| IdentityError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        let json = |error: serde_json::Error| damaged(describe_json(&error));
        let VersionOnly { version } = serde_json::from_str(text).map_err(json)?;
        if version > FILE_VERSION {
            return Err(IdentityError::NewerVersion {
                path: path.to_owned(),
                version,
            });
        }
        if version < FILE_VERSION {
            return Err(damaged(format!("version {version} does not exist")));
        }
        let file: IdentityFile = serde_json::from_str(text).map_err(json)?;
        let pair = KeypairBytes::from_pkcs8_pem(&file.private_key_pem)
            .map_err(|_| damaged("privateKeyPem is no Ed25519 private key".to_owned()))?;
        let public = PublicKeyBytes::from_public_key_pem(&file.public_key_pem)
            .map_err(|_| damaged("publicKeyPem is no Ed25519 public key".to_owned()))?;
        let mut identity = Self::from_seed(&pair.secret_key);
        let derived = identity.key.verifying_key().to_bytes();
        let contradicts = |bytes: [u8; 32]| bytes != derived;
        if contradicts(public.to_bytes())
            || pair
                .public_key
                .is_some_and(|own| contradicts(own.to_bytes()))
        {
            return Err(damaged(
                "its private and public key do not belong together".to_owned(),
            ));
        }
        identity.created_at_ms = file.created_at_ms;
        Ok((identity, file))
    }

    fn to_file(&self) -> Result<IdentityFile, String> {
        // Without the public half this is PKCS#8 version 1, the only form that Node reads and the one it writes.
        let pair = KeypairBytes {
            secret_key: self.key.to_bytes(),
            public_key: None,
        };
        let private_key_pem = pair
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| error.to_string())?;
        let public = PublicKeyBytes(self.key.verifying_key().to_bytes());
        let public_key_pem = public
            .to_public_key_pem(LineEnding::LF)
            .map_err(|error| error.to_string())?;
        Ok(IdentityFile {
            version: FILE_VERSION,
            device_id: self.device_id.clone(),
            public_key_pem,
            private_key_pem,
            created_at_ms: self.created_at_ms,
            extra: serde_json::Map::new(),
        })
    }
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceIdentity")
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

fn device_id_of(public_key: &[u8; 32]) -> String {
    use fmt::Write;
    Sha256::digest(public_key)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

fn read(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    let unreadable = |source| IdentityError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    match private_file::tighten(&file) {
        Ok(false) => {}
        Ok(true) => {
            tracing::warn!(path = %path.display(), "others could read the device identity; it is private now");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "others can read the device identity");
        }
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let damaged = |reason: &str| IdentityError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(damaged("it is far larger than an identity"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(damaged("it is not UTF-8 text")),
    }
}

/// The place of the fault without the text around it, which could be a piece of the key.
fn describe_json(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it is cut off",
        serde_json::error::Category::Data => "a field is missing or has the wrong type",
        _ => "it is not JSON",
    };
    format!("{what}, line {} column {}", error.line(), error.column())
}

fn encode(file: &IdentityFile) -> Result<Zeroizing<String>, String> {
    let mut text = serde_json::to_string_pretty(file).map_err(|error| error.to_string())?;
    text.push('\n');
    Ok(Zeroizing::new(text))
}

/// Gives the file a name that is free: `identity.json.damaged`, then `.damaged-2` and so on.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    for attempt in 1..=1000_u32 {
        let mut name = path.as_os_str().to_owned();
        name.push(".damaged");
        if attempt > 1 {
            name.push(format!("-{attempt}"));
        }
        let target = PathBuf::from(name);
        // A hard link fails when the name is taken, where a rename would silently replace.
        match std::fs::hard_link(path, &target) {
            Ok(()) => {
                std::fs::remove_file(path)?;
                return Ok(target);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) if !target.exists() => {
                // File systems without hard links.
                std::fs::rename(path, &target)?;
                return Ok(target);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many damaged identities beside it"))
}
