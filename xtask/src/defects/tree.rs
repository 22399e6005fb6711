//! A copy of the workspace in which code may be broken, and put right again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workspace::{self, Workspace};

/// Variables with which git is told where a repository is, for example within a hook. The copy is in none.
const GIT_PLACES: &[&str] = &["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"];

/// The copy, and what belongs into it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// The build folder of the copy, beside it, so that the next run finds what this one has built.
    build: PathBuf,
    /// Every file, by its path below the root.
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug)]
struct File {
    content: Vec<u8>,
    permissions: fs::Permissions,
}

/// Why this machine cannot change a copy; `None` when it can.
pub(crate) fn impossible() -> Option<String> {
    let version = git().arg("--version").stdin(Stdio::null()).output();
    match version {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("git is there but does not run ({})", output.status)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some("git, which applies the patches, is not on this machine".to_owned())
        }
        Err(error) => Some(format!("git does not run: {error}")),
    }
}

fn git() -> Command {
    Command::new("git")
}

impl Tree {
    /// Copies the workspace, as it is now, into `folder`. What is there already and right stays as it is, with its
    /// time, so that it is not built again.
    pub(crate) fn copy(workspace: &Workspace, folder: &Path) -> Result<Self, String> {
        Self::of(&workspace.root, &paths(workspace)?, folder)
    }

    fn of(source: &Path, paths: &[PathBuf], folder: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        for path in paths {
            let from = source.join(path);
            let read = fs::metadata(&from).and_then(|metadata| {
                Ok(File {
                    content: fs::read(&from)?,
                    permissions: metadata.permissions(),
                })
            });
            match read {
                Ok(file) => {
                    files.insert(path.clone(), file);
                }
                // Git still lists what somebody has removed and not yet committed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot("read", &from, &error)),
            }
        }
        let tree = Self {
            root: folder.join("tree"),
            build: folder.join("build"),
            files,
        };
        tree.restore()?;
        Ok(tree)
    }

    /// Makes the copy what it was. A file that was changed is written anew, and so has a time at which cargo sees that
    /// what it built is out of date.
    pub(crate) fn restore(&self) -> Result<(), String> {
        fs::create_dir_all(&self.root).map_err(|error| cannot("create", &self.root, &error))?;
        for path in walk(&self.root, |_| true)? {
            if !self.files.contains_key(&path) {
                let path = self.root.join(path);
                fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))?;
            }
        }
        for (path, file) in &self.files {
            let path = self.root.join(path);
            if fs::read(&path).is_ok_and(|content| content == file.content) {
                continue;
            }
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
            }
            fs::write(&path, &file.content)
                .and_then(|()| fs::set_permissions(&path, file.permissions.clone()))
                .map_err(|error| cannot("write", &path, &error))?;
        }
        Ok(())
    }

    /// The command that applies `patch` to the copy.
    pub(crate) fn apply(&self, patch: &Path) -> Command {
        let mut git = git();
        git.current_dir(&self.root)
            .args(["apply", "--recount", "-C1", "--whitespace=nowarn"])
            .arg(patch);
        for variable in GIT_PLACES {
            git.env_remove(variable);
        }
        // The copy lies below a checkout; were git to find it, it would skip every path of the patch as not its own.
        if let Some(above) = self.root.parent() {
            git.env("GIT_CEILING_DIRECTORIES", above);
        }
        git
    }

    /// A cargo command in the copy.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = workspace::cargo(&self.root);
        cargo.env("CARGO_TARGET_DIR", &self.build);
        cargo
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

/// The files of the workspace below its root: those that git knows or would take; in a folder without git, such as an
/// unpacked archive, everything but build output and hidden folders.
fn paths(workspace: &Workspace) -> Result<Vec<PathBuf>, String> {
    let listed = git()
        .current_dir(&workspace.root)
        // It only lists, whoever the checkout belongs to.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("git does not run: {error}"))?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let paths: Vec<PathBuf> = text
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if listed.status.success() && paths.contains(&PathBuf::from("Cargo.toml")) {
        return Ok(paths);
    }
    walk(&workspace.root, |folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let hidden = name.starts_with('.') && name != ".cargo";
        !hidden && name != "target" && folder != workspace.target
    })
}

/// Every file below `root`, relative to it, in folders that `enter` wants.
fn walk(root: &Path, enter: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| cannot("read", &folder, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| cannot("read", &folder, &error))?;
            let path = entry.path();
            let is_folder = entry
                .file_type()
                .map_err(|error| cannot("read", &path, &error))?
                .is_dir();
            if !is_folder {
                paths.extend(path.strip_prefix(root).map(Path::to_owned));
            } else if enter(&path) {
                folders.push(path);
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const PATCH: &str = "\
Row: B1
diff --git a/code/one.rs b/code/one.rs
--- a/code/one.rs
+++ b/code/one.rs
@@ -2,3 +2,3 @@
 two
-three
+broken
 four
diff --git a/new.rs b/new.rs
new file mode 100644
--- /dev/null
+++ b/new.rs
@@ -0,0 +1 @@
+new
";

    fn written(path: &Path) -> SystemTime {
        fs::metadata(path).unwrap().modified().unwrap()
    }

    #[test]
    fn a_patch_is_applied_within_a_checkout_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("code")).unwrap();
        // The line numbers of the patch are off by one on purpose: code above it may change.
        let one = "zero\none\ntwo\nthree\nfour\nfive\n";
        fs::write(source.join("code/one.rs"), one).unwrap();
        fs::write(source.join("two.rs"), "two\n").unwrap();
        let patch = folder.path().join("B01.patch");
        fs::write(&patch, PATCH).unwrap();
        // What lies below a repository of somebody else must be changed all the same.
        let initialised = git()
            .current_dir(folder.path())
            .args(["init", "--quiet"])
            .status();
        assert!(initialised.unwrap().success());

        let paths = ["code/one.rs", "two.rs", "gone.rs"].map(PathBuf::from);
        let tree = Tree::of(&source, &paths, &folder.path().join("copy")).unwrap();
        let copied = tree.root.join("code/one.rs");
        let untouched = written(&tree.root.join("two.rs"));
        let before = written(&copied);

        let applied = tree.apply(&patch).status().unwrap();
        assert!(applied.success());
        assert_eq!(
            fs::read_to_string(&copied).unwrap(),
            one.replace("three", "broken")
        );
        assert!(tree.root.join("new.rs").exists());

        tree.restore().unwrap();
        assert_eq!(fs::read_to_string(&copied).unwrap(), one);
        assert!(written(&copied) >= before);
        assert!(!tree.root.join("new.rs").exists());
        assert_eq!(written(&tree.root.join("two.rs")), untouched);
    }

    #[test]
    fn the_workspace_is_listed_without_what_is_built() {
        let workspace = Workspace::load().unwrap();
        let paths = paths(&workspace).unwrap();
        for path in ["Cargo.toml", "Cargo.lock", "xtask/src/defects/tree.rs"] {
            assert!(paths.contains(&PathBuf::from(path)), "{path}");
        }
        assert!(!paths.iter().any(|path| path.starts_with("target")));
    }
}
