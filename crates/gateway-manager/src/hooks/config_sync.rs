//! A ready step that brings the gateway's configuration file into line with the launch.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::config_edit::{EditError, Wishes, edited};
use super::{HookError, LaunchContext, PreparationHook};

/// A configuration is a few KiB; what is larger than this is left alone.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// How often the work is begun anew because somebody else changed the file meanwhile.
const ATTEMPTS: usize = 2;

/// Changes a few settings of the configuration file before each launch. Everything is off until it is asked for.
///
/// The rest of the file stays as it is, with its comments and its layout; where that cannot be done, nothing is written and the launch goes on
/// with a warning. So it does with a file that cannot be read. When everything is as it should be, nothing is written either. A file that is
/// written is complete at any time, and only its owner can read it.
///
/// ```
/// # fn example(openclaw: gateway_manager::OpenClaw) -> Result<(), gateway_manager::BuildError> {
/// use gateway_manager::{GatewayManager, hooks::ConfigSync};
/// let manager = GatewayManager::builder()
///     .openclaw(openclaw)
///     .hook(ConfigSync::new().local_mode(true).token(true))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConfigSync {
    sanitize_skills: bool,
    local_mode: bool,
    browser_defaults: bool,
    token: bool,
}

impl ConfigSync {
    /// Changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to remove `skills.enabled` and `skills.disabled`, which older applications wrote and OpenClaw does not accept.
    #[must_use]
    pub fn sanitize_skills(mut self, sanitize: bool) -> Self {
        self.sanitize_skills = sanitize;
        self
    }

    /// Whether to set `gateway.mode` to `local` where it is missing.
    #[must_use]
    pub fn local_mode(mut self, set: bool) -> Self {
        self.local_mode = set;
        self
    }

    /// Whether to set `browser.enabled` to true and `browser.defaultProfile` to `openclaw` where they are missing.
    #[must_use]
    pub fn browser_defaults(mut self, set: bool) -> Self {
        self.browser_defaults = set;
        self
    }

    /// Whether to write the token of the launch to `gateway.auth.token`, and token mode where no mode is set, so that OpenClaw's own commands
    /// on this machine reach the gateway too. The gateway itself needs no token in the file. A user's password, or any other mode, stays;
    /// and so does a token that is filled in from the environment or kept in a store of secrets.
    #[must_use]
    pub fn token(mut self, write: bool) -> Self {
        self.token = write;
        self
    }
}

#[async_trait]
impl PreparationHook for ConfigSync {
    fn name(&self) -> &str {
        "configuration"
    }

    fn is_required(&self) -> bool {
        false
    }

    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
        let token = context.launch.token.as_ref().filter(|_| self.token);
        let wishes = Wishes {
            sanitize_skills: self.sanitize_skills,
            local_mode: self.local_mode,
            browser_defaults: self.browser_defaults,
            token: token.map(|token| token.expose_secret().to_owned()),
        };
        let Some(path) = context.config_path() else {
            return Err(HookError::new(
                "the configuration file is not known; set a state directory, HOME or OPENCLAW_CONFIG_PATH",
            ));
        };
        let shown = path.display().to_string();
        match tokio::task::spawn_blocking(move || sync(&path, &wishes)).await {
            Ok(outcome) => outcome.map_err(|error| error.into_hook_error(&shown)),
            Err(_) => Err(HookError::temporary("this program is ending")),
        }
    }
}

#[derive(Debug)]
enum SyncError {
    Read(io::Error),
    Edit(EditError),
    Write(io::Error),
    Busy,
}

impl SyncError {
    fn into_hook_error(self, path: &str) -> HookError {
        match self {
            Self::Read(error) => HookError::new(format!(
                "the configuration {path} cannot be read ({error}) and was left as it is; correct its permissions"
            )),
            Self::Edit(error) => HookError::new(format!(
                "the configuration {path} was left as it is: {error}; change it by hand, or run `openclaw doctor`"
            )),
            Self::Write(error) => HookError::new(format!(
                "the configuration {path} cannot be written ({error}) and was left as it is; make its folder writable"
            )),
            Self::Busy => HookError::temporary(format!(
                "somebody else is changing the configuration {path}; it was left as it is"
            )),
        }
    }
}

