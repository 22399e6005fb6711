//! The envelope of every message: requests, responses and events.
//!
//! One JSON object per WebSocket message, text or binary. Decoding looks at the envelope only: one pass over
//! the bytes checks that all of it is JSON, and payloads stay slices of what was received.
//!
//! # What odd frames become
//!
//! * A field that the frame's kind does not know is kept in `extra` and written back.
//! * A known field with a wrong kind of value (`"seq":"x"`) is kept there too; the typed field is then empty.
//! * An object that is no good request, response, event or JSON-RPC message is [`Frame::Unknown`].
//! * A JSON value that is no object, or bytes that are no JSON, are a [`DecodeError`].
//!
//! Encoding what was decoded gives equal JSON, except that a malformed response comes back well formed: an absent
//! `ok` is added, and so are an absent `error` or error message of a failure, and an absent `result` of a JSON-RPC
//! response that has an `error` of `null`.

use alloc::{borrow::Cow, string::String, vec::Vec};

use bytes::Bytes;

use crate::{
    error::{DecodeError, EncodeError, ErrorShape},
    event::StateVersion,
    json::{self, ObjectWriter},
    jsonrpc,
};
pub use crate::{extra::Extra, payload::Payload, request_id::RequestId};

/// A call from client to gateway (or, in the fake gateways of tests, the other end of it).
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Text that the response repeats. Gateways refuse an empty one.
    pub id: String,
    /// Method name, for example `config.get`.
    pub method: String,
    /// Arguments; most methods want an object.
    pub params: Option<Payload>,
    /// W3C trace context, at most [`MAX_TRACEPARENT`](crate::limits::MAX_TRACEPARENT) characters (protocol 4).
    pub traceparent: Option<String>,
    /// Further fields. Gateways refuse requests that have unknown ones.
    pub extra: Extra,
}

impl Request {
    /// A request without trace context.
    pub fn new(id: impl Into<String>, method: impl Into<String>, params: Option<Payload>) -> Self {
        Self {
            id: id.into(),
            method: method.into(),
            params,
            traceparent: None,
            extra: Extra::new(),
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The id of the request. A gateway that could not read one says `invalid`.
    pub id: RequestId,
    /// What became of the request.
    pub outcome: ResponseOutcome,
    /// Further fields.
    pub extra: Extra,
}

impl Response {
    /// A success.
    pub fn ok(id: impl Into<RequestId>, payload: Option<Payload>) -> Self {
        Self {
            id: id.into(),
            outcome: ResponseOutcome::Ok(payload),
            extra: Extra::new(),
        }
    }

    /// A failure.
    pub fn error(id: impl Into<RequestId>, error: ErrorShape) -> Self {
        Self {
            id: id.into(),
            outcome: ResponseOutcome::Err(error),
            extra: Extra::new(),
        }
    }

    /// The value of a success in the reading of older clients: the payload or, where that is null or absent, the
    /// whole frame. `None` for a failure.
    pub fn payload_or_frame(&self) -> Option<Payload> {
        match &self.outcome {
            ResponseOutcome::Ok(Some(payload)) if !payload.is_null() => Some(payload.clone()),
            ResponseOutcome::Ok(_) => {
                let mut out = String::new();
                write_response(self, &mut out);
                Some(Payload::from_valid(out))
            }
            ResponseOutcome::Err(_) => None,
        }
    }
}

/// Success or failure of a request.
///
/// A response counts as failed when `ok` is exactly `false`, or when its `error` is anything that JavaScript
/// takes for true. Everything else is a success, whatever the payload: `0`, `false` and `""` included.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseOutcome {
    /// Success with the payload, if there is one.
    Ok(Option<Payload>),
    /// Failure.
    Err(ErrorShape),
}

impl ResponseOutcome {
    /// The outcome as a `Result`.
    pub fn into_result(self) -> Result<Option<Payload>, ErrorShape> {
        match self {
            Self::Ok(payload) => Ok(payload),
            Self::Err(error) => Err(error),
        }
    }
}

/// Something a gateway tells without being asked.
#[derive(Clone, Debug, PartialEq)]
pub struct EventFrame {
    /// Name, for example `tick`; see [`event::name`](crate::event::name). Unknown names are fine.
    pub event: String,
    /// What is told.
    pub payload: Option<Payload>,
    /// Number of the event. Protocol 4 counts per connection from 1 without gaps; protocol 3 counts for the whole
    /// process, so the first value is arbitrary and gaps occur. Targeted events have none.
    pub seq: Option<u64>,
    /// Versions of the presence and health state after this event.
    pub state_version: Option<StateVersion>,
    /// Further fields, for example `recipientProfileId`.
    pub extra: Extra,
}

impl EventFrame {
    /// An event without number and state version.
    pub fn new(event: impl Into<String>, payload: Option<Payload>) -> Self {
        Self {
            event: event.into(),
            payload,
            seq: None,
            state_version: None,
            extra: Extra::new(),
        }
    }
}

/// One message in either direction.
///
/// ```
/// use gateway_protocol::{Frame, Payload, Request};
///
/// let request = Request::new("1", "health", Some(Payload::from_json("{}")?));
/// let text = Frame::from(request).encode()?;
/// assert_eq!(text, r#"{"type":"req","id":"1","method":"health","params":{}}"#);
///
/// let Frame::Event(event) = Frame::decode(r#"{"type":"event","event":"tick","payload":{"ts":5}}"#.into())? else {
///     panic!("not an event");
/// };
/// assert_eq!(event.event, "tick");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// `"type":"req"` with a text id and a method.
    Request(Request),
    /// `"type":"res"` with an id that is text or a number.
    Response(Response),
    /// `"type":"event"` with a name.
    Event(EventFrame),
    /// None of the above, and a JSON-RPC 2.0 message.
    JsonRpc(jsonrpc::Message),
    /// Any other JSON object.
    Unknown(Payload),
}

