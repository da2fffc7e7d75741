//! SHA-256 as text: the names of tokens and folders, and what tells two versions of a file apart.

use std::fmt::Write;

/// In lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The name by which [`weft_cluster::Token`] knows a token: its SHA-256, without white space around it, in hexadecimal digits.
pub fn token_sha256(token: &[u8]) -> String {
    sha256(token.trim_ascii())
}
