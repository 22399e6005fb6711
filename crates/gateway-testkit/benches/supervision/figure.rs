//! A figure, as it is printed, and what all groups need to take one.

use std::path::PathBuf;

use serde::Serialize;

/// One figure with all its samples. Medians, and whether the limit holds, are worked out by whoever reads it.
#[derive(Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) samples: Vec<f64>,
    /// Absent for what is only worth knowing.
    pub(crate) limit: Option<Limit>,
    /// Whether the limit holds on a machine that does other things as well, so that a test may insist on it.
    pub(crate) robust: bool,
    /// What it was made of: the measured values and what they were compared with.
    pub(crate) note: String,
}

/// What the median of the samples may be.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub(crate) fn print(&self) {
        let line = serde_json::to_string(self).expect("numbers and texts");
        println!("{line}");
    }
}

/// This program.
pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().expect("this program has a path")
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// What this process occupies, and has occupied at most, in KiB.
pub(crate) fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().nth(1));
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    (value("VmRSS"), value("VmHWM"))
}
