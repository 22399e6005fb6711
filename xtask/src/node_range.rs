//! Version ranges as npm packages write them in `engines`.
//!
//! The launcher in gateway-process reads the same ranges. It is not used here, because this program must build in
//! seconds and run when that crate does not compile.

use semver::{Version, VersionReq};

/// Whether `version` lies in `range`, such as `>=24.16.0 <25 || >=26.1.0`.
///
/// # Errors
/// A range that cannot be read.
pub(crate) fn contains(range: &str, version: &Version) -> Result<bool, String> {
    let alternatives: Result<Vec<VersionReq>, String> =
        range.split("||").map(alternative).collect();
    Ok(alternatives?
        .iter()
        .any(|requirement| requirement.matches(version)))
}

/// npm separates the comparators of one alternative with blanks, semver with commas, and a bare version means that
/// version to npm and anything compatible to semver.
fn alternative(text: &str) -> Result<VersionReq, String> {
    let mut comparators = Vec::new();
    let mut operator = String::new();
    for word in text.split_whitespace() {
        if word.chars().all(|character| "<>=^~".contains(character)) {
            word.clone_into(&mut operator);
        } else {
            let word = format!("{operator}{word}");
            operator.clear();
            let bare = word.starts_with(|first: char| first.is_ascii_digit());
            comparators.push(if bare { format!("={word}") } else { word });
        }
    }
    let joined = if comparators.is_empty() {
        "*".to_owned()
    } else {
        comparators.join(", ")
    };
    VersionReq::parse(&joined)
        .map_err(|error| format!("cannot read the version range {text:?}: {error}"))
}

#[test]
fn ranges_of_npm_are_understood() {
    for (range, inside, outside) in [
        (
            ">=24.16.0 <25 || >=26.1.0",
            &["24.16.0", "24.99.1", "26.1.0", "27.0.0"][..],
            &["24.15.9", "25.0.0", "26.0.9"][..],
        ),
        (">=22.12.0", &["22.12.0", "24.0.0"], &["22.11.9", "20.20.2"]),
        (">= 22 < 24", &["22.0.0", "23.9.9"], &["24.0.0", "21.9.9"]),
        (
            "^22.22.2 || ~24.15.0",
            &["22.22.2", "22.99.0", "24.15.7"],
            &["23.0.0", "24.16.0", "22.22.1"],
        ),
        ("22", &["22.0.0", "22.5.1"], &["23.0.0"]),
        ("", &["1.0.0"], &[]),
    ] {
        for version in inside {
            assert_eq!(
                contains(range, &Version::parse(version).unwrap()),
                Ok(true),
                "{version} in {range:?}"
            );
        }
        for version in outside {
            assert_eq!(
                contains(range, &Version::parse(version).unwrap()),
                Ok(false),
                "{version} in {range:?}"
            );
        }
    }
    assert!(contains("latest", &Version::new(1, 0, 0)).is_err());
}