impl Frame {
    /// Reads one message. Payloads share the memory of `bytes`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are not UTF-8, not JSON, not an object, or an object of more than
    /// [`MAX_OBJECT_FIELDS`](crate::limits::MAX_OBJECT_FIELDS) fields.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let text = json::utf8(&bytes)?;
        let mut envelope = Envelope::read(text)?;
        let kind = envelope.text(Field::Type);
        let frame = match kind.as_deref() {
            Some("event") => envelope.event(&bytes),
            Some("res") => envelope.response(&bytes),
            Some("req") => envelope.request(&bytes),
            _ => None,
        };
        Ok(frame
            .or_else(|| envelope.jsonrpc(&bytes))
            .unwrap_or_else(|| {
                Self::Unknown(Payload::slice_of(&bytes, text.trim_matches(JSON_SPACE)))
            }))
    }

    /// Writes the message as one line of JSON.
    ///
    /// # Errors
    ///
    /// None at present: every frame can be written. The result leaves room for limits.
    pub fn encode(&self) -> Result<String, EncodeError> {
        let mut out = String::with_capacity(self.size_hint());
        match self {
            Self::Request(request) => write_request(request, &mut out),
            Self::Response(response) => write_response(response, &mut out),
            Self::Event(event) => write_event(event, &mut out),
            Self::JsonRpc(message) => message.write(&mut out),
            Self::Unknown(payload) => out.push_str(payload.as_str()),
        }
        Ok(out)
    }

    /// About as many bytes as the encoded frame has, so that a large payload is copied once.
    fn size_hint(&self) -> usize {
        let payload = match self {
            Self::Request(request) => request.params.as_ref(),
            Self::Response(Response {
                outcome: ResponseOutcome::Ok(payload),
                ..
            }) => payload.as_ref(),
            Self::Event(event) => event.payload.as_ref(),
            Self::Unknown(payload) => Some(payload),
            Self::Response(_) | Self::JsonRpc(_) => None,
        };
        128 + payload.map_or(0, Payload::len)
    }
}

impl From<Request> for Frame {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Response> for Frame {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

impl From<EventFrame> for Frame {
    fn from(event: EventFrame) -> Self {
        Self::Event(event)
    }
}

impl From<jsonrpc::Message> for Frame {
    fn from(message: jsonrpc::Message) -> Self {
        Self::JsonRpc(message)
    }
}

/// White space of JSON (RFC 8259, section 2).
const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Declares the known fields, their names, and the way back from a name.
macro_rules! fields {
    ($($field:ident = $name:literal,)*) => {
        /// Fields that some kind of message knows.
        #[derive(Clone, Copy)]
        pub(crate) enum Field {
            $($field,)*
        }

        impl Field {
            const NAMES: &'static [&'static str] = &[$($name),*];

            fn of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    Type = "type",
    Id = "id",
    Method = "method",
    Params = "params",
    Ok = "ok",
    Payload = "payload",
    Error = "error",
    Event = "event",
    Seq = "seq",
    StateVersion = "stateVersion",
    Traceparent = "traceparent",
    JsonRpc = "jsonrpc",
    Result = "result",
}

/// Every message kind at once: the raw values of the known fields, and the others by name.
#[derive(Default)]
pub(crate) struct Envelope<'a> {
    known: [Option<&'a str>; Field::NAMES.len()],
    others: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Envelope<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self, DecodeError> {
        let mut envelope = Self::default();
        json::read_object(text, |name, raw| {
            match Field::of(&name) {
                // A repeated field: the last one counts, as in JavaScript.
                Some(field) => envelope.known[field as usize] = Some(raw),
                None => envelope.others.push((name, raw)),
            }
        })?;
        Ok(envelope)
    }

    pub(crate) fn raw(&self, field: Field) -> Option<&'a str> {
        self.known[field as usize]
    }

    fn text(&self, field: Field) -> Option<Cow<'a, str>> {
        self.raw(field).and_then(json::text)
    }

