//! The stream of events between the process that knows the objects and the control plane: one JSON text per line.
//!
//! Pure: who holds the socket passes lines. A stream begins with everything that exists; a new connection begins anew, and what was
//! not in its list is then deleted. [`Event::Synced`] ends this list, and what has changed at once after it: somebody who closes a port
//! and names who may still call it has done so in one edit, and nobody is to be answered by half of it.

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
    /// What was handed on.
    known: HashSet<Key>,
    /// The connection's list is not complete.
    is_listing: bool,
    /// What came since the last mark.
    held: Vec<Event>,
}

impl Resync {
    /// A new connection begins. What the last one told and did not end counts as not told.
    pub fn connected(&mut self) {
        self.is_listing = true;
        self.held.clear();
    }

    /// The events that belong together and end with this line: none but for `Synced`, which is the last of them; at the end of a list
    /// with the deletion of what was not in it.
    ///
    /// # Errors
    /// The line is no event. The connection should be ended, since what follows cannot be trusted to be complete.
    pub fn line(&mut self, line: &str) -> Result<Vec<Event>, InvalidEvent> {
        if line.len() > MAX_LINE_BYTES {
            return Err(InvalidEvent::TooLong);
        }
        let event: Event = serde_json::from_str(line)?;
        if event != Event::Synced {
            self.held.push(event);
            return Ok(vec![]);
        }
        let mut events = std::mem::take(&mut self.held);
        let before =
            if std::mem::take(&mut self.is_listing) { std::mem::take(&mut self.known) } else { HashSet::new() };
        for event in &events {
            match event {
                Event::Apply(object) => drop(self.known.insert(object.key())),
                Event::Delete(key) => drop(self.known.remove(key)),
                Event::Refused(_) | Event::Synced => {}
            }
        }
        let mut gone: Vec<Key> = before.difference(&self.known).cloned().collect();
        gone.sort();
        events.extend(gone.into_iter().map(Event::Delete));
        events.push(Event::Synced);
        Ok(events)
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
        let apply = |name: &str| Event::Apply(token(name));
        let delete = |name: &str| Event::Delete(key(name));
        let feed = |resync: &mut Resync, events: &[Event]| {
            events.iter().for_each(|event| assert_eq!(resync.line(encode(event).trim_end()).unwrap(), []));
        };
        let mark = |resync: &mut Resync| resync.line("\"synced\"").unwrap();
        resync.connected();
        feed(&mut resync, &["a", "b", "c"].map(apply));
        assert_eq!(mark(&mut resync), [apply("a"), apply("b"), apply("c"), Event::Synced]);
        feed(&mut resync, &[delete("c"), apply("e")]);
        assert_eq!(mark(&mut resync), [delete("c"), apply("e"), Event::Synced], "together");
        // The stream breaks in the middle of an edit and of the next list: nothing of them counts.
        feed(&mut resync, &[delete("b"), apply("f")]);
        resync.connected();
        feed(&mut resync, &[apply("b")]);
        resync.connected();
        feed(&mut resync, &[apply("b"), apply("d")]);
        assert_eq!(mark(&mut resync), [apply("b"), apply("d"), delete("a"), delete("e"), Event::Synced]);
        // A second mark without a new connection deletes nothing.
        assert_eq!(mark(&mut resync), [Event::Synced]);
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
