//! One line from QEMU.

use crate::event::{self, Event, Stamped};
use hybond_core::text::fit;
use serde::Deserialize;
use serde_json::Value;
use std::time::SystemTime;

/// QEMU's refusal of a command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    pub class: String,
    pub desc: String,
}

impl Default for Refusal {
    fn default() -> Self {
        Self {
            class: "GenericError".into(),
            desc: "no reason given".into(),
        }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// The first line of a connection.
    Greeting,
    Event(Stamped),
    /// Without an id where QEMU could not read the command.
    Answer {
        id: Option<u64>,
        outcome: Result<Value, Refusal>,
    },
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    data: Option<Value>,
    timestamp: Option<Time>,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct Time {
    seconds: i64,
    microseconds: i64,
}

/// Longest text of QEMU's that is kept, in characters. Its own sentences are shorter.
const LONGEST: usize = 1024;

/// Reads one line. An id that is not a number of ours answers nothing of ours. The error is for people.
pub(crate) fn decode(line: &[u8]) -> Result<Message, String> {
    // It quotes what does not fit.
    let envelope: Envelope = serde_json::from_slice(line).map_err(|e| fit(&e.to_string(), LONGEST))?;
    if envelope.greeting.is_some() {
        return Ok(Message::Greeting);
    }
    if let Some(name) = envelope.event {
        let at = envelope
            .timestamp
            .and_then(|t| event::time(t.seconds, t.microseconds))
            .unwrap_or_else(SystemTime::now);
        let event = Event::decode(&name, envelope.data);
        return Ok(Message::Event(Stamped { at, event }));
    }
    Ok(Message::Answer {
        id: envelope.id.map(|id| id.as_u64().unwrap_or(u64::MAX)),
        outcome: match envelope.error {
            Some(Refusal { class, desc }) => Err(Refusal {
                class: fit(&class, LONGEST),
                desc: fit(&desc, LONGEST),
            }),
            None => Ok(envelope.returned.unwrap_or(Value::Null)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_kinds_of_lines_are_told_apart() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}"#;
        assert_eq!(decode(greeting).expect("greeting"), Message::Greeting);
        let answer = decode(br#"{"return": {}, "id": 7}"#).expect("answer");
        assert!(matches!(
            answer,
            Message::Answer {
                id: Some(7),
                outcome: Ok(_)
            }
        ));
        let refused =
            br#"{"id": 8, "error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}"#;
        let Message::Answer {
            id: Some(8),
            outcome: Err(refusal),
        } = decode(refused).expect("refusal")
        else {
            panic!("not a refusal")
        };
        assert_eq!(refusal.class, "CommandNotFound");
        let event = br#"{"timestamp": {"seconds": 10, "microseconds": 5}, "event": "RESUME"}"#;
        let Message::Event(stamped) = decode(event).expect("event") else {
            panic!("not an event")
        };
        assert_eq!(stamped.at, SystemTime::UNIX_EPOCH + Duration::from_micros(10_000_005));
        assert_eq!(stamped.event, Event::Resume);
        assert!(decode(b"{\"return\": ").is_err());
    }

    #[test]
    fn what_qemu_says_is_kept_short_and_clean() {
        let long = "\\u001b[2J".repeat(100_000);
        let refused = format!("{{\"id\": 8, \"error\": {{\"class\": \"{long}\", \"desc\": \"{long}\"}}}}");
        let Message::Answer {
            outcome: Err(refusal), ..
        } = decode(refused.as_bytes()).expect("refusal")
        else {
            panic!("not a refusal")
        };
        let odd = format!("{{\"error\": \"{long}\"}}");
        let error = decode(odd.as_bytes()).expect_err("no refusal");
        for text in [refusal.class, refusal.desc, error] {
            assert!(text.len() <= LONGEST && !text.contains(char::is_control), "{text}");
        }
    }
}
