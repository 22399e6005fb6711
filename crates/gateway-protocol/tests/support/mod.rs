//! Recorded conversations, unpacked.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::PathBuf,
};

use flate2::bufread::GzDecoder;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// Versions of OpenClaw with recordings, and the protocol each speaks.
pub(crate) const VERSIONS: [(&str, u32); 2] = [("2026.3.2", 3), ("2026.9.6", 4)];

/// One conversation.
pub(crate) struct Case {
    pub(crate) version: &'static str,
    pub(crate) protocol: u32,
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

/// One thing that happened in it.
#[derive(Deserialize)]
pub(crate) struct Line {
    pub(crate) dir: String,
    /// A JSON message, word for word.
    #[serde(default)]
    pub(crate) frame: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) text: Option<String>,
    #[serde(default)]
    pub(crate) close: Option<Close>,
    #[serde(default)]
    pub(crate) signed: Option<Signed>,
}

#[derive(Deserialize)]
pub(crate) struct Close {
    pub(crate) code: u16,
}

#[derive(Deserialize)]
pub(crate) struct Signed {
    pub(crate) payload: String,
}

#[derive(Deserialize)]
struct Packed {
    case: String,
    lines: Vec<Line>,
}

impl Case {
    /// For messages of failed assertions.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.version, self.name)
    }

    /// The JSON messages in one direction.
    pub(crate) fn frames<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines
            .iter()
            .filter(move |line| line.dir == dir)
            .filter_map(|line| line.frame.as_deref().map(RawValue::get))
    }
}

/// All conversations of all versions.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (version, protocol) in VERSIONS {
        let path: PathBuf = [
            env!("CARGO_MANIFEST_DIR"),
            "tests",
            "transcripts",
            &format!("{version}.jsonl.gz"),
        ]
        .iter()
        .collect();
        let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let unpacked = BufReader::new(GzDecoder::new(BufReader::new(file)));
        for line in unpacked.lines() {
            let line = line.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let packed: Packed = serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            cases.push(Case {
                version,
                protocol,
                name: packed.case,
                lines: packed.lines,
            });
        }
    }
    cases
}

/// A tree for comparisons that do not mind the order of fields.
pub(crate) fn tree(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}
