//! Node: which versions a package accepts, which one is installed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use semver::{Prerelease, Version};

use crate::env::Environment;
use crate::openclaw::OpenClawError;
use crate::os::OsProcessHost;
use crate::output::OutputSource;
use crate::run::RunError;
use crate::run::run_to_end;
use crate::spec::{LaunchSpec, SpawnError};

/// How long `node --version` may take. A cold disk needs a second or two.
pub const NODE_VERSION_DEADLINE: Duration = Duration::from_secs(15);

/// A version of Node, as `node --version` prints it, with or without the leading `v`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeVersion(Version);

impl FromStr for NodeVersion {
    type Err = NodeParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let digits = trimmed.strip_prefix(['v', 'V']).unwrap_or(trimmed);
        Version::parse(digits)
            .map(Self)
            .map_err(|_| NodeParseError::new(text))
    }
}

impl fmt::Display for NodeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text is neither a version nor a range of versions.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a version or range of versions as npm writes them")]
pub struct NodeParseError {
    text: String,
}

impl NodeParseError {
    fn new(text: &str) -> Self {
        // It comes from a file or a program; there is no reason to repeat a novel.
        Self {
            text: text.chars().take(80).collect(),
        }
    }
}

/// A range as npm's `engines` field holds it: comparators joined by blanks (all must hold), alternatives by `||`, with the
/// operators `=`, `>`, `>=`, `<`, `<=`, `^`, `~`, the hyphen range and wildcards. Prereleases count by their place in the order of
/// versions, as npm's own engine check does it.
///
/// ```
/// use gateway_process::node::NodeRange;
/// let range: NodeRange = ">=24.16.0 <25 || >=26.1.0".parse()?;
/// assert!(range.accepts(&"v24.21.0".parse()?));
/// assert!(!range.accepts(&"v25.0.0".parse()?));
/// # Ok::<(), gateway_process::node::NodeParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRange {
    text: String,
    alternatives: Vec<Vec<Bound>>,
}

impl NodeRange {
    /// Whether `version` lies in the range.
    #[must_use]
    pub fn accepts(&self, version: &NodeVersion) -> bool {
        self.alternatives
            .iter()
            .any(|bounds| bounds.iter().all(|bound| bound.holds(&version.0)))
    }
}

impl fmt::Display for NodeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for NodeRange {
    type Err = NodeParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alternatives: Option<Vec<_>> = text.split("||").map(alternative).collect();
        match alternatives {
            Some(alternatives) => Ok(Self {
                text: text.trim().to_owned(),
                alternatives,
            }),
            None => Err(NodeParseError::new(text)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Bound {
    AtLeast(Version),
    Above(Version),
    AtMost(Version),
    Below(Version),
}

impl Bound {
    fn holds(&self, version: &Version) -> bool {
        match self {
            Self::AtLeast(bound) => version.cmp_precedence(bound).is_ge(),
            Self::Above(bound) => version.cmp_precedence(bound).is_gt(),
            Self::AtMost(bound) => version.cmp_precedence(bound).is_le(),
            Self::Below(bound) => version.cmp_precedence(bound).is_lt(),
        }
    }
}

/// One to three numbers; what is missing or a wildcard is open.
struct Partial {
    major: Option<u64>,
    minor: Option<u64>,
    patch: Option<u64>,
    pre: Prerelease,
}

impl Partial {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        // Build metadata plays no part in the order of versions.
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, Prerelease::new(pre).ok()?),
            None => (text, Prerelease::EMPTY),
        };
        let mut parts = numbers.split('.').map(|part| match part {
            "x" | "X" | "*" => Some(None),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
            _ => None,
        });
        let major = parts.next()??;
        let minor = parts.next().unwrap_or(Some(None))?;
        let patch = parts.next().unwrap_or(Some(None))?;
        if parts.next().is_some() {
            return None;
        }
        let minor = major.and(minor);
        let patch = minor.and(patch);
        Some(Self {
            major,
            minor,
            patch,
            pre,
        })
    }

    /// The lowest version it can mean.
    fn floor(&self) -> Version {
        let mut version = Version::new(
            self.major.unwrap_or(0),
            self.minor.unwrap_or(0),
            self.patch.unwrap_or(0),
        );
        if self.patch.is_some() {
            version.pre = self.pre.clone();
        }
        version
    }

    /// The first version that it cannot mean, or `None` when it can mean all.
    fn end(&self) -> Option<Version> {
        let major = self.major?;
        Some(match (self.minor, self.patch) {
            (None, _) => first_of(major.saturating_add(1), 0, 0),
            (Some(minor), None) => first_of(major, minor.saturating_add(1), 0),
            (Some(minor), Some(patch)) => first_of(major, minor, patch.saturating_add(1)),
        })
    }

    fn is_complete(&self) -> bool {
        self.patch.is_some()
    }
}

