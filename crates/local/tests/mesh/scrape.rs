//! Who reads a proxy's metrics: programs of the mesh by mutual TLS, the supervisor whatever the policy is, nobody else.

use crate::harness::{Mesh, SERVER, deployment, service, users};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Asks each URL until its status is the one before it, and says what came last.
const SCRAPE: &str = r##"
import sys, time, urllib.request, urllib.error
def ask(url):
    try:
        answer = urllib.request.urlopen(url, timeout=5)
        body = answer.read()
        return answer.status, body.endswith(b"# EOF\n")
    except urllib.error.HTTPError as error:
        return error.code, False
    except Exception as error:
        return repr(error), False
for item in sys.argv[1:]:
    wanted, url = item.split("=", 1)
    for attempt in range(100):
        status, whole = ask(url)
        if str(status) == wanted:
            break
        time.sleep(0.1)
    print("SCRAPED", url, status, whole, flush=True)
time.sleep(1000)
"##;

#[test]
fn metrics_are_read_over_mutual_tls_and_by_the_supervisor() {
    for user in users() {
        let strict = "config.linkerd.io/default-inbound-policy: all-authenticated";
        let manifests = deployment(
            "web",
            1,
            strict,
            "[python3, DIR/server.py]",
            "readinessProbe: {httpGet: {path: /, port: 8000}, periodSeconds: 1}",
        ) + &service("web", "", "clusterIP: None, ports: [{port: 8000}]")
            + &deployment("inside", 1, "", "[python3, DIR/scrape.py, '200=http://web:4191/metrics']", "")
            + &deployment(
                "outside",
                1,
                "linkerd.io/inject: disabled",
                "[python3, DIR/scrape.py, '403=http://web:4191/metrics', '200=http://web:4191/ready']",
                "",
            );
        let mut mesh = Mesh::up(user, &manifests, &[("server.py", SERVER), ("scrape.py", SCRAPE)], &[]);
        mesh.ready(&["web", "inside", "outside"]);
        assert_eq!(mesh.said("inside", "SCRAPED http://web:4191/metrics "), "200 True", "{user:?}");
        assert_eq!(mesh.said("outside", "SCRAPED http://web:4191/metrics "), "403 False", "{user:?}");
        assert_eq!(mesh.said("outside", "SCRAPED http://web:4191/ready "), "200 False", "{user:?}");

        let status = mesh.status();
        let web = status.workloads.iter().find(|w| w.name == "web").unwrap();
        let addr = SocketAddr::new(web.pods[0].ips[0], 4191);
        let text = mesh.wait(async {
            let mut stream = mesh.client.dial(addr).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        });
        assert!(text.starts_with("HTTP/1.1 200"), "{user:?} {text}");
        assert!(
            text.contains("client_id=\"inside.shop.serviceaccount.identity.linkerd.cluster.local\""),
            "{user:?} {text}"
        );
    }
}
