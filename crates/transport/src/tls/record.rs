//! TLS 1.3 records, sealed and opened with the traffic keys that the handshake has agreed on (RFC 8446 5.2).
//!
//! rustls does the handshake and derives every key; here is only the protection of records, so that bytes go from the
//! application's buffer into the record that is written, and from the record that was read into the application's
//! buffer, without a copy between.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::{
    ConnectionTrafficSecrets, Error,
    crypto::cipher::{Iv, Nonce, make_tls13_aad},
};
use std::io::IoSlice;

pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// The content type, which travels inside.
const KIND: usize = 1;
/// What a record has beside its content.
pub(super) const OVERHEAD: usize = HEADER + KIND + TAG;
/// The most content of a record.
pub(super) const MAX_CONTENT: usize = 1 << 14;
/// The longest record that may be received.
const MAX_CIPHERTEXT: usize = MAX_CONTENT + 256;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

/// The key of one direction and the number of the next record.
pub(super) struct Key {
    key: LessSafeKey,
    iv: Iv,
    sequence: u64,
}

impl Key {
    /// # Errors
    /// The key has a wrong length, which rustls does not make.
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("unknown cipher".to_owned())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// How many records this key has protected.
    pub(super) fn used(&self) -> u64 {
        self.sequence
    }

    fn nonce(&mut self) -> Result<aead::Nonce, Error> {
        // A number is never used twice: it ends before it would wrap, and in truth the key is replaced long before.
        let next = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, self.sequence).0);
        self.sequence = next;
        Ok(nonce)
    }

    /// Writes a record with `content` to the front of `out` and says how long it is.
    ///
    /// # Errors
    /// `out` is shorter than the record.
    pub(super) fn seal(&mut self, kind: Kind, content: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (header, body, tail, total) = layout(content.len(), out)?;
        let nonce = self.nonce()?;
        let aad = Aad::from(*header);
        self.key
            .seal_out_of_place_scatter(nonce, aad, content, body, &[kind as u8], tail)
            .map_err(|_| Error::EncryptError)?;
        Ok(total)
    }

    /// As [`Key::seal`], of the first `length` bytes of data in `first` and then `behind`.
    ///
    /// # Errors
    /// As [`Key::seal`].
    pub(super) fn seal_slices(
        &mut self,
        first: &[u8],
        behind: &[IoSlice<'_>],
        length: usize,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (header, body, tail, total) = layout(length, out)?;
        let mut rest = &mut *body;
        for slice in std::iter::once(first).chain(behind.iter().map(|slice| &**slice)) {
            let n = slice.len().min(rest.len());
            let (front, after) = rest.split_at_mut(n);
            front.copy_from_slice(slice.get(..n).unwrap_or_default());
            rest = after;
        }
        let nonce = self.nonce()?;
        let aad = Aad::from(*header);
        self.key.seal_in_place_scatter(nonce, aad, body, &[Kind::Data as u8], tail).map_err(|_| Error::EncryptError)?;
        Ok(total)
    }

    /// Opens a record's ciphertext into `out`, which has [`Record::plain_len`] bytes, and says how much is content of which kind.
    ///
    /// # Errors
    /// It was not sealed with this key under this number.
    pub(super) fn open(&mut self, record: &Record, ciphertext: &[u8], out: &mut [u8]) -> Result<(u8, usize), Error> {
        let (ciphertext, tag) = ciphertext.split_at_checked(record.plain_len()).ok_or(Error::DecryptError)?;
        let nonce = self.nonce()?;
        self.key.open_separate_gather(nonce, record.aad(), ciphertext, tag, out).map_err(|_| Error::DecryptError)?;
        unpadded(out)
    }

    /// As [`Key::open`], within the buffer in which the ciphertext is.
    ///
    /// # Errors
    /// As [`Key::open`].
    pub(super) fn open_in_place(&mut self, record: &Record, ciphertext: &mut [u8]) -> Result<(u8, usize), Error> {
        let nonce = self.nonce()?;
        let plain = self.key.open_in_place(nonce, record.aad(), ciphertext).map_err(|_| Error::DecryptError)?;
        unpadded(plain)
    }
}

/// The parts of a record of `length` bytes of content in `out`: header (written), content, kind and tag.
#[expect(clippy::type_complexity, reason = "three parts of one slice and their sum")]
fn layout(length: usize, out: &mut [u8]) -> Result<(&mut [u8; HEADER], &mut [u8], &mut [u8], usize), Error> {
    let total = length + OVERHEAD;
    let out = out.get_mut(..total).ok_or(Error::EncryptError)?;
    let (header, rest) = out.split_first_chunk_mut::<HEADER>().ok_or(Error::EncryptError)?;
    let (body, tail) = rest.split_at_mut_checked(length).ok_or(Error::EncryptError)?;
    if length > MAX_CONTENT {
        return Err(Error::EncryptError);
    }
    *header = make_tls13_aad(length + KIND + TAG);
    Ok((header, body, tail, total))
}

/// The content ends before its kind, which is the last byte that is not zero.
fn unpadded(plain: &[u8]) -> Result<(u8, usize), Error> {
    let at = plain.iter().rposition(|b| *b != 0).ok_or(rustls::PeerMisbehaved::IllegalTlsInnerPlaintext)?;
    if at > MAX_CONTENT {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok((plain.get(at).copied().unwrap_or_default(), at))
}

/// The header of a received record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    ciphertext: usize,
}

impl Record {
    /// Reads the header at the front of `bytes`; `None` if it is not there in full.
    ///
    /// # Errors
    /// After the handshake no other records may come.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let Some([kind, _major, _minor, length @ ..]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let ciphertext = usize::from(u16::from_be_bytes(*length));
        if *kind != Kind::Data as u8 {
            return Err(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
        }
        if ciphertext > MAX_CIPHERTEXT {
            return Err(Error::PeerSentOversizedRecord);
        }
        if ciphertext < KIND + TAG {
            return Err(Error::DecryptError);
        }
        Ok(Some(Self { ciphertext }))
    }

    /// With the header.
    pub(super) fn total(self) -> usize {
        HEADER + self.ciphertext
    }

    /// Content, kind and padding.
    pub(super) fn plain_len(self) -> usize {
        self.ciphertext - TAG
    }

    fn aad(self) -> Aad<[u8; HEADER]> {
        Aad::from(make_tls13_aad(self.ciphertext))
    }
}