/// The lowest prerelease of a version: everything below it is below the version in every sense.
fn first_of(major: u64, minor: u64, patch: u64) -> Version {
    let mut version = Version::new(major, minor, patch);
    version.pre = Prerelease::new("0").unwrap_or(Prerelease::EMPTY);
    version
}

fn alternative(text: &str) -> Option<Vec<Bound>> {
    if let Some((low, high)) = text.split_once(" - ") {
        let (low, high) = (Partial::parse(low.trim())?, Partial::parse(high.trim())?);
        let mut bounds = vec![Bound::AtLeast(low.floor())];
        bounds.extend(at_most(&high));
        return Some(bounds);
    }
    let mut bounds = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let operator_length = rest
            .find(|c: char| !"<>=^~".contains(c))
            .unwrap_or(rest.len());
        let (operator, after) = rest.split_at(operator_length);
        let after = after.trim_start();
        let end = after
            .find(|c: char| c.is_whitespace() || c == ',' || "<>=^~".contains(c))
            .unwrap_or(after.len());
        let (version, after) = after.split_at(end);
        bounds.extend(comparator(operator, &Partial::parse(version)?)?);
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    }
    Some(bounds)
}

fn comparator(operator: &str, partial: &Partial) -> Option<Vec<Bound>> {
    let floor = partial.floor();
    let open = partial.major.is_none();
    Some(match operator {
        "" | "=" if open => vec![],
        "" | "=" if partial.is_complete() => {
            vec![Bound::AtLeast(floor.clone()), Bound::AtMost(floor)]
        }
        "" | "=" => between(floor, partial.end()),
        ">=" | "^" | "~" if open => vec![],
        "<=" if open => vec![],
        // Below or above everything: nothing is.
        "<" | ">" if open => vec![Bound::Below(first_of(0, 0, 0))],
        ">=" => vec![Bound::AtLeast(floor)],
        ">" if partial.is_complete() => vec![Bound::Above(floor)],
        ">" => {
            let mut next = partial.end()?;
            next.pre = Prerelease::EMPTY;
            vec![Bound::AtLeast(next)]
        }
        "<" if partial.is_complete() => vec![Bound::Below(floor)],
        "<" => vec![Bound::Below(first_of(floor.major, floor.minor, 0))],
        "<=" => at_most(partial),
        "^" => {
            let end = match (partial.major?, partial.minor, partial.patch) {
                (0, Some(0), Some(patch)) => first_of(0, 0, patch.saturating_add(1)),
                (0, Some(minor), _) => first_of(0, minor.saturating_add(1), 0),
                (major, ..) => first_of(major.saturating_add(1), 0, 0),
            };
            between(floor, Some(end))
        }
        "~" | "~>" => {
            let end = match partial.minor {
                Some(minor) => first_of(floor.major, minor.saturating_add(1), 0),
                None => first_of(floor.major.saturating_add(1), 0, 0),
            };
            between(floor, Some(end))
        }
        _ => return None,
    })
}

fn at_most(partial: &Partial) -> Vec<Bound> {
    if partial.is_complete() {
        vec![Bound::AtMost(partial.floor())]
    } else {
        partial.end().map(Bound::Below).into_iter().collect()
    }
}

fn between(floor: Version, end: Option<Version>) -> Vec<Bound> {
    let mut bounds = vec![Bound::AtLeast(floor)];
    bounds.extend(end.map(Bound::Below));
    bounds
}

/// A Node that was asked for its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRuntime {
    program: PathBuf,
    version: NodeVersion,
}

impl NodeRuntime {
    /// A runtime whose version is known already; nothing is run.
    pub fn known(program: impl Into<PathBuf>, version: NodeVersion) -> Self {
        Self {
            program: program.into(),
            version,
        }
    }

