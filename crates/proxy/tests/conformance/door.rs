//! A port of loopback that leads into the mesh: programs that know nothing of redirection dial it.

use crate::{
    harness::Dialler,
    mesh::{Mesh, Service},
};
use std::net::SocketAddr;
use tokio::{io::copy_bidirectional, net::TcpListener};

/// As `web`'s application would reach the service: through both proxies.
pub(crate) async fn pair(mesh: &Mesh, service: &Service) -> SocketAddr {
    door(mesh.web.outbound(service.addr)).await
}

/// As a stranger without TLS would reach the origin: through the server's proxy alone.
pub(crate) async fn inbound(mesh: &Mesh, origin: SocketAddr) -> SocketAddr {
    door(mesh.app.inbound(origin)).await
}

async fn door(dialler: Dialler) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let dialler = dialler.clone();
            tokio::spawn(async move {
                let mut server = dialler.connect().await;
                for side in [&client, &server] {
                    let _ = side.set_nodelay(true);
                }
                // What is reset on one side ends both: they are dropped with what was not read.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    addr
}
