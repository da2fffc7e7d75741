//! The conversions from messages as functions of bytes, for `weft-fuzz`: not part of what is shipped (feature `fuzzing`).

use crate::{endpoint, extension, identity, inbound, outbound, profile, spiffe, tap, trust};
use linkerd2_proxy_api as api;
use prost::Message;

/// Whatever a control plane sends is a value or an error that names a field. What is a value can be said again and is the
/// same value then. The first byte chooses the message.
pub fn messages(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 6 {
        0 => again(bytes, inbound::policy::decode, inbound::policy::encode),
        1 => again(bytes, outbound::policy::decode, outbound::policy::encode),
        // Whatever else is in it, what is left of it is a profile.
        2 => again(bytes, |profile| Ok(profile::decode(profile).0), profile::encode),
        // Both are short, and of our own.
        3 => {
            again(bytes, trust::decode, trust::encode);
            again(bytes, extension::decode_whole, extension::encode);
        }
        4 => {
            let _ = api::identity::CertifyResponse::decode(bytes).map(identity::decode_certificate);
            let _ = api::identity::CertifyRequest::decode(bytes).map(identity::decode_request);
        }
        _ => again(bytes, endpoint::decode_whole_update, endpoint::encode_update),
    }
}

/// What somebody asks a tap server for, conditions within conditions.
pub fn observations(data: &[u8]) {
    again(data, tap::decode, |observation| Ok(tap::encode(observation)));
}

/// What a workload API says: identities, each with rows of certificates.
pub fn svids(data: &[u8]) {
    again(data, spiffe::decode, |svids| spiffe::encode(svids));
}

/// A step of a set of endpoints as the proxy takes it: what can be used of one is the same whether or not something else cannot,
/// and each thing that cannot is told.
pub fn updates(data: &[u8]) {
    let Ok(message) = api::destination::Update::decode(data) else { return };
    let whole = endpoint::decode_whole_update(message.clone());
    let (usable, invalid) = endpoint::decode_update(message);
    match (&whole, &usable) {
        (Ok(whole), Some(usable)) => assert!(whole == usable && invalid.is_empty()),
        (Ok(_), None) => panic!("what is valid cannot be used"),
        (Err(_), _) => assert!(!invalid.is_empty(), "what cannot be used is not told"),
    }
    let Some(usable) = usable else { return };
    let Ok(message) = endpoint::encode_update(&usable) else { return };
    assert_eq!(endpoint::decode_whole_update(message), Ok(usable), "what can be used cannot be said again");
}

fn again<P: Message + Default, T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(P) -> Result<T, crate::Invalid>,
    encode: impl Fn(&T) -> Result<P, crate::Invalid>,
) {
    let Ok(message) = P::decode(bytes) else { return };
    let Ok(value) = decode(message) else { return };
    let Ok(message) = encode(&value) else { return };
    match decode(message) {
        Ok(same) => assert_eq!(same, value),
        Err(invalid) => panic!("what was said again is refused: {invalid}"),
    }
}
