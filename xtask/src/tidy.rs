//! The rules of the repository as tests.
//!
//! Each test names every place that breaks its rule, so that one run shows all there is to mend.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::defects;
use crate::defects::patch::{self, Patch};
use crate::spdx;
use crate::workspace::{Package, Workspace};

/// Licences that a dependency may be used under.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The crate that may hold unsafe code, each place with its reason.
const UNSAFE_ALLOWED_IN: &str = "crates/gateway-process";

fn workspace() -> Workspace {
    Workspace::load().unwrap()
}

/// The crates that are meant for users.
fn crates(workspace: &Workspace) -> Vec<&Package> {
    workspace
        .members()
        .into_iter()
        .filter(|package| package.name != "xtask")
        .collect()
}

/// A text file of the repository.
struct TextFile {
    /// Relative to the root, with `/` between its parts.
    path: String,
    text: String,
}

impl TextFile {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Every text file that belongs to the repository. Build output and dot folders other than the two that are committed
/// do not, and neither does the file `.git` of a second working tree.
fn text_files(workspace: &Workspace) -> Vec<TextFile> {
    let mut files = Vec::new();
    let mut folders = vec![workspace.root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                let hidden = name.starts_with('.') && ![".ci", ".cargo"].contains(&name.as_str());
                if !hidden && path != workspace.target && name != "target" {
                    folders.push(path);
                }
            } else if ![".git", "Cargo.lock"].contains(&name.as_str())
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path
                    .strip_prefix(&workspace.root)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                files.push(TextFile { path, text });
            }
        }
    }
    assert!(
        files.iter().any(TextFile::is_rust),
        "the walk over the repository found no source file"
    );
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

/// Fails with all `findings`.
#[track_caller]
fn expect_none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// `path:line: line` of every line that `offends`.
fn lines(files: &[TextFile], offends: impl Fn(&TextFile, &str) -> bool) -> Vec<String> {
    files
        .iter()
        .flat_map(|file| {
            file.text
                .lines()
                .enumerate()
                .map(move |(index, line)| (file, index + 1, line))
        })
        .filter(|(file, _, line)| offends(file, line))
        .map(|(file, number, line)| {
            format!(
                "{}:{number}: {}",
                file.path,
                line.trim().chars().take(100).collect::<String>()
            )
        })
        .collect()
}

#[test]
fn every_crate_has_a_readme_that_says_something() {
    let workspace = workspace();
    let silent = crates(&workspace).into_iter().filter(|package| {
        let text = fs::read_to_string(package.folder().join("README.md")).unwrap_or_default();
        let prose = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .count();
        !text.starts_with("# ") || prose < 3
    });
    expect_none(
        "a README.md with a title and a few lines is missing",
        silent.map(|package| package.name.clone()).collect(),
    );
}

#[test]
fn the_changelog_has_a_place_for_the_next_release() {
    let text = fs::read_to_string(workspace().root.join("CHANGELOG.md")).unwrap();
    assert!(
        text.lines().any(|line| line == "## [Unreleased]"),
        "CHANGELOG.md has no heading [Unreleased]"
    );
}

#[test]
fn every_module_says_what_it_is_for() {
    let workspace = workspace();
    let files = text_files(&workspace);
    let silent = files
        .iter()
        .filter(|file| file.is_rust() && file.path.contains("/src/"))
        .filter(|file| {
            // Other inner attributes, such as no_std, may stand first.
            let first = file
                .text
                .lines()
                .find(|line| !line.starts_with("#![") || line.starts_with("#![doc"));
            !first.is_some_and(|line| line.starts_with("//! ") || line.starts_with("#![doc"))
        });
    expect_none(
        "module documentation is missing",
        silent.map(|file| file.path.clone()).collect(),
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not break its own rule.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
    ];
    let files = text_files(&workspace());
    expect_none(
        "finish it, or write down in an issue what is missing",
        lines(&files, |file, line| {
            !is_recorded(file) && marks.iter().any(|mark| line.contains(mark))
        }),
    );
}

/// Recorded conversations are what the gateway said, whatever it said.
fn is_recorded(file: &TextFile) -> bool {
    file.path.ends_with(".json") || file.path.ends_with(".jsonl")
}

#[test]
fn no_path_of_a_development_machine() {
    let workspace = workspace();
    let mut paths = vec![
        concat!("/wo", "rk/").to_owned(),
        concat!("/ro", "ot/").to_owned(),
    ];
    // A checkout directly below the root has no path long enough to be told from other text, and the folder for
    // temporary files is on every machine.
    let checkout = workspace
        .root
        .parent()
        .filter(|parent| *parent != env::temp_dir())
        .map(|parent| format!("{}/", parent.display()));
    paths.extend(checkout.filter(|path| path.len() > 4));
    let files = text_files(&workspace);
    expect_none(
        "a path that exists on one machine only",
        lines(&files, |_, line| {
            names_a_home(line) || paths.iter().any(|path| line.contains(path.as_str()))
        }),
    );
}

/// Whether `line` names the home of somebody. Examples use names that stand for no one.
fn names_a_home(line: &str) -> bool {
    let nobody = ["alice", "example", "me", "u", "user"];
    line.split(concat!("/ho", "me/")).skip(1).any(|rest| {
        let end = rest.find(|character: char| !character.is_alphanumeric());
        let name = &rest[..end.unwrap_or(rest.len())];
        !name.is_empty() && !nobody.contains(&name)
    })
}

#[test]
fn homes_of_nobody_are_fine() {
    let home = concat!("/ho", "me/");
    assert!(!names_a_home(&format!(
        "{home}u/.openclaw and {home}user and {home}$USER"
    )));
    assert!(names_a_home(&format!(
        "{home}u/.openclaw and {home}somebody/.openclaw"
    )));
}

