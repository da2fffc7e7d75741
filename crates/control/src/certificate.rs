//! A certificate as people read it: the text that OpenSSL prints, which Linkerd's command prints too.

use jiff::Timestamp;
use std::fmt::Write;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    num_bigint::BigUint,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// Bytes of a line.
const LINE: usize = 15;

/// The text of each certificate, DER, that is not a CA's.
///
/// # Errors
/// One cannot be read.
pub fn texts(chain: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let mut texts = vec![];
    for der in chain {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|e| format!("no certificate: {e}"))?;
        if !certificate.is_ca() {
            texts.push(text(&certificate));
        }
    }
    Ok(texts)
}

fn text(of: &X509Certificate<'_>) -> String {
    let mut text = String::new();
    let algorithm = signature(&of.signature_algorithm.algorithm.to_id_string());
    let date = |seconds: i64| {
        Timestamp::from_second(seconds)
            .map_or_else(|_| "?".to_owned(), |at| at.strftime("%b %e %H:%M:%S %Y UTC").to_string())
    };
    let version = of.version().0;
    let _ = write!(
        text,
        "Certificate:\n    Data:\n        Version: {} (0x{version:x})\n        Serial Number: {}\n    Signature Algorithm: {algorithm}\n        \
         Issuer: {}\n        Validity\n            Not Before: {}\n            Not After : {}\n        Subject: {}\n",
        version + 1,
        serial(&of.serial),
        of.issuer(),
        date(of.validity().not_before.timestamp()),
        date(of.validity().not_after.timestamp()),
        of.subject(),
    );
    text += &key(of.public_key());
    if !of.extensions().is_empty() {
        text += "        X509v3 extensions:\n";
        for extension in of.extensions() {
            text += &self::extension(extension);
        }
    }
    let _ = write!(text, "    Signature Algorithm: {algorithm}\n{}", hex(of.signature_value.as_ref(), 9));
    text
}

fn serial(number: &BigUint) -> String {
    format!("{number} (0x{number:x})")
}

fn signature(oid: &str) -> String {
    match oid {
        "1.2.840.10045.4.3.2" => "ECDSA-SHA256".to_owned(),
        "1.2.840.10045.4.3.3" => "ECDSA-SHA384".to_owned(),
        "1.2.840.113549.1.1.11" => "SHA256-RSA".to_owned(),
        "1.3.101.112" => "Ed25519".to_owned(),
        other => other.to_owned(),
    }
}

fn key(of: &SubjectPublicKeyInfo<'_>) -> String {
    let head = "        Subject Public Key Info:\n            Public Key Algorithm: ";
    match of.parsed() {
        Ok(PublicKey::EC(point)) => {
            let bits = point.key_size();
            format!(
                "{head}ECDSA\n                Public-Key: ({bits} bit)\n                Point:\n{}",
                hex(point.data(), 20)
            )
        }
        Ok(PublicKey::RSA(key)) => format!("{head}RSA\n                Public-Key: ({} bit)\n", key.key_size()),
        _ => format!("{head}{}\n", of.algorithm.algorithm),
    }
}

fn extension(of: &X509Extension<'_>) -> String {
    let critical = if of.critical { " critical" } else { "" };
    let (name, values) = match of.parsed_extension() {
        ParsedExtension::KeyUsage(usage) => ("X509v3 Key Usage".to_owned(), usage.to_string()),
        ParsedExtension::ExtendedKeyUsage(usage) => {
            let known = [
                (usage.any, "Any Extended Key Usage"),
                (usage.server_auth, "TLS Web Server Authentication"),
                (usage.client_auth, "TLS Web Client Authentication"),
            ];
            let names: Vec<String> = known.iter().filter(|(is, _)| *is).map(|(_, name)| (*name).to_owned()).collect();
            let others = usage.other.iter().map(ToString::to_string);
            ("X509v3 Extended Key Usage".to_owned(), names.into_iter().chain(others).collect::<Vec<_>>().join(", "))
        }
        ParsedExtension::BasicConstraints(constraints) => {
            ("X509v3 Basic Constraints".to_owned(), format!("CA:{}", if constraints.ca { "TRUE" } else { "FALSE" }))
        }
        ParsedExtension::SubjectKeyIdentifier(id) => ("X509v3 Subject Key Identifier".to_owned(), digits(id.0)),
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            let id = id.key_identifier.as_ref().map(|id| format!("keyid:{}", digits(id.0))).unwrap_or_default();
            ("X509v3 Authority Key Identifier".to_owned(), id)
        }
        ParsedExtension::SubjectAlternativeName(names) => {
            let names: Vec<String> = names.general_names.iter().map(general).collect();
            ("X509v3 Subject Alternative Name".to_owned(), names.join(", "))
        }
        _ => (of.oid.to_string(), digits(of.value)),
    };
    format!("            {name}:{critical}\n                {values}\n")
}

fn general(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        other => other.to_string(),
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Lines of bytes, so many blanks before each.
fn hex(bytes: &[u8], indent: usize) -> String {
    let lines: Vec<&[u8]> = bytes.chunks(LINE).collect();
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let line = line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        let _ = writeln!(text, "{:indent$}{line}{}", "", if i + 1 < lines.len() { ":" } else { "" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_told_and_a_ca_is_not() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["web.shop.serviceaccount".to_owned()]).unwrap();
        params.serial_number = Some(4711_u64.into());
        params.not_before = rcgen::date_time_ymd(2026, 11, 6);
        params.not_after = rcgen::date_time_ymd(2026, 11, 27);
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.self_signed(&key).unwrap();
        let mut authority = rcgen::CertificateParams::new(vec![]).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = authority.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let texts = texts(&[leaf.der().to_vec(), authority.der().to_vec()]).unwrap();
        let [text] = texts.as_slice() else { panic!("{texts:?}") };
        let begin = "Certificate:
    Data:
        Version: 3 (0x2)
        Serial Number: 4711 (0x1267)
    Signature Algorithm: ECDSA-SHA256
        Issuer: CN=rcgen self signed cert
        Validity
            Not Before: Nov  6 00:00:00 2026 UTC
            Not After : Nov 27 00:00:00 2026 UTC
        Subject: CN=rcgen self signed cert
        Subject Public Key Info:
            Public Key Algorithm: ECDSA
                Public-Key: (256 bit)
                Point:
                    04:";
        assert!(text.starts_with(begin), "{text}");
        for part in [
            "        X509v3 extensions:\n",
            "            X509v3 Subject Alternative Name:\n                DNS:web.shop.serviceaccount\n",
            "            X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
            "                TLS Web Server Authentication, TLS Web Client Authentication\n",
            "    Signature Algorithm: ECDSA-SHA256\n         30:",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(super::texts(&[vec![1, 2, 3]]).is_err());
    }
}
