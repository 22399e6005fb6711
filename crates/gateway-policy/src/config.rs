//! What is wrong with a set of settings.

/// A setting that makes no sense, alone or beside another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the setting {setting} {problem}")]
#[non_exhaustive]
pub struct ConfigProblem {
    /// Its path, for example `liveness.wedged_after`.
    pub setting: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl ConfigProblem {
    pub(crate) const fn new(setting: &'static str, problem: &'static str) -> Self {
        Self { setting, problem }
    }
}
