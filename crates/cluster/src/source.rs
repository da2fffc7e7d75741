//! The stream of events between the process that knows the objects and the control plane: one JSON text per line.
//!
//! Pure: who holds the socket passes lines. A stream begins with everything that exists, then [`Event::Synced`], then
//! changes; a new connection begins anew, and what was not in its list is then deleted.

use crate::{Event, Key};
use std::collections::HashSet;

/// Longest line that is read.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    #[error("line is no event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("line has more than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

/// The event as one line, with its newline.
pub fn encode(event: &Event) -> String {
    // Keys of all maps in these types are strings, so that encoding cannot fail.
    serde_json::to_string(event).map(|line| line + "\n").unwrap_or_default()
}

/// Turns the lines of one connection after the other into events for the index.
#[derive(Debug, Default)]
pub struct Resync {
    known: HashSet<Key>,
    /// Keys of this connection's list, until it is complete.
    listed: Option<HashSet<Key>>,
}

impl Resync {
    /// A new connection begins.
    pub fn connected(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The events that a line stands for: itself, and for `Synced` also the deletion of what was not listed.
    ///
    /// # Errors
    /// The line is no event. The connection should be ended, since what follows cannot be trusted to be complete.
    pub fn line(&mut self, line: &str) -> Result<Vec<Event>, InvalidEvent> {
        if line.len() > MAX_LINE_BYTES {
            return Err(InvalidEvent::TooLong);
        }
        let event: Event = serde_json::from_str(line)?;
        match &event {
            Event::Apply(object) => {
                let key = object.key();
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                self.known.insert(key);
            }
            Event::Refused(_) => {}
            Event::Delete(key) => {
                self.known.remove(key);
                if let Some(listed) = &mut self.listed {
                    listed.remove(key);
                }
            }
            Event::Synced => {
                let Some(listed) = self.listed.take() else { return Ok(vec![Event::Synced]) };
                let mut gone: Vec<Key> = self.known.difference(&listed).cloned().collect();
                gone.sort();
                self.known = listed;
                let mut events: Vec<Event> = gone.into_iter().map(Event::Delete).collect();
                events.push(Event::Synced);
                return Ok(events);
            }
        }
        Ok(vec![event])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Object, Token};

    fn token(name: &str) -> Object {
        Object::Token(Token {
            sha256: name.to_owned(),
            namespace: "ns".to_owned(),
            service_account: "sa".to_owned(),
            pod: "pod".to_owned(),
        })
    }

    fn key(name: &str) -> Key {
        Key::new(Kind::Token, "ns", name)
    }

    #[test]
    fn what_a_new_list_leaves_out_is_deleted() {
        let mut resync = Resync::default();
        let mut feed = |event: &Event| resync.line(encode(event).trim_end()).unwrap();
        assert_eq!(feed(&Event::Apply(token("early"))), [Event::Apply(token("early"))]);
        let mut resync = Resync::default();
        resync.connected();
        for name in ["a", "b", "c"] {
            resync.line(encode(&Event::Apply(token(name))).trim_end()).unwrap();
        }
        assert_eq!(resync.line("\"synced\"").unwrap(), [Event::Synced]);
        resync.line(encode(&Event::Delete(key("c"))).trim_end()).unwrap();
        // The stream breaks in the middle of the next list: nothing is deleted yet.
        resync.connected();
        resync.line(encode(&Event::Apply(token("b"))).trim_end()).unwrap();
        resync.connected();
        resync.line(encode(&Event::Apply(token("b"))).trim_end()).unwrap();
        resync.line(encode(&Event::Apply(token("d"))).trim_end()).unwrap();
        assert_eq!(resync.line("\"synced\"").unwrap(), [Event::Delete(key("a")), Event::Synced]);
        // A second mark without a new connection deletes nothing.
        assert_eq!(resync.line("\"synced\"").unwrap(), [Event::Synced]);
    }

    #[test]
    fn other_lines_are_refused() {
        let mut resync = Resync::default();
        for line in ["", "{}", "synced", "{\"apply\":{\"Widget\":{}}}", "[1]"] {
            assert!(matches!(resync.line(line), Err(InvalidEvent::Json(_))), "{line}");
        }
        assert!(matches!(resync.line(&" ".repeat(MAX_LINE_BYTES + 1)), Err(InvalidEvent::TooLong)));
    }
}
