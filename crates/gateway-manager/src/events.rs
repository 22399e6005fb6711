//! What the host application is told, and how frames of the gateway become events.
//!
//! Every frame leads to at most one event, so nothing is shown twice. Names nobody knows pass through as notifications with
//! their payload untouched.

use std::sync::Arc;
use std::time::Duration;

use gateway_client::IncomingFrame;
use gateway_policy::JournalEntry;
use gateway_policy::duplicates::Repeats;
use gateway_policy::startup_trace::{StartupStep, StartupSummary};
use gateway_policy::status::GatewayStatus;
use gateway_process::{
    ChildExit, EndingStage, OutputLine, OutputSource, RepairOutcome, StderrLevel,
};
use gateway_protocol::jsonrpc::{Message, NotificationKind};
use gateway_protocol::{Frame, Payload};
use serde_json::{Map, Value};
use tokio::sync::broadcast;

/// Events kept for a subscriber that does not read. A slower one is told how many it missed; nobody waits for it.
pub const EVENT_QUEUE: usize = 1024;

/// Something the host application may want to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GatewayEvent {
    /// The status has changed.
    Status(GatewayStatus),
    /// Why something is done: an entry of the journal that decided something, told before what follows from it. The same entries as
    /// those of [`GatewayManager::why`](crate::GatewayManager::why); it prints as one line, which holds the rules with their numbers and
    /// classes and no text of the gateway's.
    Decision(Arc<JournalEntry>),
    /// A chat message, in the form of the payload that the gateway sent.
    Chat {
        /// The payload.
        message: Payload,
    },
    /// An agent event.
    Agent {
        /// Its data with run, session, state and message merged in, when it has a state or a message: the form in which chat views
        /// consume it.
        chat: Option<Payload>,
        /// The payload as it came.
        payload: Payload,
    },
    /// The status of a channel has changed.
    ChannelStatus {
        /// The payload.
        payload: Payload,
    },
    /// Any other event of the gateway, or a JSON-RPC notification.
    Notification {
        /// Its name.
        method: String,
        /// Its payload.
        params: Option<Payload>,
    },
    /// The gateway reported an error on the legacy channel.
    Error {
        /// Its text.
        message: String,
        /// The whole payload.
        params: Option<Payload>,
    },
    /// A frame of an unknown kind.
    Message(Payload),
    /// A line that the gateway process printed, without the secrets of its environment. A line that repeats is told once; see
    /// [`OutputRepeated`](Self::OutputRepeated).
    Output(OutputLine),
    /// How often a line that was told has come again: after fifty times, after half a minute, or at the end of the process.
    OutputRepeated {
        /// The pipe it came from.
        stream: OutputSource,
        /// What the line is worth in a log.
        level: StderrLevel,
        /// The line and the numbers.
        repeats: Repeats,
    },
    /// A step of the gateway's start is done. Told when [`startup_trace`](crate::GatewayManagerBuilder::startup_trace) is on.
    StartupStep(StartupStep),
    /// The start is over: the gateway is ready, or it ended on the way. Told when steps were.
    Startup(StartupSummary),
    /// The gateway process is being ended: told when it is asked, every five seconds while it works on it, when its time changes, and when it
    /// is forced. [`Exited`](Self::Exited) follows.
    Ending {
        /// How far it has come.
        stage: EndingStage,
        /// For how long it has been asked.
        waited: Duration,
        /// How long until it is forced, if it is not gone by then. `None` when nothing more can be done.
        force_in: Option<Duration>,
    },
    /// The gateway process has ended.
    Exited(ChildExit),
    /// The doctor was run on the configuration. What became of it, with the differences, is in
    /// [`aftermath`](RepairOutcome::aftermath): the doctor's work may have been taken back.
    Repaired(Arc<RepairOutcome>),
    /// Something did not work that the launch can do without.
    Warning {
        /// What, and what to do.
        message: String,
    },
}