#[test]
fn no_package_registry_is_named() {
    // Where packages come from is the business of cargo's and npm's configuration.
    let hosts = [
        concat!("registry.", "npmjs"),
        concat!("registry.", "yarnpkg"),
        concat!("npm", "mirror"),
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
        concat!("files.", "pythonhosted"),
        concat!("--", "registry"),
    ];
    let files = text_files(&workspace());
    expect_none(
        "a registry is named",
        lines(&files, |_, line| {
            hosts.iter().any(|host| line.contains(host))
        }),
    );
}

#[test]
fn unsafe_code_is_in_one_crate_and_has_reasons() {
    let lint = concat!("unsafe", "_code");
    let files = text_files(&workspace());
    let permits =
        |line: &str| line.contains(lint) && (line.contains("allow(") || line.contains("expect("));
    expect_none(
        "unsafe code is permitted outside of its crate, or without a reason on the same line",
        lines(&files, |file, line| {
            file.is_rust()
                && permits(line)
                && !(file.path.starts_with(UNSAFE_ALLOWED_IN) && line.contains("reason ="))
        }),
    );
}

#[test]
fn dependencies_may_be_used_under_accepted_licences() {
    let workspace = workspace();
    let refused = workspace.packages.iter().filter_map(|package| {
        let name = format!("{} {}", package.name, package.version);
        match package
            .license
            .as_deref()
            .map(|licence| spdx::accepts(licence, LICENCES))
        {
            Some(Ok(true)) => None,
            Some(Ok(false)) => Some(format!(
                "{name}: {}",
                package.license.as_deref().unwrap_or_default()
            )),
            Some(Err(error)) => Some(format!("{name}: {error}")),
            None => Some(format!("{name}: no licence given")),
        }
    });
    expect_none("a licence that is not accepted", refused.collect());
}

#[test]
fn manifests_take_lints_and_dependencies_from_the_workspace() {
    let workspace = workspace();
    let mut findings = Vec::new();
    for package in workspace.members() {
        let text = fs::read_to_string(&package.manifest_path).unwrap();
        findings.extend(
            manifest_findings(&text)
                .into_iter()
                .map(|finding| format!("{}: {finding}", package.name)),
        );
    }
    expect_none(
        "versions and lints are decided in one place, the root manifest",
        findings,
    );
}

/// What a member's manifest decides itself although the workspace should.
fn manifest_findings(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut inherits_lints = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            if let Some((_, name)) = section.split_once("dependencies.") {
                findings.push(format!("dependency {name} has a section of its own"));
            }
            continue;
        }
        let from_workspace = line.contains("workspace = true");
        inherits_lints |= section == "lints" && from_workspace;
        if section.ends_with("dependencies")
            && !line.is_empty()
            && !line.starts_with('#')
            && !from_workspace
        {
            findings.push(format!(
                "dependency `{line}` is not taken from the workspace"
            ));
        }
        let shared = ["version", "edition", "rust-version", "license"];
        if section == "package"
            && shared
                .iter()
                .any(|key| line.starts_with(&format!("{key} =")))
        {
            findings.push(format!("`{line}` is not taken from the workspace"));
        }
    }
    if !inherits_lints {
        findings.push("the lints of the workspace are not inherited".to_owned());
    }
    findings
}

#[test]
fn manifest_rules_find_what_they_should() {
    let good = "[package]\nname = \"a\"\nversion.workspace = true\n\n[lints]\nworkspace = true\n\n\
                [dependencies]\n# a comment\nb.workspace = true\nc = { workspace = true, optional = true }\n";
    assert_eq!(manifest_findings(good), Vec::<String>::new());
    for (bad, count) in [
        (good.replace("b.workspace = true", "b = \"1\""), 1),
        (good.replace("[lints]\nworkspace = true", ""), 1),
        (
            good.replace("version.workspace = true", "version = \"1.0.0\""),
            1,
        ),
        (
            good.replace(
                "[dependencies]",
                "[target.'cfg(unix)'.dependencies]\nd = { version = \"1\" }",
            ),
            1,
        ),
        (format!("{good}\n[dependencies.e]\nversion = \"1\"\n"), 1),
    ] {
        assert_eq!(manifest_findings(&bad).len(), count, "{bad}");
    }
}

#[test]
fn defects_are_named_after_their_rows() {
    let patches = patch::load(&workspace().root.join(defects::FOLDER)).unwrap();
    assert!(!patches.is_empty());
    let misnamed = patches.iter().filter(|patch| !is_named_after_a_row(patch));
    expect_none(
        "the file of a defect is called after its row, as in B06-what-goes-wrong.patch for B6",
        misnamed
            .map(|patch| format!("{}: {}", patch.name, patch.rows.join(", ")))
            .collect(),
    );
}

/// Numbers in names of files have leading zeros, so that they are sorted.
fn is_named_after_a_row(patch: &Patch) -> bool {
    let Some((first, words)) = patch.name.split_once('-') else {
        return false;
    };
    let words_fit = words
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    words_fit
        && patch.rows.iter().any(|row| {
            let (kind, number) = row.split_at(1);
            first == format!("{kind}{number:0>2}")
        })
}

#[test]
fn shell_scripts_can_be_run_and_stop_at_errors() {
    let workspace = workspace();
    let scripts: Vec<PathBuf> = ["run"]
        .map(|name| workspace.root.join(".ci").join(name))
        .into();
    for script in scripts {
        let text = fs::read_to_string(&script).unwrap();
        assert!(
            text.starts_with("#!") && text.contains("set -euo pipefail"),
            "{}",
            script.display()
        );
        assert!(
            is_executable(&script),
            "{} is not executable",
            script.display()
        );
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    fs::metadata(path).unwrap().permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    true
}
