//! Secrets of the connect request, where they come from, and where an issued device token is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::private_file;

/// The secrets that a connect request may carry. None of them is ever shown by Debug or Display.
///
/// When the shared token and a device token are both present, the gateway looks at the shared one.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Credentials {
    /// The gateway's shared token (`OPENCLAW_GATEWAY_TOKEN`, `gateway.auth.token`).
    pub token: Option<SecretString>,
    /// The gateway's password, when it runs in password mode.
    pub password: Option<SecretString>,
    /// The token that the gateway issued to this device; useless without the device's key.
    pub device_token: Option<SecretString>,
    /// A one-time token for the first pairing (protocol 4).
    pub bootstrap_token: Option<SecretString>,
}

impl Credentials {
    /// No secrets: enough for a gateway that runs with `--auth none`.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The shared token.
    pub fn token(token: impl Into<SecretString>) -> Self {
        Self {
            token: Some(token.into()),
            ..Self::default()
        }
    }

    /// The password of a gateway in password mode.
    pub fn password(password: impl Into<SecretString>) -> Self {
        Self {
            password: Some(password.into()),
            ..Self::default()
        }
    }

    /// Adds a device token.
    #[must_use]
    pub fn with_device_token(mut self, token: impl Into<SecretString>) -> Self {
        self.device_token = Some(token.into());
        self
    }

    /// Adds a bootstrap token.
    #[must_use]
    pub fn with_bootstrap_token(mut self, token: impl Into<SecretString>) -> Self {
        self.bootstrap_token = Some(token.into());
        self
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token.is_none()
            && self.password.is_none()
            && self.device_token.is_none()
            && self.bootstrap_token.is_none()
    }
}

/// Credentials read at the moment of each handshake, for example from settings that may change in between.
///
/// The handshake's deadline also covers this call: a source that hangs or fails ends the handshake with an error.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CredentialSource: Send + Sync + 'static {
    /// The credentials to use now.
    ///
    /// # Errors
    /// The handshake fails with [`ConnectError::Credentials`](crate::ConnectError::Credentials) and the socket is
    /// closed.
    async fn credentials(&self) -> Result<Credentials, CredentialError>;
}

/// Why credentials could not be read or saved. The text must not contain a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A file could not be read, understood or written.
    #[error("the credential file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// Any other source failed.
    #[error("the credentials could not be read: {reason}")]
    Source {
        /// What went wrong.
        reason: String,
    },
}

impl CredentialError {
    /// An error of a source that is not a file.
    pub fn source(reason: impl Into<String>) -> Self {
        Self::Source {
            reason: reason.into(),
        }
    }
}

/// A device token that a gateway issued in its hello.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceToken {
    /// The token.
    pub token: SecretString,
    /// The scopes that it was issued for.
    pub scopes: Vec<String>,
    /// When it was issued, in milliseconds since 1970, if the gateway said so.
    pub issued_at_ms: Option<u64>,
}

impl DeviceToken {
    /// A token with the scopes that it was issued for.
    pub fn new(token: impl Into<SecretString>, scopes: Vec<String>) -> Self {
        Self {
            token: token.into(),
            scopes,
            issued_at_ms: None,
        }
    }

    /// Adds the time of issue.
    #[must_use]
    pub fn issued_at_ms(mut self, milliseconds: Option<u64>) -> Self {
        self.issued_at_ms = milliseconds;
        self
    }
}

/// Keeps the device tokens of one gateway, one per device and role.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CredentialStore: Send + Sync + 'static {
    /// The token kept for a device in a role.
    ///
    /// # Errors
    /// The store cannot be read; a missing token is `Ok(None)`.
    async fn load(
        &self,
        device_id: &str,
        role: &str,
    ) -> Result<Option<DeviceToken>, CredentialError>;

    /// Keeps a token in place of an earlier one.
    ///
    /// # Errors
    /// The store cannot be written; what it held before is unchanged.
    async fn save(
        &self,
        device_id: &str,
        role: &str,
        token: &DeviceToken,
    ) -> Result<(), CredentialError>;

    /// Forgets a token, for example after the gateway refused it. Forgetting nothing is no error.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn remove(&self, device_id: &str, role: &str) -> Result<(), CredentialError>;
}

/// A [`CredentialStore`] in a JSON file: mode 0600, replaced in one step. Use one file for each gateway.
///
/// A file that cannot be understood is an error and stays as it is. Within a process, share one store between the
/// connections that use the file; between processes the last writer wins.
#[derive(Debug)]
pub struct FileCredentialStore {
    path: PathBuf,
    /// One read-change-write at a time.
    turn: tokio::sync::Mutex<()>,
}

impl FileCredentialStore {
    /// A store at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs file work on a thread where it may block.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, CredentialError> + Send + 'static,
    ) -> Result<T, CredentialError> {
        let path = self.path.clone();
        let _turn = self.turn.lock().await;
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(result) => result,
            Err(error) => Err(CredentialError::File {
                path: self.path.clone(),
                reason: error.to_string(),
            }),
        }
    }
}

#[async_trait]
impl CredentialStore for FileCredentialStore {
    async fn load(
        &self,
        device_id: &str,
        role: &str,
    ) -> Result<Option<DeviceToken>, CredentialError> {
        let key = key(device_id, role);
        self.work(move |path| Ok(read(path)?.tokens.remove(&key).map(DeviceToken::from)))
            .await
    }