/// Turns a frame into the event it means; `None` for ticks, which only prove life.
pub(crate) fn event_of(frame: IncomingFrame) -> Option<GatewayEvent> {
    Some(match frame {
        IncomingFrame::Event(event) => {
            let payload = event.payload.clone();
            match (event.event.as_str(), payload) {
                ("tick", _) => return None,
                ("chat", Some(message)) => GatewayEvent::Chat { message },
                ("agent", Some(payload)) => GatewayEvent::Agent {
                    chat: merged_chat(&payload),
                    payload,
                },
                ("channel.status", Some(payload)) => GatewayEvent::ChannelStatus { payload },
                (method, params) => GatewayEvent::Notification {
                    method: method.to_owned(),
                    params,
                },
            }
        }
        IncomingFrame::JsonRpc(message) => match message.as_ref() {
            Message::Notification(notification) => {
                let params = notification.params.clone();
                match (notification.kind(), params) {
                    (NotificationKind::ChannelStatus, Some(payload)) => {
                        GatewayEvent::ChannelStatus { payload }
                    }
                    (NotificationKind::ChatMessage, Some(message)) => {
                        GatewayEvent::Chat { message }
                    }
                    (NotificationKind::Error, params) => GatewayEvent::Error {
                        message: notification.error_text(),
                        params,
                    },
                    (_, params) => GatewayEvent::Notification {
                        method: notification.method.clone(),
                        params,
                    },
                }
            }
            other => GatewayEvent::Message(
                Payload::from_json(Frame::JsonRpc(other.clone()).encode().ok()?).ok()?,
            ),
        },
        IncomingFrame::Unknown(payload) => GatewayEvent::Message(payload),
        _ => return None,
    })
}

