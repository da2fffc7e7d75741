//! From a definition of Protocol Buffers to routes: one for each method of each service.
//!
//! Only services are read; messages and all else is passed over by its brackets.

use super::{NoProfile, Subject, quoted};
use serde_json::{Value, json};
use std::iter::Peekable;

/// # Errors
/// The brackets of the text do not match, or a service is none.
pub fn proto(text: &str, of: Subject<'_>) -> Result<Value, NoProfile> {
    let mut reader = Reader { words: words(text)?.into_iter().peekable(), line: 1 };
    let (mut package, mut methods) = (String::new(), vec![]);
    while let Some(word) = reader.next() {
        match word.as_str() {
            "package" => {
                package = reader.expect("the name of a package")?;
                reader.statement()?;
            }
            "service" => reader.service(&mut methods)?,
            ";" => {}
            _ => reader.statement()?,
        }
    }
    let routes = methods.into_iter().map(|method| {
        let service = if package.is_empty() { method.service.clone() } else { format!("{package}.{}", method.service) };
        let path = quoted(&format!("/{service}/{}", method.name));
        let mut route = json!({ "name": method.name, "condition": { "method": "POST", "pathRegex": path } });
        if method.is_idempotent {
            route["isRetryable"] = json!(true);
        }
        route
    });
    Ok(of.object(routes.collect()))
}

struct Method {
    service: String,
    name: String,
    /// Whether the same request twice is as good as once.
    is_idempotent: bool,
}

/// A word and its line.
type Word = (String, u32);

/// Names with dots, texts, numbers and single signs; comments are left out.
fn words(text: &str) -> Result<Vec<Word>, NoProfile> {
    let mut words: Vec<Word> = vec![];
    let mut line = 1_u32;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => line = line.saturating_add(1),
            c if c.is_whitespace() => {}
            '/' if rest.peek() == Some(&'/') => {
                while rest.peek().is_some_and(|c| *c != '\n') {
                    rest.next();
                }
            }
            '/' if rest.peek() == Some(&'*') => {
                let (begin, mut before) = (line, ' ');
                rest.next();
                loop {
                    match rest.next() {
                        Some('/') if before == '*' => break,
                        Some(c) => {
                            line = line.saturating_add(u32::from(c == '\n'));
                            before = c;
                        }
                        None => return Err(unreadable(begin, "a comment does not end")),
                    }
                }
            }
            '"' | '\'' => {
                let begin = line;
                loop {
                    match rest.next() {
                        Some('\\') => {
                            rest.next();
                        }
                        Some(end) if end == c => break,
                        Some('\n') | None => return Err(unreadable(begin, "a text does not end")),
                        Some(_) => {}
                    }
                }
                words.push(("\"\"".to_owned(), begin));
            }
            c if is_of_a_name(c) => {
                let mut word = c.to_string();
                while let Some(c) = rest.next_if(|c| is_of_a_name(*c)) {
                    word.push(c);
                }
                words.push((word, line));
            }
            sign => words.push((sign.to_string(), line)),
        }
    }
    Ok(words)
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn unreadable(line: u32, message: &str) -> NoProfile {
    NoProfile::Unreadable { line, message: message.to_owned(), remedy: "correct the definition" }
}

struct Reader<I: Iterator<Item = Word>> {
    words: Peekable<I>,
    line: u32,
}

impl<I: Iterator<Item = Word>> Reader<I> {
    fn next(&mut self) -> Option<String> {
        let (word, line) = self.words.next()?;
        self.line = line;
        Some(word)
    }

    fn expect(&mut self, what: &str) -> Result<String, NoProfile> {
        let line = self.line;
        self.next().ok_or_else(|| unreadable(line, &format!("it ends where {what} should stand")))
    }

    fn sign(&mut self, sign: &str) -> Result<(), NoProfile> {
        let found = self.expect(sign)?;
        if found == sign { Ok(()) } else { Err(unreadable(self.line, &format!("{found} stands where {sign} should"))) }
    }

