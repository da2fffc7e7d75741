//! HAProxy as a pair: one thread, keep-alive, TLS 1.3 with client certificates.

use super::{CLIENT_PROXY, Pair, SERVER_NAME, SERVER_PROXY, certificates};
use crate::{
    lab::{Lab, ORIGIN, Side},
    load::Work,
    process::{Running, wait_for},
};
use anyhow::Context;
use std::path::Path;

pub(crate) fn start(lab: &Lab, work: Work) -> anyhow::Result<Pair> {
    let dir = certificates()?;
    for side in ["client", "server"] {
        let both = [std::fs::read(dir.join(format!("{side}.pem")))?, std::fs::read(dir.join(format!("{side}.key")))?];
        std::fs::write(dir.join(format!("{side}.both")), both.concat())?;
    }
    let (ca, client, server) = (dir.join("ca.pem"), dir.join("client.both"), dir.join("server.both"));
    let mode = if work.is_bytes() { "tcp" } else { "http" };
    // What the two speak between them, and what the server's speaks to the origin.
    let hop = if work.hop_is_h2() { "alpn h2" } else { "" };
    let app = if work == Work::H2 { "proto h2" } else { "" };
    // Its OpenSSL offers X25519 first.
    let tls = "ssl-min-ver TLSv1.3";
    // Every handshake is a full one, where they are what is measured.
    let (afresh, ticketless) = if work.exchange().is_some() { ("no-ssl-reuse", "no-tls-tickets") } else { ("", "") };
    let client_config = config(
        mode,
        &format!("bind {CLIENT_PROXY}"),
        &format!(
            "server up {SERVER_PROXY} ssl verify required verifyhost {SERVER_NAME} sni str({SERVER_NAME}) {tls} {hop} {afresh} ca-file {} crt {}",
            ca.display(),
            client.display()
        ),
    );
    let server_config = config(
        mode,
        &format!(
            "bind {SERVER_PROXY} ssl verify required {tls} {hop} {ticketless} ca-file {} crt {}",
            ca.display(),
            server.display()
        ),
        &format!("server app {ORIGIN} {app}"),
    );
    let proxies = vec![run(lab, Side::Client, &dir, &client_config)?, run(lab, Side::Server, &dir, &server_config)?];
    let pair = Pair { target: ORIGIN, proxies, _controls: vec![] };
    wait_for("HAProxy", || lab.listens(Side::Client, CLIENT_PROXY) && lab.listens(Side::Server, SERVER_PROXY))
        .with_context(|| pair.logs())?;
    Ok(pair)
}

fn config(mode: &str, bind: &str, server: &str) -> String {
    let reuse = if mode == "http" { "  http-reuse always\n" } else { "" };
    format!(
        "global\n  nbthread 1\n  maxconn 9500\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n{reuse}\
         frontend in\n  {bind}\n  default_backend out\nbackend out\n  {server}\n"
    )
}

fn run(lab: &Lab, side: Side, dir: &Path, config: &str) -> anyhow::Result<Running> {
    let file = dir.join(format!("haproxy-{}.cfg", side.name()));
    std::fs::write(&file, config)?;
    Running::start(&format!("haproxy-{}", side.name()), lab.command(side, "haproxy").arg("-db").arg("-f").arg(file))
}
