//! The recorded sessions, which the protocol crate keeps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use flate2::bufread::GzDecoder;
use serde::Deserialize;
use serde_json::Value;

/// One recorded case.
pub struct Case {
    pub name: String,
    /// The lines of the first socket.
    pub first: Vec<Value>,
    /// The lines of a second socket, if there was one.
    pub second: Vec<Value>,
}

#[derive(Deserialize)]
struct Packed {
    case: String,
    lines: Vec<Value>,
}

/// Every case of a release, by name.
pub fn cases(release: &str) -> BTreeMap<String, Case> {
    let path = format!(
        "{}/../gateway-protocol/tests/transcripts/{release}.jsonl.gz",
        env!("CARGO_MANIFEST_DIR")
    );
    let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    BufReader::new(GzDecoder::new(BufReader::new(file)))
        .lines()
        .map(|line| {
            let packed: Packed = serde_json::from_str(&line.unwrap()).unwrap();
            let (second, first) = packed
                .lines
                .into_iter()
                .partition(|line| line["second_connection"] == true);
            (
                packed.case.clone(),
                Case {
                    name: packed.case,
                    first,
                    second,
                },
            )
        })
        .collect()
}
