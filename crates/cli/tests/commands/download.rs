//! `weft inject` and `uninject` of what is elsewhere, too large, or no manifest.

use crate::lab::{Home, fed};
use std::{fs, path::PathBuf, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
};
use weft_transport::tls::Serving;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
";

/// A server on loopback that proves to be `localhost`, to whoever trusts `anchors`.
struct Server {
    runtime: Runtime,
    port: u16,
    anchors: PathBuf,
}

impl Server {
    fn start(home: &Home, name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let anchors = home.0.join("roots.pem");
        fs::write(&anchors, certificate.pem()).unwrap();
        let tls = Arc::new(Serving::new(&certificate.pem(), &key.serialize_pem()).unwrap());
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = tls.accept(tcp).await else { return };
                    let mut head = vec![];
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let answer = answer(head.split(' ').nth(1).unwrap_or_default(), port);
                    // Who has heard enough goes away.
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { runtime, port, anchors }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }
}

fn answer(path: &str, port: u16) -> Vec<u8> {
    let ok = |body: &[u8]| {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        answer
    };
    let moved =
        |to: String| format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    match path {
        "/app.yml?ref=main" => ok(DEPLOYMENT.as_bytes()),
        "/here" => moved("/there".to_owned()).into_bytes(),
        "/there" => moved(format!("https://localhost:{port}/app.yml?ref=main")).into_bytes(),
        "/away" => moved(format!("//localhost:{port}/deep/below/er")).into_bytes(),
        "/deep/below/er" => moved("../beside".to_owned()).into_bytes(),
        "/deep/beside" => moved("../there".to_owned()).into_bytes(),
        "/circle" => moved("/circle".to_owned()).into_bytes(),
        "/down" => moved("http://localhost/app.yml".to_owned()).into_bytes(),
        "/page" => ok(b"<!DOCTYPE html><html><body>Not what you think</body></html>"),
        "/no-text" => ok(&[0xff, 0xfe]),
        // The body says its length, or does not.
        "/large" => ok(&vec![b'#'; (10 << 20) + 1]),
        "/endless" => {
            let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
            answer.resize(12 << 20, b'#');
            answer
        }
        "/short" => b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1000\r\n\r\napiVersion: v1\n".to_vec(),
        _ => b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec(),
    }
}

#[test]
fn a_manifest_is_read_from_a_server_that_proves_who_it_is() {
    let home = Home::new();
    let server = Server::start(&home, "localhost");
    let asked = |command: &str, path: &str| {
        let mut weft = home.weft(&[command, &server.url(path)]);
        let told: crate::lab::Told = weft.env("SSL_CERT_FILE", &server.anchors).output().unwrap().into();
        told
    };
    for path in ["/app.yml?ref=main", "/here", "/away"] {
        let told = asked("inject", path);
        assert!(told.ok && told.out.contains("linkerd.io/inject: enabled"), "{told:?}");
        assert!(told.err.contains("deployment \"web\" injected"), "{told:?}");
    }
    let told = asked("uninject", "/there");
    assert!(told.ok && told.out.contains("name: web"), "{told:?}");
    for (path, says) in [
        ("/nothing", "answers 404 Not Found; check the URL"),
        ("/circle", "led to 10 redirects"),
        ("/down", "http://localhost/app.yml is not read: "),
        ("/page", "is no object of Kubernetes"),
        ("/no-text", "is not UTF-8 text"),
        ("/large", "has more than 10 MiB"),
        ("/endless", "has more than 10 MiB"),
        ("/short", "broke off"),
    ] {
        for command in ["inject", "uninject"] {
            let told = asked(command, path);
            assert!(!told.ok && told.out.is_empty() && told.err.contains(says), "{path}: {told:?}");
        }
    }
    // Without the root nobody is believed.
    let other = Server::start(&Home::new(), "localhost");
    let mut weft = home.weft(&["inject", &other.url("/app.yml?ref=main")]);
    let told: crate::lab::Told = weft.env("SSL_CERT_FILE", &server.anchors).output().unwrap().into();
    assert!(!told.ok && told.out.is_empty() && told.err.contains("could not be read"), "{told:?}");
    let stranger = Home::new();
    let named = Server::start(&stranger, "somebody.else");
    let mut weft = home.weft(&["inject", &named.url("/app.yml?ref=main")]);
    let told: crate::lab::Told = weft.env("SSL_CERT_FILE", &named.anchors).output().unwrap().into();
    assert!(!told.ok && told.out.is_empty() && told.err.contains("could not be read"), "{told:?}");
    drop((server.runtime, other.runtime, named.runtime));
}