/// Writes the file when the wishes change it. Blocks on the file system.
fn sync(path: &Path, wishes: &Wishes) -> Result<(), SyncError> {
    // A link to the file stays one.
    let file = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..ATTEMPTS {
        let before = read(&file).map_err(SyncError::Read)?;
        let text = before.as_deref().unwrap_or("{}\n");
        let Some(after) = edited(text, wishes).map_err(SyncError::Edit)? else {
            return Ok(());
        };
        if replace(&file, before.as_deref(), &after).map_err(SyncError::Write)? {
            tracing::info!(file = %file.display(), "the configuration was brought into line with the launch");
            return Ok(());
        }
    }
    Err(SyncError::Busy)
}

/// The file's text; `None` when there is no file.
fn read(file: &Path) -> io::Result<Option<String>> {
    let opened = match fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    let length = opened
        .take(MAX_CONFIG_BYTES + 1)
        .read_to_string(&mut text)?;
    if length as u64 > MAX_CONFIG_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(text))
}

/// Puts `after` in place of `before`; `false` when the file does not hold `before` any more.
fn replace(file: &Path, before: Option<&str>, after: &str) -> io::Result<bool> {
    let folder = folder_of(file);
    fs::create_dir_all(&folder)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".openclaw-config-")
        .tempfile_in(&folder)?;
    temporary.write_all(after.as_bytes())?;
    temporary.as_file().sync_all()?;
    if before.is_none() {
        return match temporary.persist_noclobber(file) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        };
    }
    if read(file)?.as_deref() != before {
        return Ok(false);
    }
    temporary.persist(file)?;
    Ok(true)
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode() -> Wishes {
        Wishes {
            local_mode: true,
            ..Wishes::default()
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_only_when_something_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/openclaw.json");
        sync(&file, &Wishes::default()).unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
        sync(&file, &mode()).unwrap();
        let first = fs::read_to_string(&file).unwrap();
        assert_eq!(
            json5::from_str::<serde_json::Value>(&first).unwrap()["gateway"]["mode"],
            "local"
        );
        assert_eq!(names(&folder_of(&file)), ["openclaw.json"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, PermissionsExt};
            let facts = || fs::metadata(&file).unwrap();
            assert_eq!(facts().permissions().mode() & 0o777, 0o600);
            let before = facts().ino();
            sync(&file, &mode()).unwrap();
            assert_eq!(facts().ino(), before, "it was written again");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (
            folder.path().join("real.json5"),
            folder.path().join("openclaw.json"),
        );
        fs::write(&real, "{} // mine").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        sync(&link, &mode()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("// mine"));
    }

    #[test]
    fn a_file_that_cannot_be_read_or_understood_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("openclaw.json");
        for content in [b"{ broken secret-token".as_slice(), b"\xff\xfe", b"", b"[]"] {
            fs::write(&file, content).unwrap();
            let error = sync(&file, &mode()).unwrap_err();
            let text = error.into_hook_error("the file").to_string();
            assert!(
                text.contains("left as it is") && !text.contains("secret-token"),
                "{text}"
            );
            assert_eq!(fs::read(&file).unwrap(), content);
            assert_eq!(names(folder.path()), ["openclaw.json"]);
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(sync(&file, &mode()), Err(SyncError::Read(_))));
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("openclaw.json");
        fs::write(&file, "{theirs: 1}").unwrap();
        assert!(!replace(&file, Some("{}"), "{ours: 1}").unwrap());
        assert!(!replace(&file, None, "{ours: 1}").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{theirs: 1}");
        assert!(replace(&file, Some("{theirs: 1}"), "{ours: 1}").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{ours: 1}");
        assert_eq!(names(folder.path()), ["openclaw.json"]);
    }
}
