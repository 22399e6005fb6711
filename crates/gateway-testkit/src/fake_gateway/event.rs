//! Event frames and how they are numbered.

use std::fmt::Write as _;

/// An event on its way to the connections.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: String,
    /// The payload as JSON text.
    pub(super) payload: String,
    pub(super) numbering: Numbering,
    pub(super) state_version: Option<StateVersion>,
    /// The 2026.9.6 `recipientProfileId`.
    pub(super) recipient: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Numbering {
    /// Sent to one connection only: no `seq`.
    None,
    /// Numbered by the connection, from 1 without gaps.
    PerConnection,
    /// Numbered by one counter of the process.
    Process(u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StateVersion {
    pub(super) presence: u64,
    pub(super) health: u64,
}

impl Event {
    pub(super) fn targeted(name: impl Into<String>, payload: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            payload: payload.into(),
            numbering: Numbering::None,
            state_version: None,
            recipient: false,
        }
    }

    /// The frame for one connection; `seq` is that connection's counter.
    pub(super) fn frame(&self, seq: &mut u64) -> String {
        let mut text = String::with_capacity(self.payload.len() + self.name.len() + 96);
        text.push_str(r#"{"type":"event","event":"#);
        text.push_str(&quoted(&self.name));
        text.push_str(r#","payload":"#);
        text.push_str(&self.payload);
        let number = match self.numbering {
            Numbering::None => None,
            Numbering::PerConnection => {
                *seq += 1;
                Some(*seq)
            }
            Numbering::Process(number) => Some(number),
        };
        // Writing into a String cannot fail.
        if let Some(number) = number {
            let _ = write!(text, r#","seq":{number}"#);
        }
        if let Some(StateVersion { presence, health }) = self.state_version {
            let _ = write!(
                text,
                r#","stateVersion":{{"presence":{presence},"health":{health}}}"#
            );
        }
        if self.recipient {
            text.push_str(r#","recipientProfileId":"gateway-owner""#);
        }
        text.push('}');
        text
    }
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
