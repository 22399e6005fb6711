//! The files in `defects/`: a header that says what goes wrong and which tests notice it, and the change that does it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A defect that can be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// The name of the file, without its extension.
    pub(crate) name: String,
    /// The rows of the list of defects that this is about, such as `B6`.
    pub(crate) rows: Vec<String>,
    /// What goes wrong.
    pub(crate) defect: String,
    /// The tests that have to notice.
    pub(crate) tests: Vec<NamedTest>,
    /// Where the file lies.
    pub(crate) path: PathBuf,
}

/// A test of a test program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamedTest {
    pub(crate) program: Program,
    /// Its whole name, modules included.
    pub(crate) name: String,
}

/// A test program, as cargo is told about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    pub(crate) package: String,
    /// The arguments that select it, such as `--lib` or `--test handshake`.
    pub(crate) selection: Vec<String>,
}

/// All patches in `folder`, in the order of their names.
pub(crate) fn load(folder: &Path) -> Result<Vec<Patch>, String> {
    let cannot = |path: &Path, error| format!("cannot read {}: {error}", path.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| cannot(folder, error))? {
        let path = entry.map_err(|error| cannot(folder, error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "patch")
        {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).map_err(|error| cannot(&path, error))?;
            parse(&path, &text).map_err(|error| format!("{}: {error}", path.display()))
        })
        .collect()
}

fn parse(path: &Path, text: &str) -> Result<Patch, String> {
    let name = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let (mut rows, mut defect, mut tests) = (Vec::new(), String::new(), Vec::new());
    let mut package = None;
    let mut in_defect = false;
    let mut lines = text.lines();
    let change = loop {
        let Some(line) = lines.next() else {
            return Err("there is no line `diff --git …`, so nothing is changed".to_owned());
        };
        if line.starts_with("diff --git ") {
            break line;
        }
        let (key, value) = match field(line) {
            Some(field) => field,
            None if line.trim().is_empty() => {
                in_defect = false;
                continue;
            }
            None if in_defect => {
                defect.push(' ');
                defect.push_str(line.trim());
                continue;
            }
            None => return Err(format!("`{line}` is no field of the header")),
        };
        in_defect = key == "Defect";
        match key {
            "Row" => rows.extend(value.split([',', ' ']).map(str::to_owned)),
            "Defect" if defect.is_empty() => value.clone_into(&mut defect),
            "Package" => package = Some(value.to_owned()),
            "Test" => {
                let package = package
                    .clone()
                    .ok_or_else(|| format!("`{line}` has no `Package:` before it"))?;
                tests.push(test(package, value)?);
            }
            _ => {
                return Err(format!(
                    "`{line}`: there is no such field, or it is given twice"
                ));
            }
        }
    };
    if !change.contains(" b/") {
        return Err(format!("`{change}` does not name a file as `a/… b/…`"));
    }
    rows.retain(|row| !row.is_empty());
    if let Some(row) = rows.iter().find(|row| !is_row(row)) {
        return Err(format!(
            "{row:?} is no row: they are called B, H or D and a number"
        ));
    }
    for (field, missing) in [
        ("Row", rows.is_empty()),
        ("Defect", defect.is_empty()),
        ("Test", tests.is_empty()),
    ] {
        if missing {
            return Err(format!("the header has no `{field}:`"));
        }
    }
    let unique: BTreeSet<&NamedTest> = tests.iter().collect();
    if unique.len() < tests.len() {
        return Err("a test is named twice".to_owned());
    }
    Ok(Patch {
        name,
        rows,
        defect,
        tests,
        path: path.to_owned(),
    })
}

/// Splits `Key: value`. Prose may have colons too, so a key is one word with a capital.
fn field(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let is_key = key.starts_with(|first: char| first.is_ascii_uppercase())
        && key.chars().all(|character| character.is_ascii_alphabetic());
    is_key.then(|| (key, value.trim()))
}

fn test(package: String, value: &str) -> Result<NamedTest, String> {
    let mut words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    let name = words.pop().filter(|name| !name.starts_with('-'));
    match name {
        Some(name) if !words.is_empty() => Ok(NamedTest {
            program: Program {
                package,
                selection: words,
            },
            name,
        }),
        _ => Err(format!(
            "`Test: {value}` is not the arguments that select a test program and then the name of a test"
        )),
    }
}

/// Whether `text` is a letter for the kind of defect and a number.
fn is_row(text: &str) -> bool {
    text.strip_prefix(['B', 'H', 'D']).is_some_and(|number| {
        !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Row: B6
Defect: The deadline is started anew by each message,
so that a slow peer: one that talks, is waited for without end.
Package: gateway-client
Test: --test handshake one_deadline_over_everything
Test: --lib handshake::tests::late
Package: gateway-manager
Test: --test simulated slow_peer

diff --git a/crates/a/src/lib.rs b/crates/a/src/lib.rs
--- a/crates/a/src/lib.rs
+++ b/crates/a/src/lib.rs
";

    fn parse(text: &str) -> Result<Patch, String> {
        super::parse(Path::new("defects/B06-deadline.patch"), text)
    }

    fn named(package: &str, selection: &[&str], name: &str) -> NamedTest {
        NamedTest {
            program: Program {
                package: package.to_owned(),
                selection: selection.iter().map(|word| (*word).to_owned()).collect(),
            },
            name: name.to_owned(),
        }
    }

    #[test]
    fn the_header_says_what_goes_wrong_and_who_notices() {
        let patch = parse(TEXT).unwrap();
        assert_eq!(patch.name, "B06-deadline");
        assert_eq!(patch.rows, ["B6"]);
        assert_eq!(
            patch.defect,
            "The deadline is started anew by each message, so that a slow peer: one that talks, is waited for without end."
        );
        assert_eq!(
            patch.tests,
            [
                named(
                    "gateway-client",
                    &["--test", "handshake"],
                    "one_deadline_over_everything"
                ),
                named("gateway-client", &["--lib"], "handshake::tests::late"),
                named("gateway-manager", &["--test", "simulated"], "slow_peer"),
            ]
        );
    }

    #[test]
    fn a_patch_may_stand_for_several_rows() {
        let patch = parse(&TEXT.replace("Row: B6", "Row: B1, H8")).unwrap();
        assert_eq!(patch.rows, ["B1", "H8"]);
    }

    #[test]
    fn what_is_missing_or_misspelt_is_named() {
        let cases = [
            ("Row: B6\n", "", "`Row:`"),
            ("Row: B6", "Row: X6", "\"X6\""),
            ("Row: B6", "Row: B", "\"B\""),
            ("Row: B6", "Row: B6a", "\"B6a\""),
            ("Row: B6", "Rwo: B6", "Rwo"),
            ("Row: B6", "something\nRow: B6", "something"),
            ("Defect: The", "Note: The", "Note"),
            ("Package: gateway-client\n", "", "Package"),
            ("--lib handshake::tests::late", "late", "late"),
            ("--lib handshake::tests::late", "--lib --exact", "--exact"),
            (
                "--lib handshake::tests::late",
                "--test handshake one_deadline_over_everything",
                "twice",
            ),
            ("diff --git", "difference", "difference"),
            (" b/crates", " crates", "b/"),
        ];
        for (from, to, expected) in cases {
            let text = TEXT.replace(from, to);
            assert_ne!(text, TEXT, "{from}");
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{from} -> {to}: {error}");
        }
        assert!(parse("").unwrap_err().contains("diff --git"));
    }
}