    /// Marks a field as understood, so that it does not become an extra one.
    pub(crate) fn clear(&mut self, field: Field) {
        self.known[field as usize] = None;
    }

    /// Takes a field out when `read` understands it.
    fn take<T>(&mut self, field: Field, read: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        let value = read(self.raw(field)?)?;
        self.clear(field);
        Some(value)
    }

    pub(crate) fn take_text(&mut self, field: Field) -> Option<String> {
        self.take(field, json::text).map(Cow::into_owned)
    }

    pub(crate) fn take_payload(&mut self, field: Field, source: &Bytes) -> Option<Payload> {
        self.take(field, |raw| Some(Payload::slice_of(source, raw)))
    }

    /// What is left, known names first.
    pub(crate) fn rest(&mut self, source: &Bytes) -> Extra {
        let mut extra = Extra::new();
        for (name, raw) in Field::NAMES.iter().zip(self.known) {
            if let Some(raw) = raw {
                extra.push((*name).into(), Payload::slice_of(source, raw));
            }
        }
        for (name, raw) in self.others.drain(..) {
            extra.push(name.into_owned(), Payload::slice_of(source, raw));
        }
        extra
    }

    fn request(&mut self, source: &Bytes) -> Option<Frame> {
        self.text(Field::Method)?;
        let id = self.take_text(Field::Id)?;
        let method = self.take_text(Field::Method)?;
        self.clear(Field::Type);
        Some(Frame::Request(Request {
            id,
            method,
            params: self.take_payload(Field::Params, source),
            traceparent: self.take_text(Field::Traceparent),
            extra: self.rest(source),
        }))
    }

    fn response(&mut self, source: &Bytes) -> Option<Frame> {
        let id = self.take(Field::Id, RequestId::from_raw)?;
        self.clear(Field::Type);
        let ok = self.raw(Field::Ok).and_then(json::boolean);
        let error = self.raw(Field::Error);
        let failed = ok == Some(false) || error.is_some_and(json::truthy);
        // `ok` is dropped only when writing the outcome gives the same again; otherwise it stays word for word.
        if ok == Some(!failed) {
            self.clear(Field::Ok);
        }
        let outcome = if failed {
            let (error, whole) = ErrorShape::from_raw(source, error);
            if whole {
                self.clear(Field::Error);
            }
            ResponseOutcome::Err(error)
        } else {
            ResponseOutcome::Ok(self.take_payload(Field::Payload, source))
        };
        Some(Frame::Response(Response {
            id,
            outcome,
            extra: self.rest(source),
        }))
    }

    fn event(&mut self, source: &Bytes) -> Option<Frame> {
        let event = self.take_text(Field::Event)?;
        self.clear(Field::Type);
        let state_version = self.raw(Field::StateVersion).and_then(|raw| {
            let (version, whole) = StateVersion::from_raw(source, raw)?;
            if whole {
                self.clear(Field::StateVersion);
            }
            Some(version)
        });
        Some(Frame::Event(EventFrame {
            event,
            payload: self.take_payload(Field::Payload, source),
            seq: self.take(Field::Seq, json::unsigned),
            state_version,
            extra: self.rest(source),
        }))
    }

    fn jsonrpc(&mut self, source: &Bytes) -> Option<Frame> {
        jsonrpc::Message::from_envelope(self, source).map(Frame::JsonRpc)
    }
}

fn write_request(request: &Request, out: &mut String) {
    let mut object = ObjectWriter::begin(out, &request.extra);
    object.text("type", "req");
    object.text("id", &request.id);
    object.text("method", &request.method);
    object.payload("params", request.params.as_ref());
    object.optional_text("traceparent", request.traceparent.as_deref());
    object.finish();
}

fn write_response(response: &Response, out: &mut String) {
    let mut object = ObjectWriter::begin(out, &response.extra);
    object.text("type", "res");
    object.with("id", |out| response.id.write(out));
    match &response.outcome {
        ResponseOutcome::Ok(payload) => {
            object.display("ok", true);
            object.payload("payload", payload.as_ref());
        }
        ResponseOutcome::Err(error) => {
            object.display("ok", false);
            object.object("error", error);
        }
    }
    object.finish();
}

fn write_event(event: &EventFrame, out: &mut String) {
    let mut object = ObjectWriter::begin(out, &event.extra);
    object.text("type", "event");
    object.text("event", &event.event);
    object.payload("payload", event.payload.as_ref());
    object.optional_display("seq", event.seq);
    if let Some(version) = &event.state_version {
        object.with("stateVersion", |out| version.write(out));
    }
    object.finish();
}
