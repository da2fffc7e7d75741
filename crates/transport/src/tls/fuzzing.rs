//! Records and the messages behind the handshake as functions of bytes, for `weft-fuzz`: not part of what is shipped (feature
//! `fuzzing`). Each panics on what must never be.

use super::{
    KeyExchange,
    control::{Control, Event, MAX_MESSAGE},
    handshake,
    record::{HEADER, Key, Kind, MAX_CONTENT, OVERHEAD, Record},
    verify,
};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, Error, ServerConfig,
    crypto::cipher::{AeadKey, Iv},
    pki_types::PrivateKeyDer,
    version::TLS13,
};
use std::{
    io::IoSlice,
    sync::{Arc, LazyLock},
};

fn key() -> Key {
    let secrets = ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::from([9; 12]) };
    Key::new((0, secrets)).unwrap_or_else(|error| panic!("{error}"))
}

/// What was sealed is opened, in either way, as what it was; what was not is refused. The first byte says how the content is cut.
pub fn records(data: &[u8]) {
    let Some((cut, content)) = data.split_first() else { return };
    if let Ok(Some(record)) = Record::parse(content) {
        let body = content.get(HEADER..record.total()).map(<[u8]>::to_vec);
        if let Some(mut body) = body {
            let mut out = vec![0; record.plain_len()];
            assert!(key().open(&record, &body, &mut out).is_err(), "opened what nobody has sealed");
            assert!(key().open_in_place(&record, &mut body).is_err(), "opened what nobody has sealed");
        }
    }
    let piece = usize::from(*cut) * 67 + 1;
    let (mut sealer, mut opener, mut again) = (key(), key(), key());
    for (n, content) in content.chunks(piece.min(MAX_CONTENT)).enumerate() {
        let mut sealed = vec![0; content.len() + OVERHEAD];
        let (first, behind) = content.split_at(content.len() / 2);
        let total = if n % 2 == 0 {
            sealer.seal(Kind::Data, content, &mut sealed)
        } else {
            sealer.seal_slices(first, &[IoSlice::new(behind)], content.len(), &mut sealed)
        };
        assert_eq!(total, Ok(sealed.len()));
        let Ok(Some(record)) = Record::parse(&sealed) else { panic!("what was sealed is no record") };
        assert_eq!(record.total(), sealed.len());
        let body = sealed.get(HEADER..).unwrap_or_default();
        let mut out = vec![0; record.plain_len()];
        assert_eq!(opener.open(&record, body, &mut out), Ok((Kind::Data as u8, content.len())));
        assert_eq!(out.get(..content.len()), Some(content));
        let mut body = body.to_vec();
        assert_eq!(again.open_in_place(&record, &mut body), Ok((Kind::Data as u8, content.len())));
        assert_eq!(body.get(..content.len()), Some(content));
    }
}

/// Records that come behind the handshake: what is kept of them is bounded, and a key update is answered by one that the peer
/// follows. The first byte says who receives, of which kind, and how the content is cut.
pub fn messages(data: &[u8]) {
    let Some((choice, content)) = data.split_first() else { return };
    let [mut client, mut server] = connected();
    let (own, peer) = if choice & 1 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
    let kind = if choice & 2 == 0 { Kind::Handshake } else { Kind::Alert } as u8;
    let piece = usize::from(choice >> 2) * 131 + 1;
    for content in content.chunks(piece) {
        match own.received(kind, content) {
            Ok(Event::Ended) => assert_eq!(kind, Kind::Alert as u8, "a message ends nothing"),
            Ok(Event::Nothing) => {}
            Err(_) => return,
        }
        assert!(own.waits_for_more() <= MAX_MESSAGE + 4 + piece, "a message without end is kept");
        let mut out = [0; 64];
        let Ok(sent) = own.before_data(&mut out) else { panic!("there is room for an update") };
        if sent > 0 {
            let (kind, message) = opened(peer, out.get(..sent).unwrap_or_default());
            assert_eq!(kind, Kind::Handshake as u8);
            assert_eq!(peer.received(kind, &message), Ok(Event::Nothing), "the peer does not follow");
        }
        assert_eq!(own.before_data(&mut out), Ok(0), "one update is enough");
        let Ok(sent) = own.sealer().seal(Kind::Data, b"x", &mut out) else { panic!("there is room for data") };
        assert_eq!(opened(peer, out.get(..sent).unwrap_or_default()), (Kind::Data as u8, b"x".to_vec()));
        assert_eq!(peer.data_received(1), Ok(()));
    }
}

/// Kind and content of a record that this side can open.
fn opened(side: &mut Control, record: &[u8]) -> (u8, Vec<u8>) {
    let Ok(Some(head)) = Record::parse(record) else { panic!("no record") };
    let mut out = vec![0; head.plain_len()];
    let opened = side.opener().open(&head, record.get(HEADER..).unwrap_or_default(), &mut out);
    let (kind, length) = opened.unwrap_or_else(|error| panic!("the peer cannot open it: {error}"));
    out.truncate(length);
    (kind, out)
}

/// Both ends of a connection of which the handshake is over, the client's first.
fn connected() -> [Control; 2] {
    static CONFIGS: LazyLock<(Arc<ClientConfig>, Arc<ServerConfig>)> =
        LazyLock::new(|| configs().unwrap_or_else(|error| panic!("{error}")));
    let (client, server) = &*CONFIGS;
    handshake::without_sockets(client.clone(), server.clone()).unwrap_or_else(|error| panic!("{error}"))
}

fn configs() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), Error> {
    let made = |error: rcgen::Error| Error::General(error.to_string());
    let key = rcgen::KeyPair::generate().map_err(made)?;
    let params = rcgen::CertificateParams::new(vec!["server.test".to_owned()]).map_err(made)?;
    let certificate = params.self_signed(&key).map_err(made)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(verify::provider(KeyExchange::Classical))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    let mut client = verify::unproven(KeyExchange::Classical)?;
    client.enable_secret_extraction = true;
    Ok((Arc::new(client), Arc::new(server)))
}
