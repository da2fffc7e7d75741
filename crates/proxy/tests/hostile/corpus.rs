//! Requests that two servers could read in two ways, with what may be seen of each behind the proxy.
//!
//! What detection does not take for HTTP (a NUL in the first line, a method that is none) is no case here: it is carried as bytes, under the
//! policy of the port. `SMUGGLED` is a request that the policy refuses: it must never be seen, wherever it hides.

/// What the server may see of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// These paths, each once, in this order.
    Exactly(&'static [&'static str]),
    /// The first of these, or fewer: a part is refused, or broken off.
    AtMost(&'static [&'static str]),
    Nothing,
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) sees: Sees,
}

pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.ns\r\n\r\n";
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: app.ns\r\n\r\n";
const ONE: Sees = Sees::Exactly(&["/case"]);
const ONE_AT_MOST: Sees = Sees::AtMost(&["/case"]);
/// Some servers refuse what is in order.
const ANY: Sees = Sees::AtMost(&["/case", "/second"]);
const BOTH: Sees = Sees::Exactly(&["/case", "/second"]);

fn case(name: &str, bytes: impl Into<Vec<u8>>, sees: Sees) -> Case {
    Case { name: name.to_owned(), bytes: bytes.into(), sees }
}

/// A POST with these header lines and what follows the head.
fn post(headers: &str, rest: &str) -> String {
    format!("POST /case HTTP/1.1\r\nHost: app.ns\r\n{headers}\r\n{rest}")
}

/// A body in chunks that ends, with a request behind it that is refused if anybody sees it.
fn ended() -> String {
    format!("0\r\n\r\n{SMUGGLED}")
}