/// An agent event's data, overlaid by the run, session, state and message of the payload, or else of the data itself. `None` when
/// there is neither state nor message, or when the payload is no object.
fn merged_chat(payload: &Payload) -> Option<Payload> {
    let mut rest: Map<String, Value> = payload.parse().ok()?;
    let mut merged = match rest.remove("data") {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    for name in ["runId", "sessionKey", "state", "message"] {
        if let Some(value) = rest.remove(name).filter(|value| !value.is_null()) {
            merged.insert(name.to_owned(), value);
        }
    }
    let says_something = ["state", "message"]
        .iter()
        .any(|name| merged.get(*name).is_some_and(|value| !value.is_null()));
    says_something
        .then(|| Payload::from_serialize(&merged).ok())
        .flatten()
}

/// Where events are published. Publishing never waits.
#[derive(Clone, Debug)]
pub(crate) struct EventBus {
    /// The queue is made for all its events at once, and most managers have none waiting: it holds no more than their addresses.
    sender: broadcast::Sender<Arc<GatewayEvent>>,
}

impl EventBus {
    pub(crate) fn new(capacity: usize) -> Self {
        let (sender, _) = broadcast::channel(capacity.max(1));
        Self { sender }
    }

    pub(crate) fn publish(&self, event: GatewayEvent) {
        if self.sender.receiver_count() > 0 {
            // Nobody listening is no error.
            let _ = self.sender.send(Arc::new(event));
        }
    }

    pub(crate) fn subscribe(&self) -> EventSubscription {
        EventSubscription {
            receiver: self.sender.subscribe(),
        }
    }
}

/// What a subscriber receives.
#[derive(Clone, Debug)]
pub enum Delivered {
    /// The next event.
    Event(GatewayEvent),
    /// The subscriber was too slow: this many events were dropped at this place.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// A subscription to the events of a manager, from the moment it was made. Dropping it unsubscribes.
#[derive(Debug)]
pub struct EventSubscription {
    receiver: broadcast::Receiver<Arc<GatewayEvent>>,
}

impl EventSubscription {
    /// The next event; `None` once the manager is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivered> {
        match self.receiver.recv().await {
            Ok(event) => Some(Delivered::Event(Arc::unwrap_or_clone(event))),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Delivered::Lagged { missed }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(text: &str) -> IncomingFrame {
        match Frame::decode(Bytes::copy_from_slice(text.as_bytes())).expect("a frame") {
            Frame::Event(event) => IncomingFrame::Event(event.into()),
            Frame::JsonRpc(message) => IncomingFrame::JsonRpc(message.into()),
            Frame::Unknown(payload) => IncomingFrame::Unknown(payload),
            other => panic!("not an incoming frame: {other:?}"),
        }
    }

    /// Reduces an event to its kind and its texts.
    fn told(text: &str) -> String {
        let json = |payload: Payload| payload.as_str().to_owned();
        match event_of(frame(text)) {
            None => "nothing".to_owned(),
            Some(GatewayEvent::Chat { message }) => format!("chat {}", json(message)),
            Some(GatewayEvent::Agent { chat, payload }) => {
                format!(
                    "agent {} of {}",
                    chat.map_or("-".to_owned(), json),
                    json(payload)
                )
            }
            Some(GatewayEvent::ChannelStatus { payload }) => format!("channel {}", json(payload)),
            Some(GatewayEvent::Notification { method, params }) => {
                format!("{method} {}", params.map_or("-".to_owned(), json))
            }
            Some(GatewayEvent::Error { message, .. }) => format!("error {message}"),
            Some(GatewayEvent::Message(payload)) => format!("message {}", json(payload)),
            Some(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn every_frame_becomes_one_event() {
        let table = [
            (
                r#"{"type":"event","event":"tick","payload":{"ts":1}}"#,
                "nothing",
            ),
            (
                r#"{"type":"event","event":"chat","payload":{"text":"hi"}}"#,
                r#"chat {"text":"hi"}"#,
            ),
            (r#"{"type":"event","event":"chat"}"#, "chat -"),
            (
                r#"{"type":"event","event":"channel.status","payload":{"up":true}}"#,
                r#"channel {"up":true}"#,
            ),
            (
                r#"{"type":"event","event":"new.thing","payload":[1]}"#,
                "new.thing [1]",
            ),
            (
                r#"{"type":"event","event":"agent","payload":{"runId":"r","data":{"state":"delta","runId":"old"}}}"#,
                r#"agent {"runId":"r","state":"delta"} of {"runId":"r","data":{"state":"delta","runId":"old"}}"#,
            ),
            (
                r#"{"type":"event","event":"agent","payload":{"state":"final","message":"m","data":{"state":"delta"}}}"#,
                r#"agent {"message":"m","state":"final"} of {"state":"final","message":"m","data":{"state":"delta"}}"#,
            ),
            (
                r#"{"type":"event","event":"agent","payload":{"data":{"x":1}}}"#,
                r#"agent - of {"data":{"x":1}}"#,
            ),
            (
                r#"{"type":"event","event":"agent","payload":null}"#,
                "agent - of null",
            ),
            (
                r#"{"type":"event","event":"agent","payload":{"data":7,"state":"x"}}"#,
                r#"agent {"state":"x"} of {"data":7,"state":"x"}"#,
            ),
            (r#"{"type":"event","event":"agent"}"#, "agent -"),
            (
                r#"{"jsonrpc":"2.0","method":"channel.status_changed","params":{"c":1}}"#,
                r#"channel {"c":1}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"chat.message_received","params":{"c":1}}"#,
                r#"chat {"c":1}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"error","params":{"message":"broken"}}"#,
                "error broken",
            ),
            (
                r#"{"jsonrpc":"2.0","method":"error"}"#,
                "error Gateway error",
            ),
            (
                r#"{"jsonrpc":"2.0","method":"anything","params":{"c":1}}"#,
                r#"anything {"c":1}"#,
            ),
            (
                r#"{"type":"strange","x":1}"#,
                r#"message {"type":"strange","x":1}"#,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_its_neighbour_does_not_notice() {
        let bus = EventBus::new(4);
        let (mut slow, mut quick) = (bus.subscribe(), bus.subscribe());
        for number in 0..10 {
            bus.publish(GatewayEvent::Warning {
                message: number.to_string(),
            });
            assert!(
                matches!(quick.next().await, Some(Delivered::Event(GatewayEvent::Warning { message })) if message == number.to_string())
            );
        }
        assert!(matches!(
            slow.next().await,
            Some(Delivered::Lagged { missed: 6 })
        ));
        assert!(
            matches!(slow.next().await, Some(Delivered::Event(GatewayEvent::Warning { message })) if message == "6")
        );
        drop(bus);
        while let Some(delivered) = slow.next().await {
            assert!(matches!(delivered, Delivered::Event(_)));
        }
    }
}