    /// Passes over the rest of a statement, which ends with `;` or with its block.
    fn statement(&mut self) -> Result<(), NoProfile> {
        let (begin, mut depth) = (self.line, 0_u32);
        while let Some(word) = self.next() {
            match word.as_str() {
                "{" => depth = depth.saturating_add(1),
                "}" if depth <= 1 => {
                    // Of an option's value, behind which its `;` stands.
                    if self.words.peek().is_some_and(|(word, _)| word == ";") {
                        self.next();
                    }
                    return if depth == 1 { Ok(()) } else { Err(unreadable(self.line, "there is a } too many")) };
                }
                "}" => depth -= 1,
                ";" if depth == 0 => return Ok(()),
                _ => {}
            }
        }
        Err(unreadable(begin, "what begins here does not end"))
    }

    fn service(&mut self, methods: &mut Vec<Method>) -> Result<(), NoProfile> {
        let service = self.expect("the name of a service")?;
        self.sign("{")?;
        loop {
            match self.expect("}")?.as_str() {
                "}" => return Ok(()),
                ";" => {}
                "rpc" => methods.push(self.method(&service)?),
                _ => self.statement()?,
            }
        }
    }

    /// `rpc Name (Request) returns (Response)` with `;` or options behind.
    fn method(&mut self, service: &str) -> Result<Method, NoProfile> {
        let name = self.expect("the name of a method")?;
        let mut method = Method { service: service.to_owned(), name, is_idempotent: false };
        loop {
            match self.expect("; or {")?.as_str() {
                ";" => return Ok(method),
                "{" => break,
                "}" => return Err(unreadable(self.line, "a method ends neither with ; nor with a block")),
                _ => {}
            }
        }
        loop {
            match self.expect("}")?.as_str() {
                "}" => return Ok(method),
                ";" => {}
                "option" => {
                    let name = self.expect("the name of an option")?;
                    if name == "idempotency_level" {
                        self.sign("=")?;
                        let level = self.expect("a level")?;
                        method.is_idempotent = level == "IDEMPOTENT" || level == "NO_SIDE_EFFECTS";
                    }
                    self.statement()?;
                }
                _ => self.statement()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::WEB;
    use super::*;

    const EMOJI: &str = r#"syntax = "proto3"; // and { no more
/* service Old { rpc Gone (A) returns (B); } */
package emoji.v1;
option go_package = "a{b";
import "google/protobuf/empty.proto";
message Emoji { string name = 1; message Inner { enum Kind { NONE = 0; } } oneof a { int32 b = 2; } }
service EmojiService {
  option deprecated = false;
  rpc ListAll (Empty) returns (stream Emoji);
  rpc Find (.emoji.v1.Query) returns (Emoji) {
    option (google.api.http) = { get: "/v1/{name}" };
    option idempotency_level = NO_SIDE_EFFECTS;
  }
  rpc Put (stream Emoji) returns (Empty) { option idempotency_level = IDEMPOTENCY_UNKNOWN; };
}
service Other { rpc Do(A) returns(B) {} }
"#;

    #[test]
    fn each_method_becomes_a_route() {
        let profile = proto(EMOJI, WEB).unwrap();
        let route = |service: &str, name: &str| json!({"name": name, "condition": {"method": "POST", "pathRegex": format!(r"/emoji\.v1\.{service}/{name}")}});
        let mut find = route("EmojiService", "Find");
        find["isRetryable"] = json!(true);
        let expected = [route("EmojiService", "ListAll"), find, route("EmojiService", "Put"), route("Other", "Do")];
        assert_eq!(profile["spec"]["routes"], json!(expected));
        let plain = proto("service A { rpc B (C) returns (D); }", WEB).unwrap();
        assert_eq!(plain["spec"]["routes"][0]["condition"]["pathRegex"], "/A/B");
    }

    #[test]
    fn what_does_not_end_is_told_with_its_line() {
        for (text, says) in [
            ("\nservice A {\n", "line 2: it ends where } should stand"),
            ("service A { rpc B (C)", "line 1: it ends where ; or { should stand"),
            ("service A ; rpc", "line 1: ; stands where { should"),
            ("\n\nmessage A {", "line 3: what begins here does not end"),
            ("/* a", "line 1: a comment does not end"),
            ("a = \"b\n\";", "line 1: a text does not end"),
            ("option a = b; }", "line 1: what begins here does not end"),
            ("message A; x }", "line 1: there is a } too many"),
        ] {
            let told = proto(text, WEB).unwrap_err().to_string();
            assert!(told.starts_with(says), "{text}: {told}");
        }
        assert_eq!(proto("", WEB).unwrap()["spec"]["routes"], json!([]));
    }
}