/// What frames a body in two ways, or in none.
fn framing(all: &mut Vec<Case>) {
    let length = format!("Content-Length: {}\r\n", ended().len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    let both: &[(&str, String)] = &[
        ("length, then chunks", format!("{length}{chunked}")),
        ("chunks, then length", format!("{chunked}{length}")),
        ("length 0 and chunks", format!("Content-Length: 0\r\n{chunked}")),
        ("two lengths", format!("Content-Length: 5\r\n{length}")),
        ("two lengths, the first is 0", format!("Content-Length: 0\r\n{length}")),
        ("the same length twice", format!("{length}{length}")),
        ("a list of lengths", "Content-Length: 5, 5\r\n".into()),
        ("a list with 0", format!("Content-Length: 0, {}\r\n", ended().len())),
        ("a length with a sign", format!("Content-Length: +{}\r\n", ended().len())),
        ("a negative length", "Content-Length: -1\r\n".into()),
        ("a length in hexadecimal", "Content-Length: 0x5\r\n".into()),
        ("a length with a blank inside", "Content-Length: 5 5\r\n".into()),
        ("a length with a fraction", "Content-Length: 5.0\r\n".into()),
        ("a length with an exponent", "Content-Length: 1e1\r\n".into()),
        ("a length in underscores", "Content-Length: 1_0\r\n".into()),
        ("a length beyond 64 bits", "Content-Length: 18446744073709551621\r\n".into()),
        ("an empty length", "Content-Length:\r\n".into()),
        ("a length in quotes", "Content-Length: \"5\"\r\n".into()),
        ("a length behind a vertical tab", "Content-Length: \x0b5\r\n".into()),
        ("a length with a comment", "Content-Length: 5;a\r\n".into()),
        ("a blank behind the name of the length", format!("Content-Length : {}\r\n", ended().len())),
        ("a tab behind the name of the length", format!("Content-Length\t: {}\r\n", ended().len())),
        ("a length on a folded line", format!("X: a\r\n {length}")),
        ("a folded length", "Content-Length:\r\n 5\r\n".into()),
        ("a length behind a bare CR", format!("X: a\r{length}")),
        ("a length behind a bare LF", format!("X: a\n{length}")),
        ("a length behind a NUL", format!("X: a\0{length}")),
        ("an encoding that is not known", "Transfer-Encoding: xchunked\r\n".into()),
        ("an encoding in list", "Transfer-Encoding: identity, chunked\r\n".into()),
        ("chunked and then not", "Transfer-Encoding: chunked, identity\r\n".into()),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n".into()),
        ("two encodings", format!("{chunked}Transfer-Encoding: identity\r\n")),
        ("two encodings, the other way", format!("Transfer-Encoding: identity\r\n{chunked}")),
        ("the same encoding twice", format!("{chunked}{chunked}")),
        ("an empty list and chunked", "Transfer-Encoding: ,chunked\r\n".into()),
        ("chunked and an empty list", "Transfer-Encoding: chunked,\r\n".into()),
        ("an empty encoding", "Transfer-Encoding:\r\n".into()),
        ("an empty encoding and chunked", format!("Transfer-Encoding:\r\n{chunked}")),
        ("chunked with a parameter", "Transfer-Encoding: chunked;a=b\r\n".into()),
        ("chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n".into()),
        ("chunked behind a vertical tab", "Transfer-Encoding: \x0bchunked\r\n".into()),
        ("chunked behind a form feed", "Transfer-Encoding: \x0cchunked\r\n".into()),
        ("chunked before a NUL", "Transfer-Encoding: chunked\0\r\n".into()),
        ("chunked and a byte above ASCII", "Transfer-Encoding: chunked\u{ff}\r\n".into()),
        ("a folded encoding", "Transfer-Encoding:\r\n chunked\r\n".into()),
        ("a folded encoding, with a tab", "Transfer-Encoding:\r\n\tchunked\r\n".into()),
        ("a blank behind the name of the encoding", "Transfer-Encoding : chunked\r\n".into()),
        ("a tab behind the name of the encoding", "Transfer-Encoding\t: chunked\r\n".into()),
        ("a blank before the name of the encoding", format!(" {chunked}")),
        ("an encoding behind a bare CR", format!("X: a\r{chunked}")),
        ("an encoding behind a bare LF", format!("X: a\n{chunked}")),
        ("a name of the encoding that holds a NUL", "Transfer-Encoding\0: chunked\r\n".into()),
        ("a name of the encoding with a byte above ASCII", "Transfer\u{ad}-Encoding: chunked\r\n".into()),
        ("no colon", "Transfer-Encoding chunked\r\n".into()),
        ("an empty name", ": chunked\r\n".into()),
    ];
    for (name, headers) in both {
        all.push(case(name, post(headers, &ended()), Sees::Nothing));
    }
    // An underscore is no hyphen, to us and to whoever is behind us: the request has no body then.
    all.push(case("an encoding in underscores", post("Transfer_Encoding: chunked\r\n", ""), ONE_AT_MOST));
    all.push(case("a length in an underscore", post("Content_Length: 5\r\n", ""), ONE_AT_MOST));
    // What is in order passes whole, and what is in a body stays there.
    all.push(case("a length", post(&length, &ended()), ONE));
    all.push(case("a length with zeros", post("Content-Length: 0005\r\n", &format!("hello{SECOND}")), BOTH));
    all.push(case("no body", post("", SECOND), BOTH));
    all.push(case("length 0", post("Content-Length: 0\r\n", SECOND), BOTH));
    all.push(case("blanks around the length", post("Content-Length: \t 5 \t\r\n", &format!("hello{SECOND}")), ANY));
    all.push(case("chunked in capitals", post("Transfer-Encoding: CHUNKED\r\n", &format!("0\r\n\r\n{SECOND}")), BOTH));
    let hidden = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    all.push(case("a request in a chunk", post(chunked, &hidden), ONE));
    let get = format!("GET /case HTTP/1.1\r\nHost: app.ns\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    all.push(case("a GET with a body", get, ONE));
    let head = format!("HEAD /case HTTP/1.1\r\nHost: app.ns\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    all.push(case("a HEAD with a body", head, ONE));
    all.push(case("a body that is cut off", post("Content-Length: 500\r\n", SMUGGLED), ONE_AT_MOST));
    all.push(case("chunks that are cut off", post(chunked, &format!("fff\r\n{SMUGGLED}")), ONE_AT_MOST));
}

/// Chunks that lie, each with a request behind them.
fn chunks(all: &mut Vec<Case>) {
    let wrong: &[(&str, &str)] = &[
        ("a size with a sign", "+5\r\nhello\r\n"),
        ("a negative size", "-5\r\nhello\r\n"),
        ("a negative zero", "-0\r\n\r\n"),
        ("a size with 0x", "0x5\r\nhello\r\n"),
        ("a blank before the size", " 5\r\nhello\r\n"),
        ("a size in underscores", "0_5\r\nhello\r\n"),
        ("a size beyond 64 bits", "10000000000000005\r\nhello\r\n"),
        ("a size of many digits", "ffffffffffffffffffff\r\nhello\r\n"),
        ("no size", "\r\nhello\r\n"),
        ("a size that is none", "g\r\nhello\r\n"),
        ("a bare LF behind the size", "5\nhello\r\n"),
        ("a bare CR behind the size", "5\rhello\r\n"),
        ("a bare LF behind the data", "5\r\nhello\n"),
        ("nothing behind the data", "5\r\nhello"),
        ("more data than said", "5\r\nhello world\r\n"),
        ("a NUL in an extension", "5;a\0b\r\nhello\r\n"),
        ("a bare LF in an extension", "5;a\nb\r\nhello\r\n"),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n"),
        ("a line end in quotes", "5;a=\"\r\nhello\r\n"),
        ("a byte in an extension that is none", "5;\x01\r\nhello\r\n"),
        ("a blank inside the size", "5 5\r\nhello\r\n"),
        ("a size with a comment", "5//\r\nhello\r\n"),
        ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n"),
        ("a trailer without a colon", "0\r\nnone\r\n\r\n"),
        ("a blank behind the name of a trailer", "0\r\nX : a\r\n\r\n"),
        ("a bare LF behind a trailer", "0\r\nX: a\n\r\n"),
        ("a bare LF at the end", "0\r\n\n"),
        ("a bare LF behind the last size", "0\n\r\n"),
        ("two bare LFs at the end", "0\n\n"),
    ];
    for (name, body) in wrong {
        // What was complete before the fault may have gone on; nothing behind it may.
        let bytes = post("Transfer-Encoding: chunked\r\n", &format!("{body}0\r\n\r\n{SMUGGLED}"));
        all.push(case(name, bytes, ONE_AT_MOST));
    }
    let long = format!("5;{}\r\nhello\r\n{}", "a".repeat(5000), ended());
    all.push(case("an extension without end", post("Transfer-Encoding: chunked\r\n", &long), ONE_AT_MOST));
    let good: &[(&str, &str)] = &[
        ("zeros before the size", "0005\r\nhello\r\n0\r\n\r\n"),
        ("capitals", "A\r\nhelloworld\r\n0\r\n\r\n"),
        ("an extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n"),
        ("an extension in quotes", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
        ("a trailer", "5\r\nhello\r\n0\r\nX: a\r\n\r\n"),
        ("zeros at the end", "000\r\n\r\n"),
    ];
    for (name, body) in good {
        let bytes = post("Transfer-Encoding: chunked\r\n", &format!("{body}{SECOND}"));
        // Some servers know no extensions.
        let sees = if name.contains("extension") { ANY } else { BOTH };
        all.push(case(name, bytes, sees));
    }
    for name in
        ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: other", "l5d-client-id: forged", "Connection: close"]
    {
        let bytes = post("Transfer-Encoding: chunked\r\n", &format!("0\r\n{name}\r\n\r\n{SECOND}"));
        all.push(case(&format!("a trailer {name}"), bytes, ANY));
    }
}

/// First lines, line ends and hosts.
fn heads(all: &mut Vec<Case>) {
    let refused: &[(&str, String)] = &[
        ("lines that end with LF", post("", "").replace("\r\n", "\n")),
        ("a first line that ends with LF", "GET /case HTTP/1.1\nHost: app.ns\r\n\r\n".into()),
        ("a first line that ends with CR", "GET /case HTTP/1.1\rHost: app.ns\r\n\r\n".into()),
        ("a last line that ends with LF", "GET /case HTTP/1.1\r\nHost: app.ns\r\n\n".into()),
        ("a bare CR in a value", post("X: a\rb\r\n", "")),
        ("a request behind a bare CR", post(&format!("X: a\r{}", SMUGGLED.replace("\r\n", "\r")), "")),
        ("two blanks", "GET  /case HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a vertical tab for a blank", "GET\x0b/case\x0bHTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a blank before the method", " GET /case HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a tab", "GET\t/case HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a blank behind the version", "GET /case HTTP/1.1 \r\nHost: app.ns\r\n\r\n".into()),
        ("a blank in the path", "GET /case /smuggled HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a vertical tab in the path", "GET /case\x0b/smuggled HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a CR in the path", "GET /case\rX HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a fragment", "GET /case#/smuggled HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("no version", "GET /smuggled\r\n\r\n".into()),
        ("a version of its own", "GET /case HTTP/1.2\r\nHost: app.ns\r\n\r\n".into()),
        ("a version with two digits", "GET /case HTTP/1.10\r\nHost: app.ns\r\n\r\n".into()),
        ("version 0.9", "GET /case HTTP/0.9\r\nHost: app.ns\r\n\r\n".into()),
        ("version 2", "GET /case HTTP/2.0\r\nHost: app.ns\r\n\r\n".into()),
        ("a version in small letters", "GET /case http/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("no host", "GET /case HTTP/1.1\r\n\r\n".into()),
        ("two hosts", post("Host: other\r\n", "")),
        ("the same host twice", post("Host: app.ns\r\n", "")),
        ("two hosts in one", "GET /case HTTP/1.1\r\nHost: app.ns, other\r\n\r\n".into()),
        ("a host with a path", "GET /case HTTP/1.1\r\nHost: app.ns/smuggled\r\n\r\n".into()),
        ("a host with a user", "GET /case HTTP/1.1\r\nHost: other@app.ns\r\n\r\n".into()),
        ("a host that is folded", "GET /case HTTP/1.1\r\nHost: app.ns\r\n other\r\n\r\n".into()),
        ("a blank before the first header", "GET /case HTTP/1.1\r\n Host: other\r\nHost: app.ns\r\n\r\n".into()),
        ("a tab before the first header", "GET /case HTTP/1.1\r\n\tX: y\r\nHost: app.ns\r\n\r\n".into()),
        ("a CONNECT with a body", "CONNECT app.ns:80 HTTP/1.1\r\nHost: app.ns:80\r\nContent-Length: 5\r\n\r\n".into()),
        (
            "a CONNECT in chunks",
            "CONNECT app.ns:80 HTTP/1.1\r\nHost: app.ns:80\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        ),
        ("a CONNECT to a path", "CONNECT /case HTTP/1.1\r\nHost: app.ns\r\n\r\n".into()),
        ("a preface of HTTP/2 behind a request", post("Host: other\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    ];
    for (name, text) in refused {
        all.push(case(name, format!("{text}{SMUGGLED}"), Sees::Nothing));
    }
    all.push(case("a line before the request", format!("\r\n{}", post("", SECOND)), ANY));
    let absolute = format!("GET http://app.ns/case HTTP/1.1\r\nHost: other\r\n\r\n{SECOND}");
    all.push(case("a whole URI wins over the host", absolute, ANY));
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    all.push(case("too many headers", post(&many, SMUGGLED), Sees::Nothing));
    all.push(case(
        "a header that is too large",
        post(&format!("X: {}\r\n", "a".repeat(70_000)), SMUGGLED),
        Sees::Nothing,
    ));
}

/// HTTP/1.0, what leaves HTTP, and headers that name other headers.
fn connections(all: &mut Vec<Case>) {
    let old = |headers: &str, rest: &str| format!("POST /case HTTP/1.0\r\nHost: app.ns\r\n{headers}\r\n{rest}");
    all.push(case("1.0 with a length", old("Content-Length: 5\r\n", &format!("hello{SMUGGLED}")), ONE));
    all.push(case("1.0 without a length", old("", SMUGGLED), ONE));
    all.push(case("1.0 in chunks", old("Transfer-Encoding: chunked\r\n", &ended()), Sees::Nothing));
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n";
    all.push(case("1.0 in chunks with a length", old(both, &ended()), Sees::Nothing));
    let kept = old("Connection: keep-alive\r\nContent-Length: 5\r\n", &format!("hello{SECOND}"));
    all.push(case("1.0 that is kept", kept, ANY));
    let kept = old("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", &ended());
    all.push(case("1.0 that is kept, in chunks", kept, Sees::Nothing));
    let closing = post("Connection: close\r\n", SMUGGLED);
    all.push(case("a request behind the last", closing, ONE));

    // Whoever asks to leave HTTP has not left it before the server agrees: what follows is a request, and refused.
    for protocol in ["websocket", "h2c", "foo", "HTTP/2.0", "TLS/1.0"] {
        let bytes = post(&format!("Connection: upgrade\r\nUpgrade: {protocol}\r\n"), SMUGGLED);
        all.push(case(&format!("an upgrade to {protocol} and a request"), bytes, ONE_AT_MOST));
        let bytes = post(
            &format!("Connection: upgrade\r\nUpgrade: {protocol}\r\nContent-Length: 5\r\n"),
            &format!("hello{SMUGGLED}"),
        );
        all.push(case(&format!("an upgrade to {protocol} with a body and a request"), bytes, ONE_AT_MOST));
    }
    let settings =
        post("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", SMUGGLED);
    all.push(case("an upgrade with settings", settings, ONE_AT_MOST));
    let connect = format!("CONNECT app.ns:80 HTTP/1.1\r\nHost: app.ns:80\r\n\r\n{SMUGGLED}");
    all.push(case("a CONNECT and a request", connect, Sees::AtMost(&["app.ns:80"])));
    let expecting = post("Expect: 100-continue\r\nContent-Length: 5\r\n", &format!("hello{SECOND}"));
    all.push(case("a body that is not waited for", expecting, ANY));
    let expecting = post("Expect: something\r\nContent-Length: 5\r\n", "hello");
    all.push(case("an expectation that is not known", expecting, ONE_AT_MOST));

    // Headers that `Connection` names: those that frame the body or name the client stay.
    let named =
        ["content-length", "host", "l5d-client-id", "transfer-encoding", "x-forwarded-for", "close, content-length"];
    for name in named {
        let headers = format!("Connection: {name}\r\nContent-Length: {}\r\n", SMUGGLED.len());
        all.push(case(&format!("a length and Connection: {name}"), post(&headers, SMUGGLED), ONE_AT_MOST));
        let headers = format!("Connection: {name}\r\nTransfer-Encoding: chunked\r\n");
        let body = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
        all.push(case(&format!("chunks and Connection: {name}"), post(&headers, &body), ONE_AT_MOST));
    }
    for header in [
        "TE: trailers",
        "TE: chunked",
        "Keep-Alive: timeout=5, max=1000",
        "Proxy-Connection: keep-alive",
        "Trailer: Content-Length",
    ] {
        let bytes = post(&format!("{header}\r\nContent-Length: 5\r\n"), &format!("hello{SECOND}"));
        all.push(case(header, bytes, ANY));
    }
}

pub(crate) fn corpus() -> Vec<Case> {
    let mut all = vec![];
    framing(&mut all);
    chunks(&mut all);
    heads(&mut all);
    connections(&mut all);
    all
}