    /// Runs `program --version`, for at most `deadline`.
    ///
    /// # Errors
    /// [`OpenClawError::NodeMissing`] when there is no such program, [`OpenClawError::NodeUnusable`] when it does not run, answers too
    /// late, or answers something that is no version.
    pub async fn inspect(
        program: impl AsRef<Path>,
        deadline: Duration,
    ) -> Result<Self, OpenClawError> {
        let program = program.as_ref();
        let unusable = |evidence: String| OpenClawError::NodeUnusable {
            program: program.to_owned(),
            evidence,
        };
        let spec = LaunchSpec::new(program, Environment::from_parent()).args(["--version"]);
        let report = match run_to_end(&OsProcessHost::new(), &spec, deadline.into()).await {
            Ok(report) => report,
            Err(RunError::Spawn(SpawnError::ProgramNotFound { .. })) => {
                return Err(OpenClawError::NodeMissing {
                    looked_for: program.to_owned(),
                });
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        let answer = report
            .lines(OutputSource::Stdout)
            .next()
            .unwrap_or_default();
        match answer.parse() {
            Ok(version) if report.success() => Ok(Self::known(program, version)),
            _ => {
                let last = report.output.last().map_or("", |line| &*line.text);
                Err(unusable(format!(
                    "`--version` gave {last:?}; {}",
                    report.exit
                )))
            }
        }
    }

    /// The first Node on the search path of this process.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn find(deadline: Duration) -> Result<Self, OpenClawError> {
        match which::which("node") {
            Ok(program) => Self::inspect(program, deadline).await,
            Err(_) => Err(OpenClawError::NodeMissing {
                looked_for: PathBuf::from("node"),
            }),
        }
    }

    /// The executable.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &NodeVersion {
        &self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        // Range, versions inside, versions outside. The first four are the `engines` of real OpenClaw releases.
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                ">=22.12.0",
                &["22.12.0", "v24.21.0", "22.12.1"],
                &["22.11.9", "20.20.2"],
            ),
            (">=22.19.0", &["22.19.0", "22.23.3"], &["22.18.0"]),
            (
                ">=24.16.0 <25 || >=26.1.0",
                &["24.16.0", "24.99.1", "26.1.0", "27.0.0"],
                &["24.15.9", "25.0.0", "25.0.0-nightly", "26.0.9", "22.23.3"],
            ),
            (
                ">=22.22.2 <23 || >=24.15.0 <25 || >=25.9.0",
                &["22.22.2", "24.15.0", "25.9.0"],
                &["23.0.0", "25.8.9"],
            ),
            (">= 18", &["18.0.0", "19.1.1"], &["17.9.9"]),
            (
                ">=18 <20||^22",
                &["18.0.0", "19.9.9", "22.0.0", "22.9.9"],
                &["20.0.0", "21.0.0", "23.0.0"],
            ),
            (">=18,<20", &["18.0.0"], &["20.0.0"]),
            (
                "^18.17.0 || >=20.5.0",
                &["18.17.0", "18.99.0", "20.5.0", "30.0.0"],
                &["18.16.0", "19.0.0", "20.4.9"],
            ),
            ("^0.2.3", &["0.2.3", "0.2.9"], &["0.2.2", "0.3.0"]),
            ("^0.0.3", &["0.0.3"], &["0.0.4"]),
            ("~20.5.1", &["20.5.1", "20.5.9"], &["20.6.0", "20.5.0"]),
            ("~20", &["20.0.0", "20.9.0"], &["21.0.0"]),
            ("20", &["20.0.0", "20.9.9"], &["21.0.0", "19.9.9"]),
            (
                "20.x || 22.1.*",
                &["20.3.0", "22.1.7"],
                &["21.0.0", "22.2.0"],
            ),
            ("18.1 - 20.2", &["18.1.0", "20.2.9"], &["18.0.9", "20.3.0"]),
            (
                "18.1.2 - 20.2.3",
                &["18.1.2", "20.2.3"],
                &["18.1.1", "20.2.4"],
            ),
            (">20", &["21.0.0"], &["20.9.9"]),
            (">20.1", &["20.2.0"], &["20.1.9"]),
            ("<=20", &["20.9.9"], &["21.0.0"]),
            ("<=20.1.0", &["20.1.0"], &["20.1.1"]),
            ("<20.1", &["20.0.9"], &["20.1.0"]),
            ("=20.1.0", &["20.1.0"], &["20.1.1"]),
            ("v20.1.0", &["20.1.0"], &["20.1.1"]),
            ("*", &["0.0.1", "99.0.0"], &[]),
            ("", &["0.0.1", "99.0.0"], &[]),
            (">=*", &["1.0.0"], &[]),
            (">*", &[], &["1.0.0"]),
        ];
        for (range, inside, outside) in table {
            let parsed: NodeRange = range.parse().unwrap();
            for version in *inside {
                assert!(
                    parsed.accepts(&version.parse().unwrap()),
                    "{version} in {range:?}"
                );
            }
            for version in *outside {
                assert!(
                    !parsed.accepts(&version.parse().unwrap()),
                    "{version} not in {range:?}"
                );
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "latest",
            ">=",
            ">=20 foo",
            "1.2.3.4",
            "=>20",
            ">=-1",
            "99999999999999999999",
        ] {
            assert!(text.parse::<NodeRange>().is_err(), "{text:?}");
        }
        for text in ["", "20", "v", "Welcome to Node"] {
            assert!(text.parse::<NodeVersion>().is_err(), "{text:?}");
        }
        assert_eq!(
            "v22.23.3\n".parse::<NodeVersion>().unwrap().to_string(),
            "22.23.3"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = text.parse::<NodeRange>();
        }

        #[test]
        fn plain_bounds_mean_what_they_say(
            low in (0_u64..40, 0_u64..40, 0_u64..40),
            high in (0_u64..40, 0_u64..40, 0_u64..40),
            version in (0_u64..40, 0_u64..40, 0_u64..40),
        ) {
            let text = |v: (u64, u64, u64)| format!("{}.{}.{}", v.0, v.1, v.2);
            let range: NodeRange = format!(">={} <{}", text(low), text(high)).parse().unwrap();
            let accepted = range.accepts(&text(version).parse().unwrap());
            prop_assert_eq!(accepted, low <= version && version < high);
        }
    }
}
