//! The fake workload API speaks as a real one does: asked by the Python client of the SPIFFE project's makers.
//!
//! That client lives below `WEFT_TOOLS`. Without it the test fails, unless `WEFT_ALLOW_SKIP=1`.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::{path::PathBuf, time::Duration};
use tokio::process::Command;
use weft_model::Identity;
use weft_testkit::{
    ca::Ca,
    spire::{FakeWorkloadApi, svid},
};

/// Prints what it gets: the first identity, the trust domains of the bundles, and the next identity that comes by the stream.
const CLIENT: &str = r#"
import grpc, sys, threading

# Of a socket's path grpc makes an authority that h2, in the fake, takes for none.
plain = grpc.insecure_channel
def channel(target, options=None, *more):
    return plain(target, [*(options or []), ("grpc.default_authority", "localhost")], *more)
grpc.insecure_channel = channel

from spiffe import WorkloadApiClient

with WorkloadApiClient(socket_path=sys.argv[1], default_timeout=20) as client:
    svid = client.fetch_x509_svid()
    print(svid.spiffe_id, len(svid.cert_chain), svid.leaf.not_valid_after_utc > svid.leaf.not_valid_before_utc, flush=True)
    context = client.fetch_x509_context()
    print(sorted(str(svid.spiffe_id) for svid in context.x509_svids))
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    print(len(bundle.x509_authorities), flush=True)
    seen, done = [], threading.Event()
    def more(context):
        seen.append(context.default_svid.spiffe_id)
        print("stream", seen[-1], flush=True)
        if len(seen) == 2:
            done.set()
    watch = client.stream_x509_contexts(more, lambda error: print("error", error, flush=True))
    if not done.wait(20):
        print("no renewal", seen, flush=True)
    watch.cancel()
"#;

fn python() -> Option<PathBuf> {
    let folder = std::env::var_os("WEFT_TOOLS").map(PathBuf::from);
    if let Some(python) = folder.map(|folder| folder.join("python/bin/python")).filter(|python| python.exists()) {
        return Some(python);
    }
    let text = "the Python client is not below WEFT_TOOLS: run `cargo xtask test`, or `cargo xtask tools` and set what it prints";
    assert_eq!(std::env::var("WEFT_ALLOW_SKIP").as_deref(), Ok("1"), "{text}");
    eprintln!("SKIPPED: {text}");
    None
}

fn id(name: &str) -> Identity {
    format!("spiffe://cluster.local/ns/ns/sa/{name}").parse().unwrap()
}

#[tokio::test]
async fn the_client_of_others_understands_the_fake() {
    let Some(python) = python() else { return };
    let socket = std::env::temp_dir().join(format!("weft-spire-{}.sock", std::process::id()));
    let api = FakeWorkloadApi::start(&socket).unwrap();
    let (ca, hour) = (Ca::new().unwrap(), Duration::from_secs(3600));
    let make = |name| svid(&ca, &id(name), hour).unwrap();
    api.set(vec![make("web"), make("app")]);
    let mut client = Command::new(python)
        .args(["-c", CLIENT, &api.address()])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(client.stdout.take().unwrap()));
    let mut line = async || tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line().await.unwrap(), format!("{} 2 True", id("web")));
    assert_eq!(line().await.unwrap(), format!("['{}', '{}']", id("app"), id("web")));
    assert_eq!(line().await.unwrap(), "1");
    assert_eq!(line().await.unwrap(), format!("stream {}", id("web")));
    api.set(vec![make("renewed")]);
    assert_eq!(line().await.unwrap(), format!("stream {}", id("renewed")));
    assert_eq!(line().await, None);
    assert!(client.wait().await.unwrap().success());
}