    async fn save(
        &self,
        device_id: &str,
        role: &str,
        token: &DeviceToken,
    ) -> Result<(), CredentialError> {
        let key = key(device_id, role);
        let token = StoredToken::from(token);
        self.work(move |path| {
            let mut file = read(path)?;
            file.tokens.insert(key, token);
            write(path, &file)
        })
        .await
    }

    async fn remove(&self, device_id: &str, role: &str) -> Result<(), CredentialError> {
        let key = key(device_id, role);
        self.work(move |path| {
            let mut file = read(path)?;
            if file.tokens.remove(&key).is_none() {
                return Ok(());
            }
            write(path, &file)
        })
        .await
    }
}

/// A device id is hexadecimal, so the separator cannot occur in it.
fn key(device_id: &str, role: &str) -> String {
    format!("{device_id}/{role}")
}

#[derive(Serialize, Deserialize)]
struct StoreFile {
    version: u32,
    tokens: BTreeMap<String, StoredToken>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredToken {
    token: Zeroizing<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_at_ms: Option<u64>,
}

impl From<StoredToken> for DeviceToken {
    fn from(stored: StoredToken) -> Self {
        Self {
            token: SecretString::from(stored.token.as_str()),
            scopes: stored.scopes,
            issued_at_ms: stored.issued_at_ms,
        }
    }
}

impl From<&DeviceToken> for StoredToken {
    fn from(token: &DeviceToken) -> Self {
        Self {
            token: Zeroizing::new(token.token.expose_secret().to_owned()),
            scopes: token.scopes.clone(),
            issued_at_ms: token.issued_at_ms,
        }
    }
}

impl fmt::Debug for StoredToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredToken")
    }
}

fn read(path: &Path) -> Result<StoreFile, CredentialError> {
    let failed = |reason: String| CredentialError::File {
        path: path.to_owned(),
        reason,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(StoreFile {
                version: 1,
                tokens: BTreeMap::new(),
            });
        }
        Err(error) => return Err(failed(format!("cannot be read: {error}"))),
    };
    // The parser's own message may quote the file.
    let file: StoreFile = serde_json::from_str(&text).map_err(|error| {
        failed(format!(
            "is damaged at line {} column {}; remove it to have new tokens issued",
            error.line(),
            error.column()
        ))
    })?;
    if file.version != 1 {
        return Err(failed(format!(
            "has version {}, but this program knows only version 1",
            file.version
        )));
    }
    Ok(file)
}

fn write(path: &Path, file: &StoreFile) -> Result<(), CredentialError> {
    let failed = |reason: String| CredentialError::File {
        path: path.to_owned(),
        reason,
    };
    let mut text = serde_json::to_string_pretty(file)
        .map(Zeroizing::new)
        .map_err(|error| failed(error.to_string()))?;
    text.push('\n');
    private_file::write(path, text.as_bytes(), true)
        .map_err(|error| failed(format!("cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_are_kept_by_device_and_role() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/er/tokens.json");
        let store = FileCredentialStore::new(&path);
        assert!(store.load("ab", "operator").await.expect("reads").is_none());
        store
            .remove("ab", "operator")
            .await
            .expect("nothing to remove");
        assert!(!path.exists(), "reading creates nothing");

        let token =
            DeviceToken::new("s3cret-one", vec!["operator.read".to_owned()]).issued_at_ms(Some(5));
        store.save("ab", "operator", &token).await.expect("saved");
        store
            .save("ab", "node", &DeviceToken::new("s3cret-two", Vec::new()))
            .await
            .expect("saved");
        let kept = FileCredentialStore::new(&path)
            .load("ab", "operator")
            .await
            .expect("reads")
            .expect("is there");
        assert_eq!(kept.token.expose_secret(), "s3cret-one");
        assert_eq!((kept.scopes.len(), kept.issued_at_ms), (1, Some(5)));
        assert!(!format!("{kept:?} {store:?}").contains("s3cret"));
        assert_private(&path);

        store.remove("ab", "operator").await.expect("removed");
        assert!(store.load("ab", "operator").await.expect("reads").is_none());
        assert!(store.load("ab", "node").await.expect("reads").is_some());
    }

    #[tokio::test]
    async fn a_damaged_or_newer_store_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tokens.json");
        let token = DeviceToken::new("s3cret", Vec::new());
        for contents in [
            "",
            "{\"version\":1,\"tokens\":{\"a/b\":{\"token\":7}}}",
            "{\"version\":2,\"tokens\":{}}",
        ] {
            std::fs::write(&path, contents).expect("written");
            let store = FileCredentialStore::new(&path);
            let error = store.save("a", "b", &token).await.expect_err("refused");
            assert!(error.to_string().contains("tokens.json"), "{error}");
            assert!(store.load("a", "b").await.is_err());
            assert_eq!(std::fs::read_to_string(&path).expect("reads"), contents);
        }
    }

    #[tokio::test]
    async fn saving_at_the_same_time_loses_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = std::sync::Arc::new(FileCredentialStore::new(directory.path().join("t.json")));
        let mut saving = tokio::task::JoinSet::new();
        for n in 0..8 {
            let store = store.clone();
            saving.spawn(async move {
                let token = DeviceToken::new(format!("t{n}"), Vec::new());
                store.save(&format!("{n:x}"), "operator", &token).await
            });
        }
        for saved in saving.join_all().await {
            saved.expect("saved");
        }
        for n in 0..8 {
            let kept = store
                .load(&format!("{n:x}"), "operator")
                .await
                .expect("reads");
            assert!(kept.is_some(), "{n}");
        }
    }

    #[cfg(unix)]
    fn assert_private(path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path)
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[cfg(not(unix))]
    fn assert_private(_path: &Path) {}
}