#[test]
fn what_anybody_on_the_way_could_change_is_refused() {
    let home = Home::new();
    let told = home.runs(&["inject", "http://localhost:1/app.yml"]);
    assert!(!told.ok && told.out.is_empty(), "{told:?}");
    assert!(
        told.err.contains("use https://, or look at what `curl -fsSL http://localhost:1/app.yml -o FILE`"),
        "{told:?}"
    );
    let told = home.runs(&["inject", "ftp://localhost/app.yml"]);
    assert!(!told.ok && told.err.contains("does not begin with https://"), "{told:?}");
}

#[test]
fn what_is_too_large_or_no_manifest_is_refused_whole() {
    let home = Home::new();
    let large = vec![b'#'; 50 << 20];
    let mut good = DEPLOYMENT.to_owned();
    good += "---\n";
    let (file, folder) = (home.0.join("large.yaml"), home.0.join("app"));
    fs::create_dir(&folder).unwrap();
    fs::write(&file, &large).unwrap();
    fs::write(folder.join("web.yaml"), &good).unwrap();
    let told = home.runs(&["inject", "app"]);
    assert!(told.ok && told.out.contains("linkerd.io/inject: enabled"), "{told:?}");
    for command in ["inject", "uninject"] {
        let told = home.runs(&[command, "large.yaml"]);
        assert!(!told.ok && told.out.is_empty() && told.err.contains("large.yaml"), "{}", told.err);
        assert!(told.err.contains("more than 10 MiB") && told.err.contains("split the file"), "{}", told.err);
        let told = fed(home.weft(&[command, "-"]), &large);
        assert!(!told.ok && told.out.is_empty() && told.err.contains("standard input has more than"), "{}", told.err);
    }
    // The bound is the same wherever a manifest comes from: this much is taken of each, and a byte more of none.
    let much = good.clone() + &"#".repeat((10 << 20) - good.len());
    for (text, is_taken) in [(much.clone(), true), (much + "#", false)] {
        fs::write(home.0.join("much.yaml"), &text).unwrap();
        for told in [home.runs(&["inject", "much.yaml"]), fed(home.weft(&["inject", "-"]), text.as_bytes())] {
            assert_eq!(told.ok, is_taken, "{}", told.err);
            assert!(is_taken || told.err.contains("more than 10 MiB"), "{}", told.err);
        }
    }
    fs::rename(&file, folder.join("large.yaml")).unwrap();
    let told = home.runs(&["inject", "app"]);
    assert!(!told.ok && told.out.is_empty(), "nothing of the folder: {}", told.err);
    // Kinds of others pass; what is no object does not.
    let others = format!("{good}apiVersion: example.org/v1\nkind: Widget\nmetadata:\n  name: w\nspec: {{size: 1}}\n");
    let told = fed(home.weft(&["inject", "-"]), others.as_bytes());
    assert!(told.ok && told.out.contains("size: 1") && told.err.contains("widget \"w\" skipped"), "{told:?}");
    for bad in ["just words\n", "[1, 2]\n"] {
        let told = fed(home.weft(&["inject", "-"]), format!("{good}{bad}").as_bytes());
        assert!(!told.ok && told.out.is_empty(), "{bad}: {told:?}");
        assert!(told.err.contains("line 9: the document is no object of Kubernetes"), "{bad}: {told:?}");
    }
}
